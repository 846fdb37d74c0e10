"""The study runner: what runs, what is skipped, what is refused, what survives a kill, and what is published."""

import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from trees import heeding

from instrlib.core import cache
from instrlib.core.config import PROFILES
from instrlib.core.io import ConfigError, CorpusError, DiskError, InstrlibError, RunError
from instrlib.models import transfer
from instrlib.runner import study
from instrlib.runner.run import open_run
from instrlib.runner.study import run_study

pytestmark = pytest.mark.usefixtures("event_loops_closed")

PARAMETERS = 'corpus = "rendered"\ndata = ""\nprofile = "smoke"\nseeds = 1'
SMOKE = {"corpus": "rendered", "data": "", "profile": "smoke", "seeds": 1}

OPEN = """from instrlib.runner.run import open_run
run = open_run({name!r}, corpus=corpus, data=data, profile=profile, seeds=seeds)"""
ROW = {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.01, "margin": 0.02, "detectable": 0.1, "verdict": "better"}
FIRST = [
    OPEN.format(name="01_first"),
    f'run.numbers(value=seeds + 1)\nrun.primary(question="Why?", first="a", second="b", score="c", comparison={ROW})',
    "from instrlib import charts\nrun.figure('dots', charts.dots, caption='Dots.', names=['a'], values=[0.5])",
    "run.save_arrays('handed_on', x=[1, 2])\nrun.finish()",
]
SECOND = [
    OPEN.format(name="02_second"),
    "run.numbers(double=2 * run.other('01_first').declared['numbers']['value'])",
    "run.finish()",
]
THIRD = [OPEN.format(name="03_third"), "run.numbers(alone=1)", "run.finish()"]


def write_notebook(folder, name, cells, parameters=PARAMETERS, words="Why?"):
    folder.mkdir(parents=True, exist_ok=True)
    declared = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")
    code = [nbformat.v4.new_code_cell(cell, id=f"cell-{number}") for number, cell in enumerate(cells)]
    opening = nbformat.v4.new_markdown_cell(f"# {name[:2]} · A notebook\n\n**{words}**", id="words")
    nbformat.write(nbformat.v4.new_notebook(cells=[opening, declared, *code]), folder / f"{name}.ipynb")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a study of three notebooks; the second reads the first, the third stands alone."""
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    for name, cells in {"01_first": FIRST, "02_second": SECOND, "03_third": THIRD}.items():
        write_notebook(tmp_path / "notebooks", name, cells)
    return tmp_path


@pytest.fixture
def alone(root):
    """Return the same place with the third notebook only, for what needs one."""
    for name in ("01_first", "02_second"):
        (root / "notebooks" / f"{name}.ipynb").unlink()
    return root


def results(root, place="runs/rendered-smoke"):
    return json.loads((root / place / "results.json").read_text())


def tree(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_notebooks_run_in_order_once_and_again_only_where_something_changed(root):
    everything, said = ("01_first", "02_second", "03_third"), []
    assert run_study(**SMOKE, say=said.append) == everything
    assert [line.partition(":")[0] for line in said] == [name for name in everything for _ in range(2)]

    numbers = results(root)
    assert numbers["study"] == "rendered-smoke"
    asked = {"notebook": "01_first", "question": "Why?", "first": "a", "second": "b", "score": "c"}
    assert numbers["primary"] == [asked | ROW]
    assert numbers["notebooks"]["02_second"]["numbers"] == {"double": 4}
    assert numbers["notebooks"]["02_second"]["title"] == "02 · A notebook"
    assert numbers["notebooks"]["02_second"]["manifest"]["uses"] == ["01_first"]
    for path in ("figures/01_dots.png", "figures/01_dots.svg", "arrays/01_dots.npz"):
        assert (root / "runs/rendered-smoke" / path).is_file()
    assert not (root / "reports").exists() and not (root / "figures").exists(), "a study publishes nothing"

    before = tree(root)
    assert run_study(**SMOKE) == ()
    assert tree(root) == before

    # Comments, words and layout are no change.
    write_notebook(root / "notebooks", "02_second", [SECOND[0], SECOND[1] + "  # twice", SECOND[2]], words="And now?")
    assert run_study(**SMOKE) == ()

    # A change in the first runs it and what reads it, and leaves the third alone.
    write_notebook(root / "notebooks", "01_first", [FIRST[0], "run.numbers(value=10)", FIRST[3]])
    assert [one.detail for one in study.status()] == ["its code", "01_first", ""]
    assert run_study(**SMOKE) == ("01_first", "02_second")
    assert results(root)["notebooks"]["02_second"]["numbers"] == {"double": 20}
    assert results(root)["primary"] == [] and not list((root / "runs/rendered-smoke/figures").iterdir())

    # So does a file of a run that is gone.
    (root / "runs/rendered-smoke/01_first/handed_on.npz").unlink()
    assert run_study(**SMOKE) == ("01_first",)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Return a copy of the library that decides the keys in place of its own."""
    copy = shutil.copytree(cache.PACKAGE, tmp_path / "library")
    monkeypatch.setattr(cache, "PACKAGE", copy)
    monkeypatch.setattr(cache, "_package_hash", functools.cache(cache._package_hash.__wrapped__))
    return copy


