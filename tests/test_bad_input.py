"""What a user can get wrong is one sentence: what it is, where, and what there is instead; never a traceback."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instrlib.core.config import PROFILES, TrainConfig, get_profile
from instrlib.core.errors import ConfigError, InstrlibError, RunError, SplitError
from instrlib.data import corpora, rendered
from instrlib.data.splits import Split, make_split, save_split
from instrlib.data.store import build_store
from instrlib.models import answers, train, trained
from instrlib.models.layers import SPECS, Layer, build, get_spec
from instrlib.runner.cli import main

CONFIG = TrainConfig(epochs=1)


def sentence(error: type[InstrlibError], call: Callable[[], object]) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(error) as refused:
        call()
    message = str(refused.value)
    assert message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("call", "what", "there_is"),
    [
        (lambda: get_profile("huge"), "profile 'huge'", PROFILES),
        (lambda: corpora.load("none", profile=PROFILES["smoke"]), "corpus 'none'", corpora.NAMES),
        (lambda: get_spec("huge"), "network 'huge'", SPECS),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(call, what, there_is):
    assert sentence(ConfigError, call) == f"Unknown {what}; there is: {', '.join(there_is)}."


def test_an_unknown_class_is_answered_with_those_there_are(tmp_path):
    def load_rendered() -> None:
        corpora.load("rendered", data=tmp_path, profile=PROFILES["smoke"], classes=("piano", "kazoo"))

    assert sentence(ConfigError, load_rendered).endswith(
        f"there is no class 'kazoo'; there is: {', '.join(rendered.CLASSES)}."
    )


@pytest.mark.real_data
def test_an_unknown_class_of_a_corpus_from_disk_is_answered_with_those_there_are(sample_root):
    def load_sample() -> None:
        corpora.load("fsdkaggle2018", data=sample_root, profile=PROFILES["smoke"], classes=("Cello", "Kazoo"))

    assert sentence(ConfigError, load_sample).startswith("Unknown class Kazoo; there is: ")
    assert "Cello" in sentence(ConfigError, load_sample)


@pytest.mark.parametrize(
    "arguments",
    [
        ("study", "--profile", "huge"),
        ("study", "--corpus", "none"),
        ("download", "none"),
        ("validate", "none"),
        ("report", "--corpus", "none"),
        ("figures", "--profile", "huge"),
    ],
)
def test_the_command_line_answers_in_one_line_with_exit_code_2(arguments):
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ((Layer("conv", 4, pool=4), Layer("conv", 4, pool=4), Layer("average")), 2),
        ((Layer("conv", 4, kernel=5, stride=2, pool=2), Layer("conv", 4, stride=4, pool=2), Layer("average")), 2),
        ((Layer("conv", 4, pool=16), Layer("average")), 1),
        ((Layer("average"), Layer("conv", 4, pool=2)), 2),
        ((Layer("conv", 4), Layer("dense", 4)), 2),
    ],
)
def test_a_row_that_does_not_fit_the_input_is_named(table, row):
    message = sentence(ConfigError, lambda: build(table, (12, 40, 1), 3))
    assert message.startswith(f"Row {row} (")
    assert "does not fit its input" in message


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_class_that_is_missing_from_a_part_of_the_split_stops_with_both_names(small, tmp_path, part):
    labels = small.store.clips.set_index("clip_id").label
    moved = small.split.parts.mask(
        (labels.reindex(small.split.parts.index) == "piano") & (small.split.parts == part),
        "train" if part == "test" else "test",
    )
    save_split(Split(moved, 0), tmp_path / "split.json")

    def train() -> None:
        train.train_model(tmp_path / "run", small.store.folder, tmp_path / "split.json", "small", CONFIG, 0)

    message = sentence(SplitError, train)
    assert message.startswith(f"There is no clip of piano in the {part} part of the split; ")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(small, tmp_path_factory) -> Path:
    """Return a finished training run."""
    folder = tmp_path_factory.mktemp("run") / "seed-0"
    return train.train_model(folder, small.store.folder, small.split_path, "small", CONFIG, 0)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """Return a copy of the run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "seed-0"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    path.write_text(json.dumps({"notebook": "01_preprocessing", "study": "rendered-quick"}))


def a_list(path: Path) -> None:
    path.write_text("[]")


@pytest.mark.parametrize("damage", [cut, foreign, a_list, Path.unlink])
@pytest.mark.parametrize("name", ["model.keras", "preprocessing.json", "manifest.json"])
def test_a_damaged_or_foreign_run_folder_is_named(small, copy, name, damage):
    damage(copy / name)

    def read() -> None:
        answers.read_test(copy, small.store.folder, small.split_path)

    for call in (lambda: trained.load_model(copy), read):
        message = sentence(RunError, call)
        assert str(copy) in message and "the notebook that trains it again" in message
        assert name in message or damage is Path.unlink


@pytest.mark.parametrize("damage", [cut, foreign, a_list])
def test_nothing_is_trained_into_a_folder_of_something_else(small, copy, damage):
    damage(copy / "manifest.json")

    def train() -> None:
        train.train_model(copy, small.store.folder, small.split_path, "small", CONFIG, 0)

    assert str(copy) in sentence(RunError, train)
    assert (copy / "model.keras").exists()


def test_a_run_of_another_split_is_not_tested(small, copy, tmp_path):
    other = make_split(small.store.clips, seed=1)
    save_split(other, tmp_path / "other.json")
    message = sentence(RunError, lambda: answers.read_test(copy, small.store.folder, tmp_path / "other.json"))
    assert message.startswith(f"{copy} was trained with the split {small.split.fingerprint}, not with ")
    assert other.fingerprint in message


def test_a_run_of_other_features_is_not_tested(small, copy, tmp_path):
    config = dataclasses.replace(small.store.config, hop_length=2048)
    other = build_store(small.clips, config, root=tmp_path / "features", workers=1)
    message = sentence(RunError, lambda: answers.read_test(copy, other.folder, small.split_path))
    assert message.startswith(f"{copy} was trained with the feature store {small.store.fingerprint}, not with ")
    assert other.fingerprint in message


@pytest.mark.parametrize("damage", [cut, foreign, a_list])
def test_a_file_that_is_no_split_is_named(small, copy, tmp_path, damage):
    path = tmp_path / "split.json"
    shutil.copyfile(small.split_path, path)
    damage(path)
    assert str(path) in sentence(InstrlibError, lambda: answers.read_test(copy, small.store.folder, path))
