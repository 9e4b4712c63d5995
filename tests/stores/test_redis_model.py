"""RedisLog at random, each answer compared with a model written from the contract."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from operators.errors import LeaseLost, StoreFull
from pipeline.stores.contract import Appended, Lines

from .redis_support import opened, run
from .valkey_server import command

STEPS = 1_500
MOST = 400


@dataclass
class Model:
    """One run, as the contract has it."""

    fence: int = 0
    live: bool = False
    closed: bool = False
    known: bool = False
    lines: int = 0
    chunks: list = field(default_factory=list)
    events: dict = field(default_factory=dict)

    def begin(self, fence, archived):
        if fence < self.fence:
            raise LeaseLost("")
        ended = self.closed and fence > self.fence and self.lines <= archived
        anew = not self.known or self.lines < archived or ended
        hole = self.first > archived + 1 and self.lines > archived
        if anew or (hole and fence > self.fence):
            self.lines = archived
            self.chunks = []
            self.events = {
                name: at
                for name, at in self.events.items()
                if at <= archived and not ended
            }
        if fence > self.fence:
            self.closed = False
        self.known = self.live = True
        self.fence = fence
        return self.lines

    @property
    def first(self):
        return self.chunks[0][0] if self.chunks else self.lines + 1

    def append(self, batch):
        end, events, chunks, answers = self.lines, dict(self.events), [], []
        for one in batch:
            if not (self.known and self.live) or self.closed or one.fence != self.fence:
                answers.append(None)
                continue
            if one.event_id is not None:
                if one.event_id in events:
                    answers.append(Appended(events[one.event_id], accepted=False))
                    continue
                events[one.event_id] = end + 1
            elif one.first > end + 1 or one.first <= end < one.first + one.count - 1:
                raise ValueError
            elif one.first <= end:
                answers.append(Appended(one.first, accepted=False))
                continue
            chunks.append((end + 1, one.count, one.data, one.event_id))
            answers.append(Appended(end + 1, accepted=True))
            end += one.count
        held = sum(len(chunk[2]) for chunk in self.chunks)
        if chunks and held and held + sum(len(chunk[2]) for chunk in chunks) > MOST:
            raise StoreFull
        self.lines, self.events = end, events
        self.chunks += chunks
        return answers

    def trim(self, upto):
        self.chunks = [chunk for chunk in self.chunks if chunk[0] + chunk[1] - 1 > upto]

    def read(self, after):
        if not self.known or (after < self.lines and after + 1 < self.first):
            return None
        rest = b"".join(data for _, _, data, _ in self.chunks).split(b"\n")[:-1]
        found = rest[max(after + 1 - self.first, 0) :] if after < self.lines else []
        return b"".join(one + b"\n" for one in found), self.lines


def batch_of(draw, name, model):
    found = []
    end = model.lines
    for _ in range(draw.randrange(1, 4)):
        fence = model.fence - (draw.random() < 0.05)
        if draw.random() < 0.3:
            event_id = f"e{draw.randrange(40)}"
            found.append(Lines(name, fence, 0, 1, b"event\n", event_id=event_id))
            end += event_id not in model.events
            continue
        first = end + 1 if draw.random() < 0.85 else max(1, end + draw.randrange(-3, 4))
        count = draw.randrange(1, 5)
        data = b"".join(b"%d %d\n" % (first, k) for k in range(count))
        found.append(Lines(name, fence, first, count, data))
        end = max(end, first + count - 1)
    return found


async def told(work, kinds=(ValueError, LeaseLost, StoreFull)):
    """Give what comes of a call, or the kind of what it raised."""
    try:
        return await work
    except kinds as error:
        return type(error)


async def step(draw, log, server, models):
    name = draw.choice(list(models))
    model = models[name]
    kind = draw.choices(
        ["append", "begin", "trim", "finish", "read", "renew", "lapse", "vanish"],
        [60, 6, 12, 2, 15, 3, 2, 0.5],
    )[0]
    if kind == "append":
        batch = batch_of(draw, name, model)
        answer = await told(log.append(batch))
        try:
            expected = model.append(batch)
        except (ValueError, StoreFull) as error:
            expected = type(error)
        assert answer == expected, (name, batch)
    elif kind == "begin":
        fence = max(1, model.fence + draw.choice([1, 1, 1, 0, -1]))
        # The store has what was trimmed, and maybe more.
        archived = max(model.first - 1, draw.randrange(model.lines + 1))
        archived += draw.choice([0, 0, 0, 5])
        answer = await told(log.begin(name, fence, lease=600, lines=archived))
        try:
            expected = model.begin(fence, archived)
        except LeaseLost:
            expected = LeaseLost
        assert answer == expected, (name, fence, archived)
    elif kind == "trim":
        upto = draw.randrange(model.lines + 1)
        await log.trim(name, upto=upto)
        model.trim(upto)
    elif kind == "finish":
        fence = model.fence - (draw.random() < 0.5)
        await log.finish(name, fence)
        model.closed = model.closed or (model.known and fence == model.fence)
    elif kind == "renew":
        await log.renew({name: model.fence}, lease=600)
    elif kind == "lapse":
        if model.known:
            command(server, "HSET", log._keys(name)[0], "until", "1")
        model.live = False
    elif kind == "vanish":
        command(server, "DEL", *log._keys(name))
        models[name] = Model()
    await same(draw, log, name, models[name])


async def same(draw, log, name, model):
    after = draw.randrange(model.lines + 2)
    limit = draw.choice([1, 30, 10_000])
    expected = model.read(after)
    found = await log.read(name, after=after, limit_bytes=limit)
    if expected is None or found is None:
        assert found is expected
        return
    chunks, lines = found
    data, end = expected
    read = b"".join(chunk.data for chunk in chunks)
    assert lines == end
    assert data.startswith(read)
    assert bool(read) == bool(data)
    for chunk in chunks:
        assert chunk.first == after + 1
        after += chunk.count


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_random_calls_agree_with_the_model(valkey, seed):
    seed = random.randrange(2**32) if seed is None else seed

    async def test():
        draw = random.Random(seed)
        models = {f"run {k}": Model() for k in range(3)}
        async with opened(valkey, max_bytes=MOST) as log:
            for k in range(STEPS):
                try:
                    await step(draw, log, valkey, models)
                except AssertionError as error:
                    error.add_note(f"seed {seed}, step {k}")
                    raise
                if k % 100 == 0:
                    await asyncio.sleep(0)

    run(test)
