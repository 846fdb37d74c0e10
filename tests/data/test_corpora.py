"""Corpora as tables: drawing, copies, groups, official parts, partial labels, and what is excluded, in every layout."""

import functools
import http.server
import os
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import trees

from instrlib.audio import decode
from instrlib.core.config import get_profile
from instrlib.core.io import ConfigError, CorpusError, hash_file
from instrlib.data import corpora, files, irmas, openmic2018
from instrlib.data.corpora import IN_TEST, TWO_CLASSES, draw_clips, strata
from instrlib.data.fsdkaggle2018 import id_clusters
from instrlib.data.kaggle_instruments import group_of
from instrlib.data.splits import make_split

CLASSES = {
    **{"fsdkaggle2018": "Cello Flute", "irmas": "cel flu pia tru", "openmic2018": "cello drums flute piano"},
    **{"nsynth": "brass flute keyboard string", "kaggle_instruments": "drums guitar piano violin"},
    "folder": "cello flute piano",
}
FETCHED = ("fsdkaggle2018", "irmas", "openmic2018", "nsynth")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a function that makes a release, once."""
    return functools.cache(lambda name: getattr(trees, f"make_{name}")(tmp_path_factory.mktemp("made") / name))


@pytest.fixture
def own(made, tmp_path):
    """Return a function that copies a release, for a test that changes it."""
    return lambda name: shutil.copytree(made(name), tmp_path / name)


def read(root, **settings):
    return corpora.read(root.name, root, **settings)


@pytest.mark.parametrize("name", CLASSES)
def test_a_release_is_read_split_and_valid_and_a_missing_one_says_how_to_get_it(made, tmp_path, name):
    corpus = read(made(name))
    manifest = corpus.manifest
    assert list(corpus.classes) == CLASSES[name].split()
    assert manifest.columns[:7].tolist() == list(corpora.COLUMNS)
    assert [corpus.classes[at] for at in corpus.targets] == manifest.label.tolist()
    assert corpus.excluded.usable.all() and set(corpus.excluded.reason) <= {IN_TEST}
    assert set(manifest.split) == ({""} if name in ("irmas", "folder") else {"train", "test"})
    assert corpora.info(name).multilabel == corpus.multilabel
    lengths_s = [soundfile.info(corpus.root / path).duration for path in manifest.path]
    np.testing.assert_allclose(manifest.duration_s, lengths_s)
    parts = make_split(manifest, seed=0).parts
    assert (parts[manifest.clip_id[manifest.split == "test"]] == "test").all()
    missing = sorted(set(irmas.INSTRUMENTS) - set(corpus.classes)) if name == "irmas" else []
    assert corpora.validate(name, made(name)) == [f"IRMAS-TrainingData/{one} is missing." for one in missing]
    loaded = corpora.load(name, data=made(name), profile=get_profile("smoke"))
    assert set(loaded.manifest.clip_id) <= set(manifest.clip_id)
    assert loaded.manifest.label.value_counts().max() <= 12
    with pytest.raises(CorpusError) as error:
        corpora.read(name, tmp_path)
    assert all(part in str(error.value) for part in (str(tmp_path), corpora.info(name).how_to_get))
    assert corpora.validate(name, tmp_path) == [str(error.value)]


@pytest.mark.parametrize("name", CLASSES)
def test_missing_broken_and_converted_files(own, name):
    root = own(name)
    before = read(root).manifest.set_index("clip_id").query("split != 'test' and label != 'violin'").path
    first, second, third = before.iloc[:3]
    (root / first).unlink()
    (root / second).write_text("no audio")
    trees.write_audio((root / third).with_suffix(".flac"), trees.tone(0, 0, 0.2))
    (root / third).unlink()
    corpus = read(root)
    broken = corpus.excluded.query("not usable")
    listed = name not in ("irmas", "folder")  # in these the folders are the list
    assert set(broken.path.map(os.path.basename)) == set(map(os.path.basename, [first, second] if listed else [second]))
    assert not broken.reason.str.contains(str(root), regex=False).any()
    assert corpus.manifest.set_index("clip_id").path[before.index[2]] == third.rpartition(".")[0] + ".flac"
    found = "\n".join(corpora.validate(name, root))
    assert second in found and third not in found and (first.split("/")[-1] in found or name == "folder")


@pytest.mark.parametrize("name", CLASSES)
def test_copies_of_one_file_are_one_group_or_excluded(own, name):
    root = own(name)
    whole = read(root).manifest
    clips = whole.query("split != 'test'").drop_duplicates("group")
    first, second = clips[clips.label == clips.label.iloc[0]].path.iloc[:2]
    content = (root / first).read_bytes()
    for tested in whole.path[(whole.split == "test") & (whole.label == clips.label.iloc[0])][:1]:
        shutil.copy(root / tested, root / first)
        excluded = read(root).excluded
        assert set(whole.clip_id[whole.group == clips.group.iloc[0]]) <= set(excluded.clip_id)
        assert set(excluded.reason) == {IN_TEST} and excluded.usable.all()
    for path in (first, second):
        (root / path).write_bytes(content)
    manifest = read(root).manifest.set_index("path")
    assert manifest.group[first] == manifest.group[second]
    other = clips[clips.label != clips.label.iloc[0]].path.iloc[0]
    shutil.copy(root / first, root / other)
    again = read(root)
    torn = again.excluded.path[again.excluded.reason == TWO_CLASSES].tolist()
    assert sorted(torn) == ([] if again.multilabel else sorted([first, second, other]))
    chain = pd.DataFrame({"group": list("cbbax"), "content": list("11223")})
    assert corpora.join_copies(chain).tolist() == list("aaaax")


def test_the_fingerprint_follows_content_and_groups_but_not_the_folder(own, made, monkeypatch):
    root, opened, probe = own("folder"), [], decode.probe
    monkeypatch.setattr(decode, "probe", lambda path: opened.append(path.name) or probe(path))
    first = read(root).fingerprint
    assert read(root).fingerprint == first and len(opened) == 24, "files are opened again only when one has changed"
    assert read(made("folder")).fingerprint == first
    (root / "groups.csv").write_text("path,group\ncello/take 0,hall\n")
    assert read(root).fingerprint != first
    (root / "groups.csv").unlink()
    signal, rate_hz = soundfile.read(root / "cello" / "take 0.wav")
    soundfile.write(root / "cello" / "take 0.wav", signal[::-1], rate_hz)
    assert read(root).fingerprint != first


def test_a_draw_takes_a_clip_of_every_group_first_and_keeps_official_parts_for_any_order_and_choice_of_classes():
    rows = [(f"{label}{n}", label, f"{label}/{n // 2}") for label in "ab" for n in range(12)]
    clips = pd.DataFrame(rows, columns=["clip_id", "label", "group"]).assign(split=(["train"] * 8 + ["test"] * 4) * 2)
    drawn = draw_clips(clips, 6)
    assert drawn.groupby("label").group.nunique().to_dict() == {"a": 6, "b": 6}
    assert pd.crosstab(drawn.label, drawn.split).to_numpy().tolist() == [[2, 4], [2, 4]]
    few = clips.assign(split=["train", "train", *["test"] * 10] * 2)
    assert (draw_clips(few, 4).split == "train").sum() == 4, "training gets half of the limit if it can"
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"clip_id": [f"c{n}" for n in range(300)], "label": rng.choice(list("abc"), 300)})
    clips = clips.assign(group=[f"session {n}" for n in rng.integers(0, 40, 300)], split="")  # with several classes
    whole = set(draw_clips(clips, 20, seed=3).clip_id)
    for some in (clips.sample(frac=1, random_state=1), clips[clips.label == "a"], clips[clips.label.isin(["b", "c"])]):
        assert set(draw_clips(some, 20, seed=3).clip_id) == whole & set(some.clip_id)
    assert set(draw_clips(clips, 20, seed=4).clip_id) != whole


def test_partial_labels_keep_unobserved_classes_and_an_artist_of_openmic_is_a_group(own):
    root = own("openmic2018")
    whole = read(root)
    expected = pd.read_csv(root / LABELS).pivot(index="sample_key", columns="instrument", values="relevance")
    expected = expected.where(expected.isna(), expected >= 0.5).astype(float)
    np.testing.assert_array_equal(whole.labels, expected.loc[whole.manifest.clip_id, list(whole.classes)])
    assert np.isnan(whole.labels).sum(axis=1).tolist() == [1] * len(whole.labels)
    row = whole.manifest.iloc[0]
    assert (row.group, row.title) == ("artist/artist 00", "Song 0") and row.licence.startswith("Attribution")
    drawn = read(root, classes=["flute", "cello"], max_clips_per_class=5)
    np.testing.assert_array_equal(drawn.labels, expected.loc[drawn.manifest.clip_id, ["cello", "flute"]])
    assert strata(np.array([[1, 1], [1, 0], [0, np.nan]]), ("piano", "banjo")) == ["banjo", "piano", "piano"]
    metadata = pd.read_csv(root / METADATA, dtype=str)
    metadata.loc[:3, "artist_name"] = [" ARTIST 07", " ARTIST 07", "", ""]  # in the test part, and unknown
    metadata.to_csv(root / METADATA, index=False)
    corpus = read(root)
    assert corpus.excluded.clip_id.tolist() == [CLIP, "000183_7680"]
    assert corpus.manifest.group[:2].tolist() == [f"clip/{name}" for name in corpus.manifest.clip_id[:2]]


def test_more_than_a_twentieth_of_unusable_clips_stops_a_run(own):
    root = own("folder")
    for number, path in enumerate((root / "cello").iterdir()):
        path.write_bytes(b"")
        if number == 1:
            with pytest.raises(CorpusError, match="2 of 24"):
                corpora.load("folder", data=root, profile=get_profile("smoke"))
    with pytest.raises(CorpusError, match="cello"):
        read(root)


def test_validate_decodes_files(own):
    root = own("fsdkaggle2018")
    clips = root / "FSDKaggle2018.audio_train"
    soundfile.write(clips / "Cello1.wav", np.zeros(4000), 8000)
    soundfile.write(clips / "Cello2.flac", np.random.default_rng(0).uniform(-1, 1, 80_000), 8000)
    (clips / "Cello2.flac").write_bytes((clips / "Cello2.flac").read_bytes()[:50_000])
    (clips / "Cello2.wav").unlink()
    assert read(root).excluded.empty
    found = [line.partition(": ")[0] for line in corpora.validate("fsdkaggle2018", root)]
    assert found == [f"{clips.name}/{name}" for name in ("Cello1.wav", "Cello2.flac")]
    latin = pd.Series([b"caf\xe9.wav".decode(errors="surrogateescape")])
    assert "UTF-8" in files.probe(root, latin).reason[0]


def test_class_folders_at_any_depth_and_in_any_script_are_read_and_hidden_files_skipped(own, tmp_path):
    root = own("folder")
    for number, name in enumerate(("cello/room/deep.FLAC", "скрипка 🎻/Étude nº 1.v2.flac", "None/NA.ogg")):
        trees.write_audio(root / name, trees.tone(3, number, 0.3))
    for name in ("cello/.hidden.wav", "cello/.folder/a.wav", ".trash/a.wav", "loose.wav"):
        trees.write_audio(root / name, trees.tone(3, 9, 0.3))
    (root / "cello" / "lost.wav").symlink_to(root / "gone.wav")
    (root / "flute").rename(tmp_path / "elsewhere")
    (root / "flute").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    corpus = read(root)
    assert corpus.classes == ("None", "cello", "flute", "piano", "скрипка 🎻") and len(corpus.manifest) == 27
    assert {"cello/room/deep", "None/NA", "скрипка 🎻/Étude nº 1.v2"} < set(corpus.manifest.clip_id)
    assert corpus.manifest.group.equals(corpus.manifest.clip_id)
    assert corpora.on_disk("folder", root) == f"29 audio files in {root}"  # with the loose file and the lost link


@pytest.mark.parametrize(("column", "ending"), [("clip_id", ""), ("path", ".wav")])
def test_groups_come_from_the_table_and_other_clips_are_their_own(own, column, ending):
    root = own("folder")
    trees.write_own(root / "cello" / f"{unicodedata.normalize('NFD', 'Étude')}.wav", trees.tone(0, 0, 0.3))
    rows = [f"cello/{name}{ending}, hall " for name in ("take 0", "take 1", "Étude", "gone")]
    rows += [f"{label}/take {number},{label} {number}" for label in ("flute", "piano") for number in range(8)]
    (root / "groups.csv").write_text("\n".join([f"{column},group", *rows]), encoding="utf-8-sig")
    corpus = read(root)
    groups = corpus.manifest.set_index("clip_id").group
    assert groups.index[groups == "hall"].str.len().tolist() == [12, 12, 12]
    assert groups["cello/take 2"] == "cello/take 2"
    (row,) = corpus.excluded.itertuples()
    assert (row.clip_id, row.path, row.usable) == (f"cello/gone{ending}", "groups.csv", True)


def test_unknown_classes_corpora_and_downloads_and_a_limit_below_one_are_errors(made):
    for wrong in ({"classes": ["cello", "tuba"]}, {"classes": ["cello"]}, {"max_clips_per_class": 0}):
        with pytest.raises(ConfigError):
            read(made("folder"), **wrong)
    for call, name in ((corpora.info, "none"), (corpora.download, "kaggle_instruments"), (corpora.download, "folder")):
        with pytest.raises(ConfigError, match=name):
            call(name)


FSD = "FSDKaggle2018.meta/train_post_competition.csv"
LABELS, METADATA = (f"{openmic2018.FOLDER}/{name}" for name in (openmic2018.LABELS, openmic2018.METADATA))
NOTES, CLIP = "nsynth-train/examples.json", "000046_3840"


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "place"),
    [
        ("folder", "groups.csv", "", "path,group\ncello/take 0,a\ncello/take 0.wav,b\n", "cello/take 0"),
        ("folder", "groups.csv", "", "path,group\ncello/take 0, \n", "cello/take 0"),
        ("folder", "groups.csv", "", "path,group\ntake 1.wav,hall\n", r"groups\.csv: 1 of 1"),
        ("folder", "cello/take 0.mp3", "", "", "cello/take 0"),
        ("folder", "oboe/notes.txt", "", "", "oboe"),
        ("irmas", "IRMAS-TrainingData/kaz/a.wav", "", "", "kaz"),
        ("fsdkaggle2018", FSD, "Flute5.wav", "Flute4.wav", "Flute4"),
        ("kaggle_instruments", "Metadata_Test.csv", "Sound_Piano", "Sound_Tuba", "Sound_Tuba"),
        ("openmic2018", LABELS, f"{CLIP},cello,1.0", f"{CLIP},cello,1.5", f"cello in {CLIP}"),
        ("openmic2018", LABELS, f"{CLIP},drums", f"{CLIP},cello", "1 clips more than once"),
        ("nsynth", NOTES, "}", "", "train/examples"),
        ("nsynth", NOTES, '"instrument_family_str": "brass"', '"instrument_family_str": "flute"', "train/examples"),
        ("nsynth", NOTES, "brass_acoustic", "../brass_acoustic", "train/examples"),
    ],
)
def test_a_table_or_layout_that_cannot_be_used_is_named(own, name, file, old, new, place):
    root = own(name)
    path = root / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(path.read_text().replace(old, new) if old else new)
    with pytest.raises(CorpusError, match=place) as error:
        read(root)
    assert corpora.validate(name, root) == [str(error.value)]


def test_freesound_ids_chained_by_small_steps_are_one_cluster(test_data):
    assert id_clusters([311, 10, 110, 210], gap=100).tolist() == [311, 10, 10, 10]
    train = pd.read_csv(test_data / "fsdkaggle2018_meta" / "train_post_competition.csv")
    ids = [one.to_numpy() for _, one in train.groupby("label").freesound_id]
    found = {gap: sum(len(np.unique(id_clusters(one, gap=gap))) for one in ids) for gap in (1, 10, 100, 1000)}
    assert found == {1: 6039, 10: 4324, 100: 3689, 1000: 2524}


@pytest.mark.real_data
@pytest.mark.parametrize(("folder", "counts"), [("fsdkaggle2018_sample", (221, 10, 0)), ("iowa_singers", (621, 9, 0))])
def test_the_samples_of_real_clips_load_completely(test_data, folder, counts):
    corpus = corpora.read("folder" if folder == "iowa_singers" else "fsdkaggle2018", test_data / folder)
    assert (len(corpus.manifest), len(corpus.classes), len(corpus.excluded)) == counts


def test_official_parts_of_fsdkaggle2018_and_sessions_that_reach_into_the_test_part(tmp_path):
    near = [("near", "Cello", 90_100), ("chained", "Cello", 90_200), ("far", "Cello", 90_301), ("o", "Flute", 90_101)]
    root = trees.make_fsdkaggle2018(tmp_path / "fsdkaggle2018", [*trees.FSD_TRAIN, *near])
    (root / "FSDKaggle2018.audio_train").rename(tmp_path / "elsewhere")
    (root / "FSDKaggle2018.audio_train").symlink_to(tmp_path / "elsewhere")
    corpus = read(root)
    assert corpus.excluded.clip_id.tolist() == ["chained", "near", "o"]
    manifest = corpus.manifest.set_index("clip_id")
    assert manifest.split.value_counts().to_dict() == {"train": 13, "test": 2}, "padding is no clip"
    shutil.rmtree(root / "FSDKaggle2018.audio_test")
    assert set(read(root).manifest.split) == {""}
    assert len(corpora.validate("fsdkaggle2018", root)) == 1


def test_a_file_name_of_irmas_states_the_recording(own):
    root = own("irmas")
    names = ("008__[pia][dru][lat_sou]0058__10", "[pia][cla]0001__1", "[pia][nod][cou_fol]1234__2")
    for name in (*names, "pia_17", "[pia][cla]x__1", "[vio][cla]0007__1"):
        trees.write_own(root / irmas.TRAINING / "pia" / f"{name}.wav", trees.tone(2, 0, 0.2))
    corpus = read(root)
    rows = corpus.manifest.set_index("clip_id").loc[[f"pia/{name}" for name in names]]
    assert rows.group.tolist() == ["0058", "0001", "1234"]
    assert set(corpus.manifest.label[corpus.manifest.group == "0001"]) == {"cel", "flu", "pia"}
    assert corpus.excluded.path.str.contains(r"pia_17|\]x__1|\[vio\]").sum() == len(corpus.excluded) == 3


def test_the_test_set_of_irmas_has_several_labels_per_clip(own):
    root = own("irmas")
    for number, form in enumerate(("NFC", "NFD")):
        path = root / irmas.TESTING[0] / f"{unicodedata.normalize(form, 'Andrés Segovia')}-{number}.wav"
        trees.write_own(path, trees.tone(0, number, 0.2))
        path.with_suffix(".txt").write_text("cel\r\n\r\n")
    path = root / irmas.TESTING[2] / "Part3" / "Johnny Cash - One-1.txt"
    path.write_text("\n\n")
    corpus = irmas.load_test(root)
    assert corpus.excluded.path.tolist() == [f"{irmas.TESTING[2]}/Part3/Johnny Cash - One-1.wav"]
    assert list(corpus.classes) == CLASSES["irmas"].split() and set(corpus.manifest.split) == {"test"}
    for row, labels in zip(corpus.manifest.itertuples(), corpus.labels, strict=True):
        lines = (root / row.path).with_suffix(".txt").read_text().split()
        assert lines == [name for name, present in zip(corpus.classes, labels, strict=True) if present == 1]
    sizes = corpus.manifest.groupby("group").size()
    assert sizes["Andrés Segovia"] == sizes["Vacation Island"] == 2 and len(sizes) == 5
    path.write_bytes(b"cel\n\xff\xfe\n")
    with pytest.raises(CorpusError, match=r"One-1\.txt"):
        irmas.load_test(root)


def test_validate_compares_with_the_published_checksums(own):
    root = own("irmas")
    index, whole = root / "irmas_index_1.0.json", corpora.validate("irmas", root)
    annotation = f"{irmas.TESTING[0]}/Part1/(02) dont kill the whale-1.txt"
    (root / annotation).write_text("tru")
    (line,) = set(corpora.validate("irmas", root)) - set(whole)
    assert annotation in line and hash_file(root / annotation, algorithm="md5") in line
    index.write_text("[1]")
    assert index.name in corpora.validate("irmas", root)[-1]


def test_notes_of_nsynth_are_grouped_by_instrument_and_its_small_parts_are_the_test_part(made):
    manifest = read(made("nsynth")).manifest
    assert len(manifest) == 4 * 6 * 4
    row = manifest.set_index("clip_id").loc["flute_acoustic_010-051-050"]
    assert row[["label", "group", "split"]].tolist() == ["flute", "flute_acoustic_010", "train"]
    assert (row.pitch, row.velocity) == (51, 50)
    sides = {part: set(clips.group) for part, clips in manifest.groupby(manifest.path.str.split("/").str[0])}
    assert sides["nsynth-valid"] == sides["nsynth-test"] == set(manifest.group[manifest.split == "test"]) != set()
    assert sides["nsynth-train"] == set(manifest.group[manifest.split == "train"])


def test_errors_of_the_kaggle_tables_are_corrected(own):
    root = own("kaggle_instruments")
    nested = read(root)
    manifest = nested.manifest.set_index("clip_id")
    assert manifest.label["train/RealDrum01_00MIX"] == "drums", "the table lists it as violin, too"
    violins = manifest[(manifest.label == "violin") & (manifest.split == "train")]
    assert len(violins) == len(trees.KAGGLE["Train"]["Sound_Violin"]) - 1, "the test part has the viola, too"
    assert manifest.label["test/guitar-solo-27194"] == "guitar", "Sound_Guiatr"
    assert {"train/ROOM_room6_MUS_bartok_DEV_lg", "train/rock_1_115BPM"} < set(nested.excluded.clip_id)
    for part in ("Train_submission", "Test_submission"):
        shutil.copytree(root / part / part, root / part, dirs_exist_ok=True)
        shutil.rmtree(root / part / part)
    assert set(read(root).manifest.clip_id) == set(manifest.index), "the folders are flat"
    groups = {
        **{"ROOM_room6_MUS_mozart_DEV_lg.wav": "room-6", "ROOM-room6-MUS-chords.wav": "room-6", "12": "12"},
        **{"AR_Lick11_FN": "guitar-ar", "G53-40100-1111-00079": "guitar-g53", "slow_jazz_2_160BPM": "jazz-2"},
        **{"Vn-ord-F5-pp-1c": "sol-vn", "11_emil-telmanyi_bwv1003": "emil-telmanyi", "muvibeat8": "muvibeat"},
        **{"TechnoDrum01_02HHtrain": "technodrum01", "hip-hop-drum-loop-25-33571 (1).wav": "hip-hop-drum-loop"},
    }
    assert {name: group_of(name) for name in groups} == groups, "a name states its group"


@pytest.mark.parametrize("name", FETCHED)
def test_a_download_gives_the_release_and_is_not_repeated(made, tmp_path, monkeypatch, name):
    served, root, (archives, index) = tmp_path / "served", tmp_path / "fetched", corpora._remotes(name)
    served.mkdir()
    for archive in archives:
        part, target = made(name) / archive.folder, served / archive.filename
        # The second test part of IRMAS has no folder of its own.
        inside = {"root_dir": part} if "Part2" in part.name else {"root_dir": part.parent, "base_dir": part.name}
        Path(shutil.make_archive(target, "zip" if target.suffix == ".zip" else "gztar", **inside)).rename(target)
    if index:
        shutil.copy(made(name) / index.filename, served)
    for remote in (*archives, *([index] if index else [])):
        assert remote.url.startswith(("https://zenodo.org/", "http://download.magenta.tensorflow.org/"))
        assert len(remote.checksum) == len("md5:") + 32
    with trees.serving(functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)) as address:

        def here(remote):
            checksum = f"md5:{hash_file(served / remote.filename, algorithm='md5')}"
            return replace(remote, url=f"{address}/{remote.filename}", checksum=checksum)

        known = list(map(here, archives)), here(index) if index else None
        monkeypatch.setattr(corpora, "_remotes", lambda name: known)
        corpora.download(name, root)
        assert corpora.read(name, root).fingerprint == corpora.read(name, made(name)).fingerprint
        if name == "irmas":
            assert irmas.load_test(root).fingerprint == irmas.load_test(made(name)).fingerprint
        assert not [path for path in root.iterdir() if path.name.startswith(".") or "z" in path.suffix]
        shutil.copy(served / archives[0].filename, root)  # a run that was killed before it removed the archive
        for path in served.glob("*.*z*"):
            path.unlink()
        corpora.download(name, root)
        assert not (root / archives[0].filename).exists()
