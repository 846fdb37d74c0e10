"""What is shown of an analysis: its words and figures, for the page, and as a sheet of one or two pages of PDF.

The PDF is made by typst inside this process: without TeX, without the network, with the fonts that typst carries.
"""

import importlib.resources
import json
from typing import TYPE_CHECKING, Any

import numpy as np

import instrlib
from instrlib import plots
from instrlib.core.words import listed, spaced
from instrlib.studies.cam import band_centres_hz
from instrlib.studies.condition import LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from instrlib.deploy.analysis import Analysis, Condition
    from instrlib.models.published import PublishedModel

NARROW = 3.7
"""Width of a figure for a phone, in inches."""

MAX_EVENTS = 16
"""So many entries are listed; all of them stand in the JSON file."""

MAX_BARS = 12
TOP = 3


def drawn(analysis: "Analysis", *, width: float = plots.WIDTH) -> dict[str, "Figure"]:
    """Draw the timeline and the segment that the answer rests on.

    Parameters
    ----------
    analysis : Analysis
        From `analysis.analyse`.
    width : float
        In inches; `NARROW` for a phone.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        "segment", and "timeline" where there is one.
    """
    segment = analysis.segment
    activation = np.zeros_like(segment.level_db) if segment.activation is None else segment.activation
    made = {
        "segment": plots.listened_to(
            picture=segment.level_db,
            activation=activation,
            start_s=segment.start_s,
            hop_s=segment.config.hop_s,
            mel_frequencies_hz=band_centres_hz(segment.config),
            width=width,
        )
    }
    if analysis.timeline is not None:
        made["timeline"] = plots.timeline(
            classes=np.array(analysis.prediction.classes),
            hop_s=analysis.timeline.hop_s,
            scores=analysis.timeline.scores,
            active=analysis.timeline.active,
            duration_s=analysis.duration_s,
            width=width,
        )
    return made


def as_svg(figures: dict[str, "Figure"]) -> dict[str, str]:
    """Return figures as SVG, for the page and the PDF."""
    return {name: plots.svg(figure) for name, figure in figures.items()}


def content(analysis: "Analysis") -> dict[str, Any]:
    """Put an analysis into words, for the page and the sheet alike.

    Parameters
    ----------
    analysis : Analysis
        From `analysis.analyse`.

    Returns
    -------
    dict
        Texts, and lists of texts; `bars` have a share from 0 to 1.
    """
    prediction, segment = analysis.prediction, analysis.segment
    answered = analysis.answer is not None
    ranked = np.argsort(-prediction.probabilities, kind="stable").tolist()
    best = prediction.classes[ranked[0]]
    return {
        "name": analysis.name,
        "facts": f"{clock(analysis.duration_s)} min, analysed on {analysis.analysed_at:%d %B %Y at %H:%M} UTC",
        "date_parts": {part: getattr(analysis.analysed_at, part) for part in ("year", "month", "day")},
        "headline": spaced(analysis.answer).capitalize() if answered else "None of these",
        "confidence": percent(float(prediction.probabilities[ranked[0]])) if answered else "",
        "sentence": _answer_sentence(analysis, best, float(prediction.probabilities[ranked[0]])),
        "bars": [
            _bar(
                prediction.classes[row], float(prediction.probabilities[row]), analysis, strong=place == 0 and answered
            )
            for place, row in enumerate(ranked[:MAX_BARS])
        ],
        "timeline": _timeline_words(analysis),
        "segment": {
            "caption": f"The {segment.config.segment_s:g} s from {clock(segment.start_s)} on, in which {spaced(best)} "
            "shows most clearly: sound in grey, what speaks for the answer in colour"
            + ("." if segment.activation is not None else " (this network has no such map)."),
            "alt": f"Spectrogram of the segment from {clock(segment.start_s)} on, with the map of {spaced(best)}",
        },
        "condition": _condition_words(analysis.condition),
        "model": _model_rows(analysis.model),
        "settings": _settings_rows(analysis),
    }


def pdf(analysis: "Analysis", figures: dict[str, str]) -> bytes:
    """Write the sheet of an analysis as PDF.

    The same analysis gives the same bytes: the date is that of the analysis, the fonts are typst's own.

    Parameters
    ----------
    analysis : Analysis
        From `analysis.analyse`.
    figures : dict of str to str
        What `drawn` gives, as SVG.

    Returns
    -------
    bytes
        One or two pages of A4.
    """
    return _compiled(analysis, figures, format="pdf")


def pages(analysis: "Analysis", figures: dict[str, str]) -> list[bytes]:
    """Return the pages of that sheet as PNG pictures."""
    made = _compiled(analysis, figures, format="png", ppi=110.0)
    return made if isinstance(made, list) else [made]


def percent(share: float) -> str:
    r"""Return a probability as it is read, without a place to break it; none is called certain or impossible.

    Examples
    --------
    >>> [percent(share).replace("\N{NO-BREAK SPACE}", "~") for share in (0.873, 0.9996, 0.0004)]
    ['87~%', '>~99~%', '<~1~%']
    """
    text = "> 99 %" if share > 0.99 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def clock(time_s: float) -> str:
    """Return a time in a recording as minutes and seconds.

    Examples
    --------
    >>> clock(0), clock(83.4), clock(600)
    ('0:00', '1:23', '10:00')
    """
    return f"{int(time_s + 0.5) // 60}:{int(time_s + 0.5) % 60:02d}"


