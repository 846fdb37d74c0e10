"""Domains at hand: each once, with splits that no group crosses, and no pair that would be unfair or mean nothing."""

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from trees import make_folders, make_kaggle_instruments, tone, write_audio

from instrlib.core.config import folders, get_profile
from instrlib.core.errors import ConfigError, CorpusError, LeakError
from instrlib.data import rendered
from instrlib.data.splits import load_split
from instrlib.data.taxonomy import common_name
from instrlib.models.variants import run_folder
from instrlib.studies import domains
from instrlib.studies.domains import Domain


@pytest.fixture
def fonts(monkeypatch):
    """Let a machine have any fonts; whatever they are called, TimGM6mb plays."""
    there: dict[str, Path] = {}
    load = rendered.load

    def load_font(root, *, clips_per_class, seed, players, workers):
        assert len(players.fonts) == 1 and players.fonts[0] in there
        few = {"classes": ("flute", "piano"), "players": rendered.Players(("TimGM6mb",))}
        return load(root, clips_per_class=clips_per_class, seed=seed, **few, workers=workers)

    monkeypatch.setattr(domains.sources, "fonts", lambda: there)
    monkeypatch.setattr(domains.rendered, "load", load_font)
    monkeypatch.delenv(domains.VARIABLE, raising=False)
    return SimpleNamespace(there=there)


@pytest.fixture
def find(fonts, small, inputs, tmp_path):
    def found():
        profile = get_profile("smoke")
        return domains.at_hand(
            small.clips, inputs, profile=profile, clips_per_class=9, folder=tmp_path / "run", workers=1
        )

    return found


def name_corpora(monkeypatch, *entries):
    monkeypatch.setenv(domains.VARIABLE, os.pathsep.join(entries))


def world(name, corpus, classes, fonts=()):
    """Return a domain of nothing but names."""
    store = SimpleNamespace(classes=tuple(classes))
    common = {label: common_name(corpus, label) for label in classes if common_name(corpus, label)}
    return Domain(name, name, SimpleNamespace(name=corpus), store, (Path("split"),), common, frozenset(fonts))


# -- what there is -----------------------------------------------------------------------------------------------------


def test_the_studys_own_corpus_comes_first_with_the_features_and_splits_of_the_study(find, inputs):
    found, left_out = find()
    assert [domain.name for domain in found] == ["rendered"] and not left_out
    assert found[0].store is inputs.store and found[0].splits == inputs.splits
    assert found[0].common == {"drums": "drums", "flute": "flute", "piano": "piano"}


def test_every_font_is_a_domain_and_known_by_its_name(find, fonts):
    fonts.there |= {"TimGM6mb": Path(), "Merlin": Path(), "FluidR3_GM": Path()}
    found, _ = find()
    assert [domain.label for domain in found] == ["rendered", "FluidR3_GM", "Merlin", "TimGM6mb"]
    assert [set(domain.fonts) for domain in found] == [
        {"Merlin", "TimGM6mb"}, {"FluidR3_GM"}, {"Merlin"}, {"TimGM6mb"},
    ]  # fmt: skip


def test_a_font_that_alone_plays_the_studys_own_corpus_is_no_other_domain(fonts, small, inputs, tmp_path):
    fonts.there |= {"TimGM6mb": Path(), "Merlin": Path()}
    by_one = dataclasses.replace(small.clips, manifest=small.clips.manifest.assign(font="Merlin"))
    given = {"profile": get_profile("smoke"), "clips_per_class": 9, "folder": tmp_path, "workers": 1}
    assert [domain.label for domain in domains.at_hand(by_one, inputs, **given)[0]] == ["rendered", "TimGM6mb"]


def test_two_fonts_never_play_the_same_notes():
    phrases = [
        rendered.compose("flute", 3, players=rendered.Players((font,)))[2].notes for font in ("TimGM6mb", "Merlin")
    ]
    assert not np.array_equal(*phrases)


def test_a_corpus_is_named_by_the_variable_and_gets_the_studys_features(find, inputs, monkeypatch, tmp_path):
    make_folders(tmp_path / "mine", classes=("flute", "piano", "whistling"), recordings=4)
    name_corpora(monkeypatch, f"folder={tmp_path / 'mine'}")
    (_, mine), left_out = find()
    assert mine.name == "folder mine" and not left_out
    assert mine.common == {"flute": "flute", "piano": "piano"}
    assert mine.store.config == inputs.store.config


def test_no_group_crosses_a_split_of_any_domain(find, monkeypatch, tmp_path):
    root = tmp_path / "mine"
    make_folders(root, classes=("flute", "piano"), recordings=8)
    rows = [f"{label}/take {take},{label} {take // 2}" for label in ("flute", "piano") for take in range(8)]
    (root / "groups.csv").write_text("\n".join(["path,group", *rows]))
    name_corpora(monkeypatch, f"folder={root}")
    (_, mine), _ = find()
    assert len(mine.splits) == 1 and mine.store.clips.group.nunique() == 8
    parts = load_split(mine.splits[0], mine.store.segments).parts
    assert set(parts) == {"train", "validation", "test"}
    assert mine.store.clips.clip_id.map(parts).groupby(mine.store.clips.group).nunique().max() == 1


