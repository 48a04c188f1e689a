"""``lacunar plan``: from a pilot, prices and a budget to what to collect next, in one command."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacunar.cli.console import say, show_log
from lacunar.cli.options import make_parser, parse
from lacunar.errors import ConfigError, LacunarError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from lacunar.planning.backtest import Backtest
    from lacunar.planning.costs import CostModel

__all__ = ["run"]

PLAN, PAGE, BACKTEST = "plan.json", "plan.html", "backtest"
#: Share of the complete samples that a backtest scores by.
TEST = 0.3


def fit_options(
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    accelerator: str | None = None,
    patience: int | None = None,
) -> dict[str, Any]:
    """How networks are trained; what is left out is as in lacunar train.

    Args:
        max_epochs: passes over the training samples
        batch_size: most samples in a batch
        lr: highest learning rate
        weight_decay: of weight matrices
        accelerator: where to compute: auto, cpu, gpu, mps
        patience: epochs without a better validation after which to stop
    """
    return {name: value for name, value in locals().items() if value is not None}


def parser() -> ArgumentParser:
    """The options of the command."""
    made = make_parser(
        "plan", "Which modalities to collect next, how many, and whether generating the rest helps. Writes one page "
        "for whoever decides and plan.json for whoever checks.",
    )  # fmt: skip
    made.add_argument("--config", action="config", help="these options in a YAML file")
    made.add_argument("--data", type=str, help="the pilot: a YAML description, or the name of a data set (digits)")
    made.add_argument("--costs", type=str, help="YAML file: a price per cell for each modality, and more if you like")
    made.add_argument("--budget", type=float | None, default=None, help="what can be spent; this or --target")
    made.add_argument(
        "--target", type=float | None, default=None, help="the score to reach, losses negated; this or --budget"
    )
    made.add_argument("--out", type=str | None, default=None, help="folder for plan.html and plan.json")
    made.add_argument(
        "--model", type=str, default="auto",
        help="linear (seconds), boosting, default (the network of lacunar train: minutes to hours), "
        "package.module.function, or auto: linear where every modality is columns, else default",
    )  # fmt: skip
    made.add_argument(
        "--strategy", type=str, default="rehearsal",
        help="rehearsal, sk-ll, utility-per-cost, even, best-single, random",
    )  # fmt: skip
    made.add_argument("--metric", type=str | None, default=None, help="accuracy, log_loss, f1, r2, mae, ...")
    made.add_argument("--completer", type=str, default="ridge", help="what generates the rest: ridge, knn, mean, ...")
    made.add_argument("--seeds", type=int, default=5, help="repeats of everything that is measured")
    made.add_argument("--n_jobs", type=int, default=1, help="models trained at a time")
    made.add_argument("--top", type=int, default=3, help="how many combinations are rehearsed, all together aside")
    made.add_argument("--min_gain", type=float, default=0.0, help="the smallest gain worth buying for")
    made.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals")
    made.add_argument("--assurance", type=float, default=0.5, help="how surely a target is to be reached")
    made.add_argument("--estimator", type=str | None, default=None, help="of the utilities: retrain or amortised")
    made.add_argument(
        "--subgroups", type=str | None, default=None,
        help="attributes to report by, between commas; all of the data's when left out, none for 'none'",
    )  # fmt: skip
    made.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    made.add_argument("--seed", type=int, default=0, help="of the draws")
    made.add_argument("--split_seed", type=int, default=0, help="seed of the split, where the data name one")
    made.add_argument(
        "--backtest", type=bool, nargs="?", const=True, default=False,
        help="also try the rules on samples whose values are known: hide some, let each rule buy, and compare",
    )  # fmt: skip
    made.add_argument(
        "--strategies", type=str | None, default=None, help="rules to backtest, between commas; all when left out"
    )
    made.add_argument("--available", type=float, default=0.3, help="backtest: share of its samples that is the pilot")
    made.add_argument(
        "--backtest_budget", type=float | None, default=None,
        help="backtest: what each rule spends; when left out the budget in proportion to its smaller pilot",
    )  # fmt: skip
    made.add_function_arguments(fit_options, "fit", as_group=True)
    made.add_argument("--quiet", type=bool, nargs="?", const=True, default=False, help="say only what came out")
    return made


def run(words: Sequence[str]) -> int:
    """Plan, print the plan, write page and JSON; on request backtest."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # models of the user's own lie where the command is run
    options = parse(parser(), words)
    for name, example in (("data", "patients.yaml"), ("costs", "costs.yaml")):
        if not getattr(options, name):
            raise ConfigError(f"--{name} is needed, for example --{name} {example}.")
    out = None if options.out is None else Path(options.out)
    _check(options, out)
    show_log(options.quiet)

    from lacunar import generation
    from lacunar.planning import strategies
    from lacunar.planning.costs import CostModel

    strategies.get(options.strategy)
    rules = _names(options.strategies)
    for name in rules or ():
        strategies.get(name)
    generation.get(options.completer)
    costs = CostModel.read(options.costs)
    data = _pilot(options.data, options.split_seed)
    costs.check(data.names)
    fit = {name: value for name, value in vars(options.fit).items() if value is not None}
    from lacunar.cli.plan_models import chosen_model

    make_model = chosen_model(options.model, data)
    if fit and make_model is not None and getattr(make_model, "__module__", "") == "lacunar.cli.plan_models":
        raise ConfigError(f"--fit.{next(iter(fit))} is about networks; use it with --model default.")
    shared = {
        "make_model": make_model, "metric": options.metric, "completer": options.completer, "n_jobs": options.n_jobs,
        "fit": fit, "seeds": options.seeds, "min_gain": options.min_gain, "confidence": options.confidence,
        "top": options.top, "progress": not options.quiet,
    }  # fmt: skip
    budget = None
    if options.backtest:
        budget = options.backtest_budget or _scaled(options, data)
    subgroups: Any = _names(options.subgroups)
    if options.subgroups == "none":
        subgroups = False

    from lacunar.planning.plan import plan

    made = plan(
        data, costs, options.budget, target=options.target, strategy=options.strategy, estimator=options.estimator,
        assurance=options.assurance, subgroups=subgroups, draws=options.draws, seed=options.seed, out=out, **shared,
    )  # fmt: skip
    _show(str(made))
    page = None
    if out is not None:
        from lacunar.report import plan_report

        page = plan_report(made, out / PAGE)
        say("", f"plan    {out / PLAN}", f"page    {page}")
    else:
        say("", "Nothing was written. With --out FOLDER there is a page to show and a file to check.")
    if options.backtest:
        assert budget is not None
        try:
            found = _backtest(options, data, costs, budget, rules, out, shared)
        except LacunarError as error:
            raise type(error)(f"The plan is made; its backtest failed: {error}") from error
        say("", *str(found).splitlines())
        if out is not None:
            _keep(found, out)
            plan_report(made, out / PAGE, backtest=found)
            say("", f"backtest {out / BACKTEST}.json, .csv; the page shows it")
    return 0


