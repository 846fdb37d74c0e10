"""Features of one segment: librosa's values, silence at the floor, segments where they belong."""

import shutil

import librosa
import numpy as np
import pytest

from instrlib.audio import decode as audio
from instrlib.audio import features
from instrlib.core import cache
from instrlib.core.config import FeatureConfig
from instrlib.core.io import ConfigError
from instrlib.data import store

CONFIG = FeatureConfig()
TOLERANCE_DB = 1e-4
CONFIGS = [
    CONFIG,
    FeatureConfig(n_mels=128, fmin_hz=0.0),
    FeatureConfig(n_fft=512, hop_length=160, sample_rate_hz=16_000, fmax_hz=7_600.0, segment_s=1.0),
    FeatureConfig(n_fft=1000, hop_length=333, n_mels=41, segment_s=0.7, top_db=60.0),
    FeatureConfig(n_fft=4096, hop_length=4096, n_mels=20, segment_s=0.1),
]


def note(config: FeatureConfig, *, seed: int = 0, level: float = 0.3) -> np.ndarray:
    """One segment: a tone with decaying partials, in noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(config.segment_samples) / config.sample_rate_hz
    partials = [np.sin(2 * np.pi * 220 * k * time_s + k) * np.exp(-k * time_s) / k for k in range(1, 12)]
    return (level * (sum(partials) + 1e-3 * rng.normal(size=len(time_s)))).astype(np.float32)


def mel_power(signal: np.ndarray, config: FeatureConfig, power: float = 2) -> np.ndarray:
    """librosa's mel spectrogram of a segment."""
    return librosa.feature.melspectrogram(
        y=librosa.util.fix_length(signal, size=config.segment_samples),
        sr=config.sample_rate_hz,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.fmin_hz,
        fmax=config.fmax_hz,
        power=power,
    )


def reference(signal: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """librosa's log-mel spectrogram of a segment."""
    return librosa.power_to_db(mel_power(signal, config), ref=np.max, top_db=config.top_db)


@pytest.mark.parametrize("config", CONFIGS)
def test_log_mel_is_librosas_to_a_ten_thousandth_of_a_decibel(config):
    values = features.extract(note(config), config)
    assert values.dtype == np.float32
    assert values.shape == config.shape
    np.testing.assert_allclose(values, reference(note(config), config), rtol=0, atol=TOLERANCE_DB)


@pytest.mark.parametrize("config", CONFIGS)
def test_mfcc_are_librosas_of_the_same_picture(config):
    mfcc = FeatureConfig.from_dict(config.to_dict() | {"kind": "mfcc"})
    expected = librosa.feature.mfcc(S=reference(note(config), config), n_mfcc=mfcc.n_mfcc)
    np.testing.assert_allclose(features.extract(note(config), mfcc), expected, rtol=1e-6, atol=3 * TOLERANCE_DB)


@pytest.mark.parametrize("config", CONFIGS)
def test_pcen_is_librosas_of_the_magnitudes_of_32_bit_samples(config):
    magnitude = mel_power(note(config), config, power=1)
    expected = librosa.pcen(magnitude * 2**31, sr=config.sample_rate_hz, hop_length=config.hop_length)
    found = features.extract(note(config), FeatureConfig.from_dict(config.to_dict() | {"kind": "pcen"}))
    assert found.dtype == np.float32
    assert found.shape == (config.n_mels, config.n_frames)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found.astype(np.float16), expected, rtol=1e-3)  # as it is stored


