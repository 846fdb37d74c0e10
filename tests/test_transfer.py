"""An embedding and a network from scratch get the same clips, choose on validation, and answer the same test part."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from trees import make_openmic2018

from instrlib import findings
from instrlib.core.config import PROFILES, FeatureConfig, TrainConfig
from instrlib.core.errors import EvaluationError, LeakError
from instrlib.data import corpora, rendered
from instrlib.data.inputs import Inputs
from instrlib.data.splits import load_split, make_split, save_splits
from instrlib.data.store import build_store, open_store
from instrlib.evaluation import statistics
from instrlib.models import embeddings, heads, transfer, variants, vectors
from instrlib.models.layers import Layer
from instrlib.models.trained import read_manifest

TINY = (Layer("conv", 4, 3, stride=4, norm=True), Layer("average"))
SHORT = TrainConfig(epochs=2, batch_size=8, patience=2)


@pytest.fixture(scope="module")
def inputs(small) -> Inputs:
    return Inputs(small.store, (small.split_path,), small.split.fingerprint)


def vectors_of(store, *, noise: float = 0.1, seed: int = 0) -> vectors.VectorStore:
    """Vectors that name the class of a clip, and 20 numbers that say nothing."""
    clips, rng = store.clips, np.random.default_rng(seed)
    named = np.eye(len(store.classes))[clips.target] + noise * rng.normal(size=(len(clips), len(store.classes)))
    return vectors.vector_store(
        store, clips.clip_id.to_numpy(str), np.hstack([named, rng.normal(size=(len(clips), 20))])
    )


def with_labels(store: vectors.VectorStore, labels: np.ndarray) -> vectors.VectorStore:
    words = np.select([labels == 1, labels == 0], ["1", "0"], "?")
    return dataclasses.replace(store, segments=store.segments.assign(labels=["".join(row) for row in words]))


def test_a_smaller_draw_lies_within_a_larger_one_and_takes_every_group_before_a_second_clip_of_any():
    groups = {"flute": "aaaaabbbc", "piano": "dddddddddd"}
    rows = [(label, group) for label, letters in groups.items() for group in letters]
    clips = pd.DataFrame(rows, columns=["label", "group"]).assign(clip_id=lambda table: table.index.astype(str))
    drawn = [transfer.draw(clips, size, seed=3) for size in (1, 2, 3, 5, 7, 100)]
    assert all(one < other for one, other in itertools.pairwise(drawn))
    of_flute = [clips[clips.clip_id.isin(kept) & (clips.label == "flute")].group.value_counts() for kept in drawn]
    assert [len(one) for one in of_flute] == [1, 2, 3, 3, 3, 3]
    assert of_flute[3].to_dict() == {"a": 2, "b": 2, "c": 1}
    assert of_flute[4].to_dict() == {"a": 3, "b": 3, "c": 1}
    of_piano = [(clips[clips.clip_id.isin(kept)].label == "piano").sum() for kept in drawn]
    assert of_piano == [1, 2, 3, 5, 7, 10]


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows(small):
    clips = small.store.clips
    assert transfer.draw(clips, 2, seed=0) == transfer.draw(clips.sample(frac=1, random_state=1), 2, seed=0)
    assert transfer.draw(clips, 2, seed=0) != transfer.draw(clips, 2, seed=1)


def test_sizes_grow_fourfold_up_to_three_quarters_of_a_class_and_end_with_all(inputs):
    counts = small_counts(inputs)
    sizes = transfer.sizes(inputs)
    assert sizes[-1] == counts.max() and sizes[:-1] == [4**power for power in range(len(sizes) - 1)]
    assert sizes[-2] <= 0.75 * counts.mean() < 4 * sizes[-2]
    assert transfer.clips_a_class(inputs, sizes) == dict(zip(sizes, [*sizes[:-1], counts.mean()], strict=True))


def small_counts(inputs):
    split = load_split(inputs.splits[0], inputs.store.segments)
    clips = inputs.store.clips
    return clips[clips.clip_id.map(split.parts) == "train"].label.value_counts()


def test_fewer_clips_get_as_many_steps_in_more_epochs_but_not_without_end():
    config = TrainConfig(epochs=10, patience=4, batch_size=16)
    assert transfer.scaled_epochs(config, 320, 320) == config
    more = transfer.scaled_epochs(config, 320, 32)
    assert (more.epochs, more.patience) == (100, 40)
    assert transfer.scaled_epochs(config, 128, 3).epochs == 80  # at least one step an epoch
    assert transfer.scaled_epochs(config, 160_000, 16).epochs == transfer.MAX_EPOCHS
    long = dataclasses.replace(config, epochs=2 * transfer.MAX_EPOCHS)
    assert transfer.scaled_epochs(long, 320, 32) == long


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Return 4 classes of 12 clips with their features and split, as notebook 01 would hand them on."""
    root = tmp_path_factory.mktemp("four")
    classes = ("flute", "piano", "drums", "violin")
    clips = rendered.load(root / "rendered", clips_per_class=12, classes=classes, workers=1)
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=2048), root=root / "features", workers=1)
    split = make_split(store.clips, seed=0)
    return root, clips, Inputs(store, tuple(save_splits([split], root / "splits")), split.fingerprint)


