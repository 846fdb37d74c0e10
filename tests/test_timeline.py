"""Who plays when: windows become frames, frames become stretches, and both are scored as sed_eval defines it."""

import functools
import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError, LeakError
from instrlib.data.splits import Split
from instrlib.deploy import release
from instrlib.evaluation import intervals
from instrlib.findings import timeline as timeline_findings
from instrlib.models.predict import Windows, window_scores
from instrlib.models.published import Network, open_model
from instrlib.studies import layered_scores, timeline, timeline_scores
from instrlib.studies.timeline_scores import Truth

CLASSES = ("cello", "flute", "piano")

# Two recordings of 40 s: what plays and what was found, as class, onset and offset in s. The scores below are those of
# sed_eval 0.2.1 (segments of 1 s; events with optimal matching, offsets within 20 % of the length), run beside the
# project on 2026-11-21: it needs pkg_resources, which this environment lacks.
RECORDINGS = (
    (
        [
            (0, 2.5, 10.78), (0, 15.77, 19.35), (0, 22.2, 30.31), (0, 31.84, 39.59), (1, 1.87, 5.99), (1, 8.75, 12.53),
            (1, 16.03, 21.56), (1, 25.56, 34.52), (2, 2.49, 11.41), (2, 13.88, 17.0), (2, 21.26, 23.57),
            (2, 25.23, 30.83), (2, 34.43, 40.0),
        ],
        [
            (0, 2.0, 12.0), (0, 16.0, 19.0), (1, 2.0, 7.0), (1, 16.0, 23.0), (1, 24.0, 39.0), (2, 14.0, 18.0),
            (2, 21.0, 23.0), (2, 33.0, 40.0),
        ],
    ),
    (
        [
            (0, 3.5, 10.13), (0, 12.22, 20.14), (0, 25.89, 34.22), (1, 0.58, 3.93), (1, 9.6, 15.47), (1, 17.78, 25.97),
            (1, 30.36, 36.35), (2, 1.64, 5.32), (2, 6.99, 15.13), (2, 18.73, 24.56), (2, 27.51, 34.77),
            (2, 36.39, 40.0),
        ],
        [
            (0, 12.0, 20.0), (0, 25.0, 35.0), (1, 10.0, 14.0), (1, 17.0, 26.0), (2, 0.0, 15.0), (2, 19.0, 25.0),
            (2, 36.0, 40.0),
        ],
    ),
)  # fmt: skip
SED_EVAL = {
    "frame_micro_f1": 0.6901408450704226,
    "frame_macro_f1": 0.6898044643173994,
    "error_rate": 0.44571428571428573,
    "event_micro_f1": 0.45,
    "event_macro_f1": 0.46037296037296044,
    "event_micro_f1_half_s": 0.25,
}
SED_EVAL_CLASSES = {
    "frame_f1": {"cello": 0.6666666666666666, "flute": 0.7096774193548386, "piano": 0.693069306930693},
    "event_f1": {"cello": 0.7272727272727273, "flute": 0.15384615384615385, "piano": 0.5},
}


def windows(probabilities, *, hop_s=1.0, window_s=3.0):
    values = np.asarray(probabilities, dtype=float)
    return Windows(np.arange(len(values)) * hop_s, window_s, values.reshape(len(values), -1))


def truth_from(recordings, duration_s=40.0, n_classes=3):
    events = tuple(sorted(real) for real in recordings)
    frames = tuple(timeline_scores.in_frames(real, duration_s, n_classes) for real in events)
    return Truth(CLASSES[:n_classes], frames, events, np.eye(len(events), dtype=bool))


@pytest.fixture(scope="module")
def truth():
    return truth_from([real for real, _ in RECORDINGS])


@pytest.fixture(scope="module")
def found():
    return [timeline_scores.in_frames(one, 40.0, 3) for _, one in RECORDINGS]


# -- from windows to stretches -----------------------------------------------------------------------------------------


def test_a_frame_is_the_mean_of_the_windows_that_cover_it():
    scores = timeline.frame_scores(windows([0.0, 0.3, 0.6, 0.9]))
    assert scores.ravel() == pytest.approx([0.0, 0.15, 0.3, 0.6, 0.75, 0.9])


