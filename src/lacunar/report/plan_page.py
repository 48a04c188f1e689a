"""From a plan to a page that somebody who decides about money can read, with all that an auditor would ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lacunar.errors import ConfigError
from lacunar.report.page import Column, Entries, Page, Row, Section, Table
from lacunar.report.plan_backtest import backtest_section
from lacunar.report.plan_measured import curve_section, fairness_section, rehearsal_section, utility_section
from lacunar.report.plan_sections import comparison_section, flip_section, order_section, why_section
from lacunar.report.plan_words import headline, sentence, tiles, verdict
from lacunar.report.write import _write

if TYPE_CHECKING:
    from lacunar.planning.backtest import Backtest
    from lacunar.planning.result import Plan

__all__ = ["plan_report"]


def plan_report(
    plan: Plan | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    backtest: Backtest | None = None,
    title: str | None = None,
) -> Path:
    """Write a plan as one HTML file that needs nothing beside it: no script, no font, no network.

    The same plan gives the same file, byte for byte.

    Args:
        plan: what :func:`lacunar.plan` returned, or the path of its ``plan.json``.
        path: the file to write; ``plan.html`` beside the plan's file when left out.
        backtest: what :func:`lacunar.backtest` found for the same modalities, to be shown below the plan.
        title: heading of the page; the recommendation in a few words when left out.

    Returns:
        The path of the file.

    Raises:
        ConfigError: a plan that is not a file and no path, or a backtest of other modalities.
        RunError: the file holds no plan.
    """
    from lacunar.planning.result import Plan

    if not isinstance(plan, Plan):
        path = Path(plan).with_name("plan.html") if path is None else path
        plan = Plan.load(plan)
    if path is None:
        raise ConfigError("plan_report: give path=, the file to write.")
    if backtest is not None and set(backtest.config["data"]["modalities"]) != set(plan.names):
        raise ConfigError(
            f"plan_report: expected a backtest of the modalities {', '.join(plan.names)}, got one of "
            f"{', '.join(backtest.config['data']['modalities'])}."
        )
    sections = [
        why_section(plan), order_section(plan), comparison_section(plan), flip_section(plan), curve_section(plan),
        rehearsal_section(plan), fairness_section(plan),
    ]  # fmt: skip
    if backtest is not None:
        sections.append(backtest_section(backtest, plan.strategy))
    sections += [
        _entries("assumptions", "What this rests on", plan.assumptions),
        _entries("notes", "What else to know", plan.notes),
        utility_section(plan),
        _audit(plan, backtest),
    ]
    page = Page(
        title or headline(plan), verdict(plan), plan.names, tiles(plan),
        [section for section in sections if section.blocks],
        f"Made by lacunar {plan.audit.get('versions', {}).get('lacunar', '')}. One file, no network, no script.",
        "lacunar plan",
    )  # fmt: skip
    return _write(Path(path), page.html())


def _entries(anchor: str, title: str, texts: list[str]) -> Section:
    return Section(anchor, title, [Entries([sentence(text) for text in texts])] if texts else [])


def _audit(plan: Plan, backtest: Backtest | None) -> Section:
    """What to compare when a number differs."""
    audit = plan.audit
    data = audit.get("data", {})
    facts = {
        "strategy": plan.strategy,
        "metric": f"{plan.metric}, higher is better",
        "model": audit.get("model"),
        "what fills gaps": audit.get("completer"),
        "utilities by": audit.get("estimator"),
        "options of the training": ", ".join(f"{key} {value}" for key, value in audit.get("fit", {}).items()),
        "samples of the pilot": data.get("samples"),
        "observed": ", ".join(f"{name} {count}" for name, count in data.get("observed", {}).items()),
        "task": data.get("task"),
        "models trained": audit.get("trainings"),
        "seconds": f"{audit.get('seconds', 0.0):.1f}",
        "seeds": ", ".join(map(str, audit.get("seeds", []))),
        "bootstrap draws": f"{audit.get('draws')}, seed {audit.get('seed')}",
        "smallest gain worth buying for": f"{plan.min_gain:g}",
        "made": audit.get("created"),
        "data, SHA-256": data.get("hash"),
        "split, SHA-256": audit.get("split_hash"),
        "utilities, SHA-256": audit.get("utilities_hash"),
        "plan, SHA-256": plan.hash,
    }
    if backtest is not None:
        facts["data of the backtest, SHA-256"] = backtest.config["data"].get("hash")
    facts |= {f"version of {name}": value for name, value in audit.get("versions", {}).items()}
    rows = [Row([name, str(value)]) for name, value in facts.items() if value not in (None, "")]
    columns = [Column("what", False), Column("value", False)]
    table = Table("How these numbers were made. plan.json holds all of it, and every number above", columns, rows)
    return Section("audit", "For the auditor", [table])
