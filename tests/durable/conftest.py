"""Every claim about durable runs and turns holds on every store."""

import importlib.util

import pytest

from tests.faults.servers import serving

from .durable_support import Backend, InMemory


@pytest.fixture(scope="session")
def postgres():
    if importlib.util.find_spec("pgserver") is None:
        pytest.skip("no PostgreSQL: pip install pgserver")
    with serving("postgres") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres):
    postgres.server.psql("CREATE DATABASE durable_runs")
    return postgres.url("durable_runs")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def backend(request, tmp_path):
    if request.param == "memory":
        return InMemory()
    if request.param == "sqlite":
        return Backend(f"sqlite:///{tmp_path}/runs.db")
    url = request.getfixturevalue("postgres_url")
    emptied = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
    quiet = "SET client_min_messages = warning;"
    server = request.getfixturevalue("postgres").server
    server.psql(f"\\c durable_runs\n{quiet} {emptied}")
    return Backend(url)
