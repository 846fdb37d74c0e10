"""Converted networks answer as the network does, as closely as their format allows; their sizes are those of files."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib import findings
from instrlib.core.config import TrainConfig
from instrlib.core.errors import EvaluationError, RunError
from instrlib.core.io import read_json, write_json
from instrlib.data.inputs import Inputs
from instrlib.data.splits import k_folds, load_split, save_split
from instrlib.evaluation.intervals import Difference
from instrlib.evaluation.metrics import scores
from instrlib.models import experiments, footprint, tflite, training
from instrlib.models.layers import Layer, count_multiply_adds
from instrlib.models.pruning import Plan
from instrlib.models.tflite import FORMATS, Converted, Goal

WIDE = (Layer("conv", 24, 5, 2, 2, True), Layer("conv", 64, 3, 1, 2, True), Layer("average"))
NARROW = (Layer("conv", 4, 5, 2, 2, True), Layer("average"))


@pytest.fixture(scope="module")
def inputs(small, tmp_path_factory) -> Inputs:
    folder = tmp_path_factory.mktemp("folds")
    splits = tuple(folder / f"{number}.json" for number in range(2))
    for split, path in zip(k_folds(small.store.clips, 3, seed=0)[:2], splits, strict=True):  # two of three will do
        save_split(split, path)
    return Inputs(small.store, splits, "")


@pytest.fixture(scope="module")
def outcomes(inputs, tmp_path_factory) -> dict[str, experiments.Outcome]:
    folder, config, store = tmp_path_factory.mktemp("trained"), TrainConfig(epochs=3), inputs.store.folder
    found = {}
    for name, table, seeds in (("wide", WIDE, (0, 1)), ("narrow", NARROW, (0,))):
        variant = experiments.Variant(name, table, config, store)
        found |= experiments.run_variants(folder, [variant], splits=inputs.splits, seeds=seeds, workers=2)
    return found


@pytest.fixture(scope="module")
def converted(outcomes, inputs, tmp_path_factory) -> dict[str, Converted]:
    return tflite.convert_networks(tmp_path_factory.mktemp("converted"), outcomes, inputs=inputs, workers=2)


def largest_difference(converted: Converted, outcome: experiments.Outcome) -> float:
    return np.abs(converted.predictions["probabilities"] - outcome.predictions["probabilities"]).max()


def test_each_network_is_there_in_each_format_for_each_seed_and_fold(converted, outcomes):
    assert list(converted) == [f"{name}, {kind}" for name in ("wide", "narrow") for kind in FORMATS]
    for one in converted.values():
        n_seeds = {"wide": 2, "narrow": 1}[one.network]
        assert np.shape(one.files) == (n_seeds, 2) and len(one.sizes) == 2 * n_seeds
        np.testing.assert_array_equal(one.predictions["clip_id"], outcomes["wide"].predictions["clip_id"])


def test_float_gives_what_the_network_gives_and_the_others_nearly(converted, outcomes):
    bounds = {"float32": 1e-5, "float16": 5e-3, "dynamic int8": 0.15, "int8": 0.3}
    for one in converted.values():
        assert largest_difference(one, outcomes[one.network]) <= bounds[one.format], one.format
    assert largest_difference(converted["wide, int8"], outcomes["wide"]) > 1e-5


def test_answers_are_probabilities_though_int8_rounds_each_of_them(converted):
    for one in converted.values():
        np.testing.assert_allclose(one.predictions["probabilities"].sum(axis=-1), 1, atol=1e-5)
        scores(one.predictions["targets"], one.predictions["probabilities"][0])


def test_sizes_are_those_of_the_files_and_shrink_with_the_bytes_of_a_weight(converted):
    for one in converted.values():
        for number, path in enumerate(path for by_fold in one.files for path in by_fold):
            row = one.sizes.iloc[number]
            assert row.bytes == path.stat().st_size
            # gzip adds a header and a checksum, 18 bytes, to the same stream.
            assert row.compressed_bytes == pytest.approx(len(gzip.compress(path.read_bytes(), 9)) - 18, abs=8)
    weights = converted["wide, float32"].sizes.parameters.iloc[0] * np.array([4, 2, 1, 1])
    sizes = np.array([converted[f"wide, {kind}"].sizes.bytes.mean() for kind in FORMATS])
    assert (sizes > 0.9 * weights).all() and (sizes < weights + 12_000).all()


def test_counts_are_those_of_the_network(converted, outcomes):
    model = training.load_model(outcomes["wide"].flat[0])[0]
    row = converted["wide, int8"].sizes.iloc[0]
    assert row.parameters == row.nonzero == model.count_params()
    assert row.multiply_adds == row.nonzero_multiply_adds == count_multiply_adds(model)


def test_full_int8_holds_int8_inside_and_takes_and_gives_floats(converted):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(converted["wide, int8"].files[0][0]), num_threads=1)
    interpreter.allocate_tensors()
    assert {one["dtype"] for one in (interpreter.get_input_details()[0], interpreter.get_output_details()[0])} == {
        np.float32
    }
    kinds = [one["dtype"] for one in interpreter.get_tensor_details()]
    assert np.int8 in kinds and kinds.count(np.float32) == 2


def test_validation_accuracy_is_that_of_the_file(converted, outcomes, inputs):
    one = converted["wide, dynamic int8"]
    split = load_split(inputs.splits[1], inputs.store.segments)
    segments = training.part_segments(inputs.store, split, "validation")
    scaler = training.load_scaler(outcomes["wide"].folders[0][1])
    answer = training.predict_clips(tflite.predictor(one.files[0][1]), inputs.store, scaler, segments)
    assert one.sizes.validation_accuracy[1] == (answer["probabilities"].argmax(1) == answer["targets"]).mean()


def test_converted_again_nothing_changes_and_what_a_kill_left_is_finished(converted, outcomes, inputs):
    folder = converted["wide, float32"].files[0][0].parents[3]
    (converted["narrow, int8"].files[0][1].parent / "manifest.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.tflite")}
    again = tflite.convert_networks(folder, outcomes, inputs=inputs, workers=1)
    changed = [path for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert {path.parent for path in changed} == {converted["narrow, int8"].files[0][1].parent}
    for name, one in converted.items():
        np.testing.assert_array_equal(again[name].predictions["probabilities"], one.predictions["probabilities"])
        pd.testing.assert_frame_equal(again[name].sizes, one.sizes)


def test_a_damaged_file_or_an_unfinished_network_is_named_in_one_sentence(converted, inputs, tmp_path):
    (tmp_path / "int8.tflite").write_bytes(converted["wide, int8"].files[0][0].read_bytes()[:3000])
    for name in ("int8.tflite", "none.tflite"):
        with pytest.raises(RunError, match=rf"{name} is missing or damaged; delete its folder"):
            tflite.predictor(tmp_path / name)
    with pytest.raises(RunError, match="holds no finished training run"):
        tflite.convert(tmp_path, tmp_path / "out", inputs.store.folder, inputs.splits[0])


def test_latency_and_memory_are_measured_for_each_and_larger_for_more_work(converted):
    chosen = {name: converted[name] for name in ("wide, float32", "narrow, float32")}
    table = tflite.measure(chosen, n_rounds=3)
    assert (table.latency_low_ms <= table.latency_ms).all() and (table.latency_ms <= table.latency_high_ms).all()
    assert (table.latency_ms > 0).all() and table.index.tolist() == list(chosen)
    if Path("/proc/self/status").is_file():
        assert table.peak_memory_kb["wide, float32"] > table.peak_memory_kb["narrow, float32"] > 0


def test_measuring_a_damaged_file_says_which(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"no network")
    broken = Converted("x", "int8", (((tmp_path / "x.tflite"),),), (), pd.DataFrame())
    with pytest.raises(RunError, match=r"Measuring .*x\.tflite failed"):
        tflite.measure({"x": broken}, n_rounds=1)


def test_measuring_that_is_killed_without_a_word_says_so(monkeypatch):
    killed = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(RunError, match=r"Measuring x\.tflite failed: the process ended with -9"):
        tflite.measure({"x": Converted("x", "int8", ((Path("x.tflite"),),), (), pd.DataFrame())}, n_rounds=1)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="the peak of memory cannot begin anew here")
def test_a_higher_peak_before_does_not_hide_what_a_network_takes(converted):
    code = (
        "import sys; from instrlib import footprint\n"
        "footprint._runtime(); before = bytearray(200_000_000); del before\n"
        "print(footprint.peak_memory_kb(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(converted["narrow, float32"].files[0][0])]
    assert float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) > 0


def test_the_process_that_measures_loads_neither_tensorflow_nor_pandas():
    code = (
        "import sys; from instrlib import footprint; footprint._runtime()\n"
        "print([name for name in ('tensorflow', 'pandas', 'keras', 'librosa') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
    assert footprint.BURST % 2 == 0


def made_up(kind: str, *, size: int, accuracy: list[float], multiply_adds: int = 1000) -> Converted:
    """Return a candidate of one seed; a validation accuracy for each fold."""
    sizes = pd.DataFrame(
        {
            "bytes": size,
            "compressed_bytes": size // 2,
            "multiply_adds": multiply_adds,
            "validation_accuracy": accuracy,
        }
    )
    answers = tuple(
        {
            "clip_id": np.array([f"{fold}"]),
            "group": np.array(["a"]),
            "targets": np.array([0]),
            "probabilities": np.array([[size / 1e6, 1.0]]),
        }
        for fold in range(len(accuracy))
    )
    return Converted("made up", kind, ((Path("a"),) * len(accuracy),), (answers,), sizes)


def dense(accuracy: list[float], tmp_path: Path) -> experiments.Outcome:
    for fold, value in enumerate(accuracy):
        write_json(tmp_path / str(fold) / "metrics.json", {"validation": {"accuracy": value}})
    return experiments.Outcome((tuple(tmp_path / str(fold) for fold in range(len(accuracy))),), {})


def test_the_choice_is_made_in_each_fold_by_its_own_validation(tmp_path):
    candidates = {
        "large": made_up("float32", size=100_000, accuracy=[0.9, 0.9]),
        "small": made_up("int8", size=20_000, accuracy=[0.89, 0.85]),
        "tiny": made_up("int8", size=5_000, accuracy=[0.6, 0.895]),
        "too large": made_up("float32", size=300_000, accuracy=[1.0, 1.0]),
        "too slow": made_up("int8", size=1_000, accuracy=[1.0, 1.0], multiply_adds=31_000_000),
    }
    chosen = tflite.choose(candidates, dense([0.9, 0.9], tmp_path), Goal())
    assert chosen.name.tolist() == ["small", "tiny"] and chosen.met.all()
    assert chosen.bytes.tolist() == [20_000, 5_000]
    np.testing.assert_allclose(chosen.loss, [0.01, 0.005])
    joined = tflite.predictions_of(candidates, chosen.name)
    np.testing.assert_allclose(joined["probabilities"][0, :, 0], [0.02, 0.005])


def test_where_nothing_loses_so_little_the_most_accurate_that_fits_is_chosen(tmp_path):
    candidates = {
        "small": made_up("int8", size=20_000, accuracy=[0.5]),
        "better": made_up("int8", size=90_000, accuracy=[0.7]),
    }
    chosen = tflite.choose(candidates, dense([0.9], tmp_path), Goal())
    assert chosen.name.tolist() == ["better"] and not chosen.met.any()
    said = findings.goal_sentence(chosen, Difference(0.0, -0.005, 0.01, 1.0), **vars(Goal()))
    assert "On validation none of those small enough stays within 1 point: the most accurate was taken." in said
    with pytest.raises(EvaluationError, match="None of the 2 converted networks has under 10,000 bytes"):
        tflite.choose(candidates, dense([0.9], tmp_path), Goal(max_bytes=10_000))


def test_the_description_is_the_mean_over_seeds_and_folds(converted):
    table = tflite.describe(converted)
    assert table.loc["narrow, float16", ["network", "format"]].tolist() == ["narrow", "float16"]
    assert table.bytes["wide, int8"] == converted["wide, int8"].sizes.bytes.mean()
    kept = read_json(converted["wide, int8"].files[0][0].parent / "manifest.json")
    assert kept["sizes"]["int8"]["bytes"] == converted["wide, int8"].sizes.bytes[0]


def costs(name: str, size: int) -> dict:
    return {
        "network": name, "format": "int8", "bytes": 90_000, "compressed_bytes": size, "multiply_adds": 21e6,
        "nonzero_multiply_adds": 21e6 * size / 80_000, "latency_ms": 0.4, "latency_low_ms": 0.38,
        "latency_high_ms": 0.42, "peak_memory_kb": 4000.0,
    }  # fmt: skip


def test_what_zeros_save_is_drawn_and_said_as_shares_of_the_dense_network():
    plan = Plan(progressive=(0.5, 0.9), one_step=(0.9,), narrow=(0.9,))
    names = ["dense", "90 %, progressive", "50 %, progressive", "narrower, weights as at 90 %"]
    rows = [costs(name, size) for name, size in zip(names, (80_000, 20_000, 40_000, 10_000), strict=True)]
    table = pd.DataFrame(rows, [f"{name}, int8" for name in names])
    arrays = tflite.figure_zeros(plan.networks, table, kind="int8")
    assert list(arrays["sparsity"]) == [0, 0.5, 0.9]
    drawn = dict(zip(arrays["names"], arrays["relative"], strict=True))
    np.testing.assert_allclose(drawn["compressed file"], [1, 0.5, 0.25])
    np.testing.assert_allclose(drawn["latency"], 1)
    said = findings.zeros_sentence(table.loc["dense, int8"], table.loc["90 %, progressive, int8"])
    assert "has 90.0 kB (dense 90.0), compressed 20.0 kB (dense 80.0)" in said
    assert "it is no faster: 0.40 ms for a segment (dense 0.40), with 4.1 MB of memory (dense 4.1)." in said

    accuracy = pd.DataFrame({"estimate": [0.9, 0.7, 0.8, 0.6]}, table.index)
    points = tflite.figure_size(plan.networks, table, accuracy)
    assert points["labels"] == ["dense", "pruned 90 %", "pruned 50 %", "narrower 90 %"]
    assert points["kinds"] == ["dense", "pruned", "pruned", "narrower"]
    assert list(points["compressed_kb"]) == [80, 20, 40, 10]


@pytest.mark.parametrize(
    ("times", "verdict"), [(0.5, "even measured faster"), (0.99, "no faster"), (2, "even measured slower")]
)
def test_what_zeros_do_to_the_time_is_said_as_it_was_measured(times, verdict):
    dense, pruned = (pd.Series(costs(name, 80_000)) for name in ("dense", "90 %, progressive"))
    pruned[["latency_ms", "latency_low_ms", "latency_high_ms"]] *= times
    pruned["peak_memory_kb"] = np.nan
    said = findings.zeros_sentence(dense, pruned)
    assert f"on this machine it {'is' if times == 0.99 else 'was'} {verdict}" in said
    assert "memory" not in said and "nan" not in said


def test_what_narrower_networks_save_is_said_as_it_was_measured():
    plan = Plan(progressive=(0.5, 0.9), one_step=(), narrow=(0.5, 0.9))
    names = plan.networks.index[plan.networks.kind.isin(["progressive", "narrower"])]
    table = pd.DataFrame([costs(name, 40_000) for name in names], names)
    narrow = table.index[2:]
    table.loc[narrow, "bytes"] = 30_000
    table.loc[narrow[0], "compressed_bytes"] = 20_000
    said = findings.narrower_sentence(plan.networks, table, kind="int8")
    assert "the narrower one is smaller but not always smaller when compressed or faster (int8)" in said
    table.loc[narrow, "compressed_bytes"] = 20_000
    table.loc[narrow, ["latency_ms", "latency_low_ms", "latency_high_ms"]] /= 4
    said = findings.narrower_sentence(plan.networks, table, kind="int8")
    assert "the narrower one is smaller, smaller when compressed and faster (int8)" in said
    assert "30.0 kB, compressed 20.0, 0.10 ms, “90 %, progressive” 90.0 kB, compressed 40.0, 0.40 ms." in said


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (Difference(0.0, -0.005, 0.01, 1.0), "Goal reached"),
        (Difference(-0.1, -0.2, -0.05, 0.0), "Goal missed"),
        (Difference(0.0, -0.05, 0.05, 1.0), "Goal not shown: it loses no more than 1 point on these clips"),
        (Difference(-0.02, -0.05, 0.01, 0.2), "Goal not shown: it loses more than 1 point on these clips"),
    ],
)
def test_the_goal_is_reached_only_when_the_interval_says_so(difference, verdict):
    chosen = pd.DataFrame(
        {"name": ["wide", "narrow"], "met": [True, False], "bytes": [50_000, 20_000], "multiply_adds": [2e7, 1e7]}
    )
    said = findings.goal_sentence(chosen, difference, **vars(Goal()))
    assert "wide and narrow, at most 50.0 kB (goal: under 128) and 20.0 million" in said and verdict in said
    assert "none of those small enough stays within 1 point in 1 of the 2 splits" in said
