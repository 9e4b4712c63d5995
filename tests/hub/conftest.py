"""Every claim about hubs holds on every store."""

import importlib.util

import pytest

from tests.faults.servers import serving

from .worker import MemoryPlace, SqlPlace


@pytest.fixture(scope="session")
def postgres():
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pgserver")
    with serving("postgres") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request, tmp_path):
    if request.param == "memory":
        return MemoryPlace()
    if request.param == "sqlite":
        return SqlPlace(f"sqlite:///{tmp_path}/turns.db")
    return SqlPlace(request.getfixturevalue("postgres").fresh())
