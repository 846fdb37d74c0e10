"""The analysis of a recording, its texts, its JSON, and its PDF of one or two pages."""

import dataclasses
import io
import json
import os
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
from PIL import Image
from recordings import CLASSES, SIMULATED, made_up_analysis, write_tone

from instrlib.core.io import AudioError, CorpusError
from instrlib.data.rendered import sampler
from instrlib.deploy import analysis
from instrlib.models import published
from instrlib.studies import condition, timeline

typst = pytest.importorskip("typst")


@pytest.fixture(scope="module")
def model(page_folder):
    return published.open_model(page_folder)


def test_what_is_left_of_a_truncated_recording_is_analysed_in_every_respect(model, tmp_path):
    path = write_tone(tmp_path / "tone.wav", duration_s=22.5)
    os.truncate(path, path.stat().st_size // 3)
    always = model.about | {"timeline": model.about["timeline"] | {"on": 0.0, "off": 0.0}}
    model, progress = dataclasses.replace(model, about=always), []
    made = analysis.analyse(path, model, on_progress=lambda share, stage: progress.append((share, stage)))
    duration_s, events = made.prediction.duration_s, made.timeline["events"]
    assert (made.name, duration_s) == ("tone.wav", pytest.approx(7.5, abs=0.01))
    np.testing.assert_array_equal(made.prediction.probabilities, published.predict_file(path, model).probabilities)
    assert made.timeline["scores"].shape == (8, 3) and len(events) and (events.end_s == duration_s).all()
    assert made.condition["verdict"] in condition.CONDITIONS and made.condition["about"] == SIMULATED
    assert made.level_db.shape == made.activation.shape == model.single.features.shape and made.activation.min() >= 0
    shares = [share for share, _ in progress]
    assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1 and len(dict(map(reversed, progress))) == 5
    about = {name: value for name, value in model.about.items() if name != "timeline"}
    bare = analysis.analyse(path, dataclasses.replace(model, condition=None, about=about))
    assert bare.timeline is bare.condition is json.loads(analysis.to_json(bare))["timeline"] is None


@pytest.mark.parametrize("shape", [(601_000, 1), (1000, 33)])
def test_a_recording_that_is_too_long_or_has_too_many_channels_is_refused(model, tmp_path, shape):
    soundfile.write(tmp_path / "large.wav", np.full(shape, 0.1), 1000)
    with pytest.raises(AudioError, match=r"large\.wav"):
        analysis.analyse(tmp_path / "large.wav", model)


def test_channels_and_a_high_rate_take_no_more_memory(model, tmp_path, monkeypatch):
    """All channels of this file at its own rate are 184 MB."""
    path = tmp_path / "wide.wav"
    with soundfile.SoundFile(path, "w", 96_000, 8, subtype="PCM_U8") as file:
        for _ in range(60):
            file.write(np.random.default_rng(0).uniform(-0.5, 0.5, (96_000, 8)).astype(np.float32))
    monkeypatch.setattr(condition, "verdict", lambda signal, *_: ("healthy", {"healthy": 1.0}, {"n": len(signal)}))
    tracemalloc.start()
    found = analysis.analyse(path, model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.condition["measures"]["n"] == 60 * model.single.features.sample_rate_hz and peak < 80e6


def test_the_example_is_the_same_each_time_and_needs_a_synthesiser(tmp_path, monkeypatch):
    first = analysis.example_clip(tmp_path).read_bytes()
    signal, rate_hz = soundfile.read(analysis.example_clip(tmp_path))
    assert (tmp_path / "example.wav").read_bytes() == first and len(signal) == 9 * rate_hz
    assert all(np.abs(part).max() > 0.05 for part in np.split(signal, 3))
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    sampler.open_engine.cache_clear()
    with pytest.raises(CorpusError, match="tinysoundfont"):
        analysis.example_clip(tmp_path)


def pages(found) -> list[np.ndarray]:
    """Return the pages of the PDF in grey."""
    made = analysis.pdf(found, analysis.drawn(found), format="png")
    made = made if isinstance(made, list) else [made]
    return [np.asarray(Image.open(io.BytesIO(one)).convert("L")) for one in made]


def test_the_texts_and_the_json_hold_the_numbers_of_the_analysis():
    found, share = analysis.content(made_up_analysis()), "67\N{NO-BREAK SPACE}%"
    assert (found["headline"], found["confidence"]) == ("Piano", share)
    bar = {"name": "piano", "share": pytest.approx(0.67), "percent": share, "threshold": 0.45, "strong": True}
    assert found["bars"][0] == bar
    assert found["timeline"]["events"] == [["piano", "0.0", "24.0", "0.90"], ["flute", "8.0", "12.0", "0.80"]]
    healthy, method = found["condition"], dict(found["method"])
    assert "82" in healthy["sentence"] and "48" in healthy["caution"] and healthy["about"] == SIMULATED
    assert dict(healthy["measures"])["inharmonicity B"] == "–"
    assert all(one in method["performance"] for one in ("0.83", "0.78", "0.88"))
    unnamed = analysis.content(made_up_analysis(named=False))
    assert unnamed["confidence"] == "" and not any(bar["strong"] for bar in unnamed["bars"])
    assert all(one in unnamed["sentence"] for one in ("piano", "38", "45"))
    shown = [analysis.percent(one).replace("\N{NO-BREAK SPACE}", "") for one in (0.9996, 0.0004)]
    assert shown == [">99%", "<1%"], "never 0 or 100 %"
    written = json.loads(analysis.to_json(made_up_analysis()))
    assert written["answer"] == "piano" and sum(written["probabilities"].values()) == pytest.approx(1)
    assert written["condition"]["measures"]["inharmonicity"] is None
    assert json.loads(analysis.to_json(made_up_analysis(named=False)))["answer"] is None


def test_the_same_analysis_gives_the_same_pdf_of_two_pages_or_one_without_timeline_map_and_condition():
    first, again = (analysis.pdf(found, analysis.drawn(found)) for found in (made_up_analysis(), made_up_analysis()))
    assert first.startswith(b"%PDF-") and first == again
    both = pages(made_up_analysis())
    assert len(both) == 2 and all((page < 128).mean() > 0.005 for page in both), "none is blank"
    plain = dataclasses.replace(made_up_analysis(), timeline=None, condition=None, activation=None)
    assert set(analysis.drawn(plain)) == {"segment"} and len(pages(plain)) == 1


def test_a_busy_recording_with_a_long_name_takes_two_pages():
    rng = np.random.default_rng(0)
    active, scores = rng.random((600, 12)) > 0.7, rng.random((600, 12))
    busy = made_up_analysis(name="long " * 30 + ".wav", n_frames=600)
    events = timeline.events(active, 1.0, CLASSES, scores=scores)
    everyone = {"active": active, "scores": scores, "events": events, "instruments": CLASSES}
    busy = dataclasses.replace(busy, timeline=busy.timeline | everyone)
    found = analysis.content(busy)["timeline"]
    assert len(pages(busy)) == 2 and len(found["events"]) == analysis.MAX_EVENTS
    assert str(len(events) - analysis.MAX_EVENTS) in found["more"]


@pytest.mark.parametrize("name", ['#panic("x") *b $x _y_ `code', "= head\n<label> @ref // \\ \u202e \U0001f3bb", ""])
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
