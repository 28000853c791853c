"""Profiles by name and path, refinement, overrides, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.errors import ProfileError
from kvswarm.profiles.load import list_profiles, load_profile
from kvswarm.profiles.model import Lengths, Profile, Stage, Window, profile_from_dict
from kvswarm.profiles.overrides import Overrides


def profile_of(folder: Path, text: str, overrides: Overrides | None = None) -> Profile:
    """Write a profile and load it."""
    path = folder / "case.yaml"
    path.write_text(text)
    return load_profile(str(path), overrides)


def refusal(folder: Path, text: str, overrides: Overrides | None = None) -> ProfileError:
    """Load a profile that must be refused."""
    with pytest.raises(ProfileError) as caught:
        profile_of(folder, text, overrides)
    return caught.value


@pytest.mark.parametrize("entry", list_profiles(), ids=lambda entry: entry.name)
def test_every_packaged_profile_says_what_it_is_for(entry: Any) -> None:
    """A list of bare names would not help a person to choose."""
    profile = load_profile(entry.name)
    assert entry.description
    assert profile.use_cases
    assert profile.characteristics["traffic_shape"]
    assert entry.pattern == profile.load.pattern


def test_the_three_first_profiles_are_packaged() -> None:
    """The command line's default and the docs name them."""
    assert {"standard", "burst", "sustained"} <= {entry.name for entry in list_profiles()}


@pytest.mark.parametrize("entry", list_profiles(), ids=lambda entry: entry.name)
def test_a_profile_comes_back_whole_from_run_json(entry: Any) -> None:
    """A run is repeated from what run.json holds."""
    profile = load_profile(entry.name)
    assert profile_from_dict(profile.to_dict()) == profile


def test_a_profile_of_the_older_form_loads_as_it_is(tmp_path: Path) -> None:
    """People bring their profiles from older scripts of this kind."""
    profile = profile_of(
        tmp_path,
        """
pattern: "steady"
requests: 200
concurrency: 10
max_tokens: 64
description: "Balanced workload"
use_cases: ["Capacity planning"]
characteristics: {burstiness: "Low"}
vllm_features: {quantization: "fp8", quantization_param_path: null}
""",
    )
    assert (profile.name, profile.load.requests, profile.load.concurrency) == ("case", 200, 10)
    assert profile.prompt.output_tokens == Lengths(
        kind="fixed", mean_tokens=64, min_tokens=64, max_tokens=64
    )
    assert profile.vllm_features == {"quantization": "fp8", "quantization_param_path": None}


