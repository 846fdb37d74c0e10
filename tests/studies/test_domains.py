"""Available domains, in pairs, and networks that predict other domains than their own."""

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from trees import make_folder, make_kaggle_instruments, tone, write_audio

from instrlib.core.config import TrainConfig, folders, get_profile
from instrlib.core.io import ConfigError, CorpusError, LeakError
from instrlib.data import rendered
from instrlib.data.rendered import sources
from instrlib.data.splits import load_split
from instrlib.models import trained, variants
from instrlib.models.layers import Layer
from instrlib.studies import domains

TINY = (Layer("conv", 4, 3, 2, 2, True), Layer("conv", 6, 3, 1, 1, True), Layer("average"))


@pytest.fixture
def fonts(monkeypatch):
    """Return the fonts of the machine, by name; a test adds what it needs. TimGM6mb plays for all, two classes."""
    there: dict[str, Path] = {}

    def load(root, *, clips_per_class, players):
        few = {"classes": ("flute", "piano"), "players": rendered.Players(("TimGM6mb",))}
        return rendered.load(root, clips_per_class=min(9, clips_per_class), **few)

    known = {"fonts": lambda: there, "font_hash": sources.font_hash}
    known["shared_samples"] = lambda *both: 0.1 * (set(both) == {Path("TimGM6mb"), Path("Merlin")})
    monkeypatch.setattr(domains, "sources", SimpleNamespace(**known))
    monkeypatch.setattr(domains, "rendered", SimpleNamespace(load=load, Players=rendered.Players))
    return there


@pytest.fixture
def find(fonts, small, inputs, tmp_path):
    run = {"profile": get_profile("smoke"), "folder": tmp_path / "run"}
    return lambda corpus=small.clips: domains.available(corpus, inputs, **run)


def name_corpora(monkeypatch, *entries):
    monkeypatch.setenv(domains.VARIABLE, os.pathsep.join(map(str, entries)))


def make_tones(folder, length=0.0, recordings=4):
    for label, timbre in (("flute", 0), ("piano", 1)):
        for take in range(recordings):
            write_audio(folder / label / f"{take}.wav", tone(timbre, take, 1.0 + length))


def domain(name, corpus, classes, fonts=()):
    """Return a domain of nothing but names."""
    made_of = SimpleNamespace(name=corpus), SimpleNamespace(classes=tuple(classes))
    return domains.Domain(name, *made_of, (Path("split"),), frozenset(fonts))


def test_every_font_is_a_domain_but_the_one_that_alone_plays_the_studys_corpus(find, fonts, small):
    fonts |= {"TimGM6mb": Path(), "Merlin": Path()}
    by_both = small.clips.manifest.assign(font=np.resize(["Merlin", "TimGM6mb"], len(small.clips.manifest)))
    found = {one.name: set(one.fonts) for one in find(dataclasses.replace(small.clips, manifest=by_both))[0]}
    assert found == {"rendered": {"Merlin", "TimGM6mb"}, "Merlin": {"Merlin"}, "TimGM6mb": {"TimGM6mb"}}
    by_one = dataclasses.replace(small.clips, manifest=small.clips.manifest.assign(font="Merlin"))
    assert [one.name for one in find(by_one)[0]] == ["rendered", "TimGM6mb"]


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
    make_tones(mine)
    shutil.copyfile(kaggle.root / kaggle.manifest.path[0], mine / "piano" / "copied.wav")
    name_corpora(monkeypatch, f"folder={mine}", f"folder={tmp_path}/./mine")  # twice the same
    found, excluded = find()
    assert [one.name for one in found] == ["rendered", "folder mine"] and len(excluded) == 2
    assert any(one.startswith("kaggle_instruments: piano/copied.wav of folder mine and ") for one in excluded)
    bad = ("somewhere", "irmas=", "gtzan=/tmp", "rendered=/tmp", "irmas=sound/irmas", "irmas=/no/such/folder")
    for entries, error, reason in (
        ([f"folder={mine}", f"kaggle_instruments={kaggle.root}"], LeakError, r"copied\.wav"),
        ([f"irmas={irmas}"], (ConfigError, CorpusError), None),
        *(([entry], ConfigError, domains.VARIABLE) for entry in bad),
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
        make_tones(place, number / 7, recordings=2 if place.name == "few" else 4)
    name_corpora(monkeypatch, *(f"folder={place}" for place in places))
    (own, first, second, few), excluded = find()
    assert (first.name, second.name) == (f"folder {names[0]}", f"folder {names[1]} 2")
    run_folders = {variants.run_folder(tmp_path, one.name, fold=0, seed=0) for one in (first, second)}
    assert len(run_folders) == 2 and first.splits[0].parent != second.splits[0].parent
    assert few.splits == () and excluded[0].startswith("folder few: ")
    assert [(one.name, other.name) for one, other in domains.pairs([own, few])[0]] == [("rendered", "folder few")]


def test_what_is_on_this_machine_changes_with_its_files(fonts, monkeypatch, tmp_path):
    fonts["TimGM6mb"] = sources.find_soundfont()
    make_tones(tmp_path / "mine", recordings=1)
    name_corpora(monkeypatch, f"folder={tmp_path / 'mine'}")
    before = domains.on_this_machine()
    assert before == domains.on_this_machine() and len(before) == 2
    write_audio(tmp_path / "mine" / "flute" / "new.wav", tone(0, 0, 1.0))
    after = domains.on_this_machine()
    assert [name for name in before if before[name] != after[name]] == [f"folder in {tmp_path / 'mine'}"]


@pytest.mark.parametrize(
    ("source", "target", "of_source", "of_target"),
    [
        ("fsdkaggle2018 Applause Cello Violin_or_fiddle", "irmas vio pia cel", "- cello violin", "violin - cello"),
        ("rendered acoustic_guitar cello piano", "kaggle_instruments drums guitar", "guitar - -", "- guitar"),
        ("rendered acoustic_guitar electric_guitar", "kaggle_instruments guitar drums", "guitar guitar", "guitar -"),
        ("nsynth guitar keyboard string", "rendered cello piano violin", "- keyboard string", "string keyboard string"),
    ],
)
def test_classes_in_common_are_joined_where_one_domain_does_not_distinguish_them(source, target, of_source, of_target):
    both = [domain(corpus, corpus, classes) for corpus, *classes in (source.split(), target.split())]
    there, back, alone = (domains.in_common(*two) for two in (both, both[::-1], (both[0], both[0])))
    assert there.names == back.names == tuple(sorted({*of_source.split(), *of_target.split()} - {"-"}))
    for found, expected in (
        ((there.of_source, back.of_target), of_source),
        ((there.of_target, back.of_source), of_target),
    ):
        assert [[*there.names, "-"][one] for one in found[0]] == expected.split() and (found[0] == found[1]).all()
    assert alone.names == both[0].store.classes and (alone.of_source == np.arange(len(alone.names))).all()


def test_predictions_of_common_classes_are_summed_and_other_clips_are_left_out():
    common = domains.Common(("guitar", "organ"), np.array([0, -1, 0, 1]), np.array([-1, 0, 1]))
    given = np.array([[[0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]]])
    predictions = {"clip_id": np.array(["x", "y"]), "group": np.array(["g", "h"]), "targets": np.array([0, 1])}
    found = domains.to_common(predictions | {"probabilities": given}, common)
    assert found["clip_id"].tolist() == ["y"] and found["group"].tolist() == ["h"] and found["targets"].tolist() == [0]
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
        patch.setattr(domains, "sources", SimpleNamespace(fonts=dict))
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
