"""A network that learned elsewhere goes on from there: what it begins with, what moves, what is chosen by what."""

import dataclasses
import shutil

import numpy as np
import pytest

from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import LeakError, StoreError
from instrlib.core.io import read_json
from instrlib.data import rendered
from instrlib.data import store as stores
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split, make_split, save_splits
from instrlib.data.store import build_store
from instrlib.models import embeddings, finetune, heads, transfer
from instrlib.models.layers import Layer
from instrlib.models.train import train_model
from instrlib.models.trained import learning_curves, load_model, part_segments

TINY = (Layer("conv", 6, 5, 4, norm=True), Layer("conv", 8, 3, norm=True), Layer("average", dropout=0.1))
SHORT = TrainConfig(epochs=2, batch_size=8, patience=2)
RECIPES = {"all rows alike": {}, "the head alone": {"decay": 0.0, "frozen_norm": True}}
STILL = dataclasses.replace(SHORT, epochs=1, learning_rate=1e-9)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return three instruments that the pretrained network has not heard."""
    root = tmp_path_factory.mktemp("clips")
    return rendered.load(root, clips_per_class=12, classes=("trumpet", "cello", "organ"), workers=1)


@pytest.fixture(scope="module")
def target(clips, tmp_path_factory) -> Inputs:
    """Return their features and split."""
    root = tmp_path_factory.mktemp("target")
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=1024), root=root / "features", workers=1)
    split = make_split(store.clips, seed=0)
    return Inputs(store, tuple(save_splits([split], root / "splits")), split.fingerprint)


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    return train_model(folder, small.store.folder, small.split_path, TINY, SHORT, 0)


def tuned(folder, target, pretrained, *, config=SHORT, store=None, **settings):
    start = finetune.Pretrained(pretrained, **settings)
    place = store or target.store.folder
    return load_model(train_model(folder, place, target.splits[0], TINY, config, 0, None, start))[0]


@pytest.fixture(scope="module")
def first(target, pretrained, tmp_path_factory):
    """Return a network that was tuned with all rows alike."""
    return tuned(tmp_path_factory.mktemp("first") / "run", target, pretrained)


@pytest.fixture(scope="module")
def still(target, pretrained, tmp_path_factory):
    """Return the folder of one that did not move from where it began."""
    folder = tmp_path_factory.mktemp("still") / "run"
    tuned(folder, target, pretrained, config=STILL, frozen_norm=True)
    return folder


def moved(before, after, name) -> float:
    """Largest change of a layer's weights; of normalisation: of what is learned and of the statistics alike."""
    pairs = zip(before.get_layer(name).get_weights(), after.get_layer(name).get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def parts(target, *names):
    split = load_split(target.splits[0], target.store.segments)
    return [part_segments(target.store, split, name) for name in names]


@pytest.mark.parametrize("several", [False, True])
def test_a_head_made_of_weights_answers_what_the_regression_answers(several):
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, size=(90, 5))
    labels = (x[:, :3] > 2).astype(float) if several else np.eye(3)[x[:, :3].argmax(axis=1)]
    known, held_out = (x[:60], labels[:60]), (x[60:], labels[60:])
    kernel, bias = finetune.linear_head(*known, *held_out, several=several)
    scores = x[60:] @ kernel + bias
    scaling = finetune.MinMax.fit(x[:60])
    predict, _ = heads.HEADS[heads.LOGISTIC](
        scaling.scale(x[:60]), labels[:60], scaling.scale(x[60:]), labels[60:], several=several, seed=0
    )
    powers = np.exp(scores)
    answers = 1 / (1 + np.exp(-scores)) if several else powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers, predict(scaling.scale(x[60:])), atol=1e-4)


