"""Load a profile by name or path: read, check, lay over what it extends, resolve.

In:  `standard`, or `my/profile.yaml`, and what the command line overrides.
Out: one immutable `Profile`, or one `ProfileError` that says everything that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kvswarm.errors import ProfileError
from kvswarm.profiles.document import Document, read_document
from kvswarm.profiles.inline import inline_schemas
from kvswarm.profiles.layers import merged, override_layer
from kvswarm.profiles.model import MixPart, Pattern, Profile
from kvswarm.profiles.overrides import Overrides
from kvswarm.profiles.problems import nearest, profile_error
from kvswarm.profiles.resolve import resolve
from kvswarm.profiles.schema import schema_problems

PACKAGED: Final = Path(__file__).parent
SUFFIXES: Final = (".yaml", ".yml")
PATH_KEYS: Final = ("prompts", "tokenizer")
"""Keys that hold a path relative to the file that they stand in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedProfile:
    """A profile that comes with kvswarm, as `kvswarm profiles` lists it."""

    name: str
    description: str
    pattern: Pattern
    recommended_for: tuple[str, ...]
    needs: str
    expect: str


def load_profile(name_or_path: str, overrides: Overrides | None = None) -> Profile:
    """Load a profile that comes with kvswarm, or a file.

    What holds a separator or ends in .yaml or .yml is a path, unless it is a packaged name such as
    quantization/fp8. Raises ProfileError.
    """
    path = _find(name_or_path, Path())
    document = _read_chain(path, name_or_path if _is_path(name_or_path) else str(path), ())
    mix: tuple[MixPart, ...] = ()
    if document.values.get("mix"):
        overrides, of_parts = _of_mix(overrides or Overrides())
        mix = _mix_parts(document, of_parts)
    if overrides is not None:
        layer = override_layer(document, overrides)
        problems = schema_problems(layer)
        if problems:
            raise profile_error(document.source, problems)
        document = merged(document, layer)
    return resolve(document, name=_name(path), source=str(path.resolve()), mix=mix)


def _name(path: Path) -> str:
    """The packaged name, with its folder, or the file's own."""
    if path.is_relative_to(PACKAGED):
        return path.relative_to(PACKAGED).with_suffix("").as_posix()
    return path.stem


def _of_mix(overrides: Overrides) -> tuple[Overrides, Overrides]:
    """Divide flags into those of a mix's load and those of its parts' requests."""
    of_load = replace(overrides, max_tokens=None, endpoint=None)
    return of_load, Overrides(max_tokens=overrides.max_tokens, endpoint=overrides.endpoint)


def _mix_parts(document: Document, overrides: Overrides) -> tuple[MixPart, ...]:
    """Load the profiles of a mix. Their requests come from the mix's seed, wherever they are."""
    parts = []
    for name, weight in document.values["mix"].items():
        try:
            profile = load_profile(name, overrides)
        except ProfileError as error:
            place = document.place(("mix", name))
            raise ProfileError(f"{place}: mix: {error.message}", fix=error.fix) from error
        seed = int(document.values.get("seed", 0))
        parts.append(MixPart(weight=float(weight), profile=replace(profile, seed=seed)))
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
        if path.is_file():
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
    hint = f" For the file here, give ./{here.name}." if here.is_file() else ""
    raise ProfileError(
        f"profile {name_or_path!r}: there is no such profile",
        fix=(
            f"Profiles: {', '.join(names)}; or give the path of a file."
            f"{nearest(name_or_path, names)}{hint}"
        ),
    )


def _read_chain(path: Path, source: str, below: tuple[Path, ...]) -> Document:
    """Read a file over everything that it extends. `below` are the files that led here."""
    document, problems = read_document(path, source)
    problems += schema_problems(document)
    if problems:
        raise profile_error(source, problems)
    for key in PATH_KEYS:
        if document.values.get(key) is not None:
            document.values[key] = str(
                (path.parent / Path(document.values[key]).expanduser()).resolve()
            )
    if document.values.get("mix"):
        document.values["mix"] = {
            str((path.parent / name).resolve()) if _is_path(name) else name: weight
            for name, weight in document.values["mix"].items()
        }
    inline_schemas(document, path.parent)
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


def _find_base(extended: str, path: Path, document: Document) -> Path:
    try:
        return _find(extended, path.parent)
    except ProfileError as error:
        place = document.place(("extends",))
        raise ProfileError(f"{place}: extends {error.message}", fix=error.fix) from error
