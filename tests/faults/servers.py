"""Stores for workers in processes of their own: by name, a fresh one each time."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path


class Sqlite:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.serial = itertools.count()

    def fresh(self):
        return f"sqlite:///{self.folder}/turns-{next(self.serial)}.db"


@contextlib.contextmanager
def serving(name):
    """Serve `sqlite`; other names are added where their servers are."""
    if name != "sqlite":
        raise ValueError(f"unknown store {name!r}")
    with tempfile.TemporaryDirectory() as folder:
        yield Sqlite(folder)
