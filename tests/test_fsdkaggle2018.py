"""FSDKaggle2018: the release's layout, whole or in part, its sessions, and what is wrong with a copy of it."""

import functools
import http.server
import json
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.core.config import folders
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.core.io import hash_file
from instrlib.data import download as downloads
from instrlib.data import fsdkaggle2018
from instrlib.data.fsdkaggle2018 import GAP, SESSION_IN_TEST, id_clusters, load, validate
from instrlib.data.splits import make_split

TRAIN_TABLE = "FSDKaggle2018.meta/train_post_competition.csv"
TEST_TABLE = "FSDKaggle2018.meta/test_post_competition.csv"


def write_clip(path, duration_s=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(8000 * duration_s)) / 8000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time_s), 8000)


def write_release(root, train, test=None, *, ending=".wav"):
    """Write a release from (name, label, freesound id) rows; test rows may add their usage."""
    (root / "FSDKaggle2018.meta").mkdir(parents=True)
    rows = [(f"{name}.wav", label, number % 2, number, "Attribution") for name, label, number in train]
    columns = ["fname", "label", "manually_verified", "freesound_id", "license"]
    pd.DataFrame(rows, columns=columns).to_csv(root / TRAIN_TABLE, index=False)
    for number, (name, _, _) in enumerate(train):
        write_clip(root / "FSDKaggle2018.audio_train" / f"{name}{ending}", 0.25 + number / 100)
    if test is not None:
        rows = [
            (f"{row[0]}.wav", row[1], row[3] if row[3:] else "Public", row[2], "Creative Commons 0") for row in test
        ]
        columns = ["fname", "label", "usage", "freesound_id", "license"]
        pd.DataFrame(rows, columns=columns).to_csv(root / TEST_TABLE, index=False)
        for row in test:
            write_clip(root / "FSDKaggle2018.audio_test" / f"{row[0]}{ending}")
    return root


TRAIN = [
    (f"{label.lower()}{n}", label, 1000 * n + offset)
    for label, offset in (("Cello", 1), ("Flute", 2))
    for n in range(6)
]
TEST = [("t1", "Cello", 90_000), ("t2", "Flute", 90_001, "Private"), ("pad", "None", 5, "Ignored")]


@pytest.fixture
def release(tmp_path):
    return write_release(tmp_path / "release", TRAIN, TEST)


def test_ids_chained_by_small_steps_are_one_cluster_named_by_its_smallest_id():
    assert id_clusters([250, 10, 110, 351, 9999], gap=100).tolist() == [250, 10, 10, 351, 9999]
    assert id_clusters([311, 10, 110, 210], gap=100).tolist() == [311, 10, 10, 10]
    assert id_clusters([], gap=100).tolist() == []


