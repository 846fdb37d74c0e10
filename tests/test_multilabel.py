"""Several labels a clip: what was not observed never counts, from the store to the scores."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib import findings, plots
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError, CorpusError, EvaluationError, SplitError
from instrlib.core.io import read_arrays, read_json
from instrlib.data.base import Corpus, CorpusInfo, problem_table, strata
from instrlib.data.splits import Split, make_split, save_split
from instrlib.data.store import build_store, derive_store, open_store
from instrlib.evaluation import baselines
from instrlib.evaluation.intervals import bootstrap_groups, label_class_intervals, label_differences, label_intervals
from instrlib.evaluation.multilabel import (
    LABEL_SCORES,
    best_thresholds,
    class_sizes,
    decisions,
    label_reliability,
    label_scores,
    per_label,
)
from instrlib.models import evaluation, experiments, training
from instrlib.models import layers as models
from instrlib.models.layers import Layer

CLASSES = ("drone", "whistle", "hiss")
INFO = CorpusInfo("tones", "Tones", "none", "none", "", "none", "Made here.", multilabel=True)
FEATURES = FeatureConfig(sample_rate_hz=8000, segment_s=1.0, segment_hop_s=1.0, n_fft=512, n_mels=24, fmax_hz=4000.0)
CONFIG = TrainConfig(epochs=10, batch_size=8, learning_rate=1e-2, output="sigmoid")
TINY = (Layer("conv", 16, 3, 2, 2, norm=True), Layer("conv", 16, 3, 1, 1, norm=True), Layer("average"))


def sounds(rng: np.random.Generator) -> np.ndarray:
    """One second of each class [3, 8000], all as loud, at a pitch of its own."""
    time_s = np.arange(8000) / 8000
    drone = np.sin(2 * np.pi * rng.uniform(100, 200) * time_s)
    whistle = np.sin(2 * np.pi * rng.uniform(900, 1500) * time_s)
    hiss = np.diff(rng.normal(size=8001))
    return np.stack([one / np.sqrt(np.mean(one**2)) for one in (drone, whistle, hiss)])


def make_tones(root: Path, *, n_groups: int = 24, hidden: float = 0.3) -> Corpus:
    """Two clips a group; each class is present in about half of them, and a share of the labels is hidden."""
    import soundfile

    rng = np.random.default_rng(7)
    rows, labels = [], []
    for number in range(2 * n_groups):
        present = rng.random(3) < 0.5
        present[number % 3] |= not present.any()
        name = f"clip{number:03d}"
        signal = present @ sounds(rng) + rng.normal(size=8000) * 0.01
        soundfile.write(root / f"{name}.wav", 0.1 * signal / np.abs(signal).max(), 8000)
        known = rng.random(3) >= hidden
        known[number % 3] |= not known.any()
        labels.append(np.where(known, present, np.nan))
        rows.append((name, f"{name}.wav", 0.0, 1.0, f"group{number // 2:02d}", ""))
    labels = np.array(labels, dtype=np.float32)
    manifest = pd.DataFrame(rows, columns=["clip_id", "path", "start_s", "duration_s", "group", "split"])
    manifest.insert(4, "label", strata(labels, CLASSES))
    return Corpus(INFO, root, manifest, CLASSES, problem_table([]), labels)


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Corpus:
    return make_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def store(tones, tmp_path_factory):
    return build_store(tones, FEATURES, root=tmp_path_factory.mktemp("features"), workers=1)


@pytest.fixture(scope="module")
def split_path(store, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.json"
    save_split(make_split(store.clips, seed=0), path)
    return path


@pytest.fixture(scope="module")
def folders(store, split_path, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("trained")
    made = [
        training.train_model(root / f"seed-{seed}", store.folder, split_path, TINY, CONFIG, seed) for seed in (0, 1)
    ]
    mixed = dataclasses.replace(CONFIG, epochs=2, augment=AugmentConfig(mix="cutmix"))
    return [*made, training.train_model(root / "mixed", store.folder, split_path, TINY, mixed, 0)]


@pytest.fixture(scope="module")
def test_part(folders, store, split_path):
    return evaluation.join_seeds([[evaluation.read_test(one, store.folder, split_path)] for one in folders[:2]])


def made_answers(*, n_clips: int = 60, n_classes: int = 4, seed: int = 0):
    """Labels, some of them hidden, and answers that know something of them; rounded, so that some are tied."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, n_classes)) < np.linspace(0.2, 0.7, n_classes)).astype(float)
    answers = np.clip(labels * 0.3 + rng.random((n_clips, n_classes)) * 0.7, 0, 1).round(1)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return labels, answers