def test_a_change_of_wording_drawing_or_reports_runs_nothing_and_one_of_numbers_all(root, library):
    assert len(run_study(**SMOKE)) == 3
    figure = root / "runs/rendered-smoke/figures/01_dots.png"
    figure.write_bytes(b"old")
    words = 0
    for path in library.rglob("*.py"):  # each docstring, comment and message of the library
        text = re.sub(r"(raise \w+Error\(\s*f?\")", r"\1Other words: ", path.read_text())
        words += text.count("Other words: ")
        path.write_text(re.sub(r'^( *""")(?=[A-Z])', r"\1Other words. ", text, flags=re.MULTILINE) + "# a comment\n")
    assert words > 50
    for layer in ("charts", "reporting", "deploy", "runner"):
        (library / layer / "new.py").write_text("def f(x):\n    return x + 1\n")
    cache._package_hash.cache_clear()
    assert run_study(**SMOKE) == ()
    assert figure.read_bytes().startswith(b"\x89PNG"), "it is drawn again from its arrays"
    for layer in cache.LAYERS:
        (library / layer / "new.py").write_text("def f(x):\n    return x + 1\n")
        cache._package_hash.cache_clear()
        assert all(one.state == "changed" and "the library" in one.detail for one in study.status()), layer
        (library / layer / "new.py").unlink()


KEEP = "store = run.folder.parents[2] / 'data/store'\nstore.mkdir(parents=True, exist_ok=True)\nrun.keep(store)"


def test_a_changed_input_runs_a_notebook_again_once(alone, monkeypatch):
    sounds, store, weights = alone / "My sounds", alone / "data/store", alone / "elsewhere"
    for folder in (sounds, weights, alone / "data/weights"):
        folder.mkdir(parents=True)
    (sounds / "a.wav").write_bytes(b"1")
    write_notebook(alone / "notebooks", "03_third", [THIRD[0], KEEP, THIRD[2]])
    settings = SMOKE | {"corpus": "folder", "data": str(sounds)}

    def runs_once(detail=None, **changed):
        assert detail is None or [one.detail for one in study.status()] == [detail]
        assert [run_study(**settings | changed) for _ in range(2)] == [("03_third",), ()]

    def arrive(handle, folder):
        (folder / "yamnet-1").mkdir(parents=True, exist_ok=True)
        (folder / "yamnet-1/saved_model.pb").write_bytes(b"")
        os.utime(folder / "yamnet-1/saved_model.pb", ns=(0, 0))
        return folder / "yamnet-1"

    runs_once()
    runs_once(seeds=2)
    runs_once()
    assert [path.name for path in (alone / "runs").iterdir()] == ["folder-my-sounds-smoke"]
    (sounds / "a.wav").write_bytes(b"22")
    runs_once("files of the corpus")
    store.rmdir()  # what the run keeps
    runs_once()
    open_run("03_third", **settings).finish()  # by hand
    store.rmdir()
    runs_once()
    (alone / "data/weights/yamnet.tflite").write_bytes(b"a network")
    runs_once()
    (weights / "yamnet.tflite").write_bytes(b"a network")
    monkeypatch.setenv("INSTRLIB_WEIGHTS", str(weights))
    runs_once()
    monkeypatch.setattr(transfer, "_from_hub", arrive)
    monkeypatch.setenv("INSTRLIB_HUB", "https://tfhub.dev/google/yamnet/1")
    runs_once()
    found = cache.versions()
    monkeypatch.setattr(study, "versions", lambda: found | {"numpy": "0"})
    assert [one.detail for one in study.status()] == ["numpy"]


