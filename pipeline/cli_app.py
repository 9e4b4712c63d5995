"""The command line's grammar: what can be asked, and what a wrong question is told."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from . import cli_durable
from .cli_durable import Where
from .cli_run import USAGE, BadUsageError, Request, run
from .cli_store import data_dir
from .pipeline import Pipeline

QUESTION: Final = "Why does the sea look blue? Answer in three short sentences."

app: Final = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One chat turn as one event stream.",
)


class WireName(StrEnum):
    """What can be written to standard output."""

    NDJSON = "ndjson"
    TEXT = "text"


class GraphFormat(StrEnum):
    """How a pipeline can be drawn."""

    MERMAID = "mermaid"
    DOT = "dot"
    ASCII = "ascii"
    SVG = "svg"


Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:NAME",
        help="Where the pipeline is, such as examples.seven_stages:chat.",
        show_default=False,
    ),
]


@app.command("run")
def run_command(
    question: Annotated[str, typer.Argument(help="What to ask.")] = QUESTION,
    *,
    source: Annotated[
        str,
        typer.Option(
            metavar="local|URL|FILE",
            help="The embedded model, an OpenAI-like server, or a recorded stream.",
        ),
    ] = "local",
    model: Annotated[
        str | None,
        typer.Option(help="The model to ask a server for; locally, a GGUF file."),
    ] = None,
    wire: Annotated[
        WireName | None,
        typer.Option(
            help="What to print; left out: the text on a terminal, else NDJSON.",
            show_default=False,
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(help="Go on with this session; left out: a new one."),
    ] = None,
    speed: Annotated[
        float, typer.Option(help="How fast to replay a recorded stream; 0: at once.")
    ] = 1.0,
    db: Annotated[
        Path | None,
        typer.Option(
            help="The SQLite file for messages; left out: turns.db in the user's data.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="The file for OTLP JSON lines; left out: beside the messages.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print no summary to standard error.")
    ] = False,
) -> None:
    """Ask a model one question, as one turn.

    On a terminal the text is shown as it comes, then how it went. Piped, standard
    output is NDJSON, one event a line. Ctrl-C once stops the turn and keeps what came;
    twice leaves at once.
    """
    messages = db or data_dir() / "turns.db"
    try:
        code = run(
            Request(
                question=question,
                source=source,
                model=model,
                wire=wire and wire.value,
                session=session,
                speed=speed,
                db=messages,
                trace=trace or messages.with_suffix(".traces.jsonl"),
                quiet=quiet,
            )
        )
    except BadUsageError as error:
        _refuse(str(error))
    raise typer.Exit(code)


@app.command()
def graph(
    target: Target,
    *,
    format: Annotated[  # noqa: A002 - the option's name
        GraphFormat, typer.Option(help="What to draw it as.")
    ] = GraphFormat.MERMAID,
) -> None:
    """Draw a pipeline."""
    print(load(target).graph(format=format.value))


@app.command()
def explain(target: Target) -> None:
    """Tell what of a pipeline runs as one loop, and why each boundary is one."""
    print(load(target).explain())


@app.command()
def audit(target: Target) -> None:
    """Tell who sees a pipeline's text before it is redacted; exit 1 where anybody does."""
    found = load(target).audit()
    print(found)
    if found.open:
        raise typer.Exit(1)


ExecutionId = Annotated[
    str, typer.Argument(metavar="EXECUTION_ID", help="The turn.", show_default=False)
]
Database = Annotated[
    str,
    typer.Option(
        "--db",
        metavar="URL",
        help="Where turns are kept: an SQLite file, or sqlite:/// or postgresql:// URL.",
        show_default=False,
    ),
]

DeliveryLog = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The log beside it, if the turns have one: redis://host:6379/0.",
        show_default=False,
    ),
]


@app.command()
def status(execution_id: ExecutionId, *, db: Database, log: DeliveryLog = None) -> None:
    """Tell how a kept turn stands; exit 1 where it failed, 130 where it was cancelled."""
    _exit(lambda: cli_durable.status(Where(db, log), execution_id))


@app.command()
def attach(
    execution_id: ExecutionId,
    *,
    db: Database,
    log: DeliveryLog = None,
    after: Annotated[
        int, typer.Option(min=0, help="How many lines are here already.")
    ] = 0,
) -> None:
    """Print a kept turn's events, from the first or after a cursor, until it ends.

    Leaving it, with Ctrl-C, does not end the turn.
    """
    _exit(lambda: cli_durable.attach(Where(db, log), execution_id, after))


@app.command()
def tail(
    execution_id: ExecutionId,
    *,
    db: Database,
    log: DeliveryLog = None,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many to begin with.")
    ] = 10,
) -> None:
    """Print a kept turn's last events, and those that come, until it ends."""
    _exit(lambda: cli_durable.tail(Where(db, log), execution_id, lines))


@app.command()
def cancel(
    execution_id: ExecutionId,
    *,
    db: Database,
    log: DeliveryLog = None,
    reason: Annotated[
        str, typer.Option(help="What its readers are told.")
    ] = "cancelled",
) -> None:
    """Stop a turn that runs, wherever it runs; exit 1 where it had ended."""
    _exit(lambda: cli_durable.cancel(Where(db, log), execution_id, reason))


def _exit(command: Callable[[], int]) -> NoReturn:
    try:
        code = command()
    except BadUsageError as error:
        _refuse(str(error))
    raise typer.Exit(code)


def load(target: str) -> Pipeline:
    """Import the pipeline that `MODULE:NAME` names; the current folder comes first."""
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        _refuse(f"{target!r} is not MODULE:NAME, such as examples.seven_stages:chat")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        _refuse(f"cannot import {module_name}: {error}")
    found = getattr(module, name, None)
    if not isinstance(found, Pipeline):
        pipelines = sorted(
            k for k, v in vars(module).items() if isinstance(v, Pipeline)
        )
        kind = "missing" if found is None else f"a {type(found).__name__}"
        _refuse(
            f"{name} in {module_name} is {kind}, not a Pipeline; "
            f"there are: {', '.join(pipelines) or 'none'}"
        )
    return found


def _refuse(message: str) -> NoReturn:
    print(f"turnpipe: {message}", file=sys.stderr)
    raise typer.Exit(USAGE)
