"""A worker in a process of its own, which a test may kill, stop, and start again.

python -m tests.durable.run_process store URL run TASK RUN_ID PATH
python -m tests.durable.run_process store URL turn RUN_ID PATH
python -m tests.durable.run_process dbos  URL run TASK RUN_ID PATH
python -m tests.durable.run_process dbos  URL emit RUN_ID KEY
"""

import asyncio
import json
import logging
import sys

from pipeline.durable.runs import run_durable
from pipeline.durable.supervised import run_supervised_turn
from pipeline.sources.supervised import SupervisedEvent
from pipeline.stores import SqlStore

from . import tasks

LEASE_S = 1.0
EVENTS = 60
PACE_S = 0.01


class Remote:
    """A run elsewhere: it gives an event every few milliseconds, to whoever reads it."""

    def __init__(self, path):
        self.path = path

    def start(self):
        tasks.effect(self.path, "started")
        return self._events(0)

    def attach(self, handle, after_event_id):
        tasks.effect(self.path, "attached")
        assert handle["run"] == "remote"
        # Inclusive: the seam is the reader's to close.
        return self._events(0 if after_event_id is None else int(after_event_id))

    async def _events(self, begin):
        for at in range(begin, EVENTS):
            await asyncio.sleep(PACE_S)
            handle = {"run": "remote"} if at == begin else None
            yield SupervisedEvent(str(at), {"type": "x", "data": {"at": at}}, handle)


async def on_store(url, what, *rest):
    store = SqlStore(url)
    try:
        if what == "run":
            name, run_id, path = rest
            tasks.use(path)
            done = await run_durable(
                run_id, tasks.manifest(path), store, tasks.TASKS[name], lease=LEASE_S
            )
            tasks.told(result=done.result, attempts=[s.attempts for s in done.steps])
        else:
            run_id, path = rest
            turn = run_supervised_turn(
                store=store,
                run_id=run_id,
                manifest=tasks.manifest(path),
                adapter=Remote(path),
                lease=LEASE_S,
            )
            async for event in turn.stream:
                tasks.told(at=event["data"]["at"])
            tasks.told(mode=turn.mode)
    except Exception as exc:
        tasks.told(error=type(exc).__name__, message=str(exc))
    finally:
        await store.close()


def on_dbos(url, what, *rest):
    logging.disable(logging.CRITICAL)
    from dbos import DBOS

    from pipeline.durable.dbos import on_dbos as registered

    known = {name: registered(task, name=name) for name, task in tasks.TASKS.items()}
    if rest[0] == "changed":  # the same workflow, after a careless deployment
        known["changed"] = registered(tasks.changed, name="sticks_once")
    tasks.use(rest[-1])
    config = {
        "name": "turnpipe-tests",
        "system_database_url": url,
        "application_version": "1",
        "notification_listener_polling_interval_sec": 0.05,
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        asyncio.run(_on_dbos(known, what, *rest))
    finally:
        DBOS.destroy()


async def _on_dbos(known, what, *rest):
    try:
        if what == "run":
            name, run_id, path = rest
            done = await known[name].run(run_id, tasks.manifest(path))
            intents = [[s.intent, s.kind, s.status] for s in done.steps]
            status = done.record.status
            tasks.told(result=done.result, steps=intents, status=status)
        else:
            run_id, key = rest
            signal = await next(iter(known.values())).emit(
                run_id, key, {"from": "outside"}
            )
            tasks.told(accepted=signal.accepted, payload=signal.payload)
    except Exception as exc:
        tasks.told(error=type(exc).__name__, message=str(exc))


def main():
    engine, url, what, *rest = sys.argv[1:]
    if engine == "store":
        asyncio.run(on_store(url, what, *rest))
    else:
        on_dbos(url, what, *rest)


if __name__ == "__main__":
    main()


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
