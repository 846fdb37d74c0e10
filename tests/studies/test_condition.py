"""Each measure on signals with values in closed form, and the condition model."""

import json
from math import isnan, log10, nan, pi, sqrt

import numpy as np
import pytest
from recordings import plain_model

from instrlib.core.io import RunError
from instrlib.studies import condition
from instrlib.studies.condition import CONDITIONS, measure

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


def string(f0_hz: float, coefficient: float) -> np.ndarray:
    """A struck stiff string: 16 partials; higher ones decay faster."""
    partials_hz = {n: f0_hz * n * sqrt(1 + coefficient * n**2) for n in range(1, 17)}
    waves = {n: np.sin(2 * np.pi * one * seconds() + n) / n for n, one in partials_hz.items() if one < 0.45 * RATE_HZ}
    return np.sum([at_level(-3 * n * seconds(), wave) for n, wave in waves.items()], axis=0)


def swing_db(depth_db: float, rate_hz: float, duration_s: float = 2.0) -> np.ndarray:
    return depth_db * np.sin(2 * np.pi * rate_hz * seconds(duration_s))


def bands(depth_db: float, rate_hz: float) -> np.ndarray:
    high = 0.1 * (tone(1500.0, 10.0) + tone(4000.0, 10.0))
    return tone(duration_s=10.0) + at_level(swing_db(depth_db, rate_hz, 10.0), high)


