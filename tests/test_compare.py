"""`kvswarm compare` before it asks a cluster: what it would deploy, in which order, and what not."""

from __future__ import annotations

import json
import random
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from typed_commands import Typed, TypeIn, typing_in

from kvswarm.cli import commands
from kvswarm.commands.compare_file import (
    SCHEMA_PATH,
    ClusterFile,
    Comparison,
    MachineFile,
    VariantRun,
    read_comparison,
    unlike,
)
from kvswarm.commands.compare_options import LISTS, names_of, spread_lists
from kvswarm.commands.compare_plan import CompareRequest, Plan, plan
from kvswarm.commands.load import RunRequest
from kvswarm.errors import RunDirError
from kvswarm.kserve.checkpoints import needs_checkpoint

REQUIRED = "--model hf://Qwen/Qwen3-8B --namespace llm"
BACKENDS = "--backends vllm tgi tensorrt-llm"


@pytest.fixture
def type_in(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> TypeIn:
    """`kvswarm compare WORDS` from its entry point to its exit, in an empty directory."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return typing_in(monkeypatch, capfd, "compare")


def dry(typed: Typed) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines of the plan, and the manifests."""
    assert typed.code == 0, typed.err
    lines = [line[2:] for line in typed.out.splitlines() if line.startswith("# ")]
    return lines, list(yaml.safe_load_all(typed.out))


def services(typed: Typed) -> dict[str, dict[str, Any]]:
    """Each InferenceService's predictor, by name."""
    found = [each for each in dry(typed)[1] if each["kind"] == "InferenceService"]
    return {each["metadata"]["name"]: each["spec"]["predictor"] for each in found}


def planned(**changes: Any) -> Plan:
    """The plan of a comparison, with some of what was asked changed."""
    values = {"profile": "standard", **changes.pop("values", {})}
    manifest = commands.commands["compare"].make_context("compare", shlex.split(REQUIRED)).params
    asked = {"backends": ("vllm", "tgi"), "quantizations": (), "models_of": {}, "images": {}}
    return plan(
        CompareRequest(**{**asked, **changes}, manifest=manifest, run=RunRequest(values=values))
    )


# -- lists of names --------------------------------------------------------------------------

NAMES = st.lists(st.text("abcxyz-", min_size=1).filter(lambda s: s[0] != "-"), min_size=1)


@given(backends=NAMES, methods=NAMES)
def test_a_list_takes_all_words_up_to_the_next_flag(
    backends: list[str], methods: list[str]
) -> None:
    """As the older scripts were called; click alone takes one word."""
    words = ["RUN", "--backends", *backends, "--quantization", *methods, "--shuffle", "after"]
    expected = ["RUN"]
    expected += [word for name in backends for word in ("--backends", name)]
    expected += [word for name in methods for word in ("--quantization", name)]
    assert spread_lists(words) == [*expected, "--shuffle", "after"]
    assert spread_lists(["--", *words]) == ["--", *words]


@given(words=st.lists(st.sampled_from(["--model", "m", "--dry-run", "x=y"])))
def test_words_without_a_list_stay_as_they_are(words: list[str]) -> None:
    """Other flags have their values as click reads them."""
    assert not set(LISTS) & set(words)
    assert spread_lists(words) == words


def test_a_list_may_be_divided_by_commas_and_given_again(type_in: TypeIn) -> None:
    """All three spellings are one."""
    spellings = [
        "vllm tgi tensorrt-llm",
        "vllm,tgi,tensorrt-llm",
        "vllm --backends tgi,tensorrt-llm",
    ]
    shown = {type_in(f"{REQUIRED} --dry-run --backends {each}").out for each in spellings}
    assert len(shown) == 1
    assert names_of(["a, b", "c,"]) == ("a", "b", "c")


# -- what would be deployed ------------------------------------------------------------------


def test_every_backend_has_the_same_resources_and_a_service_of_its_own(type_in: TypeIn) -> None:
    """A difference of the machines would look like one of the servers."""
    machine = "--gpus 1 --gpu-resource nvidia.com/mig-1g.10gb --cpu 6 --memory 48Gi"
    placed = "--node-selector zone=a --toleration spot"
    found = services(type_in(f"{REQUIRED} {BACKENDS} {machine} {placed} --dry-run"))
    assert list(found) == ["compare-vllm", "compare-tgi", "compare-tensorrt-llm"]
    for parts in ("nodeSelector", "tolerations"):
        assert len({json.dumps(each[parts]) for each in found.values()}) == 1
    assert len({json.dumps(each["model"]["resources"]) for each in found.values()}) == 1
    assert found["compare-tgi"]["model"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"


def test_an_image_is_one_backends_and_the_prefix_is_all_services(type_in: TypeIn) -> None:
    """Two backends never have the same image."""
    words = f"{REQUIRED} {BACKENDS} --image tgi=mine/tgi:1 --service mine --dry-run"
    runtimes = {
        each["metadata"]["name"]: each["spec"]["containers"][0]["image"]
        for each in dry(type_in(words))[1]
        if each["kind"] == "ServingRuntime"
    }
    assert runtimes.pop("mine-tgi-tgi") == "mine/tgi:1"
    (other,) = runtimes.values()
    assert other.startswith("nvcr.io/")


def test_a_quantization_changes_how_numbers_are_stored_and_nothing_else(type_in: TypeIn) -> None:
    """Its own load, and the limits that go with that, would make the runs unlike."""
    words = f"{REQUIRED} --quantization none autoawq fp8 --dry-run"
    typed = type_in(f"{words} --model-of autoawq=hf://Qwen/Qwen3-8B-AWQ")
    found = services(typed)
    assert list(found) == ["compare-vllm-none", "compare-vllm-autoawq", "compare-vllm-fp8"]
    flags = {
        name: [arg for arg in each["model"]["args"] if not arg.startswith("--model_name")]
        for name, each in found.items()
    }
    plain = flags["compare-vllm-none"]
    assert plain == ["--backend=vllm"]
    assert flags["compare-vllm-autoawq"] == [*plain, "--quantization", "awq", "--dtype", "float16"]
    assert flags["compare-vllm-fp8"] == [*plain, "--quantization", "fp8", "--kv-cache-dtype", "fp8"]
    uris = [each["model"]["storageUri"] for each in found.values()]
    assert uris == ["hf://Qwen/Qwen3-8B", "hf://Qwen/Qwen3-8B-AWQ", "hf://Qwen/Qwen3-8B"]
    assert "fp8 is served of --model, which vllm quantizes at its start." in typed.out
    assert "autoawq is quantization autoawq, dtype float16." in typed.out


def test_backends_and_quantizations_are_crossed(type_in: TypeIn) -> None:
    """In the order in which they were given, each with the words of its backend."""
    words = f"{REQUIRED} --backends vllm tgi --quantization none gptq --dry-run"
    typed = type_in(f"{words} --model-of gptq=hf://Qwen/Qwen3-8B-GPTQ")
    assert list(services(typed)) == [
        "compare-vllm-none", "compare-vllm-gptq", "compare-tgi-none", "compare-tgi-gptq",
    ]  # fmt: skip
    runtimes = {
        each["metadata"]["name"]: each["spec"]["containers"][0]["args"]
        for each in dry(typed)[1]
        if each["kind"] == "ServingRuntime"
    }
    assert runtimes["compare-tgi-gptq-tgi"][-4:] == ["--quantize", "gptq", "--dtype", "float16"]
    assert "--quantize" not in runtimes["compare-tgi-none-tgi"]


def test_a_setting_goes_before_what_a_quantization_says(type_in: TypeIn) -> None:
    """Whoever gives a key knows why."""
    words = "--quantization none fp8 --set vllm_features.kv_cache_dtype=auto --dry-run"
    args = services(type_in(f"{REQUIRED} {words}"))["compare-vllm-fp8"]["model"]["args"]
    assert args[args.index("--quantization") + 1] == "fp8"
    assert args[args.index("--kv-cache-dtype") + 1] == "auto"


def test_none_is_the_model_as_it_is_whatever_the_profile_is_for(type_in: TypeIn) -> None:
    """A profile of a quantization would otherwise measure it under the name of its original."""
    words = f"{REQUIRED} --profile quantization/fp8 --quantization none int8 --dry-run"
    found = services(type_in(f"{words} --model-of int8=hf://x/y-w8a8"))
    assert "--quantization" not in found["compare-vllm-none"]["model"]["args"]


@pytest.mark.parametrize(
    ("backend", "method", "version", "needs"),
    [
        ("vllm", "autoawq", None, True),
        ("vllm", "gptq", None, True),
        ("vllm", "int8", None, True),
        ("vllm", "fp8", None, False),
        ("vllm", "fp8", "0.32.0", True),
        ("vllm-runtime", "fp8", None, True),
        ("vllm-runtime", "fp8", "0.30.0", False),
        ("tgi", "fp8", None, False),
        ("tgi", "awq", None, True),
        ("tensorrt-llm", "fp8", None, True),
    ],
)
def test_a_method_needs_a_checkpoint_where_the_server_does_not_make_it(
    backend: str, method: str, version: str | None, *, needs: bool
) -> None:
    """As the tables of quantizations and the servers' pages say."""
    assert needs_checkpoint(backend, method, version) is needs


# -- what would be sent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "warmup", "load", "told"),
    [
        ({}, {"requests": 10}, {"requests": 110}, "10 requests more are sent"),
        ({"requests": 30}, {"requests": 10}, {"requests": 40}, "10 requests more"),
        ({"set": ("requests=30",)}, {"requests": 10}, {"requests": 40}, "10 requests more"),
        ({"concurrency": 2}, {"requests": 8}, {"requests": 108}, "8 requests more"),
        ({"duration": 60.0}, {"duration_s": 10.0}, {"duration_s": 70.0}, "10 s more are sent"),
        ({"rate": 2.0}, {"requests": 8}, {"requests": 108}, "8 requests more"),
        ({"set": ("warmup.requests=3",)}, {"requests": 3}, {"requests": 100}, None),
        ({"profile": "quantization/fp8"}, {"duration_s": 15.0}, {"duration_s": 180.0}, None),
        (
            {"set": (
                "requests=null", "pattern=ramp", "ramp={from: 1, to: 4, unit: rate_rps, duration_s: 50}",
            )},
            {"duration_s": 5.0}, {"duration_s": 50.0}, "the first 5 s are sent and not counted",
        ),
    ],
)  # fmt: skip
def test_a_warm_up_is_made_where_the_profile_has_none_beside_what_is_measured(
    values: dict[str, Any], warmup: dict[str, Any], load: dict[str, Any], told: str | None
) -> None:
    """A server that was just started answers its first requests late."""
    found = planned(values=values)
    for each in found.planned:
        for name, value in warmup.items():
            assert getattr(each.profile.warmup, name) == value
        for name, value in load.items():
            assert getattr(each.profile.load, name) == value
    assert [told in note for note in found.notes if told] == ([True] if told else [])
    assert bool(found.notes) == (told is not None)


def test_all_variants_send_the_same_with_the_same_seed() -> None:
    """Only the server may differ."""
    found = planned(
        backends=("vllm", "tgi"), quantizations=("none", "fp8"), values={"seed": 7}
    ).planned
    assert len(found) == 4
    plain = [each.profile.to_dict() for each in found]
    for each in plain:
        each.pop("vllm_features")
    assert all(each == plain[0] for each in plain)
    assert plain[0]["seed"] == 7


@given(seed=st.integers(0, 1000))
def test_the_seed_gives_the_shuffled_order(seed: int) -> None:
    """The order can be repeated, and every variant is in it once."""
    variants = {"backends": ("vllm", "vllm-runtime", "tgi", "tensorrt-llm")}
    found = planned(shuffle=True, values={"seed": seed}, **variants).order
    expected = [0, 1, 2, 3]
    random.Random(seed).shuffle(expected)  # noqa: S311 - an order, no secret
    assert found == expected
    assert planned(values={"seed": seed}, **variants).order == [0, 1, 2, 3]


# -- what makes runs unlike ------------------------------------------------------------------


def test_features_that_one_backend_leaves_out_are_known() -> None:
    """By their keys, for the table and for comparison.json."""
    settings = ("vllm_features.max_num_seqs=8", "vllm_features.enable_chunked_prefill=true")
    found = planned(backends=("vllm", "tgi", "tensorrt-llm"), values={"set": settings}).planned
    left_out = [each.manifests.left_out for each in found]
    assert left_out == [(), ("max_num_seqs", "enable_chunked_prefill"), ()]
    assert unlike(left_out) == [[], ["max_num_seqs", "enable_chunked_prefill"], []]


@given(st.lists(st.lists(st.sampled_from("abcd"), unique=True), min_size=1))
def test_what_all_leave_out_makes_none_unlike(left_out: list[list[str]]) -> None:
    """What nobody has cannot make a difference; what somebody has does for whoever has it not."""
    found = unlike(left_out)
    for keys, different in zip(left_out, found, strict=True):
        for key in "abcd":
            expected = key in keys and not all(key in each for each in left_out)
            assert (key in different) == expected


# -- the file --------------------------------------------------------------------------------


def test_the_file_is_read_as_it_was_written_and_is_as_its_schema_says(tmp_path: Path) -> None:
    """Whoever goes on with a comparison has nothing but the file."""
    variant = VariantRun(
        text="vllm", directory="vllm", backend="vllm", quantization=None, model="hf://m/m",
        service="compare-vllm", manifests_sha256="0" * 64, image=None,
        phases_s={"ready": 12.5, "pulled": None}, unlike=["dtype"],
    )  # fmt: skip
    machine = MachineFile(
        gpu_resource="nvidia.com/gpu", gpus=1, cpu="4", memory="32Gi",
        node_selector={"a": "b"}, tolerations=[{"key": "spot", "operator": "Exists"}],
    )  # fmt: skip
    written = Comparison(
        model="hf://m/m", profile="standard", seed=0, namespace="llm", mode="standard",
        cluster=ClusterFile(server="https://127.0.0.1:1", version="1.34"),
        machine=machine, order=["vllm", "tgi"], variants=[variant, variant],
    )  # fmt: skip
    written.write(tmp_path)
    assert read_comparison(tmp_path) == written
    schema = json.loads(SCHEMA_PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    plain = json.loads((tmp_path / "comparison.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(plain)
    (tmp_path / "comparison.json").write_text(json.dumps({**plain, "schema_version": 2}))
    with pytest.raises(RunDirError, match="schema_version 2"):
        read_comparison(tmp_path)


# -- bad usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--backends vllm tgi --namespace llm", "--model"),
        (f"{REQUIRED} --backends", "--backends"),
        (f"{REQUIRED} --backends --dry-run", "--backends"),
        (f"{REQUIRED} --backends vllm", "is one server"),
        (f"{REQUIRED} --backends vllm vlm", "Did you mean 'vllm'?"),
        (f"{REQUIRED} --backends vllm tgi vllm", "vllm is given twice"),
        (f"{REQUIRED} --quantization autoawq awq", "awq is given twice"),
        (f"{REQUIRED} --quantization none autoawg", "Did you mean 'autoawq'?"),
        (f"{REQUIRED} --quantization none autoawq", "--model-of autoawq=URI"),
        (f"{REQUIRED} --quantization none int8", "--model-of int8=URI"),
        (
            "--model hf://x/y-AWQ --namespace llm --quantization autoawq gptq",
            "--model-of gptq=URI",
        ),
        (f"{REQUIRED} {BACKENDS} --quantization none fp8", "tensorrt-llm needs a checkpoint"),
        (f"{REQUIRED} --quantization none fp8 --model-of gptq=hf://a/b", "--model-of gptq"),
        (f"{REQUIRED} --quantization none fp8 --model-of none=hf://a/b", "none serves --model"),
        (f"{REQUIRED} --quantization none fp8 --model-of fp8", "is not NAME=VALUE"),
        (f"{REQUIRED} --quantization none fp8 --model-of fp8=xx://y", "xx://y"),
        (
            f"{REQUIRED} --quantization none fp8 --set vllm_features.quantization=awq",
            "--quantization varies that key",
        ),
        (f"{REQUIRED} {BACKENDS} --image triton=x/y", "no backend that is compared"),
        (f"{REQUIRED} {BACKENDS} --image tgi=a --image tgi=b", "given twice"),
        (f"{REQUIRED} {BACKENDS} --profile standart", "Did you mean 'standard'?"),
        (f"{REQUIRED} {BACKENDS} --service {'x' * 50}", "--service"),
        (f"{REQUIRED} {BACKENDS} --gpus 0", "its image needs a GPU"),
        (f"{REQUIRED} {BACKENDS} --set prompts=none.jsonl", "none.jsonl"),
    ],
)
def test_a_mistake_in_any_variant_is_told_before_anything_is_made_or_deployed(
    type_in: TypeIn, tmp_path: Path, words: str, told: str
) -> None:
    """One in the last would be told an hour later."""
    typed = type_in(words)
    assert typed.code == 2, typed.err
    assert told in typed.err
    assert "Traceback" not in typed.err
    assert typed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_the_order_and_what_is_sent(type_in: TypeIn) -> None:
    """And asks no cluster: there is no kubeconfig here."""
    lines, _ = dry(type_in(f"{REQUIRED} {BACKENDS} --dry-run --requests 20 --concurrency 2"))
    assert lines[0] == "3 variants, in this order: vllm, tgi, tensorrt-llm."
    assert "profile standard, seed 0, steady, 28 requests, 2 users" in lines[1]
    assert "8 requests more are sent and not counted" in lines[2]
    assert any(re.search(r"TGI is archived", line) for line in lines)
