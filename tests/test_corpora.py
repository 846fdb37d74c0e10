"""The corpora by name: sizes by profile, the share of unusable clips, and errors with a way out."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from instrlib.core.config import folders, get_profile
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.data import corpora, fsdkaggle2018
from instrlib.data.base import LEFT_OUT, Corpus, problem_table

SMOKE = get_profile("smoke")


@pytest.fixture
def own(tmp_path):
    for name in ("cello", "flute"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(20):
            soundfile.write(tmp_path / "own" / name / f"{number}.wav", 0.1 * np.ones(2000), 8000)
    return tmp_path / "own"


def test_every_corpus_tells_its_licence_and_how_to_get_it():
    for name in corpora.NAMES:
        info = corpora.info(name)
        assert info.name == name
        assert info.title
        assert info.licence
        assert info.how_to_get


@pytest.mark.parametrize("call", [corpora.info, corpora.on_disk, corpora.download, corpora.validate])
def test_an_unknown_corpus_is_refused_with_those_there_are(call):
    with pytest.raises(ConfigError) as refused:
        call("gtzan")
    assert str(refused.value) == (
        "Unknown corpus 'gtzan'; there is: "
        "rendered, fsdkaggle2018, irmas, openmic2018, nsynth, kaggle_instruments, folder."
    )


def test_the_profile_caps_a_corpus_from_disk(own):
    assert corpora.load("folder", data=own, profile=SMOKE).manifest.label.value_counts().tolist() == [12, 12]
    assert len(corpora.load("folder", data=str(own), profile=get_profile("quick")).manifest) == 40


@pytest.mark.parametrize("data", [None, ""])
def test_without_a_folder_the_data_folder_is_used(own, data):
    folders().data.mkdir()
    own.rename(folders().data / "folder")
    assert corpora.load("folder", data=data, profile=SMOKE).root == folders().data / "folder"


def test_up_to_one_clip_in_twenty_may_be_unusable(own):
    (own / "cello" / "0.wav").write_bytes(b"")
    (own / "flute" / "0.wav").write_bytes(b"")
    assert len(corpora.load("folder", data=own, profile=get_profile("quick")).problems) == 2
    (own / "flute" / "1.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="folder: 3 of 40 clips are unusable, more than the 5%"):
        corpora.load("folder", data=own, profile=get_profile("quick"))


def test_clips_left_out_on_purpose_do_not_count_as_unusable(own, monkeypatch):
    whole = corpora.load("folder", data=own, profile=SMOKE)
    left_out = problem_table([(f"x{number}", "x.wav", LEFT_OUT + "a reason") for number in range(100)])
    assert fsdkaggle2018.SESSION_IN_TEST.startswith(LEFT_OUT)
    corpus = Corpus(whole.info, whole.root, whole.manifest, whole.classes, left_out)
    monkeypatch.setattr("instrlib.data.folder.load", lambda *args, **kwargs: corpus)
    assert len(corpora.load("folder", data=own, profile=SMOKE).problems) == 100


def test_what_is_on_disk_is_one_line(own, tmp_path):
    assert corpora.on_disk("folder", own) == f"40 audio files in {own}"
    line = corpora.on_disk("fsdkaggle2018", tmp_path / "none")
    assert line.startswith(f"nothing in {tmp_path / 'none'}; `instrlib download fsdkaggle2018`")
    assert "\n" not in line


def test_what_cannot_be_downloaded_says_so():
    with pytest.raises(ConfigError, match=r"does not fetch folder\. Put the recordings"):
        corpora.download("folder")


def test_every_corpus_can_be_validated_and_names_what_is_not_there(tmp_path):
    for name in set(corpora.NAMES) - {"rendered"}:
        (finding,) = corpora.validate(name, tmp_path / "none")
        assert str(tmp_path / "none") in finding


def test_only_openmic_has_several_labels_a_clip():
    assert [name for name in corpora.NAMES if corpora.info(name).multilabel] == ["openmic2018"]


def test_a_download_goes_to_the_folder_that_is_named(tmp_path, monkeypatch):
    roots = []
    monkeypatch.setattr(fsdkaggle2018, "download", roots.append)
    corpora.download("fsdkaggle2018", tmp_path / "there")
    corpora.download("fsdkaggle2018")
    assert roots == [tmp_path / "there", folders().data / "fsdkaggle2018"]


def test_validation_lists_findings(own):
    assert corpora.validate("folder", own) == []
    (own / "cello" / "0.wav").write_bytes(b"")
    assert len(corpora.validate("folder", own)) == 1


@pytest.mark.real_data
def test_the_sample_loads_by_name(sample_root):
    corpus = corpora.load("fsdkaggle2018", data=sample_root, profile=get_profile("quick"))
    assert (corpus.name, len(corpus.manifest)) == ("fsdkaggle2018", 221)
    assert corpora.validate("fsdkaggle2018", sample_root) == []
    assert corpora.on_disk("fsdkaggle2018", sample_root) == f"221 audio files in {sample_root}"


def test_naming_the_corpora_loads_nothing_heavy():
    code = (
        "import sys, instrlib.data.corpora as c; [c.info(name) for name in c.NAMES]; "
        "heavy = {'tensorflow', 'librosa', 'sklearn', 'scipy', 'joblib', 'requests', 'soundfile', 'mirdata'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
