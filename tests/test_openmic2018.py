"""OpenMIC-2018: labels with gaps, artists and official parts, arrays that are never unpickled, and broken copies."""

import io
import json
import pickle
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
from trees import make_openmic2018, serving, tone, write_audio

from instrlib.core.errors import ConfigError, CorpusError
from instrlib.core.io import hash_file
from instrlib.data import download as downloads
from instrlib.data import openmic2018
from instrlib.data.base import LEFT_OUT, unusable
from instrlib.data.download import Remote
from instrlib.data.local import mirdata_module, mirdata_remotes
from instrlib.data.openmic2018 import (
    ARRAYS,
    ARTIST_IN_TEST,
    CLASS_MAP,
    FOLDER,
    INDEX,
    LABELS,
    METADATA,
    load,
    validate,
    vggish_features,
)
from instrlib.data.splits import make_split

CLASSES = ("cello", "drums", "flute", "piano")
FIRST = "000046_3840"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_openmic2018(tmp_path_factory.mktemp("made") / "openmic2018", artists=4, duration_s=0.3)


@pytest.fixture
def release(made, tmp_path):
    return shutil.copytree(made, tmp_path / "openmic2018")


def change_table(path, change):
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def change_arrays(root, **changed):
    with np.load(root / FOLDER / ARRAYS, allow_pickle=True) as stored:
        arrays = dict(stored)
    np.savez(root / FOLDER / ARRAYS, **(arrays | changed))


def clip_names(root):
    """Return the clip names of the npz file as plain strings."""
    with np.load(root / FOLDER / ARRAYS, allow_pickle=True) as stored:
        return stored["sample_key"].astype(str)


def test_labels_are_present_absent_or_not_observed(made):
    corpus = load(made)
    assert corpus.info.multilabel
    assert corpus.multilabel
    assert corpus.classes == CLASSES
    assert len(corpus.manifest) == 32
    table = pd.read_csv(made / FOLDER / LABELS).set_index(["sample_key", "instrument"]).relevance
    for clip_id, row in zip(corpus.manifest.clip_id, corpus.labels, strict=True):
        for name, label in zip(CLASSES, row, strict=True):
            relevance = table.get((clip_id, name))
            assert np.isnan(label) if relevance is None else label == (relevance >= 0.5)
    assert set(np.unique(np.isnan(corpus.labels).sum(axis=1))) == {1}


def test_the_manifest_tells_artist_title_licence_part_and_a_class_to_draw_by(made):
    manifest = load(made).manifest.set_index("clip_id")
    row = manifest.loc[FIRST]
    assert (row.artist, row.title, row.licence) == ("Artist 00", "Song 0", "Attribution 3.0 International")
    assert (row.path, row.split) == (f"{FOLDER}/audio/000/{FIRST}.ogg", "train")
    assert row.duration_s == pytest.approx(0.3)
    assert manifest.split.value_counts().to_dict() == {"train": 24, "test": 8}
    labels = dict(zip(load(made).manifest.clip_id, load(made).labels, strict=True))
    assert all(labels[clip_id][CLASSES.index(label)] == 1 for clip_id, label in manifest.label.items())


def test_an_artist_is_one_group_and_the_official_test_part_is_kept(made):
    manifest = load(made).manifest
    assert (manifest.groupby("artist").group.nunique() == 1).all()
    assert manifest.group.nunique() == 16
    parts = make_split(manifest, seed=0).parts
    assert (parts[manifest.clip_id[manifest.split == "test"]] == "test").all()
    assert manifest.assign(part=parts[manifest.clip_id].to_numpy()).groupby("group").part.nunique().max() == 1


def test_the_folder_of_the_release_itself_is_a_root_too(made):
    inner, outer = load(made / FOLDER), load(made)
    assert inner.manifest.path[0] == f"audio/000/{FIRST}.ogg"
    np.testing.assert_array_equal(inner.labels, outer.labels)


def test_a_clip_of_no_known_artist_is_its_own_group(release):
    def forget(table):
        table.loc[:1, "artist_name"] = ["", "  "]
        return table.drop(index=5)

    change_table(release / FOLDER / METADATA, forget)
    manifest = load(release).manifest
    assert manifest.group[[0, 1, 5]].tolist() == [f"clip/{name}" for name in manifest.clip_id[[0, 1, 5]]]


