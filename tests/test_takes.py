"""Other recordings of the same sound: what is changed, what never is, and how strongly."""

import numpy as np
import pytest

from instrlib.audio.features import mel_edges_hz, spectrum
from instrlib.audio.takes import REVERBERATION_S, SHORTEST_S, retake
from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig
from instrlib.core.errors import ConfigError

CONFIG = FeatureConfig(hop_length=1024)
CENTRES_HZ = mel_edges_hz(CONFIG)[1:-1]
FLOOR = np.full(CONFIG.n_bins, -CONFIG.top_db, np.float32)


def take(x, *, share=1.0, seed=0):
    settings = {"centres_hz": CENTRES_HZ, "hop_s": CONFIG.hop_s, "floor": FLOOR}
    return retake(x, share=share, **settings, rng=np.random.default_rng(seed))


def silent(n):
    return np.full((n, *CONFIG.shape), -CONFIG.top_db, np.float32)


@pytest.fixture(scope="module")
def clicks():
    """A click in the tenth frame, in all bands alike."""
    x = silent(600)
    x[:, :, 10] = 0
    return x


def test_levels_stay_below_the_loudest_and_above_the_floor(clicks):
    taken = take(clicks)
    assert taken.dtype == np.float32
    assert taken.shape == clicks.shape
    np.testing.assert_allclose(taken.max(axis=(1, 2)), 0, atol=1e-4)
    assert taken.min() >= -CONFIG.top_db


def test_the_share_is_changed_and_the_rest_and_what_was_given_are_not(clicks):
    before = clicks.copy()
    same = (take(clicks, share=0.25) == clicks).all(axis=(1, 2))
    assert 0.65 < same.mean() < 0.85
    assert np.array_equal(clicks, before)
    assert np.array_equal(take(clicks, share=0.0), clicks)


def test_silence_stays_silence():
    assert (take(silent(20)) == -CONFIG.top_db).all()


def test_one_generator_gives_one_result_and_another_one_another(clicks):
    assert np.array_equal(take(clicks[:9]), take(clicks[:9]))
    assert not np.array_equal(take(clicks[:9]), take(clicks[:9], seed=1))


def test_the_loudest_moment_is_never_cut(clicks):
    assert (take(clicks).max(axis=1).argmax(axis=1) == 10).all()


def test_half_of_a_steady_sound_is_cut_to_a_stretch_that_is_not_too_short():
    x = silent(600)
    x[:, 20] = 0
    sounding = (take(x)[:, 20] > -9).sum(axis=1)
    whole = sounding > CONFIG.n_frames - 2
    assert 0.4 < whole.mean() < 0.65
    assert sounding.min() >= round(SHORTEST_S / CONFIG.hop_s)
    assert 0.3 < sounding[~whole].mean() / CONFIG.n_frames < 0.8


def test_echoes_die_away_evenly_in_times_of_rooms(clicks):
    """The slope of each tail, measured where no noise covers it, is that of a time to fall by 60 dB."""
    tail = take(clicks)[:, 12, 11:20]
    slope_db = np.diff(tail, axis=1)
    straight = (np.ptp(slope_db, axis=1) < 0.3) & (slope_db.mean(axis=1) < -0.5) & (tail.min(axis=1) > -75)
    fall_s = -60 * CONFIG.hop_s / slope_db[straight].mean(axis=1)
    assert straight.mean() > 0.05
    assert fall_s.min() > 0.9 * REVERBERATION_S[0]
    assert fall_s.max() < 1.1 * REVERBERATION_S[1]


def test_colour_is_one_gain_a_band_as_a_filter_would_make_it():
    """Two equal clicks a second apart come out alike; a real filter does the same to the real sound."""
    x = silent(300)
    x[:, :, [5, 60]] = 0
    taken = take(x)
    both = (taken[:, :, 60] > -40).all(axis=1) & (taken[:, :, 58] < -79).all(axis=1)  # uncut, dry, without noise
    assert both.sum() > 5
    np.testing.assert_allclose(taken[both][:, :, 5], taken[both][:, :, 60], atol=0.01)
    assert np.ptp(taken[both][:, :, 5], axis=1).mean() > 5


def test_noise_is_there_in_most_and_as_rough_as_real_noise():
    x = silent(400)
    x[:, 30] = 0
    beside = take(x)[:, 45]
    noisy = (beside > -79).all(axis=1)
    assert 0.4 < noisy.mean() < 0.8
    real = spectrum(np.random.default_rng(0).standard_normal(CONFIG.segment_samples), CONFIG)[45]
    assert abs(beside[noisy].std(axis=1).mean() - real.std()) < 1


def test_only_spectrograms_of_powers_can_be_retaken(tmp_path):
    from instrlib.models.training import _check_recipe

    class Store:
        multilabel = False
        config = FeatureConfig(kind="mfcc")

    with pytest.raises(ConfigError, match="retake=0"):
        _check_recipe(Store(), TrainConfig(augment=AugmentConfig(retake=0.5)))
    with pytest.raises(ConfigError, match="retake must lie between 0 and 1"):
        AugmentConfig(retake=1.5)
