"""Downloads that resume and are checked, and archives that cannot write outside their folder."""

import re
import shutil
import tarfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path

from instrlib.core.errors import CorpusError
from instrlib.core.io import disk_errors, hash_file, write_text
from instrlib.core.parallel import track

_BLOCK_BYTES = 1 << 16
_TIMEOUT_S = 60.0
_ATTEMPTS = 5
"""Attempts in a row that bring no byte, after which a download fails."""
_WAIT_S = 1.0
"""Pause before the second attempt; it doubles with each further one."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its address, its name on disk, "md5:..." or "sha256:...", and the folder that it unpacks to."""

    url: str
    filename: str
    checksum: str | None
    folder: str = ""


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file, resuming where an earlier attempt or run stopped, and check it.

    The bytes gather in `<filename>.part`; the file gets its name once its checksum is right. Where the publisher gives
    no checksum, that of the first fetch is recorded in `<filename>.sha256` and holds from then on. Raises CorpusError
    when the server refuses or cannot be reached, or the checksum differs; a part with a wrong checksum is removed.
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


def unpack(archive: Path, folder: Path, name: str = "") -> list[Path]:
    """Unpack a zip or tar archive into a folder, each top-level entry whole or not at all, and return these, sorted.

    With `name`, an archive that has no top-level entry of that name goes into a folder of that name. What is already
    there stays as it is. A member that would land outside the folder is not written. Raises CorpusError when the
    archive is damaged, or a tar archive has such a member.
    """
    archive, folder = Path(archive), Path(folder)
    temporary = folder / f".unpacking-{archive.name}"
    only_inside = {} if archive.suffix.lower() == ".zip" else {"filter": "data"}  # shutil's zips know nothing else
    with disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
        temporary.mkdir(parents=True)
        try:
            shutil.unpack_archive(archive, temporary, **only_inside)
            entries = sorted(temporary.iterdir())
            if name and temporary / name not in entries:
                temporary.rename(folder / name)
                return [folder / name]
            for entry in entries:
                if not (folder / entry.name).exists():
                    entry.rename(folder / entry.name)
        except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError) as error:
            if getattr(error, "errno", None) is not None:  # of the disk: damage, and encryption, have no number
                raise
            raise CorpusError(f"{archive} cannot be unpacked ({error}); delete it and download it again.") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return [folder / entry.name for entry in entries]


def _fetch_part(remote: Remote, part: Path) -> None:
    import requests

    failures = 0
    while True:
        before = _size(part)
        try:
            return _transfer(remote, part)
        except requests.RequestException as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures == _ATTEMPTS:
                cause = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))  # without the library's own wrapping
                raise CorpusError(
                    f"Cannot fetch {remote.url} ({cause[1] if cause else error}); {_size(part):,} bytes are kept in "
                    f"{part}. Run the same command again to resume."
                ) from None
            time.sleep(_WAIT_S * 2 ** max(failures - 1, 0))


def _transfer(remote: Remote, part: Path) -> None:
    """Ask for what is missing and append it; raises requests' errors when it breaks off.

    If-Range names the version that the part was begun with, so a file that was changed meanwhile is sent whole.
    """
    import requests

    have, version = _size(part), part.with_name(f"{remote.filename}.version.part")
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    if have and version.is_file() and (known := version.read_text(encoding="utf-8")):
        headers["If-Range"] = known
    with requests.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        status, sent = response.status_code, response.headers.get("Content-Range", "")
        if not (status == 416 and sent.endswith(f"/{have}")):  # else nothing is missing
            if status == 416 or (status == 206 and not sent.startswith(f"bytes {have}-")):
                part.unlink()
                raise requests.RequestException("the part does not fit the file on the server")
            if status == 429 or status >= 500:
                raise requests.RequestException(f"the server answers {status}")
            if not response.ok:
                raise CorpusError(
                    f"The server answers {status} {response.reason} for {remote.url}. If the file has moved, save it "
                    f"by hand as {part.with_suffix('')}."
                )
            if status != 206:
                tag, changed = response.headers.get("ETag", "W/"), response.headers.get("Last-Modified", "")
                write_text(version, changed if tag.startswith("W/") else tag)
            n_blocks = -(-int(response.headers.get("Content-Length", 0)) // _BLOCK_BYTES) or None
            with part.open("ab" if status == 206 else "wb") as file:
                for block in track(response.iter_content(_BLOCK_BYTES), total=n_blocks, describe=remote.filename):
                    file.write(block)
    version.unlink(missing_ok=True)


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
            f"{path} from {remote.url} has the {algorithm} {found}, not {expected}: it is damaged, or its publisher "
            "changed it. Delete it if it is still there and run the same command again."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
