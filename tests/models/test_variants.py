"""Variants over folds and seeds, searches that survive failing trials, pruned networks, and converted ones."""

import functools
import itertools
import os
import signal
from pathlib import Path
from zlib import compress

import numpy as np
import pandas as pd
import pytest
from ai_edge_litert.interpreter import Interpreter

from instrlib.core.config import TrainConfig
from instrlib.core.io import ConfigError, DiskError, RunError, WorkerError, read_json
from instrlib.data.splits import k_folds, load_split, save_splits
from instrlib.models import compression, trained, variants
from instrlib.models.compression import FORMATS, Pruning, export_networks
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.variants import Variant, run_variants

TINY, WIDE = ((Layer("conv", units, 3, 2, 2), Layer("average")) for units in (8, 16))
SHORT = TrainConfig(epochs=2)
BUDGET = 250_000
FAULTS = {3: RunError("Training diverged."), 5: ZeroDivisionError()}


@pytest.fixture(scope="module")
def folds(small, tmp_path_factory):
    return save_splits(k_folds(small.store.clips, 3, seed=0), tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def outcomes(small, folds, tmp_path_factory):
    kinds = (("tiny", TINY, None), ("wide", WIDE, None), ("tiny, fewer seeds", TINY, (1,)))
    compared = [Variant(name, spec, SHORT, small.store.folder, seeds=seeds) for name, spec, seeds in kinds]
    return variants.run_variants(tmp_path_factory.mktemp("run"), compared, splits=folds, seeds=(0, 1), workers=2)


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
    table = variants.describe(outcomes)
    assert table.parameters.tolist() == [n * 9 + n + n * 3 + 3 for n in (8, 16, 8)]
    assert table.n_trained.tolist() == [6, 6, 3] and (table.epochs == 2).all()
    accuracies = [trained.summary(folder)["validation_accuracy"] for folder in outcomes["wide"].flat]
    assert table.validation_accuracy["wide"] == pytest.approx(np.mean(accuracies))


def test_names_that_would_share_a_folder_raise_before_anything_is_trained(small, inputs, folds, tmp_path):
    same = {name: Variant(name, TINY, SHORT, small.store.folder) for name in ("A, b", "a b")}
    with pytest.raises(ConfigError, match="a b"):
        variants.run_variants(tmp_path, list(same.values()), splits=folds, seeds=(0,))
    with pytest.raises(ConfigError, match="a b"):
        export_networks(tmp_path, same, inputs=inputs)
    assert not list(tmp_path.iterdir())


def space(hp, config):
    filters, kernel = hp.Choice("filters", [8, 12, 16, 24]), hp.Choice("kernel", [3, 5])
    blocks = [Layer("conv", filters, kernel, stride=2, pool=3)] * hp.Int("blocks", 1, 4)
    rate = hp.Float("learning rate", 1e-4, 1e-1, sampling="log")
    return (*blocks, Layer("average")), TrainConfig(epochs=1, patience=1, learning_rate=rate)


def draw(small, space=space, **settings) -> list[variants.Candidate]:
    arguments = {"input_shape": (*small.store.config.shape, 1), "n_classes": 3, "config": TrainConfig()}
    return variants.draw(space, **arguments | {"trials": 8, "seed": 0, "max_multiply_adds": BUDGET} | settings)


def pretend(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    """Stand in for the training: filters and kernel decide what happens."""
    if spec[0].units == 12:
        raise FAULTS[spec[0].kernel]
    if spec[0].units == 16:
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
    assert one.parameters == build(one.spec, (*small.store.config.shape, 1), 3).count_params()

    def tiny(hp, config):
        return (Layer("conv", hp.Choice("filters", [8, 16]), 3), Layer("average")), config

    assert len(draw(small, tiny)) == 2  # nothing left


def test_failed_and_killed_trials_are_marked_and_no_finished_one_is_repeated(small, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "_train_trial", pretend)
    candidates = draw(small, trials=10)
    trials = variants.search(tmp_path, candidates, inputs=inputs, workers=2)
    fitting = trials[[one.status == "drawn" for one in candidates]].set_index("filters")
    assert fitting.status.to_dict() == {8: "done", 12: "failed", 16: "died"}
    reasons = fitting.loc[12].set_index("kernel").reason.to_dict()
    assert "diverged" in reasons[3] and "ZeroDivisionError" in reasons[5]
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


TUNE = TrainConfig(epochs=2, learning_rate=1e-3)
CONTROL, MOST, AT_ONCE = Pruning(0.0), Pruning(0.9), Pruning(0.9, "one step")
# Weights, and places: of 32 bands x 65 frames 16 x 33 after the stride and 8 x 16 after the pooling.
KERNELS = {
    "conv1/kernel": (5 * 5 * 12, 16 * 33),
    "conv2/kernel": (3 * 3 * 12 * 16, 8 * 16),
    "scores/kernel": (16 * 3, 1),
}


@pytest.fixture(scope="module")
def dense(small, inputs, tmp_path_factory):
    """Return a tiny network trained on the small corpus from two seeds."""
    table = (Layer("conv", 12, 5, 2, 2, True), Layer("conv", 16, 3, 1, 2, True), Layer("average", dropout=0.3))
    variant = Variant("dense", table, TrainConfig(epochs=6), small.store.folder)
    return run_variants(tmp_path_factory.mktemp("dense"), [variant], splits=inputs.splits, seeds=(0, 1))["dense"]


def prune_all(dense, inputs, folder: Path, ways: list[Pruning], config: TrainConfig = TUNE, seeds=(0, 1)):
    places = {(seed, inputs.splits[0]): by_fold[0] for seed, by_fold in enumerate(dense.folders)}
    trains = {one.name: functools.partial(compression.prune, places, one) for one in ways}
    made = [Variant(name, "compact", config, inputs.store.folder, train=train) for name, train in trains.items()]
    return run_variants(folder, made, splits=inputs.splits, seeds=seeds, workers=2)


@pytest.fixture(scope="module")
def pruned(dense, inputs, tmp_path_factory):
    return prune_all(dense, inputs, tmp_path_factory.mktemp("pruned"), [CONTROL, MOST, AT_ONCE])


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return {one.path: one.numpy() for one in trained.load_model(folder)[0].weights}


def test_every_kernel_has_the_share_of_zeros_asked_for_and_nothing_else_is_pruned(pruned, dense):
    assert list(pruned) == ["not pruned, fine-tuned", "90 %, progressive", "90 %, one step"]
    for way in (CONTROL, MOST, AT_ONCE):
        for before, folder in zip(dense.flat, pruned[way.name].flat, strict=True):
            expected = 0
            for (name, new), old in zip(weights_of(folder).items(), weights_of(before).values(), strict=True):
                n_zeros, n, n_places = (new == 0).sum(), *KERNELS.get(name, (0, 0))
                expected += n_places * (n - n_zeros)
                assert abs(n_zeros - way.sparsity * n) <= (name in KERNELS) and (new != old).any()
                if way == AT_ONCE:  # the largest weights are kept
                    assert np.abs(old[new != 0]).min() >= np.abs(old[new == 0]).max(initial=0)
            kept = read_json(folder / "metrics.json")
            n_zeros = sum((one == 0).sum() for one in weights_of(folder).values())
            assert kept["nonzero"] == kept["parameters"] - n_zeros
            assert kept["nonzero_multiply_adds"] == expected
        np.testing.assert_array_equal(pruned[way.name].predictions["clip_id"], dense.predictions["clip_id"])


def test_the_result_does_not_depend_on_a_kill_and_a_finished_one_is_kept(pruned, dense, inputs, tmp_path):
    first = prune_all(dense, inputs, tmp_path, [MOST, AT_ONCE], seeds=(0,))
    (first[AT_ONCE.name].flat[0] / "manifest.json").unlink()  # killed before its end
    kept = (first[MOST.name].flat[0] / "model.keras").stat().st_mtime_ns
    again = prune_all(dense, inputs, tmp_path, [AT_ONCE, MOST], seeds=(0,))
    assert (again[MOST.name].flat[0] / "model.keras").stat().st_mtime_ns == kept
    for name, outcome in again.items():
        np.testing.assert_equal(weights_of(pruned[name].flat[0]), weights_of(outcome.flat[0]))


def test_a_loss_that_is_not_finite_is_refused(dense, inputs, tmp_path):
    with pytest.raises(RunError, match="diverged"):
        prune_all(dense, inputs, tmp_path, [MOST], TrainConfig(epochs=1, batch_size=8, learning_rate=1e30), seeds=(0,))
    assert not list(tmp_path.rglob("manifest.json"))
    assert not hasattr(compression, "tf_keras")  # imported by worker processes alone


@pytest.fixture(scope="module")
def exported(dense, inputs, tmp_path_factory):
    return compression.export_networks(
        tmp_path_factory.mktemp("files"), {"dense": dense.folders}, inputs=inputs, workers=2
    )


def test_each_file_answers_nearly_as_its_network_and_its_sizes_are_listed(exported, dense, inputs):
    predictions, files = exported
    assert list(predictions) == [f"dense, {kind}" for kind in FORMATS] and len(files) == 2 * len(FORMATS)
    for found, bound in zip(predictions.values(), (1e-5, 5e-3, 0.15, 0.3), strict=True):
        np.testing.assert_array_equal(found["clip_id"], dense.predictions["clip_id"])
        np.testing.assert_allclose(found["probabilities"].sum(axis=-1), 1, atol=1e-5)
        difference = np.abs(found["probabilities"] - dense.predictions["probabilities"]).max()
        assert difference <= bound
    assert difference > 1e-5  # of int8, the last one
    segments = trained.part_segments(inputs.store, load_split(inputs.splits[0], inputs.store.segments), "validation")
    for row in files.itertuples():
        model, scaler = trained.load_model(dense.folders[row.seed][0])
        assert (row.bytes, row.compressed_bytes) == (len(content := row.path.read_bytes()), len(compress(content, 9)))
        assert row.parameters == row.nonzero == model.count_params()
        assert row.multiply_adds == row.nonzero_multiply_adds == count_multiply_adds(model)
        found = trained.predict_clips(compression.predictor(row.path), inputs.store, scaler, segments)
        assert row.validation_accuracy == (found["probabilities"].argmax(1) == found["targets"]).mean()


def test_sizes_shrink_with_the_bytes_of_a_weight_int8_files_hold_int8_inside_and_bytes_repeat(tmp_path):
    rows = (Layer("conv", 24, 5, 2, 2, True), Layer("conv", 128, 3, 1, 2, True), Layer("average"))
    wide = build(rows, (32, 65, 1), 3)
    examples = np.random.default_rng(0).normal(size=(4, 32, 65, 1)).astype(np.float32)
    contents = compression.convert_model(wide, examples=examples)
    sizes = np.array([len(contents[kind]) for kind in FORMATS])
    weights = wide.count_params() * np.array([4, 2, 1, 1])
    assert (sizes > 0.9 * weights).all() and (sizes < weights + 15_000).all()
    (tmp_path / "int8.tflite").write_bytes(contents["int8"])
    kinds = [one["dtype"] for one in Interpreter(str(tmp_path / "int8.tflite")).get_tensor_details()]
    assert np.int8 in kinds and kinds.count(np.float32) == 2  # input and output
    assert compression.convert_model(build(rows, (32, 65, 1), 3), ["float16"])["float16"] == contents["float16"]
