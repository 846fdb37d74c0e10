"""The published corpora: their layouts, groups and official parts, what is wrong with a copy, and downloads."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from trees import (
    KAGGLE_TEST,
    KAGGLE_TRAIN,
    make_irmas,
    make_kaggle_instruments,
    make_nsynth,
    make_openmic2018,
    nsynth_note,
    own_level,
    serving,
    tone,
    write_audio,
    write_nsynth_part,
)

from instrlib.core.config import get_profile
from instrlib.core.io import ConfigError, CorpusError, hash_file
from instrlib.data import corpora, download, irmas, openmic2018
from instrlib.data.dataset import IN_TEST, TWO_CLASSES
from instrlib.data.fsdkaggle2018 import GAP, id_clusters
from instrlib.data.kaggle_instruments import group_of
from instrlib.data.mirdata_index import remotes
from instrlib.data.splits import make_split

TRAIN_TABLE = "FSDKaggle2018.meta/train_post_competition.csv"
TEST_TABLE = "FSDKaggle2018.meta/test_post_competition.csv"
FSD_TRAIN = [(f"{label}{n}", label, 1000 * n + at) for at, label in enumerate(("Cello", "Flute")) for n in range(6)]
FSD_TEST = [("t1", "Cello", 90_000), ("t2", "Flute", 90_001, "Private"), ("pad", "None", 5, "Ignored")]


def make_fsdkaggle2018(root, train=FSD_TRAIN, test=FSD_TEST):
    """Write a release from (name, label, freesound id) rows; test rows may add their usage."""
    (root / "FSDKaggle2018.meta").mkdir(parents=True)
    rows = [(f"{name}.wav", label, number % 2, number, "Attribution") for name, label, number in train]
    columns = ["fname", "label", "manually_verified", "freesound_id", "license"]
    pd.DataFrame(rows, columns=columns).to_csv(root / TRAIN_TABLE, index=False)
    rows = [(f"{row[0]}.wav", row[1], row[3] if row[3:] else "Public", row[2], "CC0") for row in test]
    columns = ["fname", "label", "usage", "freesound_id", "license"]
    pd.DataFrame(rows, columns=columns).to_csv(root / TEST_TABLE, index=False)
    for part, listed in (("train", train), ("test", test)):
        for name, *_ in listed:
            path = root / f"FSDKaggle2018.audio_{part}" / f"{name}.wav"
            write_audio(path, tone(0, 0, 0.3) * own_level(path))
    return root


MAKERS = {
    "fsdkaggle2018": make_fsdkaggle2018,
    "irmas": lambda root: make_irmas(root, duration_s=0.3),
    "openmic2018": lambda root: make_openmic2018(root, duration_s=0.3),
    "nsynth": lambda root: make_nsynth(root, families=("brass", "flute")),
    "kaggle_instruments": lambda root: make_kaggle_instruments(root, duration_s=0.2),
}
CLASSES = {
    "fsdkaggle2018": ("Cello", "Flute"),
    "irmas": ("cel", "flu", "pia", "tru"),
    "openmic2018": ("cello", "drums", "flute", "piano"),
    "nsynth": ("brass", "flute"),
    "kaggle_instruments": ("drums", "guitar", "piano", "violin"),
}
FETCHED = ("fsdkaggle2018", "irmas", "openmic2018", "nsynth")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a function that makes a release, once."""
    found = {}

    def make(name):
        if name not in found:
            found[name] = tmp_path_factory.mktemp("made") / name
            MAKERS[name](found[name])
        return found[name]

    return make


@pytest.fixture
def own(made, tmp_path):
    """Return a function that copies a release, for a test that damages it."""
    return lambda name: shutil.copytree(made(name), tmp_path / name)


def read(root, **settings):
    return corpora.read(root.name, root, **settings)


