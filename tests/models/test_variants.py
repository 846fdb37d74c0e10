"""Variants are trained and tested alike, fold by fold and seed by seed."""

import itertools

import numpy as np
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, RunError
from instrlib.data.splits import k_folds, save_splits
from instrlib.models import trained, variants
from instrlib.models.compression import export_networks
from instrlib.models.layers import Layer
from instrlib.models.variants import Variant

TINY = (Layer("conv", 8, 3, 2, 2), Layer("average"))
SHORT = TrainConfig(epochs=2)


@pytest.fixture(scope="module")
def folds(small, tmp_path_factory):
    return save_splits(k_folds(small.store.clips, 3, seed=0), tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def compared(small):
    wide = (Layer("conv", 16, 3, 2, 2), Layer("average"))
    again = Variant("tiny, fewer seeds", TINY, SHORT, small.store.folder, seeds=(1,))
    return [Variant("tiny", TINY, SHORT, small.store.folder), Variant("wide", wide, SHORT, small.store.folder), again]


@pytest.fixture(scope="module")
def outcomes(folds, compared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return variants.run_variants(folder, compared, splits=folds, seeds=(0, 1), workers=2)


def test_over_the_folds_each_clip_is_predicted_by_the_network_that_did_not_learn_from_it(small, folds, outcomes):
    for name, n_seeds in (("tiny", 2), ("wide", 2), ("tiny, fewer seeds", 1)):
        joined, folders = outcomes[name].predictions, outcomes[name].folders
        assert joined["clip_id"].tolist() == sorted(small.clips.manifest.clip_id)
        assert joined["probabilities"].shape == (n_seeds, len(small.clips.manifest), 3)
        assert [len(by_fold) for by_fold in folders] == [3] * n_seeds
        for seed, fold in itertools.product(range(n_seeds), range(3)):
            alone = trained.read_test(folders[seed][fold], small.store.folder, folds[fold])
            at = np.searchsorted(joined["clip_id"], alone["clip_id"])
            np.testing.assert_array_equal(joined["probabilities"][seed, at], alone["probabilities"])
    with pytest.raises(RunError, match="split"):
        trained.read_test(outcomes["wide"].folders[0][0], small.store.folder, folds[1])


def test_the_result_depends_neither_on_the_processes_nor_on_the_other_variants(folds, compared, outcomes, tmp_path):
    alone = variants.run_variants(tmp_path, compared[2:], splits=folds[1:2], seeds=(0,), workers=1)
    kept = outcomes["tiny"].predictions
    found = alone["tiny, fewer seeds"].predictions
    at = np.searchsorted(kept["clip_id"], found["clip_id"])
    np.testing.assert_array_equal(found["probabilities"][0], kept["probabilities"][1, at])


def test_run_again_nothing_is_trained_again(small, folds, compared, outcomes):
    folder = outcomes["tiny"].folders[0][0].parents[2]
    models = {path: path.stat().st_mtime_ns for path in folder.rglob("model.keras")}
    again = variants.run_variants(folder, compared, splits=folds, seeds=(0, 1), workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.keras")} == models and len(models) == 15
    read = variants.read_outcome(outcomes["tiny"].folders, store=small.store.folder, splits=folds, workers=1)
    for one in (again["tiny"], read):
        assert one.folders == outcomes["tiny"].folders
        np.testing.assert_array_equal(one.predictions["probabilities"], outcomes["tiny"].predictions["probabilities"])


def test_the_description_holds_size_and_mean_validation_scores(outcomes):
    table = variants.describe(outcomes)
    assert table.parameters.tolist() == [n * 9 + n + n * 3 + 3 for n in (8, 16, 8)]
    assert table.n_trained.tolist() == [6, 6, 3] and (table.epochs == 2).all()
    accuracies = [trained.summary(folder)["validation_accuracy"] for folder in outcomes["wide"].flat]
    assert table.validation_accuracy["wide"] == pytest.approx(np.mean(accuracies))


def test_names_that_would_share_a_folder_are_refused_before_anything_is_trained(small, inputs, folds, tmp_path):
    same = [Variant(name, TINY, SHORT, small.store.folder) for name in ("A, b", "a b")]
    with pytest.raises(ConfigError, match="a b"):
        variants.run_variants(tmp_path, same, splits=folds, seeds=(0,))
    with pytest.raises(ConfigError, match="a b"):
        export_networks(tmp_path, {"A, b": [], "a b": []}, inputs=inputs)
    assert not list(tmp_path.iterdir())
