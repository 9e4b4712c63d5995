"""What redaction costs per delta, what it holds back, and what a peer lets out.

The full default set, fused into a pipeline, as what a pipeline's event costs more with it
than without. Each turn's text is another one, of the same words. The peer, datafog, is
measured where it is installed (`pip install datafog`).
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import cycle

from operators.event import delta, text_part
from operators.operator import Composable
from operators.redaction import Detector, detectors, redact, restore
from operators.redaction.scanner import Rules, Scanner
from pipeline import Pipeline

from . import seven
from .measure import Bar, Case, Report, Settings, Table, main, measure

EVENTS = 200
TURNS = 24

TEXTS = {
    "English": """The sea looks blue because water absorbs the long wavelengths of
        sunlight more strongly than the short ones. In 1921 a physicist named Raman
        noticed, on a voyage to Europe, that the colour could not be a mere reflection
        of the sky; he proved it with a prism and a few well-chosen measurements, e.g.
        at noon, when the light falls almost straight down. It's a subtle effect: a
        glass of water looks clear, yet three metres of it are visibly tinted.
        Understanding the scattering took another ten years, and about 30 papers (see
        https://example.com/optics) until somebody wrote it down in plain words.
        The depth matters, too: down to ten metres you can still tell red from brown,
        but at thirty everything has taken on the same cold tone, and a diver who cuts
        a finger sees green blood. That is why lamps are carried even on a bright day.
        Near the coast the water turns green, since it is full of small plants, and
        after a storm it may be grey or brown for a week. Nobody who has once seen the
        open sea on a clear morning, though, will ever forget how blue it can be.""",
    "German": """Das Meer wirkt blau, weil Wasser die langen Wellenlängen des Sonnenlichts
        stärker schluckt als die kurzen. Im Jahr 1921 bemerkte ein Physiker auf der
        Überfahrt nach Europa, dass die Farbe nicht bloß der gespiegelte Himmel sein
        konnte; er wies es mit einem Prisma nach, z. B. mittags, wenn das Licht fast
        senkrecht einfällt. Die Wirkung ist unscheinbar: ein Glas Wasser sieht klar aus,
        drei Meter davon sind sichtbar gefärbt.""",
    "French": """La mer paraît bleue parce que l'eau absorbe les grandes longueurs d'onde
        de la lumière plus fortement que les courtes. En 1921, un physicien remarqua,
        pendant une traversée vers l'Europe, que la couleur n'était pas qu'un reflet du
        ciel; il l'a prouvé avec un prisme et quelques mesures, p. ex. à midi, quand la
        lumière tombe presque à la verticale.""",
    "code": """def mean(values: list[float]) -> float: if not values: raise
        ValueError("no values") total = sum(values) # 0.5 us return total / len(values)
        for k, row in enumerate(self._rows[1:], start=2): print(f"{k:>4}", row["name"])
        x_max = max(-1e-9, y_min + 2 * np.pi) import numpy as np""",
    "JSON": """{"id": 1042, "name": "blue sea", "tags": ["water", "light"], "depth_m":
        12.5, "ok": true, "at": "2024-10-11T12:30:45Z", "next": null, "rows": [[1, 2],
        [3, 4]], "path": "/data/sea/1042.json"}""",
    "Markdown": """## Why the sea is blue - **Absorption**: red light is lost first (about
        0.3 /m). - *Scattering*: `n^4`; see [Raman](https://example.com/raman-1921). 1.
        Take a prism. 2. Look at it at noon. > It's a *subtle* effect. | depth | colour |
        |-------|--------| | 1 m | clear |""",
}
SECRETS = (
    "alice.smith@example.com",
    "4111 1111 1111 1111",
    "078-05-1120",
    "(415) 555-2671",
    "192.168.171.17",
)


def texts(kind: str) -> list[str]:
    """Make a text for each of some turns: phrases of the sample, in another order."""
    rnd = random.Random(kind)
    words = TEXTS[kind].split()
    made: list[str] = []
    for _ in range(TURNS):
        text = ""
        while len(text) < 9 * EVENTS:
            at = rnd.randrange(len(words))
            text += " ".join(words[at : at + rnd.randint(2, 9)]) + " "
        made.append(text)
    return made


def fives(text: str) -> list[str]:
    """Cut a text every five characters."""
    return [text[at : at + 5] for at in range(0, 5 * EVENTS, 5)]


def tokens(text: str) -> list[str]:
    """Cut a text as models do: words with the space before them, and what is between."""
    return re.findall(r" ?[^\W\d_]+| ?\d{1,3}|\s|[^\w\s]+|_", text)[:EVENTS]


CUTS: dict[str, Callable[[str], list[str]]] = {"five": fives, "tokens": tokens}


def run(settings: Settings) -> Report:
    """Measure all of it."""
    cost = Table(
        "redact(*DEFAULT): ns per delta more",
        ("text", "5 characters", "tokens"),
    )
    held = Table(
        "Deltas held for more than one delta, %: wholly, or the end of them",
        ("text", "5 characters", "", "tokens", ""),
    )
    bars: list[Bar] = []
    for kind in TEXTS:
        figures = [_cost(kind, cut, settings) for cut in CUTS.values()]
        shares = [
            share * 100 for cut in CUTS.values() for share in held_longer(kind, cut)
        ]
        cost.rows.append((kind, *figures))
        held.rows.append((kind, *shares))
        if kind == "English":
            bars.append(
                Bar(
                    "redact, 5-character delta of prose", figures[0] / 1e3, 1.5, 1, "us"
                )
            )
            bars.append(Bar("deltas of prose held > 1 delta", shares[0], 3, 2, "%"))
    return Report([cost, held, _others(settings), _peer(settings)], bars)


def _cases(kind: str, cut: Callable[[str], list[str]]) -> Callable[..., Case]:
    part = text_part("t0")
    turns = [[delta(part, piece) for piece in cut(text)] for text in texts(kind)]

    def make(*operators: Composable) -> Case:
        upcoming = cycle(turns)
        chat = Pipeline(lambda: seven.singly(next(upcoming))())
        for operator in operators:
            chat |= operator

        async def read() -> None:
            async for _ in chat.start(seven.IDENTITY).events():
                pass

        return read

    return make


def _cost(kind: str, cut: Callable[[str], list[str]], settings: Settings) -> float:
    make = _cases(kind, cut)
    found = measure({"bare": make(), "redact": make(_redact())}, settings)
    return found.added("redact", "bare") / EVENTS * 1e9


def _redact() -> Composable:
    return redact(*detectors.DEFAULT)


def held_longer(kind: str, cut: Callable[[str], list[str]]) -> tuple[float, float]:
    """Tell which share of deltas is held when the one after it has passed.

    Wholly: no character of it is out. Or in part: the last one is not. What must be held
    is the word under way: it may be the beginning of an address.
    """
    rules = Rules(detectors.DEFAULT)
    wholly = partly = count = 0
    for text in texts(kind):
        scanner = Scanner(rules, lambda detector, found: found)
        before = 0
        for piece in cut(text):
            scanner.feed(piece)
            left = scanner.held - len(piece)
            wholly += 0 < before <= left
            partly += left > 0
            before = len(piece)
            count += 1
    return wholly / count, partly / count


def _others(settings: Settings) -> Table:
    make = _cases("English", tokens)
    found = measure(
        {
            "bare": make(),
            "redact(EMAIL)": make(redact(detectors.EMAIL)),
            "redact(*DEFAULT)": make(_redact()),
            "redact(*DEFAULT, on_close=f)": make(
                redact(*detectors.DEFAULT, on_close=lambda stats: None)
            ),
            "restore(vault)": make(restore({"[EMAIL_1]": "alice@example.com"})),
        },
        settings,
    )
    table = Table("Tokens of English prose: ns per delta more", ("operator", "ns"))
    for name in found.seconds:
        if name != "bare":
            table.rows.append((name, found.added(name, "bare") / EVENTS * 1e9))
    return table


def _peer(settings: Settings) -> Table:
    """Measure datafog, delta by delta, and count what it lets out over cut points."""
    columns = ("redactor", "us/delta", "leaks", "of cuts")
    table = Table("Over every cut of five secrets into two deltas", columns)
    pieces = tokens(texts("English")[0])
    rules = Rules(detectors.DEFAULT)

    def ours() -> None:
        scanner = Scanner(rules, _named)
        for piece in pieces:
            scanner.feed(piece)
        scanner.flush()

    cases: dict[str, Case] = {"turnpipe": ours}
    streams: dict[str, Callable[[list[str]], str]] = {"turnpipe": _streamed(rules)}
    try:
        sanitize: Callable[[str], str] = import_module("datafog").sanitize
    except ImportError:
        table.title += "; datafog is not installed: pip install datafog"
    else:
        name = "datafog, each delta"
        cases[name] = lambda: [sanitize(piece) for piece in pieces]
        streams[name] = lambda cut: "".join(map(sanitize, cut))
    found = measure(cases, settings)
    for name, stream in streams.items():
        leaks, cuts = _leaks(stream)
        table.rows.append((name, found.median(name) / len(pieces) * 1e6, leaks, cuts))
    return table


def _named(detector: Detector, text: str) -> str:
    return f"[{detector.name}]"


def _streamed(rules: Rules) -> Callable[[list[str]], str]:
    def stream(pieces: list[str]) -> str:
        scanner = Scanner(rules, _named)
        return "".join(map(scanner.feed, pieces)) + scanner.flush()

    return stream


def _leaks(stream: Callable[[list[str]], str]) -> tuple[int, int]:
    """Count the cuts after which four characters in a row of a secret are shown."""
    leaks = cuts = 0
    for secret in SECRETS:
        text = f"so: {secret} ok"
        fours = {secret[at : at + 4] for at in range(len(secret) - 3)}
        for at in range(5, 4 + len(secret)):
            cuts += 1
            out = stream([text[:at], text[at:]])
            leaks += any(four in out for four in fours)
    return leaks, cuts


if __name__ == "__main__":
    sys.exit(main(run, __doc__))
