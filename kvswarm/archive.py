"""A run directory as one file, and back: how it travels from where it was made.

In:  a directory of files.  Out: a gzipped tar, its size and SHA-256; and the directory again.

What is unpacked came over a network: only plain files are taken, by names that stay within the
directory; a link, a device or a name with `..` is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from kvswarm.errors import RunDirError

BLOCK_BYTES: Final = 1 << 20
LEVEL: Final = 1
"""Of gzip: the tables are compressed already."""


def pack(directory: Path, archive: Path) -> str:
    """Write the files below a directory to `archive`; give its SHA-256 in hex. Raises OSError."""
    with tarfile.open(archive, "w:gz", compresslevel=LEVEL) as tar:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                tar.add(path, arcname=str(path.relative_to(directory)), recursive=False)
    return sha256_of(archive)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, directory: Path) -> None:
    """Make `directory`, which must not be there, from an archive: whole or not at all.

    Raises RunDirError where it holds what `pack` does not write, is damaged, or cannot be written.
    """
    unfinished = directory.with_name(f".{directory.name}.unpacking")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isreg() else None
                if source is None:
                    raise _refused(archive, member.name, "is no plain file")
                _write(source, unfinished / _inside(archive, member.name))
        unfinished.rename(directory)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise RunDirError(f"{archive}: is no archive of a run, or damaged: {error}") from error
    except OSError as error:
        raise RunDirError(
            f"{directory}: cannot be made from {archive}: {error.strerror or error}",
            fix="Make room or mend access, and fetch it again.",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise _refused(archive, name, "would leave the directory")
    return path


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, BLOCK_BYTES)


def _refused(archive: Path, name: str, what: str) -> RunDirError:
    return RunDirError(
        f"{archive}: {name!r} {what}; nothing of it was unpacked",
        fix="No run writes that: find out who answered in its place.",
    )
