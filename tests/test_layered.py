"""Networks are trained on layers and answer mixtures, or real recordings, that they cannot have been trained on."""

import dataclasses

import numpy as np
import pytest
from trees import make_irmas

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.errors import LeakError, RunError
from instrlib.data import corpora, irmas
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split, make_split, save_split
from instrlib.data.store import build_store
from instrlib.models.layers import Layer
from instrlib.studies import layered, mixing

TINY = Layer("conv", 4, 3, stride=2, norm=True), Layer("average")


@pytest.fixture(scope="module")
def mixed(small, mixtures, tmp_path_factory):
    return build_store(mixtures.corpus, small.store.config, root=tmp_path_factory.mktemp("mixed"), workers=1)


@pytest.fixture(scope="module")
def networks(inputs, tmp_path_factory):
    config = TrainConfig(
        epochs=1, output="sigmoid", class_weights=False, augment=AugmentConfig(mix="layers", layers=(1, 3))
    )
    folder = tmp_path_factory.mktemp("networks")
    return layered.train(folder, "tiny", TINY, config, inputs=inputs, seeds=(0, 1), workers=1)


def test_a_network_answers_every_mixture_in_the_order_of_the_manifest(inputs, networks, mixtures, mixed, tmp_path):
    answers = layered.answer(tmp_path, networks, inputs, mixtures, mixed, workers=1)
    assert answers.shape == (2, len(mixtures.corpus.manifest), 3)
    assert ((answers >= 0) & (answers <= 1)).all() and not np.array_equal(answers[0], answers[1])
    again = layered.answer(tmp_path, networks, inputs, mixtures, mixed, workers=1)
    np.testing.assert_array_equal(answers, again)


def test_a_mixture_with_a_source_that_may_have_been_trained_on_is_refused(
    small, inputs, networks, mixtures, mixed, tmp_path
):
    trained_on = small.split.parts.index[small.split.parts == "train"][0]
    sources = mixtures.sources.copy()
    sources.loc[len(sources) - 1, "clip_id"] = trained_on
    leaking = dataclasses.replace(mixtures, sources=sources)
    with pytest.raises(LeakError, match="stands in the part 'train'"):
        layered.answer(tmp_path, networks, inputs, leaking, mixed, workers=1)


def test_a_network_of_another_split_does_not_answer(small, inputs, networks, mixtures, mixed, tmp_path):
    save_split(make_split(small.store.clips, seed=1), tmp_path / "split.json")
    other = dataclasses.replace(inputs, splits=(tmp_path / "split.json",))
    assert load_split(tmp_path / "split.json", small.store.segments).fingerprint != small.split.fingerprint
    with pytest.raises(RunError, match="was trained with the split"):
        layered.answer(tmp_path, networks, other, mixtures, mixed, workers=1)


def test_a_corpus_without_recordings_of_several_instruments_says_so(small):
    found, sentence = layered.polyphonic("rendered", "", small.clips.classes)
    assert found is None and "brings no recordings of several instruments" in sentence


def test_recordings_of_several_instruments_that_are_not_on_disk_are_told_not_feared(tmp_path):
    found, sentence = layered.polyphonic("irmas", str(tmp_path), ("cello", "flute"))
    assert found is None and "cannot be used here" in sentence


def test_real_recordings_are_answered_with_the_thresholds_of_the_mixtures_in_the_order_of_the_networks(
    tmp_path_factory,
):
    root = tmp_path_factory.mktemp("irmas")
    make_irmas(root)
    clips = corpora.read("irmas", root)
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=1024), root=root / "features", workers=1)
    split = make_split(store.clips, seed=0)
    save_split(split, root / "split.json")
    inputs = Inputs(store, (root / "split.json",), split.fingerprint)
    settings = mixing.settings(store)
    plan = mixing.draw_study(inputs, 8, config=settings, seed=0)
    mixtures = mixing.render(plan, clips, config=settings, root=root / "mixtures", workers=1)
    mixed = build_store(mixtures.corpus, store.config, root=root / "features", workers=1)
    config = TrainConfig(epochs=1, output="sigmoid", class_weights=False, augment=AugmentConfig(mix="layers"))
    networks = {"tiny": layered.train(root / "runs", "tiny", TINY, config, inputs=inputs, seeds=(0,), workers=1)}
    heard = {"tiny": layered.answer(root / "answers", networks["tiny"], inputs, mixtures, mixed, workers=1)}

    found, sentence = layered.polyphonic("irmas", str(root), store.classes)
    assert found.classes == store.classes and f"brings {len(found.manifest)} recordings" in sentence
    own = irmas.load_test(root)
    for name in store.classes:
        present = dict(zip(own.manifest.clip_id, own.labels[:, own.classes.index(name)], strict=True))
        ordered = found.labels[:, found.classes.index(name)]
        assert ordered.tolist() == [present[clip_id] for clip_id in found.manifest.clip_id]
    table = layered.score_polyphonic(root, networks, heard, mixtures, inputs, found, root=root / "features")
    assert set(table.model) == {"tiny", "all present", "none present"} and table.estimate.between(0, 1).all()
    ours = table[table.score == "hamming_loss"].set_index("model").estimate
    assert ours["all present"] + ours["none present"] == pytest.approx(1)
    assert layered.score_polyphonic(root, networks, heard, mixtures, inputs, None, root=root).empty
