"""All that is said of one recording: its instrument, who plays when, what the answer rests on, its condition.

Computed once from a published model. The page, the sheet and the notebook show it, `to_dict` is what is downloaded.
"""

import datetime
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import instrlib
from instrlib.audio import decode as audio
from instrlib.audio import features
from instrlib.core.errors import AudioError
from instrlib.core.io import atomic_path, hash_file

if TYPE_CHECKING:
    import pandas as pd

    from instrlib.core.config import FeatureConfig
    from instrlib.models.predict import Prediction, Windows
    from instrlib.models.published import Network, PublishedModel

MAX_DURATION_S = 600.0
"""What lasts longer is for the command `instrlib predict`: a picture of it would show nothing."""

MAX_CHANNELS = 32
"""What a block of a file takes in memory grows with them; a recording of one ensemble has fewer."""

FIELDS = {
    "file.name": "name that the file was given with, less some characters when it came over the page",
    "file.duration_s": "length of the recording, seconds",
    "file.sha256": "hash of the file's bytes, 64 hex digits",
    "analysed_at": "when it was analysed, ISO 8601, UTC",
    "answer": "the instrument, for a recording of one; null when none passes its threshold",
    "probabilities": "probability of each instrument for the whole recording, calibrated, 0 to 1; they add up to 1",
    "thresholds": "the probability from which on each instrument is named, 0 to 1",
    "segment.start_s": "where the segment begins that the answer shows most clearly in, seconds",
    "segment.duration_s": "length of that segment, seconds",
    "timeline.instruments": "the instruments found in the recording, however many play at once",
    "timeline.events": "who plays from when to when: label, start_s and end_s in seconds, intensity from 0 to 1",
    "timeline.window_s": "length of the windows that were listened to, seconds",
    "timeline.hop_s": "step between two windows and length of a frame, seconds",
    "timeline.scores": "for each instrument one score from 0 to 1 for each frame, the first from 0 s",
    "condition.verdict": "healthy, aged or broken",
    "condition.probabilities": "probability of each condition, 0 to 1; they add up to 1",
    "condition.measures": "what was measured on the recording, units in the names; null where it cannot be told",
    "condition.recall": "share of the held-out test clips of each condition that were named rightly, 0 to 1",
    "condition.about": "where the labels come from that the verdict was learned from",
    "features": "how sound becomes the picture that the network sees, units in the names",
    "model": "the published model: study, date, scores on clips that were held out",
    "instrlib": "version of this program",
}
"""Every field of `to_dict` with its meaning and unit."""


@dataclass(frozen=True)
class Segment:
    """The part of a recording in which the answer shows most clearly, as the network sees it.

    Attributes
    ----------
    label : str
        The most probable instrument, whether it passes its threshold or not.
    start_s : float
        Where it begins.
    config : FeatureConfig
        How the picture was made.
    level_db : np.ndarray [shape=(n_bins, n_frames)]
        Levels below the loudest value.
    activation : np.ndarray [shape=(n_bins, n_frames)] or None
        What speaks for the instrument, at least 0; None for a network that has no such map.
    """

    label: str
    start_s: float
    config: "FeatureConfig"
    level_db: np.ndarray
    activation: np.ndarray | None


@dataclass(frozen=True)
class Timeline:
    """Who plays when.

    Attributes
    ----------
    window_s, hop_s : float
        Length of the windows that were listened to; step between two, which is the length of a frame.
    scores : np.ndarray [shape=(n_frames, n_classes)]
        From 0 to 1.
    active : np.ndarray of bool [shape=(n_frames, n_classes)]
        Who is said to play.
    events : pandas.DataFrame
        `label`, `start_s`, `end_s`, `intensity` (the mean score).
    instruments : tuple of str
        Those found in the recording as a whole.
    """

    window_s: float
    hop_s: float
    scores: np.ndarray
    active: np.ndarray
    events: "pd.DataFrame"
    instruments: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """What the recording says of the instrument's condition.

    Attributes
    ----------
    verdict : str
        "healthy", "aged" or "broken".
    probabilities : dict of str to float
        By condition.
    measures : dict of str to float
        By name, with the unit in it; NaN where it cannot be told.
    recall : dict of str to float
        Share of the held-out test clips of each condition that were named rightly.
    about : str
        Where the labels come from.
    """

    verdict: str
    probabilities: dict[str, float]
    measures: dict[str, float]
    recall: dict[str, float]
    about: str


@dataclass(frozen=True)
class Analysis:
    """All that is said of one recording.

    Attributes
    ----------
    name : str
        What the file is called; it is shown, and never used as a path.
    sha256 : str
        Hash of its bytes.
    analysed_at : datetime.datetime
        In UTC, to the second.
    prediction : Prediction
        The instrument of the whole recording.
    thresholds : dict of str to float
        From which probability on each instrument is named.
    segment : Segment
        What the answer rests on.
    timeline : Timeline or None
        None when the model has nothing that was chosen for timelines.
    condition : Condition or None
        None when the model has nothing for conditions.
    model : PublishedModel
        What the analysis was made with.
    """

    name: str
    sha256: str
    analysed_at: datetime.datetime
    prediction: "Prediction"
    thresholds: dict[str, float]
    segment: Segment
    timeline: Timeline | None
    condition: Condition | None
    model: "PublishedModel"

    @property
    def duration_s(self) -> float:
        """Length of the recording."""
        return self.prediction.duration_s

    @property
    def answer(self) -> str | None:
        """The instrument, or None when none passes its threshold."""
        return self.prediction.named[0] if self.prediction.named else None


