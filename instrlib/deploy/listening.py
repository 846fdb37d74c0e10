"""Sound in a notebook: small players in a table, so that a reader hears what the numbers are about."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from instrlib.audio.decode import load
from instrlib.core.config import FeatureConfig
from instrlib.core.words import spaced
from instrlib.data.base import Corpus
from instrlib.data.store import Change

PLAYER_RATE_HZ = 22_050
MAX_PLAYER_S = 3.0
LOWEST_HZ = 40.0


class Players:
    """A table of audio players; Jupyter shows it as HTML, a terminal as plain text.

    Parameters
    ----------
    captions : list of dict
        A row of words for each clip.
    sounds : dict of str to list of bytes
        Columns of players by their names: for each clip its sound as mp3.
    """

    def __init__(self, captions: list[dict[str, Any]], sounds: dict[str, list[bytes]]) -> None:
        self.captions = captions
        self.sounds = sounds

    def _repr_html_(self) -> str:
        names = [*(self.captions[0] if self.captions else ()), *self.sounds]
        header = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
        rows = []
        for caption, *sounds in zip(self.captions, *self.sounds.values(), strict=True):
            cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in caption.values())
            rows.append(f"<tr>{cells}{''.join(map(_player, sounds))}</tr>")
        return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def __repr__(self) -> str:
        return pd.DataFrame(self.captions).to_string(index=False)


def players(corpus: Corpus, clips: pd.DataFrame, *, caption: list[str]) -> Players:
    """Make players for some clips of a corpus.

    Parameters
    ----------
    corpus : Corpus
        Where they lie.
    clips : pandas.DataFrame
        Rows with the manifest's `path` and `start_s`; each player plays the first `MAX_PLAYER_S` seconds.
    caption : list of str
        Columns of `clips` to show beside each player.

    Returns
    -------
    Players
    """
    signals = [_read(corpus.root / clip.path, clip.start_s, MAX_PLAYER_S) for clip in clips.itertuples()]
    return Players(_captions(clips, caption), {"listen": [mp3(signal, PLAYER_RATE_HZ) for signal in signals]})


def region_players(corpus: Corpus, regions: pd.DataFrame, *, segment_s: float, caption: list[str]) -> Players:
    """Make players for parts of clips, and for one band of frequencies of each alone.

    Parameters
    ----------
    corpus : Corpus
        Where the clips lie.
    regions : pandas.DataFrame
        Rows with `clip_id`, `start_s` (of the segment, in the file), `offset_s` (of the part, in the segment),
        `window_s` (its length), `low_hz` and `high_hz`; see `attention.active_regions`.
    segment_s : float
        Length of a segment.
    caption : list of str
        Columns of `regions` to show beside each player.

    Returns
    -------
    Players
        The band is brought to the peak of the part, so that it can be heard.
    """
    regions = regions.merge(corpus.manifest[["clip_id", "path"]], on="clip_id", how="left")
    sounds: dict[str, list[bytes]] = {"most active part": [], "its active band alone": []}
    for row in regions.itertuples():
        whole = _read(corpus.root / row.path, row.start_s, segment_s)
        first = round(row.offset_s * PLAYER_RATE_HZ)
        # A part may lie beyond the end of a short clip, in what the network saw as silence.
        part = np.pad(whole, (0, round(segment_s * PLAYER_RATE_HZ)))[
            first : first + round(row.window_s * PLAYER_RATE_HZ)
        ]
        band = band_pass(part, PLAYER_RATE_HZ, low_hz=row.low_hz, high_hz=row.high_hz)
        band *= np.abs(part).max() / max(np.abs(band).max(), 1e-9)
        for column, signal in zip(sounds.values(), (part, band), strict=True):
            column.append(mp3(signal, PLAYER_RATE_HZ))
    return Players(_captions(regions, caption), sounds)


def copy_players(corpus: Corpus, segments: pd.DataFrame, change: Change, config: FeatureConfig) -> Players:
    """Make players for segments and the changed copies of them that a training reads; see `waveform`.

    Parameters
    ----------
    corpus : Corpus
        Where the clips lie.
    segments : pandas.DataFrame
        Rows of `FeatureStore.segments`.
    change : Change
        What makes the copies.
    config : FeatureConfig
        Settings of the store.

    Returns
    -------
    Players
    """
    clips = corpus.manifest.set_index("clip_id")
    rate_hz = config.sample_rate_hz
    sounds: dict[str, list[bytes]] = {
        name: [] for name in ("original", *(f"copy {copy}" for copy in range(1, change.n_copies + 1)))
    }
    for segment in segments.itertuples():
        clip = clips.loc[segment.clip_id]
        offset_s = segment.start_s - clip.start_s
        duration_s = min(config.segment_s, clip.duration_s - offset_s)
        signal = load(corpus.root / clip.path, sample_rate_hz=rate_hz, start_s=segment.start_s, duration_s=duration_s)[
            : config.segment_samples
        ]
        copies = change.copies(signal, sample_rate_hz=rate_hz, clip_id=segment.clip_id, offset_s=offset_s)
        for column, heard in zip(sounds.values(), (signal, *copies), strict=True):
            column.append(mp3(heard, rate_hz))
    return Players(_captions(segments, ["label"]), sounds)


def band_pass(signal: np.ndarray, sample_rate_hz: int, *, low_hz: float, high_hz: float) -> np.ndarray:
    """Keep one band of frequencies of a sound, without moving it in time.

    Butterworth filter of fourth order, run forwards and backwards: -6 dB at the edges.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Samples.
    sample_rate_hz : int
        Their rate.
    low_hz, high_hz : float
        Edges, `low_hz` below `high_hz`. One at or beyond the ends (`LOWEST_HZ`, or 95 % of half the rate) does not cut.

    Returns
    -------
    np.ndarray [shape=(n,), float32]

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 5000 * np.arange(22_050) / 22_050)
    >>> float(np.abs(band_pass(tone, 22_050, low_hz=100, high_hz=1000)[5000:-5000]).max()) < 0.001
    True
    """
    from scipy.signal import butter, sosfiltfilt

    cuts = low_hz > LOWEST_HZ, high_hz < 0.475 * sample_rate_hz
    kind, edges = {
        (True, True): ("bandpass", [low_hz, high_hz]),
        (True, False): ("highpass", low_hz),
        (False, True): ("lowpass", high_hz),
    }.get(cuts, ("", []))
    if not kind:
        return np.array(signal, np.float32)
    # Twice the order in a band-pass: one filter for each edge.
    return sosfiltfilt(butter(4, edges, kind, fs=sample_rate_hz, output="sos"), signal).astype(np.float32)


def mp3(signal: np.ndarray, sample_rate_hz: int) -> bytes:
    """Encode mono samples as mp3."""
    import soundfile

    sound = io.BytesIO()
    soundfile.write(sound, signal, sample_rate_hz, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    return sound.getvalue()


def _read(path: Path, start_s: float, duration_s: float) -> np.ndarray:
    return load(path, sample_rate_hz=PLAYER_RATE_HZ, start_s=start_s, duration_s=duration_s)


def _captions(table: pd.DataFrame, caption: list[str]) -> list[dict[str, Any]]:
    return table[caption].rename(columns=spaced).to_dict("records")


def _player(sound: bytes) -> str:
    source = f"data:audio/mpeg;base64,{base64.b64encode(sound).decode()}"
    return f'<td><audio controls preload="none" src="{source}"></audio></td>'
