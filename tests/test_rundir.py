"""The run directory: what was written is read back, after a crash too, and no run hides another."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.errors import RunDirError
from kvswarm.records import SCHEMA_VERSION, Record, encode_batch, pack_u32
from kvswarm.rundir import (
    FRAME,
    JournalReader,
    JournalWriter,
    RunDir,
    RunInfo,
    TargetInfo,
    WorkerInfo,
    new_run_dir,
    write_atomically,
)


def record(index: int) -> Record:
    """A row whose bytes hold more than zeros."""
    return Record(
        index=index, worker=1, phase="measure", scenario="s", endpoint="chat", intended_ns=index,
        error_detail="é\n", packed_itl_us=pack_u32([10_000, index]),
    )  # fmt: skip


BATCHES = [[record(0)], [record(1), record(2)], [], [record(3), record(4), record(5)]]


def write_journal(path: Path) -> list[int]:
    """Write BATCHES; give the length of the file after the header and after each batch."""
    journal = JournalWriter(path)
    ends = [journal.written_bytes]
    for batch in BATCHES:
        journal.append(encode_batch(batch))
        ends.append(journal.written_bytes)
    journal.close()
    return ends


def info(**changes: Any) -> RunInfo:
    """A run.json with something in every part."""
    plain: dict[str, Any] = {
        "run_id": "cafe", "profile": {"name": "p", "load": {"stages": [1]}}, "seed": 3,
        "target": TargetInfo(base_url="http://h/v1", model="m", endpoint="chat"),
        "argv": ["kvswarm"], "locust_argv": [], "versions": {"kvswarm": "0"}, "host": {"cpus": 2},
        "workers": [WorkerInfo(worker=0, host="h", pid=2, cpu_s=1.5, lost=True)],
        "started_ns": 1_764_000_000_123_456_789, "notes": ["é"],
    }  # fmt: skip
    return RunInfo(**{**plain, **changes})


# -- the journal -------------------------------------------------------------------------------


def test_batches_are_read_back_in_the_order_they_were_written(tmp_path: Path) -> None:
    """Every row, and no word of a broken end."""
    ends = write_journal(tmp_path / "journal")
    reader = JournalReader(tmp_path / "journal")
    assert list(reader) == BATCHES
    assert not reader.cut_short
    assert ends[-1] == (tmp_path / "journal").stat().st_size


def test_a_journal_cut_at_any_byte_gives_every_whole_batch_before_the_cut(tmp_path: Path) -> None:
    """kill -9 may leave any prefix of the last write; what was whole before must count."""
    ends = write_journal(tmp_path / "journal")
    whole = (tmp_path / "journal").read_bytes()
    for size in range(len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:size])
        reader = JournalReader(tmp_path / "cut")
        read = list(reader)
        frames = sum(end <= size for end in ends)
        assert read == BATCHES[: max(0, frames - 1)], f"cut at {size}"
        assert reader.cut_short == (size not in {0, *ends}), f"cut at {size}"


def test_a_journal_with_any_byte_broken_gives_only_what_came_before_it(tmp_path: Path) -> None:
    """A disk may give back something else: that must never become a row."""
    ends = write_journal(tmp_path / "journal")
    whole = (tmp_path / "journal").read_bytes()
    for place in range(len(whole)):
        # The lowest bit, so that a broken length asks for no gigabytes.
        (tmp_path / "broken").write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        reader = JournalReader(tmp_path / "broken")
        frames = sum(end <= place for end in ends)
        assert list(reader) == BATCHES[: max(0, frames - 1)], f"byte {place}"
        assert reader.cut_short


@pytest.mark.parametrize("zeros", [1, FRAME.size, 4096])
def test_a_journal_that_ends_in_zeros_gives_what_came_before_them(
    tmp_path: Path, zeros: int
) -> None:
    """After a loss of power file systems leave blocks of zeros where the data had not come."""
    write_journal(tmp_path / "journal")
    with (tmp_path / "journal").open("ab") as file:
        file.write(bytes(zeros))
    reader = JournalReader(tmp_path / "journal")
    assert list(reader) == BATCHES
    assert reader.cut_short


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**40), max_size=20), max_size=6))
def test_any_batches_come_back(
    tmp_path_factory: pytest.TempPathFactory, indices: list[list[int]]
) -> None:
    """Of any size, empty ones too."""
    batches = [[record(index) for index in batch] for batch in indices]
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = JournalWriter(path)
    for batch in batches:
        journal.append(encode_batch(batch))
    journal.close()
    assert list(JournalReader(path)) == batches


def test_what_was_appended_can_be_read_before_the_journal_is_closed(tmp_path: Path) -> None:
    """A killed process closes nothing: the bytes must be the kernel's when append returns."""
    journal = JournalWriter(tmp_path / "journal")
    for count, batch in enumerate(BATCHES, start=1):
        journal.append(encode_batch(batch))
        assert list(JournalReader(tmp_path / "journal")) == BATCHES[:count]
    journal.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_rundir import JournalWriter, encode_batch, record
