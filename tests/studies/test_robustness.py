"""Robustness of the released model: predictions are those of `instrlib predict`, no test clip was trained on."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from sklearn.metrics import roc_auc_score

from instrlib.audio import effects
from instrlib.core.io import LeakError
from instrlib.data import rendered
from instrlib.evaluation import metrics
from instrlib.evaluation.calibration import is_named
from instrlib.models.published import predict_file
from instrlib.studies import domains as robustness
from instrlib.studies.domains import UNKNOWN, UNTOUCHED, name_of

TRIED = ("noise", "clipping")


@pytest.fixture(scope="module")
def model(released):
    return released.made.model


@pytest.fixture(scope="module")
def clips(model, small):
    return robustness.choose_clips(model, small.clips, small.split, per_class=99)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predicted")


@pytest.fixture(scope="module")
def predicted(model, small, clips, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "DEGRADATIONS", {name: effects.DEGRADATIONS[name] for name in TRIED})
        return robustness.predict_degraded(folder, model, small.clips, clips, small.split)


@pytest.fixture(scope="module")
def domains(model, small, folder):
    """Return predictions of the study's test part and of rendered clips with a class that the model does not know."""
    elsewhere = rendered.load(folder / "elsewhere", clips_per_class=6, classes=("flute", "drums", "organ"), seed=1)
    corpora = {"held out": small.clips, "another seed": elsewhere}
    return {
        name: robustness.predict_domain(folder / f"{name}.npz", model, one, study=small.clips, split=small.split)
        for name, one in corpora.items()
    }


def test_clips_come_from_the_test_part_as_many_of_each_class_and_groups_take_turns(model, small, clips, tmp_path):
    chosen = robustness.choose_clips(model, small.clips, small.split, per_class=3)
    assert chosen == robustness.choose_clips(model, small.clips, small.split, per_class=3)
    table = small.clips.manifest.set_index("clip_id").loc[chosen]
    assert table.label.value_counts().to_dict() == dict.fromkeys(model.classes, 3)
    test = small.clips.manifest[small.clips.manifest.clip_id.map(small.split.parts).eq("test")]
    there = test.groupby("label").group.nunique().clip(upper=3)
    assert table.groupby("label").group.nunique().to_dict() == there.to_dict()
    assert set(chosen) < set(clips) == set(test.clip_id)
    seen = small.split.parts.index[small.split.parts == "train"][0]
    with pytest.raises(LeakError, match="trained on the clip"):
        robustness.predict_degraded(tmp_path, model, small.clips, [*clips, seen], small.split)
    assert not list(tmp_path.iterdir()), "nothing was predicted"
    turned = small.split.parts.map({"train": "test", "validation": "validation", "test": "train"})
    with pytest.raises(LeakError, match="another split"):
        robustness.choose_clips(model, small.clips, dataclasses.replace(small.split, parts=turned), per_class=3)


def test_of_a_corpus_that_shares_clips_with_the_study_new_clips_of_trained_groups_are_left_out(model, small, tmp_path):
    given = {"study": small.clips, "split": small.split}
    part = small.clips.manifest.clip_id.map(small.split.parts)
    renamed = small.clips.manifest.clip_id.where(part != "train", "other " + small.clips.manifest.clip_id)
    manifest = small.clips.manifest.assign(clip_id=renamed).sort_values("clip_id", ignore_index=True)
    larger = dataclasses.replace(small.clips, manifest=manifest)
    one = robustness.predict_domain(tmp_path / "x.npz", model, larger, **given)
    assert set(one["clip_id"]) == set(small.clips.manifest.clip_id[part == "test"])
    alien = dataclasses.replace(larger, manifest=manifest.assign(clip_id="other " + manifest.clip_id))
    assert len(robustness.predict_domain(tmp_path / "y.npz", model, alien, **given)["clip_id"]) == len(manifest)


def test_predictions_are_those_of_predict_for_the_file_and_for_a_degraded_copy(model, small, predicted, tmp_path):
    levels = [name_of(name, level) for name in TRIED for level in effects.DEGRADATIONS[name].levels]
    assert list(predicted) == [UNTOUCHED, *levels]
    table, untouched = small.clips.manifest.set_index("clip_id"), predicted[UNTOUCHED]
    for row in (0, 5):
        clip_id = untouched["clip_id"][row]
        file = small.clips.root / table.path[clip_id]
        np.testing.assert_allclose(untouched["probabilities"][row], predict_file(file, model).probabilities)
        signal, rate_hz = soundfile.read(file, dtype="float32")
        rng = effects.generator(0, clip_id, "noise")
        soundfile.write(tmp_path / "noisy.wav", effects.degrade(signal, rate_hz, "noise", 0, rng), rate_hz, "FLOAT")
        expected = predict_file(tmp_path / "noisy.wav", model).probabilities
        np.testing.assert_allclose(predicted[name_of("noise", 0)]["probabilities"][row], expected)


