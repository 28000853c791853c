"""`--set KEY=VALUE`: any key of a profile from the command line, by the same checks as a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import ProfileError
from kvswarm.profiles.document import Document
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.overrides import Overrides
from kvswarm.profiles.settings import Setting, read_setting, settings_layer


def setting(*texts: str, **more: Any) -> Overrides:
    """The settings of a command line."""
    return Overrides(settings=texts, **more)


def refusal(profile: str, *texts: str) -> ProfileError:
    """Load with settings that must be refused."""
    with pytest.raises(ProfileError) as caught:
        load_profile(profile, setting(*texts))
    return caught.value


def test_a_way_into_a_map_keeps_the_rest_of_it_also_where_a_file_would_replace_it() -> None:
    """Whoever tunes the number of tokens does not want to lose the method."""
    before = load_profile("speculative-decoding").speculative
    after = load_profile(
        "speculative-decoding", setting("speculative.num_speculative_tokens=7")
    ).speculative
    assert isinstance(before, dict)
    assert after == {**before, "num_speculative_tokens": 7}
    whole = load_profile(
        "speculative-decoding",
        setting("speculative={method: ngram, num_speculative_tokens: 2}", "slo.ttft_ms=9"),
    )
    assert whole.speculative == {"method": "ngram", "num_speculative_tokens": 2}
    assert whole.slo == {"itl_p99_ms": 100.0, "ttft_ms": 9.0}


def test_values_are_yaml_and_lists_are_replaced_as_a_whole() -> None:
    """Numbers, text, true and false, maps and lists, without quotes for what needs none."""
    profile = load_profile(
        "standard",
        setting(
            "input_tokens=512", "description=On a Monday", "ignore_eos=false",
            "request={temperature: 0.5, stop: [a, b]}", "recommended_for=[cost]",
        ),
    )  # fmt: skip
    assert profile.prompt.input_tokens.mean_tokens == 512
    assert profile.description == "On a Monday"
    assert profile.prompt.ignore_eos is False
    assert profile.request == {"temperature": 0.5, "stop": ["a", "b"]}
    assert profile.recommended_for == ("cost",)
    strict = load_profile("tool-calling", setting("tool_calling.strict=false")).tool_calling
    assert strict is not None
    assert strict.strict is False
    assert strict.tools


def test_settings_lie_over_the_profile_by_the_rules_of_layers_and_under_flags() -> None:
    """A duration takes the number of requests away; users of a flag make a closed loop."""
    load = load_profile("standard", setting("duration_s=3")).load
    assert (load.requests, load.duration_s) == (None, 3.0)
    gamma = ("pattern=gamma", "rate_rps=5", "burstiness=0.5")
    load = load_profile("standard", setting(*gamma)).load
    assert (load.pattern, load.rate_rps, load.burstiness) == ("gamma", 5.0, 0.5)
    load = load_profile("standard", setting(*gamma, concurrency=3)).load
    assert (load.pattern, load.concurrency) == ("steady", 3)
    assert load_profile("standard", setting("slo=null")).slo == {}


def test_the_last_of_two_settings_of_a_key_holds() -> None:
    """As with every flag; and a way into what an earlier one gave keeps the rest."""
    load = load_profile("standard", setting("concurrency=3", "concurrency=5")).load
    assert load.concurrency == 5
    profile = load_profile("standard", setting("speculative={method: ngram}", "speculative.a=1"))
    assert profile.speculative == {"method": "ngram", "a": 1}


def test_a_mix_gives_its_parts_what_their_requests_are_and_keeps_the_load() -> None:
    """`input_tokens` of a mix has no effect in itself."""
    profile = load_profile("mixed", setting("timeouts.total_s=7", "ignore_eos=false", "seed=4"))
    assert profile.timeouts.total_s == 7
    assert profile.seed == 4
    for part in profile.mix:
        assert part.profile.prompt.ignore_eos is False
        assert part.profile.timeouts.total_s != 7
    one = load_profile("mixed", setting("mix={standard: 1}", "max_tokens=3"))
    assert [part.profile.prompt.output_tokens.mean_tokens for part in one.mix] == [3.0]


def test_paths_start_from_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the packaged profile's folder; and schemas are read like those of a file."""
    (tmp_path / "own.json").write_text(json.dumps({"type": "integer"}))
    monkeypatch.chdir(tmp_path)
    profile = load_profile(
        "standard", setting("tokenizer=./t", "structured_output.schema=own.json")
    )
    assert profile.prompt.tokenizer == str(tmp_path / "t")
    assert profile.structured_output is not None
    (constraint,) = profile.structured_output.constraints
    assert (constraint.name, constraint.json) == ("own", {"type": "integer"})


