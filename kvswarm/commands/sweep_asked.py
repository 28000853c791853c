"""`kvswarm sweep` as it was typed: a sweep over values, or a search for the highest load.

In:  the command line's values and words.  Out: what `sweep` or `search` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvswarm.analysis.capacity import Kind
from kvswarm.commands.run_request import request_of
from kvswarm.commands.search import SearchAsked, search
from kvswarm.commands.sweep import sweep
from kvswarm.commands.swept import read_grid
from kvswarm.errors import UsageError

OF_SEARCH: Final = {
    "slos": "slo", "goodput": "goodput", "precision": "precision", "start": "from",
    "most": "most", "blocks": "blocks",
}  # fmt: skip
"""Values that go with a search alone, and their flags."""


def sweep_asked(values: Mapping[str, Any], words: Sequence[str]) -> int:
    """Do it; give the exit code. Raises KvswarmError."""
    rest = dict(values)
    overs, profiles, kind = rest.pop("overs"), rest.pop("profiles"), rest.pop("search")
    given = {name: rest.pop(name) for name in OF_SEARCH}
    request = request_of(rest, words)
    if kind is None:
        for name, flag in OF_SEARCH.items():
            if given[name]:
                raise UsageError(f"--{flag}: goes with --search", fix="Add it, or leave this out.")
        return sweep(request, read_grid(overs, profiles))
    if overs or profiles:
        flag = "--over" if overs else "--profiles"
        raise UsageError(f"{flag} with --search: one at a time", fix="Leave one of the two out.")
    return search(request, _search_asked(kind, given))


def _search_asked(kind: Kind, given: Mapping[str, Any]) -> SearchAsked:
    settings = {
        "goodput_share" if name == "goodput" else name: value
        for name, value in given.items()
        if value is not None
    }
    return SearchAsked(kind=kind, **settings)
