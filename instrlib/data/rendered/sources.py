"""Soundfonts of the built-in corpus: location, terms, contents, and synthesis by TinySoundFont."""

import contextlib
import functools
import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import CorpusError, hash_file

DRUM_BANK = 128
RATE_HZ = 44_100  # native rate of the fonts; TinySoundFont has no anti-aliasing filter, so resampling follows
BEND_RANGE_CENTS = 200.0
_DRUM_CHANNEL = 9


FONTS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

# Programs of one font whose samples are those of another program or font, all or all but one (see `shared_samples`).
SAME_SAMPLES = {
    ("TimGM6mb", 110): ("TimGM6mb", 40),  # fiddle and violin
    ("Merlin", 72): ("TimGM6mb", 72),  # piccolo
    ("Merlin", 59): ("TimGM6mb", 59),  # muted trumpet
}


@functools.cache
def find_soundfont(name: str = "TimGM6mb") -> Path:
    """Return the file of a soundfont in `FONTS`; raise `CorpusError` if it is unknown or not installed."""
    if name not in FONTS:
        raise CorpusError(f"Unknown soundfont {name!r}; choose one of {', '.join(FONTS)}.")
    font = FONTS[name]
    spec = importlib.util.find_spec(font["package"]) if font["package"] else None
    root = Path(spec.origin).parent if spec and spec.origin else Path()
    for place in font["place"]:
        if (root / place).is_file():
            return root / place
    raise CorpusError(f"Soundfont {name} not found; {font['how_to_get']}.")


def fonts() -> dict[str, Path]:
    """Return the installed soundfonts by name."""
    found = {}
    for name in FONTS:
        with contextlib.suppress(CorpusError):
            found[name] = find_soundfont(name)
    return found


font_hash = functools.cache(hash_file)


@functools.cache
def presets(font: Path) -> frozenset[tuple[int, int]]:
    """Return the (bank, program) pairs of a soundfont; drum kits are in bank 128."""
    row = np.dtype([("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("rest", "S14")])
    table = _chunk(font, b"phdr", row)[:-1]  # the last row is a terminator
    return frozenset(zip(table["bank"].tolist(), table["program"].tolist(), strict=True))


@functools.cache
def shared_samples(font: Path, other: Path) -> float:
    """Return the share (0 to 1) of a soundfont that `other` contains sample for sample.

    Soundfonts copy from each other, and test sounds must not occur in training. Every 97th non-constant stretch of 16
    samples of `font` is searched in `other`; copies at another rate or level are not found.
    """
    width, moves = 16, 600
    own, held = (_chunk(path, b"smpl", np.dtype("<i2")) for path in (font, other))
    windows = np.lib.stride_tricks.sliding_window_view(own, width)[::97]
    windows = windows[np.abs(np.diff(windows.astype(np.int32), axis=1)).sum(axis=1) > moves]
    asked = {window.tobytes() for window in windows}
    begins = np.ascontiguousarray(windows[:, :4]).view(np.uint64).ravel()  # a filter speeds up the search
    found = set()
    for offset in range(4):
        part = held[offset : offset + (len(held) - offset) // 4 * 4].copy().view(np.uint64)
        at = 4 * np.flatnonzero(pd.Index(part).isin(begins)) + offset
        found |= asked & {held[start : start + width].tobytes() for start in at.tolist()}
    return sum(window.tobytes() in found for window in windows) / len(windows)


def _chunk(font: Path, name: bytes, row: np.dtype) -> np.ndarray:
    """Return the rows of a chunk of a soundfont (a RIFF file), searching inside lists."""
    with font.open("rb") as file:
        head, at, end = file.read(12), 12, font.stat().st_size
        while head[:4] == b"RIFF" and head[8:] == b"sfbk" and at + 8 <= end:
            file.seek(at)
            kind, size = file.read(4), int.from_bytes(file.read(4), "little")
            if kind == name:
                return np.fromfile(file, row, size // row.itemsize)
            at += 12 if kind == b"LIST" else 8 + size + size % 2
    raise CorpusError(f"{font} is not a soundfont (SF2); install it again.")


@functools.cache
def synthesiser(font: Path) -> tuple[Any, int]:
    """Return a TinySoundFont and the number of the font in it, once per process."""
    try:
        import tinysoundfont
    except ImportError:
        raise CorpusError(
            "The built-in corpus requires TinySoundFont: run `pip install tinysoundfont`; on Python 3.13 this needs a "
            "C++ compiler."
        ) from None
    synth = tinysoundfont.Synth(gain=-6.0, samplerate=RATE_HZ)
    return synth, synth.sfload(str(font))


@functools.cache
def silent_keys(font: Path, program: int, low: int, high: int, *, drums: bool = False) -> frozenset[int]:
    """Return the keys from `low` to `high` without sound in a font, in gaps between its samples."""
    how = {"program": program, "duration_s": 0.05, "drums": drums}
    keys = range(low, high + 1)
    return frozenset(key for key in keys if not play(font, np.array([[0.0, 0.05, key, 100]]), **how).any())


def play(
    font: Path,
    notes: np.ndarray,
    *,
    program: int,
    duration_s: float,
    sample_rate_hz: int = RATE_HZ,
    drums: bool = False,
    bends: np.ndarray | None = None,
    tuning_cents: float = 0.0,
) -> np.ndarray:
    """Play notes on one instrument [round(duration_s * sample_rate_hz)], mono float32, not normalised.

    `notes` [n_notes, 4] are onset and offset in s, MIDI pitch and velocity; `program` counts from 0, or is a drum kit.
    `bends` [n_bends, 2] are times in s and cents from then on, limited with `tuning_cents` to `BEND_RANGE_CENTS`. The
    result does not depend on what was played before.
    """
    import soxr

    synth, number = synthesiser(font)
    for used in (0, _DRUM_CHANNEL):
        synth.sounds_off(used)
    synth.generate_simple(4096)  # stopped voices fade over 10 ms
    n_samples, channel = round(duration_s * RATE_HZ), _DRUM_CHANNEL if drums else 0
    synth.program_select(channel, number, DRUM_BANK if drums else 0, program, drums)
    synth.pitchbend_range(channel, BEND_RANGE_CENTS / 100)
    curve = [(0.0, 0.0), *([] if bends is None else bends)]
    wheels = [(at, round(8192 + 8192 * (cents + tuning_cents) / BEND_RANGE_CENTS)) for at, cents in curve]
    # Time, order at the same sample (off, bend, on), and what to do.
    events = [(end, 0, synth.noteoff, (int(key),)) for _, end, key, _ in notes]
    events += [(at, 1, synth.pitchbend, (min(max(wheel, 0), 16383),)) for at, wheel in wheels]
    events += [(onset, 2, synth.noteon, (int(key), int(velocity))) for onset, _, key, velocity in notes]
    timed = [(min(round(at * RATE_HZ), n_samples), order, act, given) for at, order, act, given in events]
    parts, now = [], 0
    for sample, _, act, given in [*sorted(timed, key=lambda event: event[:2]), (n_samples, 3, None, ())]:
        if sample > now:
            parts.append(np.frombuffer(synth.generate_simple(sample - now), dtype=np.float32))
            now = sample
        if act:
            act(channel, *given)
    stereo = np.concatenate(parts)
    return soxr.resample((stereo[0::2] + stereo[1::2]) * np.float32(0.5), RATE_HZ, sample_rate_hz)
