"""The others under the same load: what each reports against what the server did.

vllm bench serve, guidellm, aiperf, genai-bench and kvswarm by turns, each against a C server of its
own as in `truth.py`, on one core and the server on another: N streams, two requests each, 128
tokens, chat, prompts of 256 tokens. Every tool is looked for on PATH and in the folders given;
what is not there is named and left out. ITL is over all gaps where a tool keeps them (vllm bench,
aiperf's inter-chunk latency, kvswarm); guidellm and genai-bench keep one mean per request.

Use: python benchmarks/peers.py --tokenizer DIR [--bin DIR ...] [--streams 32 128 512] [--repeat 1]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import target

INPUT_TOKENS = 256
LIMIT_S = "400"

Figures = dict[str, float]


@dataclass(frozen=True)
class Run:
    """One run of one tool; `folder` is its own and where it works."""

    program: str
    port: int
    streams: int
    tokenizer: Path
    folder: Path

    @property
    def requests(self) -> int:
        """Two rounds."""
        return 2 * self.streams

    @property
    def url(self) -> str:
        """The server's root."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Tool:
    """How to run a tool and read its result file."""

    name: str
    program: str
    command: Callable[[Run], list[str]]
    read: Callable[[Path], tuple[Figures, list[str]]]  # the four figures, warnings in the file
    unrelated: str = "$^"  # warnings in its output that say nothing of its figures


