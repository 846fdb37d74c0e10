"""NSynth: the layout of its release, instruments on one side of a split only, and what is wrong with a copy of it."""

import functools
import json
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from trees import make_nsynth, nsynth_note, serving, write_nsynth_part

from instrlib.audio import decode as audio
from instrlib.core.config import get_profile
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.core.io import hash_file
from instrlib.data import corpora, nsynth
from instrlib.data import download as downloads
from instrlib.data.nsynth import INSTRUMENT_IN_TEST, load, validate
from instrlib.data.splits import make_split

FAMILIES = ("brass", "flute")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_nsynth(tmp_path_factory.mktemp("nsynth"), families=FAMILIES)


@pytest.fixture
def release(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "release")


def change(release, part, edit):
    path = release / f"nsynth-{part}" / "examples.json"
    notes = json.loads(path.read_text())
    edit(notes)
    path.write_text(json.dumps(notes))
    return notes


def test_a_clip_is_a_note_its_group_the_instrument_and_its_class_the_family(whole):
    corpus = load(whole)
    manifest = corpus.manifest.set_index("clip_id")
    assert corpus.classes == FAMILIES
    assert len(manifest) == 2 * 6 * 4
    row = manifest.loc["flute_acoustic_010-051-050"]
    assert (row.path, row.label, row.group) == (
        "nsynth-train/audio/flute_acoustic_010-051-050.wav",
        "flute",
        "flute_acoustic_010",
    )
    assert (row.part, row.split, row.source, row.pitch, row.velocity) == ("train", "train", "acoustic", 51, 50)
    assert (manifest.duration_s == nsynth.DURATION_S).all()
    assert not corpus.multilabel
    assert validate(whole) == []


def test_official_validation_and_test_notes_are_one_test_part_since_they_share_instruments(whole):
    manifest = load(whole).manifest
    sides = {part: set(clips.group) for part, clips in manifest.groupby("part")}
    assert sides["valid"] == sides["test"] != set(), "this is so in the release"
    assert manifest.split.where(manifest.part != "train", "").tolist() == [
        "test" if part != "train" else "" for part in manifest.part
    ]
    parts = make_split(manifest, seed=0).parts[manifest.clip_id.to_numpy()]
    assert (parts.to_numpy()[manifest.part != "train"] == "test").all()
    assert manifest.groupby("group").clip_id.apply(lambda ids: parts[ids].nunique()).max() == 1
    assert set(parts) == {"train", "validation", "test"}


def test_a_training_instrument_that_stands_in_the_test_part_too_is_left_out(release):
    held_out = nsynth_note("brass", "acoustic", 5, 80, 100)
    shutil.rmtree(release / "nsynth-train")
    notes = [nsynth_note(name, "acoustic", n, 60 + n, 75) for name in FAMILIES for n in (1, 2, 3)]
    write_nsynth_part(release, "train", [*notes, held_out])
    corpus = load(release)
    assert corpus.problems[["clip_id", "reason"]].to_numpy().tolist() == [[held_out["note_str"], INSTRUMENT_IN_TEST]]
    assert held_out["note_str"] not in set(corpus.manifest.clip_id)
    make_split(corpus.manifest, seed=0)


@pytest.mark.parametrize("gone", [["train"], ["valid", "test"]])
def test_with_one_side_on_disk_there_are_no_official_parts(release, gone):
    for part in gone:
        shutil.rmtree(release / f"nsynth-{part}")
    manifest = load(release).manifest
    assert set(manifest.split) == {""}
    assert set(manifest.part).isdisjoint(gone)


def test_only_acoustic_notes_of_eight_families_are_used_unless_all_are_asked_for(whole):
    assert nsynth.ACOUSTIC == ("brass", "flute", "guitar", "keyboard", "mallet", "reed", "string", "vocal")
    assert set(load(whole).manifest.source) == {"acoustic"}
    everything = load(whole, acoustic=False)
    assert everything.classes == (*FAMILIES, "organ")
    assert set(everything.manifest.source) == {"acoustic", "electronic"}