def change_table(path, edit):
    edit(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


# -- all ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_release_is_read_split_and_valid(made, name):
    corpus = corpora.read(name, made(name))
    assert corpus.classes == CLASSES[name]
    assert corpus.n_unusable == 0 and set(corpus.excluded.reason) <= {IN_TEST}
    assert set(corpus.manifest.split) == ({""} if name == "irmas" else {"train", "test"})
    assert corpora.info(name).multilabel == corpus.multilabel
    parts = make_split(corpus.manifest, seed=0).parts
    fixed = corpus.manifest[corpus.manifest.split == "test"]
    assert (parts[fixed.clip_id] == "test").all() and set(parts) == {"train", "validation", "test"}
    missing = {
        "irmas": [f"IRMAS-TrainingData/{one} is missing." for one in irmas.INSTRUMENTS if one not in CLASSES[name]]
    }
    assert corpora.validate(name, made(name)) == missing.get(name, [])
    loaded = corpora.load(name, data=made(name), profile=get_profile("smoke"))
    assert set(loaded.manifest.clip_id) <= set(corpus.manifest.clip_id)
    assert loaded.manifest.label.value_counts().max() <= 12


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_release_says_how_to_get_it(tmp_path, name):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CorpusError) as error:
            corpora.read(name, root)
        assert all(part in str(error.value) for part in (str(root), corpora.info(name).how_to_get))
        assert corpora.validate(name, root) == [str(error.value)]


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_and_a_broken_file_are_named(own, name):
    root = own(name)
    first, second = read(root).manifest.query("split != 'test' and label != 'violin'").path.iloc[[0, 1]]
    (root / first).unlink()
    (root / second).write_text("this is no sound")
    excluded = read(root).excluded.query("not usable")
    listed = name != "irmas"  # whose training set is what lies in its folders
    assert excluded.path.tolist() == ([first, second] if listed else [second])
    found = "\n".join(corpora.validate(name, root))
    assert first.split("/")[-1].rpartition(".")[0] in found and f"{second}: " in found


@pytest.mark.parametrize("name", MAKERS)
def test_copies_of_one_file_are_one_group_or_left_out_in_every_corpus(own, name):
    root = own(name)
    clips = read(root).manifest.query("split != 'test'").drop_duplicates("group")
    first, second = clips[clips.label == clips.label.iloc[0]].path.iloc[:2]
    shutil.copy(root / first, root / second)
    manifest = read(root).manifest.set_index("path")
    assert manifest.group[first] == manifest.group[second]
    other = clips[clips.label != clips.label.iloc[0]].path.iloc[0]
    shutil.copy(root / first, root / other)
    again = read(root)
    torn = again.excluded.path[again.excluded.reason == TWO_CLASSES].tolist()
    assert sorted(torn) == ([] if again.multilabel else sorted([first, second, other]))


