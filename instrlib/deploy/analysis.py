"""The analysis of one recording: instrument, timeline, saliency and condition; shown by page, PDF and notebook."""

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import instrlib
from instrlib.audio import decode, features
from instrlib.core.io import AudioError, CorpusError, atomic_path, hash_file, to_jsonable
from instrlib.models import predict
from instrlib.models.published import Network, PublishedModel, predictor
from instrlib.studies import saliency, timeline

if TYPE_CHECKING:
    import pandas as pd

    from instrlib.core.config import FeatureConfig

MAX_DURATION_S = 600.0
"""Longer recordings cannot be shown in one figure; use `instrlib predict` for them."""

MAX_CHANNELS = 32
"""Limits the memory of a block."""

_EXAMPLE_RATE_HZ, _BEAT_S, _VIOLIN = 44_100, 0.42, 40
_TUNE = (
    *((64, 1), (67, 1), (69, 1), (72, 1), (71, 0.5), (69, 0.5), (67, 2)),
    *((65, 1), (69, 1), (67, 1), (64, 1), (62, 1), (60, 3)),
)
"""MIDI pitch and beats of each note of the example."""

FIELDS = {
    "file.name": "name of the file; the web page removes some special characters",
    "file.duration_s": "length of the recording, seconds",
    "file.sha256": "SHA-256 of the file",
    "analysed_at": "time of the analysis, ISO 8601, UTC",
    "answer": "the instrument, for a recording of one; null if no class reaches its threshold",
    "probabilities": "calibrated probability of each class for the whole recording; they sum to 1",
    "thresholds": "the probability from which each class is reported",
    "segment.start_s": "start of the segment with the highest probability of the top class, seconds",
    "segment.duration_s": "length of that segment, seconds",
    "timeline.instruments": "the instruments found in the recording, however many play at once",
    "timeline.events": "label, start_s and end_s in seconds, and intensity (mean score, 0 to 1)",
    "timeline.window_s": "length of the sliding windows, seconds",
    "timeline.hop_s": "step between two windows and length of a frame, seconds",
    "timeline.scores": "one score from 0 to 1 for each class and frame, the first frame from 0 s",
    "condition.verdict": "healthy, aged or broken",
    "condition.probabilities": "probability of each condition; they sum to 1",
    "condition.measures": "acoustic measures of the recording, units in the names; null where undefined",
    "condition.recall": "share of the test clips of each condition that were classified correctly",
    "condition.about": "origin of the labels that the condition model was trained on",
    "features": "settings of the spectrogram, units in the names",
    "model": "the released model: study, date, scores on test clips",
    "instrlib": "version of this program",
}
"""Every field of `to_dict` with its meaning and unit."""


@dataclass(frozen=True)
class Segment:
    """The segment with the highest probability of the top class, and the class activation map on it.

    `level_db` [n_bins, n_frames] is relative to the loudest value; `activation` has the same shape, or is None if the
    network has no maps.
    """

    label: str
    start_s: float
    config: "FeatureConfig"
    level_db: np.ndarray
    activation: np.ndarray | None


@dataclass(frozen=True)
class Timeline:
    """Scores and activity [n_frames, n_classes], events (label, start_s, end_s, intensity) and instruments found."""

    window_s: float
    hop_s: float
    scores: np.ndarray
    active: np.ndarray
    events: "pd.DataFrame"
    instruments: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """The condition of the instrument: verdict, probabilities, measures (NaN where undefined), recall on test clips."""

    verdict: str
    probabilities: dict[str, float]
    measures: dict[str, float]
    recall: dict[str, float]
    about: str


@dataclass(frozen=True)
class Analysis:
    """The analysis of one recording; timeline and condition are None if the model does not support them.

    `name` is shown and never used as a path; `sha256` is the hash of the file; `thresholds` holds the probability from
    which each class is reported.
    """

    name: str
    sha256: str
    analysed_at: datetime.datetime
    prediction: predict.Prediction
    thresholds: dict[str, float]
    segment: Segment
    timeline: Timeline | None
    condition: Condition | None
    model: PublishedModel

    @property
    def duration_s(self) -> float:
        """Length of the recording."""
        return self.prediction.duration_s

    @property
    def answer(self) -> str | None:
        """The instrument, or None when the model abstains."""
        return self.prediction.named[0] if self.prediction.named else None


