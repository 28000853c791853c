"""The table of flags against vLLM's own argument parser: names, forms, values, and what is gone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvswarm.serving.flags import ServerFlags, known_keys, vllm_flags
from kvswarm.serving.speculation import METHODS
from kvswarm.serving.tables import table
from kvswarm.serving.versions import Span, span_of, vllm_version

pytestmark = pytest.mark.vllm

PROFILES = Path(__file__).parents[2] / "kvswarm" / "profiles"
ASKING_S = 300.0

ASK = """
import json, sys
from dataclasses import fields
from importlib.metadata import version
from vllm.config import SpeculativeConfig, StructuredOutputsConfig
from vllm.config.speculative import SpeculativeMethod
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from typing import get_args

def flat(literal):
    for value in get_args(literal):
        yield from [value] if isinstance(value, str) else flat(value)

parser = make_arg_parser(FlexibleArgumentParser())
parsed = []
for arguments in json.load(sys.stdin):
    try:
        parsed.append({key: str(value) for key, value in vars(parser.parse_args(["model", *arguments])).items()})
    except SystemExit:
        parsed.append(None)
print("ANSWER" + json.dumps({
    "version": version("vllm"),
    "parsed": parsed,
    "options": {name: action.choices and [str(choice) for choice in action.choices]
                for action in parser._actions for name in action.option_strings},
    "speculative": [field.name for field in fields(SpeculativeConfig)],
    "methods": list(flat(SpeculativeMethod)),
    "structured": [field.name for field in fields(StructuredOutputsConfig)],
    "quantization": list(QUANTIZATION_METHODS),
    "backends": [backend.name for backend in AttentionBackendEnum],
}))
"""


def ask(python: str, commands: list[tuple[str, ...]]) -> dict[str, Any]:
    """Have vLLM's parser read command lines; None for one that it refuses."""
    done = subprocess.run(
        [python, "-c", ASK],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=ASKING_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    answer: dict[str, Any] = json.loads(line.removeprefix("ANSWER"))
    return answer


@pytest.fixture(scope="module")
def answer(vllm_python: str) -> dict[str, Any]:
    """What vLLM says of itself, and of a flag that there is not."""
    return ask(vllm_python, [("--no-such-flag",), ("--max-num-seqs", "4")])


@pytest.fixture(scope="module")
def version(answer: dict[str, Any]) -> str:
    """The version that is asked."""
    text: str = answer["version"]
    return text


EXAMPLES: dict[str, Any] = {
    "compilation_config": {"cudagraph_mode": "NONE"},
    "structured_outputs_config": {"backend": "xgrammar"},
    "lora_modules": {"a": "/adapters/a"},
    "served_model_name": "x",
}
"""Of keys that vLLM reads into something else than a plain value."""


def example(key: str, entry: dict[str, Any], version: str) -> Any:
    """Give a value that a key takes."""
    if key in EXAMPLES:
        return EXAMPLES[key]
    if "choices" in entry:
        for choice in entry["choices"]:
            choice = choice if isinstance(choice, dict) else {"value": choice}  # noqa: PLW2901
            if vllm_version(version) in span_of(choice) and choice["value"] != "any":
                return choice["value"]
    kinds = {"integer": 8, "number": 0.5, "text": "x", "boolean": True, "map": {"a": 2}}
    return kinds[entry["kind"]]


def features(version: str) -> list[dict[str, Any]]:
    """Every key alone, booleans both ways, and every method of speculation."""
    every: list[dict[str, Any]] = []
    for key, entry in known_keys().items():
        every.append({key: example(key, entry, version)})
        if entry["kind"] == "boolean":
            every.append({key: False})
    for method in METHODS:
        members: dict[str, Any] = {"method": method, "num_speculative_tokens": 3}
        if method == "ngram":
            members |= {"prompt_lookup_max": 4, "prompt_lookup_min": 2}
        elif method != "mtp":
            members |= {"model": "m", "draft_tensor_parallel_size": 1, "max_model_len": 64}
        every.append({"speculative": members})
    return every


def test_the_parser_tells_flags_that_there_are_from_those_that_there_are_not(
    answer: dict[str, Any],
) -> None:
    """Otherwise nothing below could fail."""
    unknown, known = answer["parsed"]
    assert unknown is None
    assert known["max_num_seqs"] == "4"


def test_every_flag_that_is_written_is_one_that_vllm_reads(vllm_python: str, version: str) -> None:
    """With the value that was given."""
    asked = features(version)
    flags: list[ServerFlags] = [vllm_flags(feature, version) for feature in asked]
    parsed = ask(vllm_python, [each.arguments for each in flags])["parsed"]
    refused = [
        (feature, each.arguments)
        for feature, each, read in zip(asked, flags, parsed, strict=True)
        if read is None
    ]
    assert refused == []
    for feature, each, read in zip(asked, flags, parsed, strict=True):
        ((key, value),) = feature.items()
        if key in read and each.arguments and key not in EXAMPLES:
            assert read[key] == str(value)


def test_every_packaged_profile_is_read(vllm_python: str, version: str) -> None:
    """All of their arguments, at once."""
    paths = sorted(PROFILES.rglob("*.yaml"))
    documents = {path: yaml.safe_load(path.read_text("utf-8")) for path in paths}
    features = {
        str(path.relative_to(PROFILES)): document["vllm_features"]
        for path, document in documents.items()
        if document.get("vllm_features")
    }
    assert len(features) >= 9
    flags = {
        name: vllm_flags(feature, version).arguments
        for name, feature in features.items()
        if feature.get("speculative") != "auto"
    }
    parsed = ask(vllm_python, list(flags.values()))["parsed"]
    assert [name for name, read in zip(flags, parsed, strict=True) if read is None] == []


def test_what_the_table_says_is_gone_is_gone(answer: dict[str, Any], version: str) -> None:
    """A key without a form for this version is no option of its parser."""
    for key, entry in known_keys().items():
        forms = entry.get("forms", [{}])
        if not any(vllm_version(version) in span_of(form) for form in forms):
            assert f"--{key.replace('_', '-')}" not in answer["options"], key


def test_booleans_have_the_forms_of_the_table(answer: dict[str, Any], version: str) -> None:
    """--no-NAME is there exactly where the table says pair."""
    for key, entry in known_keys().items():
        forms = [
            form for form in entry.get("forms", [{}]) if vllm_version(version) in span_of(form)
        ]
        if entry["kind"] == "boolean" and forms and forms[0]["write"] != "environment":
            negated = f"--no-{key.replace('_', '-')}" in answer["options"]
            assert negated == (forms[0]["write"] == "pair"), key


def test_values_of_the_table_are_values_of_vllm(answer: dict[str, Any], version: str) -> None:
    """Those of this version, each one."""
    lists = {
        "quantization": answer["quantization"],
        "attention_backend": answer["backends"],
        "guided_decoding_backend": None,
    }
    for key, entry in known_keys().items():
        valid = lists.get(key, answer["options"].get(f"--{key.replace('_', '-')}"))
        if valid is None:
            continue
        for choice in entry.get("choices", ()):
            choice = choice if isinstance(choice, dict) else {"value": choice}  # noqa: PLW2901
            if vllm_version(version) in span_of(choice) and choice["value"] != "any":
                assert str(choice["value"]) in valid, key


def test_quantization_methods_that_left_are_not_there(answer: dict[str, Any], version: str) -> None:
    """bitsandbytes and gguf are plugins now."""
    for choice in known_keys()["quantization"]["choices"]:
        if isinstance(choice, dict) and vllm_version(version) not in span_of(choice):
            assert choice["value"] not in answer["quantization"]


def test_speculation_has_the_names_of_vllm(answer: dict[str, Any], version: str) -> None:
    """Members of its JSON and methods."""
    for name, entry in table("vllm_keys")["speculation"]["members"].items():
        there = name in answer["speculative"]
        assert there == (vllm_version(version) in Span(None, span_of(entry).until)), name
    assert set(METHODS) <= set(answer["methods"])
    assert {
        "method",
        "model",
        "num_speculative_tokens",
        "prompt_lookup_max",
        "prompt_lookup_min",
    } <= {*answer["speculative"]}


def test_structured_outputs_have_the_members_of_vllm(answer: dict[str, Any]) -> None:
    """Each one."""
    assert set(known_keys()["structured_outputs_config"]["members"]) <= set(answer["structured"])
