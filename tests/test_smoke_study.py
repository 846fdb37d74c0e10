"""The real notebooks, end to end, on the smallest profile: from nothing to the report, by one command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import alteration
import nbformat
import pytest
from committed import REPOSITORY, one_of_each

from instrlib.studies import tuning

NOTEBOOKS = tuple(sorted(path.stem for path in (REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")))

WITHOUT_THIRD_FONT = """
import pathlib
there = pathlib.Path.is_file
pathlib.Path.is_file = lambda path: "FluidR3" not in path.name and there(path)
"""

# Trainings of all notebooks, while other tests run beside them.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("a smoke study")  # with spaces, as on many desktops


@pytest.fixture(scope="module")
def environment(place) -> dict[str, str]:
    """Return that of a laptop: no data set, and no soundfont but those that come with the packages."""
    (place / "laptop").mkdir()
    (place / "laptop/sitecustomize.py").write_text(WITHOUT_THIRD_FONT)
    moved = {"PYTHONPATH": os.pathsep.join(filter(None, (str(place / "laptop"), os.environ.get("PYTHONPATH"))))}
    moved |= {f"INSTRLIB_{name.upper()}": str(place / name) for name in ("data", "runs", "reports", "figures")}
    # Other tests have the second core.
    moved["INSTRLIB_WORKERS"] = "1"
    return {name: value for name, value in os.environ.items() if not name.startswith("INSTRLIB_")} | moved


def study(environment, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "instrlib.runner.cli", "study", "--profile", "smoke", "--seeds", "1", *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1200)


@pytest.fixture(scope="module")
def first(environment) -> subprocess.CompletedProcess:
    return study(environment)


@pytest.mark.slow
def test_one_command_ends_with_lines_that_say_where_everything_is(first, place):
    assert first.returncode == 0, first.stderr
    said = [line.rpartition(": ")[2] for line in first.stdout.splitlines()]
    for path in ("results.json", "report.html", "report.pdf", "DATA_CARD.md", "model/MODEL_CARD.md"):
        assert str(place / "reports/rendered-smoke" / path) in said
        assert (place / "reports/rendered-smoke" / path).exists()
    for path in ("figures/rendered-smoke", "runs/rendered-smoke"):
        assert str(place / path) in said
        assert (place / path).exists()


@pytest.mark.slow
def test_every_notebook_is_executed_and_there_as_a_page(first, place):
    for name in NOTEBOOKS:
        executed = nbformat.read(place / f"runs/rendered-smoke/{name}.ipynb", as_version=4)
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert outputs and not [output for output in outputs if output.get("name") == "stderr"]
        assert (place / f"runs/rendered-smoke/{name}.html").stat().st_size > 100_000


@pytest.mark.slow
def test_without_a_third_soundfont_what_cannot_be_asked_is_told_and_the_rest_goes_on(first, place):
    results = json.loads((place / "reports/rendered-smoke/results.json").read_text())["notebooks"]
    domains = results["13_domain_shift"]["metrics"]
    assert not any("FluidR3" in name for name in domains["domains"])
    assert tuning.NOTHING.about in domains["findings"] and domains["tuned"] == {}


@pytest.mark.slow
def test_the_numbers_have_intervals_baselines_and_an_origin(first, place):
    results = json.loads((place / "reports/rendered-smoke/results.json").read_text())["notebooks"]
    assert tuple(results) == NOTEBOOKS
    for entry in results.values():
        assert entry["manifest"]["versions"]["tensorflow"].startswith("2.21")
        assert entry["manifest"]["inputs"]
        assert all(isinstance(sentence, str) for sentence in entry["metrics"]["findings"])
    scores = results["02_baseline_cnn"]["metrics"]["scores"]
    assert set(scores) == {"compact CNN", "majority class", "stratified random", "nearest centroid"}
    for by_score in scores.values():
        assert by_score["accuracy"]["low"] <= by_score["accuracy"]["estimate"] <= by_score["accuracy"]["high"]
    assert results["01_preprocessing"]["metrics"]["leak"]["whole groups"]["siblings"] == 0


@pytest.mark.slow
def test_a_figure_of_each_kind_can_be_drawn_again_to_the_byte_from_its_arrays_alone(
    first, place, environment, tmp_path
):
    shown = {path.name: path.read_bytes() for path in (place / "figures/rendered-smoke").iterdir()}
    arrays = tmp_path / "reports/rendered-smoke/arrays"
    arrays.mkdir(parents=True)
    for path in one_of_each(place / "reports/rendered-smoke/arrays"):
        shutil.copyfile(path, arrays / path.name)
    command = [sys.executable, "-m", "instrlib.runner.cli", "figures", "--profile", "smoke"]
    moved = {f"INSTRLIB_{name.upper()}": str(tmp_path / name) for name in ("reports", "figures")}
    subprocess.run(command, env=environment | moved, check=True, capture_output=True)
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "figures/rendered-smoke").iterdir()}
    assert len(drawn) == 2 * len(list(arrays.iterdir())) > 40
    assert {name: shown[name] for name in drawn} == drawn


@pytest.mark.slow
def test_run_again_nothing_is_executed(first, environment):
    again = study(environment)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stderr.splitlines() if line] == [f"{name}: unchanged" for name in NOTEBOOKS]


@pytest.mark.slow
def test_the_published_numbers_say_which_code_made_them_and_what_drew_their_figures(first, place, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(place / "reports"))
    results = json.loads((place / "reports/rendered-smoke/results.json").read_text())["notebooks"]
    for name, entry in results.items():
        assert {"its code", "instrlib.runner.run", *entry["manifest"]["uses"]} <= set(entry["manifest"]["code"]), name
        assert {"matplotlib", "seaborn", "pillow"} <= set(entry["manifest"]["versions"])


GUARDED = ("02_baseline_cnn", "05_pruning", "07_ablation")
"""Notebooks that are executed again within seconds when what they trained is kept."""


@pytest.fixture
def guarded(first, place, environment, tmp_path):
    """Return these notebooks as if they were committed, the folder of runs and the results, all to be altered."""
    study = place / "runs/rendered-smoke"
    for name in ("01_preprocessing", *GUARDED):
        shutil.copytree(study / name, tmp_path / "runs/rendered-smoke" / name)
    results = tmp_path / "reports/rendered-smoke/results.json"
    results.parent.mkdir(parents=True)
    shutil.copyfile(place / "reports/rendered-smoke/results.json", results)
    moved = {f"INSTRLIB_{name.upper()}": str(tmp_path / name) for name in ("runs", "reports")}
    (tmp_path / "notebooks").mkdir()
    paths = [alteration.as_committed(study / f"{name}.ipynb", tmp_path / "notebooks") for name in GUARDED]
    return paths, tmp_path / "runs/rendered-smoke", results, environment | moved


@pytest.mark.slow
def test_notebooks_that_are_executed_again_pass_their_guards_and_give_the_same_arrays(guarded, place):
    paths, runs, _, environment = guarded
    assert alteration.differing_cells(paths, environment) == {name: [] for name in GUARDED}
    for name in GUARDED:
        published = sorted((place / "reports/rendered-smoke/arrays").glob(f"{name[:2]}_*.npz"))
        timed = "05_what_zeros_save"  # shows how long an answer takes
        same = [path for path in published if path.stem != timed]
        assert same
        for path in same:
            assert (runs / name / "arrays" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_the_guards_fail_exactly_where_a_result_is_another(guarded):
    """Alters what is kept on disk and lets nbval execute the notebooks as `make test` does.

    All three checked cells of 05 and of 07 fail, each for its own reason; of 02, where only the answers of the network
    are others, the cell that compares its score fails, and those on its size and on the trivial baselines pass.
    """
    paths, runs, results, environment = guarded
    checked = {path.stem: alteration.checked_cells(path) for path in paths}
    dense = runs / "02_baseline_cnn/compact-cnn/fold-0/seed-0"
    alteration.answer_all_rightly(dense)
    alteration.exchange_network(runs / "05_pruning/90-progressive/fold-0/seed-0", dense)
    alteration.alter_files(runs / "05_pruning/tflite")
    alteration.alter_sizes(runs / "07_ablation")
    alteration.alter_record(results, "07_ablation", "scores", "full model", "accuracy", "estimate")
    checked["02_baseline_cnn"] = checked["02_baseline_cnn"][-1:]
    assert alteration.differing_cells(paths, environment) == checked
    assert len(checked["05_pruning"]) == len(checked["07_ablation"]) == 3


@pytest.mark.slow
@pytest.mark.real_data
def test_real_recordings_go_the_same_way(environment, place, sample_root):
    # Those of the notebooks that see the recordings themselves; the others see features alone.
    code = (
        "import sys; from instrlib.runner.study import run_study; run_study(corpus='fsdkaggle2018', data=sys.argv[1], "
        f"profile='smoke', seeds=1, notebooks={NOTEBOOKS[:3]})"
    )
    run = subprocess.run([sys.executable, "-c", code, str(sample_root)], env=environment, capture_output=True,
                         text=True, check=False, timeout=1200)  # fmt: skip
    assert run.returncode == 0, run.stderr
    results = json.loads((place / "reports/fsdkaggle2018-smoke/results.json").read_text())["notebooks"]
    assert tuple(results) == NOTEBOOKS[:3]
    assert results["01_preprocessing"]["metrics"]["n_unusable"] == 0