def test_the_numbers_of_clusters_are_those_that_the_gap_was_chosen_by(test_data):
    table = pd.read_csv(test_data / "fsdkaggle2018_meta" / "train_post_competition.csv")
    assert len(table) == 9473

    def n_clusters(gap):
        return sum(len(np.unique(id_clusters(ids, gap=gap))) for _, ids in table.groupby("label").freesound_id)

    found = {gap: n_clusters(gap) for gap in (1, 10, 30, 50, 100, 200, 1000)}
    assert found == {1: 6039, 10: 4324, 30: 3939, 50: 3837, 100: 3689, 200: 3488, 1000: 2524}
    documented = [int(word) for word in id_clusters.__doc__.split("clusters  ")[1].splitlines()[0].split()]
    assert documented == list(found.values())
    # Nearly flat below the gap that is used, steeper on both sides; a step of ten times in each direction.
    assert n_clusters(GAP // 10) - n_clusters(GAP) < n_clusters(GAP) - n_clusters(10 * GAP)


def test_most_test_clips_have_a_training_clip_of_their_session(test_data):
    train = pd.read_csv(test_data / "fsdkaggle2018_meta" / "train_post_competition.csv")
    test = pd.read_csv(test_data / "fsdkaggle2018_meta" / "test_post_competition.csv").query("usage != 'Ignored'")
    near = [
        (train.freesound_id[train.label == row.label] - row.freesound_id).abs().min() <= GAP
        for row in test.itertuples()
    ]
    assert len(test) == 1600
    assert round(np.mean(near), 2) == 0.59


@pytest.mark.real_data
def test_the_sample_loads_as_221_clips_of_ten_classes(sample_root):
    corpus = load(sample_root)
    manifest = corpus.manifest
    assert (len(manifest), len(corpus.classes), len(corpus.problems)) == (221, 10, 0)
    assert (manifest.split == "").all()
    assert manifest.manually_verified.all()
    assert set(manifest.licence) <= {"Attribution", "Creative Commons 0"}
    for row in manifest.sample(10, random_state=0).itertuples():
        assert row.duration_s == pytest.approx(soundfile.info(corpus.root / row.path).duration)
    table = pd.read_csv(sample_root / TRAIN_TABLE)
    assert dict(zip(manifest.clip_id + ".wav", manifest.freesound_id, strict=True)) == dict(
        zip(table.fname, table.freesound_id, strict=True)
    )


@pytest.mark.real_data
def test_clips_of_one_group_of_the_sample_are_near_and_of_two_groups_are_far(sample_root):
    manifest = load(sample_root).manifest
    for _, clips in manifest.sort_values("freesound_id").groupby("label"):
        steps, same = np.diff(clips.freesound_id), clips.group.to_numpy()[1:] == clips.group.to_numpy()[:-1]
        assert ((steps <= GAP) == same).all()
    assert manifest.groupby("group").label.nunique().max() == 1


@pytest.mark.real_data
def test_the_sample_can_be_split_and_a_subset_and_a_cap_are_kept(sample_root):
    make_split(load(sample_root).manifest, seed=0)
    corpus = load(sample_root, classes=["Flute", "Cello"], max_clips_per_class=12)
    assert corpus.classes == ("Cello", "Flute")
    assert corpus.manifest.label.value_counts().to_dict() == {"Cello": 12, "Flute": 12}
    make_split(corpus.manifest, seed=0)


def test_the_official_parts_are_kept_where_both_are_on_disk(release):
    corpus = load(release)
    assert corpus.manifest.split.value_counts().to_dict() == {"train": 12, "test": 2}
    assert corpus.manifest.set_index("clip_id").usage[["t1", "t2", "cello0"]].tolist() == ["Public", "Private", ""]
    assert corpus.manifest.set_index("clip_id").loc["t1"].path == "FSDKaggle2018.audio_test/t1.wav"
    assert make_split(corpus.manifest, seed=0).parts[["t1", "t2"]].tolist() == ["test", "test"]


def test_padding_rows_are_no_clips(release):
    corpus = load(release)
    assert "pad" not in set(corpus.manifest.clip_id) | set(corpus.problems.clip_id)
    assert corpus.classes == ("Cello", "Flute")
    assert validate(release) == []


def test_with_one_part_on_disk_there_are_no_official_parts(tmp_path):
    root = write_release(tmp_path / "train only", TRAIN)
    assert set(load(root).manifest.split) == {""}


def test_tables_without_their_audio_do_not_count(release):
    for path in (release / "FSDKaggle2018.audio_test").iterdir():
        path.unlink()
    (release / "FSDKaggle2018.audio_test").rmdir()
    assert set(load(release).manifest.split) == {""}
    assert validate(release) == [f"{TEST_TABLE} is there, but not FSDKaggle2018.audio_test: this part is not used."]


def test_training_clips_whose_session_reaches_into_the_test_part_are_left_out(tmp_path):
    near = [
        ("near", "Cello", 90_100),
        ("chained", "Cello", 90_200),
        ("far", "Cello", 90_301),
        ("other", "Flute", 90_101),
    ]
    corpus = load(write_release(tmp_path / "release", TRAIN + near, TEST))
    assert corpus.problems.clip_id.tolist() == ["chained", "near", "other"]
    assert set(corpus.problems.reason) == {SESSION_IN_TEST}
    assert "far" in set(corpus.manifest.clip_id)
    make_split(corpus.manifest, seed=0)


@pytest.mark.parametrize("ending", [".flac", ".ogg", ".WAV"])
def test_a_clip_is_found_by_its_stem_whatever_the_ending(tmp_path, ending):
    corpus = load(write_release(tmp_path / "release", TRAIN, ending=ending))
    assert len(corpus.manifest) == 12
    assert corpus.manifest.path.str.endswith(ending).all()
    assert corpus.manifest.duration_s.tolist() == pytest.approx([0.25 + number / 100 for number in range(12)], abs=1e-3)


def test_a_missing_file_is_listed_with_the_reason(release):
    (release / "FSDKaggle2018.audio_train" / "cello3.wav").unlink()
    problems = load(release).problems
    assert problems.to_numpy().tolist() == [
        [
            "cello3",
            "FSDKaggle2018.audio_train/cello3.wav",
            "the file is missing; looked for cello3 with the endings .wav, .flac, .ogg, .mp3",
        ]
    ]
    assert len(validate(release)) == 1


def test_an_unreadable_file_is_listed_with_the_reason(release):
    path = release / "FSDKaggle2018.audio_train" / "flute2.wav"
    path.write_text("this is no sound")
    (release / "FSDKaggle2018.audio_test" / "stranger.wav").write_bytes(b"")
    corpus = load(release)
    assert corpus.problems.clip_id.tolist() == ["flute2"]
    assert corpus.problems.reason[0] != ""
    first, second = validate(release)
    assert first.startswith("FSDKaggle2018.audio_train/flute2.wav: ")
    assert second == f"FSDKaggle2018.audio_test/stranger: {TEST_TABLE} does not name this file."


def test_a_class_without_a_usable_clip_is_named(release):
    for number in range(6):
        (release / "FSDKaggle2018.audio_train" / f"flute{number}.wav").unlink()
    (release / "FSDKaggle2018.audio_test" / "t2.wav").unlink()
    with pytest.raises(CorpusError, match="no usable clip of Flute"):
        load(release)


def test_clips_named_twice_are_an_error_that_names_them(release):
    table = pd.read_csv(release / TRAIN_TABLE)
    pd.concat([table, table.iloc[[4, 2]]]).to_csv(release / TRAIN_TABLE, index=False)
    with pytest.raises(CorpusError, match=r"train_post_competition.csv.*named more than once: cello4, cello2;"):
        load(release)
    assert "more than once" in validate(release)[0]


@pytest.mark.parametrize("column", ["fname", "label", "freesound_id", "license", "manually_verified"])
def test_a_missing_column_is_named_with_its_file(release, column):
    pd.read_csv(release / TRAIN_TABLE).drop(columns=column).to_csv(release / TRAIN_TABLE, index=False)
    with pytest.raises(CorpusError, match=rf"train_post_competition.csv lacks the column {column}; it has: "):
        load(release)


def test_an_id_that_is_no_number_is_named(release):
    path = release / TRAIN_TABLE
    path.write_text(path.read_text().replace("2001", "n/a"))
    with pytest.raises(CorpusError, match=r"freesound_id of cello2.wav is not a whole number"):
        load(release)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b'a,b\n"1,2\n3,4,5,6\n'])
