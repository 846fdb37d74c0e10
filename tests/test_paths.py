"""Paths as users write them: "~" is understood everywhere, and what cannot be found is one sentence."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from instrlib.core.errors import ConfigError
from instrlib.core.io import expanded, whole
from instrlib.models import embeddings, published
from instrlib.reporting import summary
from instrlib.runner import cli, study
from instrlib.studies import domains

LOST = "~no-such-user-here/sounds"


@pytest.mark.parametrize(
    "use",
    [
        lambda: published.open_model(LOST),
        lambda: study.run_study(corpus="folder", data=LOST, profile="smoke", seeds=1),
        lambda: summary.open_study(LOST),
    ],
    ids=["model", "study", "results"],
)
def test_a_home_folder_of_nobody_is_one_sentence(use):
    with pytest.raises(ConfigError, match=f"^{LOST} begins with a home folder that is not known; write the whole path"):
        use()


@pytest.mark.parametrize(
    ("variable", "before", "use"),
    [("INSTRLIB_CORPORA", "folder=", domains.on_this_machine), ("INSTRLIB_WEIGHTS", "", embeddings.available)],
)
def test_in_a_variable_it_is_one_sentence_that_names_the_variable(variable, before, use, monkeypatch):
    monkeypatch.setenv(variable, before + LOST)
    with pytest.raises(ConfigError, match=f"^{variable} names {LOST}; write the whole path, from the root"):
        use()


@pytest.mark.parametrize("command", ["download", "validate"])
def test_a_home_folder_of_nobody_is_one_line_on_the_command_line(command):
    outcome = CliRunner().invoke(cli.main, [command, "fsdkaggle2018", "--data", LOST])
    assert outcome.exit_code == 2 and f"{LOST} begins with a home folder" in outcome.stderr


def test_a_path_is_expanded_and_otherwise_left_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/sounds") == whole("~/sounds", "PLACE") == tmp_path / "sounds"
    assert expanded("a/~b") == Path("a/~b")


def test_a_relative_path_in_a_variable_is_refused():
    with pytest.raises(ConfigError, match=r"^PLACE names sounds/mine; write the whole path, from the root\.$"):
        whole("sounds/mine", "PLACE")
