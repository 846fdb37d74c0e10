"""Augmentation of spectrograms, against the papers' algorithms, Keras and mixed waveforms."""

import numpy as np
import pytest

from instrlib.audio.augment import LATEST_SHARE, REVERBERATION_S, SHORTEST_S, augment, augment_recording, mixtures
from instrlib.audio.features import extract, mel_edges_hz, silence
from instrlib.core.config import AugmentConfig, FeatureConfig

N, N_BINS, N_FRAMES, N_CLASSES = 24, 20, 33, 5
FLOOR = np.linspace(-80, -60, N_BINS).astype(np.float32)
HOP_S = 0.05
X = np.arange(N * N_BINS * N_FRAMES, dtype=np.float32).reshape(N, N_BINS, N_FRAMES)  # every cell has its own value
Y = np.eye(N_CLASSES, dtype=np.float32)[np.arange(N) % N_CLASSES]


def augmented(config: AugmentConfig, x=X, y=Y, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return augment(x, y, config, floor=FLOOR, hop_s=HOP_S, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("axes", ["both", "time", "frequency"])
@pytest.mark.parametrize("beta", [0.3, 4.0])
def test_cutmix_is_the_algorithm_of_the_paper(axes, beta):
    """Yun et al., algorithm 1 of the appendix, with the same random numbers."""
    found = augmented(AugmentConfig(mix="cutmix", axes=axes, beta=beta))
    rng = np.random.default_rng(0)
    rng.random()
    partner, cut = rng.permutation(N), 1 - rng.beta(beta, beta, size=N)
    side = np.sqrt(cut) if axes == "both" else cut
    inside = np.ones(X.shape, bool)
    for axis, size, whole in ((1, N_BINS, "time"), (2, N_FRAMES, "frequency")):
        if axes != whole:
            centre, length = rng.integers(size, size=N), np.array([round(one * size) for one in side])
            place = np.arange(size) - (centre - length // 2)[:, None]
            inside &= np.expand_dims((place >= 0) & (place < length[:, None]), 3 - axis)
    wanted = np.where(inside, X[partner], X)
    np.testing.assert_array_equal(found[0], wanted)
    kept = np.where(partner == np.arange(N), 1.0, (wanted == X).mean(axis=(1, 2)))[:, None]
    np.testing.assert_allclose(found[1], kept * Y + (1 - kept) * Y[partner], atol=1e-6)


def test_mixup_is_that_of_keras_for_the_same_weights_and_partners():
    keras = pytest.importorskip("keras")
    found = augmented(AugmentConfig(mix="mixup", beta=0.4))
    rng = np.random.default_rng(0)
    rng.random()
    drawn = {"permutation_order": rng.permutation(N), "mix_weight": rng.beta(0.4, 0.4, size=N).astype(np.float32)}
    layer = keras.layers.MixUp(alpha=0.4)
    np.testing.assert_allclose(found[0], np.asarray(layer.transform_images(X[..., None], drawn))[..., 0], rtol=1e-5)
    np.testing.assert_allclose(found[1], np.asarray(layer.transform_labels(Y, drawn)), rtol=0, atol=1e-6)
    assert found[0].dtype == found[1].dtype == np.float32


def test_masks_are_stripes_of_silence_of_any_width_up_to_the_largest():
    config = AugmentConfig(time_masks=2, time_mask_s=9 * HOP_S, frequency_masks=1, frequency_mask_bins=4)
    masked = np.concatenate([augmented(config, seed=seed)[0] for seed in range(20)])
    x = np.tile(X, (20, 1, 1))
    changed = masked != x
    np.testing.assert_array_equal(masked, np.where(changed, FLOOR[:, None], x))
    bins, frames = changed.all(axis=2), changed.all(axis=1)
    np.testing.assert_array_equal(changed, bins[:, :, None] | frames[:, None, :])
    assert [set(hidden.sum(axis=1)) for hidden in (bins, frames)] == [set(range(5)), set(range(19))]
    assert (np.diff(bins.astype(int), axis=1, prepend=0, append=0) == 1).sum(axis=1).max() <= 1


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_the_generator_decides_everything_and_a_mixed_label_is_observed_where_both_are(mix):
    config = AugmentConfig(mix=mix, beta=5.0, share=0.3, time_masks=1, time_mask_s=0.4)
    x, y, n_mixed = X[:2].copy(), np.array([[1, 0, np.nan], [np.nan, 0, 1]], dtype=np.float32), 0
    for seed in range(300):
        first, again = (augmented(config, x, y, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(first[0], again[0])
        mixed = not np.array_equal(first[1], y, equal_nan=True)
        np.testing.assert_array_equal(first[1], [[np.nan, 0, np.nan]] * 2 if mixed else y)
        n_mixed += mixed
    np.testing.assert_array_equal(x, X[:2])
    assert 0.1 < n_mixed / 300 < 0.2  # half of the permutations of two leave both where they are


def test_a_mixture_is_the_spectrogram_of_waveforms_mixed_at_the_same_levels_and_times():
    """The loudest point defines 0 dB, and there phases matter; so a common offset of all points does not count."""
    config, edges_hz = FeatureConfig(), mel_edges_hz(FeatureConfig())
    time_s = np.arange(config.segment_samples) / config.sample_rate_hz
    tone = sum(np.sin(2 * np.pi * 220 * number * time_s + np.sin(30 * time_s)) / number for number in range(1, 9))
    noise = np.random.default_rng(3).normal(size=len(time_s)) * (0.3 + time_s / 3)
    signals = [one / np.sqrt(np.mean(one**2)) for one in (tone, noise, np.sin(2 * np.pi * 2500 * time_s))]
    x = np.stack([extract(signal, config) for signal in signals])
    settings = {"number": (3, 3), "range_db": 12.0, "floor": silence(config), "widths_hz": edges_hz[2:] - edges_hz[:-2]}
    distances_db = []
    for seed in range(4):
        mixed, rng = mixtures(x, np.eye(3), **settings, rng=np.random.default_rng(seed))[0], np.random.default_rng(seed)
        rng.integers(3, 3, size=3, endpoint=True), rng.random((3, 3))  # the same random numbers in the same order
        level = 10 ** (np.where(np.eye(3), 0, rng.uniform(-12, 12, size=(3, 3))) / 20)
        latest = np.full((3, 3), round(LATEST_SHARE * config.shape[1]))
        begin = np.where(np.eye(3), 0, rng.integers(latest, endpoint=True)) * config.hop_length
        for first in range(3):
            late = [np.pad(one, (n, 0))[: len(one)] for one, n in zip(signals, begin[first], strict=True)]
            real = extract(level[first] @ late, config)
            off_db = (mixed[first] - real)[real > -30]
            distances_db.append(np.abs(off_db - np.median(off_db)).mean())
    assert np.mean(distances_db) < 1.2  # 1.55 without widths: the level of high sounds is then underestimated


def mixed_of(x, y, number, *, seed: int = 0, range_db: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    settings = {"floor": FLOOR, "widths_hz": np.ones(N_BINS), "rng": np.random.default_rng(seed)}
    return mixtures(x, y, number=number, range_db=range_db, **settings)


@pytest.mark.parametrize("number", [(1, 1), (2, 4), (9, 9)])
def test_mixtures_have_as_many_classes_as_asked_for_and_all_labels(number):
    x = np.random.default_rng(0).uniform(-70, 0, size=(N, N_BINS, N_FRAMES)).astype(np.float32)
    x -= x.max(axis=(1, 2), keepdims=True)
    mixed, labels = mixed_of(x, Y, number, seed=1)
    counts = labels.sum(axis=1)
    assert (counts.min(), counts.max()) == tuple(np.minimum(number, N_CLASSES))
    assert set(np.unique(labels)) <= {0, 1} and (labels[Y == 1] == 1).all()
    np.testing.assert_allclose(mixed.max(axis=(1, 2)), 0, atol=1e-5)
    # A class is present if any example has it, absent if all lack it, and otherwise not observed.
    y = np.array([[1, 0, np.nan, 0, np.nan], [0, 1, np.nan, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(mixed_of(x[:2], y, (2, 2))[1][0], [1, 1, np.nan, 0, np.nan])


def test_a_short_sound_keeps_half_of_its_energy_however_late_it_begins():
    x = np.full((2, N_BINS, 30), -80.0, np.float32)
    x[0, 3, :] = x[1, 12, 22:28] = 0.0  # half of it would be lost if it began more than five frames later
    mixed = [mixed_of(x, np.eye(2), (2, 2), seed=seed, range_db=0.0)[0][0, 12] > -40 for seed in range(60)]
    assert np.sum(mixed, axis=1).min() >= 3 and {one.argmax() for one in mixed} == set(range(22, 28))


CONFIG = FeatureConfig(hop_length=1024)


def recorded(x: np.ndarray, share: float = 1.0) -> np.ndarray:
    settings = {"centres_hz": mel_edges_hz(CONFIG)[1:-1], "hop_s": CONFIG.hop_s, "floor": silence(CONFIG)}
    return augment_recording(x, share=share, **settings, rng=np.random.default_rng(0))


def silent(n: int, bins: object = slice(None), frames: object = ()) -> np.ndarray:
    """Return silence, except 0 dB in some bins and frames."""
    x = np.full((n, *CONFIG.shape), -80, np.float32)
    x[:, bins, frames] = 0
    return x


def test_a_share_of_the_sounds_changes_half_are_cut_around_the_loudest_moment_and_reverberation_decays_evenly():
    clicks = silent(600, frames=10)
    assert 0.65 < (recorded(clicks, 0.25) == clicks).all(axis=(1, 2)).mean() < 0.85
    np.testing.assert_array_equal(clicks, silent(600, frames=10))
    np.testing.assert_array_equal(recorded(silent(20)), silent(20))
    tail = recorded(clicks)[:, 12, 11:20]  # where no noise covers a tail, its slope gives its RT60
    slope_db = np.diff(tail, axis=1)
    straight = (np.ptp(slope_db, axis=1) < 0.3) & (slope_db.mean(axis=1) < -0.5) & (tail.min(axis=1) > -75)
    fall_s = -60 * CONFIG.hop_s / slope_db[straight].mean(axis=1)
    assert straight.mean() > 0.05
    assert 0.9 * REVERBERATION_S[0] < fall_s.min() < fall_s.max() < 1.1 * REVERBERATION_S[1]
    x = silent(600, 20, slice(None))
    x[:, 20, 50] = 3
    sounding = recorded(x)[:, 20] > -12
    n_frames = sounding.sum(axis=1)
    whole = n_frames > CONFIG.shape[1] - 2
    assert sounding[:, 50].all() and n_frames.min() >= round(SHORTEST_S / CONFIG.hop_s)
    assert 0.4 < whole.mean() < 0.65 and 0.3 < sounding[~whole].mean() < 0.8


def test_the_equaliser_has_one_gain_per_band_and_noise_fluctuates_like_real_noise():
    changed = recorded(silent(300, frames=[5, 60]))
    both = (changed[:, :, 60] > -40).all(axis=1) & (changed[:, :, 58] < -79).all(axis=1)  # uncut, dry, without noise
    bells = (mel_edges_hz(CONFIG)[1:-1] > 350) & (mel_edges_hz(CONFIG)[1:-1] < 2000)  # neither low-pass nor high-pass
    assert both.sum() > 5 and np.ptp(changed[both][:, bells, 5], axis=1).mean() > 2
    np.testing.assert_allclose(changed[both][:, :, 5], changed[both][:, :, 60], atol=0.01)
    beside = recorded(silent(400, 30, slice(None)))[:, 45]
    noisy = (beside > -79).all(axis=1)
    assert 0.4 < noisy.mean() < 0.8
    real = extract(np.random.default_rng(0).standard_normal(CONFIG.segment_samples), CONFIG)[45]
    assert abs(beside[noisy].std(axis=1).mean() - real.std()) < 1
