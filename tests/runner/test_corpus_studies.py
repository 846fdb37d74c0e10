"""Corpora of every layout go through the first notebooks, to the report."""

import json

import pytest
import trees

from instrlib.reporting.report import write_report
from instrlib.reporting.summary import open_study
from instrlib.runner.study import run_study

NOTEBOOKS = {
    "irmas": ("01_preprocessing",),
    "nsynth": ("01_preprocessing",),
    "kaggle_instruments": ("01_preprocessing",),
    "folder": ("01_preprocessing", "02_baseline_cnn"),
    "openmic2018": ("01_preprocessing", "02_baseline_cnn", "14_report"),  # several labels a clip
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("event_loops_closed")]


@pytest.mark.parametrize("corpus", NOTEBOOKS)
def test_a_tree_of_its_own_layout_gives_results_and_a_report(corpus, tmp_path, monkeypatch):
    notebooks = NOTEBOOKS[corpus]
    getattr(trees, f"make_{corpus}")(tmp_path / "clips")
    monkeypatch.setenv("INSTRLIB_WORKERS", "1")  # other tests have the second core
    ran = run_study(corpus=corpus, data=str(tmp_path / "clips"), profile="smoke", seeds=1, notebooks=notebooks)
    assert ran == notebooks
    name = "folder-clips-smoke" if corpus == "folder" else f"{corpus}-smoke"
    results = json.loads((tmp_path / "runs" / name / "results.json").read_text())
    assert tuple(results["notebooks"]) == notebooks
    assert {entry["manifest"]["parameters"]["corpus"] for entry in results["notebooks"].values()} == {corpus}
    assert {row["notebook"] for row in results["primary"]} <= set(notebooks)
    assert any(row["notebook"] == "02_baseline_cnn" for row in results["primary"]) == ("02_baseline_cnn" in notebooks)
    for row in results["primary"]:
        assert row["low"] <= row["difference"] <= row["high"]
    page, pdf = write_report(open_study(tmp_path / "runs" / name))
    assert page.stat().st_size > 10_000 and pdf.read_bytes().startswith(b"%PDF")
