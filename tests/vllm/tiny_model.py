"""Make the directory of a tiny Llama with random weights; run by the vLLM venv's python.

Four files: config, tokenizer, its configuration with a chat template, generation defaults. There
are no weights: `--load-format dummy` draws them. The tokenizer is a byte-level BPE trained on
ASCII words, so that every token but the three special ones is text by itself: no answer holds half
a character, which a server keeps back until the other half comes.

Use: python tiny_model.py DIRECTORY WORDS_FILE
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

START, ROLE, END = "<|start|>", "<|role|>", "<|end|>"
CONTEXT_TOKENS = 2048
TEMPLATE = (
    "{{ bos_token }}{% if tools %}<|role|>tools\n{% for tool in tools %}{{ tool.function.name }}: "
    "{{ tool.function.description }}\n{% endfor %}{% endif %}"
    "{% for message in messages %}<|role|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)


def train(words: list[str]) -> Tokenizer:
    """Train on sentences of these words. Completions begin with START, as Llama's do with BOS."""
    rng = random.Random(0)  # noqa: S311 - text, no secret
    sentences = [" ".join(rng.choices(words, k=20)) for _ in range(4000)]
    printable = "".join(map(chr, range(32, 127))) + "\n"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [*sentences, printable],
        trainers.BpeTrainer(
            vocab_size=4096, special_tokens=[START, ROLE, END], show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return tokenizer


def write_model(directory: Path, words: list[str]) -> None:
    """Write the four files."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = train(words)
    tokenizer.save(str(directory / "tokenizer.json"))
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "float32",  # a CPU without bfloat16 is slow at it
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT_TOKENS,
            "vocab_size": tokenizer.get_vocab_size(),  # so that every token it may draw has text
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.token_to_id(START),
            "eos_token_id": tokenizer.token_to_id(END),
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": START,
            "eos_token": END,
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONTEXT_TOKENS,
            "chat_template": TEMPLATE,
        },
        "generation_config.json": {},
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), Path(sys.argv[2]).read_text().split())
