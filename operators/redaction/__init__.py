"""Redaction: secrets never leave, however they are cut into deltas.

    chat = Pipeline(produce) | ops.lifecycle() | ops.redact(*ops.detectors.DEFAULT) | ...

* `redact(*detectors)`, the operator; `restore(vault)` undoes it for a trusted reader
* `detectors`: those that are shipped; `Detector.regex`, `.words`, `.block` make yours
* beneath: `pattern` (a regular expression as nodes), `automaton` (all detectors as one),
  `scanner` (a text in pieces), `json_text` (the same inside of JSON), `editor` (events)
"""

from . import detectors as detectors
from .detector import Detector
from .redact import redact
from .restore import restore
from .scanner import RedactionOverflow
from .stats import RedactionStats
from .vault import Vault

__all__ = [
    "Detector",
    "RedactionOverflow",
    "RedactionStats",
    "Vault",
    "detectors",
    "redact",
    "restore",
]
