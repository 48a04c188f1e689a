"""Fixtures of report tests."""

import pytest

from tests.report.toys import make_data, make_folder, make_table


@pytest.fixture(scope="session")
def table(splits):
    return make_table(n=len(splits.test))


@pytest.fixture(scope="session")
def splits():
    return make_data()


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "run")
