"""The embedded corpus: phrases played by sampled instruments, made on first use from one seed and the same ever after.

Two soundfonts take turns, for it is the variety of sources that carries over to other sounds. A group is a General
MIDI program in one register, whichever font plays it: the fonts have samples in common, so that two groups of one
program would not be strangers. A test part then holds combinations that were never trained on. For drums a group is a
kit with straight or with swung grooves. Two groups may still share samples: neighbouring registers do at their border,
and kits share cymbals.
"""

import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.data import phrases, soundfont
from instrlib.data.base import COLUMNS, Corpus, CorpusInfo, problem_table
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.core.io import atomic_path, hash_file, hash_json, read_json, write_json, write_text
from instrlib.core.parallel import parallel_map

VERSION = 2
"""Raised whenever the bytes of a clip change."""

CLASSES = phrases.CLASSES
FONTS = ("TimGM6mb", "Merlin")
"""The soundfonts that play, in turns; see `soundfont.FONTS`."""

EXERCISES = 0.5
"""Share of the clips, drums apart, in which an instrument shows its sound instead of playing a phrase."""


@dataclass(frozen=True)
class Players:
    """Who plays, and how much of it are exercises.

    Attributes
    ----------
    fonts : tuple of str
        The soundfonts that take turns: names of `soundfont.FONTS`.
    exercises : float
        Share of the clips, drums apart, in which an instrument shows its sound instead of playing a phrase.
    """

    fonts: tuple[str, ...] = FONTS
    exercises: float = EXERCISES


PLAYERS = Players()

SAMPLE_RATE_HZ = 22_050
DURATION_S = 3.0


def _info(fonts: Sequence[str]) -> CorpusInfo:
    licences = "; ".join(f"{name}: {soundfont.FONTS[name].licence}" for name in fonts)
    return CorpusInfo(
        name="rendered",
        title="Phrases played by sampled instruments (embedded)",
        licence=(
            f"Made on this machine with soundfonts ({licences}), which are read from the installed packages that carry "
            "them and not copied. The clips contain their samples: keep them to yourself, or pass them on under the "
            "fonts' terms and name the fonts; anyone can make the same ones from the seed."
        ),
        citation="Soundfonts: " + " ".join(soundfont.FONTS[name].citation for name in fonts),
        url="",
        size="132 kB a clip: 95 MB for 60 clips of each class",
        how_to_get="It is made on first use, in a few seconds, and needs no download.",
    )


INFO = _info(FONTS)

_MANIFEST_COLUMNS = (*COLUMNS, "font", "program", "register", "sha256", "seed")
_NOTES_COLUMNS = ("clip_id", *phrases.NOTE_COLUMNS)
_BATCH = 24
_HEADER_BYTES = 44
_FILE_BYTES = _HEADER_BYTES + 2 * round(DURATION_S * SAMPLE_RATE_HZ)


def load(
    root: Path,
    *,
    clips_per_class: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    players: Players = PLAYERS,
    workers: int | None = None,
) -> Corpus:
    """Return the corpus; what is missing of it is rendered first.

    A clip depends on the version, the players, the seed, its class and its number alone: the first 12 clips of a class
    are the same in a corpus of 12 and of 600. Other players play other phrases.

    Parameters
    ----------
    root : Path
        Folder of all rendered corpora; each gets a folder of its own in it.
    clips_per_class : int
        Number of clips, spread evenly over the groups of a class.
    seed : int
        Seed, 0 or above.
    classes : sequence of str, optional
        Classes to render, in any order; all of `CLASSES` when left out.
    players : Players
        The soundfonts that take turns, and what they play.
    workers : int, optional
        Number of processes; see `instrlib.core.parallel.n_workers`.

    Returns
    -------
    Corpus
        With the columns `font`, `program` (General MIDI program from 0, or drum kit), `register` (from 1), `sha256`
        of the file and `seed` besides the common ones.

    Raises
    ------
    ConfigError
        When a class is unknown or a number is out of range.
    CorpusError
        When there is no synthesiser, a soundfont is unknown or missing, or the folder is damaged.
    DiskError
        When the folder cannot be written.
    """
    chosen = _check(clips_per_class, seed, classes)
    setting = _setting(clips_per_class, seed, chosen, players)
    folder = Path(root) / hash_json(setting)[:16]
    clips = [(label, index) for label in chosen for index in range(clips_per_class)]
    absent = [clip for clip in clips if not _is_whole(folder / _clip_path(*clip, seed, players))]
    if _is_complete(folder):
        altered = _altered_tables(folder)
        if altered:
            raise CorpusError(_damaged(altered[0]))
        if absent:
            _restore(folder, absent, setting, workers)
    else:
        _make(folder, clips, setting, workers)
    return Corpus(_info(players.fonts), folder, _read_manifest(folder), chosen, problem_table([]))