def test_a_corpus_that_lies_whole_below_the_data_folder_is_found_and_a_part_of_one_is_told(find):
    make_kaggle_instruments(folders().data / "kaggle_instruments")
    write_audio(folders().data / "irmas" / "IRMAS-TrainingData" / "cel" / "[cel][cla]0001__1.wav", tone(0, 0, 1.0))
    found, left_out = find()
    assert [domain.name for domain in found] == ["rendered", "kaggle_instruments"]
    assert len(left_out) == 1 and left_out[0].startswith("irmas is left out: ")


def test_a_named_corpus_that_is_not_whole_is_an_error(find, monkeypatch, tmp_path):
    write_audio(tmp_path / "irmas" / "a.wav", tone(0, 0, 1.0))
    name_corpora(monkeypatch, f"irmas={tmp_path / 'irmas'}")
    with pytest.raises(CorpusError):
        find()


def test_one_corpus_read_twice_is_one_domain(find, monkeypatch, tmp_path):
    make_folders(tmp_path / "mine", classes=("flute", "piano"), recordings=4)
    name_corpora(monkeypatch, f"folder={tmp_path / 'mine'}", f"folder={tmp_path}/./mine")
    assert [domain.name for domain in find()[0]] == ["rendered", "folder mine"]


def test_two_folders_of_one_name_are_two_domains(find, monkeypatch, tmp_path):
    for number, place in enumerate(("a", "b")):
        for label, timbre in (("flute", 0), ("piano", 1)):
            for take in range(4):
                path = tmp_path / place / "mine" / label / f"{take}.wav"
                write_audio(path, tone(timbre, take, 1.0 + number / 7))
    name_corpora(monkeypatch, *(f"folder={tmp_path / place / 'mine'}" for place in "ab"))
    assert [domain.name for domain in find()[0]] == ["rendered", "folder mine", "folder mine 2"]


def test_a_recording_in_two_domains_is_a_leak(find, monkeypatch, tmp_path):
    make_folders(tmp_path / "mine", classes=("flute", "piano"), recordings=4)
    make_folders(tmp_path / "yours", classes=("flute", "piano"), recordings=3)
    name_corpora(monkeypatch, *(f"folder={tmp_path / name}" for name in ("mine", "yours")))
    with pytest.raises(LeakError, match=r"are the same recording.*leave that corpus out of INSTRLIB_CORPORA"):
        find()


def test_a_corpus_that_was_only_found_is_left_out_when_it_holds_a_recording_of_another(find, monkeypatch, tmp_path):
    make_kaggle_instruments(folders().data / "kaggle_instruments")
    kaggle = find()[0][-1].corpus
    make_folders(tmp_path / "mine", classes=("flute", "piano"), recordings=4)
    shutil.copyfile(kaggle.root / kaggle.manifest.path[0], tmp_path / "mine" / "piano" / "copied.wav")
    name_corpora(monkeypatch, f"folder={tmp_path / 'mine'}")
    found, (sentence,) = find()
    assert [domain.name for domain in found] == ["rendered", "folder mine"]
    assert sentence.startswith("kaggle_instruments is left out: piano/copied.wav of folder mine and ")
    assert sentence.endswith("so what is learned in one would be tested in the other.")


@pytest.mark.parametrize("names", [("my sounds", "my-sounds"), ("Mine", "mine"), ("🎻", "🎺")])
def test_no_two_domains_are_trained_or_split_in_one_folder(names, find, monkeypatch, tmp_path):
    for number, name in enumerate(names):
        for label, timbre in (("flute", 0), ("piano", 1)):
            for take in range(4):
                write_audio(tmp_path / str(number) / name / label / f"{take}.wav", tone(timbre, take, 1 + number / 7))
    name_corpora(monkeypatch, *(f"folder={tmp_path / str(number) / name}" for number, name in enumerate(names)))
    _, first, second = find()[0]
    assert (first.name, second.name) == (f"folder {names[0]}", f"folder {names[1]} 2")
    assert run_folder(tmp_path, first.name, fold=0, seed=0) != run_folder(tmp_path, second.name, fold=0, seed=0)
    assert first.splits[0].parent != second.splits[0].parent


def test_a_corpus_with_too_few_groups_is_tested_on_and_not_trained_on(find, monkeypatch, tmp_path):
    make_folders(tmp_path / "mine", classes=("flute", "piano"), recordings=2)
    name_corpora(monkeypatch, f"folder={tmp_path / 'mine'}")
    (own, mine), left_out = find()
    assert mine.splits == () and left_out[0].startswith("folder mine is tested on, but not trained on: ")
    assert [(one.name, other.name) for one, other in domains.pairs([own, mine])[0]] == [("rendered", "folder mine")]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("somewhere", 'which is not "name=folder"'),
        ("irmas=", 'which is not "name=folder"'),
        ("gtzan=/tmp", "unknown corpus 'gtzan'; there is: fsdkaggle2018, irmas"),
        ("rendered=/tmp", "unknown corpus 'rendered'"),
        ("irmas=sound/irmas", "names sound/irmas; write the whole path"),
        ("irmas=/no/such/folder", "no such folder is there; correct the path"),
    ],
)
def test_a_bad_entry_is_one_sentence_that_says_how_to_go_on(entry, said, find, monkeypatch):
    name_corpora(monkeypatch, entry)
    with pytest.raises(ConfigError, match=said) as caught:
        find()
    assert "\n" not in str(caught.value) and domains.VARIABLE in str(caught.value)


