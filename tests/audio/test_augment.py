"""Augmentation of spectrograms against the papers' algorithms, Keras, and sounds that were mixed as waveforms."""

import numpy as np
import pytest

from instrlib.audio.augment import (
    LATEST_SHARE,
    REVERBERATION_S,
    SHORTEST_S,
    augment,
    augment_recording,
    cutmix,
    mixtures,
    mixup,
    spec_augment,
)
from instrlib.audio.features import extract, mel_edges_hz, silence
from instrlib.core.config import AugmentConfig, FeatureConfig

N, N_BINS, N_FRAMES, N_CLASSES = 24, 20, 33, 5
FLOOR = np.linspace(-80, -60, N_BINS).astype(np.float32)
HOP_S = 0.05
MASKS = {"time_masks": 2, "time_mask_s": 0.4, "frequency_masks": 2, "frequency_mask_bins": 5}
CONFIGS = [
    AugmentConfig(mix="cutmix"),
    AugmentConfig(mix="cutmix", axes="time", beta=0.4),
    AugmentConfig(mix="cutmix", axes="frequency", beta=3.0),
    AugmentConfig(mix="mixup", beta=0.2),
    AugmentConfig(**MASKS),
    AugmentConfig(mix="cutmix", **MASKS),
]


def examples(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch in which every cell tells the example, the bin and the frame that it came from."""
    x = np.arange(n * N_BINS * N_FRAMES, dtype=np.float32).reshape(n, N_BINS, N_FRAMES)
    return x, np.eye(N_CLASSES, dtype=np.float32)[np.arange(n) % N_CLASSES]


def apply(config: AugmentConfig, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return augment(*examples(), config, floor=FLOOR, hop_s=HOP_S, rng=np.random.default_rng(seed))


def origin(mixed: np.ndarray) -> np.ndarray:
    """Return which example each cell came from, and check that it stayed in its place."""
    index, place = np.divmod(mixed.astype(int), N_BINS * N_FRAMES)
    np.testing.assert_array_equal(place, np.broadcast_to(np.arange(N_BINS * N_FRAMES).reshape(N_BINS, -1), place.shape))
    return index


def naive_cutmix(x, y, axes, beta, rng):
    """Yun et al., algorithm 1 of the appendix, cell by cell; the draws in the order of ours."""
    n, n_bins, n_frames = x.shape
    partner = rng.permutation(n)
    shares = [1 - share for share in rng.beta(beta, beta, size=n)]
    sides = [np.sqrt(share) for share in shares] if axes == "both" else shares
    centre_bins = None if axes == "time" else rng.integers(n_bins, size=n)
    centre_frames = None if axes == "frequency" else rng.integers(n_frames, size=n)
    mixed, labels = x.copy(), y.astype(np.float64)
    for i in range(n):
        n_pasted = 0
        top, left, height, width = 0, 0, n_bins, n_frames
        if axes != "time":
            height = round(sides[i] * n_bins)
            top = centre_bins[i] - height // 2
        if axes != "frequency":
            width = round(sides[i] * n_frames)
            left = centre_frames[i] - width // 2
        for b in range(n_bins):
            for t in range(n_frames):
                if top <= b < top + height and left <= t < left + width:
                    mixed[i, b, t] = x[partner[i], b, t]
                    n_pasted += 1
        kept = 1 - n_pasted / (n_bins * n_frames)
        labels[i] = kept * y[i].astype(np.float64) + (1 - kept) * y[partner[i]]
    return mixed, labels


@pytest.mark.parametrize("axes", ["both", "time", "frequency"])
@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_cutmix_is_the_papers_algorithm_cell_by_cell(axes, beta):
    x, y = examples()
    found = cutmix(x, y, axes=axes, beta=beta, rng=np.random.default_rng(3))
    expected = naive_cutmix(x, y, axes, beta, np.random.default_rng(3))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-6)


def test_the_labels_of_keras_cutmix_are_not_the_area():
    keras = pytest.importorskip("keras")

    x, _ = examples()
    layer = keras.layers.CutMix(seed=0)
    mixed = layer({"images": x[..., None], "labels": np.eye(N, dtype=np.float32)}, training=True)
    cells = origin(np.asarray(mixed["images"])[..., 0])
    kept = np.array([(cells[i] == i).mean() for i in range(N)])
    keras_error = np.abs(np.diag(np.asarray(mixed["labels"])) - kept)
    assert keras_error.max() > 0.005


def test_mixup_is_keras_mixup_for_the_same_weights_and_partners():
    keras = pytest.importorskip("keras")

    x, y = examples()
    found = mixup(x, y, beta=0.4, rng=np.random.default_rng(2))
    rng = np.random.default_rng(2)
    drawn = {"permutation_order": rng.permutation(N), "mix_weight": rng.beta(0.4, 0.4, size=N).astype(np.float32)}
    layer = keras.layers.MixUp(alpha=0.4)
    np.testing.assert_allclose(found[0], np.asarray(layer.transform_images(x[..., None], drawn))[..., 0], rtol=1e-5)
    np.testing.assert_allclose(found[1], np.asarray(layer.transform_labels(y, drawn)), rtol=0, atol=1e-6)
    assert found[0].dtype == found[1].dtype == np.float32


def naive_mask(x, floor, time_masks, longest, frequency_masks, widest, rng):
    masked = x.copy()
    for axis, count, largest in ((2, time_masks, longest), (1, frequency_masks, widest)):
        for _ in range(count):
            sizes = rng.integers(0, min(largest, x.shape[axis]) + 1, size=len(x))
            starts = rng.integers(0, x.shape[axis] - sizes + 1)
            for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
                for at in range(start, start + size):
                    if axis == 2:
                        masked[i, :, at] = floor
                    else:
                        masked[i, at, :] = floor[at]
    return masked


def test_masks_are_specaugments_stripe_by_stripe():
    x, _ = examples()
    settings = {"time_masks": 2, "longest_frames": 9, "frequency_masks": 3, "widest_bins": 4}
    found = spec_augment(x, floor=FLOOR, **settings, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(found, naive_mask(x, FLOOR, *settings.values(), np.random.default_rng(7)))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_generator_decides_everything_and_the_input_is_left_as_it_was(config):
    given = examples()
    before = given[0].copy(), given[1].copy()
    first = augment(*given, config, floor=FLOOR, hop_s=HOP_S, rng=np.random.default_rng(1))
    np.random.default_rng().random()
    again = augment(*given, config, floor=FLOOR, hop_s=HOP_S, rng=np.random.default_rng(1))
    other = augment(*given, config, floor=FLOOR, hop_s=HOP_S, rng=np.random.default_rng(2))
    for at in (0, 1):
        np.testing.assert_array_equal(first[at], again[at])
        np.testing.assert_array_equal(given[at], before[at])
    assert (first[0] != other[0]).any()


def test_the_share_of_mixed_batches_is_what_was_asked_for():
    config = AugmentConfig(mix="mixup", share=0.3)
    mixed = [(apply(config, seed)[0] != examples()[0]).any() for seed in range(300)]
    assert 0.2 < np.mean(mixed) < 0.4


def sounds(config: FeatureConfig) -> list[np.ndarray]:
    """Return a harmonic tone with vibrato, a noise that swells, and a high whistle, of unlike loudness."""
    rng = np.random.default_rng(3)
    time_s = np.arange(config.segment_samples) / config.sample_rate_hz
    phase = 2 * np.pi * np.cumsum(220 * (1 + 0.01 * np.sin(2 * np.pi * 5 * time_s))) / config.sample_rate_hz
    tone = sum(np.sin(number * phase) / number for number in range(1, 9))
    noise = rng.normal(size=len(time_s)) * (0.3 + time_s / 3)
    whistle = np.sin(2 * np.pi * (2500 + 300 * np.sin(2 * np.pi * 0.7 * time_s)) * time_s / (1 + time_s / 50))
    return [0.05 * tone, 0.5 * noise, 0.2 * whistle]


def distance_from_waveforms_db(widths_hz: np.ndarray) -> float:
    """Mean distance of layers from the pictures of waveforms mixed at the same levels and times, near the top.

    The loudest point decides where 0 dB is, and there the sounds may be in or out of step; so an offset that all
    points have in common does not count.
    """
    config = FeatureConfig()
    signals = sounds(config)
    x = np.stack([extract(signal, config) for signal in signals])
    settings = {"number": (3, 3), "range_db": 12.0, "floor": silence(config), "widths_hz": widths_hz}
    distances = []
    for seed in range(4):
        mixed, _ = mixtures(x, np.eye(3, dtype=np.float32), **settings, rng=np.random.default_rng(seed))
        rng = np.random.default_rng(seed)  # the draws in the order of ours
        rng.integers(3, 3, size=3, endpoint=True), rng.random((3, 3))
        level_db = rng.uniform(-12, 12, size=(3, 3))
        shift = rng.integers(np.full((3, 3), round(LATEST_SHARE * config.n_frames)), endpoint=True)
        for first in range(3):
            waveform = np.zeros(config.segment_samples)
            for other, signal in enumerate(signals):
                gain = 1.0 if other == first else 10 ** (level_db[first, other] / 20)
                begin = 0 if other == first else shift[first, other] * config.hop_length
                waveform[begin:] += gain * signal[: len(signal) - begin] / np.sqrt(np.mean(signal**2))
            real = extract(waveform, config)
            difference_db = (mixed[first] - real)[real > -30]
            assert len(difference_db) > 300
            distances.append(np.abs(difference_db - np.median(difference_db)).mean())
    return float(np.mean(distances))


def test_a_layer_is_the_picture_of_the_mixed_waveforms_at_the_same_levels_and_times():
    edges_hz = mel_edges_hz(FeatureConfig())
    widths_hz = edges_hz[2:] - edges_hz[:-2]
    distance_db = distance_from_waveforms_db(widths_hz)
    assert distance_db < 1.2
    # Without the widths of the bands, high sounds would be taken for quieter than they are.
    assert distance_from_waveforms_db(np.ones_like(widths_hz)) > 1.4 * distance_db


def test_layers_are_of_different_classes_as_many_as_asked_and_their_labels_all_present():
    x = np.random.default_rng(0).uniform(-70, 0, size=(N, N_BINS, N_FRAMES)).astype(np.float32)
    y = np.eye(N_CLASSES, dtype=np.float32)[np.arange(N) % N_CLASSES]
    settings = {"range_db": 12.0, "floor": FLOOR, "widths_hz": np.ones(N_BINS)}
    for number in ((1, 1), (2, 2), (3, 3), (2, 4), (9, 9)):
        mixed, labels = mixtures(x, y, number=number, **settings, rng=np.random.default_rng(1))
        counts = labels.sum(axis=1)
        low, high = np.minimum(number, N_CLASSES)  # no more than there are classes
        assert counts.min() == low and counts.max() == high
        assert set(np.unique(labels)) <= {0, 1} and (labels[y == 1] == 1).all()
        assert mixed.max(axis=(1, 2)).tolist() == [0] * N and (mixed >= FLOOR[:, None]).all()
        assert mixed.dtype == np.float32 and labels.dtype == np.float32


def test_one_layer_alone_is_the_example_itself():
    config = FeatureConfig(n_mels=32)
    x = np.stack([extract(signal, config) for signal in sounds(config)])
    y = np.eye(3, dtype=np.float32)
    settings = {"number": (1, 1), "range_db": 12.0, "floor": silence(config), "widths_hz": np.ones(config.n_mels)}
    mixed, labels = mixtures(x, y, **settings, rng=np.random.default_rng(0))
    np.testing.assert_allclose(mixed, x, atol=1e-4)
    np.testing.assert_array_equal(labels, y)


def test_in_a_layer_present_wins_and_absent_must_be_seen_in_all():
    x = np.zeros((2, N_BINS, N_FRAMES), np.float32)
    y = np.array([[1, 0, np.nan, 0, np.nan], [0, 1, np.nan, 0, 0]], dtype=np.float32)
    settings = {"number": (2, 2), "range_db": 0.0, "floor": FLOOR, "widths_hz": np.ones(N_BINS)}
    _, labels = mixtures(x, y, **settings, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(labels[0], [1, 1, np.nan, 0, np.nan])


def test_a_short_sound_stays_audible_however_late_it_begins():
    x = np.full((2, N_BINS, 30), -80.0, np.float32)
    x[0, 3, :] = 0.0
    x[1, 12, 22:28] = 0.0  # half of it would be lost if it began more than five frames later
    settings = {"number": (2, 2), "range_db": 0.0, "floor": np.full(N_BINS, -80.0), "widths_hz": np.ones(N_BINS)}
    begins = set()
    for seed in range(60):
        mixed, _ = mixtures(x, np.eye(2, dtype=np.float32), **settings, rng=np.random.default_rng(seed))
        sounding = np.flatnonzero(mixed[0, 12] > -40)
        begins.add(int(sounding[0]))
        assert len(sounding) >= 3
    assert begins == set(range(22, 28))


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_a_mixed_label_is_observed_where_both_are(mix):
    x = examples(2)[0]
    y = np.array([[1, 0, np.nan], [np.nan, 0, 1]], dtype=np.float32)
    config = AugmentConfig(mix=mix, beta=5.0)
    swapped = 0
    for seed in range(8):
        _, mixed = augment(x, y, config, floor=FLOOR, hop_s=HOP_S, rng=np.random.default_rng(seed))
        with_itself = np.array_equal(mixed, y, equal_nan=True)
        np.testing.assert_array_equal(mixed, y if with_itself else np.array([[np.nan, 0, np.nan]] * 2))
        swapped += not with_itself
    assert 0 < swapped < 8


# -- recording augmentation --------------------------------------------------------------------------------

LOG_MEL = FeatureConfig(hop_length=1024)
CENTRES_HZ = mel_edges_hz(LOG_MEL)[1:-1]
SILENCE = np.full(LOG_MEL.n_bins, -LOG_MEL.top_db, np.float32)


def recorded(x, *, share=1.0, seed=0):
    settings = {"centres_hz": CENTRES_HZ, "hop_s": LOG_MEL.hop_s, "floor": SILENCE}
    return augment_recording(x, share=share, **settings, rng=np.random.default_rng(seed))


def silent(n):
    return np.full((n, *LOG_MEL.shape), -LOG_MEL.top_db, np.float32)


@pytest.fixture(scope="module")
def clicks():
    """A click in the tenth frame, in all bands alike."""
    x = silent(600)
    x[:, :, 10] = 0
    return x


def test_the_share_is_changed_and_neither_the_rest_nor_silence_nor_the_input_is(clicks):
    assert (recorded(silent(20)) == -LOG_MEL.top_db).all()
    before = clicks.copy()
    same = (recorded(clicks, share=0.25) == clicks).all(axis=(1, 2))
    assert 0.65 < same.mean() < 0.85
    assert np.array_equal(clicks, before)
    assert np.array_equal(recorded(clicks, share=0.0), clicks)


def test_the_loudest_moment_is_never_cut(clicks):
    assert (recorded(clicks).max(axis=1).argmax(axis=1) == 10).all()


def test_half_of_a_steady_sound_is_cut_to_a_stretch_that_is_not_too_short():
    x = silent(600)
    x[:, 20] = 0
    sounding = (recorded(x)[:, 20] > -9).sum(axis=1)
    whole = sounding > LOG_MEL.n_frames - 2
    assert 0.4 < whole.mean() < 0.65
    assert sounding.min() >= round(SHORTEST_S / LOG_MEL.hop_s)
    assert 0.3 < sounding[~whole].mean() / LOG_MEL.n_frames < 0.8


def test_echoes_die_away_evenly_in_times_of_rooms(clicks):
    """The slope of each tail, measured where no noise covers it, is that of a time to fall by 60 dB."""
    tail = recorded(clicks)[:, 12, 11:20]
    slope_db = np.diff(tail, axis=1)
    straight = (np.ptp(slope_db, axis=1) < 0.3) & (slope_db.mean(axis=1) < -0.5) & (tail.min(axis=1) > -75)
    fall_s = -60 * LOG_MEL.hop_s / slope_db[straight].mean(axis=1)
    assert straight.mean() > 0.05
    assert fall_s.min() > 0.9 * REVERBERATION_S[0]
    assert fall_s.max() < 1.1 * REVERBERATION_S[1]


def test_colour_is_one_gain_a_band_as_a_filter_would_make_it():
    """Two equal clicks a second apart come out alike; a real filter does the same to the real sound."""
    x = silent(300)
    x[:, :, [5, 60]] = 0
    changed = recorded(x)
    both = (changed[:, :, 60] > -40).all(axis=1) & (changed[:, :, 58] < -79).all(axis=1)  # uncut, dry, without noise
    assert both.sum() > 5
    np.testing.assert_allclose(changed[both][:, :, 5], changed[both][:, :, 60], atol=0.01)
    assert np.ptp(changed[both][:, :, 5], axis=1).mean() > 5


def test_noise_is_there_in_most_and_as_rough_as_real_noise():
    x = silent(400)
    x[:, 30] = 0
    beside = recorded(x)[:, 45]
    noisy = (beside > -79).all(axis=1)
    assert 0.4 < noisy.mean() < 0.8
    real = extract(np.random.default_rng(0).standard_normal(LOG_MEL.segment_samples), LOG_MEL)[45]
    assert abs(beside[noisy].std(axis=1).mean() - real.std()) < 1
