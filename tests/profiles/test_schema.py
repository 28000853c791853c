"""The schema itself: described, closed, in step with the model and with the page on profiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvswarm.profiles.load import list_profiles, load_profile
from kvswarm.profiles.model import OPEN_LOOP, Load, Timeouts, VerdictLimits
from kvswarm.profiles.schema import GATE_KEYS, SLO_KEYS, profile_schema

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"
FREE = {
    "characteristics", "vllm_features", "request", "speculative", "adapters", "mix",
    "structured_output.schema", "structured_output.constraints[].schema", "tools[].result",
    "tools[].function.parameters", "cost.gpu_hour_usd",
}  # fmt: skip


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk over every key of the schema, as (`timeouts.total_s`, its schema)."""
    for key, part in schema.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        yield here, part
        yield from parts(part, here)
        yield from parts(part.get("items", {}), f"{here}[]")


ALL = dict(parts(profile_schema()))


def test_the_schema_is_one_of_draft_2020_12() -> None:
    """Editors and other tools read it, too."""
    Draft202012Validator.check_schema(profile_schema())
    assert profile_schema()["$schema"].endswith("/2020-12/schema")


@pytest.mark.parametrize("key", ALL)
def test_every_key_is_described(key: str) -> None:
    """The description is shown where a value is refused."""
    assert ALL[key]["description"].endswith(".")


@pytest.mark.parametrize(
    "key", [key for key, part in ALL.items() if "object" in str(part.get("type"))]
)
def test_every_map_of_ours_is_closed(key: str) -> None:
    """A key that is not known would be ignored in silence."""
    assert key in FREE or ALL[key]["additionalProperties"] is False


@pytest.mark.parametrize("key", ALL)
def test_every_key_has_its_row_in_the_page_on_profiles(key: str) -> None:
    """A key without a line in the docs does not exist for its users."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1
    if isinstance(ALL[key].get("default"), int | float | str) and ALL[key]["default"] != "":
        default = str(ALL[key]["default"]).lower().removesuffix(".0")
        assert f" {default} " in rows[0].replace("`", "")


def test_the_page_on_profiles_names_no_key_that_is_gone() -> None:
    """Docs of keys that were renamed lead to refused profiles."""
    named = {line.split("`")[1] for line in PAGE.read_text().splitlines() if line[:3] == "| `"}
    packaged = {entry.name for entry in list_profiles()}
    assert {key for key in named if not key.startswith("--")} == set(ALL) | packaged


def test_every_packaged_profile_has_its_row_in_the_page_on_profiles() -> None:
    """As `kvswarm profiles` lists it."""
    page = PAGE.read_text()
    for entry in list_profiles():
        fits = ", ".join(entry.recommended_for)
        assert f"| `{entry.name}` | {entry.pattern} | {fits} | {entry.description} |" in page


@pytest.mark.parametrize(("key", "model"), [("timeouts", Timeouts), ("verdict", VerdictLimits)])
def test_defaults_told_are_the_defaults_used(key: str, model: type) -> None:
    """A default that is told but not used is a lie."""
    told = {name: part["default"] for name, part in ALL[key]["properties"].items()}
    assert told == {field.name: field.default for field in fields(model)}


def test_defaults_of_the_load_are_those_told(tmp_path: Path) -> None:
    """The same for the keys at the top."""
    path = tmp_path / "least.yaml"
    path.write_text("requests: 1\nconcurrency: 1")
    profile = load_profile(str(path))
    told = {key: part["default"] for key, part in ALL.items() if "default" in part}
    assert profile.load == Load(
        pattern=told["pattern"],
        open_loop=False,
        requests=1,
        concurrency=1,
        drain_s=told["drain_s"],
        max_in_flight=told["max_in_flight"],
    )
    assert profile.prompt.input_tokens.mean_tokens == told["input_tokens"]
    assert profile.prompt.output_tokens.mean_tokens == told["max_tokens"]
    assert (profile.endpoint, profile.seed) == (told["endpoint"], told["seed"])
    assert profile.prompt.unique is told["unique"]
    assert profile.prompt.shared_prefix_tokens == told["shared_prefix_tokens"]
    path.write_text("requests: 1\nrate_rps: 1\npattern: bursty")
    load = load_profile(str(path)).load
    assert (load.on_s, load.off_s) == (told["on_s"], told["off_s"])
    assert load.off_rate_rps == told["off_rate_rps"]


@pytest.mark.parametrize("section", ["slo", "gate"])
def test_the_names_we_suggest_are_those_the_schema_takes(section: str) -> None:
    """A suggestion that is refused in turn would be worse than none."""
    keys = SLO_KEYS if section == "slo" else GATE_KEYS
    Draft202012Validator(profile_schema()).validate({section: dict.fromkeys(keys, 0.5)})


@given(key=st.from_regex(r"\A(ttft|itl|e2e)_?(p[0-9]{2,3}|mean|max)?_?(ms|s)?\Z"))
def test_a_limit_that_is_taken_is_one_we_know(key: str) -> None:
    """The schema's pattern and the list of names say the same."""
    validator = Draft202012Validator(profile_schema())
    assert validator.is_valid({"slo": {key: 1}}) == (key in SLO_KEYS)
    assert validator.is_valid({"gate": {key: 1}}) == (key in GATE_KEYS)


def test_every_pattern_is_a_pattern_of_the_model() -> None:
    """Each name must resolve to a load that something can run."""
    assert set(ALL["pattern"]["enum"]) == OPEN_LOOP | {"steady", "ramp", "stages"}
