"""The published file is asked about degraded clips and other corpora as `instrlib predict` asks it, and no leak."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib import plots
from instrlib.audio import effects
from instrlib.core.errors import EvaluationError, LeakError
from instrlib.data import corpora, rendered
from instrlib.evaluation.calibration import is_named
from instrlib.evaluation.metrics import scores
from instrlib.evaluation.statistics import holm
from instrlib.findings.robustness import (
    confidence_sentence,
    curve_sentences,
    domain_sentences,
    refusal_sentences,
    unknown_sentence,
)
from instrlib.models.predict import predict_file
from instrlib.studies import robustness
from instrlib.studies.robustness import UNKNOWN, UNTOUCHED

TRIED = ("noise", "clipping")


@pytest.fixture(scope="module")
def model(released):
    return released.made.model


@pytest.fixture(scope="module")
def clips(model, small):
    return robustness.choose_clips(model, small.clips, small.split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heard")


@pytest.fixture(scope="module")
def heard(model, small, clips, folder):
    return robustness.hear_degraded(folder, model, small.clips, clips, small.split, degradations=TRIED, workers=1)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return rendered clips of another seed, of two classes that the model knows and one that it does not."""
    root = tmp_path_factory.mktemp("elsewhere")
    return rendered.load(root, clips_per_class=6, classes=("flute", "drums", "organ"), seed=1, workers=1)


@pytest.fixture(scope="module")
def domains(model, small, elsewhere, folder):
    given = {"study": small.clips, "split": small.split, "workers": 1}
    return {
        "held out": robustness.hear_domain(folder / "home.npz", model, small.clips, **given),
        "another seed": robustness.hear_domain(folder / "away.npz", model, elsewhere, **given),
    }


