"""Write features in a server's words, where vLLM's keys are not its own.

In:  features as a profile gives them, and a table of key to writer.
Out: what the writers wrote, and a note on each feature that the server has no words for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from kvswarm.kserve.wanted import RuntimeShape, Served, Wanted
from kvswarm.serving.flags import spelled, vllm_flags
from kvswarm.serving.quantization import methods, names
from kvswarm.serving.speculation import SPECULATION_KEYS, Speculation, speculation_of
from kvswarm.serving.versions import NEWEST


@dataclass(slots=True)
class Page:
    """What is being written for one server."""

    server: str
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


Writer = Callable[[Any, Page], None]


@dataclass(frozen=True, slots=True)
class Words:
    """What a server has words for."""

    keys: Mapping[str, Writer]
    speculation: Callable[[Speculation, Page], None]
    why_left_out: str = ""
    """Why it has no words for the others; empty: for none that kvswarm knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnServer:
    """A server that KServe has no runtime for: what a ServingRuntime of its own is made of."""

    model_format: str
    image: str
    shape: RuntimeShape
    words: Words


def served_by(server: OwnServer, wanted: Wanted, page: Page) -> Served:
    """Serve what is wanted: a page that holds what it always starts with, and its features.

    What is in the page's configuration becomes the file that its arguments name. Raises
    ProfileError for features that cannot be.
    """
    write_features(wanted.features, server.words, page)
    config = yaml.safe_dump(page.config, sort_keys=True) if page.config else None
    return Served(
        model_format=server.model_format,
        arguments=tuple(page.arguments),
        environment=page.environment,
        image=wanted.image or server.image,
        runtime=replace(server.shape, config_file=config),
        notes=tuple(page.notes),
        left_out=tuple(page.left_out),
    )


def write_features(features: Mapping[str, Any], words: Words, page: Page) -> None:
    """Write each feature that the server has words for; note the others.

    Raises ProfileError for unknown keys and impossible values: they are checked as vLLM's newest
    version has them, so that a profile means the same for every server.
    """
    vllm_flags(features, str(NEWEST))
    given = {spelled(key): value for key, value in features.items() if value is not None}
    for name, value in given.items():
        if name in words.keys:
            words.keys[name](value, page)
        elif name not in SPECULATION_KEYS:
            left_out(name, page, words.why_left_out)
    speculation = speculation_of(given)
    if speculation is not None:
        words.speculation(speculation, page)


def left_out(name: str, page: Page, why: str = "") -> None:
    """Note that a feature is not carried over."""
    reason = why or f"{page.server} has no such setting that kvswarm knows"
    page.notes.append(f"{name} is left out: {reason}.")
    page.left_out.append(name)


def flag(name: str) -> Writer:
    """Write a value after a flag."""

    def write(value: Any, page: Page) -> None:
        page.arguments += [name, str(value)]

    return write


def switch(name: str) -> Writer:
    """Write a flag where the value is true."""

    def write(value: Any, page: Page) -> None:
        if value:
            page.arguments.append(name)

    return write


def quantization_method(value: str) -> str | None:
    """Give a method by its plain name, such as `awq` for `autoawq`; None: the checkpoint tells."""
    name = names().get(value.lower())
    return value if name is None else methods()[name].flag
