"""Variants are trained and tested alike, fold by fold and seed by seed; searches survive failing and killed trials."""

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, DiskError, RunError, WorkerError
from instrlib.data.splits import k_folds, save_splits
from instrlib.models import trained, variants
from instrlib.models.compression import export_networks
from instrlib.models.layers import Layer
from instrlib.models.variants import Variant

TINY, WIDE = ((Layer("conv", units, 3, 2, 2), Layer("average")) for units in (8, 16))
SHORT = TrainConfig(epochs=2)
BUDGET = 250_000
FATAL = 24


@pytest.fixture(scope="module")
def folds(small, tmp_path_factory):
    return save_splits(k_folds(small.store.clips, 3, seed=0), tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def compared(small):
    kinds = (("tiny", TINY, None), ("wide", WIDE, None), ("tiny, fewer seeds", TINY, (1,)))
    return [Variant(name, spec, SHORT, small.store.folder, seeds=seeds) for name, spec, seeds in kinds]


@pytest.fixture(scope="module")
def outcomes(folds, compared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return variants.run_variants(folder, compared, splits=folds, seeds=(0, 1), workers=2)


def test_over_the_folds_each_clip_is_predicted_by_the_network_that_did_not_learn_from_it(small, folds, outcomes):
    for name, n_seeds in (("tiny", 2), ("wide", 2), ("tiny, fewer seeds", 1)):
        joined, folders = outcomes[name].predictions, outcomes[name].folders
        assert joined["clip_id"].tolist() == sorted(small.clips.manifest.clip_id)
        assert joined["probabilities"].shape == (n_seeds, len(small.clips.manifest), 3)
        for seed, fold in itertools.product(range(n_seeds), range(3)):
            alone = trained.read_test(folders[seed][fold], small.store.folder, folds[fold])
            at = np.searchsorted(joined["clip_id"], alone["clip_id"])
            np.testing.assert_array_equal(joined["probabilities"][seed, at], alone["probabilities"])
    with pytest.raises(RunError, match="split"):
        trained.read_test(outcomes["wide"].folders[0][0], small.store.folder, folds[1])


def test_the_result_depends_neither_on_the_processes_nor_on_the_other_variants(folds, compared, outcomes, tmp_path):
    alone = variants.run_variants(tmp_path, compared[2:], splits=folds[1:2], seeds=(0,), workers=1)
    kept, found = outcomes["tiny"].predictions, alone["tiny, fewer seeds"].predictions
    at = np.searchsorted(kept["clip_id"], found["clip_id"])
    np.testing.assert_array_equal(found["probabilities"][0], kept["probabilities"][1, at])


def test_run_again_nothing_is_trained_again(small, folds, compared, outcomes):
    folder = outcomes["tiny"].folders[0][0].parents[2]
    models = {path: path.stat().st_mtime_ns for path in folder.rglob("model.keras")}
    again = variants.run_variants(folder, compared, splits=folds, seeds=(0, 1), workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.keras")} == models and len(models) == 15
    assert again["tiny"].folders == outcomes["tiny"].folders
    np.testing.assert_equal(again["tiny"].predictions, outcomes["tiny"].predictions)


def test_the_description_holds_size_and_mean_validation_scores(outcomes):
    table = variants.describe(outcomes)
    assert table.parameters.tolist() == [n * 9 + n + n * 3 + 3 for n in (8, 16, 8)]
    assert table.n_trained.tolist() == [6, 6, 3] and (table.epochs == 2).all()
    accuracies = [trained.summary(folder)["validation_accuracy"] for folder in outcomes["wide"].flat]
    assert table.validation_accuracy["wide"] == pytest.approx(np.mean(accuracies))


def test_names_that_would_share_a_folder_raise_before_anything_is_trained(small, inputs, folds, tmp_path):
    same = [Variant(name, TINY, SHORT, small.store.folder) for name in ("A, b", "a b")]
    with pytest.raises(ConfigError, match="a b"):
        variants.run_variants(tmp_path, same, splits=folds, seeds=(0,))
    with pytest.raises(ConfigError, match="a b"):
        export_networks(tmp_path, {"A, b": [], "a b": []}, inputs=inputs)
    assert not list(tmp_path.iterdir())


def space(hp, config):
    filters, kernel = hp.Choice("filters", [8, 16, FATAL, 32]), hp.Choice("kernel", [3, 5])
    blocks = [Layer("conv", filters, kernel, stride=2, pool=3)] * hp.Int("blocks", 1, 4)
    rate = hp.Float("learning rate", 1e-4, 1e-1, sampling="log")
    return (*blocks, Layer("average")), TrainConfig(epochs=1, patience=1, learning_rate=rate)


def draw(small, space=space, **settings) -> list[variants.Candidate]:
    arguments = {"input_shape": (*small.store.config.shape, 1), "n_classes": 3, "config": TrainConfig()}
    return variants.draw(space, **arguments | {"trials": 8, "seed": 0, "max_multiply_adds": BUDGET} | settings)


def pretend(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    """Stand in for the training: the filters decide what happens."""
    if spec[0].units == 16:
        raise RunError("Training diverged.")
    if spec[0].units == 32:
        raise ZeroDivisionError
    if spec[0].units == FATAL:
        os.kill(os.getpid(), signal.SIGKILL)
    return dict.fromkeys(variants.RESULTS, config.learning_rate)


def test_a_seed_draws_the_same_distinct_networks_and_another_seed_others(small):
    first = [one.values for one in draw(small, trials=4)]
    assert [one.values for one in draw(small, trials=5)][: len(first)] == first
    assert len({tuple(one.values()) for one in first}) == len(first) >= 4

    def choices(hp, config):
        return (*(Layer("conv", hp.Int(f"filters {n}", 1, 1000)) for n in range(8)), Layer("average")), config

    drawn = [draw(small, choices, trials=1, seed=seed, max_multiply_adds=np.inf)[0] for seed in (0, 1)]
    one, other = (list(each.values.values()) for each in drawn)
    assert one != other and one[1:] != other[:-1]  # not the same numbers, one place on


def test_networks_over_the_budget_or_impossible_are_marked_and_others_drawn(small):
    drawn = draw(small, trials=12)
    by_status = {status: [one for one in drawn if one.status == status] for status in ("drawn", "too large", "failed")}
    assert len(by_status["drawn"]) == 12 and all(one.multiply_adds <= BUDGET for one in by_status["drawn"])
    assert by_status["too large"] and all(one.multiply_adds > BUDGET for one in by_status["too large"])
    assert by_status["failed"] and all(one.reason and one.multiply_adds is None for one in by_status["failed"])
    one = by_status["drawn"][0]
    kernel, filters, blocks = (int(one.values[name]) for name in ("kernel", "filters", "blocks"))
    channels = itertools.pairwise([1] + [filters] * blocks)
    assert one.parameters == sum((kernel**2 * before + 1) * after for before, after in channels) + (filters + 1) * 3

    def tiny(hp, config):
        return (Layer("conv", hp.Choice("filters", [8, 16]), 3), Layer("average")), config

    assert len(draw(small, tiny)) == 2  # nothing left
    assert {one.status for one in draw(small, max_multiply_adds=10)} <= {"too large", "failed"}


def test_trials_that_fail_or_kill_their_process_are_marked_and_no_finished_one_is_repeated(
    small, inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr(variants, "_train_trial", pretend)
    candidates = draw(small, trials=10)
    trials = variants.search(tmp_path, candidates, inputs=inputs, workers=2)
    expected = {8: "done", 16: "failed", FATAL: "died", 32: "failed"}
    fitting = trials[[one.status == "drawn" for one in candidates]]
    assert fitting.status.tolist() == [expected[filters] for filters in fitting.filters]
    assert {"done", "died", "failed"} == set(fitting.status)
    assert fitting.reason[fitting.filters == 16].str.contains("diverged").all()
    assert fitting.reason[fitting.filters == 32].str.contains("ZeroDivisionError").all()
    assert trials.validation_loss.notna().tolist() == (trials.status == "done").tolist()
    monkeypatch.setattr(variants, "_train_trial", print)  # no trial succeeds from now on
    again = variants.search(tmp_path, draw(small, trials=11), inputs=inputs, workers=1)
    pd.testing.assert_frame_equal(again.iloc[: len(trials)], trials)
    assert again.reason[len(trials) :].str.contains("TypeError").sum() == 1


@pytest.mark.parametrize(
    ("name", "fault"), [("_train_trial", DiskError("the disk is full")), ("parallel_map", WorkerError("no process"))]
)
def test_a_fault_of_the_machine_is_no_fault_of_a_trial(name, fault, small, inputs, tmp_path, monkeypatch):
    def fails(*_args: object, **_kwargs: object) -> None:
        raise fault

    monkeypatch.setattr(variants, name, fails)
    with pytest.raises(type(fault)):
        variants.search(tmp_path, draw(small, trials=1), inputs=inputs, workers=1)
    assert not list(tmp_path.glob("*.json"))


def test_trained_trials_do_not_depend_on_the_processes_and_keep_no_weights(small, inputs, tmp_path):
    drawn = draw(small, trials=2)
    one, other = (variants.search(tmp_path / str(n), drawn, inputs=inputs, workers=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    assert (one.status == "done").sum() == 2 and (one.seconds.dropna() > 0).all()
    assert not list(tmp_path.rglob("model.keras"))
