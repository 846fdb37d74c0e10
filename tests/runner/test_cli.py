"""The command: what it prints, its exit codes, and one line for whatever a user can do wrong."""

import errno
import subprocess
import sys
from unittest import mock

import pytest
from test_study import FIRST, ROW, THIRD, write_notebook
from typer.testing import CliRunner

from instrlib.data import corpora
from instrlib.runner.cli import main

COMMANDS = ["study", "status", "publish", "predict", "demo", "corpora", "download", "validate", "figures", "report"]
SMALL = ["study", "--profile", "smoke", "--seeds", "1"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return a study of one small notebook, with the working folder in it."""
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    primary = f'run.primary(question="Why?", first="a", second="b", score="c", comparison={ROW})'
    write_notebook(tmp_path / "notebooks", "03_third", [THIRD[0], primary, FIRST[2], THIRD[2]])
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(main, list(arguments))


def refusal(*arguments):
    """Return the line that a call ends with after exit code 2."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" or arguments[0] == "download"  # which shows the licence first
    *_, line = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_help_names_every_command_and_each_has_an_example():
    overview = call("--help").output
    for command in COMMANDS:
        assert f" {command} " in overview
        assert f"instrlib {command}" in call(command, "--help").output
    assert "│ notebooks " not in overview
    assert call().exit_code == 2 and "Usage" in call().output


def test_a_study_is_run_reported_published_and_compared(root):
    result = call(*SMALL)
    assert result.exit_code == 0, result.output
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["03_third", "03_third"]
    assert result.stdout.splitlines() == ["Results, figures, report and model: runs/rendered-smoke"]
    for name in ("results.json", "report.html", "report.pdf", "DATA_CARD.md"):
        assert (root / "runs/rendered-smoke" / name).is_file()
    assert not (root / "reports").exists()

    first = (root / "runs/rendered-smoke/report.pdf").stat().st_mtime_ns
    again = subprocess.run(
        [sys.executable, "-m", "instrlib.runner.cli", *SMALL], check=True, capture_output=True, text=True
    )
    assert (again.stdout, again.stderr) == (result.stdout, "03_third: unchanged\n")
    assert (root / "runs/rendered-smoke/report.pdf").stat().st_mtime_ns == first

    (root / "README.md").write_text("<!-- notebooks -->\n\n<!-- end of notebooks -->\n<!-- results: a b -->\n")
    assert call("publish", "rendered-smoke").exit_code == 2, "README lacks its marks, which is told at the end"
    (root / "figures/rendered-smoke/03_dots.png").unlink()
    assert call("figures", "--profile", "smoke").stdout.startswith("1 of 1")
    assert (root / "reports/rendered-smoke/report.html").is_file()
    assert "1 of 1" in call(*SMALL).stdout.splitlines()[-1]
    changed = (root / "reports/rendered-smoke/results.json").read_text().replace('"better"', '"worse"')
    (root / "reports/rendered-smoke/results.json").write_text(changed)
    assert "0 of 1" in call(*SMALL).stdout.splitlines()[-1]
    told = call("report", "--profile", "smoke")
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[0].startswith("reports/rendered-smoke/")
    assert call("report", "--profile", "smoke", "--local").stdout.splitlines()[0].startswith("runs/rendered-smoke/")
    assert "0 of 1" in call("report", "--compare", "runs/rendered-smoke", "rendered-smoke").stdout

    (root / "reports/damaged").mkdir()
    (root / "reports/damaged/results.json").write_text('{"notebooks": ')
    told = call("status")
    _, row, _, made = told.stdout.splitlines()
    assert "damaged/results.json" in told.stderr
    assert row.startswith("rendered-smoke\t03_third\tdone\t20") and made.split("\t")[::2] == ["rendered-smoke", "1"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["study", "--corpus", "none"], "none"),
        (["study", "--data", "~nobody_x/"], "~nobody_x"),
        (["study", "--corpus", "folder", "--data", "nowhere"], "nowhere"),
        (["publish", "rendered-full"], "rendered-full"),
        (["validate", "none"], "none"),
        (["download", "none"], "none"),
        (["download", "fsdkaggle2018", "--data", "~nobody_x/"], "~nobody_x"),
        (["report"], "rendered-quick"),
        (["figures", "--corpus", "folder"], "folder-quick"),
        (["report", "--compare", "rendered-quick", "rendered-full"], "rendered-quick"),
    ],
)
def test_whatever_a_user_can_do_wrong_is_one_line_and_exit_code_2(root, arguments, named):
    assert named in refusal(*arguments)
    assert not (root / "reports").exists()


def test_a_file_in_the_way_a_full_disk_and_an_interrupt_are_one_line(root, monkeypatch):
    (root / "runs").write_text("")
    assert str(root / "runs") in refusal(*SMALL)

    full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    monkeypatch.setattr("instrlib.runner.study.run_study", full)
    assert refusal("study") == "Error: No space left on device: /data/x"
    full.side_effect = KeyboardInterrupt
    assert "same command" in refusal("study")
    monkeypatch.setattr("instrlib.runner.study.status", full)
    assert call("status").exit_code == 130


def test_corpora_are_listed_whole_when_piped(root):
    _, *rows = call("corpora").stdout.splitlines()
    for row, name in zip(rows, corpora.NAMES, strict=True):
        info = corpora.info(name)
        labels = "several" if info.multilabel else "one"
        assert row.split("\t")[:5] == [info.name, info.title, labels, info.licence, info.size]
        assert str(root / "data" / name) in row.split("\t")[5]


def test_validate_prints_its_findings_and_exits_with_1_when_there_are_any(root):
    result = call("validate", "folder", "--data", str(root / "nowhere"))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == corpora.validate("folder", root / "nowhere") != []


@pytest.mark.parametrize("name", ["fsdkaggle2018", "kaggle_instruments", "folder", "rendered"])
def test_download_shows_licence_and_citation_first_and_the_way_to_what_has_none(name, monkeypatch):
    info = corpora.info(name)
    if name == "fsdkaggle2018":
        monkeypatch.setattr(corpora, "download", lambda name, data: print("fetching", name, data))
    result = call("download", name, "--data", "there")
    assert result.stdout.splitlines()[1:3] == [f"Licence: {info.licence}", f"Cite as: {info.citation}"]
    if name == "fsdkaggle2018":
        assert result.stdout.index("fetching fsdkaggle2018 there") > result.stdout.index(info.citation)
    else:
        assert result.exit_code == 2 and info.how_to_get in result.stderr
