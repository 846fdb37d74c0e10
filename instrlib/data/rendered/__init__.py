"""The built-in corpus: phrases played by sampled instruments, rendered on demand and reproducible by seed.

Soundfonts take turns. A group is a sampled instrument with all its registers, as far as possible; see `groups`.
"""

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from instrlib.audio import effects
from instrlib.core.cache import key
from instrlib.core.io import (
    ConfigError,
    CorpusError,
    InstrlibError,
    atomic_path,
    hash_file,
    hash_json,
    read_json,
    write_json,
)
from instrlib.core.parallel import parallel_map
from instrlib.data.corpora import COLUMNS, Corpus, CorpusInfo
from instrlib.data.files import CONTENT
from instrlib.data.rendered import phrases, sources
from instrlib.data.rendered.phrases import CLASSES, Voice, voices

SAMPLE_RATE_HZ = 22_050
DURATION_S = 3.0
_MANIFEST_COLUMNS = (*COLUMNS, "font", "program", "register", CONTENT, "seed")
_BATCH = 12  # clips of a class per task
_FILE_BYTES = 44 + 2 * round(DURATION_S * SAMPLE_RATE_HZ)


@dataclass(frozen=True)
class Players:
    """The soundfonts, and the share of clips (except drums) that are exercises instead of phrases."""

    fonts: tuple[str, ...] = ("TimGM6mb", "Merlin")
    exercises: float = 0.5


PLAYERS = Players()


def info(players: Players = PLAYERS) -> CorpusInfo:
    """Describe the corpus as played by these fonts."""
    fonts = {name: sources.FONTS[name] for name in players.fonts if name in sources.FONTS}
    licences = "; ".join(f"{name}: {font['licence']}" for name, font in fonts.items())
    return CorpusInfo(
        name="rendered",
        title="Phrases played by sampled instruments (built in)",
        licence=(
            f"Rendered on this machine with soundfonts ({licences}) from installed packages. The clips contain the "
            "fonts' samples: keep them to yourself, or pass them on under the fonts' terms and name the fonts."
        ),
        citation="Soundfonts: " + " ".join(font["citation"] for font in fonts.values()),
        url="",
        size="132 kB a clip: 95 MB for 60 clips of each class",
        how_to_get="It is rendered on first use, in a few seconds, and needs no download.",
    )


INFO = info()


