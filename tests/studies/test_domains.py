"""Available domains, in pairs; networks and the released model predict other domains, and degraded clips."""

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from sklearn.metrics import roc_auc_score
from trees import make_folder, make_kaggle_instruments, tone, write_audio

from instrlib.audio import effects
from instrlib.core.config import TrainConfig, folders, get_profile
from instrlib.core.io import ConfigError, LeakError
from instrlib.data import rendered
from instrlib.data.rendered import sources
from instrlib.data.splits import load_split
from instrlib.evaluation import metrics
from instrlib.evaluation.calibration import is_named
from instrlib.models import trained, variants
from instrlib.models.layers import Layer
from instrlib.models.published import predict_file
from instrlib.studies import domains
from instrlib.studies.domains import UNKNOWN, UNTOUCHED, name_of

TRIED = {name: effects.DEGRADATIONS[name] for name in ("noise", "clipping")}
TINY = (Layer("conv", 4, 3, 2, 2, True), Layer("conv", 6, 3, 1, 1, True), Layer("average"))


@pytest.fixture
def fonts(monkeypatch):
    """Return the fonts of the machine, by name; a test adds what it needs. TimGM6mb plays for all, two classes."""
    there, shared, load = {}, {Path("TimGM6mb"), Path("Merlin")}, rendered.load

    def few(root, *, clips_per_class, players):
        played = {"classes": ("flute", "piano"), "players": rendered.Players(("TimGM6mb",))}
        return load(root, clips_per_class=min(9, clips_per_class), **played)

    monkeypatch.setattr(sources, "fonts", lambda: there)
    monkeypatch.setattr(sources, "shared_samples", lambda *both: 0.1 * (set(both) == shared))
    monkeypatch.setattr(rendered, "load", few)
    return there


@pytest.fixture
def find(fonts, small, inputs, tmp_path):
    run = {"profile": get_profile("smoke"), "folder": tmp_path / "run"}
    return lambda corpus=small.clips: domains.available(corpus, inputs, **run)


def name_corpora(monkeypatch, *entries):
    monkeypatch.setenv(domains.VARIABLE, os.pathsep.join(map(str, entries)))


def domain(name, corpus, classes, fonts=()):
    """Return a domain of nothing but names."""
    made_of = SimpleNamespace(name=corpus), SimpleNamespace(classes=tuple(classes))
    return domains.Domain(name, *made_of, (Path("split"),), frozenset(fonts))


def test_a_named_folder_gets_the_studys_features_and_a_split_that_no_group_crosses(find, inputs, monkeypatch, tmp_path):
    root, labels = tmp_path / "mine", ("flute", "piano", "whistling")
    make_folder(root, classes=labels, recordings=8)
    rows = [f"{label}/take {take},{label} {take // 2}" for label in labels for take in range(8)]
    (root / "groups.csv").write_text("\n".join(["path,group", *rows]))
    name_corpora(monkeypatch, f"folder={root}")
    (_, mine), excluded = find()
    assert mine.name == "folder mine" and mine.common == {"flute": "flute", "piano": "piano"} and not excluded
    assert mine.store.config == inputs.store.config and len(mine.splits) == 1
    parts = load_split(mine.splits[0], mine.store.segments).parts
    assert set(parts) == {"train", "validation", "test"} and mine.store.clips.group.nunique() == 12
    assert mine.store.clips.clip_id.map(parts).groupby(mine.store.clips.group).nunique().max() == 1


