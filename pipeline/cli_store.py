"""Where the command keeps its messages: one table in an SQLite file."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from operators.turn import TurnRecord

from .execution import derive_execution_id

if TYPE_CHECKING:
    from collections.abc import Iterator

Message: TypeAlias = dict[str, str]

TENANT: Final = "local"
_PATIENCE = 10.0
"""Seconds to wait for another process that writes."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
    execution_id TEXT PRIMARY KEY,
    session_id   TEXT NOT NULL,
    turn_index   INTEGER NOT NULL,
    status       TEXT NOT NULL,
    question     TEXT NOT NULL,
    text         TEXT NOT NULL DEFAULT '',
    parts        TEXT NOT NULL DEFAULT '[]',
    usage        TEXT,
    started_at   REAL,
    ended_at     REAL,
    UNIQUE (session_id, turn_index)
)
"""


def data_dir() -> Path:
    """Tell where this user's data belongs (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return base / "turnpipe"


class MessageStore:
    """The messages of all sessions, one row a turn, keyed by execution id.

    A row is made when the turn begins, as `running`, and filled in when it is saved.
    Each call opens the file anew, in a thread.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    async def begin(self, session_id: str, question: str) -> tuple[int, list[Message]]:
        """Take the session's next turn index; give it and the talk so far.

        Raises:
            OSError: the folder or the file cannot be written.
            sqlite3.Error: it is not a database of ours.
        """
        return await asyncio.to_thread(self._begin, session_id, question)

    async def save(self, record: TurnRecord) -> None:
        """Fill in the turn's row; a second save of a turn replaces the first."""
        await asyncio.to_thread(self._save, record)

    def _begin(self, session_id: str, question: str) -> tuple[int, list[Message]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as db:
            db.execute(_SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            rows = db.execute(
                "SELECT turn_index, status, question, text FROM messages"
                " WHERE session_id = ? ORDER BY turn_index",
                (session_id,),
            ).fetchall()
            turn_index = rows[-1][0] + 1 if rows else 0
            db.execute(
                "INSERT INTO messages"
                " (execution_id, session_id, turn_index, status, question)"
                " VALUES (?, ?, ?, 'running', ?)",
                (
                    derive_execution_id(TENANT, session_id, turn_index),
                    session_id,
                    turn_index,
                    question,
                ),
            )
            db.execute("COMMIT")
        return turn_index, list(_talk(rows))

    def _save(self, record: TurnRecord) -> None:
        usage = (
            None
            if record.usage is None
            else json.dumps(asdict(record.usage), default=str)
        )
        with closing(self._connect()) as db:
            db.execute(
                "UPDATE messages SET status = ?, text = ?, parts = ?, usage = ?,"
                " started_at = ?, ended_at = ? WHERE execution_id = ?",
                (
                    record.status,
                    _storable(record.text),
                    json.dumps(record.parts),
                    usage,
                    record.started_at,
                    record.ended_at,
                    record.execution_id,
                ),
            )

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)


def _talk(rows: list[tuple[int, str, str, str]]) -> Iterator[Message]:
    for _, status, question, text in rows:
        if status == "completed":
            yield {"role": "user", "content": question}
            yield {"role": "assistant", "content": text}


def _storable(text: str) -> str:
    """Replace lone surrogates, which SQLite's UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
