"""Probes on embeddings, smaller draws of training clips, and fine-tuning of a network trained on another corpus."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import MinMaxScaler

from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import EvaluationError, StoreError
from instrlib.data.splits import UNUSED, Split, save_split
from instrlib.models import train, trained, transfer
from instrlib.models.layers import Layer

TINY = (Layer("conv", 6, 5, 4, norm=True), Layer("conv", 8, 3, norm=True), Layer("average"))
SHORT = TrainConfig(epochs=2, batch_size=8)
STILL = dataclasses.replace(SHORT, epochs=1, learning_rate=1e-9)


def planted(store, noise=0.1):
    """Return vectors that name the class of a clip, beside 20 numbers that say nothing, in another order of clips."""
    clips, rng = store.clips, np.random.default_rng(0)
    named = np.eye(len(store.classes))[clips.target] + noise * rng.normal(size=(len(clips), len(store.classes)))
    return clips.clip_id.to_numpy(str)[::-1], np.hstack([named, rng.normal(size=(len(clips), 20))])[::-1]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_probe_predicts_what_scikit_learns_regression_does(n_classes):
    x = np.random.default_rng(0).normal(2, 3, size=(90, 5))
    targets = x[:, :n_classes].argmax(axis=1)
    labels = np.eye(n_classes + 1)[targets]  # the last class is never seen
    probe = transfer.fit_probe(x[:60], labels[:60], x[60:], labels[60:])
    scaler = MinMaxScaler().fit(x[:60])
    tried = []
    for penalty in transfer.PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=5000, class_weight="balanced")
        tried.append(model.fit(scaler.transform(x[:60]), targets[:60]).predict_proba(scaler.transform(x[60:])))
    best = min(tried, key=lambda one: log_loss(targets[60:], one))
    np.testing.assert_allclose(probe.predict(x[60:]), np.pad(best, ((0, 0), (0, 1))), atol=1e-6)


def test_with_several_labels_each_class_is_learned_from_the_clips_in_which_it_was_observed():
    x = np.random.default_rng(0).normal(size=(80, 3))
    labels, hidden = (x > 0).astype(float), np.arange(80) % 3 == 0
    labels[hidden, 0] = np.nan
    labels[:, 1] = np.where(labels[:, 1] == 1, 1, np.nan)  # only ever observed present
    predicted = transfer.fit_probe(x, labels, x, labels, several=True).predict(x)
    scaler, seen = MinMaxScaler().fit(x), np.isfinite(labels[:, 0])
    model = LogisticRegression(C=max(transfer.PENALTIES), max_iter=5000)
    model.fit(scaler.transform(x)[seen], labels[seen, 0])
    np.testing.assert_allclose(predicted[:, 0], model.predict_proba(scaler.transform(x))[:, 1], atol=1e-6)
    n = np.isfinite(labels[:, 1]).sum()
    np.testing.assert_allclose(predicted[:, 1], (n + 1) / (n + 2))


def test_probes_predict_the_test_part_by_seed(small, tmp_path):
    kept = small.store.clips.groupby("label").clip_id.head(9)
    few = small.split.parts.where((small.split.parts != "train") | small.split.parts.index.isin(kept), UNUSED)
    save_split(Split(few, 0), tmp_path / "few.json")
    splits = [[small.split_path], [tmp_path / "few.json"]]
    tested = sorted(small.split.parts.index[small.split.parts == "test"])
    for noise, least, most in ((0.1, 0.95, 1.0), (100, 0.0, 0.75)):
        found = transfer.probe_predictions(planted(small.store, noise), small.store, splits)
        assert found["clip_id"].tolist() == tested and found["probabilities"].shape == (2, len(tested), 3)
        assert least <= (found["probabilities"][0].argmax(axis=-1) == found["targets"]).mean() <= most
        assert (found["probabilities"][0] != found["probabilities"][1]).any()


def test_a_probe_knows_nothing_of_the_test_clips_and_a_clip_without_a_finite_embedding_is_named(small):
    ids, x = planted(small.store)
    given = {"store": small.store, "splits": [[small.split_path]], "workers": 1}
    in_test = pd.Series(ids).map(small.split.parts).to_numpy() == "test"
    moved = np.where(in_test[:, None] & (ids != ids[in_test][0])[:, None], 1000 + x, x)
    one, other = (transfer.probe_predictions((ids, values), **given) for values in (x, moved))
    same = one["clip_id"] == ids[in_test][0]
    np.testing.assert_array_equal(one["probabilities"][0, same], other["probabilities"][0, same])
    assert (one["probabilities"][0, ~same] != other["probabilities"][0, ~same]).any()
    unknown = np.where(ids[:, None] == ids[3], np.nan, x)
    for vectors, named in (((ids[1:], x[1:]), ids[0]), ((ids, unknown), ids[3])):
        with pytest.raises(EvaluationError, match=named):
            transfer.probe_predictions(vectors, **given)


def test_predictions_of_several_labels_have_labels_and_thresholds_of_validation(small):
    labels = np.eye(3)[small.store.segments.target]
    labels[:, 1] = np.maximum(labels[:, 1], labels[:, 0])  # class 1 sounds wherever class 0 does
    words = ["".join("1" if one else "0" for one in row) for row in labels]
    several = dataclasses.replace(small.store, segments=small.store.segments.assign(labels=words))
    found = transfer.probe_predictions(planted(small.store), several, [[small.split_path]], workers=1)
    assert found["thresholds"].shape == found["probabilities"].shape == (1, *found["labels"].shape)
    assert ((found["probabilities"][0] >= found["thresholds"][0]) == (found["labels"] == 1)).mean() > 0.9


@pytest.fixture(scope="module")
def pretrained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    return train.train_model(folder, train.Variant("tiny", TINY, SHORT, small.store.folder), small.split_path, 0)


def tuned(folder, small, pretrained, *, config=SHORT, store=None, **settings):
    start = transfer.Pretrained(pretrained, **settings)
    variant = train.Variant("tiny", TINY, config, (store or small.store).folder, start=start)
    return train.train_model(folder, variant, small.split_path, 0)


def moved(before, after):
    """Return the largest change of the weights of each layer, by its name."""
    nets = [trained.load_model(one)[0].layers for one in (before, after)]
    return {
        layer.name: max(np.abs(a - b).max() for a, b in zip(layer.get_weights(), other.get_weights(), strict=True))
        for layer, other in list(zip(*nets, strict=True))[:-1]
        if layer.get_weights()
    }


def test_the_embedding_times_the_last_layer_gives_the_networks_mean_logits(pretrained, small, tmp_path):
    ids, vectors = transfer.embed_network(pretrained, small.store, root=tmp_path)
    assert list(ids) == sorted(small.store.clips.clip_id) and vectors.shape == (len(ids), 8)
    model, scaler = trained.load_model(pretrained)
    kernel, bias = model.layers[-1].get_weights()
    rows = small.store.segments.row[small.store.segments.clip_id == ids[40]]
    logits = np.log(model.predict_on_batch(small.store.read(rows, scaler))).mean(axis=0)
    found = vectors[40] @ kernel + bias
    np.testing.assert_allclose(found - found.mean(), logits - logits.mean(), atol=1e-3)
    with pytest.raises(StoreError):
        transfer.embed_network(pretrained, dataclasses.replace(small.store, config=FeatureConfig()), root=tmp_path)


def test_fine_tuning_begins_with_the_pretrained_body_and_predicts_as_the_probe(small, pretrained, tmp_path):
    still = tuned(tmp_path / "still", small, pretrained, config=STILL, frozen_norm=True)
    assert max(moved(pretrained, still).values()) < 1e-6
    store, parts = small.store, small.split.parts
    ids, x = transfer.embed_network(pretrained, store, root=tmp_path)
    clips = store.clips.set_index("clip_id").loc[ids].reset_index()
    labels, part = store.label_matrix(clips), clips.clip_id.map(parts)
    known, held_out = ((x[part == name], labels[part == name]) for name in ("train", "validation"))
    probe = transfer.fit_probe(*known, *held_out)
    answered = np.load(still / "validation.npz")["probabilities"]
    np.testing.assert_allclose(answered, probe.predict(held_out[0]), atol=1e-3)


def test_rows_move_less_the_further_from_the_scores_and_normalisation_unless_it_is_frozen(small, pretrained, tmp_path):
    assert transfer.Pretrained(pretrained, decay=0.1).rates == pytest.approx((1 / 300, 1 / 30, 1 / 3, 1 / 3))
    head = moved(pretrained, tuned(tmp_path / "head", small, pretrained, decay=0.0, frozen_norm=True))
    assert set(head.values()) == {0.0} and len(head) == 4
    norms = moved(pretrained, tuned(tmp_path / "norms", small, pretrained, decay=0.0))
    assert norms["conv1"] == norms["conv2"] == 0 and norms["norm1"] > 1e-3
    decayed = moved(pretrained, tuned(tmp_path / "decayed", small, pretrained, decay=0.1, frozen_norm=True))
    assert 0 < 5 * decayed["conv1"] < decayed["conv2"]


def test_nothing_of_the_test_part_is_read(small, pretrained, tmp_path):
    store, parts = small.store, small.split.parts
    shutil.copytree(store.folder, tmp_path / store.folder.name)
    altered = dataclasses.replace(store, folder=tmp_path / store.folder.name)
    features = store.features.copy()
    features[store.segments.row[store.segments.clip_id.map(parts) == "test"]] = -7
    features.tofile(altered.folder / "features.f16")
    (altered.folder / "store.json").touch()  # files newer than the record count as damaged
    first, second = (
        tuned(tmp_path / str(number), small, pretrained, store=one) for number, one in enumerate((store, altered))
    )
    for a, b in zip(*(trained.load_model(one)[0].get_weights() for one in (first, second)), strict=True):
        np.testing.assert_array_equal(a, b)
