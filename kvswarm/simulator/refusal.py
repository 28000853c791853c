"""What the simulator refuses, as vLLM says it; how others do, their flavors know."""

from __future__ import annotations

import msgspec


class RequestError(Exception):
    """A request that vLLM would refuse: the status and the message."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind

    def body(self) -> bytes:
        """The error as vLLM sends it."""
        error = {
            "message": self.message, "type": self.kind, "param": None, "code": self.status
        }  # fmt: skip
        return msgspec.json.encode({"error": error})


class CannotMake(ValueError):  # noqa: N818 - what it says of a constraint: a 400 where it is asked
    """A constraint that the simulator does not know, or that nothing meets; says which."""
