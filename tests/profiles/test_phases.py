"""Warm-up, measure, cool-down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Window
from kvswarm.profiles.phases import phase_of

STANDARD = load_profile("standard")


@pytest.mark.parametrize(
    ("warmup", "cooldown", "index", "elapsed_s", "phase"),
    [
        (Window(), Window(), 0, 0.0, "measure"),
        (Window(requests=3), Window(), 2, 99.0, "warmup"),
        (Window(requests=3), Window(), 3, 0.0, "measure"),
        (Window(duration_s=5.0), Window(), 90, 4.999, "warmup"),
        (Window(duration_s=5.0), Window(), 0, 5.0, "measure"),
        (Window(), Window(requests=4), 95, 0.0, "measure"),
        (Window(), Window(requests=4), 96, 0.0, "cooldown"),
        (Window(), Window(duration_s=2.0), 0, 57.9, "measure"),
        (Window(), Window(duration_s=2.0), 0, 58.0, "cooldown"),
        (Window(requests=3), Window(duration_s=2.0), 1, 59.0, "warmup"),
        (Window(duration_s=5.0), Window(requests=4), 99, 6.0, "cooldown"),
    ],
)
def test_a_request_is_in_the_phase_of_its_number_and_time(
    warmup: Window, cooldown: Window, index: int, elapsed_s: float, phase: str
) -> None:
    """100 requests or 60 s: windows count from either end, and their edges belong to one side."""
    load = replace(STANDARD.load, requests=100, duration_s=60.0)
    profile = replace(STANDARD, load=load, warmup=warmup, cooldown=cooldown)
    assert phase_of(profile, index, elapsed_s) == phase
