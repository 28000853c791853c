"""Options that `kvswarm run` and plain `locust -f locustfiles/...` share: one table.

`kvswarm run --requests 100` and `locust -f ... --kv-requests 100` mean the same; the prefix keeps
clear of Locust's own flags.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.profiles.model import Load
from kvswarm.profiles.overrides import FLAGS, Overrides
from kvswarm.profiles.settings import read_setting

LOOPBACK: Final = "127.0.0.1"
LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a run. `kind` is int, float, str or bool (a flag).

    `repeated`: it may be given more than once; its values are a tuple, in order.
    `in_web_ui`: whoever has Locust's web page may change it. Not so for what names secrets, files
    of this machine, other servers, or how the target is trusted.
    """

    name: str
    kind: type
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    in_web_ui: bool = True
    repeated: bool = False

    @property
    def key(self) -> str:
        """Name as an attribute."""
        return self.name.replace("-", "_")

    def read(self, value: Any) -> Any:
        """Give a value in its kind: Locust's web UI sends text, and none for nothing.

        Raises UsageError.
        """
        if value is None or value == "":
            return None
        if self.repeated:
            return tuple(value)
        try:
            return self.kind(value)
        except ValueError as error:
            kind = "a whole number" if self.kind is int else "a number"
            raise UsageError(f"--kv-{self.name}: {value!r} is not {kind}") from error


OPTIONS: Final = (
    Option(name="profile", kind=str, help="Profile: a packaged name, or a YAML file.",
           metavar="NAME|PATH"),
    Option(name="model", kind=str, help="Model to ask for; default: the server's only one."),
    Option(name="requests", kind=int, help="End after this many requests.", metavar="N"),
    Option(name="duration", kind=float, help="End after this many seconds.", metavar="S"),
    Option(name="concurrency", kind=int, help="Users of a closed loop.", metavar="C",
           in_web_ui=False),  # Locust's own field for the number of users is there
    Option(name="rate", kind=float, help="Arrivals per second of an open loop.", metavar="R"),
    Option(name="max-tokens", kind=int, help="Output tokens to ask for.", metavar="T"),
    Option(name="endpoint", kind=str, help="API to call.", choices=("chat", "completions")),
    Option(name="api-key-env", kind=str, metavar="VAR", in_web_ui=False,
           help="Environment variable that holds the bearer token."),
    Option(name="ca-file", kind=str, help="PEM file of authorities to trust.", metavar="FILE",
           in_web_ui=False),
    Option(name="insecure", kind=bool, help="Do not verify the server's certificate.",
           in_web_ui=False),
    Option(name="gateway", kind=str, metavar="URL", in_web_ui=False,
           help="Connect to this ingress gateway, and ask it for the target's host."),
    Option(name="interleave", kind=str, metavar="URL", in_web_ui=False,
           help="A second target: blocks of requests go to the one and the other in turn."),
    Option(name="block", kind=int, metavar="N", in_web_ui=False,
           help="Requests of a block of --interleave; default: by the load."),
    Option(name="metrics-url", kind=str, metavar="[NAME=]URL,...", in_web_ui=False,
           help="Metrics endpoints of replicas and GPUs, besides the server's own page."),
    Option(name="set", kind=str, metavar="KEY=VALUE", in_web_ui=False, repeated=True,
           help="Key of the profile, by its path, and its value in YAML; repeatable."),
    Option(name="metrics-port", kind=int, metavar="PORT", in_web_ui=False,
           help="Serve live figures to Prometheus at this port: /llm/metrics; 0 takes any."),
    Option(name="metrics-host", kind=str, metavar="ADDRESS", in_web_ui=False,
           help="Where --metrics-port listens; default: 127.0.0.1."),
    Option(name="traceparent", kind=bool, in_web_ui=False,  # its form sends text for a flag
           help="Send a W3C traceparent with each request, its trace id in the row."),
    Option(name="seed", kind=int, help="Seed of prompts and arrivals.", metavar="S"),
    Option(name="out", kind=str, help="The run directory itself; must be new or empty.",
           metavar="DIR", in_web_ui=False),
)  # fmt: skip