def test_names_and_facts_are_read_without_the_heavy_packages():
    code = (
        "import sys, instrlib.data.corpora as c; [c.info(name) for name in c.NAMES]; "
        "print(sorted({'librosa', 'tensorflow', 'mirdata', 'sklearn'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert told.stdout == "[]\n"
    with pytest.raises(ConfigError, match="none"):
        corpora.info("none")


# -- tables that cannot be used ----------------------------------------------------------------------------------------

NSYNTH_NOTE = "brass_acoustic_002-051-050"
OPENMIC_CLIP = "000046_3840"
NSYNTH_LIST = "nsynth-train/examples.json"
LABELS, METADATA, TEST_PART = (
    f"{openmic2018.FOLDER}/{name}"
    for name in (openmic2018.LABELS, openmic2018.METADATA, openmic2018.PARTITIONS["test"])
)


def altered(**fields):
    """Return an edit of a JSON file of notes that changes fields of one."""

    def edit(text):
        notes = json.loads(text)
        notes[NSYNTH_NOTE] |= fields
        return json.dumps(notes)

    return edit


def columns(**changed):
    """Return an edit of a table: columns of one value, or, with None, left out."""

    def edit(text):
        table = pd.read_csv(io.StringIO(text), dtype=str).assign(**changed)
        return table.drop(columns=[name for name, value in changed.items() if value is None]).to_csv(index=False)

    return edit


def twice(text):
    """Repeat the last line of a table."""
    return text + text.splitlines()[-1] + "\n"


BROKEN = [
    ("fsdkaggle2018", TRAIN_TABLE, twice, "Flute5"),
    ("fsdkaggle2018", TRAIN_TABLE, lambda text: text.replace("2001", "n/a"), "Flute2"),
    ("fsdkaggle2018", TRAIN_TABLE, columns(license=None), "license"),
    ("fsdkaggle2018", TRAIN_TABLE, lambda text: "", "train_post_competition"),
    ("fsdkaggle2018", TRAIN_TABLE, lambda text: 'a,b\n"1,2\n3,4,5,6\n', "train_post_competition"),
    ("kaggle_instruments", "Metadata_Test.csv", columns(Class="Sound_Tuba"), "Sound_Tuba"),
    ("openmic2018", LABELS, columns(relevance=None), "relevance"),
    ("openmic2018", LABELS, columns(relevance="1.5"), f"cello in {OPENMIC_CLIP}"),
    ("openmic2018", LABELS, columns(relevance=""), f"cello in {OPENMIC_CLIP}"),
    ("openmic2018", LABELS, twice, "names 1 clips"),
    ("openmic2018", METADATA, columns(artist_name=None), "artist_name"),
    ("openmic2018", METADATA, twice, "names 1 clips"),
    ("openmic2018", TEST_PART, lambda text: text.partition("\n")[2], "no part contains"),
    ("openmic2018", TEST_PART, twice, "partitions"),
    *(
        ("nsynth", NSYNTH_LIST, text, "train/examples")
        for text in ("", "{", "[]", "{}", '"text"', '{"a": 3}', '{"a": {"note_str": "a"}}')
    ),
    ("nsynth", NSYNTH_LIST, altered(pitch=99), NSYNTH_NOTE),
    ("nsynth", NSYNTH_LIST, altered(velocity="50"), NSYNTH_NOTE),
    ("nsynth", NSYNTH_LIST, altered(note_str="brass_acoustic_001-051-050"), NSYNTH_NOTE),
    ("nsynth", NSYNTH_LIST, altered(instrument_family_str="flute"), NSYNTH_NOTE),
    ("nsynth", NSYNTH_LIST, altered(instrument_str="../../a", note_str="../../a-051-050"), NSYNTH_NOTE),
]


@pytest.mark.parametrize(("name", "file", "edit", "place"), BROKEN)
def test_a_table_that_cannot_be_used_is_named(own, name, file, edit, place):
    root = own(name)
    text = (root / file).read_text()
    (root / file).write_text(edit if isinstance(edit, str) else edit(text))
    with pytest.raises(CorpusError, match=place):
        read(root)


# -- FSDKaggle2018 -----------------------------------------------------------------------------------------------------


def test_ids_chained_by_small_steps_are_one_cluster_named_by_its_smallest_id():
    assert id_clusters([250, 10, 110, 351, 9999], gap=100).tolist() == [250, 10, 10, 351, 9999]
    assert id_clusters([311, 10, 110, 210], gap=100).tolist() == [311, 10, 10, 10]
    assert id_clusters([], gap=100).tolist() == []


def test_the_numbers_of_clusters_are_those_that_the_gap_was_chosen_by(test_data):
    folder = test_data / "fsdkaggle2018_meta"
    train, test = (pd.read_csv(folder / f"{part}_post_competition.csv") for part in ("train", "test"))
    ids = [one.to_numpy() for _, one in train.groupby("label").freesound_id]
    found = {gap: sum(len(np.unique(id_clusters(one, gap=gap))) for one in ids) for gap in (1, 10, 100, 1000)}
    assert found == {1: 6039, 10: 4324, 100: 3689, 1000: 2524}
    scored = test[test.usage != "Ignored"]
    near = [
        (train.freesound_id[train.label == one.label] - one.freesound_id).abs().min() for one in scored.itertuples()
    ]
    assert len(scored) == 1600 and round(np.mean(np.array(near) <= GAP), 2) == 0.59


@pytest.mark.real_data
def test_the_sample_loads_as_221_clips_of_ten_classes(sample_root):
    corpus = corpora.read("fsdkaggle2018", sample_root)
    manifest = corpus.manifest
    assert (len(manifest), len(corpus.classes), len(corpus.excluded)) == (221, 10, 0)
    assert set(manifest.split) == {""} and manifest.manually_verified.all()
    assert set(manifest.licence) <= {"Attribution", "Creative Commons 0"}
    for _, clips in manifest.sort_values("freesound_id").groupby("label"):
        same = clips.group.to_numpy()[1:] == clips.group.to_numpy()[:-1]
        assert ((np.diff(clips.freesound_id) <= GAP) == same).all()
    make_split(manifest, seed=0)


@pytest.mark.real_data
def test_the_sample_of_notes_and_voices_is_a_folder(test_data):
    corpus = corpora.read("folder", test_data / "iowa_singers")
    assert (len(corpus.manifest), len(corpus.classes), len(corpus.excluded)) == (621, 9, 0)


def test_the_official_parts_are_kept_and_padding_is_no_clip(made):
    manifest = read(made("fsdkaggle2018")).manifest.set_index("clip_id")
    assert manifest.split.value_counts().to_dict() == {"train": 12, "test": 2}
    assert manifest.usage[["t1", "t2", "Cello0"]].tolist() == ["Public", "Private", ""]
    assert manifest.path["t1"] == "FSDKaggle2018.audio_test/t1.wav"


def test_training_clips_of_a_session_in_the_test_part_are_left_out(tmp_path):
    near = [("near", "Cello", 90_100), ("chained", "Cello", 90_200), ("far", "Cello", 90_301), ("o", "Flute", 90_101)]
    corpus = read(make_fsdkaggle2018(tmp_path / "fsdkaggle2018", FSD_TRAIN + near))
    assert corpus.excluded.clip_id.tolist() == ["chained", "near", "o"]
    assert "far" in set(corpus.manifest.clip_id)


def test_a_part_on_disk_alone_has_no_official_parts_and_a_link_is_a_folder(own, tmp_path):
    root = own("fsdkaggle2018")
    (root / "FSDKaggle2018.audio_train").rename(tmp_path / "elsewhere")
    (root / "FSDKaggle2018.audio_train").symlink_to(tmp_path / "elsewhere")
    assert len(read(root).manifest) == 14
    assert corpora.on_disk("fsdkaggle2018", root).startswith("15 audio files")
    shutil.rmtree(root / "FSDKaggle2018.audio_test")
    assert set(read(root).manifest.split) == {""}
    assert len(corpora.validate("fsdkaggle2018", root)) == 1


# -- IRMAS -------------------------------------------------------------------------------------------------------------


def test_a_file_name_of_irmas_tells_recording_genre_and_drums(own):
    root = own("irmas")
    shutil.rmtree(root / irmas.TRAINING / "pia")
    names = ("008__[pia][dru][lat_sou]0058__10", "[pia][cla]0001__1", "[pia][nod][cou_fol]1234__2")
    for pitch, name in enumerate(names):
        write_audio(root / irmas.TRAINING / "pia" / f"{name}.wav", tone(2, pitch, 0.2))
    rows = read(root).manifest.query("label == 'pia'")
    assert rows.clip_id.tolist() == [f"pia/{name}" for name in names]
    assert list(zip(rows.group, rows.genre, rows.drums, strict=True)) == [
        ("0058", "lat_sou", "yes"),
        ("0001", "cla", ""),
        ("1234", "cou_fol", "no"),
    ]


def test_a_recording_of_irmas_is_one_group_whatever_the_class_of_its_excerpts(made):
    manifest = read(made("irmas")).manifest
    assert manifest.label.value_counts().to_dict() == {"cel": 16, "flu": 17, "pia": 16, "tru": 16}
    assert set(manifest.label[manifest.group == "0001"]) == {"cel", "flu"}
    assert make_split(manifest, seed=0).parts[manifest.clip_id[manifest.group == "0001"]].nunique() == 1


def test_what_does_not_belong_into_irmas_is_named(own):
    root = own("irmas")
    for name in ("pia_17.wav", "[pia][cla]x__1.wav", "[vio][cla]0007__1.wav"):
        write_audio(root / irmas.TRAINING / "pia" / name, tone(2, 0, 0.2))
    excluded = read(root).excluded
    assert len(excluded) == 3 and excluded.path.str.startswith(f"{irmas.TRAINING}/pia/").all()
    (root / irmas.TRAINING / "kaz").mkdir()
    with pytest.raises(CorpusError, match="kaz"):
        read(root)


def test_the_test_set_of_irmas_has_several_labels_a_clip(made):
    root = made("irmas")
    corpus = irmas.load_test(root)
    assert corpus.classes == CLASSES["irmas"] and set(corpus.manifest.split) == {"test"}
    for row, labels in zip(corpus.manifest.itertuples(), corpus.labels, strict=True):
        lines = (root / row.path).with_suffix(".txt").read_text().split()
        assert lines == [name for name, present in zip(corpus.classes, labels, strict=True) if present == 1]
    assert set(corpus.manifest.groupby("group").size()) == {2} and corpus.labels.sum(axis=1).max() == 3
    island = corpus.manifest.path[corpus.manifest.group == "Vacation Island"]
    assert {path.split("/")[0] for path in island} == {irmas.TESTING[0], irmas.TESTING[2]}


def test_annotations_of_irmas_that_are_missing_or_wrong_are_named(own):
    root = own("irmas")
    for number, form in enumerate(("NFC", "NFD")):
        path = root / irmas.TESTING[0] / f"{unicodedata.normalize(form, 'Andrés Segovia')}-{number}.wav"
        write_audio(path, tone(0, number, 0.2))
        path.with_suffix(".txt").write_text("cel\r\n\r\n")
    assert (irmas.load_test(root).manifest.group == "Andrés Segovia").sum() == 2
    path = root / irmas.TESTING[2] / "Part3" / "Johnny Cash - One-1.txt"
    path.write_text("\n\n")
    assert irmas.load_test(root).excluded.path.tolist() == [f"{irmas.TESTING[2]}/Part3/Johnny Cash - One-1.wav"]
    for content in (b"cel\nkazoo\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=r"One-1\.txt"):
            irmas.load_test(root)
    for part in irmas.TESTING:
        shutil.rmtree(root / part)
    with pytest.raises(CorpusError, match="test set"):
        irmas.load_test(root)
    assert len(read(root).manifest) == 65


def test_validate_compares_with_the_published_checksums(own):
    root = own("irmas")
    index, whole = root / "irmas_index_1.0.json", corpora.validate("irmas", root)
    annotation = f"{irmas.TESTING[0]}/Part1/(02) dont kill the whale-1.txt"
    (root / annotation).write_text("tru")
    signal, converted = tone(0, 0, 0.2), next((root / irmas.TRAINING / "cel").iterdir())
    write_audio(converted.with_suffix(".flac"), signal)
    converted.unlink()
    (line,) = set(corpora.validate("irmas", root)) - set(whole)
    assert annotation in line and hash_file(root / annotation, algorithm="md5") in line
    index.write_text("[1]")
    assert index.name in corpora.validate("irmas", root)[-1]
    index.unlink()
    assert index.name in corpora.validate("irmas", root)[-1]


# -- NSynth ------------------------------------------------------------------------------------------------------------


def test_a_clip_of_nsynth_is_a_note_and_its_group_the_instrument(made):
    manifest = read(made("nsynth")).manifest.set_index("clip_id")
    assert len(manifest) == 2 * 6 * 4 and (manifest.duration_s == 4).all()
    row = manifest.loc["flute_acoustic_010-051-050"]
    assert row.path == "nsynth-train/audio/flute_acoustic_010-051-050.wav"
    assert (row.label, row.group, row.part, row.pitch, row.velocity) == ("flute", "flute_acoustic_010", "train", 51, 50)


def test_official_validation_and_test_notes_are_one_test_part_since_they_share_instruments(own):
    root = own("nsynth")
    manifest = read(root).manifest
    sides = {part: set(clips.group) for part, clips in manifest.groupby("part")}
    assert sides["valid"] == sides["test"] != set() and sides["train"].isdisjoint(sides["test"])
    assert ((manifest.split == "test") == (manifest.part != "train")).all()
    shutil.rmtree(root / "nsynth-train")
    assert set(read(root).manifest.split) == {""}
    held_out = nsynth_note("brass", "acoustic", 5, 80, 100)
    notes = [nsynth_note(name, "acoustic", n, 60 + n, 75) for name in ("brass", "flute") for n in (1, 2, 3)]
    write_nsynth_part(root, "train", [*notes, held_out])
    assert read(root).excluded.clip_id.tolist() == [held_out["note_str"]]


# -- Kaggle ------------------------------------------------------------------------------------------------------------


def test_errors_of_the_published_tables_are_corrected(made):
    manifest = read(made("kaggle_instruments")).manifest.set_index("clip_id")
    drums = manifest.label[[f"train/{name}" for name in ("RealDrum01_00MIX", "african-98600")]]
    assert drums.tolist() == ["drums", "drums"], "which the table names as violin, too"
    violins = manifest[(manifest.label == "violin") & (manifest.split == "train")]
    assert set(violins.named_by) == {"file name"}
    assert len(violins) == len(KAGGLE_TRAIN["Sound_Violin"]) - 1, "the viola of the test part is in training too"
    assert manifest.label["test/guitar-solo-27194"] == "guitar", "Sound_Guiatr"
    assert (manifest.split == "test").sum() == sum(map(len, KAGGLE_TEST.values()))


def test_folders_may_lie_in_folders_of_their_own_name_or_not(own):
    root = own("kaggle_instruments")
    nested = read(root).manifest
    for part in ("Train_submission", "Test_submission"):
        (root / part / part).rename(root / "moved")
        (root / part).rmdir()
        (root / "moved").rename(root / part)
    flat = read(root).manifest
    assert flat.drop(columns="path").equals(nested.drop(columns="path"))
    assert (nested.path == flat.path.str.split("/").str[0] + "/" + flat.path).all()


def test_training_recordings_of_a_group_of_the_test_part_are_left_out(made):
    excluded = read(made("kaggle_instruments")).excluded
    assert {f"train/ROOM_room6_MUS_bartok_DEV_{name}" for name in ("ipad", "lg")} < set(excluded.clip_id)
    assert {"train/hip-hop-drum-loop-23-75663", "train/rock_1_115BPM"} < set(excluded.clip_id)
    assert set(excluded.reason) == {IN_TEST}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("ROOM_room6_MUS_mozart_DEV_lg.wav", "room-6"),
        ("TechnoDrum01_02HHtrain", "technodrum01"),
        ("AR_Lick11_FN", "guitar-ar"),
        ("G53-40100-1111-00079", "guitar-g53"),
        ("slow_jazz_2_160BPM", "jazz-2"),
        ("Vn-ord-F5-pp-1c", "sol-vn"),
        ("11_emil-telmanyi_bwv1003", "emil-telmanyi"),
        ("VIOLIN_SOUND (29)", "violin-sound"),
        ("hip-hop-drum-loop-25-33571 (1).wav", "hip-hop-drum-loop"),
        ("muvibeat8", "muvibeat"),
        ("12", "12"),
    ],
)
def test_a_file_s_name_tells_which_recordings_belong_together(name, group):
    assert group_of(name) == group


