"""What corpora from disk share: finding audio files, reading their tables, drawing clips and learning their lengths."""

import contextlib
import logging
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from instrlib.core.config import folders
from instrlib.core.errors import AudioError, ConfigError, CorpusError, InstrlibError
from instrlib.core.io import hash_bytes, hash_file, read_json, write_json
from instrlib.core.parallel import parallel_map, track
from instrlib.data.base import CONTENT, CorpusInfo
from instrlib.data.download import Remote

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
"""The endings of audio files that are looked for, whatever their case; the first is preferred."""

_CHUNK = 128
"""Files that one worker looks at together: a header and a hash take about a millisecond."""

_CHUNKS_A_SAVE = 16
"""The probes are kept after so many chunks, so that a kill costs seconds."""


def is_audio(path: Path) -> bool:
    """Tell whether a file is meant as audio: by its ending, and not hidden."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file as text, nothing taken for a missing value (a class may be called "None").

    Parameters
    ----------
    path : Path
        A CSV file in UTF-8, with or without a byte-order mark.
    columns : sequence of str
        The columns that it must have.

    Returns
    -------
    pandas.DataFrame
        All columns, as text.

    Raises
    ------
    CorpusError
        When the file is missing, is not such a table or lacks a column.
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
        raise CorpusError(
            f"{path} lacks the column {', '.join(missing)}; it has: {', '.join(map(str, table.columns))}."
        )
    return table


def choose_classes(found: Iterable[str], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes to use, sorted: those chosen, else all that were found.

    Parameters
    ----------
    found : iterable of str
        The label of every clip.
    chosen : sequence of str or None
        Classes to use; None takes all.

    Returns
    -------
    tuple of str

    Raises
    ------
    ConfigError
        When a chosen class is not there, or there are fewer than two.
    """
    found = sorted(set(found))
    unknown = sorted(set(chosen or ()) - set(found))
    if unknown:
        raise ConfigError(f"Unknown class {', '.join(unknown)}; there is: {', '.join(found)}.")
    wanted = tuple(found if chosen is None else sorted(set(chosen)))
    if len(wanted) < 2:
        raise ConfigError(f"At least two classes are needed, not {len(wanted)}; there is: {', '.join(found)}.")
    return wanted


