"""What the GPUs took over the measured window, and for what work.

In:  server.parquet, the window and what was done in it.
Out: the section `energy` of summary.json; None where no exporter told of power or energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kvswarm.analysis.gpu_figures import read_gpu_power
from kvswarm.analysis.power import LEAST_OBSERVED_SHARE, NS_PER_S
from kvswarm.rundir import RunDir

J_PER_WH: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Work:
    """What was done with the energy in the window."""

    start_ns: int
    end_ns: int
    requests: float
    """Successful ones."""
    output_tokens: float


def energy_section(
    run: RunDir, work: Work, idle_w_per_gpu: float | None = None
) -> dict[str, Any] | None:
    """Compute it. Raises RunDirError where server.parquet is damaged."""
    found = read_gpu_power(run)
    if found is None or work.end_ns <= work.start_ns:
        return None
    exporter, gpus = found
    told = [each.over(work.start_ns, work.end_ns) for each in gpus]
    seen = [each for each in told if each is not None]
    if not seen:
        return None
    observed = [each for _, each in seen]
    wholes = [each.whole_j for each in observed]
    known = [whole for whole in wholes if whole is not None]
    energy_j = sum(known) if len(known) == len(gpus) else None
    window_s = (work.end_ns - work.start_ns) / NS_PER_S
    idle_j = None if idle_w_per_gpu is None else idle_w_per_gpu * len(gpus) * window_s
    above_j = None if energy_j is None or idle_j is None else max(0.0, energy_j - idle_j)
    share = min(each.observed_share for each in observed)
    gap_s = max(each.longest_gap_s for each in observed)
    return {
        "exporter": exporter,
        "gpus": len(gpus),
        "by": "power" if all(by == "power" for by, _ in seen) else "counter",
        "window_s": window_s,
        "observed_share": share if len(seen) == len(gpus) else 0.0,
        "longest_gap_s": gap_s,
        "energy_j": energy_j,
        "mean_power_w": None if energy_j is None else energy_j / window_s,
        **_per_work(energy_j, work),
        "idle_w_per_gpu": idle_w_per_gpu,
        "above_idle_j": above_j,
        **{f"above_idle_{name}": value for name, value in _per_work(above_j, work).items()},
        "notes": _notes(len(gpus) - len(seen), share, gap_s, known=energy_j is not None),
    }


def _per_work(energy_j: float | None, work: Work) -> dict[str, float | None]:
    def per(amount: float, unit_j: float = 1.0) -> float | None:
        return None if energy_j is None or amount <= 0 else energy_j / unit_j / amount

    return {
        "j_per_request": per(work.requests),
        "j_per_output_token": per(work.output_tokens),
        "wh_per_1k_output_tokens": per(work.output_tokens / 1000, J_PER_WH),
    }


def _notes(silent: int, share: float, gap_s: float, *, known: bool) -> list[str]:
    notes = []
    if silent:
        notes.append(f"{silent} of the GPUs tell of no power over time, so there is no energy.")
    if share < 1.0 and known:
        notes.append(
            f"power was seen for {share:.1%} of the window (longest gap {gap_s:.1f} s); the rest "
            "is filled up with the mean of what was seen."
        )
    if share < LEAST_OBSERVED_SHARE:
        notes.append(
            f"power was seen for {share:.1%} of the window (longest gap {gap_s:.1f} s), which is "
            f"below {LEAST_OBSERVED_SHARE:.0%}: there is no energy."
        )
    return notes