def analyse(
    path: Path,
    model: "PublishedModel",
    *,
    name: str | None = None,
    on_progress: Callable[[float, str], None] = lambda share, stage: None,
) -> Analysis:
    """Analyse a recording.

    Parameters
    ----------
    path : Path
        A wav, flac, ogg or mp3 file of at most `MAX_DURATION_S`.
    model : PublishedModel
        See `published.open_model`.
    name : str, optional
        What to call the file; its own name when left out.
    on_progress : callable
        Told how much is done, 0 to 1, and what is being done.

    Returns
    -------
    Analysis

    Raises
    ------
    AudioError
        When the file cannot be used, see `audio.load`, or is too long.
    """
    from instrlib.models import predict

    path = Path(path)
    on_progress(0.0, "Reading the file")
    _check_length(path)
    sha256 = hash_file(path)
    on_progress(0.05, "Naming the instrument")
    prediction = predict.predict_file(
        path, model, on_progress=lambda share: on_progress(0.05 + 0.3 * share, "Naming the instrument")
    )
    windows, timeline = _timeline(
        path, model, prediction.duration_s, lambda share: on_progress(0.35 + 0.4 * share, "Finding who plays when")
    )
    on_progress(0.75, "Looking at what the answer rests on")
    segment = _segment(path, model, prediction, windows)
    on_progress(0.85, "Measuring the condition")
    return Analysis(
        name=path.name if name is None else name,
        sha256=sha256,
        analysed_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        prediction=prediction,
        thresholds=dict(zip(model.classes, model.single.thresholds.tolist(), strict=True)),
        segment=segment,
        timeline=timeline,
        condition=_condition(path, model),
        model=model,
    )


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """Return an analysis as plain numbers and texts, for JSON; see `FIELDS`.

    Parameters
    ----------
    analysis : Analysis
        From `analyse`.

    Returns
    -------
    dict
    """
    prediction, timeline = analysis.prediction, analysis.timeline
    return {
        "file": {"name": analysis.name, "duration_s": analysis.duration_s, "sha256": analysis.sha256},
        "analysed_at": analysis.analysed_at.isoformat(),
        "answer": analysis.answer,
        "probabilities": dict(zip(prediction.classes, prediction.probabilities.tolist(), strict=True)),
        "thresholds": analysis.thresholds,
        "segment": {"start_s": analysis.segment.start_s, "duration_s": analysis.segment.config.segment_s},
        "timeline": None
        if timeline is None
        else {
            "instruments": timeline.instruments,
            "events": timeline.events.to_dict("records"),
            "window_s": timeline.window_s,
            "hop_s": timeline.hop_s,
            "scores": dict(zip(prediction.classes, np.round(timeline.scores.T, 4).tolist(), strict=True)),
        },
        "condition": _plain_condition(analysis.condition),
        "features": analysis.segment.config.to_dict(),
        "model": {"name": analysis.model.name, **_short(analysis.model.about)},
        "instrlib": instrlib.__version__,
        "fields": FIELDS,
    }


