"""Locust's start form, with what kvswarm knows of it.

In:  the fields of a POST to /swarm.  Out: the options of the next run, and Locust's own fields,
with the number of users that the chosen profile wants where nobody typed another; or why it cannot
start.

Locust's form takes any option of the process, also those that it does not show. Of kvswarm's it
takes here what `options.OPTIONS` lets the web UI change, and of profiles those that come with
kvswarm and the one given at the start: a path would be a file of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kvswarm.errors import KvswarmError, UsageError
from kvswarm.profiles.load import packaged_names
from kvswarm.stream.target import Target
from kvswarm.swarm.options import OPTIONS
from kvswarm.swarm.secrets import headers_of

USERS: Final = "user_count"
SPAWN_RATE: Final = "spawn_rate"


class StartForm:
    """Reads the start form. `options` are Locust's parsed options, which runs are started from."""

    def __init__(
        self, options: dict[str, Any], at_start: Mapping[str, Any], users_of: Callable[[], int]
    ) -> None:
        self._options = options
        self._at_start = at_start
        self._users_of = users_of
        """The number of users that the profile of the options wants. Raises KvswarmError."""
        self._offered: set[float] = set()
        """Numbers of users that the form shows though nobody typed them."""

    def offer(self, users: int) -> None:
        """Note the number that the form shows, because the profile at the start wants it."""
        self._offered = {users}

    def read(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Take our options; give Locust's fields. Raises KvswarmError, and changes nothing then."""
        before = dict(self._options)
        ours = {f"kv_{option.key}": option for option in OPTIONS if option.in_web_ui}
        try:
            for name, value in fields.items():
                if name in ours:
                    ours[name].read(value)
                    self._options[name] = value or None
            self._check_profile()
            self._check_host(fields.get("host"))
            users = self._users_of()
        except KvswarmError:
            self._options.update(before)
            raise
        left = without_ours(fields)
        typed = _number(fields.get(USERS))
        if typed is not None and typed in self._offered:
            left[USERS] = str(users)
            if _number(fields.get(SPAWN_RATE)) in self._offered:
                left[SPAWN_RATE] = str(users)
            # Until it is loaded anew, the page shows what it sent.
            self._offered = {typed, users}
        return left

    def _check_profile(self) -> None:
        chosen, at_start = self._options["kv_profile"], self._at_start["kv_profile"]
        if chosen is None:
            self._options["kv_profile"] = at_start
        elif chosen != at_start and chosen not in packaged_names():
            raise UsageError(
                f"profile {chosen!r}: no such profile comes with kvswarm",
                fix="Choose one of the list, or start Locust with --kv-profile PATH.",
            )

    def _check_host(self, host: str | None) -> None:
        """Raise UsageError where the secrets of this machine would go to another server."""
        if not host or not headers_of(self._at_start["kv_api_key_env"]):
            return
        given = self._at_start.get("host")
        if given is None or _origin(host) != _origin(given):
            raise UsageError(
                f"host {host}: the headers and keys of this process are for "
                f"{given or 'the --host of its start'} only",
                fix="Start Locust with --host URL to send them elsewhere.",
            )


def without_ours(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that Locust may read."""
    return {name: value for name, value in fields.items() if not name.startswith("kv_")}


def _origin(url: str) -> tuple[bool, str, int]:
    target = Target.of(url)
    return target.tls is not None, target.host.lower(), target.port


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None  # Locust says what is wrong with it
