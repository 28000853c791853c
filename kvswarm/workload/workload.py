"""What each request of a run sends: a pure function of the profile's seed and the index.

In:  a `Profile`.
Out: `Workload.request(index)`: an `LLMRequest`, the same on any worker and in any order.
Not: when requests are sent: see `arrivals.py`; the model's name: whoever sends adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kvswarm.errors import DatasetError
from kvswarm.profiles.model import Profile
from kvswarm.workload.dataset import PromptRow, read_prompts
from kvswarm.workload.exact import ExactText, open_tokenizer
from kvswarm.workload.lengths import Draws, RandomStream, draw_tokens, generator
from kvswarm.workload.prompts import (
    ExactPrompts,
    FilePrompts,
    FixedPrompt,
    MadePrompts,
    Prompt,
    PromptSource,
    estimated_tokens,
)
from kvswarm.workload.requests import LLMRequest

STREAMING: Final = {"stream": True, "stream_options": {"include_usage": True}}


class Workload:
    """The requests of one profile. `notes` are things that a reader of the figures must know."""

    def __init__(
        self, profile: Profile, source: PromptSource, exact: ExactText | None, notes: list[str]
    ) -> None:
        self.notes = notes
        self._profile = profile
        self._draws = Draws(profile.seed, RandomStream.REQUEST)
        self._source = source
        self._system = profile.prompt.system
        self._system_tokens = 0
        if self._system is not None:
            self._system_tokens = (
                exact.count(self._system) if exact else estimated_tokens([self._system])
            )
        self._always: dict[str, Any] = {**profile.request, **STREAMING}
        if profile.prompt.ignore_eos:
            self._always["ignore_eos"] = True

    def request(self, index: int) -> LLMRequest:
        """Make request `index`, counted from 0 over all workers."""
        profile = self._profile
        rng = self._draws.at(index)
        output_tokens = self._drawn_output_tokens(rng)
        prompt = self._source.prompt(index, rng)
        if output_tokens is None:
            # `open_workload` has checked that every row says how many.
            output_tokens = min(prompt.output_tokens or 1, profile.prompt.output_tokens.max_tokens)
        body = {**self._content(prompt), "max_tokens": output_tokens, **self._always}
        return LLMRequest(
            index=index,
            endpoint=profile.endpoint,
            body=body,
            input_tokens=prompt.input_tokens + self._system_tokens,
            input_tokens_exact=prompt.exact,
            output_tokens=output_tokens,
        )

    def _drawn_output_tokens(self, rng: Any) -> int | None:
        lengths = self._profile.prompt.output_tokens
        return None if lengths.kind == "file" else draw_tokens(lengths, rng)

    def _content(self, prompt: Prompt) -> Mapping[str, Any]:
        if self._profile.endpoint == "completions":
            return {"prompt": prompt.text}
        messages: list[Mapping[str, Any]] = []
        if prompt.messages is not None:
            messages.extend(prompt.messages)
        else:
            messages.append({"role": "user", "content": prompt.text})
        if self._system is not None and messages[0].get("role") != "system":
            messages.insert(0, {"role": "system", "content": self._system})
        return {"messages": messages}


def open_workload(profile: Profile) -> Workload:
    """Read what the workload needs, and make sure that it can make every request.

    Raises DatasetError for a file of prompts or a tokenizer that cannot be used.
    """
    spec = profile.prompt
    exact = None
    if spec.tokenizer is not None:
        tokenizer = open_tokenizer(Path(spec.tokenizer))
        exact = ExactText(tokenizer, special=profile.endpoint == "completions")
    notes: list[str] = []
    source: PromptSource
    if spec.prompts_file is not None:
        rows = read_prompts(Path(spec.prompts_file))
        _check_rows(rows, profile)
        notes.extend(_file_notes(rows, profile))
        source = FilePrompts(rows, profile.seed, exact)
    elif exact is not None:
        _check_exact_lengths(exact, profile, notes)
        source = ExactPrompts(spec, profile.seed, exact)
    else:
        notes.append(
            "Prompt lengths are estimates, one token a word; the key `tokenizer` makes them exact."
        )
        source = MadePrompts(spec, profile.seed)
    if not spec.unique and spec.prompts_file is None:
        source = FixedPrompt(source, profile.seed)
        notes.append("Every request sends the same prompt: the prefix cache helps the server.")
    return Workload(profile, source, exact, notes)


def _check_rows(rows: list[PromptRow], profile: Profile) -> None:
    path = profile.prompt.prompts_file
    for row in rows:
        if profile.prompt.output_tokens.kind == "file" and row.output_tokens is None:
            raise DatasetError(
                f"{path}:{row.line}: output_tokens is missing; the profile takes it from the file",
                fix="Fill the column output_tokens, or give output_tokens in the profile.",
            )
        if profile.endpoint == "completions" and row.messages is not None:
            raise DatasetError(
                f"{path}:{row.line}: messages go with the chat endpoint only",
                fix="Use endpoint: chat, or give rows with `prompt`.",
            )


def _file_notes(rows: list[PromptRow], profile: Profile) -> list[str]:
    notes = []
    requests = profile.load.requests
    if profile.prompt.unique and (requests is None or requests > len(rows)):
        notes.append(
            f"The file holds {len(rows)} prompts; after so many requests they come again, "
            "and the prefix cache may help the server."
        )
    if profile.prompt.tokenizer is None:
        notes.append(
            "Prompt lengths are the file's own or, where it has none, estimates of "
            "four characters a token; the key `tokenizer` makes them exact."
        )
    return notes


def _check_exact_lengths(exact: ExactText, profile: Profile, notes: list[str]) -> None:
    """Make the shortest prompt now: a length that cannot be made must not fail in mid-run."""
    spec = profile.prompt
    shortest = spec.input_tokens.min_tokens
    ExactPrompts(
        replace(spec, input_tokens=replace(spec.input_tokens, kind="fixed", mean_tokens=shortest)),
        profile.seed,
        exact,
    ).prompt(0, generator(profile.seed, RandomStream.REQUEST))
    if spec.unique and shortest < spec.shared_prefix_tokens + exact.lead_tokens:
        notes.append(
            f"Prompts of fewer than {spec.shared_prefix_tokens + exact.lead_tokens} tokens may be "
            "too short to start unlike each other with this tokenizer."
        )
