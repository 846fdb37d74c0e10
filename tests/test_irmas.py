"""IRMAS: what its file names tell, its two sets, and what is wrong with a copy of it."""

import json
import logging
import os
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from trees import make_irmas, serving, tone, write_audio

from instrlib.core.errors import ConfigError, CorpusError
from instrlib.core.io import hash_file
from instrlib.data import download as downloads
from instrlib.data import irmas
from instrlib.data.download import Remote
from instrlib.data.irmas import INDEX, INSTRUMENTS, TESTING, TRAINING, load, load_test, validate
from instrlib.data.local import mirdata_module, mirdata_remotes
from instrlib.data.splits import make_split

ZIPS = [f"{part}.zip" for part in (TRAINING, *TESTING)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_irmas(tmp_path_factory.mktemp("made") / "irmas")


@pytest.fixture
def release(made, tmp_path):
    return shutil.copytree(made, tmp_path / "irmas")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a release with all eleven classes."""
    root = tmp_path_factory.mktemp("whole") / "irmas"
    return make_irmas(root, classes=INSTRUMENTS, recordings=1, excerpts=1, duration_s=0.1)


def test_the_training_set_has_one_instrument_a_clip_and_is_not_split_by_its_publisher(made):
    corpus = load(made)
    assert not corpus.multilabel
    assert corpus.classes == ("cel", "flu", "pia", "tru")
    assert corpus.manifest.label.value_counts().to_dict() == {"cel": 16, "flu": 17, "pia": 16, "tru": 16}
    assert set(corpus.manifest.split) == {""}
    assert corpus.problems.empty
    row = corpus.manifest.set_index("clip_id").loc["pia/[pia][nod][jaz_blu]0018__2"]
    assert (row.path, row.duration_s) == (f"{TRAINING}/pia/[pia][nod][jaz_blu]0018__2.wav", 1.0)
    assert not [name for name in corpus.manifest.path if "Testing" in name]


@pytest.mark.parametrize(
    ("stem", "recording", "genre", "drums"),
    [
        ("[pia][cla]0001__1", "0001", "cla", ""),
        ("[pia][nod][cou_fol]1234__2", "1234", "cou_fol", "no"),
        ("[pia][dru][jaz_blu]1234__3", "1234", "jaz_blu", "yes"),
        ("008__[pia][dru][lat_sou]0058__10", "0058", "lat_sou", "yes"),
    ],
)
def test_a_file_name_tells_recording_genre_and_drums(release, stem, recording, genre, drums):
    shutil.rmtree(release / TRAINING / "pia")
    write_audio(release / TRAINING / "pia" / f"{stem}.wav", tone(2, 0, 0.2))
    manifest = load(release).manifest
    row = manifest[manifest.label == "pia"].iloc[0]
    assert (row.group, row.genre, row.drums) == (recording, genre, drums)


def test_a_recording_is_one_group_whatever_the_class_of_its_excerpts(made):
    manifest = load(made).manifest
    assert set(manifest.label[manifest.group == "0001"]) == {"cel", "flu"}
    parts = make_split(manifest, seed=0).parts
    assert parts[manifest.clip_id[manifest.group == "0001"]].nunique() == 1
    assert parts.value_counts().min() >= 8


@pytest.mark.parametrize("name", ["pia_17.wav", "[pia][cla]x__1.wav", "[pia][cla]0007.wav", "[vio][cla]0007__1.wav"])
def test_a_file_whose_name_does_not_tell_its_recording_is_left_out_with_the_reason(release, name):
    write_audio(release / TRAINING / "pia" / name, tone(2, 0, 0.2))
    problems = load(release).problems
    assert problems.path.tolist() == [f"{TRAINING}/pia/{name}"]
    assert "its recording is not known" in problems.reason[0]
    assert load(release, classes=["cel", "flu"]).problems.empty
    assert any(line.startswith(f"{TRAINING}/pia/{name}: its name") for line in validate(release))


def test_a_folder_that_is_no_instrument_is_named(release):
    (release / TRAINING / "kaz").mkdir()
    with pytest.raises(CorpusError, match=r"holds the folder kaz, which is no instrument of IRMAS \(cel, cla, "):
        load(release)
    assert len(validate(release)) == 1


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "the test set alone", "empty classes"])
def test_a_missing_training_set_says_where_to_get_it(tmp_path, made, there):
    root = tmp_path / "irmas"
    if there == "an empty folder":
        root.mkdir()
    elif there == "the test set alone":
        shutil.copytree(made / TESTING[0], root / TESTING[0])
    elif there == "empty classes":
        (root / TRAINING / "cel").mkdir(parents=True)
    with pytest.raises(CorpusError) as error:
        load(root)
    told = ("zenodo.org/records/1290750", "10.5281/zenodo.1290750", "10 GB", "NonCommercial", str(root))
    assert all(part in str(error.value) for part in (*told, "`instrlib download irmas`"))
    assert validate(root) == [str(error.value)]


def test_classes_a_cap_and_a_seed_choose_clips(made):
    corpus = load(made, classes=["tru", "cel"], max_clips_per_class=8)
    assert corpus.classes == ("cel", "tru")
    assert corpus.manifest.groupby("label").group.nunique().to_dict() == {"cel": 8, "tru": 8}
    assert load(made, max_clips_per_class=4).fingerprint == load(made, max_clips_per_class=4).fingerprint
    assert load(made, max_clips_per_class=4).fingerprint != load(made, max_clips_per_class=4, seed=1).fingerprint
    with pytest.raises(ConfigError, match="Unknown class kaz; there is: cel, flu, pia, tru"):
        load(made, classes=["cel", "kaz"])


def test_an_unreadable_file_and_a_class_without_a_usable_one_are_named(release):
    spoilt = f"{TRAINING}/tru/[tru][cla]0025__1.wav"
    (release / spoilt).write_text("this is no sound")
    assert load(release).problems.path.tolist() == [spoilt]
    assert len([line for line in validate(release) if line.startswith(f"{spoilt}: ")]) == 1
    for path in (release / TRAINING / "tru").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="no usable clip of tru"):
        load(release)


def test_the_test_set_has_several_instruments_a_clip_and_all_are_observed(made):
    corpus = load_test(made)
    assert corpus.multilabel
    assert corpus.classes == ("cel", "flu", "pia", "tru")
    assert (len(corpus.manifest), set(corpus.manifest.split)) == (12, {"test"})
    assert np.isfinite(corpus.labels).all()
    for row, labels in zip(corpus.manifest.itertuples(), corpus.labels, strict=True):
        lines = (made / row.path).with_suffix(".txt").read_text().split()
        assert lines == [name for name, present in zip(corpus.classes, labels, strict=True) if present]
        assert row.label in lines
    assert corpus.labels.sum(axis=1).max() == 3


def test_a_test_clip_s_recording_is_its_name_without_the_excerpt_s_number(made):
    manifest = load_test(made).manifest
    assert sorted(set(manifest.group)) == [
        "(02) dont kill the whale",
        "02 - And The Body Will Die",
        "Debussy, Violin Sonata - 1 Allegro vivo",
        "Johnny Cash - One",
        "Vacation Island",
        "john_coltrane-01-a_love_supreme_part_1-rns",
    ]
    assert set(manifest.groupby("group").size()) == {2}
    island = manifest.path[manifest.group == "Vacation Island"]
    assert {path.split("/")[0] for path in island} == {TESTING[0], TESTING[2]}


def test_two_spellings_of_a_recording_are_one_group(release):
    for number, form in enumerate(("NFC", "NFD")):
        path = release / TESTING[0] / f"{unicodedata.normalize(form, 'Andrés Segovia')}-{number}.wav"
        write_audio(path, tone(0, 0, 0.2))
        path.with_suffix(".txt").write_text("cel\r\n\r\n")
    manifest = load_test(release).manifest
    assert (manifest.group == "Andrés Segovia").sum() == 2


def test_an_annotation_outside_the_list_is_named_with_the_list(release):
    path = release / TESTING[2] / "Part3" / "Johnny Cash - One-1.txt"
    path.write_text("cel\nkazoo\n")
    with pytest.raises(CorpusError, match=r"One-1.txt names something that is no instrument of IRMAS; .*voi"):
        load_test(release)
    assert any("Johnny Cash - One-1.txt names something" in line for line in validate(release))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CorpusError, match=r"Johnny Cash - One-1.txt"):
        load_test(release)


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_a_test_clip_without_an_annotation_is_left_out_with_the_reason(release, content):
    path = release / TESTING[2] / "Part3" / "Johnny Cash - One-1.txt"
    path.unlink()
    if content is not None:
        path.write_text(content)
    problems = load_test(release).problems
    assert problems.path.tolist() == [f"{TESTING[2]}/Part3/Johnny Cash - One-1.wav"]
    assert problems.reason.tolist() == ["no text file beside it names an instrument"]


def test_without_a_test_part_there_is_no_test_set(release):
    for part in TESTING:
        shutil.rmtree(release / part)
    with pytest.raises(CorpusError, match=r"no part of the test set is in .*IRMAS-TestingData-Part1; get it with"):
        load_test(release)
    assert len(load(release).manifest) == 65


def test_validate_finds_nothing_in_a_whole_release(whole):
    assert validate(whole) == []


def test_validate_names_what_is_missing_or_altered(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "irmas")
    altered, gone = (
        f"{TRAINING}/{name}/[{name}][cla]{number}__1.wav" for name, number in (("cel", "0001"), ("voi", "0011"))
    )
    write_audio(root / altered, tone(3, 1, 0.1))
    (root / gone).unlink()
    annotation = f"{TESTING[0]}/Part1/(02) dont kill the whale-1.txt"
    (root / annotation).write_text("voi")
    shutil.rmtree(root / TESTING[1])
    listed = json.loads((root / INDEX).read_text())["tracks"].values()
    expected = dict(pair["audio"] for pair in listed)
    found = {path: hash_file(root / path, algorithm="md5") for path in (altered, annotation)}
    assert validate(root) == [
        f"{TESTING[1]}: this part of the official test set is not there.",
        f"{annotation}: the file was altered: its md5 is {found[annotation]}, not {expected[annotation]} as expected",
        f"{altered}: the file was altered: its md5 is {found[altered]}, not {expected[altered]} as expected",
        f"{gone}: the file is missing, which {INDEX} lists",
    ]
    shutil.rmtree(root / TRAINING / "org")
    assert f"{TRAINING}/org: this class is not there." in validate(root)


def test_validate_takes_a_file_of_another_ending_for_converted(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "irmas")
    for path in list((root / TRAINING).rglob("*.wav")):
        signal, rate = soundfile.read(path)
        write_audio(path.with_suffix(".flac"), signal, rate)
        path.unlink()
    assert validate(root) == []
    assert len(load(root).manifest) == 12


def test_validate_without_mirdata_s_list_looks_at_layout_and_sound_and_says_so(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "irmas")
    (root / INDEX).unlink()
    write_audio(root / TRAINING / "cel" / "[cel][cla]0001__1.wav", np.zeros(2205))
    first, second = validate(root)
    assert first.startswith(f"{TRAINING}/cel/[cel][cla]0001__1.wav: ")
    assert "silent" in first
    assert second.startswith(f"{INDEX}: mirdata's list of files is not there, so nothing was compared")
    (root / INDEX).write_text("[1]")
    assert f"{INDEX} is not mirdata's list of files" in validate(root)[-1]


def test_what_is_told_of_the_corpus_is_what_mirdata_says():
    known = mirdata_module("irmas")
    assert "Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported" in known.LICENSE_INFO
    assert irmas.INFO.licence.startswith("Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported")
    doi = "10.5281/zenodo.1290750"
    assert all(doi in text for text in (known.BIBTEX, irmas.INFO.citation, irmas.__doc__))
    assert tuple(known.INST_DICT) == INSTRUMENTS
    archives, index = mirdata_remotes("irmas")
    assert [remote.filename for remote in archives] == ZIPS
    assert index.filename == INDEX
    for remote in (*archives, index):
        assert remote.url.startswith("https://zenodo.org/")
        assert len(remote.checksum) == len("md5:") + 32


def test_mirdata_is_imported_only_when_needed_and_leaves_the_logging_as_it_was():
    code = (
        "import logging, sys; from instrlib.data.corpora import irmas, openmic2018, local; "
        "assert 'mirdata' not in sys.modules; local.mirdata_module('irmas'); "
        "print(logging.getLogger().handlers, logging.getLogger().level)"
    )
    asked = os.environ | {"CI": "true"}  # libraries print more there
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=asked)
    assert printed.stdout.strip() == f"[] {logging.WARNING}"


@pytest.fixture
def publisher(tmp_path, made, monkeypatch):
    """Serve the release as Zenodo does; the second test part has no folder of its own in the archive."""
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(made / INDEX, served)
    for name in ZIPS:
        part = made / name.removesuffix(".zip")
        top = part if "Part2" in name else made
        with zipfile.ZipFile(served / name, "w") as archive:
            for path in sorted(part.rglob("*")):
                archive.write(path, path.relative_to(top))
    monkeypatch.setattr(downloads, "_WAIT_S", 0.0)
    with serving(served) as address:

        def remote(name):
            url = f"{address}/{name}"
            return Remote(url, name, None, f"md5:{hash_file(served / name, algorithm='md5')}")

        known = tuple(map(remote, ZIPS)), remote(INDEX)
        monkeypatch.setattr(irmas, "mirdata_remotes", lambda name: known)
        yield served


def test_a_download_gives_the_release_and_leaves_no_archive(publisher, made, tmp_path):
    root = tmp_path / "fetched"
    irmas.download(root)
    assert sorted(path.name for path in root.iterdir()) == sorted([TRAINING, *TESTING, INDEX])
    assert load(root).fingerprint == load(made).fingerprint
    assert load_test(root).fingerprint == load_test(made).fingerprint
    (publisher / ZIPS[1]).rename(root / ZIPS[1])  # a run that was killed before it removed the archive
    for name in ZIPS:
        (publisher / name).unlink(missing_ok=True)
    irmas.download(root)
    assert not list(root.glob("*.zip"))


def test_a_download_over_a_part_that_is_not_whole_says_so(publisher, tmp_path):
    root = tmp_path / "fetched"
    write_audio(root / TRAINING / "cel" / "[cel][cla]0001__1.wav", tone(0, 0, 0.2))
    with pytest.raises(CorpusError, match=r"TrainingData holds 1 audio files, not 65 as .* lists; move that"):
        irmas.download(root)


def test_an_archive_with_a_wrong_checksum_names_the_expected_and_the_found_one(publisher, tmp_path, monkeypatch):
    (first, *others), index = irmas.mirdata_remotes("irmas")
    found = first.checksum.removeprefix("md5:")
    wrong = replace(first, checksum="md5:" + "0" * 32)
    monkeypatch.setattr(irmas, "mirdata_remotes", lambda name: ((wrong, *others), index))
    with pytest.raises(CorpusError, match=f"has the md5 {found}, not {'0' * 32} as expected"):
        irmas.download(tmp_path / "fetched")
    assert not (tmp_path / "fetched" / TRAINING).exists()
