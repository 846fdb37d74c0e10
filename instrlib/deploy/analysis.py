"""The analysis of one recording: instrument, timeline, saliency and condition, as values, texts, figures and PDF."""

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import instrlib
from instrlib import charts
from instrlib.audio import decode, features
from instrlib.core.io import AudioError, hash_file, listed, spaced, to_jsonable
from instrlib.data import rendered
from instrlib.models import published
from instrlib.models.published import Prediction, PublishedModel, Windows, predictor
from instrlib.reporting.report import compiled, typeset
from instrlib.reporting.summary import text_of
from instrlib.studies import condition, saliency, timeline

MAX_DURATION_S = 600.0
"""Longer recordings cannot be shown in one figure; use `instrlib predict` for them."""

MAX_CHANNELS, MAX_EVENTS, MAX_BARS = 32, 16, 12
"""More channels do not fit into memory, more events and bars not onto the page."""


@dataclass(frozen=True)
class Analysis:
    """The analysis of one recording; timeline and condition are None if the model does not support them.

    `name` is shown and never used as a path. The segment that starts at `start_s` has the highest probability of the
    top class: its `level_db` [n_bins, n_frames] is relative to the loudest value; its class activation map `activation`
    has the same shape, or is None if the network has no maps. `timeline` has the `instruments` found, `window_s`,
    `hop_s`, `scores` and `active` [n_frames, n_classes], and the table `events` (label, start_s, end_s, intensity);
    `condition` is part of `to_json`.
    """

    name: str
    sha256: str
    analysed_at: datetime.datetime
    model: PublishedModel
    prediction: Prediction
    start_s: float
    level_db: np.ndarray
    activation: np.ndarray | None
    timeline: dict[str, Any] | None
    condition: dict[str, Any] | None


def analyse(
    path: Path, model: PublishedModel, *, on_progress: Callable[[float, str], None] = lambda share, stage: None
) -> Analysis:
    """Analyse a recording of at most `MAX_DURATION_S` and `MAX_CHANNELS`; otherwise raise `AudioError`.

    `on_progress` receives the progress, 0 to 1, and the current stage.
    """
    on_progress(0.0, "Reading the file")
    info = decode.probe(path)
    if info.n_channels > MAX_CHANNELS or info.duration_s > MAX_DURATION_S:
        raise AudioError(
            f"{path} has {info.duration_s / 60:.1f} minutes and {info.n_channels} channels; the limits are "
            f"{MAX_DURATION_S / 60:.0f} and {MAX_CHANNELS}. For longer recordings use `instrlib predict`."
        )
    prediction = published.predict_file(
        path, model, on_progress=lambda done: on_progress(0.05 + 0.3 * done, "Classifying the instrument")
    )
    windows, played = _timeline(
        path, model, prediction.duration_s, lambda done: on_progress(0.35 + 0.4 * done, "Computing the timeline")
    )
    on_progress(0.75, "Computing the saliency map")
    network, config, top = model.single, model.single.features, int(prediction.probabilities.argmax())
    # This cannot be a silent window, because silence has probability 0 for every class.
    start_s = float(windows.start_s[windows.probabilities[:, top].argmax()])
    signal = decode.load(path, sample_rate_hz=config.sample_rate_hz, start_s=start_s, duration_s=config.segment_s)
    level_db = features.extract(signal[: config.segment_samples], config)
    _, maps = predictor(network)(level_db[None])
    activation = None
    if maps is not None:
        activation = np.maximum(saliency.upsample(maps[0, :, :, top], saliency.Grid(**network.grid)), 0)
    on_progress(0.85, "Measuring the condition")
    judged = None
    if model.condition is not None:
        rate_hz = int(model.condition["sample_rate_hz"])
        # In blocks, because all channels at the rate of the file can need a hundred times the memory.
        signal = np.concatenate(list(decode.blocks(path, sample_rate_hz=rate_hz, block_s=10.0)))
        names, found = ("verdict", "probabilities", "measures"), condition.verdict(signal, model.condition)
        judged = dict(zip(names, found, strict=True)) | {name: model.condition[name] for name in ("recall", "about")}
    return Analysis(
        name=path.name,
        sha256=hash_file(path),
        analysed_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        model=model,
        prediction=prediction,
        start_s=start_s,
        level_db=level_db,
        activation=activation,
        timeline=played,
        condition=judged,
    )