def vllm_command(run: Run) -> list[str]:
    """`vllm bench serve`."""
    return [
        *(run.program, "bench", "serve", "--backend", "openai-chat", "--base-url", run.url),
        *("--endpoint", "/v1/chat/completions", "--model", "bench", "--seed", "1"),
        *("--tokenizer", str(run.tokenizer), "--dataset-name", "random", "--ignore-eos"),
        *("--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(target.TOKENS)),
        *("--num-prompts", str(run.requests), "--max-concurrency", str(run.streams)),
        *("--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99", "--disable-tqdm"),
        *("--save-result", "--result-dir", str(run.folder), "--result-filename", "result.json"),
    ]


def vllm_read(folder: Path) -> tuple[Figures, list[str]]:
    """One flat object."""
    result = json.loads((folder / "result.json").read_text())
    pairs = [(metric, label) for metric in ("ttft", "itl") for label in ("p50", "p99")]
    return {f"{metric}_{label}_ms": result[f"{label}_{metric}_ms"] for metric, label in pairs}, []


def guidellm_command(run: Run) -> list[str]:
    """`guidellm run`; the chat endpoint and ignore_eos are its own choice."""
    tokens = f"prompt_tokens={INPUT_TOKENS},output_tokens={target.TOKENS}"
    return [
        *(run.program, "run", "--backend", f"kind=openai_http,target={run.url},model=bench"),
        *("--profile", f"kind=concurrent,streams={run.streams}"),
        *("--constraint", f"kind=max_requests,count={run.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={run.tokenizer}"),
        *("--data", f"kind=synthetic_text,{tokens}", "--disable-progress"),
        *("--output", f"kind=json,path={run.folder / 'result.json'}"),
    ]


def guidellm_read(folder: Path) -> tuple[Figures, list[str]]:
    """The successful requests of the one benchmark, and the warnings it was given."""
    benchmark = json.loads((folder / "result.json").read_text())["benchmarks"][0]
    figures = {
        f"{short}_{label}_ms": benchmark["metrics"][name]["successful"]["percentiles"][label]
        for short, name in (("ttft", "time_to_first_token_ms"), ("itl", "inter_token_latency_ms"))
        for label in ("p50", "p99")
    }
    return figures, [f"{w['message']} {w['note']}" for w in benchmark["warnings"]]


def aiperf_command(run: Run) -> list[str]:
    """`aiperf profile`, with the server's token counts: the tokenizer is not the server's."""
    return [
        *(run.program, "profile", "--url", run.url, "--endpoint-type", "chat", "--streaming"),
        *("--model", "bench", "--tokenizer", str(run.tokenizer), "--use-server-token-count"),
        *("--isl", str(INPUT_TOKENS), "--osl", str(target.TOKENS), "--random-seed", "1"),
        *("--concurrency", str(run.streams), "--request-count", str(run.requests)),
        *("--num-prompts", str(run.requests), "--extra-inputs", "ignore_eos:true"),
        *("--no-server-metrics", "--no-gpu-telemetry", "--ui", "none"),
        *("--output-artifact-dir", str(run.folder / "result")),
    ]


def aiperf_read(folder: Path) -> tuple[Figures, list[str]]:
    """The summary; its inter-chunk latency is over all gaps, its ITL a mean per request."""
    result = json.loads((folder / "result" / "profile_export_aiperf.json").read_text())
    figures = {
        f"{short}_{label}_ms": result[name][label]
        for short, name in (("ttft", "time_to_first_token"), ("itl", "inter_chunk_latency"))
        for label in ("p50", "p99")
    }
    return figures, []


def genai_command(run: Run) -> list[str]:
    """`genai-bench benchmark`."""
    return [
        *(run.program, "benchmark", "--api-backend", "openai", "--api-base", run.url),
        *("--api-key", "none", "--task", "text-to-text", "--api-model-name", "bench"),
        *("--model", "bench", "--model-tokenizer", str(run.tokenizer), "--server-engine", "vLLM"),
        *("--traffic-scenario", f"D({INPUT_TOKENS},{target.TOKENS})"),
        *("--num-concurrency", str(run.streams), "--max-requests-per-run", str(run.requests)),
        *("--additional-request-params", '{"ignore_eos": true}', "--max-time-per-run", "5"),
        *("--metrics-time-unit", "ms", "--log-dir", str(run.folder)),
        *("--experiment-base-dir", str(run.folder), "--experiment-folder-name", "result"),
    ]


def genai_read(folder: Path) -> tuple[Figures, list[str]]:
    """The one scenario's file; its TPOT is the mean gap of each request."""
    (path,) = (folder / "result").glob("D*_num_concurrency_*.json")
    stats = json.loads(path.read_text())["aggregated_metrics"]["stats"]
    figures = {
        f"{short}_{label}_ms": stats[name][label]
        for short, name in (("ttft", "ttft"), ("itl", "tpot"))
        for label in ("p50", "p99")
    }
    return figures, []


def kvswarm_command(run: Run) -> list[str]:
    """`kvswarm run`, as in `truth.py`."""
    command = target.run_command(run.port, run.streams, run.requests, run.folder / "result")
    return command[command.index(sys.executable) :]


def kvswarm_read(folder: Path) -> tuple[Figures, list[str]]:
    """The summary; a verdict that is not `valid` and its reasons are warnings."""
    summary = json.loads((folder / "result" / "summary.json").read_text())
    verdict = summary["verdict"]
    said = [] if verdict["status"] == "valid" else [verdict["status"], *verdict["reasons"]]
    return target.reported(summary), said


TOOLS = (
    # It looks for vLLM's /tokenize, and reminds of a changed default.
    Tool("vllm bench serve", "vllm", vllm_command, vllm_read, "/tokenize|temperature"),
    Tool("guidellm", "guidellm", guidellm_command, guidellm_read),
    # The server's usage object has no count of cached tokens.
    Tool("aiperf", "aiperf", aiperf_command, aiperf_read, "prompt-cache read tokens"),
    # Locust's advice on starting more than 100 users a second.
    Tool("genai-bench", "genai-bench", genai_command, genai_read, "spawn rate is very high"),
    Tool("kvswarm", sys.executable, kvswarm_command, kvswarm_read),
)


def version(tool: Tool, program: str) -> str:
    """The last word of `--version`."""
    command = [program, *(["-m", "kvswarm"] if tool.name == "kvswarm" else []), "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()[-1]


def warnings(output: str, unrelated: str) -> list[str]:
    """Lines of a tool's output that warn, without Python's own warnings."""
    found = re.findall(r"^.*\bWARNING\b:?\s*(.*)$", output, re.MULTILINE)
    return [line for line in found if not re.search(unrelated, line)]


def shortened(said: list[str]) -> str:
    """Of the warnings that differ in numbers and names only, the first, and how many."""
    alike: dict[str, list[str]] = {}
    for line in said:
        text = re.sub(r"\s+\(?\S+\.py:\d+\)?$", "", line)
        alike.setdefault(re.sub(r"\b\w*\d[\w.,]*", "N", text), []).append(text)
    quoted = (text + f" (and {len(more)} like it)" * bool(more) for text, *more in alike.values())
    return "; ".join(quoted).replace("|", "/") or "nothing"


def read_truth(path: Path) -> target.Truth:
    """What the server did, of the responses of full length: without a tool's own probes."""
    lines = [line.split() for line in path.read_text().splitlines()]
    full = [["id", *times] for _, *times in lines if len(times) == 2 + target.TOKENS]
    path.with_suffix(".full").write_text("\n".join(" ".join(fields) for fields in full))
    return target.read_truth(path.with_suffix(".full"), with_id=True)


def measure(tool: Tool, program: str, streams: int, tokenizer: Path) -> dict[str, Any] | None:
    """One run against a server of its own; None where it gave no result."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with target.server(folder / "truth") as port:
            run = Run(program, port, streams, tokenizer, folder)
            done = subprocess.run(
                ["timeout", LIMIT_S, "taskset", "-c", target.CLIENT_CORE, *tool.command(run)],
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
                env=os.environ | {"COLUMNS": "250"},  # so that a line of a log stays one
            )
        try:
            seen, said = tool.read(folder)
            truth = read_truth(folder / "truth")
        except (OSError, ValueError, LookupError) as error:
            print(f"{tool.name}: no result ({error!r})\n{done.stdout[-3000:]}", file=sys.stderr)
            return None
    said += warnings(done.stdout, tool.unrelated)
    print(f"{tool.name}, {streams} streams:", *said, sep="\n  ", file=sys.stderr)
    ideal_ns = 2e6 * (target.TTFT_MS + (target.TOKENS - 1) * target.ITL_MS)
    done_share = truth.tokens / (run.requests * target.TOKENS)
    return {
        "true": truth.figures(),
        "seen": seen,
        "share": done_share * ideal_ns / (truth.last_ns - truth.first_ns),
        "said": shortened(said),
    }


def row(name: str, streams: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table: medians over the runs, and the most that one of them said."""

    def pair(side: str, metric: str) -> str:
        labels = (f"{metric}_p50_ms", f"{metric}_p99_ms")
        values = [statistics.median(run[side][label] for run in runs) for label in labels]
        return " / ".join(f"{value:.1f}" for value in values)

    cells: dict[str, Any] = {"tool": name, "streams": streams}
    for metric in ("ttft", "itl"):
        for side, word in (("true", "true"), ("seen", "reported")):
            title = f"{word} {metric.upper()} p50 / p99, ms"
            cells[title] = pair(side, metric) if runs else "no result"
    share = f"{statistics.median(run['share'] for run in runs):.0%}" if runs else "no result"
    cells["of the ideal token rate"] = share
    cells["what it said of its figures"] = max((run["said"] for run in runs), key=len, default="")
    return cells


def main() -> None:
    """Run all that is installed, by turns; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--bin", type=Path, nargs="+", default=[])
    parser.add_argument("--streams", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    path = os.pathsep.join([*(str(folder.resolve()) for folder in options.bin), os.environ["PATH"]])
    found = {tool: program for tool in TOOLS if (program := shutil.which(tool.program, path=path))}
    for tool in TOOLS:
        if tool not in found:
            print(f"skipped, not installed: {tool.name}", flush=True)
    names = {tool: f"{tool.name} {version(tool, program)}" for tool, program in found.items()}
    target.build()
    rows = []
    for streams in options.streams:
        runs: dict[Tool, list[dict[str, Any]]] = {tool: [] for tool in found}
        for _ in range(options.repeat):
            for tool, program in found.items():
                result = measure(tool, program, streams, options.tokenizer.resolve())
                runs[tool] += [result] if result else []
        rows += [row(names[tool], streams, runs[tool]) for tool in found]
    print(target.markdown(rows))


if __name__ == "__main__":
    main()
