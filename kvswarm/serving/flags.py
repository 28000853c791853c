"""A profile's `vllm_features` as the flags of one version of vLLM.

In:  the mapping, with keys of any age, spelled with `_` or `-`; the version that will read them.
Out: `ServerFlags`: arguments, environment, and a note on all that was renamed or left out.
Not: whether the flags go with each other, or with a GPU. `vllm_keys.yaml` is the table.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvswarm.serving.problems import Problem, nearest, raise_problems, seen
from kvswarm.serving.quantization import methods, names
from kvswarm.serving.speculation import (
    OLDER_KEYS,
    SPECULATION_KEYS,
    read_speculation,
    speculation_flags,
)
from kvswarm.serving.tables import table
from kvswarm.serving.values import wrong_value
from kvswarm.serving.versions import Version, span_of, vllm_version


@dataclass(frozen=True, slots=True)
class ServerFlags:
    """What a server is started with."""

    arguments: tuple[str, ...]
    """Arguments of `vllm serve`, one string each, without the model."""
    environment: Mapping[str, str]
    """Variables that it needs."""
    notes: tuple[str, ...]
    """A sentence on each key that was renamed, left out, or that has a condition."""
    left_out: tuple[str, ...] = ()
    """Keys that this version has no flag for."""


@dataclass(slots=True)
class _Page:
    """What is being written, for one version."""

    version: Version
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def vllm_flags(features: Mapping[str, Any], version: str) -> ServerFlags:
    """Resolve `vllm_features` to the flags of a version of vLLM, such as "0.32.0" or "v0.24".

    A key that the version has no more, or not yet, is left out with a note; null is not given.
    Raises ProfileError: naming every unknown key and impossible value, or a version that is none.
    """
    flags, problems = read_flags(features, vllm_version(version))
    raise_problems(problems)
    return flags


def read_flags(
    features: Mapping[str, Any], version: Version
) -> tuple[ServerFlags, tuple[Problem, ...]]:
    """Resolve as `vllm_flags` does, and give what is wrong; the flags are then of no use."""
    page = _Page(version)
    given = _spelled(features, page.problems)
    speculation_written = False
    for key, value in given.items():
        if key not in SPECULATION_KEYS:
            _write(key, value, given, page)
        elif not speculation_written:
            speculation_written = True
            speculation = read_speculation(given, page.problems)
            if speculation is not None:
                drafting = speculation_flags(speculation, page.version, page.problems, page.notes)
                page.arguments += drafting
                if not drafting:
                    page.left_out.append("speculative")
                if key in OLDER_KEYS and "--speculative-config" in drafting:
                    note = f"{key} and its kin are --speculative-config in vLLM {page.version}."
                    page.notes.append(note)
    flags = ServerFlags(
        tuple(page.arguments), page.environment, tuple(page.notes), tuple(page.left_out)
    )
    return flags, tuple(page.problems)


@dataclass(frozen=True, slots=True)
class Standing:
    """What has become of a key in a version of vLLM."""

    flag: str | None
    """The flag or variable that it is there; None: it is none."""
    gone_since: Version | None = None
    came_with: Version | None = None
    remedy: str = ""
    """What to do where it is gone."""


def standing(key: str, version: Version) -> Standing:
    """Tell what a known key is in a version: a flag, gone, or still to come."""
    entry = known_keys()[key]
    forms = entry.get("forms", [{}])
    form = next((form for form in forms if version in span_of(form)), None)
    if form is not None:
        return Standing(_flag(key, form))
    spans = [span_of(form) for form in forms]
    if all(span.after(version) for span in spans):
        until = max(span.until for span in spans if span.until)
        return Standing(None, gone_since=until, remedy=entry["gone"])
    since = min(span.since for span in spans if span.since and span.before(version))
    return Standing(None, came_with=since)


def flags_as_text(flags: ServerFlags) -> str:
    """Write the arguments on one line, quoted for a shell."""
    return shlex.join(flags.arguments)


def known_keys() -> dict[str, dict[str, Any]]:
    """Every key that is not about speculation, with its entry in `vllm_keys.yaml`."""
    keys: dict[str, dict[str, Any]] = table("vllm_keys")["keys"]
    return keys


def spelled(key: object) -> str:
    """Spell a key as the tables do: with `_`, in small letters."""
    return str(key).strip().removeprefix("--").replace("-", "_").lower()


def _spelled(features: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Spell all keys alike, and leave out those without a value."""
    given: dict[str, Any] = {}
    for key, value in features.items():
        name = spelled(key)
        if value is None:
            continue
        if name in given:
            what = "is given twice, once with _ and once with -"
            problems.append(Problem(str(key), what, "Keep one of them."))
        elif name not in known_keys() and name not in SPECULATION_KEYS:
            what = f"is no key known here.{nearest(name, [*known_keys(), *SPECULATION_KEYS])}"
            problems.append(Problem(str(key), what, "docs/serving.md lists every key."))
        else:
            given[name] = value
    return given


