"""What several test files share: an analysis that nobody made, and recordings to give to the page."""

import datetime
from pathlib import Path

import numpy as np
from trees import tone, write_audio

from instrlib.core.config import FeatureConfig
from instrlib.data.rendered import CLASSES
from instrlib.deploy import analysis
from instrlib.models import published
from instrlib.models.published import Prediction
from instrlib.studies import condition, timeline
from instrlib.studies.condition import MEASURES, measure

RATE_HZ = 22_050

ABOUT = {
    "study": "rendered-quick",
    "id": "1a2b3c4d",
    "corpus": {"title": "Phrases played by sampled instruments"},
    "network": "CutMix",
    "published_at": "2026-11-21T17:00:00+00:00",
    "commit": "0123456",
    "n_tested": 120,
    "scores": {"accuracy": {"estimate": 0.83, "low": 0.78, "high": 0.88}},
}
SIMULATED = "The labels are simulated: sounds were damaged by signal processing; no worn instrument was recorded."


def made_up_analysis(*, name: str = "take 1.wav", named: bool = True, n_frames: int = 24) -> analysis.Analysis:
    """Return an analysis of a recording that does not exist, with everything in it."""
    rng, config = np.random.default_rng(n_frames), FeatureConfig()
    probabilities, scores = np.full(12, 0.03), np.zeros((n_frames, 12))
    probabilities[6] = 0.67 if named else 0.2
    probabilities /= probabilities.sum()
    scores[:, 6], scores[n_frames // 3 : n_frames // 2, 2] = 0.9, 0.8
    active = scores > 0.5
    events = timeline.events(active, 1.0, CLASSES, scores=scores)
    network = published.Network(Path("single.tflite"), config, None, "softmax", 1.0, np.full(12, 0.45))
    return analysis.Analysis(
        name=name,
        sha256="ab" * 32,
        analysed_at=datetime.datetime(2026, 11, 21, 17, 3, tzinfo=datetime.UTC),
        prediction=Prediction(Path(name), float(n_frames), CLASSES, probabilities, ("piano",) if named else ()),
        start_s=5.0,
        level_db=rng.uniform(-80, 0, config.shape),
        activation=rng.uniform(0, 1, config.shape),
        timeline={"instruments": ("flute", "piano"), "window_s": 3.0, "hop_s": 1.0}
        | {"scores": scores, "active": active, "events": events},
        condition={
            "verdict": "healthy",
            "probabilities": {"healthy": 0.82, "aged": 0.13, "broken": 0.05},
            "measures": dict.fromkeys(MEASURES, 1.25) | {"inharmonicity": float("nan")},
            "recall": {"healthy": 0.52, "aged": 0.7, "broken": 0.9},
            "about": SIMULATED,
        },
        model=published.PublishedModel(Path("model"), CLASSES, network, None, None, ABOUT),
    )


def write_tone(path: Path, *, duration_s: float, pitch: int = 0, sample_rate_hz: int = 8000) -> Path:
    """Write a tone; see `trees.tone`."""
    write_audio(path, tone(2, pitch, duration_s, sample_rate_hz), sample_rate_hz)
    return path


def plain_model(**changes) -> dict:
    """A model that says broken when the harmonic-to-noise ratio is below that of the rows it was prepared with."""
    rng, time_s = np.random.default_rng(0), np.arange(44_100) / RATE_HZ
    tone_of_ten = np.sum([np.sin(2 * np.pi * 220 * number * time_s) / number for number in range(1, 11)], axis=0)
    rows = [tone_of_ten + level * rng.standard_normal(44_100) for level in (0.9, 0.28, 0.09, 0.028, 1e6)]
    preparation = condition.fit_inputs(np.array([list(measure(row, RATE_HZ).values()) for row in rows]))
    n_inputs = 2 * len(MEASURES) + len(condition.numbers(preparation["indicators"]))
    weights = np.zeros((n_inputs, 3))
    weights[list(MEASURES).index("harmonic_to_noise_db")] = (4.0, 0.0, -4.0)
    made = {"format": condition.FORMAT, "measures": " ".join(MEASURES), "sample_rate_hz": RATE_HZ, "segment_s": 1.0}
    made |= {"recall": {"healthy": 0.6, "aged": 0.7, "broken": 0.8}}
    linear = {"weights": condition.line(weights), "bias": condition.line(np.zeros(3)), "temperature": 1.0}
    return made | {"preparation": preparation} | linear | changes
