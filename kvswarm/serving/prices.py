"""What a machine costs and which it was, as a person writes it: `--prices FILE`, `cost:`, flags.

In:  a YAML file, with today's keys or those of the older cost.yaml, and the name of a cloud.
Out: `Costs`, which can be laid over each other, or a UsageError that names the file and the key.

Prices are in US dollars. Those that kvswarm has itself are not here: they stand with the nodes that
have them, in `kvswarm/kserve/clusters/*.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from kvswarm.errors import UsageError
from kvswarm.serving.gpus import find_gpu
from kvswarm.serving.problems import nearest, seen

DEFAULT: Final = "default"
"""The price of a GPU that has none of its own."""
PERCENT: Final = 100.0
ANY: Final = "kvswarm writes prices as docs/cost.md shows."


class Costs(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What was said of prices and machines. None: nothing."""

    gpu_hour_usd: dict[str, float] | None = None
    """Of one GPU for an hour, by product; `default` for any."""
    cpu_core_hour_usd: float | None = None
    memory_gib_hour_usd: float | None = None
    overhead_share: float | None = None
    """What comes on top of all that, such as 0.1 for a tenth."""
    cloud: str | None = None
    """A cluster by its name or file, whose prices hold where no other is given."""
    gpu: str | None = None
    """The product that a replica has."""
    gpus: int | None = None
    """Of a replica."""
    replicas: int | None = None
    cpus: float | None = None
    """Of a replica."""
    memory_gib: float | None = None
    """Of a replica."""
    idle_w_per_gpu: float | None = None
    """What a GPU takes that has nothing to do."""
    source: str | None = None
    """Where the prices stand, for people."""

    def over(self, below: Costs) -> Costs:
        """These, and where they say nothing, those below."""
        own = msgspec.structs.asdict(self)
        return Costs(
            **{
                name: value if own[name] is None else own[name]
                for name, value in msgspec.structs.asdict(below).items()
            }
        )

    def gpu_price(self, product: str) -> float | None:
        """The given price of a GPU or of a slice of one (`h100-80gb/1g.10gb`); None: there is none.

        A slice without a price of its own costs what its GPU does, divided by how many it holds.
        """
        prices = self.gpu_hour_usd or {}
        own = _named(prices, product)
        whole, slash, part = product.partition("/")
        if own is not None or not slash:
            return prices.get(DEFAULT) if own is None else own
        gpu = find_gpu(whole)
        mig = None if gpu is None else gpu.mig
        price = self.gpu_price(whole)
        if price is None or mig is None or part not in mig.shapes:
            return None
        return price / mig.most(part)


def _named(prices: Mapping[str, float], product: str) -> float | None:
    """By the very name, else by another spelling of it."""
    if product in prices:
        return prices[product]
    wanted = None if "/" in product else find_gpu(product)
    if wanted is None:
        return None
    same = (price for name, price in prices.items() if find_gpu(name) == wanted)
    return next(same, None)


def costs_of(values: Mapping[str, Any], source: str | None = None) -> Costs:
    """`cost` of a profile, whose schema has judged it. `source`: what its prices are called."""
    costs = Costs(**{**values, **_gpu_prices(values)})
    return _from(costs, source)


def _from(costs: Costs, source: str | None) -> Costs:
    """The same, with the source of its prices, where it has any."""
    has_prices = (costs.gpu_hour_usd or costs.cpu_core_hour_usd) is not None
    return msgspec.structs.replace(costs, source=source) if has_prices else costs


def _gpu_prices(values: Mapping[str, Any]) -> dict[str, Any]:
    price = values.get("gpu_hour_usd")
    if price is None or isinstance(price, Mapping):
        return {}
    return {"gpu_hour_usd": {DEFAULT: float(price)}}


def read_prices(path: Path, cloud: str | None = None) -> Costs:
    """Read a file of prices; what it says of the cloud goes before the rest. Raises UsageError."""
    where = f"--prices {path}"
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{where}: cannot be read: {error}", fix="Give a YAML file of prices."
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: is no YAML: {error}", fix=ANY) from error
    if not isinstance(document, dict):
        raise UsageError(f"{where}: is no mapping", fix=ANY)
    clouds = _mapping(document.pop("clouds", {}), f"{where}: clouds")
    costs = _costs(document, where)
    chosen = cloud or costs.cloud
    read = {
        str(name): _costs(_mapping(part, f"{where}: clouds.{name}"), f"{where}: clouds.{name}")
        for name, part in clouds.items()
    }
    if chosen in read:
        costs = read[chosen].over(costs)
    return Costs(cloud=cloud).over(_from(costs, str(path)))


def _costs(document: Mapping[str, Any], where: str) -> Costs:
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in READERS:
            raise UsageError(
                f"{where}: {key} is no key of prices.{nearest(key, READERS)}",
                fix=f"Keys: {', '.join(Costs.__struct_fields__[:-1])}, clouds.",
            )
        for name, found in READERS[key](value, f"{where}: {key}").items():
            if name in values:
                raise UsageError(f"{where}: {key} says {name} again", fix="Keep one of the two.")
            values[name] = found
    return Costs(**values)


