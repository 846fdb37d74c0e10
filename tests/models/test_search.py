"""keras-tuner draws, workers train; a search repeats, survives failing trials, and chooses on validation."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import DiskError, RunError, WorkerError
from instrlib.data.inputs import Inputs
from instrlib.data.splits import k_folds, save_split
from instrlib.models import search
from instrlib.models.layers import Layer

BUDGET = 250_000
FATAL = 24


def space(hp, config):
    filters = hp.Choice("filters", [8, 16, FATAL, 32])
    blocks = [
        Layer("conv", filters, hp.Choice("kernel", [3, 5]), stride=2, pool=3) for _ in range(hp.Int("blocks", 1, 4))
    ]
    rate = hp.Float("learning rate", 1e-4, 1e-1, sampling="log")
    return (*blocks, Layer("average")), TrainConfig(epochs=1, patience=1, learning_rate=rate)


def draw(small, **settings) -> list[search.Candidate]:
    arguments = {"input_shape": (*small.store.config.shape, 1), "n_classes": 3, "config": TrainConfig()}
    arguments |= {"trials": 8, "seed": 0, "max_multiply_adds": BUDGET}
    return search.draw(settings.pop("space", space), **arguments | settings)


def pretend(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    """Stand in for the training: the filters decide what happens, learning rate and fold how well it goes."""
    if spec[0].units == 16:
        raise RunError("Training diverged.")
    if spec[0].units == 32:
        raise ZeroDivisionError
    loss = abs(np.log(config.learning_rate) + 4 + 2 * int(split.stem))
    return dict.fromkeys(search.RESULTS, 0.5) | {"validation_loss": loss}


def pretend_or_die(store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    if spec[0].units == FATAL:
        os.kill(os.getpid(), signal.SIGKILL)
    return pretend(store, split, spec, config)


@pytest.fixture(scope="module")
def folds(small, tmp_path_factory) -> Inputs:
    paths = tuple(tmp_path_factory.mktemp("folds") / f"{number}.json" for number in range(3))
    for split, path in zip(k_folds(small.store.clips, 3, seed=0), paths, strict=True):
        save_split(split, path)
    return Inputs(small.store, paths, "")


def test_the_same_seed_draws_the_same_networks_and_none_twice(small):
    first = [one.values for one in draw(small, trials=4)]
    assert [one.values for one in draw(small, trials=4)] == first
    assert [one.values for one in draw(small, trials=5)][: len(first)] == first
    assert len({tuple(one.values()) for one in first}) == len(first)


def test_another_seed_does_not_draw_the_same_numbers_one_place_on(small):
    def choices(hp, config):
        rows = [Layer("conv", hp.Int(f"filters {n}", 1, 1000)) for n in range(8)]
        return (*rows, Layer("average")), config

    first, second = (
        np.array(list(draw(small, space=choices, trials=1, seed=seed, max_multiply_adds=None)[0].values.values()))
        for seed in (0, 1)
    )
    assert (first != second).any() and (first[1:] != second[:-1]).any()


def test_every_draw_lies_in_the_space(small):
    axes = search.axes(space)
    assert axes.continuous.tolist() == axes.log.tolist() == [False, False, False, True]
    for one in draw(small, seed=3):
        assert list(one.values) == list(axes.index)
        for name, row in axes.iterrows():
            value = one.values[name]
            assert min(row["values"]) <= value <= max(row["values"]) if row.continuous else value in row["values"]


def test_networks_over_the_budget_or_impossible_are_marked_and_others_drawn(small):
    drawn = draw(small, trials=12)
    by_status = {status: [one for one in drawn if one.status == status] for status in ("drawn", "too large", "failed")}
    assert len(by_status["drawn"]) == 12 and all(one.multiply_adds <= BUDGET for one in by_status["drawn"])
    assert by_status["too large"] and all(one.multiply_adds > BUDGET for one in by_status["too large"])
    assert by_status["failed"] and all(one.reason and one.multiply_adds is None for one in by_status["failed"])
    one = by_status["drawn"][0]
    kernel, channels = int(one.values["kernel"]), [1] + [int(one.values["filters"])] * int(one.values["blocks"])
    weights = sum((kernel**2 * before + 1) * after for before, after in pairwise(channels))
    assert one.parameters == weights + (channels[-1] + 1) * 3


def test_a_space_with_nothing_left_or_nothing_within_the_budget_ends_the_draws(small):
    def tiny(hp, config):
        return (Layer("conv", hp.Choice("filters", [8, 16]), 3), Layer("average")), config

    assert len(draw(small, space=tiny)) == 2
    assert {one.status for one in draw(small, max_multiply_adds=10)} <= {"too large", "failed"}


def test_trials_that_fail_or_kill_their_process_are_marked_and_the_others_go_on(small, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_train", pretend_or_die)
    path = tmp_path / "0.json"
    path.write_text(inputs.splits[0].read_text())
    candidates = draw(small, trials=10)
    trials = search.search(tmp_path, candidates, inputs=Inputs(small.store, (path,), ""), workers=2)
    expected = {8: "done", 16: "failed", FATAL: "died", 32: "failed"}
    fitting = trials[[one.status == "drawn" for one in candidates]]
    assert fitting.status.tolist() == [expected[filters] for filters in fitting.filters]
    assert {"done", "died", "failed"} == set(fitting.status)
    assert fitting.reason[fitting.filters == 16].str.contains("diverged").all()
    assert fitting.reason[fitting.filters == 32].str.contains("ZeroDivisionError").all()
    assert trials.validation_loss.notna().tolist() == (trials.status == "done").tolist()
    monkeypatch.setattr(search, "_train", None)  # whatever ended, well or badly, is not run again
    again = search.search(tmp_path, candidates, inputs=Inputs(small.store, (path,), ""), workers=1)
    pd.testing.assert_frame_equal(again, trials)


def test_more_trials_add_to_those_of_before_and_another_setting_is_trained_anew(small, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_train", pretend)
    first = search.search(tmp_path, draw(small, trials=3), inputs=folds, workers=1)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    more = search.search(tmp_path, draw(small, trials=5), inputs=folds, workers=1)
    pd.testing.assert_frame_equal(more.iloc[: len(first)], first)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(tmp_path.glob("*.json"))) == 5 * 3


def test_each_fold_chooses_the_highest_accuracy_and_of_equals_the_least_loss(small, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_train", pretend)
    candidates = draw(small, trials=16)
    trials = search.search(tmp_path, candidates, inputs=folds, workers=1)
    done = trials[trials.status == "done"]
    for fold, winner in enumerate(search.best(candidates, trials)):
        rows = done[done.fold == fold].set_index("trial")
        assert winner.number == rows.validation_loss.idxmin()
    better = trials.copy()
    better.loc[done.validation_loss.idxmax(), "validation_accuracy"] = 0.9
    row = trials.loc[done.validation_loss.idxmax()]
    assert search.best(candidates, better)[row.fold].number == row.trial


def test_a_search_without_a_result_or_without_processes_says_so(small, inputs, tmp_path, monkeypatch):
    def bad(hp, config):
        return (Layer("conv", 16, hp.Choice("kernel", [1, 3])), Layer("average")), config

    monkeypatch.setattr(search, "_train", pretend)
    candidates = draw(small, space=bad)
    with pytest.raises(RunError, match="diverged"):
        search.best(candidates, search.search(tmp_path, candidates, inputs=inputs, workers=1))

    def broken(*_args: object, **_kwargs: object) -> None:
        raise WorkerError("no cluster")

    monkeypatch.setattr(search, "parallel_map", broken)
    with pytest.raises(WorkerError):
        search.search(tmp_path / "other", candidates, inputs=inputs)


def test_a_full_disk_is_no_fault_of_a_trial(small, inputs, tmp_path, monkeypatch):
    def full(*_args: object) -> None:
        raise DiskError("the disk is full")

    monkeypatch.setattr(search, "_train", full)
    candidates = draw(small, trials=1)
    with pytest.raises(DiskError):
        search.search(tmp_path, candidates, inputs=inputs, workers=1)
    assert not list(tmp_path.glob("*.json"))


SCRIPT = """
import sys
from pathlib import Path
from test_search import TrainConfig, Inputs, search, space
from instrlib.data.store import open_store

store = open_store(Path(sys.argv[2]))
candidates = search.draw(space, input_shape=(*store.config.shape, 1), n_classes=3, config=TrainConfig(),
                         trials=2, seed=0, max_multiply_adds=250_000)
search.search(Path(sys.argv[1]), candidates, inputs=Inputs(store, (Path(sys.argv[3]),), ""), workers=1)
"""


def test_a_killed_search_goes_on_and_ends_with_the_same_table(small, inputs, tmp_path):
    undisturbed = search.search(tmp_path / "whole", draw(small, trials=2), inputs=inputs, workers=2)
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT, str(folder), str(small.store.folder), str(inputs.splits[0])]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, start_new_session=True, env=os.environ | {"PYTHONPATH": path})
    try:
        deadline = time.monotonic() + 120
        while not (before := list(folder.glob("*.json"))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    times = {path: path.stat().st_mtime_ns for path in before}
    found = search.search(folder, draw(small, trials=2), inputs=inputs, workers=2)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), undisturbed.drop(columns="seconds"))
    assert (found.status == "done").sum() == 2 and (found.seconds.dropna() > 0).all()
    assert not list(folder.rglob("model.keras"))
