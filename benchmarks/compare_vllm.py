"""Three runs against real vLLM on the CPU, and their comparison: what docs/comparing.md shows.

A plain server, one that speculates by n-grams, and one without its prefix cache, each started for
its run; the same requests, half of which share a prefix of 512 tokens. Needs the venv of
`make test-vllm`:

    python benchmarks/compare_vllm.py .venv-vllm/bin/python OUT

OUT gets the model (two layers, random weights, made here), a run directory for each server, and
`comparison.txt`. A run that ends `invalid` is made again, as its user would.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "vllm"))
from serving import make_model, serve_command, server_cores, server_environment

ATTEMPTS = 5
INVALID = 3
PROFILE = """\
extends: prefix-caching
tokenizer: {model}
requests: {requests}
concurrency: 4
shared_prefix_tokens: 512
input_tokens: 640
max_tokens: 48
request: {{temperature: 0}}
ignore_eos: true
vllm_features: null
slo: null
gate: {{error_share: 0}}
"""
NGRAM = '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}'
SERVERS = {
    "baseline": (),
    "ngram": ("--speculative-config", NGRAM),
    "no-prefix-cache": ("--no-enable-prefix-caching",),
}


def main() -> int:
    """Run all three and compare them; give an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", type=Path, help="python of the venv that has vLLM")
    parser.add_argument("out", type=Path, help="a new directory")
    parser.add_argument("--requests", type=int, default=1200)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True)
    python = os.path.abspath(given.python)  # noqa: PTH100 - resolved, it would leave its venv
    make_model(python, out / "model")
    profile = out / "profile.yaml"
    profile.write_text(PROFILE.format(model=out / "model", requests=given.requests))
    for name, flags in SERVERS.items():
        code = run(name, [*serve_command(python, out / "model"), *flags], profile)
        if code not in {0, 1}:
            return code
    compared = subprocess.run(
        [sys.executable, "-m", "kvswarm", "compare", *(out / name for name in SERVERS)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    (out / "comparison.txt").write_text(compared.stdout)
    print(compared.stdout)
    return compared.returncode


def run(name: str, server: list[str], profile: Path) -> int:
    """Measure one server on cores of its own; give the exit code of the run that counts."""
    cores = ",".join(map(str, sorted(server_cores())))
    pinned = shlex.join(["taskset", "-c", cores, *server])
    out = profile.parent / name
    code = INVALID
    for _ in range(ATTEMPTS):
        shutil.rmtree(out, ignore_errors=True)
        command = [
            sys.executable, "-m", "kvswarm", "run", "--profile", profile, "--serve", pinned,
            "--seed", "3", "--out", out,
        ]  # fmt: skip
        code = subprocess.run(command, env=server_environment(), check=False).returncode
        if code != INVALID:
            break
    return code


if __name__ == "__main__":
    sys.exit(main())