def _write(key: str, value: Any, given: Mapping[str, Any], page: _Page) -> None:
    """Write one key, or say why not."""
    entry = known_keys()[key]
    wrong = wrong_value(entry, value) or _wrong_member(entry, value)
    if wrong:
        page.problems.append(Problem(key, wrong, "Change it, or leave it out."))
        return
    other = entry.get("excludes")
    order = list(given)
    if other is not None and other in given and order.index(other) < order.index(key):
        page.problems.append(Problem(key, f"says the same as {other}", "Keep one of them."))
        return
    form = next((form for form in entry.get("forms", [{}]) if page.version in span_of(form)), None)
    if form is None:
        page.notes.append(_left_out(key, page.version))
        page.left_out.append(key)
        return
    if entry["kind"] == "quantization":
        value = _served_quantization(value, page)
        if value is None:
            return
    if "choices" in entry and not _is_choice(key, value, page):
        return
    if "as" in form and spelled(form["as"]) != key:
        page.notes.append(f"{key} is {form['as']} in vLLM {page.version}.")
    _WRITERS[form.get("write", "flag")](key, value, form, page)


def _wrong_member(entry: Mapping[str, Any], value: Any) -> str | None:
    if "members" not in entry:
        return None
    unknown = [name for name in value if name not in entry["members"]]
    if not unknown:
        return None
    return f"holds {unknown[0]!r}, which is no part of it.{nearest(unknown[0], entry['members'])}"


def _left_out(key: str, version: Version) -> str:
    found = standing(key, version)
    if found.gone_since is not None:
        return f"{key} is left out: gone since vLLM {found.gone_since}. {found.remedy}"
    return f"{key} is left out: it came with vLLM {found.came_with}, and this is {version}."


def _served_quantization(value: str, page: _Page) -> str | None:
    """Translate a method's name into vLLM's; None: no flag, the checkpoint tells."""
    name = names().get(value.lower())
    if name is None:
        return value
    method = methods()[name]
    if method.flag is None:
        page.notes.append(f"quantization: {value} needs no flag: {method.why}.")
    elif method.why_since is None or page.version >= method.why_since:
        page.notes.append(f"quantization: {value} is --quantization {method.flag}; {method.why}.")
    return method.flag


def _is_choice(key: str, value: Any, page: _Page) -> bool:
    """Whether a value is one that this version takes; says so otherwise."""
    choices = [
        choice if isinstance(choice, dict) else {"value": choice}
        for choice in known_keys()[key]["choices"]
    ]
    taken = [choice["value"] for choice in choices if page.version in span_of(choice)]
    if value in taken or "any" in taken:
        return True
    same = [choice for choice in choices if choice["value"] == value]
    for choice in same:
        if choice.get("plugin") and span_of(choice).after(page.version):
            page.notes.append(
                f"{key}: {value} needs a plugin since vLLM {span_of(choice).until}; "
                "without it the server does not start."
            )
            return True
    if same:
        spans = " or ".join(str(span_of(choice)) for choice in same)
        what = f"is {seen(value)}, which vLLM {page.version} does not take; versions {spans} do"
    else:
        hint = nearest(value, map(str, taken))
        what = f"is {seen(value)}, which vLLM {page.version} does not take.{hint}"
    fix = f"It takes {', '.join(map(str, taken))}."
    page.problems.append(Problem(key, what, fix))
    return False


def _flag(key: str, form: Mapping[str, Any]) -> str:
    return str(form.get("as", f"--{key.replace('_', '-')}"))


def _write_flag(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    text = str(value)
    # A value that begins with - would be read as the next flag.
    assigned = text.startswith("-")
    page.arguments += [f"{_flag(key, form)}={text}"] if assigned else [_flag(key, form), text]


def _write_switch(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    if value:
        page.arguments += [_flag(key, form), *([form["value"]] if "value" in form else [])]
    else:
        page.notes.append(f"{key}: false needs no flag: it is off in vLLM {page.version}.")


def _write_pair(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    flag = _flag(key, form)
    page.arguments.append(flag if value else f"--no-{flag.removeprefix('--')}")


def _write_assigned(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    page.arguments.append(f"{_flag(key, form)}={value}")


def _write_json(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    try:
        text = json.dumps(value, separators=(",", ":"))
    except TypeError as error:
        what = f"cannot be written as JSON: {error}"
        page.problems.append(Problem(key, what, "Use texts, numbers, true and false, lists, maps."))
        return
    page.arguments += [_flag(key, form), text]


def _write_pairs(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    page.arguments += [_flag(key, form), ",".join(f"{name}={part}" for name, part in value.items())]


def _write_modules(key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    for name in value:
        if "=" in str(name):
            what = f"holds {seen(name)}: a name ends at its first ="
            page.problems.append(Problem(key, what, "Take the = out of it."))
    page.arguments += [_flag(key, form), *(f"{name}={path}" for name, path in value.items())]


def _write_environment(_key: str, value: Any, form: Mapping[str, Any], page: _Page) -> None:
    page.environment[form["as"]] = str(value)


_WRITERS = {
    "flag": _write_flag,
    "switch": _write_switch,
    "pair": _write_pair,
    "assigned": _write_assigned,
    "json": _write_json,
    "pairs": _write_pairs,
    "modules": _write_modules,
    "environment": _write_environment,
}
