"""Answers to mixtures are scored with all who played in mind, beside answers that need no listening."""

import numpy as np
import pytest

from instrlib import findings
from instrlib.evaluation import metrics
from instrlib.studies import layered_scores


def random_answers(labels, seeds=2, skill=1.0):
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-(skill * (2 * labels - 1) + rng.normal(size=(seeds, *labels.shape)))))
    return layered_scores.Answer(scores, scores >= 0.5)


def test_scores_are_the_means_of_those_of_the_seeds(mixtures):
    truth = layered_scores.truth_of(mixtures)
    one = random_answers(truth.labels)
    table = layered_scores.score_table({"model": one}, truth).set_index("score")
    for name in layered_scores.SCORES:
        by_seed = [metrics.scores(truth.labels, probabilities)[name] for probabilities in one.probabilities]
        assert table.estimate[name] == pytest.approx(np.mean(by_seed))
        assert table.low[name] < table.estimate[name] < table.high[name]


def test_with_one_source_a_group_the_interval_is_that_of_a_mean():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.permutation([1, 0, 0]) for _ in range(40)]).astype(np.float32)
    one = layered_scores.Answer(np.full((1, 40, 3), 0.5), rng.random((1, 40, 3)) < 0.4)
    found = layered_scores.score_table({"model": one}, layered_scores.Truth(labels, np.eye(40, dtype=bool)))
    row = found.set_index("score").loc["hamming_loss"]
    wrong = (one.present[0] != (labels == 1)).mean(axis=1)
    error = wrong.std(ddof=1) / np.sqrt(40)
    assert (row.high - row.low) / 2 == pytest.approx(2.0227 * error, rel=1e-3)


def test_a_source_that_plays_everywhere_widens_the_interval():
    """What clips share must show: the same answers, once with groups of their own and once with a few for all."""
    rng = np.random.default_rng(2)
    own = rng.integers(0, 8, 200)
    labels = np.tile([1, 0], (200, 1)).astype(np.float32)
    present = np.zeros((1, 200, 2), bool)
    present[0, :, 0] = rng.random(8)[own] > 0.5
    one = layered_scores.Answer(np.full((1, 200, 2), 0.5), present)
    alone, shared = (
        layered_scores.score_table({"model": one}, layered_scores.Truth(labels, holds))
        .set_index("score")
        .loc["hamming_loss"]
        for holds in (np.eye(200, dtype=bool), own[:, None] == np.arange(8))
    )
    assert shared.high - shared.low > 3 * (alone.high - alone.low)


def test_naming_all_has_the_f1_of_its_formula(mixtures):
    table = layered_scores.by_number(layered_scores.trivial(mixtures), layered_scores.truth_of(mixtures))
    of = table[(table.model == "all present") & (table.score == "micro_f1")].set_index("n_sources").estimate
    assert of.to_dict() == pytest.approx({n: layered_scores.all_present_f1(3, n) for n in (1, 2, 3)})


def test_thresholds_are_chosen_on_validation_mixtures_alone_and_for_each_network(mixtures):
    one = random_answers(mixtures.corpus.labels)
    chosen = layered_scores.choose_thresholds(one.probabilities, mixtures)
    assert chosen.shape == (2, 1, 3)
    changed = one.probabilities.copy()
    changed[:, mixtures.rows("test")] = 0.123
    np.testing.assert_array_equal(chosen, layered_scores.choose_thresholds(changed, mixtures))
    changed[1, mixtures.rows("validation")] /= 2
    halved = layered_scores.choose_thresholds(changed, mixtures)
    np.testing.assert_array_equal(chosen[0], halved[0])
    assert (halved[1] < chosen[1]).all()


def test_recall_by_level_tells_who_hears_only_what_is_loud(mixtures):
    place = {name: at for at, name in enumerate(mixtures.corpus.manifest.clip_id)}
    classes = list(mixtures.corpus.classes)
    deaf = np.zeros((1, *mixtures.corpus.labels.shape))
    for one in mixtures.sources.itertuples():
        deaf[0, place[one.mixture], classes.index(one.label)] = one.share_db > -6
    models = {"deaf": layered_scores.Answer(deaf, deaf > 0.5), **layered_scores.trivial(mixtures)}
    table = layered_scores.recall_by_level(models, mixtures, "test").set_index(["model", "up_to_db"])
    known = table[table.n > 0]
    assert (known.recall["deaf"] == (known.loc["deaf"].index > -6).astype(float)).all()
    assert (known.loc["all present"].recall == 1).all() and (known.loc["all present"].false_alarms == 1).all()
    assert (known.loc["deaf"].false_alarms == 0).all()
    n_sources = ((mixtures.sources.part == "test") & (mixtures.sources.n_sources > 1)).sum()
    assert table.n["deaf"].sum() == n_sources


def test_a_better_model_is_found_better_and_the_sentences_say_so_or_not(mixtures):
    truth = layered_scores.truth_of(mixtures)
    models = {"good": random_answers(truth.labels, skill=3.0), "poor": random_answers(truth.labels, skill=0.0)}
    models |= layered_scores.trivial(mixtures)
    table, numbers = layered_scores.score_table(models, truth), layered_scores.by_number(models, truth)
    pairs = [(name, other) for name in ("good", "poor") for other in layered_scores.trivial(mixtures)]
    compared = layered_scores.compare(models, pairs, truth)
    row = compared.loc["good", "all present", "mean_average_precision"]
    assert row.low > 0 and row.p < row.p_holm < 0.05
    scores = table.set_index(["model", "score"]).estimate
    assert row.difference == pytest.approx(
        scores["good", "mean_average_precision"] - scores["all present", "mean_average_precision"]
    )
    assert "Each of its scores named here is better" in findings.trivial_sentence(table, compared, "good")
    assert "is not shown to beat" in findings.trivial_sentence(table, compared, "poor")
    sentence = findings.all_present_sentence(numbers, "good", n_classes=3, reported=layered_scores.LAYERED_FOUR)
    assert "the network beats it" in sentence or "is not shown to beat it" in sentence
    poor = findings.all_present_sentence(numbers, "poor", n_classes=3, reported=layered_scores.LAYERED_FOUR)
    assert "with 2 and 3 at once the network is not shown to beat it" in poor
    assert "0.800 for 2 of 3" in sentence and "0.667, more than the 0.534" in sentence
    assert "good 0." in findings.number_sentence(numbers, ["good"]) or "good 1." in findings.number_sentence(
        numbers, ["good"]
    )
    recall = layered_scores.recall_by_level(models, mixtures, "test")
    assert findings.level_sentence(recall, ["good"]).startswith("How loud must it be? Good names ")


def test_examples_are_not_chosen_by_their_answers(mixtures):
    models = {"model": random_answers(mixtures.corpus.labels)}
    shown = layered_scores.examples(mixtures, models, 4)
    other = layered_scores.examples(mixtures, layered_scores.trivial(mixtures), 4)
    assert shown.clip_id.to_list() == other.clip_id.to_list() and set(shown.n_sources) == {2, 3}
    assert set(shown.split) == {"test"}
    first = shown.iloc[0]
    assert set(first.expected.split(", ")) == set(mixtures.sources.label[mixtures.sources.mixture == first.clip_id])
