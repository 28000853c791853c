"""Scripts that stand for `vllm serve`: they take its flags, note them, and serve the simulator."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

BEGIN = """\
#!{python}
import json, os, subprocess, sys, time
import signal
sys.path.insert(0, {checkout!r})
words = sys.argv[1:]
with open({notes!r}, "a") as file:
    print(json.dumps({{"words": words, "pid": os.getpid(), "environ": dict(os.environ)}}), file=file)
def flag(name, default=None):
    return words[words.index(name) + 1] if name in words else default
"""

SIMULATE = """
config = json.loads(flag("--speculative-config", "{}"))
arguments = ["--port", flag("--port"), "--exact", "10", "2"]
if config:
    arguments = ["--port", flag("--port"), "--step-ms", "2"]
    arguments += ["--speculative-tokens", str(config["num_speculative_tokens"])]
print("serving on", flag("--port"), flush=True)
command = [sys.executable, "-m", "kvswarm.simulator", *arguments]
"""

SERVE = SIMULATE + "os.environ['PYTHONPATH'] = sys.path[0]; os.execv(sys.executable, command)"
FAIL = "print('\\n'.join(f'line {n}' for n in range(40))); print('no such model'); sys.exit(7)"
HANG = "time.sleep(600)"
SERVE_UNTIL_TOLD = (
    SIMULATE
    + """
os.environ["PYTHONPATH"] = sys.path[0]
served = subprocess.Popen(command)
while not os.path.exists(sys.argv[0] + ".end"):
    time.sleep(0.05)
served.kill()
sys.exit(9)
"""
)
STUBBORN = """
signal.signal(signal.SIGTERM, lambda *_: open(sys.argv[0] + ".asked", "w").close())
child = subprocess.Popen([sys.executable, "-c", "import signal, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\ntime.sleep(600)"])
with open(sys.argv[0] + ".child", "w") as file:
    file.write(str(child.pid))
time.sleep(600)
"""


@dataclass(frozen=True)
class Script:
    """An executable file, and what it noted each time that it was started."""

    path: Path

    @property
    def starts(self) -> list[dict[str, Any]]:
        """`words`, `pid` and `environ` of every start; none while there was none."""
        notes = self.path.with_suffix(".notes")
        if not notes.exists():
            return []
        return [json.loads(line) for line in notes.read_text().splitlines()]

    def left(self) -> list[int]:
        """Processes of it that are still there."""
        pids = [start["pid"] for start in self.starts]
        child = Path(f"{self.path}.child")
        pids += [int(child.read_text())] if child.exists() else []
        return [pid for pid in pids if _runs(pid)]


def script(folder: Path, what: str, name: str = "server") -> Script:
    """Write an executable script."""
    path = folder / name
    checkout = str(Path(__file__).parents[1])
    begin = BEGIN.format(
        python=sys.executable, checkout=checkout, notes=str(path.with_suffix(".notes"))
    )
    path.write_text(begin + what + "\n")
    path.chmod(0o755)
    return Script(path)


def _runs(pid: int) -> bool:
    """Whether a process is there and has not ended: who started it may not have looked yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
