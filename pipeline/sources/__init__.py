"""Where a turn's events come from: each source is a function, called once per turn.

    Pipeline(openai_chat(base_url="http://127.0.0.1:8080/v1", model="qwen3"))
    Pipeline(local_model())                        # a small model, on this machine
    Pipeline(recorded("answer.sse", speed=1.0))    # a stream from a file, in its time
    Pipeline(events([delta, delta, result]))       # what is at hand

* `openai_chat`: chat completions of any server that speaks OpenAI's protocol
* `openai_responses`: OpenAI's Responses API
* `anthropic_messages`: Anthropic's Messages API
* `local_model`: an embedded llama.cpp, started when first asked, ended with the process
* `recorded`: SSE, NDJSON and timed recordings, chunk for chunk
* `events`: lists, re-iterables, and functions that make iterables
* `sandbox_prompt`: a run of an agent in its sandbox, gone on with where it breaks
* `retry`, `fallback`, `hedge`, `merge`: sources made of sources

A source of your own is an async generator function that takes the turn. It yields
events, or lists of the events that one read brought. The parts are there to be used
again, each without I/O: `sse.Splitter`, `chat_chunks.ChatAssembler`,
`chat_stream.ChatStream`,
`anthropic_events.AnthropicAssembler`, `responses_events.ResponseAssembler`,
`typed_stream.TypedStream`; `streamed.streamed` is the life of one call.
"""

from .anthropic_messages import anthropic_messages
from .fallback import fallback
from .hedge import hedge
from .iterable import events
from .local_model import local_model
from .merge import merge
from .openai_chat import openai_chat
from .openai_responses import openai_responses
from .recorded import recorded
from .retry import retry
from .sandbox_prompt import sandbox_prompt
from .source import Source
from .supervised import SupervisedAdapter, SupervisedEvent, SupervisedSource

__all__ = [
    "Source",
    "SupervisedAdapter",
    "SupervisedEvent",
    "SupervisedSource",
    "anthropic_messages",
    "events",
    "fallback",
    "hedge",
    "local_model",
    "merge",
    "openai_chat",
    "openai_responses",
    "recorded",
    "retry",
    "sandbox_prompt",
]
