"""``lacunar evaluate``: the scores of a trained model on every subset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacunar.cli.console import say, show_log
from lacunar.cli.options import make_parser, parse
from lacunar.cli.source import COMMAND, load_parts, new_data, split_like
from lacunar.errors import ConfigError, RunError, did_you_mean

if TYPE_CHECKING:
    from lacunar.data.splits import Splits

__all__ = ["parts_of", "run"]

PARTS = ("train", "val", "test")


def run(words: Sequence[str]) -> int:
    """Score a run on its own test samples, or on other data."""
    parser = make_parser("evaluate", "Score a trained model on every subset of its modalities.")
    parser.add_argument("run", type=str, help="folder of a run")
    parser.add_argument(
        "--data", type=str, help="other data: a YAML description, a table with the same columns, a name"
    )
    parser.add_argument("--split", type=str, help="train, val or test (default: test of the run's own data)")
    parser.add_argument("--out", type=str, help="write the table here: .json with everything, .csv the numbers")
    parser.add_argument("--common_rows", type=bool, default=False, help="only samples that have every modality")
    parser.add_argument("--resample", type=str, default="samples", help="what the bootstrap draws: samples or groups")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for the intervals")
    parser.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals")
    parser.add_argument(
        "--batch_size", type=int | None, default=None, help="samples at a time; chosen by their size when left out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    options = parse(parser, words)
    if options.split is not None and options.split not in PARTS:
        raise ConfigError(f"--split: unknown part {options.split!r}.{did_you_mean(options.split, PARTS)}")
    if options.out is not None and Path(options.out).suffix not in (".json", ".csv"):
        raise ConfigError(f"--out: expected a path that ends in .json or .csv, got {options.out!r}.")
    show_log(quiet=True)

    from lacunar.evaluation import evaluate
    from lacunar.prediction import align
    from lacunar.training.files import write_whole
    from lacunar.training.run import load_run

    finished = load_run(options.run)
    names: Any = finished.model.names
    data = align(_data(finished, options), names)
    table = evaluate(
        finished.model, data, options.batch_size, references=finished.references, common_rows=options.common_rows,
        resample=options.resample, bootstrap=options.bootstrap, confidence=options.confidence, seed=options.seed,
    )  # fmt: skip
    say(*str(table).splitlines())
    if options.out is not None:
        target = Path(options.out)
        if target.suffix == ".json":
            table.save(target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, lambda file: table.frame.to_csv(file))
        say("", f"table   {target}")
    return 0


def parts_of(folder: Path) -> Splits:
    """The data that a run was made from, with the same split and the same hidden cells.

    Raises:
        RunError: the run was not made by the command line, or its data have changed.
    """
    from lacunar.cli.train import hashes, with_hidden

    path = folder / COMMAND
    if not path.exists():
        raise RunError(f"{folder} does not say what data it was made from: give --data.")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        data = with_hidden(load_parts(about["data"], about["split_seed"]), about)
    except (ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise RunError(f"{path} cannot be used ({error}).") from error
    now = hashes(data)
    changed = [name for name, mark in about.get("parts", {}).items() if now.get(name) != mark]
    if changed:
        raise RunError(
            f"The data of {about['data']} have changed since {folder} was made: other samples, labels, values or "
            f"missing cells in {', '.join(changed)}. Restore them, or give --data to score other data on purpose."
        )
    return data


def _data(finished: Any, options: Any) -> Any:
    folder = Path(options.run)
    if options.data is None:
        parts = parts_of(folder)
        chosen = getattr(parts, options.split or "test")
        if chosen is None:
            raise ConfigError("The data have no test part: give --split val, or --data.")
        return chosen
    if options.split is not None:
        chosen = getattr(split_like(folder, options.data), options.split)
        if chosen is None:
            raise ConfigError(f"{options.data} has no {options.split} part.")
        return chosen
    return new_data(options.data, folder, finished.model.task, predict=False)