def made_up(right: np.ndarray, confidence: np.ndarray, *, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and answers that are right where it is said, with the given top probability."""
    targets = np.arange(len(right)) % n_classes
    named = np.where(right, targets, (targets + 1) % n_classes)
    answers = np.repeat((1 - confidence)[:, None] / (n_classes - 1), n_classes, axis=1)
    answers[np.arange(len(right)), named] = confidence
    return targets, answers


def degraded(right_by_level: dict[tuple[str, float], np.ndarray], right: np.ndarray) -> robustness.Degraded:
    """Return made-up answers that are sure to .9 throughout, to clips of a group each."""
    sure = np.full(len(right), 0.9)
    targets, answers = made_up(right, sure)
    names = np.array([f"clip {number}" for number in range(len(right))])
    predictions = {"clip_id": names, "group": names, "label": names, "targets": targets, "probabilities": answers}
    levels = {place: made_up(one, sure)[1] for place, one in right_by_level.items()}
    return robustness.Degraded(predictions, levels, np.full(3, 0.5))


# -- which clips -------------------------------------------------------------------------------------------------------


def test_clips_come_from_the_test_part_as_many_of_each_class_and_groups_take_turns(model, small):
    chosen = robustness.choose_clips(model, small.clips, small.split, per_class=3)
    table = small.clips.manifest.set_index("clip_id").loc[chosen]
    assert small.split.parts[chosen].eq("test").all()
    assert table.label.value_counts().to_dict() == dict.fromkeys(model.classes, 3)
    test = small.clips.manifest[small.clips.manifest.clip_id.map(small.split.parts).eq("test")]
    for label, own in table.groupby("label"):
        there = test.group[test.label == label].nunique()
        assert own.group.nunique() == min(3, there), label
    assert chosen == robustness.choose_clips(model, small.clips, small.split, per_class=3)
    everything = robustness.choose_clips(model, small.clips, small.split)
    assert set(chosen) < set(everything) == set(test.clip_id)


def test_a_group_gives_a_second_clip_once_every_other_has_given_one(model, small):
    n = len(small.clips.manifest)
    group = np.where(np.arange(n) < n - 5, "large", [f"small {number}" for number in range(n)])
    manifest = small.clips.manifest.assign(label="flute", group=group)
    corpus = dataclasses.replace(small.clips, manifest=manifest)
    parts = pd.Series("test", index=manifest.clip_id, name="part")
    split = dataclasses.replace(small.split, parts=parts)
    judge = dataclasses.replace(model, about=model.about | {"split": split.fingerprint})
    taken = [
        set(manifest.set_index("clip_id").group[robustness.choose_clips(judge, corpus, split, per_class=6, seed=seed)])
        for seed in range(3)
    ]
    assert taken == [set(group)] * 3, "the five that have one clip each, and one of the large group"


def test_a_clip_that_was_trained_on_and_another_split_are_refused(model, small, clips, tmp_path):
    seen = small.split.parts.index[small.split.parts == "train"][0]
    with pytest.raises(LeakError, match="may have been trained on the clip"):
        robustness.hear_degraded(tmp_path, model, small.clips, [*clips, seen], small.split, workers=1)
    turned = small.split.parts.map({"train": "test", "validation": "validation", "test": "train"})
    other = dataclasses.replace(small.split, parts=turned)
    with pytest.raises(LeakError, match="another split"):
        robustness.choose_clips(model, small.clips, other)
    renamed = dataclasses.replace(small.clips.info, name="folder")
    copy = dataclasses.replace(small.clips, info=renamed)
    with pytest.raises(LeakError, match="may have been trained on the clip"):
        robustness.hear_domain(
            tmp_path / "x.npz", model, copy, study=small.clips, split=small.split, clips=[seen], workers=1
        )
    assert not list(tmp_path.iterdir()), "nothing was heard"


def test_of_a_corpus_that_shares_clips_with_the_study_only_groups_that_were_not_trained_on_are_heard(
    model, small, tmp_path
):
    given = {"study": small.clips, "split": small.split, "workers": 1}
    part = small.clips.manifest.clip_id.map(small.split.parts)
    renamed = small.clips.manifest.clip_id.where(part != "train", "other " + small.clips.manifest.clip_id)
    manifest = small.clips.manifest.assign(clip_id=renamed).sort_values("clip_id", ignore_index=True)
    larger = dataclasses.replace(small.clips, manifest=manifest)
    one = robustness.hear_domain(tmp_path / "x.npz", model, larger, **given)
    assert set(one["clip_id"]) == set(small.clips.manifest.clip_id[part == "test"]), (
        "new clips of trained groups are not"
    )
    alien = dataclasses.replace(larger, manifest=manifest.assign(clip_id="other " + manifest.clip_id))
    assert len(robustness.hear_domain(tmp_path / "y.npz", model, alien, **given)["clip_id"]) == len(manifest)


# -- listening ---------------------------------------------------------------------------------------------------------


def test_what_is_heard_is_what_predict_says_of_the_file_and_of_a_degraded_copy(model, small, heard, tmp_path):
    table = small.clips.manifest.set_index("clip_id")
    for row in (0, 5):
        clip_id = heard.predictions["clip_id"][row]
        file = small.clips.root / table.path[clip_id]
        np.testing.assert_allclose(heard.predictions["probabilities"][row], predict_file(file, model).probabilities)
        signal, rate_hz = soundfile.read(file, dtype="float32")
        rng = effects.generator(0, clip_id, "noise")
        soundfile.write(tmp_path / "noisy.wav", effects.degrade(signal, rate_hz, "noise", 0, rng), rate_hz, "FLOAT")
        expected = predict_file(tmp_path / "noisy.wav", model).probabilities
        np.testing.assert_allclose(heard.answers["noise", 0][row], expected)


def test_every_degradation_and_level_is_heard_and_worse_ones_cost_the_model_its_answers(heard):
    assert list(heard.answers) == [(name, level) for name in TRIED for level in effects.DEGRADATIONS[name].levels]
    for answers in heard.answers.values():
        assert answers.shape == heard.predictions["probabilities"].shape
        np.testing.assert_allclose(answers.sum(axis=1), 1)
    far = [np.abs(heard.answers["noise", level] - heard.predictions["probabilities"]).mean() for level in (40, 20, 0)]
    assert far == sorted(far) and far[-1] > 5 * far[0]


def test_what_was_heard_is_kept_and_a_file_that_is_gone_alone_is_made_again(
    model, small, clips, folder, heard, monkeypatch
):
    asked = []
    original = robustness._hear_batch
    monkeypatch.setattr(robustness, "_hear_batch", lambda *task: asked.append(task[2]) or original(*task))
    (folder / "clipping.npz").unlink()
    again = robustness.hear_degraded(folder, model, small.clips, clips, small.split, degradations=TRIED, workers=1)
    assert set(asked) == {"clipping"}
    for place, answers in heard.answers.items():
        np.testing.assert_array_equal(again.answers[place], answers)
    robustness.hear_degraded(folder, model, small.clips, clips, small.split, degradations=TRIED, seed=1, workers=1)
    assert "noise" in asked, "another seed is another noise"


def test_a_recording_that_falls_silent_is_answered_by_none_of_these(model, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(22_050), 22_050)
    said = robustness._said(tmp_path / "silent.wav", model)
    np.testing.assert_allclose(said, 1 / 3)
    assert not is_named(said, model.single.thresholds)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_scores_of_a_curve_are_those_of_the_clips_at_that_level(heard):
    table = robustness.curves(heard, n_resamples=100).set_index(["degradation", "score"])
    targets = heard.predictions["targets"]
    untouched = table.loc[UNTOUCHED].estimate
    expected = scores(targets, heard.predictions["probabilities"])
    assert untouched[list(robustness.SCORES[:3])].to_dict() == pytest.approx(
        {name: expected[name] for name in robustness.SCORES[:3]}
    )
    answers = heard.answers["noise", 0]
    at = table.loc["noise"].query("level == 0").estimate
    named, right = is_named(answers, heard.thresholds), answers.argmax(axis=1) == targets
    assert at.refused == pytest.approx(1 - named.mean())
    assert at.accuracy_of_named == pytest.approx(right[named].mean())
    assert at.confidence_gap == pytest.approx(answers.max(axis=1).mean() - right.mean())
    assert len(table) == len(robustness.SCORES) * (1 + len(heard.answers))


def test_losses_are_paired_by_clip_and_corrected_for_all_levels_together():
    n = 40
    right = np.arange(n) % 10 != 0
    half = right & (np.arange(n) % 2 == 1)
    made = degraded({("noise", 40): right, ("noise", 0): half, ("room", 2): right}, right)
    table = robustness.losses(made, n_resamples=100)
    assert table.difference.to_list() == pytest.approx([0, half.mean() - right.mean(), 0])
    assert table.p.to_list()[::2] == [1, 1], "the same answers differ in no resample"
    np.testing.assert_allclose(table.p_holm, holm(table.p.to_numpy()))
    assert table.p_holm["noise", 0] < 0.05
    assert table.low["noise", 0] < table.difference["noise", 0] < table.high["noise", 0] < 0


def test_a_curve_begins_with_the_untouched_clips_and_fills_points_that_differ(heard):
    table, compared = robustness.curves(heard, n_resamples=100), robustness.losses(heard, n_resamples=100)
    chance = robustness.most_frequent(heard.predictions)
    arguments = robustness.curve_arrays(table, compared, chance)
    assert arguments["level"].tolist() == [level for _, level in heard.answers]
    figure = plots.robustness_curves(**arguments)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["pink noise", "clipping"]
    assert [text.get_text() for text in panels[0].get_xticklabels()] == ["none", "40", "30", "20", "10", "0"]
    line = panels[0].lines[0]
    accuracy = table[table.score == "accuracy"].set_index("degradation").estimate
    np.testing.assert_allclose(line.get_ydata(), [accuracy[UNTOUCHED], *accuracy["noise"]])
    n_filled = sum(len(axes.lines[1].get_xdata()) for axes in panels)
    assert n_filled == (compared.p_holm < 0.05).sum()


def test_sentences_say_from_where_on_a_loss_is_shown_and_where_none_is():
    n = 60
    right, places = np.arange(n) % 20 != 0, np.arange(n)
    most, few = right & (places % 4 != 0), right & (places % 4 == 0)
    levels = {("noise", 40): right, ("noise", 30): right, ("noise", 20): right, ("noise", 10): most, ("noise", 0): few}
    levels |= {("room", level): right for level in (0.25, 0.5, 1, 2)}
    levels |= {("clipping", 6): most, ("clipping", 12): most, ("clipping", 20): few, ("clipping", 30): few}
    levels |= {("mp3", 64): right, ("mp3", 32): most, ("mp3", 16): right, ("mp3", 8): right}
    made = degraded(levels, right)
    table, compared = robustness.curves(made, n_resamples=200), robustness.losses(made, n_resamples=200)
    first, noise, room, clipping, mp3 = curve_sentences(table, compared)
    assert "accuracy of 0.950 [" in first and "17 comparisons" in first
    assert noise.startswith("Pink noise: no loss is shown down to 20 dB SNR; at 10 dB SNR accuracy changes by -0.2")
    assert " and at 0 dB SNR by -0." in noise
    assert room == "Room: no loss is shown, not even at 2 s RT60 (+0.000 [+0.000, +0.000], p = 1.000)."
    assert clipping.startswith("Clipping: it costs from the first: at 6 dB over full scale accuracy changes by -0.2")
    assert mp3.startswith("MP3: no loss is shown, not even at 8 kbit/s (+0.000 [")
    assert mp3.endswith("), though one at 32 kbit/s.")
    said = confidence_sentence(table, compared)
    assert said.startswith("Accuracy is lowest under pink noise at 0 dB SNR. There the model is too sure: ")
    assert "“none of these” to 0 % (untouched 0 %)" in said


@pytest.mark.parametrize(
    ("share_right", "said"),
    [(0.5, "is too sure:"), (0.9, "is not shown to be too sure or not sure enough:"), (1.0, "is not sure enough:")],
)
def test_how_sure_a_model_is_follows_from_the_interval_of_confidence_minus_accuracy(share_right, said):
    right = np.arange(60) >= round(60 * (1 - share_right))
    made = degraded({("noise", 0): right}, np.ones(60, bool))
    table, compared = robustness.curves(made, n_resamples=200), robustness.losses(made, n_resamples=200)
    assert f"There the model {said}" in confidence_sentence(table, compared)


@pytest.mark.parametrize(
    ("trivial", "said"), [(0.2, ", above the 0.200"), (0.5, "not shown to differ from"), (0.9, ", below the 0.900")]
)
def test_a_domain_is_held_against_the_trivial_answer_and_a_lone_group_has_no_interval(trivial, said):
    shares = {"accuracy": 0.5, "confidence_gap": 0.0, "expected_calibration_error": 0.1, "accuracy_of_named": 0.6}
    rows = [(score, value, value - 0.1, value + 0.1) for score, value in (shares | {"refused": 0.2}).items()]
    table = pd.DataFrame(
        [*rows, ("most_frequent", trivial, np.nan, np.nan)], columns=["score", "estimate", "low", "high"]
    )
    table = table.assign(domain="there", n=20, n_groups=5)
    assert said in domain_sentences(table, "there")[0]
    assert domain_sentences(table, "there", chosen_on="there")[0].endswith("so that score is flattered.")
    alone = domain_sentences(table.assign(low=np.nan, high=np.nan), "there")[0]
    assert "0.500 [no interval], not shown to differ from" in alone
    assert "not shown to be too sure or not sure enough" in alone


# -- other domains -----------------------------------------------------------------------------------------------------


def test_only_the_test_part_of_its_own_corpus_is_heard_and_unknown_classes_have_no_target(domains, model, clips):
    home, away = domains.values()
    assert home["clip_id"].tolist() == clips
    assert (home["targets"] != UNKNOWN).all()
    number = {label: set(away["targets"][away["label"] == label]) for label in ("flute", "drums", "organ")}
    assert number == {"flute": {0}, "drums": {2}, "organ": {UNKNOWN}}
    assert len(away["targets"]) == 18


def test_classes_are_matched_by_their_common_names_and_wider_ones_left_out(model, small):
    def of(name, classes):
        info = dataclasses.replace(small.clips.info, name=name)
        manifest = small.clips.manifest.assign(label=classes[0])
        corpus = dataclasses.replace(small.clips, info=info, classes=classes, manifest=manifest)
        return robustness.class_of(model, corpus)

    assert of("fsdkaggle2018", ("Flute", "Hi-hat", "Applause")) == {"Flute": "flute", "Hi-hat": None, "Applause": None}
    assert of("nsynth", ("keyboard", "string")) == {"string": None}, "a keyboard may be a piano"
    assert of("rendered", ("flute", "organ")) == {"flute": "flute", "organ": None}


def test_a_corpus_without_any_known_class_or_with_several_labels_is_refused(model, small, tmp_path):
    given = {"study": small.clips, "split": small.split, "workers": 1}
    info = dataclasses.replace(small.clips.info, name="fsdkaggle2018")
    manifest = small.clips.manifest.assign(label="Gong")
    foreign = dataclasses.replace(small.clips, info=info, manifest=manifest, classes=("Gong",))
    with pytest.raises(EvaluationError, match="knows none of the classes of fsdkaggle2018"):
        robustness.hear_domain(tmp_path / "x.npz", model, foreign, **given)
    labels = np.eye(3, dtype=np.float32)[small.clips.targets]
    several = dataclasses.replace(small.clips, labels=labels)
    with pytest.raises(EvaluationError, match="several labels a clip"):
        robustness.hear_domain(tmp_path / "x.npz", model, several, **given)


def test_scores_of_a_domain_count_known_clips_but_what_is_named_among_all(domains, model):
    table = robustness.domain_scores(domains, model, n_resamples=100).set_index(["domain", "score"])
    away = domains["another seed"]
    known = away["targets"] != UNKNOWN
    expected = scores(away["targets"][known], away["probabilities"][known])
    own = table.loc["another seed"]
    assert own.estimate["accuracy"] == pytest.approx(expected["accuracy"])
    assert (own.n["accuracy"], own.n["right_of_named"]) == (12, 18)
    assert own.estimate["most_frequent"] == 0.5
    named = is_named(away["probabilities"], model.single.thresholds)
    right = away["probabilities"].argmax(axis=1) == away["targets"]
    assert own.estimate["right_of_named"] == pytest.approx(right[named].mean())


def test_unknown_clips_are_told_from_known_ones_by_the_share_refused_and_by_the_order_of_the_top_probabilities(model):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    known = np.arange(60) < 40
    sure = np.where(known, rng.uniform(0.55, 1, 60), rng.uniform(0.35, 0.8, 60))
    targets, answers = made_up(np.ones(60, bool), sure)
    names = np.array([f"clip {number}" for number in range(60)])
    one = {
        "clip_id": names,
        "group": names,
        "label": np.where(known, "flute", "gong"),
        "targets": np.where(known, targets, UNKNOWN),
        "probabilities": answers,
    }
    network = dataclasses.replace(model.single, thresholds=np.full(3, 0.6))
    judge = dataclasses.replace(model, single=network)
    row = robustness.refusal_of_unknown({"there": one}, judge, n_resamples=200).loc["there"]
    assert row.auroc == pytest.approx(roc_auc_score(known, sure))
    assert row.refused_unknown == pytest.approx((sure[~known] < 0.6).mean())
    assert row.difference == pytest.approx((sure[~known] < 0.6).mean() - (sure[known] < 0.6).mean())
    assert row.auroc_low < row.auroc < row.auroc_high
    told = robustness.answers_to_unknown(one, judge, n_resamples=100)
    assert told.index.tolist() == ["gong"] and told.n["gong"] == 20
    assert told.refused["gong"] == pytest.approx(row.refused_unknown)
    (said,) = refusal_sentences(robustness.refusal_of_unknown({"there": one}, judge, n_resamples=200))
    assert "refuses unknown instruments more often than known ones" in said
    assert "the top probability tells the two apart" in said
    assert unknown_sentence(told, "there").startswith("Of what it does not know in there, the model takes gong most")


def test_what_cannot_be_told_is_said_so(domains, model):
    home = {"held out": domains["held out"]}
    assert "were not tried" in refusal_sentences(robustness.refusal_of_unknown(home, model, n_resamples=50))[0]
    row = pd.DataFrame(
        {
            "n_known": [9], "n_unknown": [9], "refused_known": [0.1], "refused_unknown": [0.2], "difference": [0.1],
            "low": [-0.1], "high": [0.3], "p": [0.4], "p_holm": [0.4], "auroc": [0.6], "auroc_low": [0.4],
            "auroc_high": [0.8],
        },
        index=["elsewhere"],
    )  # fmt: skip
    (said,) = refusal_sentences(row)
    assert "is not shown to refuse unknown instruments more often" in said
    assert "not shown to tell the two apart" in said


def test_a_sentence_for_each_domain_begins_with_the_home_and_names_the_trivial_answer(domains, model):
    table = robustness.domain_scores(domains, model, n_resamples=100)
    first, second = domain_sentences(table[::-1], "held out")
    assert first.startswith("On held out (") and second.startswith("On another seed (12 clips of")
    assert "always naming the most frequent" in first


def test_real_clips_of_another_corpus_are_heard_and_what_it_knows_of_them_is_scored(
    model, small, sample_root, tmp_path
):
    real = corpora.read("fsdkaggle2018", sample_root, max_clips_per_class=3)
    given = {"study": small.clips, "split": small.split, "workers": 1}
    one = robustness.hear_domain(tmp_path / "real.npz", model, real, **given)
    assert set(one["label"][one["targets"] != UNKNOWN]) == {"Flute"}
    assert {"Bass_drum", "Double_bass", "Hi-hat", "Snare_drum"} <= set(one["label"][one["targets"] == UNKNOWN])
    row = real.manifest.set_index("clip_id").loc[one["clip_id"][0]]
    np.testing.assert_allclose(one["probabilities"][0], predict_file(real.root / row.path, model).probabilities)
    told = robustness.answers_to_unknown(one, model, n_resamples=50)
    assert told.n.sum() == (one["targets"] == UNKNOWN).sum() and set(told.taken_for) <= set(model.classes)


def test_reliability_is_drawn_for_the_known_clips_of_each_domain(domains):
    arguments = robustness.reliability_arrays(domains)
    assert arguments["n"].tolist() == [len(domains["held out"]["targets"]), 12]
    np.testing.assert_allclose(arguments["share"].sum(axis=1), 1)
    figure = plots.shift_reliability(**arguments)
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["held out", "another seed"]
