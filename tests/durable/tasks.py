"""Durable tasks that know nothing of what carries them: the same file for every engine.

What a task does to the world it writes into the file that its manifest names.
"""

import asyncio
import json
from pathlib import Path

_file = ""


def manifest(path):
    """Make the manifest; the task finds the file through it."""
    return {
        "project_id": "ws-1",
        "scenario_id": "sc-1",
        "task": {"id": "t-1", "intent": "answer", "domain": "chat"},
        "input": {"path": str(path)},
    }


def effect(path, name):
    """Do something that anybody can count."""
    with Path(path).open("a") as file:
        file.write(f"{name}\n")


def effects(path):
    return Path(path).read_text().split() if Path(path).exists() else []


def use(path):
    """Tell this process where its effects go: a task's context does not have the input."""
    global _file  # noqa: PLW0603 - one run a process
    _file = str(path)


async def everything(ctx):
    """Use all that a context has."""
    path = _file

    async def slow():
        effect(path, "slow")
        await asyncio.sleep(0.01)
        return {"t": (1, 2)}

    def quick():
        effect(path, "quick")
        return "✓ \u2028"

    first = await ctx.step("slow", slow, kind="llm", fingerprint={"prompt": 1})
    both = await asyncio.gather(ctx.step("quick", quick), ctx.step("quick", quick))
    emitted = await ctx.emit_event("ready", {"n": 1})
    again = await ctx.emit_event("ready", {"n": 2})
    heard = [await ctx.await_event("ready"), await ctx.await_event("ready")]
    ids = [await ctx.now(), await ctx.uuid()]
    return {
        "ids": ids,
        "heard": heard,
        "emitted": [emitted.accepted, again.accepted, again.payload],
        "first": first,
        "both": both,
        "who": [ctx.run_id, ctx.project_id, ctx.scenario_id],
    }


async def fails_once(ctx):
    """Fail in its second step, the first time."""
    path = _file

    def bad():
        effect(path, "bad")
        if effects(path).count("bad") == 1:
            raise ValueError("the first time")
        return "good"

    before = await ctx.step("good", lambda: effect(path, "good"))
    return [before, await ctx.step("bad", bad)]


async def sticks_once(ctx):
    """Stick in its second step, the first time; whoever watches may kill it then."""
    path = _file

    async def stick():
        effect(path, "stick")
        if effects(path).count("stick") == 1:
            await asyncio.sleep(600)
        return "went on"

    identity = await ctx.uuid()
    await ctx.step("before", lambda: effect(path, "before"))
    stuck = await ctx.step("stick", stick)
    await ctx.step("after", lambda: effect(path, "after"))
    return [stuck, identity]


async def dawdles(ctx):
    """Take its time in one step, the first time, without giving way to anybody after."""
    path = _file

    async def dawdle():
        effect(path, "dawdle")
        if effects(path).count("dawdle") == 1:
            effect(path, "inside")
            await asyncio.sleep(1.5)
        return "done"

    done = await ctx.step("dawdle", dawdle)
    await ctx.step("after", lambda: effect(path, "after"))
    return done


async def changed(ctx):
    """Ask for another first step than `sticks_once` does."""
    return await ctx.step("something else", lambda: 1)


TASKS = {
    task.__name__: task
    for task in (everything, fails_once, sticks_once, dawdles, changed)
}


def told(**what):
    """Tell the process that watches."""
    print(json.dumps(what), flush=True)  # noqa: T201 - the watcher reads it