def test_results_never_mix_two_data_sets(root):
    for place in ("a/clips", "b/clips"):
        (root / place).mkdir(parents=True)
        (root / place / "x.wav").write_bytes(b"1")
    first, second = ({"corpus": "folder", "data": str(root / place)} for place in ("a/clips", "b/clips"))
    run_study(**SMOKE | first)
    run_study(**SMOKE | second, notebooks=["03_third"])
    assert list(results(root, "runs/folder-clips-smoke")["notebooks"]) == ["03_third"]


def test_a_notebook_makes_the_run_that_it_needs_or_whose_kept_files_are_gone(root):
    assert run_study(**SMOKE, notebooks=["02_second"]) == ("02_second",)
    assert results(root)["notebooks"]["02_second"]["numbers"] == {"double": 4}
    assert run_study(**SMOKE, notebooks=["01_first"]) == ()
    write_notebook(root / "notebooks", "01_first", [FIRST[0], KEEP, "run.finish()"])
    run_study(**SMOKE, notebooks=["01_first"])
    (root / "data/store").rmdir()
    open_run("02_second", **SMOKE).other("01_first")
    (root / "data/store").rmdir()
    write_notebook(root / "notebooks", "01_first", [FIRST[0], "1 / 0"])
    with pytest.raises(RunError, match="01_first: cell 5"):
        open_run("02_second", **SMOKE).other("01_first")


def test_a_damaged_record_counts_as_not_run_and_a_folder_of_something_else_does_not_break_the_status(alone):
    run_study(**SMOKE)
    record = json.loads((alone / "runs/rendered-smoke/03_third/study.json").read_text())
    record["parameters"] |= {"corpus": "gone", "profile": "huge"}
    contents = ["", "[]", '{"parts": {"parameters": {"corpus": "none"}}}', '{"failed": {}}', "null", json.dumps(record)]
    for number, content in enumerate(contents):
        folder = alone / f"runs/of-old-{number}"
        (folder / "03_third").mkdir(parents=True)
        (folder / "03_third.ipynb").write_text("")
        (folder / "03_third/study.json").write_text(content)
    assert [one.state for one in study.status()] == [*["stopped"] * 5, "changed", "done"]


def test_a_failure_names_notebook_and_cell_and_the_next_run_goes_on_there(root):
    write_notebook(root / "notebooks", "02_second", [SECOND[0], "1 / 0", "run.finish()"])
    with pytest.raises(RunError, match=r"^02_second: cell 5 .*ZeroDivisionError"):
        run_study(**SMOKE)
    assert list(results(root)["notebooks"]) == ["01_first"]
    assert "ZeroDivisionError" in (root / "runs/rendered-smoke/02_second.ipynb").read_text()
    assert [one.state for one in study.status()] == ["done", "failed", "never run"]
    with pytest.raises(RunError, match="02_second"):
        study.publish("rendered-smoke")
    write_notebook(root / "notebooks", "02_second", SECOND)
    assert run_study(**SMOKE) == ("02_second", "03_third")


@pytest.mark.parametrize(
    ("cells", "where"),
    [
        (["1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"], "cell 5 .*memory"),
        (["import os\nos._exit(3)"], "cell 4 .*kernel"),
        ([THIRD[0]], "finish"),
    ],
)
def test_a_dead_kernel_or_an_unfinished_run_is_named(alone, cells, where):
    write_notebook(alone / "notebooks", "03_third", cells)
    with pytest.raises(RunError, match=f"^03_third.*{where}"):
        run_study(**SMOKE)


