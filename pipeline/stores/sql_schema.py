"""The tables of a SqlStore, and their version."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSION: Final = 1

metadata: Final = MetaData()

runs: Final = Table(
    "turnpipe_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("session", Text),
    Column("manifest_hash", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("settled_by", BigInteger, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("cancel", Text),
    Column("outcome", LargeBinary),
    Column("handle", LargeBinary),
    Column("meta", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("forgotten", Boolean, nullable=False),
    # One running run a session, whatever races for it.
    Index(
        "turnpipe_one_running",
        "session",
        unique=True,
        sqlite_where=text("status = 'running' AND session IS NOT NULL"),
        postgresql_where=text("status = 'running' AND session IS NOT NULL"),
    ),
    Index("turnpipe_sessions", "session", "created_at"),
    Index("turnpipe_newest", "created_at"),
    Index(
        "turnpipe_leases",
        "lease_until",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
    Index(
        "turnpipe_owners",
        "owner",
        sqlite_where=text("owner IS NOT NULL"),
        postgresql_where=text("owner IS NOT NULL"),
    ),
    Index(
        "turnpipe_ended",
        "ended_at",
        # As queries say it there: a partial index serves no other wording.
        sqlite_where=text("ended_at IS NOT NULL AND forgotten = 0"),
        postgresql_where=text("ended_at IS NOT NULL AND NOT forgotten"),
    ),
    # Each append changes a row: room beside it spares the indexes that.
    postgresql_with={"fillfactor": 70},
)

log: Final = Table(
    "turnpipe_log",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("event_id", Text),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("run_id", "event_id"),
)

steps: Final = Table(
    "turnpipe_steps",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("intent", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
)

signals: Final = Table(
    "turnpipe_signals",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    Column("emitted_at", Double, nullable=False),
)

schema_info: Final = Table(
    "turnpipe_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)
