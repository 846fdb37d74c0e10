"""Acoustic measures of the condition of an instrument, tested against values in closed form.

They import only NumPy, because the web page computes them.
"""

import functools
import math

import numpy as np

MEASURES = {
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
"""What `measure` returns, in this order, with labels for tables and figures."""

PERIODIC = 0.5
"""A frame has a fundamental when at least this share of its energy is periodic."""

LOWEST_HZ, HIGHEST_HZ = 40.0, 2000.0
"""Range of the fundamental. Above it a multiple of the period is found, which is as periodic."""

SOUNDING_DB = 40.0
"""Frames further below the loudest one do not count."""

TREBLE_HZ = 2000.0
ROLL_OFF = 0.95

_FRAME_S = 0.186  # seven periods of the lowest fundamental; Boersma requires six
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
_MAX_PARTIALS, _MIN_PARTIALS = 16, 5
_PARTIAL_RANGE_DB = 60.0
_SLOPE_RANGE_HZ = (500.0, 8000.0)


def measure(signal: np.ndarray, sample_rate_hz: int) -> dict[str, float]:
    """Measure a few seconds of mono sound; all measures are independent of the level.

    Returns a dict in the order of `MEASURES`. NaN are: `fundamental_hz` and `inharmonicity` of noise and drums,
    `decay_rate_db_s` and `decay_variance` without a decay of a quarter of a second, and all measures of silence.

    Defined only here are: `harmonic_to_noise_spread_db`, the interquartile range over frames (beating and rattling are
    intermittent); `band_unevenness_db`, how differently the levels of third-octave bands change between frames;
    `treble_kurtosis`, 1.5 for a tone, 3 for noise, more for pulses; `treble_burstiness_db`, the ratio of the arithmetic
    to the geometric mean of the treble's power in steps of 6 ms.

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
    periodic, period, power = _periodicity(frames[energy >= energy.max() * 10 ** (-SOUNDING_DB / 10)], sample_rate_hz)
    hnr_db = _ratio_db(periodic)
    found["harmonic_to_noise_db"] = float(np.median(hnr_db))
    found["harmonic_to_noise_spread_db"] = float(np.subtract(*np.percentile(hnr_db, [75, 25])))
    spectra = power[:, ::2]  # every second bin of the padded spectrum is the spectrum of the frame itself
    bins_hz = np.linspace(0, sample_rate_hz / 2, spectra.shape[1])
    treble = bins_hz >= min(TREBLE_HZ, sample_rate_hz / 4)
    found["spectral_flatness"] = float(np.median(flatness(spectra[:, 3:-1])))
    found["treble_flatness"] = float(np.median(flatness(spectra[:, treble][:, :-1])))
    found["roll_off_hz"], found["spectral_slope_db_octave"] = _brightness(spectra.mean(axis=0), bins_hz)
    found["band_unevenness_db"] = _unevenness(spectra, bins_hz)
    if np.median(periodic) >= PERIODIC:
        steadiest = period[np.argsort(-periodic, kind="stable")[: max(1, len(period) // 2)]]
        found["fundamental_hz"] = float(sample_rate_hz / np.median(steadiest))
        found["inharmonicity"], _ = inharmonicity(signal, sample_rate_hz, found["fundamental_hz"])
    found["decay_rate_db_s"], found["decay_variance"], found["level_flutter_db"] = decay(signal, sample_rate_hz)
    found["modulation_depth_db"], found["modulation_peak"] = modulation(signal, sample_rate_hz)
    found["treble_kurtosis"], found["treble_burstiness_db"] = _treble(signal, sample_rate_hz)
    return found


def harmonicity(signal: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Return harmonic-to-noise ratio (dB, -20 to 50) and fundamental (Hz, NaN if aperiodic) of each frame [1]_.

    The autocorrelation of a Hann-windowed frame, divided by that of the window, has its maximum r = H / (H + N) at the
    period; the ratio is 10 log10(r / (1 - r)) dB. White noise gives about -12 dB, because some lag always fits best.

    References
    ----------
    .. [1] P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
       sampled sound", IFA Proceedings 17, 1993, 97-110.
    """
    signal = np.asarray(signal, dtype=np.float64)
    frames = _frames(signal, _length(_FRAME_S, sample_rate_hz, signal))
    periodic, period, _ = _periodicity(frames, sample_rate_hz)
    return _ratio_db(periodic), np.where(periodic >= PERIODIC, sample_rate_hz / period, np.nan)


def flatness(power: np.ndarray) -> np.ndarray:
    """Return the spectral flatness of power spectra [..., n_bins]: 0 for a tone, on average 1 for white noise.

    The ratio of geometric to arithmetic mean is divided by its value for white noise, exp(-0.5772) = 0.56.
    """
    power = np.asarray(power, dtype=np.float64)
    mean = np.maximum(power.mean(axis=-1), 1e-300)
    geometric = np.exp(np.log(np.maximum(power / mean[..., None], _FLATNESS_FLOOR)).mean(axis=-1))
    return geometric * math.exp(np.euler_gamma)


def decay(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float, float]:
    """Return median rate (dB/s) and variance ((dB/s)²) of falling levels, and the flutter (dB) of all levels.

    Lines are fitted to all sounding quarters of a second: falling ones give rate and variance, residuals of all give
    the flutter. An exponential decay has variance 0.
    """
    level_db, step_s = _level(signal, sample_rate_hz)
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


def modulation(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Return RMS depth (dB) of the level modulation at 3 to 25 Hz, and the share of its main rate (0 to 1).

    A modulation by ± d dB has depth d / sqrt(2). NaN for sounds shorter than half a second.
    """
    level_db, step_s = _level(signal, sample_rate_hz)
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


def inharmonicity(signal: np.ndarray, sample_rate_hz: int, fundamental_hz: float) -> tuple[float, int]:
    """Return the inharmonicity B of a stiff string, f_n = n f0 sqrt(1 + B n²) [1]_, and the number of partials.

    Partials are tracked in the three most energetic frames of 0.37 s; (f_n / n)² is linear in n². B is NaN if fewer
    than five partials fit. Piano strings have 1e-4 to 1e-2, winds and bowed strings 0.

    References
    ----------
    .. [1] H. Fletcher, E. D. Blackham, R. Stratton, "Quality of piano tones", J. Acoust. Soc. Am. 34(6), 1962,
       749-761. doi:10.1121/1.1918192
    """
    signal = np.asarray(signal, dtype=np.float64)
    n = _length(_PARTIAL_FRAME_S, sample_rate_hz, signal)
    frames = _frames(signal, n)
    frames = frames[np.argsort(-np.square(frames).sum(axis=1), kind="stable")[:3]]
    # Fourfold zero-padding: the error of parabolic interpolation is then below 0.01 bins.
    n_fft = 4 * n
    level_db = 10 * np.log10(np.square(np.abs(np.fft.rfft(frames * np.hanning(n), n_fft))) + 1e-30)
    found = [_fit_partials(one, sample_rate_hz / n_fft, fundamental_hz) for one in level_db]
    told = [coefficient for coefficient, _ in found if math.isfinite(coefficient)]
    return (float(np.median(told)) if told else math.nan), max(count for _, count in found)


def _length(duration_s: float, sample_rate_hz: int, signal: np.ndarray) -> int:
    """Return the frame length in samples: the power of two nearest to a duration, within the signal."""
    wanted = round(math.log2(duration_s * sample_rate_hz))
    return 1 << max(3, min(wanted, int(math.log2(max(len(signal), 1)))))


def _frames(signal: np.ndarray, n: int) -> np.ndarray:
    """Return frames of `n` samples with an overlap of half [shape=(n_frames, n)]; at least one."""
    if len(signal) < n:
        signal = np.pad(signal, (0, n - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(signal, n)[:: n // 2]


@functools.lru_cache(maxsize=8)
def _window(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a Hann window and its autocorrelation, padded to twice its length against wrap-around."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    n_fft = 2 * n
    return window, np.fft.irfft(np.square(np.abs(np.fft.rfft(window, n_fft))))


def _periodicity(frames: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of periodic energy, the period in samples and the padded power spectrum per frame."""
    n = frames.shape[1]
    window, norm = _window(n)
    power = np.square(np.abs(np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, norm.size)))
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
    # Interpolate the maximum; otherwise a multiple of the period that falls on a sample would be higher.
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
    return np.where(nothing, 0.0, share), np.where(nothing, float(last), period), power


@functools.lru_cache(maxsize=4)
def _sinc(reach: int) -> np.ndarray:
    """Return interpolation weights at offsets from -1/2 to 1/2 [shape=(_FINE + 1, n)]."""
    distance = np.linspace(-0.5, 0.5, _FINE + 1)[:, None] - np.arange(-reach, reach + 1)
    return np.sinc(distance) * np.cos(0.5 * np.pi * distance / (reach + 1)) ** 2


def _ratio_db(periodic: np.ndarray) -> np.ndarray:
    low, high = (1 / (1 + 10 ** (-limit / 10)) for limit in _HNR_RANGE_DB)
    share = np.clip(periodic, low, high)
    return 10 * np.log10(share / (1 - share))


def _brightness(power: np.ndarray, bins_hz: np.ndarray) -> tuple[float, float]:
    below = np.cumsum(power)
    roll_off_hz = float(bins_hz[np.searchsorted(below, ROLL_OFF * below[-1])])
    edges = _third_octaves(*_SLOPE_RANGE_HZ, bins_hz)
    level_db = 10 * np.log10(np.maximum(_bands(power[None], bins_hz, edges)[0], below[-1] * 1e-10))
    octaves = np.log2(edges[:-1])
    return roll_off_hz, float(np.polyfit(octaves, level_db, 1)[0])


def _third_octaves(low_hz: float, high_hz: float, bins_hz: np.ndarray) -> np.ndarray:
    high_hz = min(high_hz, float(bins_hz[-1]))
    return low_hz * 2 ** (np.arange(1 + math.floor(3 * math.log2(high_hz / low_hz) + 1e-9)) / 3)


def _bands(power: np.ndarray, bins_hz: np.ndarray, edges_hz: np.ndarray) -> np.ndarray:
    total = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    return np.diff(total[:, np.searchsorted(bins_hz, edges_hz)], axis=1)


def _unevenness(spectra: np.ndarray, bins_hz: np.ndarray) -> float:
    """Return the deviation over time of band level changes from the overall change, median over loud bands."""
    if len(spectra) < 4:
        return math.nan
    bands = _bands(spectra, bins_hz, _third_octaves(125.0, 8000.0, bins_hz))
    mean = bands.mean(axis=0)
    loud = mean >= mean.max() * 10 ** (-SOUNDING_DB / 10)
    level_db = 10 * np.log10(bands[:, loud] + mean.max() * 1e-8)
    whole_db = 10 * np.log10(bands.sum(axis=1) + mean.max() * 1e-8)
    change_db = np.diff(level_db - whole_db[:, None], axis=0)
    # Of the middle half, because onsets change all bands and are no damage.
    spread = np.subtract(*np.percentile(change_db, [75, 25], axis=0))
    return float(np.median(spread))


def _level(signal: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, float]:
    """Return the level in dB below the maximum, about every 10 ms (Hann windows of 46 ms), and the step in s."""
    n = _length(_LEVEL_FRAME_S, sample_rate_hz, signal)
    hop = max(1, round(_LEVEL_HOP_S * sample_rate_hz))
    window, _ = _window(n)
    frames = np.lib.stride_tricks.sliding_window_view(np.square(signal), min(n, len(signal)))[::hop]
    power = frames @ window[: frames.shape[1]]
    return 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-300), 1e-10)), hop / sample_rate_hz


