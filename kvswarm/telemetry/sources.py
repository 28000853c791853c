"""Which metrics endpoints a run asks: the target's own page, and those of --metrics-url.

In:  the target, with the headers of the run; the option's text, `[NAME=]URL[,[NAME=]URL...]`; where
     the target is a service of several pods, the URL of a list of them.
Out: `Source`s, each with a name of its own.

The headers of a run hold secrets: they go to the target's own origin (scheme, host, port) only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.stream.target import TLS, Target

API_PATHS: Final = ("/openai/v1", "/v1")
METRICS_PATHS: Final = ("/metrics", "/prometheus/metrics")
"""Where servers have them, beside their API. trtllm-serve has JSON at the first, and means it."""
PODS: Final = "pods"
FLAG: Final = "--metrics-url"
FIX: Final = "Give [NAME=]URL[,[NAME=]URL...], such as a=http://10.0.0.7:8000/metrics."


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One endpoint. `paths` are asked in turn until one has metrics."""

    name: str
    target: Target
    paths: tuple[str, ...]
    own: bool = False
    """Whether it is the target's own page, which nobody asked for."""
    lists_pods: bool = False
    """Whether it has no metrics, but a list of pods that come and go, each a source of its own."""
    shown: str | None = None
    """What people are to read for its URL; None: the URL."""

    @property
    def url(self) -> str:
        """Where it is asked first, without headers, for people."""
        if self.shown is not None:
            return self.shown
        return replace(self.target, base_path=self.paths[0]).url

    def to_message(self) -> dict[str, Any]:
        """As JSON; with the headers, so for a pipe and for no file."""
        tls = self.target.tls or TLS()
        return {
            "name": self.name,
            "url": replace(self.target, base_path="").url,
            "paths": list(self.paths),
            "headers": dict(self.target.headers),
            "ca_file": tls.ca_file,
            "insecure": tls.insecure,
            "gateway": self.target.gateway_url,
            "lists_pods": self.lists_pods,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Source:
        """The inverse of `to_message`, but for `own`. Raises UsageError."""
        tls = TLS(ca_file=message["ca_file"], insecure=message["insecure"])
        target = Target.of(message["url"], message["headers"], tls, gateway=message.get("gateway"))
        return cls(
            name=message["name"],
            target=target,
            paths=tuple(message["paths"]),
            lists_pods=message.get("lists_pods", False),
        )

    @classmethod
    def of_pod(cls, entry: Mapping[str, Any]) -> Source:
        """One entry of a list of pods. Raises UsageError."""
        target = Target.of(entry["url"], tls=TLS(insecure=bool(entry["insecure"])))
        return cls(
            name=entry["name"],
            target=target,
            paths=(target.base_path,),
            shown=entry["shown"],
        )


def sources_of(
    target: Target,
    given: str | None,
    tls: TLS | None = None,
    *,
    pods_url: str | None = None,
    other: str | None = None,
) -> tuple[Source, ...]:
    """The sources of a run: the target's own page first, unless its host and port were given.

    `other`: the base URL of a second target, whose own page is asked with the same headers.

    Where its pods are listed, they take the place of its own page, which is of any of them.
    Raises UsageError where `given` is not as it must be.
    """
    sources = [_source(text.strip(), target, tls) for text in (given or "").split(",") if text]
    own = Source(
        name=_address(target),
        target=target,
        paths=metrics_paths(target.base_path),
        own=True,
    )
    if pods_url is not None:
        pods = Target.of(pods_url)
        sources.insert(0, Source(name=PODS, target=pods, paths=(pods.base_path,), lists_pods=True))
    elif _address(target) not in [_address(source.target) for source in sources]:
        sources.insert(0, own)
    if other is not None:
        second = Target.of(other, target.headers, tls, gateway=target.gateway_url)
        paths = metrics_paths(second.base_path)
        if _address(second) not in [_address(source.target) for source in sources]:
            sources.append(Source(name=_address(second), target=second, paths=paths, own=True))
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{FLAG}: the name {name!r} is there twice", fix=FIX)
    return tuple(sources)


def metrics_paths(base_path: str) -> tuple[str, ...]:
    """Where a server whose API hangs on this path may have its metrics."""
    root = next((base_path.removesuffix(p) for p in API_PATHS if base_path.endswith(p)), base_path)
    return tuple(f"{root}{path}" for path in METRICS_PATHS)


def _source(text: str, own: Target, tls: TLS | None) -> Source:
    name, equals, url = text.partition("=")
    if not equals or "://" in name:  # an equals sign of the URL itself
        name, url = "", text
    elif not name.strip():
        raise UsageError(f"{FLAG} {text!r}: the name before the = is empty", fix=FIX)
    target = Target.of(url.strip(), tls=tls, flag=FLAG, fix=FIX)
    if _origin(target) == _origin(own):
        target = replace(target, headers=own.headers, gateway=own.gateway)
    return Source(
        name=name.strip() or _address(target),
        target=target,
        paths=(target.base_path or METRICS_PATHS[0],),
    )


def _address(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host.lower()}:{target.port}"


def _origin(target: Target) -> tuple[bool, str]:
    return target.tls is not None, _address(target)
