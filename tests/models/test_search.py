"""keras-tuner draws, workers train; a search repeats, and survives failing and killed trials."""

import os
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import DiskError, RunError, WorkerError
from instrlib.models import variants
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


def draw(small, **settings) -> list[variants.Candidate]:
    arguments = {"input_shape": (*small.store.config.shape, 1), "n_classes": 3, "config": TrainConfig()}
    arguments |= {"trials": 8, "seed": 0, "max_multiply_adds": BUDGET}
    return variants.draw(settings.pop("space", space), **arguments | settings)


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
        rows = [Layer("conv", hp.Int(f"filters {n}", 1, 1000)) for n in range(8)]
        return (*rows, Layer("average")), config

    drawn = [draw(small, space=choices, trials=1, seed=seed, max_multiply_adds=np.inf)[0] for seed in (0, 1)]
    one, other = (list(each.values.values()) for each in drawn)
    assert one != other and one[1:] != other[:-1]  # not the same numbers, one place on


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

    def tiny(hp, config):
        return (Layer("conv", hp.Choice("filters", [8, 16]), 3), Layer("average")), config

    assert len(draw(small, space=tiny)) == 2  # nothing left
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
    more = draw(small, trials=11)
    again = variants.search(tmp_path, more, inputs=inputs, workers=1)
    pd.testing.assert_frame_equal(again.iloc[: len(trials)], trials)
    assert again.reason[len(trials) :].str.contains("TypeError").sum() == 1


@pytest.mark.parametrize("fault", [DiskError("the disk is full"), WorkerError("no process could start")])
def test_a_fault_of_the_machine_is_no_fault_of_a_trial(fault, small, inputs, tmp_path, monkeypatch):
    def fails(*_args: object, **_kwargs: object) -> None:
        raise fault

    monkeypatch.setattr(variants, "_train_trial" if isinstance(fault, DiskError) else "parallel_map", fails)
    with pytest.raises(type(fault)):
        variants.search(tmp_path, draw(small, trials=1), inputs=inputs, workers=1)
    assert not list(tmp_path.glob("*.json"))


def test_trained_trials_do_not_depend_on_the_processes_and_keep_no_weights(small, inputs, tmp_path):
    one, other = (
        variants.search(tmp_path / str(workers), draw(small, trials=2), inputs=inputs, workers=workers)
        for workers in (1, 2)
    )
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    assert (one.status == "done").sum() == 2 and (one.seconds.dropna() > 0).all()
    assert not list(tmp_path.rglob("model.keras"))
