"""`kvswarm simulate`, and `python -m kvswarm.simulator`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Serve until stopped; give the exit code."""
    from kvswarm.simulator.config import parse_arguments  # noqa: PLC0415 - keeps the CLI quick
    from kvswarm.simulator.server import serve  # noqa: PLC0415

    return serve(parse_arguments(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
