"""What the README says is so: its commands, pictures and links exist, and its table is that of the results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from instrlib import cli, corpora
from instrlib.config import PROFILES
from instrlib.readme import questions_table, renewed


@pytest.fixture(scope="module")
def text(repository) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def targets(repository) -> set[str]:
    return set(re.findall(r"^(\w+):.*##", (repository / "Makefile").read_text(), re.M))


def test_every_make_target_that_it_names_is_there(text, targets):
    named = set(re.findall(r"(?:^|`)make (\w+)", text, re.M))
    assert {"study", "test", "lab", "help"} <= named <= targets


def test_every_command_that_it_names_is_there(text):
    named = set(re.findall(r"instrlib (\w+)", text))
    assert named <= {command.callback.__name__ for command in cli.main.registered_commands} | {"study"}


def test_the_corpora_and_profiles_that_it_names_are_there(text):
    assert set(re.findall(r"CORPUS=(\w+)", text)) <= set(corpora.NAMES)
    assert set(re.findall(r"PROFILE=(\w+)", text)) <= set(PROFILES)


def test_every_link_and_picture_leads_somewhere(text, repository):
    places = [place for place in re.findall(r"\]\(([^)]+)\)", text) if "://" not in place]
    assert len(places) > 5
    assert not [place for place in places if not (repository / place).exists()]


def test_every_folder_that_it_explains_is_there_or_is_made(text, repository):
    folders = re.findall(r"^\| `(\w+)/`", text, re.M)
    ignored = (repository / ".gitignore").read_text().split()
    assert not [name for name in folders if not (repository / name).is_dir() and f"{name}/" not in ignored]


def test_its_list_of_questions_is_that_of_the_notebooks(text):
    assert questions_table() in text


def test_its_table_is_made_from_the_committed_results(text, repository, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(repository / "reports"))
    committed = subprocess.run(
        ["git", "ls-files", "reports/*/results.json"], cwd=repository, capture_output=True, text=True, check=False
    )
    if set(committed.stdout.split()) != {
        str(path.relative_to(repository)) for path in Path(repository).glob("reports/*/results.json")
    }:
        pytest.skip("studies of your own lie in reports/; the table holds the committed ones alone")
    assert renewed(text) == text


def test_help_lists_every_target_with_its_words(repository, targets):
    shown = subprocess.run(["make", "-s", "help"], cwd=repository, capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^  {target}\s+\w", shown, re.M) for target in targets)


def test_every_command_explains_itself_with_an_example():
    for command in cli.main.registered_commands:
        run = subprocess.run(
            [sys.executable, "-m", "instrlib.cli", command.callback.__name__, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"instrlib {command.callback.__name__}" in run.stdout.split("Examples:")[1]