def test_a_file_that_a_table_of_the_set_names_in_two_classes_is_left_out(own):
    root = own("kaggle_instruments")
    change_table(
        root / "Metadata_Test.csv", lambda table: pd.concat([table, table.iloc[[0]].assign(Class="Sound_Piano")])
    )
    excluded = read(root).excluded
    assert excluded.clip_id[excluded.reason.str.contains("two classes")].tolist() == ["test/acoustic-guitar-logo-13084"]


# -- OpenMIC -----------------------------------------------------------------------------------------------------------


def test_labels_are_present_absent_or_not_observed(made):
    root = made("openmic2018")
    corpus = read(root)
    table = pd.read_csv(root / openmic2018.FOLDER / openmic2018.LABELS)
    expected = table.pivot(index="sample_key", columns="instrument", values="relevance")
    expected = expected.where(expected.isna(), (expected >= 0.5).astype(float))
    np.testing.assert_array_equal(corpus.labels, expected.loc[corpus.manifest.clip_id, list(corpus.classes)])
    assert np.isnan(corpus.labels).sum(axis=1).tolist() == [1] * len(corpus.labels)
    row = corpus.manifest.iloc[0]
    assert (row.group, row.title) == ("artist/artist 00", "Song 0") and row.licence.startswith("Attribution")


