"""Conversations: each turn is sent with the whole history before it.

In:  the answer to the turn before.  Out: that answer and the next user message.
"""

from __future__ import annotations

from collections.abc import Callable

from kvswarm.profiles.features import Conversation
from kvswarm.workload.answers import Answer
from kvswarm.workload.drafts import Draft, FollowUp, assistant_message
from kvswarm.workload.prompts import Prompt, chat_messages
from kvswarm.workload.requests import LLMRequest


class ConversationFeature:
    """Turns of a conversation; `prompt_at(number, turn)` gives what the user says."""

    def __init__(self, spec: Conversation, prompt_at: Callable[[int, int], Prompt]) -> None:
        self._spec = spec
        self._prompt_at = prompt_at

    def shape(self, draft: Draft) -> None:
        """Mark the first turn."""
        draft.group = draft.number
        draft.turn = 0
        draft.variants.append("turn 1")

    def follow_up(self, request: LLMRequest, answer: Answer) -> FollowUp | None:
        """Go on until the last turn."""
        if request.group is None or request.turn is None:
            return None
        turn = request.turn + 1
        if turn >= self._spec.turns:
            return None
        prompt = self._prompt_at(request.group, turn)
        return FollowUp(
            messages=(assistant_message(answer), *chat_messages(prompt)),
            variant=f"turn {turn + 1}",
            new_tokens=prompt.input_tokens,
            think_time_s=self._spec.think_time_s,
            expectation=request.expectation,  # a constraint holds for every turn
        )
