"""`--sweep KEY=V1,V2,...`: which key, which values, and what each value's run directory is called.

In:  the text of the flag.  Out: `Swept`.
Values are divided as YAML divides a list, so that maps, lists and text in quotes may hold commas.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from kvswarm.errors import UsageError
from kvswarm.profiles.document import read_value
from kvswarm.profiles.settings import read_setting

FLAG: Final = "--sweep"
SERVER_KEYS: Final = frozenset({"speculative", "vllm_features", "quantization"})
"""Keys that say what the server is, not what it is asked: a change needs another server."""
NAME_CHARACTERS: Final = 40
EXAMPLE: Final = f"{FLAG} speculative.num_speculative_tokens=1,3,5"
SWEEP_FILE: Final = "sweep.json"


@dataclass(frozen=True, slots=True)
class SweptValue:
    """One value: as it was written, as YAML reads it, and its run directory's name."""

    text: str
    value: Any
    directory: str


@dataclass(frozen=True, slots=True)
class Swept:
    """A key of the profile, and its values in order."""

    key: str
    values: tuple[SweptValue, ...]

    @property
    def of_server(self) -> bool:
        """Whether each value needs a server of its own."""
        return self.key.partition(".")[0] in SERVER_KEYS


def read_swept(text: str) -> Swept:
    """Read the flag. Raises UsageError for fewer than two values, or one given twice."""
    setting = read_setting(text, FLAG)
    texts = _divided(setting.text, text)
    values = []
    for each in texts:
        value, problems = read_value(each, setting.path, f"{FLAG} {text}")
        if problems:
            raise UsageError(problems[0].sentence, fix=problems[0].fix)
        values.append(SweptValue(each, value, directory_name(each)))
    if len(values) < 2:  # noqa: PLR2004 - one is no comparison
        raise UsageError(
            f"{FLAG} {text}: has {len(values)} values; a sweep compares two or more",
            fix=f"Divide them by commas: {EXAMPLE}. For one value there is --set.",
        )
    for place, entry in enumerate(values):
        if any(_same(entry.value, earlier.value) for earlier in values[:place]):
            raise UsageError(f"{FLAG} {text}: {entry.text} is given twice", fix="Keep one.")
    return Swept(setting.key, tuple(values))


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one; Python takes 1 for true, and YAML does not."""
    return bool(one == other) and type(one) is type(other)


def _divided(values: str, flag_text: str) -> list[str]:
    """Divide a list's text into those of its entries, as they were written."""
    whole = f"[{values}]"
    try:
        node = yaml.compose(whole, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(
            f"{FLAG} {flag_text}: the values are no list: {getattr(error, 'problem', error)}",
            fix=f"Divide them by commas, and put text that holds some in quotes: {EXAMPLE}.",
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