class Choices(list[str]):
    """What the web UI offers for an option; on the command line others are taken, too."""

    def __contains__(self, _value: object) -> bool:
        return True


def add_options(parser: ArgumentParser, profile: str, profiles: Choices) -> None:
    """Add the options to Locust's parser; `profile` is the default of --kv-profile."""
    group = parser.add_argument_group("kvswarm")
    for option in OPTIONS:
        settings: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
        if option.kind is bool:
            settings = {"help": option.help, "action": "store_true"}
        elif option.name == "profile":
            settings |= {"type": str, "default": profile, "choices": profiles}
        else:
            # A list in the web UI must have a choice for none, which leaves it to the profile.
            choices = ("", *option.choices) if option.choices else None
            settings |= {"type": option.kind, "choices": choices}
        if option.repeated:
            settings["action"] = "append"
        name = f"--kv-{option.name}"
        action: Any = group.add_argument(name, dest=f"kv_{option.key}", **settings)
        action.include_in_web_ui = option.in_web_ui  # a group takes no word of it
    # Locust's is every interface, with no login; --web-host and LOCUST_WEB_HOST go before.
    parser.set_defaults(web_host="127.0.0.1")


def overrides_of(values: Mapping[str, Any]) -> Overrides:
    """The profile's overrides among option values, by key.

    Raises UsageError where a flag and a setting give the same key, ProfileError for what is none.
    """
    settings = tuple(values.get("set") or ())
    _check_given_once(values, settings)
    return Overrides(
        requests=values.get("requests"),
        duration_s=values.get("duration"),
        concurrency=values.get("concurrency"),
        rate_rps=values.get("rate"),
        max_tokens=values.get("max_tokens"),
        endpoint=values.get("endpoint"),
        seed=values.get("seed"),
        settings=settings,
    )


def _check_given_once(values: Mapping[str, Any], settings: tuple[str, ...]) -> None:
    for text in settings:
        setting = read_setting(text)
        flag = FLAGS.get(setting.key, "")
        if values.get(flag.removeprefix("--").replace("-", "_")) is not None:
            raise UsageError(
                f"{setting.source}: {flag} gives the same key", fix="Keep one of the two."
            )


def option_values(now: Mapping[str, Any], at_start: Mapping[str, Any]) -> dict[str, Any]:
    """Read Locust's parsed options: `now`, and `at_start` for what the web UI must not change.

    Locust's start form takes any option, also one that it does not show. Raises UsageError.
    """
    return {
        option.key: option.read((now if option.in_web_ui else at_start).get(f"kv_{option.key}"))
        for option in OPTIONS
    }


def metrics_address(values: Mapping[str, Any]) -> tuple[str, int] | None:
    """Give host and port of --metrics-port; None without it. Raises UsageError."""
    host, port = values.get("metrics_host"), values.get("metrics_port")
    if port is None:
        if host is not None:
            raise UsageError(
                f"--metrics-host {host}: there is no port to listen on",
                fix="Give --metrics-port PORT, too.",
            )
        return None
    address = (host or LOOPBACK, int(port))
    if not 0 <= port <= LAST_PORT:
        raise cannot_listen(address, f"a port is a number from 0 to {LAST_PORT}")
    return address


def cannot_listen(address: tuple[str, int], why: object) -> UsageError:
    """Make the error for a --metrics-port at which nothing can listen."""
    return UsageError(
        f"--metrics-port {address[1]} on {address[0]}: cannot listen there: {why}",
        fix="Give a port that is free; 0 takes any.",
    )


def locust_users(load: Load, processes: int) -> int:
    """How many users Locust has to start for a load, all at once.

    An open loop needs one in each process, which only waits.
    """
    return processes if load.open_loop else load.peak_users or 1


def locust_arguments(values: Mapping[str, Any]) -> list[str]:
    """The same options in Locust's spelling; those that were not given are left out."""
    arguments: list[str] = []
    for option in OPTIONS:
        value = values.get(option.key)
        if value is None or value is False:
            continue
        for each in value if option.repeated else (value,):
            arguments.append(f"--kv-{option.name}")
            if option.kind is not bool:
                arguments.append(str(each))
    return arguments