def test_a_study_of_several_instruments_a_clip_is_refused(fonts, small, inputs, tmp_path):
    labels = np.eye(3, dtype=np.float32)[small.clips.targets]
    several = dataclasses.replace(small.clips, labels=labels)
    with pytest.raises(ConfigError, match="several instruments a clip"):
        domains.at_hand(several, inputs, profile=get_profile("smoke"), clips_per_class=9, folder=tmp_path)


def test_what_is_on_this_machine_changes_with_its_files(fonts, monkeypatch, tmp_path):
    fonts.there["TimGM6mb"] = domains.sources.find_soundfont()
    make_folders(tmp_path / "mine", classes=("flute", "piano"), recordings=1)
    name_corpora(monkeypatch, f"folder={tmp_path / 'mine'}")
    before = domains.on_this_machine()
    assert before == domains.on_this_machine() and len(before) == 2
    write_audio(tmp_path / "mine" / "flute" / "new.wav", tone(0, 0, 1.0))
    after = domains.on_this_machine()
    assert [name for name in before if before[name] != after[name]] == [f"folder in {tmp_path / 'mine'}"]


# -- pairs of them -----------------------------------------------------------------------------------------------------


def test_classes_in_common_go_by_their_common_names():
    common = domains.in_common(
        world("a", "fsdkaggle2018", ("Applause", "Cello", "Violin_or_fiddle")),
        world("b", "irmas", ("vio", "pia", "cel")),
    )
    assert common.names == ("cello", "violin")
    assert common.of_source.tolist() == [-1, 0, 1] and common.of_target.tolist() == [1, -1, 0]


def test_what_one_domain_tells_apart_and_the_other_does_not_is_one_class_both_ways():
    fine = world("a", "rendered", ("acoustic_guitar", "cello", "electric_guitar", "piano"))
    coarse = world("b", "kaggle_instruments", ("drums", "guitar", "piano"))
    common = domains.in_common(fine, coarse)
    assert common.names == ("guitar", "piano")
    assert common.of_source.tolist() == [0, -1, 0, 1] and common.of_target.tolist() == [-1, 0, 1]
    back = domains.in_common(coarse, fine)
    assert back.names == common.names and back.of_target.tolist() == common.of_source.tolist()


def test_a_family_holds_its_instruments():
    common = domains.in_common(
        world("a", "nsynth", ("guitar", "keyboard", "string")), world("b", "rendered", ("cello", "piano", "violin"))
    )
    assert common.names == ("keyboard", "string")
    assert common.of_source[2] == common.of_target[0] == common.of_target[2] == 1


def test_a_domain_has_all_its_classes_in_common_with_itself():
    own = world("a", "fsdkaggle2018", ("Applause", "Cello"))
    common = domains.in_common(own, own)
    assert common.names == ("Applause", "Cello") and common.of_source.tolist() == common.of_target.tolist() == [0, 1]


def test_pairs_without_classes_or_with_sounds_in_common_are_left_out_and_told(fonts, monkeypatch):
    fonts.there.update({name: Path(name) for name in ("TimGM6mb", "Merlin", "FluidR3_GM")})
    borrowed = {Path("TimGM6mb"), Path("Merlin")}
    monkeypatch.setattr(domains.sources, "shared_samples", lambda a, b: 0.1 * ({a, b} == borrowed))
    found = [
        world("Tim", "rendered", ("cello", "flute"), fonts=("TimGM6mb",)),
        world("study", "rendered", ("cello", "flute"), fonts=("TimGM6mb", "Merlin")),
        world("Merlin", "rendered", ("cello", "flute"), fonts=("Merlin",)),
        world("Fluid", "rendered", ("cello", "flute"), fonts=("FluidR3_GM",)),
        world("drums", "folder", ("drums", "gong")),
        world("strings", "irmas", ("cel", "gac")),
    ]
    kept, left_out = domains.pairs(found)
    assert {(one.name, other.name) for one, other in kept} == {
        (one, other) for name in ("study", "Merlin", "Tim") for one, other in ((name, "Fluid"), ("Fluid", name))
    }
    assert "study and Merlin share sounds of Merlin and TimGM6mb." in left_out
    assert "Tim and Merlin share sounds of TimGM6mb." in left_out
    assert "study and drums have no class in common." in left_out
    assert "Fluid and strings have only cello in common." in left_out
    assert len(left_out) == 15 - 3
