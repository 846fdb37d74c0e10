"""Audio players in a notebook."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import soundfile
from IPython.display import HTML

from instrlib.audio.decode import load
from instrlib.core.io import spaced
from instrlib.data.corpora import Corpus

PLAYER_RATE_HZ = 22_050
MAX_PLAYER_S = 3.0


def show(
    captions: pd.DataFrame, signals: Mapping[str, Sequence[np.ndarray]], sample_rate_hz: int = PLAYER_RATE_HZ
) -> HTML:
    """Return a table with one row per sound: the captions, then the columns of players by name."""
    rows = captions.rename(columns=spaced).astype(str).map(html.escape)
    for name, column in signals.items():
        sounds = [base64.b64encode(mp3(signal, sample_rate_hz)).decode() for signal in column]
        rows[name] = [f'<audio controls preload="none" src="data:audio/mpeg;base64,{one}"></audio>' for one in sounds]
    with pd.option_context("display.max_colwidth", None):
        return HTML(rows.to_html(index=False, escape=False, border=0))


def players(corpus: Corpus, clips: pd.DataFrame, *, caption: list[str]) -> HTML:
    """Return players of the first `MAX_PLAYER_S` of clips (rows with `path`, `start_s`) with columns as `caption`."""
    signals = [
        load(corpus.root / clip.path, sample_rate_hz=PLAYER_RATE_HZ, start_s=clip.start_s, duration_s=MAX_PLAYER_S)
        for clip in clips.itertuples()
    ]
    return show(clips[caption], {"listen": signals})


def mp3(signal: np.ndarray, sample_rate_hz: int) -> bytes:
    """Encode mono samples as mp3."""
    sound = io.BytesIO()
    soundfile.write(sound, signal, sample_rate_hz, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    return sound.getvalue()
