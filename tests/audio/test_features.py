"""Features of one segment: librosa's values, silence at the floor, segments where they belong."""

import itertools

import librosa
import numpy as np
import pytest
from scipy.fft import dct

from instrlib.audio import decode, features
from instrlib.core.config import FeatureConfig

CONFIG = FeatureConfig()
CONFIGS = [
    CONFIG,
    FeatureConfig(n_fft=512, hop_length=160, sample_rate_hz=16_000, fmax_hz=7_600.0, segment_s=1.0),
    FeatureConfig(n_fft=1000, hop_length=333, n_mels=41, fmin_hz=0.0, segment_s=0.7, top_db=60.0),
]


def note(config: FeatureConfig) -> np.ndarray:
    """One segment: a tone with decaying partials, in noise."""
    time_s = np.arange(config.segment_samples) / config.sample_rate_hz
    partials = [np.sin(2 * np.pi * 220 * k * time_s + k) * np.exp(-k * time_s) / k for k in range(1, 12)]
    return (0.3 * (sum(partials) + 1e-3 * np.random.default_rng(0).normal(size=len(time_s)))).astype(np.float32)


def by_librosa(signal: np.ndarray, config: FeatureConfig) -> dict[str, np.ndarray]:
    """Log-mel spectrogram, its MFCC, and PCEN of the magnitudes of 32-bit samples."""
    given = {"sr": config.sample_rate_hz, "hop_length": config.hop_length}
    mel = given | {"n_fft": config.n_fft, "n_mels": config.n_mels, "fmin": config.fmin_hz, "fmax": config.fmax_hz}
    mel["y"] = librosa.util.fix_length(signal, size=config.segment_samples)
    magnitude, power = (librosa.feature.melspectrogram(power=exponent, **mel) for exponent in (1, 2))
    log_mel = librosa.power_to_db(power, ref=np.max, amin=1e-20, top_db=config.top_db)
    mfcc = librosa.feature.mfcc(S=log_mel, n_mfcc=config.n_mfcc)
    return {"log_mel": log_mel, "mfcc": mfcc, "pcen": librosa.pcen(2**31 * magnitude, **given)}


@pytest.mark.parametrize("config", CONFIGS)
def test_features_are_those_of_librosa(config):
    signal, tolerances = note(config), {"log_mel": (0, 1e-4), "mfcc": (1e-6, 3e-4), "pcen": (1e-4, 0)}
    for kind, expected in by_librosa(signal, config).items():
        one = FeatureConfig.from_dict(config.to_dict() | {"kind": kind})
        found, (rtol, atol) = features.extract(signal, one), tolerances[kind]
        assert found.dtype == np.float32 and found.shape == one.shape
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)
        if kind != "pcen":  # the level of a recording changes nothing
            np.testing.assert_allclose(features.extract(0.01 * signal, one), expected, atol=5e-4)


@pytest.mark.real_data
def test_real_clips_have_the_values_of_librosa(test_data):
    for path in sorted((test_data / "fsdkaggle2018_sample").rglob("*.flac"))[::4]:
        signal = decode.load(path, sample_rate_hz=CONFIG.sample_rate_hz)
        np.testing.assert_allclose(signal, librosa.load(path, sr=CONFIG.sample_rate_hz)[0], rtol=0, atol=1e-6)
        segment = signal[np.abs(signal).argmax() :][: CONFIG.segment_samples]
        expected = by_librosa(segment, CONFIG)["log_mel"]
        np.testing.assert_allclose(features.extract(segment, CONFIG), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["log_mel", "mfcc", "pcen"])
def test_silence_is_the_floor_and_never_zero_db_and_segments_are_padded_with_it(kind):
    config = FeatureConfig(kind=kind)
    expected = {"log_mel": -80.0, "pcen": 0.0}.get(kind, np.eye(20, 1) * -80 * np.sqrt(64))
    for n_samples in (0, 1000, CONFIG.segment_samples):
        found = features.extract(np.zeros(n_samples, np.float32), config)
        np.testing.assert_allclose(found - expected, np.zeros(config.shape), atol=1e-4)
    dither = np.random.default_rng(0).uniform(-1, 1, CONFIG.segment_samples) / 2**15
    assert features.extract(dither, CONFIG).max() < -10  # of 16 bits
    for n_samples in (1_200, 60_000):
        values = features.extract(note(CONFIG)[:n_samples], CONFIG)
        past = (n_samples + CONFIG.n_fft // 2) // CONFIG.hop_length + 1
        assert (values[:, past:] == -80).all() and values[:, : past - 2].max() == 0
        np.testing.assert_array_equal(features.sounding(values, CONFIG), np.arange(CONFIG.shape[1]) < past)
    assert features.sounding(np.full(CONFIG.shape, -80.0), CONFIG).all()


@pytest.mark.parametrize(
    ("duration_s", "settings", "expected"),
    [
        (3.74, {}, [0]),
        (3.75, {}, [0, 3]),  # a quarter of a segment is left
        (4.0, {"segment_hop_s": 1.0}, [0, 1, 2, 3]),
        (30.0, {"max_segments": 4}, [0, 9, 18, 27]),
        (30.0, {"max_segments": 1}, [0]),
        (3.2, {"segment_hop_s": 0.5, "max_segments": 3}, [0, 1, 2]),  # one full segment only: short ones count too
    ],
)
def test_segments_start_every_hop_or_spread_evenly_over_the_clip(duration_s, settings, expected):
    np.testing.assert_allclose(features.segment_starts(duration_s, FeatureConfig(**settings)), expected)


def test_scaled_features_run_from_0_to_1_or_have_mean_0_and_deviation_1():
    configs = [FeatureConfig(kind=kind, scaling="fixed") for kind in ("log_mel", "mfcc")]
    scaled, found = (features.scale(features.extract(note(one), one), one) for one in configs)
    assert scaled.dtype == np.float32 and (scaled.min(), scaled.max()) == (0, 1)
    np.testing.assert_allclose(found, dct(scaled, axis=0, norm="ortho")[:20], atol=1e-5)
    for kind, (scaling, axis) in itertools.product(("log_mel", "pcen"), (("segment", (0, 1)), ("train", 1))):
        config = FeatureConfig(kind=kind, scaling=scaling)
        values = features.extract(note(config), config)
        scaler = features.Scaler.from_dict(features.Scaler(values.mean(axis=1), values.std(axis=1)).to_dict())
        scaled = features.scale(np.stack([values, np.full_like(values, -80)]), config, scaler)
        np.testing.assert_allclose(scaled[0].mean(axis=axis), 0, atol=1e-3)
        np.testing.assert_allclose(scaled[0].std(axis=axis), 1, atol=1e-3)
        assert scaling == "train" or not scaled[1].any()  # silence has no deviation
