"""The study side by side: one comparison a notebook, whatever it shows; every model once; what does not fit is told."""

import json

import pandas as pd
import pytest

from instrlib import plots
from instrlib.core.config import get_profile
from instrlib.core.io import read_json, write_json
from instrlib.evaluation.statistics import holm
from instrlib.findings import overview as said
from instrlib.reporting import overview
from instrlib.runner.run import open_run


def score(estimate, half=0.1):
    """Return a score and its interval."""
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}


def scores(**models):
    """Return what a notebook saves of its models' scores."""
    return {name: {"accuracy": score(value), "macro_f1": score(value)} for name, value in models.items()}


def difference(value, p, **more):
    """Return what a notebook saves of a difference."""
    return {"difference": value, "low": value - 0.1, "high": value + 0.1, "p": p} | more


TRIVIAL = {"majority class": score(0.1)["estimate"]}


def entry(metrics, **manifest):
    """Return a notebook as results.json holds it."""
    made = {
        "parameters": {"corpus": "rendered", "data": "", "profile": "quick", "seeds": 3},
        "inputs": {"features": "f-g", "split": "s"},
        "uses": [],
        "versions": {"numpy": "2"},
        "commit": "abc",
    }
    return {"metrics": {"findings": ["Something."]} | metrics, "manifest": made | manifest}


@pytest.fixture
def notebooks():
    """Return a study of six notebooks; the others were not run."""
    leak = {"estimate": 0.3, "low": 0.2, "high": 0.4, "p": 0.01}
    same = {"compact CNN": {"accuracy": score(0.5), "macro_f1": score(0.5)}}
    cost = {"multiply_adds": 2e6, "parameters": 100}
    return {
        "01_a": entry({"leak_difference": leak, "n_groups": 40}, inputs={"corpus": "f", "features": "g", "split": "s"}),
        "02_b": entry(
            {
                "scores": same | scores(**TRIVIAL),
                "comparison": {"against": "majority class", "difference": score(0.4) | {"p": 0.002}},
                "trained": [{"multiply_adds": 4_000_000, "parameters": 200}],
                "n_tested": 100,
            }
        ),
        "03_c": entry(
            {
                "scores": scores(**{"no augmentation": 0.3, "CutMix": 0.32}, **TRIVIAL),
                "against_no_augmentation": {"CutMix": difference(0.02, 0.5, p_holm=1.0)},
                "trained": {"no augmentation": cost, "CutMix": cost},
            }
        ),
        "05_e": entry({"scores": {"dense": same["compact CNN"], "pruned": {"accuracy": score(0.2)}}}),
        "07_g": entry(
            {
                "scores": scores(full=0.3, narrow=0.2, wide=0.31),
                "against": {
                    "narrow": difference(-0.1, 0.001, p_holm=0.002),
                    "wide": difference(0.01, 0.7, p_holm=0.7),
                },
            }
        ),
        "09_i": entry({"scores": scores(**{"compact CNN": 0.9, "majority class": 0.2})}),
    }


def test_each_notebook_gives_its_one_comparison_and_p_is_corrected_over_all(notebooks):
    table = overview.comparisons(notebooks)
    assert table.index.to_list() == ["01_a", "02_b", "03_c", "07_g"], "the others compared nothing"
    assert table.loc["03_c", ["first", "second", "score"]].to_list() == ["CutMix", "no augmentation", "accuracy"]
    assert table.p_holm.to_list() == holm(table.p.to_numpy()).tolist()
    assert table.shown.to_list() == [True, True, False, True]


def test_of_a_family_the_least_p_stands_as_it_was_corrected_for_its_size(notebooks):
    row = overview.comparisons(notebooks).loc["07_g"]
    assert (row["first"], row.second, row.p, row.family) == ("narrow", "full", 0.002, 2)
    assert "the least of 2 and corrected for them" in said.comparison_sentences(overview.comparisons(notebooks))[3]


def test_of_the_falls_to_other_domains_those_of_the_studys_own_networks_count_and_are_corrected_for(notebooks):
    falls = [("own", "a", 0.04), ("own", "b", 0.02), ("a", "own", 0.001)]
    ends = {"drop": 0.1, "drop_low": 0.0, "drop_high": 0.2, "p_holm": 1.0}
    matrix = [{"trained_on": first, "tested_on": second, "p": p} | ends for first, second, p in falls]
    notebooks["13_m"] = entry({"domains": ["own", "a", "b"], "matrix": matrix})
    row = overview.comparisons(notebooks).loc["13_m"]
    assert (row["first"], row.family, row.p) == ("trained on own, tested on b", 2, 0.04)


