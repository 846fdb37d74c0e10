"""Scores and baselines agree with scikit-learn, with one label per clip and with several, some of them not observed."""

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import NearestCentroid

from instrlib.core.io import RunError
from instrlib.evaluation import baselines, metrics, predictions
from instrlib.evaluation.metrics import best_thresholds, scores


def single(n_clips: int = 300, n_classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(n_clips, n_classes)), rng.integers(0, n_classes, n_clips)
    answers = np.exp(logits + np.eye(n_classes)[targets])
    return targets, answers / answers.sum(axis=1, keepdims=True)


def several(n_clips: int = 60, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, some of them hidden, and answers that know something of them; rounded, so that some are tied."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, n_classes)) < np.linspace(0.2, 0.7, n_classes)).astype(float)
    answers = np.clip(labels * 0.3 + rng.random((n_clips, n_classes)) * 0.7, 0, 1).round(1)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return labels, answers


def class_scores(truth: np.ndarray, answers: np.ndarray, thresholds: np.ndarray | float = 0.5) -> dict:
    found = metrics.weighted_class_scores(metrics.clip_terms(truth, answers, thresholds), np.ones((1, len(answers))))
    return {name: values[0] for name, values in found.items()}


@pytest.mark.parametrize("n_classes", [4, 12, 41])
def test_scores_of_one_label_are_scikit_learns(n_classes):
    targets, answers = single(500, n_classes)
    found, answered, every = scores(targets, answers), answers.argmax(axis=1), range(n_classes)
    macro = reference.precision_recall_fscore_support(targets, answered, average="macro", zero_division=0)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(targets, answered))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(targets, answered))
    assert [found[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert found["top3_accuracy"] == pytest.approx(reference.top_k_accuracy_score(targets, answers, k=3, labels=every))
    assert found["log_loss"] == pytest.approx(reference.log_loss(targets, answers, labels=every))
    half = scores(targets, answers.astype(np.float16))
    assert half["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)


@pytest.mark.parametrize("made", [single(80, 4), several()])
def test_weighted_scores_are_those_of_repeated_clips(made):
    truth, answers = made
    weights = np.random.default_rng(1).integers(0, 3, size=(5, len(truth)))
    weights[0, truth == 2 if truth.ndim == 1 else truth[:, 2] == 1] = 0  # a draw may lack a class
    found = metrics.weighted_scores(metrics.clip_terms(truth, answers, 0.4), weights.astype(float))
    for row, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(truth)), weight)
        assert {name: one[row] for name, one in found.items()} == pytest.approx(scores(truth[rows], answers[rows], 0.4))


def test_ties_absent_classes_and_certain_errors_count_as_defined():
    found = metrics.clip_probabilities(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([7, 2, 7]))
    assert found.tolist() == [[0, 1], [0.75, 0.25]]  # means in the order of the clips' numbers
    answers = np.tile([0.4, 0.3, 0.2, 0.1], (4, 1))
    assert scores(np.arange(4), answers)["map_at_3"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 0) / 4)
    assert scores(np.array([0, 1]), np.full((2, 2), 0.5))["accuracy"] == 0.5  # of equal ones the first is the answer
    answers = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    found = class_scores(np.array([0, 1]), answers)  # the second class is never answered, the third has no clips
    assert found["precision"][1] == 0 and np.isnan([values[2] for values in found.values()]).all()
    assert scores(np.array([0, 1]), answers)["macro_recall"] == 0.5
    wrong = scores(np.array([1]), np.array([[1.0, 0.0]], dtype=np.float32))
    assert wrong["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps))


def test_the_calibration_error_follows_its_definition_bin_by_bin():
    targets, answers = single(500)
    confidence, correct = answers.max(axis=1), answers.argmax(axis=1) == targets
    inside = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
    gaps = [one.mean() * abs(correct[one].mean() - confidence[one].mean()) for one in inside if one.any()]
    assert scores(targets, answers)["expected_calibration_error"] == pytest.approx(sum(gaps))
    bins = predictions.reliability({"targets": targets, "probabilities": np.stack([answers, answers[:, ::-1]])})
    mirrored = scores(targets, answers[:, ::-1])["expected_calibration_error"]
    assert bins["ece"] == pytest.approx((sum(gaps) + mirrored) / 2) and bins["share"].sum() == pytest.approx(1)
    sure = predictions.reliability({"targets": np.zeros(2, int), "probabilities": np.array([[1.0, 0.0]] * 2)})
    assert np.isnan(sure["accuracy"][:-1]).all() and (sure["accuracy"][-1], sure["share"][-1]) == (1, 1)
    labels = np.array([[1, 0], [1, np.nan], [0, 1], [1, np.nan]])
    found = predictions.reliability({"labels": labels, "probabilities": np.array([[0.75, 0.25], [0.75, 0.9]] * 2)})
    filled = np.stack([found[name][found["share"] > 0] for name in ("confidence", "accuracy", "share")])
    np.testing.assert_allclose(filled, [[0.25, 0.75], [0.5, 0.75], [1 / 3, 2 / 3]])


def test_scores_of_several_labels_are_scikit_learns_on_what_was_observed():
    labels, answers = several()
    thresholds = np.array([0.3, 0.4, 0.5, 0.6])
    by_class = class_scores(labels, answers, thresholds)
    for number in range(4):
        seen = np.isfinite(labels[:, number])
        true, given = labels[seen, number].astype(int), answers[seen, number]
        decided = given >= thresholds[number]
        expected = {name: getattr(reference, f"{name}_score")(true, given) for name in ("average_precision", "roc_auc")}
        expected |= {name: getattr(reference, f"{name}_score")(true, decided) for name in ("precision", "recall", "f1")}
        assert {name: values[number] for name, values in by_class.items()} == pytest.approx(expected)
    found, observed = scores(labels, answers, thresholds), np.isfinite(labels)
    true, given, decided = labels[observed], answers[observed], (answers >= thresholds)[observed]
    columns = {"mean_average_precision": "average_precision", "roc_auc": "roc_auc", "macro_f1": "f1"}
    means = {name: by_class[column].mean() for name, column in columns.items()}
    expected = {"micro_f1": reference.f1_score(true, decided), "hamming_loss": reference.hamming_loss(true, decided)}
    expected |= {"brier": reference.brier_score_loss(true, given)} | means
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["log_loss"] == pytest.approx(reference.log_loss(true, np.clip(given, 1.2e-7, 1)), abs=1e-6)
    # A class with one kind of label is left out of the means.
    always = np.where(np.isnan(labels[:, :1]), np.nan, 1.0)
    wider = scores(np.hstack([labels, always]), np.hstack([answers, answers[:, :1]]), [*thresholds, 0.5])
    assert {name: wider[name] for name in means} == pytest.approx(means)
    assert np.isnan(scores(always, answers[:, :1])["mean_average_precision"])


def test_the_threshold_of_a_class_has_the_best_f1_of_all():
    labels, answers = several(seed=3)
    thresholds, unknown = best_thresholds(labels, answers)
    best = class_scores(labels, answers, thresholds)["f1"]
    assert unknown.size == 0
    for value in np.linspace(0, 1, 51):
        assert (class_scores(labels, answers, value)["f1"] <= best + 1e-12).all()
    labels[labels[:, 1] == 1, 1] = np.nan
    thresholds, unknown = best_thresholds(labels, answers)
    assert unknown.tolist() == [1] and thresholds[1] == 0.5


def test_confusion_counts_answers_and_false_alarms():
    targets, answers = single(200, 7)
    expected = reference.confusion_matrix(targets, answers.argmax(axis=1), labels=range(7))
    found = predictions.confusion({"targets": targets, "probabilities": np.stack([answers, answers])})
    np.testing.assert_array_equal(found, 2 * expected)
    labels = np.array([[1, 0, np.nan], [1, 1, 0], [np.nan, 0, 1]])
    answers = np.array([[0.9, 0.8, 0.9], [0.2, 0.9, 0.1], [0.9, 0.7, 0.9]])
    found = predictions.confusion({"labels": labels, "probabilities": answers})
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1]]


