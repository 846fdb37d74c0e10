"""Texts and figures of an analysis for the web page and the PDF, and the PDF itself, made with typst."""

import importlib.resources
import json
from typing import TYPE_CHECKING, Any

import numpy as np

import instrlib
from instrlib import charts
from instrlib.core.io import listed, spaced
from instrlib.studies.condition import MEASURES
from instrlib.studies.saliency import band_centres_hz

if TYPE_CHECKING:
    from instrlib.deploy.analysis import Analysis, Condition

NARROW = 3.7
"""Width of a figure for a phone, inches."""

MAX_EVENTS = 16
MAX_BARS = 12
TOP = 3


def drawn(analysis: "Analysis", *, width: float = charts.WIDTH) -> dict[str, str]:
    """Draw the segment with its saliency map, and the timeline if there is one; return SVG by name."""
    segment, played = analysis.segment, analysis.timeline
    figures = {
        "segment": charts.spectrograms(
            spectra=segment.level_db[None],
            maps=(np.zeros_like(segment.level_db) if segment.activation is None else segment.activation)[None],
            titles=[""],
            start_s=segment.start_s,
            hop_s=segment.config.hop_s,
            frequencies_hz=band_centres_hz(segment.config),
            width=width,
        )
    }
    if played is not None:
        figures["timeline"] = charts.timeline(
            classes=np.array(analysis.prediction.classes),
            hop_s=played.hop_s,
            scores=played.scores,
            active=played.active,
            duration_s=analysis.duration_s,
            width=width,
        )
    return {name: charts.svg(figure) for name, figure in figures.items()}


def content(analysis: "Analysis") -> dict[str, Any]:
    """Return the texts of the page and the PDF."""
    prediction, segment, model, config = analysis.prediction, analysis.segment, analysis.model, analysis.segment.config
    ranked = prediction.top(MAX_BARS)
    best, probability = ranked[0]
    known = analysis.answer is not None
    return {
        "name": analysis.name,
        "facts": f"{clock(analysis.duration_s)} min, analysed on {analysis.analysed_at:%d %B %Y at %H:%M} UTC",
        "date_parts": {part: getattr(analysis.analysed_at, part) for part in ("year", "month", "day")},
        "headline": spaced(best).capitalize() if known else "None of these",
        "confidence": percent(probability) if known else "",
        "sentence": _answer(analysis, best, probability),
        "bars": [
            _bar(name, share, analysis.thresholds[name], strong=known and place == 0)
            for place, (name, share) in enumerate(ranked)
        ],
        "timeline": _timeline(analysis),
        "segment": {
            "caption": f"The {config.segment_s:g} s from {clock(segment.start_s)} with the highest probability "
            f"of {spaced(best)}: spectrogram in grey, "
            + ("class activation map in colour." if segment.activation is not None else "no map for this network."),
            "alt": f"Spectrogram from {clock(segment.start_s)} with the class activation map of {spaced(best)}",
        },
        "condition": _condition(analysis.condition),
        "model": [
            ("model", f"{model.name}, published {model.about['published_at'][:10]}"),
            ("performance", model.performance),
        ],
        "settings": [
            (
                "features",
                f"segments of {config.segment_s:g} s at {config.sample_rate_hz:,} Hz; {config.n_mels} mel bands from "
                f"{config.fmin_hz:g} to {config.fmax_hz:,.0f} Hz, {config.top_db:g} dB",
            ),
            ("file", f"SHA-256 {analysis.sha256[:32]}…"),
            ("program", f"instrlib {instrlib.__version__}"),
        ],
    }


def pdf(analysis: "Analysis", figures: dict[str, str]) -> bytes:
    """Return the analysis as a PDF of one or two A4 pages; the same analysis gives the same bytes."""
    return _compiled(analysis, figures, format="pdf")


def pages(analysis: "Analysis", figures: dict[str, str]) -> list[bytes]:
    """Return the pages of that PDF as PNG."""
    made = _compiled(analysis, figures, format="png", ppi=110.0)
    return made if isinstance(made, list) else [made]


