"""The PDF of an analysis: one or two pages, the same for the same analysis, with every text as it is."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from recordings import CLASSES, SIMULATED, made_up_analysis

from instrlib.deploy import analysis
from instrlib.studies import timeline

typst = pytest.importorskip("typst")


def pages(found) -> list[np.ndarray]:
    """Return the pages in grey."""
    made = analysis.pdf(found, analysis.drawn(found), format="png")
    return [
        np.asarray(Image.open(io.BytesIO(one)).convert("L")) for one in (made if isinstance(made, list) else [made])
    ]


def test_the_same_analysis_gives_the_same_pdf_of_two_a4_pages():
    first, again = (analysis.pdf(found, analysis.drawn(found)) for found in (made_up_analysis(), made_up_analysis()))
    assert first.startswith(b"%PDF-") and first == again
    both = pages(made_up_analysis())
    assert len(both) == 2
    for page in both:
        assert page.shape[0] / page.shape[1] == pytest.approx(297 / 210, rel=0.01)
        assert (page < 128).mean() > 0.005, "a blank page"


def test_a_busy_recording_with_a_long_name_takes_two_pages():
    rng = np.random.default_rng(0)
    active, scores = rng.random((600, 12)) > 0.7, rng.random((600, 12))
    busy = made_up_analysis(name="long " * 30 + ".wav", n_frames=600)
    events = timeline.events(active, 1.0, CLASSES, scores=scores)
    everyone = dataclasses.replace(busy.timeline, active=active, scores=scores, events=events, instruments=CLASSES)
    busy = dataclasses.replace(busy, timeline=everyone)
    assert len(pages(busy)) == 2
    found = analysis.content(busy)["timeline"]
    assert len(found["events"]) == analysis.MAX_EVENTS and str(len(events) - analysis.MAX_EVENTS) in found["more"]


@pytest.mark.parametrize(
    "name", ['#panic("x") *bold', "$x _y_ `code", "= heading\n<label> @ref", "// \\ \u202e \U0001f3bb", ""]
)
def test_a_name_is_text_and_never_markup(name, monkeypatch):
    """Each of these, read as markup, would stop typst or be set as something else."""
    found = made_up_analysis(name=name)
    figures = analysis.drawn(found)
    assert analysis.pdf(found, figures).startswith(b"%PDF-")

    def title(template: bytes, *, sys_inputs: dict[str, str], **_) -> str:
        return typst.query(template, "heading.where(level: 1)", field="body", sys_inputs=sys_inputs)

    monkeypatch.setattr(typst, "compile", title)
    (set_as,) = json.loads(analysis.pdf(found, figures))
    assert set_as["child"] == {"func": "text", "text": name}


def test_without_timeline_map_and_condition_it_is_one_page():
    plain = dataclasses.replace(made_up_analysis(), timeline=None, condition=None, activation=None)
    assert set(analysis.drawn(plain)) == {"segment"} and len(pages(plain)) == 1


def test_the_texts_hold_the_numbers_of_the_analysis():
    found = analysis.content(made_up_analysis())
    share = "67\N{NO-BREAK SPACE}%"
    assert (found["headline"], found["confidence"]) == ("Piano", share)
    first = {"name": "piano", "share": pytest.approx(0.67), "percent": share, "threshold": 0.45, "strong": True}
    assert found["bars"][0] == first
    assert found["timeline"]["events"] == [["piano", "0.0", "24.0", "0.90"], ["flute", "8.0", "12.0", "0.80"]]
    assert all(label in found["timeline"]["sentence"] for label in ("flute", "piano"))
    condition, method = found["condition"], dict(found["method"])
    assert all(one in condition["sentence"] for one in ("healthy", "82")) and "48" in condition["caution"]
    assert condition["about"] == SIMULATED and dict(condition["measures"])["inharmonicity B"] == "–"
    assert "2026-11-21" in method["model"] and all(one in method["performance"] for one in ("0.83", "0.78", "0.88"))
    unnamed = analysis.content(made_up_analysis(named=False))
    assert unnamed["confidence"] == "" and not any(bar["strong"] for bar in unnamed["bars"])
    assert all(one in unnamed["sentence"] for one in ("piano", "38", "45"))
    shown = [analysis.percent(one).replace("\N{NO-BREAK SPACE}", "") for one in (0.9996, 0.0004)]
    assert shown == [">99%", "<1%"], "never 0 or 100 %"
