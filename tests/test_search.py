"""The oracle decides, workers only train; a search repeats, survives what happens to it, and chooses on validation."""

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

from instrlib import findings
from instrlib.core.config import TrainConfig
from instrlib.core.errors import ConfigError, RunError
from instrlib.core.io import read_json
from instrlib.data.splits import k_folds, save_split
from instrlib.models import search
from instrlib.models.experiments import Variant
from instrlib.models.layers import Layer

CONFIG = TrainConfig(epochs=1, patience=1)
BUDGET = 2_000_000


def _told(folder: Path, _store: Path, _split: Path, spec: tuple[Layer, ...], config: TrainConfig) -> dict[str, float]:
    """Stand in for the training: the loss is the learning rate, and the first row's filters decide what happens."""
    if spec[0].units == 16:
        raise RunError("Training diverged.")
    (folder / "model.keras").parent.mkdir(parents=True)
    (folder / "model.keras").write_bytes(b"weights")
    fold = int(folder.name[-1])
    loss = abs(np.log(config.learning_rate) + 4 + 2 * fold)
    return {"validation_loss": loss, "validation_accuracy": 0.5, "best_epoch": 1.0, "epochs": 2.0, "seconds": 0.1}


def _told_or_killed(
    folder: Path, store: Path, split: Path, spec: tuple[Layer, ...], config: TrainConfig
) -> dict[str, float]:
    if spec[0].units == 24:
        os.kill(os.getpid(), signal.SIGKILL)
    return _told(folder, store, split, spec, config)


@pytest.fixture
def told(monkeypatch) -> None:
    monkeypatch.setattr(search, "_train", _told)