@pytest.mark.real_data
def test_real_clips_have_librosas_values(sample_root):
    paths = sorted(sample_root.rglob("*.flac"))[::4]
    n_loud = n_quiet = 0
    for path in paths:
        signal = audio.load(path, sample_rate_hz=CONFIG.sample_rate_hz)
        for start_s in features.segment_starts(len(signal) / CONFIG.sample_rate_hz, CONFIG):
            first = round(start_s * CONFIG.sample_rate_hz)
            segment = signal[first : first + CONFIG.segment_samples]
            power = mel_power(segment, CONFIG)
            if power.max() >= 1e-10 * 10 ** (CONFIG.top_db / 10):
                expected = librosa.power_to_db(power, ref=np.max, top_db=CONFIG.top_db)
                n_loud += 1
            else:  # Fade-outs, in which librosa's least power (1e-10) would lift silence above the floor.
                loudest = max(power.max(), features.REFERENCE_FLOOR)
                expected = np.maximum(librosa.power_to_db(power, ref=loudest, amin=1e-30, top_db=None), -CONFIG.top_db)
                n_quiet += 1
            np.testing.assert_allclose(features.extract(segment, CONFIG), expected, rtol=0, atol=TOLERANCE_DB)
    assert n_loud > 20 * n_quiet


@pytest.mark.parametrize("frequency_hz", [100.0, 440.0, 1_000.0, 4_000.0, 9_000.0])
def test_a_sine_stands_out_in_the_mel_band_that_it_lies_in(frequency_hz):
    time_s = np.arange(CONFIG.segment_samples) / CONFIG.sample_rate_hz
    values = features.extract(np.sin(2 * np.pi * frequency_hz * time_s), CONFIG)
    band = int(values.mean(axis=1).argmax())
    edges_hz = features.mel_edges_hz(CONFIG)
    assert edges_hz[band] < frequency_hz < edges_hz[band + 2]
    assert values[band].max() == 0
    far = [other for other in range(CONFIG.n_mels) if abs(other - band) > 8]
    assert values[far][:, 4:-4].max() < -40


def test_sixteen_bit_dither_is_not_blown_up_to_full_scale():
    dither = np.random.default_rng(0).uniform(-1, 1, CONFIG.segment_samples) / 2**15
    assert features.extract(dither, CONFIG).max() < -10


@pytest.mark.parametrize("n_samples", [1_200, 22_050, 60_000])
def test_a_short_segment_is_padded_with_silence_at_the_floor(n_samples):
    signal = note(CONFIG)[:n_samples]
    values = features.extract(signal, CONFIG)
    past = (n_samples + CONFIG.n_fft // 2) // CONFIG.hop_length + 1
    assert past < CONFIG.n_frames
    np.testing.assert_array_equal(values[:, past:], -80.0)
    assert values[:, : past - 2].max() == 0
    padded = np.pad(signal, (0, CONFIG.segment_samples - n_samples))
    np.testing.assert_allclose(values, features.extract(padded, CONFIG), atol=1e-5)


@pytest.mark.parametrize("gain_db", [-50.0, -20.0, 6.0])
def test_the_level_of_a_recording_does_not_change_its_picture(gain_db):
    signal = note(CONFIG).astype(np.float64)
    louder = features.extract(signal * 10 ** (gain_db / 20), CONFIG)
    np.testing.assert_allclose(louder, features.extract(signal, CONFIG), atol=TOLERANCE_DB)


def test_a_signal_longer_than_a_segment_is_refused():
    with pytest.raises(ValueError, match="at most 66150 samples"):
        features.extract(np.zeros(66_151), CONFIG)


@pytest.mark.parametrize(
    ("duration_s", "settings", "expected"),
    [
        (0.05, {}, [0]),
        (3.0, {}, [0]),
        (3.74, {}, [0]),
        (3.75, {}, [0, 3]),  # A quarter of a segment is left.
        (18.0, {}, [0, 3, 6, 9, 12, 15]),
        (4.0, {"segment_hop_s": 1.0}, [0, 1, 2, 3]),
        (30.0, {"max_segments": 4}, [0, 9, 18, 27]),
        (7_200.0, {"max_segments": 3}, [0, 3600, 7197]),
        (30.0, {"max_segments": 1}, [0]),
        (3.2, {"segment_hop_s": 0.5, "max_segments": 3}, [0, 1, 2]),  # One full segment only: short ones count too.
    ],
)
def test_segments_start_every_hop_or_spread_evenly_over_the_clip(duration_s, settings, expected):
    np.testing.assert_allclose(features.segment_starts(duration_s, FeatureConfig(**settings)), expected)


def test_fixed_scaling_runs_from_silence_0_to_the_loudest_1():
    config = FeatureConfig(scaling="fixed")
    values = features.scale(features.extract(note(config), config), config)
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0, 1)
    assert not features.scale(features.extract(np.zeros(10), config), config).any()