def test_which_comparison_is_read_does_not_depend_on_the_result(notebooks):
    notebooks["08_h"] = entry(
        {
            "scores": scores(**{"compact CNN": 0.5}),
            "against": {"random forest": difference(-0.2, 0.03), "other": difference(0.4, 0.001)},
        }
    )
    row = overview.comparisons(notebooks).loc["08_h"]
    assert (row["first"], row.second, row.difference) == ("compact CNN", "random forest", 0.2)
    assert (row.low, row.high) == pytest.approx((0.1, 0.3)), "the interval is turned with the difference"
    notebooks["08_h"]["metrics"]["against"]["random forest"] |= {"low": None, "high": None, "p": None}
    row = overview.comparisons(notebooks).loc["08_h"]
    assert row.difference == 0.2 and pd.isna(row.low) and not row.shown, "a single group has no interval"


def test_a_comparison_without_a_test_has_no_p_and_is_not_shown():
    nothing = {"estimate": 0.3, "low": None, "high": None, "p": None}
    table = overview.comparisons({"01_a": entry({"leak_difference": nothing})})
    assert table.p_holm.isna().all() and not table.shown.any()
    assert said.comparison_sentences(table) == [
        "01: no difference is shown between “random forest, segments at random” and “whole groups” "
        "(accuracy over segments too few groups to tell)."
    ]


def test_a_model_with_the_same_answers_stands_once_and_other_test_clips_are_left_out(notebooks):
    table = overview.models(notebooks)
    assert table.model.to_list() == [
        "compact CNN",
        "majority class",
        "no augmentation",
        "CutMix",
        "pruned",
        "narrow",
        "wide",
    ]
    assert table["also"].iloc[[0, 2]].to_list() == ["dense (05)", "full (07)"]
    assert table.kind.to_list() == ["trained", "trivial", *["trained"] * 5]
    assert "09_i" not in set(table.notebook), "its majority class scores otherwise, so its clips are others"


def test_costs_stand_beside_scores_and_the_front_holds_what_none_beats_at_both(notebooks):
    table = overview.costs(notebooks)
    assert table.model.to_list() == ["compact CNN", "no augmentation", "CutMix"]
    assert overview.unbeaten(table).to_list() == [True, False, True]
    sentence = said.work_sentence(table, overview.unbeaten(table), "accuracy")
    assert "“CutMix” (0.320 for 2) and “compact CNN” (0.500 for 4) are beaten by none of the 3" in sentence


def test_work_is_counted_for_as_much_sound_whatever_the_length_of_a_segment(notebooks):
    notebooks["08_h"] = entry(
        {
            "scores": scores(long=0.4),
            "models": {"long": {"multiply_adds": 8e6, "parameters": 5}, "tree": {"multiply_adds": None}},
            "references": {"long": {"segment_s": 12.0}},
        }
    )
    table = overview.costs(notebooks).set_index("model")
    assert table.multiply_adds["long"] == 2e6, "12 s are four segments of 3 s"


def test_everything_that_fits_together_holds(notebooks):
    table = overview.checks(notebooks)
    assert table.holds.all()
    assert said.check_sentence(table) == "All 7 checks that the notebooks' numbers belong together hold."


@pytest.mark.parametrize(
    ("change", "check", "detail"),
    [
        ({"inputs": {"features": "f-g", "split": "t"}}, "the same features are split in the same way", "f-g: s, t"),
        ({"uses": ["04_d"]}, "every run that was used is there", "03_c: 04_d"),
        ({"parameters": {"seeds": 1}}, "all ran with the same parameters", "01, 02, 05, 07, 09; 03"),
        ({"versions": {"numpy": "1"}}, "all ran on the same versions", "01, 02, 05, 07, 09; 03"),
        ({"commit": "abd"}, "all ran at the same commit", "01, 02, 05, 07, 09; 03"),
        ({"commit": "abc+"}, "no file differed from its commit", "03"),
        ({"commit": ""}, "no file differed from its commit", "03"),
    ],
)
def test_what_does_not_fit_is_named(notebooks, change, check, detail):
    notebooks["03_c"]["manifest"] |= change
    row = overview.checks(notebooks).loc[check]
    assert not row.holds and row.detail == detail
    assert f"{check} ({detail})" in said.check_sentence(overview.checks(notebooks))


def test_a_notebook_that_found_nothing_is_named(notebooks):
    notebooks["03_c"]["metrics"]["findings"] = []
    assert overview.checks(notebooks).loc["every notebook says what it found", "detail"] == "03_c"


