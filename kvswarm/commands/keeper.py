"""Keeps a server no longer than the run it is for: `python -m kvswarm.commands.keeper COMMAND`.

It starts the command in its own process group and ends as that ends. Its standard input ends
however the process at the other end dies, `kill -9` included: then it ends the group. Without it,
a server that nobody knows of would hold the GPU.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Final

STOP_TIMEOUT_S: Final = 20.0


def main() -> None:
    """Run the command that follows this module's name to its end, or to that of the input."""
    for kind in (signal.SIGTERM, signal.SIGINT):
        # No SIG_IGN, which the server would inherit. The whole group gets what is meant for it.
        signal.signal(kind, lambda *_: None)
    try:
        server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603 - no shell
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: cannot be started: {error.strerror}")
    abandoned = threading.Event()
    threading.Thread(target=_watch_input, args=(server, abandoned), daemon=True).start()
    code = server.wait()
    if abandoned.is_set():
        os.killpg(0, signal.SIGKILL)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take back
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _watch_input(server: subprocess.Popen[bytes], abandoned: threading.Event) -> None:
    # Not through sys.stdin, whose lock Python would wait for in vain when the server ends first.
    while os.read(0, 1):
        pass
    abandoned.set()
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_TIMEOUT_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
