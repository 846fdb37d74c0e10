"""Downloads with resume and checksums, and safe unpacking of archives."""

import re
import shutil
import tarfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path

from instrlib.core.io import CorpusError, disk_errors, hash_file, write_text
from instrlib.core.parallel import track

_BLOCK_BYTES = 1 << 16
_TIMEOUT_S = 60.0
_ATTEMPTS = 5
"""Attempts in a row that bring no byte, after which a download fails."""
_WAIT_S = 1.0
"""Pause before the second attempt; it doubles with each further one."""


@dataclass(frozen=True)
class Remote:
    """A file to download: address, file name, checksum ("md5:..." or "sha256:...") and folder to unpack to."""

    url: str
    filename: str
    checksum: str | None
    folder: str = ""


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file, resuming earlier attempts, and check it.

    Data go to `<filename>.part`, which is renamed after the check. Without a published checksum, that of the first
    download is recorded in `<filename>.sha256`. Raises `CorpusError` if the server fails or the checksum differs; a
    part with a wrong checksum is removed.
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
    """Unpack a zip or tar archive into a folder; return its top-level entries, sorted, each complete or absent.

    An archive without a top-level entry `name` is unpacked into a folder of that name. Existing entries are kept.
    Members outside the folder are not written. Raises `CorpusError` for damaged archives, and tar archives with such
    members.
    """
    archive, folder = Path(archive), Path(folder)
    temporary = folder / f".unpacking-{archive.name}"
    only_inside = {} if archive.suffix.lower() == ".zip" else {"filter": "data"}  # shutil has no filter for zip files
    with disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed run
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
            if getattr(error, "errno", None) is not None:  # disk errors; damage and encryption have no errno
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
                cause = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))  # without the wrapping of the library
                raise CorpusError(
                    f"Cannot fetch {remote.url} ({cause[1] if cause else error}); {_size(part):,} bytes are kept in "
                    f"{part}; run the same command again to resume."
                ) from None
            time.sleep(_WAIT_S * 2 ** max(failures - 1, 0))


def _transfer(remote: Remote, part: Path) -> None:
    """Request and append the missing bytes; If-Range makes the server send a changed file completely."""
    import requests

    have, version = _size(part), part.with_name(f"{remote.filename}.version.part")
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    if have and version.is_file() and (known := version.read_text(encoding="utf-8")):
        headers["If-Range"] = known
    with requests.get(remote.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        status, sent = response.status_code, response.headers.get("Content-Range", "")
        if not (status == 416 and sent.endswith(f"/{have}")):  # otherwise nothing is missing
            if status == 416 or (status == 206 and not sent.startswith(f"bytes {have}-")):
                part.unlink()
                raise requests.RequestException("the part does not fit the file on the server")
            if status == 429 or status >= 500:
                raise requests.RequestException(f"the server answers {status}")
            if not response.ok:
                raise CorpusError(
                    f"The server answers {status} {response.reason} for {remote.url}; download it "
                    f"manually and save it as {part.with_suffix('')}."
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
            f"{path} from {remote.url} has the {algorithm} {found}, not {expected}, so it is damaged or "
            "was changed by its publisher; delete it and run the same command again."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
