"""The real notebooks, end to end, on the smallest profile: from nothing to the report, by one command."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest

from instrlib.core.io import read_arrays, write_arrays

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = tuple(sorted(path.stem for path in (REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")))
ROW = {"notebook", "question", "first", "second", "score", "difference", "low", "high", "p", "margin", "detectable"}
COMMAND = [sys.executable, "-m", "instrlib.runner.cli", "study", "--profile", "smoke", "--seeds", "1"]

WITHOUT_THIRD_FONT = """
import pathlib
there = pathlib.Path.is_file
pathlib.Path.is_file = lambda path: "FluidR3" not in path.name and there(path)
"""

# Trainings of all notebooks, while other tests run beside them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("a smoke study")  # with spaces, as on many desktops


@pytest.fixture(scope="module")
def environment(place):
    """Return that of a laptop: no data set, and no soundfont but those that come with the packages."""
    (place / "laptop").mkdir()
    (place / "laptop/sitecustomize.py").write_text(WITHOUT_THIRD_FONT)
    moved = {"PYTHONPATH": os.pathsep.join(filter(None, (str(place / "laptop"), os.environ.get("PYTHONPATH"))))}
    moved |= {f"INSTRLIB_{name.upper()}": str(place / name) for name in ("data", "runs", "reports", "figures")}
    moved["INSTRLIB_WORKERS"] = "1"  # other tests have the second core
    return {name: value for name, value in os.environ.items() if not name.startswith("INSTRLIB_")} | moved


def call(environment, *more, command=COMMAND):
    run = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False, timeout=1200)
    assert run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="module")
def statuses(environment):
    """Return what git tells of the repository before and after the study."""
    git = ["git", "-C", str(REPOSITORY), "status", "--porcelain"]
    before = call(environment, command=git).stdout
    call(environment)
    return before, call(environment, command=git).stdout


@pytest.fixture(scope="module")
def first(statuses, place):
    """Return the folder of the study."""
    return place / "runs/rendered-smoke"


@pytest.fixture(scope="module")
def results(first):
    return json.loads((first / "results.json").read_text())


def test_everything_is_in_the_folder_of_the_study_and_nothing_is_published(first, place, statuses):
    for name in ("results.json", "report.html", "report.pdf", "DATA_CARD.md", "model/MODEL_CARD.md"):
        assert (first / name).stat().st_size > 500, name
    assert not (place / "reports").exists() and not (place / "figures").exists()
    assert statuses[0] == statuses[1]


def test_every_notebook_is_executed_without_warnings(first):
    for name in NOTEBOOKS:
        executed = nbformat.read(first / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert outputs and not [output for output in outputs if output.get("name") == "stderr"], name


def test_results_are_whole(results):
    assert tuple(results["notebooks"]) == NOTEBOOKS
    for row in results["primary"]:
        assert set(row) == ROW | {"verdict"}
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["verdict"] in ("better", "worse", "equivalent", "inconclusive")
    for name, entry in results["notebooks"].items():
        assert entry["title"].startswith(name[:2]) and entry["question"].endswith("?")
        assert entry["findings"] or any(row["notebook"] == name for row in results["primary"]), name
        assert all(figure["caption"] for figure in entry["figures"]), name
        assert entry["manifest"]["versions"]["tensorflow"].startswith("2.21") and entry["manifest"]["commit"]


def test_figures_are_drawn_again_to_the_byte_from_their_arrays_alone(first, results, environment):
    figures = {path.name: path.read_bytes() for path in (first / "figures").iterdir()}
    declared = [figure["name"] for entry in results["notebooks"].values() for figure in entry["figures"]]
    assert set(figures) == {f"{name}{ending}" for name in declared for ending in (".png", ".svg")}
    call(environment, command=[sys.executable, "-m", "instrlib.runner.cli", "figures", "--profile", "smoke", "--local"])
    assert {path.name: path.read_bytes() for path in (first / "figures").iterdir()} == figures


def test_run_again_nothing_is_executed(first, environment):
    began = time.monotonic()
    again = call(environment)
    assert again.stderr.splitlines() == [f"{name}: unchanged" for name in NOTEBOOKS]
    assert time.monotonic() - began < 60


def test_after_a_kill_the_next_run_gives_the_same_numbers(first, environment, tmp_path):
    """Notebook 02 is killed three times at a random moment, with all its processes."""
    moved = environment | {f"INSTRLIB_{name.upper()}": str(tmp_path / name) for name in ("data", "runs")}
    command = [*COMMAND, "--only", "01_preprocessing", "--only", "02_baseline_cnn"]
    moments = random.Random(0)
    for _ in range(3):
        run = subprocess.Popen(command, env=moved, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(moments.uniform(3, 30))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    call(moved, command=command)
    made, before = (
        json.loads(path.read_text(), object_hook=lambda found: {**found, "training_s": 0})["notebooks"]
        for path in (tmp_path / "runs/rendered-smoke/results.json", first / "results.json")
    )
    for name in ("01_preprocessing", "02_baseline_cnn"):
        for part in ("numbers", "findings", "models"):
            assert made[name].get(part) == before[name].get(part), (name, part)


@pytest.fixture
def guarded(first, place, environment, tmp_path):
    """Return notebook 02 as it is committed, with its runs and published results, all to be altered."""
    for name in ("01_preprocessing", "02_baseline_cnn"):
        shutil.copytree(first / name, tmp_path / "runs/rendered-smoke" / name)
    (tmp_path / "reports/rendered-smoke").mkdir(parents=True)
    shutil.copyfile(first / "results.json", tmp_path / "reports/rendered-smoke/results.json")
    notebook = tmp_path / "02_baseline_cnn.ipynb"
    executed = (first / notebook.name).read_text()  # with the parameters of the smoke study
    notebook.write_text(executed.replace("nothing is recorded yet", "yes"))
    moved = {f"INSTRLIB_{name.upper()}": str(tmp_path / name) for name in ("runs", "reports")}
    return notebook, tmp_path, environment | moved


def failures(notebook, environment):
    """Let nbval execute a notebook, as `make test` does; return how many cells differ from what they are to print."""
    told = notebook.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--nbval-lax"]
    command += ["--nbval-cell-timeout=600", f"--junitxml={told}", str(notebook)]
    run = subprocess.run(command, cwd=told.parent, env=environment, capture_output=True, text=True, check=False)
    cases = list(ElementTree.parse(told).iter("testcase"))
    assert len(cases) > 10, run.stdout + run.stderr
    found = [failure for case in cases for failure in [*case.findall("failure"), *case.findall("error")]]
    assert all("outputs differ" in f"{failure.get('message')}{failure.text}" for failure in found), run.stdout
    return len(found)


def test_the_guards_pass_and_fail_where_a_record_or_a_label_is_another(guarded):
    notebook, folder, environment = guarded
    assert failures(notebook, environment) == 0
    results = folder / "reports/rendered-smoke/results.json"
    record = results.read_text()
    results.write_text(re.sub(r"(?<=: )-?\d+\.\d+", lambda number: str(float(number[0]) + 0.5), record))
    assert failures(notebook, environment) > 0
    results.write_text(record)
    for path in (folder / "runs/rendered-smoke/02_baseline_cnn").rglob("*.npz"):
        arrays = read_arrays(path)
        if {"targets", "probabilities"} <= set(arrays):
            write_arrays(path, **arrays | {"probabilities": np.roll(arrays["probabilities"], 1, axis=-1)})
    assert failures(notebook, environment) > 0
