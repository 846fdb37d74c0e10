"""The study runner: what runs, what is skipped, what is said when something goes wrong, and what survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from signals import heeding, interrupts_heeded

from instrlib import plots
from instrlib.core.config import PROFILES
from instrlib.core.errors import ConfigError, CorpusError, RunError
from instrlib.deploy import release
from instrlib.models import embeddings
from instrlib.runner import notebooks, publish, study
from instrlib.runner.engine import CellError
from instrlib.runner.study import Watcher, run_study

pytestmark = pytest.mark.usefixtures("event_loops_closed")

PARAMETERS = 'corpus = "rendered"\ndata = ""\nprofile = "smoke"\nseeds = 1'
SMOKE = {"corpus": "rendered", "data": "", "profile": "smoke", "seeds": 1}

OPEN = """from instrlib.runner.run import open_run
run = open_run({name!r}, corpus=corpus, data=data, profile=profile, seeds=seeds)"""
FIRST = [
    OPEN.format(name="01_first"),
    'run.save_metrics(value=seeds + 1, accuracy={"estimate": 0.5, "low": 0.25, "high": 0.75})',
    "run.save_arrays('handed_on', x=[1, 2])\nrun.finish()",
]
SECOND = [
    OPEN.format(name="02_second"),
    "run.save_metrics(double=2 * run.other('01_first').metrics()['value'])",
    "run.finish()",
]
THIRD = [OPEN.format(name="03_third"), "run.save_metrics(alone=1)", "run.finish()"]


def write_notebook(
    folder: Path, name: str, cells: list[str], parameters: str = PARAMETERS, words: str = "Why?"
) -> None:
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


def results(root: Path) -> dict:
    return json.loads((root / "reports/rendered-smoke/results.json").read_text())


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


class Diary(Watcher):
    def __init__(self):
        self.lines = []

    def started(self, notebook, why):
        self.lines.append((notebook, why))

    def cell(self, notebook, done, total):
        self.lines.append((notebook, done, total))


def test_notebooks_run_in_order_once_and_again_only_where_something_changed(root):
    everything = ("01_first", "02_second", "03_third")
    diary = Diary()
    assert run_study(**SMOKE, watcher=diary).executed == everything
    assert [line[0] for line in diary.lines if len(line) == 2] == list(everything)
    assert [line[1:] for line in diary.lines if len(line) == 3 and line[0] == "03_third"][-1] == (6, 6)

    numbers = results(root)
    assert numbers["study"] == "rendered-smoke"
    assert numbers["notebooks"]["01_first"]["metrics"]["value"] == 2
    assert numbers["notebooks"]["02_second"]["metrics"] == {"double": 4}
    assert numbers["notebooks"]["02_second"]["manifest"]["uses"] == ["01_first"]
    page = (root / "runs/rendered-smoke/02_second.html").read_text()
    assert "A notebook" in page and "<script" not in page and "<link" not in page

    before = tree(root)
    assert run_study(**SMOKE).executed == ()
    assert tree(root) == before, "a study without a change must not touch a file"

    # Comments, words and layout are no change of the work; they are shown, though.
    write_notebook(root / "notebooks", "02_second", [SECOND[0], SECOND[1] + "  # twice", SECOND[2]], words="And now?")
    assert run_study(**SMOKE).executed == ()
    page = (root / "runs/rendered-smoke/02_second.html").read_text()
    assert "And now?" in page and "# twice" in page
    assert run_study(**SMOKE).executed == ()

    # A change in the first runs it and what reads it, and leaves the third alone.
    write_notebook(root / "notebooks", "01_first", [FIRST[0], "run.save_metrics(value=10)", FIRST[2]])
    states = {state.notebook: (state.state, state.detail) for state in study.status()}
    assert states["01_first"] == ("changed", "its code")
    assert states["02_second"] == ("changed", "01_first")
    assert states["03_third"] == ("done", "")
    assert run_study(**SMOKE).executed == ("01_first", "02_second")
    assert results(root)["notebooks"]["02_second"]["metrics"] == {"double": 20}

    # So does a file of a run that is gone.
    (root / "runs/rendered-smoke/01_first/handed_on.npz").unlink()
    assert run_study(**SMOKE).executed == ("01_first",)


def test_another_parameter_module_version_or_corpus_file_runs_a_notebook_again(alone, monkeypatch):
    sounds = alone / "sounds"
    sounds.mkdir()
    (sounds / "a.wav").write_bytes(b"1")
    settings = SMOKE | {"corpus": "folder", "data": str(sounds)}
    ran = ("03_third",)
    assert run_study(**settings).executed == ran
    assert run_study(**settings).executed == ()
    assert run_study(**settings | {"seeds": 2}).executed == ran
    assert run_study(**settings).executed == ran

    (sounds / "a.wav").write_bytes(b"22")
    assert [state.detail for state in study.status()] == ["the corpus's files"]
    assert run_study(**settings).executed == ran

    hashes = study.code_hash
    monkeypatch.setattr(study, "code_hash", lambda layer: "other")
    assert [state.detail for state in study.status()] == ["instrlib"]
    monkeypatch.setattr(study, "code_hash", hashes)
    monkeypatch.setattr(study, "versions", lambda: {"numpy": "0"})
    assert "numpy" in study.status()[0].detail
    assert run_study(**settings).executed == ran


@pytest.fixture
def embeds(alone):
    """Return the same place, with a notebook that uses the published networks; it has been run without any."""
    write_notebook(alone / "notebooks", "03_third", [THIRD[0], 'used = "instrlib.models.embeddings"', "run.finish()"])
    run_study(**SMOKE)
    return alone


def test_without_published_networks_nothing_is_recorded_of_them(embeds):
    record = json.loads((embeds / "runs/rendered-smoke/03_third/study.json").read_text())
    assert record["parts"]["files"] == {"the corpus's files": ""}


def test_a_published_network_that_is_put_there_or_named_runs_a_notebook_that_uses_it_again(embeds, monkeypatch):
    ran = ("03_third",)
    for folder in (embeds / "data" / "weights", embeds / "elsewhere"):
        folder.mkdir(parents=True)
        (folder / "yamnet.h5").write_bytes(b"a network")
    assert [state.detail for state in study.status()] == [f"the networks in {embeds / 'data' / 'weights'}"]
    assert run_study(**SMOKE).executed == ran
    assert run_study(**SMOKE).executed == ()
    monkeypatch.setenv("INSTRLIB_WEIGHTS", str(embeds / "elsewhere"))
    assert run_study(**SMOKE).executed == ran
    assert run_study(**SMOKE).executed == ()


def test_a_network_that_is_fetched_runs_a_notebook_that_uses_it_once(embeds, monkeypatch):
    def arrive(handle: str, folder: Path) -> Path:
        place = folder / "yamnet-1"
        if not place.is_dir():
            place.mkdir(parents=True)
            (place / "saved_model.pb").write_bytes(b"a program")
        return place

    monkeypatch.setattr(embeddings, "_from_hub", arrive)
    monkeypatch.setenv("INSTRLIB_HUB", "https://tfhub.dev/google/yamnet/1")
    assert "INSTRLIB_HUB" in study.status()[0].detail and not (embeds / "data").exists()
    assert run_study(**SMOKE).executed == ("03_third",)
    assert (embeds / "data/weights/yamnet-1").is_dir()
    assert run_study(**SMOKE).executed == (), "it was fetched before the notebook began"


def test_a_run_by_hand_or_a_kept_folder_that_is_gone_makes_a_notebook_run_again(alone):
    keep = "(run.folder.parents[2] / 'data/store').mkdir(parents=True, exist_ok=True)"
    keep += "\nrun.keep(run.folder.parents[2] / 'data/store')"
    write_notebook(alone / "notebooks", "03_third", [THIRD[0], keep, "run.finish()"])
    run_study(**SMOKE)
    (alone / "data/store").rmdir()
    assert run_study(**SMOKE).executed == ("03_third",)

    from instrlib.runner.run import open_run

    open_run("03_third", **SMOKE).finish()
    assert run_study(**SMOKE).executed == ("03_third",)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"parts": {}}', '{"failed": {}}', "null"])
def test_a_notebook_whose_record_is_damaged_counts_as_not_run(alone, monkeypatch, damage):
    run_study(**SMOKE)
    (alone / "runs/rendered-smoke/03_third/study.json").write_text(damage)
    assert [state.state for state in study.status()] == ["stopped"]
    monkeypatch.setattr(
        "instrlib.runner.engine.execute", lambda *_, **__: (_ for _ in ()).throw(CorpusError("reached"))
    )
    with pytest.raises(CorpusError, match="reached"):
        run_study(**SMOKE)


def test_a_failure_names_notebook_and_cell_and_the_next_run_goes_on_there(root):
    write_notebook(root / "notebooks", "02_second", [SECOND[0], "1 / 0", "run.finish()"])
    with pytest.raises(
        CellError, match=r"^02_second: cell 5 of 6 \(In \[4\]\) failed: ZeroDivisionError: division by"
    ) as e:
        run_study(**SMOKE)
    assert e.value.cell == 5
    assert list(results(root)["notebooks"]) == ["01_first"], "what was done before is published"
    partly = nbformat.read(root / "runs/rendered-smoke/02_second.ipynb", as_version=4)
    assert partly.cells[4].outputs[0].ename == "ZeroDivisionError"
    assert [state.state for state in study.status()] == ["done", "failed", "never run"]

    write_notebook(root / "notebooks", "02_second", SECOND)
    assert run_study(**SMOKE).executed == ("02_second", "03_third")


def test_an_error_of_the_library_in_a_cell_is_its_own_sentence(alone):
    raising = "from instrlib.core.errors import CorpusError\nraise CorpusError('There is no clip in here; add one.')"
    write_notebook(alone / "notebooks", "03_third", [raising])
    with pytest.raises(CorpusError, match=r"^There is no clip in here; add one\.$"):
        run_study(**SMOKE)


def test_a_dead_kernel_is_named_with_its_cell_and_cause(alone):
    write_notebook(alone / "notebooks", "03_third", ["1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
    with pytest.raises(CellError, match=r"^03_third: cell 5 of 5 \(In \[4\]\) lost its kernel: .*memory"):
        run_study(**SMOKE)
    write_notebook(alone / "notebooks", "03_third", ["import os\nos._exit(3)"])
    with pytest.raises(CellError, match=r"cell 4 of 4 .* lost its kernel: it ended itself with status 3"):
        run_study(**SMOKE)


def test_the_time_limit_holds_for_the_whole_notebook(alone, monkeypatch):
    import dataclasses

    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], notebook_limit_s=3.0))
    write_notebook(alone / "notebooks", "03_third", ["import time\ntime.sleep(2)", "time.sleep(2)", "time.sleep(60)"])
    began = time.monotonic()
    with pytest.raises(CellError, match=r"^03_third: cell 5 of 6 \(In \[4\]\) was stopped: .* limit of 3 s"):
        run_study(**SMOKE)
    assert time.monotonic() - began < 30, "the kernel must not be waited for"


def test_a_notebook_that_does_not_finish_its_run_is_refused(alone):
    write_notebook(alone / "notebooks", "03_third", [THIRD[0]])
    with pytest.raises(RunError, match=r"03_third ended without Run\.finish"):
        run_study(**SMOKE)


def test_settings_that_cannot_be_meant_are_refused_before_anything_runs(root):
    write_notebook(
        root / "notebooks", "02_second", SECOND, parameters='corpus = "rendered"\ndata = ""\nprofile = "smoke"'
    )
    with pytest.raises(RunError, match=r"02_second\.ipynb does not declare the parameter seeds"):
        run_study(**SMOKE)
    write_notebook(root / "notebooks", "02_second", SECOND, parameters=PARAMETERS + "\ntwice = 2 * seeds")
    with pytest.raises(RunError, match=r"line 5 of the parameters cell .* next cell"):
        run_study(**SMOKE)
    write_notebook(root / "notebooks", "02_second", SECOND)
    with pytest.raises(ConfigError, match=r"Unknown corpus 'none'; there is: rendered"):
        run_study(**SMOKE | {"corpus": "none"})
    with pytest.raises(ConfigError, match="Unknown profile 'huge'"):
        run_study(**SMOKE | {"profile": "huge"})
    with pytest.raises(ConfigError, match="seeds must be a whole number of at least 1, not 0"):
        run_study(**SMOKE | {"seeds": 0})
    with pytest.raises(RunError, match=r"Unknown notebook 07_x; there is: 01_first"):
        run_study(**SMOKE, notebooks=["07_x"])
    (root / "notebooks/01_twin.ipynb").write_bytes((root / "notebooks/01_first.ipynb").read_bytes())
    with pytest.raises(RunError, match="carry one number"):
        run_study(**SMOKE)
    assert not (root / "runs").exists()


def start(root: Path, name: str = "03_third") -> subprocess.Popen:
    """Start the command on a notebook whose cell sleeps, and wait until that cell runs."""
    sleeps = "import os, time\nopen('pid.txt', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    write_notebook(root / "notebooks", name, [sleeps])
    command = [sys.executable, "-m", "instrlib.runner.cli", "study", "--profile", "smoke", "--seeds", "1"]
    running = subprocess.Popen(heeding(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pid = root / "notebooks/pid.txt"
    wait_until(lambda: running.poll() is not None or (pid.is_file() and pid.read_text()))
    assert running.poll() is None, running.communicate()
    return running


def wait_until(condition, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path("/proc").is_dir() else True


def test_a_second_run_is_refused_and_a_kill_leaves_a_state_from_which_the_next_run_goes_on(alone):
    running = start(alone)
    kernel = int((alone / "notebooks/pid.txt").read_text())
    try:
        with pytest.raises(RunError, match="rendered-smoke is running already"):
            run_study(**SMOKE)
        assert [state.state for state in study.status()] == ["running"]
    finally:
        running.kill()
        running.communicate()
    wait_until(lambda: not is_alive(kernel))
    assert [state.state for state in study.status()] == ["stopped"]
    write_notebook(alone / "notebooks", "03_third", THIRD)
    assert run_study(**SMOKE).executed == ("03_third",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_kernel_and_says_where_the_next_run_goes_on(alone, number):
    running = start(alone)
    kernel = int((alone / "notebooks/pid.txt").read_text())
    running.send_signal(number)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2
    assert out == ""
    assert err.splitlines()[1:] == ["Error: Stopped in 03_third; the same command goes on there."]
    wait_until(lambda: not is_alive(kernel))
    assert [state.state for state in study.status()] == ["stopped"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_whose_exception_is_lost_ends_the_run_all_the_same(alone):
    class Discarded:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # what is raised in here is only written to stderr

    class Interrupting(Watcher):
        def cell(self, name: str, done: int, total: int) -> None:
            if done == total - 1:
                Discarded()

    write_notebook(alone / "notebooks", "03_third", ["import time\ntime.sleep(60)"])
    began = time.monotonic()
    with interrupts_heeded(), pytest.raises(RunError, match="Stopped in 03_third; the same command goes on there"):
        run_study(**SMOKE, watcher=Interrupting())
    assert time.monotonic() - began < 50


def test_publishing_copies_what_a_run_has_and_removes_what_it_no_longer_has(tmp_path):
    def run_with(notebook: str, *figures: str) -> Path:
        folder = tmp_path / "runs/rendered-smoke" / notebook
        for kind, endings in {"arrays": [".npz"], "figures": [".png", ".svg"]}.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for path in (folder / kind).iterdir():
                path.unlink()
            for name in figures:
                for ending in endings:
                    (folder / kind / (name + ending)).write_bytes(name.encode())
        (folder / "manifest.json").write_text("{}")
        (folder / "metrics.json").write_text('{"low": NaN}')
        return folder

    known = ["01_first", "02_second"]
    publish.publish(run_with("01_first", "01_old", "01_kept"), known=known)
    publish.publish(run_with("02_second", "02_other"), known=known)
    publish.publish(run_with("01_first", "01_kept", "01_new"), known=known)
    figures, arrays = tmp_path / "figures/rendered-smoke", tmp_path / "reports/rendered-smoke/arrays"
    stems = ["01_kept", "01_new", "02_other"]
    assert sorted(path.name for path in arrays.iterdir()) == [f"{stem}.npz" for stem in stems]
    assert sorted(path.name for path in figures.iterdir()) == [
        f"{stem}{end}" for stem in stems for end in (".png", ".svg")
    ]
    assert list(results(tmp_path)["notebooks"]) == known
    assert results(tmp_path)["notebooks"]["01_first"]["metrics"] == {"low": None}, "NaN is no JSON for other readers"

    publish.publish(tmp_path / "runs/rendered-smoke/01_first", known=["01_first"])
    assert list(results(tmp_path)["notebooks"]) == ["01_first"], "a notebook that is gone takes its numbers along"


def test_what_a_kill_has_left_half_written_is_not_published_and_goes_with_the_next_publishing(tmp_path):
    run, reports = tmp_path / "runs/rendered-smoke/01_first", tmp_path / "reports/rendered-smoke"
    left = [
        *(
            run / name
            for name in ("arrays/.01_leak.ab12.npz", "figures/.01_leak.ab12.png", "model/.single.ab12.tflite")
        ),
        *(reports / name for name in ("arrays/.01_leak.cd34.npz", "model/.single.cd34.tflite")),
        tmp_path / "figures/rendered-smoke/.01_leak.cd34.png",
    ]
    kept = [run / "arrays/01_leak.npz", run / "figures/01_leak.png", run / "model/single.tflite"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half" if path in left else b"whole")
    (run / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match="There are no arrays"):
        publish.redraw("rendered-smoke")
    assert release.size_bytes(run / "model").to_dict() == {"single.tflite": 5}
    publish.publish(run, known=["01_first"])
    published = [path for root in (reports, tmp_path / "figures") for path in root.rglob("*") if path.is_file()]
    assert sorted(path.name for path in published) == ["01_leak.npz", "01_leak.png", "results.json", "single.tflite"]


def test_figures_are_drawn_again_from_their_arrays_alone(tmp_path):
    from instrlib.core.io import write_arrays

    classes = np.array(["piano", "violin"])
    arrays = tmp_path / "reports/rendered-smoke/arrays/01_class_balance.npz"
    write_arrays(arrays, figure="class_balance", classes=classes, n_clips=[3, 4], n_groups=[2, 2])
    assert publish.redraw("rendered-smoke") == [arrays]
    first = (tmp_path / "figures/rendered-smoke/01_class_balance.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    plots.save(
        plots.class_balance(classes=classes, n_clips=np.array([3, 4]), n_groups=np.array([2, 2])), tmp_path, "own"
    )
    assert (tmp_path / "own.png").read_bytes() == first
    with pytest.raises(RunError, match=r"no arrays in .*folder-quick"):
        publish.redraw("folder-quick")


def test_committed_notebooks_are_executed_in_place_and_differ_only_in_their_outputs(alone):
    path = alone / "notebooks/03_third.ipynb"
    write_notebook(path.parent, "03_third", [*THIRD[:2], "6 * 7", THIRD[2]])
    source = nbformat.read(path, as_version=4)
    assert study.execute_in_place() == [path]
    first = path.read_bytes()
    executed = nbformat.read(path, as_version=4)
    nbformat.validate(executed)
    assert [(cell.id, cell.source) for cell in executed.cells] == [(cell.id, cell.source) for cell in source.cells]
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert code[3].outputs[0].data["text/plain"] == "42"
    assert code[3].outputs[0].execution_count == 4
    assert {key for cell in executed.cells for key in cell.metadata} == {"tags"}
    assert set(executed.metadata) == {"kernelspec", "language_info"}

    assert study.execute_in_place() == [path]
    assert path.read_bytes() == first
    write_notebook(path.parent, "03_third", ["1 / 0"])
    broken = path.read_bytes()
    with pytest.raises(CellError):
        study.execute_in_place()
    assert path.read_bytes() == broken


def test_title_and_question_are_read_from_the_first_words(alone):
    read = notebooks.read_notebook(alone / "notebooks/03_third.ipynb")
    assert (read.title, read.question) == ("03 · A notebook", "Why?")
    assert read.parameters == SMOKE
    (alone / "notebooks/03_third.ipynb").write_text("[]")
    with pytest.raises(RunError, match="is not a notebook"):
        notebooks.numbered_notebooks()


def test_a_corpus_of_several_labels_a_clip_runs_the_notebooks_that_know_them_and_names_the_others(root, capsys):
    from rich.console import Console

    from instrlib.runner.terminal import TerminalWatcher

    folder = root / "notebooks"
    for path in folder.iterdir():
        path.unlink()
    for name in ("02_baseline_cnn", "04_random_search", "09_transfer_learning"):
        write_notebook(folder, name, [OPEN.format(name=name), "run.save_metrics(alone=1)", "run.finish()"])
    several = SMOKE | {"corpus": "openmic2018"}
    watcher = TerminalWatcher(Console(width=200))
    assert run_study(**several, watcher=watcher).executed == ("02_baseline_cnn", "09_transfer_learning")
    said = capsys.readouterr().out.splitlines()
    assert "04_random_search: left out, because it is made for one instrument a clip" in said
    assert [line.partition(": ")[0] for line in said if ": executed" in line] == [
        "02_baseline_cnn",
        "09_transfer_learning",
    ]
    assert [(one.notebook, one.state) for one in study.status()] == [
        ("02_baseline_cnn", "done"),
        ("04_random_search", "left out"),
        ("09_transfer_learning", "done"),
    ]
    assert run_study(**SMOKE, notebooks=["04_random_search"]).executed == ("04_random_search",), "one label a clip"
