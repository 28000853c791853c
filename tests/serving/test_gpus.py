"""GPUs by any name, slices of them, and which slices fit together."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import UsageError
from kvswarm.serving.gpus import (
    GIB,
    MigShape,
    device,
    device_named,
    find_gpu,
    gpu_named,
    gpus,
    gpus_with_slice,
)
from kvswarm.serving.tables import table


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("a100", "A100-SXM-80GB"),
        ("A100-80GB", "A100-SXM-80GB"),
        ("A100 40GB", "A100-SXM-40GB"),
        ("NVIDIA-A100-SXM4-80GB", "A100-SXM-80GB"),
        ("NVIDIA-A100-PCIE-40GB", "A100-PCIe-40GB"),
        ("NVIDIA-H100-80GB-HBM3", "H100-SXM"),
        ("NVIDIA-H100-80GB-HBM3-SHARED", "H100-SXM"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "H100-SXM"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("Tesla-T4", "T4"),
        ("Tesla-V100-SXM2-16GB", "V100-16GB"),
        ("NVIDIA-GeForce-RTX-4090", "RTX-4090"),
        ("NVIDIA-RTX-6000-Ada-Generation", "RTX-6000-Ada"),
        ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "RTX-PRO-6000"),
        ("nvidia-gh200-480gb", "GH200-96GB"),
        ("AMD_Instinct_MI300X_OAM", "MI300X"),
        ("gaudi3", "GAUDI-3"),
    ],
)
def test_a_gpu_is_found_by_how_people_and_nodes_write_it(spelling: str, name: str) -> None:
    """The label nvidia.com/gpu.product, a vendor's name and a nickname all mean one card."""
    assert gpu_named(spelling).name == name


def test_an_unknown_gpu_is_refused_with_the_nearest_name() -> None:
    """A typing mistake must not be taken for another card."""
    assert find_gpu("H1000") is None
    with pytest.raises(UsageError, match="Did you mean 'L40S'"):
        gpu_named("L40SX")


def test_no_two_gpus_share_a_spelling() -> None:
    """Otherwise the order of the table would decide which card is meant."""
    spellings = [
        (find_gpu(spelling), name)
        for name, entry in table("gpus")["gpus"].items()
        for spelling in (name, *entry["also"])
    ]
    assert all(found is not None and found.name == name for found, name in spellings)


def test_every_figure_has_a_source_and_is_plausible() -> None:
    """Usable memory is never above what is sold, and half the bits never run slower."""
    for gpu in gpus().values():
        assert gpu.sources, gpu.name
        assert gpu.usable_gib is None or gpu.usable_gib <= gpu.memory_gib, gpu.name
        assert (gpu.capability is not None) == (gpu.vendor == "nvidia"), gpu.name
        rates = [
            rate for rate in (gpu.fp16_tflops, gpu.fp8_tflops, gpu.fp4_tflops) if rate is not None
        ]
        assert rates == sorted(rates), gpu.name


def test_fp8_throughput_needs_the_capability_that_has_it() -> None:
    """Below 8.9 a GPU has no FP8 units: a figure there would be of something else."""
    for gpu in gpus().values():
        if gpu.capability is not None and gpu.capability < (8, 9):
            assert gpu.fp8_tflops is None, gpu.name


def test_a_slice_has_its_share_of_memory_and_of_compute() -> None:
    """1g.10gb of an H100: an eighth of the memory and bandwidth, a seventh of the throughput."""
    whole, part = device_named("H100"), device_named("H100", "nvidia.com/mig-1g.10gb")
    assert part.name == "H100-SXM 1g.10gb"
    assert part.memory_bytes == round(whole.memory_bytes / 8)
    assert whole.bandwidth_bytes_per_s
    assert part.bandwidth_bytes_per_s == pytest.approx(whole.bandwidth_bytes_per_s / 8)
    assert whole.fp16_flops
    assert part.fp16_flops == pytest.approx(whole.fp16_flops / 7)
    wide = device_named("H100", "1g.20gb")
    assert wide.memory_bytes == round(whole.memory_bytes / 4)
    assert wide.fp16_flops == part.fp16_flops