@pytest.fixture(scope="module")
def folds(small, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("folds")
    paths = []
    for number, split in enumerate(k_folds(small.store.clips, 3, seed=0)):
        paths.append(folder / f"{number}.json")
        save_split(split, paths[-1])
    return paths


def find(small, folder: Path, splits: list[Path] | None = None, **settings) -> search.Search:
    arguments = {"trials": 6, "seed": 0, "max_multiply_adds": BUDGET, "config": CONFIG, "workers": 2}
    space = settings.pop("space", "own")
    return search.search(folder, space, store=small.store, splits=splits or [small.split_path], **arguments | settings)


def draws(small, **settings) -> list[dict[str, float]]:
    arguments = {"trials": 6, "seed": 0, "config": CONFIG}
    return [one.values for one in search.draw("own", store=small.store, **arguments | settings)]


def test_an_unknown_space_gives_one_line_that_lists_what_there_is(small, tmp_path):
    with pytest.raises(ConfigError, match=r"^Unknown space 'huge'; there is: own, reference\.$"):
        find(small, tmp_path, space="huge")


def test_the_same_seed_draws_the_same_networks_in_the_same_order_and_none_twice(small):
    first = draws(small)
    assert draws(small) == first
    assert draws(small, trials=9)[: len(first)] == first
    assert len({tuple(one.values()) for one in first}) == len(first)


def test_another_seed_draws_other_networks_and_not_the_same_numbers_one_place_on(small):
    quantile = {}
    for seed in (0, 1):
        (one, *_) = search.draw("reference", store=small.store, config=CONFIG, trials=1, seed=seed)
        quantile[seed] = [
            axis.values.index(one.values[axis.name]) / (len(axis.values) - 1) for axis in search.axes("reference")
        ]
    assert quantile[0] != quantile[1]
    assert np.abs(np.subtract(quantile[0][1:], quantile[1][:-1])).max() > 0.3


@pytest.mark.parametrize("space", list(search.SPACES))
def test_every_draw_lies_in_the_space(space, small):
    axes = search.axes(space)
    for one in search.draw(space, store=small.store, config=CONFIG, trials=10, seed=3):
        assert list(one.values) == [axis.name for axis in axes]
        for axis in axes:
            value = one.values[axis.name]
            assert (min(axis.values) <= value <= max(axis.values)) if axis.continuous else value in axis.values


def test_the_reference_space_is_that_of_its_description(small):
    values = {axis.name: axis.values for axis in search.axes("reference")}
    assert [len(values[f"filters {n}"]) for n in (1, 2, 3)] == [7, 5, 5]
    assert [(min(values[f"dense {n}"]), max(values[f"dense {n}"])) for n in (1, 2, 3)] == [(16, 64), (8, 16), (4, 8)]
    assert values["kernel 2"] == (1, 3, 5)
    assert sorted(values["learning rate"]) == [0.001, 0.01, 0.1, 1]
    (one,) = search.draw("reference", store=small.store, config=CONFIG, trials=1, seed=0)
    assert [row.kind for row in one.spec] == ["conv"] * 3 + ["flatten"] + ["dense"] * 3
    assert not any(row.norm or row.pool > 1 for row in one.spec)
    assert [row.dropout for row in one.spec] == [0.2, 0.2, 0.2, 0, 0.2, 0.2, 0.1]
    # Weights and biases, counted by hand; nothing is pooled.
    sides, units = np.prod(small.store.config.shape), [1]
    expected = 0
    for number in (1, 2, 3):
        filters, kernel = (int(one.values[f"{what} {number}"]) for what in ("filters", "kernel"))
        expected += (kernel**2 * units[-1] + 1) * filters
        units.append(filters)
    units = [sides * units[-1], *(int(one.values[f"dense {n}"]) for n in (1, 2, 3)), len(small.store.classes)]
    expected += sum((before + 1) * after for before, after in pairwise(units))
    assert one.parameters == expected
    assert (one.config.learning_rate, one.config.schedule) == (one.values["learning rate"], "constant")
    (longer,) = search.draw("reference", store=small.store, config=TrainConfig(epochs=80), trials=1, seed=0)
    assert longer.config.epochs == 10


def test_networks_over_the_budget_or_that_do_not_fit_are_refused_and_others_drawn(small):
    drawn = search.draw("own", store=small.store, config=CONFIG, trials=12, seed=0, max_multiply_adds=BUDGET)
    kept = [one for one in drawn if not one.refused]
    assert len(kept) == 12 and all(one.multiply_adds <= BUDGET for one in kept)
    large = [one for one in drawn if one.refused and one.refused[0] == "too large"]
    assert large and all(one.multiply_adds > BUDGET for one in large)
    assert large[0].refused[1] == f"{large[0].multiply_adds / 1e6:.1f} million multiply-adds, more than 2.0"
    unfit = [one for one in drawn if one.refused and one.refused[0] == "failed"]
    assert unfit and all("nothing is left to pool" in one.refused[1] for one in unfit)
    assert {(one.values["blocks"], one.values["pooling"]) for one in unfit} <= {(3, 3), (4, 3), (4, 2)}
    without = search.draw("own", store=small.store, config=CONFIG, trials=12, seed=0)
    row = search.costs({"own": without}, BUDGET).loc["own"]
    work = [one.multiply_adds for one in without if not one.refused]
    assert (row.networks, row.built, row.within_budget) == (len(without), 12, sum(one <= BUDGET for one in work))
    assert (row.multiply_adds_least, row.multiply_adds_most) == (min(work), max(work))


def test_a_budget_that_nothing_fits_says_what_the_least_costs(small, tmp_path):
    with pytest.raises(ConfigError, match=r"None of 120 networks .*'own' .* within 0\.0 million: the least costs"):
        find(small, tmp_path, max_multiply_adds=10)


def test_a_space_that_has_no_more_ends_the_draws(small, monkeypatch):
    def tiny(hp, config):
        return (Layer("conv", hp.Choice("filters", [8, 16]), 3), Layer("average")), config

    monkeypatch.setitem(search.SPACES, "tiny", tiny)
    assert len(search.draw("tiny", store=small.store, config=CONFIG, trials=10, seed=0)) == 2


def test_trials_that_fail_or_take_their_process_down_are_marked_and_the_best_of_the_others_wins(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(search, "_train", _told_or_killed)
    found = find(small, tmp_path, trials=8)
    table = found.trials
    first = table["first filters"]
    fitting = table.reason.str.contains("multiply-adds|nothing is left") == False  # noqa: E712
    assert (table.status[fitting & (first == 24)] == "died").all() and (fitting & (first == 24)).any()
    assert (table.status[fitting & (first == 16)] == "failed").all() and (fitting & (first == 16)).any()
    assert set(table.reason[fitting & (first == 16)]) == {"Training diverged."}
    done = table[table.status == "done"]
    assert set(done["first filters"]) <= {8, 32}
    (winner,) = found.winners
    assert winner.number == done.trial[done.validation_loss.idxmin()]
    assert winner.config.learning_rate == winner.values["learning rate"]


def test_the_table_is_kept_and_the_oracle_knows_every_trial(small, tmp_path, told):
    found = find(small, tmp_path)
    kept = pd.read_csv(found.folder / "trials.csv", keep_default_na=False, na_values={"validation_loss": ""})
    assert list(kept.columns) == list(found.trials.columns)
    np.testing.assert_allclose(kept.validation_loss, found.trials.validation_loss)
    state = read_json(found.folder / "oracle-0.json")
    by_status = {"done": "COMPLETED"}
    assert [one["status"] for one in state["trials"]] == [by_status.get(s, "FAILED") for s in found.trials.status]
    assert state["oracle"]["ongoing_trials"] == {}
    scored = [one["score"] for one in state["trials"] if one["status"] == "COMPLETED"]
    np.testing.assert_allclose(scored, found.trials.validation_loss.dropna())


def test_each_fold_chooses_for_itself_among_the_same_networks(small, folds, tmp_path, told):
    found = find(small, tmp_path, folds, trials=12)
    done = found.trials[found.trials.status == "done"]
    for fold, winner in enumerate(found.winners):
        rows = done[done.fold == fold]
        assert winner.number == rows.trial[rows.validation_loss.idxmin()]
    assert len({winner.number for winner in found.winners}) > 1
    assert done.groupby("trial").fold.apply(list).map(tuple).unique().tolist() == [(0, 1, 2)]
    assert len(found.trials.groupby("trial")["learning rate"].unique().map(len).unique()) == 1


def test_only_the_winners_weights_are_kept(small, folds, tmp_path, told):
    found = find(small, tmp_path, folds)
    weights = {path.relative_to(found.folder).parent for path in found.folder.rglob("model.keras")}
    assert weights == {Path(f"trial-{one.number:03d}/fold-{fold}") for fold, one in enumerate(found.winners)}


def test_more_trials_go_on_from_those_that_are_there(small, tmp_path, told):
    first = find(small, tmp_path, trials=4)
    notes = {path: path.stat().st_mtime_ns for path in first.folder.rglob("fold-0.json")}
    more = find(small, tmp_path, trials=8)
    assert more.folder == first.folder
    pd.testing.assert_frame_equal(more.trials.iloc[: len(first.trials)], first.trials)
    assert {path: path.stat().st_mtime_ns for path in notes} == notes
    assert len(list(more.folder.rglob("fold-0.json"))) == 8


def test_another_seed_or_setting_has_a_folder_of_its_own(small, tmp_path, told):
    changed = [{}, {"seed": 1}, {"config": TrainConfig(epochs=2)}, {"max_multiply_adds": BUDGET // 2}]
    assert len({find(small, tmp_path, trials=2, **one).folder for one in changed}) == len(changed)


def test_a_search_in_which_nothing_could_be_trained_says_why(small, tmp_path, told, monkeypatch):
    def bad(hp, config):
        return (Layer("conv", 16, hp.Choice("kernel", [1, 3])), Layer("average")), config

    monkeypatch.setitem(search.SPACES, "bad", bad)
    with pytest.raises(RunError, match=r"No trial of the space 'bad' could be trained; the first: Training diverged\."):
        find(small, tmp_path, space="bad")


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory) -> search.Search:
    return find(small, tmp_path_factory.mktemp("trained"), trials=3)


_SCRIPT = """
import sys
from pathlib import Path
from instrlib import findings
from instrlib.models import search
from instrlib.core.config import TrainConfig
from instrlib.data.store import open_store

search.search(
    Path(sys.argv[1]), "own", store=open_store(Path(sys.argv[2])), splits=[Path(sys.argv[3])],
    config=TrainConfig(epochs=1, patience=1), trials=3, seed=0, max_multiply_adds=2_000_000, workers=1,
)
"""


def test_a_search_that_is_killed_goes_on_and_ends_with_the_same_table(small, trained, tmp_path):
    arguments = [sys.executable, "-c", _SCRIPT, tmp_path, small.store.folder, small.split_path]
    process = subprocess.Popen([str(one) for one in arguments], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (before := list(tmp_path.rglob("fold-0.json"))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not list(tmp_path.rglob("trials.csv"))
    times = {path: path.stat().st_mtime_ns for path in before}
    found = find(small, tmp_path, trials=3)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    pd.testing.assert_frame_equal(found.trials.drop(columns="seconds"), trained.trials.drop(columns="seconds"))


def test_a_trial_is_scored_by_validation_at_its_best_epoch(trained):
    done = trained.trials[trained.trials.status == "done"].reset_index()
    assert len(done) == 3
    for row in done.itertuples():
        kept = read_json(trained.folder / f"trial-{row.trial:03d}" / "fold-0" / "metrics.json")
        assert (row.validation_loss, row.validation_accuracy) == (
            kept["validation"]["log_loss"],
            kept["validation"]["accuracy"],
        )
        assert (row.parameters, row.multiply_adds) == (kept["parameters"], kept["multiply_adds"])
        assert (row.epochs, row.best_epoch) == (1, 1)
        assert row.seconds > 0


def test_the_winner_is_trained_again_from_fresh_seeds_beside_the_baseline(small, folds, tmp_path, told):
    found = find(small, tmp_path, folds)
    baseline = Variant("small", "small", CONFIG, small.store.folder)
    again = search.train_again(tmp_path / "again", found, baseline=baseline, splits=folds, seeds=(0,), workers=2)
    assert list(again) == ["winner", "small"]
    clips = sorted(small.store.clips.clip_id)
    for outcome in again.values():
        assert list(outcome.predictions["clip_id"]) == clips
        assert outcome.predictions["probabilities"].shape == (1, len(clips), 3)
    places = again["winner"].folders[0]
    for place, winner in zip(places, found.winners, strict=True):
        manifest = read_json(place / "manifest.json")
        assert manifest["seed"] == 0 != search.TRAIN_SEED
        assert manifest["train"]["learning_rate"] == winner.values["learning rate"]
    table = search.regression_to_the_mean(found, again["winner"])
    losses = [read_json(place / "metrics.json")["validation"]["log_loss"] for place in places]
    assert table.again["validation_loss"] == pytest.approx(np.mean(losses))
    rows = found.trials.set_index(["trial", "fold"]).validation_loss
    chosen = [rows[winner.number, fold] for fold, winner in enumerate(found.winners)]
    assert table.search["validation_loss"] == pytest.approx(np.mean(chosen))
    progress = search.figure_progress(found, *again.values())
    assert progress["chosen"] == pytest.approx(np.mean(chosen))
    assert (np.diff(progress["best"][np.isfinite(progress["best"])]) <= 0).all()
    assert (len(progress["again"]), len(progress["baseline"])) == (1, 1)


def made(small, n: int) -> search.Search:
    """A search whose loss depends on the learning rate alone."""
    drawn = search.draw("own", store=small.store, config=CONFIG, trials=n, seed=5)
    rows = [{"trial": one.number, "fold": 0, **one.values, "status": "done"} for one in drawn if not one.refused]
    table = pd.DataFrame(rows)
    table["validation_loss"] = np.log(table["learning rate"]) + 10
    table["validation_accuracy"] = 1 / table.validation_loss
    return search.Search("own", Path(), None, table, (drawn[0],))


def test_importance_finds_the_hyperparameter_that_decides_and_no_other(small):
    table = search.importance(made(small, 30), n_resamples=30, seed=0)
    assert list(table.index)[-1] == search.CHANCE
    assert table.importance.idxmax() == "learning rate"
    assert table.low["learning rate"] > table.high[search.CHANCE]
    assert table.spearman["learning rate"] == pytest.approx(1)
    assert (table.low.drop("learning rate") < 0.05).all()
    assert np.isnan(table.spearman[search.CHANCE])


def test_importance_says_nothing_of_a_handful_of_trials(small):
    assert search.importance(made(small, 3), n_resamples=10, seed=0).isna().all(axis=None)


def test_a_trial_that_failed_in_one_fold_has_no_mean(small, folds, tmp_path, told):
    found = find(small, tmp_path, folds)
    arrays = search.figure_axes(found)
    assert arrays["values"].shape == (len(arrays["accuracy"]), len(search.axes("own")))
    first = arrays["values"][:, list(arrays["names"]).index("first filters")]
    assert np.isnan(arrays["accuracy"][first == 16]).all()
    assert arrays["won"].sum() == len({winner.number for winner in found.winners})


def test_a_trial_ended_as_in_the_first_fold_that_failed_and_is_counted_once():
    rows = [("done", ""), ("failed", "a"), ("died", "b"), ("done", ""), ("done", ""), ("done", "")]
    table = pd.DataFrame(rows, columns=["status", "reason"])
    table = table.assign(trial=[0, 0, 0, 1, 1, 1], fold=[0, 1, 2] * 2)
    ended = search.endings(search.Search("own", Path(), None, table, ()))
    assert ended.to_dict("index") == {0: {"status": "failed", "reason": "a"}, 1: {"status": "done", "reason": ""}}


def test_what_was_found_is_said_with_its_numbers(small, tmp_path, told):
    found = find(small, tmp_path)
    counts = found.trials.status.value_counts()
    sentence = findings.search_sentence(found)
    assert sentence.startswith(f"{len(found.trials)} networks were drawn from the space “own” and {counts['done']} of")
    assert f"{counts['too large']} cost more than the budget" in sentence
    assert f"blocks {found.winners[0].values['blocks']}," in sentence
    lucky = pd.DataFrame({"search": [0.2], "again": [0.3], "lowest": [0.25], "highest": [0.35]}, ["validation_loss"])
    assert "it was lower than from any of the fresh seeds." in findings.regression_sentence(lucky)
    within, above = lucky.assign(again=0.15, lowest=0.1), lucky.assign(again=0.12, lowest=0.1, highest=0.15)
    not_shown = "so it is not shown that the search flattered it"
    assert f"it lies within what fresh seeds give, {not_shown}" in findings.regression_sentence(within)
    assert f"it was higher than from any of the fresh seeds, {not_shown}" in findings.regression_sentence(above)
    table = search.importance(made(small, 30), n_resamples=30, seed=0)
    assert "better than chance: learning rate" in findings.importance_sentence(table, 30)
    nothing = search.importance(made(small, 3), n_resamples=10, seed=0)
    assert findings.importance_sentence(nothing, 3).startswith("3 trials do not show")