def test_an_artist_of_the_test_part_is_left_out_of_training_and_an_unknown_one_is_no_group(own):
    root = own("openmic2018")
    metadata = root / openmic2018.FOLDER / openmic2018.METADATA

    def rename(table):
        table.loc[:1, "artist_name"] = " ARTIST 07"
        table.loc[2:3, "artist_name"] = ""
        return table

    change_table(metadata, rename)
    corpus = read(root)
    assert corpus.excluded.clip_id.tolist() == [OPENMIC_CLIP, "000183_7680"]
    assert corpus.manifest.group[:2].tolist() == [f"clip/{name}" for name in corpus.manifest.clip_id[:2]]


def test_vggish_features_are_the_release_s_own_in_the_order_asked_for(own):
    root = own("openmic2018")
    path = root / openmic2018.FOLDER / "vggish" / "000" / f"{OPENMIC_CLIP}.json"
    found = openmic2018.vggish_features(root, ["000183_7680", OPENMIC_CLIP])
    assert (found.shape, found.dtype) == ((2, 10, 128), np.uint8)
    np.testing.assert_array_equal(found[1], json.loads(path.read_text())["features"])
    for features in (None, [[1] * 128] * 9, [[1.5] * 128] * 10, [[256] * 128] * 10, [[1], [2, 3]]):
        path.write_text(json.dumps({"features": features}))
        with pytest.raises(CorpusError, match=OPENMIC_CLIP):
            openmic2018.vggish_features(root, [OPENMIC_CLIP])


