"""What the GPUs did in the measured window: use, memory, power, energy.

In:  the replicas that export GPU metrics (dcgm-exporter, Triton).
Out: the `gpu` part of the summary's `server`, or None where nobody exports any.

A GPU is known by its UUID, whatever other labels say: those of pods come and go. Without one, it is
known by its number on its host. Where it is cut in parts (MIG), each part tells the power and
energy of the whole; they count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from kvswarm.analysis.power import GpuPower, by_counter, by_power
from kvswarm.analysis.series import Level, Replica, Series, Span, level, read_replicas
from kvswarm.analysis.server_names import GPUS, GpuNames, Pick
from kvswarm.rundir import RunDir

BLANK: Final = float(1 << 47)
"""DCGM says so, or more, where it knows no value."""
NO_SPAN: Final = Span(0, 0, (0, 0), (0, 0), whole=False)
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuPages:
    """One exporter's pages, and the span that counts."""

    replica: Replica
    span: Span
    told: frozenset[str] = frozenset()
    """GPUs that another exporter told of: each counts once."""


def gpu_names() -> set[str]:
    """All names that are read."""
    names = set()
    for gpu in GPUS.values():
        pairs = [*gpu.utilisation, gpu.memory_used, gpu.power, gpu.energy]
        pairs += [pair for pair in (gpu.memory_free, gpu.memory_total) if pair is not None]
        names |= {name for name, _ in pairs}
    return names


def gpu_figures(pages: Sequence[GpuPages], output_tokens: float | None) -> dict[str, Any] | None:
    """Figures of all GPUs together, by the best exporter there is."""
    for exporter, names in GPUS.items():
        mine = [p for p in pages if p.replica.series.get(names.memory_used[0])]
        mine = mine or [p for p in pages if p.replica.series.get(names.power[0])]
        if mine:
            return {"exporter": exporter, **_figures(mine, names, output_tokens)}
    return None


def power_level(replica: Replica, span: Span) -> Level | None:
    """Power of all GPUs of an exporter over time, W."""
    for names in GPUS.values():
        gpus = _by_gpu(GpuPages(replica, span), names, names.power, parts=False)
        if gpus:
            return level(list(gpus.values()), span, summed=True)
    return None


def read_gpu_power(run: RunDir) -> tuple[str, list[GpuPower]] | None:
    """The best exporter there is, and what it told of each GPU; None where there is none.

    Raises RunDirError where server.parquet is damaged.
    """
    replicas = read_replicas(run, sorted(gpu_names()))
    for exporter, names in GPUS.items():
        gpus: dict[str, GpuPower] = {}
        for replica in replicas:
            page = GpuPages(replica, NO_SPAN, told=frozenset(gpus))
            power = _by_gpu(page, names, names.power, parts=False)
            energy = _by_gpu(page, names, names.energy, parts=False)
            gpus |= {
                key[0]: GpuPower(power.get(key), energy.get(key)) for key in {**power, **energy}
            }
        if gpus:
            return exporter, list(gpus.values())
    return None


def _figures(
    pages: Sequence[GpuPages], names: GpuNames, output_tokens: float | None
) -> dict[str, Any]:
    uses: list[Level] = []
    memory_used: list[float] = []
    memory_total: list[float] = []
    powers: list[float] = []
    energies: list[float | None] = []
    uuids: set[str] = set()
    for each in pages:
        page = replace(each, told=frozenset(uuids))
        use = next(
            (found for pair in names.utilisation if (found := _by_gpu(page, names, pair))), {}
        )
        levels = [level([series], page.span, summed=True) for series in use.values()]
        uses += [found for found in levels if found is not None]
        used = _by_gpu(page, names, names.memory_used)
        if (memory := level(list(used.values()), page.span, summed=True)) is not None:
            memory_used.append(memory.max)
        if (total := _memory_total(page, names)) is not None:
            memory_total.append(total)
        power = _by_gpu(page, names, names.power, parts=False)
        if (watts := level(list(power.values()), page.span, summed=True)) is not None:
            powers.append(watts.mean)
        energy = _by_gpu(page, names, names.energy, parts=False)
        energies += [
            _energy_j(energy.get(gpu), power.get(gpu), page.span) for gpu in {**power, **energy}
        ]
        uuids |= {key[0] for key in (*used, *use, *power, *energy)}
    energy_j = (
        sum(e for e in energies if e is not None) if None not in energies and energies else None
    )
    tokens = output_tokens or None
    return {
        "gpus": len(uuids),
        "utilisation_share": _mean([use.mean for use in uses]),
        "memory_used_bytes": sum(memory_used) if memory_used else None,
        "memory_total_bytes": sum(memory_total) if memory_total else None,
        "power_w": sum(powers) if powers else None,
        "energy_j": energy_j,
        "energy_j_per_1k_output_tokens": None
        if energy_j is None or tokens is None
        else energy_j / tokens * 1000,
    }


def _by_gpu(
    page: GpuPages, names: GpuNames, pair: tuple[str, float], *, parts: bool = True
) -> dict[Key, Series]:
    """One series for each GPU (and part of it), in our unit, whatever its other labels."""
    name, factor = pair
    groups: dict[Key, list[Series]] = {}
    for series in page.replica.pick(Pick(name)):
        key: Key = (_gpu_id(series.labels, names, page.replica.name),)
        if key[0] in page.told:
            continue
        if parts and names.part_label in series.labels:
            key += (series.labels[str(names.part_label)],)
        groups.setdefault(key, []).append(series)
    found = {}
    for key, group in groups.items():
        times = np.concatenate([series.times_ns for series in group])
        values = np.concatenate([series.values for series in group])
        known = np.isfinite(values) & (values >= 0) & (values < BLANK)
        pages, place = np.unique(times[known], return_inverse=True)
        largest = np.full(len(pages), -np.inf)
        np.maximum.at(largest, place, values[known] * factor)
        if len(pages):
            found[key] = Series({}, pages, largest)
    return found


def _gpu_id(labels: Mapping[str, str], names: GpuNames, replica: str) -> str:
    """The UUID; where there is none, the number of the GPU on its host, or on this page."""
    if uuid := labels.get(names.id_label):
        return uuid
    number = next((labels[k] for k in names.number_labels if k in labels), "")
    return f"{labels.get('Hostname') or replica} {number}"


def _memory_total(page: GpuPages, names: GpuNames) -> float | None:
    if names.memory_total is not None:
        total = _by_gpu(page, names, names.memory_total)
        found = level(list(total.values()), page.span, summed=True)
        return None if found is None else found.max
    if names.memory_free is None:
        return None
    parts = [*_by_gpu(page, names, names.memory_used).values()]
    parts += _by_gpu(page, names, names.memory_free).values()
    found = level(parts, page.span, summed=True)
    return None if found is None else found.max


def _energy_j(counter: Series | None, power: Series | None, span: Span) -> float | None:
    """By the counter; where there is none, or it stands still, by the power over time.

    None where less of the span was seen than can be filled up.
    """
    if counter is not None and len(counter.times_ns) > 1:
        grown = by_counter(counter, span.start_ns, span.end_ns)
        if grown.energy_j > 0 and grown.whole_j is not None:
            return grown.whole_j
    return None if power is None else by_power(power, span.start_ns, span.end_ns).whole_j


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