def test_fixed_scaling_of_mfcc_is_the_transform_of_the_scaled_picture():
    from scipy.fft import dct

    fixed = FeatureConfig(scaling="fixed")
    mfcc = FeatureConfig(kind="mfcc", scaling="fixed")
    picture = features.scale(features.extract(note(fixed), fixed), fixed)
    found = features.scale(features.extract(note(mfcc), mfcc), mfcc)
    np.testing.assert_allclose(found, dct(picture, axis=0, norm="ortho")[:20], atol=1e-5)


@pytest.mark.parametrize("scaling", ["fixed", "segment", "train"])
def test_pcen_can_be_scaled_in_every_way_and_fixed_leaves_it_as_it_is(scaling):
    config = FeatureConfig(kind="pcen", scaling=scaling)
    values = features.extract(note(config), config)
    scaler = features.Scaler(values.mean(axis=1), values.std(axis=1))
    scaled = features.scale(values, config, scaler)
    if scaling == "fixed":
        np.testing.assert_array_equal(scaled, values)
    else:
        assert scaled.mean() == pytest.approx(0, abs=1e-4)
        assert scaled.std() == pytest.approx(1, abs=1e-3)


def test_train_scaling_uses_the_scaler_and_needs_one():
    scaler = features.Scaler(np.array([-40.0, -20.0], np.float32), np.array([10.0, 5.0], np.float32))
    values = np.array([[[-30.0], [-30.0]]])
    np.testing.assert_allclose(features.scale(values, CONFIG, scaler), [[[1.0], [-2.0]]])
    with pytest.raises(ConfigError, match="scaler"):
        features.scale(values, CONFIG)


@pytest.mark.parametrize("kind", ["log_mel", "mfcc", "pcen"])
@pytest.mark.parametrize("n_samples", [0, 1, 1000, CONFIG.segment_samples])
def test_silence_is_the_floor_and_never_zero_db(kind, n_samples):
    config = FeatureConfig(kind=kind)
    values = features.extract(np.zeros(n_samples, np.float32), config)
    expected = {"log_mel": -80.0, "pcen": 0.0}.get(kind, np.eye(20, 1) * -80 * np.sqrt(64))
    np.testing.assert_allclose(values, np.broadcast_to(expected, config.shape), atol=1e-4)


def test_segment_scaling_brings_each_segment_to_mean_0_and_deviation_1():
    config = FeatureConfig(scaling="segment")
    values = np.stack([features.extract(note(config), config), np.full(config.shape, -80)])
    before = values.copy()
    scaled = features.scale(values, config)
    np.testing.assert_allclose(scaled.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=(1, 2)), [1, 0], atol=1e-4)  # silence has no deviation
    np.testing.assert_array_equal(values, before)


def test_equal_numbers_of_seconds_are_one_setting():
    assert FeatureConfig(segment_s=3).fingerprint == FeatureConfig(segment_s=3.0).fingerprint


def test_features_and_effects_that_are_computed_otherwise_are_stored_anew(tmp_path, monkeypatch):
    """The key of a feature store follows the code; a message does not count."""
    package = tmp_path / "instrlib"
    shutil.copytree(cache.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "PACKAGE", package)

    def key_after(file: str, old: str, new: str) -> str:
        path = package / "audio" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        cache._package_hash.cache_clear()
        found = store._key(CONFIG.fingerprint)
        path.write_text(text)
        return found

    first = key_after("features.py", "import", "import")
    assert key_after("features.py", "return 10 * np.log10", "return 5 * np.log10") != first
    assert key_after("effects.py", "MICROPHONE_DISTANCE_M = 2.0", "MICROPHONE_DISTANCE_M = 3.0") != first
    assert key_after("features.py", "A segment has at most", "A segment holds at most") == first
    cache._package_hash.cache_clear()