@pytest.mark.parametrize(("hop_s", "window_s"), [(0.5, 3.0), (1.0, 2.5), (0.7, 3.0), (2.0, 1.0)])
def test_frames_reach_from_the_begin_to_the_end_whatever_the_hop(hop_s, window_s):
    rng = np.random.default_rng(0)
    heard = windows(rng.random((20, 2)), hop_s=hop_s, window_s=window_s)
    scores = timeline.frame_scores(heard)
    assert len(scores) == np.ceil((19 * hop_s + window_s) / hop_s - 1e-9)
    for frame, score in enumerate(scores):
        centre_s = (frame + 0.5) * hop_s
        covers = (heard.start_s <= centre_s) & (centre_s < heard.start_s + window_s)
        expected = heard.probabilities[covers].mean(axis=0) if covers.any() else heard.probabilities[min(frame, 19)]
        np.testing.assert_allclose(score, expected)


def test_a_short_recording_is_one_frame_as_long_as_its_window():
    one = windows([[0.2, 0.8]])
    assert timeline.hop_s(one) == 3.0
    np.testing.assert_array_equal(timeline.frame_scores(one), [[0.2, 0.8]])


def test_a_median_filter_drops_a_lone_frame_and_fills_a_gap_of_one():
    scores = np.array([0, 0, 1, 0, 0, 1, 1, 0, 1, 1], dtype=float)[:, None]
    assert timeline.smoothed(scores, 3).ravel().tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert timeline.smoothed(scores, 1) is scores


def test_hysteresis_keeps_what_wavers_together_and_drops_what_never_rises():
    wavering = np.array([0.1, 0.5, 0.7, 0.45, 0.65, 0.5, 0.2, 0.5, 0.55, 0.1])[:, None]
    one_threshold = timeline.hysteresis(wavering, 0.6, 0.6)
    two = timeline.hysteresis(wavering, 0.6, 0.4)
    assert len(timeline.stretches(one_threshold)) == 2
    assert timeline.stretches(two) == [(0, 1, 6)]


def test_hysteresis_looks_at_every_class_by_itself_and_takes_thresholds_for_each():
    scores = np.array([[0.9, 0.5], [0.5, 0.5], [0.1, 0.9]])
    both = timeline.hysteresis(scores, 0.8, 0.4)
    np.testing.assert_array_equal(both, [[True, True], [True, True], [False, True]])
    own = timeline.hysteresis(scores, np.array([0.8, 0.95]), np.array([0.6, 0.4]))
    np.testing.assert_array_equal(own, [[True, False], [False, False], [False, False]])


def test_a_steady_tone_is_found_to_the_second_where_windows_hear_it_rightly():
    """A window that hears each instrument with the share of it that it plays: what a perfect network would say."""
    plays = np.zeros(30, bool)
    plays[8:20] = True
    heard = windows([plays[start : start + 3].mean() for start in range(28)])
    decision = timeline.Decision(3, 0.6, 0.5, "max", 0.5)
    assert timeline.stretches(timeline.activity(heard, decision)) == [(0, 8, 20)]


def test_an_instrument_that_is_not_in_the_list_plays_nowhere():
    heard = windows(np.tile([[0.9, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.9]], (1, 1)))
    anyone = timeline.Decision(1, 0.4, 0.2, "max", 0.5)
    steady = timeline.Decision(1, 0.4, 0.2, "mean", 0.5)
    assert timeline.activity(heard, anyone).any(axis=0).tolist() == [True, True]
    assert not timeline.activity(heard, steady).any()


def test_events_are_sorted_by_time_and_carry_their_mean_score():
    active = np.array([[0, 1], [1, 1], [1, 0], [0, 0], [1, 0]], dtype=bool)
    scores = np.array([[0.1, 0.9], [0.6, 0.5], [0.8, 0.2], [0.0, 0.0], [0.7, 0.1]])
    table = timeline.events(active, 0.5, ("flute", "piano"), scores=scores)
    assert table.columns.to_list() == ["label", "start_s", "end_s", "intensity"]
    expected = [("piano", 0.0, 1.0, 0.7), ("flute", 0.5, 1.5, 0.7), ("flute", 2.0, 2.5, 0.7)]
    assert [tuple(row) for row in table.round(9).to_numpy().tolist()] == expected
    nothing = timeline.events(np.zeros((3, 2), bool), 1.0, ("flute", "piano"), scores=np.zeros((3, 2)))
    assert nothing.empty and nothing.columns.to_list() == table.columns.to_list()


def test_the_best_window_and_the_mean_of_all_make_the_recording():
    heard = windows([[0.1, 0.4], [0.9, 0.4]])
    assert timeline.recording_scores(heard, "max").tolist() == [0.9, 0.4]
    assert timeline.recording_scores(heard, "mean").tolist() == [0.5, 0.4]


