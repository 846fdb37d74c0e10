"""The real notebooks, end to end, on the smallest profile: from nothing to the report, by one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = (
    "01_preprocessing",
    "02_baseline_cnn",
    "03_cutmix",
    "04_random_search",
    "05_pruning",
    "06_class_activation_maps",
    "07_ablation",
    "08_reference_models",
    "09_transfer_learning",
    "10_layered_audio",
    "11_timeline",
    "12_instrument_condition",
    "13_domain_shift",
)


# Trainings of all notebooks, while other tests run beside them.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("a smoke study")  # with spaces, as on many desktops


@pytest.fixture(scope="module")
def environment(place) -> dict[str, str]:
    moved = {f"INSTRLIB_{name.upper()}": str(place / name) for name in ("data", "runs", "reports", "figures")}
    # Other tests have the second core.
    moved["INSTRLIB_WORKERS"] = "1"
    return {name: value for name, value in os.environ.items() if not name.startswith("INSTRLIB_")} | moved


def study(environment, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "instrlib.cli", "study", "--profile", "smoke", "--seeds", "1", *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1200)


@pytest.fixture(scope="module")
def first(environment) -> subprocess.CompletedProcess:
    return study(environment)


@pytest.mark.slow
def test_one_command_ends_with_a_line_that_says_where_everything_is(first, place):
    assert first.returncode == 0, first.stderr
    last = first.stdout.strip().splitlines()[-1]
    for path in ("reports/rendered-smoke/results.json", "reports/rendered-smoke/report.html", "figures/rendered-smoke"):
        assert str(place / path) in last
        assert (place / path).exists()


@pytest.mark.slow
def test_every_notebook_is_executed_and_there_as_a_page(first, place):
    for name in NOTEBOOKS:
        executed = nbformat.read(place / f"runs/rendered-smoke/{name}.ipynb", as_version=4)
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert outputs and not [output for output in outputs if output.get("name") == "stderr"]
        assert (place / f"runs/rendered-smoke/{name}.html").stat().st_size > 100_000


@pytest.mark.slow
def test_the_numbers_have_intervals_baselines_and_an_origin(first, place):
    results = json.loads((place / "reports/rendered-smoke/results.json").read_text())["notebooks"]
    assert tuple(results) == NOTEBOOKS
    for entry in results.values():
        assert entry["manifest"]["versions"]["tensorflow"].startswith("2.21")
        assert entry["manifest"]["inputs"]
        assert all(isinstance(sentence, str) for sentence in entry["metrics"]["findings"])
    scores = results["02_baseline_cnn"]["metrics"]["scores"]
    assert set(scores) == {"compact CNN", "majority class", "chance by class share", "nearest mean spectrum"}
    for by_score in scores.values():
        assert by_score["accuracy"]["low"] <= by_score["accuracy"]["estimate"] <= by_score["accuracy"]["high"]
    assert results["01_preprocessing"]["metrics"]["leak"]["whole groups"]["siblings"] == 0


@pytest.mark.slow
def test_figures_can_be_drawn_again_to_the_byte_from_the_kept_arrays_alone(first, place, environment):
    folder = place / "figures/rendered-smoke"
    drawn = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    command = [sys.executable, "-m", "instrlib.cli", "figures", "--profile", "smoke"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == drawn


@pytest.mark.slow
def test_run_again_nothing_is_executed(first, environment):
    again = study(environment)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stderr.splitlines() if line] == [f"{name}: unchanged" for name in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.real_data
def test_real_recordings_go_the_same_way(environment, place, sample_root):
    # Those of the notebooks that see the recordings themselves; the others see features alone.
    code = (
        "import sys; from instrlib.study import run_study; run_study(corpus='fsdkaggle2018', data=sys.argv[1], "
        f"profile='smoke', seeds=1, notebooks={NOTEBOOKS[:3]})"
    )
    run = subprocess.run([sys.executable, "-c", code, str(sample_root)], env=environment, capture_output=True,
                         text=True, check=False, timeout=1200)  # fmt: skip
    assert run.returncode == 0, run.stderr
    results = json.loads((place / "reports/fsdkaggle2018-smoke/results.json").read_text())["notebooks"]
    assert tuple(results) == NOTEBOOKS[:3]
    assert results["01_preprocessing"]["metrics"]["n_unusable"] == 0
