"""Condition of an instrument (healthy, aged or broken), classified from sixteen acoustic measures.

Notebook 12 trains the model, a logistic regression; its use needs neither scikit-learn nor TensorFlow.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.signal

from instrlib.core.io import RunError
from instrlib.evaluation.calibration import softmax

MEASURES = {  # what `measure` returns, in this order, with labels for tables and figures
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

CONDITIONS = ("healthy", "aged", "broken")

LOGGED = (  # positive measures that span several powers of ten: models see their logarithm
    *("spectral_flatness", "treble_flatness", "decay_variance", "level_flutter_db", "modulation_depth_db"),
    *("fundamental_hz", "roll_off_hz", "treble_kurtosis", "treble_burstiness_db"),
)

FORMAT = 2  # version of the model file; raised whenever `measure` or `inputs` changes
MAX_SEGMENTS = 20  # of a long recording that are measured, spread evenly over it
ROLL_OFF = 0.95

_LOWEST_HZ, _HIGHEST_HZ = 40.0, 2000.0  # above, a multiple of the period is found, which is as periodic
_PERIODIC = 0.5  # least share of periodic energy of a sound with a fundamental
_SOUNDING_DB = 40.0  # frames further below the loudest one do not count
_TREBLE_HZ = 2000.0
_FRAME_S, _PARTIAL_FRAME_S, _LEVEL_FRAME_S = 0.186, 0.372, 0.046  # the first: seven periods of the lowest fundamental
_FINE = 4  # steps per sample of the autocorrelation
_FARTHEST = 4.0  # standard deviations; values beyond are clipped


def measure(signal: np.ndarray, sample_rate_hz: int) -> dict[str, float]:
    """Measure a few seconds of mono sound; all measures are independent of the level.

    Returns a dict in the order of `MEASURES`; undefined ones are NaN, such as `fundamental_hz` of noise, and all of
    silence. The spread of the harmonic-to-noise ratio is its interquartile range over frames (beating and rattling are
    intermittent). `band_unevenness_db` is how differently the levels of third-octave bands change between frames.
    `treble_kurtosis` is 1.5 for a tone, 3 for noise, more for pulses. `treble_burstiness_db` is the ratio of the
    arithmetic to the geometric mean of the treble's power in steps of 6 ms.
    """
    signal = np.asarray(signal, dtype=np.float64)
    found = dict.fromkeys(MEASURES, math.nan)
    peak = float(np.abs(signal).max(initial=0.0))
    if not peak > 0:
        return found
    signal = signal / peak
    frames = _frames(signal, _FRAME_S, sample_rate_hz)
    energy = np.square(frames).sum(axis=1)
    periodic, period, power = _periodicity(frames[energy >= energy.max() * 10 ** (-_SOUNDING_DB / 10)], sample_rate_hz)
    share = np.clip(periodic, 1 / (1 + 10**2), 1 / (1 + 10**-5))  # -20 to 50 dB
    hnr_db = 10 * np.log10(share / (1 - share))
    found["harmonic_to_noise_db"] = np.median(hnr_db)
    found["harmonic_to_noise_spread_db"] = np.subtract(*np.percentile(hnr_db, [75, 25]))
    spectra = power[:, ::2]  # every second bin of the padded spectrum is the spectrum of the frame itself
    bins_hz = np.linspace(0, sample_rate_hz / 2, spectra.shape[1])
    treble = bins_hz >= min(_TREBLE_HZ, sample_rate_hz / 4)
    found["spectral_flatness"] = np.median(_flatness(spectra[:, 3:-1]))
    found["treble_flatness"] = np.median(_flatness(spectra[:, treble][:, :-1]))
    below = np.cumsum(spectra.mean(axis=0))
    found["roll_off_hz"] = bins_hz[np.searchsorted(below, ROLL_OFF * below[-1])]
    bands, octaves = _third_octaves(spectra.mean(axis=0, keepdims=True), bins_hz, 500.0)
    level_db = 10 * np.log10(np.maximum(bands[0], below[-1] * 1e-10))
    found["spectral_slope_db_octave"] = np.polyfit(octaves, level_db, 1)[0]
    found["band_unevenness_db"] = _unevenness(spectra, bins_hz)
    if np.median(periodic) >= _PERIODIC:
        steadiest = period[np.argsort(-periodic, kind="stable")[: max(1, len(period) // 2)]]
        found["fundamental_hz"] = sample_rate_hz / np.median(steadiest)
        found["inharmonicity"] = inharmonicity(signal, sample_rate_hz, found["fundamental_hz"])
    found["decay_rate_db_s"], found["decay_variance"], found["level_flutter_db"] = decay(signal, sample_rate_hz)
    found["modulation_depth_db"], found["modulation_peak"] = modulation(signal, sample_rate_hz)
    found["treble_kurtosis"], found["treble_burstiness_db"] = _treble(signal, sample_rate_hz)
    return {name: float(value) for name, value in found.items()}


def _flatness(power: np.ndarray) -> np.ndarray:
    """Return the spectral flatness of power spectra [..., n_bins], divided by that of white noise, exp(-0.5772)."""
    relative = power / np.maximum(power.mean(axis=-1, keepdims=True), 1e-300)
    return np.exp(np.log(np.maximum(relative, 1e-12)).mean(axis=-1) + np.euler_gamma)


def decay(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float, float]:
    """Return rate (dB/s) and variance of falls, and flutter (dB), from lines fitted to 0.25 s of the level."""
    level_db, step_s = _level(signal, sample_rate_hz)
    time_s = np.arange(round(0.25 / step_s)) * step_s
    level_db = np.pad(level_db, (0, max(0, len(time_s) - len(level_db))), constant_values=-np.inf)
    parts = np.lib.stride_tricks.sliding_window_view(level_db, len(time_s))
    parts = parts[parts.min(axis=1) > -_SOUNDING_DB - 10].T
    if not parts.size:
        return math.nan, math.nan, math.nan
    slopes, starts = np.polyfit(time_s, parts, 1)
    flutter = np.median((parts - slopes * time_s[:, None] - starts).std(axis=0))
    falling = slopes[slopes < 0]
    return (-np.median(falling), falling.var(), flutter) if len(falling) else (math.nan, math.nan, flutter)


def modulation(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Return RMS depth (dB) of the level modulation at 3 to 25 Hz, and the share of its main rate (0 to 1)."""
    level_db, step_s = _level(signal, sample_rate_hz)
    if len(level_db) < 0.5 / step_s:
        return math.nan, math.nan
    rates_hz, density = scipy.signal.periodogram(
        np.maximum(level_db, -_SOUNDING_DB), 1 / step_s, window="hann", detrend="linear"
    )
    inside = density[(rates_hz >= 3) & (rates_hz <= 25)] * rates_hz[1]
    total = float(inside.sum())
    if not total > 1e-12:
        return 0.0, math.nan
    return math.sqrt(total), min(1.0, float(np.convolve(inside, np.ones(3), "same").max()) / total)


