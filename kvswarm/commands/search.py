"""`kvswarm sweep --search`: the highest rate or concurrency that still meets the SLOs.

In:  `RunRequest`, and what is searched.
Out: a directory with a run directory for each block, search.json and a page; a table; an exit code.

Which load is next and what a load showed is decided in `kvswarm.analysis.capacity`; here runs are
made. Each block is a run as the profile and the flags say, with a seed of its own, so that no block
finds the prompts of another in a cache. search.json is written after every run: the same command
goes on where it ended.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from kvswarm.analysis.capacity import Kind, judge, next_load, rounded
from kvswarm.analysis.report_sweep import search_page
from kvswarm.analysis.saturation import saturation_of
from kvswarm.analysis.targets import count_targets, read_targets
from kvswarm.commands.checks import check, written_of
from kvswarm.commands.dry_run import plan_of
from kvswarm.commands.guard import guard_run
from kvswarm.commands.load import RunRequest
from kvswarm.commands.measure import measure
from kvswarm.commands.search_file import SEARCH_FILE, BlockRun, Level, Search, read_search
from kvswarm.commands.search_table import render, result_text
from kvswarm.commands.series import (
    Series,
    check_same,
    field_differences,
    folder_of,
    is_begun,
    make_run,
    profile_differences,
)
from kvswarm.commands.serve import served, server_command
from kvswarm.commands.sweep import target_name
from kvswarm.commands.sweep_file import PAGE_FILE
from kvswarm.commands.swept import directory_name
from kvswarm.errors import EXIT_GATE_MISSED, EXIT_INTERRUPTED, EXIT_TARGET_UNREACHABLE, UsageError
from kvswarm.profiles.model import Load, Profile
from kvswarm.rundir import SERVER_LOG, RunDir, write_atomically

PRECISION: Final = 0.05
BLOCKS: Final = 5
MOST: Final = 4096.0
SAME: Final = ("kind", "profile", "target", "seed", "start", "most", "precision", "blocks", "slos")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAsked:
    """What is searched, and by what."""

    kind: Kind
    slos: tuple[str, ...] = ()
    goodput_share: float | None = None
    precision: float = PRECISION
    start: float | None = None
    most: float = MOST
    blocks: int = BLOCKS


def search(request: RunRequest, asked: SearchAsked) -> int:
    """Search; 0 where a load meets the targets, 1 where none does. Raises KvswarmError."""
    request = replace(request, quiet=True)
    start = _start(request, asked)
    first = _request_at(request, asked.kind, start, None)
    written = written_of(first)
    profile = written.profile
    check(first, profile)
    guard_run(first, written)
    state = _state(request, asked, profile, start)
    _check_size(state, profile)
    if request.out is not None and is_begun(request.out, SEARCH_FILE):
        _go_on(request.out, state)
    if request.dry_run:
        slos = [{"name": t.name, "share": t.share, "limits_ms": t.limits_ms} for t in state.slos]
        data = {"search": state.kind, "slos": slos, "first": plan_of(first, profile)}
        Console(soft_wrap=True).print_json(data=data)
        return 0
    folder = folder_of(request.out, SEARCH_FILE, f"{state.profile}-search")
    _keep(state, folder)
    console = Console(stderr=True)
    ended = None
    try:
        with _standing(first, profile, folder, console) as standing:
            ended = _Searching(standing, state, folder, console).to_its_end()
    except KeyboardInterrupt:
        ended = EXIT_INTERRUPTED
    if request.as_json:
        sys.stdout.write((folder / SEARCH_FILE).read_text())
    else:
        render(state, folder)
    if ended is not None:
        return ended
    return 0 if state.result is not None and state.result.load is not None else EXIT_GATE_MISSED


class _Searching:
    """Makes runs until there is no other load to try."""

    def __init__(self, request: RunRequest, state: Search, folder: Path, console: Console) -> None:
        self._request = request
        self._state = state
        self._folder = folder
        self._console = console

    def to_its_end(self) -> int | None:
        """Search; None, or the exit code of what ended it before."""
        plan = self._state.plan
        while (level := self._level()) is not None:
            while level.state is None:
                block = self._next_block(level)
                code = self._run(level, block)
                if code is None:
                    level.take(judge(plan, [run.count() for run in level.runs]))
                _keep(self._state, self._folder)
                if code is not None:
                    return code
            self._say(f"{level.load:g} {self._state.unit}: {level.state}: {level.reason}")
        self._state.conclude()
        _keep(self._state, self._folder)
        return None

    def _level(self) -> Level | None:
        """The load that goes on, or the next; None where the highest is found."""
        levels = self._state.levels
        if levels and levels[-1].state is None:
            return levels[-1]
        load = next_load(self._state.plan, self._state.tried())
        if load is None:
            return None
        levels.append(Level(load=load))
        return levels[-1]

    def _next_block(self, level: Level) -> BlockRun:
        """The run that was not made to its end, or another."""
        if level.runs and level.runs[-1].status != "done":
            return level.runs[-1]
        number = len(level.runs) + 1
        text = f"{level.load:g} {self._state.unit}, run {number}"
        block = BlockRun(
            text=text,
            directory=directory_name(f"{level.load:g}-{number}"),
            seed=self._state.seed + len(self._state.runs()),
        )
        level.runs.append(block)
        return block

    def _run(self, level: Level, block: BlockRun) -> int | None:
        """Make a run and count; None, or the exit code where it could not be made."""
        request = _request_at(self._request, self._state.kind, level.load, block.seed)
        profile = written_of(request).profile
        run = RunDir(self._folder / block.directory)
        check_same("search", self._folder, profile_differences(run, profile))
        self._say(f"Search, run {len(self._state.runs())}: {block.text}")

        def measured(run: RunDir, _base: Path | None) -> int:
            values = {**request.values, "out": str(run.path)}
            return measure(replace(request, values=values), profile)

        # A series of one, as blocks are not compared: each has a load and a seed of its own.
        if not make_run(Series(self._folder, [block], self._console), block, profile, measured):
            return EXIT_INTERRUPTED
        if block.status != "done":
            return EXIT_TARGET_UNREACHABLE
        block.requests, block.met = count_targets(run, self._state.slos)
        block.saturated = saturation_of(run, open_loop=profile.load.open_loop)
        if block.verdict == "invalid":
            block.unusable = "; ".join(["it is invalid", *block.reasons])
        return None

    def _say(self, text: str) -> None:
        self._console.print(text, style="bold", soft_wrap=True, markup=False)


@contextlib.contextmanager
def _standing(
    request: RunRequest, profile: Profile, folder: Path, console: Console
) -> Iterator[RunRequest]:
    """Give the request with one server for all runs, where kvswarm starts it by --serve."""
    if request.serve is None:
        yield request
        return
    command = server_command(request.serve, profile, request.values.get("model"))
    log = folder / SERVER_LOG
    with served(command, request.serve.timeout_s, log, console) as url:
        yield replace(request, url=url, serve=None)


def _request_at(request: RunRequest, kind: Kind, load: float, seed: int | None) -> RunRequest:
    """The request of a run at a load."""
    given: dict[str, Any] = {kind: load if kind == "rate" else int(load)}
    values = {**request.values, **given, "out": None}
    return replace(request, values=values if seed is None else {**values, "seed": seed})


def _start(request: RunRequest, asked: SearchAsked) -> float:
    """The load to begin with. Raises UsageError."""
    if request.values.get(asked.kind) is not None:
        raise UsageError(
            f"--{asked.kind}: is what is searched",
            fix="Give the first load to try with --from, or leave it out.",
        )
    start = asked.start
    if start is None:
        load: Load = written_of(request).profile.load
        start = (load.rate_rps if asked.kind == "rate" else load.concurrency) or 1.0
    if asked.kind == "concurrency" and start != int(start):
        raise UsageError(f"--from {start:g}: is no number of users", fix="Give a whole number.")
    if start > asked.most:
        raise UsageError(
            f"--most {asked.most:g}: is below the first load, {start:g}", fix="Give --from, too."
        )
    return start


def _state(request: RunRequest, asked: SearchAsked, profile: Profile, start: float) -> Search:
    """Give the search before anything was run. Raises UsageError."""
    state = Search(
        kind=asked.kind,
        profile=profile.name,
        target=target_name(request),
        seed=profile.seed,
        start=start,
        most=asked.most,
        precision=asked.precision,
        blocks=asked.blocks,
        slos=list(read_targets(asked.slos, profile.slo, asked.goodput_share)),
    )
    state.start = rounded(state.plan, start)
    return state


def _check_size(state: Search, profile: Profile) -> None:
    """Refuse runs so short that no load could be shown to meet the targets. Raises UsageError."""
    load = profile.load
    requests = load.requests
    if requests is None and load.duration_s is not None and state.kind == "rate":
        length_s = load.duration_s - (profile.warmup.duration_s or 0.0)
        requests = int((length_s - (profile.cooldown.duration_s or 0.0)) * state.start)
    if requests is None:
        return
    requests -= (profile.warmup.requests or 0) + (profile.cooldown.requests or 0)
    needed = -(-state.plan.least_requests // state.blocks)
    if requests < needed:
        share = max(state.plan.shares)
        raise UsageError(
            f"--search: a run has {requests} measured requests at {state.start:g} {state.unit}; "
            f"{state.blocks} of them cannot show that {share:g} of the requests meet a target",
            fix=f"Give each run {needed} or more by --requests or --duration, more --blocks, or a "
            "lower share: --goodput, or a lower percentile.",
        )


def _keep(state: Search, folder: Path) -> None:
    """Write the file and its page."""
    state.write(folder)
    page = search_page(msgspec.to_builtins(state), result_text(state), state.unit)
    write_atomically(folder / PAGE_FILE, page.encode())


def _go_on(folder: Path, state: Search) -> None:
    """Take over what an earlier call of the same search did. Raises UsageError for another one."""
    before = read_search(folder)
    check_same("search", folder, field_differences(before, state, SAME))
    state.levels = before.levels
