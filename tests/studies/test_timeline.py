"""Windows become frames, frames become events, and both are scored as sed_eval defines it."""

import numpy as np
import pytest

from instrlib.models.published import Windows
from instrlib.studies import timeline
from instrlib.studies.timeline import Decision, Truth

# Scores of the two recordings below by sed_eval 0.2.1 (segments of 1 s; events with optimal matching, offsets within
# 20 % of the length), run beside the project on 2026-12-01: it needs pkg_resources, which this environment lacks.
SED_EVAL = {
    "frame_micro_f1": 0.766839378238342,
    "frame_macro_f1": 0.7098722415795587,
    "error_rate": 0.4065934065934066,
    "event_micro_f1": 0.5238095238095238,
    "event_macro_f1": 0.4583333333333333,
    "event_micro_f1_half_s": 0.3333333333333333,
}


def recording(seed):
    """Return what plays in up to 60 s, as class, onset and offset, and what was found: moved, with false alarms."""
    rng = np.random.default_rng(seed)
    edges_s = np.cumsum(rng.uniform(1.5, 7, (3, 8)), axis=1)
    both = edges_s.round(2), np.round(edges_s + rng.normal(0, 0.8, edges_s.shape))
    plays, found = ([(label, *pair) for label, row in enumerate(one) for pair in row.reshape(-1, 2)] for one in both)
    return plays[:-3], found


def windows(probabilities, *, hop_s=1.0, window_s=1.0):
    values = np.asarray(probabilities, dtype=float)
    return Windows(np.arange(len(values)) * hop_s, window_s, values.reshape(len(values), -1))


def truth_from(recordings):
    frames = tuple(timeline.in_frames(one, 60.0, 3) for one in recordings)
    return Truth(frames, tuple(recordings), np.array([f"ensemble {n}" for n in range(len(recordings))]))


RECORDINGS = [recording(seed) for seed in range(6)]
EVERY = truth_from([plays for plays, _ in RECORDINGS])
EVERY_FOUND = [timeline.in_frames(found, 60.0, 3) for _, found in RECORDINGS]
TRUTH, FOUND = EVERY[np.arange(2)], EVERY_FOUND[:2]


def scores(models, truth):
    table = timeline.score_table(models, truth, n_resamples=50)
    return table.pivot(index="model", columns="score", values="estimate")


def test_a_frame_is_the_mean_of_the_windows_that_contain_its_centre_and_frames_cover_the_recording():
    found = timeline.frame_scores(windows([0.0, 0.6, 0.9], window_s=3.0))
    assert found.ravel() == pytest.approx([0, 0.3, 0.5, 0.75, 0.9])
    assert timeline.frame_scores(windows([0.4], window_s=2.0)).tolist() == [[0.4]]
    for hop_s, window_s in ((0.5, 2.0), (3.0, 2.0)):
        scores = timeline.frame_scores(windows(np.full(7, 0.25), hop_s=hop_s, window_s=window_s))
        assert len(scores) == int(np.ceil((6 * hop_s + window_s) / hop_s)) and np.allclose(scores, 0.25)


def test_activity_is_smoothed_by_a_median_has_two_thresholds_and_is_that_of_listed_instruments():
    one = windows([0, 1, 0, 0, 1, 1, 0, 1, 1])
    for median, expected in ((3, [0, 0, 0, 0, 1, 1, 1, 1, 1]), (1, [0, 1, 0, 0, 1, 1, 0, 1, 1])):
        assert timeline.activity(one, Decision(median, 0.5, 0.5, "max", 0)).ravel().tolist() == expected
    scores = np.array([[0.5, 0.5], [0.8, 0.5], [0.5, 0.5], [0.3, 0.5], [0.5, 0.5]])
    assert timeline.hysteresis(scores, 0.7, 0.4).T.tolist() == [[True, True, True, False, False], [False] * 5]
    assert timeline.hysteresis(scores, 0.5, 0.5)[:, 1].all()
    one, decision = windows([[0.9, 0.9], [0.9, 0.1], [0.9, 0.1]]), Decision(1, 0.5, 0.5, "mean", 0.5)
    assert timeline.listed(one, decision).tolist() == [True, False]
    assert timeline.activity(one, decision).tolist() == [[True, False]] * 3


def test_events_are_sorted_by_time_and_have_their_mean_score():
    active = np.array([[0, 1], [1, 1], [1, 0], [0, 1]], dtype=bool)
    table = timeline.events(active, 0.5, ("flute", "piano"), scores=np.arange(8.0).reshape(4, 2))
    assert table.values.tolist() == [["piano", 0, 1, 2], ["flute", 0.5, 1.5, 3], ["piano", 1.5, 2, 7]]


