"""Two studies side by side: differences with intervals, what differs else, and what only one has."""

import json
import math
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from instrlib.core.errors import RunError
from instrlib.evaluation import intervals
from instrlib.evaluation.intervals import Interval
from instrlib.reporting import compare

Z = stats.norm.ppf(0.975)


def score(estimate, low=None, high=None, **more):
    """An interval as results.json holds it; 0.1 to either side when no ends are given."""
    low, high = (estimate - 0.1, estimate + 0.1) if low is None else (low, high)
    return {"estimate": estimate, "low": low, "high": high, **more}


def manifest(split="s0", corpus="c0", **more):
    """What a notebook of a made-up study says of itself."""
    parameters = {"corpus": "rendered", "data": "", "profile": "quick", "seeds": 3}
    made = {"parameters": parameters, "inputs": {"corpus": corpus, "features": "f0", "split": split}, "uses": []}
    return made | {"versions": {"numpy": "2.4.6"}, "commit": "0123abc"} | more


def study(**notebooks):
    """The results of a made-up study; its notebooks as metrics, or as metrics and manifest."""
    entries = {}
    for name, given in notebooks.items():
        metrics, of = given if isinstance(given, tuple) else (given, manifest())
        entries[name] = {"metrics": metrics, "manifest": of}
    return {"study": "rendered-quick", "notebooks": entries}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes results and gives their path."""

    def written(results, folder):
        path = tmp_path / folder / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(results))
        return path

    return written


@pytest.fixture
def two(write):
    """Return the paths of two studies: one model is much better in the second, one is new, one is gone."""
    first = study(
        **{
            "01_preprocessing": {"n_clips": 720, "n_groups": 123},
            "02_baseline_cnn": {
                "n_tested": 138,
                "scores": {
                    "compact CNN": {"accuracy": score(0.4), "log_loss": score(1.5)},
                    "majority class": {"accuracy": score(0.1, 0.05, 0.15)},
                    "gone": {"accuracy": score(0.3)},
                },
            },
            "03_cutmix": {"scores": {"CutMix": {"accuracy": score(0.5)}, "MixUp": {"accuracy": score(0.45)}}},
            "10_layered_audio": {"by_number": [score(0.5, n_sources=1, model="several", score="micro_f1")]},
            "11_timeline": {"scores": {"several": {"accuracy": score(0.2)}}},
        }
    )
    second = study(
        **{
            "01_preprocessing": ({"n_clips": 221, "n_groups": 88}, manifest("s1", "c1")),
            "02_baseline_cnn": {
                "n_tested": 221,
                "scores": {
                    "compact CNN": {"accuracy": score(0.9), "log_loss": score(0.5)},
                    "majority class": {"accuracy": score(0.6, 0.55, 0.65)},
                    "new": {"accuracy": score(0.3)},
                },
            },
            "03_cutmix": {"scores": {"CutMix": {"accuracy": score(0.52)}, "MixUp": {"accuracy": score(0.35)}}},
            "10_layered_audio": {"by_number": [score(0.6, n_sources=1, model="several", score="micro_f1")]},
        }
    )
    return write(first, "first"), write(second, "second")


# -- the interval of a difference --------------------------------------------------------------------------------------


def test_of_normal_scores_it_is_the_normal_interval_and_p():
    for a, sd_a, b, sd_b in ((0.5, 0.05, 0.62, 0.03), (0.9, 0.01, 0.7, 0.08), (0.3, 0.1, 0.31, 0.1)):
        found = compare.mover(Interval(a, a - Z * sd_a, a + Z * sd_a), Interval(b, b - Z * sd_b, b + Z * sd_b))
        deviation = math.hypot(sd_a, sd_b)
        expected = (b - a, b - a - Z * deviation, b - a + Z * deviation)
        np.testing.assert_allclose((found.estimate, found.low, found.high), expected, atol=1e-12)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(b - a) / deviation), abs=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "expected"), [((48, 80), (56, 70), (0.0524, 0.3339)), ((3, 10), (9, 10), (0.1705, 0.8090))]
)
def test_of_wilsons_intervals_it_is_the_published_one_of_newcombe(first, second, expected):
    """Newcombe 1998, table II, method 10."""
    sides = []
    for right, n in (first, second):
        ends = stats.binomtest(right, n).proportion_ci(method="wilson")
        sides.append(Interval(right / n, ends.low, ends.high))
    found = compare.mover(*sides)
    np.testing.assert_allclose((found.low, found.high), expected, atol=5e-5)


def test_it_agrees_with_a_bootstrap_of_both_where_they_are_independent():
    rng = np.random.default_rng(0)
    answers, groups, sides = [], [], []
    for number, share in enumerate((0.55, 0.72)):
        hard = np.repeat(rng.normal(0, 0.1, 60), 5)
        answers.append((rng.uniform(size=300) < share + hard).astype(float))
        groups.append(np.repeat([f"{number}/{group}" for group in range(60)], 5))
        sides.append(intervals.bootstrap_mean(answers[-1], groups[-1], n_resamples=4000, seed=number))
    expected = intervals.unpaired_difference(answers[1], groups[1], answers[0], groups[0], n_resamples=4000, seed=3)
    found = compare.mover(*sides)
    assert found.estimate == pytest.approx(expected.estimate)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), atol=0.012)


def test_on_the_same_clips_it_is_wider_than_the_paired_one_as_the_page_says():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 2, 400).astype(float)
    second = np.where(rng.uniform(size=400) < 0.1, 1 - first, first)
    groups = np.arange(400)
    sides = [intervals.bootstrap_mean(one, groups, n_resamples=2000, seed=0) for one in (first, second)]
    paired = intervals.bootstrap_mean(second - first, groups, n_resamples=2000, seed=0)
    found = compare.mover(*sides)
    assert found.high - found.low > 1.5 * (paired.high - paired.low)


def test_it_leaves_0_out_exactly_when_p_is_below_a_twentieth():
    for second in np.linspace(0.3, 0.9, 61):
        found = compare.mover(Interval(0.6, 0.45, 0.68), Interval(second, second - 0.05, second + 0.02))
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        assert found.low <= found.estimate <= found.high


def test_what_is_not_known_stays_unknown():
    nan = math.nan
    no_ends = compare.mover(Interval(0.5, nan, nan), Interval(0.8, 0.7, 0.9))
    no_width = compare.mover(Interval(0.5, 0.4, 0.6), Interval(1, 1, 1))
    no_distance = compare.mover(Interval(0.4, 0.3, 0.4), Interval(0.6, 0.6, 0.7))
    for found in (no_ends, no_width, no_distance):
        assert math.isnan(found.low) and math.isnan(found.high) and math.isnan(found.p)
    assert compare.mover(Interval(0.3, 0.2, 0.4), Interval(0.3, 0.2, 0.4)).p == 1
    outside = compare.mover(Interval(0.5, 0.4, 0.6), Interval(0.05, 0.06, 0.2))
    assert outside.low == pytest.approx(-0.45 - 0.1), "an estimate that its interval leaves out counts as its end"


# -- the table ---------------------------------------------------------------------------------------------------------


def test_every_score_that_both_have_is_compared_in_its_place(two):
    table = compare.compare(*two)
    places = list(zip(table.notebook, table.section, table.row, table.score, strict=True))
    assert places == [
        ("02_baseline_cnn", "scores", "compact CNN", "accuracy"),
        ("02_baseline_cnn", "scores", "compact CNN", "log_loss"),
        ("02_baseline_cnn", "scores", "majority class", "accuracy"),
        ("03_cutmix", "scores", "CutMix", "accuracy"),
        ("03_cutmix", "scores", "MixUp", "accuracy"),
        ("10_layered_audio", "by_number", "1, several", "micro_f1"),
    ]
    row = table.iloc[0]
    assert (row["first"], row.second, row.first_low, row.second_high) == (0.4, 0.9, 0.30000000000000004, 1.0)
    assert row.difference == pytest.approx(0.5), "second minus first"
    assert table.difference.iloc[1] == pytest.approx(-1.0)


def test_holms_correction_is_over_the_main_scores_of_models_alone(two):
    table = compare.compare(*two)
    assert table[table.primary].row.to_list() == ["compact CNN", "CutMix", "MixUp"], "no trivial answer, no loss"
    np.testing.assert_allclose(table.p_holm[table.primary], intervals.holm(table.p[table.primary].to_numpy()))
    assert table.p_holm[~table.primary].isna().all()


def test_a_model_that_two_notebooks_show_counts_once(write):
    shown = {"scores": {"compact CNN": {"accuracy": score(0.4)}}}
    again = {"scores": {"dense": {"accuracy": score(0.4)}, "pruned": {"accuracy": score(0.41)}}}
    paths = [write(study(**{"02_a": shown, "05_b": again}), folder) for folder in ("one", "other")]
    table = compare.compare(*paths)
    assert table.primary.to_list() == [True, False, True]


def test_two_records_of_one_name_are_not_guessed_at(write):
    records = {"curve": [score(0.4, model="a", n=10), score(0.5, model="a", n=20), score(0.6, model="b", n=10)]}
    paths = [write(study(**{"09_transfer": records}), folder) for folder in ("one", "other")]
    assert compare.compare(*paths).row.to_list() == ["b"]


def test_ends_that_are_missing_leave_a_difference_without_an_interval(write):
    alone = {"scores": {"m": {"accuracy": {"estimate": 0.5, "low": None, "high": None}, "macro_f1": score(0.4)}}}
    nothing = {"scores": {"m": {"accuracy": {"estimate": None, "low": None, "high": None}, "macro_f1": score(0.5)}}}
    one, other, empty = (write(study(**{"02_a": given}), f"{n}") for n, given in enumerate((alone, alone, nothing)))
    assert compare.compare(one, other).low.isna().tolist() == [True, False]
    assert compare.compare(one, empty).score.to_list() == ["macro_f1"], "a score that could not be had is none"


# -- words and the page ------------------------------------------------------------------------------------------------


def test_it_says_what_is_shown_what_differs_and_what_only_one_has(two):
    found = compare.side_by_side(*two)
    assert (found.first, found.second) == ("rendered-quick (first)", "rendered-quick (second)")
    said = " ".join(found.findings)
    assert "6 scores stand in both, none with the same numbers" in said
    assert "3 are primary, the main score of each model: 1 of these are shown to differ" in said
    assert "Higher in rendered-quick (second): compact CNN in 02 (+0.50 [+0.36, +0.64])." in said
    assert "For 2 primary scores no difference is shown" in said
    assert "They did not hear the same clips" in said
    assert "The best trivial answer scores 0.10 in rendered-quick (first) and 0.60 in rendered-quick (second)." in said
    differing = {name: (one, other) for name, one, other in found.differing}
    assert differing == {
        "clips": ("720", "221"),
        "groups": ("123", "88"),
        "clips tested by 02": ("138", "221"),
        "fingerprint of the clips": ("c0", "c1"),
        "fingerprint of the split": ("s0", "s1"),
        "notebooks": ("01, 02, 03, 10, 11", "01, 02, 03, 10"),
    }
    assert ("numpy", "2.4.6", "2.4.6") in found.same
    assert found.only == {
        "rendered-quick (first)": ["02_baseline_cnn: 1 score, of gone", "11_timeline as a whole, with 1 score"],
        "rendered-quick (second)": ["02_baseline_cnn: 1 score, of new"],
    }


def test_of_the_same_clips_it_says_that_the_intervals_are_wider_than_need_be(write):
    first, second = (
        study(**{"01_preprocessing": {}, "02_a": {"scores": {"m": {"accuracy": score(value)}}}}) for value in (0.4, 0.5)
    )
    third = study(**{"01_preprocessing": ({}, manifest("other")), "02_a": {"scores": {"m": {"accuracy": score(0.5)}}}})
    paths = [write(results, f"{n}") for n, results in enumerate((first, second, third))]
    assert any("wider than need be" in one for one in compare.side_by_side(*paths[:2]).findings)
    assert any("split in another way" in one for one in compare.side_by_side(paths[0], paths[2]).findings)


def test_a_study_is_the_same_as_itself(two):
    found = compare.side_by_side(two[0], two[0])
    assert found.findings == ["All 8 scores that stand in both are the same to the last digit."]
    assert found.differing == () and (found.table.difference == 0).all() and (found.table.p == 1).all()


def test_modules_that_changed_between_two_versions_are_named(write):
    versions = [
        study(
            **{"02_a": ({"scores": {"m": {"accuracy": score(value)}}}, manifest(code={"its code": "a", "m.x": mark}))}
        )
        for value, mark in ((0.4, "1"), (0.5, "2"))
    ]
    paths = [write(results, f"{n}") for n, results in enumerate(versions)]
    assert compare.side_by_side(*paths).findings[-1] == "The code differs in 02: m.x."


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects attributes and words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        assert tag not in ("script", "iframe", "object")
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data.split()


def test_the_page_shows_all_of_it_and_asks_no_other_host_for_anything(two, tmp_path):
    path = compare.write_comparison(compare.side_by_side(*two))
    assert path == tmp_path / "reports/compare/rendered-quick-first--rendered-quick-second.html"
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.words)
    for expected in (
        "compact CNN accuracy 0.40 [0.30, 0.50] 0.90 [0.80, 1.00] +0.50 [+0.36, +0.64] < 0.001",
        "which takes the two as independent", "majority class", "rendered-quick (second) alone has", "All 3 scores",
        "clips 720 221",
    ):  # fmt: skip
        assert expected in text
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:")
    assert compare.write_comparison(compare.side_by_side(*two)).read_text() == path.read_text(), "the same again"


def test_in_a_terminal_what_rose_most_comes_first_in_each_notebook(two):
    rows = compare.terminal_rows(compare.side_by_side(*two))
    assert [row[:2] for row in rows] == [("02", "compact CNN"), ("03", "CutMix"), ("03", "MixUp")]
    assert rows[1] == (
        "03",
        "CutMix",
        "accuracy",
        "0.50 [0.40, 0.60]",
        "0.52 [0.42, 0.62]",
        "+0.02 [-0.12, +0.16]",
        "0.782",
    )
    assert all(len(row) == len(compare.COLUMNS) for row in rows)


# -- where results are found -------------------------------------------------------------------------------------------


def test_results_are_found_by_study_folder_file_and_revision(two, tmp_path, monkeypatch):
    reports = tmp_path / "reports"
    place = reports / "rendered-quick" / "results.json"
    place.parent.mkdir(parents=True)
    place.write_text(two[0].read_text())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "reports"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    place.write_text(two[1].read_text())
    monkeypatch.chdir(two[0].parent)
    now = compare.read_results("rendered-quick")
    assert now.label == "rendered-quick" and now.notebooks == json.loads(two[1].read_text())["notebooks"]
    assert compare.read_results(two[1]).notebooks == compare.read_results(two[1].parent).notebooks == now.notebooks
    before = compare.read_results("rendered-quick@HEAD")
    assert before.label == "rendered-quick@HEAD"
    assert before.notebooks == json.loads(two[0].read_text())["notebooks"]
    with pytest.raises(RunError, match=r"git has no results of rendered-quick at none-such \(.*; `git log --"):
        compare.read_results("rendered-quick@none-such")
    with pytest.raises(RunError, match=r"git has no results of none at HEAD"):
        compare.read_results("none@HEAD")


def test_what_is_no_study_is_refused_in_one_sentence(two, write, tmp_path):
    with pytest.raises(RunError, match=r"no results of none-quick: give a study of .*, a folder .* or STUDY@REVISION"):
        compare.read_results("none-quick")
    whole = {"metrics": {}, "manifest": {"parameters": {}, "versions": {}}}
    for number, entry in enumerate((1, None, {}, {**whole, "metrics": []}, {**whole, "manifest": {}})):
        with pytest.raises(RunError, match="does not hold the results of a study; give the"):
            compare.read_results(write({"notebooks": {"01_a": whole, "02_b": entry}}, f"entry {number}"))
    with pytest.raises(RunError, match="does not hold the results of a study"):
        compare.read_results(write({"a": 1}, "else"))
    with pytest.raises(RunError, match="have no score in common"):
        compare.compare(two[0], write(study(**{"02_a": {}}), "empty"))
