"""Load a profile by name or path: read, check, lay over what it extends, resolve.

In:  `standard`, or `my/profile.yaml`, and what the command line overrides.
Out: one immutable `Profile`, or one `ProfileError` that says everything that is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kvswarm.errors import ProfileError
from kvswarm.profiles.document import Document, read_document
from kvswarm.profiles.inline import inline_schemas
from kvswarm.profiles.layers import merged, override_layer
from kvswarm.profiles.model import MixPart, Pattern, Profile
from kvswarm.profiles.overrides import Overrides
from kvswarm.profiles.problems import Problem, nearest, profile_error
from kvswarm.profiles.resolve import REQUEST_KEYS, resolve
from kvswarm.profiles.schema import schema_problems
from kvswarm.profiles.settings import read_setting, settings_layer

PACKAGED: Final = Path(__file__).parent
SUFFIXES: Final = (".yaml", ".yml")
PATH_KEYS: Final = ("prompts", "tokenizer")
"""Keys that hold a path relative to the file that they stand in."""
OF_PARTS: Final = REQUEST_KEYS | {"speculative", "vllm_features"}
"""Keys that a setting changes in the parts of a mix: what their requests are, and their server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedProfile:
    """A profile that comes with kvswarm, as `kvswarm profiles` lists it."""

    name: str
    description: str
    pattern: Pattern
    recommended_for: tuple[str, ...]
    needs: str
    expect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A profile with its values as they were written, and the place of each."""

    profile: Profile
    document: Document
    parts: tuple[Written, ...] = ()
    """The same of each profile of a mix."""

    @property
    def senders(self) -> tuple[Written, ...]:
        """Those that requests are made by: the parts of a mix, or this one alone."""
        return self.parts or (self,)


def load_profile(name_or_path: str, overrides: Overrides | None = None) -> Profile:
    """Load a profile that comes with kvswarm, or a file.

    What holds a separator or ends in .yaml or .yml is a path, unless it is a packaged name such as
    quantization/fp8. Raises ProfileError.
    """
    return load_written(name_or_path, overrides).profile


def load_written(name_or_path: str, overrides: Overrides | None = None) -> Written:
    """Load a profile, and keep where each of its values was written. Raises ProfileError."""
    layered = layers_of(name_or_path, overrides)
    document = layered.finished()
    parts = _mix_parts(document, layered.of_parts) if layered.has_mix else ()
    profile = resolve(
        document,
        name=_name(layered.path),
        source=str(layered.path.resolve()),
        mix=tuple(MixPart(weight=weight, profile=part.profile) for weight, part in parts),
    )
    return Written(profile=profile, document=document, parts=tuple(part for _, part in parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """A profile's file with all that it extends and the settings laid over it."""

    path: Path
    document: Document
    of_parts: Overrides
    """What the command line changes in the parts of a mix."""
    of_load: Overrides
    """What it changes in the profile itself."""

    @property
    def has_mix(self) -> bool:
        """Whether it is a mix of other profiles."""
        return bool(self.document.values.get("mix"))

    @property
    def name(self) -> str:
        """The profile's name."""
        return str(self.document.values.get("name", _name(self.path)))

    def finished(self) -> Document:
        """The document with the flags laid over it, too. Raises ProfileError."""
        layer = override_layer(self.document, self.of_load)
        _check(layer, schema_problems(layer))
        return merged(self.document, layer)


def layers_of(name_or_path: str, overrides: Overrides | None = None) -> Layered:
    """Read a profile and all that it extends, before it is resolved. Raises ProfileError."""
    path = _find(name_or_path, Path())
    document = _read_chain(path, name_or_path if _is_path(name_or_path) else str(path), ())
    overrides = overrides or Overrides()
    own, of_requests = _divided(overrides.settings)
    document = _with_settings(document, own)
    of_parts = Overrides()
    if document.values.get("mix"):
        of_parts = Overrides(
            max_tokens=overrides.max_tokens, endpoint=overrides.endpoint, settings=of_requests
        )
        overrides = replace(overrides, max_tokens=None, endpoint=None)
    else:
        document = _with_settings(document, of_requests)
    return Layered(path=path, document=document, of_parts=of_parts, of_load=overrides)


