"""Changed copies of a corpus: the same in every process, of the same length, found by clip and start."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from instrlib.audio import decode as audio
from instrlib.audio.effects import ChangedCopies
from instrlib.audio.features import extract
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import StoreError
from instrlib.data import store
from instrlib.data.copies import draw_copies, rows_of_copies
from instrlib.data.dataset import Corpus, CorpusInfo

RATE_HZ = 8_000
CONFIG = FeatureConfig(
    sample_rate_hz=RATE_HZ, segment_s=0.5, segment_hop_s=0.5, n_fft=512, hop_length=256, n_mels=16, fmax_hz=4_000.0
)
CLASSES = ("flute", "piano")


def sound(seed: int, duration_s: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * rng.uniform(200, 2_000) * time_s)).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """20 clips of 0.3 to 1.25 s, one of which falls silent after its first segment."""
    root = tmp_path_factory.mktemp("corpus")
    durations_s = [0.3 + 0.05 * at for at in range(20)]
    for at, duration_s in enumerate(durations_s):
        signal = sound(at, duration_s)
        if at == 19:
            signal[RATE_HZ // 2 : RATE_HZ] = 0
        soundfile.write(root / f"{at}.wav", signal, RATE_HZ)
    manifest = pd.DataFrame(
        {
            "clip_id": [f"{at:03d}" for at in range(20)],
            "path": [f"{at}.wav" for at in range(20)],
            "start_s": 0.0,
            "duration_s": durations_s,
            "label": [CLASSES[at % 2] for at in range(20)],
            "group": [f"{at // 4}" for at in range(20)],
            "split": "",
        }
    )
    info = CorpusInfo("small", "Small", "CC0", "nobody", "", "small", "make it.")
    return Corpus(info, root, manifest, CLASSES)


@pytest.fixture(scope="module")
def originals(corpus, tmp_path_factory) -> store.FeatureStore:
    return store.build_store(corpus, CONFIG, root=tmp_path_factory.mktemp("store"), workers=1)


@pytest.fixture(scope="module")
def copies(corpus, originals) -> store.FeatureStore:
    return store.build_store(corpus, CONFIG, root=originals.folder.parent, workers=1, change=ChangedCopies(n_copies=2))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_usable_segment_has_its_copies_with_clip_group_and_label(originals, copies):
    columns = ["clip_id", "start_s", "label", "target", "group", "split"]
    for copy in (1, 2):
        table = copies.segments[copies.segments["copy"] == copy].reset_index(drop=True)
        pd.testing.assert_frame_equal(table[columns], originals.segments[columns])
    assert copies.features.shape == (2 * len(originals.features), *CONFIG.shape)
    assert len(originals.segments) < len(originals.features)  # the silent segment is left out of both


def test_copies_differ_from_their_original_and_from_each_other(originals, copies):
    rows = rows_of_copies(originals.segments, copies)
    kept = originals.features[originals.segments.row]
    first, second = (copies.features[rows[:, at]] for at in (0, 1))
    assert (np.abs(kept - first).max(axis=(1, 2)) > 1).mean() > 0.7
    assert (np.abs(first - second).max(axis=(1, 2)) > 1).mean() > 0.7


def test_copies_are_the_same_for_any_number_of_processes(corpus, copies, tmp_path):
    again = store.build_store(corpus, CONFIG, root=tmp_path, workers=2, change=ChangedCopies(n_copies=2))
    assert contents(again.folder) == contents(copies.folder)


def test_a_store_without_copies_is_refused_where_copies_are_wanted(originals):
    with pytest.raises(StoreError, match="changed copies"):
        rows_of_copies(originals.segments, originals)


def test_copies_of_another_corpus_are_refused(originals, copies):
    foreign = originals.segments.assign(clip_id="x" + originals.segments.clip_id)
    with pytest.raises(StoreError, match="x000"):
        rows_of_copies(foreign, copies)


def test_original_and_copies_are_drawn_alike_and_each_from_its_own_row(originals, copies):
    part = originals.segments.iloc[:10]
    rows = rows_of_copies(part, copies)
    x = originals.features[part.row].astype(np.float32)
    choices = np.stack([x, *(copies.features[rows[:, at]].astype(np.float32) for at in (0, 1))])
    counts = np.zeros(3)
    for seed in range(60):
        drawn = draw_copies(x, copies, rows, np.random.default_rng(seed))
        which = (drawn == choices).all(axis=(2, 3))
        assert which.any(axis=0).all()
        counts += which.sum(axis=1)
    np.testing.assert_array_equal(x, originals.features[part.row])
    assert counts.min() > 0.25 * counts.sum()


def test_a_killed_build_of_copies_goes_on_and_ends_the_same(corpus, copies, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        calls = []

        def stop_at_second(*task):
            calls.append(task)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return extract(*task)

        extract = store._extract_batch
        patch.setattr(store, "_extract_batch", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            store.build_store(corpus, CONFIG, root=tmp_path, workers=1, change=ChangedCopies(n_copies=2))
    done = []
    monkeypatch.setattr(store, "_extract_batch", lambda *task: done.append(task) or extract(*task))
    again = store.build_store(corpus, CONFIG, root=tmp_path, workers=1, change=ChangedCopies(n_copies=2))
    assert len(done) == 1
    assert contents(again.folder) == contents(copies.folder)


def test_the_stored_copies_are_the_features_of_the_sound_that_can_be_heard(corpus, copies):
    heard = ChangedCopies(n_copies=2).copies(
        audio.load(corpus.root / "5.wav", sample_rate_hz=RATE_HZ)[: CONFIG.segment_samples],
        sample_rate_hz=RATE_HZ,
        clip_id="005",
        offset_s=0.0,
    )
    rows = copies.segments[(copies.segments.clip_id == "005") & (copies.segments.start_s == 0)].row
    for row, signal in zip(rows, heard, strict=True):
        np.testing.assert_array_equal(copies.features[row], extract(signal, CONFIG).astype(np.float16))