Reader = Callable[[Any, str], dict[str, Any]]


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: is {seen(value)}; must be a mapping", fix=ANY)
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(
            f"{where}: is {seen(value)}; must be a number", fix="Give one, such as 1.5."
        )
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"{where}: is {value}; must be 0 or more", fix="Give a finite number.")
    return float(value)


def _of_number(name: str, *, less: float = 0.0, by: float = 1.0) -> Reader:
    """Reads a number, in another unit maybe."""

    def read(value: Any, where: str) -> dict[str, Any]:
        number = (_number(value, where) - less) / by
        if number < 0:
            raise UsageError(f"{where}: is {value}; must be {less:g} or more", fix=ANY)
        return {name: number}

    return read


def _of_count(name: str) -> Reader:
    def read(value: Any, where: str) -> dict[str, Any]:
        if _number(value, where) != int(value):
            raise UsageError(f"{where}: is {value}; must be whole", fix="Give a whole number.")
        return {name: int(value)}

    return read


def _of_text(name: str) -> Reader:
    def read(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, str) or not value:
            raise UsageError(f"{where}: is {seen(value)}; must be text", fix=ANY)
        return {name: value}

    return read


def _gpu_hour(value: Any, where: str) -> dict[str, Any]:
    """One price, or one for each product."""
    if not isinstance(value, dict):
        return {"gpu_hour_usd": {DEFAULT: _number(value, where)}}
    prices = {str(name): _number(price, f"{where}.{name}") for name, price in value.items()}
    for hourly in ("hourly", "hourly_usd", "hourly_per_gpu"):
        if hourly in prices:
            prices[DEFAULT] = prices.pop(hourly)
    return {"gpu_hour_usd": prices}


def _gpu(value: Any, where: str) -> dict[str, Any]:
    """Today the product; in the older file the prices."""
    return _gpu_hour(value, where) if isinstance(value, dict) else _of_text("gpu")(value, where)


def _within(readers: Mapping[str, Reader]) -> Reader:
    """Reads a mapping of the older file by the readers of its keys."""

    def read(value: Any, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, each in _mapping(value, where).items():
            if key not in readers:
                raise UsageError(
                    f"{where}.{key}: is no key of prices.{nearest(key, readers)}",
                    fix=f"Keys there: {', '.join(readers)}.",
                )
            found |= readers[key](each, f"{where}.{key}")
        return found

    return read


def _overhead(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return _of_number("overhead_share")(value, where)
    return _within({key: READERS[f"overhead_{key}"] for key in OVERHEADS})(value, where)


def _only(wanted: Any, why: str) -> Reader:
    """Takes one value, which is what is done anyway."""

    def read(value: Any, where: str) -> dict[str, Any]:
        if value != wanted:
            raise UsageError(f"{where}: is {seen(value)}; {why}", fix=f"Give {wanted}.")
        return {}

    return read


CPU: Final = _of_number("cpu_core_hour_usd")
MEMORY: Final = _of_number("memory_gib_hour_usd")
OVERHEADS: Final = ("share", "fraction", "percent", "factor", "multiplier")
READERS: Final[dict[Any, Reader]] = {
    "gpu_hour_usd": _gpu_hour,
    "cpu_core_hour_usd": CPU,
    "memory_gib_hour_usd": MEMORY,
    "overhead_share": _of_number("overhead_share"),
    "cloud": _of_text("cloud"),
    "gpu": _gpu,
    "gpus": _of_count("gpus"),
    "replicas": _of_count("replicas"),
    "cpus": _of_number("cpus"),
    "memory_gib": _of_number("memory_gib"),
    "idle_w_per_gpu": _of_number("idle_w_per_gpu"),
    # The older cost.yaml, and how it was written elsewhere.
    **dict.fromkeys(("gpu_hourly", "gpu_hourly_usd", "gpu_hour", "gpu_prices"), _gpu_hour),
    **dict.fromkeys(("cpu_hourly", "cpu_hourly_usd", "cpu_core_hourly", "cpu_hour"), CPU),
    **dict.fromkeys(
        ("memory_gb_hourly", "memory_gib_hourly", "memory_hourly", "memory_hourly_usd"), MEMORY
    ),
    "cpu": _within(dict.fromkeys(("hourly_per_core", "hourly", "core_hourly"), CPU)),
    "memory": _within(
        dict.fromkeys(("hourly_per_gib", "hourly_per_gb", "hourly", "gb_hourly"), MEMORY)
    ),
    "overhead": _overhead,
    "overhead_fraction": _of_number("overhead_share"),
    "overhead_percent": _of_number("overhead_share", by=PERCENT),
    "overhead_factor": _of_number("overhead_share", less=1.0),
    "overhead_multiplier": _of_number("overhead_share", less=1.0),
    "idle_watts": _of_number("idle_w_per_gpu"),
    "currency": _only("USD", "all figures are in US dollars"),
    "calculation": _within(
        {
            "use_requests": _only(wanted=True, why="what a pod asks for is what it holds"),
            "include_sidecars": _only(wanted=False, why="the server's container alone counts"),
        }
    ),
}
"""Readers of all keys, today's first."""