def test_it_begins_with_the_pretrained_body_and_with_what_a_probe_on_it_answers(target, pretrained, still):
    (body, _), (kept, _) = load_model(pretrained), load_model(still)
    for layer in kept.layers[:-1]:
        for a, b in zip(layer.get_weights(), body.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    scaler = finetune.Pretrained(pretrained).scaler(target.store)
    train, validation = (
        finetune.embed_clips(body, target.store, scaler, one) for one in parts(target, "train", "validation")
    )
    kernel, bias = finetune.linear_head(*train, *validation, several=False)
    answered = np.load(still / "validation.npz")["probabilities"]
    powers = np.exp(validation[0] @ kernel + bias)
    np.testing.assert_allclose(answered, powers / powers.sum(axis=1, keepdims=True), atol=1e-4)


def test_a_frozen_body_does_not_move_and_its_head_does(target, pretrained, still, tmp_path):
    after = tuned(tmp_path / "run", target, pretrained, decay=0.0, frozen_norm=True)
    body, _ = load_model(pretrained)
    assert [moved(body, after, name) for name in ("conv1", "norm1", "conv2", "norm2")] == [0, 0, 0, 0]
    assert moved(load_model(still)[0], after, "scores") > 1e-4


def test_the_further_from_the_scores_the_less_a_row_moves(target, pretrained, first, tmp_path):
    body, _ = load_model(pretrained)
    after = tuned(tmp_path / "run", target, pretrained, decay=0.1, frozen_norm=True)
    assert finetune.Pretrained(pretrained, rate=0.5, decay=0.1).rates == pytest.approx((0.005, 0.05, 0.5, 0.5))
    assert 0 < 5 * moved(body, after, "conv1") < moved(body, after, "conv2")
    assert moved(body, first, "conv1") > 5 * moved(body, after, "conv1")


def test_normalisation_follows_the_new_corpus_unless_it_is_frozen(target, pretrained, tmp_path):
    body, _ = load_model(pretrained)
    after = tuned(tmp_path / "run", target, pretrained, decay=0.0)
    assert moved(body, after, "conv1") == 0 and moved(body, after, "norm1") > 1e-3


def test_the_same_start_gives_the_same_bits_and_another_start_is_not_taken_for_it(target, pretrained, first, tmp_path):
    again = tuned(tmp_path, target, pretrained)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    stamp = (tmp_path / "model.keras").stat().st_mtime_ns
    tuned(tmp_path, target, pretrained)
    assert (tmp_path / "model.keras").stat().st_mtime_ns == stamp
    other = tuned(tmp_path, target, pretrained, rate=0.5)
    assert any(not np.array_equal(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_nothing_of_the_test_part_goes_into_the_head_the_scaling_or_the_weights(target, pretrained, first, tmp_path):
    store = target.store
    altered = tmp_path / "features" / store.folder.name
    shutil.copytree(store.folder, altered)
    features = np.load(altered / "features.npy")
    features[parts(target, "test")[0].row] = -7
    np.save(altered / "features.npy", features)
    stores._write_record(altered, store.config, store.classes, store.fingerprint)
    second = tuned(tmp_path / "run", target, pretrained, store=altered)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_features_of_other_settings_are_refused(target, pretrained, tmp_path, small):
    clips = small.clips
    config = FeatureConfig(n_mels=32, hop_length=1024, top_db=60.0)
    other = build_store(clips, config, root=tmp_path / "features", workers=1)
    with pytest.raises(StoreError, match="was trained on features of other settings"):
        train_model(
            tmp_path / "run", other.folder, small.split_path, TINY, SHORT, 0, None, finetune.Pretrained(pretrained)
        )


def test_a_network_that_learned_from_the_clips_in_question_is_a_leak(inputs, pretrained, tmp_path):
    with pytest.raises(LeakError, match="was trained on the clips it is to be tuned on"):
        finetune.tune(tmp_path, pretrained, inputs, SHORT, seeds=(0,), workers=1)


@pytest.fixture(scope="module")
def outcomes(target, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    return finetune.tune(folder, pretrained, target, SHORT, seeds=(0, 1), recipes=RECIPES, workers=1)


def test_each_recipe_and_the_network_from_scratch_answer_the_same_clips(outcomes, target):
    assert list(outcomes) == [transfer.SCRATCH, *RECIPES, finetune.CHOSEN]
    tested = sorted(parts(target, "test")[0].clip_id)
    for outcome in outcomes.values():
        assert outcome.predictions["clip_id"].tolist() == tested
        assert outcome.predictions["probabilities"].shape == (2, len(tested), 3)
    epochs = {len(learning_curves(outcome.flat)["x"]) for outcome in outcomes.values()}
    assert epochs == {SHORT.epochs}


def test_the_recipe_of_a_split_is_the_one_with_the_least_loss_on_its_validation_part(outcomes):
    losses = {
        name: np.mean([read_json(place / "metrics.json")["validation"]["log_loss"] for place in outcomes[name].flat])
        for name in RECIPES
    }
    best = min(losses, key=losses.__getitem__)
    assert finetune.chosen_recipes(outcomes, RECIPES) == [best]
    assert outcomes[finetune.CHOSEN].folders == outcomes[best].folders


def test_a_probe_answers_the_same_clips_and_all_are_compared_in_pairs(
    outcomes, target, clips, pretrained, tmp_path, monkeypatch
):
    monkeypatch.setattr(embeddings, "available", lambda: [])
    found = finetune.probes(tmp_path, pretrained, clips, target, seeds=(0, 1), root=tmp_path, workers=1)
    answers = {name: outcome.predictions for name, outcome in outcomes.items()} | found
    table = finetune.compare(answers, n_resamples=50, seed=0)
    assert table.index.to_list() == [
        (finetune.CHOSEN, transfer.SCRATCH), (finetune.CHOSEN, finetune.PROBE), (finetune.PROBE, transfer.SCRATCH)
    ]  # fmt: skip
    assert (table.p_holm >= table.p).all()