# Scores


def test_every_score_is_scikit_learns_class_by_class_on_the_observed_clips():
    from sklearn import metrics as reference

    labels, answers = made_answers()
    thresholds = np.array([0.3, 0.4, 0.5, 0.6])
    table = per_label(labels, answers, tuple("abcd"), thresholds)
    for number, name in enumerate("abcd"):
        seen = np.isfinite(labels[:, number])
        true, given = labels[seen, number].astype(int), answers[seen, number]
        decided = given >= thresholds[number]
        expected = {
            "average_precision": reference.average_precision_score(true, given),
            "roc_auc": reference.roc_auc_score(true, given),
            "precision": reference.precision_score(true, decided),
            "recall": reference.recall_score(true, decided),
            "f1": reference.f1_score(true, decided),
            "support": true.sum(),
            "observed": seen.sum(),
        }
        assert table.loc[name].to_dict() == pytest.approx(expected)
    found = label_scores(labels, answers, thresholds)
    observed = np.isfinite(labels)
    true, given, decided = labels[observed], answers[observed], (answers >= thresholds)[observed]
    assert tuple(found) == LABEL_SCORES
    assert found["mean_average_precision"] == pytest.approx(table.average_precision.mean())
    assert found["roc_auc"] == pytest.approx(table.roc_auc.mean())
    assert found["macro_f1"] == pytest.approx(table.f1.mean())
    assert found["micro_f1"] == pytest.approx(reference.f1_score(true, decided))
    assert found["hamming_loss"] == pytest.approx(reference.hamming_loss(true, decided))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(true, given))
    assert found["log_loss"] == pytest.approx(reference.log_loss(true, np.clip(given, 1.2e-7, 1)), abs=1e-6)


def test_where_all_is_observed_the_scores_are_scikit_learns_for_the_whole_matrix():
    from sklearn import metrics as reference

    labels, answers = np.nan_to_num(made_answers(seed=1)[0]), made_answers(seed=1)[1]
    found = label_scores(labels, answers)
    assert found["mean_average_precision"] == pytest.approx(reference.average_precision_score(labels, answers))
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(labels, answers))
    decided = answers >= 0.5
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, decided, average="macro"))
    assert found["micro_f1"] == pytest.approx(reference.f1_score(labels, decided, average="micro"))
    assert found["hamming_loss"] == pytest.approx(reference.hamming_loss(labels, decided))


def test_what_was_not_observed_changes_no_score():
    labels, answers = made_answers()
    other = np.where(np.isnan(labels), 1 - answers, answers)
    assert label_scores(labels, other) == label_scores(labels, answers)
    pd.testing.assert_frame_equal(per_label(labels, other, tuple("abcd")), per_label(labels, answers, tuple("abcd")))
    np.testing.assert_array_equal(best_thresholds(labels, other)[0], best_thresholds(labels, answers)[0])


def test_a_class_with_one_kind_of_label_is_left_out_of_the_means_and_is_nan_in_the_table():
    labels, answers = made_answers()
    always = np.where(np.isnan(labels[:, :1]), np.nan, 1.0)
    wider = label_scores(np.hstack([labels, always]), np.hstack([answers, answers[:, :1]]))
    alone = label_scores(labels, answers)
    for name in ("mean_average_precision", "macro_f1", "roc_auc"):
        assert wider[name] == pytest.approx(alone[name])
    assert np.isnan(per_label(always, answers[:, :1], ("always",)).f1["always"])
    assert np.isnan(label_scores(always, answers[:, :1])["mean_average_precision"])


