"""Tables of the protocol as Markdown: means over seeds, paired differences with intervals, rank correlations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from lacunar.evaluation.statistics import seed_interval

__all__ = ["TABLES", "markdown_table"]

Frames = dict[str, pd.DataFrame]
NOTHING = "*Not run yet: the recipe has the cells, the results do not.*"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; a note where there are no rows."""
    if not rows:
        return NOTHING
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _chosen(frames: Frames, name: str, **wanted: Any) -> pd.DataFrame:
    """Rows of a frame whose columns are what is wanted, one value or a list; empty without results."""
    frame = frames.get(name, pd.DataFrame())
    for column, values in wanted.items():
        if frame.empty or values is None:
            continue
        frame = frame[frame[column].isin(values if isinstance(values, list) else [values])]
    return frame


def _parts(frame: pd.DataFrame, by: list[str]) -> list[tuple[Any, pd.DataFrame]]:
    """Groups of a frame in the order in which they first occur; none of an empty one."""
    return [] if frame.empty else list(frame.groupby(by, sort=False))


def _spread(values: pd.Series, scale: float = 100, digits: int = 1) -> str:
    known = values.dropna().to_numpy(float) * scale
    if not len(known):
        return ""
    sd = f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{sd}"


def _gap(first: pd.Series, second: pd.Series, scale: float = 100, digits: int = 1) -> tuple[str, float]:
    """The paired difference of what both have, with Student's 95 % interval, and its p."""
    shared = first.dropna().index.intersection(second.dropna().index)
    if len(shared) < 2:
        return "", 1.0
    a, b = first[shared].to_numpy(float), second[shared].to_numpy(float)
    if np.allclose(a, b):
        return f"{0:+.{digits}f}", 1.0
    found = seed_interval(a, b)
    low, high = sorted((scale * found.low, scale * found.high))
    return f"{scale * found.value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]", float(found.p_value)


def arms(frames: Frames, run: str, arms: list[str], measure: str = "score", problems: list[str] | None = None) -> str:
    """Tables 2 and 3: mean and sd over seeds for each problem, share and budget (rows) and arm (columns)."""
    rows, frame = [], _chosen(frames, "rows", run=run, problem=problems)
    scale = 100 if measure == "score" else 1
    for at, part in _parts(frame, ["problem", "rho", "beta"]):
        cells = [_spread(part.loc[part["arm"] == arm, measure], scale, 1 if scale > 1 else 3) for arm in arms]
        constant = f"{100 * part['constant'].mean():.1f}"
        rows.append([at[0], f"{at[1]:.0%}", f"{at[2]:.0%}", *cells, constant, part["seed"].nunique()])
    rows.sort(key=lambda row: (list(dict.fromkeys(frame["problem"])).index(row[0]), float(row[2][:-1]), row[1]))
    return markdown_table(["data", "owned", "budget", *arms, "constant", "seeds"], rows)


def differences(
    frames: Frames,
    run: str,
    pairs: list[list[str]],
    measure: str = "score",
    problems: list[str] | None = None,
    by: str = "problem",
) -> str:
    """Paired differences of two arms, averaged over settings within a seed; p with Holm's correction over rows."""
    frame = _chosen(frames, "rows", run=run, problem=problems)
    scale = 100 if measure == "score" else -1  # of log-loss what is saved
    rows: list[list[Any]] = []
    values: list[float] = []
    if frame.empty:
        return NOTHING
    table = frame.pivot_table(index=["problem", "seed", "rho", "beta"], columns="arm", values=measure)
    for first, second, meaning in pairs:
        if first not in table or second not in table:
            continue
        both = table[[first, second]].dropna()
        for problem in [*dict.fromkeys(frame["problem"]), "all"] if by == "problem" else ["all"]:
            part = both if problem == "all" else both[both.index.get_level_values("problem") == problem]
            left, right = _by_seed(part, first, second)
            said, p = _gap(left, right, scale, 1 if scale == 100 else 3)
            if said:
                rows.append([f"{first} - {second}", meaning, problem, said, len(left)])
                values.append(p)
    order = np.argsort(values)
    corrected, worst = np.ones(len(values)), 0.0
    for rank, position in enumerate(order):
        worst = max(worst, min(1.0, values[position] * (len(values) - rank)))
        corrected[position] = worst
    rows = [[*row[:-1], f"{p:.3f}", row[-1]] for row, p in zip(rows, corrected)]
    return markdown_table(
        ["difference", "what it is", "data", "points [95 %]" if scale == 100 else "nats [95 %]", "p (Holm)", "seeds"],
        rows,
    )


