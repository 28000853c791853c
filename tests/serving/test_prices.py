"""Files of prices: today's keys and the older ones, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import UsageError
from kvswarm.profiles.schema import GATE_KEYS
from kvswarm.serving.prices import READERS, Costs, costs_of, read_prices

OLDER = """
gpu:
  default: 1.50
  NVIDIA-A10: 1.10
  NVIDIA-A100-80GB: 4.90
  NVIDIA-H100-80GB: 6.50
cpu:
  hourly_per_core: 0.04
memory:
  hourly_per_gib: 0.005
overhead:
  fraction: 0.10
calculation:
  use_requests: true
  include_sidecars: false
"""
PRICE = st.floats(0.0, 1000.0)


def read(folder: Path, text: str, cloud: str | None = None) -> Costs:
    path = folder / "prices.yaml"
    path.write_text(text)
    return read_prices(path, cloud)


def test_the_older_file_is_read_as_it_is(tmp_path: Path) -> None:
    """People have one, and it must not be written anew."""
    costs = read(tmp_path, OLDER)
    assert costs.gpu_hour_usd == {
        "default": 1.5, "NVIDIA-A10": 1.1, "NVIDIA-A100-80GB": 4.9, "NVIDIA-H100-80GB": 6.5,
    }  # fmt: skip
    assert (costs.cpu_core_hour_usd, costs.memory_gib_hour_usd) == (0.04, 0.005)
    assert costs.overhead_share == 0.1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gpu_hourly: 2.5\ncpu_hourly: 0.03\nmemory_gb_hourly: 0.004\noverhead: 0.15",
         Costs(gpu_hour_usd={"default": 2.5}, cpu_core_hour_usd=0.03, memory_gib_hour_usd=0.004,
               overhead_share=0.15)),
        ("overhead_percent: 15", Costs(overhead_share=0.15)),
        ("overhead: {percent: 15}", Costs(overhead_share=0.15)),
        ("overhead_factor: 1.25", Costs(overhead_share=0.25)),
        ("overhead: {multiplier: 1.25}", Costs(overhead_share=0.25)),
        ("gpu: {hourly: 3}", Costs(gpu_hour_usd={"default": 3.0})),
        ("currency: USD\ngpu: h100\ngpus: 2", Costs(gpu="h100", gpus=2)),
    ],
)  # fmt: skip
def test_older_keys_say_the_same_as_todays(tmp_path: Path, text: str, wanted: Costs) -> None:
    """However they were spelled."""
    found = read(tmp_path, text)
    assert found == Costs(source=found.source).over(wanted)


def test_a_file_is_the_source_of_prices_that_it_has(tmp_path: Path) -> None:
    """One that says only what a replica is, is not."""
    assert read(tmp_path, "gpu_hour_usd: 1").source == str(tmp_path / "prices.yaml")
    assert read(tmp_path, "gpus: 1").source is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpu_hour_us: 1", "gpu_hour_us is no key of prices. Did you mean 'gpu_hour_usd'?"),
        ("cpu: {hourly_per_cores: 1}", "cpu.hourly_per_cores: is no key of prices. Did you mean"),
        ("clouds: {eks: {gpux: 1}}", "clouds.eks: gpux is no key of prices. Did you mean 'gpu"),
        ("gpu_hour_usd: free", "gpu_hour_usd: is 'free'; must be a number"),
        ("gpu_hour_usd: {l4: -1}", "gpu_hour_usd.l4: is -1; must be 0 or more"),
        ("cpu_core_hour_usd: .inf", "must be 0 or more"),
        ("cpu_core_hour_usd: true", "must be a number"),
        ("gpus: 1.5", "gpus: is 1.5; must be whole"),
        ("overhead_factor: 0.5", "overhead_factor: is 0.5; must be 1 or more"),
        ("currency: EUR", "currency: is 'EUR'; all figures are in US dollars"),
        ("cpu: 0.04", "cpu: is 0.04; must be a mapping"),
        ("cpu_hourly: 1\ncpu_core_hour_usd: 2", "says cpu_core_hour_usd again"),
        ("calculation: {include_sidecars: true}", "the server's container alone counts"),
        ("- 1", "is no mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(
    tmp_path: Path, text: str, told: str
) -> None:
    """A key that were ignored would make a wrong cost in silence."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)
    assert str(tmp_path / "prices.yaml") in str(caught.value)


def test_a_file_that_is_not_there_is_a_mistake_of_a_person(tmp_path: Path) -> None:
    """Told with the flag."""
    with pytest.raises(UsageError, match=r"--prices .*none\.yaml: cannot be read"):
        read_prices(tmp_path / "none.yaml")


def test_a_cloud_takes_the_place_of_what_the_file_says_of_all(tmp_path: Path) -> None:
    """By --cloud, or by what the file says itself."""
    text = "cpu_core_hour_usd: 1\nmemory_gib_hour_usd: 7\nclouds: {gke: {cpu_core_hour_usd: 2}}"
    costs = [read(tmp_path, text, cloud) for cloud in (None, "gke", "eks")]
    assert [each.cpu_core_hour_usd for each in costs] == [1.0, 2.0, 1.0]
    assert [each.memory_gib_hour_usd for each in costs] == [7.0] * 3
    assert read(tmp_path, f"cloud: gke\n{text}").cpu_core_hour_usd == 2.0


def test_a_gpu_has_its_price_by_any_name_and_a_slice_its_part_of_it() -> None:
    """A node's label and a person spell it differently; an H100 holds seven slices of 1g.10gb."""
    costs = Costs(gpu_hour_usd={"H100-80GB": 7.0, "l4/odd": 9.0, "default": 1.0})
    assert costs.gpu_price("NVIDIA-H100-80GB-HBM3") == 7.0
    assert costs.gpu_price("h100/1g.10gb") == pytest.approx(1.0)
    assert costs.gpu_price("l4/odd") == 9.0
    assert costs.gpu_price("l4") == costs.gpu_price("a card of mine") == 1.0
    none = Costs(gpu_hour_usd={"h100": 7.0})
    assert none.gpu_price("l4") is none.gpu_price("h100/9g.90gb") is Costs().gpu_price("l4") is None


@given(
    st.dictionaries(st.sampled_from(["gpu_hour_usd", "cpu_core_hour_usd", "overhead_share"]), PRICE)
)
def test_a_profile_says_the_same_as_a_file(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, float]
) -> None:
    """Two ways to one meaning."""
    read_back = read(tmp_path_factory.mktemp("p"), yaml.safe_dump(values))
    assert costs_of(values).over(read_back) == read_back


def test_every_field_has_a_key() -> None:
    """One without could be given by nobody."""
    assert set(Costs.__struct_fields__) - {"source"} <= set(READERS)


def test_the_file_that_the_docs_show_is_read_and_their_gates_are_known(tmp_path: Path) -> None:
    """A reader pastes it."""
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text("utf-8")
    prices, gates = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    costs = read(tmp_path, prices, "gke")
    assert costs.gpu_price("NVIDIA-H100-80GB-HBM3") == 3.0
    assert (costs.cpu_core_hour_usd, costs.idle_w_per_gpu) == (0.033, 70.0)
    assert set(yaml.safe_load(gates)["gate"]) <= set(GATE_KEYS)
