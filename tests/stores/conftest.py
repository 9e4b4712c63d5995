"""Each store in turn, the servers real ones."""

import importlib.util

import pytest

from tests.faults.servers import serving

from . import places
from .valkey_server import own_valkey, valkey  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def postgres():
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pgserver")
    with serving("postgres") as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request, tmp_path):
    if request.param == "postgres":
        return places.sql(request.getfixturevalue("postgres").fresh())
    return getattr(places, request.param)(tmp_path)
