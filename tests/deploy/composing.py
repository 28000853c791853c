"""Read docker-compose.yml as Compose does, and start its commands as processes of this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[2]
COMPOSE_FILE = CHECKOUT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:[-?])([^}]*))?\})")
PROGRAMS = {
    "kvswarm": (sys.executable, "-m", "kvswarm"),
    "locust": (sys.executable, "-m", "locust"),
    "python": (sys.executable,),
}


class UnsetError(Exception):
    """A variable that must be set is not; Compose stops with the text after `:?`."""


def compose(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in. Raises UnsetError."""
    plain: dict[str, Any] = _filled(yaml.safe_load(COMPOSE_FILE.read_text("utf-8")), environ)
    return plain


def _filled(part: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, environ) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, environ) for value in part]
    if isinstance(part, str):
        return _VARIABLE.sub(lambda match: _value(match, environ), part)
    return part


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    name, operator, text = match.groups()
    if name is None:
        return "$"
    value = environ.get(name, "")
    if not value and operator == ":?":
        raise UnsetError(f"{name}: {text}")
    return value or (text if operator == ":-" else "")


@dataclass(frozen=True)
class Elsewhere:
    """This machine in the place of the containers' network and files."""

    hosts: frozenset[str]
    """Names of services: all are 127.0.0.1."""
    ports: dict[str, str] = field(default_factory=dict)
    """Port in the containers, and the one that stands for it."""

    def command(self, words: list[str]) -> list[str]:
        """A command of the file, as it is here."""
        program, *arguments = words
        return [*PROGRAMS[program], *map(self.text, arguments)]

    def text(self, word: str) -> str:
        """A word, or the address in it, as it is here."""
        if word in self.hosts or word == "0.0.0.0":  # noqa: S104 - it goes
            return "127.0.0.1"
        for host in self.hosts:
            word = re.sub(rf"\b{host}(?=:\d)", "127.0.0.1", word)
        word = re.sub(r"\b\d{4}\b", lambda match: self.ports.get(match[0], match[0]), word)
        return re.sub(r"^/locustfiles/", f"{CHECKOUT}/locustfiles/", word)
