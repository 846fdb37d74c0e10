"""Robustness of the released model: predictions are those of `instrlib predict`, no test clip was trained on."""

import dataclasses
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
from instrlib.studies import domains
from instrlib.studies.domains import UNKNOWN, UNTOUCHED, name_of

TRIED = {name: effects.DEGRADATIONS[name] for name in ("noise", "clipping")}


@pytest.fixture(scope="module")
def made(released, small, tmp_path_factory):
    """Return test clips predicted as they are and degraded, and another corpus with a class that the model lacks."""
    folder, model = tmp_path_factory.mktemp("predicted"), released.made.model
    clips = domains.choose_clips(model, small.clips, small.split, per_class=99)
    other = rendered.load(folder / "other", clips_per_class=6, classes=("flute", "drums", "organ"), seed=1)
    given = {"study": small.clips, "split": small.split}
    home, away = (
        domains.predict_domain(folder / f"{one.root.name}.npz", model, one, **given) for one in (small.clips, other)
    )

    def predict():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(domains, "DEGRADATIONS", TRIED)
            return domains.predict_degraded(folder, model, small.clips, clips, small.split)

    return SimpleNamespace(
        model=model, folder=folder, clips=clips, home=home, away=away, predict=predict, predicted=predict()
    )


def test_clips_come_from_the_test_part_as_many_of_each_class_and_groups_take_turns(made, small, tmp_path):
    model, clips = made.model, made.clips
    chosen = domains.choose_clips(model, small.clips, small.split, per_class=3)
    table = small.clips.manifest.set_index("clip_id").loc[chosen]
    assert table.label.value_counts().to_dict() == dict.fromkeys(model.classes, 3)
    test = small.clips.manifest[small.clips.manifest.clip_id.map(small.split.parts).eq("test")]
    there = test.groupby("label").group.nunique().clip(upper=3)
    assert table.groupby("label").group.nunique().to_dict() == there.to_dict()
    assert set(chosen) < set(clips) == set(test.clip_id)
    seen = small.split.parts.index[small.split.parts == "train"][0]
    with pytest.raises(LeakError, match="trained on the clip"):
        domains.predict_degraded(tmp_path, model, small.clips, [*clips, seen], small.split)
    assert not list(tmp_path.iterdir()), "nothing was predicted"
    turned = small.split.parts.map({"train": "test", "validation": "validation", "test": "train"})
    with pytest.raises(LeakError, match="another split"):
        domains.choose_clips(model, small.clips, dataclasses.replace(small.split, parts=turned), per_class=3)


def test_of_a_corpus_that_shares_clips_with_the_study_new_clips_of_trained_groups_are_left_out(made, small, tmp_path):
    own = small.clips.manifest
    part, renamed = own.clip_id.map(small.split.parts), "other " + own.clip_id
    larger, alien = own.clip_id.where(part != "train", renamed), renamed
    for name, ids, expected in (("larger", larger, set(own.clip_id[part == "test"])), ("alien", alien, set(alien))):
        manifest = own.assign(clip_id=ids).sort_values("clip_id", ignore_index=True)
        corpus = dataclasses.replace(small.clips, manifest=manifest)
        found = domains.predict_domain(
            tmp_path / f"{name}.npz", made.model, corpus, study=small.clips, split=small.split
        )
        assert set(found["clip_id"]) == expected


def test_predictions_are_those_of_predict_for_the_file_and_for_a_degraded_copy(made, small, tmp_path):
    model, predicted = made.model, made.predicted
    assert list(predicted) == [UNTOUCHED, *(name_of(name, level) for name in TRIED for level in TRIED[name].levels)]
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