def inharmonicity(signal: np.ndarray, sample_rate_hz: int, fundamental_hz: float) -> float:
    """Return the inharmonicity B of a stiff string, f_n = n f0 sqrt(1 + B n²) (doi:10.1121/1.1918192), NaN without fit.

    Partials are tracked in the three most energetic frames of 0.37 s. Piano strings have 1e-4 to 1e-2, winds 0.
    """
    frames = _frames(signal, _PARTIAL_FRAME_S, sample_rate_hz)
    frames = frames[np.argsort(-np.square(frames).sum(axis=1), kind="stable")[:3]]
    n_fft = 4 * frames.shape[1]  # the error of parabolic interpolation is then below 0.01 bins
    level_db = 10 * np.log10(np.square(np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]), n_fft))) + 1e-30)
    fitted = np.array([_fit_partials(one, sample_rate_hz / n_fft, fundamental_hz) for one in level_db])
    return np.nanmedian(fitted) if np.isfinite(fitted).any() else math.nan


def _fit_partials(level_db: np.ndarray, bin_hz: float, fundamental_hz: float) -> float:
    """Track partials in one spectrum in dB; return B, NaN if they do not fit."""
    squared_hz, coefficient = fundamental_hz**2, 0.0
    numbers, found_hz, misses = np.zeros(0), np.zeros(0), 0
    for number in range(1, 17):
        expected_hz = number * math.sqrt(max(squared_hz * (1 + coefficient * number**2), 1.0))
        # Search a quarter of the partial spacing, but at least the width of a peak.
        reach = max(0.25 * math.sqrt(max(squared_hz, 1.0)) / bin_hz, 8)
        low, high = round(expected_hz / bin_hz - reach), round(expected_hz / bin_hz + reach)
        if low < 1 or high >= len(level_db) - 1 or misses > 3:
            break
        peak = low + int(level_db[low : high + 1].argmax())
        left, top, right = level_db[peak - 1 : peak + 2]
        clear = top - np.median(level_db[low : high + 1]) >= 6 and top >= level_db.max() - 60
        if not (clear and top >= left and top >= right):
            misses += 1
            continue
        bend = left - 2 * top + right
        numbers = np.append(numbers, number)
        found_hz = np.append(found_hz, (peak + (0.5 * (left - right) / bend if bend < 0 else 0.0)) * bin_hz)
        if len(numbers) > 1:
            # (f_n / n)² = f0² (1 + B n²). An error of f_n changes it by 2 f_n / n²: the weight of a partial is n.
            slope, squared_hz = np.polyfit(np.square(numbers), np.square(found_hz / numbers), 1, w=numbers)
            coefficient = float(np.clip(slope / max(squared_hz, 1.0), -1e-3, 0.05))
    predicted_hz = numbers * np.sqrt(np.maximum(squared_hz * (1 + coefficient * np.square(numbers)), 0.0))
    # Peaks of another note or of noise deviate from the line by more than 1 % of the fundamental.
    if len(numbers) < 5 or np.sqrt(np.mean(np.square(predicted_hz - found_hz))) > 0.01 * fundamental_hz + bin_hz:
        return math.nan
    return coefficient


