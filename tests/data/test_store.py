"""Stored features: computed once, resumed after a kill, checked when opened, never all in memory."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.audio import decode as audio
from instrlib.audio.effects import ChangedCopies
from instrlib.audio.features import extract, scale
from instrlib.core import cache
from instrlib.core.config import FeatureConfig
from instrlib.core.io import CorpusError, StoreError, hash_json
from instrlib.data import corpora as dataset
from instrlib.data import store
from instrlib.data.corpora import Corpus, CorpusInfo, excluded_table

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


def corpus_of(root: Path, paths: list[str], durations_s: list[float], **columns: list) -> Corpus:
    n = len(paths)
    manifest = pd.DataFrame(
        {
            "clip_id": [f"{at:03d}" for at in range(n)],  # Digits with zeros in front, which a careless reader drops.
            "path": paths,
            "start_s": 0.0,
            "duration_s": durations_s,
            "label": [CLASSES[at % 2] for at in range(n)],
            "group": [f"{at // 4}" for at in range(n)],
            "split": "",
        }
        | columns
    )
    info = CorpusInfo("small", "Small", "CC0", "nobody", "", "small", "make it.")
    return Corpus(info, root, manifest, CLASSES)


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
    folder = shutil.copytree(built.folder, tmp_path / built.folder.name)
    return dataclasses.replace(built, folder=folder)


@pytest.fixture
def own_corpus(corpus, tmp_path) -> Corpus:
    """A copy of the clips that a test may damage."""
    return dataclasses.replace(corpus, root=shutil.copytree(corpus.root, tmp_path / "clips"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(corpus: Corpus, tmp_path: Path, root: Path, setup: str = ""):
    pickled = tmp_path / "corpus.pickle"
    pickled.write_bytes(pickle.dumps((corpus, CONFIG)))
    command = [sys.executable, "-c", BUILD % setup, str(pickled), str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


def test_every_segment_holds_the_features_of_its_piece_of_sound(corpus, built):
    assert built.features.dtype == np.float16
    assert built.features.shape == (len(built.segments), *CONFIG.shape)
    paths = corpus.manifest.set_index("clip_id").path
    for segment in built.segments.itertuples():
        signal = audio.load(corpus.root / paths[segment.clip_id], sample_rate_hz=8_000)
        first = round(segment.start_s * 8_000)
        expected = extract(signal[first : first + CONFIG.segment_samples], CONFIG)
        np.testing.assert_allclose(built.features[segment.row], expected, atol=0.04)  # Half a step of float16 at -80.


def test_the_table_repeats_what_the_corpus_says_of_each_clip(corpus, built):
    assert built.classes == CLASSES
    assert built.segments.columns.tolist() == ["row", "clip_id", "start_s", "label", "target", "group", "split"]
    clips = built.clips
    for column in ("clip_id", "label", "group", "split"):
        assert clips[column].tolist() == corpus.manifest[column].tolist()
    np.testing.assert_array_equal(clips.target, corpus.targets)
    of_last = built.segments[built.segments.clip_id == "039"]
    assert of_last.start_s.tolist() == [0, 0.5, 1, 1.5, 2]  # 2.25 s: the last segment is half full.
    assert built.excluded.empty
    assert built.fingerprint == f"{corpus.fingerprint}-{CONFIG.fingerprint}"
    assert built.folder.name.startswith(f"{built.fingerprint}-")


def test_the_result_does_not_depend_on_the_number_of_processes(corpus, built, tmp_path):
    again = store.build_store(corpus, CONFIG, root=tmp_path, workers=2)
    assert content(again.folder) == content(built.folder)


def test_a_store_that_is_there_is_opened_and_not_computed_again(corpus, built, monkeypatch):
    monkeypatch.setattr(store, "extract", None)
    again = store.build_store(
        corpus, FeatureConfig.from_dict(CONFIG.to_dict() | {"scaling": "fixed"}), root=built.folder.parent
    )
    assert again.folder == built.folder
    assert again.config.scaling == "fixed"  # Scaling happens when reading, so the same store serves.
    values = again.read(again.segments.row[:3])
    assert values.min() >= 0
    assert values.max() == 1
    pd.testing.assert_frame_equal(store.open_store(built.folder).segments, built.segments)


def test_reading_gives_scaled_pictures_with_one_channel_in_the_order_asked_for(built):
    scaler = store.fit_scaler(built, built.segments.row)
    rows = np.array([5, 0, 5])
    values = built.read(rows, scaler)
    assert values.dtype == np.float32
    assert values.shape == (3, *CONFIG.shape, 1)
    np.testing.assert_array_equal(values[..., 0], scale(built.features[rows], CONFIG, scaler))


def test_the_scaler_is_mean_and_deviation_of_each_band_over_the_given_rows_alone(built, monkeypatch):
    monkeypatch.setattr(store, "_SCALER_ROWS", 7)
    rows = built.segments.row.to_numpy()[::-3]
    scaler = store.fit_scaler(built, rows)
    values = built.features[np.sort(rows)].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, values.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(scaler.deviation, values.std(axis=(0, 2)), rtol=1e-5)
    scaled = built.read(rows, scaler)
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=(0, 2, 3)), 1, atol=1e-4)
    with pytest.raises(ValueError, match="at least one"):
        store.fit_scaler(built, np.array([], int))


def test_a_store_sent_to_another_process_leaves_its_array_on_disk(built):
    assert built.features.size > 10_000
    sent = pickle.dumps(built)
    assert len(sent) < built.features.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(sent).features[3], built.features[3])


# -- changed copies ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copies(corpus, tmp_path_factory) -> store.FeatureStore:
    """Two changed copies of each segment of the first 20 clips."""
    some = dataclasses.replace(corpus, manifest=corpus.manifest.iloc[:20])
    return store.build_store(some, CONFIG, root=tmp_path_factory.mktemp("copies"), workers=1, change=CHANGE)


def test_every_segment_has_copies_that_differ_from_it_and_each_other(built, copies):
    part = built.segments[built.segments.clip_id < "020"]
    columns = ["clip_id", "start_s", "label", "target", "group", "split"]
    for copy in (1, 2):
        table = copies.segments[copies.segments["copy"] == copy].reset_index(drop=True)
        pd.testing.assert_frame_equal(table[columns], part[columns])
    rows = store.rows_of_copies(part, copies)
    kept, first, second = built.features[part.row], *(copies.features[rows[:, at]] for at in (0, 1))
    for one, other in ((kept, first), (first, second)):
        assert (np.abs(one - other).max(axis=(1, 2)) > 1).mean() > 0.7
    with pytest.raises(StoreError, match="020"):
        store.rows_of_copies(built.segments, copies)
    with pytest.raises(StoreError, match="changed copies"):
        store.rows_of_copies(part, built)


def test_stored_copies_are_the_features_of_the_sound_that_can_be_heard_whatever_the_processes(corpus, copies, tmp_path):
    signal = audio.load(corpus.root / "5.wav", sample_rate_hz=8_000)[: CONFIG.segment_samples]
    heard = CHANGE.copies(signal, sample_rate_hz=8_000, clip_id="005", offset_s=0.0)
    rows = copies.segments[(copies.segments.clip_id == "005") & (copies.segments.start_s == 0)].row
    for row, changed in zip(rows, heard, strict=True):
        np.testing.assert_array_equal(copies.features[row], extract(changed, CONFIG).astype(np.float16))
    some = dataclasses.replace(corpus, manifest=corpus.manifest.iloc[:20])
    again = store.build_store(some, CONFIG, root=tmp_path, workers=2, change=CHANGE)
    assert content(again.folder) == content(copies.folder)


# -- what a store is kept by -------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["features.npy", "segments.csv", "excluded.csv", "store.json"])
def test_a_damaged_store_is_refused_when_opened_and_built_again(corpus, built, own, name, damage):
    damage(own.folder / name)
    if (name, damage) == ("excluded.csv", cut):
        (own.folder / name).write_text("")
    with pytest.raises(StoreError, match=own.folder.name):
        store.open_store(own.folder)
    again = store.build_store(corpus, CONFIG, root=own.folder.parent, workers=1)
    assert again.folder == own.folder and content(again.folder) == content(built.folder)


def test_opening_reads_no_features_unless_a_file_is_newer_than_the_record(own, monkeypatch):
    hashed = []
    digest = store._digest
    monkeypatch.setattr(store, "_digest", lambda path: hashed.append(path.name) or digest(path))
    store.open_store(own.folder)
    assert hashed == []
    (own.folder / "segments.csv").touch()
    store.open_store(own.folder)
    assert hashed == ["segments.csv"]


@pytest.mark.parametrize(
    "change", [{"config": {"volume": 11}}, {"files": {}}, {"files": {"features.npy": 3}}, {"key": ""}]
)
def test_a_record_that_does_not_fit_is_refused(own, change):
    path = own.folder / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=own.folder.name):
        store.open_store(own.folder)
    with pytest.raises(StoreError, match="nothing"):
        store.open_store(own.folder / "nothing")


def test_a_store_of_other_code_or_packages_is_refused_and_made_again(corpus, built, own, monkeypatch):
    key = cache.key
    monkeypatch.setattr(cache, "key", lambda layer, **inputs: hash_json([key(layer, **inputs), "changed"]))
    with pytest.raises(StoreError, match="other code or packages"):
        store.open_store(own.folder)
    again = store.build_store(corpus, CONFIG, root=own.folder.parent, workers=1)
    assert again.folder != own.folder and not own.folder.exists(), "the store of the old code is removed"
    np.testing.assert_array_equal(again.features, built.features)


def test_a_derived_store_has_the_same_features_under_other_groups(built):
    def rename(segments):
        return segments.assign(group="all", usable=segments.usable & (segments.clip_id != "003"))

    derived = store.derive_store(built, rename, mark="one group")
    assert set(derived.segments.group) == {"all"} and "003" not in set(derived.segments.clip_id)
    np.testing.assert_array_equal(derived.features, built.features)
    assert (derived.folder / "features.npy").stat().st_ino == (built.folder / "features.npy").stat().st_ino
    assert store.derive_store(built, lambda segments: pytest.fail(), mark="one group").folder == derived.folder
    assert len({derived.fingerprint, built.fingerprint, store.derive_store(built, rename, mark="two").fingerprint}) == 3


# -- building ----------------------------------------------------------------------------------------------------------


def test_clips_that_the_corpus_left_out_count_in_the_share(corpus, built):
    lost = dataclasses.replace(corpus, excluded=excluded_table((f"x{at}", "", "missing", False) for at in range(10)))
    with pytest.raises(CorpusError, match="10 of 50"):
        store.build_store(lost, CONFIG, root=built.folder.parent, workers=1)
    kept = dataclasses.replace(corpus, excluded=excluded_table((f"x{at}", "", "in test", True) for at in range(10)))
    assert store.build_store(kept, CONFIG, root=built.folder.parent, workers=1).folder == built.folder


def test_clips_that_cannot_be_used_are_listed_with_the_reason_and_left_out(own_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_UNUSABLE_SHARE", 0.1)
    (own_corpus.root / "3.wav").unlink()
    (own_corpus.root / "8.wav").write_bytes(b"")
    soundfile.write(own_corpus.root / "20.wav", np.zeros(8_000), 8_000)
    made = store.build_store(own_corpus, CONFIG, root=tmp_path / "store", workers=1)
    assert made.excluded.clip_id.tolist() == ["003", "008", "020"]
    assert made.excluded.path.tolist() == ["3.wav", "8.wav", "20.wav"]
    for reason, expected in zip(made.excluded.reason, ("No such file", "empty (0 bytes)", "silent"), strict=True):
        assert expected in reason
        assert str(tmp_path) not in reason
    assert set(made.excluded.clip_id).isdisjoint(made.segments.clip_id)
    assert len(made.clips) == N_CLIPS - 3
    assert (made.features[made.segments.row].max(axis=(1, 2)) == 0).all()


def test_too_many_unusable_clips_stop_the_run_and_it_goes_on_once_they_are_repaired(own_corpus, built, tmp_path):
    names = ("3.wav", "4.wav", "5.wav")
    kept = [(own_corpus.root / name).read_bytes() for name in names]
    for name in names:
        (own_corpus.root / name).write_text("no sound")
    root = tmp_path / "store"
    for _ in range(2):
        with pytest.raises(CorpusError, match="3 of 40"):
            store.build_store(own_corpus, CONFIG, root=root, workers=1)
    for name, sound_bytes in zip(names, kept, strict=True):
        (own_corpus.root / name).write_bytes(sound_bytes)
    made = store.build_store(own_corpus, CONFIG, root=root, workers=1)
    assert content(made.folder) == content(built.folder)


def test_a_class_without_a_usable_clip_is_named(own_corpus, tmp_path):
    manifest = own_corpus.manifest
    manifest = manifest.assign(label=manifest.label.where(manifest.clip_id != "005", "oboe"))
    soundfile.write(own_corpus.root / "5.wav", np.zeros(4_000), 8_000)
    rare = dataclasses.replace(own_corpus, manifest=manifest, classes=("flute", "oboe", "piano"))
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"oboe.*5\.wav"):
            store.build_store(rare, CONFIG, root=tmp_path / "store", workers=1)


def test_silent_or_missing_segments_of_a_usable_clip_are_left_out(tmp_path):
    samples = sound(0, 2.0)
    samples[4_000:8_000] = 0
    soundfile.write(tmp_path / "pause.wav", samples, 8_000)
    soundfile.write(tmp_path / "cut.wav", sound(1, 0.6), 8_000)  # The manifest says 2 s.
    two = corpus_of(tmp_path, ["pause.wav", "cut.wav"], [2.0, 2.0])
    made = store.build_store(two, CONFIG, root=tmp_path / "store", workers=1)
    starts_s = made.segments.groupby("clip_id").start_s.apply(list)
    assert starts_s["000"] == [0.0, 1.0, 1.5]
    assert starts_s["001"] == [0.0, 0.5]
    assert made.excluded.empty


def test_a_clip_inside_a_file_begins_where_the_manifest_says(tmp_path):
    samples = sound(0, 3.0)
    soundfile.write(tmp_path / "file.wav", samples, 8_000, subtype="FLOAT")
    inside = corpus_of(tmp_path, ["file.wav", "file.wav"], [1.0, 0.5], start_s=[0.25, 2.0])
    made = store.build_store(inside, CONFIG, root=tmp_path / "store", workers=1)
    assert made.segments.start_s.tolist() == [0.25, 0.75, 2.0]
    for row, start_s in enumerate(made.segments.start_s):
        first = round(start_s * 8_000)
        np.testing.assert_allclose(made.features[row], extract(samples[first : first + 4_000], CONFIG), atol=0.04)


@pytest.mark.parametrize("rate_hz", [8_000, 12_000])
def test_of_a_long_clip_each_segment_is_loaded_alone(tmp_path, monkeypatch, rate_hz):
    duration_s = 100.0
    time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    soundfile.write(tmp_path / "long.wav", 0.3 * np.sin(2 * np.pi * (300 + 5 * time_s) * time_s), rate_hz)
    long = corpus_of(tmp_path, ["long.wav"], [duration_s])
    lengths = []
    load = audio.load
    monkeypatch.setattr(
        audio, "load", lambda *args, **parts: lengths.append(len(load(*args, **parts))) or load(*args, **parts)
    )
    made = store.build_store(long, CONFIG, root=tmp_path / "store", workers=1)
    assert made.segments.start_s.tolist() == [0.0, 20.0, 40.0, 59.5, 79.5, 99.5]
    assert max(lengths) <= CONFIG.segment_samples + 1
    whole = load(tmp_path / "long.wav", sample_rate_hz=8_000)
    for row, start_s in enumerate(made.segments.start_s):
        expected = extract(whole[round(start_s * 8_000) :][:4_000], CONFIG)
        # The rate filter starts anew at each segment's edges; inside them nothing differs.
        np.testing.assert_allclose(made.features[row][:, 2:-2], expected[:, 2:-2], atol=0.5)


KILL = """
import os
from instrlib.audio import decode as audio
work, call = {name}, 0
def die(*args, **options):
    global call
    call += 1
    if {when}:
        os.kill(os.getpid(), 9)
    return work(*args, **options)
{name} = die
"""


@pytest.mark.parametrize(
    ("name", "when", "clips_left"),
    [
        pytest.param("audio.load", "call == 21", 24, id="while a clip of the second batch is read"),
        pytest.param("store.write_json", "call == 4", 0, id="before the record is written"),
        pytest.param("store.shutil.rmtree", "not options", 0, id="before it is tidied up"),
    ],
)
def test_a_killed_build_goes_on_where_it_was_and_ends_the_same(
    corpus, built, tmp_path, monkeypatch, name, when, clips_left
):
    root = tmp_path / "store"
    assert start(corpus, tmp_path, root, KILL.format(name=name, when=when)).wait() == -9
    load = mock.Mock(wraps=audio.load)
    monkeypatch.setattr(audio, "load", load)
    made = store.build_store(corpus, CONFIG, root=root, workers=1)
    assert load.call_count == clips_left
    assert content(made.folder) == content(built.folder)


def test_two_processes_that_build_the_same_store_do_not_disturb_each_other(corpus, built, tmp_path):
    root = tmp_path / "store"
    both = [start(corpus, tmp_path, root) for _ in range(2)]
    for process in both:
        said, complained = process.communicate(timeout=60)
        assert process.returncode == 0, complained
        assert Path(said.strip()) == root / built.folder.name
    assert content(root / built.folder.name) == content(built.folder)


def test_a_full_disk_is_one_sentence_and_the_work_so_far_is_kept(corpus, built, tmp_path):
    size = (built.folder / "features.npy").stat().st_size
    root = tmp_path / "store"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, -1))"
    assert f"DiskError: Cannot write {root}" in start(corpus, tmp_path, root, limit).communicate()[1]
    assert not (root / built.folder.name).exists()
    late = "import resource\nwork = store.parallel_map\ndef limited(*args, **options):\n"
    late += f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, -1))\n    return work(*args, **options)\n"
    late += "store.parallel_map = limited"
    assert "DiskError: Cannot write" in start(corpus, tmp_path, root, late).communicate()[1]
    assert len(list(root.glob(".*.partial/done/*.json"))) == 1
    made = store.build_store(corpus, CONFIG, root=root, workers=1)
    assert content(made.folder) == content(built.folder)


def test_memory_stays_flat_when_the_clips_grow_tenfold(corpus, tmp_path):
    paths = corpus.manifest.path[-16:].tolist()
    durations_s = corpus.manifest.duration_s[-16:].tolist()
    large = FeatureConfig.from_dict(CONFIG.to_dict() | {"hop_length": 32, "n_mels": 64})
    peaks, sizes = [], []
    for times in (2, 2, 20):  # The first is to warm up.
        many = corpus_of(corpus.root, paths * times, durations_s * times)
        tracemalloc.start()
        made = store.build_store(many, large, root=tmp_path / str(len(peaks)), workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        sizes.append(made.features.nbytes)
        tracemalloc.stop()
    assert sizes[2] == 10 * sizes[1] > 1e7
    assert peaks[2] - peaks[1] < 0.05 * (sizes[2] - sizes[1])  # What grows is the table, not the features.
