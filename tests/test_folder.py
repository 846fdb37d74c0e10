"""A folder of class folders: what counts as a clip, what groups it, and what is wrong with it."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.core.errors import ConfigError, CorpusError
from instrlib.data.folder import load, validate
from instrlib.data.splits import make_split


def write_clip(path, duration_s=0.25):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(round(8000 * duration_s)), 8000)


@pytest.fixture
def root(tmp_path):
    for name in ("cello", "flute"):
        for number in range(4):
            write_clip(tmp_path / "own" / name / f"take {number}.wav", 0.25 + number / 10)
    return tmp_path / "own"


def write_groups(root, *rows, column="clip_id"):
    pd.DataFrame(rows, columns=[column, "group"]).to_csv(root / "groups.csv", index=False)


def test_a_clip_is_a_file_in_a_class_folder_named_by_its_path(root):
    corpus = load(root)
    assert corpus.classes == ("cello", "flute")
    assert corpus.manifest.clip_id.tolist() == [f"{name}/take {n}" for name in ("cello", "flute") for n in range(4)]
    assert corpus.manifest.path.tolist() == [f"{name}.wav" for name in corpus.manifest.clip_id]
    assert corpus.manifest.label.tolist() == ["cello"] * 4 + ["flute"] * 4
    assert corpus.manifest.duration_s.tolist() == pytest.approx([0.25, 0.35, 0.45, 0.55] * 2)
    assert corpus.problems.empty
    assert validate(root) == []


def test_files_lie_at_any_depth_below_the_class_folder(root):
    write_clip(root / "cello" / "2024" / "hall" / "take 0.wav")
    assert "cello/2024/hall/take 0" in set(load(root).manifest.clip_id)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3", ".WAV", ".Mp3"])
def test_wav_flac_ogg_and_mp3_are_read_whatever_the_case_of_the_ending(root, ending):
    write_clip(root / "cello" / f"more{ending}", 1.0)
    assert f"cello/more{ending}" in set(load(root).manifest.path)


def test_hidden_and_other_files_are_passed_over(root):
    for name in ("cello/.hidden.wav", "cello/.folder/a.wav", ".trash/a.wav", "cello/notes.txt", "loose.wav"):
        write = write_clip if name.endswith("wav") else lambda path: path.write_text("notes")
        write(root / name)
    corpus = load(root)
    assert len(corpus.manifest) == 8
    assert corpus.classes == ("cello", "flute")


def test_names_with_spaces_accents_and_other_scripts_are_kept(root):
    write_clip(root / "скрипка 🎻" / "Étude nº 1.v2.flac")
    manifest = load(root).manifest
    assert manifest.clip_id.iloc[-1] == "скрипка 🎻/Étude nº 1.v2"
    assert manifest.label.iloc[-1] == "скрипка 🎻"


def test_a_class_called_none_or_nan_is_a_class(root):
    for name in ("None", "nan"):
        write_clip(root / name / "a.wav")
    write_groups(root, ("None/a", "NA"), ("nan/a", "null"))
    corpus = load(root)
    assert corpus.classes == ("None", "cello", "flute", "nan")
    assert corpus.manifest.set_index("clip_id").group[["None/a", "nan/a"]].tolist() == ["NA", "null"]


def test_without_a_table_every_file_is_its_own_group_and_one_is_advised(root):
    corpus = load(root)
    assert (corpus.manifest.group == corpus.manifest.clip_id).all()
    assert "groups.csv" in corpus.info.how_to_get


@pytest.mark.parametrize("column", ["clip_id", "path"])
@pytest.mark.parametrize("ending", ["", ".wav"])
def test_groups_come_from_the_table_and_the_rest_keep_their_own(root, column, ending):
    rows = [(f"{name}/take {number}{ending}", f"{name} hall") for name in ("cello", "flute") for number in (0, 1)]
    write_groups(root, *rows, column=column)
    manifest = load(root).manifest
    assert manifest.group[:4].tolist() == ["cello hall", "cello hall", "cello/take 2", "cello/take 3"]
    parts = make_split(manifest, seed=0).parts
    assert parts["cello/take 0"] == parts["cello/take 1"]


def test_composed_and_decomposed_accents_are_the_same_name(root):
    write_clip(root / "cello" / unicodedata.normalize("NFD", "Étude.wav"))
    write_groups(root, (unicodedata.normalize("NFC", "cello/Étude"), "hall"))
    assert "hall" in set(load(root).manifest.group)


def test_a_table_from_a_spreadsheet_with_a_byte_order_mark_is_read(root):
    (root / "groups.csv").write_text("path,group\ncello/take 0.wav,hall\n", encoding="utf-8-sig")
    assert load(root).manifest.group[0] == "hall"


def test_single_entries_that_name_no_clip_are_listed(root):
    for number in range(30):
        write_clip(root / "cello" / f"more {number}.wav")
    write_groups(root, *[(f"cello/more {n}", "hall") for n in range(30)], ("cello/gone.wav", "hall"))
    corpus = load(root)
    assert corpus.problems.clip_id.tolist() == ["cello/gone.wav"]
    assert validate(root) == ["groups.csv: groups.csv names it, but there is no such clip"]


def test_a_table_of_other_names_is_refused(root):
    write_groups(root, *[(f"take {number}.wav", "hall") for number in range(4)])
    with pytest.raises(CorpusError, match=r"groups.csv: 4 of 4 entries name no clip \(the first: take 0.wav\)"):
        load(root)


def test_a_clip_with_two_groups_or_an_empty_one_is_named(root):
    write_groups(root, ("cello/take 0", "a"), ("cello/take 0.wav", "b"))
    with pytest.raises(CorpusError, match=r"cello/take 0.wav has two groups, 'a' and 'b'"):
        load(root)
    for empty in ("", " "):
        write_groups(root, ("cello/take 0", empty))
        with pytest.raises(CorpusError, match="the group of cello/take 0 is empty"):
            load(root)


def test_spaces_around_a_group_do_not_make_another(root):
    write_groups(root, ("cello/take 0", "s1"), ("cello/take 1", "s1 "), ("cello/take 2", "\ts1"))
    assert load(root).manifest.group[:4].tolist() == ["s1", "s1", "s1", "cello/take 3"]


def test_a_table_without_its_columns_is_named(root):
    (root / "groups.csv").write_text("file,group\na,b\n")
    with pytest.raises(CorpusError, match=r"groups.csv lacks the column clip_id \(or path\); it has: file, group"):
        load(root)
    (root / "groups.csv").write_text("clip_id;group\na;b\n")
    with pytest.raises(CorpusError, match=r"groups.csv lacks the column group; it has: clip_id;group"):
        load(root)


def test_one_stem_with_two_endings_is_an_error_that_names_both(root):
    write_clip(root / "cello" / "take 0.flac")
    with pytest.raises(CorpusError, match=r"cello/take 0.flac and cello/take 0.wav differ in their ending alone"):
        load(root)


def test_a_class_folder_without_audio_is_named(root):
    (root / "oboe").mkdir()
    (root / "oboe" / "notes.txt").write_text("later")
    with pytest.raises(CorpusError, match=r"class folder .*oboe holds no audio file"):
        load(root)


def test_fewer_than_two_class_folders_are_refused_with_the_layout(tmp_path):
    write_clip(tmp_path / "own" / "cello" / "a.wav")
    with pytest.raises(CorpusError, match=r"at least two class folders; found: cello\. Put the recordings"):
        load(tmp_path / "own")
    with pytest.raises(CorpusError, match=r"There is no folder .*nowhere\. Put the recordings"):
        load(tmp_path / "nowhere")
    assert validate(tmp_path / "nowhere")[0].startswith("There is no folder")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound at all" * 100])
def test_an_unusable_file_is_left_out_with_its_reason(root, content):
    (root / "cello" / "broken.wav").write_bytes(content)
    corpus = load(root)
    assert corpus.problems.clip_id.tolist() == ["cello/broken"]
    assert len(corpus.problems.reason[0]) > 10
    assert str(root) not in corpus.problems.reason[0], "tables of problems are published"
    assert len(corpus.manifest) == 8
    assert validate(root) == [f"cello/broken.wav: {corpus.problems.reason[0]}"]


def test_validating_finds_what_the_header_does_not_tell(root):
    samples = np.full(4000, 0.1, np.float32)
    samples[2000] = np.nan
    soundfile.write(root / "cello" / "nan.wav", samples, 8000, subtype="FLOAT")
    soundfile.write(root / "flute" / "silent.wav", np.zeros(4000), 8000)
    soundfile.write(root / "flute" / "torn.flac", np.random.default_rng(0).uniform(-1, 1, 80_000), 8000)
    torn = root / "flute" / "torn.flac"
    torn.write_bytes(torn.read_bytes()[:50_000])
    assert load(root).problems.empty
    found = validate(root)
    assert [line.partition(": ")[0] for line in found] == ["cello/nan.wav", "flute/silent.wav", "flute/torn.flac"]
    assert "NaN" in found[0] and "silent" in found[1] and "damaged" in found[2]


def test_a_file_recorded_again_under_its_old_name_and_length_makes_another_corpus(root):
    first = load(root).fingerprint
    path = root / "cello" / "take 0.wav"
    whole = path.read_bytes()
    soundfile.write(path, 0.2 * np.ones(2000), 8000)
    assert load(root).fingerprint != first
    path.write_bytes(whole)
    assert load(root).fingerprint == first


def test_a_link_that_leads_nowhere_is_passed_over(root):
    (root / "cello" / "lost.wav").symlink_to(root / "gone.wav")
    assert len(load(root).manifest) == 8


def test_a_class_of_unusable_files_is_named(root):
    for path in (root / "flute").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match=r"flute: none of its files can be used; the first: "):
        load(root)


def test_classes_and_cap_choose_clips(root):
    write_clip(root / "oboe" / "a.wav")
    corpus = load(root, classes=["flute", "cello"], max_clips_per_class=3)
    assert corpus.manifest.label.value_counts().to_dict() == {"cello": 3, "flute": 3}
    with pytest.raises(ConfigError, match="Unknown class tuba; there is: cello, flute, oboe"):
        load(root, classes=["cello", "tuba"])


def test_a_class_folder_that_is_a_link_is_refused_and_links_to_files_are_read(root, tmp_path):
    (root / "flute").rename(tmp_path / "flute")
    (root / "flute").symlink_to(tmp_path / "flute")
    sentence = r"class folder .*own/flute is a link.* put the folder itself there, or a folder of links to its files"
    with pytest.raises(CorpusError, match=sentence):
        load(root)
    (finding,) = validate(root)
    assert "is a link" in finding
    (root / "flute").unlink()
    (root / "flute").mkdir()
    for path in (tmp_path / "flute").iterdir():
        (root / "flute" / path.name).symlink_to(path)
    assert len(load(root).manifest) == 8
