"""Fuzz redaction: `python -m tests.fuzz.redaction [--runs N] [--detector NAME] [--seed N]`.

Texts are put together from secrets, near misses, halves of secrets, and what stands
badly next to them. For each: cut in any way it is redacted as in one piece; a second
reading of the rule, written with plain `re`, agrees; several parts side by side, with
events between, come out as each part alone does, cut at the same events.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import sys
import time
from functools import lru_cache

from operators import event as ev
from operators.redaction import detectors as shipped
from operators.redaction.checks import is_card, is_iban
from operators.redaction.editor import Editor
from operators.redaction.json_text import JsonText
from operators.redaction.places import SCOPES
from operators.redaction.scanner import Rules, Scanner

WORD = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase
HEX = "0123456789abcdef"


def some(rnd, letters, low, high=None):
    return "".join([rnd.choice(letters) for _ in range(rnd.randint(low, high or low))])


def email(rnd):
    local = some(rnd, LOWER + "._%+-", 1, 9)
    return f"{local}@{some(rnd, LOWER, 1, 6)}.{some(rnd, LOWER, 2, 4)}"


def phone(rnd):
    d = string.digits
    return rnd.choice(
        [
            f"+49 {some(rnd, '123456789', 2)} {some(rnd, d, 7)}",
            f"+1{some(rnd, '23456789', 10)}",
            f"({some(rnd, '2345', 3)}) {some(rnd, d, 3)}-{some(rnd, '6789', 4)}",
            f"{some(rnd, '2345', 3)}.{some(rnd, d, 3)}.{some(rnd, '6789', 4)}",
            f"0{some(rnd, '123456789', 3)}/{some(rnd, d, 6)}1",
            f"01 23 45 {some(rnd, d, 2)} 89",
            f"0049(0)30-{some(rnd, d, 6)}12",
        ]
    )


def card(rnd):
    while True:
        digits = rnd.choice("3456") + some(rnd, string.digits, 14, 15)
        if is_card(digits):
            break
    gap = rnd.choice(["", " ", "-"])
    return gap.join([digits[k : k + 4] for k in range(0, len(digits), 4)])


def iban(rnd):
    body = some(rnd, string.digits, 18)
    text = next(t for k in range(100) if is_iban(t := f"DE{k:02}{body}"))
    if rnd.random() < 0.5:
        text = " ".join([text[k : k + 4] for k in range(0, len(text), 4)])
    return text


def ssn(rnd):
    gap = rnd.choice("- ")
    groups = rnd.randint(100, 665), rnd.randint(10, 99), rnd.randint(1000, 9999)
    return gap.join(map(str, groups))


def ipv4(rnd):
    return ".".join([str(rnd.randint(0, 255)) for _ in range(4)])


def ipv6(rnd):
    groups = [some(rnd, HEX, 1, 4) for _ in range(8)]
    if rnd.random() < 0.5:
        at = rnd.randint(1, 6)
        groups[at : at + rnd.randint(1, 3)] = [""]
    return "2" + ":".join(groups)[1:]


HEADS = ["sk-", "sk-proj-", "sk-ant-api03-", "ghp_", "gho_", "hf_", "npm_", "AIza"]
HEADS += ["xoxb-", "sk_live_", "rk_live_", "glpat-", "pypi-", "github_pat_", "SG.a.b"]


def api_key(rnd):
    head = rnd.choice(HEADS)
    if head == "SG.a.b":
        return f"SG.{some(rnd, WORD, 20)}.{some(rnd, WORD, 24)}"
    return head + some(rnd, WORD, 36, 48)


def jwt(rnd):
    parts = ["eyJ" + some(rnd, WORD, 10, 20), "eyJ" + some(rnd, WORD, 8, 20)]
    return ".".join([*parts, some(rnd, WORD + "_-", 10, 20)])


def bearer(rnd):
    token = some(rnd, WORD, 22, 30)
    return rnd.choice(
        [
            f"Bearer {token}",
            f"Authorization: Basic {token}==",
            f'authorization="{token}',
        ]
    )


def aws(rnd):
    if rnd.random() < 0.5:
        return "AKIA" + some(rnd, string.ascii_uppercase + string.digits, 16)
    return f"aws_secret_access_key = {some(rnd, WORD + '/+', 40)}"


def pem(rnd):
    kind = rnd.choice(["RSA ", "EC ", "", "OPENSSH "])
    body = "\n".join([some(rnd, WORD + "+/", 20) for _ in range(rnd.randint(0, 3))])
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


def url(rnd):
    user, password = some(rnd, WORD, 1, 6), some(rnd, WORD + "@:!$", 1, 9)
    scheme, host = rnd.choice(["https", "postgres+x"]), some(rnd, LOWER, 2, 6)
    return f"{scheme}://{user}:{password}@{host}.io"


SECRETS = {
    "EMAIL": email,
    "PHONE": phone,
    "CREDIT_CARD": card,
    "IBAN": iban,
    "US_SSN": ssn,
    "IPV4": ipv4,
    "IPV6": ipv6,
    "API_KEY": api_key,
    "JWT": jwt,
    "BEARER": bearer,
    "AWS_KEY": aws,
    "PRIVATE_KEY": pem,
    "URL_CREDENTIALS": url,
}
BETWEEN = ["", "", " ", " ", ", ", "-", ".", ":", "/", "@", "_", "=", '"', "\n", "\r\n"]
BETWEEN += [
    "\0",
    "é",
    "ß",
    "\u0663",
    "\uff11",
    "\u200b",
    "\u200d",
    "\U0001f469\u200d\U0001f4bb",
]
BETWEEN += [
    "\ud83d",
    "e\u0301",
    "1",
    "9",
    "a",
    "sk-",
    "eyJ",
    "-----BEGIN ",
    "+",
    "00",
    "the ",
]
BETWEEN += [
    "Bearer ",
    "://",
    "AKIA",
    "well-known ",
    "2024-10-11 12:30 ",
    "e.g. ",
    "3.14, ",
]


def text_of(rnd, names):
    """Make one adversarial text."""
    made = []
    for _ in range(rnd.randint(1, 5)):
        secret = SECRETS[rnd.choice(names)](rnd)
        how = rnd.random()
        if how < 0.2:
            secret = secret[: rnd.randint(0, len(secret))]
        elif how < 0.3:
            secret = secret[rnd.randint(0, len(secret)) :]
        elif how < 0.5 and secret:
            at = rnd.randrange(len(secret))
            secret = secret[:at] + rnd.choice(BETWEEN + list("0a-")) + secret[at + 1 :]
        made += [rnd.choice(BETWEEN), secret, rnd.choice(BETWEEN)]
    return "".join(made)


def cut(rnd, text):
    """Cut it: in pieces of 1 to 7, all of one size, or of any size."""
    most = rnd.choice([1, 2, 3, 5, 7, 7, max(1, len(text))])
    low = most if rnd.random() < 0.3 else 1
    pieces = []
    at = 0
    while at < len(text):
        size = rnd.randint(low, most)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def named(detector, text):
    return f"[{detector.name}]"


def streamed(rules, pieces):
    scanner = Scanner(rules, named)
    return "".join([scanner.feed(piece) for piece in pieces]) + scanner.flush()


# -- the rule a second time: slow, by place and end, with nothing but `re`


@lru_cache(maxsize=100_000)
def pinned(pattern, after):
    flags = ""
    if pattern.startswith("(?i)"):
        flags, pattern = "(?i)", pattern[4:]
    return re.compile(f"{flags}(?:{pattern})(?=[\\s\\S]{{{after}}}\\Z)")


def longest(detector, text, start):
    """Find the longest end of a match that begins at `start`."""
    if re.compile(detector.pattern).match(text, start) is None:
        return None
    for end in range(len(text), start, -1):
        if pinned(detector.pattern, len(text) - end).match(text, start) and (
            detector.validate is None or detector.validate(text[start:end])
        ):
            return end
    return None


def oracle(detectors, text):
    """Redact a text in which nothing is cut short at the end."""
    out = []
    at = 0
    while at < len(text):
        found = [(longest(one, text, at), one) for one in detectors]
        ends = [end for end, _ in found if end is not None]
        if not ends:
            out.append(text[at])
            at += 1
            continue
        at = max(ends)
        winner = next(one for end, one in found if end == at)
        out.append(f"[{winner.name}]")
        if winner.closer is not None:
            closer = re.compile(winner.closer.pattern).search(text, at)
            at = len(text) if closer is None else closer.end()
    return "".join(out)


# -- several parts at once, with events between


def interleaved(rnd, rules, texts):
    """Stream several parts in turns; return what came of each, and what should."""

    def begin(scope):
        return lambda before: Scanner(rules, named, before=before)

    def whole(scope, text, before):
        return rules.redact(text, named, before=before)

    editor = Editor(begin, whole, frozenset(SCOPES))
    kinds = [rnd.choice(["text", "reasoning"]) for _ in texts]
    parts = [{"type": kind, "id": f"p{k}"} for k, kind in enumerate(kinds)]
    pieces = [cut(rnd, text) for text in texts]
    segments = [[""] for _ in texts]
    out = []
    while any(pieces):
        if rnd.random() < 0.05:
            out += editor.on_event({"type": "tick"})
            for one in segments:
                one.append("")
        k = rnd.choice([k for k, left in enumerate(pieces) if left])
        piece = pieces[k].pop(0)
        segments[k][-1] += piece
        part = parts[k] if rnd.random() < 0.8 else dict(parts[k])
        out += editor.on_event(ev.delta(part, piece))
    out += editor.finish()
    got = ["" for _ in texts]
    for event in out:
        if event["type"] != "tick":
            got[int(event["data"]["part"]["id"][1:])] += event["data"]["delta"]
    expected = []
    for one in segments:
        scanner = Scanner(rules, named)
        expected.append(
            "".join([scanner.feed(piece) + scanner.flush() for piece in one])
        )
    return got, expected


def written(rnd, text):
    """Write a text as JSON, with escapes wherever it pleases."""
    made = []
    for char in text:
        code = ord(char)
        if code < 0x10000 and (rnd.random() < 0.2 or 0xD800 <= code < 0xE000):
            made.append(f"\\u{code:04x}")
        else:
            made.append(json.dumps(char, ensure_ascii=rnd.random() < 0.5)[1:-1])
    return f'{{"k": "{"".join(made)}"}}'


def in_json(rnd, rules, text):
    """Redact a text inside of JSON, cut anywhere; return it, and what should be."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        text = "".join([char for char in text if not "\ud800" <= char <= "\udfff"])
    raw = written(rnd, text)
    editor = JsonText(lambda before: Scanner(rules, named, before=before))
    out = "".join([editor.feed(piece) for piece in cut(rnd, raw)]) + editor.flush(
        last=True
    )
    return json.loads(out)["k"], rules.redact(text, named, before='k": "')


