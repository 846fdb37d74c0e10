"""Pruning sets as many weights to zero as asked, carries the network over and back unharmed, and repeats."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import RunError, read_json, write_json
from instrlib.models import prune, trained
from instrlib.models.prune import Pruning
from instrlib.models.variants import Variant, run_variants

TUNE = TrainConfig(epochs=2, learning_rate=1e-3)
CONTROL, MOST, AT_ONCE = Pruning(0.0), Pruning(0.9), Pruning(0.9, "one step")
KERNELS = {"conv1": 5 * 5 * 12, "conv2": 3 * 3 * 12 * 16, "scores": 16 * 3}


def prune_all(dense, inputs, folder: Path, ways: list[Pruning], config: TrainConfig = TUNE, seeds=(0, 1)):
    places = {(seed, inputs.splits[0]): by_fold[0] for seed, by_fold in enumerate(dense.folders)}
    made = [
        Variant(one.name, "compact", config, inputs.store.folder, train=functools.partial(prune.prune, places, one))
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
            zeros = {name: (kernel == 0).sum() for name, kernel in kernels_of(folder).items()}
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


def test_one_step_keeps_the_largest_weights_of_the_trained_network(dense, pruned):
    for before, after in zip(dense.flat, pruned[AT_ONCE.name].flat, strict=True):
        old = kernels_of(before)
        for name, new in kernels_of(after).items():
            assert set(np.flatnonzero(new)) == set(np.argsort(-np.abs(old[name]))[: np.count_nonzero(new)])


def test_the_result_does_not_depend_on_a_kill_and_a_finished_one_is_kept(pruned, dense, inputs, tmp_path):
    first = prune_all(dense, inputs, tmp_path, [MOST, AT_ONCE], seeds=(0,))
    (first[AT_ONCE.name].flat[0] / "manifest.json").unlink()  # killed before its end
    kept = (first[MOST.name].flat[0] / "model.keras").stat().st_mtime_ns
    again = prune_all(dense, inputs, tmp_path, [AT_ONCE, MOST], seeds=(0,))
    assert (again[MOST.name].flat[0] / "model.keras").stat().st_mtime_ns == kept
    for name, outcome in again.items():
        for one, other in zip(weights_of(pruned[name].flat[0]), weights_of(outcome.flat[0]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_foreign_or_damaged_network_is_named(dense, inputs, tmp_path):
    foreign, damaged = (shutil.copytree(dense.flat[0], tmp_path / name) for name in ("foreign", "damaged"))
    write_json(foreign / "manifest.json", read_json(foreign / "manifest.json") | {"split": "another"})
    (damaged / "model.keras").write_bytes((damaged / "model.keras").read_bytes()[:5000])
    variant = Variant("pruned", "compact", TUNE, inputs.store.folder)
    for name in ("none", "foreign", "damaged"):
        with pytest.raises(RunError, match=name):
            prune.prune({(0, inputs.splits[0]): tmp_path / name}, MOST, tmp_path / "out", variant, inputs.splits[0], 0)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_is_refused(dense, inputs, tmp_path):
    with pytest.raises(RunError, match="diverged"):
        prune_all(dense, inputs, tmp_path, [MOST], TrainConfig(epochs=1, batch_size=8, learning_rate=1e30), seeds=(0,))
    assert not list(tmp_path.rglob("manifest.json"))


def test_tf_keras_is_imported_by_pruning_alone(dense):
    code = "import sys, pathlib; from instrlib.models import export, prune, trained\n"
    code += "trained.load_model(pathlib.Path(sys.argv[1])); assert 'tf_keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(dense.flat[0])], check=True)