@pytest.mark.parametrize("pattern", ["bursty", "poisson", "heavy"])
def test_an_older_open_loop_profile_asks_for_a_rate_and_takes_it(
    tmp_path: Path, pattern: str
) -> None:
    """Without a rate there are no arrivals; concurrency was a limit of requests in flight."""
    text = f"pattern: {pattern}\nrequests: 30\nconcurrency: 25\n"
    error = refusal(tmp_path, text)
    assert "needs rate_rps" in error.message
    assert "--rate" in error.fix
    assert "max_in_flight" in error.fix
    load = profile_of(tmp_path, text, Overrides(rate_rps=4.0)).load
    assert (load.pattern, load.rate_rps, load.max_in_flight) == (pattern, 4.0, 25)
    assert load.concurrency is None


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("requests: 1\n\nconcurency: 3", ":3: concurency is not a key", "'concurrency'"),
        ("pattern: stedy", ":1: pattern is 'stedy'; must be one of", "'steady'"),
        ("timeouts:\n  total_s: 0", ":2: timeouts.total_s is 0; must be above 0", "seconds"),
        ("requests: 1.5", ":1: requests is 1.5; must be a whole number", "requests"),
        ("requests: true", ":1: requests is True; must be a whole number", "requests"),
        ("rate_rps: 1e1", ":1: rate_rps is '1e1'; must be a number", "write 10"),
        ("drain_s: .inf", ":1: drain_s is not finite", "finite"),
        ("seed: 1\nseed: 2", ":2: seed is given twice, first in line 1", "one"),
        ("slo:\n  tftt_ms: 5", ":2: slo.tftt_ms is not a key", "'ttft_ms'"),
        ("gate: {ttft_ms: 5}", ":1: gate.ttft_ms is not a key", "ttft_p99_ms"),
        ("request: {stream: false}", ":1: request.stream must not be given", "streams"),
        ("request:\n  model: m", ":2: request.model must not be given", "--model"),
        ("input_tokens: {}", ":1: input_tokens is {}; must hold exactly one of", "Length"),
        ("stages:\n- {duration_s: 1}\n- {rate_rps: 1}", ":3: stages[1] lacks duration_s", "Give"),
        ("warmup: {requests: 1, duration_s: 2}", "must hold exactly one of", "First part"),
        ("name: ../../evil", "must begin with a letter or digit", "run directories"),
        ("name: __init__", "must begin with a letter or digit", "run directories"),
        (f"name: {101 * 'n'}", "100 at most", "run directories"),
        ("name: ''", "must begin with a letter or digit", "run directories"),
        ("1: 2", ":1: has the key '1', not text", "quotes"),
        ("- a", "holds no mapping", "pattern: steady"),
        ("", "holds no mapping", "pattern: steady"),
        ("a: [1, 2\nb: 3", ":2: not YAML", "around that line"),
        ("a: !!python/object:os.x 1", ":1: a cannot be read", "quotes"),
        ("a: \x00", "not YAML", "plain text"),
        ("requests: 1\ncharacteristics: &a {b: [*a]}", "nested too deep", "aliases"),
    ],
)
def test_each_mistake_is_named_with_place_value_and_remedy(
    tmp_path: Path, text: str, message: str, fix: str
) -> None:
    """A person must find the line and know what to write there."""
    error = refusal(tmp_path, text)
    assert message in error.message
    assert "case.yaml" in error.message
    assert fix in error.fix


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Fixing one mistake only to be told of the next is a waste of time."""
    error = refusal(
        tmp_path, "pattern: x\nrequests: 0\nrequests: 5\ntimeouts: {totals: 1}\nseed: -1\n"
    )
    assert error.message.startswith(f"{tmp_path / 'case.yaml'}: 4 problems")
    lines = [line for line in error.message.splitlines() if "case.yaml:" in line][1:]
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4", "5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurrency: 1", "has no end"),
        ("requests: 1", "concurrency is missing"),
        ("pattern: poisson\nrequests: 1", "pattern is poisson, which needs rate_rps"),
        ("concurrency: 1\nrequests: 1\nburstiness: 2", ":3: burstiness has no effect"),
        ("concurrency: 1\nrequests: 1\nrate_rps: 2", ":3: rate_rps has no effect"),
        ("concurrency: 1\nrequests: 1\nmax_in_flight: 2", ":3: max_in_flight has no effect"),
        ("pattern: gamma\nrate_rps: 1\nrequests: 9\nconcurrency: 2\nmax_in_flight: 2", "same"),
        ("pattern: ramp", "key ramp is missing"),
        ("pattern: stages", "key stages is missing"),
        ("pattern: stages\nstages: [{duration_s: 1}]", "stages[0] needs either"),
        (
            "pattern: stages\nstages:\n- {duration_s: 1, rate_rps: 1, concurrency: 1}",
            ":3: stages[0] needs either concurrency or rate_rps; it has both",
        ),
        (
            "pattern: stages\nstages:\n- {duration_s: 1, rate_rps: 1}\n"
            "- {duration_s: 1, concurrency: 1}",
            ":2: stages mix concurrency and rate_rps",
        ),
        ("pattern: stages\nstages: [{duration_s: 1, rate_rps: 0}]", "never rises above 0"),
        (
            "pattern: ramp\nramp: {from: 0.5, to: 2, duration_s: 1, unit: concurrency}",
            "ramp.from is 0.5; users are whole",
        ),
        (
            "pattern: ramp\nmax_in_flight: 3\n"
            "ramp: {from: 1, to: 2, duration_s: 1, unit: concurrency}",
            ":2: max_in_flight has no effect on users",
        ),
        ("concurrency: 1\nrequests: 5\nwarmup: {requests: 5}", "leaves nothing to measure"),
        ("concurrency: 1\nduration_s: 5\nwarmup: {duration_s: 5}", "leaves nothing to measure"),
        (
            "concurrency: 1\nrequests: 10\nwarmup: {requests: 5}\ncooldown: {requests: 5}",
            "leaves nothing to measure",
        ),
        (
            "pattern: constant\nrate_rps: 10\nrequests: 50\nwarmup: {duration_s: 6}",
            "leaves nothing to measure",
        ),
        (
            "pattern: bursty\nrate_rps: 10\non_s: 1\noff_s: 1\nduration_s: 10\n"
            "warmup: {requests: 50}",
            "leaves nothing to measure",
        ),
        ("concurrency: 1\nrequests: 5\ncooldown: {duration_s: 1}", "run ends by requests"),
        ("concurrency: 1\nduration_s: 5\ncooldown: {requests: 1}", "run ends by time"),
        ("concurrency: 1\nrequests: 1\ninput_tokens: {file: true}", "there is none"),
        ("concurrency: 1\nrequests: 1\noutput_tokens: {file: true}", "there is none"),
        ("concurrency: 1\nrequests: 1\nprompts: p.csv\ninput_tokens: 5", "cannot be chosen"),
        ("concurrency: 1\nrequests: 1\nprompts: p.csv\nshared_prefix_tokens: 5", "made prompts"),
        ("concurrency: 1\nrequests: 1\ninput_tokens: 7", "need 8"),
        ("concurrency: 1\nrequests: 1\ninput_tokens: 40\nshared_prefix_tokens: 33", "need 41"),
        ("concurrency: 1\nrequests: 1\ninput_tokens: {uniform: {min: 9, max: 8}}", "min 9 above"),
        ("concurrency: 1\nrequests: 1\nsystem: hi\nendpoint: completions", "chat endpoint"),
    ],
)
def test_rules_between_keys_are_checked_before_the_run(
    tmp_path: Path, text: str, message: str
) -> None:
    """A profile that cannot work must not begin to run, and no key may be ignored in silence."""
    error = refusal(tmp_path, text)
    assert message in error.message
    assert error.fix


def test_more_users_than_requests_are_allowed(tmp_path: Path) -> None:
    """Some users then have nothing to do, which is no reason to refuse."""
    assert profile_of(tmp_path, "concurrency: 9\nrequests: 2").load.concurrency == 9


def test_an_unknown_name_gets_the_nearest_and_the_list() -> None:
    """A typing mistake is the usual cause."""
    with pytest.raises(ProfileError) as caught:
        load_profile("standrd")
    assert "'standrd'" in caught.value.message
    assert "Did you mean 'standard'?" in caught.value.fix
    assert ", ".join(entry.name for entry in list_profiles()) in caught.value.fix


def test_an_unknown_path_gets_the_nearest_file_beside_it(tmp_path: Path) -> None:
    """The same for paths."""
    (tmp_path / "nightly.yaml").write_text("requests: 1")
    with pytest.raises(ProfileError) as caught:
        load_profile(str(tmp_path / "nightli.yaml"))
    assert "nightli.yaml" in caught.value.message
    assert "'nightly.yaml'" in caught.value.fix


def test_a_refinement_merges_maps_and_replaces_what_excludes_itself(tmp_path: Path) -> None:
    """A child says only what differs; two ends or two distributions at once are never meant."""
    (tmp_path / "parent.yaml").write_text(
        "name: Parent\ndescription: d\nconcurrency: 4\nrequests: 100\n"
        "warmup: {requests: 10}\ninput_tokens: {fixed: 64}\noutput_tokens: 32\n"
        "slo: {ttft_ms: 100, e2e_ms: 900}\nrequest: {temperature: 0, top_p: 1}\nseed: 3\n"
    )
    profile = profile_of(
        tmp_path,
        "extends: ./parent.yaml\nduration_s: 60\nwarmup: {duration_s: 5}\n"
        "input_tokens: {uniform: {min: 8, max: 16}}\nmax_tokens: 99\nslo: {ttft_ms: 50}\n"
        "request: {temperature: 1}\nseed: null\n",
    )
    assert (profile.name, profile.description) == ("case", "d")
    assert (profile.load.requests, profile.load.duration_s) == (None, 60.0)
    assert (profile.warmup.requests, profile.warmup.duration_s) == (None, 5.0)
    assert profile.prompt.input_tokens.kind == "uniform"
    assert profile.prompt.output_tokens.mean_tokens == 99
    assert profile.slo == {"ttft_ms": 50.0, "e2e_ms": 900.0}
    assert profile.request == {"temperature": 1, "top_p": 1}
    assert profile.seed == 0


@pytest.mark.parametrize(
    ("parent", "child", "warmup", "cooldown"),
    [
        ("duration_s: 60", "requests: 50", Window(), Window()),
        ("duration_s: 60\nrequests: 900", "requests: 50", Window(), Window()),
        (
            "duration_s: 60\nrequests: 900",
            "requests: null",
            Window(duration_s=5),
            Window(duration_s=2),
        ),
        ("duration_s: 60", "duration_s: 30", Window(duration_s=5), Window(duration_s=2)),
        (
            "duration_s: 60",
            "duration_s: 30\nrequests: 50",
            Window(duration_s=5),
            Window(duration_s=2),
        ),
        ("duration_s: 60", "requests: 50\nwarmup: {requests: 3}", Window(requests=3), Window()),
        ("duration_s: 60", "requests: 50\nwarmup: {duration_s: 1}", Window(duration_s=1), Window()),
        (
            "concurrency: null\npattern: stages\nstages: [{duration_s: 60, concurrency: 1}]",
            "requests: 50",
            Window(),
            Window(),
        ),
    ],
)
def test_another_end_takes_the_windows_of_the_old_one_away(
    tmp_path: Path, parent: str, child: str, warmup: Window, cooldown: Window
) -> None:
    """`--requests 50` on a run of minutes must not fail for a cool-down that nobody gave."""
    (tmp_path / "base.yaml").write_text("concurrency: 4")
    (tmp_path / "parent.yaml").write_text(
        f"extends: base.yaml\nwarmup: {{duration_s: 5}}\ncooldown: {{duration_s: 2}}\n{parent}"
    )
    profile = profile_of(tmp_path, f"extends: parent.yaml\n{child}")
    assert (profile.warmup, profile.cooldown) == (warmup, cooldown)


def test_windows_in_requests_leave_with_the_requests(tmp_path: Path) -> None:
    """The same the other way round, and from the command line."""
    text = "concurrency: 4\nrequests: 100\nwarmup: {requests: 10}\ncooldown: {requests: 5}"
    profile = profile_of(tmp_path, text, Overrides(duration_s=60))
    assert (profile.warmup, profile.cooldown) == (Window(), Window())
    profile = profile_of(tmp_path, text, Overrides(requests=50))
    assert (profile.warmup.requests, profile.cooldown.requests) == (10, 5)


@pytest.mark.parametrize("name", [entry.name for entry in list_profiles()])
def test_every_packaged_profile_can_end_by_requests_or_by_time(name: str) -> None:
    """Whoever gives an end has not read the packaged file."""
    assert load_profile(name, Overrides(requests=50)).load.duration_s is None
    assert load_profile(name, Overrides(duration_s=50.0)).load.requests is None


def test_a_file_of_prompts_takes_the_shape_of_made_prompts_away(tmp_path: Path) -> None:
    """`extends: standard` and `prompts` is all that a person should have to write."""
    (tmp_path / "parent.yaml").write_text("extends: standard\nshared_prefix_tokens: 32")
    prompt = profile_of(tmp_path, "extends: parent.yaml\nprompts: p.jsonl").prompt
    assert (prompt.input_tokens.kind, prompt.shared_prefix_tokens) == ("file", 0)
    error = refusal(tmp_path, "extends: parent.yaml\nprompts: p.jsonl\ninput_tokens: 5")
    assert "input_tokens cannot be chosen" in error.message


def test_a_refinement_with_another_pattern_leaves_what_does_not_go_with_it(tmp_path: Path) -> None:
    """Users of the parent would otherwise become a limit of requests in flight, unasked."""
    (tmp_path / "parent.yaml").write_text("concurrency: 4\nrequests: 100\n")
    load = profile_of(tmp_path, "extends: parent.yaml\npattern: gamma\nrate_rps: 2").load
    assert (load.pattern, load.rate_rps, load.max_in_flight) == ("gamma", 2.0, 4096)


def test_a_mistake_in_an_extended_file_is_told_with_that_file(tmp_path: Path) -> None:
    """The line of the wrong file would send people astray."""
    (tmp_path / "parent.yaml").write_text("concurrency: 4\nrequests: 100\nburstiness: 2\n")
    error = refusal(tmp_path, "extends: parent.yaml")
    assert "parent.yaml:3: burstiness" in error.message


def test_paths_are_relative_to_the_file_that_holds_them(tmp_path: Path) -> None:
    """A profile can be run from any directory, and be refined from another."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "parent.yaml").write_text("concurrency: 4\nrequests: 100\nprompts: a.csv")
    profile = profile_of(tmp_path, "extends: deep/parent.yaml\ntokenizer: t")
    assert profile.prompt.prompts_file == str((tmp_path / "deep" / "a.csv").resolve())
    assert profile.prompt.tokenizer == str((tmp_path / "t").resolve())