def test_a_table_that_is_none_is_named(release, content):
    (release / TRAIN_TABLE).write_bytes(content)
    with pytest.raises(CorpusError, match=r"train_post_competition.csv is not readable as a table"):
        load(release)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "the audio alone", "the tables alone"])
def test_a_missing_or_partial_release_says_where_to_get_it(tmp_path, there):
    root = tmp_path / "release"
    if there == "an empty folder":
        root.mkdir()
    elif there == "the audio alone":
        write_clip(root / "FSDKaggle2018.audio_train" / "a.wav")
    elif there == "the tables alone":
        (root / "FSDKaggle2018.meta").mkdir(parents=True)
        (root / TRAIN_TABLE).write_text("fname,label,manually_verified,freesound_id,license\n")
    with pytest.raises(CorpusError) as error:
        load(root)
    told = ("zenodo.org/records/2552860", "10.5281/zenodo.2552860", "5 GB", "Creative Commons", str(root))
    assert all(part in str(error.value) for part in (*told, "`instrlib download fsdkaggle2018`"))
    assert "\n" not in str(error.value)


def test_an_unknown_class_is_named_with_those_there_are(release):
    with pytest.raises(ConfigError, match="Unknown class Kazoo; there is: Cello, Flute"):
        load(release, classes=["Cello", "Kazoo"])
    with pytest.raises(ConfigError, match="At least two classes"):
        load(release, classes=["Cello"])
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        load(release, max_clips_per_class=0)


