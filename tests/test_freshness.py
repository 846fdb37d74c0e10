"""Published numbers that are older than the code that makes them are named, and those that are committed are not."""

import dataclasses
import functools
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from committed import studies

from instrlib import report
from instrlib.core import profiles
from instrlib.core.errors import StudyError
from instrlib.core.files import read_json, write_json
from instrlib.core.provenance import code_hashes
from instrlib.runner import publish, study
from instrlib.runner.freshness import stale
from instrlib.runner.notebooks import read_notebook

CELLS = {"01_first": "from kit.sound import loud\nloud(1)", "02_second": "from kit import chart", "03_third": "1 + 1"}
USES = {"01_first": [], "02_second": ["01_first"], "03_third": []}
MODULES = {"__init__": "", "sound": "def loud(x):\n    return 2 * x\n", "chart": "x = 1\n", "unused": "x = 1\n"}
STUDY = "rendered-smoke"


def write_notebook(root: Path, name: str, code: str, words: str = "Why?") -> None:
    cells = [nbformat.v4.new_markdown_cell(f"# {name}\n\n**{words}**"), nbformat.v4.new_code_cell(code)]
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")


def run_and_publish(root: Path, name: str, corpus: str = "rendered") -> None:
    """Do what the study does with a notebook that has been executed."""
    folder = root / "runs" / f"{corpus}-smoke" / name
    notebook = read_notebook(root / "notebooks" / f"{name}.ipynb")
    code = study.code_of(notebook, corpus=corpus, profile="smoke")
    parts = {"code": code, "versions": {"python": "3"} | publish.drawing_versions()}
    write_json(folder / "manifest.json", {"uses": USES.get(name, []), "versions": {}})
    write_json(folder / "study.json", {"parts": parts})
    publish.publish(folder, known=list(CELLS))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a study of three notebooks and a package of their own; the second reads what the first made."""
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(study, "code_hashes", functools.partial(code_hashes, package=tmp_path / "kit"))
    (tmp_path / "kit").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "kit" / f"{name}.py").write_text(text)
    for name, code in CELLS.items():
        write_notebook(tmp_path, name, code)
        run_and_publish(tmp_path, name)
    return tmp_path


def test_results_are_fresh_until_the_code_does_something_else(root):
    assert stale(STUDY) == {}
    (root / "kit/unused.py").write_text("x = 2\n")
    (root / "kit/sound.py").write_text('"""Words."""\n\n\ndef loud(x):\n    """More."""\n    return 2 * x  # twice\n')
    write_notebook(root, "01_first", CELLS["01_first"] + "  # aloud", words="Why not?")
    assert stale(STUDY) == {}


def test_a_module_and_a_notebook_that_changed_are_named_and_so_is_what_reads_their_results(root):
    (root / "kit/sound.py").write_text("def loud(x):\n    return 3 * x\n")
    assert stale(STUDY) == {"01_first": ["kit.sound"], "02_second": ["01_first"]}
    write_notebook(root, "02_second", "from kit import chart, sound")
    assert stale(STUDY)["02_second"] == ["01_first", "its code", "kit.sound"]
    write_notebook(root, "03_third", "1 + 2")
    assert stale(STUDY)["03_third"] == ["its code"]


def test_a_module_that_a_notebook_uses_no_longer_or_newly_is_a_change_too(root):
    write_notebook(root, "02_second", "1")
    assert stale(STUDY) == {"02_second": ["its code", "kit", "kit.chart"]}
    write_notebook(root, "02_second", CELLS["02_second"])
    (root / "kit/chart.py").write_text("import kit.unused\nx = 1\n")
    assert stale(STUDY) == {"02_second": ["kit.chart", "kit.unused"]}


def test_code_that_draws_makes_no_numbers_but_what_it_takes_them_from_does(root):
    (root / "kit/plots").mkdir()
    (root / "kit/plots/__init__.py").write_text("from kit.plots import lines\n")
    (root / "kit/plots/lines.py").write_text("colour = 'blue'\n")
    write_notebook(root, "01_first", "from kit import plots")
    assert stale(STUDY)["01_first"] == ["its code", "kit.sound"]
    for name in CELLS:
        run_and_publish(root, name)
    assert stale(STUDY) == {}
    (root / "kit/plots/lines.py").write_text("colour = 'red'\n")
    (root / "kit/plots/dots.py").write_text("colour = 'grey'\n")
    (root / "kit/plots/__init__.py").write_text("from kit.plots import dots, lines\n")
    assert stale(STUDY) == {}, "nor are the results stale that were made from those of the notebook that draws"
    (root / "kit/plots/dots.py").write_text("from kit import unused\n")
    assert stale(STUDY) == {"01_first": ["kit.unused"], "02_second": ["01_first"]}


def test_results_that_read_those_of_an_older_run_stay_stale_until_they_are_made_again(root):
    write_notebook(root, "01_first", "loud = 1")
    run_and_publish(root, "01_first")
    assert stale(STUDY) == {"02_second": ["01_first"]}
    run_and_publish(root, "02_second")
    assert stale(STUDY) == {}


def test_a_notebook_without_results_and_results_without_a_notebook_or_without_code_are_named(root):
    write_notebook(root, "04_fourth", "1")
    (root / "notebooks/03_third.ipynb").unlink()
    path = root / f"reports/{STUDY}/results.json"
    whole = read_json(path)
    del whole["notebooks"]["01_first"]["manifest"]["code"]
    write_json(path, whole)
    assert stale(STUDY) == {
        "01_first": ["made before code was recorded"],
        "03_third": ["is no notebook of the study any more"],
        "04_fourth": ["missing from the results"],
    }
    path.unlink()
    with pytest.raises(StudyError, match=r"results\.json is missing; run `instrlib study`"):
        stale(STUDY)


def test_a_corpus_of_several_instruments_a_clip_needs_only_the_notebooks_that_know_them(root):
    write_notebook(root, "09_transfer_learning", "1")
    run_and_publish(root, "09_transfer_learning", corpus="openmic2018")
    (root / "notebooks/02_second.ipynb").rename(root / "notebooks/02_baseline_cnn.ipynb")
    assert stale("openmic2018-smoke") == {"02_baseline_cnn": ["missing from the results"]}


def test_of_the_profiles_only_the_one_in_use_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    write_notebook(tmp_path, "01_first", "from instrlib import runs")
    run_and_publish(tmp_path, "01_first")
    assert stale(STUDY) == {}
    for name, what in (("full", {}), ("smoke", {"01_first": ["the profile"]})):
        other = dataclasses.replace(profiles.PROFILES[name], trials=7)
        monkeypatch.setitem(profiles.PROFILES, name, other)
        assert stale(STUDY) == what


def test_the_log_that_a_notebook_shows_is_part_of_what_its_results_come_from(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    write_notebook(tmp_path, "01_first", "from instrlib import trials")
    (tmp_path / "notebooks/13_trials.json").write_text("{}")
    run_and_publish(tmp_path, "01_first")
    assert stale(STUDY) == {}
    (tmp_path / "notebooks/13_trials.json").write_text("[]")
    assert stale(STUDY) == {"01_first": ["the log of recipes"]}


def test_the_manifest_says_what_the_figures_were_drawn_with(root):
    versions = read_json(root / f"reports/{STUDY}/results.json")["notebooks"]["01_first"]["manifest"]["versions"]
    assert set(versions) == {"python", "system", "matplotlib", "seaborn", "pillow"}


@pytest.mark.parametrize("name", studies())
def test_the_committed_results_are_those_of_the_code(name, repository, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(repository / "reports"))
    began = time.process_time()
    old = stale(name)
    assert time.process_time() - began < 5, "it is asked for often"
    told = "\n".join(f"{notebook}: {', '.join(what)}" for notebook, what in old.items())
    assert not told, f"The results in reports/{name} are older than the code; make the study again:\n{told}"


@pytest.mark.parametrize("name", studies())
def test_the_committed_report_is_that_of_the_committed_results(name, repository, tmp_path, monkeypatch):
    committed = repository / "reports" / name
    shutil.copytree(committed, tmp_path / "reports" / name, ignore=shutil.ignore_patterns("report.*"))
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))  # laid out like the clone, for links from one place to another
    for folder in ("figures", "notebooks"):
        (tmp_path / folder).symlink_to(repository / folder)
    same = report.write_report(name).read_bytes() == (committed / "report.html").read_bytes()
    assert same, f"reports/{name}/report.html is not that of results.json; write it again: make report"
