"""Which endpoints a run asks, and what --metrics-url may be."""

from __future__ import annotations

import pytest

from kvswarm.errors import UsageError
from kvswarm.stream.target import TLS, Target
from kvswarm.telemetry.sources import Source, metrics_paths, sources_of

TARGET = Target.of("http://Host:8000/v1", {"X-Key": "k"})


def told(given: str | None) -> list[tuple[str, str, bool]]:
    """Name, URL and whether it is the target's own page."""
    return [(source.name, source.url, source.own) for source in sources_of(TARGET, given)]


@pytest.mark.parametrize("given", [None, ""])
def test_without_the_option_the_targets_own_page_is_asked(given: str | None) -> None:
    """As ever."""
    assert told(given) == [("host:8000", "http://host:8000/metrics", True)]


def test_each_url_may_have_a_name_else_its_host_and_port() -> None:
    """The name is the replica in tables and figures."""
    assert told("a=http://h1:9000/metrics, http://h2/x ,gpu=https://h3") == [
        ("host:8000", "http://host:8000/metrics", True),
        ("a", "http://h1:9000/metrics", False),
        ("h2:80", "http://h2:80/x", False),
        ("gpu", "https://h3:443/metrics", False),
    ]


def test_the_targets_own_page_is_not_asked_twice() -> None:
    """Whoever gives its host and port has said where its metrics are."""
    assert told("a=http://HOST:8000/elsewhere") == [("a", "http://host:8000/elsewhere", False)]


def test_headers_go_to_the_targets_scheme_host_and_port() -> None:
    """They hold its key."""
    given = "a=http://host:8000/m,b=http://host:9000/m,c=https://host:8000/m,d=http://other:8000/m"
    headers = {source.name: dict(source.target.headers) for source in sources_of(TARGET, given)}
    assert headers == {"a": {"X-Key": "k"}, "b": {}, "c": {}, "d": {}}


def test_what_is_asked_of_the_target_goes_by_its_gateway() -> None:
    """Nobody else knows its host; other hosts have an address of their own."""
    gateway = "http://203.0.113.7:31380"
    target = Target.of("http://host:8000/v1", gateway=gateway)
    sources = [
        *sources_of(target, None),
        *sources_of(target, "a=http://host:8000/m,b=http://other:8000/m"),
    ]
    crossed = [Source.from_message(source.to_message()) for source in sources]
    assert [source.target.gateway_url for source in crossed] == [gateway, gateway, None]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("ftp://h/metrics", "--metrics-url 'ftp://h/metrics'"),
        ("host:9000", "--metrics-url 'host:9000'"),
        ("a=", "--metrics-url ''"),
        ("=http://h/metrics", "the name before the = is empty"),
        ("a=http://h1/m,a=http://h2/m", "the name 'a' is there twice"),
        ("host:8000=http://h1/m", "the name 'host:8000' is there twice"),
        ("http://h/m,http://h/n", "the name 'h:80' is there twice"),
        ("http://me:pw@h/metrics", "must have no user"),
        ("http://h:99999/m", "--metrics-url"),
    ],
)
def test_what_is_no_metrics_url_is_refused_by_the_name_of_the_option(
    given: str, words: str
) -> None:
    """Before anything is made."""
    with pytest.raises(UsageError) as caught:
        sources_of(TARGET, given)
    assert words in str(caught.value)
    assert "me:pw" not in str(caught.value)


def test_a_source_is_the_same_on_the_other_side_of_the_pipe() -> None:
    """The recorder is a process of its own."""
    tls = TLS(ca_file="ca.pem", insecure=True)
    target = Target.of("https://[::1]:8443/openai/v1", {"A": "b"}, tls)
    for source in sources_of(target, "x=https://h:1/m,y=http://h:2/m", tls):
        other = Source.from_message(source.to_message())
        assert (other.name, other.paths, other.target.headers) == (
            source.name, source.paths, source.target.headers,
        )  # fmt: skip
        assert other.target.tls == source.target.tls
        assert other.url == source.url


@pytest.mark.parametrize(
    ("base", "root"),
    [("/v1", ""), ("/openai/v1", ""), ("", ""), ("/tenant/v1", "/tenant"), ("/api", "/api")],
)
def test_metrics_hang_where_the_api_does(base: str, root: str) -> None:
    """Beside its version, not below it."""
    assert metrics_paths(base) == (f"{root}/metrics", f"{root}/prometheus/metrics")