def test_the_cap_takes_one_clip_of_every_session_before_a_second_of_any(tmp_path):
    train = [(f"{label}{n}", label, 10 * n) for label in ("Cello", "Flute") for n in range(20)]
    train += [(f"{label}{n}", label, 1000 * n) for label in ("Cello", "Flute") for n in range(20, 24)]
    root = write_release(tmp_path / "release", train)
    corpus = load(root, max_clips_per_class=5)
    assert corpus.manifest.groupby("label").group.nunique().to_dict() == {"Cello": 5, "Flute": 5}
    assert len(load(root, max_clips_per_class=7).manifest) == 14


def test_the_cap_keeps_some_of_both_official_parts(tmp_path):
    train = [(f"{label}{n}", label, 1000 * n) for label in ("Cello", "Flute") for n in range(20)]
    test = [(f"test{label}{n}", label, 10**6 + 1000 * n) for label in ("Cello", "Flute") for n in range(5)]
    manifest = load(write_release(tmp_path / "release", train, test), max_clips_per_class=10).manifest
    assert pd.crosstab(manifest.label, manifest.split).to_dict("index") == {
        "Cello": {"test": 2, "train": 8},
        "Flute": {"test": 2, "train": 8},
    }


def test_a_small_training_part_is_not_crowded_out_by_a_large_test_part(tmp_path):
    train = [(f"{label}{n}", label, 1000 * n) for label in ("Cello", "Flute") for n in range(4)]
    test = [(f"test{label}{n}", label, 10**6 + 1000 * n) for label in ("Cello", "Flute") for n in range(30)]
    manifest = load(write_release(tmp_path / "release", train, test), max_clips_per_class=12).manifest
    assert pd.crosstab(manifest.label, manifest.split).loc["Cello"].to_dict() == {"test": 8, "train": 4}


def test_the_same_seed_draws_the_same_clips_and_another_seed_others(release):
    first = load(release, max_clips_per_class=4, seed=0)
    assert load(release, max_clips_per_class=4, seed=0).fingerprint == first.fingerprint
    assert load(release, max_clips_per_class=4, seed=1).fingerprint != first.fingerprint
    table = pd.read_csv(release / TRAIN_TABLE).sample(frac=1, random_state=0)
    table.to_csv(release / TRAIN_TABLE, index=False)
    assert load(release, max_clips_per_class=4, seed=0).fingerprint == first.fingerprint


def test_a_second_load_opens_no_file_and_a_changed_file_is_opened_again(release, monkeypatch):
    from instrlib.audio import decode as audio

    first = load(release)
    opened = []
    probe = audio.probe
    monkeypatch.setattr(audio, "probe", lambda path: opened.append(path.name) or probe(path))
    assert load(release).fingerprint == first.fingerprint
    assert opened == []
    write_clip(release / "FSDKaggle2018.audio_train" / "cello1.wav", 1.5)
    manifest = load(release).manifest
    assert opened == ["cello1.wav"]
    assert manifest.duration_s[manifest.clip_id == "cello1"].tolist() == [1.5]