def test_a_missing_file_is_made_again_and_what_is_silent_gets_no_answer(
    model, small, clips, folder, predicted, monkeypatch
):
    asked, original = [], robustness._predict_batch
    monkeypatch.setattr(robustness, "DEGRADATIONS", {name: effects.DEGRADATIONS[name] for name in TRIED})
    monkeypatch.setattr(robustness, "_predict_batch", lambda *task: asked.append(task[2]) or original(*task))
    predict = functools.partial(robustness.predict_degraded, folder, model, small.clips, clips, small.split)
    (folder / "clipping.npz").unlink()
    again = predict()
    assert set(asked) == {"clipping"}
    for name, one in predicted.items():
        np.testing.assert_array_equal(again[name]["probabilities"], one["probabilities"])
    (folder / "clipping.npz").unlink()
    monkeypatch.setattr(robustness, "degrade", lambda signal, *_: 0 * signal)
    answers = predict()[name_of("clipping", effects.DEGRADATIONS["clipping"].levels[0])]["probabilities"]
    np.testing.assert_allclose(answers, 1 / 3)
    assert not is_named(answers, model.single.thresholds).any()


def test_unknown_classes_have_no_target_and_of_its_own_corpus_the_test_part_is_predicted(domains, clips):
    home, away = domains.values()
    assert home["clip_id"].tolist() == clips and (home["targets"] != UNKNOWN).all()
    number = {label: set(away["targets"][away["label"] == label]) for label in ("flute", "drums", "organ")}
    assert number == {"flute": {0}, "drums": {2}, "organ": {UNKNOWN}} and len(away["targets"]) == 18


def test_classes_are_matched_by_their_common_names_and_corpora_without_any_refused(model, small, tmp_path):
    def of(name, classes):
        info = dataclasses.replace(small.clips.info, name=name)
        manifest = small.clips.manifest.assign(label=classes[0])
        return dataclasses.replace(small.clips, info=info, classes=classes, manifest=manifest)

    for name, found in (
        ("fsdkaggle2018", {"Flute": "flute", "Hi-hat": None, "Applause": None}),
        ("rendered", {"flute": "flute", "organ": None}),
    ):
        assert robustness.class_of(model, of(name, tuple(found))) == found
    assert robustness.class_of(model, of("nsynth", ("keyboard", "string"))) == {"string": None}  # it may be a piano


def made_up(targets: np.ndarray, confidence: np.ndarray) -> dict[str, np.ndarray]:
    """Return predictions of three classes with the given top probability."""
    names = np.array([f"clip {number}" for number in range(len(targets))])
    answers = np.where(np.eye(3, dtype=bool)[targets], confidence[:, None], (1 - confidence)[:, None] / 2)
    return {"clip_id": names, "group": names, "label": names, "targets": targets, "probabilities": answers}


def test_scores_are_those_of_the_known_clips_and_answers_to_unknown_ones_are_wrong(domains, predicted, model):
    table = robustness.scores(predicted | domains, model, n_resamples=100).set_index(["model", "score"])
    assert len(table) == 6 * (len(predicted) + 2)
    for name, every in (predicted | domains).items():
        known = every["targets"] != UNKNOWN
        targets, answers = every["targets"][known], every["probabilities"][known]
        right, named = answers.argmax(axis=1) == targets, is_named(answers, model.single.thresholds)
        expected = {score: metrics.scores(targets, answers)[score] for score in robustness._SCORES}
        expected |= {"confidence_gap": answers.max(axis=1).mean() - right.mean(), "abstained": 1 - named.mean()}
        answered = is_named(every["probabilities"], model.single.thresholds).sum()
        if answered:
            expected["accuracy_of_answers"] = right[named].sum() / answered
        assert table.loc[name].estimate[list(expected)].to_dict() == pytest.approx(expected)
        assert set(table.loc[name].n) == {known.sum()}


def test_abstentions_on_unknown_and_known_classes_are_compared():
    rng, known = np.random.default_rng(0), np.arange(60) < 40
    confidence = np.where(known, rng.uniform(0.55, 1, 60), rng.uniform(0.35, 0.8, 60))
    one = made_up(np.arange(60) % 3, confidence)
    one["targets"] = np.where(known, one["targets"], UNKNOWN)
    judge = SimpleNamespace(single=SimpleNamespace(thresholds=np.full(3, 0.6)))
    all_known = made_up(np.arange(9) % 3, np.full(9, 0.9))
    table = robustness.abstentions({"home": all_known, "there": one}, judge, n_resamples=200)
    row = table.loc["there"]
    assert table.index.tolist() == ["there"] and (row.n_known, row.n_unknown) == (40, 20)
    assert row.auroc == pytest.approx(roc_auc_score(known, confidence)) and row.auroc_low < row.auroc < row.auroc_high
    assert row.unknown == pytest.approx((confidence[~known] < 0.6).mean()) and row.verdict == "better"
    assert row.difference == pytest.approx(row.unknown - (confidence[known] < 0.6).mean())
    assert robustness.abstentions({"home": all_known}, judge, n_resamples=50).empty