@pytest.mark.parametrize("wrong", [{"median_windows": 2}, {"median_windows": 0}, {"off": 0.7}, {"pooling": "sum"}])
def test_a_decision_that_means_nothing_is_refused(wrong):
    settings = {"median_windows": 3, "on": 0.6, "off": 0.4, "pooling": "max", "recording": 0.5}
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        timeline.Decision(**(settings | wrong))


# -- frames and events, by the definitions of sed_eval -----------------------------------------------------------------


def test_all_scores_are_those_of_sed_eval(truth, found):
    table = timeline_scores.score_table({"model": found}, truth).set_index("score").estimate
    assert table.to_dict() == pytest.approx(SED_EVAL)
    by_class = timeline_scores.by_class({"model": found}, truth).set_index("class")
    for score, expected in SED_EVAL_CLASSES.items():
        assert by_class[score].to_dict() == pytest.approx(expected)


def test_a_worked_case_by_hand():
    """Four frames, two classes: wrong in one place each way, and both at once in the third frame."""
    real = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=bool)
    said = np.array([[1, 1], [0, 0], [0, 1], [0, 1]], dtype=bool)
    truth = Truth(CLASSES[:2], (real,), ([(0, 0.0, 3.0), (1, 3.0, 4.0)],), np.ones((1, 1), bool))
    table = timeline_scores.score_table({"model": [said]}, truth).set_index("score").estimate
    # 2 hits, 2 false alarms, 2 misses; errors: one insertion, one deletion, one substitution, over four.
    assert table.frame_micro_f1 == pytest.approx(0.5)
    assert table.frame_macro_f1 == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert table.error_rate == pytest.approx(3 / 4)
    # Found: class 0 from 0 to 1 s, class 1 from 0 to 1 and from 2 to 4 s; only the last fits, its onset 1 s early.
    assert table.event_micro_f1 == pytest.approx(2 / 5)
    assert table.event_micro_f1_half_s == 0


def test_an_instrument_that_is_never_found_counts_as_zero():
    """sed_eval leaves such a class out of its mean, so that who names less stands better."""
    real = np.ones((4, 2), bool)
    said = np.array([[1, 0]] * 4, dtype=bool)
    truth = Truth(CLASSES[:2], (real,), ([(0, 0.0, 4.0), (1, 0.0, 4.0)],), np.ones((1, 1), bool))
    table = timeline_scores.score_table({"model": [said]}, truth).set_index("score").estimate
    assert table.frame_macro_f1 == pytest.approx(0.5)
    assert table.event_macro_f1 == pytest.approx(0.5)


def test_an_onset_within_the_collar_and_an_offset_within_a_fifth_of_the_length_make_an_event_found():
    event = [(0, 10.0, 20.0)]
    fits = [(11.0, 20.0), (9.0, 22.0), (10.0, 18.0)]
    fails = [(11.01, 20.0), (10.0, 22.01), (10.0, 17.99), (8.9, 20.0)]
    for onset_s, offset_s in fits:
        assert timeline_scores.match_events(event, [(0, onset_s, offset_s)], collar_s=1.0), (onset_s, offset_s)
    for onset_s, offset_s in fails:
        assert not timeline_scores.match_events(event, [(0, onset_s, offset_s)], collar_s=1.0), (onset_s, offset_s)
    assert not timeline_scores.match_events(event, [(1, 10.0, 20.0)], collar_s=1.0)
    # Of a short event the collar itself is the larger.
    assert timeline_scores.match_events([(0, 1.0, 2.0)], [(0, 1.0, 3.0)], collar_s=1.0)


