"""Stored features: computed once, resumed after a kill, checked when opened, never all in memory; segments as clips."""

import dataclasses
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.audio import decode as audio
from instrlib.audio.effects import ChangedCopies
from instrlib.audio.features import extract, scale
from instrlib.core.config import FeatureConfig
from instrlib.core.io import CorpusError, LeakError, StoreError
from instrlib.data import corpora, store
from instrlib.data.corpora import Corpus, CorpusInfo, excluded_table
from instrlib.data.splits import k_folds, load_split, same_group_share, save_splits

CONFIG = FeatureConfig(
    sample_rate_hz=8_000, segment_s=0.5, segment_hop_s=0.5, n_fft=512, hop_length=256, n_mels=16, fmax_hz=4_000.0
)
N_CLIPS = 40
CHANGE = ChangedCopies(n_copies=2)
CLASSES = ("flute", "piano")

# Builds the store of a pickled corpus in another process: `python -c BUILD pickle root`; %s is what breaks it.
BUILD = """
import pickle, sys
from pathlib import Path
from instrlib.data import store
corpus, config = pickle.loads(Path(sys.argv[1]).read_bytes())
%s
print(store.build_store(corpus, config, root=Path(sys.argv[2]), workers=1).folder)
"""


def sound(seed: int, duration_s: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * 8_000)) / 8_000
    return 0.3 * np.sin(2 * np.pi * rng.uniform(200, 2_000) * time_s) + rng.normal(0, 0.01, len(time_s))


def corpus_of(root: Path, paths: list[str], durations_s: list[float], start_s: Sequence[float] | float = 0.0) -> Corpus:
    manifest = pd.DataFrame({"path": paths, "start_s": start_s, "duration_s": durations_s, "split": ""})
    manifest["clip_id"] = [f"{at:03d}" for at in manifest.index]  # digits that a careless reader turns into numbers
    manifest["label"] = [CLASSES[at % 2] for at in manifest.index]
    manifest["group"] = [f"{at // 4}" for at in manifest.index]
    info = CorpusInfo("small", "Small", "CC0", "nobody", "", "small", "make it.")
    return Corpus(info, root, manifest[list(corpora.COLUMNS)], CLASSES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """40 clips of 0.3 to 2.25 s."""
    root = tmp_path_factory.mktemp("corpus")
    durations_s = [0.3 + 0.05 * at for at in range(N_CLIPS)]
    for at, duration_s in enumerate(durations_s):
        soundfile.write(root / f"{at}.wav", sound(at, duration_s), 8_000)
    return corpus_of(root, [f"{at}.wav" for at in range(N_CLIPS)], durations_s)


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory) -> store.FeatureStore:
    return store.build_store(corpus, CONFIG, root=tmp_path_factory.mktemp("store"), workers=1)