def test_training_clips_of_an_artist_in_the_test_part_are_left_out(release):
    def rename(table):
        table.loc[table.artist_name == "Artist 00", "artist_name"] = " ARTIST 03"
        return table

    change_table(release / FOLDER / METADATA, rename)
    corpus = load(release)
    left_out = corpus.problems[corpus.problems.reason == ARTIST_IN_TEST]
    assert left_out.clip_id.tolist() == [FIRST, "000183_7680"]
    assert unusable(corpus.problems).empty
    assert not set(left_out.clip_id) & set(corpus.manifest.clip_id)
    assert len(corpus.labels) == len(corpus.manifest) == 30
    make_split(corpus.manifest, seed=0)


def test_chosen_classes_keep_the_clips_in_which_one_of_them_was_looked_for(made):
    corpus, everything = load(made, classes=["piano", "drums"]), load(made)
    assert corpus.classes == ("drums", "piano")
    columns = everything.labels[:, [1, 3]]
    observed = np.isfinite(columns).any(axis=1)
    assert corpus.manifest.clip_id.tolist() == everything.manifest.clip_id[observed].tolist()
    np.testing.assert_array_equal(corpus.labels, columns[observed])
    with pytest.raises(ConfigError, match="Unknown class kazoo; there is: cello, drums, flute, piano"):
        load(made, classes=["cello", "kazoo"])


def test_a_cap_draws_artists_before_clips_and_labels_stay_with_their_clips(made):
    corpus, everything = load(made, max_clips_per_class=4), load(made)
    assert corpus.manifest.label.value_counts().max() == 4
    assert set(corpus.manifest.split) == {"train", "test"}
    rows = everything.manifest.clip_id.isin(corpus.manifest.clip_id)
    np.testing.assert_array_equal(corpus.labels, everything.labels[rows])
    assert load(made, max_clips_per_class=4).fingerprint == corpus.fingerprint
    assert load(made, max_clips_per_class=4, seed=1).fingerprint != corpus.fingerprint


def test_clip_names_stored_as_objects_are_not_unpickled_and_the_table_gives_the_labels(made):
    (row,) = load(made).problems.itertuples()
    assert row.path == ARRAYS
    assert row.reason == (
        LEFT_OUT
        + "sample_key holds Python objects, which would have to be unpickled, so nothing of the file was used; "
        f"the labels come from {LABELS}, which says the same"
    )
    assert validate(made) == []  # it is published so


def test_arrays_without_objects_give_the_same_labels_without_the_table(release):
    expected = load(release)
    change_arrays(release, sample_key=clip_names(release))
    (release / FOLDER / LABELS).unlink()
    corpus = load(release)
    assert corpus.problems.empty
    assert corpus.fingerprint == expected.fingerprint
    assert f"{LABELS}: the file is missing." in validate(release)


def test_the_table_is_enough_when_the_arrays_are_not_there(release):
    expected = load(release)
    (release / FOLDER / ARRAYS).unlink()
    assert load(release).fingerprint == expected.fingerprint
    assert load(release).problems.empty


