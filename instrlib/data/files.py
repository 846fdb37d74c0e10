"""Files of corpora: downloads with resume and checksums, safe unpacking, tables, and probing of audio files."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from instrlib.core.cache import cached, key
from instrlib.core.config import folders
from instrlib.core.io import CorpusError, InstrlibError, disk_errors, hash_bytes, hash_file, in_parts, read_json
from instrlib.core.parallel import parallel_map, track

CONTENT = "content"
"""Column of corpora from disk: 16 hex digits of the hash of the file's bytes."""

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
"""Endings of audio files, in any case."""

_BLOCK_BYTES = 1 << 16
_ATTEMPTS = 5  # in a row that bring no byte, after which a download fails
_WAIT_S = 1.0  # before the second attempt; it doubles with each further one


@dataclass(frozen=True)
class Remote:
    """A file to download: address, file name, checksum ("md5:..." or "sha256:...") and folder to unpack to."""

    url: str
    filename: str
    checksum: str | None = None
    folder: str = ""


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file, resuming earlier attempts, and check it.

    Data go to `<filename>.part`, which is renamed after the check. Raises `CorpusError` if the server fails or the
    checksum differs; a part with a wrong checksum is removed.
    """
    import requests

    whole = Path(folder) / remote.filename
    part, failures = whole.with_name(f"{whole.name}.part"), 0
    with disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        while not whole.exists():
            before = part.stat().st_size if part.exists() else 0
            try:
                _transfer(remote, part, before)
                _check(remote, part)
                part.replace(whole)
            except requests.RequestException as error:
                kept = part.stat().st_size if part.exists() else 0
                failures = 0 if kept > before else failures + 1
                if failures == _ATTEMPTS:
                    raise CorpusError(
                        f"Cannot fetch {remote.url} ({error}); {kept:,} bytes are kept in {part}; run the same command "
                        "again to resume."
                    ) from None
                time.sleep(_WAIT_S * 2 ** max(failures - 1, 0))
        _check(remote, whole)
    return whole


def _transfer(remote: Remote, part: Path, have: int) -> None:
    """Request and append the bytes after the first `have`; If-Range makes the server send a changed file completely."""
    import requests

    version = part.with_name(f"{remote.filename}.version.part")
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    if have and version.is_file() and (known := version.read_text(encoding="utf-8")):
        headers["If-Range"] = known
    with requests.get(remote.url, headers=headers, stream=True, timeout=60.0) as response:
        status = response.status_code
        if status == 429 or status >= 500:
            raise requests.RequestException(f"the server answers {status}")
        if not response.ok and status != 416:  # 416: nothing is missing, or the checksum will differ
            raise CorpusError(
                f"The server answers {status} {response.reason} for {remote.url}; download it manually and save it as "
                f"{part.with_suffix('')}."
            )
        if status == 200:
            tag, changed = response.headers.get("ETag", "W/"), response.headers.get("Last-Modified", "")
            version.write_text(changed if tag.startswith("W/") else tag, encoding="utf-8")
        if response.ok:
            n_blocks = -(-int(response.headers.get("Content-Length", 0)) // _BLOCK_BYTES) or None
            with part.open("ab" if status == 206 else "wb") as file:
                for block in track(response.iter_content(_BLOCK_BYTES), total=n_blocks, describe=remote.filename):
                    file.write(block)
    version.unlink(missing_ok=True)


def _check(remote: Remote, path: Path) -> None:
    algorithm, _, expected = (remote.checksum or "").partition(":")
    if expected and (found := hash_file(path, algorithm=algorithm)) != expected:
        if path.suffix == ".part":
            path.unlink()
        raise CorpusError(
            f"{path} from {remote.url} has the {algorithm} {found}, not {expected}, so it is damaged or was changed by "
            "its publisher; delete it and run the same command again."
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar archive as the folder `target`, which is complete or absent.

    A top-level folder with the name of `target` becomes `target`. Members outside of it are not written. Raises
    `CorpusError` for damaged archives, and for tar archives with such members.
    """
    temporary = target.with_name(f".unpacking-{target.name}")
    only_inside = {} if archive.suffix == ".zip" else {"filter": "data"}  # shutil skips such members of zip files
    with disk_errors(target):
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed run
        temporary.mkdir(parents=True)
        try:
            shutil.unpack_archive(archive, temporary, **only_inside)
            inner = temporary / target.name
            (inner if inner.is_dir() else temporary).rename(target)
        except Exception as error:  # each format has its own errors
            if getattr(error, "errno", None) is not None:  # disk errors; damage and encryption have no errno
                raise
            raise CorpusError(f"{archive} cannot be unpacked ({error}); delete it and download it again.") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def compare(index: Path, folder: Path) -> list[str]:
    """List missing or altered files of mirdata's index in a folder; paths may begin with the folder name.

    Audio files with another suffix were converted and count as neither.
    """
    try:
        content = read_json(index)
        pairs = [*(content.get("metadata") or {}).values()]
        pairs += [pair for files in content["tracks"].values() for pair in files.values()]
        listed = {path.removeprefix(f"{folder.name}/"): md5 for path, md5 in pairs if path}
    except (InstrlibError, AttributeError, KeyError, TypeError, ValueError):
        return [f"{index.name} is missing or damaged, so no checksum was compared; `instrlib download` fetches it."]
    findings = []
    for path, md5 in track(sorted(listed.items()), total=len(listed), describe=f"comparing with {index.name}"):
        if not (folder / with_suffix_on_disk(folder, path)).is_file():
            findings.append(f"{path}: the file is missing, which {index.name} lists.")
        elif (folder / path).is_file() and (found := hash_file(folder / path, algorithm="md5")) != md5:
            findings.append(f"{path}: the file was altered: its md5 is {found}, not {md5}.")
    return findings