def _timeline(
    path: Path, model: PublishedModel, duration_s: float, on_progress: Callable[[float], None]
) -> tuple[Windows, dict[str, Any] | None]:
    """Return the scored windows and, for a model with a timeline, the timeline."""
    chosen = model.about.get("timeline")
    if not chosen:
        return published.window_scores(path, model.single, on_progress=on_progress), None
    decision = timeline.Decision(**{field.name: chosen[field.name] for field in fields(timeline.Decision)})
    network, steps = getattr(model, chosen["network"]), {name: chosen[name] for name in ("hop_s", "window_s")}
    windows = published.window_scores(path, network, **steps, on_progress=on_progress)
    scores, active = timeline.frame_scores(windows), timeline.activity(windows, decision)
    hop_s = timeline.hop_s(windows)
    events = timeline.events(active, hop_s, model.classes, scores=scores)
    events["end_s"] = events.end_s.clip(upper=duration_s)
    instruments = tuple(np.array(model.classes)[np.asarray(timeline.listed(windows, decision), bool)].tolist())
    found = {"instruments": instruments, "window_s": windows.window_s, "hop_s": hop_s}
    return windows, found | {"scores": scores, "active": active, "events": events}


def to_json(analysis: Analysis) -> str:
    """Return an analysis as indented JSON; units are in the names, undefined numbers are null."""
    prediction, played, network = analysis.prediction, analysis.timeline, analysis.model.single
    short = ("study", "corpus", "network", "published_at", "commit", "n_tested", "scores")
    times = None
    if played is not None:
        times = {name: played[name] for name in ("instruments", "window_s", "hop_s")}
        times["events"] = played["events"].to_dict("records")
        times["scores"] = dict(zip(prediction.classes, np.round(played["scores"].T, 4), strict=True))
    values = {
        "file": {"name": analysis.name, "duration_s": prediction.duration_s, "sha256": analysis.sha256},
        "analysed_at": analysis.analysed_at.isoformat(),
        "answer": prediction.named[0] if prediction.named else None,
        "probabilities": dict(zip(prediction.classes, prediction.probabilities, strict=True)),
        "thresholds": dict(zip(prediction.classes, network.thresholds, strict=True)),
        "segment": {"start_s": analysis.start_s, "duration_s": network.features.segment_s},
        "timeline": times,
        "condition": analysis.condition,
        "features": network.features.to_dict(),
        "model": {"name": analysis.model.name, **{name: analysis.model.about[name] for name in short}},
        "instrlib": instrlib.__version__,
    }
    return json.dumps(to_jsonable(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def example_clip(folder: Path) -> Path:
    """Write three phrases of sampled violins as example.wav; `CorpusError` if no synthesiser is installed."""
    phrases = [rendered.render("violin", index, seed=1) for index in range(3)]  # none is in the corpus of the studies
    path = Path(folder) / "example.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(phrases), rendered.SAMPLE_RATE_HZ, subtype="PCM_16")
    return path


def drawn(analysis: Analysis) -> dict[str, str]:
    """Draw the segment with its saliency map, and the timeline if there is one; return SVG by name."""
    config, played, level_db = analysis.model.single.features, analysis.timeline, analysis.level_db
    activation = np.zeros_like(level_db) if analysis.activation is None else analysis.activation
    axes = {"start_s": analysis.start_s, "hop_s": config.hop_s, "frequencies_hz": features.mel_edges_hz(config)[1:-1]}
    figures = {"segment": charts.spectrograms(spectra=level_db[None], maps=activation[None], titles=[""], **axes)}
    if played is not None:
        shown = {name: played[name] for name in ("hop_s", "scores", "active")}
        classes, duration_s = np.array(analysis.prediction.classes), analysis.prediction.duration_s
        figures["timeline"] = charts.timeline(classes=classes, duration_s=duration_s, **shown)
    return {name: charts.svg(figure) for name, figure in figures.items()}


def content(analysis: Analysis) -> dict[str, Any]:
    """Return the texts of the page and the PDF."""
    prediction, model, config = analysis.prediction, analysis.model, analysis.model.single.features
    thresholds = dict(zip(prediction.classes, model.single.thresholds.tolist(), strict=True))
    times_s = analysis.start_s, prediction.duration_s
    start, length = ("{}:{:02}".format(*divmod(int(time_s + 0.5), 60)) for time_s in times_s)
    ranked = prediction.top(MAX_BARS)
    best, probability = ranked[0]
    name, confidence, threshold = spaced(best), percent(probability), percent(thresholds[best])
    known, played, when = bool(prediction.named), analysis.timeline, analysis.analysed_at
    answer = f"Most probable: {name}, {confidence} (reported from {threshold})."
    if not known:
        answer = f"The model abstains, because no instrument reaches its threshold. {answer}"
        if played is not None and len(played["instruments"]) > 1:
            answer += " The timeline below lists several instruments."
    seen = "class activation map in colour." if analysis.activation is not None else "no map for this network."
    return {
        "name": analysis.name,
        "facts": f"{length} min, analysed on {when:%d %B %Y at %H:%M} UTC",
        "date": [when.year, when.month, when.day],
        "headline": name.capitalize() if known else "None of these",
        "confidence": confidence if known else "",
        "sentence": answer,
        "bars": _bars(ranked, thresholds, known=known),
        "classes": [spaced(one) for one in prediction.classes],
        "timeline": None if played is None else _timeline_content(played),
        "segment": {
            "caption": f"The {config.segment_s:g} s from {start} with the highest probability "
            f"of {name}: spectrogram in grey, {seen}",
            "alt": f"Spectrogram from {start} with the class activation map of {name}",
        },
        "condition": None if analysis.condition is None else _condition_content(analysis.condition),
        "method": [
            ("model", f"{model.name}, published {model.about['published_at'][:10]}"),
            ("performance", model.performance),
            (
                "features",
                f"segments of {config.segment_s:g} s at {config.sample_rate_hz:,} Hz; {config.n_mels} mel bands from "
                f"{config.fmin_hz:g} to {config.fmax_hz:,.0f} Hz, {config.top_db:g} dB",
            ),
            ("file", f"SHA-256 {analysis.sha256[:32]}…"),
            ("program", f"instrlib {instrlib.__version__}"),
        ],
    }


def pdf(analysis: Analysis, figures: dict[str, str], **output: Any) -> Any:
    """Return a PDF of one or two A4 pages, with equal bytes for equal analyses; `output` as for `typst.compile`."""
    data = content(analysis)
    for part, figure in figures.items():
        data[part]["svg"] = figure
    return compiled("analysis.typ", data, timestamp=analysis.analysed_at, **output)


def percent(share: float) -> str:
    """Return a probability in per cent, never as 0 or 100 %."""
    text = "> 99 %" if share > 0.99 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _bars(ranked: list[tuple[str, float]], thresholds: dict[str, float], *, known: bool) -> list[dict[str, Any]]:
    """Return the bars of probabilities; the first one is emphasised where it is `known`."""
    bars = [
        {"name": spaced(name), "share": share, "percent": percent(share), "threshold": thresholds.get(name)}
        for name, share in ranked
    ]
    return [bar | {"strong": known and bar is bars[0]} for bar in bars]


def _timeline_content(played: dict[str, Any]) -> dict[str, Any]:
    found = [spaced(label) for label in played["instruments"]]
    unplaced = [spaced(label) for label in played["instruments"] if label not in set(played["events"].label)]
    sentence = f"Found in the recording: {listed(found)}." if found else "No instrument reaches its threshold."
    if unplaced:
        sentence += f" No time could be given for {listed(unplaced)}."
    events = [
        [spaced(row.label), f"{row.start_s:.1f}", f"{row.end_s:.1f}", f"{row.intensity:.2f}"]
        for row in played["events"].sort_values(["start_s", "label"]).itertuples()
    ]
    left = len(events) - MAX_EVENTS
    return {
        "sentence": sentence,
        "caption": "Windows of {window_s:g} s, one every {hop_s:g} s; darker means a higher score.".format(**played),
        "alt": "Timeline: " + ("; ".join(f"{name} {start} to {end} s" for name, start, end, _ in events) or "nothing"),
        "events": events[:MAX_EVENTS],
        "more": f"{left} more in the JSON file." if left > 0 else "",
    }


def _condition_content(found: dict[str, Any]) -> dict[str, Any]:
    verdict, probabilities, measures = found["verdict"], found["probabilities"], to_jsonable(found["measures"])
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    return {
        "sentence": f"Condition: {verdict}, {percent(probabilities[verdict])}.",
        "bars": _bars(ranked, {}, known=True),
        "caution": f"{percent(1 - found['recall']['healthy'])} of the healthy test clips were classified as damaged.",
        "measures": [(condition.MEASURES[name], typeset(text_of(value))) for name, value in measures.items()],
        "about": found["about"],
    }
