"""Smaller networks: pruned ones have the zeros asked for; converted ones answer as closely as their format allows."""

import functools
import subprocess
import sys
from pathlib import Path
from zlib import compress

import numpy as np
import pandas as pd
import pytest
from ai_edge_litert.interpreter import Interpreter

from instrlib.core.config import TrainConfig
from instrlib.core.io import RunError, read_json
from instrlib.data.splits import load_split
from instrlib.models import compression, trained
from instrlib.models.compression import FORMATS, Pruning
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.models.variants import Variant, run_variants

TUNE = TrainConfig(epochs=2, learning_rate=1e-3)
CONTROL, MOST, AT_ONCE = Pruning(0.0), Pruning(0.9), Pruning(0.9, "one step")
KERNELS = {"conv1": 5 * 5 * 12, "conv2": 3 * 3 * 12 * 16, "scores": 16 * 3}


@pytest.fixture(scope="module")
def dense(small, inputs, tmp_path_factory):
    """Return a tiny network trained on the small corpus from two seeds."""
    table = (Layer("conv", 12, 5, 2, 2, True), Layer("conv", 16, 3, 1, 2, True), Layer("average", dropout=0.3))
    variant = Variant("dense", table, TrainConfig(epochs=6), small.store.folder)
    return run_variants(tmp_path_factory.mktemp("dense"), [variant], splits=inputs.splits, seeds=(0, 1))["dense"]


def prune_all(dense, inputs, folder: Path, ways: list[Pruning], config: TrainConfig = TUNE, seeds=(0, 1)):
    places = {(seed, inputs.splits[0]): by_fold[0] for seed, by_fold in enumerate(dense.folders)}
    made = [
        Variant(
            one.name, "compact", config, inputs.store.folder, train=functools.partial(compression.prune, places, one)
        )
        for one in ways
    ]
    return run_variants(folder, made, splits=inputs.splits, seeds=seeds, workers=2)


@pytest.fixture(scope="module")
def pruned(dense, inputs, tmp_path_factory):
    return prune_all(dense, inputs, tmp_path_factory.mktemp("pruned"), [CONTROL, MOST, AT_ONCE])


def weights_of(folder: Path) -> list[np.ndarray]:
    return trained.load_model(folder)[0].get_weights()


def kernels_of(folder: Path) -> dict[str, np.ndarray]:
    layers = trained.load_model(folder)[0].layers
    return {layer.name: np.asarray(layer.kernel).ravel() for layer in layers if hasattr(layer, "kernel")}


def test_every_kernel_has_the_share_of_zeros_asked_for_and_nothing_else_is_pruned(pruned, dense):
    assert list(pruned) == ["not pruned, fine-tuned", "90 %, progressive", "90 %, one step"]
    for way in (CONTROL, MOST, AT_ONCE):
        for before, folder in zip(dense.flat, pruned[way.name].flat, strict=True):
            old, new = kernels_of(before), kernels_of(folder)
            zeros = {name: (kernel == 0).sum() for name, kernel in new.items()}
            if way == AT_ONCE:  # the largest weights are kept
                largest = {
                    name: np.argsort(-np.abs(kernel))[: np.count_nonzero(new[name])] for name, kernel in old.items()
                }
                assert all(set(np.flatnonzero(new[name])) == set(kept) for name, kept in largest.items())
            assert all(abs(zeros[name] - way.sparsity * n) <= 1 for name, n in KERNELS.items())
            assert all(np.count_nonzero(one) == one.size for one in weights_of(folder) if one.ndim == 1)
            assert all((one != other).any() for one, other in zip(weights_of(before), weights_of(folder), strict=True))
            kept = read_json(folder / "metrics.json")
            assert kept["nonzero"] == kept["parameters"] - sum(zeros.values())
            # 32 bands x 65 frames: 16 x 33 places after the stride, 8 x 16 after the pooling
            places = {"conv1": 16 * 33, "conv2": 8 * 16, "scores": 1}
            expected = sum(places[name] * (n - zeros[name]) for name, n in KERNELS.items())
            assert kept["nonzero_multiply_adds"] == expected
        np.testing.assert_array_equal(pruned[way.name].predictions["clip_id"], dense.predictions["clip_id"])