def test_the_cap_takes_a_note_of_every_instrument_first_and_opens_no_other_file(whole, monkeypatch):
    opened = []
    probe = audio.probe
    monkeypatch.setattr(audio, "probe", lambda path: opened.append(path.name) or probe(path))
    manifest = load(whole, max_clips_per_class=6).manifest
    assert manifest.groupby("label").group.nunique().to_dict() == {"brass": 6, "flute": 6}
    assert len(opened) == len(manifest) == 12
    assert load(whole, max_clips_per_class=6, seed=1).manifest.clip_id.tolist() != manifest.clip_id.tolist()


def test_it_loads_by_its_name_at_the_size_of_a_profile(whole):
    corpus = corpora.load("nsynth", data=whole, profile=get_profile("smoke"))
    assert corpus.manifest.label.value_counts().to_dict() == {"brass": 12, "flute": 12}
    assert corpora.on_disk("nsynth", whole) == f"52 audio files in {whole}"


def test_unknown_classes_and_caps_are_refused(whole):
    with pytest.raises(ConfigError, match="Unknown class theremin; there is: brass, flute"):
        load(whole, classes=["brass", "theremin"])
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        load(whole, max_clips_per_class=0)


@pytest.mark.parametrize(
    "field", ["instrument_str", "instrument_family_str", "instrument_source_str", "pitch", "velocity"]
)
def test_a_missing_field_is_named_with_its_note_and_file(release, field):
    change(release, "train", lambda notes: notes["brass_acoustic_002-051-050"].pop(field))
    with pytest.raises(
        CorpusError, match=rf"nsynth-train/examples.json: the note brass_.*-050 lacks the field {field}\."
    ):
        load(release)
    assert "lacks the field" in validate(release)[0]


def test_a_family_outside_the_list_is_named(release):
    note = nsynth_note("brass", "acoustic", 7, 60, 100)
    text = json.dumps({note["note_str"]: note}).replace("brass", "theremin")
    (release / "nsynth-train" / "examples.json").write_text(text)
    with pytest.raises(CorpusError, match="family outside the list: theremin; there is: bass, brass, flute"):
        load(release)


@pytest.mark.parametrize(
    "altered",
    [
        {"pitch": 99},
        {"velocity": "50"},
        {"note_str": "brass_acoustic_001-051-050"},
        {"instrument_family_str": "flute"},
        {"instrument_str": "../../brass_acoustic_002", "note_str": "../../brass_acoustic_002-051-050"},
    ],
)
def test_an_entry_that_contradicts_its_name_is_refused(release, altered):
    change(release, "train", lambda notes: notes["brass_acoustic_002-051-050"].update(altered))
    with pytest.raises(CorpusError, match="the entry brass_acoustic_002-051-050 says of its note contradicts its name"):
        load(release)


def test_a_name_that_is_a_path_out_of_the_folder_is_refused(release):
    note = nsynth_note("brass", "acoustic", 7, 60, 100)
    for field in ("note_str", "instrument_str"):
        note[field] = "../../" + note[field]
    (release / "nsynth-train" / "examples.json").write_text(json.dumps({note["note_str"]: note}))
    with pytest.raises(CorpusError, match="contradicts its name"):
        load(release)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"text"', '{"a": 3}', '{"a": {"pitch": 3}}'])
def test_a_list_of_notes_that_is_none_is_named(release, content):
    (release / "nsynth-test" / "examples.json").write_text(content)
    with pytest.raises(CorpusError, match=r"nsynth-test/examples\.json"):
        load(release)


def test_a_note_in_two_parts_is_named(release):
    note = change(release, "valid", lambda notes: None).popitem()[1]
    change(release, "test", lambda notes: notes.update({note["note_str"]: note}))
    with pytest.raises(CorpusError, match=f"1 notes stand in two parts; the first: {note['note_str']}"):
        load(release)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "the list alone"])
