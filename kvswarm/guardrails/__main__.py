"""`python -m kvswarm.guardrails > docs/rules.md`: write the page of rules."""

from __future__ import annotations

import sys

from kvswarm.guardrails.page import page

if __name__ == "__main__":
    sys.stdout.write(page())