@pytest.fixture
def own(built, tmp_path) -> store.FeatureStore:
    """A copy that a test may damage."""
    return dataclasses.replace(built, folder=shutil.copytree(built.folder, tmp_path / built.folder.name))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(corpus: Corpus, tmp_path: Path, root: Path, setup: str = ""):
    pickled = tmp_path / "corpus.pickle"
    pickled.write_bytes(pickle.dumps((corpus, CONFIG)))
    command = [sys.executable, "-c", BUILD % setup, str(pickled), str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


def test_a_store_has_the_features_of_every_segment_and_the_table_of_the_corpus(corpus, built):
    assert built.features.dtype == np.float16 and built.features.shape == (len(built.segments), *CONFIG.shape)
    paths = corpus.manifest.set_index("clip_id").path
    for segment in built.segments.itertuples():
        signal = audio.load(corpus.root / paths[segment.clip_id], sample_rate_hz=8_000)
        expected = extract(signal[round(segment.start_s * 8_000) :][: CONFIG.segment_samples], CONFIG)
        np.testing.assert_allclose(built.features[segment.row], expected, atol=0.04)  # half a step of float16 at -80
    assert built.classes == CLASSES and built.excluded.empty
    clips, columns = built.clips, ["clip_id", "label", "group", "split"]
    pd.testing.assert_frame_equal(clips[columns], corpus.manifest[columns])
    np.testing.assert_array_equal(built.label_matrix(clips).argmax(axis=1), corpus.targets)
    of_last = built.segments[built.segments.clip_id == "039"]
    assert of_last.start_s.tolist() == [0, 0.5, 1, 1.5, 2]  # 2.25 s: the last segment is half full


def test_an_existing_store_is_opened_for_any_scaling_and_pickles_leave_the_array_on_disk(corpus, built, monkeypatch):
    monkeypatch.setattr(store, "extract", None)
    again = store.build_store(corpus, dataclasses.replace(CONFIG, scaling="fixed"), root=built.folder.parent)
    assert (again.folder, again.config.scaling) == (built.folder, "fixed")
    pd.testing.assert_frame_equal(again.segments, built.segments)
    values = again.read(again.segments.row[:3])
    assert (values.min() >= 0, values.max()) == (True, 1)
    sent = pickle.dumps(built)
    assert built.features.size > 10_000 and len(sent) < built.features.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(sent).features[3], built.features[3])


def test_the_scaler_is_mean_and_deviation_of_each_band_over_the_given_rows(built, monkeypatch):
    monkeypatch.setattr(store, "_SCALER_ROWS", 7)
    rows = built.segments.row.to_numpy()[::-3]
    scaler = store.fit_scaler(built, rows)
    values = built.features[np.sort(rows)].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, values.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(scaler.deviation, values.std(axis=(0, 2)), rtol=1e-5)
    read = built.read(np.array([5, 0, 5]), scaler)
    assert read.dtype == np.float32 and read.shape == (3, *CONFIG.shape, 1)
    np.testing.assert_array_equal(read[..., 0], scale(built.features[[5, 0, 5]], CONFIG, scaler))


def test_changed_copies_differ_from_each_other_and_are_those_that_can_be_heard(corpus, built, tmp_path):
    some = dataclasses.replace(corpus, manifest=corpus.manifest.iloc[:20])
    copies = store.build_store(some, CONFIG, root=tmp_path / "one", workers=1, change=CHANGE)
    part = built.segments[built.segments.clip_id < "020"]
    rows = store.rows_of_copies(part, copies)
    every = np.stack([built.features[part.row], *(copies.features[rows[:, at]] for at in (0, 1))])
    assert (np.abs(np.diff(every, axis=0)).max(axis=(2, 3)) > 1).mean(axis=1).min() > 0.7
    signal = audio.load(corpus.root / "5.wav", sample_rate_hz=8_000)[: CONFIG.segment_samples]
    heard = CHANGE.copies(signal, sample_rate_hz=8_000, clip_id="005", offset_s=0.0)
    place = np.flatnonzero((part.clip_id == "005") & (part.start_s == 0))[0]
    for row, changed in zip(rows[place], heard, strict=True):
        np.testing.assert_array_equal(copies.features[row], extract(changed, CONFIG).astype(np.float16))
    again = store.build_store(some, CONFIG, root=tmp_path / "two", workers=2, change=CHANGE)
    assert content(again.folder) == content(copies.folder), "whatever the number of processes"


