"""Converted networks answer as the network does, as closely as their format allows; sizes are those of the files."""

from zlib import compress

import numpy as np
import pandas as pd
import pytest

from instrlib.core.io import RunError
from instrlib.data.splits import load_split
from instrlib.models import export, litert, trained
from instrlib.models.export import FORMATS
from instrlib.models.layers import Layer, build, count_multiply_adds


@pytest.fixture(scope="module")
def exported(dense, inputs, tmp_path_factory):
    return export.export_networks(tmp_path_factory.mktemp("files"), {"dense": dense.folders}, inputs=inputs, workers=2)


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
        found = trained.predict_clips(export.predictor(row.path), inputs.store, scaler, segments)
        assert row.validation_accuracy == (found["probabilities"].argmax(1) == found["targets"]).mean()


def test_sizes_shrink_with_the_bytes_of_a_weight_and_int8_files_hold_int8_inside(tmp_path):
    rows = (Layer("conv", 24, 5, 2, 2, True), Layer("conv", 128, 3, 1, 2, True), Layer("average"))
    wide = build(rows, (32, 65, 1), 3)
    examples = np.random.default_rng(0).normal(size=(4, 32, 65, 1)).astype(np.float32)
    contents = export.convert_model(wide, examples=examples)
    sizes = np.array([len(contents[kind]) for kind in FORMATS])
    weights = wide.count_params() * np.array([4, 2, 1, 1])
    assert (sizes > 0.9 * weights).all() and (sizes < weights + 15_000).all()
    (tmp_path / "int8.tflite").write_bytes(contents["int8"])
    kinds = [one["dtype"] for one in litert.load(tmp_path / "int8.tflite").get_tensor_details()]
    assert np.int8 in kinds and kinds.count(np.float32) == 2  # input and output


def test_finished_conversions_are_kept(exported, dense, inputs):
    predictions, files = exported
    folder, times = files.path[0].parents[3], {path: path.stat().st_mtime_ns for path in files.path}
    (files.path.iloc[-1].parent / "sizes.json").unlink()
    again, table = export.export_networks(folder, {"dense": dense.folders}, inputs=inputs, workers=1)
    changed = {path.parent for path, when in times.items() if path.stat().st_mtime_ns != when}
    assert changed == {files.path.iloc[-1].parent}
    pd.testing.assert_frame_equal(table, files)
    for name, one in predictions.items():
        np.testing.assert_array_equal(again[name]["probabilities"], one["probabilities"])


def test_a_damaged_file_or_an_unfinished_network_is_named(exported, inputs, tmp_path):
    (tmp_path / "cut.tflite").write_bytes(exported[1].path[0].read_bytes()[:3000])
    for name in ("cut.tflite", "none.tflite"):
        with pytest.raises(RunError, match=name):
            export.predictor(tmp_path / name)
    with pytest.raises(RunError):
        export.export(tmp_path, tmp_path / "out", inputs.store.folder, inputs.splits[0])
