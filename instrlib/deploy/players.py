"""Audio players in a notebook."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from instrlib.audio.decode import load
from instrlib.core.io import spaced

if TYPE_CHECKING:
    from instrlib.data.corpora import Corpus

PLAYER_RATE_HZ = 22_050
MAX_PLAYER_S = 3.0


class Players:
    """A table of audio players; Jupyter shows it as HTML, a terminal as text.

    Parameters
    ----------
    captions : DataFrame
        One row per sound, shown next to the players.
    signals : mapping of str to sequence of ndarray [n_samples]
        Columns of players by name.
    sample_rate_hz : int
        Rate of the signals.
    """

    def __init__(
        self,
        captions: pd.DataFrame,
        signals: Mapping[str, Sequence[np.ndarray]],
        sample_rate_hz: int = PLAYER_RATE_HZ,
    ) -> None:
        self.captions = captions.rename(columns=spaced)
        self.sounds = {name: [mp3(one, sample_rate_hz) for one in column] for name, column in signals.items()}

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{html.escape(str(name))}</th>" for name in [*self.captions, *self.sounds])
        rows = []
        for caption, *sounds in zip(self.captions.itertuples(index=False), *self.sounds.values(), strict=True):
            cells = [html.escape(str(value)) for value in caption] + [_player(sound) for sound in sounds]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def __repr__(self) -> str:
        return self.captions.to_string(index=False)


def players(corpus: "Corpus", clips: pd.DataFrame, *, caption: list[str]) -> Players:
    """Return players of the first `MAX_PLAYER_S` seconds of clips (rows with `path` and `start_s`).

    `caption` names the columns of `clips` to show.
    """
    signals = [
        load(corpus.root / clip.path, sample_rate_hz=PLAYER_RATE_HZ, start_s=clip.start_s, duration_s=MAX_PLAYER_S)
        for clip in clips.itertuples()
    ]
    return Players(clips[caption], {"listen": signals})


def mp3(signal: np.ndarray, sample_rate_hz: int) -> bytes:
    """Encode mono samples as mp3."""
    import soundfile

    sound = io.BytesIO()
    soundfile.write(sound, signal, sample_rate_hz, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    return sound.getvalue()


def _player(sound: bytes) -> str:
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{base64.b64encode(sound).decode()}"></audio>'