def test_as_many_pairs_are_made_as_there_can_be():
    """Held against the best of all assignments, tried one by one."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        real, said = (
            [
                (int(rng.integers(2)), start, start + rng.uniform(1, 4))
                for start in rng.uniform(0, 6, rng.integers(1, 6))
            ]
            for _ in range(2)
        )
        pairs = timeline_scores.match_events(real, said, collar_s=1.0)
        assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs)
        fits = [[bool(timeline_scores.match_events([one], [other], collar_s=1.0)) for other in said] for one in real]
        wide, tall = (fits, said) if len(real) <= len(said) else (np.transpose(fits), real)
        best = max(
            sum(bool(wide[row][column]) for row, column in enumerate(columns))
            for columns in itertools.permutations(range(len(tall)), len(wide))
        )
        assert len(pairs) == best


def test_scores_by_the_number_that_sounds_are_those_of_its_frames_alone(truth, found):
    table = timeline_scores.by_number({"model": found}, truth).set_index(["n_sounding", "score"])
    numbers = [real.sum(axis=1) for real in truth.frames]
    for number in (1, 2, 3):
        own = [one == number for one in numbers]
        hits, positive, real_sum = (
            sum(f(real[mask], said[mask]) for real, said, mask in zip(truth.frames, found, own, strict=True))
            for f in (lambda a, b: (a & b).sum(), lambda _, b: b.sum(), lambda a, _: a.sum())
        )
        row = table.loc[(number, "frame_f1")]
        assert row.estimate == pytest.approx(2 * hits / (positive + real_sum)) and row.n == sum(map(sum, own))
    silent = np.concatenate([said[one == 0] for said, one in zip(found, numbers, strict=True)])
    assert table.loc[(0, "named"), "estimate"] == pytest.approx(silent.any(axis=1).mean())
    assert sum(table.loc[(number, "event_f1"), "n"] for number in (1, 2, 3)) == 25


def test_a_perfect_timeline_scores_one_whatever_sounds(truth):
    perfect = {"perfect": truth.frames}
    table = timeline_scores.score_table(perfect, truth).set_index("score").estimate
    assert table[["frame_micro_f1", "frame_macro_f1"]].to_list() == [1, 1] and table.error_rate == 0
    numbers = timeline_scores.by_number(perfect, truth).set_index("score")
    assert (numbers.loc["frame_f1"].estimate == 1).all()


def test_nothing_found_scores_zero_and_makes_as_many_errors_as_there_is(truth):
    table = timeline_scores.score_table({"never": timeline_scores.trivial(truth, truth)["never on"]}, truth)
    expected = dict.fromkeys(timeline_scores.SCORES, 0.0) | {"error_rate": 1.0}
    assert table.set_index("score").estimate.to_dict() == expected
    numbers = timeline_scores.by_number({"never": timeline_scores.trivial(truth, truth)["never on"]}, truth)
    assert (numbers.estimate == 0).all()


def test_two_timelines_are_compared_on_the_same_pieces(truth, found):
    models = {"model": found, "perfect": truth.frames}
    table = timeline_scores.compare(models, [("perfect", "model")], truth).loc[("perfect", "model")]
    own = timeline_scores.score_table(models, truth).pivot(index="score", columns="model", values="estimate")
    for score in timeline_scores.SCORES:
        assert table.difference[score] == pytest.approx(own.perfect[score] - own.model[score])
    assert (table.p_holm >= table.p).all()


def test_what_never_names_anybody_is_met_by_its_errors_and_the_others_by_their_f1(truth, found):
    models = {"model": found, **timeline_scores.trivial(truth, truth)}
    table = timeline_scores.compare_trivial(models, "model", list(models)[1:], truth)
    scores = table.reset_index().set_index("second").score
    assert scores["never on"] == "error_rate" and (scores.drop("never on") == "frame_micro_f1").all()
    assert table.difference["model", "never on", "error_rate"] == pytest.approx(SED_EVAL["error_rate"] - 1)
    np.testing.assert_allclose(table.p_holm, intervals.holm(table.p.to_numpy()))
    assert len(table) == len(models) - 1


def ensembles(real, said, *, duration_s=10.0):
    """Pieces of an ensemble each, of two classes: what plays and what is found, a list of events each."""
    truth = truth_from(real, duration_s, 2)
    return truth, [timeline_scores.in_frames(one, duration_s, 2) for one in said]


# The first class plays in three of nine ensembles and is found worse in each; the second plays in two, and where it
# does not play it is found wrongly.
REAL = [[(0, 0.0, 8.0)]] * 3 + [[(1, 0.0, 8.0)]] * 2 + [[]] * 4
SAID = [[(0, 0.0, 8.0)], [(0, 0.0, 4.0)], [(0, 0.0, 1.0)], [(1, 0.0, 8.0)], [(1, 0.0, 3.0)], *[[(1, 0.0, 1.0)]] * 4]


def test_the_interval_of_an_instrument_is_over_the_ensembles_that_play_it():
    """The other ensembles are left out by nobody: three ensembles have Student's quantile of two degrees of freedom."""
    table = timeline_scores.by_class({"model": ensembles(REAL, SAID)[1]}, ensembles(REAL, SAID)[0]).set_index("class")
    assert table.n_ensembles.to_list() == [3, 2]
    first = table.iloc[0]
    # Found 8, 4 and 1 of 8 seconds: by hand, each left out in turn.
    without = np.array([2 * 5 / (5 + 16), 2 * 9 / (9 + 16), 2 * 12 / (12 + 16)])
    half = 4.302653 * np.sqrt(2 * without.var())
    assert first.frame_f1 == pytest.approx(2 * 13 / (13 + 24))
    assert first[["frame_f1_low", "frame_f1_high"]].to_list() == pytest.approx(
        [max(0.0, first.frame_f1 - half), min(1.0, first.frame_f1 + half)]
    )
    ends = [f"{score}_{end}" for score in ("frame_f1", "event_f1") for end in ("low", "high")]
    assert table.loc[CLASSES[1], ends].isna().all()
    # False alarms in ensembles that do not play it still cost.
    assert table.frame_f1[CLASSES[1]] == pytest.approx(2 * 11 / (2 * 11 + 4 + 5))