@pytest.mark.parametrize(
    ("true", "found", "pairs"),
    [
        *(([(0, 10, 20)], [(0, *one)], [(0, 0)]) for one in ((11, 20), (9, 22), (10, 18))),
        *(([(0, 10, 20)], [(0, *one)], []) for one in ((11.01, 20), (10, 22.01), (10, 17.99), (8.9, 20))),
        ([(0, 10, 20)], [(1, 10, 20)], []),
        ([(0, 1, 2)], [(0, 1, 3)], [(0, 0)]),  # the collar is more than a fifth of the length
        # The largest set of pairs, which the closest first would miss.
        ([(0, 1.5, 10), (0, 0.5, 10)], [(0, 1.0, 10), (0, 2.4, 10)], [(0, 1), (1, 0)]),
    ],
)
def test_an_event_is_found_within_the_collar_and_a_fifth_of_its_length(true, found, pairs):
    assert timeline.match_events(true, found, collar_s=1.0) == pairs


def test_all_scores_are_those_of_sed_eval_and_what_is_never_found_counts_as_zero():
    empty = [np.zeros_like(one) for one in TRUTH.frames]
    table = scores({"model": FOUND, "all": TRUTH.frames, "none": empty}, TRUTH)
    assert table.loc["model"].to_dict() == pytest.approx(SED_EVAL)
    assert table.loc["all", ["frame_micro_f1", "frame_macro_f1", "error_rate"]].tolist() == [1, 1, 0]
    assert table.loc["none"].to_dict() == dict.fromkeys(SED_EVAL, 0) | {"error_rate": 1}
    first = scores({"": [frames & [True, False, False] for frames in TRUTH.frames]}, TRUTH).loc[""]
    assert (first.frame_macro_f1, table.loc["all"].frame_macro_f1) == pytest.approx((1 / 3, 1))
    masks = [frames.sum(axis=1) == 2 for frames in TRUTH.frames]
    parts = [(a[mask], b[mask]) for a, b, mask in zip(TRUTH.frames, FOUND, masks, strict=True)]
    expected = [sum(one.sum() for one in ones) for ones in zip(*((a & b, b, a) for a, b in parts), strict=True)]
    assert [one.sum() for one in timeline.frame_counts(TRUTH, FOUND, where=masks)] == expected


def test_intervals_need_four_ensembles_and_lie_between_zero_and_one():
    few = timeline.score_table({"model": FOUND}, TRUTH, n_resamples=50)
    assert few[["low", "high"]].isna().all(axis=None)
    table = timeline.score_table({"model": EVERY_FOUND}, EVERY, n_resamples=200)
    assert ((table.low <= table.estimate) & (table.estimate <= table.high) & (table.low < table.high)).all()
    assert table.low.min() >= 0 and table[table.score != "error_rate"].high.max() <= 1
    counts = timeline.frame_counts(EVERY, EVERY_FOUND)
    one = timeline.f1_interval(counts, EVERY.groups, n_resamples=200)
    assert 0 < one["low"] < one["estimate"] < one["high"] < 1 and one["n_ensembles"] == 6
    own = tuple(np.where(np.arange(6)[:, None] < 3, part, 0) for part in counts)
    assert np.isnan(timeline.f1_interval(own, EVERY.groups, n_resamples=50)["low"])


def test_the_choice_finds_thresholds_for_a_network_of_low_scores_and_mean_pooling_where_windows_err():
    truth = truth_from([RECORDINGS[0][0], [(0, 2.0, 9.0)]])
    heard = [windows(np.where(one, 0.3, 0.1)) for one in truth.frames]  # frames are what the network says
    decision, tried, lists = timeline.choose(heard, truth)
    assert 0.1 < decision.off <= decision.on <= 0.3 and decision.median_windows == 1
    assert tried.frame_micro_f1.max() == 1 and lists.micro_f1.max() == 1
    found = [timeline.activity(one, decision)[: len(frames)] for one, frames in zip(heard, truth.frames, strict=True)]
    assert scores({"chosen": found}, truth).frame_micro_f1["chosen"] == 1
    truth = truth_from([[(number, 0.0, 40.0)] for number in range(3)])
    heard = [np.where(frames, 0.6, 0.1) for frames in truth.frames]
    for number, one in enumerate(heard):
        one[5, (number + 1) % 3] = 0.95  # one window in many is a false alarm
    assert timeline.choose([windows(one) for one in heard], truth)[0].pooling == "mean"


def test_the_truth_of_a_soundscape_marks_every_second_in_which_an_instrument_plays(soundscapes):
    truth, corpus = timeline.truth_of(soundscapes), soundscapes.corpus
    assert truth.groups.tolist() == corpus.manifest.group.tolist()
    np.testing.assert_array_equal(truth.labels, corpus.labels)
    for row in soundscapes.activity.itertuples():
        frames = truth.frames[corpus.manifest.clip_id.tolist().index(row.mixture)][:, corpus.classes.index(row.label)]
        assert frames[int(row.onset_s) : int(np.ceil(row.offset_s))].all()