def notes(corpus: Corpus, clip_id: str) -> pd.DataFrame:
    """Return the notes of a clip, as they were played.

    Parameters
    ----------
    corpus : Corpus
        From `load`.
    clip_id : str
        One of its clips.

    Returns
    -------
    pandas.DataFrame
        One row a note: `onset_s`, `offset_s` (the key is released; the sound may ring on), `pitch` (MIDI),
        `velocity` (1 to 127).

    Raises
    ------
    CorpusError
        When the clip is unknown or the file of notes is missing.
    """
    path = corpus.root / "notes.csv"
    if not path.is_file():
        raise CorpusError(f"{path} is missing; load the corpus again and it is made anew.")
    by_clip = _notes_by_clip(path, path.stat().st_mtime_ns)
    if clip_id not in by_clip:
        raise CorpusError(f"{corpus.name}: there is no clip {clip_id!r}.")
    return by_clip[clip_id].copy()


def validate(root: Path) -> list[str]:
    """List what is wrong with the rendered corpora on disk.

    Parameters
    ----------
    root : Path
        Folder of all rendered corpora, or the folder of one (`Corpus.root`).

    Returns
    -------
    list of str
        One sentence for each file that is missing or altered; empty when all is well.
    """
    root = Path(root)
    folders = [root] if (root / "audio").is_dir() else sorted(path.parent for path in root.glob("*/audio"))
    if not folders:
        return [f"There is nothing in {root} yet. {INFO.how_to_get}"]
    return [sentence for folder in folders for sentence in _validate_folder(folder)]


def compose(
    label: str, index: int, *, seed: int = 0, players: Players = PLAYERS
) -> tuple[str, phrases.Voice, phrases.Phrase]:
    """Return who plays a clip, and what.

    Parameters
    ----------
    label : str
        One of `CLASSES`.
    index : int
        Number of the clip in its class, from 0.
    seed : int
        Seed, 0 or above.
    players : Players
        The soundfonts that take turns, and what they play.

    Returns
    -------
    font : str
    voice : instrlib.data.phrases.Voice
    phrase : instrlib.data.phrases.Phrase

    Examples
    --------
    >>> font, voice, phrase = compose("cello", 0)
    >>> font, voice.program, voice.low, voice.high
    ('TimGM6mb', 42, 36, 41)
    """
    return _compose(_generators(label, index, seed, players)[0], label, index, players)


def render(label: str, index: int, *, seed: int = 0, players: Players = PLAYERS) -> np.ndarray:
    """Render one clip.

    Parameters
    ----------
    label, index, seed, players
        See `compose`.

    Returns
    -------
    np.ndarray [shape=(66150,)]
        Mono, float32 at 22,050 Hz, between -1 and 1.
    """
    composing, recording = _generators(label, index, seed, players)
    return _render(recording, *_compose(composing, label, index, players))