def test_a_circle_of_files_is_refused_with_the_chain(tmp_path: Path) -> None:
    """It would never end; the chain shows where to cut."""
    (tmp_path / "other.yaml").write_text("extends: case.yaml")
    error = refusal(tmp_path, "seed: 1\nextends: other.yaml")
    assert "case.yaml -> other.yaml -> case.yaml" in error.message
    assert "other.yaml:1" in error.message


def test_extending_nothing_that_is_there_names_the_line(tmp_path: Path) -> None:
    """The mistake is in the file that extends."""
    error = refusal(tmp_path, "seed: 1\nextends: standart")
    assert "case.yaml:2: extends profile 'standart'" in error.message
    assert "'standard'" in error.fix


def test_a_rate_turns_users_into_arrivals_and_users_turn_arrivals_into_a_closed_loop() -> None:
    """The flag says which loop is meant."""
    load = load_profile("standard", Overrides(rate_rps=7.0)).load
    assert (load.pattern, load.rate_rps, load.concurrency, load.requests) == (
        "poisson",
        7.0,
        None,
        100,
    )
    load = load_profile("burst", Overrides(concurrency=3)).load
    assert (load.pattern, load.rate_rps, load.concurrency) == ("steady", None, 3)
    load = load_profile("burst", Overrides(concurrency=3, rate_rps=2.0)).load
    assert (load.pattern, load.rate_rps, load.max_in_flight) == ("bursty", 2.0, 3)


