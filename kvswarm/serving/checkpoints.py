"""What the name of a checkpoint says of its quantization.

In:  a path or repository, such as "RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8".
Out: the hints in it, and whether they fit a method of `quantization.yaml`.
Not: certainty. Names follow the habits of those who publish: AWQ and W4A16 are 4 bits, w8a8 alone
     is int8 (the FP8 ones are called FP8), GPTQ is of 4 or of 8 bits.
"""

from __future__ import annotations

import re
from typing import Final

HINTS: Final = (
    "awq", "gptq", "fp8", "w8a8", "w4a16", "w8a16", "int8", "int4", "8bit", "4bit",
    "nvfp4", "mxfp4", "fp4", "gguf", "bnb", "exl2", "mlx",
)  # fmt: skip
FOREIGN: Final = frozenset({"nvfp4", "mxfp4", "fp4", "gguf", "bnb", "exl2", "mlx"})
"""What is none of the methods that profiles name."""

FOUR_BITS: Final = frozenset({"w4a16", "int4", "4bit"})
EIGHT_BITS: Final = frozenset({"w8a8", "w8a16", "int8", "8bit"})

_WORD: Final = re.compile(
    rf"(?<![a-z0-9])({'|'.join(hint.replace('bit', '-?bit') for hint in HINTS)})(?![a-z0-9])"
)


def hints_in(name: str) -> frozenset[str]:
    """Find the words in a name that are about quantization."""
    return frozenset(word.replace("-", "") for word in _WORD.findall(name.lower()))


def fit(method: str, hints: frozenset[str]) -> bool | None:
    """Whether hints fit a method; None: they fit it and others as well.

    `hints` is not empty. `method` is one of `quantization.yaml`.
    """
    if hints & FOREIGN:
        return False
    rules = {
        "awq": _fits_container("awq", "gptq", hints),
        "gptq": _fits_container("gptq", "awq", hints),
        "fp8": _fits_fp8(hints),
        "int8": _fits_int8(hints),
        "int4": _fits_int4(hints),
    }
    return rules[method]


def _fits_container(container: str, other: str, hints: frozenset[str]) -> bool | None:
    if container in hints:
        return True
    if other in hints or "fp8" in hints or "w8a8" in hints:
        return False
    # GPTQ packs 8 bits too; AWQ does not.
    return None if hints & FOUR_BITS or container == "gptq" else False


def _fits_fp8(hints: frozenset[str]) -> bool | None:
    if "fp8" in hints:
        return True
    named_otherwise = hints & ({"awq", "gptq", "int8", "int4"} | FOUR_BITS)
    return False if named_otherwise else None


def _fits_int8(hints: frozenset[str]) -> bool | None:
    if hints & ({"fp8", "awq"} | FOUR_BITS):
        return False
    # GPTQ and W8A16 in 8 bits keep 16-bit arithmetic, which is not what int8 (W8A8) means here.
    if hints & {"gptq", "w8a16"}:
        return False
    return True if hints & {"w8a8", "int8"} else None


def _fits_int4(hints: frozenset[str]) -> bool | None:
    if hints & (EIGHT_BITS | {"fp8"}):
        return False
    if hints & (FOUR_BITS | {"awq"}):
        return True
    return None