# -- downloads ---------------------------------------------------------------------------------------------------------


def pack(root, remote, served):
    """Pack a part of a release as its publisher does; the second test part of IRMAS has no folder of its own."""
    part, target = root / remote.folder, served / remote.filename
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(part.rglob("*")):
                archive.write(path, path.relative_to(part if "Part2" in part.name else root))
    else:
        with tarfile.open(target, "w:gz", compresslevel=1) as archive:
            archive.add(part, part.name)


@pytest.fixture
def publisher(made, tmp_path, monkeypatch):
    """Return a function that serves a release: it gives the folder that is served and the archives."""
    monkeypatch.setattr(download, "_WAIT_S", 0.0)
    served = tmp_path / "served"
    served.mkdir()
    with serving(served) as address:

        def here(remote):
            checksum = f"md5:{hash_file(served / remote.filename, algorithm='md5')}"
            return replace(remote, url=f"{address}/{remote.filename}", checksum=checksum)

        def serve(name):
            archives, index = corpora._remotes(name)
            for archive in archives:
                pack(made(name), archive, served)
            if index:
                shutil.copy(made(name) / index.filename, served)
            known = tuple(map(here, archives)), here(index) if index else None
            monkeypatch.setattr(corpora, "_remotes", lambda name: known)
            return served, known[0]

        yield serve


