"""Choose a draft for a model: what `speculative: auto` means.

In:  the model's name; its config.json and the draft's, where they are at hand.
Out: a `Speculation`, or a ProfileError with the reason and a way out.
Not: downloading anything. Source: `drafts.yaml`.

vLLM refuses a draft model whose vocab_size is not its target's (`verify_equal_vocab_size`), so the
sizes are compared here: those of the config.json files where given, else those of the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kvswarm.errors import ProfileError
from kvswarm.serving.speculation import Speculation
from kvswarm.serving.tables import table


def choose_draft(
    model: str,
    config: Mapping[str, Any] | None = None,
    draft_config: Mapping[str, Any] | None = None,
) -> Speculation:
    """Choose the draft of a model by its name, such as "meta-llama/Llama-3.1-8B-Instruct".

    `config` and `draft_config` are the contents of the config.json of the model and of the draft;
    what they say outranks the table. Raises ProfileError: no draft that fits is known.
    """
    entry = _family(model)
    if entry is None:
        raise _refused(f"no draft is known for {model!r}")
    if entry["method"] is None:
        raise _refused(f"{model!r} has no draft: {entry['reason']}")
    if entry["method"] == "mtp":
        return _own_layers(model, config, entry)
    target_size = _vocab_size(config, entry["target_vocab_size"])
    draft_size = _vocab_size(draft_config, entry["draft_vocab_size"])
    if target_size != draft_size:
        others = ["from vLLM 0.25 on, give draft_model with use_heterogeneous_vocab: true"]
        if "instead" in entry:
            others.append(f"give draft_model with {entry['instead']}, whose vocabulary is as large")
        raise _refused(
            f"{entry['draft']}, the draft for {model!r}, does not fit: vocab_size is {draft_size} "
            f"there and {target_size} in the model, and vLLM wants them equal",
            *others,
        )
    return Speculation(
        method=entry["method"],
        model=entry["draft"],
        num_speculative_tokens=entry["num_speculative_tokens"],
    )


def _refused(reason: str, *others: str) -> ProfileError:
    ngram = "{method: ngram, num_speculative_tokens: 4, prompt_lookup_max: 4}"
    ways = [f"Use ngram, which needs no draft: speculative: {ngram}", *others]
    return ProfileError(f"speculative is auto, and {reason}", fix=f"{'; or '.join(ways)}.")


def families() -> list[dict[str, Any]]:
    """Every entry of `drafts.yaml`, in order."""
    entries: list[dict[str, Any]] = table("drafts")["families"]
    return entries


def _family(model: str) -> dict[str, Any] | None:
    found = (entry for entry in families() if re.search(entry["target"], model, re.IGNORECASE))
    return next(found, None)


def _own_layers(
    model: str, config: Mapping[str, Any] | None, entry: Mapping[str, Any]
) -> Speculation:
    """Speculate with the checkpoint's own layers, unless its config.json says it has none."""
    layers = (config or {}).get("num_nextn_predict_layers")
    if layers == 0:
        raise _refused(
            f"the config.json of {model!r} has num_nextn_predict_layers 0: this checkpoint came "
            "without the layers that draft"
        )
    return Speculation(method="mtp", num_speculative_tokens=entry["num_speculative_tokens"])


def _vocab_size(config: Mapping[str, Any] | None, known: int) -> int:
    if config is None:
        return known
    text = config.get("text_config")
    for part in (text if isinstance(text, Mapping) else {}, config):
        size = part.get("vocab_size")
        if isinstance(size, int):
            return size
    return known
