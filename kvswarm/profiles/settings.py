"""Settings of the command line: `KEY=VALUE` over any key of a profile.

In:  the values of a profile, and texts such as `speculative.num_speculative_tokens=3`: the key is a
     way through maps, with dots; the value is YAML.
Out: one more layer, to go over the profile by the rules of `layers.py`.

A way into a map keeps the rest of that map, also where a file would replace it whole. A list is
replaced as a whole. A null takes a key away at the top, and is a value like any other below.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.errors import ProfileError
from kvswarm.profiles.document import Document, read_value
from kvswarm.profiles.problems import KeyPath, Place, Problem, key_text, profile_error, seen

FLAG: Final = "--set"
SHOWN_CHARACTERS: Final = 60
FILE_ONLY: Final = ("extends",)
"""Keys that say how a file is read, and mean nothing once it is."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One `KEY=VALUE`, divided but not read."""

    key: str
    text: str

    @property
    def path(self) -> tuple[str, ...]:
        """The way to the value."""
        return tuple(self.key.split("."))

    @property
    def source(self) -> str:
        """How messages call it: the flag as it was given, cut to one short line."""
        given = f"{FLAG} {self.key}={self.text}"
        short = len(given) <= SHOWN_CHARACTERS and given.isprintable()
        return given if short else f"{FLAG} {self.key}"


def read_setting(text: str, flag: str = FLAG) -> Setting:
    """Divide `KEY=VALUE`. Raises ProfileError where there is no = or a part of the key is empty."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ProfileError(
            f"{flag} {text}: is not KEY=VALUE",
            fix="Give a key of the profile by its path, such as "
            f"{flag} speculative.num_speculative_tokens=3.",
        )
    return Setting(key, value.strip())


def settings_layer(base: Document, settings: Sequence[Setting]) -> Document:
    """Make a layer of settings over `base`; a later one goes over an earlier one.

    Raises ProfileError naming every value that cannot be read, and every way that leads nowhere.
    """
    layer = Document(base.source, {}, {})
    places: dict[KeyPath, Place] = {}
    problems: list[Problem] = []
    for setting in settings:
        value, found = _read(setting)
        if not found:
            places = _start(base, layer, setting.path[0]) | places
            found = _put(layer.values, setting, value)
        if not found:
            places = {path: place for path, place in places.items() if not _within(path, setting)}
            places[setting.path] = Place(setting.source)
        problems += found
    if problems:
        raise profile_error(base.source, problems)
    return Document(base.source, layer.values, places)


def _read(setting: Setting) -> tuple[Any, list[Problem]]:
    if setting.path[0] in FILE_ONLY:
        fix = "Give that profile with --profile, or a file of your own that extends it."
        what = "is for files: it says what they are laid over"
        return None, [Problem(Place(setting.source), setting.path, what, fix)]
    return read_value(setting.text, setting.path, setting.source)


def _start(base: Document, layer: Document, key: str) -> dict[KeyPath, Place]:
    """Begin with what the profile has, as the layer will stand in its place; give its places."""
    if key in layer.values or key not in base.values:
        return {}
    layer.values[key] = copy.deepcopy(base.values[key])
    return {path: place for path, place in base.places.items() if path and path[0] == key}


def _within(path: KeyPath, setting: Setting) -> bool:
    """Whether a place belongs to what a setting replaces."""
    return path[: len(setting.path)] == setting.path


def _put(values: dict[str, Any], setting: Setting, value: Any) -> list[Problem]:
    """Put a value at the end of its way, making the maps that are not there yet."""
    *way, last = setting.path
    inside = values
    for depth, key in enumerate(way, 1):
        found = inside.get(key)
        if found is None:
            found = inside[key] = {}
        if not isinstance(found, dict):
            return [_no_map(setting, setting.path[:depth], found)]
        inside = found
    inside[last] = value
    return []


def _no_map(setting: Setting, path: KeyPath, found: Any) -> Problem:
    key = key_text(path)
    what = f"is {seen(found)}, and has no keys"
    fix = f"Give all of it: {FLAG} {key}='{{...}}'."
    if isinstance(found, list):
        what = "is a list, which is replaced as a whole"
        fix = f"Give all of it: {FLAG} {key}='[...]'."
    return Problem(Place(setting.source), path, what, fix)