class Bomb:
    """An object that shows when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("something was unpickled",)


def test_nothing_is_ever_unpickled(release):
    bombs = np.array([Bomb()] * 32, dtype=object)
    change_arrays(release, sample_key=bombs)
    with pytest.raises(pytest.fail.Exception), np.load(release / FOLDER / ARRAYS, allow_pickle=True) as stored:
        stored["sample_key"]
    load(release)
    vggish_features(release, [FIRST])
    (release / FOLDER / LABELS).rename(release / "elsewhere.csv")
    with pytest.raises(CorpusError, match=rf"{ARRAYS}: sample_key holds Python objects, which would have"):
        load(release)
    (release / "elsewhere.csv").rename(release / FOLDER / LABELS)
    (release / FOLDER / ARRAYS).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CorpusError, match=rf"{ARRAYS} is not readable as arrays"):
        load(release)


@pytest.mark.parametrize("name", ["Y_true", "Y_mask"])
def test_labels_stored_as_objects_are_refused(release, name):
    with np.load(release / FOLDER / ARRAYS, allow_pickle=True) as stored:
        objects = stored[name].astype(object)
    change_arrays(release, sample_key=clip_names(release), **{name: objects})
    with pytest.raises(CorpusError, match=rf"{name} holds Python objects, .* Delete it: {LABELS} says the same."):
        load(release)
    assert len(validate(release)) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Y_mask": np.zeros((32, 3), dtype=bool)}, r"Y_mask is of shape \(32, 3\), not \(32, 4\)"),
        ({"Y_true": np.full((32, 4), "x")}, "Y_true is of shape .* or does not hold numbers"),
        ({"sample_key": np.array([FIRST] * 32)}, "sample_key is not a list of names, each of them once"),
    ],
)
def test_arrays_of_another_form_are_refused(release, changed, message):
    change_arrays(release, **({"sample_key": clip_names(release)} | changed))
    with pytest.raises(CorpusError, match=message):
        load(release)


def test_a_missing_array_is_named(release):
    np.savez(release / FOLDER / ARRAYS, sample_key=clip_names(release), Y_true=np.zeros((32, 4)))
    with pytest.raises(CorpusError, match=f"{ARRAYS} lacks the array Y_mask"):
        load(release)


def test_a_mask_that_hides_a_class_entirely_is_refused_and_names_it(release):
    with np.load(release / FOLDER / ARRAYS, allow_pickle=True) as stored:
        mask = stored["Y_mask"].copy()
    mask[:, 2] = False
    change_arrays(release, sample_key=clip_names(release), Y_mask=mask)
    with pytest.raises(CorpusError, match="the labels of flute are hidden in every clip; leave that class out"):
        load(release)
    assert load(release, classes=["cello", "drums", "piano"]).classes == ("cello", "drums", "piano")
    assert f"{LABELS} and {ARRAYS} differ about the labels of {FIRST}." in validate(release)


@pytest.mark.parametrize(
    ("table", "column"),
    [(LABELS, "relevance"), (LABELS, "instrument"), (METADATA, "artist_name"), (METADATA, "sample_key")],
)
def test_a_missing_column_is_named_with_its_file(release, table, column):
    change_table(release / FOLDER / table, lambda rows: rows.drop(columns=column))
    with pytest.raises(CorpusError, match=rf"{table} lacks the column {column}; it has: "):
        load(release)
    assert len(validate(release)) == 1


def test_a_label_outside_the_class_map_is_named(release):
    change_table(release / FOLDER / LABELS, lambda rows: rows.replace({"instrument": {"flute": "kazoo"}}))
    with pytest.raises(
        CorpusError, match=f"{LABELS} names kazoo, which {CLASS_MAP} does not; there is: cello, drums, "
    ):
        load(release)


@pytest.mark.parametrize("relevance", ["1.5", "-0.1", "", "yes"])
def test_a_relevance_that_is_no_share_is_named(release, relevance):
    def spoil(rows):
        rows.loc[0, "relevance"] = relevance
        return rows

    change_table(release / FOLDER / LABELS, spoil)
    with pytest.raises(CorpusError, match=f"the relevance of cello in {FIRST} is not between 0 and 1"):
        load(release)


def test_rows_that_stand_there_twice_are_named(release):
    change_table(release / FOLDER / METADATA, lambda rows: pd.concat([rows, rows.iloc[[0]]]))
    with pytest.raises(CorpusError, match=f"the clip {FIRST} is described twice"):
        load(release)
    change_table(release / FOLDER / LABELS, lambda rows: pd.concat([rows, rows.iloc[[0]]]))
    with pytest.raises(CorpusError, match=f"cello in {FIRST} stands there twice"):
        load(release)


@pytest.mark.parametrize("content", ["{", "[]", '{"cello": 0, "flute": 2}', '{"cello": "a"}'])
def test_a_class_map_that_is_none_is_named(release, content):
    (release / FOLDER / CLASS_MAP).write_text(content)
    with pytest.raises(CorpusError, match=CLASS_MAP):
        load(release)


def test_a_clip_in_both_official_parts_or_in_none_is_named(release):
    test = release / FOLDER / "partitions" / "split01_test.csv"
    names = test.read_text()
    test.write_text(names + FIRST)
    with pytest.raises(CorpusError, match=f"the clip {FIRST} is named twice in the official parts"):
        load(release)
    test.write_text("\n".join(names.splitlines()[1:]))
    with pytest.raises(CorpusError, match=f"neither part names the clip {names.splitlines()[0]}"):
        load(release)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "no partitions", "no labels"])
def test_a_missing_or_partial_release_says_where_to_get_it(release, there):
    if there == "no partitions":
        shutil.rmtree(release / FOLDER / "partitions")
    elif there == "no labels":
        (release / FOLDER / LABELS).unlink()
        (release / FOLDER / ARRAYS).unlink()
    else:
        shutil.rmtree(release)
        if there == "an empty folder":
            release.mkdir()
    with pytest.raises(CorpusError) as error:
        load(release)
    told = ("zenodo.org/records/1432913", "10.5281/zenodo.1432913", "GB", "Attribution 4.0", str(release))
    assert all(part in str(error.value) for part in (*told, "`instrlib download openmic2018`"))
    assert validate(release) == [str(error.value)]


def test_missing_unreadable_and_strange_audio_is_listed_with_the_reason(release):
    audio = release / FOLDER / "audio" / "000"
    (audio / f"{FIRST}.ogg").unlink()
    (audio / "000183_7680.ogg").write_text("this is no sound")
    write_audio(audio / "000999_0.ogg", tone(0, 0, 0.3))
    problems = unusable(load(release).problems)
    assert problems.clip_id.tolist() == [FIRST, "000183_7680"]
    assert problems.reason[0].startswith(f"the file is missing; looked for {FIRST} with the endings .wav")
    first, second, third = validate(release)
    assert first.startswith(f"{FOLDER}/audio/000/{FIRST}.ogg: the file is missing")
    assert second.startswith(f"{FOLDER}/audio/000/000183_7680.ogg: ")
    assert third == f"{FOLDER}/audio/000/000999_0.ogg: no clip that has labels is called so"


def test_validate_names_what_is_missing_or_altered(release):
    altered, gone = f"vggish/000/{FIRST}.json", "vggish/000/000183_7680.json"
    (release / FOLDER / altered).write_text("{}")
    (release / FOLDER / gone).unlink()
    expected = dict(pair["audio"] for pair in json.loads((release / INDEX).read_text())["tracks"].values())[altered]
    found = hash_file(release / FOLDER / altered, algorithm="md5")
    assert validate(release) == [
        f"{altered}: the file was altered: its md5 is {found}, not {expected} as expected",
        f"{gone}: the file is missing, which {INDEX} lists",
    ]
    (release / INDEX).unlink()
    (finding,) = validate(release)
    assert finding.startswith(f"{INDEX}: mirdata's list of files is not there, so nothing was compared")


def test_paths_in_mirdata_s_list_may_begin_with_the_release_s_folder(release):
    (release / INDEX).write_text((release / INDEX).read_text().replace('["', f'["{FOLDER}/'))
    assert validate(release) == []
    (release / FOLDER / CLASS_MAP).write_text((release / FOLDER / CLASS_MAP).read_text() + "\n")
    assert len(validate(release)) == 1


@pytest.mark.parametrize("objects", [True, False])
def test_vggish_features_are_the_release_s_own_in_the_order_asked_for(release, objects):
    with np.load(release / FOLDER / ARRAYS, allow_pickle=True) as stored:
        embeddings = dict(zip(stored["sample_key"], stored["X"], strict=True))
    if not objects:
        change_arrays(release, sample_key=clip_names(release))
        shutil.rmtree(release / FOLDER / "vggish")
    asked = ["000183_7680", FIRST, "000320_3840"]
    found = vggish_features(release, asked)
    assert (found.shape, found.dtype) == ((3, 10, 128), np.uint8)
    np.testing.assert_array_equal(found, [embeddings[name] for name in asked])
    with pytest.raises(CorpusError, match="no embedding of 000001_0"):
        vggish_features(release, ["000001_0"])


@pytest.mark.parametrize("features", [None, [[1] * 128] * 9, [[1.5] * 128] * 10, [[256] * 128] * 10, [[1], [2, 3]]])
def test_an_embedding_of_another_form_is_named(release, features):
    path = release / FOLDER / "vggish" / "000" / f"{FIRST}.json"
    path.write_text(json.dumps({"features": features}) if features else "{")
    with pytest.raises(CorpusError, match=rf"{FIRST}.json"):
        vggish_features(release, [FIRST])


def test_what_is_told_of_the_corpus_is_what_mirdata_says():
    known = mirdata_module("openmic2018")
    assert openmic2018.INFO.licence.startswith(known.LICENSE_INFO)
    doi = "10.5281/zenodo.1432913"
    assert all(doi in text for text in (known.BIBTEX, openmic2018.INFO.citation, openmic2018.__doc__))
    archives, index = mirdata_remotes("openmic2018")
    assert [remote.filename for remote in archives] == ["openmic-2018-v1.0.0.tgz"]
    assert index.filename == INDEX
    for remote in (*archives, index):
        assert remote.url.startswith("https://zenodo.org/")
        assert len(remote.checksum) == len("md5:") + 32


@pytest.fixture
def publish(tmp_path, made, monkeypatch):
    """Serve an archive and mirdata's list as the release; give back where they lie."""
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(made / INDEX, served)
    monkeypatch.setattr(downloads, "_WAIT_S", 0.0)
    with serving(served) as address:

        def put(fill):
            name = "openmic-2018-v1.0.0.tgz"
            with tarfile.open(served / name, "w:gz") as archive:
                fill(archive)
            remotes = [
                Remote(f"{address}/{one}", one, None, f"md5:{hash_file(served / one, algorithm='md5')}")
                for one in (name, INDEX)
            ]
            monkeypatch.setattr(openmic2018, "mirdata_remotes", lambda corpus: (remotes[:1], remotes[1]))
            return served / name, remotes

        yield put


