"""The condition of an instrument: measures of its sound, each with a value known in closed form, and one verdict.

Nothing here needs TensorFlow or scikit-learn. The model behind the verdict is plain numbers; see `verdict`.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from instrlib.core.errors import RunError
from instrlib.evaluation.calibration import softmax

CONDITIONS = ("healthy", "aged", "broken")

MEASURES = (
    "harmonic_to_noise_db",
    "harmonic_to_noise_spread_db",
    "spectral_flatness",
    "treble_flatness",
    "decay_rate_db_s",
    "decay_variance",
    "level_flutter_db",
    "modulation_depth_db",
    "modulation_peak",
    "band_unevenness_db",
    "inharmonicity",
    "fundamental_hz",
    "roll_off_hz",
    "spectral_slope_db_octave",
    "treble_kurtosis",
    "treble_burstiness_db",
)
"""What `measure` returns, in this order."""

LABELS = {
    "harmonic_to_noise_db": "harmonic-to-noise ratio (dB)",
    "harmonic_to_noise_spread_db": "spread of the harmonic-to-noise ratio (dB)",
    "spectral_flatness": "spectral flatness (0 tone, 1 noise)",
    "treble_flatness": "flatness above 2 kHz (0 tone, 1 noise)",
    "decay_rate_db_s": "rate of decay (dB/s)",
    "decay_variance": "decay variance (dB²/s²)",
    "level_flutter_db": "flutter of the level (dB)",
    "modulation_depth_db": "modulation at 3 to 25 Hz (dB)",
    "modulation_peak": "regularity of the modulation (0 to 1)",
    "band_unevenness_db": "unevenness of the bands (dB)",
    "inharmonicity": "inharmonicity B",
    "fundamental_hz": "fundamental (Hz)",
    "roll_off_hz": "roll-off (Hz)",
    "spectral_slope_db_octave": "slope of the spectrum (dB/octave)",
    "treble_kurtosis": "kurtosis above 2 kHz",
    "treble_burstiness_db": "bursts above 2 kHz (dB)",
}
"""The measures in words, with their units."""

LOGGED = (
    "spectral_flatness", "treble_flatness", "decay_variance", "level_flutter_db", "modulation_depth_db",
    "fundamental_hz", "roll_off_hz", "treble_kurtosis", "treble_burstiness_db",
)  # fmt: skip
"""Measures that are positive and run over several powers of ten: models see their logarithm."""

FORMAT = 2
"""Of the plain model; raised whenever `measure` or `inputs` would give other numbers for the same sound, or the model
holds other fields."""

PERIODIC = 0.5
"""A frame has a fundamental when at least this share of its energy is periodic."""

LOWEST_HZ, HIGHEST_HZ = 40.0, 2000.0
"""Fundamentals that are looked for. Of those above, and of some near the upper end, a multiple of the period is found,
which is as periodic."""

SOUNDING_DB = 40.0
"""A frame sounds when it is at most so far below the loudest one."""

TREBLE_HZ = 2000.0

ROLL_OFF = 0.95
"""Share of the energy that lies below the roll-off."""

MAX_SEGMENTS = 20
"""Parts of a long recording that are measured, spread evenly over it."""

_FRAME_S = 0.186  # Seven periods of the lowest fundamental: Boersma asks for six.
_OCTAVE_COST = 0.01
_HNR_RANGE_DB = (-20.0, 50.0)
_SINC_REACH = 32
_FINE = 16
_FLATNESS_FLOOR = 1e-12
_LEVEL_FRAME_S, _LEVEL_HOP_S = 0.046, 0.01
_LINE_S = 0.25
_BEATS_HZ = (3.0, 25.0)
_BURST_S, _BURSTS = 0.006, 16
_PARTIAL_FRAME_S = 0.372
_MAX_PARTIALS = 16
_MIN_PARTIALS = 5
_PARTIAL_RANGE_DB = 60.0
_HIGHEST_SLOPE_HZ = (500.0, 8000.0)


def measure(signal: np.ndarray, sample_rate_hz: int) -> dict[str, float]:
    """Measure a few seconds of sound. No measure depends on the loudness.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples of some seconds; see `verdict` for longer recordings.
    sample_rate_hz : int
        Their rate. Measures of the spectrum reach up to half of it.

    Returns
    -------
    dict of str to float
        In the order of `MEASURES`; NaN where a measure cannot be told: `fundamental_hz` and `inharmonicity` of noise or
        drums, `decay_rate_db_s` and `decay_variance` where nothing decays for a quarter of a second, all of silence.

        `harmonic_to_noise_db`
            Periodic over aperiodic energy, -20 to 50 dB; see `harmonicity`. The median over the frames that sound.
        `harmonic_to_noise_spread_db`
            Middle half of it: beating and rattling come and go.
        `spectral_flatness`, `treble_flatness`
            0 of a tone, 1 of white noise; of all, and of what lies above `TREBLE_HZ`. See `flatness`.
        `decay_rate_db_s`, `decay_variance`
            How fast the level falls where it falls, in dB/s, and the variance of that in (dB/s)²; see `decay`.
        `level_flutter_db`
            Deviation of the level from a straight line over a quarter of a second.
        `modulation_depth_db`, `modulation_peak`
            Depth of what the level does between 3 and 25 Hz, and the share of it at one rate: see `modulation`.
        `band_unevenness_db`
            How differently the levels of third-octave bands change from one frame to the next.
        `inharmonicity`, `fundamental_hz`
            B and f0 of f_n = n f0 sqrt(1 + B n²); see `inharmonicity`.
        `roll_off_hz`, `spectral_slope_db_octave`
            Frequency below which 95 % of the energy lies; fall of the spectrum from 500 Hz to 8 kHz.
        `treble_kurtosis`
            Of what lies above `TREBLE_HZ`: 1.5 of a tone, 3 of noise, more of pulses.
        `treble_burstiness_db`
            Arithmetic over geometric mean of its power in steps of 6 ms: 0 where it is steady.

    Examples
    --------
    >>> time_s = np.arange(44_100) / 22_050
    >>> found = measure(np.sin(2 * np.pi * 440 * time_s), 22_050)
    >>> round(found["fundamental_hz"], 1), round(found["decay_rate_db_s"])
    (440.0, 0)
    """
    signal = np.asarray(signal, dtype=np.float64)
    found = dict.fromkeys(MEASURES, math.nan)
    peak = float(np.abs(signal).max(initial=0.0))
    if not peak > 0:
        return found
    signal = signal / peak
    frames = _frames(signal, _length(_FRAME_S, sample_rate_hz, signal))
    energy = np.square(frames).sum(axis=1)
    frames = frames[energy >= energy.max() * 10 ** (-SOUNDING_DB / 10)]
    window, norm = _window(frames.shape[1])
    power = np.square(np.abs(np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, norm.size)))
    periodic, period = _periodicity(power, norm, frames.shape[1], sample_rate_hz)
    hnr_db = _ratio_db(periodic)
    found["harmonic_to_noise_db"] = float(np.median(hnr_db))
    found["harmonic_to_noise_spread_db"] = float(np.subtract(*np.percentile(hnr_db, [75, 25])))
    # Every second bin of the padded spectrum is the spectrum of the frame itself.
    spectra = power[:, ::2]
    bins_hz = np.fft.rfftfreq(norm.size, 1 / sample_rate_hz)[::2]
    treble = bins_hz >= min(TREBLE_HZ, sample_rate_hz / 4)
    found["spectral_flatness"] = float(np.median(_flatness(spectra[:, 3:-1])))
    found["treble_flatness"] = float(np.median(_flatness(spectra[:, treble][:, :-1])))
    found["roll_off_hz"], found["spectral_slope_db_octave"] = _brightness(spectra.mean(axis=0), bins_hz)
    found["band_unevenness_db"] = _unevenness(spectra, bins_hz)
    if np.median(periodic) >= PERIODIC:
        steadiest = period[np.argsort(-periodic, kind="stable")[: max(1, len(period) // 2)]]
        found["fundamental_hz"] = float(sample_rate_hz / np.median(steadiest))
        found["inharmonicity"], _ = inharmonicity(signal, sample_rate_hz, found["fundamental_hz"])
    level = _level(signal, sample_rate_hz)
    found["decay_rate_db_s"], found["decay_variance"], found["level_flutter_db"] = _lines(*level)
    found["modulation_depth_db"], found["modulation_peak"] = _modulation(*level)
    found["treble_kurtosis"], found["treble_burstiness_db"] = _treble(signal, sample_rate_hz)
    return found


def harmonicity(signal: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Harmonic-to-noise ratio and fundamental of each frame, by the autocorrelation [1]_.

    The autocorrelation of a frame under a Hann window is divided by that of the window. Of a periodic sound with noise
    its highest maximum away from 0 is then r = H / (H + N), at the period; the ratio is 10 log10(r / (1 - r)) dB. The
    maximum is found between samples by band-limited interpolation; of equal ones the shortest lag wins.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples.
    sample_rate_hz : int
        Their rate.

    Returns
    -------
    hnr_db : np.ndarray [shape=(n_frames,)]
        -20 to 50. Noise has no period, but some lag always fits best: white noise is found at about -12.
    fundamental_hz : np.ndarray [shape=(n_frames,)]
        From `LOWEST_HZ` to `HIGHEST_HZ`, NaN where under half of the energy is periodic.

    References
    ----------
    .. [1] P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
       sampled sound", IFA Proceedings 17, 1993, 97-110.
    """
    signal = np.asarray(signal, dtype=np.float64)
    frames = _frames(signal, _length(_FRAME_S, sample_rate_hz, signal))
    window, norm = _window(frames.shape[1])
    power = np.square(np.abs(np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, norm.size)))
    periodic, period = _periodicity(power, norm, frames.shape[1], sample_rate_hz)
    return _ratio_db(periodic), np.where(periodic >= PERIODIC, sample_rate_hz / period, np.nan)


