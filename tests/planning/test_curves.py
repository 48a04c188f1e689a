"""Learning curves come back from points whose curve is known, and are measured on rows that were never trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from lacunar.datasets.worlds_of_generation import generable
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.planning.curves import fit_curves, learning_curves
from lacunar.planning.learner import Learner
from tests.helpers import vectors

SIZES = (40, 80, 160, 320)


def points(truth, seeds=6, noise=0.004, sizes=SIZES, draw=0):
    rng = np.random.default_rng(draw)
    rows = []
    for subset, (a, b, c) in truth.items():
        for seed in range(seeds):
            shift = noise * rng.normal()
            rows += [(subset, n, seed, a - b * n**-c + shift + noise / 2 * rng.normal()) for n in sizes]
    return pd.DataFrame(rows, columns=["subset", "n", "seed", "score"])


def test_known_curves_come_back_without_noise():
    truth = {"a": (0.80, 0.9, 0.5), "b": (0.70, 1.5, 0.5), "a+b": (0.95, 2.0, 0.5)}
    curves = fit_curves(points(truth, noise=0.0), metric="accuracy")
    assert curves.exponent == pytest.approx(0.5, rel=0.05)
    for row in curves.frame.itertuples():
        a, b, _ = truth[row.subset]
        assert row.a == pytest.approx(a, abs=0.01)
        assert row.b == pytest.approx(b, rel=0.15)
        assert row.rmse < 1e-3
    assert curves.predict("b+a", 1000).mean == pytest.approx(0.95 - 2 * 1000**-0.5, abs=2e-3)
    assert curves.notes == []


def test_noisy_subsets_lean_on_the_exponent_of_the_others():
    truth = {"a": (0.9, 2.0, 0.7), "b": (0.8, 1.5, 0.7), "c": (0.7, 1.0, 0.7)}
    table = points(truth, noise=0.001)
    wild = table["subset"] == "c"
    table.loc[wild, "score"] += 0.03 * np.random.default_rng(3).normal(size=int(wild.sum()))
    alone = fit_curves(table[wild], metric="accuracy").frame["c"].iloc[0]
    together = fit_curves(table, metric="accuracy").frame.set_index("subset")["c"]["c"]
    assert abs(together - 0.7) < abs(alone - 0.7)
    assert together == pytest.approx(0.7, abs=0.2)


def test_the_draws_cover_the_truth_about_as_often_as_they_say():
    inside = 0
    for draw in range(60):
        curves = fit_curves(points({"a": (0.9, 1.5, 0.6)}, noise=0.01, draw=draw), metric="accuracy", draws=200)
        low, high = np.quantile(curves.predict("a", 320).draws, [0.05, 0.95])
        inside += low <= 0.9 - 1.5 * 320**-0.6 <= high
    assert 0.72 <= inside / 60 <= 1.0  # nominal 0.90


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.6), (5, 0.7)])
def test_few_seeds_widen_what_is_predicted_and_gains_are_covered(seeds, least):
    sizes, inside = np.array([400.0, 800.0]), 0
    for draw in range(40):
        table = points({"a": (-0.25, 4.0, 0.7)}, seeds, 0.0, draw=draw)
        table["score"] += 0.02 * np.random.default_rng(draw).normal(size=len(table))
        curves = fit_curves(table, metric="log_loss", draws=200)
        found, (a, b, c) = curves.predict("a", sizes), curves.draws["a"].T[..., None]
        away = (a - b * sizes**-c) - found.mean
        np.testing.assert_allclose(found.draws - found.mean, away * np.sqrt(seeds / (seeds - 1)), atol=1e-12)
        low, high = np.quantile(found.draws[:, 1] - found.draws[:, 0], [0.025, 0.975])
        inside += low <= 4 * (400**-0.7 - 800**-0.7) <= high
    assert least <= inside / 40  # nominal 0.95; as parameters were widened it was below a half


def test_widened_draws_stop_at_the_ceiling():
    rows = [("a", n, seed, (seed - 1) * (0.1 + 2 / n)) for seed in range(2) for n in SIZES]  # the second is at it
    curves = fit_curves(pd.DataFrame(rows, columns=["subset", "n", "seed", "score"]), metric="log_loss")
    assert curves.repeats == 2
    assert curves.predict("a", np.array([100.0, 1e4])).draws.max() == 0
    assert replace(curves, ceiling=1.0).predict("a", 1e4).draws.max() > 0.01


def test_draws_are_paired_and_repeatable_and_respect_the_bounds():
    truth = {"a": (0.99, 0.8, 0.6), "b": (0.98, 1.0, 0.6)}
    table = points(truth, noise=0.003)
    table["score"] = table["score"].clip(upper=1.0)
    one, again = fit_curves(table, metric="accuracy"), fit_curves(table, metric="accuracy")
    for label in ("a", "b"):
        np.testing.assert_array_equal(one.draws[label], again.draws[label])
        a, b, c = one.draws[label].T
        assert a.max() <= 1.0
        assert b.min() >= 0
        assert 0.1 <= c.min() <= c.max() <= 1.5
        assert (one.predict(label, np.array([1e3, 1e6])).draws <= 1.0).all()
    # What is common to the seeds is common to the subsets: the same resample in both.
    shared = points({"a": (0.9, 1.0, 0.6)}, noise=0.02)
    both = pd.concat([shared, shared.assign(subset="b")])
    curves = fit_curves(both, metric="accuracy")
    np.testing.assert_allclose(curves.predict("a", 100).draws, curves.predict("b", 100).draws)


def test_flat_and_falling_curves_are_flat_and_said_to_be():
    rng = np.random.default_rng(0)
    rows = [("a", n, s, 0.6 - 0.0002 * n + 0.001 * rng.normal()) for s in range(5) for n in SIZES]
    rows += [("b", 100, s, 0.7 + 0.01 * s) for s in range(5)]
    curves = fit_curves(pd.DataFrame(rows, columns=["subset", "n", "seed", "score"]), metric="accuracy")
    assert curves.frame["flat"].all()
    assert curves.predict("a", 10).mean == pytest.approx(curves.predict("a", 10_000).mean)
    assert "a: the score does not rise with n" in curves.notes[0]
    assert "b: measured at one size only" in curves.notes[1]
    assert curves.needed("a", 0.9) == np.inf


def test_scores_near_the_ceiling_do_not_cross_it():
    table = points({"a": (-0.001, 8.0, 0.9)}, noise=0.0)
    curves = fit_curves(table, metric="log_loss")
    assert curves.ceiling == 0
    assert curves.frame["a"].iloc[0] <= 0
    assert curves.predict("a", 1e6).mean <= 0
    with pytest.raises(DataError, match="above the ceiling 0 of log_loss"):
        fit_curves(points({"a": (0.9, 1.0, 0.5)}), metric="log_loss")


def test_far_extrapolation_is_flagged(caplog):
    curves = fit_curves(points({"a": (0.9, 1.5, 0.5)}), metric="accuracy")
    assert curves.flag("a", 4 * SIZES[-1]) == ""
    assert "measured up to n = 320, 5.0 times less" in curves.flag("a", 5 * SIZES[-1])
    with caplog.at_level("INFO"):
        curves.predict("a", np.array([100.0, 2000.0]))
    assert "extrapolation is a guess" in caplog.text


def test_the_samples_that_a_target_needs():
    curves = fit_curves(points({"a": (0.9, 1.5, 0.5)}, noise=0.0), metric="accuracy")
    n = curves.needed("a", 0.8)
    assert curves.predict("a", n).mean == pytest.approx(0.8, abs=1e-9)
    assert curves.needed("a", 0.95) == np.inf


def test_bad_points_are_told():
    table = points({"a": (0.9, 1.5, 0.5)})
    with pytest.raises(DataError, match="'seed' is missing"):
        fit_curves(table.drop(columns="seed"))
    with pytest.raises(DataError, match="finite numbers"):
        fit_curves(table.assign(score=np.nan))
    curves = fit_curves(table[table["seed"] == 0], metric="accuracy")
    assert any("one seed" in note for note in curves.notes)
    with pytest.raises(DataError, match="No learning curve of 'b'"):
        curves.predict("b", 10)
    with pytest.raises(ConfigError, match="at least 1 sample"):
        curves.predict("a", 0)


class Spy(LogisticRegression):
    """Notes what it learned from and what it was asked about."""

    seen: ClassVar[list] = []

    def fit(self, X, y):
        self.rows = {row.tobytes() for row in np.round(X, 9)}
        return super().fit(X, y)

    def predict_proba(self, X):
        Spy.seen.append((len(self.rows), len(self.rows & {row.tobytes() for row in np.round(X, 9)})))
        return super().predict_proba(X)


def test_measured_curves_rise_and_hold_rows_out():
    Spy.seen.clear()
    data = generable(300, dims=(3, 3, 3)).data
    table = learning_curves(data, ["x3", "x2+x1"], make_model=Spy, seeds=2, sizes=(0.2, 1.0))
    assert len(table) == 2 * 2 * 2
    assert list(table["subset"].unique()) == ["x3", "x1+x2"]
    assert sorted(table["n"].unique()) == [45, 225]
    assert len(Spy.seen) == len(table)
    assert all(overlap == 0 for _, overlap in Spy.seen)
    by_size = table.groupby("n")["score"].mean()
    assert by_size[225] > by_size[45] > table["baseline"].mean()
    again = learning_curves(data, ["x3", "x2+x1"], make_model=Spy, seeds=2, sizes=(0.2, 1.0), n_jobs=1)
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), again.drop(columns="seconds"))
    assert fit_curves(table).metric == "log_loss"


def test_only_samples_with_the_subset_count():
    data = vectors(n=120, missing=0.5)
    has = int(data.present[:, :2].all(1).sum())
    table = learning_curves(data, ["m0+m1"], make_model=LogisticRegression, seeds=1, sizes=(1.0,))
    assert table["n"].iloc[0] == has - round(0.25 * has)


def test_bad_requests_are_told():
    data = vectors(n=40)
    with pytest.raises(ConfigError, match="sizes: expected shares"):
        learning_curves(data, sizes=(0.5, 1.5))
    with pytest.raises(ConfigError, match="seeds: expected how many"):
        learning_curves(data, seeds=0)
    with pytest.raises(DataError, match="given twice"):
        learning_curves(data, ["m0+m1", ["m1", "m0"]])
    with pytest.raises(DataError, match="unknown modality 'm9'"):
        learning_curves(data, ["m9"])
    nobody = data.hide({"m0": np.arange(40) % 2 == 0, "m1": np.arange(40) % 2 == 1})
    with pytest.raises(DataError, match="no sample has all of m0, m1"):
        learning_curves(nobody, ["m0+m1"])


def test_interrupted_curves_go_on(tmp_path, monkeypatch):
    data, real, trained = generable(120, seed=1).data, Learner.score, []
    ask = {"make_model": LogisticRegression, "seeds": 2, "sizes": (0.5, 1.0)}

    def count(self, *given):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(given[2])
        return real(self, *given)

    monkeypatch.setattr(Learner, "score", count)
    with pytest.raises(KeyboardInterrupt, match="3 of 4 parts are kept"):
        learning_curves(data, out=tmp_path / "c", **ask)
    monkeypatch.setattr(Learner, "score", real)
    resumed, whole = learning_curves(data, out=tmp_path / "c", **ask), learning_curves(data, **ask)
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), whole.drop(columns="seconds"), check_exact=True)
    assert resumed.attrs == whole.attrs
    with pytest.raises(RunError, match="metric: there 'log_loss', here 'brier'"):
        learning_curves(data, metric="brier", out=tmp_path / "c", **ask)
