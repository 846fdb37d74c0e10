"""The PDF of an analysis: one or two pages, the same for the same analysis, with every text as it is."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from recordings import CLASSES, SIMULATED, made_up_analysis

from instrlib.deploy import pdf
from instrlib.studies import timeline

typst = pytest.importorskip("typst")


@pytest.fixture(scope="module")
def analysis():
    return made_up_analysis()


@pytest.fixture(scope="module")
def figures(analysis):
    return pdf.drawn(analysis)


def test_the_same_analysis_gives_the_same_pdf_of_two_a4_pages(analysis, figures):
    first = pdf.pdf(analysis, figures)
    assert first.startswith(b"%PDF-") and first == pdf.pdf(analysis, pdf.drawn(analysis))
    pages = [Image.open(io.BytesIO(page)).convert("L") for page in pdf.pages(analysis, figures)]
    assert len(pages) == 2
    for page in pages:
        assert page.height / page.width == pytest.approx(297 / 210, rel=0.01)
        assert (np.asarray(page) < 128).mean() > 0.005, "a blank page"


def test_a_busy_recording_with_a_long_name_takes_two_pages():
    rng = np.random.default_rng(0)
    active, scores = rng.random((600, 12)) > 0.7, rng.random((600, 12))
    busy = made_up_analysis(name="long " * 30 + ".wav", n_frames=600)
    events = timeline.events(active, 1.0, CLASSES, scores=scores)
    everyone = dataclasses.replace(busy.timeline, active=active, scores=scores, events=events, instruments=CLASSES)
    busy = dataclasses.replace(busy, timeline=everyone)
    assert len(pdf.pages(busy, pdf.drawn(busy))) == 2
    found = pdf.content(busy)["timeline"]
    assert len(found["events"]) == pdf.MAX_EVENTS and str(len(events) - pdf.MAX_EVENTS) in found["more"]


@pytest.mark.parametrize(
    "name", ['#panic("x") *bold', "$x _y_ `code", "= heading\n<label> @ref", "// \\ \u202e \U0001f3bb", ""]
)
def test_a_name_is_text_and_never_markup(name, figures, monkeypatch):
    """Each of these, read as markup, would stop typst or be set as something else."""
    assert pdf.pdf(made_up_analysis(name=name), figures).startswith(b"%PDF-")

    def title(template: bytes, *, sys_inputs: dict[str, str], **_) -> str:
        return typst.query(template, "heading.where(level: 1)", field="body", sys_inputs=sys_inputs)

    monkeypatch.setattr(typst, "compile", title)
    (set_as,) = json.loads(pdf.pdf(made_up_analysis(name=name), figures))
    assert set_as["child"] == {"func": "text", "text": name}


def test_without_timeline_map_and_condition_it_is_one_page(analysis):
    segment = dataclasses.replace(analysis.segment, activation=None)
    plain = dataclasses.replace(analysis, timeline=None, condition=None, segment=segment)
    figures = pdf.drawn(plain)
    assert set(figures) == {"segment"} and len(pdf.pages(plain, figures)) == 1


def test_the_texts_hold_the_numbers_of_the_analysis(analysis):
    found = pdf.content(analysis)
    share = "67\N{NO-BREAK SPACE}%"
    assert (found["headline"], found["confidence"]) == ("Piano", share)
    first = {"name": "piano", "share": pytest.approx(0.67), "percent": share, "threshold": 0.45, "strong": True}
    assert found["bars"][0] == first
    assert found["timeline"]["events"] == [["piano", "0.0", "24.0", "0.90"], ["flute", "8.0", "12.0", "0.80"]]
    assert all(label in found["timeline"]["sentence"] for label in ("flute", "piano"))
    condition, model = found["condition"], dict(found["model"])
    assert condition["verdict"] == "healthy" and "82" in condition["sentence"] and "48" in condition["caution"]
    assert condition["about"] == SIMULATED and dict(condition["measures"])["inharmonicity B"] == "–"
    assert "2026-11-21" in model["model"] and all(one in model["performance"] for one in ("0.83", "0.78", "0.88"))
    unnamed = pdf.content(made_up_analysis(named=False))
    assert unnamed["confidence"] == "" and not any(bar["strong"] for bar in unnamed["bars"])
    assert all(one in unnamed["sentence"] for one in ("piano", "38", "45"))
