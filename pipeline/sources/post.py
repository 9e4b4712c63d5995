"""A request, and how messages speak of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from operators.errors import SourceError, SourceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What to ask, and how to speak of it without telling its secrets."""

    url: str
    headers: dict[str, str] = field(repr=False)
    content: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The request as messages name it."""
        return f"POST {self.url}"

    def clean(self, text: str) -> str:
        """Take the secrets out of a text, also one that its end cuts short."""
        for secret in self.secrets:
            text = text.replace(secret, "[secret]")
            for length in range(len(secret) - 1, 3, -1):
                if text.endswith(secret[:length]):
                    text = text[:-length] + "[secret]"
                    break
        return text

    def clean_error(self, error: SourceError) -> None:
        """Take the secrets out of an error that quotes what the provider wrote."""
        error.args = (self.clean(str(error)),)
        if isinstance(error, SourceStatus):
            error.body = self.clean(error.body)
