"""What turnpipe costs, against the same work done by other means.

    python -m benchmarks              # all of it, and the table of bars
    python -m benchmarks.turn         # a seven-stage turn: ours, by hand, aiostream
    python -m benchmarks.stage        # each operator, alone and fused
    python -m benchmarks.encode       # the wire: orjson against json and msgspec
    python -m benchmarks.setup        # what a turn costs before its first event; imports

Each takes `--json`, `--quick` and `--strict` (exit status 1 where a bar is not met).
Process CPU time, interleaved in random order, ratios per round: wall time and absolute
figures do not compare between machines, ratios do.
"""