def is_audio(path: Path) -> bool:
    """Return whether a file is audio by its suffix, and not hidden."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def walk_audio(root: Path) -> Iterator[Path]:
    """Yield all audio files below a folder, also behind links; hidden folders are skipped."""
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a parent folder
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from filter(is_audio, (Path(folder, name) for name in sorted(files)))


def with_suffix_on_disk(root: Path, path: str) -> str:
    """Return the path of an audio file with its suffix on disk, because users convert the files of a release."""
    converted = [str(Path(path).with_suffix(ending)) for ending in ENDINGS] if is_audio(Path(path)) else []
    return next((one for one in (path, *converted) if (root / one).is_file()), path)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file as text without missing values, because a class can be called "None".

    Raises `CorpusError` if the file is missing, is no UTF-8 table or lacks one of the columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:  # the parser errors of pandas and UnicodeDecodeError are ValueErrors
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{path} is not a CSV table in UTF-8 ({reason}); save or download it again.") from None
    if missing := [name for name in columns if name not in table]:
        there = ", ".join(map(str, table.columns))
        raise CorpusError(f"{path} lacks the column {', '.join(missing)} (it has {there}); add it.")
    return table


def probe(root: Path, paths: pd.Series) -> pd.DataFrame:
    """Return `duration_s`, hash (`content`) and why a file is unusable (`reason`); cached until a file changes."""
    whole = [root / path for path in paths]
    states = [
        (path.stat().st_size, path.stat().st_mtime_ns, os.access(path, os.R_OK)) if path.is_file() else None
        for path in whole
    ]
    place = folders().data / "probes" / f"{hash_bytes(*map(os.fsencode, whole))[:16]}.json"
    found = cached(place, key("data", states=states), lambda: examine(whole))
    return pd.DataFrame(found, paths.index, columns=["duration_s", CONTENT, "reason"])


def examine(paths: Sequence[Path], *, decoded: bool = False) -> list[tuple[float, str, str]]:
    """Return duration and hash of every file, and what is wrong; `decoded` decodes files instead of hashing them."""
    tasks = [(chunk, decoded) for chunk in in_parts(paths, 128)]
    workers = 1 if len(tasks) < 4 else None
    return [one for part in parallel_map(_examine, tasks, workers=workers, describe="opening files") for one in part]


def _examine(paths: Sequence[Path], decoded: bool) -> list[tuple[float, str, str]]:
    from instrlib.audio import decode

    found: list[tuple[float, str, str]] = []
    for path in paths:
        try:
            str(path).encode()
            probed = decode.probe(path)
            for _ in decode.blocks(path, sample_rate_hz=probed.sample_rate_hz, block_s=10.0) if decoded else ():
                pass
            found.append((float(probed.duration_s), "" if decoded else hash_file(path)[:16], ""))
        except UnicodeEncodeError:
            found.append((0.0, "", "its name is not valid UTF-8; rename the file"))
        except (InstrlibError, OSError) as error:
            # Without the folder, because these tables are published.
            found.append((0.0, "", str(error).replace(f"{path}: ", "").replace(str(path), "the file")))
    return found