def test_a_full_disk_names_the_copy_and_the_next_run_goes_on(alone, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskError, match=r"03_third\.ipynb: no space left"):
        patch.setattr("papermill.execute_notebook", full)
        run_study(**SMOKE)
    assert run_study(**SMOKE) == ("03_third",)


def test_the_time_limit_holds_for_the_whole_notebook(alone, monkeypatch):
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], notebook_limit_s=12.0))
    write_notebook(alone / "notebooks", "03_third", ["import time\ntime.sleep(7)", "time.sleep(60)"])
    began = time.monotonic()
    with pytest.raises(RunError, match=r"cell 5 .*limit"):
        run_study(**SMOKE)
    assert time.monotonic() - began < 40


def test_what_cannot_be_meant_is_refused_before_anything_is_discarded(root, monkeypatch):
    run_study(**SMOKE, notebooks=["03_third"])
    before = tree(root / "runs")
    (root / "empty").mkdir()
    refused = [
        ({"profile": "huge"}, ConfigError),
        ({"seeds": 0}, ConfigError),
        ({"seeds": True}, ConfigError),
        ({"corpus": "folder", "data": str(root / "empty")}, CorpusError),
        ({"corpus": "irmas"}, CorpusError),
        ({"data": str(root / "notebooks/01_first.ipynb")}, CorpusError),
        ({"notebooks": ["07_x"]}, RunError),
    ]
    for changed, kind in refused:
        with pytest.raises(kind):
            run_study(**SMOKE | changed)
    for changed in ({"data": "~nobody_x/"}, {"corpus": "folder", "data": 2024}, {"seeds": -1}, {"seeds": 1.5}):
        with pytest.raises(InstrlibError):
            open_run("03_third", **SMOKE | changed)
    monkeypatch.setenv("INSTRLIB_CORPORA", "folder=~nobody_x/sounds")
    with pytest.raises(ConfigError, match="INSTRLIB_CORPORA"):
        run_study(**SMOKE)
    assert tree(root / "runs") == before


def test_notebooks_that_cannot_be_run_are_refused(root):
    lines = PARAMETERS.splitlines()
    folder = root / "notebooks"
    for parameters in (lines[:3], [*lines, "twice = 2 * seeds"], [*lines, "if"]):
        write_notebook(folder, "02_second", SECOND, parameters="\n".join(parameters))
        with pytest.raises(RunError, match="02_second"):
            run_study(**SMOKE)
    (folder / "02_second.ipynb").write_text("[]")
    with pytest.raises(RunError, match="02_second"):
        run_study(**SMOKE)
    assert not (root / "runs").exists()


