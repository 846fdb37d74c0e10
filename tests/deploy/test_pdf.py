"""The sheet is a PDF of one or two pages, the same for the same analysis, and takes every text as it is."""

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
    return svg(analysis)


def svg(analysis) -> dict[str, str]:
    return pdf.drawn(analysis)


def test_it_is_a_pdf_and_the_same_one_every_time(analysis, figures):
    first = pdf.pdf(analysis, figures)
    assert first.startswith(b"%PDF-")
    assert first == pdf.pdf(analysis, svg(analysis))


def test_its_pages_are_a4_and_have_something_on_them(analysis, figures):
    pages = [Image.open(io.BytesIO(page)).convert("L") for page in pdf.pages(analysis, figures)]
    assert len(pages) == 2
    for page in pages:
        assert page.height / page.width == pytest.approx(297 / 210, rel=0.01)
        assert (np.asarray(page) < 128).mean() > 0.005


def test_a_busy_recording_with_a_long_name_still_takes_two_pages():
    rng = np.random.default_rng(0)
    active, scores = rng.random((600, 12)) > 0.7, rng.random((600, 12))
    busy = made_up_analysis(name="long " * 30 + ".wav", n_frames=600)
    events = timeline.events(active, 1.0, CLASSES, scores=scores)
    all_play = dataclasses.replace(busy.timeline, active=active, scores=scores, events=events, instruments=CLASSES)
    busy = dataclasses.replace(busy, timeline=all_play)
    assert len(pdf.pages(busy, svg(busy))) == 2
    assert pdf.content(busy)["timeline"]["more"].startswith(f"{len(events) - pdf.MAX_EVENTS} ")


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
    plain = dataclasses.replace(
        analysis, timeline=None, condition=None, segment=dataclasses.replace(analysis.segment, activation=None)
    )
    alone = svg(plain)
    assert set(alone) == {"segment"}
    assert len(pdf.pages(plain, alone)) == 1
    assert "no map" in pdf.content(plain)["segment"]["caption"]


def test_the_words_say_what_was_found_and_how_probable_it_is(analysis):
    found = pdf.content(analysis)
    assert (found["headline"], found["confidence"]) == ("Piano", "67\N{NO-BREAK SPACE}%")
    assert found["bars"][0] == {
        "name": "piano", "share": pytest.approx(0.67), "percent": "67\N{NO-BREAK SPACE}%", "threshold": 0.45,
        "strong": True,
    }  # fmt: skip
    assert found["timeline"]["sentence"] == "Found in the recording: flute and piano."
    assert found["timeline"]["events"] == [["piano", "0.0", "24.0", "0.90"], ["flute", "8.0", "12.0", "0.80"]]
    assert "healthy" in found["condition"]["sentence"] and "82" in found["condition"]["sentence"]
    assert found["condition"]["caution"].startswith("48")


def test_none_of_these_is_an_answer_that_names_the_nearest():
    found = pdf.content(made_up_analysis(named=False))
    assert (found["headline"], found["confidence"]) == ("None of these", "")
    assert all(word in found["sentence"] for word in ("piano", "38", "45", "Several"))
    assert not any(bar["strong"] for bar in found["bars"])


def test_the_labels_of_the_condition_are_said_to_be_simulated_and_what_cannot_be_told_is_a_dash(analysis):
    found = pdf.content(analysis)["condition"]
    assert found["about"] == SIMULATED
    assert dict(found["measures"])["inharmonicity B"] == "–"


def test_the_model_is_named_with_its_score_and_interval(analysis):
    rows = dict(pdf.content(analysis)["model"])
    assert rows["model"] == "rendered-quick 1a2b3c4d, published 2026-11-21"
    assert rows["accuracy"].startswith("0.83 (95 % CI 0.78 to 0.88) on 120 test clips")
