"""The option that names the store to test."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--store`."""
    parser.addoption(
        "--store",
        metavar="MODULE:FACTORY",
        help="a function that takes a folder and returns a conformance Place",
    )
