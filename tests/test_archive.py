"""A run directory as one file, and what is not taken for one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.archive import pack, sha256_of, unpack
from kvswarm.errors import RunDirError

NAMES = st.text("abc.-_", min_size=1, max_size=8).filter(lambda name: set(name) != {"."})


@given(files=st.dictionaries(NAMES, st.binary(max_size=3000), max_size=5))
def test_what_is_packed_is_unpacked(files: dict[str, bytes]) -> None:
    """Every file, by its name and its bytes."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run" / "sub").mkdir(parents=True)
        for file, content in files.items():
            (folder / "run" / f"f{file}").write_bytes(content)
            (folder / "run" / "sub" / f"f{file}").write_bytes(content)
        assert pack(folder / "run", folder / "a") == sha256_of(folder / "a")
        unpack(folder / "a", folder / "back")
        found = {
            str(path.relative_to(folder / "back")): path.read_bytes()
            for path in (folder / "back").rglob("*")
            if path.is_file()
        }
    own = {f"f{file}": content for file, content in files.items()}
    assert found == own | {f"sub/{file}": content for file, content in own.items()}


def test_a_link_is_left_out_when_packing(tmp_path: Path) -> None:
    """It would lead to another place there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to("/etc/passwd")
    (tmp_path / "run" / "file").write_text("x")
    pack(tmp_path / "run", tmp_path / "a")
    unpack(tmp_path / "a", tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["file"]


def crafted(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    """An archive that `pack` does not write."""
    member.size = len(content)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("run.json"), io.BytesIO(b""))
        tar.addfile(member, io.BytesIO(content))
    return path


def of_type(kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo("member")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("a/../../outside"),
        tarfile.TarInfo("/outside"),
        of_type(tarfile.SYMTYPE, "/etc/passwd"),
        of_type(tarfile.LNKTYPE, "run.json"),
        of_type(tarfile.FIFOTYPE),
        of_type(tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type!r}",
)
def test_what_would_leave_the_directory_or_is_no_file_is_refused_whole(
    member: tarfile.TarInfo, tmp_path: Path
) -> None:
    """It came over a network; nothing of it stays, not even the good part."""
    archive = crafted(tmp_path / "a", member)
    with pytest.raises(RunDirError, match="nothing of it was unpacked"):
        unpack(archive, tmp_path / "inner" / "back")
    assert list((tmp_path / "inner").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"a", "inner"}


def test_a_file_that_is_cut_off_or_no_archive_is_refused_whole(tmp_path: Path) -> None:
    """The directory is made whole or not at all."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_bytes(bytes(range(256)) * 500)
    pack(tmp_path / "run", tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(RunDirError, match=r"damaged|cannot be made"):
            unpack(tmp_path / "b", tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "a", "b"}


def test_a_directory_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    """An empty one is as good as none."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("new")
    pack(tmp_path / "run", tmp_path / "a")
    (tmp_path / "back").mkdir()
    unpack(tmp_path / "a", tmp_path / "back")
    (tmp_path / "back" / "file").write_text("mine")
    with pytest.raises(RunDirError, match="cannot be made"):
        unpack(tmp_path / "a", tmp_path / "back")
    assert (tmp_path / "back" / "file").read_text() == "mine"
