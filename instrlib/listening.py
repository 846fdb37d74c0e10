"""Sound in a notebook: small players in a table, so that a reader hears what the numbers are about."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import pandas as pd

from instrlib.audio import load
from instrlib.corpora.base import Corpus

PLAYER_RATE_HZ = 22_050
MAX_PLAYER_S = 3.0


class Players:
    """A table of audio players; Jupyter shows it as HTML, a terminal as plain text.

    Parameters
    ----------
    captions : list of dict
        A row of words for each clip.
    sounds : list of bytes
        The clips, as mp3.
    """

    def __init__(self, captions: list[dict[str, Any]], sounds: list[bytes]) -> None:
        self.captions = captions
        self.sounds = sounds

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{html.escape(str(name))}</th>" for name in [*self.captions[0], "listen"])
        rows = []
        for caption, sound in zip(self.captions, self.sounds, strict=True):
            cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in caption.values())
            source = f"data:audio/mpeg;base64,{base64.b64encode(sound).decode()}"
            rows.append(f'<tr>{cells}<td><audio controls preload="none" src="{source}"></audio></td></tr>')
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
        Rows with the manifest's `path` and `start_s`, at least one; each player plays the first `MAX_PLAYER_S` seconds.
    caption : list of str
        Columns of `clips` to show beside each player.

    Returns
    -------
    Players
    """
    rows = clips[caption].rename(columns=lambda name: name.replace("_", " ")).to_dict("records")
    return Players(rows, [_mp3(corpus.root / clip.path, clip.start_s) for clip in clips.itertuples()])


def _mp3(path: Path, start_s: float) -> bytes:
    import soundfile

    signal = load(path, sample_rate_hz=PLAYER_RATE_HZ, start_s=start_s, duration_s=MAX_PLAYER_S)
    sound = io.BytesIO()
    soundfile.write(sound, signal, PLAYER_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.6)
    return sound.getvalue()