path = Path(sys.argv[1])
journal = JournalWriter(path)
journal.append(encode_batch([record(0)]))
# No file of this process may grow beyond this: the kernel writes a part, then refuses.
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.written_bytes + 100, resource.RLIM_INFINITY))
rows = int(sys.argv[3])
try:
    journal.append(encode_batch([record(index) for index in range(1, 1 + rows)]))
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(encode_batch([record(7)]))
journal.close()
print(path.stat().st_size == journal.written_bytes)
"""


@pytest.mark.parametrize("rows", [9, 900])
def test_a_batch_that_the_disk_refused_leaves_no_trace(tmp_path: Path, rows: int) -> None:
    """Half a frame would hide every later one; and what append refused must not be there."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "journal", Path(__file__).parent, str(rows)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["refused", "True"]
    reader = JournalReader(tmp_path / "journal")
    assert list(reader) == [[record(0)], [record(7)]]
    assert not reader.cut_short


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    """It may be all that is left of another run."""
    write_journal(tmp_path / "journal")
    with pytest.raises(FileExistsError):
        JournalWriter(tmp_path / "journal")
    assert list(JournalReader(tmp_path / "journal")) == BATCHES


def test_a_run_goes_on_as_long_as_its_journal_is_open(tmp_path: Path) -> None:
    """Whoever finishes it before takes the rest of the run away."""
    run = RunDir(tmp_path)
    assert not run.going_on
    journal = JournalWriter(run.journal)
    assert run.going_on
    journal.close()
    assert not run.going_on


def test_a_killed_run_does_not_go_on(tmp_path: Path) -> None:
    """A lock that outlived its process would keep what was measured from ever being read."""
    code = "import sys; from pathlib import Path; from kvswarm.rundir import JournalWriter;"
    code += "journal = JournalWriter(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, RunDir(tmp_path).journal],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        assert RunDir(tmp_path).going_on
        writer.kill()
    assert not RunDir(tmp_path).going_on


