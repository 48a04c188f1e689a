"""``lacunar demo``: the embedded data set, end to end, in a few minutes on two cores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lacunar.cli.console import console, say, show_log, show_progress, table
from lacunar.cli.options import make_parser, parse

if TYPE_CHECKING:
    from lacunar.evaluation import SubsetTable

__all__ = ["run"]

#: Fractions absent. Speech is rare, the written word rarer.
RATES = {"seen": 0.2, "heard": 0.5, "read": 0.8}
EPOCHS = 30


def run(words: Sequence[str]) -> int:
    """Train plainly and with MCE on the same incomplete data, compare on every subset, write a report."""
    parser = make_parser("demo", "Train on the embedded digits (seen, heard, read), compare, write a report.")
    parser.add_argument("--out", type=str, default="runs/demo", help="folder; run again to go on, or to see it at once")
    parser.add_argument("--max_epochs", type=int, default=EPOCHS, help="passes over the training samples")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    options = parse(parser, words)
    show_log(quiet=True)
    out = Path(options.out)
    say("Digits, each seen, heard and read. Of the training samples' cells we hide " + _words(RATES) + ".", "")

    from lacunar import __version__
    from lacunar.evaluation import SubsetTable

    page, marker = out / "report.html", out / "demo.json"
    asked = {"max_epochs": options.max_epochs, "seed": options.seed, "lacunar": __version__}
    if page.exists() and marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == asked:
        say("This was done before; here is what came out.")
        _show(*(SubsetTable.load(out / name / "subsets.json") for name in ("joint", "mce")))
        say("", f"report  {page}")
        return 0

    from lacunar.cli.train import evaluate_once
    from lacunar.datasets import load
    from lacunar.objectives import MCE, Joint

    data = load("digits", seed=options.seed).hide(RATES, seed=options.seed)
    methods = {
        "joint": (Joint(), "plain training on what is present"),
        "mce": (
            MCE(),
            "MCE with experts: each modality alone first; then every subset, rare and lagging modalities pushed",
        ),
    }
    with console(stderr=True).status("loading the training engine") if show_progress() else _nothing():
        from lacunar.training.fit import fit
    tables, runs = {}, {}
    for name, (objective, purpose) in methods.items():
        say(purpose)
        runs[name] = fit(data, None, objective, max_epochs=options.max_epochs, seed=options.seed, out=out / name)
        say("  " + str(runs[name]))
        tables[name] = evaluate_once(runs[name], data, out / name)

    from lacunar.report import report
    from lacunar.training.files import write_json

    plain = "plain training on what is present"
    report(
        runs["mce"], tables["mce"], data, path=page, comparison={plain: tables["joint"]},
        title="Digits seen, heard and read: lacunar's demo",
    )  # fmt: skip
    write_json(marker, asked)
    _show(tables["joint"], tables["mce"])
    say("", f"report  {page}")
    return 0


def _show(joint: SubsetTable, mce: SubsetTable) -> None:
    say("")
    gap = mce.difference(joint)
    rows = []
    scores = {model: [*found.frame["score"].iloc[1:], found.mean] for model, found in (("joint", joint), ("mce", mce))}
    for label, before, after in zip([*mce.labels[1:], "mean"], scores["joint"], scores["mce"]):
        line = gap.loc[label]
        interval = f"{line['low']:+.3f} to {line['high']:+.3f}"
        words = label.replace("+", " + ")
        rows.append([words, f"{before:.3f}", f"{after:.3f}", f"{line['difference']:+.3f}", interval])
    columns = ["given", "plain", "MCE with experts", "difference", f"{100 * mce.confidence:g} % interval"]
    table(f"{mce.score_name} on {len(mce.ids)} test samples", columns, rows)
    mean = gap.loc["mean"]
    said = f"Averaged over the {len(mce) - 1} subsets, {joint.mean:.1%} became {mce.mean:.1%}"
    if mean["low"] > 0:
        verdict = f"{said}: the same data, the same missing cells, a better use of them."
    elif mean["high"] < 0:
        verdict = f"{said}: plain training was better here."
    else:
        verdict = f"{said}: no clear difference with so few samples."
    say("", verdict, f"The worst case went from {joint.worst} to {mce.worst}.")


def _words(rates: dict[str, float]) -> str:
    return ", ".join(f"{rate:.0%} of {name}" for name, rate in rates.items())


class _nothing:  # noqa: N801  reads as a statement
    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None
