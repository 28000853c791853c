"""What each request of a run sends: a pure function of the profile's seed and the index.

In:  a `Profile`.
Out: `Workload.request(index)`: an `LLMRequest`, the same on any worker and in any order; where a
     dialogue goes on, `follow_up(request, answer)`.
Not: when requests are sent: see `arrivals.py`; the model's name: whoever sends adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from kvswarm.errors import DatasetError
from kvswarm.profiles.model import Profile
from kvswarm.workload.adapters import AdaptersFeature
from kvswarm.workload.answers import Answer
from kvswarm.workload.conversation import ConversationFeature
from kvswarm.workload.dataset import PromptRow, read_prompts
from kvswarm.workload.drafts import Draft, Feature
from kvswarm.workload.exact import ExactText, open_tokenizer
from kvswarm.workload.images import ImagesFeature
from kvswarm.workload.lengths import Draws, RandomStream, draw_tokens, generator
from kvswarm.workload.prompts import (
    ExactPrompts,
    FilePrompts,
    FixedPrompt,
    MadePrompts,
    Prompt,
    PromptSource,
    chat_messages,
    estimated_tokens,
)
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.structured import StructuredFeature
from kvswarm.workload.tools import ToolFeature

STREAMING: Final = {"stream": True, "stream_options": {"include_usage": True}}


class Requests(Protocol):
    """What makes requests: the workload of a profile, or a mix of several."""

    notes: list[str]
    """Things that a reader of the figures must know."""

    def request(self, index: int, number: int | None = None) -> LLMRequest:
        """Make request `index`, counted from 0 over all workers.

        `number` is which content it has, by default its index: in dialogues, which of the run's
        dialogues this is the first request of.
        """

    def follow_up(self, request: LLMRequest, answer: Answer) -> LLMRequest | None:
        """Make the request that comes after an answer; None where the dialogue is over.

        It has the index of the one before until it gets its own.
        """


class Workload:
    """The requests of one profile."""

    def __init__(
        self, profile: Profile, source: PromptSource, exact: ExactText | None, notes: list[str]
    ) -> None:
        self.notes = notes
        self._profile = profile
        self._draws = Draws(profile.seed, RandomStream.REQUEST)
        self._feature_draws = Draws(profile.seed, RandomStream.FEATURE)
        self._source = source
        self._exact = exact
        self._system = profile.prompt.system
        self._system_tokens = self._count(self._system) if self._system is not None else 0
        self._always: dict[str, Any] = {**profile.request, **STREAMING}
        if profile.prompt.ignore_eos:
            self._always["ignore_eos"] = True
        self._features = self._features_of(profile)
        self._images = ImagesFeature(profile.images, profile.seed) if profile.images else None
        structured = profile.structured_output
        self._per_content = 2 if structured is not None and structured.control else 1
        self._turns = profile.conversation.turns if profile.conversation is not None else 1

    def _features_of(self, profile: Profile) -> list[Feature]:
        features: list[Feature] = []
        if profile.adapters:
            features.append(AdaptersFeature(profile.adapters))
        if profile.structured_output is not None:
            features.append(StructuredFeature(profile.structured_output))
        if profile.tool_calling is not None:
            features.append(ToolFeature(profile.tool_calling))
        if profile.conversation is not None:
            features.append(ConversationFeature(profile.conversation, self._prompt_at))
        return features

    def _count(self, text: str) -> int:
        return self._exact.count(text) if self._exact else estimated_tokens([text])

    def _place(self, number: int, turn: int = 0) -> int:
        """Which content a number has: a request and its control have the same."""
        return (number // self._per_content) * self._turns + turn

    def _prompt_at(self, number: int, turn: int) -> Prompt:
        """What a user says in a turn of a conversation."""
        place = self._place(number, turn)
        rng = self._draws.at(place)
        self._drawn_output_tokens(rng)
        return self._source.prompt(number, place, rng)

    def request(self, index: int, number: int | None = None) -> LLMRequest:
        """Make request `index`; see `Requests`."""
        profile = self._profile
        number = index if number is None else number
        place = self._place(number)
        rng = self._draws.at(place)
        output_tokens = self._drawn_output_tokens(rng)
        prompt = self._source.prompt(number, place, rng)
        if output_tokens is None:
            # `open_workload` has checked that every row says how many.
            output_tokens = min(prompt.output_tokens or 1, profile.prompt.output_tokens.max_tokens)
        draft = Draft(
            number=number,
            rng=self._feature_draws.at(number),
            messages=self._messages(prompt),
            variants=[prompt.variant] if prompt.variant else [],
        )
        asked_tokens = self._shape(draft)
        content: Mapping[str, Any] = {"messages": draft.messages}
        if profile.endpoint == "completions":
            content = {"prompt": draft.messages[-1]["content"]}
        return LLMRequest(
            index=index,
            endpoint=profile.endpoint,
            body={**content, "max_tokens": output_tokens, **self._always, **draft.members},
            input_tokens=prompt.input_tokens + self._system_tokens + asked_tokens,
            input_tokens_exact=prompt.exact and not draft.members and self._images is None,
            output_tokens=output_tokens,
            scenario=profile.name,
            model=draft.model,
            variant=", ".join(draft.variants) or None,
            case=draft.case,
            group=draft.group,
            turn=draft.turn,
            expectation=draft.expectation,
        )

    def _shape(self, draft: Draft) -> int:
        """Have every feature shape a draft; give the tokens that the prompt became longer by."""
        for feature in self._features:
            feature.shape(draft)
        if draft.asks:
            last = draft.messages[-1]
            draft.messages[-1] = {**last, "content": "\n\n".join([last["content"], *draft.asks])}
        if self._images is not None:
            self._images.shape(draft)
        return sum(map(self._count, draft.asks))

    def follow_up(self, request: LLMRequest, answer: Answer) -> LLMRequest | None:
        """Make the request after an answer; see `Requests`."""
        for feature in self._features:
            follow = feature.follow_up(request, answer)
            if follow is None:
                continue
            messages = [*request.body["messages"], *follow.messages]
            return replace(
                request,
                body={**request.body, **follow.members, "messages": messages},
                input_tokens=request.input_tokens + self._count(answer.text) + follow.new_tokens,
                input_tokens_exact=False,
                variant=follow.variant or request.variant,
                turn=(request.turn or 0) + 1,
                think_time_s=follow.think_time_s,
                expectation=follow.expectation,
            )
        return None

    def _drawn_output_tokens(self, rng: np.random.Generator) -> int | None:
        lengths = self._profile.prompt.output_tokens
        return None if lengths.kind == "file" else draw_tokens(lengths, rng)

    def _messages(self, prompt: Prompt) -> list[Mapping[str, Any]]:
        messages = chat_messages(prompt)
        if self._system is not None and messages[0].get("role") != "system":
            messages.insert(0, {"role": "system", "content": self._system})
        return messages


class MixedWorkload:
    """Requests of several profiles, drawn by weight."""

    def __init__(self, parts: list[tuple[float, str, Workload]], seed: int) -> None:
        """`parts`: weight, name and workload of each."""
        self.notes = [f"{name}: {note}" for _, name, part in parts for note in part.notes]
        self._parts = [part for _, _, part in parts]
        self._by_name = {name: part for _, name, part in parts}
        weights = np.array([weight for weight, _, _ in parts])
        self._ends = np.cumsum(weights / weights.sum())
        self._draws = Draws(seed, RandomStream.MIX)

    def request(self, index: int, number: int | None = None) -> LLMRequest:
        """Make request `index` as the profile that is drawn for it would; see `Requests`."""
        number = index if number is None else number
        # Two neighbours have one profile: they may be a request and its control.
        share = self._draws.at(number // 2).random()
        drawn = int(np.searchsorted(self._ends, share, side="right"))
        return self._parts[min(drawn, len(self._parts) - 1)].request(index, number)

    def follow_up(self, request: LLMRequest, answer: Answer) -> LLMRequest | None:
        """Go on with a dialogue of the profile that began it; see `Requests`."""
        return self._by_name[request.scenario].follow_up(request, answer)


def open_workload(profile: Profile) -> Requests:
    """Read what the workload needs, and make sure that it can make every request.

    Raises DatasetError for a file of prompts or a tokenizer that cannot be used.
    """
    if profile.mix:
        parts = [(part.weight, part.profile.name, _open_one(part.profile)) for part in profile.mix]
        return MixedWorkload(parts, profile.seed)
    return _open_one(profile)


def _open_one(profile: Profile) -> Workload:
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
    ).prompt(0, 0, generator(profile.seed, RandomStream.REQUEST))
    if spec.unique and shortest < spec.shared_prefix_tokens + exact.lead_tokens:
        notes.append(
            f"Prompts of fewer than {spec.shared_prefix_tokens + exact.lead_tokens} tokens may be "
            "too short to start unlike each other with this tokenizer."
        )
