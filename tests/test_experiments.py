"""Variants are trained and tested alike, fold by fold and seed by seed, and compared on the same clips."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from instrlib import findings
from instrlib.core.config import TrainConfig
from instrlib.core.errors import EvaluationError
from instrlib.data.splits import k_folds, save_split
from instrlib.evaluation.intervals import holm
from instrlib.models import evaluation, experiments, training
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
        alone = evaluation.read_test(folder, small.store.folder, folds[fold])
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


def test_differences_are_paired_with_the_reference_and_corrected_for_their_number(outcomes):
    predictions = experiments.answers(outcomes)
    targets = predictions["tiny"]["targets"]
    perfect = predictions["tiny"] | {"probabilities": np.eye(3)[targets]}
    table = experiments.against(predictions | {"oracle": perfect}, "tiny", n_resamples=200, seed=0)
    accuracy = {name: (one["probabilities"].argmax(-1) == targets).mean() for name, one in predictions.items()}
    assert table.index.tolist() == ["Twice as wide", "oracle"]
    assert table.difference["Twice as wide"] == pytest.approx(accuracy["Twice as wide"] - accuracy["tiny"])
    assert table.difference["oracle"] == pytest.approx(1 - accuracy["tiny"]) and table.low["oracle"] > 0
    np.testing.assert_allclose(table.p_holm, holm(table.p))
    assert "Oracle is better than tiny" in findings.differences_sentence(table, "tiny")
    alike = table.loc[["Twice as wide"]].assign(difference=0.01, low=-0.02, high=0.04, p_holm=0.5)
    assert findings.differences_sentence(alike, "tiny") == (
        "Twice as wide is not shown to differ from tiny: accuracy +0.010 [-0.020, +0.040], p = 0.500."
    )


def test_pairs_are_judged_by_p_values_corrected_for_their_number(outcomes):
    predictions = experiments.answers(outcomes)
    perfect = predictions["tiny"] | {"probabilities": np.eye(3)[predictions["tiny"]["targets"]]}
    questions = [("tiny", "oracle"), ("Twice as wide", "tiny"), ("oracle", "Twice as wide")]
    table = experiments.compare_pairs(predictions | {"oracle": perfect}, questions, n_resamples=10, seed=0)
    assert table.index.tolist() == questions
    against = experiments.against(predictions | {"oracle": perfect}, "tiny", n_resamples=10, seed=0)
    assert table.difference["tiny", "oracle"] == pytest.approx(-against.difference["oracle"])
    np.testing.assert_allclose(table.p_holm, holm(table.p))
    said = findings.pair_sentences(table.assign(p_holm=[0.01, 0.06, 0.01], low=0.01))
    assert said[0].startswith("“tiny” is worse than “oracle”: accuracy -")
    assert said[1].startswith("These clips do not show a difference between “Twice as wide” and “tiny”")
    assert said[2].endswith("p = 0.010 after Holm's correction for 3 comparisons.")


def test_models_tested_on_different_clips_are_not_compared(outcomes):
    predictions = experiments.answers(outcomes)
    fewer = {name: value[..., :5] for name, value in predictions["tiny"].items() if name != "probabilities"}
    shortened = fewer | {"probabilities": predictions["tiny"]["probabilities"][:, :5]}
    with pytest.raises(EvaluationError, match="'short' and 'tiny' were not tested on the same clips"):
        experiments.against({"tiny": predictions["tiny"], "short": shortened}, "tiny", n_resamples=10, seed=0)


def test_a_clip_tested_in_two_folds_is_an_error(outcomes):
    answer = outcomes["tiny"].predictions
    with pytest.raises(EvaluationError, match="tested in two folds"):
        evaluation.join_folds([answer, answer])


def test_holm_corrects_as_the_published_example_and_leaves_what_was_not_tested():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, np.nan, 0.7]), [1, np.nan, 1])