def run(rnd, rules, detectors, names, *, every):
    """Do one run; `every` of the checks, or the cheap one."""
    text = text_of(rnd, names)
    whole = rules.redact(text, named)
    pieces = cut(rnd, text)
    got = streamed(rules, pieces)
    assert got == whole, (pieces, got, whole)
    if every:
        ended = text + "\n"
        got, expected = rules.redact(ended, named), oracle(detectors, ended)
        assert got == expected, (ended, got, expected)
        texts = [text, *[text_of(rnd, names) for _ in range(rnd.randint(0, 2))]]
        got, expected = interleaved(rnd, rules, texts)
        assert got == expected, (texts, got, expected)
        got, expected = in_json(rnd, rules, text)
        assert got == expected, (text, got, expected)


def fuzz(name, runs, seed, *, every=1):
    """Run one detector, or all; the costly checks in one of `every` runs."""
    rnd = random.Random(f"{name} {seed}")
    detectors = [one for one in shipped.DEFAULT if name in ("ALL", one.name)]
    names = [one.name for one in detectors]
    rules = Rules(detectors)
    for k in range(runs):
        run(rnd, rules, detectors, names, every=k % every == 0)


def main():
    """Fuzz from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--detector", action="append", choices=[*SECRETS, "ALL"])
    given = parser.parse_args()
    for name in given.detector or [*SECRETS, "ALL"]:
        began = time.process_time()
        fuzz(name, given.runs, given.seed, every=given.every)
        took = time.process_time() - began
        said = f"{name:16} {given.runs:,} runs, no difference, {took:.0f} s\n"
        sys.stdout.write(said)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