def test_where_all_ensembles_are_alike_there_is_no_interval():
    """Never found, or always: nothing varies, which does not make a score sure."""
    for said, score in (([[]] * 9, 0.0), (REAL, 1.0)):
        truth, found = ensembles(REAL, said)
        first = timeline_scores.by_class({"model": found}, truth).iloc[0]
        assert first.frame_f1 == score and np.isnan(first.frame_f1_low) and np.isnan(first.frame_f1_high)


def test_ensembles_without_a_class_do_not_move_its_interval():
    """Four more, which neither play it nor are said to."""
    few, many = (
        timeline_scores.by_class({"model": ensembles(real, said)[1]}, ensembles(real, said)[0]).iloc[0]
        for real, said in ((REAL[:5], SAID[:5]), (REAL, SAID))
    )
    assert few.frame_f1_low == pytest.approx(many.frame_f1_low) and few.frame_f1_high == pytest.approx(
        many.frame_f1_high
    )


def test_the_interval_of_a_number_is_over_the_ensembles_in_which_so_many_sound():
    both = [[(0, 0.0, 8.0), (1, 0.0, 8.0)], [(0, 0.0, 8.0), (1, 0.0, 2.0)]]
    truth, found = ensembles([*REAL[:3], *both], [*SAID[:3], *both])
    table = timeline_scores.by_number({"model": found}, truth).set_index(["n_sounding", "score"])
    assert table.n_ensembles[1, "frame_f1"] == 4 and table.n_ensembles[2, "frame_f1"] == 2
    assert np.isfinite(table.low[1, "frame_f1"]) and np.isnan(table.low[2, "frame_f1"])
    said = timeline_findings.sounding_sentence(table.reset_index(), "model")
    assert "2: 1.000." in said and "nan" not in said


# -- choices and answers that need no listening ------------------------------------------------------------------------


def heard_of(truth, *, noise, seed=0, scale=0.5):
    """Windows of a network that hears what plays in them, weakly and with noise."""
    rng = np.random.default_rng(seed)
    return [
        windows(
            np.clip(
                [scale * real[start : start + 3].mean(axis=0) + rng.normal(0, noise, 3) for start in range(38)], 0, 1
            )
        )
        for real in truth.frames
    ]


def test_the_choice_finds_thresholds_that_fit_a_network_that_is_too_shy(truth):
    heard = heard_of(truth, noise=0.02)
    decision, tried, lists = timeline_scores.choose(heard, truth)
    assert decision.on < 0.5 and decision.off <= decision.on
    table = timeline_scores.score_table({"chosen": timeline_scores.find(heard, decision, truth)}, truth)
    reached = table.set_index("score").estimate.frame_micro_f1
    assert reached == pytest.approx(tried.frame_micro_f1.max()) and reached > 0.9
    fixed = timeline_scores.Decision(1, 0.5, 0.5, "max", 0.5)
    shy = timeline_scores.score_table({"fixed": timeline_scores.find(heard, fixed, truth)}, truth)
    assert reached > shy.set_index("score").estimate.frame_micro_f1
    assert lists.index.to_list() == ["max", "mean"] and decision.pooling in lists.index


def test_smoothing_is_chosen_when_windows_are_noisy(truth):
    heard = heard_of(truth, noise=0.35, scale=1.0)
    decision, tried, _ = timeline_scores.choose(heard, truth)
    assert decision.median_windows > 1 or decision.off < decision.on
    simple = timeline_scores.plain(tried, decision)
    assert simple.median_windows == 1 and simple.on == simple.off
    one, other = (
        timeline_scores.score_table({"model": timeline_scores.find(heard, each, truth)}, truth).estimate[0]
        for each in (decision, simple)
    )
    assert one > other


def test_mean_pooling_is_chosen_where_one_window_in_many_is_a_false_alarm():
    real = [[(0, 0.0, 40.0)], [(1, 0.0, 40.0)], [(2, 0.0, 40.0)]]
    truth = truth_from(real)
    heard = []
    for piece, frames in enumerate(truth.frames):
        values = 0.6 * np.stack([frames[start : start + 3].mean(axis=0) for start in range(38)])
        values[5, (piece + 1) % 3] = 0.95
        heard.append(windows(values))
    decision, _, lists = timeline_scores.choose(heard, truth)
    assert decision.pooling == "mean" and lists.micro_f1["mean"] == 1 > lists.micro_f1["max"]
    named = timeline_scores.name_all(heard, decision)
    np.testing.assert_array_equal(named.present[0], truth.labels == 1)