def flatness(power: np.ndarray) -> np.ndarray:
    """Geometric over arithmetic mean of power spectra, so scaled that white noise has 1 in the mean.

    The bins of a periodogram of white noise are exponentially distributed, whose geometric mean is exp(-0.5772) of the
    arithmetic one (Euler's constant). Without that factor the flatness of white noise would be 0.56.

    Parameters
    ----------
    power : np.ndarray [shape=(..., n_bins)]
        Power spectra, each of one frame: of averaged spectra the factor would be another.

    Returns
    -------
    np.ndarray [shape=(...)]
        0 of a tone to about 1 of white noise; single frames scatter around that by a few hundredths.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((20, 4096))
    >>> float(flatness(np.abs(np.fft.rfft(noise))[:, 1:-1] ** 2).mean().round(1))
    1.0
    """
    return _flatness(np.asarray(power, dtype=np.float64))


def decay(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Rate of decay, and how much it varies, from the slopes of the level in dB.

    A straight line is laid through every quarter of a second of the level (in steps of 10 ms) that sounds throughout;
    those that fall count. An exponential decay has one slope, so its variance is 0, whatever its loudness and its rate.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples.
    sample_rate_hz : int
        Their rate.

    Returns
    -------
    rate_db_s : float
        Median of the falling slopes, as a positive number; 0 of a steady tone, NaN where nothing falls.
    variance : float
        Of the falling slopes, (dB/s)².

    Examples
    --------
    >>> time_s = np.arange(44_100) / 22_050
    >>> rate_db_s, variance = decay(10 ** (-30 * time_s / 20) * np.sin(2 * np.pi * 440 * time_s), 22_050)
    >>> round(rate_db_s, 1), round(variance, 1)
    (30.0, 0.0)
    """
    return _lines(*_level(np.asarray(signal, dtype=np.float64), sample_rate_hz))[:2]


def modulation(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Depth and regularity of what the level does between 3 and 25 times a second.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples.
    sample_rate_hz : int
        Their rate.

    Returns
    -------
    depth_db : float
        RMS of the level's variation at these rates; of a level that swings by ± d dB it is d / sqrt(2).
    peak : float
        Share of it at a single rate (three bins): near 1 where it is regular. NaN where there is none, or the sound is
        shorter than half a second.
    """
    return _modulation(*_level(np.asarray(signal, dtype=np.float64), sample_rate_hz))


def inharmonicity(signal: np.ndarray, sample_rate_hz: int, fundamental_hz: float) -> tuple[float, int]:
    """Inharmonicity coefficient B of a stiff string, f_n = n f0 sqrt(1 + B n²) [1]_, by tracking its partials.

    In each of the three most energetic frames of 0.37 s the partials are found one after the other, each where those
    below foretell it; (f_n / n)² is a straight line over n², whose slope by its intercept is B. Piano strings have 1e-4
    to 1e-2, winds and bowed strings 0.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples.
    sample_rate_hz : int
        Their rate.
    fundamental_hz : float
        About the frequency of the first partial.

    Returns
    -------
    coefficient : float
        Median over the frames, about 0 where partials are harmonic; NaN where fewer than five follow the law in any.
    n_partials : int
        Most partials that were found in a frame.

    References
    ----------
    .. [1] H. Fletcher, E. D. Blackham, R. Stratton, "Quality of piano tones", J. Acoust. Soc. Am. 34(6), 1962,
       749-761. doi:10.1121/1.1918192
    """
    signal = np.asarray(signal, dtype=np.float64)
    n = _length(_PARTIAL_FRAME_S, sample_rate_hz, signal)
    frames = _frames(signal, n)
    frames = frames[np.argsort(-np.square(frames).sum(axis=1), kind="stable")[:3]]
    # Four bins for each of the frame: the parabola through a peak then errs by less than a hundredth of a bin.
    n_fft = 4 * n
    level_db = 10 * np.log10(np.square(np.abs(np.fft.rfft(frames * np.hanning(n), n_fft))) + 1e-30)
    found = [_fit_partials(one, sample_rate_hz / n_fft, fundamental_hz) for one in level_db]
    told = [coefficient for coefficient, _ in found if math.isfinite(coefficient)]
    return (float(np.median(told)) if told else math.nan), max(count for _, count in found)


# -- the model ---------------------------------------------------------------------------------------------------------


def inputs(values: np.ndarray, preparation: Mapping[str, Any]) -> np.ndarray:
    """Turn measures into what a model sees: standardised, their squares, and whether each could be told at all.

    Parameters
    ----------
    values : np.ndarray [shape=(n, n_measures)]
        Rows of `measure`, in the order of `MEASURES`; NaN where a measure could not be told.
    preparation : dict
        From `fit_inputs`.

    Returns
    -------
    np.ndarray [shape=(n, 2 * n_measures + n_indicators)]
        What could not be told stands at the training part's median, and its indicator says 1.
    """
    told = _logged(values)
    missing = ~np.isfinite(told)
    filled = np.where(missing, numbers(preparation["median"]), told)
    scaled = (filled - numbers(preparation["mean"])) / numbers(preparation["deviation"])
    # A sound unlike all that was trained on must not count more than the rarest of those.
    scaled = np.clip(scaled, -_FARTHEST, _FARTHEST)
    return np.concatenate(
        [scaled, np.square(scaled), missing[:, numbers(preparation["indicators"]).astype(int)]], axis=1
    )


def fit_inputs(values: np.ndarray) -> dict[str, Any]:
    """Find out from training rows how measures are prepared.

    Parameters
    ----------
    values : np.ndarray [shape=(n, n_measures)]
        See `inputs`.

    Returns
    -------
    dict
        `median`, `mean`, `deviation` (a number for each measure, after the logarithm) and `indicators` (places of the
        measures that could not be told in some rows), each as `line` writes them.
    """
    told = _logged(values)
    missing = ~np.isfinite(told)
    known = ~missing.all(axis=0)
    median = np.zeros(told.shape[1])
    median[known] = np.nanmedian(np.where(missing, np.nan, told)[:, known], axis=0)
    filled = np.where(missing, median, told)
    deviation = filled.std(axis=0)
    return {
        "median": line(median),
        "mean": line(filled.mean(axis=0)),
        "deviation": line(np.where(deviation > 1e-9, deviation, 1.0)),
        "indicators": line(np.flatnonzero(missing.any(axis=0))),
    }


def probabilities(values: np.ndarray, model: Mapping[str, Any]) -> np.ndarray:
    """Let a plain model, a multinomial logistic regression, answer.

    Parameters
    ----------
    values : np.ndarray [shape=(n, n_measures)]
        Rows of `measure`, in the order of `MEASURES`.
    model : dict
        `preparation` (see `inputs`), `weights` (row by row, one of three for each input) and `bias`, as `line` writes
        them, and `temperature`, by which the logits are divided.

    Returns
    -------
    np.ndarray [shape=(n, 3)]
        In the order of `CONDITIONS`; rows sum to 1.
    """
    x = inputs(np.asarray(values, dtype=np.float64), model["preparation"])
    weights = numbers(model["weights"]).reshape(-1, len(CONDITIONS))
    return softmax(x @ weights + numbers(model["bias"]), model["temperature"])


def verdict(
    signal: np.ndarray, sample_rate_hz: int, model: Mapping[str, Any]
) -> tuple[str, dict[str, float], dict[str, float]]:
    """Say in which condition the instrument is that one hears.

    The model was trained on simulated damage; `model["about"]` says so, and belongs beside every verdict.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples. A recording longer than a segment of the training is cut into such segments, of which up to
        `MAX_SEGMENTS` are measured; what is silent does not count.
    sample_rate_hz : int
        Their rate; another one than the model's is changed to it first.
    model : dict
        `condition.json`, as it is read; see `check_model`.

    Returns
    -------
    name : str
        The most probable one of `CONDITIONS`.
    probabilities : dict of str to float
        Of each condition, calibrated on validation; the mean over the segments.
    measures : dict of str to float
        See `measure`; the median over the segments, NaN where none of them tells.
    """
    rate_hz = int(check_model(model)["sample_rate_hz"])
    signal = np.asarray(signal, dtype=np.float32)
    if sample_rate_hz != rate_hz:
        import soxr

        signal = soxr.resample(signal, sample_rate_hz, rate_hz, quality="HQ")
    values = np.array([list(measure(one, rate_hz).values()) for one in _segments(signal, model["segment_s"], rate_hz)])
    answered = probabilities(values, model).mean(axis=0)
    told = np.isfinite(values)
    measures = {
        name: float(np.median(column[known])) if known.any() else math.nan
        for name, column, known in zip(MEASURES, values.T, told.T, strict=True)
    }
    by_condition = dict(zip(CONDITIONS, map(float, answered), strict=True))
    return CONDITIONS[int(answered.argmax())], by_condition, measures


def line(values: np.ndarray) -> str:
    """Write numbers as one line of a JSON file, with five significant digits: a list would take a line for each.

    Examples
    --------
    >>> line(np.array([[0.5, -1 / 3], [12345.678, 2]]))
    '0.5 -0.33333 12346 2'
    >>> numbers(line(np.array([0.5, -1 / 3])))
    array([ 0.5    , -0.33333])
    """
    return " ".join(f"{value:.5g}" for value in np.ravel(values))


def numbers(text: str) -> np.ndarray:
    """Read what `line` wrote [shape=(n,)]."""
    return np.array(text.split(), dtype=np.float64)


def check_model(model: Any) -> dict[str, Any]:
    """Make sure that a plain model is one of this version.

    Parameters
    ----------
    model : dict
        What was read from `condition.json`; that it is whole, its own hash says.

    Returns
    -------
    dict
        The model.

    Raises
    ------
    RunError
        When it was made for other measures.
    """
    known = isinstance(model, dict) and model.get("format") == FORMAT and model.get("measures") == " ".join(MEASURES)
    if not known:
        raise RunError(
            "The condition model is not of this version; run notebook 12_instrument_condition again, which writes it."
        )
    return model


# -- parts of the measures ---------------------------------------------------------------------------------------------

_FARTHEST = 4.0


def _logged(values: np.ndarray) -> np.ndarray:
    columns = [MEASURES.index(name) for name in LOGGED]
    values = np.array(values, dtype=np.float64)
    values[:, columns] = np.log10(np.maximum(values[:, columns], 1e-6))
    place = MEASURES.index("inharmonicity")
    # From 1e-5 (none) to 1e-2 (a short piano string): close to the logarithm, but at home around 0, too.
    values[:, place] = np.arcsinh(values[:, place] / 1e-4)
    return values


def _segments(signal: np.ndarray, segment_s: float, rate_hz: int) -> list[np.ndarray]:
    """Cut a long recording into segments spread evenly over it; the silent ones are left out where there are others."""
    n = round(segment_s * rate_hz)
    count = min(MAX_SEGMENTS, max(1, len(signal) // n))
    starts = np.linspace(0, max(0, len(signal) - n), count).round().astype(int)
    parts = [signal[start : start + n] for start in starts]
    peaks = np.array([np.abs(part).max(initial=0.0) for part in parts])
    return [part for part, peak in zip(parts, peaks, strict=True) if peak >= peaks.max() * 10 ** (-SOUNDING_DB / 20)]


def _length(duration_s: float, sample_rate_hz: int, signal: np.ndarray) -> int:
    """Return the samples of a frame: the power of two nearest to its duration, and no more than there are."""
    wanted = round(math.log2(duration_s * sample_rate_hz))
    return 1 << max(3, min(wanted, int(math.log2(max(len(signal), 1)))))


def _frames(signal: np.ndarray, n: int) -> np.ndarray:
    """Frames of `n` samples, half of each shared with the next [shape=(n_frames, n)]; at least one."""
    if len(signal) < n:
        signal = np.pad(signal, (0, n - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(signal, n)[:: n // 2]


@functools.lru_cache(maxsize=8)
def _window(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a Hann window and its autocorrelation, padded to twice its length so that nothing wraps around."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    n_fft = 2 * n
    return window, np.fft.irfft(np.square(np.abs(np.fft.rfft(window, n_fft))))


def _periodicity(power: np.ndarray, norm: np.ndarray, n: int, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of periodic energy and the period in samples of each frame, from padded power spectra."""
    correlation = np.fft.irfft(power, axis=1)
    first = max(2, int(sample_rate_hz / HIGHEST_HZ))
    last = max(first + 2, min(math.ceil(sample_rate_hz / LOWEST_HZ), n // 4))
    reach = min(_SINC_REACH, n // 4)
    lags = np.arange(-reach, last + reach + 1)
    at = np.abs(lags)
    whole = np.maximum(correlation[:, :1], 1e-300)
    normal = (correlation[:, at] / whole) * (norm[0] / norm[at])
    left, top, right = (normal[:, reach + first + step : reach + last + step] for step in (-1, 0, 1))
    tops = (top >= left) & (top > right)
    # Between samples a maximum is higher: without the parabola, a multiple that falls on a sample would win.
    height = top + 0.125 * np.square(left - right) / np.where(tops, 2 * top - left - right, 1.0)
    worth = np.where(tops, height - _OCTAVE_COST * np.log2(np.arange(first, last) / first), -np.inf)
    best = worth.argmax(axis=1) + first
    around = np.take_along_axis(normal, best[:, None] + np.arange(2 * reach + 1), axis=1)
    fine = around @ _sinc(reach).T
    place = fine.argmax(axis=1)
    rows, inner = np.arange(len(fine)), np.clip(place, 1, _FINE - 1)
    left, top, right = (fine[rows, inner + step] for step in (-1, 0, 1))
    bend = np.minimum(left - 2 * top + right, -1e-12)
    shift = np.clip(0.5 * (left - right) / bend, -1, 1)
    share = np.maximum(top - 0.25 * (left - right) * shift, fine[rows, place])
    period = best + (inner + shift - _FINE // 2) / _FINE
    nothing = ~tops.any(axis=1)
    return np.where(nothing, 0.0, share), np.where(nothing, float(last), period)


@functools.lru_cache(maxsize=4)
def _sinc(reach: int) -> np.ndarray:
    """Weights of the neighbours for values between samples, at offsets from -1/2 to 1/2 [shape=(_FINE + 1, n)]."""
    distance = np.linspace(-0.5, 0.5, _FINE + 1)[:, None] - np.arange(-reach, reach + 1)
    return np.sinc(distance) * np.cos(0.5 * np.pi * distance / (reach + 1)) ** 2


def _ratio_db(periodic: np.ndarray) -> np.ndarray:
    low, high = (1 / (1 + 10 ** (-limit / 10)) for limit in _HNR_RANGE_DB)
    share = np.clip(periodic, low, high)
    return 10 * np.log10(share / (1 - share))


def _flatness(power: np.ndarray) -> np.ndarray:
    mean = np.maximum(power.mean(axis=-1), 1e-300)
    geometric = np.exp(np.log(np.maximum(power / mean[..., None], _FLATNESS_FLOOR)).mean(axis=-1))
    return geometric * math.exp(np.euler_gamma)


def _brightness(power: np.ndarray, bins_hz: np.ndarray) -> tuple[float, float]:
    below = np.cumsum(power)
    roll_off_hz = float(bins_hz[np.searchsorted(below, ROLL_OFF * below[-1])])
    edges = _third_octaves(*_HIGHEST_SLOPE_HZ, bins_hz)
    level_db = 10 * np.log10(np.maximum(_bands(power[None], bins_hz, edges)[0], below[-1] * 1e-10))
    octaves = np.log2(edges[:-1])
    return roll_off_hz, float(np.polyfit(octaves, level_db, 1)[0])


def _third_octaves(low_hz: float, high_hz: float, bins_hz: np.ndarray) -> np.ndarray:
    high_hz = min(high_hz, float(bins_hz[-1]))
    return low_hz * 2 ** (np.arange(1 + math.floor(3 * math.log2(high_hz / low_hz) + 1e-9)) / 3)


def _bands(power: np.ndarray, bins_hz: np.ndarray, edges_hz: np.ndarray) -> np.ndarray:
    """Sum power spectra within bands [shape=(n, n_bands)]."""
    total = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    return np.diff(total[:, np.searchsorted(bins_hz, edges_hz)], axis=1)


def _unevenness(spectra: np.ndarray, bins_hz: np.ndarray) -> float:
    """Deviation over time of how each band's level changes beyond that of the whole, the median over loud bands."""
    if len(spectra) < 4:
        return math.nan
    bands = _bands(spectra, bins_hz, _third_octaves(125.0, 8000.0, bins_hz))
    mean = bands.mean(axis=0)
    loud = mean >= mean.max() * 10 ** (-SOUNDING_DB / 10)
    level_db = 10 * np.log10(bands[:, loud] + mean.max() * 1e-8)
    whole_db = 10 * np.log10(bands.sum(axis=1) + mean.max() * 1e-8)
    change_db = np.diff(level_db - whole_db[:, None], axis=0)
    # Of the middle half: notes that set in change everything, and are no fault.
    spread = np.subtract(*np.percentile(change_db, [75, 25], axis=0))
    return float(np.median(spread))


def _level(signal: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, float]:
    """Level in dB below the loudest frame, about every 10 ms, under Hann windows of 46 ms, and the exact step in s."""
    n = _length(_LEVEL_FRAME_S, sample_rate_hz, signal)
    hop = max(1, round(_LEVEL_HOP_S * sample_rate_hz))
    window, _ = _window(n)
    frames = np.lib.stride_tricks.sliding_window_view(np.square(signal), min(n, len(signal)))[::hop]
    power = frames @ window[: frames.shape[1]]
    return 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-300), 1e-10)), hop / sample_rate_hz


def _lines(level_db: np.ndarray, step_s: float) -> tuple[float, float, float]:
    """Lay lines through the level: median rate and variance of those that fall, and the residual of all."""
    n = round(_LINE_S / step_s)
    if len(level_db) < n:
        return math.nan, math.nan, math.nan
    parts = np.lib.stride_tricks.sliding_window_view(level_db, n)
    parts = parts[parts.min(axis=1) > -SOUNDING_DB - 10]
    if not len(parts):
        return math.nan, math.nan, math.nan
    time_s = (np.arange(n) - (n - 1) / 2) * step_s
    slopes = parts @ time_s / np.square(time_s).sum()
    rest = parts - parts.mean(axis=1, keepdims=True) - slopes[:, None] * time_s
    flutter = float(np.median(rest.std(axis=1)))
    falling = slopes[slopes < 0]
    if not len(falling):
        return math.nan, math.nan, flutter
    return float(-np.median(falling)), float(falling.var()), flutter


def _modulation(level_db: np.ndarray, step_s: float) -> tuple[float, float]:
    if len(level_db) < 0.5 / step_s:
        return math.nan, math.nan
    level = np.maximum(level_db, -SOUNDING_DB)
    time = np.linspace(-1, 1, len(level))
    level = level - np.polyval(np.polyfit(time, level, 1), time)
    window = np.hanning(len(level) + 2)[1:-1]
    power = np.square(np.abs(np.fft.rfft(level * window))) * 2 / (len(level) * np.square(window).sum())
    rates_hz = np.fft.rfftfreq(len(level), step_s)
    inside = power[(rates_hz >= _BEATS_HZ[0]) & (rates_hz <= _BEATS_HZ[1])]
    total = float(inside.sum())
    if not total > 1e-12:
        return 0.0, math.nan
    return math.sqrt(total), min(1.0, float(np.convolve(inside, np.ones(3), "same").max()) / total)


def _treble(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Kurtosis and burstiness of what lies above `TREBLE_HZ`, medians over blocks of about 0.1 s."""
    n_fft = -(-len(signal) // 4096) * 4096  # a multiple of a power of two is fast
    bins_hz = np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)
    # A soft edge of half an octave, so that the filter does not ring.
    edge = np.clip(2 * np.log2(np.maximum(bins_hz, 1.0) / min(TREBLE_HZ, sample_rate_hz / 4)) + 1, 0, 1)
    treble = np.fft.irfft(np.fft.rfft(signal, n_fft) * edge, n_fft)[: len(signal)]
    step = max(1, round(_BURST_S * sample_rate_hz))
    n_blocks = len(signal) // (step * _BURSTS)
    if not n_blocks:
        return math.nan, math.nan
    blocks = treble[: n_blocks * step * _BURSTS].reshape(n_blocks, _BURSTS, step)
    power = np.square(blocks).mean(axis=2)
    mean = power.mean(axis=1)
    heard = mean > max(float(mean.max()) * 10 ** (-SOUNDING_DB / 10), 1e-14)
    if not heard.any():
        return math.nan, math.nan
    power, mean, blocks = power[heard], mean[heard], blocks[heard]
    fourth = np.square(np.square(blocks)).mean(axis=(1, 2))
    kurtosis = float(np.median(fourth / np.square(mean)))
    bursts_db = 10 * np.log10(mean) - 10 * np.log10(np.maximum(power, mean[:, None] * 1e-8)).mean(axis=1)
    return kurtosis, float(np.median(bursts_db))


def _fit_partials(level_db: np.ndarray, bin_hz: float, fundamental_hz: float) -> tuple[float, int]:
    """Track partials in one spectrum in dB; return B (NaN when they do not follow the law) and how many there are."""
    floor_db = level_db.max() - _PARTIAL_RANGE_DB
    squared_hz, coefficient = fundamental_hz**2, 0.0
    numbers: list[int] = []
    found_hz: list[float] = []
    misses = 0
    for number in range(1, _MAX_PARTIALS + 1):
        expected_hz = number * math.sqrt(max(squared_hz * (1 + coefficient * number**2), 1.0))
        # A quarter of the distance of partials is searched, but at least the width of a peak.
        reach = max(0.25 * math.sqrt(max(squared_hz, 1.0)) / bin_hz, 8)
        low, high = round(expected_hz / bin_hz - reach), round(expected_hz / bin_hz + reach)
        if low < 1 or high >= len(level_db) - 1:
            break
        peak = low + int(level_db[low : high + 1].argmax())
        left, top, right = level_db[peak - 1 : peak + 2]
        if top < floor_db or not (top >= left and top >= right) or top - np.median(level_db[low : high + 1]) < 6:
            misses += 1
            if misses > 3:
                break
            continue
        bend = left - 2 * top + right
        found_hz.append((peak + (0.5 * (left - right) / bend if bend < 0 else 0.0)) * bin_hz)
        numbers.append(number)
        if len(numbers) >= 2:
            squared_hz, coefficient = _line(numbers, found_hz)
    if len(numbers) < _MIN_PARTIALS:
        return math.nan, len(numbers)
    predicted_hz = np.array(numbers) * np.sqrt(np.maximum(squared_hz * (1 + coefficient * np.square(numbers)), 0.0))
    # Partials of another note, or of noise, do not lie on the line: off by a hundredth of the fundamental is enough.
    if np.sqrt(np.mean(np.square(predicted_hz - found_hz))) > 0.01 * fundamental_hz + bin_hz:
        return math.nan, len(numbers)
    return float(coefficient), len(numbers)


def _line(numbers: list[int], found_hz: list[float]) -> tuple[float, float]:
    """Fit (f_n / n)² = f0² (1 + B n²), in which every partial's frequency counts alike; return f0² and B."""
    n = np.array(numbers, dtype=float)
    y = np.square(np.array(found_hz) / n)
    # The same error of f_n makes one of 2 f_n / n² in y, which falls as 1 / n: so a partial weighs as its number.
    slope, squared = np.polyfit(np.square(n), y, 1, w=n)
    return float(squared), float(np.clip(slope / max(squared, 1.0), -1e-3, 0.05))