@pytest.fixture(scope="module")
def task(four):
    root, clips, inputs = four
    return transfer.prepare(clips, inputs, PROFILES["smoke"], folder=root / "run", root=root / "features", workers=1)


def test_on_rendered_itself_half_of_the_classes_is_never_heard_in_pretraining(task, four):
    _, clips, inputs = four
    source, target = task.source.store, task.target.store
    assert task.divided and task.clips.classes == target.classes
    assert source.classes == clips.classes[::2] and target.classes == clips.classes[1::2]
    assert not set(source.clips.group) & set(target.clips.group)
    assert set(source.clips.clip_id) | set(target.clips.clip_id) == set(inputs.store.clips.clip_id)
    whole = load_split(inputs.splits[0], inputs.store.segments).parts
    for part in (task.source, task.target):
        assert (load_split(part.splits[0], part.store.segments).parts == whole[part.store.clips.clip_id]).all()


def test_a_group_that_stands_in_both_halves_is_a_leak(four):
    root, clips, inputs = four
    torn = dataclasses.replace(clips, manifest=clips.manifest.assign(group="one room"))
    with pytest.raises(LeakError, match="'one room' holds clips of both halves"):
        transfer.prepare(torn, inputs, PROFILES["smoke"], folder=root, root=root, workers=1)


def test_for_any_other_corpus_all_of_rendered_is_the_source_and_its_own_clips_the_target(
    four, small, tmp_path, monkeypatch
):
    _, clips, inputs = four
    info = dataclasses.replace(clips.info, name="folder")
    monkeypatch.setattr(transfer.corpora, "load", lambda name, profile: {"rendered": small.clips}[name])
    made = transfer.prepare(
        dataclasses.replace(clips, info=info), inputs, PROFILES["smoke"], folder=tmp_path, root=tmp_path, workers=1
    )
    assert not made.divided and made.target is inputs
    assert made.source.store.classes == small.clips.classes
    assert made.source.store.config == inputs.store.config


@pytest.fixture(scope="module")
def pretrained(task, four):
    return transfer.pretrain(four[0] / "run" / "pretrained", task.source, SHORT, spec="small")


def test_our_own_embedding_goes_from_the_source_to_the_target(task, pretrained, four, monkeypatch):
    monkeypatch.setattr(embeddings, "available", lambda: [])
    root = four[0]
    assert read_manifest(pretrained)["store"] == task.source.store.fingerprint
    assert not (pretrained / "predictions.npz").exists()  # the source's test part is not read
    embedded = transfer.embed(task, pretrained, root=root / "features", workers=1)
    assert list(embedded) == [transfer.STATISTICS, transfer.OWN]
    own = embedded[transfer.OWN]
    assert own.vectors.shape == (24, 48) and own.segments.clip_id.is_unique
    assert own.fingerprint != embedded[transfer.STATISTICS].fingerprint


def test_a_clip_without_an_embedding_or_with_a_broken_one_is_named(small):
    clip_id = small.store.clips.clip_id.to_numpy(str)
    with pytest.raises(EvaluationError, match=f"{clip_id[0]}' has no embedding"):
        vectors.vector_store(small.store, clip_id[1:], np.ones((len(clip_id) - 1, 2)))
    broken = np.ones((len(clip_id), 2))
    broken[3, 1] = np.nan
    with pytest.raises(EvaluationError, match=f"{clip_id[3]}' is not finite"):
        vectors.vector_store(small.store, clip_id, broken)


def test_vectors_are_put_to_their_clips_whatever_their_order(small):
    clips = small.store.clips
    turned = clips.clip_id.to_numpy(str)[::-1]
    store = vectors.vector_store(small.store, turned, np.arange(len(clips))[::-1, None])
    np.testing.assert_array_equal(store.read(store.segments.row)[:, 0], np.arange(len(clips)))