def test_a_rate_on_stages_keeps_their_time_as_the_end(tmp_path: Path) -> None:
    """The stages' sum was the end, and the run must still have one."""
    text = (
        "pattern: stages\n"
        "stages: [{duration_s: 3, concurrency: 1}, {duration_s: 4, concurrency: 2}]"
    )
    assert profile_of(tmp_path, text).load.duration_s == 7.0
    load = profile_of(tmp_path, text, Overrides(rate_rps=2.0)).load
    assert (load.pattern, load.duration_s, load.stages) == ("poisson", 7.0, ())


@pytest.mark.parametrize(
    ("given", "requests", "duration_s"),
    [
        (Overrides(requests=7), 7, None),
        (Overrides(duration_s=100), None, 100.0),
        (Overrides(requests=7, duration_s=100), 7, 100.0),
        (Overrides(seed=5), None, 300.0),
    ],
)
def test_an_end_on_the_command_line_is_the_only_one(
    tmp_path: Path, given: Overrides, requests: int | None, duration_s: float | None
) -> None:
    """`--requests 7` must not be cut by the profile's duration, nor the other way round."""
    load = profile_of(tmp_path, "concurrency: 1\nduration_s: 300", given).load
    assert (load.requests, load.duration_s) == (requests, duration_s)


def test_max_tokens_replaces_a_fixed_output_and_caps_a_distribution(tmp_path: Path) -> None:
    """`--max-tokens 512` on 128 tokens means 512; on a distribution it is a limit."""
    fixed = profile_of(
        tmp_path, "concurrency: 1\nrequests: 1\noutput_tokens: 128", Overrides(max_tokens=512)
    )
    assert fixed.prompt.output_tokens.mean_tokens == 512
    normal = "concurrency: 1\nrequests: 1\noutput_tokens: {normal: {mean: 128, std: 32}}"
    capped = profile_of(tmp_path, normal, Overrides(max_tokens=100)).prompt.output_tokens
    assert (capped.kind, capped.mean_tokens, capped.max_tokens) == ("normal", 128.0, 100)
    same_file = profile_of(tmp_path, "concurrency: 1\nrequests: 1\noutput_tokens: 9\nmax_tokens: 5")
    assert same_file.prompt.output_tokens.mean_tokens == 5


