"""Networks predict mixtures and soundscapes that they cannot have been trained on."""

import dataclasses

import numpy as np
import pytest

from instrlib.core.config import AugmentConfig, TrainConfig, get_profile
from instrlib.core.io import LeakError, RunError
from instrlib.data.splits import make_split, save_split
from instrlib.data.store import build_store
from instrlib.evaluation import statistics
from instrlib.models.layers import Layer
from instrlib.models.published import open_model
from instrlib.models.variants import Variant, run_variants
from instrlib.studies import layered
from instrlib.studies.mixtures import MixtureConfig

TINY = Layer("conv", 4, 3, stride=2, norm=True), Layer("average")


@pytest.fixture(scope="module")
def mixed(small, mixtures, tmp_path_factory):
    return build_store(mixtures.corpus, small.store.config, root=tmp_path_factory.mktemp("mixed"), workers=1)


@pytest.fixture(scope="module")
def networks(small, inputs, tmp_path_factory):
    layers = AugmentConfig(mix="layers", layers=(1, 3))
    config = TrainConfig(epochs=1, output="sigmoid", class_weights=False, augment=layers)
    variant = Variant("tiny", TINY, config, small.store.folder)
    folder = tmp_path_factory.mktemp("networks")
    return run_variants(folder, [variant], splits=inputs.splits, seeds=(0, 1), workers=1)["tiny"].folders


def test_the_recipe_is_the_baselines_for_longer_on_mixtures():
    profile = get_profile("quick")
    recipe = layered.recipe(profile, MixtureConfig(sources=(1, 2, 3)))
    assert recipe.output == "sigmoid" and recipe.epochs == 1.5 * profile.train.epochs
    assert recipe.augment.mix == "layers" and recipe.augment.layers == (1, 3)


def test_each_network_predicts_every_mixture_once(inputs, networks, mixtures, mixed, tmp_path, monkeypatch):
    given = (networks, inputs, mixtures, mixed)
    answers = layered.predict(tmp_path / "a.npz", *given, workers=1)
    assert answers.shape == (2, len(mixtures.corpus.manifest), 3)
    assert ((answers >= 0) & (answers <= 1)).all() and not np.array_equal(answers[0], answers[1])
    monkeypatch.setattr(layered, "_predict", None)
    np.testing.assert_array_equal(layered.predict(tmp_path / "a.npz", *given, workers=1), answers)


def test_a_mixture_with_a_source_that_may_have_been_trained_on_is_refused(
    small, inputs, networks, mixtures, mixed, tmp_path
):
    sources = mixtures.sources.copy()
    sources.loc[len(sources) - 1, "clip_id"] = small.split.parts.index[small.split.parts == "train"][0]
    leaking = dataclasses.replace(mixtures, sources=sources)
    with pytest.raises(LeakError, match="train"):
        layered.predict(tmp_path / "a.npz", networks, inputs, leaking, mixed, workers=1)


def test_a_network_of_another_split_is_refused(small, inputs, networks, mixtures, mixed, tmp_path):
    save_split(make_split(small.store.clips, seed=1), tmp_path / "split.json")
    other = dataclasses.replace(inputs, splits=(tmp_path / "split.json",))
    with pytest.raises(RunError, match="split"):
        layered.predict(tmp_path / "a.npz", networks, other, mixtures, mixed, workers=1)


def test_thresholds_are_chosen_on_validation_mixtures_alone(mixtures):
    """Probabilities that are shifted by the part need another threshold in each."""
    labels, validation = mixtures.corpus.labels, mixtures.rows("validation")
    probabilities = np.where(labels == 1, 0.3, 0.1)[None].repeat(2, axis=0)
    probabilities[:, validation] = np.where(labels[validation] == 1, 0.9, 0.7)
    test, known = (layered.predictions(mixtures, probabilities, part) for part in ("test", "validation"))
    assert np.allclose(known["thresholds"], 0.8) and np.allclose(test["thresholds"], 0.8)
    assert np.allclose(layered.predictions(mixtures, probabilities, "test", threshold=0.2)["thresholds"], 0.2)
    scores = statistics.score_table({"chosen": known}, n_resamples=20, seed=0).set_index("score").estimate
    assert scores.micro_f1 == 1 and scores.hamming_loss == 0


def test_scores_of_mixtures_have_intervals_over_the_groups_of_all_sources(mixtures):
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 0.6, (2, *mixtures.corpus.labels.shape))
    good = layered.predictions(mixtures, 0.4 * mixtures.corpus.labels + noise, "test", threshold=0.5)
    bad = layered.predictions(mixtures, noise, "test", threshold=0.5)
    row = statistics.compare({"good": good, "bad": bad}, against="bad", n_resamples=200).loc[("good", "bad")]
    assert row.difference > 0 and row.low < row.difference < row.high and row.verdict in ("better", "inconclusive")


def test_the_weight_of_a_mixture_is_the_product_of_those_of_its_groups():
    groups = np.array([["a", ""], ["b", ""], ["c", ""], ["a", "b"], ["c", "c"]])
    codes, weights = statistics.group_weights(groups, n_resamples=300, seed=0)
    of_clips = weights[:, codes].prod(axis=2)
    assert (of_clips[0] == 1).all()
    np.testing.assert_allclose(of_clips[:, 3], of_clips[:, 0] * of_clips[:, 1])
    np.testing.assert_allclose(of_clips[:, 4], of_clips[:, 2] ** 2)
    np.testing.assert_allclose(of_clips[1:, :3].sum(axis=1), 3)


def test_a_released_network_hears_soundscapes_of_its_own_split_once(
    released, small, soundscapes, tmp_path, monkeypatch
):
    model = open_model(released.made.model.folder)
    given = {"trained_on": model.about["split"], "window_s": 3.0}
    heard = layered.predict_windows(tmp_path / "a.npz", model.single, soundscapes, small.split, **given)
    assert [len(one.start_s) for one in heard] == [
        int(np.ceil(duration_s - 3.0)) + 1 for duration_s in soundscapes.corpus.manifest.duration_s
    ]
    monkeypatch.setattr(layered, "_windows", None)
    again = layered.predict_windows(tmp_path / "a.npz", model.single, soundscapes, small.split, **given)
    assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(heard, again, strict=True))
    other = make_split(small.store.clips, seed=1)
    with pytest.raises(LeakError):
        layered.predict_windows(tmp_path / "b.npz", model.single, soundscapes, other, **given)