def spectra(targets: np.ndarray, *, seed: int) -> np.ndarray:
    means = np.random.default_rng(99).normal(-40, 10, size=(4, 16))
    return means[targets] + np.random.default_rng(seed).normal(scale=12, size=(len(targets), 16))


def test_baselines_are_scikit_learns_and_random_answers_are_drawn_without_replacement():
    targets = np.repeat([0, 1, 2, 3], [10, 40, 30, 20])
    train, test = spectra(targets, seed=0), spectra(np.arange(200) % 4, seed=1)
    answers = baselines.single_label(train, targets, test, 4, seed=0)
    prior = DummyClassifier(strategy="prior").fit(train, targets).predict_proba(test)
    np.testing.assert_allclose(answers["majority class"], prior)
    nearest = NearestCentroid().fit(train, targets).predict(test)
    np.testing.assert_array_equal(answers["nearest centroid"].argmax(axis=1), nearest)
    drawn = answers["stratified random"].reshape(-1, 4)
    first, second = np.argsort(-drawn, axis=1).T[:2]
    for found, shares in ((first, [0.1, 0.4, 0.3, 0.2]), (second[first == 1], [1 / 6, 0, 3 / 6, 2 / 6])):
        np.testing.assert_allclose(np.bincount(found, minlength=4) / len(found), shares, atol=0.03)
    rare = np.array([0, 0, 2])  # a class without training clips is never predicted, and far spectra stay finite
    for found in baselines.single_label(spectra(rare, seed=0), rare, 1e4 + test, 4, seed=0).values():
        assert (found[..., [1, 3]] == 0).all()
        np.testing.assert_allclose(found.sum(axis=-1), 1)


