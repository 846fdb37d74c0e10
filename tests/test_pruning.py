"""Pruning sets as many weights to zero as it says, carries the network over and back unharmed, and repeats."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib import findings
from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError, RunError
from instrlib.core.io import padded, read_arrays, read_json, write_json
from instrlib.core.parallel import parallel_map
from instrlib.data.inputs import Inputs
from instrlib.models import experiments, pruning, training
from instrlib.models import layers as models
from instrlib.models.layers import Layer
from instrlib.models.pruning import Plan, Pruning

TABLE = (Layer("conv", 12, 5, 2, 2, True), Layer("conv", 16, 3, 1, 2, True), Layer("average", dropout=0.3))
TUNE = TrainConfig(epochs=2, learning_rate=1e-3)
CONTROL, HALF, MOST, AT_ONCE = Pruning(0.0), Pruning(0.5), Pruning(0.9), Pruning(0.9, "one step")


@pytest.fixture(scope="module")
def inputs(small) -> Inputs:
    return Inputs(small.store, (small.split_path,), small.split.fingerprint)


@pytest.fixture(scope="module")
def dense(small, inputs, tmp_path_factory) -> experiments.Outcome:
    variant = experiments.Variant("dense", TABLE, TrainConfig(epochs=6), small.store.folder)
    folder = tmp_path_factory.mktemp("dense")
    return experiments.run_variants(folder, [variant], splits=inputs.splits, seeds=(0, 1), workers=2)["dense"]


@pytest.fixture(scope="module")
def pruned(dense, inputs, tmp_path_factory) -> dict[str, experiments.Outcome]:
    ways = [CONTROL, HALF, MOST, AT_ONCE]
    return pruning.prune_networks(
        tmp_path_factory.mktemp("pruned"), dense.folders, ways, inputs=inputs, config=TUNE, workers=2
    )


FRESH_PROCESS = """
import json, sys
from pathlib import Path
import instrlib, instrlib.models.pruning, instrlib.models.tflite
from instrlib.models import layers as models, training
from instrlib.core.config import TrainConfig
from instrlib.core.io import read_json
from instrlib.models.layers import Layer

found = {}
folder, again, store, split = map(Path, sys.argv[1:])
model, _ = training.load_model(folder)
found["imported"] = [name for name in ("tf_keras", "tensorflow_model_optimization") if name in sys.modules]

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

theirs = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.9, 0, 30)
found["schedule"] = [float(theirs(step)[1]) for step in range(31)]

