"""A profile as files that need no others: to be read in another place, by the same kvswarm.

In:  a name or path, and what the command line overrides, as `load.py` takes them.
Out: `FlatProfile`: the YAML of the profile, and the files that it names, all in one folder.

What it extends, and flags and settings, are laid over one another; schemas stand in the place of
their files; the profiles of a mix are files of their own. Prompts and tokenizers are copied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from kvswarm.errors import ProfileError
from kvswarm.profiles.load import PATH_KEYS, layers_of
from kvswarm.profiles.overrides import Overrides

PROFILE_NAME: Final = "profile.yaml"
TOKENIZER_NAME: Final = "tokenizer.json"
LARGEST_BYTES: Final = 64 << 20
"""No profile names a file so large by intention; it is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatProfile:
    """Files by name: `PROFILE_NAME`, and those that it names."""

    name: str
    files: Mapping[str, bytes]


def flat_profile(
    name_or_path: str, overrides: Overrides | None = None, *, elsewhere: str | None = None
) -> FlatProfile:
    """Flatten a profile. Raises ProfileError.

    `elsewhere`: a folder of the other place; what a profile names below it is there already.
    """
    files: dict[str, bytes] = {}
    name = _flatten(name_or_path, overrides, elsewhere, PROFILE_NAME, files)
    return FlatProfile(name=name, files=files)


def _flatten(
    name_or_path: str,
    overrides: Overrides | None,
    elsewhere: str | None,
    own_name: str,
    files: dict[str, bytes],
) -> str:
    layered = layers_of(name_or_path, overrides)
    values: dict[str, Any] = dict(layered.finished().values)
    # A packaged profile's name may hold its folder, which no file's name can.
    values["name"] = layered.name.replace("/", "-")
    for constraint in (values.get("structured_output") or {}).get("constraints", []):
        if isinstance(constraint.get("pydantic"), dict):
            constraint["schema"] = constraint.pop("pydantic")
    for key in PATH_KEYS:
        path = values.get(key)
        if path is not None and not (elsewhere and Path(path).is_relative_to(elsewhere)):
            values[key] = "./" + _copy(Path(path), key, files)
    if layered.has_mix:
        parts = {}
        for place, (part, weight) in enumerate(values["mix"].items(), start=1):
            part_name = f"part-{place}.yaml"
            _flatten(part, layered.of_parts, elsewhere, part_name, files)
            parts[f"./{part_name}"] = weight
        values["mix"] = parts
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    files[own_name] = text.encode()
    return str(values["name"])


def _copy(path: Path, key: str, files: dict[str, bytes]) -> str:
    """Take a file, or of a tokenizer's directory the one that counts; give its new name."""
    file = path / TOKENIZER_NAME if path.is_dir() else path
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise ProfileError(
                f"{key}: {file}: has more than {LARGEST_BYTES >> 20} MiB",
                fix="Put it where the run is, and name its path there.",
            )
        content = file.read_bytes()
    except OSError as error:
        raise ProfileError(
            f"{key}: {file}: cannot be read: {error.strerror}", fix="Check the path."
        ) from error
    name = re.sub(r"[^-._a-zA-Z0-9]", "-", file.name).lstrip(".") or key
    place = 1
    while files.get(name, content) != content or name.startswith(("profile.yaml", "part-")):
        place += 1
        name = f"{place}-{name}"
    files[name] = content
    return name