def draw_clips(clips: pd.DataFrame, max_clips_per_class: int | None, *, seed: int) -> pd.DataFrame:
    """Draw at most so many clips of each class, one of every group before a second of any.

    Many sessions say more about an instrument than many clips of one, and a split needs several. Where the publisher
    fixed a test part (column `split`), it and the rest keep their shares of the class, but the rest, which is still to
    be divided, gets half of the cap where it can. The draw follows hashes of the seed and the
    names, so it is the same on every machine, for any order of the rows and any choice of classes.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `clip_id`, `label`, `group`, `split`.
    max_clips_per_class : int or None
        The cap; None keeps all.
    seed : int
        Another seed draws other clips.

    Returns
    -------
    pandas.DataFrame
        The rows that were drawn, in the order of `clips`.

    Raises
    ------
    ConfigError
        When the cap is below 1.
    """
    if max_clips_per_class is None:
        return clips
    if max_clips_per_class < 1:
        raise ConfigError(f"max_clips_per_class must be at least 1, not {max_clips_per_class}.")
    ranked = clips.assign(
        _clip_rank=[_rank(seed, name) for name in clips.clip_id],
        _group_rank=[_rank(seed, name) for name in clips.group],
    ).sort_values("_clip_rank")
    ranked["_turn"] = ranked.groupby("group").cumcount()
    ranked = ranked.sort_values(["_turn", "_group_rank"])
    kept: list = []
    for _, of_class in ranked.groupby("label"):
        cap = min(len(of_class), max_clips_per_class)
        test, rest = of_class[of_class.split == "test"], of_class[of_class.split != "test"]
        n_rest = min(len(rest), max(cap * len(rest) // len(of_class), (cap + 1) // 2))
        kept += [*rest.index[:n_rest], *test.index[: cap - n_rest]]
    return clips.loc[clips.index.isin(kept)]


def probe_clips(root: Path, clips: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Learn the length of every clip from its file's header, and the hash of its bytes.

    Both are kept in `probes/` of the data folder by path, size and time of change, so that a second look at the
    same files opens none of them.

    Parameters
    ----------
    root : Path
        Folder that the paths are relative to.
    clips : pandas.DataFrame
        Columns `clip_id` and `path`.

    Returns
    -------
    usable : pandas.DataFrame
        The rows that can be used, with `start_s` (0), `duration_s` and `content`
        (16 hex digits).
    problems : list of (clip_id, path, reason)
        The others.
    """
    root = Path(root).absolute()
    cache = folders().data / "probes" / f"{hash_bytes(str(root).encode(errors='surrogateescape'))[:16]}.json"
    known = _read_probes(cache)
    found: dict[str, tuple[float, str]] = {}
    reasons: dict[str, str] = {}
    open_files: list[tuple[str, int, int]] = []
    for path in clips.path:
        try:
            path.encode()
            stat = (root / path).stat()
        except UnicodeEncodeError:
            reasons[path] = "its name is not valid UTF-8; rename the file"
            continue
        except OSError as error:
            reasons[path] = f"the file cannot be read ({error.strerror})"
            continue
        entry = known.get(path)
        if isinstance(entry, list) and len(entry) == 4 and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
            found[path] = entry[2], entry[3]
        else:
            open_files.append((path, stat.st_size, stat.st_mtime_ns))

    chunks = [open_files[first : first + _CHUNK] for first in range(0, len(open_files), _CHUNK)]
    tasks = [([str(root / path) for path, _, _ in chunk],) for chunk in chunks]
    workers = 1 if len(chunks) < 4 else None  # starting processes takes longer than a few hundred headers
    results = parallel_map(_probe_chunk, tasks, workers=workers, describe="reading the lengths of clips")
    for number, (chunk, answers) in enumerate(zip(chunks, results, strict=True), 1):
        for (path, size, changed), answer in zip(chunk, answers, strict=True):
            if isinstance(answer, str):
                reasons[path] = answer
            else:
                found[path] = answer
                known[path] = [size, changed, *answer]
        if number == len(chunks) or number % _CHUNKS_A_SAVE == 0:
            write_json(cache, known)

    good = clips.path.isin(found.keys())
    lengths, hashes = zip(*(found[path] for path in clips.path[good]), strict=True) if good.any() else ((), ())
    usable = clips[good].assign(start_s=0.0, duration_s=list(lengths), **{CONTENT: list(hashes)})
    return usable, [(row.clip_id, row.path, reasons[row.path]) for row in clips[~good].itertuples()]


def find_unusable(root: Path, clips: pd.DataFrame) -> list[tuple[str, str, str]]:
    """List the clips that cannot be used, each decoded to its end: a header does not tell of silence or NaN.

    Parameters
    ----------
    root : Path
        Folder that the paths are relative to.
    clips : pandas.DataFrame
        Columns `clip_id` and `path`.

    Returns
    -------
    list of (clip_id, path, reason)
        Sorted.
    """
    usable, problems = probe_clips(root, clips)
    paths = [str(Path(root).absolute() / path) for path in usable.path]
    tasks = [(paths[first : first + _CHUNK],) for first in range(0, len(paths), _CHUNK)]
    answers = [answer for chunk in parallel_map(_decode_chunk, tasks, describe="decoding") for answer in chunk]
    rows = zip(usable.clip_id, usable.path, answers, strict=True)
    return sorted([*problems, *(row for row in rows if row[2])])


def audio_files(folder: Path) -> dict[str, str]:
    """Return the name of each audio file of a folder by its stem; of two endings the first of `ENDINGS`.

    Parameters
    ----------
    folder : Path
        It may be missing; sub-folders are not looked into.

    Returns
    -------
    dict of str to str
    """
    found = [path for path in folder.iterdir() if is_audio(path)] if folder.is_dir() else []
    ranked = sorted(found, key=lambda path: (ENDINGS.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path.name for path in ranked}


def reaches_into_test(clips: pd.DataFrame) -> pd.Series:
    """Tell which training clips have a clip of their group in the publisher's test part: they must be left out.

    Parameters
    ----------
    clips : pandas.DataFrame
        Columns `group` and `split`.

    Returns
    -------
    pandas.Series of bool
    """
    return clips.group.isin(clips.group[clips.split == "test"]) & (clips.split == "train")


def are_there(root: Path, paths: Iterable[str]) -> np.ndarray:
    """Tell for each path, relative to the root, whether something is there, bool [shape=(n,)]."""
    return np.array([(root / path).exists() for path in paths], dtype=bool)


def missing_reason(path: str) -> str:
    """Say that a clip's file is missing, whatever its ending."""
    return f"the file is missing; looked for {Path(path).stem} with the endings {', '.join(ENDINGS)}"


def mirdata_module(name: str) -> ModuleType:
    """Import what mirdata knows of a corpus: addresses, checksums, licence and how annotations are written.

    Importing it takes a third of a second, and sets Python's logging so that every library's chatter goes to stderr;
    that is set back here. What it imports in turn prints where FluidSynth was found when the variable CI is set; that
    is nothing for a notebook.

    Parameters
    ----------
    name : str
        Such as "irmas".

    Returns
    -------
    module
        `mirdata.datasets.<name>`.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with contextlib.redirect_stdout(None):
        module = import_module(f"mirdata.datasets.{name}")
    root.handlers[:] = handlers
    root.setLevel(level)
    return module


def mirdata_remotes(name: str) -> tuple[tuple[Remote, ...], Remote]:
    """Return where mirdata says that a corpus is to be had.

    Parameters
    ----------
    name : str
        Such as "irmas".

    Returns
    -------
    archives : tuple of Remote
        What the publisher offers.
    index : Remote
        mirdata's list of the files in it, with the MD5 of each.
    """
    module = mirdata_module(name)
    of_index = module.INDEXES[module.INDEXES["default"]].remote
    *archives, index = (
        Remote(remote.url, remote.filename, None, f"md5:{remote.checksum}")
        for remote in (*module.REMOTES.values(), of_index)
    )
    return tuple(archives), index


def read_index(index: Path) -> dict[str, str]:
    """Read mirdata's list of a corpus's files.

    Parameters
    ----------
    index : Path
        The JSON file that `mirdata_remotes` tells of.

    Returns
    -------
    dict of str to str
        The MD5 of each file by its path in the release.

    Raises
    ------
    CorpusError
        When the file is not such a list.
    """
    try:
        content = read_json(index)
        pairs = [*(content.get("metadata") or {}).values()]
        pairs += [pair for files in content["tracks"].values() for pair in files.values()]
        return {path: md5 for path, md5 in pairs if path}
    except (InstrlibError, AttributeError, KeyError, TypeError, ValueError):
        raise CorpusError(f"{index} is not mirdata's list of files; delete it and download the corpus again.") from None


def compare_with_index(index: Path, folder: Path) -> list[tuple[str, str]]:
    """Compare the files on disk with mirdata's list of what the publisher gives out.

    An audio file that stands there with another ending was converted, so it is neither missing nor altered.

    Parameters
    ----------
    index : Path
        See `read_index`.
    folder : Path
        Folder that the paths in the list are relative to; a list may also name the folder itself first.

    Returns
    -------
    list of (path, reason)
        What is missing or altered, sorted; that the list itself is not there is one of them.
    """
    if not index.is_file():
        reason = "mirdata's list of files is not there, so nothing was compared with it; `instrlib download` fetches it"
        return [(index.name, reason)]
    listed = {path.removeprefix(f"{folder.name}/"): md5 for path, md5 in read_index(index).items()}
    findings = []
    for path, md5 in track(sorted(listed.items()), total=len(listed), describe=f"comparing with {index.name}"):
        file = folder / path
        if not file.is_file():
            if file.stem not in audio_files(file.parent) or not is_audio(file):
                findings.append((path, f"the file is missing, which {index.name} lists"))
        elif (found := hash_file(file, algorithm="md5")) != md5:
            findings.append((path, f"the file was altered: its md5 is {found}, not {md5} as expected"))
    return findings


def check_no_class_empty(info: CorpusInfo, root: Path, usable: pd.DataFrame, classes: Sequence[str]) -> None:
    """Make sure that every class has a usable clip.

    Raises
    ------
    CorpusError
        When one has none; all of them are named.
    """
    empty = [name for name in classes if name not in set(usable.label)]
    if empty:
        raise CorpusError(
            f"{info.title}: no usable clip of {', '.join(empty)} in {root}; "
            f"`instrlib validate {info.name}` lists what is wrong."
        )


def _read_probes(cache: Path) -> dict[str, list]:
    try:
        known = read_json(cache)
    except InstrlibError:  # not there yet, or not readable: it costs only time to make it again
        return {}
    return known if isinstance(known, dict) else {}


def _probe_chunk(paths: list[str]) -> list[tuple[float, str] | str]:
    """Return each file's length in seconds and hash, or the reason why there is none."""
    from instrlib.audio import decode as audio

    answers: list[tuple[float, str] | str] = []
    for path in paths:
        try:
            answers.append((float(audio.probe(Path(path)).duration_s), hash_file(Path(path))[:16]))
        except AudioError as error:
            answers.append(_reason(path, error))
        except OSError as error:
            answers.append(f"the file cannot be read ({error.strerror})")
    return answers


def _decode_chunk(paths: list[str]) -> list[str]:
    """Return for each file the reason why it cannot be used, "" when it can."""
    from instrlib.audio import decode as audio

    answers = []
    for path in map(Path, paths):
        try:
            for _ in audio.blocks(path, sample_rate_hz=audio.probe(path).sample_rate_hz, block_s=10.0):
                pass
            answers.append("")
        except AudioError as error:
            answers.append(_reason(path, error))
    return answers


def _reason(path: Path | str, error: AudioError) -> str:
    # Without the folder: the reason stands beside the path in tables, some of which are published.
    return str(error).removeprefix(f"{path}: ")


def _rank(seed: int, name: str) -> str:
    return hash_bytes(str(seed).encode(), name.encode(errors="surrogateescape"))
