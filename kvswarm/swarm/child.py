"""Locust as `kvswarm run` starts it: `python -m kvswarm.swarm.child locust OPTIONS`.

It does what its command line says and nothing else. Locust also reads ~/.locust.conf, and
locust.conf and pyproject.toml where it is started: `users = 3` there would be three users,
whatever --concurrency and the profile said.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from locust import events
from locust.main import main as locust_main


def without_config_files(parser: Any, **_: Any) -> None:
    """Let a parser of Locust's read no files; Locust itself does it so for its defaults."""
    parser._default_config_files = []  # noqa: SLF001 - there is no other way


def main() -> None:
    """Run Locust with the command line that follows this module's name."""
    sys.argv = sys.argv[1:]
    if "--worker" in sys.argv:
        # Locust keeps the master's locustfile where temporary files are, under the name that it has
        # there: workers that start together would read each other's, half written.
        own = tempfile.TemporaryDirectory(prefix="kvswarm-")
        tempfile.tempdir = own.name
    events.init_command_line_parser.add_listener(without_config_files)
    locust_main()


if __name__ == "__main__":
    main()