def test_silent_and_missing_segments_are_excluded_and_clips_may_begin_inside_a_file(tmp_path):
    pause, whole = sound(0, 2.0), sound(2, 3.0)
    pause[4_000:8_000] = 0
    soundfile.write(tmp_path / "pause.wav", pause, 8_000)
    soundfile.write(tmp_path / "cut.wav", sound(1, 0.6), 8_000)  # the manifest says 2 s
    soundfile.write(tmp_path / "whole.wav", whole, 8_000, subtype="FLOAT")
    paths = ["pause.wav", "cut.wav", "whole.wav", "whole.wav"]
    four = corpus_of(tmp_path, paths, [2.0, 2.0, 1.0, 0.5], start_s=[0.0, 0.0, 0.25, 2.0])
    made = store.build_store(four, CONFIG, root=tmp_path / "store", workers=1)
    starts_s = made.segments.groupby("clip_id").start_s.apply(list)
    assert starts_s.tolist() == [[0.0, 1.0, 1.5], [0.0, 0.5], [0.25, 0.75], [2.0]]
    assert made.excluded.empty
    for row in made.segments[made.segments.clip_id > "001"].itertuples():
        expected = extract(whole[round(row.start_s * 8_000) :][:4_000], CONFIG)
        np.testing.assert_allclose(made.features[row.row], expected, atol=0.04)


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
@pytest.mark.parametrize("name", ["features.f16", "segments.csv", "store.json"])
def test_a_damaged_store_is_an_error_when_opened_and_built_again(corpus, built, own, name, damage):
    path = own.folder / name
    whole = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(whole[:-100] if damage == "cut" else whole[:-1] + b"x")
    with pytest.raises(StoreError, match=own.folder.name):
        store.open_store(own.folder)
    again = store.build_store(corpus, CONFIG, root=own.folder.parent, workers=1)
    assert again.folder == own.folder and content(again.folder) == content(built.folder)


def test_unusable_clips_are_excluded_and_too_many_stop_the_build_until_repaired(corpus, built, tmp_path, monkeypatch):
    own_corpus = dataclasses.replace(corpus, root=shutil.copytree(corpus.root, tmp_path / "clips"))
    root, build = tmp_path / "store", partial(store.build_store, config=CONFIG, root=tmp_path / "store", workers=1)
    (own_corpus.root / "3.wav").unlink()
    (own_corpus.root / "8.wav").write_bytes(b"")
    soundfile.write(own_corpus.root / "20.wav", np.zeros(8_000), 8_000)
    with monkeypatch.context() as patch:
        patch.setattr(corpora, "MAX_UNUSABLE_SHARE", 0.1)
        made = build(own_corpus)
    assert made.excluded.path.tolist() == ["3.wav", "8.wav", "20.wav"]
    assert not made.excluded.reason.str.contains(str(tmp_path), regex=False).any()
    assert "silent" in made.excluded.reason[2]
    kept = built.segments[~built.segments.clip_id.isin(["003", "008", "020"])]
    assert made.segments.clip_id.tolist() == kept.clip_id.tolist()
    np.testing.assert_array_equal(made.features, built.features[kept.row])
    shutil.rmtree(root)
    for _ in range(2):
        with pytest.raises(CorpusError, match="3 of 40"):
            build(own_corpus)
    shutil.copytree(corpus.root, own_corpus.root, dirs_exist_ok=True)
    assert content(build(own_corpus).folder) == content(built.folder)
    rows = [(f"x{at}", "", "excluded by the corpus", False) for at in range(10)]
    with pytest.raises(CorpusError, match="10 of 50"):
        build(dataclasses.replace(own_corpus, excluded=excluded_table(rows)))
    manifest = corpus.manifest.assign(label=corpus.manifest.label.where(corpus.manifest.clip_id != "005", "oboe"))
    soundfile.write(own_corpus.root / "5.wav", np.zeros(4_000), 8_000)
    with pytest.raises(CorpusError, match=r"oboe.*5\.wav"):
        build(dataclasses.replace(own_corpus, manifest=manifest, classes=("flute", "oboe", "piano")))


KILL = """
import os
from instrlib.audio import decode as audio
work, calls = {0}, []
def die(*args, **options):
    calls.append(args)
    if {1}:
        os.kill(os.getpid(), 9)
    return work(*args, **options)
{0} = die
"""


