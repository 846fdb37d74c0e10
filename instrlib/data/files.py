"""Audio files and tables of corpora: finding, reading, probing and decoding."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from instrlib.core.config import folders
from instrlib.core.io import AudioError, CorpusError, disk_errors, hash_bytes, hash_file, in_parts
from instrlib.core.parallel import parallel_map

CONTENT = "content"
"""Column of corpora from disk: 16 hex digits of the hash of the file's bytes."""

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
"""Endings of audio files in any case; where one stem has several, the first is used."""

_CHUNK = 128


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
        yield from (path for path in (Path(folder, name) for name in sorted(files)) if is_audio(path))


def audio_files(folder: Path) -> dict[str, str]:
    """Return the name of each audio file in a folder by its stem; the first of `ENDINGS` wins."""
    found = [path for path in folder.iterdir() if is_audio(path)] if folder.is_dir() else []
    ranked = sorted(found, key=lambda path: (ENDINGS.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path.name for path in ranked}


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file as text without missing values, because a class can be called "None".

    Raises `CorpusError` if the file is missing, is no UTF-8 table or lacks one of the columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; download or copy it again.") from None
    except (OSError, ValueError) as error:  # the parser errors of pandas and UnicodeDecodeError are ValueErrors
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{path} is not a CSV table in UTF-8 ({reason}); save it again in this format.") from None
    missing = [name for name in columns if name not in table]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise CorpusError(f"{path} lacks the column {', '.join(missing)} (it has {there}); add it.")
    return table


# -- probing -----------------------------------------------------------------------------------------------------------


def probe_clips(root: Path, clips: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Return the usable clips with `start_s` (0), `duration_s` and `content` (hash), and the reasons for the others.

    `clips` has `clip_id` and `path`; the reasons are (clip_id, path, reason). Results are cached in `probes/` of the
    data folder by path, size and modification time.
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
            with cache.open("a", encoding="utf-8") as file:  # an empty line ends an incomplete line of a killed run
                file.write("\n" + "".join(json.dumps([*row, *answer]) + "\n" for row, answer in good))

    usable = clips[clips.path.isin(found.keys())]
    durations_s, contents = ([found[path][at] for path in usable.path] for at in (0, 1))
    usable = usable.assign(start_s=0.0, duration_s=durations_s, **{CONTENT: contents})
    return usable, [(row.clip_id, row.path, reasons[row.path]) for row in clips.itertuples() if row.path in reasons]


def _read_probes(cache: Path) -> dict[str, tuple]:
    """Return cached results by path; incomplete or foreign lines are skipped."""
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
    """Decode every clip completely, because headers do not show silence or NaN; return the unusable ones."""
    chunks = in_parts(clips.path.tolist(), _CHUNK)
    answers = [answer for chunk in _examined(Path(root).absolute(), chunks, whole=True) for answer in chunk]
    return [row for row in zip(clips.clip_id, clips.path, answers, strict=True) if isinstance(row[2], str)]


def _examined(root: Path, chunks: list[list[str]], *, whole: bool = False) -> Iterator[list]:
    """Examine chunks of files, in several processes if there are many."""
    tasks = [([str(root / path) for path in chunk], whole) for chunk in chunks]
    workers = 1 if len(tasks) < 4 else None
    return parallel_map(_examine, tasks, workers=workers, describe="decoding" if whole else "probing")


def _examine(paths: list[str], whole: bool) -> list[tuple[float, str] | str]:
    """Return duration and hash of each file, or why it is unusable; `whole` decodes it instead of hashing."""
    from instrlib.audio import decode

    answers: list[tuple[float, str] | str] = []
    for path in map(Path, paths):
        try:
            probed = decode.probe(path)
            for _ in decode.blocks(path, sample_rate_hz=probed.sample_rate_hz, block_s=10.0) if whole else ():
                pass
            answers.append((float(probed.duration_s), "" if whole else hash_file(path)[:16]))
        except AudioError as error:
            answers.append(
                str(error).removeprefix(f"{path}: ")
            )  # without the folder, because these tables are published
        except OSError as error:
            answers.append(f"the file cannot be read ({error.strerror})")
    return answers