def test_a_spoilt_cache_of_lengths_is_made_again(release):
    first = load(release)
    (cache,) = (folders().data / "probes").iterdir()
    whole = cache.read_text()
    for spoilt in (whole[:100], "[]", "null", '{"FSDKaggle2018.audio_train/cello1.wav": 3}'):
        cache.write_text(spoilt)
        assert load(release).fingerprint == first.fingerprint
        assert json.loads(cache.read_text()) == json.loads(whole)


def test_many_files_are_looked_at_by_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_WORKERS", "2")
    monkeypatch.setattr("instrlib.data.local._CHUNK", 3)
    corpus = load(write_release(tmp_path / "release", TRAIN))
    assert corpus.manifest.duration_s.tolist() == pytest.approx([0.25 + number / 100 for number in range(12)], abs=1e-3)


@pytest.fixture
def publisher(tmp_path, release, monkeypatch):
    """Serve the release as the three archives that Zenodo has."""
    served = tmp_path / "served"
    served.mkdir()
    for remote in fsdkaggle2018.REMOTES:
        with zipfile.ZipFile(served / remote.filename, "w") as archive:
            for path in (release / remote.filename.removesuffix(".zip")).iterdir():
                archive.write(path, path.relative_to(release))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    monkeypatch.setattr(downloads, "_WAIT_S", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        local = [
            replace(
                remote,
                url=f"http://127.0.0.1:{running.server_port}/{remote.filename}",
                checksum=f"md5:{hash_file(served / remote.filename, algorithm='md5')}",
            )
            for remote in fsdkaggle2018.REMOTES
        ]
        monkeypatch.setattr(fsdkaggle2018, "REMOTES", tuple(local))
        yield served
        running.shutdown()
        thread.join()


def test_a_download_gives_the_release_and_leaves_no_archive(publisher, release, tmp_path):
    root = tmp_path / "fetched"
    fsdkaggle2018.download(root)
    assert sorted(path.name for path in root.iterdir()) == [
        "FSDKaggle2018.audio_test",
        "FSDKaggle2018.audio_train",
        "FSDKaggle2018.meta",
    ]
    assert load(root).fingerprint == load(release).fingerprint


def test_a_download_fetches_only_what_is_missing(publisher, tmp_path):
    root = tmp_path / "fetched"
    fsdkaggle2018.download(root)
    for path in publisher.iterdir():
        path.unlink()
    fsdkaggle2018.download(root)


def test_an_archive_that_a_kill_has_left_beside_its_part_is_removed(publisher, tmp_path):
    fsdkaggle2018.download(tmp_path / "fetched")
    left = tmp_path / "fetched" / fsdkaggle2018.REMOTES[0].filename
    left.write_bytes((publisher / left.name).read_bytes())
    fsdkaggle2018.download(tmp_path / "fetched")
    assert not left.exists()


def test_a_download_over_a_part_that_is_not_whole_says_so(publisher, tmp_path):
    write_clip(tmp_path / "fetched" / "FSDKaggle2018.audio_train" / "cello0.wav")
    with pytest.raises(CorpusError, match=r"audio_train lacks 11 of the 12 clips .* move that folder away"):
        fsdkaggle2018.download(tmp_path / "fetched")


def test_every_archive_of_the_release_has_an_address_and_a_checksum():
    assert [remote.filename for remote in fsdkaggle2018.REMOTES] == [
        "FSDKaggle2018.meta.zip",
        "FSDKaggle2018.audio_test.zip",
        "FSDKaggle2018.audio_train.zip",
    ]
    for remote in fsdkaggle2018.REMOTES:
        assert remote.url == f"https://zenodo.org/records/2552860/files/{remote.filename}?download=1"
        assert len(remote.checksum) == len("md5:") + 32
