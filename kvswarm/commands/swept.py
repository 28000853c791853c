"""`--sweep KEY=V1,V2,...`: which key, which values, and what each value's run directory is called.

In:  the text of the flag, or of several `--over` and `--profiles`.  Out: `Swept`.
Values are divided as YAML divides a list, so that maps, lists and text in quotes may hold commas.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from kvswarm.errors import UsageError
from kvswarm.profiles.document import read_value
from kvswarm.profiles.settings import read_setting

FLAG: Final = "--sweep"
SERVER_KEYS: Final = frozenset({"speculative", "vllm_features", "quantization"})
"""Keys that say what the server is, not what it is asked: a change needs another server."""
NAME_CHARACTERS: Final = 40
EXAMPLE: Final = "speculative.num_speculative_tokens=1,3,5"
SWEEP_FILE: Final = "sweep.json"
OVER: Final = "--over"
PROFILES: Final = "--profiles"
PROFILE_KEY: Final = "profile"
MOST_RUNS: Final = 500
LOAD_FLAGS: Final = {"rate_rps": "rate", "concurrency": "concurrency"}
"""Keys that `--over` gives as the flags do, which also turn the profile's pattern to them."""


@dataclass(frozen=True, slots=True)
class SweptValue:
    """One value: as it was written, as YAML reads it, and its run directory's name.

    Of several keys, `value` is a map of them. The other members say how the run is asked for.
    """

    text: str
    value: Any
    directory: str
    settings: tuple[str, ...] = ()
    """As of `--set`."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Values of flags of `kvswarm run`, by name."""


@dataclass(frozen=True, slots=True)
class Swept:
    """Keys of the profile, and their values in order."""

    keys: tuple[str, ...]
    values: tuple[SweptValue, ...]
    flag: str = FLAG

    @property
    def key(self) -> str:
        """The key, or several, as people read them."""
        return ", ".join(self.keys)

    @property
    def of_server(self) -> bool:
        """Whether each value needs a server of its own."""
        return any(key.partition(".")[0] in SERVER_KEYS for key in self.keys)


def read_swept(text: str, flag: str = FLAG) -> Swept:
    """Read the flag. Raises UsageError for fewer than two values, or one given twice."""
    setting = read_setting(text, flag)
    key = "rate_rps" if flag == OVER and setting.key == "rate" else setting.key
    texts = _divided(setting.text, f"{flag} {text}", flag)
    values = []
    for each in texts:
        value, problems = read_value(each, setting.path, f"{flag} {text}")
        if problems:
            raise UsageError(problems[0].sentence, fix=problems[0].fix)
        values.append(_swept_value(key, each, value, flag))
    if len(values) < 2:  # noqa: PLR2004 - one is no comparison
        raise UsageError(
            f"{flag} {text}: has {len(values)} values; a sweep compares two or more",
            fix=f"Divide them by commas: {flag} {EXAMPLE}. For one value there is --set.",
        )
    for place, entry in enumerate(values):
        if any(_same(entry.value, earlier.value) for earlier in values[:place]):
            raise UsageError(f"{flag} {text}: {entry.text} is given twice", fix="Keep one.")
    return Swept((key,), tuple(values), flag)


def _swept_value(key: str, text: str, value: Any, flag: str) -> SweptValue:
    """How the run of a value is asked for. Raises UsageError for a load that is no number."""
    directory = directory_name(text)
    if flag != OVER or key not in LOAD_FLAGS:
        return SweptValue(text, value, directory, settings=(f"{key}={text}",))
    kinds = (int,) if key == "concurrency" else (int, float)
    if type(value) not in kinds:
        raise UsageError(
            f"{flag} {key}={text}: is no number of {'users' if kinds == (int,) else 'requests/s'}",
            fix=f"Give numbers: {flag} {key}=1,2,4,8.",
        )
    given = value if key == "concurrency" else float(value)
    return SweptValue(text, value, directory, flags={LOAD_FLAGS[key]: given})


def read_grid(overs: Sequence[str], profiles: str | None) -> Swept:
    """Read all of `--over` and `--profiles`: every value of each with every one of the others.

    Raises UsageError where there is nothing to compare, or a key is given twice.
    """
    parts = [_read_profiles(profiles)] if profiles is not None else []
    parts += [read_swept(text, OVER) for text in overs]
    if not parts:
        raise UsageError(
            "kvswarm sweep: over what?",
            fix=f"Give {OVER} concurrency=1,2,4,8, {PROFILES} A,B, or --search rate.",
        )
    keys = tuple(part.keys[0] for part in parts)
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise UsageError(f"{OVER} {key}: is given twice", fix="Give all values at once.")
    if len(parts) == 1:
        return parts[0]
    points = [_combined(keys, each) for each in itertools.product(*(p.values for p in parts))]
    if len(points) > MOST_RUNS:
        raise UsageError(
            f"{OVER}: asks for {len(points)} runs; {MOST_RUNS} at most", fix="Give fewer values."
        )
    return Swept(keys, tuple(points), OVER)


def _combined(keys: Sequence[str], values: Sequence[SweptValue]) -> SweptValue:
    text = " ".join(f"{key}={value.text}" for key, value in zip(keys, values, strict=True))
    return SweptValue(
        text=text,
        value={key: value.value for key, value in zip(keys, values, strict=True)},
        directory=directory_name(text),
        settings=tuple(setting for value in values for setting in value.settings),
        flags={name: given for value in values for name, given in value.flags.items()},
    )


def _read_profiles(text: str) -> Swept:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):  # noqa: PLR2004 - one is no comparison
        raise UsageError(
            f"{PROFILES} {text}: names {len(names)} profiles; a sweep compares two or more, each "
            "once",
            fix=f"Divide them by commas: {PROFILES} standard,burst. For one there is --profile.",
        )
    values = (
        SweptValue(name, name, directory_name(name), flags={PROFILE_KEY: name}) for name in names
    )
    return Swept((PROFILE_KEY,), tuple(values), PROFILES)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one; Python takes 1 for true, and YAML does not."""
    return bool(one == other) and type(one) is type(other)


def _divided(values: str, given: str, flag: str) -> list[str]:
    """Divide a list's text into those of its entries, as they were written."""
    whole = f"[{values}]"
    try:
        node = yaml.compose(whole, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(
            f"{given}: the values are no list: {getattr(error, 'problem', error)}",
            fix=f"Divide them by commas, and put text that holds some in quotes: {flag} {EXAMPLE}.",
        ) from error
    entries: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else []
    return [whole[entry.start_mark.index : entry.end_mark.index].strip() for entry in entries]


def directory_name(text: str) -> str:
    """A name for a directory: the value itself where it can be one, else what is left and a hash.

    The same value always has the same name, whatever the others are.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:NAME_CHARACTERS]
    if name and name == text and name != SWEEP_FILE:
        return name
    mark = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{name or 'value'}-{mark}"