@pytest.mark.parametrize(
    ("overrides", "flag"),
    [
        (Overrides(requests=0), "--requests: requests is 0"),
        (Overrides(rate_rps=-1.0), "--rate: rate_rps is -1.0"),
        (Overrides(duration_s=float("nan")), "--duration: duration_s is not finite"),
        (Overrides(rate_rps=float("inf")), "--rate: rate_rps is not finite"),
        (Overrides(concurrency=0), "--concurrency: concurrency is 0"),
    ],
)
def test_a_flag_out_of_range_is_named_as_the_flag(overrides: Overrides, flag: str) -> None:
    """The mistake is on the command line, not in the file."""
    with pytest.raises(ProfileError) as caught:
        load_profile("standard", overrides)
    assert flag in caught.value.message


@pytest.mark.parametrize(
    ("extra", "ignored"),
    [
        ("", True),
        ("prompts: p.jsonl", False),
        ("prompts: p.jsonl\noutput_tokens: 5", True),
        ("prompts: p.jsonl\noutput_tokens: {file: true}", True),
        ("ignore_eos: false", False),
        ("prompts: p.jsonl\nignore_eos: true", True),
    ],
)
def test_the_end_of_text_is_ignored_where_lengths_are_controlled(
    tmp_path: Path, extra: str, *, ignored: bool
) -> None:
    """Asked lengths must come true; answers to real prompts must end when they end."""
    profile = profile_of(tmp_path, f"concurrency: 1\nrequests: 1\n{extra}")
    assert profile.prompt.ignore_eos is ignored