def _frames(signal: np.ndarray, duration_s: float, sample_rate_hz: int) -> np.ndarray:
    """Return frames with an overlap of half [n_frames, n]; n is the power of two nearest to a duration, at least 8."""
    wanted = round(math.log2(duration_s * sample_rate_hz))
    n = 1 << max(3, min(wanted, int(math.log2(len(signal)))))
    signal = np.pad(signal, (0, max(0, n - len(signal))))
    return np.lib.stride_tricks.sliding_window_view(signal, n)[:: n // 2]


def _periodicity(frames: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of periodic energy, the period in samples and the padded power spectrum per frame.

    The autocorrelation of a Hann-windowed frame, divided by that of the window, has its maximum r = H / (H + N) at the
    period (P. Boersma, IFA Proceedings 17, 1993, 97-110). White noise has about 0.06, because some lag always fits.
    """
    n = frames.shape[1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    centred = (frames - frames.mean(axis=1, keepdims=True)) * window
    power, of_window = (np.square(np.abs(np.fft.rfft(one, 2 * n))) for one in (centred, window))
    first = max(2, int(sample_rate_hz / _HIGHEST_HZ))
    last = max(first + 2, min(math.ceil(sample_rate_hz / _LOWEST_HZ), n // 4))
    lags = np.arange(first * _FINE - 1, last * _FINE + 1)
    correlation, norm = (np.fft.irfft(one, 2 * n * _FINE) for one in (power, of_window))
    normal = correlation[:, lags] / np.maximum(correlation[:, :1], 1e-300) * (norm[0] / norm[lags])
    left, top, right = normal[:, :-2], normal[:, 1:-1], normal[:, 2:]
    peaks = (top >= left) & (top > right)
    shift = 0.5 * (left - right) / np.where(peaks, left - 2 * top + right, 1.0)
    height = np.where(peaks, top - 0.25 * (left - right) * shift, 0.0)
    # Of equally high peaks the first one is the period.
    best = np.where(peaks, height - 0.01 * np.log2(lags[1:-1] / lags[1]), -np.inf).argmax(axis=1)
    rows = np.arange(len(best))
    return height[rows, best], (lags[1:-1][best] + np.where(peaks, shift, 0.0)[rows, best]) / _FINE, power


def _third_octaves(power: np.ndarray, bins_hz: np.ndarray, low_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the power of third-octave bands up to 8 kHz [n, n_bands], and their lower edges in octaves."""
    n = math.floor(3 * math.log2(min(8000.0, float(bins_hz[-1])) / low_hz) + 1e-9)
    edges_hz = low_hz * 2 ** (np.arange(1 + n) / 3)
    total = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    return np.diff(total[:, np.searchsorted(bins_hz, edges_hz)], axis=1), np.log2(edges_hz[:-1])


def _unevenness(spectra: np.ndarray, bins_hz: np.ndarray) -> float:
    """Return the deviation over time of band level changes from the overall change, median over loud bands."""
    if len(spectra) < 4:
        return math.nan
    bands, _ = _third_octaves(spectra, bins_hz, 125.0)
    mean = bands.mean(axis=0)
    loud = mean >= mean.max() * 10 ** (-_SOUNDING_DB / 10)
    both = bands[:, loud], bands.sum(axis=1, keepdims=True)
    level_db, whole_db = (10 * np.log10(one + mean.max() * 1e-8) for one in both)
    # Of the middle half, because onsets change all bands and are no damage.
    return np.median(np.subtract(*np.percentile(np.diff(level_db - whole_db, axis=0), [75, 25], axis=0)))


def _level(signal: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, float]:
    """Return the level in dB below the maximum, about every 10 ms (Hann windows of 46 ms), and the step in s."""
    hop = max(1, round(0.01 * sample_rate_hz))
    n = min(len(signal), 1 << round(math.log2(_LEVEL_FRAME_S * sample_rate_hz)))
    power = np.lib.stride_tricks.sliding_window_view(np.square(signal), n)[::hop] @ np.hanning(n + 2)[1:-1]
    return 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-300), 1e-10)), hop / sample_rate_hz