table = tuple(Layer(**row) for row in read_json(folder / "manifest.json")["spec"])
other = models.build(table, model.input_shape[1:], model.output_shape[1], keras=tf_keras)
other.set_weights(model.get_weights())
x = np.random.default_rng(0).normal(size=(20, *model.input_shape[1:])).astype(np.float32)
found["same weights"] = all((a == b).all() for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
found["difference"] = float(np.abs(model.predict_on_batch(x) - other.predict_on_batch(x)).max())

training.train_model(again, store, split, table, TrainConfig(epochs=6), 0)
sys.stdout.write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def fresh_process(dense, small, tmp_path_factory) -> dict:
    """What a process sees that first uses Keras 3, then imports the pruning package, then trains under Keras 3."""
    again = tmp_path_factory.mktemp("again")
    arguments = [dense.flat[0], again, small.store.folder, small.split_path]
    one_thread = os.environ | dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    command = [sys.executable, "-c", FRESH_PROCESS, *map(str, arguments)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread)
    return json.loads(run.stdout) | {"trained again": again}


def test_every_kernel_has_the_share_of_zeros_asked_for_the_first_and_the_last_among_them(pruned):
    for way in (CONTROL, HALF, MOST, AT_ONCE):
        for folder in pruned[way.name].flat:
            table = pruning.sparsity_by_layer(training.load_model(folder)[0])
            assert table.index.tolist() == ["conv1", "conv2", "scores"]
            assert table.weights.tolist() == [5 * 5 * 12, 3 * 3 * 12 * 16, 16 * 3]
            assert (abs(table.sparsity - way.sparsity) <= 1 / table.weights).all()


def test_only_kernels_are_pruned_so_biases_and_normalisation_stay(pruned):
    for folder in pruned[MOST.name].flat:
        model = training.load_model(folder)[0]
        others = [weight for weight in model.get_weights() if weight.ndim == 1]
        assert all(np.count_nonzero(weight) == weight.size for weight in others)
        kept = read_json(folder / "metrics.json")
        zeros = pruning.sparsity_by_layer(model).zeros.sum()
        assert kept["nonzero"] == kept["parameters"] - zeros == model.count_params() - zeros


def test_one_step_keeps_the_largest_weights_of_the_trained_network(dense, pruned):
    for before, after in zip(dense.flat, pruned[AT_ONCE.name].flat, strict=True):
        networks = [training.load_model(folder)[0] for folder in (before, after)]
        for name in ("conv1", "conv2", "scores"):
            old, new = (np.asarray(network.get_layer(name).kernel).ravel() for network in networks)
            largest = np.argsort(-np.abs(old))[: np.count_nonzero(new)]
            assert set(np.flatnonzero(new)) == set(largest)


def test_the_control_is_fine_tuned_and_nothing_of_it_is_zero(dense, pruned):
    for before, after in zip(dense.flat, pruned[CONTROL.name].flat, strict=True):
        old, new = (training.load_model(folder)[0].get_weights() for folder in (before, after))
        assert all((one != other).any() for one, other in zip(old, new, strict=True))
        assert all(np.count_nonzero(weight) == weight.size for weight in new)


def test_the_progressive_schedule_is_that_of_the_package(fresh_process):
    ours = [pruning.wanted_sparsity(step, sparsity=0.9, ramp_steps=30) for step in range(31)]
    np.testing.assert_allclose(ours, fresh_process["schedule"], atol=1e-6)


def test_the_same_table_gives_the_same_network_in_both_versions_of_keras(fresh_process):
    assert fresh_process["same weights"]
    assert fresh_process["difference"] <= 1e-6


def test_what_is_kept_is_a_network_of_keras_3_without_wrappers_and_a_run_folder_like_any_other(pruned, dense, small):
    folder = pruned[MOST.name].flat[0]
    model, scaler = training.load_model(folder)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert [layer.name for layer in model.layers] == [
        layer.name for layer in training.load_model(dense.flat[0])[0].layers
    ]
    segments = training.part_segments(small.store, small.split, "validation")
    predicted = training.predict_clips(model.predict_on_batch, small.store, scaler, segments)
    kept = read_arrays(folder / "validation.npz")
    np.testing.assert_allclose(predicted["probabilities"], kept["probabilities"], atol=1e-6)
    assert training.summary(folder)["seed"] == 0
    manifest = read_json(folder / "manifest.json")
    assert manifest["pruning"] == {"sparsity": 0.9, "schedule": "progressive"}
    assert manifest["dense"] == read_json(dense.flat[0] / "manifest.json")["key"]


def test_each_way_has_its_answers_to_the_test_part_over_the_seeds(pruned, dense):
    assert list(pruned) == ["not pruned, fine-tuned", "50 %, progressive", "90 %, progressive", "90 %, one step"]
    for outcome in pruned.values():
        assert outcome.predictions["probabilities"].shape == dense.predictions["probabilities"].shape
        np.testing.assert_array_equal(outcome.predictions["clip_id"], dense.predictions["clip_id"])


def test_multiply_adds_are_counted_with_and_without_zeros(pruned):
    folder = pruned[HALF.name].flat[0]
    kept, zeros = read_json(folder / "metrics.json"), pruning.sparsity_by_layer(training.load_model(folder)[0]).zeros
    # 32 bands x 65 frames: 16 x 33 places after the step of 2, 8 x 16 after the pooling.
    places = {"conv1": 16 * 33, "conv2": 8 * 16, "scores": 1}
    assert kept["multiply_adds"] == 16 * 33 * 25 * 12 + 8 * 16 * 9 * 12 * 16 + 16 * 3
    saved = sum(places[name] * zeros[name] for name in places)
    assert kept["nonzero_multiply_adds"] == kept["multiply_adds"] - saved


def test_alone_in_another_order_or_after_a_kill_a_network_comes_out_the_same_to_the_bit(
    pruned, dense, inputs, tmp_path
):
    def prune(ways: list[Pruning]) -> None:
        places = [tmp_path / way.name for way in ways]
        task = (dense.flat[0], ways, places, inputs.store.folder, inputs.splits[0], TUNE)
        list(parallel_map(pruning.prune, [task], workers=1, isolate=True))

    prune([MOST, HALF])
    (tmp_path / HALF.name / "manifest.json").unlink()  # killed before its end
    kept = (tmp_path / MOST.name / "model.keras").stat().st_mtime_ns
    prune([CONTROL, HALF, MOST])
    assert (tmp_path / MOST.name / "model.keras").stat().st_mtime_ns == kept
    for way in (CONTROL, HALF, MOST):
        first, again = (
            training.load_model(folder)[0].get_weights() for folder in (pruned[way.name].flat[0], tmp_path / way.name)
        )
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_finished_is_not_pruned_again(pruned, dense, inputs):
    folder = pruned[HALF.name].flat[0].parents[2]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    pruning.prune_networks(folder, dense.folders, [CONTROL, HALF], inputs=inputs, config=TUNE, workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before


def test_a_foreign_damaged_or_unfinished_network_is_named_in_one_sentence(dense, inputs, tmp_path):
    def prune(folder: Path) -> None:
        pruning.prune(folder, [HALF], [tmp_path / "out"], inputs.store.folder, inputs.splits[0], TUNE)

    with pytest.raises(RunError, match=r"none holds no finished training run"):
        prune(tmp_path / "none")
    foreign = shutil.copytree(dense.flat[0], tmp_path / "foreign")
    write_json(foreign / "manifest.json", read_json(foreign / "manifest.json") | {"split": "another"})
    with pytest.raises(RunError, match=r"foreign was trained with the split another"):
        prune(foreign)
    damaged = shutil.copytree(dense.flat[0], tmp_path / "damaged")
    (damaged / "model.keras").write_bytes((damaged / "model.keras").read_bytes()[:5000])
    with pytest.raises(RunError, match=r"damaged cannot be read: model\.keras is missing or damaged"):
        prune(damaged)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [(1.0, "progressive"), (-0.1, "progressive"), (0.5, "slowly")])
def test_an_impossible_pruning_is_refused(wrong):
    with pytest.raises(
        ConfigError, match=r"sparsity must be|Unknown schedule 'slowly'; there is: progressive, one step"
    ):
        Pruning(*wrong)


def test_the_pruning_package_is_imported_by_pruning_alone(fresh_process):
    assert fresh_process["imported"] == []


def test_a_process_that_has_imported_it_still_trains_keras_3_to_the_same_bits(dense, fresh_process):
    kept, again = (
        read_arrays(folder / "validation.npz")["probabilities"]
        for folder in (dense.flat[0], fresh_process["trained again"])
    )
    np.testing.assert_array_equal(again, kept)


def test_a_narrower_network_has_the_number_of_weights_asked_for_as_near_as_widths_allow():
    shape, n_classes = (32, 65, 1), 3
    counts = [models.build(models.widen(TABLE, units / 16), shape, n_classes).count_params() for units in range(1, 17)]
    found = pruning.narrower(TABLE, (0.3, 0.5, 0.9), input_shape=shape, n_classes=n_classes)
    assert list(found) == [f"narrower, weights as at {share} %" for share in (30, 50, 90)]
    for share, table in zip((0.3, 0.5, 0.9), found.values(), strict=True):
        wanted = counts[-1] - share * (5 * 5 * 12 + 3 * 3 * 12 * 16 + 16 * 3)
        nearest = min(counts, key=lambda count: abs(count - wanted))
        assert models.build(table, shape, n_classes).count_params() == nearest


def test_the_curve_of_each_schedule_begins_with_the_control():
    plan = Plan(progressive=(0.5, 0.9), one_step=(0.9,), narrow=(0.9,))
    networks = plan.networks
    assert networks.kind.tolist() == ["dense", "fine-tuned", "progressive", "progressive", "one step", "narrower"]
    assert plan.pairs == [
        ("90 %, progressive", "90 %, one step"),
        ("narrower, weights as at 90 %", "90 %, progressive"),
    ]
    estimate = np.array([0.9, 0.88, 0.85, 0.7, 0.6, 0.75])
    accuracy = pd.DataFrame({"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}, networks.index)
    arrays = pruning.figure_curve(networks, accuracy)
    assert arrays["names"] == ["pruned, progressive", "pruned, one step", "narrower, as many weights"]
    np.testing.assert_array_equal(arrays["sparsity"], padded([[0, 0.5, 0.9], [0, 0.9], [0.9]]))
    np.testing.assert_array_equal(arrays["accuracy"], padded([[0.88, 0.85, 0.7], [0.88, 0.6], [0.75]]))
    assert (arrays["dense"], arrays["dense_low"]) == (0.9, 0.8)


def test_how_far_a_network_can_be_pruned_is_said_as_far_as_the_intervals_allow():
    networks = Plan(progressive=(0.5, 0.9), one_step=(), narrow=()).networks

    def said(*rows: tuple[float, float, float]) -> str:
        compared = pd.DataFrame(rows, ["50 %, progressive", "90 %, progressive"], ["difference", "low", "high"])
        return findings.sparsity_sentence(networks, compared, 0.01)

    assert "Up to 50 % of zeros it is shown to lose no more than 1 point." in said((0, -0.01, 0.01), (-0.2, -0.3, 0))
    assert "Up to 90 % of zeros it loses no more than 1 point on these clips" in said((0, -0.1, 0.1), (0, -0.1, 0.1))
    assert "Already with 50 % of zeros it loses more than 1 point" in said((-0.1, -0.2, 0), (0.1, 0.05, 0.2))
    assert "Up to 50 % of zeros it loses no more than 1 point on these clips" in said((0, -0.1, 0.1), (-0.2, -0.3, 0))