def test_a_decision_comes_back_from_json_whole():
    decision = timeline.Decision(5, 0.6, 0.35, "mean", 0.2)
    assert timeline.Decision.from_dict({"network": "several", "hop_s": 1.0} | vars(decision)) == decision
    by_class = timeline.Decision.from_dict(vars(decision) | {"on": [0.6, 0.7]})
    np.testing.assert_array_equal(by_class.on, [0.6, 0.7])


def test_trivial_answers_know_what_they_say_they_know(truth):
    known = truth_from([[(0, 0.0, 40.0), (1, 0.0, 4.0)], [(0, 0.0, 40.0)]])
    found = timeline_scores.trivial(known, truth)
    np.testing.assert_array_equal(found["the most frequent"][0], np.tile([True, False, False], (40, 1)))
    table = timeline_scores.score_table(found, truth).set_index(["model", "score"]).estimate
    every = np.concatenate(truth.frames)
    assert table["always on", "frame_micro_f1"] == pytest.approx(2 * every.mean() / (1 + every.mean()))
    alone = truth_from([[(0, 0.0, 40.0)], [(1, 5.0, 15.0)]])
    oracle = timeline_scores.trivial(known, alone)["its instruments, always"]
    assert oracle[1][:, 1].all() and not oracle[1][:, [0, 2]].any()


# -- findings ----------------------------------------------------------------------------------------------------------


def test_the_sentences_say_what_the_numbers_say(truth, found):
    models = {"the network": found, **timeline_scores.trivial(truth, truth)}
    table = timeline_scores.score_table(models, truth)
    sentence = timeline_findings.timeline_sentence(table, "the network")
    assert "F1 of 0.690" in sentence and "0.450" in sentence and "0.250" in sentence
    compared = timeline_scores.compare_trivial(models, "the network", list(models)[1:], truth)
    sentence = timeline_findings.timeline_trivial_sentence(table, compared, "the network")
    assert "its instruments, always" in sentence and "never on" not in sentence
    assert "Its error rate of 0.446 is" in sentence and "the 1.000 of naming nobody" in sentence
    numbers = timeline_findings.sounding_sentence(timeline_scores.by_number(models, truth), "the network")
    assert numbers.startswith("By how many sound at once")
    instruments = timeline_findings.instruments_sentence(timeline_scores.by_class(models, truth), "the network")
    assert "finds best `flute` with a frame F1 of 0.710 (ensembles: 2)" in instruments
    assert "worst `cello` with a frame F1 of 0.667 (ensembles: 2)" in instruments and "[" not in instruments
    never = timeline_scores.by_class({"never": models["never on"]}, truth)
    assert "worst `cello`, `flute` and `piano` with" in timeline_findings.instruments_sentence(never, "never")


def compared_rows(rows):
    """Comparisons as `compare` gives them, from first, second, score, difference, low, high and p_holm."""
    columns = ["first", "second", "score", "difference", "low", "high", "p_holm"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:3])


def test_what_is_said_to_differ_is_decided_after_correction_for_the_number_of_comparisons():
    """An interval of one comparison alone may lie above 0 where the corrected p does not let it count."""
    frame_f1 = {"net": 0.5, "always on": 0.4, "the list": 0.3, "its instruments, always": 0.7, "never on": 0.0}
    error_rate = dict.fromkeys(frame_f1, 2.0) | {"net": 0.9, "never on": 1.0}
    scores = {"frame_micro_f1": frame_f1, "error_rate": error_rate}
    table = pd.DataFrame(
        [(name, score, value) for score, of in scores.items() for name, value in of.items()],
        columns=["model", "score", "estimate"],
    )
    rows = [
        ("net", "always on", "frame_micro_f1", 0.1, 0.01, 0.19, 0.08),
        ("net", "the list", "frame_micro_f1", 0.2, 0.1, 0.3, 0.004),
        ("net", "its instruments, always", "frame_micro_f1", -0.2, -0.3, -0.1, 0.004),
        ("net", "never on", "error_rate", -0.1, -0.19, -0.01, 0.08),
    ]
    said = timeline_findings.timeline_trivial_sentence(table, compared_rows(rows), "net")
    assert "is better than “the list” (0.300); worse than “its instruments, always” (0.700); not shown" in said
    assert "not shown to differ from “always on” (0.400)." in said
    assert "Its error rate of 0.900 is not shown to differ from the 1.000 of naming nobody: -0.100" in said
    for difference, word in ((-0.1, "lower"), (0.1, "higher")):
        sure = compared_rows([*rows[:3], (*rows[3][:3], difference, difference - 0.05, difference + 0.05, 0.01)])
        said = timeline_findings.timeline_trivial_sentence(table, sure, "net")
        assert f"is {word} than the 1.000 of naming nobody" in said
    said = timeline_findings.comparison_sentence(
        compared_rows(rows), "net", "always on", "frame_micro_f1", what="frame F1"
    )
    assert said.startswith("These pieces do not show a difference between “net” and “always on”: frame F1 +0.100")
    assert said.endswith("p = 0.080 after Holm's correction for 4 comparisons.")
    said = timeline_findings.comparison_sentence(
        compared_rows(rows), "net", "its instruments, always", "frame_micro_f1", what="frame F1"
    )
    assert said.startswith("“net” is worse than “its instruments, always”")