def _divided(settings: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide settings into those of a profile's load, and those that the parts of a mix have."""
    of_parts = {text: read_setting(text).path[0] in OF_PARTS for text in settings}
    return (
        tuple(text for text in settings if not of_parts[text]),
        tuple(text for text in settings if of_parts[text]),
    )


def _with_settings(document: Document, settings: Sequence[str]) -> Document:
    """Lay settings over a profile; their paths start from where the command was given."""
    if not settings:
        return document
    layer = settings_layer(document, [read_setting(text) for text in settings])
    _check(layer, schema_problems(layer))
    _make_absolute(layer, Path())
    return merged(document, layer)


def _check(document: Document, problems: list[Problem]) -> None:
    if problems:
        raise profile_error(document.source, problems)


def _name(path: Path) -> str:
    """The packaged name, with its folder, or the file's own."""
    if path.is_relative_to(PACKAGED):
        return path.relative_to(PACKAGED).with_suffix("").as_posix()
    return path.stem


def _mix_parts(document: Document, overrides: Overrides) -> tuple[tuple[float, Written], ...]:
    """Load the profiles of a mix, with their weights.

    Their requests come from the mix's seed, wherever they are.
    """
    parts = []
    for name, weight in document.values["mix"].items():
        try:
            part = load_written(name, overrides)
        except ProfileError as error:
            place = document.place(("mix", name))
            raise ProfileError(f"{place}: mix: {error.message}", fix=error.fix) from error
        seed = int(document.values.get("seed", 0))
        seeded = replace(part, profile=replace(part.profile, seed=seed))
        parts.append((float(weight), seeded))
    return tuple(parts)


def list_profiles() -> list[PackagedProfile]:
    """List the profiles that come with kvswarm, by name."""
    entries = []
    for name in packaged_names():
        profile = load_profile(name)
        entries.append(
            PackagedProfile(
                name=name,
                description=profile.description,
                pattern=profile.load.pattern,
                recommended_for=profile.recommended_for,
                needs=profile.needs,
                expect=profile.expect,
            )
        )
    return entries


def packaged_names() -> list[str]:
    """Names of the profiles that come with kvswarm, sorted."""
    return sorted(_name(path) for path in PACKAGED.rglob("*.yaml"))


def _is_path(name_or_path: str) -> bool:
    if name_or_path in packaged_names():
        return False
    return "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(SUFFIXES)


def _find(name_or_path: str, folder: Path) -> Path:
    """Find the file of a name or path. `folder` is what a relative path starts from."""
    if _is_path(name_or_path):
        path = folder / Path(name_or_path).expanduser()
        if _is_file(path):
            return path
        beside = [other.name for other in path.parent.glob("*.y*ml")]
        raise ProfileError(
            f"{path}: there is no such profile",
            fix=f"Give the path of a YAML file.{nearest(path.name, beside)}",
        )
    names = packaged_names()
    if name_or_path in names:
        return PACKAGED / f"{name_or_path}.yaml"
    here = folder / f"{name_or_path}.yaml"
    hint = f" For the file here, give ./{here.name}." if _is_file(here) else ""
    raise ProfileError(
        f"profile {name_or_path!r}: there is no such profile",
        fix=(
            f"Profiles: {', '.join(names)}; or give the path of a file."
            f"{nearest(name_or_path, names)}{hint}"
        ),
    )


def _is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name that is too long


def _read_chain(path: Path, source: str, below: tuple[Path, ...]) -> Document:
    """Read a file over everything that it extends. `below` are the files that led here."""
    document, problems = read_document(path, source)
    _check(document, problems + schema_problems(document))
    _make_absolute(document, path.parent)
    extended = document.values.pop("extends", None)
    if extended is None:
        return document
    chain = (*below, path.resolve())
    bases = [extended] if isinstance(extended, str) else extended
    below_all: Document | None = None
    for name in bases:
        base_path = _find_base(name, path, document)
        if base_path.resolve() in chain:
            files = " -> ".join(file.name for file in (*chain, base_path))
            raise ProfileError(
                f"{document.place(('extends',))}: extends goes in a circle: {files}",
                fix="Let one of these files extend nothing, or something else.",
            )
        base = _read_chain(base_path, str(base_path), chain)
        base.values.pop("name", None)
        below_all = base if below_all is None else merged(below_all, base)
    assert below_all is not None  # noqa: S101 - the schema wants one at the least
    return merged(below_all, document)


def _make_absolute(document: Document, folder: Path) -> None:
    """Write out paths that are relative to `folder`; put schemas in the place of files."""
    for key in PATH_KEYS:
        if document.values.get(key) is not None:
            document.values[key] = str((folder / Path(document.values[key]).expanduser()).resolve())
    if document.values.get("mix"):
        document.values["mix"] = {
            str((folder / name).resolve()) if _is_path(name) else name: weight
            for name, weight in document.values["mix"].items()
        }
    inline_schemas(document, folder)


def _find_base(extended: str, path: Path, document: Document) -> Path:
    try:
        return _find(extended, path.parent)
    except ProfileError as error:
        place = document.place(("extends",))
        raise ProfileError(f"{place}: extends {error.message}", fix=error.fix) from error
