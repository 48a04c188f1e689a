"""``lacunar plan``: from a pilot, prices and a budget to what to collect next, in one command."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacunar.cli.console import say, show_log
from lacunar.cli.options import import_from_here, parse
from lacunar.cli.plan_options import parser
from lacunar.errors import ConfigError, LacunarError, MissingExtraError

if TYPE_CHECKING:
    from lacunar.planning.backtest import Backtest
    from lacunar.planning.costs import CostModel

__all__ = ["run"]

PLAN, PAGE, BACKTEST = "plan.json", "plan.html", "backtest"
#: Share of the complete samples that a backtest scores by.
TEST = 0.3
#: Complete samples below which a pilot cannot be cut into parts to train, select and score on.
SMALLEST = 20


def run(words: Sequence[str]) -> int:
    """Plan, print the plan, write page and JSON; on request backtest."""
    import_from_here()
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _run(words)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"lacunar: {message}", file=sys.stderr)


def _run(words: Sequence[str]) -> int:
    options = parse(parser(), words)
    for name, example in (("data", "patients.yaml"), ("costs", "costs.yaml")):
        if not getattr(options, name):
            raise ConfigError(f"--{name} is needed, for example --{name} {example}.")
    out = None if options.out is None else Path(options.out)
    _check(options, out)
    show_log(options.quiet)
    # Curves are read far beyond what is bought, to see what would change it; the plan's notes say what concerns it.
    logging.getLogger("lacunar.planning.curves").setLevel(logging.WARNING)

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
    budget = _backtest_budget(options, data) if options.backtest else None
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
    if budget is not None:
        try:
            found = _backtest(options, data, costs, budget, rules, out, shared)
        except LacunarError as error:
            # That a package is missing is told by its name, not by a message.
            kind = LacunarError if isinstance(error, MissingExtraError) else type(error)
            raise kind(f"The plan is made; its backtest failed: {error}") from error
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


def _backtest_budget(options: Any, data: Any) -> float:
    """What each rule spends in a backtest: as much for each sample of its pilot as the plan has for each real one.

    Raises:
        ConfigError: the pilot of the backtest would be too small to plan from.
    """
    from lacunar.planning.estimate_pilot import pilot_of

    complete = int(pilot_of(data).present.all(dim=1).sum())
    pilot = max(2, round(options.available * (1 - TEST) * complete))
    if pilot < SMALLEST:
        raise ConfigError(
            f"--backtest: of {complete} complete samples {pilot} would be its pilot, and to plan from takes "
            f"{SMALLEST}. Raise --available, or leave --backtest out."
        )
    if options.backtest_budget is not None:
        return float(options.backtest_budget)
    return float(f"{options.budget * pilot / complete:.3g}")


def _backtest(
    options: Any, data: Any, costs: CostModel, budget: float, rules: list[str] | None, out: Path | None, shared: Any
) -> Backtest:
    from lacunar.planning.backtest import STRATEGIES, backtest
    from lacunar.planning.estimate_pilot import describe_pilot, pilot_of

    chosen = rules or list(STRATEGIES)
    asked: dict[str, Any] = {
        name: str(value) for name, value in shared.items() if name not in ("make_model", "n_jobs", "progress")
    }
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
