"""Texts of JSON Schema's formats, drawn with a seed. Source: RFC 3339, 3986, 4122, 5321."""

from __future__ import annotations

import ipaddress
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

NAMES: Final = ("ada", "grace", "alan", "edsger", "barbara", "ken", "donald", "frances")
HOSTS: Final = ("example.com", "example.org", "mail.example.net", "www.example.edu")
LATEST_S: Final = 4_102_444_799
"""The last second of 2099."""


def _moment(rng: random.Random) -> datetime:
    return datetime.fromtimestamp(rng.randint(0, LATEST_S), UTC)


def _uri(rng: random.Random) -> str:
    return f"https://{rng.choice(HOSTS)}/{rng.choice(NAMES)}?id={rng.randint(1, 9999)}"


FORMAT_TEXTS: Final[dict[str, Callable[[random.Random], str]]] = {
    "date": lambda rng: f"{_moment(rng):%Y-%m-%d}",
    "time": lambda rng: f"{_moment(rng):%H:%M:%SZ}",
    "date-time": lambda rng: f"{_moment(rng):%Y-%m-%dT%H:%M:%SZ}",
    "email": lambda rng: f"{rng.choice(NAMES)}{rng.randint(1, 99)}@{rng.choice(HOSTS)}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "uri": _uri,
    "hostname": lambda rng: rng.choice(HOSTS),
    "ipv4": lambda rng: str(ipaddress.IPv4Address(rng.getrandbits(32))),
    "ipv6": lambda rng: str(ipaddress.IPv6Address(rng.getrandbits(128))),
}
