"""A folder of class folders: what is found, groups from a table, and what is refused by name."""

import unicodedata

import numpy as np
import pytest
import soundfile

from instrlib.core.io import ConfigError, CorpusError
from instrlib.data import corpora
from instrlib.data.splits import make_split


def write_clip(path, frequency_hz=None):
    """Write a quarter of a second; no two files are equal unless they are asked for the same frequency."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frequency_hz = frequency_hz or 200 + sum(f"{path.parent.name}/{path.name}".encode())
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(2000) / 8000), 8000)


def read(root, **settings):
    return corpora.read("folder", root, **settings)


def write_groups(root, *rows, column="path"):
    lines = [f"{column},group", *(f"{name},{group}" for name, group in rows)]
    (root / "groups.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    for label in ("cello", "flute"):
        for number in range(4):
            write_clip(tmp_path / "own" / label / f"take {number}.wav")
    return tmp_path / "own"


def test_class_folders_at_any_depth_and_in_any_script_are_read_and_hidden_files_skipped(root):
    write_clip(root / "cello" / "room" / "deep.FLAC")
    write_clip(root / "скрипка 🎻" / "Étude nº 1.v2.flac")
    write_clip(root / "None" / "NA.ogg")
    for name in ("cello/.hidden.wav", "cello/.folder/a.wav", ".trash/a.wav", "loose.wav"):
        write_clip(root / name)
    (root / "cello" / "notes.txt").write_text("notes")
    (root / "cello" / "lost.wav").symlink_to(root / "gone.wav")
    corpus = read(root)
    assert corpus.classes == ("None", "cello", "flute", "скрипка 🎻")
    new = set(corpus.manifest.clip_id) - {f"{label}/take {n}" for label in ("cello", "flute") for n in range(4)}
    assert new == {"cello/room/deep", "None/NA", "скрипка 🎻/Étude nº 1.v2"}
    assert corpus.manifest.group.equals(corpus.manifest.clip_id)
    assert (corpus.manifest.duration_s == 0.25).sum() == 11
    assert corpora.on_disk("folder", root) == f"13 audio files in {root}"  # the loose one and the lost link too


def test_class_folders_that_are_links_are_followed_once(root, tmp_path):
    (root / "flute").rename(tmp_path / "elsewhere")
    (root / "flute").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    assert len(read(root).manifest) == 8
    assert corpora.on_disk("folder", root).startswith("8 audio files")


@pytest.mark.parametrize("column", ["clip_id", "path"])
@pytest.mark.parametrize("ending", ["", ".wav"])
def test_groups_come_from_the_table_and_other_clips_are_their_own(root, column, ending):
    rows = [(f"{label}/take {n}{ending}", f"{label} hall ") for label in ("cello", "flute") for n in (0, 1)]
    write_groups(root, *rows, column=column)
    manifest = read(root).manifest
    assert manifest.group[:4].tolist() == ["cello hall", "cello hall", "cello/take 2", "cello/take 3"]
    parts = make_split(manifest, seed=0).parts
    assert parts["cello/take 0"] == parts["cello/take 1"]


def test_a_table_from_a_spreadsheet_may_write_accents_and_its_beginning_in_its_own_way(root):
    write_clip(root / "cello" / unicodedata.normalize("NFD", "Étude.wav"))
    text = f"path,group\n{unicodedata.normalize('NFC', 'cello/Étude')},hall\n"
    (root / "groups.csv").write_text(text, encoding="utf-8-sig")
    assert "hall" in set(read(root).manifest.group)


def test_single_entries_that_name_no_clip_are_listed_and_a_table_of_other_names_is_refused(root):
    for number in range(30):
        write_clip(root / "cello" / f"more {number}.wav", 500 + number)
    write_groups(root, *[(f"cello/more {n}", "hall") for n in range(30)], ("cello/gone.wav", "hall"))
    (row,) = read(root).excluded.itertuples()
    assert (row.clip_id, row.path, row.usable) == ("cello/gone.wav", "groups.csv", True)
    assert len(corpora.validate("folder", root)) == 1
    write_groups(root, *[(f"take {number}.wav", "hall") for number in range(4)])
    with pytest.raises(CorpusError, match=r"groups\.csv: 4 of 4"):
        read(root)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("path,group\ncello/take 0,a\ncello/take 0.wav,b\n", "cello/take 0.wav"),
        ("path,group\ncello/take 0, \n", "cello/take 0"),
        ("file,group\na,b\n", "clip_id"),
        ("clip_id;group\na;b\n", "group"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_its_place(root, text, place):
    (root / "groups.csv").write_text(text)
    with pytest.raises(CorpusError, match=place) as error:
        read(root)
    assert corpora.validate("folder", root) == [str(error.value)]


def test_layouts_that_are_none_are_refused(root, tmp_path):
    with pytest.raises(CorpusError, match="nowhere"):
        read(tmp_path / "nowhere")
    write_clip(tmp_path / "single" / "cello" / "a.wav")
    with pytest.raises(CorpusError, match="found: cello"):
        read(tmp_path / "single")
    write_clip(root / "cello" / "take 0.flac")
    with pytest.raises(CorpusError, match=r"take 0\.flac and cello/take 0\.wav"):
        read(root)
    (root / "cello" / "take 0.flac").unlink()
    (root / "oboe").mkdir()
    with pytest.raises(CorpusError, match="oboe"):
        read(root)


def test_classes_and_a_cap_choose_clips(root):
    write_clip(root / "oboe" / "a.wav")
    corpus = read(root, classes=["flute", "cello"], max_clips_per_class=3)
    assert corpus.manifest.label.value_counts().to_dict() == {"cello": 3, "flute": 3}
    for wrong in ({"classes": ["cello", "tuba"]}, {"classes": ["cello"]}, {"max_clips_per_class": 0}):
        with pytest.raises(ConfigError):
            read(root, **wrong)