def _by_seed(part: pd.DataFrame, first: str, second: str) -> tuple[pd.Series, pd.Series]:
    """Two arms by seed; all data sets weigh the same, and a seed with some of them missing is left out."""
    by_seed: Any = part.groupby(["seed", "problem"]).mean().unstack("problem").dropna()
    if not len(by_seed):
        return pd.Series(dtype=float), pd.Series(dtype=float)
    return by_seed[first].mean(axis="columns"), by_seed[second].mean(axis="columns")


def verdicts(
    frames: Frames, run: str, claims: list[dict[str, str]], measure: str = "score", problems: list[str] | None = None
) -> str:
    """What the intervals say of each claim, in words that are written for each outcome beforehand.

    Args:
        frames: from :func:`lacunar.bench.protocol.collect`.
        run: name of the run.
        claims: each with the arms ``first`` and ``second`` and a sentence for ``better``, ``worse`` and ``unclear``:
            the interval of the difference over all data sets lies above zero, below, or on both sides.
        measure: the score, or ``"log_loss"``.
        problems: data sets; all when left out.
    """
    frame = _chosen(frames, "rows", run=run, problem=problems)
    if frame.empty:
        return NOTHING
    table = frame.pivot_table(index=["problem", "seed", "rho", "beta"], columns="arm", values=measure)
    sign, unit = (1, "points") if measure == "score" else (-1, "nats")
    lines = []
    for claim in claims:
        first, second = claim["first"], claim["second"]
        if first not in table or second not in table:
            continue
        left, right = _by_seed(table[[first, second]].dropna(), first, second)
        if len(left) < 2:
            continue
        found = seed_interval(sign * left.to_numpy(float), sign * right.to_numpy(float))
        outcome = "better" if found.low > 0 else "worse" if found.high < 0 else "unclear"
        said, _ = _gap(left, right, 100 if sign > 0 else -1, 1 if sign > 0 else 3)
        lines.append(f"- {claim[outcome]} ({said} {unit}, {len(left)} seeds)")
    return "\n".join(lines) or NOTHING


def conditions(frames: Frames, run: str, arm: str, problem: str, beta: float) -> str:
    """Table 8: the score when only some modalities are observed at test and the rest is generated."""
    frame = _chosen(frames, "conditions", run=run, arm=arm, problem=problem, beta=beta)
    labels = [label for label in dict.fromkeys(frame.get("subset", [])) if label != "none"]
    rows = []
    for (rho,), part in _parts(frame, ["rho"]):
        rows.append([f"{rho:.0%}", *[_spread(part.loc[part["subset"] == label, "score"]) for label in labels]])
    return markdown_table(["owned", *labels], rows)