def test_corpora_below_the_data_folder_are_found_and_parts_and_copies_excluded_or_refused(
    find, small, monkeypatch, tmp_path
):
    mine, irmas = tmp_path / "mine", folders().data / "irmas"
    make_kaggle_instruments(folders().data / "kaggle_instruments")
    write_audio(irmas / "IRMAS-TrainingData" / "cel" / "[cel][cla]0001__1.wav", tone(0, 0, 1.0))
    found, (excluded,) = find()
    assert [one.name for one in found] == ["rendered", "kaggle_instruments"] and excluded.startswith("irmas: ")
    kaggle = found[1].corpus
    make_folder(mine, classes=("flute", "piano"), recordings=4)
    shutil.copyfile(kaggle.root / kaggle.manifest.path[0], mine / "piano" / "copied.wav")
    name_corpora(monkeypatch, f"folder={mine}", f"folder={tmp_path}/./mine")  # twice the same
    found, excluded = find()
    assert [one.name for one in found] == ["rendered", "folder mine"] and len(excluded) == 2
    assert any(one.startswith("kaggle_instruments: piano/copied.wav of folder mine and ") for one in excluded)
    bad = ("somewhere", "irmas=", "gtzan=/tmp", "rendered=/tmp", "irmas=sound/irmas")
    for error, reason, *entries in (
        (LeakError, r"copied\.wav", f"folder={mine}", f"kaggle_instruments={kaggle.root}"),
        (ConfigError, "two classes", f"irmas={irmas}"),
        *((ConfigError, domains.VARIABLE, entry) for entry in bad),
    ):
        name_corpora(monkeypatch, *entries)
        with pytest.raises(error, match=reason):
            find()
    info = dataclasses.replace(small.clips.info, multilabel=True)
    with pytest.raises(ConfigError):  # a study of several labels a clip
        find(dataclasses.replace(small.clips, info=info, labels=np.eye(3, dtype=np.float32)[small.clips.targets]))


@pytest.mark.parametrize("names", [("mine", "mine"), ("my sounds", "my-sounds"), ("🎻", "🎺")])
def test_no_two_domains_share_a_folder_and_one_of_few_groups_is_tested_on_alone(names, find, monkeypatch, tmp_path):
    places = [tmp_path / str(number) / name for number, name in enumerate((*names, "few"))]
    for number, place in enumerate(places):
        recordings = 2 if place.name == "few" else 4
        make_folder(place, classes=("flute", "piano"), recordings=recordings, longer_s=number / 70)
    name_corpora(monkeypatch, *(f"folder={place}" for place in places))
    (own, first, second, few), excluded = find()
    assert (first.name, second.name) == (f"folder {names[0]}", f"folder {names[1]} 2")
    run_folders = {variants.run_folder(tmp_path, one.name, fold=0, seed=0) for one in (first, second)}
    assert len(run_folders) == 2 and first.splits[0].parent != second.splits[0].parent
    assert few.splits == () and excluded[0].startswith("folder few: ")
    assert [(one.name, other.name) for one, other in domains.pairs([own, few])[0]] == [("rendered", "folder few")]


@pytest.mark.parametrize(
    ("source", "target", "of_source", "of_target"),
    [
        ("fsdkaggle2018 Applause Cello Violin_or_fiddle", "irmas vio pia cel", "- cello violin", "violin - cello"),
        ("rendered acoustic_guitar electric_guitar", "kaggle_instruments guitar drums", "guitar guitar", "guitar -"),
        ("nsynth guitar keyboard string", "rendered cello piano violin", "- keyboard string", "string keyboard string"),
    ],
)
def test_classes_in_common_are_joined_where_one_domain_does_not_distinguish_them(source, target, of_source, of_target):
    both = [domain(corpus, corpus, classes) for corpus, *classes in (source.split(), target.split())]
    there, back, alone = (domains.in_common(*two) for two in (both, both[::-1], (both[0], both[0])))
    assert there.names == back.names == tuple(sorted({*of_source.split(), *of_target.split()} - {"-"}))
    names, sides = [*there.names, "-"], (of_source.split(), of_target.split())
    for found in ((there.of_source, there.of_target), (back.of_target, back.of_source)):
        assert [[names[one] for one in side] for side in found] == list(sides)
    assert alone.names == both[0].store.classes and (alone.of_source == np.arange(len(alone.names))).all()


