"""Which rule would have bought best? Hide a part of complete data, let every rule buy from it, and see."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, RunError, did_you_mean
from lacunar.evaluation.statistics import seed_interval
from lacunar.planning.costs import CostModel
from lacunar.planning.estimate_pilot import pilot_samples
from lacunar.planning.estimate_progress import CellProgress
from lacunar.planning.estimate_scoring import metric_for
from lacunar.planning.learner import Learner, complete_cases
from lacunar.planning.repeats import seed_list
from lacunar.planning.strategies import get
from lacunar.planning.trial import Setting, run_trial
from lacunar.planning.utilities import OFFERED
from lacunar.planning.utility_table import named_differences
from lacunar.training.files import discard_leftovers, read_json, write_json

__all__ = ["STRATEGIES", "Backtest", "backtest"]

logger = logging.getLogger(__name__)

STRATEGIES = ("sk-ll", "utility-per-cost", "rehearsal", "even", "random", "best-single", "oracle")
KIND, FORMAT = "lacunar backtest", 1


@checked
def backtest(
    data: MultimodalDataset | Splits,
    costs: CostModel | Mapping[str, Any] | str | os.PathLike[str],
    budget: float,
    *,
    strategies: Sequence[str] = STRATEGIES,
    available: float = 0.3,
    seeds: int | Sequence[int] = 5,
    test: float = 0.3,
    make_model: Any = None,
    metric: str | None = None,
    completer: Any = "ridge",
    estimator: str = "retrain",
    repeats: int = 5,
    confidence: float = 0.95,
    min_gain: float = 0.0,
    draws: int = 500,
    top: int = 6,
    fit: Mapping[str, Any] | None = None,
    n_jobs: int | None = 1,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Backtest:
    """Let strategies spend a budget on data whose outcome is known.

    For each seed a test part is set aside and ``available`` of the rest is the pilot. The other samples are for sale
    in a :class:`lacunar.planning.pool.Pool`: their values and labels do not exist for anybody before they are bought.
    Each strategy gets the pilot and the prices, plans, and buys; what it has then is completed, a model is trained on
    it, and its score with all modalities on the test part, less that of the pilot alone, is the realised gain. All
    strategies buy the same samples in the same order, in the amounts and modalities that they choose.

    What a purchase lacks is generated, except by rules that rehearsed: those leave it absent where the rehearsal
    found no benefit in filling. The oracle takes the best of every affordable subset, filled and not, of what any
    rule bought, and of nothing. It chooses by the test part, so that a part of its lead is luck, and regret is an
    upper bound.

    Args:
        data: complete samples with targets; incomplete ones are left out. Of splits, train and validation part.
        costs: prices, as :meth:`CostModel.read` takes them.
        budget: what each strategy can spend.
        strategies: names of :func:`lacunar.planning.strategies.available`.
        available: share of the samples besides the test part that is the pilot.
        seeds: how many repeats, or their seeds; all strategies share each seed's samples.
        test: share of the samples that is set aside to score by.
        make_model: what learns: a function from training data to a network or a scikit-learn estimator, see
            :class:`lacunar.planning.learner.Learner`; :func:`lacunar.default_model` when left out.
        metric: what to score by; the task's usual one when left out.
        completer: what generates.
        estimator: of the utilities that strategies go by, see :func:`lacunar.utilities`.
        repeats: seeds within the pilot, for utilities, learning curves and rehearsal.
        confidence: nominal coverage of all intervals, those that strategies look at included.
        min_gain: the smallest predicted gain worth buying for.
        draws: bootstrap draws of predictions.
        top: how many subsets to rehearse, see :func:`lacunar.plan`.
        fit: options of :func:`lacunar.fit` for networks.
        n_jobs: seeds at the same time.
        out: folder that keeps finished seeds; the same call goes on after an interruption.
        progress: show how far it is.

    Raises:
        DataError: no target, fewer than some ten complete samples, or a pilot too small to plan from.
        ConfigError: an unknown strategy, metric, modality or completer, shares outside (0, 1), a negative budget.
        RunError: ``out`` holds another backtest.
    """
    data = pilot_samples(data, "backtest")
    if data.target is None or data.task is None:
        raise DataError("A backtest needs a target, and the data have none.")
    for name, share in (("available", available), ("test", test)):
        if not 0 < share < 1:
            raise ConfigError(f"{name}: expected a share in (0, 1), got {share!r}.")
    at_least(0, budget=budget)
    if estimator not in OFFERED:
        raise ConfigError(f"estimator: unknown {estimator!r}.{did_you_mean(estimator, OFFERED)}")
    at_least(2, repeats=repeats)
    at_least(1, top=top, draws=draws)
    chosen = tuple(dict.fromkeys([strategies] if isinstance(strategies, str) else strategies))
    if not chosen:
        raise ConfigError("strategies: expected at least one, got none.")
    for name in chosen:
        get(name)
    full = complete_cases(data)
    learner = Learner(make_model, metric_for(data.task, metric), completer, fit or {})
    made = learner.make_completer()
    prices = CostModel.read(costs).check(full.names)
    setting = Setting(
        prices, float(budget), chosen, available, test, learner, estimator, repeats, confidence, min_gain, draws, top
    )
    every = seed_list(seeds)
    config = {
        "costs": prices.to_dict(), "budget": float(budget), "strategies": list(chosen), "available": available,
        "test": test, "completer": made.name, "estimator": estimator, "repeats": repeats, "confidence": confidence,
        "min_gain": min_gain, "draws": draws, "top": top,
    }  # fmt: skip
    # What the learner makes and not what it is called: two functions may have one name, and two completers one class.
    described = learner.describe(full)
    config |= {"metric": described.pop("metric"), "data": described.pop("data"), "learner": described}
    folder = _folder(out, config)
    trials = {seed: found for seed in every if (found := _kept(folder, seed)) is not None}
    missing = [seed for seed in every if seed not in trials]
    with CellProgress("backtest", len(every), len(trials), progress) as shown:
        jobs = Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(run_trial)(full, setting, seed) for seed in missing
        )
        for found in jobs if missing else ():
            trials[found["seed"]] = found
            if folder is not None:
                write_json(folder / f"{found['key']}.json", found)
            shown.advance()
    notes = [f"{len(full)} of {len(data)} samples are complete, and only they took part"] * (len(full) < len(data))
    if len(every) < 2:
        notes.append("one seed: no interval can be given")
    return Backtest([trials[seed] for seed in every], config, notes)


@dataclass(frozen=True, eq=False)
class Backtest:
    """What came of a backtest; :func:`backtest` makes it.

    Attributes:
        trials: what each seed found, plain data.
        config: what was asked for.
        notes: what a reader should know.
    """

    trials: list[dict[str, Any]]
    config: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per seed and strategy.

        ``seed``, ``strategy``; ``subset`` that was bought, whether its gaps were ``filled``, ``samples``, ``labels``,
        ``cells`` in all and of each modality, ``cost``; ``lower``, the test score of the pilot alone, ``score``, and
        ``gain``, their difference; ``predicted`` gain where the rule predicts one; ``regret`` against the best known
        purchase; ``kendall`` and ``spearman``, rank correlation over subsets of what the rule goes by with the
        realised gains; ``trainings``, models that the rule cost, and ``minutes`` of training.
        """
        return _table(row for trial in self.trials for row in trial["strategies"])

    @property
    def subsets(self) -> pd.DataFrame:
        """One row per seed and affordable subset: realised gain ``filled`` and ``not_filled``, and all predictions."""
        return _table(row for trial in self.trials for row in trial["subsets"])

    @property
    def predictors(self) -> pd.DataFrame:
        """One row per seed and predictor: its rank correlation over subsets with the realised gains."""
        return _table(row for trial in self.trials for row in trial["predictors"])

    @property
    def metric(self) -> str:
        """What the scores are."""
        return str(self.config["metric"])

    @property
    def summary(self) -> pd.DataFrame:
        """One row per strategy, best mean gain first, with intervals of Student's t over seeds.

        ``gain``, ``gain_low``, ``gain_high``; the same of ``regret``; means of ``kendall``, ``spearman``, ``cost``,
        ``labels``, ``cells``, ``trainings`` and ``minutes``; ``bought``, the subset bought most often, and ``nothing``,
        the share of seeds in which nothing was bought.
        """
        rows = []
        for name, part in self.frame.groupby("strategy", sort=False):
            row: dict[str, Any] = {"strategy": name}
            for column in ("gain", "regret"):
                found = seed_interval(part[column], confidence=self.config["confidence"])
                row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
            for column in ("kendall", "spearman", "cost", "labels", "cells", "trainings", "minutes"):
                row[column] = float(part[column].astype(float).mean())
            row["bought"] = part["subset"].mode().iloc[0]
            row["nothing"] = float((part["samples"] == 0).mean())
            rows.append(row)
        return pd.DataFrame(rows).sort_values("gain", ascending=False, kind="stable", ignore_index=True)

    def compare(self, reference: str = "even", column: str = "gain") -> pd.DataFrame:
        """Differences of all strategies from one of them, paired by seed.

        Args:
            reference: the strategy to compare with.
            column: of :attr:`frame`, such as ``"gain"``.

        Returns:
            One row per other strategy: ``strategy``, ``difference`` with ``low`` and ``high`` (Student's t over
            seeds), ``p_value``, and ``p_holm``, corrected for the number of rows.

        Raises:
            ConfigError: the reference was not in the backtest, or there is no such column.
        """
        table = self.frame
        names = list(dict.fromkeys(table["strategy"]))
        if reference not in names:
            raise ConfigError(f"compare: no strategy {reference!r} here.{did_you_mean(reference, names)}")
        if column not in table or not pd.api.types.is_numeric_dtype(table[column]):
            raise ConfigError(f"compare: no column of numbers {column!r}.{did_you_mean(column, list(table))}")
        wide = table.pivot(index="seed", columns="strategy", values=column).astype(float)
        rows = []
        for name in names:
            if name != reference:
                found = seed_interval(wide[name], wide[reference], confidence=self.config["confidence"])
                rows.append((name, found.value, found.low, found.high, found.p_value))
        frame = pd.DataFrame(rows, columns=["strategy", "difference", "low", "high", "p_value"])
        frame["p_holm"] = _holm(frame["p_value"].to_numpy(dtype=float))
        return frame

    # ------------------------------------------------------------------ as a file

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"trials": self.trials, "config": self.config, "notes": self.notes}
        write_json(path, {"kind": KIND, "format": FORMAT, "hash": _digest(content), **content})
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Backtest:
        """Read a backtest back.

        Raises:
            RunError: the file is no backtest, of another format, or was changed since it was written.
        """
        path = Path(path)
        content = read_json(path)
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise RunError(f"{path} is not a backtest.")
        if content.get("format") != FORMAT:
            raise RunError(f"{path} has format {content.get('format')!r}; this version reads {FORMAT}. Update lacunar.")
        given = {name: content.get(name) for name in ("trials", "config", "notes")}
        if _digest(given) != content.get("hash"):
            raise RunError(f"{path} was changed after it was written: its content does not match its hash.")
        return cls(**given)  # type: ignore[arg-type]

    def __str__(self) -> str:
        trial = self.trials[0]
        prices = CostModel.read(self.config["costs"])
        shown = self.summary.drop(columns=["labels", "cells", "minutes"])
        lines = [
            f"backtest: {len(self.trials)} seeds, pilot of {trial['pilot']}, {trial['pool']} for sale, scored on "
            f"{trial['test']}; budget {prices.amount(self.config['budget'])}; gains in {self.metric}, filled by "
            f"{self.config['completer']}",
            shown.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="-"),
        ]
        return "\n".join([*lines, *self.notes])