def test_calibration_is_judged_on_the_observed_labels():
    labels = np.array([[1, 0], [1, np.nan], [0, 1], [1, np.nan]], dtype=float)
    answers = np.array([[0.75, 0.25], [0.75, 0.9], [0.75, 0.25], [0.75, 0.9]])
    bins = label_reliability(labels, answers, n_bins=2)
    np.testing.assert_allclose(bins["accuracy"], [0.5, 0.75])
    np.testing.assert_allclose(bins["share"], [2 / 6, 4 / 6])
    assert float(bins["ece"]) == pytest.approx(0.25 * 2 / 6)
    assert label_scores(labels, answers)["expected_calibration_error"] == pytest.approx(0.25 * 2 / 6)


@pytest.mark.parametrize(
    ("labels", "answers", "words"),
    [
        ([[1, 0]], [[0.5, 0.5], [0.5, 0.5]], "One row of labels"),
        ([[np.nan, np.nan]], [[0.5, 0.5]], "some observed"),
        ([[2, 0]], [[0.5, 0.5]], "1 .present., 0 .absent. or NaN"),
        ([[1, 0]], [[np.nan, 0.5]], "diverged"),
        ([[1, 0]], [[1.5, 0.5]], "1 of 1 clips have no valid probabilities"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused(labels, answers, words):
    with pytest.raises(EvaluationError, match=words):
        label_scores(np.array(labels, dtype=float), np.array(answers))


# Thresholds


def test_a_clip_counts_for_every_class_that_is_present_in_it():
    clips = pd.DataFrame({"label": ["drone", "hiss", "hiss"], "group": ["a", "a", "b"]})
    labels = np.array([[1, 0, np.nan], [1, 1, 1], [np.nan, 0, 1]])
    assert class_sizes(clips, CLASSES, labels).to_numpy().tolist() == [[2, 1], [1, 1], [2, 2]]
    assert class_sizes(clips, CLASSES).to_numpy().tolist() == [[1, 1], [0, 0], [2, 2]]


def test_the_threshold_of_a_class_has_the_best_f1_that_any_has():
    labels, answers = made_answers(seed=3)
    thresholds, unknown = best_thresholds(labels, answers)
    assert unknown.size == 0
    best = per_label(labels, answers, tuple("abcd"), thresholds).f1
    for value in np.linspace(0, 1, 101):
        assert (per_label(labels, answers, tuple("abcd"), value).f1 <= best + 1e-12).all()


def test_a_class_that_validation_does_not_show_both_ways_keeps_one_half():
    labels, answers = made_answers(seed=3)
    labels[:, 1] = np.where(labels[:, 1] == 1, np.nan, labels[:, 1])
    labels[:, 2] = np.where(labels[:, 2] == 0, np.nan, labels[:, 2])
    thresholds, unknown = best_thresholds(labels, answers)
    assert unknown.tolist() == [1, 2] and thresholds[[1, 2]].tolist() == [0.5, 0.5]


def test_thresholds_hold_for_a_class_a_seed_or_a_clip():
    answers = np.full((2, 3, 2), 0.5)
    assert decisions(answers, np.array([0.4, 0.6])).all(axis=(0, 1)).tolist() == [True, False]
    assert decisions(answers, np.array([[0.4, 0.6], [0.6, 0.4]]))[:, 0].tolist() == [[True, False], [False, True]]
    of_clip = np.broadcast_to(np.array([0.4, 0.6, 0.4])[:, None], answers.shape)
    assert decisions(answers, of_clip)[0, :, 0].tolist() == [True, False, True]
    with pytest.raises(EvaluationError, match="do not fit"):
        decisions(answers, np.zeros(3))


# Intervals


def test_the_bootstrap_is_the_plain_one_done_at_once():
    labels, answers = made_answers()
    groups, thresholds = np.repeat(np.arange(20), 3), np.array([0.3, 0.4, 0.5, 0.6])
    table = label_intervals(labels, answers, groups, thresholds, n_resamples=60, seed=5)
    for name in LABEL_SCORES:
        plain = bootstrap_groups(
            lambda rows, name=name: label_scores(labels[rows], answers[rows], thresholds)[name],
            groups,
            n_resamples=60,
            seed=5,
        )
        assert table.loc[name].tolist() == pytest.approx([plain.estimate, plain.low, plain.high])


def test_intervals_of_classes_need_two_groups_and_cover_the_estimate():
    labels, answers = made_answers()
    groups = np.repeat(np.arange(20), 3)
    labels[:, 3] = np.where(groups == 4, 1.0, 0.0)
    table = label_class_intervals(labels, answers[None], groups, tuple("abcd"), n_resamples=200, seed=0)
    expected = per_label(labels, answers, tuple("abcd"))
    np.testing.assert_allclose(table[list(expected)], expected)
    assert table.n_groups["d"] == 1 and np.isnan(table.f1_low["d"])
    for name in ("average_precision", "f1"):
        assert ((table[f"{name}_low"] <= table[name]) & (table[name] <= table[f"{name}_high"])).iloc[:3].all()


def test_a_model_does_not_differ_from_itself_and_an_oracle_beats_it():
    labels, answers = made_answers()
    groups = np.repeat(np.arange(20), 3)
    model = np.stack([answers, answers[::-1]])
    same = label_differences(labels, (model, 0.5), (model, 0.5), groups, n_resamples=100, seed=0)
    assert all(one.estimate == 0 and one.p == 1 for one in same.values())
    oracle = np.nan_to_num(labels, nan=0.5)
    better = label_differences(labels, (oracle, 0.5), (model, 0.5), groups, n_resamples=100, seed=0)
    assert better["mean_average_precision"].low > 0 > better["hamming_loss"].high


# Store


def test_the_store_keeps_the_labels_and_a_derived_one_too(tones, store):
    opened = open_store(store.folder)
    assert opened.multilabel and opened.segments.labels.str.fullmatch("[01?]{3}").all()
    np.testing.assert_array_equal(opened.label_matrix(opened.segments), tones.labels)
    order = opened.clips.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(opened.label_matrix(order), tones.labels[order.index])
    derived = derive_store(opened, lambda table: table.assign(group=table.clip_id), mark="alone")
    np.testing.assert_array_equal(derived.label_matrix(derived.segments), tones.labels)


def test_with_one_label_a_clip_the_matrix_has_a_one_in_each_row(small):
    assert not small.store.multilabel and "labels" not in small.store.clips
    matrix = small.store.label_matrix(small.store.segments)
    assert (matrix.sum(axis=1) == 1).all() and (matrix.argmax(axis=1) == small.store.segments.target).all()


def test_other_labels_are_another_store(tones):
    changed = tones.labels.copy()
    row = int((changed[:, 0] == 1).argmax())
    changed[row, 0] = np.nan
    assert dataclasses.replace(tones, labels=changed).fingerprint != tones.fingerprint


def test_a_class_whose_clips_cannot_be_used_stops_the_store(tones, tmp_path):
    labels = tones.labels.copy()
    present = np.flatnonzero(labels[:, 0] == 1)
    labels[present[1:], 0] = np.nan
    labels[present[1:], 1] = np.where(np.isnan(labels[present[1:], 1]), 0, labels[present[1:], 1])
    manifest = tones.manifest.assign(label=strata(labels, CLASSES), path=tones.manifest.path.where(
        tones.manifest.index != present[0], "missing.wav"))  # fmt: skip
    broken = dataclasses.replace(tones, manifest=manifest, labels=labels)
    with pytest.raises(CorpusError, match="none is observed with drone"):
        build_store(broken, FEATURES, root=tmp_path, workers=1)


# Training


def test_a_network_learns_several_labels_and_its_run_says_how_it_decides(folders, store):
    metrics = [read_json(folder / "metrics.json") for folder in folders[:2]]
    assert np.mean([one["validation"]["mean_average_precision"] for one in metrics]) > 0.75
    for folder, one in zip(folders, metrics, strict=False):
        kept = read_arrays(folder / "validation.npz")
        thresholds = training.load_thresholds(folder)
        np.testing.assert_array_equal(thresholds, best_thresholds(kept["labels"], kept["probabilities"])[0])
        assert one["validation"] == label_scores(kept["labels"], kept["probabilities"], thresholds)
        assert one["no_threshold"] == []
        assert models.output_of(training.load_model(folder)[0]) == "sigmoid"
        row = training.summary(folder)
        assert row["validation_mean_average_precision"] == one["validation"]["mean_average_precision"]
        history = pd.read_csv(folder / "history.csv")
        assert history.val_loss.min() == pytest.approx(one["validation"]["log_loss"], abs=1e-4)
        assert history.val_accuracy.between(0, 1).all()


def test_it_repeats_to_the_bit(folders, store, split_path, tmp_path):
    again = training.train_model(tmp_path / "again", store.folder, split_path, TINY, CONFIG, 0)
    kept = read_arrays(folders[0] / "validation.npz")["probabilities"]
    np.testing.assert_array_equal(read_arrays(again / "validation.npz")["probabilities"], kept)


def test_the_loss_is_the_mean_over_the_observed_labels_and_heeds_no_other():
    from sklearn.metrics import log_loss

    labels, answers = made_answers(n_clips=6)
    answers = np.clip(answers, 0.1, 0.9).astype(np.float32)
    wanted = np.nan_to_num(labels, nan=-1).astype(np.float32)
    found = np.asarray(training.masked_cross_entropy(wanted, answers))
    for row in range(6):
        seen = np.isfinite(labels[row])
        assert found[row] == pytest.approx(log_loss(labels[row, seen], answers[row, seen], labels=[0, 1]), rel=1e-4)
    other = np.where(np.isnan(labels), 0.123, answers).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(training.masked_cross_entropy(wanted, other)), found)
    nothing = np.asarray(training.masked_cross_entropy(-np.ones((1, 4), np.float32), answers[:1]))
    assert nothing.tolist() == [0.0]


def test_training_with_softmax_is_refused_and_a_recipe_is_fitted_to_the_features(small, store, split_path, tmp_path):
    recipe = dataclasses.replace(CONFIG, output="softmax")
    with pytest.raises(ConfigError, match='train with output="sigmoid"'):
        training.train_model(tmp_path, store.folder, split_path, TINY, recipe, 0)
    assert training.config_for(store, recipe).output == "sigmoid"
    assert training.config_for(small.store, recipe) is recipe


def test_a_class_that_the_training_part_never_shows_is_named(tones, store, tmp_path):
    parts = pd.Series("train", index=store.clips.clip_id)
    present = np.flatnonzero(tones.labels[:, 1] == 1)
    groups = set(store.clips.group[present])
    parts[store.clips.group.isin(groups).to_numpy()] = "test"
    parts[parts[parts == "train"].index[-2:]] = "validation"
    save_split(Split(parts.sort_index().rename_axis("clip_id"), 0), tmp_path / "split.json")
    with pytest.raises(SplitError, match="whistle is observed present in no clip of the train part"):
        training.train_model(tmp_path / "run", store.folder, tmp_path / "split.json", TINY, CONFIG, 0)


# The test part


def test_the_answers_to_the_test_part_carry_labels_and_thresholds(tones, store, folders, test_part):
    rows = tones.manifest.set_index("clip_id").index.get_indexer(test_part["clip_id"])
    np.testing.assert_array_equal(test_part["labels"], tones.labels[rows])
    np.testing.assert_array_equal(test_part["thresholds"], [training.load_thresholds(one) for one in folders[:2]])
    assert evaluation.main_score(test_part) == "mean_average_precision"
    assert evaluation.scoring(test_part).scores == LABEL_SCORES


def test_over_folds_each_clip_is_decided_by_the_thresholds_of_its_own_network(test_part):
    first = {name: value[:4] for name, value in test_part.items() if name not in ("probabilities", "thresholds")}
    second = {name: value[4:] for name, value in test_part.items() if name not in ("probabilities", "thresholds")}
    bars = np.array([[0.2, 0.3, 0.4], [0.5, 0.6, 0.7]])
    by_seed = [
        [
            second | {"probabilities": answers[4:], "thresholds": bars[1] + seed / 10},
            first | {"probabilities": answers[:4], "thresholds": bars[0] + seed / 10},
        ]
        for seed, answers in enumerate(test_part["probabilities"])
    ]
    joined = evaluation.join_seeds(by_seed)
    np.testing.assert_array_equal(joined["labels"], test_part["labels"])
    np.testing.assert_array_equal(joined["probabilities"], test_part["probabilities"])
    assert joined["thresholds"].shape == joined["probabilities"].shape
    np.testing.assert_allclose(joined["thresholds"][1, 0], bars[0] + 0.1)
    np.testing.assert_allclose(joined["thresholds"][0, -1], bars[1])


def test_trivial_answers_are_scored_beside_the_network(store, split_path, test_part):
    trivial = evaluation.trivial_baselines(store, [split_path], seed=0)
    assert list(trivial) == list(evaluation.scoring(test_part).rivals)
    table = evaluation.compare_models(test_part, {"CNN": test_part, **trivial}, n_resamples=50, seed=0)
    wide = table.pivot(index="score", columns="model", values="estimate")
    labels = test_part["labels"]
    prevalence = np.nanmean(labels, axis=0)
    for name in trivial:  # an answer that is the same for every clip has the average precision of chance
        assert wide[name]["mean_average_precision"] == pytest.approx(prevalence.mean())
        assert wide[name]["roc_auc"] == pytest.approx(0.5)
    assert wide["all present"]["hamming_loss"] == pytest.approx(np.nanmean(1 - labels))
    assert wide["none present"]["hamming_loss"] == pytest.approx(np.nanmean(labels))
    assert wide["none present"]["macro_f1"] == 0
    assert evaluation.nested(table)["CNN"]["brier"]["estimate"] == wide["CNN"]["brier"]
    mean = np.mean([label_scores(labels, *one)["macro_f1"] for one in zip(
        test_part["probabilities"], test_part["thresholds"], strict=True)])  # fmt: skip
    assert wide["CNN"]["macro_f1"] == pytest.approx(mean)


def test_the_prior_is_the_share_of_the_observed_training_clips(tones, store, split_path):
    from instrlib.data.splits import load_split

    trivial = evaluation.trivial_baselines(store, [split_path], seed=0)
    train = store.clips.clip_id.map(load_split(split_path, store.clips).parts) == "train"
    np.testing.assert_allclose(trivial["prior"][0], np.nanmean(tones.labels[train.to_numpy()], axis=0))
    with pytest.raises(EvaluationError, match="each class was observed"):
        baselines.prior(np.array([[np.nan, 1.0]]), 1)


def test_a_score_that_does_not_beat_all_present_is_called_so(test_part):
    labels = test_part["labels"]
    n_clips, n_classes = labels.shape
    oracle = test_part | {"probabilities": np.nan_to_num(labels, nan=0.5)[None], "thresholds": np.full((1, 3), 0.5)}
    models_ = {
        "oracle": oracle,
        "parrot": np.ones((n_clips, n_classes)),
        "all present": baselines.all_present(n_clips, n_classes),
        "prior": baselines.prior(labels, n_clips),
    }
    table = evaluation.against_trivial(test_part, models_, ["oracle", "parrot"], n_resamples=100, seed=0)
    assert table[table.model == "oracle"].beaten.all() and not table[table.model == "parrot"].beaten.any()
    assert findings.multilabel_sentence(table, "parrot").startswith(
        "Parrot does not beat “all present” in mean average precision (+0.000 [+0.000, +0.000]), macro f1"
    )
    assert "; it beats “prior” in hamming loss (-" in findings.multilabel_sentence(table, "oracle")


def test_with_one_label_a_clip_nothing_is_said_of_all_present():
    one = {"targets": np.array([0, 1]), "group": np.array(["a", "b"]), "probabilities": np.eye(2)}
    assert evaluation.against_trivial(one, {"model": one}, ["model"], n_resamples=10, seed=0).empty


def test_models_are_compared_by_the_share_of_labels_that_they_decide_rightly(test_part):
    labels = test_part["labels"]
    oracle = np.nan_to_num(labels, nan=0.5)
    right = evaluation.clip_scores(test_part, test_part)
    one = decisions(test_part["probabilities"], test_part["thresholds"])[0, 0]
    seen = np.isfinite(labels[0])
    assert right[0, 0] == pytest.approx((one == labels[0])[seen].mean())
    found = evaluation.compare_pair(test_part, oracle, test_part, n_resamples=100, seed=0)
    assert found["difference"].estimate == pytest.approx(1 - right.mean())
    assert set(found) == {"difference", "mean_average_precision", "macro_f1", "micro_f1"}
    predictions = {"CNN": test_part, "oracle": test_part | {"probabilities": oracle[None], "thresholds": 0.5}}
    table = experiments.against(predictions, "CNN", n_resamples=100, seed=0)
    assert table.difference["oracle"] == pytest.approx(1 - right.mean())


def test_a_false_alarm_counts_where_the_class_is_observed_to_be_absent(tones, test_part):
    labels = np.array([[1, 0, np.nan], [1, 1, 0], [np.nan, 0, 1]])
    answers = np.array([[[0.9, 0.8, 0.9], [0.2, 0.9, 0.1], [0.9, 0.7, 0.9]]])
    made = {"labels": labels, "probabilities": answers, "thresholds": np.full((1, 3), 0.5)}
    counts = evaluation.confusion_over_seeds(made)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1]]
    assert "drone is present and whistle" in findings.confusion_sentence(counts, CLASSES, several=True)
    chosen = test_part | made | {name: test_part[name][:3] for name in ("clip_id", "group", "targets")}
    wrong = evaluation.confident_errors(chosen, tones, n=5)
    assert wrong[["true", "predicted"]].to_numpy().tolist() == [["drone", "whistle"], ["hiss", "whistle"]]
    assert wrong.clip_id.tolist() == test_part["clip_id"][[0, 2]].tolist()


def test_tables_and_diagrams_of_the_notebooks_hold_for_several_labels(test_part):
    table = evaluation.class_table(test_part, CLASSES, n_resamples=50, seed=0)
    assert {"precision", "recall", "f1", "f1_low", "f1_high", "average_precision", "support", "n_groups"} <= set(table)
    by_seed = evaluation.by_seed(test_part)
    assert by_seed.index.tolist() == list(LABEL_SCORES) and by_seed.shape[1] == 2
    scores = evaluation.compare_models(test_part, {"CNN": test_part}, n_resamples=50, seed=0).set_index("score")
    assert scores.estimate["roc_auc"] == pytest.approx(by_seed.loc["roc_auc"].mean())
    diagram = evaluation.reliability_over_seeds(test_part)
    assert diagram["ece"] == pytest.approx(by_seed.loc["expected_calibration_error"].mean())
    axes = plots.reliability_diagram(**diagram).axes[1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("probability", "share present")
    gap = evaluation.confidence_gap(test_part, n_resamples=50, seed=0)
    said = findings.calibration_sentence(scores.reset_index().assign(model="CNN"), "CNN", gap)
    assert said.startswith("Its probabilities are ")
