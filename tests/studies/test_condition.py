"""Each measure on signals with values in closed form, and the condition model."""

import json
import math

import numpy as np
import pytest
from recordings import plain_model

from instrlib.core.io import RunError
from instrlib.studies import condition
from instrlib.studies.condition import CONDITIONS, LOGGED, measure

MEASURES = tuple(condition.MEASURES)
RATE_HZ = 22_050


def seconds(duration_s: float = 2.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.arange(round(duration_s * rate_hz)) / rate_hz


def tone(frequency_hz: float = 440.0, duration_s: float = 2.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * seconds(duration_s, rate_hz))


def harmonic(frequency_hz: float, n: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.sum([tone(frequency_hz * number, rate_hz=rate_hz) / number for number in range(1, n + 1)], axis=0)


def white(duration_s: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(duration_s * RATE_HZ))


def with_noise(signal: np.ndarray, snr_db: float) -> np.ndarray:
    noise = white(len(signal) / RATE_HZ)
    return signal + noise * np.sqrt(np.square(signal).mean() / np.square(noise).mean() / 10 ** (snr_db / 10))


def at_level(level_db: np.ndarray, signal: np.ndarray | None = None) -> np.ndarray:
    return 10 ** (level_db / 20) * (tone(duration_s=len(level_db) / RATE_HZ) if signal is None else signal)


def string(fundamental_hz: float, coefficient: float, n: int = 16) -> np.ndarray:
    """A struck stiff string: n partials; higher ones decay faster."""
    partials_hz = [fundamental_hz * number * math.sqrt(1 + coefficient * number**2) for number in range(1, n + 1)]
    waves = [
        at_level(-3 * number * seconds(), np.sin(2 * np.pi * partial_hz * seconds() + number) / number)
        for number, partial_hz in enumerate(partials_hz, start=1)
        if partial_hz < 0.45 * RATE_HZ
    ]
    return np.sum(waves, axis=0)


# -- measures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [0, 10, 25, 40])
@pytest.mark.parametrize("signal", [tone(110.0), tone(987.3), tone(1900.0), harmonic(220.0, 20)])
def test_the_harmonic_to_noise_ratio_of_a_periodic_sound_in_white_noise_is_the_snr(signal, snr_db):
    assert measure(with_noise(signal, snr_db), RATE_HZ)["harmonic_to_noise_db"] == pytest.approx(snr_db, abs=0.6)


@pytest.mark.parametrize("frequency_hz", [45.0, 110.0, 261.63, 1000.0])
def test_the_fundamental_of_a_harmonic_sound_is_found(frequency_hz):
    found = measure(with_noise(harmonic(frequency_hz, 4), 30), RATE_HZ)
    assert found["fundamental_hz"] == pytest.approx(frequency_hz, rel=0.002)


def test_noise_has_no_fundamental_and_flatness_1_at_every_level():
    found = [measure(level * white(seed=seed), RATE_HZ) for level in (1.0, 1e-3) for seed in range(4)]
    assert np.mean([one["spectral_flatness"] for one in found]) == pytest.approx(1, abs=0.02)
    for one in found:
        assert {name for name, value in one.items() if math.isnan(value)} == {"fundamental_hz", "inharmonicity"}
        assert one["harmonic_to_noise_db"] < -9


def test_flatness_increases_with_noise_and_treble_flatness_ignores_what_lies_below():
    found = [measure(with_noise(harmonic(220, 20), snr_db), RATE_HZ)["spectral_flatness"] for snr_db in (40, 20, 0)]
    assert found == sorted(found) and found[2] > 5 * found[0]
    hissing = [measure(tone() + 0.01 * white(seed=seed), RATE_HZ) for seed in range(3)]
    assert np.mean([one["treble_flatness"] for one in hissing]) == pytest.approx(1, abs=0.03)
    assert max(one["spectral_flatness"] for one in hissing) < 0.1
    assert measure(tone() + 0.1 * tone(5000.0), RATE_HZ)["treble_flatness"] < 1e-3


@pytest.mark.parametrize("rate_db_s", [5.0, 20.0, 60.0, 150.0])
def test_an_exponential_decay_has_its_rate_and_no_variance(rate_db_s):
    found = measure(at_level(-rate_db_s * seconds()), RATE_HZ)
    assert found["decay_rate_db_s"] == pytest.approx(rate_db_s, rel=0.001) and found["decay_variance"] < 0.01


def test_two_rates_of_decay_have_the_variance_of_two_points_and_a_crescendo_has_no_decay():
    level_db = np.concatenate([-10 * seconds(1.0), -10 - 30 * seconds(1.0)])
    # Half of the slopes are 10, half 30 dB/s: variance 100, less that of lines across both.
    assert condition.decay(at_level(level_db), RATE_HZ)[1] == pytest.approx(95, rel=0.1)
    assert np.isnan(condition.decay(at_level(10 * seconds()), RATE_HZ)[:2]).all()


@pytest.mark.parametrize("fundamental_hz", [55.0, 110.0, 440.0])
@pytest.mark.parametrize("coefficient", [0.0, 1e-4, 2e-3, 8e-3])
def test_the_inharmonicity_of_a_stiff_string_is_its_coefficient(fundamental_hz, coefficient):
    found = measure(string(fundamental_hz, coefficient), RATE_HZ)
    assert found["inharmonicity"] == pytest.approx(coefficient, rel=0.01, abs=1e-6)


def test_inharmonicity_in_noise_with_an_inexact_fundamental_and_of_sounds_without_a_series():
    assert condition.inharmonicity(with_noise(string(110, 5e-4), 30), RATE_HZ, 111.0) == pytest.approx(5e-4, rel=0.05)
    bell = np.sum([tone(ratio * 200.0) for ratio in (1.0, 1.58, 2.24, 2.92, 3.46, 4.37, 5.29, 6.61)], axis=0)
    assert math.isnan(condition.inharmonicity(bell, RATE_HZ, 200.0))
    assert math.isnan(measure(tone(), RATE_HZ)["inharmonicity"])


@pytest.mark.parametrize("swing_db", [1.0, 6.0])
@pytest.mark.parametrize("rate_hz", [5.0, 11.0])
def test_a_tremolo_has_its_depth_and_one_rate(swing_db, rate_hz):
    level_db = swing_db * np.sin(2 * np.pi * rate_hz * seconds(3.0))
    depth_db, peak = condition.modulation(at_level(level_db), RATE_HZ)
    assert depth_db == pytest.approx(swing_db / math.sqrt(2), rel=0.2) and peak > 0.95
    assert condition.modulation(tone(), RATE_HZ)[0] < 0.05
    assert condition.modulation(white(3.0), RATE_HZ)[1] < 0.3


def test_the_kurtosis_of_a_tone_noise_and_pulses_and_the_brightness_of_noise():
    pulses = np.zeros(2 * RATE_HZ)
    pulses[::220] = 1
    found = [measure(signal, RATE_HZ) for signal in (tone(5000.0), white(), pulses)]
    assert [one["treble_kurtosis"] for one in found[:2]] == pytest.approx([1.5, 3.0], abs=0.1)
    assert found[2]["treble_kurtosis"] > 20
    assert found[1]["roll_off_hz"] == pytest.approx(condition.ROLL_OFF * RATE_HZ / 2, rel=0.01)
    # Third-octave bands of white noise rise by 3 dB per octave.
    assert found[1]["spectral_slope_db_octave"] == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("change_db", [0.0, 15.0, 30.0])
def test_the_spread_of_the_harmonic_to_noise_ratio_is_the_difference_of_two_halves(change_db):
    signal = np.concatenate([with_noise(tone(), 5.0), with_noise(tone(), 5.0 + change_db)])
    assert measure(signal, RATE_HZ)["harmonic_to_noise_spread_db"] == pytest.approx(change_db, abs=1.2)


@pytest.mark.parametrize("swing_db", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("slope_db_s", [0.0, -10.0])
def test_flutter_is_the_rms_of_a_swing_about_a_straight_line(swing_db, slope_db_s):
    """At 8 Hz a quarter of a second holds two whole periods, which a line hardly follows."""
    level_db = slope_db_s * seconds() + swing_db * np.sin(2 * np.pi * 8 * seconds())
    found = measure(at_level(level_db), RATE_HZ)["level_flutter_db"]
    assert found == pytest.approx(swing_db / math.sqrt(2), rel=0.2, abs=0.01)


@pytest.mark.parametrize("low", [0.01, 0.1, 0.5, 1.0])
def test_burstiness_is_the_arithmetic_over_the_geometric_mean_of_two_powers(low):
    power = np.where(np.arange(2 * RATE_HZ) // round(0.006 * RATE_HZ) % 2, low, 1.0)
    found = measure(np.sqrt(power) * tone(8000.0), RATE_HZ)["treble_burstiness_db"]
    assert found == pytest.approx(10 * math.log10((1 + low) / 2 / math.sqrt(low)), rel=0.1, abs=0.01)


@pytest.mark.parametrize(("swing_db", "rate_hz"), [(2.0, 0.5), (6.0, 0.5), (6.0, 0.9)])
def test_the_unevenness_of_swinging_bands_is_the_interquartile_range_of_their_steps(swing_db, rate_hz):
    """Differences of a sine over steps of h have amplitude 2 d sin(pi f h), and half of them lie within 0.71."""
    swing = at_level(swing_db * np.sin(2 * np.pi * rate_hz * seconds(10.0)), tone(1500.0, 10.0) + tone(4000.0, 10.0))
    expected = math.sqrt(2) * 2 * swing_db * math.sin(math.pi * rate_hz * 2048 / RATE_HZ)
    found = measure(tone(duration_s=10.0) + 0.1 * swing, RATE_HZ)["band_unevenness_db"]
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("gain", [1e-3, 30.0])
def test_no_measure_depends_on_the_level(gain):
    sound = with_noise(string(220.0, 5e-4), 25)
    assert measure(gain * sound, RATE_HZ) == pytest.approx(measure(sound, RATE_HZ), rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_measures_hardly_depend_on_the_sample_rate(rate_hz):
    found = measure(at_level(-20 * seconds(2.0, rate_hz), harmonic(220.0, 10, rate_hz)), rate_hz)
    assert found["fundamental_hz"] == pytest.approx(220.0, rel=0.002)
    assert found["decay_rate_db_s"] == pytest.approx(20.0, rel=0.01)
    assert found["inharmonicity"] == pytest.approx(0.0, abs=1e-6) and found["harmonic_to_noise_db"] > 30


@pytest.mark.parametrize("n", [0, 1, 7, 50, 1100, 3000])
def test_short_sounds_and_silence_give_numbers_or_nan_without_a_warning(n):
    with np.errstate(all="raise"):
        for signal in (np.zeros(n), white()[:n], np.float32(tone()[:n])):
            assert tuple(measure(signal, RATE_HZ)) == MEASURES
    assert set(LOGGED) < set(MEASURES)
    assert all(math.isnan(value) for value in measure(np.zeros(n), RATE_HZ).values())


# -- the model ---------------------------------------------------------------------------------------------------------


def test_the_verdict_has_probabilities_and_measures_and_survives_json():
    model = json.loads(json.dumps(plain_model()))
    clear, noisy = (condition.verdict(with_noise(harmonic(220, 10), snr), model) for snr in (35, 0))
    assert (clear[0], noisy[0]) == ("healthy", "broken")
    for name, probabilities, measured in (clear, noisy):
        assert tuple(probabilities) == CONDITIONS and tuple(measured) == MEASURES
        assert sum(probabilities.values()) == pytest.approx(1)
        assert max(probabilities, key=probabilities.get) == name
    assert clear[2]["harmonic_to_noise_db"] == pytest.approx(35, abs=0.6)


def test_the_model_is_a_logistic_regression_of_the_prepared_measures():
    rng, model = np.random.default_rng(0), plain_model(temperature=2.0)
    values = np.array([list(measure(with_noise(tone(), snr_db), RATE_HZ).values()) for snr_db in (5, 25)])
    x = condition.inputs(values, model["preparation"])
    weights, bias = rng.normal(size=(x.shape[1], 3)).round(2), np.array([0.1, -0.2, 0.3])
    raised = np.exp((x @ weights + bias) / 2)
    found = condition.probabilities(values, model | {"weights": condition.line(weights), "bias": condition.line(bias)})
    np.testing.assert_allclose(found, raised / raised.sum(axis=1, keepdims=True))


def test_missing_measures_become_the_median_with_an_indicator_and_outliers_are_clipped():
    rows = np.array([list(measure(one, RATE_HZ).values()) for one in (tone(), harmonic(220, 10), white())])
    preparation, n = condition.fit_inputs(rows), len(MEASURES)
    marked = condition.numbers(preparation["indicators"]).astype(int)
    assert [MEASURES[place] for place in marked] == ["inharmonicity", "fundamental_hz"]
    x = condition.inputs(rows, preparation)
    assert np.isfinite(x).all() and x.shape == (3, 2 * n + 2) and x[:, -2:].tolist() == [[1, 0], [0, 0], [1, 1]]
    np.testing.assert_allclose(x[:, n : 2 * n], np.square(x[:, :n]))
    rows[0, MEASURES.index("decay_rate_db_s")] = 1e9
    assert np.abs(condition.inputs(rows, preparation)).max() == 16


def test_long_recordings_are_measured_in_some_segments_without_silent_ones(monkeypatch):
    seen = []

    def watched(signal, sample_rate_hz):
        seen.append(len(signal))
        return measure(signal, sample_rate_hz)

    monkeypatch.setattr(condition, "measure", watched)
    silence = np.zeros(10 * RATE_HZ)
    sound = np.concatenate([silence, with_noise(harmonic(220, 10), 35), silence])
    assert condition.verdict(sound, plain_model())[0] == "healthy"
    assert 1 <= len(seen) <= 3 and set(seen) == {RATE_HZ}
    seen.clear()
    condition.verdict(np.tile(tone(), 50), plain_model())
    assert len(seen) == condition.MAX_SEGMENTS


@pytest.mark.parametrize("changes", [{"format": 0}, {"measures": "loudness"}])
def test_a_model_of_another_version_raises(changes):
    with pytest.raises(RunError, match="12_instrument_condition"):
        condition.verdict(tone(), plain_model(**changes))