def test_a_list_that_does_not_beat_naming_everything_is_said_not_to():
    estimates = {
        ("max", "micro_f1"): 0.5, ("mean", "micro_f1"): 0.55, ("all present", "micro_f1"): 0.43,
        ("max", "mean_average_precision"): 0.7, ("mean", "mean_average_precision"): 0.66,
        ("all present", "mean_average_precision"): 0.27, ("max", "precision"): 0.4, ("max", "recall"): 0.6,
    }  # fmt: skip
    table = pd.DataFrame([(*key, value, 0.1, 0.9) for key, value in estimates.items()])
    table.columns = ["model", "score", "estimate", "low", "high"]
    compared = compared_rows(
        [
            ("max", "mean", "micro_f1", -0.05, -0.2, 0.1, 0.9),
            ("max", "all present", "micro_f1", 0.07, 0.01, 0.13, 0.06),
            ("max", "mean", "mean_average_precision", 0.05, -0.1, 0.2, 0.9),
            ("max", "all present", "mean_average_precision", 0.43, 0.2, 0.6, 0.01),
        ]
    )
    for chosen in ("max", "mean"):
        of_chosen = compared
        if chosen == "mean":
            swapped = [
                (first if second == "mean" else "mean", second, score) for first, second, score in compared.index
            ]
            of_chosen = compared.set_axis(pd.MultiIndex.from_tuples(swapped, names=compared.index.names))
        said = timeline_findings.list_trivial_sentence(chosen, table, of_chosen)
        assert "that list is not shown to differ from “all present” (0.430): +0.070 [+0.010, +0.130], p = 0.060" in said
        assert "it is better than “all present” (0.270)" in said and "“mean”" not in said and "“max”" not in said
    lists = pd.DataFrame({"micro_f1": {"max": 0.7, "mean": 0.6}})
    said = timeline_findings.pooling_sentence("max", lists, table, compared)
    assert "max pooling less mean pooling: -0.050 [-0.200, +0.100], p = 0.900 after Holm's correction for 4" in said


# -- listening ---------------------------------------------------------------------------------------------------------


def test_pieces_of_clips_that_the_network_may_have_learned_from_are_refused(pieces_made, small, tmp_path):
    network = Network(Path("none.tflite"), FeatureConfig(), None, "sigmoid", 1.0, np.full(3, 0.5))
    listen = functools.partial(timeline_scores.listen, tmp_path / "a.npz", network, pieces_made, window_s=3.0)
    with pytest.raises(LeakError, match=r"plays .* which the network may have been trained on"):
        listen(small.split, trained_on="another split")
    moved = Split(small.split.parts.replace({"test": "train"}), small.split.seed)
    with pytest.raises(LeakError, match="The test piece test-0-00-0 plays"):
        listen(moved, trained_on=moved.fingerprint)


def test_what_was_heard_is_kept_and_belongs_to_its_network(pieces_made, small, tmp_path, monkeypatch):
    (tmp_path / "one.tflite").write_bytes(b"one")
    network = Network(tmp_path / "one.tflite", FeatureConfig(), None, "sigmoid", 1.0, np.full(3, 0.5))
    calls = []

    def heard(file, network, **_):
        calls.append(file)
        return windows(np.full((4 + len(calls) % 2, 3), len(calls) / 100))

    monkeypatch.setattr(timeline_scores, "window_scores", heard)
    arguments = {"pieces": pieces_made, "split": small.split, "trained_on": small.split.fingerprint}
    arguments |= {"window_s": 3.0, "workers": 1}
    first = timeline_scores.listen(tmp_path / "a.npz", network, **arguments)
    n_pieces = len(pieces_made.corpus.manifest)
    assert len(calls) == len(first) == n_pieces
    again = timeline_scores.listen(tmp_path / "a.npz", network, **arguments)
    assert len(calls) == n_pieces
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_array_equal(one.start_s, other.start_s)
    (tmp_path / "one.tflite").write_bytes(b"another")
    timeline_scores.listen(tmp_path / "a.npz", network, **arguments)
    assert len(calls) == 2 * n_pieces