def _answer_sentence(analysis: "Analysis", best: str, probability: float) -> str:
    threshold = percent(analysis.thresholds[best])
    if analysis.answer:
        return (
            f"The recording sounds most like {spaced(best)}: {percent(probability)} probable. "
            f"It is named because that is at least {threshold}."
        )
    several = analysis.timeline is not None and len(analysis.timeline.instruments) > 1
    return (
        f"No single instrument reaches its threshold. The nearest is {spaced(best)} with {percent(probability)}; it "
        f"would be named from {threshold} on." + (" Several were found one by one, see below." if several else "")
    )


def _bar(name: str, share: float, analysis: "Analysis", *, strong: bool) -> dict[str, Any]:
    return {
        "name": spaced(name),
        "share": share,
        "percent": percent(share),
        "threshold": analysis.thresholds[name],
        "strong": strong,
    }


def _timeline_words(analysis: "Analysis") -> dict[str, Any] | None:
    timeline = analysis.timeline
    if timeline is None:
        return None
    found = [spaced(label) for label in timeline.instruments]
    silent = [spaced(label) for label in timeline.instruments if label not in set(timeline.events.label)]
    when = f" When {listed(silent)} can be heard could not be told." if silent else ""
    sentence = f"Found in the recording: {listed(found)}.{when}" if found else "No instrument was found for certain."
    events = [
        [spaced(row.label), f"{row.start_s:.1f}", f"{row.end_s:.1f}", f"{row.intensity:.2f}"]
        for row in timeline.events.sort_values(["start_s", "label"]).itertuples()
    ]
    left = len(events) - MAX_EVENTS
    return {
        "sentence": sentence,
        "caption": f"Windows of {timeline.window_s:g} s, one every {timeline.hop_s:g} s; the darker, the surer.",
        "alt": "Timeline: " + ("; ".join(f"{name} {start} to {end} s" for name, start, end, _ in events) or "nothing"),
        "events": events[:MAX_EVENTS],
        "more": f"{left} more stand in the JSON file." if left > 0 else "",
    }


def _condition_words(condition: "Condition | None") -> dict[str, Any] | None:
    if condition is None:
        return None
    ranked = sorted(condition.probabilities.items(), key=lambda pair: -pair[1])
    return {
        "verdict": condition.verdict,
        "sentence": f"It sounds {condition.verdict}: {percent(condition.probabilities[condition.verdict])} probable.",
        "bars": [
            {"name": name, "share": share, "percent": percent(share), "threshold": None, "strong": place == 0}
            for place, (name, share) in enumerate(ranked)
        ],
        "caution": (
            f"Of healthy test clips, {percent(1 - condition.recall['healthy'])} were called damaged, that is aged or "
            "broken."
        ),
        "measures": [(LABELS[name], _number(value)) for name, value in condition.measures.items()],
        "about": condition.about,
    }


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def _model_rows(model: "PublishedModel") -> list[tuple[str, str]]:
    about = model.about
    accuracy = about["scores"]["accuracy"]
    ends = "" if accuracy["low"] is None else f" [{accuracy['low']:.2f}, {accuracy['high']:.2f}]"
    return [
        ("model", f"{model.name}, published {about['published_at'][:10]}"),
        ("trained on", about["corpus"]["title"]),
        (
            "accuracy",
            f"{accuracy['estimate']:.2f}{ends} on {about['n_tested']} clips of the same corpus that were held out"
            f"{' (95 % interval)' if ends else ''}",
        ),
    ]


def _settings_rows(analysis: "Analysis") -> list[tuple[str, str]]:
    config = analysis.segment.config
    return [
        (
            "listens to",
            f"segments of {config.segment_s:g} s at {config.sample_rate_hz:,} Hz; {config.n_mels} mel bands from "
            f"{config.fmin_hz:g} to {config.fmax_hz:,.0f} Hz, {config.top_db:g} dB deep",
        ),
        ("file", f"SHA-256 {analysis.sha256[:32]}…"),
        ("program", f"instrlib {instrlib.__version__}"),
    ]


def _compiled(analysis: "Analysis", figures: dict[str, str], **output: Any) -> Any:
    import typst

    data = {
        **content(analysis),
        "title": _shortened(analysis.name),
        "document_title": f"Instrument recognition: {analysis.name}",
        "kind": "Analysis of a recording",
        "footer": f"instrlib {instrlib.__version__}, musical instrument recognition",
        "bars_note": f"Calibrated probabilities{_of_more(analysis)}. The most probable instrument is named when "
        "it reaches its mark.",
        "limits": "A program's estimate, not an expert's. It knows these instruments alone: "
        f"{listed(spaced(name) for name in analysis.prediction.classes)}.",
    }
    for name in ("timeline", "segment"):
        if data[name] is not None:
            data[name]["svg"] = figures[name]
    template = importlib.resources.files(instrlib) / "templates" / "sheet.typ"
    return typst.compile(
        template.read_bytes(),
        sys_inputs={"data": json.dumps(data)},
        ignore_system_fonts=True,
        timestamp=analysis.analysed_at,
        **output,
    )


def _shortened(name: str, *, longest: int = 44) -> str:
    """Cut a name in its middle: its beginning says what it is, its end of what kind."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


def _of_more(analysis: "Analysis") -> str:
    left = len(analysis.prediction.classes) - MAX_BARS
    return f", the {MAX_BARS} highest of {MAX_BARS + left}" if left > 0 else "; they add up to 100 %"
