"""What the README says is so: its commands run, its pictures and links exist, its results are the committed ones."""

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trees import tone, write_audio
from typer.testing import CliRunner

from instrlib.core.config import PROFILES
from instrlib.data import corpora
from instrlib.models import published
from instrlib.reporting import readme
from instrlib.reporting.summary import open_study
from instrlib.runner import cli

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
LINES_OF_MAKE = [line for line in LINES if re.search(r"^(\w+=\S+ )*make ", line)]

RUN_HERE = ("make figures", ".venv/bin/instrlib predict recording.wav", ".venv/bin/instrlib corpora")

RUN_ELSEWHERE = {
    "make study": ("test_smoke_study.py", '"instrlib.runner.cli", "study"'),
    "make demo": ("test_browser.py", "demo"),
    "make study CORPUS=folder DATA=/path/to/recordings": ("test_corpus_studies.py", '"folder": make_folders'),
    "make study CORPUS=fsdkaggle2018 DATA=/path/to/FSDKaggle2018": ("test_smoke_study.py", "corpus='fsdkaggle2018'"),
    ".venv/bin/dask scheduler --host 127.0.0.1 --port 8786": ("test_parallel.py", '"scheduler"'),
    ".venv/bin/dask worker tcp://127.0.0.1:8786 --nthreads 1 --nworkers 2": ("test_parallel.py", '"--nthreads"'),
    "INSTRLIB_SCHEDULER=tcp://127.0.0.1:8786 make study": ("test_parallel.py", "INSTRLIB_SCHEDULER"),
    "INSTRLIB_CORPORA=fsdkaggle2018=/sound/FSDKaggle2018:folder=/sound/mine make study": (
        "test_domains.py",
        "INSTRLIB_CORPORA",
    ),
}
"""The file of tests in which the same is run, and words of it that show it."""

NOT_RUN = {
    "make test": "it is what runs these tests",
    ".venv/bin/instrlib download fsdkaggle2018": "5 GB from elsewhere; test_fsdkaggle2018.py fetches a small copy",
    "make study CORPUS=fsdkaggle2018": "it needs that download; the same runs on a sample in test_smoke_study.py",
}
"""Lines that no test runs, and why."""


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
    named = set(re.findall(r"(?<!from )instrlib (\w+)", text))
    assert named <= {command.callback.__name__ for command in cli.main.registered_commands} | {"study"}


def test_the_corpora_and_profiles_that_it_names_are_there(text):
    of_the_example = set(re.findall(r'CorpusInfo\("(\w+)"', text))
    assert set(re.findall(r"CORPUS=(\w+)", text)) <= set(corpora.NAMES) | of_the_example
    assert set(re.findall(r"PROFILE=(\w+)", text)) <= set(PROFILES)


def test_every_link_and_picture_leads_somewhere(text, repository):
    places = [place for place in re.findall(r"\]\(([^)]+)\)", text) if "://" not in place]
    assert len(places) > 5
    assert not [place for place in places if not (repository / place).exists()]


def test_every_folder_that_it_explains_is_there_or_is_made(text, repository):
    folders = re.findall(r"^\| `(\w+)/`", text, re.M)
    ignored = (repository / ".gitignore").read_text().split()
    assert not [name for name in folders if not (repository / name).is_dir() and f"{name}/" not in ignored]


def test_every_file_and_module_that_it_names_is_there(text, repository):
    named = re.findall(r"`((?:figures|reports|instrlib|tests)/[\w./-]*\w)`", text)
    assert len(named) > 5
    to_be_made = {"instrlib/corpora/players.py"}  # by the reader, after the example
    assert not [path for path in named if path not in to_be_made and not (repository / path).exists()]
    (modules,) = re.findall(r"one module for each task: (.*?) \|$", text, re.M)
    there = {path.stem for path in (repository / "instrlib").iterdir()}
    assert set(re.findall(r"`(\w+)`", modules)) <= there


def test_every_name_of_the_library_in_its_words_is_there(text):
    named = re.findall(r"`(\w+)\.((?!html|pdf)\w+)`", text)
    of_modules = [(module, name) for module, name in named if importlib.util.find_spec(f"instrlib.{module}")]
    assert of_modules
    assert not [one for one in of_modules if not hasattr(importlib.import_module(f"instrlib.{one[0]}"), one[1])]


def test_every_option_that_it_names_is_there(text):
    for command, rest in re.findall(r"\.venv/bin/instrlib (\w+)([^`\n]*)", text):
        for option in re.findall(r"--[a-z]+", rest):
            shown = CliRunner().invoke(cli.main, [command, "--help"], env={"COLUMNS": "200"}).output
            assert option in shown, f"instrlib {command} {option}"


def test_its_made_parts_are_up_to_date(text, repository, monkeypatch):
    for name in ("reports", "figures"):
        monkeypatch.setenv(f"INSTRLIB_{name.upper()}", str(repository / name))
    assert readme.notebooks_table() in text
    if open_study("rendered-quick").primary:  # a study of an earlier version declares nothing
        assert readme.renewed(text) == text