def analyse(
    path: Path,
    model: PublishedModel,
    *,
    name: str | None = None,
    on_progress: Callable[[float, str], None] = lambda share, stage: None,
) -> Analysis:
    """Analyse a recording.

    Parameters
    ----------
    path : Path
        An audio file of at most `MAX_DURATION_S`.
    model : PublishedModel
        See `published.open_model`.
    name : str, optional
        Name to show; default the name of the file.
    on_progress : callable
        Receives the progress, 0 to 1, and the current stage.

    Raises
    ------
    AudioError
        If the file cannot be used or is too long.
    """
    path = Path(path)

    def part(first: float, share: float, stage: str) -> Callable[[float], None]:
        return lambda done: on_progress(first + share * done, stage)

    on_progress(0.0, "Reading the file")
    _check_size(path)
    sha256 = hash_file(path)
    prediction = predict.predict_file(path, model, on_progress=part(0.05, 0.3, "Classifying the instrument"))
    windows, played = _timeline(path, model, prediction.duration_s, part(0.35, 0.4, "Computing the timeline"))
    on_progress(0.75, "Computing the saliency map")
    segment = _segment(path, model, prediction, windows)
    on_progress(0.85, "Measuring the condition")
    return Analysis(
        name=path.name if name is None else name,
        sha256=sha256,
        analysed_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        prediction=prediction,
        thresholds=dict(zip(model.classes, model.single.thresholds.tolist(), strict=True)),
        segment=segment,
        timeline=played,
        condition=_condition(path, model),
        model=model,
    )


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """Return an analysis as values for JSON; see `FIELDS`."""
    prediction, played, condition = analysis.prediction, analysis.timeline, analysis.condition
    about = analysis.model.about
    short = ("study", "corpus", "network", "published_at", "commit", "n_tested", "scores")
    return {
        "file": {"name": analysis.name, "duration_s": analysis.duration_s, "sha256": analysis.sha256},
        "analysed_at": analysis.analysed_at.isoformat(),
        "answer": analysis.answer,
        "probabilities": dict(zip(prediction.classes, prediction.probabilities.tolist(), strict=True)),
        "thresholds": analysis.thresholds,
        "segment": {"start_s": analysis.segment.start_s, "duration_s": analysis.segment.config.segment_s},
        "timeline": played
        and {
            "instruments": played.instruments,
            "events": played.events.to_dict("records"),
            "window_s": played.window_s,
            "hop_s": played.hop_s,
            "scores": dict(zip(prediction.classes, np.round(played.scores.T, 4).tolist(), strict=True)),
        },
        "condition": condition and vars(condition),
        "features": analysis.segment.config.to_dict(),
        "model": {"name": analysis.model.name, **{name: about[name] for name in short}},
        "instrlib": instrlib.__version__,
        "fields": FIELDS,
    }


def to_json(analysis: Analysis) -> str:
    """Return `to_dict` as indented JSON."""
    return json.dumps(to_jsonable(to_dict(analysis)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def example_clip(folder: Path) -> Path:
    """Write a short tune for sampled violin (sine waves where no soundfont can be played) as example.wav."""
    import soundfile

    from instrlib.data.rendered import sampler, sources

    offset_s = _BEAT_S * np.cumsum([beats for _, beats in _TUNE])
    notes = np.array(
        [(end_s - _BEAT_S * beats, end_s, pitch, 90) for end_s, (pitch, beats) in zip(offset_s, _TUNE, strict=True)]
    )
    settings = {"program": _VIOLIN, "duration_s": float(offset_s[-1]), "sample_rate_hz": _EXAMPLE_RATE_HZ}
    try:
        signal = sampler.play(sources.find_soundfont(), notes, **settings)
    except CorpusError:
        signal = np.concatenate([_sine(end_s - onset_s, pitch) for onset_s, end_s, pitch, _ in notes])
    path = Path(folder) / "example.wav"
    with atomic_path(path) as temporary:
        soundfile.write(temporary, 0.7 * signal / np.abs(signal).max(), _EXAMPLE_RATE_HZ, subtype="PCM_16")
    return path


def _sine(duration_s: float, pitch: float) -> np.ndarray:
    """Return a decaying tone with ten harmonics."""
    time_s = np.arange(round(duration_s * _EXAMPLE_RATE_HZ)) / _EXAMPLE_RATE_HZ
    harmonic = np.arange(1, 11)[:, None]
    waves = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * harmonic * time_s)
    return (waves * np.exp(-(1 + harmonic) * time_s) / harmonic).sum(axis=0)


def _check_size(path: Path) -> None:
    info = decode.probe(path)
    if info.n_channels > MAX_CHANNELS:
        raise AudioError(f"{path}: {info.n_channels} channels, at most {MAX_CHANNELS} are supported; mix them down.")
    if info.duration_s > MAX_DURATION_S:
        raise AudioError(
            f"{path}: {info.duration_s / 60:.1f} minutes, at most {MAX_DURATION_S / 60:.0f} are supported; cut the "
            "file, or use `instrlib predict`, which has no limit."
        )


def _timeline(
    path: Path, model: PublishedModel, duration_s: float, on_progress: Callable[[float], None]
) -> tuple[predict.Windows, Timeline | None]:
    """Return the scored windows and, for a model with a timeline, the timeline."""
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
    listed = timeline.listed(windows, decision)
    instruments = tuple(label for label, there in zip(model.classes, listed, strict=True) if there)
    return windows, Timeline(windows.window_s, hop_s, scores, active, events, instruments)


def _segment(path: Path, model: PublishedModel, prediction: predict.Prediction, windows: predict.Windows) -> Segment:
    network = model.single
    config = network.features
    top = int(prediction.probabilities.argmax())
    # This cannot be a silent window, because silence has probability 0 for every class.
    start_s = float(windows.start_s[windows.probabilities[:, top].argmax()])
    signal = decode.load(path, sample_rate_hz=config.sample_rate_hz, start_s=start_s, duration_s=config.segment_s)
    level_db = features.extract(signal[: config.segment_samples], config)
    _, maps = predictor(network)(level_db[None])
    activation = None
    if maps is not None:
        activation = np.maximum(saliency.upsample(maps[0, :, :, top], saliency.Grid(**network.grid)), 0)
    return Segment(model.classes[top], start_s, config, level_db, activation)


def _condition(path: Path, model: PublishedModel) -> Condition | None:
    from instrlib.studies import condition

    if model.condition is None:
        return None
    rate_hz = model.single.features.sample_rate_hz
    # In blocks, because all channels at the rate of the file can need a hundred times the memory.
    signal = np.concatenate(list(decode.blocks(path, sample_rate_hz=rate_hz, block_s=10.0)))
    verdict, probabilities, measures = condition.verdict(signal, rate_hz, model.condition)
    return Condition(verdict, probabilities, measures, model.condition["recall"], model.condition["about"])
