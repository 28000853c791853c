"""Start a simulator as a process of its own, and end it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from kvswarm.errors import TargetError

READY: Final = "kvswarm simulator on "
STOP_TIMEOUT_S: Final = 5.0


class Simulator:
    """A running simulator; a context manager that stops it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def __enter__(self) -> Simulator:
        """Give the simulator."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """End the process; twice is once."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def start_simulator(arguments: Sequence[str] = ()) -> Simulator:
    """Start a simulator with these options and wait until it listens.

    It ends with this process, however that ends: it watches its standard input. Raises TargetError.
    """
    # A file and no pipe: nobody reads it while the simulator runs, and a full pipe would stop it.
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "kvswarm.simulator", "--exit-with-parent", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = process.stdout.readline()
        simulator = Simulator(process, line.removeprefix(READY).strip())
        if not line.startswith(READY):
            simulator.stop()
            complaints.seek(0)
            detail = (complaints.read() or line).strip()
            raise TargetError(
                f"the simulator did not start: {detail or 'no message'}",
                fix="See `kvswarm simulate --help` for its options.",
            )
    return simulator