def test_the_scaling_to_0_and_1_is_fitted_on_the_training_clips_alone(small, tmp_path):
    store = vectors_of(small.store)
    parts = store.segments.clip_id.map(small.split.parts).to_numpy()
    scaled = vectors.MinMax.fit(store.vectors[parts == "train"]).scale(store.vectors)
    assert scaled[parts == "train"].min() == 0 and scaled[parts == "train"].max() == pytest.approx(1)
    assert scaled[parts == "test"].min() < 0 or scaled[parts == "test"].max() > 1
    # Whatever the test clips are, the head is the same.
    moved = np.where((parts == "test")[:, None], 1000 + store.vectors, store.vectors)
    for name, rows in (("as it is", store.vectors), ("moved", moved)):
        one = vectors.vector_store(small.store, store.segments.clip_id.to_numpy(str), rows)
        transfer._answer_head(tmp_path / name, one, small.split_path, heads.LOGISTIC, 4, 0)
    made = [json.loads((tmp_path / name / "head.json").read_text()) for name in ("as it is", "moved")]
    assert made[0]["validation_loss"] == made[1]["validation_loss"] and made[0]["chosen"] == made[1]["chosen"]


def test_a_head_finds_what_the_vectors_say_and_nothing_where_they_say_nothing(inputs, tmp_path):
    head = heads.LOGISTIC
    clear, blind = vectors_of(inputs.store), vectors_of(inputs.store, noise=100.0)
    sizes = transfer.sizes(inputs)[-1:]
    answers = transfer.answer_heads(
        tmp_path, inputs, {"clear": clear, "blind": blind}, head=head, sizes=sizes, seeds=(0,), workers=1
    )
    reached = {
        name: (found[sizes[0]]["probabilities"].argmax(axis=-1) == found[sizes[0]]["targets"]).mean()
        for name, found in answers.items()
    }
    assert reached["clear"] > 0.95 and reached["blind"] < 0.75
    described = transfer.describe_heads(tmp_path, inputs, list(answers), head=head, sizes=sizes, seeds=(0,))
    assert described.training_clips.tolist() == [small_counts(inputs).sum()] * 2
    assert described.set_index("model").validation_loss["clear"] < described.set_index("model").validation_loss["blind"]


def test_the_dense_layers_of_openmic_vggish_find_it_too_and_say_their_best_epoch():
    rng = np.random.default_rng(0)
    targets = np.arange(60) % 3
    x = (np.eye(3)[targets] + 0.1 * rng.normal(size=(60, 3))).astype(np.float32)
    known, held_out = ((x[part], np.eye(3)[targets[part]]) for part in (slice(30), slice(30, 60)))
    predict, epoch = heads._fit_network(*known, *held_out, several=False, seed=0)
    answers = predict(held_out[0])
    assert (answers.argmax(axis=1) == targets[30:]).mean() > 0.9
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    assert 1 <= epoch <= 40


def test_heads_that_were_fitted_are_kept_and_another_embedding_is_not_taken_for_them(inputs, tmp_path):
    given = {"head": heads.LOGISTIC, "sizes": [2], "seeds": (0,), "workers": 1}
    first = transfer.answer_heads(tmp_path, inputs, {"a": vectors_of(inputs.store)}, **given)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    again = transfer.answer_heads(tmp_path, inputs, {"a": vectors_of(inputs.store)}, **given)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    np.testing.assert_array_equal(first["a"][2]["probabilities"], again["a"][2]["probabilities"])
    other = transfer.answer_heads(tmp_path, inputs, {"a": vectors_of(inputs.store, seed=1)}, **given)
    assert not np.array_equal(first["a"][2]["probabilities"], other["a"][2]["probabilities"])


