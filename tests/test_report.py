"""The report page: everything that the results hold, and nothing from any other host."""

import base64
import json
import math
from html.parser import HTMLParser

import pytest

from instrlib.errors import StudyError
from instrlib.report import metric_tables, write_report

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
MANIFEST = {
    "notebook": "01_preprocessing",
    "study": "fsdkaggle2018-quick",
    "parameters": {"corpus": "fsdkaggle2018", "data": "sample", "profile": "quick", "seeds": 3},
    "inputs": {"corpus": "0123abcd"},
    "uses": [],
    "versions": {"python": "3.11.7", "numpy": "2.4.0"},
    "commit": "abcdef012345+",
}


class Page(HTMLParser):
    """Collects a page's tags, attributes and text, and checks that tags are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Return the page of a study with two notebooks and a figure."""
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    metrics = {
        "n_clips": 1234,
        "models": {"compact": {"accuracy": {"estimate": 0.875, "low": 0.8, "high": 0.925}}},
        "text": "<b>not markup</b>",
    }
    notebooks = {
        "01_preprocessing": {"metrics": metrics, "manifest": MANIFEST},
        "02_baseline_cnn": {
            "metrics": {},
            "manifest": MANIFEST | {"uses": ["01_preprocessing"], "versions": {"numpy": "2.3"}},
        },
    }
    results = tmp_path / "reports/fsdkaggle2018-quick/results.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"study": "fsdkaggle2018-quick", "notebooks": notebooks}))
    figure = tmp_path / "figures/fsdkaggle2018-quick/01_class_balance.png"
    figure.parent.mkdir(parents=True)
    figure.write_bytes(PIXEL)
    words = "# 01 · What we hear\n\n**What is in the corpus?** `reads` nothing"
    cell = {"cell_type": "markdown", "source": words, "metadata": {}}
    notebook = tmp_path / "notebooks/01_preprocessing.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(json.dumps({"cells": [cell]}))
    assert write_report("fsdkaggle2018-quick") == results.with_name("report.html")
    return Page(results.with_name("report.html").read_text())


def test_it_shows_titles_questions_numbers_with_intervals_and_origin(page):
    assert "01 · What we hear What is in the corpus? reads nothing" in page.text
    assert "Baseline cnn" in page.text, "a notebook that is gone goes by its name"
    assert "n clips 1,234" in page.text
    assert "compact 0.875 [0.800, 0.925]" in page.text
    assert "<b>not markup</b>" in page.text
    assert "abcdef012345+" in page.text and "numpy 2.4.0 and 2.3" in page.text and "python 3.11.7 and none" in page.text
    assert "make study CORPUS=fsdkaggle2018 DATA=path/to/sample PROFILE=quick SEEDS=3" in page.text
    assert "FSDKaggle2018" in page.text and "Creative Commons" in page.text


def test_it_asks_no_other_host_for_anything_and_fits_a_phone(page):
    for tag, attributes in page.found:
        assert tag not in ("script", "iframe", "object")
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.found


def test_figures_are_embedded_and_described(page):
    (image,) = [attributes for tag, attributes in page.found if tag == "img"]
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PIXEL
    assert image["alt"] == "Class balance"


def test_a_study_without_results_is_named_with_the_way_out():
    with pytest.raises(StudyError, match=r"none-quick/results\.json is missing; run `instrlib study`"):
        write_report("none-quick")


def test_numbers_become_tables_by_their_form():
    tables = list(
        metric_tables(
            {
                "n": 3,
                "ok": True,
                "tiny": 0.00001,
                "nothing": None,
                "empty": {},
                "long": list(range(100)),
                "parts": {"train": 10, "test": 2.5},
                "pairs": [{"a": "x", "count": 4}, {"a": "y", "share": 0.5}],
                "deep": {"one": {"two": {"three": 1}}, "own": 2},
                "matrix": [[1, 2], [3, 4]],
                "difference": {"estimate": 0.1, "low": math.nan, "high": math.nan, "p": 0.25},
            }
        )
    )
    assert [(table.caption, table.header, table.rows) for table in tables] == [
        (
            "",
            (),
            (
                ("n", "3"),
                ("ok", "yes"),
                ("tiny", "1.0e-05"),
                ("nothing", "–"),
                ("long", "100 values"),
                ("difference", "0.100, p = 0.250"),
            ),
        ),
        ("parts", (), (("train", "10"), ("test", "2.500"))),
        ("pairs", ("", "a", "count", "share"), (("1", "x", "4", ""), ("2", "y", "", "0.500"))),
        ("deep", (), (("own", "2"),)),
        ("deep: one", ("", "three"), (("two", "1"),)),
        ("matrix", (), (("1", "1, 2"), ("2", "3, 4"))),
    ]