def test_help_lists_every_target_with_its_words(repository, targets):
    shown = subprocess.run(["make", "-s", "help"], cwd=repository, capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^  {target}\s+\w", shown, re.M) for target in targets)


def test_every_command_explains_itself_with_an_example():
    for command in cli.main.registered_commands:
        run = subprocess.run(
            [sys.executable, "-m", "instrlib.runner.cli", command.callback.__name__, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"instrlib {command.callback.__name__}" in run.stdout.split("Examples:")[1]


def test_each_line_to_type_is_run_by_a_test_or_it_is_said_why_not():
    assert set(LINES) == {*RUN_HERE, *RUN_ELSEWHERE, *NOT_RUN}
    assert len({*RUN_HERE, *RUN_ELSEWHERE, *NOT_RUN}) == len(RUN_HERE) + len(RUN_ELSEWHERE) + len(NOT_RUN)


@pytest.mark.parametrize("line", RUN_ELSEWHERE)
def test_a_line_that_is_run_elsewhere_is_run_there(line, repository):
    file, words = RUN_ELSEWHERE[line]
    assert words in (repository / "tests" / file).read_text(encoding="utf-8")


def typed(line: str, *, folder: Path, repository: Path, **moved: Path) -> subprocess.CompletedProcess:
    """Run a line of the README with this interpreter, without setting up an environment."""
    command = shlex.split(line.replace(".venv/bin/instrlib", f"{shlex.quote(sys.executable)} -m instrlib.runner.cli"))
    if command[0] == "make":
        interpreter = f"RUN={shlex.quote(sys.executable)} -m"
        command += ["-s", "-C", str(repository), "-o", ".venv/.ready", interpreter]
    quiet = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    quiet |= {f"INSTRLIB_{name.upper()}": str(path) for name, path in moved.items()}
    return subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False)


def test_make_figures_draws_what_the_committed_arrays_hold(tmp_path, repository):
    arrays = tmp_path / "reports/rendered-quick/arrays"
    arrays.mkdir(parents=True)
    shutil.copy(repository / "reports/rendered-quick/arrays/01_leak.npz", arrays)
    moved = {"reports": tmp_path / "reports", "figures": tmp_path / "figures"}
    run = typed("make figures", folder=tmp_path, repository=repository, **moved)
    assert run.returncode == 0, run.stderr
    drawn = {path.name for path in (tmp_path / "figures/rendered-quick").iterdir()}
    assert drawn == {"01_leak.png", "01_leak.svg"}


def test_the_model_of_the_clone_names_an_instrument_before_any_study(tmp_path, repository):
    write_audio(tmp_path / "recording.wav", tone(2, 3, 4.0))
    reports = repository / "reports"
    run = typed(".venv/bin/instrlib predict recording.wav", folder=tmp_path, repository=repository, reports=reports)
    assert run.returncode == 0, run.stderr
    assert "recording.wav" in run.stdout and re.search(r"\d %|0\.\d", run.stdout)
    files = [path for path in (reports / "rendered-quick/model").iterdir() if path.suffix != ".md"]
    assert sum(path.stat().st_size for path in files) < 200_000  # "under 200 kB"


def test_the_model_of_the_clone_is_the_one_that_the_readme_tells_of(text, repository, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(repository / "reports"))
    committed = subprocess.run(
        ["git", "ls-files", "reports/*/model/model.json"], cwd=repository, capture_output=True, text=True, check=False
    )
    last = published.open_model().folder.relative_to(repository).as_posix()
    if f"{last}/model.json" not in committed.stdout.split():
        pytest.skip("a model of your own was published last")
    assert f"`{last}/MODEL_CARD.md`" in text


def test_the_list_of_corpora_names_each_of_them_with_its_licence(tmp_path, repository):
    run = typed(".venv/bin/instrlib corpora", folder=tmp_path, repository=repository)
    assert run.returncode == 0, run.stderr
    for name in corpora.NAMES:
        assert name in run.stdout and corpora.info(name).licence in run.stdout


@pytest.mark.parametrize("line", LINES_OF_MAKE)
def test_each_line_of_make_hands_its_settings_on(line, tmp_path, repository):
    settings = dict(re.findall(r"(\w+)=(\S+)", line.partition("make ")[2]))
    run = typed(f"make {line.partition('make ')[2]} -n", folder=tmp_path, repository=repository)
    assert run.returncode == 0, run.stderr
    assert f"instrlib.runner.cli {line.split()[-1 - len(settings)]}" in run.stdout or "pytest" in run.stdout
    for name, value in settings.items():
        assert f'--{name.lower()} "{value}"' in run.stdout


def test_its_licences_name_every_soundfont_that_plays_the_corpus(text):
    from instrlib.data import rendered
    from instrlib.data.rendered import sources as soundfont

    (said,) = re.findall(r"^## Licence\n(.*)", text, re.M | re.S)
    for name in rendered.PLAYERS.fonts:
        assert name in said and soundfont.FONTS[name].package in said
    assert "not for\ncommercial use" in said or "not for commercial use" in said