def test_it_says_how_many_hold_and_how_the_best_was_picked(notebooks):
    table = overview.comparisons(notebooks)
    assert said.held_sentence(table) == (
        "Of the 4 main comparisons of this study, one a notebook, 3 show a difference after Holm's correction for all "
        "of them. Shown: 01, 02 and 07. Not shown: 03."
    )
    sentence = said.best_sentence(overview.models(notebooks))
    assert "Of the 6 trained models" in sentence and "“compact CNN” (02)" in sentence and "flattered" in sentence
    assert "Of the others 0 lie within its interval." in sentence and "“majority class”, has 0.100" in sentence


def test_the_sentence_turns_with_the_sign(notebooks):
    table = overview.comparisons(notebooks)
    assert "“narrow” is below “full”" in said.comparison_sentences(table)[3]
    assert "“compact CNN” is above “majority class”" in said.comparison_sentences(table)[1]


def test_limits_follow_from_the_numbers_and_the_settings(notebooks):
    table = overview.comparisons(notebooks)
    told = " ".join(said.limit_sentences(overview.facts(notebooks, ["10_layered_audio"]), table))
    assert (
        "With 100 test clips the intervals of the main differences of accuracy on them reach 0.10 to either side"
        in told
    )
    quick, full = (get_profile(name).experiment.epochs for name in ("quick", "full"))
    assert f"at most {quick} epochs (“full”: {full})" in told and "phrases played by soundfonts" in told
    assert "Not run, and so not told here: 10_layered_audio." in told
    assert "nothing can be shown" not in told and "2 of 3 parts of their variance" in told
    notebooks["01_a"]["manifest"]["parameters"] = {"corpus": "irmas", "profile": "full", "seeds": 1}
    weak = said.limit_sentences(overview.facts(notebooks, []), table.assign(p=0.02))
    assert "The least p is 0.020; corrected for 4 comparisons it is 0.08" in " ".join(weak)
    assert "Each network was trained from one seed" in " ".join(weak)
    assert "soundfonts" not in " ".join(weak) and "epochs" not in " ".join(weak) and "Not run" not in " ".join(weak)


def test_a_study_of_several_labels_is_told_with_what_it_has():
    found = {"mean_average_precision": score(0.4) | {"p": 0.001}, "difference": score(0.1) | {"p": 0.2}}
    several = {"compact CNN": {"mean_average_precision": score(0.6), "micro_f1": score(0.5)}}
    notebooks = {"02_b": entry({"scores": several, "comparison": {"against": "all present", **found}})}
    assert overview.comparisons(notebooks).loc["02_b", ["score", "difference"]].to_list() == [
        "mean average precision",
        0.4,
    ]
    assert overview.models(notebooks).score.to_list() == ["mean_average_precision"]
    assert len(said.study_sentences(notebooks)) == 4, "no word of costs, where none are known"


def test_runs_are_opened_as_used_and_missing_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    for name in ("01_a", "02_b", "14_report", "15_later"):
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text("{}")
    parameters = {"corpus": "rendered", "data": "", "profile": "smoke", "seeds": 1}
    first = open_run("01_a", **parameters)
    first.save_metrics(findings=["Something."])
    first.finish(split="s")
    open_run("02_b", **parameters)
    run = open_run("14_report", **parameters)
    notebooks, missing = overview.open_notebooks(run)
    assert list(notebooks) == ["01_a"] and missing == ["02_b"] and run.used == {"01_a"}
    assert notebooks["01_a"]["metrics"]["findings"] == ["Something."]
    assert notebooks["01_a"]["manifest"]["inputs"] == {"split": "s"}


def test_the_committed_study_has_a_comparison_for_every_notebook_and_figures_of_all(repository, tmp_path):
    told = read_json(repository / "reports/rendered-quick/results.json")["notebooks"]
    told = {name: entry for name, entry in told.items() if name[:2] != "14"}
    table = overview.comparisons(told)
    assert table.index.to_list() == list(told)
    assert (table.low <= table.difference).all() and (table.difference <= table.high).all()
    models = overview.models(told)
    assert not models.duplicated(["notebook", "model"]).any()
    plots.main_differences(**overview.figure_of_comparisons(table))
    plots.models_side_by_side(**overview.figure_of_models(models))
    plots.score_against_work(**overview.figure_of_costs(overview.costs(told), "accuracy"))
    # What goes to results.json comes back as it was.
    write_json(tmp_path / "x.json", {"comparisons": table.to_dict("index")})
    again = json.loads((tmp_path / "x.json").read_text())["comparisons"]
    assert pd.DataFrame.from_dict(again, orient="index").difference.round(6).equals(table.difference.round(6))
