"""Say what `vllm serve` makes of flags, without starting an engine; run by the vLLM venv's python.

In:  on standard input a JSON list of [model directory, flags].
Out: as the last line of standard output a JSON list: null where the configuration stands, else
     vLLM's message. vLLM's own log may come before.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.utils.argparse_utils import FlexibleArgumentParser


def refusal(parser: Any, model: str, flags: list[str]) -> str | None:
    """Check as `vllm serve` does before it starts an engine; give the message of what refuses."""
    try:
        arguments = parser.parse_args(["--model", model, *flags])
        arguments.subparser = "serve"
        validate_parsed_serve_args(arguments)
        validate_api_server_args(arguments)
        EngineArgs.from_cli_args(arguments).create_engine_config()
    except SystemExit:
        return "the parser refuses it"
    except Exception as error:  # noqa: BLE001 - whatever vLLM raises is the answer
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    """Answer every question of standard input."""
    parser = make_arg_parser(FlexibleArgumentParser())
    answers = [refusal(parser, model, flags) for model, flags in json.load(sys.stdin)]
    sys.stdout.write(f"\n{json.dumps(answers)}\n")


if __name__ == "__main__":
    main()
