"""One thread per test process: the tests are small, and several processes share the cores."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LACUNAR_PROGRESS", "none")

import matplotlib
import pytest
import torch

torch.set_num_threads(1)
matplotlib.use("agg")


#: Files of a minute and more, each of which one worker runs.
LONGEST = {
    "test_benchmarks.py", "test_cli.py", "test_docs.py", "test_objectives.py", "test_processes.py", "test_runner.py",
    "test_utilities_cluster.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def small_forests():
    """Forests of the default references are most of their time, and no test is about how good large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lacunar.training.references.TREES", 20)
        yield


@pytest.fixture(autouse=True)
def every_test_draws_anew():
    """What a test draws must not depend on those that a worker ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def loggers_stay_as_they_are():
    """The command line sets up loggers for its process; tests and fixtures that call it must not silence others."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.split(".")[0] == "lacunar" and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
            logger.propagate, logger.handlers = True, []