def test_predictions_of_common_classes_are_summed_and_other_clips_are_left_out():
    common = domains.Common(("guitar", "organ"), np.array([0, -1, 0, 1]), np.array([-1, 0, 1]))
    given = {"clip_id": np.array(["x", "y"]), "group": np.array(["g", "h"]), "targets": np.array([0, 1])}
    answers = np.array([[[0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]]])
    found = domains.to_common(given | {"probabilities": answers}, common)
    assert [found[name].tolist() for name in given] == [["y"], ["h"], [0]]
    np.testing.assert_allclose(found["probabilities"], [[[0.4, 0.4, 0.2]]])


def test_pairs_without_common_classes_or_with_common_samples_are_excluded(fonts):
    fonts |= {name: Path(name) for name in ("TimGM6mb", "Merlin", "FluidR3_GM")}
    played = {"Tim": ("TimGM6mb",), "study": ("TimGM6mb", "Merlin"), "Merlin": ("Merlin",), "Fluid": ("FluidR3_GM",)}
    found = [domain(name, "rendered", ("cello", "flute"), fonts=by) for name, by in played.items()]
    found += [domain("drums", "folder", ("drums", "gong")), domain("strings", "irmas", ("cel", "gac"))]
    kept, excluded = domains.pairs(found)
    wanted = {frozenset((name, "Fluid")) for name in ("study", "Merlin", "Tim")}
    assert {frozenset((one.name, other.name)) for one, other in kept} == wanted
    assert len(kept) == 6 and len(excluded) == 15 - 3
    assert domains.shared_sounds(found[1].fonts, found[0].fonts) == ["Merlin", "TimGM6mb"]