def test_the_result_does_not_depend_on_a_kill_and_a_finished_one_is_kept(pruned, dense, inputs, tmp_path):
    first = prune_all(dense, inputs, tmp_path, [MOST, AT_ONCE], seeds=(0,))
    (first[AT_ONCE.name].flat[0] / "manifest.json").unlink()  # killed before its end
    kept = (first[MOST.name].flat[0] / "model.keras").stat().st_mtime_ns
    again = prune_all(dense, inputs, tmp_path, [AT_ONCE, MOST], seeds=(0,))
    assert (again[MOST.name].flat[0] / "model.keras").stat().st_mtime_ns == kept
    for name, outcome in again.items():
        for one, other in zip(weights_of(pruned[name].flat[0]), weights_of(outcome.flat[0]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_loss_that_is_not_finite_is_refused(dense, inputs, tmp_path):
    with pytest.raises(RunError, match="diverged"):
        prune_all(dense, inputs, tmp_path, [MOST], TrainConfig(epochs=1, batch_size=8, learning_rate=1e30), seeds=(0,))
    assert not list(tmp_path.rglob("manifest.json"))


def test_tf_keras_is_imported_by_pruning_alone(dense):
    code = "import sys, pathlib; from instrlib.models import compression, trained\n"
    code += "trained.load_model(pathlib.Path(sys.argv[1])); assert 'tf_keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(dense.flat[0])], check=True)


@pytest.fixture(scope="module")
def exported(dense, inputs, tmp_path_factory):
    return compression.export_networks(
        tmp_path_factory.mktemp("files"), {"dense": dense.folders}, inputs=inputs, workers=2
    )


def test_each_file_answers_nearly_as_its_network_with_probabilities(exported, dense):
    predictions, files = exported
    assert list(predictions) == [f"dense, {kind}" for kind in FORMATS] and len(files) == 2 * len(FORMATS)
    bounds = {"float32": 1e-5, "float16": 5e-3, "dynamic int8": 0.15, "int8": 0.3}
    for name, found in predictions.items():
        np.testing.assert_array_equal(found["clip_id"], dense.predictions["clip_id"])
        np.testing.assert_allclose(found["probabilities"].sum(axis=-1), 1, atol=1e-5)
        difference = np.abs(found["probabilities"] - dense.predictions["probabilities"]).max()
        assert difference <= bounds[name.removeprefix("dense, ")], name
    assert difference > 1e-5  # of int8, the last one


def test_sizes_are_those_of_the_files_and_of_the_network(exported, dense, inputs):
    segments = trained.part_segments(inputs.store, load_split(inputs.splits[0], inputs.store.segments), "validation")
    for row in exported[1].itertuples():
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


def test_finished_conversions_are_kept(exported, dense, inputs):
    predictions, files = exported
    folder, times = files.path[0].parents[3], {path: path.stat().st_mtime_ns for path in files.path}
    (files.path.iloc[-1].parent / "sizes.json").unlink()
    again, table = compression.export_networks(folder, {"dense": dense.folders}, inputs=inputs, workers=1)
    changed = {path.parent for path, when in times.items() if path.stat().st_mtime_ns != when}
    assert changed == {files.path.iloc[-1].parent}
    pd.testing.assert_frame_equal(table, files)
    for name, one in predictions.items():
        np.testing.assert_array_equal(again[name]["probabilities"], one["probabilities"])


@pytest.mark.parametrize("name", ["cut.tflite", "none.tflite"])
def test_a_damaged_file_is_named(exported, tmp_path, name):
    (tmp_path / "cut.tflite").write_bytes(exported[1].path[0].read_bytes()[:3000])
    with pytest.raises(RunError, match=name):
        compression.predictor(tmp_path / name)