def _check(options: Any, out: Path | None) -> None:
    """What can be told before anything is read."""
    if (options.budget is None) == (options.target is None):
        got = "both" if options.budget is not None else "neither"
        raise ConfigError(f"expected either --budget, what can be spent, or --target, the score to reach; got {got}.")
    for name in ("budget", "backtest_budget"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"--{name}: expected an amount from 0 up, got {value:g}.")
    if options.seeds < 1 or (options.backtest and options.seeds < 2):
        least = 2 if options.backtest else 1
        raise ConfigError(f"--seeds: expected a whole number of at least {least}, got {options.seeds}.")
    if options.backtest and options.backtest_budget is None and not options.budget:
        raise ConfigError("--backtest needs money to spend: give --budget above 0, or --backtest_budget.")
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file; expected a folder, or a path that does not exist.")


def _pilot(data: str, seed: int) -> Any:
    """The pilot. Where a description names its parts, the test part stays unread; where it does not, all of it."""
    from lacunar.cli.source import description_of, load_parts, load_whole

    description = description_of(data)
    if description is not None and description.splits is not None:
        return load_parts(data, seed)
    return load_whole(data)


def _scaled(options: Any, data: Any) -> float:
    """The budget for a backtest: as much for each sample of its pilot as the plan has for each of the real one."""
    from lacunar.planning.estimate_pilot import pilot_of

    complete = int(pilot_of(data).present.all(dim=1).sum())
    pilot = max(2, round(options.available * (1 - TEST) * complete))
    return float(f"{options.budget * pilot / max(complete, 1):.3g}")


def _backtest(
    options: Any, data: Any, costs: CostModel, budget: float, rules: list[str] | None, out: Path | None, shared: Any
) -> Backtest:
    from lacunar.planning.backtest import STRATEGIES, backtest
    from lacunar.planning.estimate_pilot import describe_pilot, pilot_of

    chosen = rules or list(STRATEGIES)
    asked = {name: str(value) for name, value in shared.items() if name not in ("make_model", "n_jobs", "progress")}
    asked |= {"model": options.model, "available": options.available, "budget": budget, "rules": chosen}
    about = json.dumps([describe_pilot(pilot_of(data)), costs.to_dict(), asked], sort_keys=True)
    key = hashlib.sha256(about.encode()).hexdigest()[:12]
    return backtest(
        data, costs, budget, strategies=chosen, available=options.available, test=TEST, repeats=options.seeds,
        estimator=options.estimator or "retrain", out=None if out is None else out / BACKTEST / key, **shared,
    )  # fmt: skip


def _keep(found: Backtest, out: Path) -> None:
    from lacunar.training.files import write_whole

    found.save(out / f"{BACKTEST}.json")
    text = found.frame.to_csv(index=False)
    write_whole(out / f"{BACKTEST}.csv", lambda file: file.write(text.encode()))


def _names(given: str | None) -> list[str] | None:
    """Names between commas."""
    if given is None:
        return None
    return [name.strip() for name in given.split(",") if name.strip()]


def _show(text: str) -> None:
    """A plan for a terminal: the recommendation stands out."""
    for line in text.splitlines():
        lead = line.startswith("COLLECT") or (bool(line) and line in HEADINGS)
        say(line, style="bold" if lead else None)


HEADINGS = ("Compared", "What would change it", "By subgroup", "Assumed", "Notes")
