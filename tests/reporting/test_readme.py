"""What README says is so: its commands run, its links exist, its made parts are up to date."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instrlib.data.rendered import Players
from instrlib.reporting import cards
from instrlib.runner import cli

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
TARGETS = set(re.findall(r"^(\w+):.*##", (REPOSITORY / "Makefile").read_text(), re.M))


def made(line: str) -> str:
    """Run a line of make with this interpreter, without setting up an environment; return what it prints."""
    command = [*shlex.split(line), "-s", "-o", ".venv/.ready", f"RUN={shlex.quote(sys.executable)} -m"]
    quiet = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    run = subprocess.run(command, cwd=REPOSITORY, env=quiet, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


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
        result = CliRunner().invoke(cli.main, [command, "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0 and all(option in result.output for option in re.findall(r"--[a-z]+", rest))
    assert set(re.findall(r"^  (\w+)\s+\w", made("make help"), re.M)) == TARGETS


def test_every_link_picture_file_subpackage_and_soundfont_is_there():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(links) > 20
    files = re.findall(r"`((?:instrlib|reports|notebooks|tests|figures)/[\w/.-]*)`", TEXT)
    local = [link for link in links if not link.startswith("http")] + files
    assert not [path for path in local if not (REPOSITORY / path).exists()]
    (row,) = re.findall(r"^\| `instrlib/` \|(.*)", TEXT, re.M)
    assert all((REPOSITORY / "instrlib" / name).is_dir() for name in re.findall(r"`(\w+)`", row))
    assert all(name in TEXT for name in Players().fonts)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_make_hands_its_settings_on(line):
    shown = made(f"{line} -n")
    assert "instrlib.runner.cli" in shown or "pytest" in shown
    assert all(f'--{name.lower()} "{value}"' in shown for name, value in re.findall(r"(\w+)=(\S+)", line))


@pytest.mark.slow
def test_the_example_compares_two_networks():
    (code,) = [block for language, block in BLOCKS if language == "python"]
    *statements, last = ast.parse(code).body
    names = {"__name__": "readme"}
    exec(compile(ast.Module(statements, []), "README.md", "exec"), names)
    found = eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    assert list(found.index.get_level_values(0)) == ["two layers"]
    assert -1 <= found.difference.iloc[0] <= 1
