"""What a server answered: text and tool calls, put together from the stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call; `arguments` is the text that should be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


class FunctionFragment(Protocol):
    """A piece of a function call, as a stream brings it."""

    name: str | None
    arguments: str | None


class CallFragment(Protocol):
    """A piece of the tool call with this `index`."""

    index: int
    id: str | None

    @property
    def function(self) -> FunctionFragment | None:
        """The piece of its function."""


def tool_calls_of(fragments: Iterable[CallFragment]) -> tuple[ToolCall, ...]:
    """Put calls together: the first id and name of an index count, arguments are joined."""
    ids: dict[int, str] = {}
    names: dict[int, str] = {}
    arguments: dict[int, list[str]] = {}
    for fragment in fragments:
        pieces = arguments.setdefault(fragment.index, [])
        if fragment.id:
            ids.setdefault(fragment.index, fragment.id)
        function = fragment.function
        if function is None:
            continue
        if function.name:
            names.setdefault(fragment.index, function.name)
        if function.arguments:
            pieces.append(function.arguments)
    return tuple(
        ToolCall(id=ids.get(index, ""), name=names.get(index, ""), arguments="".join(pieces))
        for index, pieces in sorted(arguments.items())
    )
