"""Starting, killing and stopping worker processes; each is gone when its test ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .run_process import lines
from .tasks import effects

ROOT = Path(__file__).parents[2]


class Process:
    """One worker process, from its start to its end."""

    def __init__(self, *arguments):
        command = [
            sys.executable,
            "-m",
            "tests.durable.run_process",
            *map(str, arguments),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def ended(self, limit_s=60):
        """Wait for its end; give what it told."""
        out, err = self.process.communicate(timeout=limit_s)
        told = lines(out)
        assert told, err[-2000:]
        return told

    def told_until(self, count):
        """Read so many of the events that it tells."""
        told = []
        while len(told) < count:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()[-2000:]
            told += [one["at"] for one in lines(line)]
        return told

    def until(self, path, name, limit_s=30):
        """Wait until it has done something."""
        gives_up = time.monotonic() + limit_s
        while name not in effects(path):
            assert self.process.poll() is None, self.process.stderr.read()[-2000:]
            assert time.monotonic() < gives_up, f"no {name}"
            time.sleep(0.005)


def ran(*arguments):
    """Run a worker to its end; give what it told last."""
    with Process(*arguments) as process:
        return process.ended()[-1]
