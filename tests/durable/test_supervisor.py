"""The supervisor: what dead workers left behind goes on, and errors stop nobody else."""

import asyncio

import pytest

from operators.errors import StoreBusy
from pipeline.durable.runs import run_durable
from pipeline.durable.supervised import run_supervised_turn
from pipeline.durable.supervisor import SessionSupervisor
from pipeline.durable.turn import run_durable_turn
from pipeline.stores import NewRun

from .durable_support import MANIFEST, Line, Sudden, bury, logged, run
from .test_supervised import SIX, Remote, read


def manifest(at):
    return {**MANIFEST, "input": at}


async def orphaned(backend, *remotes, session="s-1"):
    """Let a worker die with one run for each of these."""
    line, dead = Line(backend.open()), []
    for at, remote in enumerate(remotes):
        turn = run_supervised_turn(
            store=line,
            run_id=f"r{at}",
            manifest=manifest(at),
            adapter=remote,
            lease=backend.lease,
            session=session,
        )
        dead.append(asyncio.create_task(read(turn.stream)))
    for at, remote in enumerate(remotes):
        await remote.hanging.wait()
        await logged(backend, f"r{at}", 2)
    line.cut = True
    for at in range(len(remotes)):
        await backend.lapse(f"r{at}")
    return dead


def resolving(store, remotes):
    def resolve(found):
        at = found.meta["manifest"]["input"]
        assert found.meta["kind"] == "supervised"
        return run_supervised_turn(
            store=store, run_id=found.id, manifest=manifest(at), adapter=remotes[at]
        )

    return resolve


def test_orphans_are_drained_without_a_reader(backend):
    async def test():
        remotes = [Remote(stops=[2]), Remote(stops=[2])]
        dead = await orphaned(backend, *remotes)
        store = backend.open()
        supervisor = SessionSupervisor(store, resolve_orphan=resolving(store, remotes))
        active = await supervisor.active("s-1")
        assert sorted(r.id for r in active) == ["r0", "r1"]
        assert await supervisor.active("s-2") == []
        checked = await supervisor.check()
        assert sorted(checked.ended) == ["r0", "r1"]
        assert (checked.held, checked.left, checked.failed) == ([], [], [])
        assert await supervisor.active("s-1") == []
        for at, remote in enumerate(remotes):
            assert (remote.started, len(remote.attached)) == (1, 1)
            again = run_supervised_turn(
                store=store, run_id=f"r{at}", manifest=manifest(at), adapter=None
            )
            assert await read(again.stream) == SIX
        assert (await supervisor.check()).ended == []
        await bury(*dead)

    run(backend, test)


def test_an_error_is_logged_and_the_others_go_on(backend, caplog):
    async def test():
        remotes = [Remote(stops=[2]) for _ in range(3)]
        dead = await orphaned(backend, *remotes)
        store = backend.open()
        turns = resolving(store, remotes)

        def resolve(found):
            if found.id == "r0":
                raise Sudden("cannot resolve")
            return turns(found)

        remotes[1].fails = [3]
        checked = await SessionSupervisor(store, resolve_orphan=resolve).check()
        assert sorted(checked.failed) == ["r0", "r1"]
        assert checked.ended == ["r2"]
        assert "cannot resolve" in caplog.text
        assert (await store.status("r0")).status == "running"
        assert (await store.status("r1")).status == "failed"
        await bury(*dead)

    run(backend, test)


def test_what_nobody_knows_is_left_alone_and_hides_no_other(backend):
    async def test():
        dead = await orphaned(backend, Remote(stops=[2]))
        store = backend.open()
        for at in range(120):
            new = NewRun(id=f"other-{at}", manifest_hash="x")
            claim = await store.claim(new, worker="w", lease=60)
            await store.release(claim.run.id, claim.fence)
        remotes = [Remote()]

        def resolve(found):
            if found.id.startswith("other"):
                return None
            return resolving(store, remotes)(found)

        checked = await SessionSupervisor(store, resolve_orphan=resolve).check()
        assert checked.ended == ["r0"]
        assert len(checked.left) == 120
        assert (await store.status("other-5")).status == "running"
        await bury(*dead)

    run(backend, test)