def test_a_missing_release_says_how_to_get_it(tmp_path, there):
    root = tmp_path / "release"
    if there != "nothing":
        root.mkdir()
    if there == "the list alone":
        (root / "nsynth-train").mkdir()
        (root / "nsynth-train" / "examples.json").write_text("{}")
    with pytest.raises(CorpusError, match="`instrlib download nsynth` fetches it") as error:
        load(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


def test_missing_altered_and_unknown_files_are_named(release):
    folder = release / "nsynth-train" / "audio"
    (folder / "brass_acoustic_000-048-025.wav").unlink()
    (folder / "brass_acoustic_001-048-025.wav").write_text("no sound")
    soundfile.write(folder / "flute_acoustic_010-048-025.wav", 0.1 * np.ones(8000), 16_000)
    (folder / "stranger.wav").write_bytes(b"")
    (release / "nsynth-valid" / "examples.json").unlink()
    missing, broken = (
        "nsynth-train/audio/brass_acoustic_000-048-025.wav",
        "nsynth-train/audio/brass_acoustic_001-048-025.wav",
    )
    found = validate(release)
    assert found[0].startswith("nsynth-valid: examples.json or the folder audio is missing")
    assert found[1] == f"{missing}: the file is missing."
    assert found[2].startswith(f"{broken}: ")
    assert found[3].startswith("nsynth-train/audio/flute_acoustic_010-048-025.wav: it is 0.50 s long")
    assert found[4:] == ["nsynth-train/audio/stranger.wav: examples.json does not name this file."]
    assert load(release).problems.path.tolist() == [missing, broken]


def test_a_family_without_a_usable_note_is_named(release):
    for path in release.glob("nsynth-*/audio/flute_*"):
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="no usable clip of flute"):
        load(release)


@pytest.fixture
def publisher(release, tmp_path, monkeypatch):
    """Serve the release as its three archives."""
    served = tmp_path / "served"
    served.mkdir()
    for remote in nsynth.REMOTES:
        part = remote.filename.partition(".")[0]
        with tarfile.open(served / remote.filename, "w:gz", compresslevel=1) as archive:
            archive.add(release / part, part)
    monkeypatch.setattr(downloads, "_WAIT_S", 0.0)
    checksum = functools.partial(hash_file, algorithm="md5")
    with serving(served) as address:
        local = [
            replace(one, url=f"{address}/{one.filename}", checksum=f"md5:{checksum(served / one.filename)}")
            for one in nsynth.REMOTES
        ]
        monkeypatch.setattr(nsynth, "REMOTES", tuple(local))
        yield served


def test_a_download_gives_the_release_leaves_no_archive_and_is_not_repeated(publisher, release, tmp_path):
    root = tmp_path / "fetched"
    nsynth.download(root)
    assert sorted(path.name for path in root.iterdir()) == ["nsynth-test", "nsynth-train", "nsynth-valid"]
    assert load(root).fingerprint == load(release).fingerprint
    for path in publisher.iterdir():
        path.unlink()
    nsynth.download(root)
    (root / "nsynth-test" / "audio" / "brass_acoustic_004-048-025.wav").unlink()
    with pytest.raises(CorpusError, match=r"nsynth-test lacks 1 of the 8 notes .* move that folder away"):
        nsynth.download(root)


def test_an_archive_that_a_kill_has_left_beside_its_part_is_removed(publisher, tmp_path):
    nsynth.download(tmp_path / "fetched")
    left = tmp_path / "fetched" / nsynth.REMOTES[0].filename
    shutil.copyfile(publisher / left.name, left)
    nsynth.download(tmp_path / "fetched")
    assert not left.exists()


def test_an_archive_with_another_checksum_is_refused_with_what_was_expected_and_found(publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(nsynth, "REMOTES", (replace(nsynth.REMOTES[0], checksum="md5:" + "0" * 32),))
    found = hash_file(publisher / nsynth.REMOTES[0].filename, algorithm="md5")
    with pytest.raises(CorpusError, match=f"has the md5 {found}, not {'0' * 32} as expected"):
        nsynth.download(tmp_path / "fetched")
    assert not list((tmp_path / "fetched").iterdir())


def test_every_archive_has_an_address_and_a_checksum():
    assert [remote.filename for remote in nsynth.REMOTES] == [
        f"nsynth-{part}.jsonwav.tar.gz" for part in ("test", "valid", "train")
    ]
    assert all(len(remote.checksum) == len("md5:") + 32 for remote in nsynth.REMOTES)
