"""Audio files and tables of corpora on disk: find, read, probe and decode them."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from instrlib.core.config import folders
from instrlib.core.errors import AudioError, CorpusError
from instrlib.core.io import disk_errors, hash_bytes, hash_file, in_parts
from instrlib.core.parallel import parallel_map

CONTENT = "content"
"""Column of corpora from disk: 16 hex digits of the hash of the file's bytes."""

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
"""Endings of audio files in any case; where one stem has several, the first is used."""

_CHUNK = 128


def is_audio(path: Path) -> bool:
    """Whether a file is meant as audio: by its ending, and not hidden."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def walk_audio(root: Path) -> Iterator[Path]:
    """All audio files below a folder, also behind links to folders; hidden folders are skipped."""
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above it
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (path for path in (Path(folder, name) for name in sorted(files)) if is_audio(path))


def audio_files(folder: Path) -> dict[str, str]:
    """Name of each audio file of a folder (not below it) by its stem; of several endings the first of `ENDINGS`."""
    found = [path for path in folder.iterdir() if is_audio(path)] if folder.is_dir() else []
    ranked = sorted(found, key=lambda path: (ENDINGS.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path.name for path in ranked}


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file as text; nothing is taken for a missing value, for a class may be called "None".

    Raises CorpusError when the file is missing, is no table in UTF-8 or lacks one of the columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{path} is not readable as a table of comma-separated values in UTF-8 ({reason}).") from None
    missing = [name for name in columns if name not in table]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise CorpusError(f"{path} lacks the column {', '.join(missing)}; it has: {there}.")
    return table


# -- probing -----------------------------------------------------------------------------------------------------------


def probe_clips(root: Path, clips: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Learn each file's duration from its header, and the hash of its bytes.

    `clips` has `clip_id` and `path`. Returns the rows whose file can be used, with `start_s` (0), `duration_s` and
    `content`, and (clip_id, path, reason) of the others. What was learnt is kept in `probes/` of the data folder by
    path, size and time of change.
    """
    root = Path(root).absolute()
    cache = folders().data / "probes" / f"{hash_bytes(str(root).encode(errors='surrogateescape'))[:16]}.jsonl"
    known, found, reasons, new = _read_probes(cache), {}, {}, []
    for path in clips.path:
        try:
            path.encode()
            stat = (root / path).stat()
        except UnicodeEncodeError:
            reasons[path] = "its name is not valid UTF-8; rename the file"
        except FileNotFoundError:
            reasons[path] = "the file is missing"
        except OSError as error:
            reasons[path] = f"the file cannot be read ({error.strerror})"
        else:
            if known.get(path, ())[:2] == (stat.st_size, stat.st_mtime_ns):
                found[path] = known[path][2:]
            else:
                new.append((path, stat.st_size, stat.st_mtime_ns))

    chunks = in_parts(new, _CHUNK)
    for chunk, answers in zip(chunks, _examined(root, [[row[0] for row in chunk] for chunk in chunks]), strict=True):
        good = [(row, answer) for row, answer in zip(chunk, answers, strict=True) if not isinstance(answer, str)]
        reasons |= {row[0]: answer for row, answer in zip(chunk, answers, strict=True) if isinstance(answer, str)}
        found |= {row[0]: answer for row, answer in good}
        with disk_errors(cache):
            cache.parent.mkdir(parents=True, exist_ok=True)
            with cache.open("a", encoding="utf-8") as file:  # an empty line ends what a kill left
                file.write("\n" + "".join(json.dumps([*row, *answer]) + "\n" for row, answer in good))

    usable = clips[clips.path.isin(found.keys())]
    durations_s, contents = ([found[path][at] for path in usable.path] for at in (0, 1))
    usable = usable.assign(start_s=0.0, duration_s=durations_s, **{CONTENT: contents})
    return usable, [(row.clip_id, row.path, reasons[row.path]) for row in clips.itertuples() if row.path in reasons]


def _read_probes(cache: Path) -> dict[str, tuple]:
    """Kept answers by path; a line that a kill cut short, or that is something else, is skipped."""
    known = {}
    text = cache.read_text(encoding="utf-8", errors="replace") if cache.is_file() else ""
    for line in text.splitlines():
        try:
            path, size, changed, duration_s, content = json.loads(line)
            known[path] = int(size), int(changed), float(duration_s), str(content)
        except (ValueError, TypeError):
            continue
    return known


def undecodable(root: Path, clips: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Decode every clip to its end, for a header does not tell of silence or NaN; those that cannot be used."""
    chunks = in_parts(clips.path.tolist(), _CHUNK)
    answers = [answer for chunk in _examined(Path(root).absolute(), chunks, whole=True) for answer in chunk]
    return [row for row in zip(clips.clip_id, clips.path, answers, strict=True) if isinstance(row[2], str)]


def _examined(root: Path, chunks: list[list[str]], *, whole: bool = False) -> Iterator[list]:
    """Examine chunks of files, in processes where there are many."""
    tasks = [([str(root / path) for path in chunk], whole) for chunk in chunks]
    workers = 1 if len(tasks) < 4 else None
    return parallel_map(_examine, tasks, workers=workers, describe="decoding" if whole else "probing")


def _examine(paths: list[str], whole: bool) -> list[tuple[float, str] | str]:
    """Each file's duration and hash, or why it cannot be used; `whole`: decoded to its end instead of hashed."""
    from instrlib.audio import decode

    answers: list[tuple[float, str] | str] = []
    for path in map(Path, paths):
        try:
            probed = decode.probe(path)
            for _ in decode.blocks(path, sample_rate_hz=probed.sample_rate_hz, block_s=10.0) if whole else ():
                pass
            answers.append((float(probed.duration_s), "" if whole else hash_file(path)[:16]))
        except AudioError as error:
            answers.append(str(error).removeprefix(f"{path}: "))  # without the folder: these tables are published
        except OSError as error:
            answers.append(f"the file cannot be read ({error.strerror})")
    return answers
