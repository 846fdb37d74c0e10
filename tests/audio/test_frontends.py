"""The patches that VGGish and YAMNet see, against their published parameters and an independent computation."""

import numpy as np
import pytest

from instrlib.audio.frontends import VGGISH, YAMNET, fill_up, log_mel, mel_matrix, patches

NOISE = np.random.default_rng(0).uniform(-1, 1, 3 * 16_000)


def test_the_mel_matrix_is_tensorflows():
    import tensorflow as tf

    expected = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7500.0).numpy()
    np.testing.assert_allclose(mel_matrix(), expected, atol=2e-5)


@pytest.mark.parametrize("front_end", [VGGISH, YAMNET])
def test_the_spectrogram_is_that_of_tensorflows_transform(front_end):
    import tensorflow as tf

    magnitude = np.abs(tf.signal.stft(NOISE.astype(np.float32), 400, 160, 512).numpy())
    mel = magnitude @ tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7500.0).numpy()
    np.testing.assert_allclose(log_mel(NOISE, front_end), np.log(mel + front_end.log_offset), atol=1e-4)


def test_silence_is_the_logarithm_of_the_offset():
    assert np.allclose(patches(np.zeros(16_000), VGGISH), np.log(0.01))
    assert np.allclose(patches(np.zeros(16_000), YAMNET), np.log(0.001))


@pytest.mark.parametrize(
    ("n_samples", "n_vggish", "n_yamnet"),
    # Of YAMNet a further patch begins every 7,680 samples after the first 15,600; VGGish leaves the rest out.
    [(1, 1, 1), (15_600, 1, 1), (15_601, 1, 2), (23_280, 1, 2), (23_281, 1, 3), (30_960, 2, 3), (160_000, 10, 20)],
)
def test_the_number_of_patches_is_that_of_the_published_code(n_samples, n_vggish, n_yamnet):
    assert len(patches(np.zeros(n_samples), VGGISH)) == n_vggish
    assert len(patches(np.zeros(n_samples), YAMNET)) == n_yamnet


def test_patches_are_cut_from_the_spectrogram_one_hop_apart():
    whole, cut = log_mel(fill_up(NOISE, YAMNET), YAMNET), patches(NOISE, YAMNET)
    np.testing.assert_array_equal(cut[0], whole[:96])
    np.testing.assert_array_equal(cut[3], whole[144:240])


def test_a_short_sound_is_followed_by_silence():
    cut = patches(NOISE[:4000], YAMNET)
    assert cut.shape == (1, 96, 64)
    assert (cut[0, :20] > np.log(0.001) + 0.1).all()
    assert np.allclose(cut[0, 30:], np.log(0.001))
