"""One table of options: what `kvswarm run` takes, plain Locust takes too, and means the same."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import UsageError
from kvswarm.profiles.load import load_profile
from kvswarm.swarm.options import OPTIONS, Option, locust_arguments, option_values, overrides_of
from kvswarm.swarm.secrets import HEADERS_ENV, Mask, headers_of, parse_headers


def value_of(option: Option) -> st.SearchStrategy[Any]:
    if option.choices is not None:
        return st.sampled_from(option.choices)
    texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).filter(
        lambda text: not text.startswith("-")
    )
    finite = st.floats(0, 1e9)
    kinds: dict[type, Any] = {
        bool: st.booleans(), int: st.integers(0, 2**40), float: finite, str: texts
    }  # fmt: skip
    one = kinds[option.kind]
    return st.lists(one, min_size=1, max_size=4).map(tuple) if option.repeated else one


def present(values: dict[str, Any]) -> dict[str, Any]:
    """Those that were given: a flag that is not set is no value."""
    return {key: v for key, v in values.items() if v is not None and v is not False}


some_values = st.fixed_dictionaries(
    {}, optional={option.key: value_of(option) for option in OPTIONS}
)


@given(values=some_values)
def test_what_is_written_for_locust_is_read_back_as_the_same_values(
    values: dict[str, Any],
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    for option in OPTIONS:
        settings: dict[str, Any] = {"dest": option.key}
        settings |= {"action": "store_true"} if option.kind is bool else {"type": option.kind}
        settings |= {"action": "append"} if option.repeated else {}
        parser.add_argument(f"--kv-{option.name}", **settings)
    read = vars(parser.parse_args(locust_arguments(values)))
    read = {f"kv_{key}": value for key, value in read.items()}
    read = option_values(read, read)
    assert present(read) == present(values)


def test_flags_reach_the_keys_of_the_profile_that_they_name() -> None:
    values = {
        "requests": 7,
        "concurrency": 3,
        "max_tokens": 5,
        "endpoint": "completions",
        "seed": 9,
    }
    profile = load_profile("standard", overrides_of(values))
    assert profile.load.requests == 7
    assert profile.load.concurrency == 3
    assert profile.prompt.output_tokens.max_tokens == 5
    assert profile.endpoint == "completions"
    assert profile.seed == 9


def test_rate_and_duration_reach_the_profile() -> None:
    profile = load_profile("standard", overrides_of({"rate": 12.5, "duration": 3.5}))
    assert (profile.load.rate_rps, profile.load.duration_s) == (12.5, 3.5)
    assert profile.load.open_loop


def test_without_flags_nothing_is_overridden() -> None:
    assert load_profile("burst", overrides_of({})) == load_profile("burst")


def test_headers_are_read_as_name_and_value() -> None:
    assert parse_headers(["X-Tenant: blue", "X-Url:http://a:1/b"]) == {
        "X-Tenant": "blue",
        "X-Url": "http://a:1/b",
    }


@pytest.mark.parametrize(
    "header",
    ["secret-value", ": secret-value", "Content-Length: secret-value", "X-A: secret-value\r\nX-B: c",
     "X A: secret-value", "X-A: secret-value\u20ac"],
)  # fmt: skip
def test_a_header_that_cannot_be_sent_is_refused_without_showing_its_value(header: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_headers([header])
    assert "secret-value" not in str(caught.value)


def test_the_key_comes_from_the_named_variable_as_a_bearer_token() -> None:
    environment = {"MY_KEY": " s3cret\n", HEADERS_ENV: '{"X-Tenant": "blue"}'}
    assert headers_of("MY_KEY", environment) == {
        "X-Tenant": "blue",
        "Authorization": "Bearer s3cret",
    }
    assert headers_of(None, environment) == {"X-Tenant": "blue"}


@pytest.mark.parametrize("environment", [{}, {"MY_KEY": ""}, {"MY_KEY": "  "}])
def test_a_variable_without_a_key_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="MY_KEY"):
        headers_of("MY_KEY", environment)


@pytest.mark.parametrize("text", ["no json: s3cret", '["s3cret"]', '{"X-A": 1}'])
def test_headers_of_the_environment_that_are_no_headers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=HEADERS_ENV) as caught:
        headers_of(None, {HEADERS_ENV: text})
    assert "s3cret" not in str(caught.value)


@given(
    before=st.text(max_size=20),
    key=st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"),
        min_size=12,
        max_size=40,
    ),
    after=st.text(max_size=20),
)
def test_the_text_of_a_server_that_quotes_a_key_is_masked(
    before: str, key: str, after: str
) -> None:
    """Whole, or cut off in the key's midst: what is left of it must not be of use to anybody."""
    mask = Mask({"Authorization": f"Bearer {key}"})
    quoted = f"{before}'Authorization': 'Bearer {key}' {after}"
    assert key not in mask(quoted)
    cut = f"the header was {key[:-1]}"
    assert key[:6] not in mask(cut).removeprefix("the header was ")


def test_masking_leaves_other_text_alone() -> None:
    """Short values are parts of any text."""
    mask = Mask({"X-Shard": "1", "Authorization": "Bearer key-0815"})
    assert mask("Bearer token 1 refused") == "Bearer token 1 refused"
    assert mask("key-0815 refused") == "*** refused"
    assert mask("refused: key-08") == "refused: ***"
