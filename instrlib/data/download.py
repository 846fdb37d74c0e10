"""Downloads that resume and are checked, and archives that stay where they are unpacked."""

import math
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from instrlib.core.errors import CorpusError
from instrlib.core.io import disk_errors, hash_file, write_text
from instrlib.core.parallel import track

if TYPE_CHECKING:
    import requests

_BLOCK_BYTES = 1 << 16
_TIMEOUT_S = 60.0
_ATTEMPTS = 5
"""So many attempts in a row that bring not a byte, then it is given up."""
_WAIT_S = 1.0
"""Pause before the second attempt; it doubles with each further one."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes
    ----------
    url : str
        Its address.
    filename : str
        Its name on disk.
    size_bytes : int or None
        Its size where it is known.
    checksum : str or None
        "md5:..." or "sha256:...", in lower-case hex digits; None where the publisher gives none.
    """

    url: str
    filename: str
    size_bytes: int | None
    checksum: str | None


class _Broken(Exception):
    """The transfer broke off; the next attempt goes on from what there is."""


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file, going on where an earlier attempt or run broke off, and check it.

    The bytes gather in `<filename>.part`; the file gets its name once its checksum is right. Where the publisher gives
    no checksum, that of the first fetch is recorded in `<filename>.sha256`, and what is fetched later must have it too.

    Parameters
    ----------
    remote : Remote
        What to fetch.
    folder : Path
        Where to; made when missing.

    Returns
    -------
    Path
        The whole file. One that is there already and has the right checksum is returned as it is.

    Raises
    ------
    CorpusError
        When the server refuses, cannot be reached, or the checksum differs; a file with a wrong checksum is removed.
    DiskError
        When the disk is full or forbidden; what was fetched is kept.
    """
    whole = Path(folder) / remote.filename
    if whole.exists():
        _check(remote, whole)
        return whole
    part = whole.with_name(whole.name + ".part")
    with disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch_part(remote, part)
        try:
            _check(remote, part)
        except CorpusError:
            part.unlink()
            raise
        part.replace(whole)
    return whole


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a zip or tar archive into a folder.

    Everything is unpacked under a temporary name beside its place and then moved, so an entry at the top of the
    archive is there whole or not at all. What is already there stays as it is.

    Parameters
    ----------
    archive : Path
        A zip file, or a tar file with any of Python's compressions.
    folder : Path
        Where its top-level entries go; made when missing.

    Returns
    -------
    list of Path
        These entries, sorted.

    Raises
    ------
    CorpusError
        When the archive is damaged, or a member is a link, a device or would land outside `folder`.
    DiskError
        When the disk is full or forbidden.
    """
    archive, folder = Path(archive), Path(folder)
    temporary = folder / f".unpacking-{archive.name}"
    with disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
        temporary.mkdir(parents=True)
        try:
            extract = _extract_zip if archive.suffix.lower() == ".zip" else _extract_tar
            extract(archive, temporary)
            entries = sorted(temporary.iterdir())
            for entry in entries:
                if not (folder / entry.name).exists():
                    entry.rename(folder / entry.name)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, RuntimeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the archive's
                raise
            raise CorpusError(
                f"{archive} is not an archive that can be unpacked ({error}); delete it and download it again."
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return [folder / entry.name for entry in entries]


def _fetch_part(remote: Remote, part: Path) -> None:
    import requests

    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(remote, part)
            return
        except (requests.RequestException, _Broken) as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS:
                raise CorpusError(
                    f"Cannot fetch {remote.url} ({_reason(error)}); {_size(part):,} bytes are kept in {part}, "
                    "and the same command goes on from there."
                ) from None
            time.sleep(_WAIT_S * 2 ** max(failures - 1, 0))


def _transfer(remote: Remote, part: Path) -> None:
    """Ask for what is missing and add it to the part file; return when the file has its full size."""
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            if _total(response, 0) == have:
                return
            part.unlink()  # longer than the file on the server: it cannot be the beginning of it
            raise _Broken("the part file was longer than the file on the server")
        if response.status_code >= 500 or response.status_code == requests.codes.too_many_requests:
            raise _Broken(f"the server answers {response.status_code}")
        if not response.ok:
            raise CorpusError(
                f"The server answers {response.status_code} {response.reason} for {remote.url}; "
                f"if the file has moved, put it as {part.with_suffix('')} by hand."
            )
        resumed = response.status_code == requests.codes.partial_content and _begins_at(response) == have
        if have and not resumed and response.status_code == requests.codes.partial_content:
            part.unlink()
            raise _Broken("the server sent another range than was asked for")
        have = have if resumed else 0
        total = _total(response, have) or remote.size_bytes
        with part.open("ab" if resumed else "wb") as file:
            for block in _blocks(response, remote.filename, have, total):
                file.write(block)
    if total is not None and _size(part) < total:
        raise _Broken(f"the connection closed after {_size(part):,} of {total:,} bytes")


def _blocks(response: "requests.Response", name: str, have: int, total: int | None) -> Iterator[bytes]:
    blocks = response.iter_content(_BLOCK_BYTES)
    if total is None:
        return blocks
    what = f"{name} ({total / 1e6:,.0f} MB)"
    return track(blocks, total=math.ceil((total - have) / _BLOCK_BYTES), describe=what)


def _total(response: "requests.Response", have: int) -> int | None:
    """Return the full size of the file as the answer tells it."""
    of_range = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    if of_range:
        return int(of_range[1])
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() else None


def _begins_at(response: "requests.Response") -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _check(remote: Remote, path: Path) -> None:
    record = path.with_name(f"{remote.filename}.sha256")
    if remote.checksum is None and not record.is_file():
        write_text(record, hash_file(path) + "\n")
        return
    checksum = remote.checksum or f"sha256:{record.read_text(encoding='utf-8').strip()}"
    algorithm, expected = checksum.split(":")
    found = hash_file(path, algorithm=algorithm)
    if found != expected:
        raise CorpusError(
            f"{path} from {remote.url} has the {algorithm} {found}, not {expected} as expected: it is damaged or was "
            "changed by its publisher; delete it if it is still there and run the same command again."
        )


def _reason(error: Exception) -> str:
    """Return the innermost cause of a failed connection, without the library's own wrapping."""
    text = str(error)
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return found[1] if found else text


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            mode = member.external_attr >> 16
            _refuse_outside(archive, member.filename, link=stat.S_ISLNK(mode))
        for member in track(members, total=len(members), describe=f"unpacking {archive.name}"):
            opened.extract(member, folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        for member in members:
            _refuse_outside(archive, member.name, link=not (member.isreg() or member.isdir()))
        # An attribute, not the argument `filter`, which Python before 3.11.4 does not know.
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in track(members, total=len(members), describe=f"unpacking {archive.name}"):
            opened.extract(member, folder)
        while opened.fileobj.read(_BLOCK_BYTES):  # the checksum of a compressed tar stands at its very end
            pass


def _refuse_outside(archive: Path, name: str, *, link: bool) -> None:
    windows = PureWindowsPath(name)
    if link or windows.drive or windows.root or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise CorpusError(
            f"{archive} holds {name!r}, a link or a path out of its folder; nothing was unpacked. Do not use this file."
        )