def to_json(analysis: Analysis) -> str:
    """Return `to_dict` as indented JSON."""
    return json.dumps(to_dict(analysis), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def example_clip(folder: Path) -> Path:
    """Write a short tune played by the embedded corpus' synthesiser, or by plain sine waves where there is none.

    It is made here and now: nobody's recording, and nothing to download.

    Parameters
    ----------
    folder : Path
        Where to write it.

    Returns
    -------
    Path
        A wav file of about eight seconds.
    """
    import soundfile

    path = Path(folder) / "example.wav"
    signal = _tune()
    with atomic_path(path) as temporary:
        soundfile.write(temporary, 0.7 * signal / np.abs(signal).max(), _EXAMPLE_RATE_HZ, subtype="PCM_16")
    return path


def _check_length(path: Path) -> None:
    info = audio.probe(path)
    duration_s = info.duration_s
    if info.n_channels > MAX_CHANNELS:
        raise AudioError(
            f"{path}: too many channels, {info.n_channels}; at most {MAX_CHANNELS} are analysed here. Mix them down."
        )
    if duration_s > MAX_DURATION_S:
        raise AudioError(
            f"{path}: too long, {duration_s / 60:.1f} minutes; at most {MAX_DURATION_S / 60:.0f} are analysed here. "
            "Cut it, or use the command `instrlib predict`, which takes any length."
        )


def _timeline(
    path: Path, model: "PublishedModel", duration_s: float, on_progress: Callable[[float], None]
) -> tuple["Windows", Timeline | None]:
    """Return the windows that were listened to, and what they say of who plays when."""
    from instrlib.models import predict
    from instrlib.studies import timeline

    chosen = model.about.get("timeline")
    if not chosen:
        return predict.window_scores(path, model.single, on_progress=on_progress), None
    decision = timeline.Decision.from_dict(chosen)
    network: Network = getattr(model, chosen["network"])
    windows = predict.window_scores(
        path, network, hop_s=chosen["hop_s"], window_s=chosen["window_s"], on_progress=on_progress
    )
    scores, active = timeline.frame_scores(windows), timeline.activity(windows, decision)
    hop_s = timeline.hop_s(windows)
    events = timeline.events(active, hop_s, model.classes, scores=scores)
    events["end_s"] = events.end_s.clip(upper=duration_s)
    found = timeline.listed(windows, decision)
    instruments = tuple(label for label, there in zip(model.classes, found, strict=True) if there)
    return windows, Timeline(windows.window_s, hop_s, scores, active, events, instruments)


def _segment(path: Path, model: "PublishedModel", prediction: "Prediction", windows: "Windows") -> Segment:
    """Return the picture of the window in which the most probable instrument scores highest."""
    from instrlib.models.published import listener
    from instrlib.studies import cam

    network = model.single
    config = network.features
    top = int(prediction.probabilities.argmax())
    # The best window holds sound: one without is given 0 for every class.
    start_s = float(windows.start_s[windows.probabilities[:, top].argmax()])
    signal = audio.load(path, sample_rate_hz=config.sample_rate_hz, start_s=start_s, duration_s=config.segment_s)
    level_db = features.spectrum(signal[: config.segment_samples], config)
    _, maps = listener(network)(level_db[None])
    activation = None
    if maps is not None:
        activation = np.maximum(cam.upsample(maps[0, :, :, top], cam.Grid(**network.grid)), 0)
    return Segment(model.classes[top], start_s, config, level_db, activation)


def _condition(path: Path, model: "PublishedModel") -> Condition | None:
    from instrlib.studies import condition

    if model.condition is None:
        return None
    rate_hz = model.single.features.sample_rate_hz
    # Block by block: all channels at the file's own rate can be a hundred times what is needed of them.
    signal = np.concatenate(list(audio.blocks(path, sample_rate_hz=rate_hz, block_s=10.0)))
    verdict, probabilities, measures = condition.verdict(signal, rate_hz, model.condition)
    return Condition(verdict, probabilities, measures, model.condition["recall"], model.condition["about"])


def _plain_condition(condition: Condition | None) -> dict[str, Any] | None:
    if condition is None:
        return None
    measures = {name: value if math.isfinite(value) else None for name, value in condition.measures.items()}
    return vars(condition) | {"measures": measures}


def _short(about: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is of no use in a download: long lists and what was chosen on the way."""
    return {
        name: about[name] for name in ("study", "corpus", "network", "published_at", "commit", "n_tested", "scores")
    }


# -- the example -------------------------------------------------------------------------------------------------------

_EXAMPLE_RATE_HZ = 44_100
_BEAT_S = 0.42
_TUNE = (
    *((64, 1), (67, 1), (69, 1), (72, 1), (71, 0.5), (69, 0.5), (67, 2)),
    *((65, 1), (69, 1), (67, 1), (64, 1), (62, 1), (60, 3)),
)
"""MIDI pitch and beats of each note."""
_PROGRAM = 40  # General MIDI: violin


def _tune() -> np.ndarray:
    beats = np.array([length for _, length in _TUNE])
    onset_s = _BEAT_S * np.concatenate([[0], np.cumsum(beats[:-1])])
    pitch = np.array([pitch for pitch, _ in _TUNE])
    notes = np.stack([onset_s, onset_s + _BEAT_S * beats, pitch, np.full(len(pitch), 90)], axis=1)
    duration_s = float(notes[-1, 1])
    from instrlib.core.errors import CorpusError
    from instrlib.data import soundfont

    try:
        engine = soundfont.open_engine(soundfont.engine_name(), soundfont.find_soundfont())
    except CorpusError:
        return _sines(notes, duration_s)
    return soundfont.render(engine, notes, program=_PROGRAM, duration_s=duration_s, sample_rate_hz=_EXAMPLE_RATE_HZ)


def _sines(notes: np.ndarray, duration_s: float) -> np.ndarray:
    """Play notes with ten harmonics that die away, the higher the faster."""
    signal = np.zeros(round(duration_s * _EXAMPLE_RATE_HZ))
    for onset_s, offset_s, pitch, _ in notes:
        first, last = round(onset_s * _EXAMPLE_RATE_HZ), round(offset_s * _EXAMPLE_RATE_HZ)
        time_s = np.arange(last - first) / _EXAMPLE_RATE_HZ
        frequency_hz = 440 * 2 ** ((pitch - 69) / 12)
        for harmonic in range(1, 11):
            tone = np.sin(2 * np.pi * harmonic * frequency_hz * time_s)
            signal[first:last] += tone * np.exp(-(1 + harmonic) * time_s) / harmonic
    return signal