def test_a_ramp_is_kept_as_stages(tmp_path: Path) -> None:
    """Whoever makes arrivals knows stages only."""
    load = profile_of(
        tmp_path, "pattern: ramp\nramp: {from: 2, to: 8.5, duration_s: 30, unit: rate_rps}"
    ).load
    assert load.open_loop
    assert load.duration_s == 30.0
    assert load.stages == (
        Stage(duration_s=0.0, rate_rps=2.0),
        Stage(duration_s=30.0, rate_rps=8.5, linear=True),
    )


def test_requests_alone_hold_the_last_level_but_not_a_level_of_0(tmp_path: Path) -> None:
    """A run that waits for requests which a level of 0 never sends would not end."""
    stages = "pattern: stages\nrequests: 50\nstages:\n- {duration_s: 5, rate_rps: 1}\n"
    assert profile_of(tmp_path, stages).load.duration_s is None
    assert profile_of(tmp_path, stages + "- {duration_s: 2, rate_rps: 0}").load.duration_s == 7.0


FREE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abc :#-'\"\n\\0123", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=6,
)


@settings(deadline=None)  # it writes files
@given(notes=st.dictionaries(st.text("abcxyz -", min_size=1, max_size=6), FREE, max_size=4))
def test_free_notes_come_through_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, notes: dict[str, Any]
) -> None:
    """Our reading with line numbers must make the same of YAML as any other."""
    folder = tmp_path_factory.mktemp("free")
    text = yaml.safe_dump({"concurrency": 1, "requests": 1, "characteristics": notes})
    assert profile_of(folder, text).characteristics == notes