def _treble(signal: np.ndarray, sample_rate_hz: int) -> tuple[float, float]:
    """Return kurtosis and burstiness above `TREBLE_HZ`, medians over blocks of about 0.1 s."""
    n_fft = -(-len(signal) // 4096) * 4096  # multiples of a power of two are fast
    bins_hz = np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)
    # A transition of half an octave avoids ringing.
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
    """Track partials in one spectrum in dB; return B (NaN if they do not fit) and their number."""
    floor_db = level_db.max() - _PARTIAL_RANGE_DB
    squared_hz, coefficient = fundamental_hz**2, 0.0
    numbers: list[int] = []
    found_hz: list[float] = []
    misses = 0
    for number in range(1, _MAX_PARTIALS + 1):
        expected_hz = number * math.sqrt(max(squared_hz * (1 + coefficient * number**2), 1.0))
        # Search a quarter of the partial spacing, but at least the width of a peak.
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
    # Peaks of another note or of noise deviate from the line by more than 1 % of the fundamental.
    if np.sqrt(np.mean(np.square(predicted_hz - found_hz))) > 0.01 * fundamental_hz + bin_hz:
        return math.nan, len(numbers)
    return float(coefficient), len(numbers)


def _line(numbers: list[int], found_hz: list[float]) -> tuple[float, float]:
    """Fit (f_n / n)² = f0² (1 + B n²) with equal weight for all partial frequencies; return f0² and B."""
    n = np.array(numbers, dtype=float)
    y = np.square(np.array(found_hz) / n)
    # An error of f_n changes y by 2 f_n / n², proportional to 1 / n, so the weight of a partial is its number.
    slope, squared = np.polyfit(np.square(n), y, 1, w=n)
    return float(squared), float(np.clip(slope / max(squared, 1.0), -1e-3, 0.05))