def test_the_nearest_centroid_is_that_of_equal_gaussians_and_the_prior_counts_observed_labels():
    train = np.array([[0.0], [2.0], [10.0], [12.0]])
    found = baselines.single_label(train, np.array([0, 0, 1, 1]), np.array([[6.0], [5.0]]), 2, seed=0)
    likelihood = np.exp(-(np.array([4.0, 6.0]) ** 2) / 2)
    np.testing.assert_allclose(found["nearest centroid"], [[0.5, 0.5], likelihood / likelihood.sum()])
    found = baselines.several_labels(np.array([[1, 0], [0, np.nan], [1, 0], [1, np.nan]]), 2)
    assert found["prior"].tolist() == [[0.75, 0.0]] * 2
    assert (found["all present"] == 1).all() and (found["none present"] == 0).all()
    with pytest.raises(RunError):
        baselines.several_labels(np.array([[np.nan, 1.0]]), 1)


@pytest.mark.parametrize(
    ("truth", "answers", "place"),
    [
        ([0], [[0.5, 0.5], [0.5, 0.5]], "shape"),
        ([2], [[0.5, 0.5]], "0 to 1"),
        ([0.0], [[0.5, 0.5]], "0 to 1"),
        ([0, 0, 0], [[0.5, 0.5], [np.nan, 0.5], [0.1, 0.1]], "2 of 3 clips .* row 1"),
        ([[1, 0]], [[0.5, 0.5], [0.5, 0.5]], "shape"),
        ([[np.nan, np.nan]], [[0.5, 0.5]], "observed"),
        ([[2, 0]], [[0.5, 0.5]], "NaN"),
        ([[1, 0]], [[1.5, 0.5]], "row 0"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused(truth, answers, place):
    with pytest.raises(RunError, match=place):
        scores(np.asarray(truth), np.array(answers))
