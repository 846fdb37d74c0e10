"""The pipeline that every corpus goes through: choose, draw, probe, join copies, keep groups out of the test part."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.audio import decode
from instrlib.core.config import folders, get_profile
from instrlib.core.io import ConfigError, CorpusError
from instrlib.data import corpora, dataset
from instrlib.data.dataset import (
    IN_TEST,
    TWO_CLASSES,
    Corpus,
    CorpusInfo,
    Found,
    build,
    draw_clips,
    join_copies,
    strata,
)
from instrlib.data.files import CONTENT, audio_files, probe_clips
from instrlib.data.splits import make_split

INFO = CorpusInfo("made", "Made", "CC0", "nobody", "", "small", "Make it.")


@pytest.fixture
def found(tmp_path):
    """Two classes of six groups of two clips, the last two groups in the official test part; no two files are equal."""
    rows = []
    for place, label in enumerate(("cello", "flute")):
        for number in range(12):
            name = f"{label}{number:02d}"
            sound = 0.3 * np.sin(2 * np.pi * (300 + 20 * place + number) * np.arange(2000 + number) / 8000)
            soundfile.write(tmp_path / f"{name}.wav", sound, 8000)
            split = "test" if number >= 8 else "train"
            rows.append((name, f"{name}.wav", label, f"{label}/{number // 2}", split, number))
    clips = pd.DataFrame(rows, columns=["clip_id", "path", "label", "group", "split", "take"])
    return Found(clips)


def test_a_corpus_is_a_table_of_its_clips(found, tmp_path):
    corpus = build(INFO, tmp_path, found)
    assert corpus.manifest.columns.tolist() == [*dataset.COLUMNS, "take", CONTENT]
    assert corpus.manifest.drop(columns=["start_s", "duration_s", CONTENT]).equals(
        found.clips[["clip_id", "path", "label", "group", "split", "take"]]
    )
    assert corpus.manifest.duration_s.tolist() == pytest.approx([(2000 + n) / 8000 for n in (*range(12), *range(12))])
    assert (corpus.classes, corpus.targets.tolist()) == (("cello", "flute"), [0] * 12 + [1] * 12)
    assert (corpus.excluded.empty, corpus.n_unusable, corpus.multilabel) == (True, 0, False)


def test_the_fingerprint_follows_bytes_and_groups_and_not_the_order_of_rows(found, tmp_path):
    first = build(INFO, tmp_path, found)
    assert build(INFO, tmp_path, Found(found.clips.sample(frac=1, random_state=1))).fingerprint == first.fingerprint
    other = found.clips.assign(group=found.clips.group.replace("cello/0", "cello/1"))
    assert build(INFO, tmp_path, Found(other)).fingerprint != first.fingerprint
    kept = (tmp_path / "cello00.wav").read_bytes()
    soundfile.write(tmp_path / "cello00.wav", 0.2 * np.ones(2000), 8000)  # under its old name and length
    assert build(INFO, tmp_path, found).fingerprint != first.fingerprint
    (tmp_path / "cello00.wav").write_bytes(kept)
    assert build(INFO, tmp_path, found).fingerprint == first.fingerprint


def test_copies_of_one_file_are_one_group(found, tmp_path):
    shutil.copy(tmp_path / "cello00.wav", tmp_path / "cello05.wav")
    shutil.copy(tmp_path / "cello04.wav", tmp_path / "cello07.wav")
    manifest = build(INFO, tmp_path, found).manifest.set_index("clip_id")
    assert manifest.group[["cello00", "cello01", "cello04", "cello05", "cello07"]].unique().tolist() == ["cello/0"]
    assert manifest.group.nunique() == 12 - 2
    parts = make_split(manifest.reset_index(), seed=0).parts
    assert parts[["cello00", "cello05", "cello07"]].nunique() == 1


def test_copies_join_chains_of_groups():
    clips = pd.DataFrame({"group": list("dcba"), CONTENT: ["1", "2", "1", "3"]})
    assert join_copies(clips).tolist() == ["b", "c", "b", "a"]
    chain = pd.DataFrame({"group": ["c", "b", "b", "a", "x"], CONTENT: ["1", "1", "2", "2", "3"]})
    assert join_copies(chain).tolist() == ["a", "a", "a", "a", "x"]
    assert len(join_copies(clips.iloc[:0])) == 0


def test_a_training_clip_with_a_copy_in_the_test_part_is_left_out_with_its_group(found, tmp_path):
    shutil.copy(tmp_path / "cello11.wav", tmp_path / "cello02.wav")
    corpus = build(INFO, tmp_path, found)
    assert corpus.excluded.clip_id.tolist() == ["cello02", "cello03"]
    assert set(corpus.excluded.reason) == {IN_TEST}
    assert corpus.n_unusable == 0
    make_split(corpus.manifest, seed=0)


def test_one_file_in_two_classes_is_left_out_of_both(found, tmp_path):
    shutil.copy(tmp_path / "cello02.wav", tmp_path / "flute05.wav")
    corpus = build(INFO, tmp_path, found)
    assert corpus.excluded[["clip_id", "reason", "usable"]].to_numpy().tolist() == [
        ["cello02", TWO_CLASSES, True],
        ["flute05", TWO_CLASSES, True],
    ]
    assert set(corpus.manifest.clip_id).isdisjoint({"cello02", "flute05"})


def test_groups_that_reach_into_the_test_part_are_left_out_of_training(found, tmp_path):
    found.clips.loc[found.clips.clip_id == "flute01", "group"] = "flute/5"
    corpus = build(INFO, tmp_path, found, classes=["flute", "cello"])
    assert corpus.excluded.clip_id.tolist() == ["flute01"]
    across = found.clips.assign(group=found.clips.group.where(found.clips.clip_id != "cello00", "flute/5"))
    drawn = build(INFO, tmp_path, Found(across))
    assert "cello00" in set(drawn.excluded.clip_id), "whatever the class of the test clip"


def test_a_draw_takes_one_clip_of_every_group_first_and_keeps_both_official_parts(found):
    drawn = draw_clips(found.clips, 6, seed=0)
    assert drawn.groupby("label").group.nunique().to_dict() == {"cello": 6, "flute": 6}
    assert pd.crosstab(drawn.label, drawn.split).to_numpy().tolist() == [[2, 4], [2, 4]]
    crowded = found.clips.assign(split=np.where(found.clips["take"] < 2, "train", "test"))
    assert (draw_clips(crowded, 4, seed=0).split == "train").sum() == 4, "training gets half of the cap where it can"
    assert draw_clips(found.clips, None, seed=0) is found.clips
    assert len(draw_clips(found.clips, 100, seed=0)) == 24
    with pytest.raises(ConfigError, match="not 0"):
        draw_clips(found.clips, 0, seed=0)


def test_a_draw_is_the_same_for_any_order_of_rows_and_any_choice_of_classes():
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"clip_id": [f"c{n}" for n in range(300)], "label": rng.choice(list("abc"), 300)})
    clips = clips.assign(group=[f"session {n}" for n in rng.integers(0, 40, 300)], split="")  # with several classes
    whole = set(draw_clips(clips, 20, seed=3).clip_id)
    assert set(draw_clips(clips.sample(frac=1, random_state=1), 20, seed=3).clip_id) == whole
    for chosen in (["a"], ["a", "b"], ["c"]):
        some = clips[clips.label.isin(chosen)]
        assert set(draw_clips(some, 20, seed=3).clip_id) == whole & set(some.clip_id)
    assert set(draw_clips(clips, 20, seed=4).clip_id) != whole


def test_unusable_files_are_listed_with_their_reason_and_without_the_folder(found, tmp_path):
    (tmp_path / "cello00.wav").unlink()
    (tmp_path / "cello01.wav").write_bytes(b"")
    (tmp_path / "cello02.wav").write_text("this is no sound")
    corpus = build(INFO, tmp_path, found)
    assert corpus.excluded.clip_id.tolist() == ["cello00", "cello01", "cello02"]
    assert not corpus.excluded.usable.any() and corpus.n_unusable == 3
    assert not corpus.excluded.reason.str.contains(str(tmp_path), regex=False).any()
    for number in range(12):
        (tmp_path / f"cello{number:02d}.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="no usable clip of cello"):
        build(INFO, tmp_path, found)


def test_more_than_a_twentieth_of_unusable_clips_stops_a_run_and_clips_left_out_do_not_count(tmp_path):
    for label, base in (("low", 100), ("high", 900)):
        for number in range(12):
            path = tmp_path / "own" / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.sin(2 * np.pi * (base + number) * np.arange(4000) / 8000), 8000)
    shutil.copy(tmp_path / "own" / "low" / "1.wav", tmp_path / "own" / "high" / "1.wav")
    loaded = corpora.load("folder", data=tmp_path / "own", profile=get_profile("smoke"))
    assert (len(loaded.manifest), len(loaded.excluded)) == (22, 2)
    for number in (5, 6):
        (tmp_path / "own" / "low" / f"{number}.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="2 of 22"):
        corpora.load("folder", data=tmp_path / "own", profile=get_profile("smoke"))


def test_validate_finds_what_a_header_does_not_tell_and_files_that_nothing_names(found, tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, 80_000)
    soundfile.write(tmp_path / "cello00.wav", np.where(np.arange(4000) == 7, np.nan, 0.1), 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "cello01.wav", np.zeros(4000), 8000)
    soundfile.write(tmp_path / "torn.flac", noise, 8000)
    torn = (tmp_path / "torn.flac").read_bytes()[:50_000]
    (tmp_path / "flute00.wav").unlink()
    (tmp_path / "torn.flac").write_bytes(torn)
    clips = found.clips.assign(path=found.clips.path.replace("flute00.wav", "torn.flac"))
    assert build(INFO, tmp_path, Found(clips)).excluded.empty
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "stranger.wav").write_bytes(b"")
    lines = dataset.validate(tmp_path, Found(clips, notes=["a note"], folders=("sub",)))
    assert lines[0] == "a note"
    assert [line.partition(": ")[0] for line in lines[1:]] == [
        "cello00.wav",
        "cello01.wav",
        "torn.flac",
        "sub/stranger.wav",
    ]


def test_partial_labels_keep_the_unobserved_and_classes_can_be_chosen(found, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((24, 3)) < 0.4, np.nan, rng.random((24, 3)) < 0.5).astype(np.float32)
    labels[0] = [np.nan, np.nan, 1]
    several = Found(found.clips.drop(columns="label"), ("cello", "flute", "oboe"), labels)
    corpus = build(INFO, tmp_path, several)
    observed = np.isfinite(labels).any(axis=1)
    np.testing.assert_array_equal(corpus.labels, labels[observed])
    assert corpus.multilabel and corpus.manifest["take"].tolist() == found.clips["take"][observed].tolist()
    for row, label in zip(corpus.labels, corpus.manifest.label, strict=True):
        at = corpus.classes.index(label)
        assert row[at] == 1 or not (row == 1).any()
    fewer = build(INFO, tmp_path, several, classes=["flute", "cello"])
    assert "cello00" not in set(fewer.manifest.clip_id), "nobody was asked about its two classes"
    np.testing.assert_array_equal(fewer.labels, labels[np.isfinite(labels[:, :2]).any(axis=1), :2])


def test_the_stratum_of_a_clip_is_its_rarest_class():
    assert strata(np.array([[1, 1], [1, 0], [0, np.nan]]), ("piano", "banjo")) == ["banjo", "piano", "piano"]
    with pytest.raises(CorpusError, match="row 1"):
        strata(np.array([[1.0, 0], [np.nan, np.nan]]), ("piano", "banjo"))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda one: one.drop(columns="group"), "group"),
        (lambda one: one.iloc[:0], "no usable clip"),
        (lambda one: one.assign(clip_id="a"), "such as a"),
        (lambda one: one.assign(label="tuba"), "tuba"),
    ],
)
def test_a_manifest_that_would_mislead_is_refused(found, tmp_path, change, place):
    corpus = build(INFO, tmp_path, found)
    with pytest.raises(CorpusError, match=place):
        Corpus(INFO, tmp_path, change(corpus.manifest), corpus.classes)
    for labels in (np.zeros((24, 3)), np.full((24, 2), 0.5), np.ones((24, 2))):
        with pytest.raises(CorpusError):
            Corpus(INFO, tmp_path, corpus.manifest, corpus.classes, labels=labels)


def test_a_second_look_opens_no_file_and_a_changed_file_is_opened_again(found, tmp_path, monkeypatch):
    opened, probe = [], decode.probe
    monkeypatch.setattr(decode, "probe", lambda path: opened.append(path.name) or probe(path))
    build(INFO, tmp_path, found)
    assert len(opened) == 24
    soundfile.write(tmp_path / "cello01.wav", 0.1 * np.ones(12_000), 8000)
    again = build(INFO, tmp_path, found).manifest
    assert opened[24:] == ["cello01.wav"]
    assert again.duration_s[again.clip_id == "cello01"].tolist() == [1.5]


def test_probes_are_appended_and_lines_that_are_none_are_skipped(found, tmp_path, monkeypatch):
    monkeypatch.setattr("instrlib.data.files._CHUNK", 5)
    monkeypatch.setenv("INSTRLIB_WORKERS", "1")
    usable, problems = probe_clips(tmp_path, found.clips)
    (cache,) = (folders().data / "probes").iterdir()
    before = cache.read_bytes()
    soundfile.write(tmp_path / "cello01.wav", 0.1 * np.ones(12_000), 8000)
    probe_clips(tmp_path, found.clips)
    added = cache.read_bytes().removeprefix(before)
    assert [json.loads(line)[0] for line in added.splitlines() if line] == ["cello01.wav"], "and nothing else again"
    cache.write_bytes(before[:-30] + b'\n[1]\n"a"\n{"a": 3}\n\xff\n' + added)
    again, _ = probe_clips(tmp_path, found.clips)
    assert again.duration_s[again.clip_id == "cello01"].tolist() == [1.5]
    assert problems == [] and len(usable) == len(again) == 24


def test_names_that_are_not_utf8_are_reported(tmp_path):
    name = b"caf\xe9.wav".decode(errors="surrogateescape")
    usable, problems = probe_clips(tmp_path, pd.DataFrame({"clip_id": ["a"], "path": [name]}))
    assert usable.empty and "UTF-8" in problems[0][2]


def test_of_several_endings_the_first_is_used(tmp_path):
    for name in ("a.flac", "a.WAV", "a.ogg", "b.mp3", ".c.wav", "d.txt"):
        (tmp_path / name).touch()
    assert audio_files(tmp_path) == {"a": "a.WAV", "b": "b.mp3"}
    assert audio_files(tmp_path / "nowhere") == {}
