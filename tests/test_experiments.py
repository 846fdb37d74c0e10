"""Variants are trained and tested alike, fold by fold and seed by seed, and compared on the same clips."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from instrlib.core.config import TrainConfig
from instrlib.data.splits import k_folds, save_split
from instrlib.models import answers, experiments, training
from instrlib.models.experiments import Variant
from instrlib.models.layers import Layer

TINY = (Layer("conv", 8, 3, 2, 2), Layer("average"))
SHORT = TrainConfig(epochs=2)


@pytest.fixture(scope="module")
def folds(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    paths = [folder / f"{number}.json" for number in range(3)]
    for split, path in zip(k_folds(small.store.clips, 3, seed=0), paths, strict=True):
        save_split(split, path)
    return paths


@pytest.fixture(scope="module")
def variants(small):
    wide = (Layer("conv", 16, 3, 2, 2), Layer("average"))
    return [Variant("tiny", TINY, SHORT, small.store.folder), Variant("Twice as wide", wide, SHORT, small.store.folder)]


@pytest.fixture(scope="module")
def outcomes(small, folds, variants, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return experiments.run_variants(folder, variants, splits=folds, seeds=(0, 1), workers=2)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("CutMix, b = 0.9", "cutmix-b-0.9"),
        ("rendered by FluidR3_GM", "rendered-by-fluidr3-gm"),
        (" .a__B-- c?. ", "a-b-c"),
        ("folder Трубы", "folder-трубы"),
        ("folder Скрипки", "folder-скрипки"),
        ("琴 二", "琴-二"),
        ("सितार", "सितार"),  # its vowels are marks on the letters
        ("E\u0301tude", "\u00e9tude"),
    ],
)
def test_a_name_has_a_folder_that_keeps_the_letters_of_its_script(name, folder):
    assert experiments.run_folder(Path("runs"), name, fold=0, seed=1) == Path("runs") / folder / "fold-0" / "seed-1"


def test_names_in_ascii_have_the_folders_that_networks_were_kept_in_before():
    for first, second in itertools.product(map(chr, range(128)), repeat=2):
        name = f"a{first}{second}B{first}"
        assert experiments.slug(name) == re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def test_over_the_folds_each_clip_is_answered_once_for_each_seed(small, outcomes):
    for outcome in outcomes.values():
        assert outcome.predictions["clip_id"].tolist() == sorted(small.clips.manifest.clip_id)
        assert outcome.predictions["probabilities"].shape == (2, len(small.clips.manifest), 3)
        assert len(outcome.folders) == 2 and all(len(by_fold) == 3 for by_fold in outcome.folders)


def test_each_answer_is_that_of_the_network_which_did_not_learn_from_the_clip(small, folds, outcomes):
    joined = outcomes["tiny"].predictions
    for seed, fold in itertools.product(range(2), range(3)):
        folder = outcomes["tiny"].folders[seed][fold]
        assert folder.parts[-2:] == (f"fold-{fold}", f"seed-{seed}")
        alone = answers.read_test(folder, small.store.folder, folds[fold])
        at = np.searchsorted(joined["clip_id"], alone["clip_id"])
        np.testing.assert_array_equal(joined["probabilities"][seed, at], alone["probabilities"])


def test_run_again_nothing_is_trained_again(folds, variants, outcomes):
    folder = outcomes["tiny"].folders[0][0].parents[2]
    models = {path: path.stat().st_mtime_ns for path in folder.rglob("model.keras")}
    again = experiments.run_variants(folder, variants, splits=folds, seeds=(0, 1), workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.keras")} == models and len(models) == 12
    for name, outcome in outcomes.items():
        np.testing.assert_array_equal(again[name].predictions["probabilities"], outcome.predictions["probabilities"])


def test_the_description_has_the_size_of_each_network_and_its_validation_scores(outcomes):
    table = experiments.describe(outcomes)
    assert table.parameters.tolist() == [8 * 9 + 8 + 8 * 3 + 3, 16 * 9 + 16 + 16 * 3 + 3]
    assert table.validation_accuracy.between(0, 1).all() and (table.training_s > 0).all()
    for name, outcome in outcomes.items():
        ends = [training.summary(folder) for folder in outcome.flat]
        assert table.n_trained[name] == len(ends)
        assert table.n_late[name] == sum(one["best_epoch"] >= 0.9 * one["epochs"] for one in ends)
