"""The same call in parallel: on processes of this machine and on a Dask cluster."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lacunar.planning.utilities import utilities
from tests.helpers import vectors


def test_the_same_call_runs_on_a_dask_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    data = vectors(2, 60)
    here = utilities(data, lambda data: LogisticRegression(), seeds=1, progress=False)
    with (
        distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        there = utilities(data, lambda data: LogisticRegression(), seeds=1, out=tmp_path / "u", progress=False)
    np.testing.assert_allclose(there.values, here.values, rtol=1e-9)
    assert there.trainings == 3
    assert len(list((tmp_path / "u" / "cells").glob("*.json"))) == 3


def test_threads_give_what_one_job_gives():
    data = vectors(2, 60)
    one = utilities(data, lambda data: LogisticRegression(), seeds=2, progress=False)
    with joblib.parallel_config(backend="threading"):
        two = utilities(data, lambda data: LogisticRegression(), seeds=2, n_jobs=2, progress=False)
    np.testing.assert_array_equal(one.values, two.values)
