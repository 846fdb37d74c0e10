"""The test part is read once for each model, in one place, and the leak is shown for what it is."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from instrlib import findings
from instrlib.core.config import TrainConfig
from instrlib.core.errors import RunError
from instrlib.data.splits import make_split, save_split
from instrlib.evaluation.intervals import Difference
from instrlib.evaluation.metrics import scores
from instrlib.models import evaluation, experiments
from instrlib.studies.leak import compare_protocols


@pytest.fixture(scope="module")
def outcome(small, tmp_path_factory):
    variant = experiments.Variant("compact", "compact", TrainConfig(epochs=3), small.store.folder)
    folder = tmp_path_factory.mktemp("evaluated")
    return experiments.run_variants(folder, [variant], splits=[small.split_path], seeds=(0, 1))["compact"]


@pytest.fixture(scope="module")
def folders(outcome):
    return outcome.flat


@pytest.fixture(scope="module")
def test_part(outcome):
    return outcome.predictions


def test_every_clip_of_the_test_part_and_no_other_is_answered(small, test_part):
    expected = sorted(small.split.parts.index[small.split.parts == "test"])
    assert test_part["clip_id"].tolist() == expected
    labels = small.clips.manifest.set_index("clip_id").label[expected]
    assert [small.store.classes[target] for target in test_part["targets"]] == labels.tolist()
    assert test_part["probabilities"].shape == (2, len(expected), 3)


def test_asked_again_it_gives_the_answers_that_were_kept(small, folders, test_part, monkeypatch):
    def refuse(*_):
        raise AssertionError("the test part was read twice")

    monkeypatch.setattr(evaluation, "predict_clips", refuse)
    again = evaluation.read_test(folders[0], small.store.folder, small.split_path)
    np.testing.assert_array_equal(again["probabilities"], test_part["probabilities"][0])


def test_a_network_does_not_answer_the_test_part_of_another_split(small, folders, test_part, tmp_path):
    other = make_split(small.store.clips, seed=1)
    assert other.fingerprint != small.split.fingerprint
    save_split(other, tmp_path / "split.json")
    with pytest.raises(RunError, match="was trained with the split"):
        evaluation.read_test(folders[0], small.store.folder, tmp_path / "split.json")


def test_training_does_not_read_the_test_part(small, folders):
    from instrlib.core.io import read_arrays

    seen = set(read_arrays(folders[0] / "validation.npz")["clip_id"])
    assert seen == set(small.split.parts.index[small.split.parts == "validation"])


def test_the_baselines_answer_the_same_clips_and_chance_is_at_chance(small, test_part):
    answers = evaluation.trivial_baselines(small.store, [small.split_path], seed=0)
    table = evaluation.compare_models(test_part, answers, n_resamples=50, seed=0)
    accuracy = table[table.score == "accuracy"].set_index("model").estimate
    assert accuracy["majority class"] == np.mean(test_part["targets"] == answers["majority class"][0].argmax())
    # Drums, piano and flute differ in their mean spectrum alone.
    assert accuracy["nearest mean spectrum"] > accuracy["majority class"]
    assert set(table.columns) == {"model", "score", "estimate", "low", "high"}
    for name, probabilities in answers.items():
        draws = probabilities.reshape(-1, *probabilities.shape[-2:])
        assert accuracy[name] == pytest.approx(
            np.mean([scores(test_part["targets"], draw)["accuracy"] for draw in draws])
        )
    assert accuracy["chance by class share"] == pytest.approx(1 / 3, abs=0.05)


def test_two_equal_models_do_not_differ_and_a_perfect_one_beats_chance(test_part):
    perfect = np.eye(3)[test_part["targets"]]
    chance = np.tile([1.0, 0.0, 0.0], (len(perfect), 1))
    same = evaluation.compare_pair(test_part, perfect, perfect, n_resamples=100, seed=0)
    assert (same["difference"].estimate, same["mcnemar_p"]) == (0, 1)
    better = evaluation.compare_pair(test_part, perfect, chance, n_resamples=100, seed=0)
    assert better["difference"].low > 0
    assert better["second_alone"] == 0 < better["first_alone"]


def test_the_surest_wrong_answer_of_each_confused_pair_is_found(small, test_part):
    wrong_answers = np.zeros((1, len(test_part["targets"]), 3))
    wrong_answers[0, np.arange(len(test_part["targets"])), (test_part["targets"] == 0) * 1] = 1.0
    made = test_part | {"probabilities": wrong_answers}
    found = evaluation.confident_errors(made, small.clips, n=5)
    assert (found.true != found.predicted).all() and len(found) == found[["true", "predicted"]].drop_duplicates().shape[
        0
    ]
    assert (found.label == found.true).all()
    right = test_part | {"probabilities": np.eye(3)[test_part["targets"]][None]}
    assert evaluation.confident_errors(right, small.clips, n=5).empty


def test_random_folds_of_segments_leave_siblings_in_training_and_whole_groups_do_not(small):
    leak = compare_protocols(small.store, small.split, seed=0, n_resamples=100, workers=1)
    assert leak.siblings[0] > 0.75
    assert leak.siblings[1] == 0
    assert leak.accuracy[0].estimate >= leak.accuracy[1].estimate - 0.1
    assert leak.difference.estimate == pytest.approx(leak.accuracy[0].estimate - leak.accuracy[1].estimate)


def test_where_few_groups_are_left_there_are_as_many_folds(small):
    names = sorted(small.store.segments.group.unique())
    three = {name: f"player {number % 3}" for number, name in enumerate(names)}
    few = dataclasses.replace(small.store, segments=small.store.segments.assign(group=lambda t: t.group.map(three)))
    assert compare_protocols(few, small.split, seed=0, n_resamples=50, workers=1).n_folds == 3


@pytest.mark.real_data
def test_on_the_real_sample_a_random_split_of_segments_flatters(sample_root, tmp_path):
    from instrlib.core.config import FeatureConfig, get_profile
    from instrlib.data import corpora
    from instrlib.data.splits import make_split
    from instrlib.data.store import build_store

    clips = corpora.load("fsdkaggle2018", data=sample_root, profile=get_profile("quick"))
    store = build_store(clips, FeatureConfig(), root=tmp_path)
    leak = compare_protocols(store, make_split(store.clips, seed=0), seed=0, n_resamples=200)
    assert len(clips.manifest) == 221
    assert leak.difference.low > 0.05


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference(0.1, 0.05, 0.15, 0.01), "A is better than B: accuracy +0.100"),
        (Difference(-0.1, -0.15, -0.05, 0.01), "A is worse than B"),
        (Difference(0.1, -0.05, 0.15, 0.3), "These clips do not show a difference between A and B"),
    ],
)
def test_a_finding_says_what_the_interval_allows(difference, words):
    assert findings.difference_sentence("A", "B", difference).startswith(words)


def test_the_table_of_scores_becomes_a_tree_for_the_results():
    table = pd.DataFrame({"model": ["a"], "score": ["accuracy"], "estimate": [0.5], "low": [0.4], "high": [0.6]})
    assert evaluation.nested(table) == {"a": {"accuracy": {"estimate": 0.5, "low": 0.4, "high": 0.6}}}