def indicator_values(frames: Frames, run: str, problem: str, indicator: str = "cooperation") -> str:
    """Tables 1 and 5: accuracy inside the owned samples, the indicator's value, and what buying the subset gave."""
    frame = _chosen(frames, "indicators", run=run, problem=problem, indicator=indicator)
    rows = []
    if len(frame):
        frame = frame[frame["subset"].str.contains("+", regex=False) & frame["realised"].notna()]
    for (rho, subset), part in _parts(frame, ["rho", "subset"]):
        rows.append(
            [
                f"{rho:.0%}", subset, _spread(part["accuracy"]), _spread(part["value"], 1, 3),
                f"{part['chosen'].mean():.0%}", _spread(part["realised"]),
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: (float(row[0][:-1]), row[1]))
    return markdown_table(
        ["owned", "subset", "accuracy inside D", "indicator", "chosen", "accuracy after buying it"], rows
    )


def rank_correlation(
    frames: Frames, run: str, problems: list[str], several: bool = True, measure: str = "realised_log_loss"
) -> str:
    """Question 2: Kendall's tau of each indicator with what buying each subset realised, over subsets within a seed.

    Args:
        frames: from :func:`lacunar.bench.protocol.collect`.
        run: a run with every subset.
        problems: data sets.
        several: only subsets of two or more, which the paper's indicator is about.
        measure: what was realised.
    """
    taus = _taus(frames, run, problems, several, measure)
    if taus.empty:
        return NOTHING
    wide = taus.groupby(["indicator", "problem", "seed"])[["tau", "regret"]].mean().reset_index()
    present = [problem for problem in problems if problem in set(wide["problem"])]
    base = wide[wide["indicator"] == "utility"].groupby("seed")["tau"].mean()
    rows = []
    for indicator in dict.fromkeys(taus["indicator"]):
        own = wide[wide["indicator"] == indicator]
        cells = [_spread(own.loc[own["problem"] == problem, "tau"], 1, 2) for problem in present]
        by_seed = own.groupby("seed")["tau"].mean()
        gap = "" if indicator == "utility" else _gap(by_seed, base, 1, 2)[0]
        rows.append(
            [indicator, *cells, f"{by_seed.mean():.2f}", gap, _spread(own.groupby("seed")["regret"].mean(), 1, 3)]
        )
    return markdown_table(["indicator", *present, "mean tau", "minus utility [95 %]", "regret"], rows)


def _taus(frames: Frames, run: str, problems: list[str], several: bool, measure: str) -> pd.DataFrame:
    """Kendall's tau and regret of each indicator for each data set, share and seed."""
    columns = ["problem", "rho", "seed", "indicator", "tau", "regret"]
    frame = _chosen(frames, "indicators", run=run, problem=problems)
    if frame.empty:
        return pd.DataFrame(columns=columns)
    frame = frame[frame[measure].notna() & (frame["subset"] != "none")]
    if several:
        frame = frame[frame["subset"].str.contains("+", regex=False)]
    sign = -1 if measure.endswith("log_loss") else 1
    found = []
    for at, part in _parts(frame, ["problem", "rho", "seed", "indicator"]):
        if len(part) < 2:
            continue
        said, real = part["value"].fillna(-np.inf).to_numpy(), sign * part[measure].to_numpy()
        tau = kendalltau(said, real).statistic
        # The best of what an indicator prefers; ties are shared.
        found.append((*at, 0.0 if np.isnan(tau) else tau, real.max() - real[said == said.max()].mean()))
    return pd.DataFrame(found, columns=columns)


def rank_verdict(frames: Frames, run: str, problems: list[str], several: bool = True) -> str:
    """In words: which indicators rank clearly better or worse than utility, and which cannot be told from it."""
    taus = _taus(frames, run, problems, several, "realised_log_loss")
    if taus.empty:
        return NOTHING
    by_seed = taus.groupby(["indicator", "problem", "seed"])["tau"].mean().groupby(["indicator", "seed"]).mean()
    base = by_seed["utility"].to_numpy(float)
    if len(base) < 2:
        return NOTHING
    groups: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
    for indicator in dict.fromkeys(taus["indicator"]):
        own = by_seed[indicator].to_numpy(float)
        if indicator == "utility" or len(own) != len(base):
            continue
        found = seed_interval(own, base)
        groups["better" if found.low > 0 else "worse" if found.high < 0 else "unclear"].append(f"`{indicator}`")
    words = {
        "better": "ranked clearly better than plain utility",
        "worse": "ranked clearly worse than plain utility",
        "unclear": "could not be told from plain utility",
    }
    lines = [f"- {', '.join(names) if names else 'No indicator'} {words[kind]}." for kind, names in groups.items()]
    return "\n".join(lines)


def pilot_verdict(frames: Frames, problems: list[str], level: float = 0.8) -> str:
    """In words: from which n on an indicator picks the best subset at least so often, averaged over data sets."""
    frame = _chosen(frames, "pilot", problem=problems)
    if frame.empty:
        return NOTHING
    shares = frame.assign(best=frame["best"].astype(float)).groupby(["indicator", "n", "problem"])["best"].mean()
    complete = frame.groupby("n")["problem"].nunique()
    sizes = [int(n) for n in complete.index[complete == complete.max()]]
    lines = []
    for indicator in dict.fromkeys(frame["indicator"]):
        mean = shares[indicator].groupby("n").mean()
        enough = [n for n in sizes if mean[n] >= level]
        said = f"from n = {enough[0]} on" if enough else f"at no n up to {sizes[-1]}"
        listing = ", ".join(f"{mean[n]:.2f} at {n}" for n in sizes)
        lines.append(f"- `{indicator}` finds the best subset in at least {level:.0%} of pilots {said} ({listing}).")
    return "\n".join(lines)


def fairness(frames: Frames, run: str, problem: str, arms: list[str], rho: float, beta: float) -> str:
    """Table 6: score within groups and the gap, with intervals over seeds."""
    frame = _chosen(frames, "groups", run=run, problem=problem, arm=arms, rho=rho, beta=beta)
    rows = []
    for attribute in dict.fromkeys(frame.get("attribute", [])):
        part = frame[frame["attribute"] == attribute]
        values = list(dict.fromkeys(part["value"]))
        sizes = ", ".join(f"{value}: {part.loc[part['value'] == value, 'n'].mean():.0f}" for value in values)
        for arm in arms:
            wide = part[part["arm"] == arm].pivot_table(index="seed", columns="value", values="score")
            if len(values) < 2 or not set(values) <= set(wide):
                continue
            gap, _ = _gap(wide[values[0]], wide[values[1]])
            rows.append([attribute, sizes, arm, _spread(wide[values[0]]), _spread(wide[values[1]]), gap])
    return markdown_table(["by", "test samples", "arm", "first", "second", "first - second [95 %]"], rows)


def generators(frames: Frames, runs: list[str], problems: list[str], against: str, measure: str = "score") -> str:
    """Table 9: what completes the rest, its score, the paired difference, and the processor time of the arm."""
    frame = _chosen(frames, "rows", run=runs, problem=problems)
    if frame.empty:
        return NOTHING
    frame = frame.assign(
        arm=np.where(frame["run"] == "reconstructing", "flow with the network, reconstructing", frame["arm"])
    )
    rows = []
    for arm in dict.fromkeys(frame["arm"]):
        own, base = frame[frame["arm"] == arm], frame[frame["arm"] == against]
        cells = [_spread(own.loc[own["problem"] == problem, measure]) for problem in problems]
        shared = own.set_index(["problem", "seed"])[measure].groupby("seed").mean()
        gap = (
            ""
            if arm == against
            else _gap(shared, base.set_index(["problem", "seed"])[measure].groupby("seed").mean())[0]
        )
        rows.append([arm, *cells, gap, f"{own['seconds'].mean():.1f}"])
    return markdown_table(["the rest", *problems, f"minus {against} [95 %]", "seconds"], rows)


def pilots(frames: Frames, problems: list[str], column: str = "best") -> str:
    """Table 11: how often an indicator picks, from n samples, what is best (or what it picks itself) with all."""
    frame = _chosen(frames, "pilot", problem=problems)
    rows = []
    for problem in dict.fromkeys(frame.get("problem", [])):
        part = frame[frame["problem"] == problem]
        sizes = sorted(set(frame["n"]))
        for indicator in dict.fromkeys(part["indicator"]):
            own = part[part["indicator"] == indicator]
            cells = []
            for n in sizes:
                some = own.loc[own["n"] == n, column].astype(float)
                cells.append(f"{some.mean():.2f} ({_wilson(some)})" if len(some) else "")
            rows.append([problem, indicator, *cells])
    return markdown_table(["data", "indicator", *[f"n = {n}" for n in sorted(set(frame.get("n", [])))]], rows)


def _wilson(hits: pd.Series) -> str:
    """Wilson's 95 % interval of a share."""
    n, share, z = len(hits), hits.mean(), 1.96
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return f"{max(0.0, centre - half):.2f} to {min(1.0, centre + half):.2f}"


def costs(frames: Frames, run: str) -> str:
    """Table 10: what the indicators cost beside one training of each kind, in processor seconds."""
    rows, frame, spent = [], _chosen(frames, "rows", run=run), _chosen(frames, "costs", run=run)
    for (problem, rho), part in _parts(frame, ["problem", "rho"]):
        own = spent[(spent["problem"] == problem) & (spent["rho"] == rho)]
        one, both = (part.loc[part["arm"] == arm, "seconds"].mean() for arm in ("lower", "sk-ll"))
        subsets = int(own["indicator_trainings"].iloc[0] / 5)
        linear = own["seconds utilities"].mean()
        rows.append(
            [problem, f"{rho:.0%}", subsets, f"{linear:.2f}", f"{subsets * one:.1f}", f"{one:.1f}", f"{both:.1f}"]
        )
    head = [
        "data",
        "owned",
        "subsets",
        "indicator, linear, 5 folds",
        "indicator, one network each",
        "one network",
        "SK-LL",
    ]
    return markdown_table(head, rows)


def generated(frames: Frames, runs: list[str]) -> str:
    """Fig. 3 in numbers: whether generated features can be told from real ones."""
    rows, frame = [], _chosen(frames, "generated", run=runs)
    for at, part in _parts(frame, ["run", "problem", "rho", "modality"]):
        kind = "with reconstruction" if "reconstructing" in at[0] else "as the paper"
        told, r2 = f"{part['told_apart'].mean():.2f}", f"{part['r2'].mean():.2f}"
        rows.append([at[1], kind, f"{at[2]:.0%}", at[3], told, f"{part['variance'].mean():.2f}", r2])
    return markdown_table(["data", "flow", "owned", "modality", "told apart", "variance", "r2"], rows)


#: What ``{{name {"argument": ...}}}`` in a template may ask for.
TABLES: dict[str, Callable[..., str]] = {
    "arms": arms,
    "verdicts": verdicts,
    "rank_verdict": rank_verdict,
    "pilot_verdict": pilot_verdict,
    "differences": differences,
    "conditions": conditions,
    "indicator_values": indicator_values,
    "rank_correlation": rank_correlation,
    "fairness": fairness,
    "generators": generators,
    "pilots": pilots,
    "costs": costs,
    "generated": generated,
}