def test_a_download_gives_the_release_and_leaves_no_archive(publish, made, tmp_path):
    archive, _ = publish(lambda opened: opened.add(made / FOLDER, FOLDER))
    root = tmp_path / "fetched"
    openmic2018.download(root)
    assert sorted(path.name for path in root.iterdir()) == [FOLDER, INDEX]
    assert load(root).fingerprint == load(made).fingerprint
    archive.unlink()
    openmic2018.download(root)
    (root / FOLDER / "audio" / "000" / f"{FIRST}.ogg").unlink()
    with pytest.raises(CorpusError, match=r"audio lacks 1 of the 32 clips that have labels; move .* away"):
        openmic2018.download(root)


def test_a_download_that_was_killed_while_it_unpacked_goes_on(publish, made, tmp_path):
    archive, _ = publish(lambda opened: [opened.add(path, path.name) for path in (made / FOLDER).iterdir()])
    root = tmp_path / "fetched"
    root.mkdir()
    shutil.copy(archive, root)
    shutil.copy(made / FOLDER / CLASS_MAP, root)
    openmic2018.download(root)
    assert len(load(root).manifest) == 32


def test_an_archive_with_a_wrong_checksum_names_the_expected_and_the_found_one(publish, made, tmp_path):
    archive, remotes = publish(lambda opened: opened.add(made / FOLDER / CLASS_MAP, f"{FOLDER}/{CLASS_MAP}"))
    expected = remotes[0].checksum.removeprefix("md5:")
    archive.write_bytes(b"something else")
    found = hash_file(archive, algorithm="md5")
    with pytest.raises(CorpusError, match=f"has the md5 {found}, not {expected} as expected"):
        openmic2018.download(tmp_path / "fetched")


@pytest.mark.parametrize("name", ["../outside.txt", f"{FOLDER}/../../outside.txt", "/tmp/outside.txt"])
def test_a_path_that_climbs_out_of_the_archive_is_refused_and_nothing_is_unpacked(publish, tmp_path, name):
    def fill(opened):
        opened.addfile(tarfile.TarInfo(f"{FOLDER}/{CLASS_MAP}"), io.BytesIO())
        opened.addfile(tarfile.TarInfo(name), io.BytesIO())

    publish(fill)
    with pytest.raises(CorpusError, match="a link or a path out of its folder; nothing was unpacked"):
        openmic2018.download(tmp_path / "inside" / "fetched")
    assert not list(tmp_path.rglob("outside.txt"))
    assert not (tmp_path / "inside" / "fetched" / FOLDER).exists()