def test_a_slices_memory_is_what_its_name_says() -> None:
    """The names of slices are rounded down from their memory, on every card."""
    for gpu in gpus().values():
        for profile in gpu.mig.shapes if gpu.mig else ():
            named_gib = float(profile.partition("g.")[2].removesuffix("gb"))
            assert device(gpu, profile).memory_bytes / GIB == pytest.approx(named_gib, rel=0.06)


def test_a_nodes_label_names_its_slice() -> None:
    """GPU feature discovery appends the slice to the product."""
    assert device_named("NVIDIA-A100-SXM4-40GB-MIG-2g.10gb").mig_profile == "2g.10gb"


@pytest.mark.parametrize(
    ("gpu", "mig", "words"),
    [("L4", "1g.10gb", "cannot be divided"), ("A100-40GB", "1g.12gb", "no such slice")],
)
def test_a_slice_that_a_gpu_lacks_is_refused(gpu: str, mig: str, words: str) -> None:
    """A slice of another card has another size."""
    with pytest.raises(UsageError, match=words):
        device_named(gpu, mig)


@pytest.mark.parametrize(
    ("gpu", "profile", "most"),
    [
        ("A100-40GB", "1g.5gb", 7),
        ("A100-40GB", "1g.10gb", 4),
        ("A100-40GB", "2g.10gb", 3),
        ("H100", "3g.40gb", 2),
        ("H200", "4g.71gb", 1),
        ("B200", "7g.180gb", 1),
        ("A30", "1g.6gb", 4),
        ("A30", "2g.12gb", 2),
        ("RTX-PRO-6000", "1g.24gb", 4),
    ],
)
def test_as_many_slices_fit_as_nvidia_says(gpu: str, profile: str, most: int) -> None:
    """The column "number of instances available" of NVIDIA's tables."""
    mig = gpu_named(gpu).mig
    assert mig is not None
    assert mig.most(profile) == most


@pytest.mark.parametrize(
    ("profiles", "fits"),
    [
        (["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb"], True),
        (["4g.40gb", "3g.40gb"], True),
        (["2g.20gb", "2g.20gb", "2g.20gb", "1g.10gb"], True),
        (["3g.40gb", "3g.40gb", "1g.10gb"], False),
        (["4g.40gb", "4g.40gb"], False),
        (["7g.80gb", "1g.10gb"], False),
        (["1g.10gb"] * 8, False),
    ],
)
def test_slices_fit_together_as_on_the_card(profiles: list[str], *, fits: bool) -> None:
    """NVIDIA's balanced layout fits; two 3g leave no memory for a 1g, though one seventh idles."""
    mig = gpu_named("H100").mig
    assert mig is not None
    assert mig.holds(profiles) is fits


@given(
    st.lists(st.sampled_from(["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb"]), max_size=4)
)
def test_placing_agrees_with_trying_everything(profiles: list[str]) -> None:
    """A slow oracle: every choice of starts, kept when no two overlap."""
    mig = gpu_named("H100").mig
    assert mig is not None
    shapes = [mig.shapes[profile] for profile in profiles]
    choices = itertools.product(*(shape.starts for shape in shapes))
    assert mig.holds(profiles) is any(_apart(shapes, starts) for starts in choices)


def _apart(shapes: list[MigShape], starts: tuple[int, ...]) -> bool:
    cells = [
        cell
        for shape, start in zip(shapes, starts, strict=True)
        for cell in range(start, start + shape.memory_slices)
    ]
    return len(cells) == len(set(cells))


def test_a_slices_name_tells_the_cards_that_have_it() -> None:
    """A manifest names nvidia.com/mig-1g.10gb without the card."""
    names = {gpu.name for gpu in gpus_with_slice("nvidia.com/mig-1g.10gb")}
    assert names >= {"A100-SXM-80GB", "H100-SXM", "H100-PCIe", "A100-SXM-40GB"}
    assert "H200" not in names