@pytest.mark.parametrize(
    ("setup", "outcome", "n_left"),
    [
        pytest.param(KILL.format("audio.load", "len(calls) == 21"), -9, 24, id="killed in the second batch"),
        pytest.param(KILL.format("store.write_json", "True"), -9, 0, id="killed before the record is written"),
        pytest.param("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, -1))", 1, 24, id="disk full"),
    ],
)
def test_an_interrupted_build_resumes_and_ends_the_same(corpus, built, tmp_path, monkeypatch, setup, outcome, n_left):
    root = tmp_path / "store"
    process = start(corpus, tmp_path, root, setup)
    complaint = process.communicate(timeout=60)[1]
    assert process.returncode == outcome and (outcome < 0 or f"DiskError: Cannot write {root}" in complaint)
    (progress,) = root.glob(".*.partial/progress.jsonl")
    with progress.open("a") as file:
        file.write('[{"offsets_s": [0.0')  # a line that was cut
    load = mock.Mock(wraps=audio.load)
    monkeypatch.setattr(audio, "load", load)
    made = store.build_store(corpus, CONFIG, root=root, workers=1)
    assert load.call_count == n_left
    assert content(made.folder) == content(built.folder)


def test_two_processes_may_build_the_same_store(corpus, built, tmp_path):
    for process in [start(corpus, tmp_path, tmp_path / "store") for _ in range(2)]:
        said, complained = process.communicate(timeout=60)
        assert process.returncode == 0, complained
        assert content(Path(said.strip())) == content(built.folder)


def test_memory_stays_flat_when_the_clips_grow_tenfold(corpus, tmp_path):
    paths, durations_s = corpus.manifest.path[-16:].tolist(), corpus.manifest.duration_s[-16:].tolist()
    large = dataclasses.replace(CONFIG, hop_length=32, n_mels=64)
    peaks, sizes = [], []
    for times in (2, 2, 20):  # the first is to warm up
        many = corpus_of(corpus.root, paths * times, durations_s * times)
        tracemalloc.start()
        made = store.build_store(many, large, root=tmp_path / str(len(peaks)), workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        sizes.append(made.features.nbytes)
        tracemalloc.stop()
    assert sizes[2] == 10 * sizes[1] > 1e7
    assert peaks[2] - peaks[1] < 0.05 * (sizes[2] - sizes[1])  # the table grows, not the features


def test_segments_become_clips_with_their_groups_or_without(built, tmp_path):
    short = store.Inputs(built, tuple(save_splits(k_folds(built.clips, 3, seed=0), tmp_path / "folds")), "")
    inputs = [short, *(store.by_segment(short, tmp_path, keep_groups=one) for one in (True, False))]
    whole, kept, drawn = (one.store for one in inputs)
    of_clip = whole.segments.clip_id
    for one in inputs[1:]:
        assert one.store.clips.clip_id.is_unique and len(one.store.clips) == len(of_clip) > 2 * N_CLIPS
        assert one.store.segments.clip_id.str.rsplit("#", n=1).str[0].tolist() == of_clip.tolist()
        assert (one.store.folder / "features.f16").samefile(whole.folder / "features.f16")
        folds = [load_split(path, one.store.segments).parts for path in one.splits]
        assert (sum((parts == "test").astype(int) for parts in folds) == 1).all() and len(folds[0]) == len(of_clip)
    assert len({whole.fingerprint, kept.fingerprint, drawn.fingerprint}) == 3
    assert kept.segments.group.tolist() == whole.segments.group.tolist()
    splits = [load_split(one.splits[0], one.store.segments).parts for one in inputs]
    parts = [one.store.segments.clip_id.map(split) for one, split in zip(inputs, splits, strict=True)]
    assert parts[1].tolist() == parts[0].tolist()
    assert (parts[1].value_counts() - parts[2].value_counts()).abs().max() <= len(whole.classes) + 1
    assert same_group_share(kept.segments, parts[1]) == 0 and same_group_share(kept.segments, parts[2]) > 0.75
    with pytest.raises(LeakError):  # the guard holds for the true groups
        load_split(inputs[2].splits[0], kept.segments)
