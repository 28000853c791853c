"""The JSON Schemas of what the analysis writes, from the package.

In:  the name of a file beside this one.  Out: the schema, or what checks plain data by it.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Final

import jsonschema

SUMMARY: Final = "summary.schema.json"


@cache
def schema(name: str) -> dict[str, Any]:
    """A schema; the same object each time."""
    text = resources.files("kvswarm.analysis").joinpath(name).read_text("utf-8")
    plain: dict[str, Any] = json.loads(text)
    return plain


@cache
def validator(name: str) -> Any:
    """What checks by it: `validate` raises jsonschema.ValidationError."""
    return jsonschema.Draft202012Validator(schema(name))