def _table(rows: Any) -> pd.DataFrame:
    """Rows of plain data, null as NaN."""
    frame = pd.DataFrame(list(rows))
    for name in frame:
        if frame[name].dtype == object and frame[name].map(lambda v: v is None or isinstance(v, (int, float))).all():
            frame[name] = frame[name].astype(float)
    return frame


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction; NaN stays NaN and counts for no comparison."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _folder(out: str | os.PathLike[str] | None, config: dict[str, Any]) -> Path | None:
    """The folder of finished seeds, if there is one; it belongs to one configuration."""
    if out is None:
        return None
    home = Path(out)
    asked = {"kind": KIND, "format": FORMAT, "asked": config}
    if home.exists() and not home.is_dir():
        raise RunError(f"out: {home} is a file; expected a folder, or a path that does not exist.")
    if (home / "config.json").exists():
        stored = read_json(home / "config.json")
        if not isinstance(stored, dict) or stored.get("kind") != KIND or stored.get("format") != FORMAT:
            raise RunError(f"{home / 'config.json'} is not the configuration of a backtest of this version.")
        found = named_differences(stored["asked"], config)
        if found:
            listing = "\n".join(f"  {line}" for line in found)
            raise RunError(
                f"{home} holds a backtest of other data or another configuration (there: the folder, here: this "
                f"call):\n{listing}\nUse another folder, or the same data and arguments to go on."
            )
    elif home.exists() and any(entry.name[:1] != "." for entry in home.iterdir()):
        raise RunError(f"{home} holds files but no config.json of a backtest. Use an empty folder.")
    cells = home / "seeds"
    cells.mkdir(parents=True, exist_ok=True)
    discard_leftovers(cells)
    if not (home / "config.json").exists():
        write_json(home / "config.json", asked)
    return cells


def _kept(folder: Path | None, seed: int) -> dict[str, Any] | None:
    if folder is None or not (folder / f"seed{seed}.json").exists():
        return None
    return read_json(folder / f"seed{seed}.json")
