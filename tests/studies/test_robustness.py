"""Robustness of the released model: predictions are those of `instrlib predict`, no test clip was trained on."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from sklearn.metrics import roc_auc_score

from instrlib.audio import effects
from instrlib.core.io import EvaluationError, LeakError
from instrlib.data import rendered
from instrlib.evaluation import metrics
from instrlib.evaluation.calibration import is_named
from instrlib.models.published import predict_file
from instrlib.studies import robustness
from instrlib.studies.robustness import UNKNOWN, UNTOUCHED, name_of

TRIED = ("noise", "clipping")


@pytest.fixture(scope="module")
def model(released):
    return released.made.model


@pytest.fixture(scope="module")
def clips(model, small):
    return robustness.choose_clips(model, small.clips, small.split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predicted")


@pytest.fixture(scope="module")
def predicted(model, small, clips, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "DEGRADATIONS", {name: effects.DEGRADATIONS[name] for name in TRIED})
        return robustness.predict_degraded(folder, model, small.clips, clips, small.split)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return rendered clips of another seed, of two classes that the model knows and one that it does not."""
    root = tmp_path_factory.mktemp("elsewhere")
    return rendered.load(root, clips_per_class=6, classes=("flute", "drums", "organ"), seed=1)


@pytest.fixture(scope="module")
def domains(model, small, elsewhere, folder):
    given = {"study": small.clips, "split": small.split}
    return {
        "held out": robustness.predict_domain(folder / "home.npz", model, small.clips, **given),
        "another seed": robustness.predict_domain(folder / "away.npz", model, elsewhere, **given),
    }


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


def test_a_clip_that_was_trained_on_and_another_split_are_refused(model, small, clips, tmp_path):
    seen = small.split.parts.index[small.split.parts == "train"][0]
    with pytest.raises(LeakError, match="trained on the clip"):
        robustness.predict_degraded(tmp_path, model, small.clips, [*clips, seen], small.split)
    turned = small.split.parts.map({"train": "test", "validation": "validation", "test": "train"})
    other = dataclasses.replace(small.split, parts=turned)
    with pytest.raises(LeakError, match="another split"):
        robustness.choose_clips(model, small.clips, other)
    assert not list(tmp_path.iterdir()), "nothing was predicted"


def test_of_a_corpus_that_shares_clips_with_the_study_only_groups_that_were_not_trained_on_are_predicted(
    model, small, tmp_path
):
    given = {"study": small.clips, "split": small.split}
    part = small.clips.manifest.clip_id.map(small.split.parts)
    renamed = small.clips.manifest.clip_id.where(part != "train", "other " + small.clips.manifest.clip_id)
    manifest = small.clips.manifest.assign(clip_id=renamed).sort_values("clip_id", ignore_index=True)
    larger = dataclasses.replace(small.clips, manifest=manifest)
    one = robustness.predict_domain(tmp_path / "x.npz", model, larger, **given)
    assert set(one["clip_id"]) == set(small.clips.manifest.clip_id[part == "test"]), (
        "new clips of trained groups are not"
    )
    alien = dataclasses.replace(larger, manifest=manifest.assign(clip_id="other " + manifest.clip_id))
    assert len(robustness.predict_domain(tmp_path / "y.npz", model, alien, **given)["clip_id"]) == len(manifest)


# -- predictions -------------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_predict_for_the_file_and_for_a_degraded_copy(model, small, predicted, tmp_path):
    table = small.clips.manifest.set_index("clip_id")
    for row in (0, 5):
        clip_id = predicted[UNTOUCHED]["clip_id"][row]
        file = small.clips.root / table.path[clip_id]
        np.testing.assert_allclose(predicted[UNTOUCHED]["probabilities"][row], predict_file(file, model).probabilities)
        signal, rate_hz = soundfile.read(file, dtype="float32")
        rng = effects.generator(0, clip_id, "noise")
        soundfile.write(tmp_path / "noisy.wav", effects.degrade(signal, rate_hz, "noise", 0, rng), rate_hz, "FLOAT")
        expected = predict_file(tmp_path / "noisy.wav", model).probabilities
        np.testing.assert_allclose(predicted[name_of("noise", 0)]["probabilities"][row], expected)


def test_every_level_is_predicted_and_severe_ones_change_the_probabilities_most(predicted):
    levels = [name_of(name, level) for name in TRIED for level in effects.DEGRADATIONS[name].levels]
    assert list(predicted) == [UNTOUCHED, *levels]
    untouched = predicted[UNTOUCHED]["probabilities"]
    far = [np.abs(predicted[name_of("noise", level)]["probabilities"] - untouched).mean() for level in (40, 20, 0)]
    assert far == sorted(far) and far[-1] > 5 * far[0]


