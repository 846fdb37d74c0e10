"""Soundfonts of the built-in corpus: their location, terms and contents."""

import contextlib
import functools
import importlib.util
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instrlib.core.io import CorpusError, hash_file

DRUM_BANK = 128


@dataclass(frozen=True)
class Font:
    """A row of sources.toml."""

    place: list[str]
    package: str
    how_to_get: str
    licence: str
    citation: str


FONTS = {
    name: Font(**font)
    for name, font in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}

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
    spec = importlib.util.find_spec(font.package) if font.package else None
    root = Path(spec.origin).parent if spec and spec.origin else Path()
    for place in font.place:
        if (root / place).is_file():
            return root / place
    raise CorpusError(f"Soundfont {name} not found; {font.how_to_get}.")


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
    begins = np.zeros(1 << 24, dtype=bool)  # a filter on the first four samples speeds up the search
    begins[_hash24(np.ascontiguousarray(windows[:, :4]))] = True
    found = set()
    for offset in range(4):
        part = held[offset : offset + (len(held) - offset) // 4 * 4].reshape(-1, 4)
        at = 4 * np.flatnonzero(begins[_hash24(part)]) + offset
        found |= asked & {held[start : start + width].tobytes() for start in at.tolist()}
    return sum(window.tobytes() in found for window in windows) / len(windows)


def _hash24(rows: np.ndarray) -> np.ndarray:
    return (rows.view(np.uint64).ravel() * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)


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