def load(
    root: Path,
    *,
    clips_per_class: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    players: Players = PLAYERS,
    workers: int | None = None,
) -> Corpus:
    """Return the built-in corpus; clips missing under `root` are rendered first.

    A clip depends on its class, its number, the seed and the players: the first 12 clips of a class are the same files
    in a corpus of 12 or 600. Clips are evenly spread over fonts, programs and registers. Changes of code, fonts or
    package versions render them again.
    """
    if unknown := sorted(set(classes or ()) - set(CLASSES)):
        raise ConfigError(f"rendered: unknown class {unknown[0]!r}; choose from {', '.join(CLASSES)}.")
    chosen = tuple(label for label in CLASSES if label in (classes or CLASSES))
    fonts = {name: sources.font_hash(sources.find_soundfont(name)) for name in players.fonts}
    made_of = {"seed": seed, "exercises": players.exercises, "fonts": fonts}
    folder = Path(root) / f"{hash_json([seed, players])[:8]}-{key('data', **made_of)[:16]}"
    for old in {*Path(root).glob(f"{folder.name[:8]}-*")} - {folder}:  # from other code, fonts or package versions
        shutil.rmtree(old, ignore_errors=True)
    batches = [(label, number) for label in chosen for number in range(-(-clips_per_class // _BATCH))]
    missing = [(folder, *batch, seed, players) for batch in batches if not _is_whole(folder, *batch)]
    list(parallel_map(_render_batch, missing, workers=workers, describe="rendering"))
    clips = [one for batch in batches for one in read_json(_record(folder, *batch))]
    manifest = pd.DataFrame(clips, columns=["index", *_MANIFEST_COLUMNS])
    manifest = manifest[manifest.pop("index") < clips_per_class].sort_values("clip_id", ignore_index=True)
    return Corpus(info(players), folder, manifest, chosen)


def notes(corpus: Corpus, clip_id: str) -> pd.DataFrame:
    """Return the notes of a clip: onset and release in s (the sound may decay later), MIDI pitch and velocity."""
    label, _, rest = clip_id.partition("-")
    path = _record(corpus.root, label, int(rest[:5]) // _BATCH) if rest[:5].isdecimal() else corpus.root / "notes"
    played = {one["clip_id"]: one["notes"] for one in (read_json(path) if path.is_file() else [])}
    if clip_id not in played:
        raise CorpusError(f"{corpus.name}: no clip {clip_id!r} in {corpus.root}; load the corpus again.")
    return pd.DataFrame(played[clip_id], columns=list(phrases.NOTE_COLUMNS))


def compose(label: str, index: int, *, seed: int = 0, players: Players = PLAYERS) -> tuple[str, Voice, phrases.Phrase]:
    """Return font, voice and phrase of clip number `index` of a class.

    Notes on keys without sound in the font move to the nearest key with sound.
    """
    rng = _generators(label, index, seed, players)[0]
    font = players.fonts[index % len(players.fonts)]
    cast = _cast(label, font)
    voice = cast[index // len(players.fonts) % len(cast)]
    is_exercise = not voice.drums and rng.random() < players.exercises
    phrase = (phrases.exercise if is_exercise else phrases.compose)(rng, voice, duration_s=DURATION_S)
    place = sources.find_soundfont(font)
    silent = sources.silent_keys(place, voice.program, voice.low, voice.high, drums=voice.drums)
    sounding = np.array([pitch for pitch in range(voice.low, voice.high + 1) if pitch not in silent])
    moved = phrase.notes.copy()
    moved[:, 2] = sounding[np.abs(sounding - moved[:, 2:3]).argmin(axis=1)]
    return font, voice, replace(phrase, notes=moved)


def render(label: str, index: int, *, seed: int = 0, players: Players = PLAYERS) -> np.ndarray:
    """Return clip number `index` of a class: mono float32 at 22,050 Hz, between -1 and 1."""
    rng = _generators(label, index, seed, players)[1]
    font, voice, phrase = compose(label, index, seed=seed, players=players)
    place, time = sources.find_soundfont(font), {"duration_s": DURATION_S, "sample_rate_hz": SAMPLE_RATE_HZ}
    played = {"program": voice.program, "drums": voice.drums, "bends": phrase.bends}
    cents = float(np.clip(rng.normal(0, 9), -25, 25))
    return record(rng, sources.play(place, phrase.notes, **time, **played, tuning_cents=cents))


def record(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Simulate the recording of a dry sound in a room, with random reverberation, equaliser, noise and level."""
    from scipy.signal import oaconvolve

    wet = effects.equalise(sound, SAMPLE_RATE_HZ, rng, bells=1, largest_db=4, tilt_db=(-1.6, 1.6))
    if rng.random() < 0.8:
        rt60_s, level_db, first_s = 0.15 * 8 ** rng.random(), rng.uniform(-22, -7), rng.uniform(0.005, 0.03)
        about = {"reverberation_db": level_db, "first_reflection_s": first_s}
        wet = oaconvolve(wet, effects.room_response(SAMPLE_RATE_HZ, rt60_s, rng, **about))[: len(sound)]
    if rng.random() < 0.75:
        noise = effects.coloured_noise(len(sound), SAMPLE_RATE_HZ, rng, slope=rng.uniform(0, 1.2))
        wet = effects.add(wet, noise, rng.uniform(30, 60))
    wet = wet * (10 ** (rng.uniform(-20, -1) / 20) / np.abs(wet).max())
    fade = round(0.01 * SAMPLE_RATE_HZ)
    wet[-fade:] *= np.linspace(1, 0, fade)
    return wet.astype(np.float32)


@functools.cache
def groups(label: str, players: Players = PLAYERS) -> dict[tuple[str, int, int], str]:
    """Return the group of each (font, program, register) of a class, which must not cross a split.

    It is the first of these with at least three groups: the program in all fonts (they share samples); the sampled
    instrument; the program in one register, which separates pitches instead of instruments.
    """
    cast = [(font, voice.program, voice.register) for font in players.fonts for voice in _cast(label, font)]
    choices = (
        {one: f"{label}/p{one[1]:03d}" for one in cast},
        {one: "{}/{}-p{:03d}".format(label, *sources.SAME_SAMPLES.get(one[:2], one[:2])) for one in cast},
        {one: f"{label}/p{one[1]:03d}-r{one[2]}" for one in cast},
    )
    return next((named for named in choices if len(set(named.values())) >= 3), choices[-1])


def _cast(label: str, font: str) -> list[Voice]:
    """Return the voices of a class that a soundfont has."""
    there = sources.presets(sources.find_soundfont(font))
    return [voice for voice in voices(label) if (sources.DRUM_BANK if voice.drums else 0, voice.program) in there]


def _generators(label: str, index: int, seed: int, players: Players) -> list[np.random.Generator]:
    """Return random generators for the music and the recording; other players get other phrases."""
    number = int(hash_json(players)[:8], 16)
    sequence = np.random.SeedSequence([number, seed, CLASSES.index(label), index])
    return [np.random.default_rng(one) for one in sequence.spawn(2)]


def _record(folder: Path, label: str, batch: int) -> Path:
    return folder / "notes" / f"{label}-{batch:04d}.json"


def _is_whole(folder: Path, label: str, batch: int) -> bool:
    try:
        return all(
            (folder / one["path"]).stat().st_size == _FILE_BYTES for one in read_json(_record(folder, label, batch))
        )
    except (InstrlibError, OSError, KeyError, TypeError):  # missing or damaged
        return False


def _render_batch(folder: Path, label: str, batch: int, seed: int, players: Players) -> None:
    """Render some clips of a class; their record, written last, marks them as complete."""
    clips = []
    for index in range(batch * _BATCH, (batch + 1) * _BATCH):
        clip_id = f"{label}-{index:05d}-{hash_json([seed, players])[:6]}"
        font, voice, phrase = compose(label, index, seed=seed, players=players)
        sound = render(label, index, seed=seed, players=players)
        path = f"audio/{label}/{clip_id}.wav"
        with atomic_path(folder / path) as temporary:
            temporary.write_bytes(effects.encode(sound, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16").getvalue())
        group = groups(label, players)[font, voice.program, voice.register]
        values = (clip_id, path, 0.0, DURATION_S, label, group, "", font, voice.program, voice.register)
        row = dict(zip(_MANIFEST_COLUMNS, (*values, hash_file(folder / path), seed), strict=True))
        clips.append(row | {"index": index, "notes": phrase.notes.tolist()})
    write_json(_record(folder, label, batch), clips)