def test_a_journal_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Its rows may mean something else."""
    header = msgspec.json.encode({"schema_version": SCHEMA_VERSION + 1})
    (tmp_path / "journal").write_bytes(FRAME.pack(len(header), zlib.crc32(header)) + header)
    with pytest.raises(RunDirError, match=f"schema_version {SCHEMA_VERSION + 1}") as caught:
        list(JournalReader(tmp_path / "journal"))
    assert "run.json" in caught.value.fix


@pytest.mark.parametrize("payload", [b"[]", b"\xc1", b'{"schema_version": "one"}'])
def test_a_journal_that_is_whole_but_not_ours_is_refused(tmp_path: Path, payload: bytes) -> None:
    """Its checksums fit, so it was not cut off by a crash."""
    (tmp_path / "header").write_bytes(FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
    header = msgspec.json.encode({"schema_version": SCHEMA_VERSION})
    write_journal(tmp_path / "batch")
    with (tmp_path / "batch").open("ab") as file:
        file.write(FRAME.pack(len(header), zlib.crc32(header)) + header)
    for name in ("header", "batch"):
        with pytest.raises(RunDirError, match=f"{name}: holds what this kvswarm did not write"):
            list(JournalReader(tmp_path / name))


# -- run.json ----------------------------------------------------------------------------------


def test_run_json_comes_back_whole(tmp_path: Path) -> None:
    """A run is repeated from it."""
    run = RunDir(tmp_path)
    run.write_info(info())
    assert run.read_info() == info()
    run.write_info(info(ended="completed"))
    assert run.read_info() == info(ended="completed")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    """The message names the folder and what to give instead."""
    with pytest.raises(RunDirError, match=re.escape(str(tmp_path))) as caught:
        RunDir(tmp_path).read_info()
    assert "kvswarm run" in caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"run_id": "\xff"}', b'{"run_id": 3}']
)
def test_a_run_json_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    """Not a traceback."""
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunDirError, match=r"run\.json: cannot be read") as caught:
        RunDir(tmp_path).read_info()
    assert "copy" in caught.value.fix


def test_a_run_json_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Whatever its other fields are: this version cannot know."""
    (tmp_path / "run.json").write_text(f'{{"schema_version": {SCHEMA_VERSION + 1}, "target": 3}}')
    with pytest.raises(RunDirError, match=f"schema_version {SCHEMA_VERSION + 1}") as caught:
        RunDir(tmp_path).read_info()
    assert "version of kvswarm" in caught.value.fix


def test_a_reader_sees_the_old_or_the_new_content_whole(tmp_path: Path) -> None:
    """The web UI and `kvswarm report` read while the run writes."""
    path = tmp_path / "file"
    contents = {bytes([65 + place]) * 200_000 for place in range(3)}
    first, *_ = contents
    write_atomically(path, first)
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for content in contents:
            write_atomically(path, content)
    stop.set()
    reader.join()
    assert seen <= contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


# -- the directory itself ----------------------------------------------------------------------


def test_the_directory_of_a_run_is_named_for_time_and_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They sort by time; two in the same second differ."""
    monkeypatch.chdir(tmp_path)
    runs = [new_run_dir("standard") for _ in range(5)]
    assert len({run.path for run in runs}) == 5
    for run in runs:
        assert run.path.is_absolute()
        assert run.path.parent == (tmp_path / "runs").resolve()
        assert re.fullmatch(r"\d{8}T\d{6}Z-standard-[0-9a-f]{6}", run.path.name)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "c d", "x\0y", "$(id)", ".."])
def test_a_profile_name_cannot_lead_out_of_the_folder_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A profile's name is free text from a file."""
    monkeypatch.chdir(tmp_path)
    run = new_run_dir(name)
    assert run.path.parent == (tmp_path / "runs").resolve()
    assert re.fullmatch(r"[\w.-]+", run.path.name)


def test_out_is_the_run_directory_itself_and_its_parents_are_made(tmp_path: Path) -> None:
    """Scripts name it in advance."""
    out = tmp_path / "a" / "b"
    assert new_run_dir("standard", out).path == out.resolve()
    assert out.is_dir()
    assert new_run_dir("standard", out).path == out.resolve(), "an empty one may be there"


@pytest.mark.parametrize("name", ["requests.parquet", "requests.journal", ".hidden", "x"])
def test_a_directory_that_holds_something_is_refused_and_left_alone(
    tmp_path: Path, name: str
) -> None:
    """No run overwrites another."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunDirError, match="holds files already") as caught:
        new_run_dir("standard", tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--out" in caught.value.fix
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [(name, "mine")]


def test_locusts_own_files_may_be_there_before_the_run(tmp_path: Path) -> None:
    """`kvswarm run` opens Locust's log and CSVs before the run has begun."""
    (tmp_path / "locust.log").write_text("")
    (tmp_path / "locust_stats.csv").write_text("")
    assert new_run_dir("standard", tmp_path).path == tmp_path.resolve()


def test_a_file_in_the_way_of_the_directory_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunDirError, match=re.escape(f"{out}: cannot make")):
            new_run_dir("standard", out)