def pulses(low: float) -> np.ndarray:
    """A high tone of two powers in turn."""
    return np.sqrt(np.where(np.arange(2 * RATE_HZ) // round(0.006 * RATE_HZ) % 2, low, 1.0)) * tone(8000.0)


BELL = np.sum([tone(ratio * 200.0) for ratio in (1.0, 1.58, 2.24, 2.92, 3.46, 4.37, 5.29, 6.61)], axis=0)
NOISY = with_noise(tone(), 5)
PERIODIC = (tone(110.0), tone(987.3), tone(1900.0), harmonic(220.0, 20))
# The differences of a sine over short steps of h have amplitude 2 pi d f h, and half of them lie within 0.71 of it.
STEP = sqrt(2) * 2 * pi * 2048 / RATE_HZ
CLOSED_FORMS = [
    ("harmonic_to_noise_db", lambda: [(with_noise(one, db), db) for one in PERIODIC for db in (0, 10, 25, 40)], 0, 0.6),
    ("fundamental_hz", lambda: [(with_noise(harmonic(f, 4), 30), f) for f in (45, 110, 261.63, 1000)], 0.002, 0),
    ("decay_rate_db_s", lambda: [(at_level(-rate * seconds()), rate) for rate in (5, 20, 60, 150)], 0.001, 0),
    ("decay_rate_db_s", lambda: [(at_level(10 * seconds()), nan)], 0, 0),
    ("decay_variance", lambda: [(at_level(-rate * seconds()), 0) for rate in (5, 20, 60, 150)], 0, 0.01),
    # Half of the slopes are 10, half 30 dB/s: variance 100, less that of lines across both.
    ("decay_variance", lambda: [(at_level(-np.maximum(10 * seconds(), 30 * seconds() - 20)), 95)], 0.1, 0),
    ("inharmonicity", lambda: [(string(f, b), b) for f in (55, 110, 440) for b in (0, 1e-4, 2e-3, 8e-3)], 0.01, 1e-6),
    ("inharmonicity", lambda: [(with_noise(string(110, 5e-4), 30), 5e-4), (tone(), nan), (BELL, nan)], 0.05, 0),
    ("modulation_depth_db", lambda: [(at_level(swing_db(d, 5)), d / sqrt(2)) for d in (0, 1, 6)], 0.2, 0.05),
    ("modulation_peak", lambda: [(at_level(swing_db(d, f)), 1) for d in (1, 6) for f in (5, 11)], 0, 0.05),
    (
        "harmonic_to_noise_spread_db",
        lambda: [(np.append(NOISY, with_noise(tone(), 5 + db)), db) for db in (0, 30)],
        0,
        1.2,
    ),
    # The RMS about a line, which hardly follows two whole periods of 8 Hz in a quarter of a second.
    ("level_flutter_db", lambda: [(at_level(swing_db(d, 8) - 10 * seconds()), d / sqrt(2)) for d in (0, 4)], 0.2, 0.01),
    # The arithmetic over the geometric mean.
    (
        "treble_burstiness_db",
        lambda: [(pulses(x), 10 * log10((1 + x) / 2 / sqrt(x))) for x in (0.01, 0.5, 1)],
        0.1,
        0.01,
    ),
    ("band_unevenness_db", lambda: [(bands(d, f), d * f * STEP) for d, f in ((2, 0.5), (6, 0.5), (6, 0.9))], 0.1, 0),
    ("spectral_flatness", lambda: [(white(seed=seed), 1) for seed in range(4)], 0, 0.02),
    ("treble_flatness", lambda: [(tone() + 0.01 * white(seed=seed), 1) for seed in range(4)], 0, 0.03),
    ("treble_kurtosis", lambda: [(tone(5000.0), 1.5), (white(), 3.0)], 0, 0.1),
    ("roll_off_hz", lambda: [(white(), condition.ROLL_OFF * RATE_HZ / 2)], 0.01, 0),
    ("spectral_slope_db_octave", lambda: [(white(), 3.0)], 0, 0.3),  # of the power in third-octave bands
]


@pytest.mark.parametrize(("name", "cases", "relative", "absolute"), CLOSED_FORMS, ids=[one[0] for one in CLOSED_FORMS])
def test_a_measure_has_its_value_in_closed_form(name, cases, relative, absolute):
    for signal, expected in cases():
        assert measure(signal, RATE_HZ)[name] == pytest.approx(expected, rel=relative, abs=absolute, nan_ok=True)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_measures_depend_neither_on_the_level_nor_much_on_the_sample_rate(rate_hz):
    sound = with_noise(string(220.0, 5e-4), 25)
    for gain in (1e-3, 30.0):
        assert measure(gain * sound, RATE_HZ) == pytest.approx(measure(sound, RATE_HZ), rel=1e-6, nan_ok=True)
    found = measure(at_level(-20 * seconds(2.0, rate_hz), harmonic(220.0, 10, rate_hz)), rate_hz)
    assert found["fundamental_hz"] == pytest.approx(220.0, rel=0.002)
    assert found["decay_rate_db_s"] == pytest.approx(20.0, rel=0.01)
    assert found["inharmonicity"] == pytest.approx(0.0, abs=1e-6) and found["harmonic_to_noise_db"] > 30


@pytest.mark.parametrize("n", [0, 1, 7, 50, 1100, 3000])
def test_short_sounds_and_silence_give_numbers_or_nan_without_a_warning(n):
    with np.errstate(all="raise"):
        for signal in (np.zeros(n), white()[:n], np.float32(tone()[:n])):
            assert tuple(measure(signal, RATE_HZ)) == MEASURES
    assert all(isnan(value) for value in measure(np.zeros(n), RATE_HZ).values())


def test_the_verdict_has_probabilities_and_measures_and_survives_json():
    model = json.loads(json.dumps(plain_model()))
    for snr_db, expected in ((35, "healthy"), (0, "broken")):
        name, probabilities, measured = condition.verdict(with_noise(harmonic(220, 10), snr_db), model)
        assert name == expected == max(probabilities, key=probabilities.get)
        assert tuple(probabilities) == CONDITIONS and sum(probabilities.values()) == pytest.approx(1)
        assert tuple(measured) == MEASURES and measured["harmonic_to_noise_db"] == pytest.approx(snr_db, abs=0.6)
    for changes in ({"format": 0}, {"measures": "loudness"}):
        with pytest.raises(RunError, match="12_instrument_condition"):
            condition.verdict(tone(), model | changes)


def test_the_model_is_a_logistic_regression_of_the_measures_with_indicators_of_missing_ones():
    rows = np.array([list(measure(one, RATE_HZ).values()) for one in (tone(), harmonic(220, 10), white())])
    preparation, n = condition.fit_inputs(rows), len(MEASURES)
    marked = condition.numbers(preparation["indicators"]).astype(int)
    assert [MEASURES[place] for place in marked] == ["inharmonicity", "fundamental_hz"]
    x = condition.inputs(rows, preparation)
    assert np.isfinite(x).all() and x.shape == (3, 2 * n + 2) and x[:, -2:].tolist() == [[1, 0], [0, 0], [1, 1]]
    np.testing.assert_allclose(x[:, n : 2 * n], np.square(x[:, :n]))
    weights, bias = np.random.default_rng(0).normal(size=(x.shape[1], 3)).round(2), np.array([0.1, -0.2, 0.3])
    raised = np.exp((x @ weights + bias) / 2)
    model = {"weights": condition.line(weights), "bias": condition.line(bias), "preparation": preparation}
    found = condition.probabilities(rows, plain_model(temperature=2.0) | model)
    np.testing.assert_allclose(found, raised / raised.sum(axis=1, keepdims=True))
    rows[0, MEASURES.index("decay_rate_db_s")] = 1e9  # clipped
    assert np.abs(condition.inputs(rows, preparation)).max() == 16


def test_long_recordings_are_measured_in_some_segments_without_silent_ones(monkeypatch):
    seen, silence = [], np.zeros(10 * RATE_HZ)
    monkeypatch.setattr(condition, "measure", lambda *given: seen.append(len(given[0])) or measure(*given))
    sound = np.concatenate([silence, with_noise(harmonic(220, 10), 35), silence])
    assert condition.verdict(sound, plain_model())[0] == "healthy"
    n = len(seen)
    assert 1 <= n <= 3 and set(seen) == {RATE_HZ}
    condition.verdict(np.tile(tone(), 50), plain_model())
    assert len(seen) - n == condition.MAX_SEGMENTS