@pytest.mark.parametrize("name", FETCHED)
def test_a_download_gives_the_release_and_is_not_repeated(publisher, made, tmp_path, name):
    served, archives = publisher(name)
    root = tmp_path / "fetched"
    corpora.download(name, root)
    assert corpora.read(name, root).fingerprint == corpora.read(name, made(name)).fingerprint
    if name == "irmas":
        assert irmas.load_test(root).fingerprint == irmas.load_test(made(name)).fingerprint
    assert not [path for path in root.iterdir() if path.name.startswith(".") or path.suffix in (".zip", ".gz", ".tgz")]
    shutil.copy(served / archives[0].filename, root)  # a run that was killed before it removed the archive
    for path in served.glob("*.*z*"):
        path.unlink()
    corpora.download(name, root)
    assert not (root / archives[0].filename).exists()
    found = corpora.read(name, root).manifest.path
    (root / found[found.str.contains("rain|audio/0")].iloc[0]).unlink()
    with pytest.raises(CorpusError, match="lacks 1 files"):
        corpora.download(name, root)


def test_an_archive_with_a_wrong_checksum_is_refused_and_nothing_unpacked(publisher, tmp_path):
    served, archives = publisher("fsdkaggle2018")
    (served / archives[0].filename).write_bytes(b"something else")
    found = hashlib.md5(b"something else").hexdigest()
    with pytest.raises(CorpusError) as error:
        corpora.download("fsdkaggle2018", tmp_path / "fetched")
    assert found in str(error.value) and archives[0].checksum.removeprefix("md5:") in str(error.value)
    assert not list((tmp_path / "fetched").iterdir())


def test_every_archive_has_an_address_and_a_checksum():
    for name in FETCHED:
        archives, index = corpora._remotes(name)
        for remote in (*archives, *([index] if index else [])):
            assert remote.url.startswith(("https://zenodo.org/", "http://download.magenta.tensorflow.org/"))
            assert len(remote.checksum) == len("md5:") + 32
    assert [one.folder for one in remotes("irmas")[0]] == [irmas.TRAINING, *irmas.TESTING]
    assert [one.folder for one in remotes("openmic2018")[0]] == [openmic2018.FOLDER]
    for name in ("kaggle_instruments", "folder"):
        with pytest.raises(ConfigError, match=name):
            corpora.download(name)


@pytest.mark.parametrize("name", ["irmas", "openmic2018"])
def test_licence_and_citation_are_those_of_mirdata(name):
    known, info = import_module(f"mirdata.datasets.{name}"), corpora.info(name)
    assert info.citation.split("DOI ")[1].rstrip(".") in known.BIBTEX
    assert info.licence.startswith(known.LICENSE_INFO.strip().split(" (")[0][:40])
    if name == "irmas":
        assert tuple(known.INST_DICT) == irmas.INSTRUMENTS
