"""The command: what it prints, its exit codes, and one clear line for whatever a user can do wrong."""

import errno
import json
import os
import subprocess
import sys

import pytest
from test_study import OPEN, THIRD, write_notebook
from typer.testing import CliRunner

from instrlib.data import corpora
from instrlib.runner.cli import main

COMMANDS = ["study", "status", "predict", "corpora", "download", "validate", "figures", "report"]
WRITTEN = (
    "Report: reports/rendered-smoke/report.html\nPDF: reports/rendered-smoke/report.pdf\n"
    "Data card: reports/rendered-smoke/DATA_CARD.md\n"
)
SMALL = ["study", "--profile", "smoke", "--seeds", "1"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a study of one small notebook, with the working folder in it."""
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks", "03_third", THIRD)
    return tmp_path


def call(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def refusal(*arguments: str) -> str:
    """Return the one line that a call ends with after exit code 2."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line, *others = result.stderr.splitlines()
    assert others == [] and line.startswith("Error: ")
    return line


def test_help_names_every_command_and_each_has_an_example():
    overview = call("--help").output
    for command in COMMANDS:
        assert f" {command} " in overview
        assert f"instrlib {command}" in call(command, "--help").output
    assert "│ notebooks " not in overview, "for maintainers only"
    assert call().exit_code == 2 and "Usage" in call().output


def test_help_needs_none_of_the_heavy_packages():
    code = (
        "import sys, typer.testing, instrlib.runner.cli\n"
        "assert typer.testing.CliRunner().invoke(instrlib.runner.cli.main, ['study', '--help']).exit_code == 0\n"
        "print(sorted({'numpy', 'pandas', 'papermill', 'matplotlib', 'librosa', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stdout == "[]\n"


def test_a_study_runs_ends_with_where_its_results_are_and_costs_little_when_nothing_changed(root):
    result = call(*SMALL)
    assert result.exit_code == 0, result.output
    assert "03_third: executed, because it has no finished run" in result.stderr
    assert "03_third: done in " in result.stderr
    assert result.stdout == (
        "Results: reports/rendered-smoke/results.json\nFigures: figures/rendered-smoke\n"
        "Notebooks and their pages: runs/rendered-smoke\n" + WRITTEN
    )
    assert json.loads((root / "reports/rendered-smoke/results.json").read_text())["notebooks"]["03_third"]
    for name in ("report.html", "report.pdf", "DATA_CARD.md"):
        assert (root / "reports/rendered-smoke" / name).is_file()

    code = (
        "import atexit, sys, instrlib.runner.cli\n"
        "heavy = {'papermill', 'nbformat', 'nbconvert', 'matplotlib', 'librosa', 'tensorflow', 'scipy'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        f"sys.argv[1:] = {SMALL}\n"
        "instrlib.runner.cli.main()"
    )
    again = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert again.stderr == "03_third: unchanged\n"
    assert again.stdout == result.stdout + "[]\n"

    header, row = call("status").stdout.splitlines()
    assert header.split("\t") == ["study", "notebook", "state", "when", "took", "detail"]
    assert row.startswith("rendered-smoke\t03_third\tdone\t20")
    assert call("report", "--profile", "smoke").stdout == WRITTEN


def test_a_cell_that_fails_is_one_line(root):
    write_notebook(root / "notebooks", "03_third", [OPEN.format(name="03_third"), "raise ValueError('first\\nlast')"])
    result = call(*SMALL)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: 03_third: cell 5 of 5 (In [4]) failed: ValueError: last; "
        f"see {root / 'runs/rendered-smoke/03_third.ipynb'}."
    )
    row = call("status").stdout.splitlines()[1]
    assert row.split("\t")[2] == "failed" and "ValueError: last" in row


def test_whatever_a_user_can_do_wrong_is_one_line_and_exit_code_2(root):
    assert refusal("study", "--corpus", "none") == (
        "Error: Unknown corpus 'none'; there is: "
        "rendered, fsdkaggle2018, irmas, openmic2018, nsynth, kaggle_instruments, folder."
    )
    assert "Unknown profile 'huge'; there is: smoke, quick, full." in refusal("study", "--profile", "huge")
    assert "Unknown corpus" in refusal("validate", "none")
    assert "Unknown corpus" in refusal("download", "none")
    assert call("download", "rendered").stderr.startswith("Error: `instrlib download` does not fetch rendered.")
    assert "rendered-quick/results.json is missing; run `instrlib study`" in refusal("report")
    assert "no arrays in" in refusal("figures", "--corpus", "folder")
    (root / "notebooks/03_third.ipynb").unlink()
    assert "no numbered notebook in" in refusal("study")


def test_wrong_usage_exits_with_2_as_well():
    for arguments in (
        ["study", "--seeds", "0"],
        ["study", "--seeds", "many"],
        ["study", "--bad"],
        ["none"],
        ["download"],
    ):
        result = call(*arguments)
        assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(root):
    (root / "runs").mkdir(mode=0o500)
    assert "there is no permission to write" in refusal(*SMALL)


def test_the_systems_own_errors_and_an_interrupt_are_one_line(root, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    monkeypatch.setattr("instrlib.runner.study.run_study", full)
    assert refusal("study") == "Error: No space left on device: /data/x"
    monkeypatch.setattr("instrlib.runner.study.run_study", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert refusal("study") == "Error: interrupted; the same command goes on where it was."
    monkeypatch.setattr("instrlib.runner.study.status", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    result = call("status")
    assert result.exit_code == 130 and result.stderr == "Error: interrupted.\n", "there is nothing to go on with"


def test_a_file_in_the_way_of_a_folder_is_one_line(root):
    (root / "runs").write_text("")
    assert "a part of this path is a file, not a folder" in refusal(*SMALL)


def test_corpora_are_listed_whole_when_piped(root):
    header, *rows = call("corpora").stdout.splitlines()
    assert header.split("\t") == ["name", "title", "labels a clip", "licence", "size", "on disk"]
    assert [row.split("\t")[0] for row in rows] == list(corpora.NAMES)
    for row, name in zip(rows, corpora.NAMES, strict=True):
        info = corpora.info(name)
        cells = row.split("\t")
        assert cells[1:5] == [info.title, "several" if info.multilabel else "one", info.licence, info.size]
        assert cells[5].startswith(f"nothing in {root / 'data' / name}")


def test_validate_prints_its_findings_and_exits_with_1_when_there_are_any(root):
    result = call("validate", "folder", "--data", str(root / "nowhere"))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == corpora.validate("folder", root / "nowhere") != []


def test_download_shows_licence_and_citation_first(monkeypatch):
    monkeypatch.setattr(corpora, "download", lambda name, data: print("fetching", name, data))
    lines = call("download", "fsdkaggle2018", "--data", "there").stdout.splitlines()
    info = corpora.info("fsdkaggle2018")
    assert lines[1:3] == [f"Licence: {info.licence}", f"Cite as: {info.citation}"]
    assert lines.index("fetching fsdkaggle2018 there") > 2


@pytest.mark.parametrize("name", ["kaggle_instruments", "folder"])
def test_what_has_no_download_shows_its_licence_and_the_way_to_get_it(name):
    result = call("download", name)
    assert result.exit_code == 2
    assert f"Licence: {corpora.info(name).licence}" in result.stdout
    assert result.stderr == f"Error: `instrlib download` does not fetch {name}. {corpora.info(name).how_to_get}\n"


def write_results(root, study: str, accuracy: float):
    scores = {"compact CNN": {"accuracy": {"estimate": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}}}
    parameters = {"corpus": "rendered", "data": "", "profile": study.partition("-")[2], "seeds": 3}
    manifest = {"parameters": parameters, "inputs": {}, "uses": [], "versions": {"numpy": "2.4.6"}, "commit": "0123abc"}
    results = {"study": study, "notebooks": {"02_baseline_cnn": {"metrics": {"scores": scores}, "manifest": manifest}}}
    path = root / "reports" / study / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results))


def test_two_studies_are_put_side_by_side_in_the_terminal_and_on_a_page(root):
    write_results(root, "rendered-quick", 0.5)
    write_results(root, "rendered-full", 0.75)
    result = call("report", "--compare", "rendered-quick", "rendered-full")
    assert result.exit_code == 0, result.output
    assert "profile\tquick\tfull" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == "Page: reports/compare/rendered-quick--rendered-full.html"
    assert (root / "reports/compare/rendered-quick--rendered-full.html").is_file()


def test_a_comparison_needs_two_studies_that_are_there(root):
    write_results(root, "rendered-quick", 0.5)
    assert "rendered-full" in refusal("report", "--compare", "rendered-quick", "rendered-full")
    assert "rendered-quick" in refusal("report", "--compare", "rendered-quick@HEAD", "rendered-quick")
    assert call("report", "--compare", "rendered-quick").exit_code == 2
    assert not (root / "reports/compare").exists()