def start(root, name="03_third"):
    """Start the command on a notebook whose cell sleeps, and wait until that cell runs."""
    sleeps = "import os, time\nopen('pid.txt', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    write_notebook(root / "notebooks", name, [sleeps])
    command = [sys.executable, "-m", "instrlib.runner.cli", "study", "--profile", "smoke", "--seeds", "1"]
    running = subprocess.Popen(heeding(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pid = root / "notebooks/pid.txt"
    wait_until(lambda: running.poll() is not None or (pid.is_file() and pid.read_text()))
    assert running.poll() is None, running.communicate()
    return running


def wait_until(condition, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path("/proc").is_dir() else True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_second_run_is_refused_and_after_an_interrupt_or_a_kill_the_next_run_goes_on(alone, number):
    open_run("03_third", **SMOKE).finish()
    manifest = alone / "runs/rendered-smoke/03_third/manifest.json"
    running = start(alone)
    kernel = int((alone / "notebooks/pid.txt").read_text())
    try:
        manifest.write_text("{}")
        with pytest.raises(RunError, match="rendered-smoke"):
            run_study(**SMOKE)
        with pytest.raises(RunError, match="rendered-smoke"):
            open_run("03_third", **SMOKE).numbers(value=1)
        assert manifest.is_file(), "a run by hand discards nothing while a study runs"
        assert [one.state for one in study.status()] == ["running"]
    finally:
        running.send_signal(number)
        out, err = running.communicate(timeout=120)
    if number != signal.SIGKILL:
        assert running.returncode == 2 and out == ""
        assert err.splitlines()[-1].startswith("Error: ") and "03_third" in err.splitlines()[-1]
    wait_until(lambda: not is_alive(kernel))
    assert [one.state for one in study.status()] == ["stopped"]
    write_notebook(alone / "notebooks", "03_third", THIRD)
    assert run_study(**SMOKE) == ("03_third",)


def test_publishing_replaces_the_published_study_and_the_outputs_of_its_notebooks(root, monkeypatch):
    compared = "print(run.near_record(0.5, 'value', tolerance=0.1))"
    write_notebook(root / "notebooks", "03_third", [THIRD[0], compared, "6 * 7", THIRD[2]])
    source = nbformat.read(root / "notebooks/03_third.ipynb", as_version=4)
    source.cells[3].metadata["tags"] = ["nbval-check-output"]
    nbformat.write(source, root / "notebooks/03_third.ipynb")
    run_study(**SMOKE)
    local = root / "runs/rendered-smoke"
    for folder in (local / "model", local / "01_first/model", root / "reports/rendered-smoke/arrays"):
        folder.mkdir(parents=True)
    (root / "figures/rendered-smoke").mkdir(parents=True)
    for left in ("model/.half.tflite", "01_first/model/single.tflite", "report.html"):
        (local / left).write_text("of this study, or half of a file after a kill")
    for left in ("reports/rendered-smoke/arrays/01_gone.npz", "figures/rendered-smoke/01_gone.png"):
        (root / left).write_text("of an earlier study")
    study.collect(local, [local / name for name in ("01_first", "02_second", "03_third")])
    (root / "reports/rendered-smoke").rename(root / "reports/.rendered-smoke.old")  # as a kill can leave it

    written = study.publish("rendered-smoke")
    assert [path.name for path in written[2:]] == ["01_first.ipynb", "02_second.ipynb", "03_third.ipynb"]
    files = {path for place in ("reports", "figures") for path in (root / place).rglob("*") if path.is_file()}
    assert {str(path.relative_to(root)) for path in files} == {
        "reports/rendered-smoke/results.json",
        "reports/rendered-smoke/report.html",
        "reports/rendered-smoke/arrays/01_dots.npz",
        "reports/rendered-smoke/model/single.tflite",
        "figures/rendered-smoke/01_dots.png",
        "figures/rendered-smoke/01_dots.svg",
    }
    assert results(root, "reports/rendered-smoke") == results(root)

    shown = nbformat.read(root / "notebooks/03_third.ipynb", as_version=4)
    nbformat.validate(shown)
    assert [(cell.id, cell.source) for cell in shown.cells] == [(cell.id, cell.source) for cell in source.cells]
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert code[2].outputs[0].text == "yes\n" and code[3].outputs[0].data["text/plain"] == "42"
    assert set(shown.metadata) == {"kernelspec", "language_info"}
    before = tree(root / "notebooks")
    assert run_study(**SMOKE) == ()
    study.publish("rendered-smoke")
    after = tree(root / "notebooks")
    assert after.keys() == before.keys() and all(after[name][1] == before[name][1] for name in before)


def test_a_study_of_other_parameters_leaves_the_notebooks_alone(alone):
    run_study(**SMOKE | {"seeds": 2})
    assert len(study.publish("rendered-smoke")) == 2


def test_a_corpus_of_several_labels_a_clip_runs_the_notebooks_that_know_them(root):
    for path in (root / "notebooks").iterdir():
        path.unlink()
    for name in ("02_baseline_cnn", "04_random_search"):
        write_notebook(root / "notebooks", name, [OPEN.format(name=name), "run.finish()"])
    (root / "data/openmic2018").mkdir(parents=True)
    (root / "data/openmic2018/a.ogg").touch()
    said = []
    assert run_study(**SMOKE | {"corpus": "openmic2018"}, say=said.append) == ("02_baseline_cnn",)
    assert any(line.startswith("04_random_search: left out") for line in said)
    assert [one.state for one in study.status()] == ["done", "left out"]