def test_a_missing_file_is_made_again_and_what_is_silent_gets_no_answer(made, monkeypatch):
    asked, original = [], domains._predict_batch
    monkeypatch.setattr(domains, "_predict_batch", lambda *task: asked.append(task[2]) or original(*task))
    for silent in (False, True):
        (made.folder / "clipping.npz").unlink()
        again = made.predict()
        for name, one in made.predicted.items():
            if silent and "clipping" in name:
                np.testing.assert_allclose(again[name]["probabilities"], 1 / 3)
                assert not is_named(again[name]["probabilities"], made.model.single.thresholds).any()
            else:
                np.testing.assert_array_equal(again[name]["probabilities"], one["probabilities"])
        monkeypatch.setattr(domains, "degrade", lambda signal, *_: 0 * signal)
    assert set(asked) == {"clipping"}


def test_unknown_classes_have_no_target_and_of_its_own_corpus_the_test_part_is_predicted(made):
    home, away = made.home, made.away
    assert home["clip_id"].tolist() == made.clips and (home["targets"] != UNKNOWN).all()
    number = {label: set(away["targets"][away["label"] == label]) for label in ("flute", "drums", "organ")}
    assert number == {"flute": {0}, "drums": {2}, "organ": {UNKNOWN}} and len(away["targets"]) == 18


@pytest.mark.parametrize(
    ("corpus", "found", "left_out"),
    [
        ("fsdkaggle2018", {"Flute": "flute", "Hi-hat": None, "Applause": None}, ()),
        ("rendered", {"flute": "flute", "organ": None}, ()),
        ("nsynth", {"string": None}, ("keyboard",)),  # it may be a piano
    ],
)
def test_classes_are_matched_by_their_common_names(corpus, found, left_out, made):
    given = SimpleNamespace(name=corpus, classes=(*left_out, *found))
    assert domains.class_of(made.model, given) == found


def test_scores_are_those_of_the_known_clips_and_answers_to_unknown_ones_are_wrong(made):
    model, predictions = made.model, made.predicted | {"home": made.home, "away": made.away}
    table = domains.scores(predictions, model, n_resamples=100).set_index(["model", "score"])
    assert len(table) == 6 * len(predictions)
    for name, every in predictions.items():
        known = every["targets"] != UNKNOWN
        targets, answers = every["targets"][known], every["probabilities"][known]
        right, named = answers.argmax(axis=1) == targets, is_named(answers, model.single.thresholds)
        expected = {score: metrics.scores(targets, answers)[score] for score in domains._SCORES}
        expected |= {"confidence_gap": answers.max(axis=1).mean() - right.mean(), "abstained": 1 - named.mean()}
        if answered := is_named(every["probabilities"], model.single.thresholds).sum():
            expected["accuracy_of_answers"] = right[named].sum() / answered
        assert table.loc[name].estimate[list(expected)].to_dict() == pytest.approx(expected)
        assert set(table.loc[name].n) == {known.sum()}


def test_abstentions_on_unknown_and_known_classes_are_compared():
    rng, known, targets = np.random.default_rng(0), np.arange(60) < 40, np.arange(60) % 3
    top = np.where(known, rng.uniform(0.55, 1, 60), rng.uniform(0.35, 0.8, 60))
    answers = np.where(np.eye(3, dtype=bool)[targets], top[:, None], (1 - top)[:, None] / 2)
    names = np.arange(60).astype(str)
    home = {"clip_id": names, "group": names, "targets": targets, "probabilities": answers}
    there = home | {"targets": np.where(known, targets, UNKNOWN)}
    judge = SimpleNamespace(single=SimpleNamespace(thresholds=np.full(3, 0.6)))
    table = domains.abstentions({"home": home, "there": there}, judge, n_resamples=200)
    row = table.loc["there"]
    assert table.index.tolist() == ["there"] and (row.n_known, row.n_unknown) == (40, 20)
    assert row.auroc == pytest.approx(roc_auc_score(known, top)) and row.auroc_low < row.auroc < row.auroc_high
    assert row.unknown == pytest.approx((top[~known] < 0.6).mean()) and row.verdict == "better"
    assert row.difference == pytest.approx(row.unknown - (top[known] < 0.6).mean())
    assert domains.abstentions({"home": home}, judge, n_resamples=50).empty
