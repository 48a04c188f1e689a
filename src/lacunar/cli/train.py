"""``lacunar train``: from a description of data to a tested model and a report, in one command."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacunar.cli.console import say, show_log, show_progress
from lacunar.cli.options import import_from_here, instantiate, make_parser, parse
from lacunar.cli.source import COMMAND, DESCRIPTION, description_of, load_parts, parse_rates
from lacunar.errors import ConfigError, RunError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from lacunar.data.splits import Splits
    from lacunar.evaluation import SubsetTable
    from lacunar.training.run import Run

__all__ = ["evaluate_once", "hashes", "probe", "run", "show", "trainer_options", "with_hidden"]

#: Times during training at which encoders are probed.
SNAPSHOTS = 8
#: Options that say which data a run is about; a rerun must not change them.
ABOUT_DATA = ("data", "split_seed", "rates", "law", "rates_seed")


def trainer_options(
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    schedule: str = "one-cycle",
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str = "auto",
    precision: str = "32-true",
    accumulate: int = 1,
    gradient_clip: float | None = 1.0,
    patience: int | None = None,
    average: float | None = 0.99,
    validate_every: int = 1,
    select: str = "best",
    num_workers: int = 0,
    tensorboard: bool = False,
    snapshots: int = 0,
    experts: bool | None = None,
) -> dict[str, Any]:
    """The arguments of :func:`lacunar.fit` that the command line offers, without importing what trains.

    Args:
        max_epochs: passes over the training samples; 40 when left out
        batch_size: most samples in a batch; 16 to 128 by the number of samples when left out
        lr: highest learning rate
        weight_decay: of weight matrices
        schedule: of the learning rate: one-cycle, cosine or constant
        seed: of everything random in training
        accelerator: where to compute: auto, cpu, gpu, mps
        devices: how many, or which
        strategy: how several devices share the work: auto, ddp, fsdp
        precision: 32-true, bf16-mixed, 16-mixed, ...
        accumulate: batches whose gradients are added up before a step
        gradient_clip: largest norm of the gradient; null does not clip
        patience: epochs without a better validation after which to stop; null trains all of them
        average: decay per step of the averaged weights; null uses the weights as they are
        validate_every: epochs from one validation to the next
        select: the epoch of the best validated score, of the lowest loss (loss), or the last
        num_workers: processes that load batches
        tensorboard: also write TensorBoard events
        snapshots: how many evenly spaced epochs' weights to keep, for --probes; 8 with --probes when 0
        experts: keep the single-modality models as experts at prediction; chosen by the objective when left out
    """
    return dict(locals())


def model_options(features: int | None = None, dropout: float = 0.4, noise: float = 0.3) -> dict[str, Any]:
    """The arguments of :func:`lacunar.default_model` that the command line offers.

    Args:
        features: width of every modality's features; chosen by the task when left out
        dropout: of encoders, completion and head
        noise: standard deviation of the noise on standardised inputs in training
    """
    return dict(locals())


def parser() -> ArgumentParser:
    """The options of the command."""
    from lacunar.objectives import Objective, available

    available()  # short names of classes resolve once their modules are imported
    made = make_parser("train", "Train one model for every subset of modalities, test it once, write a report.")
    made.add_argument("--config", action="config", help="a recipe: these options in a YAML file")
    made.add_argument("--data", type=str, help="a YAML description, or the name of a data set (digits, htad:FOLDER)")
    made.add_argument("--out", type=str, help="folder of the run; the same command goes on with what is there")
    known = ", ".join(name for name in available())
    made.add_argument(
        "--objective", type=Objective, default=None, help=f"training method: {known}, or package.module.Class"
    )
    made.add_argument("--make_model", type=str, default=None, help="package.module.function from train data to a model")
    made.add_function_arguments(model_options, "model", as_group=True)
    made.add_function_arguments(trainer_options, "trainer", as_group=True)
    made.add_argument(
        "--split_seed", type=int, default=0, help="seed of the split, where the data do not come with their own parts"
    )
    made.add_argument(
        "--rates", type=dict[str, float] | float | str | None, default=None,
        help="hide cells of train and validation samples for an experiment: 'audio=.8,image=.2' (fractions absent)",
    )  # fmt: skip
    made.add_argument("--law", type=str, default="independent", help="how cells are drawn, see lacunar.draw_presence")
    made.add_argument("--rates_seed", type=int, default=0, help="seed of the draw")
    made.add_argument(
        "--probes",
        type=bool,
        default=False,
        help="also probe each encoder, at the end and at several times during training (takes a while)",
    )
    made.add_argument("--min_cell", type=int, default=0, help="hide counts from 1 to one below this in the report")
    made.add_argument("--resume", type=bool, default=True, help="false replaces what the folder holds")
    made.add_argument("--quiet", type=bool, default=False, help="say only what came out")
    return made


def run(words: Sequence[str]) -> int:
    """Train, evaluate on the test samples, save, report."""
    from lacunar.objectives import Objective

    import_from_here()
    reader = parser()
    options = parse(reader, words, Objective)
    for name, example in (("data", "patients.yaml"), ("out", "runs/mce")):
        if not getattr(options, name):
            raise ConfigError(f"--{name} is needed, for example --{name} {example}.")

    show_log(options.quiet)
    rates = parse_rates(options.rates)
    folder = Path(options.out)
    about = {name: getattr(options, name) for name in ABOUT_DATA} | {"rates": rates}
    about["data"] = _absolute(options.data)
    _check_same_data(folder, about, options.resume)
    objective = instantiate(reader, options).objective
    data = with_hidden(load_parts(options.data, options.split_seed), about)
    model = _model(options, data)

    from lacunar.parallel import process_rank
    from lacunar.training.files import write_json
    from lacunar.training.fit import fit

    trainer = dict(vars(options.trainer))
    if options.probes:
        trainer["snapshots"] = trainer["snapshots"] or SNAPSHOTS
    finished = fit(
        data,
        model,
        objective,
        out=folder,
        resume=options.resume,
        progress=not options.quiet or show_progress(),
        **trainer,
    )
    if trainer["devices"] != 1 and process_rank() > 0:
        return 0  # the first process evaluates and writes
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / COMMAND, {**about, "parts": hashes(data)})
    description = description_of(options.data)
    if description is not None:
        write_json(folder / DESCRIPTION, description.resolved(description.read()).to_dict())
    data.presence.save(folder / "presence.csv")
    table = evaluate_once(finished, data, folder)
    if options.probes:
        probe(finished, data, folder)
    from lacunar.report import report

    page = report(finished, table, data, min_cell=options.min_cell)
    show(table)
    say("", f"model   {folder / 'model'}", f"report  {page}")
    return 0


def with_hidden(data: Splits, about: Mapping[str, Any]) -> Splits:
    """The parts with the cells hidden that ``--rates``, ``--law`` and ``--rates_seed`` name."""
    from lacunar.data.presence import LAWS

    law = about["law"]
    if law not in LAWS:
        raise ConfigError(f"--law: unknown law {law!r}.{did_you_mean(law, LAWS)}")
    if law in ("not-at-random", "table"):
        needs = "a driver" if law == "not-at-random" else "a table of presence"
        raise ConfigError(f"--law {law} needs {needs}, which only Python can give: Splits.hide(law={law!r}, ...).")
    if about["rates"] is None and law != "uniform-pattern":
        if law != "independent":
            raise ConfigError(f"--law {law} needs --rates: how much of each modality to hide.")
        return data
    return data.hide(about["rates"], law, seed=about["rates_seed"])


def hashes(data: Splits) -> dict[str, str]:
    """What tells the parts of a run from others: a hash of ids, presence, targets and values of each."""
    from lacunar.training.folder import describe_data

    return {name: describe_data(part)["hash"] for name, part in data.parts.items()}


def evaluate_once(finished: Run, data: Any, folder: Path) -> SubsetTable:
    """The scores on the test samples; a run that was scored before is not scored again.

    Validation samples stand in, and are called so, where there is no test part.
    """
    from lacunar.errors import DataError
    from lacunar.evaluation import SubsetTable, evaluate, reliability
    from lacunar.report.summary import DataSummary
    from lacunar.report.write import DATA_FILE, TABLE_FILE, keep_frame

    part = data.val if data.test is None else data.test
    kept = folder / TABLE_FILE
    if _kept(folder, TABLE_FILE):
        table = SubsetTable.load(kept)
        if table.names == data.names and table.ids.tolist() == part.ids.tolist():
            return table
    table = evaluate(finished.model, part, references=finished.references)
    if data.test is None:
        asked = finished.config["asked"]
        chosen = ", on which the epoch was chosen" if asked["select"] != "last" or asked["patience"] else ""
        table.notes.append(f"these are validation samples{chosen}: the data have no test part")
    DataSummary.of(data).save(folder / DATA_FILE)
    if part.subgroups is not None and len(part.subgroups.columns):
        keep_frame(folder, "subgroups", table.by_subgroup(part.subgroups))
    with contextlib.suppress(DataError):  # numbers and label maps have no probabilities of this kind
        keep_frame(folder, "calibration", reliability(finished.model, part))
    table.save(kept)  # last: its presence says that the others are there
    return table


def show(table: SubsetTable) -> None:
    """Print the scores of every subset."""
    say("", *str(table).splitlines())


def _model(options: Any, data: Any) -> Any:
    import importlib

    import torch

    from lacunar.training.sampler import derive_seed

    torch.manual_seed(derive_seed(options.trainer.seed, "setup"))  # the weights that fit itself would begin with
    if options.make_model is None:
        from lacunar.models.defaults import default_model

        return default_model(data.train, **vars(options.model))

    given = [name for name, value in vars(options.model).items() if value != model_options()[name]]
    if given:
        raise ConfigError(f"--model.{given[0]} is for the default model; --make_model makes its own.")
    module, _, name = options.make_model.rpartition(".")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--make_model {options.make_model}: cannot be imported ({error}).") from error
    return make(data.train)


def _kept(folder: Path, name: str) -> bool:
    """Whether a file was made from what the folder holds now, and not from a run that was replaced."""
    path, result = folder / name, folder / "result.json"
    return path.exists() and result.exists() and path.stat().st_mtime >= result.stat().st_mtime


def _absolute(data: str) -> str:
    return str(Path(data).resolve()) if Path(data).is_file() else data  # a folder may be called like a data set


def _check_same_data(folder: Path, about: Mapping[str, Any], resume: bool) -> None:
    path = folder / COMMAND
    if not resume or not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} cannot be read ({error}); --resume false makes the run anew.") from error
    changed = [name for name in ABOUT_DATA if before.get(name) != about[name]]
    if changed:
        listing = "; ".join(f"--{name} was {before.get(name)!r}, is {about[name]!r}" for name in changed)
        raise RunError(
            f"{folder} holds a run on other data: {listing}. Use another --out, the same options to go on, or "
            "--resume false to replace that run."
        )


def probe(finished: Run, data: Any, folder: Path) -> None:
    """Probe each encoder, now and during training, and measure the fused features, once; the folder keeps it."""
    from lacunar.errors import LacunarError
    from lacunar.evaluation import capability, capability_trajectory, representation_quality
    from lacunar.evaluation.outputs import joint_model
    from lacunar.report.write import keep_frame

    part = "val" if data.test is None else "test"
    if not _kept(folder, "trajectory.csv") and len(finished.snapshots):
        keep_frame(folder, "trajectory", capability_trajectory(finished.snapshots, data, joint_model(finished.model)))
    if not _kept(folder, "probes.csv"):
        keep_frame(folder, "probes", capability(finished.model, data, part=part))
        try:
            keep_frame(folder, "representation", representation_quality(finished.model, getattr(data, part)))
        except LacunarError as error:
            say(f"representation quality is left out: {error}")