def test_predictions_are_cached_and_a_missing_file_is_made_again(model, small, clips, folder, predicted, monkeypatch):
    asked, original = [], robustness._predict_batch
    monkeypatch.setattr(robustness, "DEGRADATIONS", {name: effects.DEGRADATIONS[name] for name in TRIED})
    monkeypatch.setattr(robustness, "_predict_batch", lambda *task: asked.append(task[2]) or original(*task))
    (folder / "clipping.npz").unlink()
    again = robustness.predict_degraded(folder, model, small.clips, clips, small.split)
    assert set(asked) == {"clipping"}
    for name, one in predicted.items():
        np.testing.assert_array_equal(again[name]["probabilities"], one["probabilities"])


def test_the_model_abstains_with_uniform_probabilities_if_a_degradation_leaves_silence(model, small, monkeypatch):
    one = small.clips.manifest.iloc[0]
    monkeypatch.setattr(robustness, "degrade", lambda signal, *_: 0 * signal)
    row = (one.clip_id, small.clips.root / one.path, one.start_s, one.duration_s)
    answer = robustness._predict_batch(model, [row], "noise", (0.0,))
    np.testing.assert_allclose(answer, 1 / 3)
    assert not is_named(answer, model.single.thresholds).any()


def test_unknown_classes_have_no_target_and_of_its_own_corpus_the_test_part_is_predicted(domains, clips):
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


def test_a_corpus_without_a_class_of_the_model_is_refused(model, small, tmp_path):
    given = {"study": small.clips, "split": small.split}
    info = dataclasses.replace(small.clips.info, name="fsdkaggle2018")
    manifest = small.clips.manifest.assign(label="Gong")
    foreign = dataclasses.replace(small.clips, info=info, manifest=manifest, classes=("Gong",))
    with pytest.raises(EvaluationError, match="fsdkaggle2018"):
        robustness.predict_domain(tmp_path / "x.npz", model, foreign, **given)


# -- scores ------------------------------------------------------------------------------------------------------------


def made_up(right: np.ndarray, confidence: np.ndarray) -> dict[str, np.ndarray]:
    """Return predictions of three classes that are right where it is said, with the given top probability."""
    targets = np.arange(len(right)) % 3
    answers = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    answers[np.arange(len(right)), np.where(right, targets, (targets + 1) % 3)] = confidence
    names = np.array([f"clip {number}" for number in range(len(right))])
    return {"clip_id": names, "group": names, "label": names, "targets": targets, "probabilities": answers}


def test_scores_are_those_of_the_known_clips_and_answers_to_unknown_ones_are_wrong(domains, predicted, model):
    table = robustness.scores(predicted | domains, model, n_resamples=100).set_index(["model", "score"])
    assert len(table) == len(robustness.SCORES) * (len(predicted) + 2)
    for name, every in (predicted | domains).items():
        known = every["targets"] != UNKNOWN
        targets, answers = every["targets"][known], every["probabilities"][known]
        right, named = answers.argmax(axis=1) == targets, is_named(answers, model.single.thresholds)
        expected = metrics.scores(targets, answers)
        own = table.loc[name].estimate
        for score in robustness.SCORES[:3]:
            assert own[score] == pytest.approx(expected[score])
        assert own.confidence_gap == pytest.approx(answers.max(axis=1).mean() - right.mean())
        assert own.abstained == pytest.approx(1 - named.mean())
        answered = is_named(every["probabilities"], model.single.thresholds)
        if answered.any():
            assert own.accuracy_of_answers == pytest.approx(right[named].sum() / answered.sum())
        assert set(table.loc[name].n) == {known.sum()}


def test_abstentions_on_unknown_and_known_classes_are_compared():
    rng = np.random.default_rng(0)
    known = np.arange(60) < 40
    confidence = np.where(known, rng.uniform(0.55, 1, 60), rng.uniform(0.35, 0.8, 60))
    one = made_up(np.ones(60, bool), confidence)
    one["targets"] = np.where(known, one["targets"], UNKNOWN)
    judge = SimpleNamespace(single=SimpleNamespace(thresholds=np.full(3, 0.6)))
    all_known = made_up(np.ones(9, bool), np.full(9, 0.9))
    table = robustness.abstentions({"home": all_known, "there": one}, judge, n_resamples=200)
    assert table.index.tolist() == ["there"]
    row = table.loc["there"]
    assert (row.n_known, row.n_unknown) == (40, 20)
    assert row.auroc == pytest.approx(roc_auc_score(known, confidence))
    assert row.auroc_low < row.auroc < row.auroc_high
    assert row.unknown == pytest.approx((confidence[~known] < 0.6).mean())
    assert row.difference == pytest.approx(row.unknown - (confidence[known] < 0.6).mean())
    assert row.verdict == "better"
    assert robustness.abstentions({"home": all_known}, judge, n_resamples=50).empty
