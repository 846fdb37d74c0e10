"""What README says is so: its commands run, its links exist, its made parts are up to date."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instrlib import charts
from instrlib.data import corpora
from instrlib.data.rendered import Players
from instrlib.reporting import cards
from instrlib.runner import cli

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
COMMANDS = {command.callback.__name__ for command in cli.main.registered_commands}
TARGETS = set(re.findall(r"^(\w+):.*##", (REPOSITORY / "Makefile").read_text(), re.M))


def typed(line: str, *, folder: Path, **moved: Path) -> subprocess.CompletedProcess:
    """Run a line of the README with this interpreter, without setting up an environment."""
    command = shlex.split(line.replace(".venv/bin/instrlib", f"{shlex.quote(sys.executable)} -m instrlib.runner.cli"))
    if command[0] == "make":
        command += ["-s", "-C", str(REPOSITORY), "-o", ".venv/.ready", f"RUN={shlex.quote(sys.executable)} -m"]
    quiet = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    quiet |= {f"INSTRLIB_{name.upper()}": str(path) for name, path in moved.items()}
    return subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False)


def test_figure_and_findings_come_first_and_the_made_parts_are_up_to_date(monkeypatch):
    assert len(TEXT.splitlines()) <= 160
    assert TEXT.index("![") < TEXT.index("\n- ") < TEXT.index("## Start") < 3_500
    for name in ("reports", "figures"):
        monkeypatch.setenv(f"INSTRLIB_{name.upper()}", str(REPOSITORY / name))
    assert cards.renewed(TEXT) == TEXT


def test_every_target_command_and_option_is_there():
    words = re.findall(r"\bmake (?!sense)([a-z]+)\b(?=[`\s])", "\n".join([*LINES, *re.findall(r"`([^`\n]+)`", TEXT)]))
    assert words and set(words) <= TARGETS
    for command, rest in re.findall(r"(?:\.venv/bin/|`)instrlib ([a-z]+)([^`\n]*)", TEXT):
        assert command in COMMANDS
        shown = CliRunner().invoke(cli.main, [command, "--help"], env={"COLUMNS": "200"}).output
        assert all(option in shown for option in re.findall(r"--[a-z]+", rest)), command
    shown = subprocess.run(["make", "-s", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^  {target}\s+\w", shown, re.M) for target in TARGETS)


def test_every_link_picture_file_and_subpackage_is_there():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(links) > 20
    files = re.findall(r"`((?:instrlib|reports|notebooks|tests|figures)/[\w/.-]*)`", TEXT)
    local = [link for link in links if not link.startswith("http")] + files
    assert not [path for path in local if not (REPOSITORY / path).exists()]
    (row,) = re.findall(r"^\| `instrlib/` \|(.*)", TEXT, re.M)
    assert all((REPOSITORY / "instrlib" / name).is_dir() for name in re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_make_hands_its_settings_on(line, tmp_path):
    settings = dict(re.findall(r"(\w+)=(\S+)", line))
    run = typed(f"{line} -n", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "instrlib.runner.cli" in run.stdout or "pytest" in run.stdout
    for name, value in settings.items():
        assert f'--{name.lower()} "{value}"' in run.stdout


def test_make_figures_draws_the_stored_arrays(tmp_path):
    folder = tmp_path / "reports/rendered-quick"
    charts.store(folder / "arrays/01_leak.npz", charts.dots, names=["a", "b"], values=[0.2, 0.4])
    shutil.copy(REPOSITORY / "reports/rendered-quick/results.json", folder)
    run = typed("make figures", folder=tmp_path, reports=tmp_path / "reports", figures=tmp_path / "figures")
    assert run.returncode == 0, run.stderr
    drawn = {path.name for path in (tmp_path / "figures/rendered-quick").iterdir()}
    assert drawn == {"01_leak.png", "01_leak.svg"}


def test_corpora_are_listed_with_their_licences_and_soundfonts_are_named(tmp_path):
    run = typed(".venv/bin/instrlib corpora", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout and corpora.info(name).licence in run.stdout for name in corpora.NAMES)
    assert all(name in TEXT for name in Players().fonts)


@pytest.mark.slow
def test_the_example_compares_two_networks(tmp_path, monkeypatch):
    for folder in ("data", "runs", "reports", "figures"):
        monkeypatch.setenv(f"INSTRLIB_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.setenv("INSTRLIB_WORKERS", "1")
    (code,) = [block for language, block in BLOCKS if language == "python"]
    *statements, last = ast.parse(code).body
    names = {"__name__": "readme"}
    exec(compile(ast.Module(statements, []), "README.md", "exec"), names)
    found = eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    assert list(found.index.get_level_values(0)) == ["two layers"]
    assert -1 <= found.difference.iloc[0] <= 1