def _treble(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Return kurtosis and burstiness above 2 kHz, medians over blocks of 16 steps of 6 ms."""
    n_fft = -(-len(signal) // 4096) * 4096  # multiples of a power of two are fast
    bins_hz = np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)
    # A transition of half an octave avoids ringing.
    edge = np.clip(2 * np.log2(np.maximum(bins_hz, 1.0) / min(_TREBLE_HZ, sample_rate_hz / 4)) + 1, 0, 1)
    treble = np.fft.irfft(np.fft.rfft(signal, n_fft) * edge, n_fft)
    step = max(1, round(0.006 * sample_rate_hz))
    n_blocks = len(signal) // (step * 16)
    blocks = treble[: n_blocks * step * 16].reshape(n_blocks, 16, step)
    power = np.square(blocks).mean(axis=2)
    mean = power.mean(axis=1)
    heard = mean > max(float(mean.max(initial=0.0)) * 10 ** (-_SOUNDING_DB / 10), 1e-14)
    if not heard.any():
        return math.nan, math.nan
    power, mean, blocks = power[heard], mean[heard], blocks[heard]
    kurtosis = np.square(np.square(blocks)).mean(axis=(1, 2)) / np.square(mean)
    bursts_db = 10 * np.log10(mean) - 10 * np.log10(np.maximum(power, mean[:, None] * 1e-8)).mean(axis=1)
    return np.median(kurtosis), np.median(bursts_db)


def inputs(values: np.ndarray, preparation: Mapping[str, Any]) -> np.ndarray:
    """Return model inputs for measures [n, n_measures]: standardised, squared, and indicators of missing values."""
    names = ("median", "mean", "deviation", "indicators")
    median, mean, deviation, indicators = (numbers(preparation[name]) for name in names)
    scaled = _logged(values)
    missing = ~np.isfinite(scaled)
    scaled = np.clip((np.where(missing, median, scaled) - mean) / deviation, -_FARTHEST, _FARTHEST)
    return np.concatenate([scaled, np.square(scaled), missing[:, indicators.astype(int)]], axis=1)


def fit_inputs(values: np.ndarray) -> dict[str, str]:
    """Return median, mean, standard deviation (after the logarithm) and the indices of incomplete measures."""
    import pandas as pd

    logged = pd.DataFrame(_logged(values))
    median, incomplete = logged.median().fillna(0), np.flatnonzero(logged.isna().any())
    filled = logged.fillna(median)
    deviation = filled.std(ddof=0)
    deviation = deviation.where(deviation > 1e-9, 1.0)
    found = {"median": median, "mean": filled.mean(), "deviation": deviation, "indicators": incomplete}
    return {name: line(one) for name, one in found.items()}


def _logged(values: np.ndarray) -> np.ndarray:
    columns, place = [list(MEASURES).index(name) for name in LOGGED], list(MEASURES).index("inharmonicity")
    values = np.array(values, dtype=np.float64)
    values[:, columns] = np.log10(np.maximum(values[:, columns], 1e-6))
    # From 1e-5 (none) to 1e-2 (a short piano string): close to the logarithm, but also defined around 0.
    values[:, place] = np.arcsinh(values[:, place] / 1e-4)
    return values


def probabilities(values: np.ndarray, model: Mapping[str, Any]) -> np.ndarray:
    """Return the probability of each condition [n, 3] for measures [n, n_measures] and the model of notebook 12."""
    weights = numbers(model["weights"]).reshape(-1, len(CONDITIONS))
    return softmax(inputs(values, model["preparation"]) @ weights + numbers(model["bias"]), model["temperature"])


def verdict(signal: np.ndarray, model: Mapping[str, Any]) -> tuple[str, dict[str, float], dict[str, float]]:
    """Classify the condition of the instrument in a mono recording, at the model's rate, with `condition.json`.

    A long recording is measured in up to `MAX_SEGMENTS` segments, silent ones left out. Returns the most probable of
    `CONDITIONS`, the calibrated probabilities (mean over the segments), and the measures (median over the segments, NaN
    where undefined). Show `model["about"]` with every verdict: the model was trained on simulated damage.
    """
    import pandas as pd

    if model.get("format") != FORMAT or model.get("measures") != " ".join(MEASURES):
        raise RunError("condition.json was made by another version; re-run notebook 12_instrument_condition.")
    rate_hz = int(model["sample_rate_hz"])
    n = round(model["segment_s"] * rate_hz)
    starts = np.linspace(0, max(0, len(signal) - n), min(MAX_SEGMENTS, max(1, len(signal) // n))).round().astype(int)
    parts = [signal[start : start + n] for start in starts]
    peaks = np.array([np.abs(part).max(initial=0.0) for part in parts])
    heard = np.flatnonzero(peaks >= peaks.max() * 10 ** (-_SOUNDING_DB / 20))
    measured = pd.DataFrame([measure(parts[place], rate_hz) for place in heard])
    answered = probabilities(measured.to_numpy(), model).mean(axis=0)
    by_condition = dict(zip(CONDITIONS, map(float, answered), strict=True))
    return CONDITIONS[int(answered.argmax())], by_condition, measured.median().to_dict()


def line(values: np.ndarray) -> str:
    """Return numbers as one string with five significant digits, which is one line of JSON."""
    return " ".join(f"{value:.5g}" for value in np.ravel(values))


def numbers(text: str) -> np.ndarray:
    """Return the numbers in a string of `line` [shape=(n,)]."""
    return np.array(text.split(), dtype=np.float64)
