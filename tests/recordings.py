"""What several test files share: an analysis that nobody made, and recordings to give to the page."""

import datetime
from pathlib import Path

import numpy as np
from trees import tone, write_audio

from instrlib.core.config import FeatureConfig
from instrlib.data.rendered import CLASSES
from instrlib.deploy import analysis
from instrlib.models import published
from instrlib.studies import condition, timeline

RATE_HZ = 22_050

ABOUT = {"study": "rendered-quick", "id": "1a2b3c4d", "network": "CutMix", "commit": "0123456", "n_tested": 120}
ABOUT |= {"published_at": "2026-11-21T17:00:00+00:00", "corpus": {"title": "Phrases played by sampled instruments"}}
ABOUT |= {"scores": {"accuracy": {"estimate": 0.83, "low": 0.78, "high": 0.88}}}
SIMULATED = "The labels are simulated: sounds were damaged by signal processing; no worn instrument was recorded."


def made_up_analysis(
    *, name: str = "take 1.wav", named: bool = True, scores: np.ndarray | None = None
) -> analysis.Analysis:
    """Return an analysis of a recording that does not exist, with everything in it."""
    rng, config, probabilities = np.random.default_rng(0), FeatureConfig(), np.full(12, 0.03)
    probabilities[6] = 0.67 if named else 0.2
    probabilities /= probabilities.sum()
    if scores is None:
        scores = np.zeros((24, 12))
        scores[:, 6], scores[8:12, 2] = 0.9, 0.8
    active, answer = scores > 0.5, ("piano",) if named else ()
    events = timeline.events(active, 1.0, CLASSES, scores=scores)
    network = published.Network(Path("single.tflite"), config, None, "softmax", 1.0, np.full(12, 0.45))
    return analysis.Analysis(
        name=name,
        sha256="ab" * 32,
        analysed_at=datetime.datetime(2026, 11, 21, 17, 3, tzinfo=datetime.UTC),
        prediction=published.Prediction(Path(name), float(len(scores)), CLASSES, probabilities, answer),
        start_s=5.0,
        level_db=rng.uniform(-80, 0, config.shape),
        activation=rng.uniform(0, 1, config.shape),
        timeline={"instruments": tuple(events.label.unique()), "window_s": 3.0, "hop_s": 1.0}
        | {"scores": scores, "active": active, "events": events},
        condition={
            "verdict": "healthy",
            "probabilities": {"healthy": 0.82, "aged": 0.13, "broken": 0.05},
            "measures": dict.fromkeys(condition.MEASURES, 1.25) | {"inharmonicity": float("nan")},
            "recall": {"healthy": 0.52, "aged": 0.7, "broken": 0.9},
            "about": SIMULATED,
        },
        model=published.PublishedModel(Path("model"), CLASSES, network, None, None, ABOUT),
    )


def write_tone(path: Path, *, duration_s: float, pitch: int = 0, sample_rate_hz: int = 8000) -> Path:
    write_audio(path, tone(2, pitch, duration_s, sample_rate_hz), sample_rate_hz)
    return path


def plain_model(**changes) -> dict:
    """A model that says healthy above a harmonic-to-noise ratio of 17 dB, and broken below."""
    n, weights = len(condition.MEASURES), np.zeros((2 * len(condition.MEASURES), 3))
    weights[list(condition.MEASURES).index("harmonic_to_noise_db")] = (4.0, 0.0, -4.0)
    made = {"format": condition.FORMAT, "measures": " ".join(condition.MEASURES), "sample_rate_hz": RATE_HZ}
    made |= {"segment_s": 1.0, "recall": {"healthy": 0.6, "aged": 0.7, "broken": 0.8}, "temperature": 1.0}
    numbers = {"median": np.zeros(n), "mean": np.full(n, 17.0), "deviation": np.full(n, 10.0), "indicators": []}
    made["preparation"] = {name: condition.line(values) for name, values in numbers.items()}
    return made | {"weights": condition.line(weights), "bias": condition.line(np.zeros(3))} | changes
