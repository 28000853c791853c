"""Make the directory of a LoRA adapter for the tiny model; run by the vLLM venv's python.

Two files, as PEFT writes them. The weights are random, and a seed of its own makes every adapter
another one.

Use: python tiny_adapter.py DIRECTORY MODEL_DIRECTORY SEED
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 8
ALPHA = 1000 * RANK
"""`--load-format dummy` draws all weights, norms too, from within 0.001 of 0: less would be lost."""
MODULES = ("q_proj", "v_proj")


def write_adapter(directory: Path, model: Path, seed: int) -> None:
    """Write the two files, for every layer's query and value projections."""
    directory.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    outputs = {"q_proj": hidden, "v_proj": hidden // heads * config["num_key_value_heads"]}
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module in MODULES:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, hidden, generator=random)
            tensors[f"{name}.lora_B.weight"] = torch.randn(outputs[module], RANK, generator=random)
    save_file(tensors, directory / "adapter_model.safetensors")
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": MODULES,
        "base_model_name_or_path": str(model),
    }
    (directory / "adapter_config.json").write_text(json.dumps(adapter, indent=1))


if __name__ == "__main__":
    write_adapter(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