def percent(share: float) -> str:
    r"""Return a probability in per cent, never as 0 or 100 %.

    Examples
    --------
    >>> [percent(share).replace("\N{NO-BREAK SPACE}", "~") for share in (0.873, 0.9996, 0.0004)]
    ['87~%', '>~99~%', '<~1~%']
    """
    text = "> 99 %" if share > 0.99 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def clock(time_s: float) -> str:
    """Return seconds as minutes and seconds.

    Examples
    --------
    >>> clock(83.4), clock(600)
    ('1:23', '10:00')
    """
    return f"{int(time_s + 0.5) // 60}:{int(time_s + 0.5) % 60:02d}"


def _answer(analysis: "Analysis", best: str, probability: float) -> str:
    threshold = percent(analysis.thresholds[best])
    if analysis.answer:
        return f"Most probable: {spaced(best)}, {percent(probability)} (reported from {threshold})."
    several = analysis.timeline is not None and len(analysis.timeline.instruments) > 1
    return (
        f"The model abstains, because no instrument reaches its threshold. The most probable is {spaced(best)} with "
        f"{percent(probability)}, reported from {threshold}."
        + (" The timeline below lists several instruments." if several else "")
    )


def _bar(name: str, share: float, threshold: float | None, *, strong: bool) -> dict[str, Any]:
    return {"name": spaced(name), "share": share, "percent": percent(share), "threshold": threshold, "strong": strong}


def _timeline(analysis: "Analysis") -> dict[str, Any] | None:
    played = analysis.timeline
    if played is None:
        return None
    found = [spaced(label) for label in played.instruments]
    unplaced = [spaced(label) for label in played.instruments if label not in set(played.events.label)]
    sentence = f"Found in the recording: {listed(found)}." if found else "No instrument reaches its threshold."
    if unplaced:
        sentence += f" No time could be given for {listed(unplaced)}."
    events = [
        [spaced(row.label), f"{row.start_s:.1f}", f"{row.end_s:.1f}", f"{row.intensity:.2f}"]
        for row in played.events.sort_values(["start_s", "label"]).itertuples()
    ]
    left = len(events) - MAX_EVENTS
    return {
        "sentence": sentence,
        "caption": f"Windows of {played.window_s:g} s, one every {played.hop_s:g} s; darker means a higher score.",
        "alt": "Timeline: " + ("; ".join(f"{name} {start} to {end} s" for name, start, end, _ in events) or "nothing"),
        "events": events[:MAX_EVENTS],
        "more": f"{left} more in the JSON file." if left > 0 else "",
    }


def _condition(condition: "Condition | None") -> dict[str, Any] | None:
    if condition is None:
        return None
    ranked = sorted(condition.probabilities.items(), key=lambda pair: -pair[1])
    return {
        "verdict": condition.verdict,
        "sentence": f"Condition: {condition.verdict}, {percent(condition.probabilities[condition.verdict])}.",
        "bars": [_bar(name, share, None, strong=place == 0) for place, (name, share) in enumerate(ranked)],
        "caution": f"{percent(1 - condition.recall['healthy'])} of the healthy test clips were classified as damaged.",
        "measures": [(MEASURES[name], _number(value)) for name, value in condition.measures.items()],
        "about": condition.about,
    }


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def _compiled(analysis: "Analysis", figures: dict[str, str], **output: Any) -> Any:
    import typst

    classes, name = analysis.prediction.classes, analysis.name
    more = len(classes) - MAX_BARS
    data = {
        **content(analysis),
        "title": name if len(name) <= 44 else f"{name[:22]}…{name[-21:]}",
        "document_title": f"Instrument recognition: {name}",
        "kind": "Analysis of a recording",
        "footer": f"instrlib {instrlib.__version__}, musical instrument recognition",
        "bars_note": f"Calibrated probabilities{f', the {MAX_BARS} highest of {len(classes)}' if more > 0 else ''}. "
        "The mark shows the threshold from which an instrument is reported.",
        "limits": f"An estimate by a program that knows only these classes: {listed(spaced(one) for one in classes)}.",
    }
    for part in ("timeline", "segment"):
        if data[part] is not None:
            data[part]["svg"] = figures[part]
    template = importlib.resources.files(instrlib) / "templates" / "sheet.typ"
    return typst.compile(
        template.read_bytes(),
        sys_inputs={"data": json.dumps(data)},
        ignore_system_fonts=True,
        timestamp=analysis.analysed_at,
        **output,
    )