def record(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Put a dry sound into a room, before a microphone: reverberation, tone colour, noise and level, all drawn.

    Parameters
    ----------
    rng : np.random.Generator
        Decides everything.
    sound : np.ndarray [shape=(n,)]
        Mono, float32, at 22,050 Hz, at most 3 s long.

    Returns
    -------
    np.ndarray [shape=(n,)]
        Float32, with its peak from -20 to -1 dB of full scale. One clip in five stays dry, one in four without noise;
        the signal is 30 to 60 dB above the noise.
    """
    import scipy.fft

    log_f = _log_frequencies()
    n_fft = 2 * (len(log_f) - 1)
    response = _colour(rng, log_f)
    if rng.random() < 0.8:
        response = response * scipy.fft.rfft(_room(rng), n_fft)
    wet = scipy.fft.irfft(scipy.fft.rfft(sound, n_fft) * response, n_fft)[: len(sound)]
    if rng.random() < 0.75:
        # Gaussian in frequency, power falling by 0 to 1.2 times 3 dB an octave: white to a little darker than pink.
        parts = rng.standard_normal((2, len(log_f)), dtype=np.float32)
        shape = np.exp2(-0.5 * rng.uniform(0, 1.2) * log_f).astype(np.float32)
        noise = scipy.fft.irfft((parts[0] + 1j * parts[1]) * shape, n_fft)[: len(sound)]
        snr_db = rng.uniform(30, 60)
        wet += noise * np.float32(_rms(wet) / _rms(noise) * 10 ** (-snr_db / 20))
    level_db = rng.uniform(-20, -1)
    wet *= np.float32(10 ** (level_db / 20) / np.abs(wet).max())
    fade = round(0.01 * SAMPLE_RATE_HZ)
    wet[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return wet


# -- effects -----------------------------------------------------------------------------------------------------------


@functools.cache
def _log_frequencies() -> np.ndarray:
    """Octaves above 1 Hz of the bins of a transform that is long enough for a clip and its room."""
    import scipy.fft

    n_fft = scipy.fft.next_fast_len(round((DURATION_S + 1.0) * SAMPLE_RATE_HZ), real=True)
    n_fft += n_fft % 2
    frequency = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE_HZ)
    return np.log2(np.maximum(frequency, 20.0)).astype(np.float32)


def _colour(rng: np.random.Generator, log_f: np.ndarray) -> np.ndarray:
    """Gains of a gentle tilt about 800 Hz and of one broad bell [shape=(n_bins,)]; no phase, so nothing moves."""
    tilt = np.clip(rng.uniform(-1.6, 1.6) * (log_f - np.log2(np.float32(800))), -6, 6)
    centre, width = rng.uniform(np.log2(150), np.log2(5000)), rng.uniform(0.6, 1.4)
    bell = rng.uniform(-4, 4) * np.exp(-0.5 * ((log_f - np.float32(centre)) / np.float32(width)) ** 2)
    return np.exp2((tilt + bell) / np.float32(6.0206)).astype(np.float32)


def _room(rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a room: the direct sound, six early reflections, and noise that dies away [shape=(n,)]."""
    decay_s = 0.15 * (1.2 / 0.15) ** rng.random()  # time to fall by 60 dB
    n = round(min(decay_s, 0.95) * SAMPLE_RATE_HZ)
    seconds = np.arange(n, dtype=np.float32) / np.float32(SAMPLE_RATE_HZ)
    fall = np.float32(-6.9078 / decay_s)
    tail = rng.standard_normal(n, dtype=np.float32) * np.exp(fall * seconds)
    tail[2:] = (tail[2:] + 2 * tail[1:-1] + tail[:-2]) / 4  # air and walls take the treble
    tail[: round(rng.uniform(0.005, 0.03) * SAMPLE_RATE_HZ)] = 0
    response = tail * np.float32(10 ** (rng.uniform(-22, -7) / 20) / np.sqrt(np.sum(tail**2)))
    arrival_s = rng.uniform(0.004, 0.045, size=6)
    strength = rng.uniform(0.05, 0.3, size=6) * np.exp(-arrival_s / 0.03) * np.where(rng.random(6) < 0.5, -1, 1)
    np.add.at(response, np.rint(arrival_s * SAMPLE_RATE_HZ).astype(int), strength.astype(np.float32))
    response[0] = 1
    return response


def _rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def _compose(
    rng: np.random.Generator, label: str, index: int, players: Players
) -> tuple[str, phrases.Voice, phrases.Phrase]:
    font = players.fonts[index % len(players.fonts)]
    cast = _cast(label, font)
    voice = cast[index // len(players.fonts) % len(cast)]
    shows = not voice.drums and rng.random() < players.exercises
    phrase = (phrases.exercise if shows else phrases.compose)(rng, voice, duration_s=DURATION_S)
    return font, voice, _heard(phrase, voice, font)


def _heard(phrase: phrases.Phrase, voice: phrases.Voice, font: str) -> phrases.Phrase:
    """Move notes off the keys for which the font has no sound, to the nearest that has one."""
    place = soundfont.find_soundfont(font)
    silent = soundfont.silent_keys(place, voice.program, voice.low, voice.high, drums=voice.drums)
    sounding = np.array([key for key in range(voice.low, voice.high + 1) if key not in silent])
    notes = phrase.notes.copy()
    for row in np.flatnonzero(np.isin(notes[:, 2], list(silent))):
        notes[row, 2] = sounding[np.abs(sounding - notes[row, 2]).argmin()]
    return dataclasses.replace(phrase, notes=notes)


def _cast(label: str, font: str) -> list[phrases.Voice]:
    """Return the voices of a class that a soundfont has."""
    there = soundfont.presets(soundfont.find_soundfont(font))
    return [
        voice for voice in phrases.voices(label) if (soundfont.DRUM_BANK if voice.drums else 0, voice.program) in there
    ]


def _render(rng: np.random.Generator, font: str, voice: phrases.Voice, phrase: phrases.Phrase) -> np.ndarray:
    dry = soundfont.render(
        soundfont.open_engine(soundfont.engine_name(), soundfont.find_soundfont(font)),
        phrase.notes,
        program=voice.program,
        duration_s=DURATION_S,
        sample_rate_hz=SAMPLE_RATE_HZ,
        drums=voice.drums,
        bends=phrase.bends,
        tuning_cents=float(np.clip(rng.normal(0, 9), -25, 25)),
    )
    return record(rng, dry)


# -- files -------------------------------------------------------------------------------------------------------------


def _generators(label: str, index: int, seed: int, players: Players) -> tuple[np.random.Generator, np.random.Generator]:
    """Return one generator for what is played and one for how it is recorded."""
    # The players count, so that no phrase that one font played is heard again from another, by a network that knows it.
    played_by = int(hash_json(players)[:8], 16)
    sequence = np.random.SeedSequence([VERSION, played_by, seed, CLASSES.index(label), index])
    first, second = sequence.spawn(2)
    return np.random.default_rng(first), np.random.default_rng(second)


def _check(clips_per_class: int, seed: int, classes: Sequence[str] | None) -> tuple[str, ...]:
    if clips_per_class < 1:
        raise ConfigError(f"clips_per_class must be at least 1, not {clips_per_class!r}.")
    if seed < 0:
        raise ConfigError(f"The seed must be 0 or above, not {seed!r}.")
    unknown = sorted(set(classes or ()) - set(CLASSES))
    if unknown:
        raise ConfigError(f"rendered: there is no class {unknown[0]!r}; there is: {', '.join(CLASSES)}.")
    return CLASSES if classes is None else tuple(label for label in CLASSES if label in classes)


@functools.cache
def _source(players: Players) -> dict[str, Any]:
    """Return what decides the bytes of a clip, besides the seed."""
    hashes = [[name, soundfont.font_hash(soundfont.find_soundfont(name))] for name in players.fonts]
    made_by = {"version": VERSION, "engine": soundfont.engine_name()}
    return {**made_by, "soundfonts": hashes, "exercises": players.exercises}


def _setting(clips_per_class: int, seed: int, classes: tuple[str, ...], players: Players) -> dict[str, Any]:
    return {**_source(players), "clips_per_class": clips_per_class, "seed": seed, "classes": list(classes)}


def _players_of(setting: dict[str, Any]) -> Players:
    return Players(tuple(name for name, _ in setting["soundfonts"]), setting["exercises"])


def _clip_id(label: str, index: int, seed: int, players: Players) -> str:
    # The mark tells corpora apart that differ in version, engine, fonts or seed, so their fingerprints differ too.
    return f"{label}-{index:05d}-{hash_json({**_source(players), 'seed': seed})[:8]}"


def _clip_path(label: str, index: int, seed: int, players: Players) -> str:
    return f"audio/{label}/{_clip_id(label, index, seed, players)}.wav"


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("corpus.json", "manifest.csv", "notes.csv"))


def _make(folder: Path, clips: list[tuple[str, int]], setting: dict[str, Any], workers: int | None) -> None:
    """Render what is not there and write the tables; `corpus.json` comes last and marks the folder as whole."""
    rows, played = _render_all(folder, clips, setting, workers)
    manifest = pd.DataFrame(rows, columns=list(_MANIFEST_COLUMNS)).sort_values("clip_id", ignore_index=True)
    table = pd.DataFrame(played, columns=list(_NOTES_COLUMNS)).sort_values(
        ["clip_id", "onset_s", "pitch"], ignore_index=True
    )
    write_text(folder / "notes.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "manifest.csv", manifest.to_csv(index=False, lineterminator="\n"))
    corpus = Corpus(_info(_players_of(setting).fonts), folder, manifest, tuple(setting["classes"]), problem_table([]))
    hashes = {name: hash_file(folder / name) for name in ("manifest.csv", "notes.csv")}
    write_json(folder / "corpus.json", {**setting, "fingerprint": corpus.fingerprint, "sha256": hashes})


def _restore(folder: Path, clips: list[tuple[str, int]], setting: dict[str, Any], workers: int | None) -> None:
    """Render clips that were lost from a whole folder; they must come out as the manifest has them."""
    rows, _ = _render_all(folder, clips, setting, workers)
    known = _read_manifest(folder).set_index("clip_id").sha256
    column = _MANIFEST_COLUMNS.index("sha256")
    other = [row[0] for row in rows if known.get(row[0]) != row[column]]
    for clip_id, path, *_ in rows:
        if clip_id in other:  # else the next run would find it there and take it for the manifest's
            (folder / path).unlink()
    if other:
        raise CorpusError(
            f"{folder}: {other[0]} was missing and came out different from what the manifest says; the libraries have "
            "changed since. Delete the folder and run the same command again."
        )


def _render_all(
    folder: Path, clips: list[tuple[str, int]], setting: dict[str, Any], workers: int | None
) -> tuple[list[tuple], list[tuple]]:
    same = (folder, setting["seed"], _players_of(setting))
    batches = [(*same, clips[first : first + _BATCH]) for first in range(0, len(clips), _BATCH)]
    rows: list[tuple] = []
    played: list[tuple] = []
    for batch_rows, batch_notes in parallel_map(_render_batch, batches, workers=workers, describe="rendering"):
        rows += batch_rows
        played += batch_notes
    return rows, played


def _render_batch(
    folder: Path, seed: int, players: Players, clips: list[tuple[str, int]]
) -> tuple[list[tuple], list[tuple]]:
    """Render a few clips; those that an interrupted run has left are kept. Returns rows of the manifest and notes."""
    rows, played = [], []
    for label, index in clips:
        clip_id, relative = _clip_id(label, index, seed, players), _clip_path(label, index, seed, players)
        composing, recording = _generators(label, index, seed, players)
        font, voice, phrase = _compose(composing, label, index, players)
        path = folder / relative
        if not _is_whole(path):
            data = _wav(_render(recording, font, voice, phrase))
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        group = f"{label}/p{voice.program:03d}/r{voice.register}"
        known = (clip_id, relative, 0.0, DURATION_S, label, group, "")
        rows.append((*known, font, voice.program, voice.register, hash_file(path), seed))
        played += [(clip_id, onset, offset, int(p), int(v)) for onset, offset, p, v in phrase.notes.tolist()]
    return rows, played


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == _FILE_BYTES


def _wav(sound: np.ndarray) -> bytes:
    import soundfile

    buffer = io.BytesIO()  # not straight to disk: libsndfile does not say that a disk is full
    soundfile.write(buffer, sound, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _read_manifest(folder: Path) -> pd.DataFrame:
    return _read_table(folder / "manifest.csv", _MANIFEST_COLUMNS)


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError):  # pandas' parser errors are ValueErrors
        table = pd.DataFrame()
    if tuple(table.columns) != columns:
        raise CorpusError(_damaged(path))
    return table


def _altered_tables(folder: Path) -> list[Path]:
    """Return the tables of a whole folder that are not what was written."""
    hashes = read_json(folder / "corpus.json")["sha256"]
    return [folder / name for name, sha256 in hashes.items() if hash_file(folder / name) != sha256]


def _damaged(path: Path) -> str:
    return f"{path} is damaged; delete {path.parent} and run the same command again."


@functools.lru_cache(maxsize=4)
def _notes_by_clip(path: Path, _changed_ns: int) -> dict[str, pd.DataFrame]:
    table = _read_table(path, _NOTES_COLUMNS)
    return {clip_id: rows.drop(columns="clip_id").reset_index(drop=True) for clip_id, rows in table.groupby("clip_id")}


def _validate_folder(folder: Path) -> list[str]:
    if not _is_complete(folder):
        return [f"{folder} is unfinished; load the corpus again and it goes on from there."]
    found = [_damaged(path) for path in _altered_tables(folder)]
    if found:
        return found
    for row in _read_manifest(folder).itertuples():
        path = folder / row.path
        if not path.is_file():
            found.append(f"{path} is missing; load the corpus again and it is made anew.")
        elif hash_file(path) != row.sha256:
            found.append(f"{path} is altered; delete it and load the corpus again.")
    return found
