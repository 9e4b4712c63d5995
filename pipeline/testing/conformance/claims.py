"""All claims, by name: what the contract of a store says, sentence by sentence."""

from __future__ import annotations

from . import (
    claims_asking,
    claims_interrupted,
    claims_keeping,
    claims_log,
    claims_owning,
    claims_racing,
    claims_settling,
    claims_steps,
)
from .claiming import CLAIMS

__all__ = [
    "CLAIMS",
    "claims_asking",
    "claims_interrupted",
    "claims_keeping",
    "claims_log",
    "claims_owning",
    "claims_racing",
    "claims_settling",
    "claims_steps",
]