@pytest.mark.parametrize(
    ("text", "told", "fix"),
    [
        ("concurency=3", "--set concurency=3: concurency is not a key", "'concurrency'"),
        ("concurrency=0", "--set concurrency=0: concurrency is 0; must be at least 1", ""),
        ("slo.tftt_ms=3", "--set slo.tftt_ms=3: slo.tftt_ms is not a key", "'ttft_ms'"),
        ("burstiness=2", "--set burstiness=2: burstiness", ""),
        ("input_tokens=[", "--set input_tokens=[: input_tokens is not YAML", "brackets"),
        ("seed=", "--set seed=: seed has no value", "null"),
        ("seed={a: 1, a: 2}", "--set seed={a: 1, a: 2}: seed.a is given twice", ""),
        ("concurrency.a=3", "--set concurrency.a=3: concurrency is 10, and has no keys", "'{...}'"),
        ("extends=burst", "--set extends=burst: extends is for files", "--profile"),
        ("use_cases.0=a", "use_cases is a list", "'[...]'"),
        ("concurrency", "--set concurrency: is not KEY=VALUE", "such as"),
        ("=3", "--set =3: is not KEY=VALUE", ""),
        ("slo..a=3", "--set slo..a=3: is not KEY=VALUE", ""),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_with_the_flag(text: str, told: str, fix: str) -> None:
    """The line of a file would send people astray: it is their command that is wrong."""
    error = refusal("standard", text)
    assert told in error.message
    assert fix in error.fix


def test_all_settings_that_cannot_be_are_told_together() -> None:
    """One try, not one for each."""
    error = refusal("standard", "concurrency=0", "concurency=3")
    assert "--set concurrency=0: concurrency is 0" in error.message
    assert "--set concurency=3: concurency is not a key" in error.message


names = st.sampled_from(["a", "b", "c"])
maps = st.recursive(
    st.integers(0, 9), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8
)


@given(
    values=st.dictionaries(names, maps, max_size=3),
    way=st.lists(names, min_size=1, max_size=4),
    value=maps,
)
def test_a_setting_changes_what_it_names_and_nothing_else(
    values: dict[str, Any], way: list[str], value: Any
) -> None:
    """Whatever the maps are; the profile itself stays as it is."""
    before = copy.deepcopy(values)
    text = f"{'.'.join(way)}={json.dumps(value)}"
    inside: Any = before
    for key in way[:-1]:
        inside = inside.get(key, {}) if isinstance(inside, dict) else inside
    try:
        layer = settings_layer(Document("it", values), [read_setting(text)])
    except ProfileError as error:
        assert "has no keys" in error.message  # noqa: PT017 - both endings are right
        assert not isinstance(inside, dict)
        return
    expected = copy.deepcopy(before)
    place = expected
    for key in way[:-1]:
        place = place.setdefault(key, {})
    place[way[-1]] = value
    assert layer.values == {way[0]: expected[way[0]]}
    assert values == before


@given(key=st.text("abc", min_size=1), text=st.text(st.characters(codec="ascii")))
def test_a_value_may_hold_any_text_also_further_equals(key: str, text: str) -> None:
    """The key ends at the first one."""
    assert read_setting(f"{key}={text}") == Setting(key, text.strip())