@pytest.fixture(scope="module")
def curve(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    sizes = [1, transfer.sizes(inputs)[-1]]
    answers = {
        transfer.SCRATCH: transfer.train_from_scratch(folder, inputs, TINY, SHORT, sizes=sizes, seeds=(0, 1), workers=1)
    }
    answers |= transfer.answer_heads(
        folder,
        inputs,
        {"planted": vectors_of(inputs.store)},
        head=heads.LOGISTIC,
        sizes=sizes,
        seeds=(0, 1),
        workers=1,
    )
    return folder, sizes, answers


def test_the_network_from_scratch_learns_from_the_clips_drawn_and_from_no_others(inputs, curve, small):
    folder, sizes, _ = curve
    place = variants.run_folder(folder, f"{transfer.SCRATCH} 1", fold=0, seed=1)
    name = read_manifest(place)["store"]
    fewer = open_store(small.store.folder.with_name(name))
    split = json.loads(place.with_name("seed-1.split.json").read_text())["parts"]
    kept = small.split.parts
    train = small.store.clips[small.store.clips.clip_id.map(kept) == "train"]
    assert {clip for clip, part in split.items() if part == "train"} == transfer.draw(train, 1, seed=1)
    assert {clip: part for clip, part in split.items() if part != "train"} == kept[kept != "train"].to_dict()
    assert set(fewer.segments.clip_id) == set(split)
    whole = variants.run_folder(folder, f"{transfer.SCRATCH} {sizes[-1]}", fold=0, seed=1)
    assert read_manifest(whole)["store"] == small.store.fingerprint
    epochs = [len(pd.read_csv(one / "history.csv")) for one in (place, whole)]
    assert epochs[0] > epochs[1]


def test_all_models_are_tested_on_the_same_clips_at_every_size(curve, small):
    _, sizes, answers = curve
    tested = sorted(small.split.parts.index[small.split.parts == "test"])
    for by_size in answers.values():
        assert list(by_size) == sizes
        for answer in by_size.values():
            assert answer["clip_id"].tolist() == tested and answer["probabilities"].shape == (2, len(tested), 3)


def test_every_size_is_compared_and_corrected_for_the_number_of_all(curve):
    _, sizes, answers = curve
    table = transfer.main_curve(answers, transfer.curve(answers, n_resamples=50, seed=0))
    assert table[["model", "size"]].drop_duplicates().shape == (4, 2) and len(table) == 4
    compared = transfer.against_scratch(answers, n_resamples=50, seed=0)
    assert compared["size"].tolist() == sizes and (compared.model == "planted").all()
    reached = table.set_index(["model", "size"]).estimate
    for row in compared.itertuples():
        assert row.difference == pytest.approx(reached["planted", row.size] - reached[transfer.SCRATCH, row.size])
    assert (compared.p_holm >= compared.p).all() and (compared.p_holm > compared.p).any()
    assert reached["planted", sizes[-1]] == 1 and compared.difference.iloc[-1] > 0


def test_a_head_for_several_labels_learns_each_class_from_the_clips_in_which_it_was_observed(small):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    labels = (x > 0).astype(np.float32)
    wrong = np.arange(80) % 3 == 0
    labels[wrong, 0] = np.nan
    predict = heads._each_class(x, labels, 100.0)
    filled = labels.copy()
    filled[wrong, 0] = 1 - (x[wrong, 0] > 0)  # what nobody observed would have misled it
    assert ((predict(x)[:, 0] > 0.5) == (x[:, 0] > 0)).mean() > 0.95
    assert ((heads._each_class(x, filled, 100.0)(x)[:, 0] > 0.5) == (x[:, 0] > 0)).mean() < 0.9
    alone = labels.copy()
    alone[:, 1] = np.where(alone[:, 1] == 1, 1, np.nan)  # only ever observed present
    n = int((alone[:, 1] == 1).sum())
    np.testing.assert_allclose(heads._each_class(x, alone, 1.0)(x)[:, 1], (n + 1) / (n + 2))


@pytest.mark.parametrize("head", [heads.LOGISTIC, heads.NETWORK_HEAD])
def test_predictions_of_several_labels_carry_the_labels_and_thresholds_from_validation(small, inputs, tmp_path, head):
    store = vectors_of(small.store)
    labels = np.eye(3, dtype=np.float32)[store.segments.target]
    labels[:, 1] = np.maximum(labels[:, 1], labels[:, 0])  # class 1 sounds wherever class 0 does
    labels[::7, 2] = np.nan
    several = with_labels(store, labels)
    found = transfer._answer_head(tmp_path, several, small.split_path, head, 99, 0)
    test = several.segments[several.segments.clip_id.map(small.split.parts) == "test"].sort_values("clip_id")
    np.testing.assert_array_equal(found["labels"], several.label_matrix(test))
    assert found["thresholds"].shape == (3,)
    observed = np.isfinite(found["labels"])
    right = ((found["probabilities"] >= found["thresholds"]) == (found["labels"] == 1))[observed]
    assert right.mean() > 0.9
    assert transfer.sizes(dataclasses.replace(inputs, store=several)) == [small_counts(inputs).max()]


def test_the_loss_of_several_labels_counts_the_observed_ones_alone():
    labels, answers = np.array([[1, np.nan], [0, 1]]), np.array([[0.8, 0.01], [0.4, 0.5]])
    expected = -np.mean(np.log([0.8, 0.6, 0.5]))
    assert heads.head_loss(labels, answers, several=True) == pytest.approx(expected)


def test_the_loss_of_one_label_weighs_every_class_alike():
    answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    found = heads.head_loss(np.eye(2)[[0, 0, 0, 1]], answers, several=False)
    assert found == pytest.approx(-(np.log(0.9) + np.log(0.4)) / 2)


def compared(*rows: tuple[str, int, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["model", "size", "difference", "p_holm"])
    return table.assign(low=table.difference - 0.1, high=table.difference + 0.1, p=table.p_holm / 2)


def test_the_sentence_says_up_to_how_many_clips_an_embedding_is_shown_to_help():
    rows = [("a", 1, 0.3, 0.01), ("a", 2, 0.2, 0.02), ("a", 13, 0.05, 0.6), ("b", 1, 0.3, 0.01), ("b", 13, 0.2, 0.01)]
    rows += [("c", 1, 0.1, 0.3), ("c", 13, -0.4, 0.01)]
    first, second, third = findings.embedding_sentences(compared(*rows), {1: 1.0, 2: 2.0, 13: 12.6})
    assert "“a” is shown to be better with 1 and 2 training clips a class; from 12.6 on it is no longer shown" in first
    assert "Holm's correction for 7 comparisons: 1: +0.300 [+0.200, +0.400], p = 0.010; 2: " in first
    assert "with all clips the network from scratch has not caught up" in second
    assert "“c” is shown to be worse with 12.6 training clips a class (" in third
    (nothing,) = findings.embedding_sentences(compared(("a", 1, 0.1, 0.2)), {1: 1.0})
    assert "“a” is not shown to differ with any number of training clips" in nothing


def test_the_mark_is_compared_with_what_was_trained_here_and_with_nothing_else():
    rng = np.random.default_rng(0)
    targets = np.arange(60) % 3
    clips = {"clip_id": np.arange(60).astype(str), "group": np.arange(60).astype(str), "targets": targets}

    def reaching(share: float) -> dict:
        right = np.eye(3)[np.where(rng.random(60) < share, targets, (targets + 1) % 3)]
        return clips | {"probabilities": np.stack([right, right])}

    own, other = f"{transfer.OWN}, {heads.LOGISTIC}", "vggish, a head"
    answers = {"compact CNN": reaching(0.3), own: reaching(0.6), transfer.MARK: reaching(1), other: reaching(0.5)}
    table = transfer.against_mark(answers, [transfer.OWN, "yamnet", "vggish"], n_resamples=100, seed=0)
    assert table.index.tolist() == ["compact CNN", own] and (table.difference < 0).all()
    scores = statistics.score_table(answers, n_resamples=50, seed=0)
    sentence = findings.mark_sentence(scores[scores.score == "accuracy"], table, transfer.MARK)
    assert f"“{transfer.MARK}”, the mark, reaches 1.000" in sentence
    assert f"“{own}” comes nearest" in sentence and "shown to be worse" in sentence and "better" not in sentence
    del answers[transfer.MARK]
    absent = transfer.against_mark(answers, [transfer.OWN], n_resamples=100, seed=0)
    assert absent.empty and "is not at hand" in findings.mark_sentence(scores, absent, transfer.MARK)


def test_openmic_brings_its_own_vggish_features_and_its_heads_answer_with_several_labels(
    pretrained, task, tmp_path, monkeypatch
):
    monkeypatch.setattr(embeddings, "available", lambda: [])
    make_openmic2018(tmp_path / "openmic", artists=8, clips=1)
    clips = corpora.read("openmic2018", tmp_path / "openmic")
    store = build_store(clips, task.source.store.config, root=tmp_path / "features", workers=1)
    split = make_split(store.clips, seed=0)
    inputs = Inputs(store, tuple(save_splits([split], tmp_path / "splits")), split.fingerprint)
    moved = transfer.Task(task.source, inputs, clips, False)
    embedded = transfer.embed(moved, pretrained, root=tmp_path / "features", workers=1)
    assert embedded[transfer.STORED].vectors.shape == (len(store.clips), 128)
    sizes = transfer.sizes(inputs)
    assert len(sizes) == 1
    answers = transfer.answer_heads(
        tmp_path / "heads", inputs, embedded, head=heads.LOGISTIC, sizes=sizes, seeds=(0,), workers=1
    )
    table = transfer.curve(answers, n_resamples=20, seed=0)
    reached = transfer.main_curve(answers, table).set_index("model")
    assert set(reached.index) == {transfer.STATISTICS, transfer.OWN, transfer.STORED}
    assert "mean_average_precision" in set(table.score) and reached.estimate[transfer.STATISTICS] > 0.5