def test_moments_to_listen_to_are_such_in_which_somebody_plays(pieces_made):
    truth = timeline_scores.truth_of(pieces_made)
    table = timeline_scores.moments(pieces_made, 0, {"found": truth.frames}, truth, n=3)
    assert len(table) == 3 and (table.plays == table.found).all() and (table.plays != "nobody").all()
    assert (table.start_s + 3 <= pieces_made.corpus.manifest.duration_s[0] + 1).all()


def test_lists_are_scored_beside_those_that_need_no_listening(pieces_made):
    truth = timeline_scores.truth_of(pieces_made)
    perfect = layered_scores.Answer(truth.labels[None], truth.labels[None] == 1)
    lists = {"perfect": perfect, **layered_scores.trivial(pieces_made)}
    table = timeline_scores.list_table(lists, pieces_made, "test").pivot(index="model", columns="score")
    assert (table.estimate.loc["perfect", ["precision", "recall", "micro_f1", "mean_average_precision"]] == 1).all()
    test = truth.labels[pieces_made.rows("test")]
    assert table.estimate.precision["all present"] == pytest.approx(test.mean())
    assert table.estimate.recall["all present"] == 1 and table.estimate.recall["none present"] == 0
    assert pd.isna(table.estimate.precision["none present"])


def test_the_chosen_list_meets_each_trivial_list_once_by_a_score_that_tells_something(pieces_made):
    labels = timeline_scores.truth_of(pieces_made).labels[None]
    perfect, half = (layered_scores.Answer(scores, scores > 0) for scores in (labels, labels * [1, 0, 1]))
    trivial = layered_scores.trivial(pieces_made)
    naming = [name for name, one in trivial.items() if one.present.any()]
    table = timeline_scores.compare_lists({"max": perfect, "mean": half}, "mean", pieces_made, "validation")
    pairs = [("max", "mean"), *(("mean", name) for name in naming)]
    expected = [(*pair, "micro_f1") for pair in pairs] + [(*pair, "mean_average_precision") for pair in pairs[:2]]
    assert table.index.to_list() == expected and "all present" in naming and "none present" not in naming
    assert table.p.notna().sum() > 3
    np.testing.assert_allclose(table.p_holm, intervals.holm(table.p.to_numpy()))
    # Those that are left out would give the same number again.
    scored = timeline_scores.list_table(trivial, pieces_made, "validation").set_index("score")
    assert scored.estimate["mean_average_precision"].nunique() == 1
    assert (scored.estimate["micro_f1"].to_numpy() == 0).sum() == len(trivial) - len(naming)


def test_a_network_that_is_given_away_hears_the_pieces_as_it_would_any_file(model_folder, pieces_made, small, tmp_path):
    model = open_model(model_folder)
    for network, window_s in ((model.single, 2.0), (model.several, 3.0)):
        heard = timeline_scores.listen(
            tmp_path / f"{network.file.stem}.npz", network, pieces_made, small.split,
            trained_on=model.about["split"], window_s=window_s, workers=1,
        )  # fmt: skip
        for one, piece in zip(heard, pieces_made.corpus.manifest.itertuples(), strict=True):
            assert len(one.start_s) == np.ceil(piece.duration_s - window_s) + 1 and one.window_s == window_s
        file = pieces_made.corpus.root / pieces_made.corpus.manifest.path[0]
        direct = window_scores(file, network, window_s=window_s)
        np.testing.assert_array_equal(heard[0].probabilities, direct.probabilities)
    truth = timeline_scores.truth_of(pieces_made)
    decision, *_ = timeline_scores.choose(heard, truth)
    found = timeline_scores.find(heard, decision, truth)
    assert [one.shape for one in found] == [one.shape for one in truth.frames]


def test_the_decision_is_kept_in_the_model_folder_and_read_back(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    decision = timeline.Decision(3, 0.5, 0.25, "mean", 0.125)
    release.note(folder, timeline={"network": "several", "hop_s": 1.0, "window_s": 3.0, **vars(decision)})
    assert timeline.Decision.from_dict(open_model(folder).about["timeline"]) == decision