def test_one_that_another_worker_has_by_now_is_held_and_looked_at_again(backend):
    async def test():
        remotes = [Remote(stops=[2])]
        dead = await orphaned(backend, *remotes)
        store = backend.open()
        current = await store.status("r0")

        async def resolve(found):
            new = NewRun(id="r0", manifest_hash=current.manifest_hash)
            claims.append(await store.claim(new, worker="faster", lease=60))
            return resolving(store, remotes)(found)

        claims = []
        supervisor = SessionSupervisor(store, resolve_orphan=resolve)
        assert (await supervisor.check()).held == ["r0"]
        assert (await store.status("r0")).owner == "faster"
        await store.release("r0", claims[0].fence)
        supervisor = SessionSupervisor(store, resolve_orphan=resolving(store, remotes))
        assert (await supervisor.check()).ended == ["r0"]
        await bury(*dead)

    run(backend, test)


def test_a_stream_that_a_reader_left_is_gone_on_with(backend):
    async def test():
        store, remote = backend.open(), Remote()
        turn = run_supervised_turn(
            store=store, run_id="r0", manifest=manifest(0), adapter=remote
        )
        assert await anext(turn.stream) == SIX[0]
        await turn.stream.aclose()
        late = SessionSupervisor(
            store, resolve_orphan=resolving(store, [remote]), grace=60
        )
        assert (await late.check()).ended == []
        soon = SessionSupervisor(store, resolve_orphan=resolving(store, [remote]))
        assert (await soon.check()).ended == ["r0"]
        assert (await store.status("r0")).status == "completed"

    run(backend, test)


def test_the_periodic_check_finds_what_comes_later_and_survives_the_store(backend):
    async def test():
        store, remote = backend.open(), Remote()

        class Sometimes(Line):
            asked = 0

            async def orphans(self, **options):
                self.asked += 1
                if self.asked % 2:
                    raise StoreBusy("locked")
                return await self.store.orphans(**options)

        supervisor = SessionSupervisor(
            Sometimes(store), resolve_orphan=resolving(store, [remote]), every=0.02
        )
        async with supervisor:
            turn = run_supervised_turn(
                store=store, run_id="r0", manifest=manifest(0), adapter=remote
            )
            await anext(turn.stream)
            await turn.stream.aclose()
            async with asyncio.timeout(5):
                while (await store.status("r0")).status != "completed":
                    await asyncio.sleep(0.01)

    run(backend, test)


def test_leaving_stops_what_it_began_and_gives_the_leases_back(backend):
    async def test():
        store, remote = backend.open(), Remote(stops=[2, 3])
        turn = run_supervised_turn(
            store=store, run_id="r0", manifest=manifest(0), adapter=remote
        )
        await anext(turn.stream)
        await turn.stream.aclose()
        remote.stops = [3]
        remote.hanging.clear()
        supervisor = SessionSupervisor(
            store, resolve_orphan=resolving(store, [remote]), every=0.02
        )
        async with supervisor:
            await remote.hanging.wait()
            await asyncio.sleep(0.1)
            assert len(remote.attached) == 1
        left = await store.status("r0")
        assert (left.status, left.owner) == ("running", None)

    run(backend, test)


def test_durable_runs_and_turns_are_recovered_too(backend):
    async def test():
        line, calls = Line(backend.open()), []
        stuck = asyncio.Event()

        async def task(ctx):
            await ctx.step("a", lambda: calls.append("a"))
            if len(calls) == 1:
                calls.append("stuck")
                stuck.set()
                await asyncio.Event().wait()
            return await ctx.step("b", lambda: calls.append("b"))

        dead = asyncio.create_task(
            run_durable("r0", MANIFEST, line, task, lease=backend.lease)
        )
        await stuck.wait()
        line.cut = True
        await backend.lapse("r0")
        store = backend.open()

        async def resolve(found):
            assert found.meta["kind"] == "run"
            return await run_durable(found.id, found.meta["manifest"], store, task)

        assert (await SessionSupervisor(store, resolve_orphan=resolve).check()).ended
        assert calls == ["a", "stuck", "b"]
        turn = run_durable_turn(
            store=store,
            run_id="r1",
            manifest=MANIFEST,
            produce=lambda: [{"type": "x"}, {"type": "y"}],
            replay_event=lambda text: {"type": "result"},
        )
        await anext(turn.stream)
        await turn.stream.aclose()

        def resolve_turn(found):
            assert found.meta["kind"] == "turn"
            return run_durable_turn(
                store=store,
                run_id=found.id,
                manifest=found.meta["manifest"],
                produce=lambda: [{"type": "x"}],
                replay_event=lambda text: {"type": "result"},
            )

        checked = await SessionSupervisor(store, resolve_orphan=resolve_turn).check()
        assert checked.ended == ["r1"]
        await bury(dead)

    run(backend, test)


@pytest.mark.parametrize("options", [{"every": 0}, {"every": -1}, {"at_once": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"every|at_once"):
        SessionSupervisor(None, resolve_orphan=lambda run: None, **options)
