"""What lies in a model's directory: its config.json, and how large its weights are.

In:  a directory, or the path of a config.json.
Out: `ModelFiles`. The weights are not read, only their headers: a safetensors file begins with 8
     bytes of length and as many of JSON, https://huggingface.co/docs/safetensors (format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvswarm.errors import UsageError

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
LARGEST_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library itself: a longer header is no header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """One model as it lies on disk. `weights_bytes` None: no weights lie there."""

    path: Path
    config: Mapping[str, Any]
    weights_bytes: int | None


def read_model(path: Path) -> ModelFiles:
    """Read a model's config.json, and the size of its weights where they lie beside it.

    Raises UsageError: there is no config.json, it cannot be read, or is no JSON object.
    """
    at = path / CONFIG if path.is_dir() else path
    try:
        config = json.loads(at.read_bytes())
    except OSError as error:
        raise UsageError(
            f"--model {path}: {at} cannot be read ({error.strerror})",
            fix="Give a model's directory, or the path of its config.json.",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"--model {path}: {at} is no JSON ({error})",
            fix="Give the config.json as it lies beside the model's weights.",
        ) from error
    if not isinstance(config, dict):
        raise UsageError(
            f"--model {path}: {at} holds no JSON object",
            fix="Give the config.json as it lies beside the model's weights.",
        )
    return ModelFiles(path=path, config=config, weights_bytes=weights_bytes_in(at.parent))


def weights_bytes_in(directory: Path) -> int | None:
    """Bytes of all tensors of the safetensors files; None: there are none that can be read.

    The index's own total counts where there is one, for shards may not all have been downloaded.
    """
    total = _indexed_bytes(directory / INDEX)
    if total is not None:
        return total
    sizes = [_tensor_bytes(file) for file in sorted(directory.glob("*.safetensors"))]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def _indexed_bytes(index: Path) -> int | None:
    try:
        contents = json.loads(index.read_bytes())
        total = contents["metadata"]["total_size"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return int(total) if isinstance(total, int | float) and total > 0 else None


def _tensor_bytes(file: Path) -> int | None:
    """Sum the tensors of one file by the offsets in its header; None: it is no such file."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= LARGEST_HEADER_BYTES:
                return None
            header = json.loads(stream.read(length))
        offsets = [
            entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"
        ]
        return sum(int(end) - int(begin) for begin, end in offsets)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