@pytest.fixture(scope="module")
def crossed(small, inputs, tmp_path_factory):
    """Return the networks trained on two domains, and what these predict."""
    place = tmp_path_factory.mktemp("domains")
    make_folder(place / "mine", classes=("flute", "piano", "whistling"), recordings=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRLIB_DATA", str(place / "data"))
        patch.setenv(domains.VARIABLE, f"folder={place / 'mine'}")
        patch.setattr(sources, "fonts", dict)
        found, _ = domains.available(small.clips, inputs, profile=get_profile("smoke"), folder=place)
    recipe = TINY, TrainConfig(epochs=2)
    made = [variants.Variant(one.name, *recipe, one.store.folder, splits=one.splits) for one in found]
    outcomes = variants.run_variants(place, made, splits=(), seeds=(0, 1))
    return outcomes, domains.cross(place, found, outcomes)


def test_networks_predict_their_own_test_part_and_every_clip_of_the_other_domain(crossed):
    first, second = crossed[0]
    pairs = [(first, first), (second, second), (first, second), (second, first)]
    assert [(one.source.name, one.target.name) for one in crossed[1]] == pairs
    for one in crossed[1]:
        clips, own = one.target.store.clips, one.source.store.clips
        parts = load_split(one.source.splits[0], one.source.store.segments).parts
        tested = clips[clips.clip_id.map(parts) == "test"] if one.source is one.target else clips
        assert one.predictions["clip_id"].tolist() == sorted(tested.clip_id)
        assert not set(one.predictions["group"]) & set(own.group[own.clip_id.map(parts) != "test"])
        assert one.predictions["probabilities"].shape == (2, len(tested), len(one.source.store.classes))


def test_predictions_are_those_of_the_network_and_of_its_copy_with_the_statistics_of_the_target(crossed):
    from instrlib.core.parallel import load_keras

    outcomes, (*_, one, _) = crossed
    run, store = outcomes[one.source.name].flat[1], one.target.store
    (model, scaler), adapted = trained.load_model(run), domains.adapt_batch_norm(run, store)
    rows = store.segments.row[store.segments.clip_id == one.predictions["clip_id"][3]]
    for network, predictions in ((model, one.predictions), (adapted, one.adapted)):
        expected = network.predict_on_batch(store.read(rows, scaler)).mean(axis=0)
        np.testing.assert_allclose(predictions["probabilities"][1, 3], expected, atol=1e-5)
    assert not np.allclose(one.adapted["probabilities"], one.predictions["probabilities"])
    x = {"features": store.read(store.segments.row.to_numpy(), scaler)}
    norms = [layer for layer in adapted.layers if type(layer).__name__ == "BatchNormalization"]
    assert len(norms) == 2
    for norm in norms:
        values = np.asarray(load_keras().Model(adapted.inputs, norm.input)(x, training=False))
        np.testing.assert_allclose(norm.moving_mean, values.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, values.var(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    for before, after in zip(model.trainable_weights, adapted.trainable_weights, strict=True):
        np.testing.assert_array_equal(before, after)


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
    manifest = small.clips.manifest.set_index("clip_id", drop=False)
    table, test = manifest.loc[chosen], manifest[manifest.clip_id.map(small.split.parts).eq("test")]
    assert table.label.value_counts().to_dict() == dict.fromkeys(model.classes, 3)
    there = test.groupby("label").group.nunique().clip(upper=3)
    assert table.groupby("label").group.nunique().equals(there) and set(chosen) < set(clips) == set(test.clip_id)
    seen = small.split.parts.index[small.split.parts == "train"][0]
    with pytest.raises(LeakError, match="trained on the clip"):
        domains.predict_degraded(tmp_path, model, small.clips, [*clips, seen], small.split)
    assert not list(tmp_path.iterdir()), "nothing was predicted"
    turned = small.split.parts.map({"train": "test", "validation": "validation", "test": "train"})
    with pytest.raises(LeakError, match="another split"):
        domains.choose_clips(model, small.clips, dataclasses.replace(small.split, parts=turned), per_class=3)


def test_of_a_corpus_that_shares_clips_with_the_study_new_clips_of_trained_groups_are_left_out(made, small, tmp_path):
    own, given = small.clips.manifest, {"study": small.clips, "split": small.split}
    part, renamed = own.clip_id.map(small.split.parts), "other " + own.clip_id
    larger = own.clip_id.where(part != "train", renamed)
    for ids, expected in ((larger, own.clip_id[part == "test"]), (renamed, renamed)):
        manifest = own.assign(clip_id=ids).sort_values("clip_id", ignore_index=True)
        corpus = dataclasses.replace(small.clips, manifest=manifest)
        found = domains.predict_domain(tmp_path / f"{len(expected)}.npz", made.model, corpus, **given)
        assert set(found["clip_id"]) == set(expected)


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
    monkeypatch.setattr(domains, "degrade", lambda signal, *_: 0 * signal)
    (made.folder / "clipping.npz").unlink()
    for name, one in made.predict().items():
        if "clipping" in name:
            np.testing.assert_allclose(one["probabilities"], 1 / 3)
            assert not is_named(one["probabilities"], made.model.single.thresholds).any()
        else:
            np.testing.assert_array_equal(one["probabilities"], made.predicted[name]["probabilities"])


def test_unknown_classes_have_no_target_and_others_are_matched_by_their_common_names(made):
    home, away = made.home, made.away
    assert home["clip_id"].tolist() == made.clips and (home["targets"] != UNKNOWN).all()
    number = {label: set(away["targets"][away["label"] == label]) for label in ("flute", "drums", "organ")}
    assert number == {"flute": {0}, "drums": {2}, "organ": {UNKNOWN}} and len(away["targets"]) == 18
    for corpus, classes, matched in (
        ("fsdkaggle2018", ("Applause", "Flute", "Hi-hat"), {"Flute": "flute", "Hi-hat": None, "Applause": None}),
        ("nsynth", ("keyboard", "string"), {"string": None}),  # the keyboard may be a piano
    ):
        assert domains.class_of(made.model, SimpleNamespace(name=corpus, classes=classes)) == matched


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
