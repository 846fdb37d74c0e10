"""Each measure on signals whose value is known in closed form; the verdict is one, from plain numbers."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from recordings import plain_model

from instrlib.core.io import RunError
from instrlib.studies import condition, measures
from instrlib.studies.condition import CONDITIONS, LOGGED
from instrlib.studies.measures import measure

MEASURES = tuple(measures.MEASURES)

RATE_HZ = 22_050


def seconds(duration_s: float = 2.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.arange(round(duration_s * rate_hz)) / rate_hz


def tone(frequency_hz: float = 440.0, duration_s: float = 2.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * seconds(duration_s, rate_hz))


def harmonic(frequency_hz: float, n: int) -> np.ndarray:
    return np.sum([tone(frequency_hz * number) / number for number in range(1, n + 1)], axis=0)


def white(duration_s: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(duration_s * RATE_HZ))


def with_noise(signal: np.ndarray, snr_db: float) -> np.ndarray:
    noise = white(len(signal) / RATE_HZ)
    return signal + noise * np.sqrt(np.square(signal).mean() / np.square(noise).mean() / 10 ** (snr_db / 10))


def string(fundamental_hz: float, coefficient: float, n: int = 16) -> np.ndarray:
    """A struck stiff string: n partials, the higher the faster they die away."""
    partials_hz = [fundamental_hz * number * math.sqrt(1 + coefficient * number**2) for number in range(1, n + 1)]
    waves = [
        10 ** (-3 * number * seconds() / 20) * np.sin(2 * np.pi * partial_hz * seconds() + number) / number
        for number, partial_hz in enumerate(partials_hz, start=1)
        if partial_hz < 0.45 * RATE_HZ
    ]
    return np.sum(waves, axis=0)


# -- harmonic-to-noise ratio -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20, 30, 40])
@pytest.mark.parametrize("frequency_hz", [110.0, 440.0, 987.3, 1900.0])
def test_the_harmonic_to_noise_ratio_of_a_tone_in_white_noise_is_the_signal_to_noise_ratio(frequency_hz, snr_db):
    found = measure(with_noise(tone(frequency_hz), snr_db), RATE_HZ)
    assert found["harmonic_to_noise_db"] == pytest.approx(snr_db, abs=0.6)


@pytest.mark.parametrize("snr_db", [5, 15, 25])
def test_all_harmonics_count_as_periodic(snr_db):
    found = measure(with_noise(harmonic(220.0, 20), snr_db), RATE_HZ)
    assert found["harmonic_to_noise_db"] == pytest.approx(snr_db, abs=0.6)
    assert found["fundamental_hz"] == pytest.approx(220.0, rel=0.002)


def test_noise_has_next_to_nothing_periodic_and_no_fundamental():
    hnr_db, fundamental_hz = measures.harmonicity(white(), RATE_HZ)
    assert np.median(hnr_db) < -9
    assert np.isnan(fundamental_hz).all()


@pytest.mark.parametrize("frequency_hz", [45.0, 110.0, 261.63, 1000.0])
def test_the_fundamental_of_a_tone_is_its_frequency(frequency_hz):
    signal = harmonic(frequency_hz, 4)
    _, found_hz = measures.harmonicity(with_noise(signal, 30), RATE_HZ)
    np.testing.assert_allclose(found_hz, frequency_hz, rtol=0.002)


@pytest.mark.parametrize("frequency_hz", [1900.0, 3520.0])
def test_of_the_highest_tones_a_multiple_of_the_period_is_found_which_is_as_periodic(frequency_hz):
    found = measure(with_noise(tone(frequency_hz), 20), RATE_HZ)
    assert found["harmonic_to_noise_db"] == pytest.approx(20, abs=0.6)
    multiple = frequency_hz / found["fundamental_hz"]
    assert multiple == pytest.approx(round(multiple), abs=0.01)


# -- flatness ----------------------------------------------------------------------------------------------------------


def test_white_noise_has_flatness_1_whatever_its_level():
    for level in (1.0, 1e-3):
        found = [measure(level * white(seed=seed), RATE_HZ)["spectral_flatness"] for seed in range(5)]
        assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_without_the_bias_of_the_periodogram_it_would_be_056():
    periodograms = np.square(np.abs(np.fft.rfft(white(4.0).reshape(-1, 1050))))[:, 1:-1]
    plain = np.exp(np.log(periodograms).mean(axis=1)) / periodograms.mean(axis=1)
    assert plain.mean() == pytest.approx(math.exp(-np.euler_gamma), abs=0.02)
    np.testing.assert_allclose(measures.flatness(periodograms), plain * math.exp(np.euler_gamma))


def test_a_constant_spectrum_is_the_bias_above_1_and_one_line_is_0():
    assert measures.flatness(np.ones(1000)) == pytest.approx(math.exp(np.euler_gamma))
    assert measures.flatness(np.eye(1000)[3]) < 1e-6
    assert measure(tone(), RATE_HZ)["spectral_flatness"] < 1e-4


def test_flatness_rises_with_the_noise():
    found = [measure(with_noise(harmonic(220, 20), snr_db), RATE_HZ)["spectral_flatness"] for snr_db in (40, 20, 0)]
    assert found == sorted(found) and found[2] > 5 * found[0]


# -- decay -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_db_s", [5.0, 20.0, 60.0, 150.0])
def test_an_exponential_decay_has_its_rate_and_no_variance(rate_db_s):
    found = measure(10 ** (-rate_db_s * seconds() / 20) * tone(), RATE_HZ)
    assert found["decay_rate_db_s"] == pytest.approx(rate_db_s, rel=0.001)
    assert found["decay_variance"] < 0.01


def test_two_rates_have_the_variance_of_two_points():
    half = seconds(1.0)
    level_db = np.concatenate([-10 * half, -10 - 30 * half])
    _, variance, _ = measures.decay(10 ** (level_db / 20) * tone(), RATE_HZ)
    # Half of the slopes are 10, half 30 dB/s: variance 100, less what lies between where a line spans both.
    assert variance == pytest.approx(95, rel=0.1)


def test_decay_knows_nothing_of_the_loudness():
    struck = string(220.0, 1e-4)
    assert measures.decay(struck, RATE_HZ) == pytest.approx(measures.decay(1e-3 * struck, RATE_HZ))


def test_what_swells_all_the_time_has_no_decay():
    found = measure(10 ** (10 * seconds() / 20) * tone(), RATE_HZ)
    assert math.isnan(found["decay_rate_db_s"]) and math.isnan(found["decay_variance"])


# -- inharmonicity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fundamental_hz", [55.0, 110.0, 220.0, 440.0])
@pytest.mark.parametrize("coefficient", [0.0, 1e-4, 5e-4, 2e-3, 8e-3])
def test_a_stiff_string_has_its_coefficient(fundamental_hz, coefficient):
    found = measure(string(fundamental_hz, coefficient), RATE_HZ)
    assert found["inharmonicity"] == pytest.approx(coefficient, rel=0.01, abs=1e-6)


def test_it_is_found_through_noise_with_a_fundamental_that_is_a_little_off():
    found, n_partials = measures.inharmonicity(with_noise(string(110.0, 5e-4), 30), RATE_HZ, 111.0)
    assert found == pytest.approx(5e-4, rel=0.05)
    assert n_partials >= 8


def test_partials_that_follow_no_law_give_no_coefficient():
    bell = np.sum([tone(ratio * 200.0) for ratio in (1.0, 1.58, 2.24, 2.92, 3.46, 4.37, 5.29, 6.61)], axis=0)
    assert math.isnan(measures.inharmonicity(bell, RATE_HZ, 200.0)[0])
    assert math.isnan(measure(tone(), RATE_HZ)["inharmonicity"])  # one partial is no line


# -- the others --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swing_db", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("rate_hz", [5.0, 11.0])
def test_a_tremolo_has_its_depth_and_one_rate(swing_db, rate_hz):
    level_db = swing_db * np.sin(2 * np.pi * rate_hz * seconds(3.0))
    depth_db, peak = measures.modulation(10 ** (level_db / 20) * tone(duration_s=3.0), RATE_HZ)
    assert depth_db == pytest.approx(swing_db / math.sqrt(2), rel=0.2)
    assert peak > 0.95


def test_a_steady_tone_is_not_modulated_and_noise_is_at_no_single_rate():
    assert measures.modulation(tone(), RATE_HZ)[0] < 0.05
    assert measures.modulation(white(3.0), RATE_HZ)[1] < 0.3


def test_the_kurtosis_is_that_of_a_tone_of_noise_and_of_pulses():
    pulses = np.zeros(2 * RATE_HZ)
    pulses[::220] = 1
    found = [measure(signal, RATE_HZ)["treble_kurtosis"] for signal in (tone(5000.0), white(), pulses)]
    assert found[:2] == pytest.approx([1.5, 3.0], abs=0.1)
    assert found[2] > 20


def test_half_of_white_noise_lies_below_half_of_the_frequencies():
    found = measure(white(), RATE_HZ)
    assert found["roll_off_hz"] == pytest.approx(measures.ROLL_OFF * RATE_HZ / 2, rel=0.01)
    # Bands of a third of an octave get wider: white noise rises by 3 dB an octave.
    assert found["spectral_slope_db_octave"] == pytest.approx(3.0, abs=0.3)


def test_bands_that_keep_together_are_even():
    struck = 10 ** (-30 * seconds() / 20) * harmonic(220.0, 20)
    assert measure(struck, RATE_HZ)["band_unevenness_db"] < 0.1


@pytest.mark.parametrize("change_db", [0.0, 15.0, 30.0])
def test_the_spread_of_the_harmonic_to_noise_ratio_is_the_difference_of_two_ratios(change_db):
    """Half of the frames have a ratio of 5 dB, half of one that is higher: their middle half spans the two."""
    signal = np.concatenate([with_noise(tone(), 5.0), with_noise(tone(), 5.0 + change_db)])
    assert measure(signal, RATE_HZ)["harmonic_to_noise_spread_db"] == pytest.approx(change_db, abs=1.2)


def test_the_treble_is_flat_where_it_is_noise_whatever_lies_below():
    """A loud tone at 440 Hz makes the whole spectrum a line; above 2 kHz there is white noise alone, or one tone."""
    hissing = [measure(with_noise(tone(), 40) if seed is None else tone() + 0.01 * white(seed=seed), RATE_HZ)
               for seed in (None, 1, 2)]  # fmt: skip
    assert np.mean([found["treble_flatness"] for found in hissing]) == pytest.approx(1, abs=0.03)
    assert max(found["spectral_flatness"] for found in hissing) < 0.1
    assert measure(tone() + 0.1 * tone(5000.0), RATE_HZ)["treble_flatness"] < 1e-3


@pytest.mark.parametrize("swing_db", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("slope_db_s", [0.0, -10.0])
def test_flutter_is_the_rms_of_a_swing_about_a_straight_line(swing_db, slope_db_s):
    """At 8 Hz a quarter of a second holds two whole swings, through which a line hardly follows them."""
    level_db = slope_db_s * seconds() + swing_db * np.sin(2 * np.pi * 8 * seconds())
    found = measure(10 ** (level_db / 20) * tone(), RATE_HZ)["level_flutter_db"]
    assert found == pytest.approx(swing_db / math.sqrt(2), rel=0.2)
    assert measure(10 ** (slope_db_s * seconds() / 20) * tone(), RATE_HZ)["level_flutter_db"] < 0.01


@pytest.mark.parametrize("low", [0.01, 0.1, 0.5])
def test_bursts_are_the_arithmetic_over_the_geometric_mean_of_two_powers(low):
    """Steps of 6 ms that are loud and soft by turns: the means are (1 + low) / 2 and sqrt(low)."""
    step = round(0.006 * RATE_HZ)
    power = np.where(np.arange(2 * RATE_HZ) // step % 2, low, 1.0)
    found = measure(np.sqrt(power) * tone(8000.0), RATE_HZ)["treble_burstiness_db"]
    assert found == pytest.approx(10 * math.log10((1 + low) / 2 / math.sqrt(low)), rel=0.1)
    assert measure(tone(8000.0), RATE_HZ)["treble_burstiness_db"] < 0.01


@pytest.mark.parametrize("swing_db", [2.0, 6.0])
@pytest.mark.parametrize("rate_hz", [0.5, 0.9])
def test_bands_that_swing_against_a_steady_one_are_uneven_by_the_middle_half_of_their_steps(swing_db, rate_hz):
    """Of a sine over steps of h the differences are a sine of amplitude 2 d sin(pi f h), half of it within 0.71."""
    time_s = seconds(10.0)
    swinging = 0.1 * 10 ** (swing_db * np.sin(2 * np.pi * rate_hz * time_s) / 20)
    signal = tone(duration_s=10.0) + swinging * (tone(1500.0, 10.0) + tone(4000.0, 10.0))
    step_s = 2048 / RATE_HZ
    expected = math.sqrt(2) * 2 * swing_db * math.sin(math.pi * rate_hz * step_s)
    assert measure(signal, RATE_HZ)["band_unevenness_db"] == pytest.approx(expected, rel=0.1)


def test_bands_that_fall_evenly_though_not_alike_are_even():
    falling = 0.1 * 10 ** (-10 * seconds() / 20) * (tone(1500.0) + tone(4000.0))
    assert measure(tone() + falling, RATE_HZ)["band_unevenness_db"] < 0.1


@pytest.mark.parametrize("gain", [1e-3, 0.1, 30.0])
def test_no_measure_depends_on_the_loudness(gain):
    sound = with_noise(string(220.0, 5e-4), 25)
    found, louder = measure(sound, RATE_HZ), measure(gain * sound, RATE_HZ)
    assert louder == pytest.approx(found, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_the_rate_of_the_samples_hardly_matters(rate_hz):
    signal = np.sum([tone(220.0 * number, rate_hz=rate_hz) / number for number in range(1, 11)], axis=0)
    found = measure(10 ** (-20 * seconds(2.0, rate_hz) / 20) * signal, rate_hz)
    assert found["fundamental_hz"] == pytest.approx(220.0, rel=0.002)
    assert found["decay_rate_db_s"] == pytest.approx(20.0, rel=0.01)
    assert found["inharmonicity"] == pytest.approx(0.0, abs=1e-6)
    assert found["harmonic_to_noise_db"] > 30


def test_every_measure_is_there_in_order_and_named_in_words():
    assert tuple(measure(tone(), RATE_HZ)) == MEASURES
    assert set(LOGGED) < set(MEASURES)


@pytest.mark.parametrize("n", [0, 1, 7, 50, 1100, 3000])
def test_short_sounds_and_silence_give_numbers_or_nan_without_a_warning(n):
    with np.errstate(all="raise"):
        for signal in (np.zeros(n), white()[:n], np.float32(tone()[:n])):
            assert set(measure(signal, RATE_HZ)) == set(MEASURES)
    assert all(math.isnan(value) for value in measure(np.zeros(n), RATE_HZ).values())


def test_noise_says_so_where_it_cannot_be_told():
    found = measure(white(), RATE_HZ)
    assert {name for name, value in found.items() if math.isnan(value)} == {"fundamental_hz", "inharmonicity"}


@pytest.mark.real_data
def test_real_recordings_are_measured_as_their_instruments_are(sample_root):
    from instrlib.audio.decode import load
    from instrlib.data import corpora

    clips = corpora.read("fsdkaggle2018", sample_root, max_clips_per_class=6).manifest
    found = {name: [] for name in ("Clarinet", "Cello", "Hi-hat", "Bass_drum")}
    for clip in clips[clips.label.isin(list(found))].itertuples():
        signal = load(sample_root / clip.path, sample_rate_hz=RATE_HZ, duration_s=min(3.0, clip.duration_s))
        found[clip.label].append(measure(signal, RATE_HZ))
    median = {
        label: {name: np.median([row[name] for row in rows]) for name in MEASURES} for label, rows in found.items()
    }
    assert median["Clarinet"]["harmonic_to_noise_db"] > 20 > 5 > median["Hi-hat"]["harmonic_to_noise_db"]
    assert math.isnan(median["Hi-hat"]["fundamental_hz"])
    assert median["Hi-hat"]["spectral_flatness"] > 100 * median["Cello"]["spectral_flatness"]
    assert median["Bass_drum"]["decay_rate_db_s"] > 2 * median["Clarinet"]["decay_rate_db_s"]


# -- the verdict -------------------------------------------------------------------------------------------------------


def test_one_verdict_with_probabilities_that_sum_to_1_and_the_measures_beside_it():
    clear, noisy = (condition.verdict(with_noise(harmonic(220, 10), snr), RATE_HZ, plain_model()) for snr in (35, 0))
    assert (clear[0], noisy[0]) == ("healthy", "broken")
    for name, probabilities, measured in (clear, noisy):
        assert tuple(probabilities) == CONDITIONS and tuple(measured) == MEASURES
        assert sum(probabilities.values()) == pytest.approx(1)
        assert max(probabilities, key=probabilities.get) == name
    assert clear[2]["harmonic_to_noise_db"] == pytest.approx(35, abs=0.6)


def test_a_model_read_from_json_gives_the_same_verdict():
    sound, model = with_noise(harmonic(220, 10), 12), plain_model()
    assert condition.verdict(sound, RATE_HZ, json.loads(json.dumps(model))) == condition.verdict(sound, RATE_HZ, model)


def test_a_higher_temperature_makes_it_less_sure_and_changes_no_name():
    sound = with_noise(harmonic(220, 10), 33)
    sure, unsure = (condition.verdict(sound, RATE_HZ, plain_model(temperature=one)) for one in (1.0, 4.0))
    assert sure[0] == unsure[0] and sure[1][sure[0]] > unsure[1][unsure[0]] > 1 / 3


def test_it_is_a_logistic_regression_of_the_prepared_measures():
    rng, model = np.random.default_rng(0), plain_model(temperature=2.0)
    values = np.array([list(measure(with_noise(tone(), snr_db), RATE_HZ).values()) for snr_db in (5, 25)])
    x = condition.inputs(values, model["preparation"])
    weights, bias = rng.normal(size=(x.shape[1], 3)).round(2), np.array([0.1, -0.2, 0.3])
    raised = np.exp((x @ weights + bias) / 2)
    found = condition.probabilities(values, model | {"weights": condition.line(weights), "bias": condition.line(bias)})
    np.testing.assert_allclose(found, raised / raised.sum(axis=1, keepdims=True))


def test_what_cannot_be_told_stands_at_the_median_and_is_marked():
    rows = np.array([list(measure(one, RATE_HZ).values()) for one in (tone(), harmonic(220, 10), white())])
    preparation = condition.fit_inputs(rows)
    marked = condition.numbers(preparation["indicators"]).astype(int)
    assert [MEASURES[place] for place in marked] == ["inharmonicity", "fundamental_hz"]
    x = condition.inputs(rows, preparation)
    assert np.isfinite(x).all() and x.shape == (3, 2 * len(MEASURES) + 2)
    assert x[:, -2:].tolist() == [[1, 0], [0, 0], [1, 1]]
    n = len(MEASURES)
    np.testing.assert_allclose(x[:, n : 2 * n], np.square(x[:, :n]))


def test_a_sound_unlike_all_others_counts_no_more_than_a_rare_one():
    rows = np.array([list(measure(with_noise(tone(), snr), RATE_HZ).values()) for snr in (10, 20, 30)])
    far = rows[:1].copy()
    far[0, MEASURES.index("decay_rate_db_s")] = 1e9
    assert np.abs(condition.inputs(far, condition.fit_inputs(rows))).max() <= 16


def test_another_sample_rate_is_changed_to_the_models():
    sound = np.sum([tone(220.0 * number, rate_hz=44_100) / number for number in range(1, 11)], axis=0)
    _, _, measured = condition.verdict(sound, 44_100, plain_model())
    assert measured["fundamental_hz"] == pytest.approx(220, rel=0.002)


def test_of_a_long_recording_some_segments_are_measured_and_silent_ones_do_not_count(monkeypatch):
    sound = np.concatenate([np.zeros(10 * RATE_HZ), with_noise(harmonic(220, 10), 35), np.zeros(10 * RATE_HZ)])
    seen = []

    def watched(signal, sample_rate_hz, own=condition.measure):
        seen.append(len(signal))
        return own(signal, sample_rate_hz)

    monkeypatch.setattr(condition, "measure", watched)
    name, *_ = condition.verdict(sound, RATE_HZ, plain_model())
    assert name == "healthy" and 1 <= len(seen) <= 3 and set(seen) == {RATE_HZ}
    seen.clear()
    condition.verdict(np.tile(tone(), 50), RATE_HZ, plain_model())
    assert len(seen) == condition.MAX_SEGMENTS


@pytest.mark.parametrize("changes", [{"format": 0}, {"measures": "loudness"}])
def test_a_model_of_another_version_is_refused_in_one_sentence(changes):
    with pytest.raises(RunError, match="another version"):
        condition.verdict(tone(), RATE_HZ, plain_model(**changes))


def test_a_verdict_needs_neither_tensorflow_nor_scikit_learn_nor_pandas():
    code = (
        "import sys; from instrlib.studies import condition;"
        "print([name for name in ('tensorflow', 'keras', 'sklearn', 'pandas', 'librosa') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
