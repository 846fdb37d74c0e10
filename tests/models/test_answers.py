"""The test part is read once for each model, in one place."""

import numpy as np
import pytest

from instrlib.core.config import TrainConfig
from instrlib.core.io import RunError
from instrlib.data.splits import make_split, save_split
from instrlib.evaluation import statistics
from instrlib.models import answers, variants


@pytest.fixture(scope="module")
def outcome(small, tmp_path_factory):
    variant = variants.Variant("compact", "compact", TrainConfig(epochs=3), small.store.folder)
    folder = tmp_path_factory.mktemp("evaluated")
    return variants.run_variants(folder, [variant], splits=[small.split_path], seeds=(0, 1))["compact"]


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

    monkeypatch.setattr(answers, "predict_clips", refuse)
    again = answers.read_test(folders[0], small.store.folder, small.split_path)
    np.testing.assert_array_equal(again["probabilities"], test_part["probabilities"][0])


def test_a_network_does_not_answer_the_test_part_of_another_split(small, folders, test_part, tmp_path):
    other = make_split(small.store.clips, seed=1)
    assert other.fingerprint != small.split.fingerprint
    save_split(other, tmp_path / "split.json")
    with pytest.raises(RunError, match="was trained with the split"):
        answers.read_test(folders[0], small.store.folder, tmp_path / "split.json")


def test_training_does_not_read_the_test_part(small, folders):
    from instrlib.core.io import read_arrays

    seen = set(read_arrays(folders[0] / "validation.npz")["clip_id"])
    assert seen == set(small.split.parts.index[small.split.parts == "validation"])


def test_the_baselines_answer_the_same_clips_and_chance_is_at_chance(small, test_part):
    found = answers.trivial_baselines(small.store, [small.split_path], seed=0)
    table = statistics.score_table(found, n_resamples=50, seed=0)
    accuracy = table[table.score == "accuracy"].set_index("model").estimate
    answered = found["majority class"]["probabilities"][0].argmax()
    assert accuracy["majority class"] == np.mean(test_part["targets"] == answered)
    # Drums, piano and flute differ in their mean spectrum alone.
    assert accuracy["nearest centroid"] > accuracy["majority class"]
    assert found["stratified random"]["clip_id"].tolist() == test_part["clip_id"].tolist()
    assert accuracy["stratified random"] == pytest.approx(1 / 3, abs=0.05)
