"""`kvswarm validate` as a person types it, and the rules before a run and a deployment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from typed_commands import TypeIn, typing_in

WRONG = "extends: standard\nvllm_features:\n  max_num_seqs: 64\n  swap_space: 4\n"
DOUBTFUL = "extends: standard\nvllm_features: {use_v2_block_manager: true}\n"
LYING = "extends: standard\nrequest: {guided_json: {type: object}}\n"


@pytest.fixture
def type_in(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> TypeIn:
    """`kvswarm WORDS` from its entry point to its exit, in a directory with three profiles."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    for name, text in (("wrong", WRONG), ("doubtful", DOUBTFUL), ("lying", LYING)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return typing_in(monkeypatch, capfd)


def test_an_error_has_its_place_its_reason_and_its_remedy_and_code_2(type_in: TypeIn) -> None:
    """As an editor's list of problems reads it."""
    typed = type_in("validate --profile ./wrong.yaml")
    assert typed.code == 2
    assert "wrong.yaml:4:3: error KVS023: vllm_features.swap_space is gone since" in typed.out
    assert "  Why: " in typed.out
    assert "  Fix: " in typed.out
    assert typed.out.splitlines()[-1] == "./wrong.yaml for vllm 0.32.0: 1 error, 0 warnings."
    assert type_in("validate --profile ./wrong.yaml --runtime-version 0.17.0").code == 0


def test_a_warning_passes_unless_it_is_strict(type_in: TypeIn) -> None:
    """CI may want more than a person at work."""
    assert type_in("validate --profile ./doubtful.yaml").code == 0
    assert type_in("validate --profile ./doubtful.yaml --strict").code == 2
    assert type_in("validate --profile standard --strict").code == 0


def test_json_holds_every_finding(type_in: TypeIn) -> None:
    """With all that the text has."""
    plain = json.loads(type_in("validate --profile ./wrong.yaml --json").out)
    assert plain["passed"] is False
    (finding,) = plain["findings"]
    assert (finding["rule"], finding["line"], finding["column"]) == ("KVS023", 4, 3)
    assert finding["key"] == "vllm_features.swap_space"
    assert finding["file"].endswith("wrong.yaml")


def test_sarif_has_what_code_hosts_read(type_in: TypeIn) -> None:
    """SARIF 2.1.0, 3.13 to 3.30: version, tool with its rules, results with their places."""
    plain = json.loads(type_in("validate --profile ./wrong.yaml --sarif").out)
    assert plain["version"] == "2.1.0"
    (run,) = plain["runs"]
    (result,) = run["results"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules[result["ruleIndex"]] == result["ruleId"] == "KVS023"
    assert result["level"] == "error"
    place = result["locations"][0]["physicalLocation"]
    assert place["region"]["startLine"] == 4
    assert place["artifactLocation"]["uri"].endswith("wrong.yaml")


def test_a_value_of_the_command_line_is_named_by_its_flag(type_in: TypeIn) -> None:
    """There is no line to go to."""
    typed = type_in("validate --profile standard --set vllm_features.swap_space=4")
    assert typed.code == 2
    assert typed.out.startswith("--set vllm_features.swap_space=4: error KVS023")


def test_a_rule_is_explained_and_an_unknown_one_brings_the_nearest(type_in: TypeIn) -> None:
    """With its examples, which are tested."""
    typed = type_in("validate --explain KVS045")
    assert typed.code == 0
    assert "Tool calls have a parser" in typed.out
    assert "tool_call_parser: hermes" in typed.out
    typed = type_in("validate --explain KVS999")
    assert typed.code == 2
    assert "KVS999" in typed.err


def test_model_and_gpu_bring_an_estimate(type_in: TypeIn, tmp_path: Path) -> None:
    """And the rules of memory: these weights are larger than the GPU."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192,
        "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    typed = type_in("validate --model config.json --gpu H100 --json")
    assert typed.code == 2
    plain = json.loads(typed.out)
    assert "KVS100" in {finding["rule"] for finding in plain["findings"]}
    assert plain["estimate"] is not None
    typed = type_in(
        "validate --model config.json --gpu H100 --json --set vllm_features.tensor_parallel_size=4"
    )
    assert typed.code == 0, typed.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("validate --gpu H1000", "H100"),
        ("validate --mig 1g.10gb", "--gpu"),
        ("validate --json --sarif", "one output has one form"),
        ("validate --profile ./none.yaml", "there is no such profile"),
        ("validate --model none.json", "there is no such file"),
    ],
)
def test_bad_input_is_one_message(type_in: TypeIn, words: str, told: str) -> None:
    """What, where, what to do; code 2."""
    typed = type_in(words)
    assert typed.code == 2
    assert told in typed.err + typed.out
    assert "Traceback" not in typed.err


def test_a_run_is_held_to_the_rules_of_its_requests(type_in: TypeIn) -> None:
    """What depends on a server that nobody knows is a warning; what a served one is, is known."""
    doubtful = type_in("run --profile ./lying.yaml --url http://127.0.0.1:9 --dry-run")
    assert doubtful.code == 0, doubtful.err
    assert "KVS040" in doubtful.err
    words = f"run --profile ./lying.yaml --serve '{sys.executable} serve' --dry-run"
    refused = type_in(words)
    assert refused.code == 2
    assert "KVS040" in refused.err
    assert "--no-validate" in refused.err
    assert type_in(f"{words} --no-validate").code == 0


def test_a_deployment_is_held_to_all_rules(type_in: TypeIn) -> None:
    """Before anything is asked of a cluster."""
    words = "deploy --model hf://o/m --namespace llm --service s --profile ./wrong.yaml --dry-run"
    refused = type_in(words)
    assert refused.code == 2
    assert "KVS023" in refused.err
    assert "InferenceService" not in refused.out
    passed = type_in(f"{words} --no-validate")
    assert passed.code == 0
    assert "InferenceService" in passed.out
