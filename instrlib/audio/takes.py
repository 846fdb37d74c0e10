"""The same sound in another recording: tone colour, length, room and noise drawn anew, on log-mel spectrograms.

What a recording does to a sound is nearly the same for every instrument, and a network that hears each example in one
recording alone learns it with the instrument. All acts on powers, band by band and frame by frame, so that it costs
little and can be drawn for every batch; phases are not known, so sounds and their echoes add as they do on average.
"""

import numpy as np

COLOUR_DB = 10.0
"""Largest rise or dip of each of the bells that colour the tone; the slope is up to a quarter of it an octave."""

SHORTEST_S = 0.3
"""What is cut keeps at least so much."""

REVERBERATION_S = (0.15, 1.8)
"""Times in which the echo falls by 60 dB, drawn alike on a logarithmic scale."""

SNR_DB = (10.0, 60.0)
"""Signal-to-noise ratios."""


def retake(
    x: np.ndarray, *, share: float, centres_hz: np.ndarray, hop_s: float, floor: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Put some examples of a batch into other recordings.

    In this order, each for a share of them and with everything about it drawn: three bells and a slope over
    frequency and, one in three, a low-pass and a high-pass; a stretch around the loudest moment is kept and the rest
    is silence (half of them); a reverberation that is longer in the bass (half); steady noise of any colour (seven in
    ten).

    Parameters
    ----------
    x : np.ndarray [shape=(batch, n_bins, n_frames), float32]
        Log-mel spectrograms in dB below the loudest point; left as they are.
    share : float
        Share of the examples that are changed, 0 to 1.
    centres_hz : np.ndarray [shape=(n_bins,)]
        Where the mel bands have their peaks.
    hop_s : float
        Step between two frames in seconds.
    floor : np.ndarray [shape=(n_bins,), float32]
        Level of silence.
    rng : np.random.Generator
        Decides everything.

    Returns
    -------
    np.ndarray [shape of x, float32]
        Again in dB below the loudest point.

    Examples
    --------
    >>> x = np.full((2, 4, 60), -80, np.float32)
    >>> x[:, 1] = 0
    >>> settings = {"centres_hz": np.array([200, 400, 800, 1600]), "hop_s": 0.046, "floor": x[0, 0, :4]}
    >>> again = retake(x, share=1.0, **settings, rng=np.random.default_rng(0))
    >>> again.max(axis=(1, 2)).tolist(), bool(np.allclose(again, x))
    ([0.0, 0.0], False)
    """
    sounds = (x > floor[:, None]).any(axis=(1, 2))  # what is silent stays so
    changed = np.flatnonzero((rng.random(len(x)) < share) & sounds)
    result = x.astype(np.float32)
    if changed.size:
        result[changed] = _retaken(result[changed], centres_hz, hop_s, floor, rng)
    return result


def _retaken(
    x: np.ndarray, centres_hz: np.ndarray, hop_s: float, floor: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Put every example of a batch into another recording; see `retake`."""
    n = len(x)
    octaves = np.log2(centres_hz / 800.0).astype(np.float32)
    power = np.where(x > floor[:, None], 10 ** (x / 10), np.float32(0))
    power *= 10 ** (_colour(n, octaves, rng)[:, :, None] / 10)
    power *= _kept(power, max(1, round(SHORTEST_S / hop_s)), rng)[:, None, :]
    power = _reverberated(power, octaves, hop_s, rng)
    power += _noise(power, octaves, rng)
    loudest = np.maximum(power.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
    level_db = 10 * np.log10(np.maximum(power / loudest, np.finfo(np.float32).tiny))
    return np.maximum(level_db, floor[:, None])


def _bells(n: int, octaves: np.ndarray, number: int, largest_db: float, rng: np.random.Generator) -> np.ndarray:
    """Return the sum of broad rises and dips in dB [shape=(n, n_bins)]."""
    centre = rng.uniform(-3, 3.3, (number, n, 1))
    width = rng.uniform(0.3, 1.5, (number, n, 1))
    height_db = rng.uniform(-largest_db, largest_db, (number, n, 1))
    return (height_db * np.exp(-0.5 * ((octaves - centre) / width) ** 2)).sum(axis=0).astype(np.float32)


def _colour(n: int, octaves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return gains in dB [shape=(n, n_bins)]: what microphones, distances and codecs do to the tone."""
    gain_db = _bells(n, octaves, 3, COLOUR_DB, rng) + rng.uniform(-COLOUR_DB / 4, COLOUR_DB / 4, (n, 1)) * octaves
    slope_db = rng.uniform(12, 60, (n, 1))  # an octave
    above = np.where(rng.random((n, 1)) < 1 / 3, np.log2(rng.uniform(2000, 11000, (n, 1)) / 800), np.inf)
    below = np.where(rng.random((n, 1)) < 1 / 3, np.log2(rng.uniform(40, 350, (n, 1)) / 800), -np.inf)
    outside = np.maximum(octaves - above, 0) + np.maximum(below - octaves, 0) / 2
    return (gain_db - slope_db * outside).astype(np.float32)


def _kept(power: np.ndarray, shortest: int, rng: np.random.Generator) -> np.ndarray:
    """Say which frames are kept, bool [shape=(n, n_frames)]; the loudest always is."""
    n, _, n_frames = power.shape
    length = rng.integers(min(shortest, n_frames), n_frames, size=n, endpoint=True)
    loudest = power.sum(axis=1).argmax(axis=1)
    first = np.clip(loudest - rng.integers(length), 0, n_frames - length)
    frames = np.arange(n_frames)
    cut = (frames >= first[:, None]) & (frames < (first + length)[:, None])
    return cut | (rng.random((n, 1)) < 0.5)


def _reverberated(power: np.ndarray, octaves: np.ndarray, hop_s: float, rng: np.random.Generator) -> np.ndarray:
    """Add to each frame what is left of those before it."""
    n = len(power)
    fall_s = np.exp(rng.uniform(*np.log(REVERBERATION_S), (n, 1)))
    fall_s = fall_s * np.exp2(-0.25 * rng.random((n, 1)) * np.maximum(octaves, 0))  # air takes the treble
    kept = (10 ** (-6 * hop_s / fall_s)).astype(np.float32)
    level_db = np.where(rng.random((n, 1)) < 0.5, rng.uniform(-20, -3, (n, 1)), -np.inf)
    gain = (10 ** (level_db / 10) * (1 - kept)).astype(np.float32)
    total, tail = power.copy(), np.zeros(power.shape[:2], np.float32)
    for frame in range(1, power.shape[2]):
        tail = kept * tail + power[:, :, frame - 1]
        total[:, :, frame] += gain * tail
    return total


def _noise(power: np.ndarray, octaves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return steady noise [shape of power]; its power in a band and frame is that of a few independent components."""
    n = len(power)
    spectrum = 10 ** ((_bells(n, octaves, 2, 8.0, rng) + rng.uniform(-6, 2, (n, 1)) * octaves) / 10)
    spectrum /= spectrum.mean(axis=1, keepdims=True)
    snr_db = np.where(rng.random(n) < 0.7, rng.uniform(*SNR_DB, n), np.inf)
    level = power.mean(axis=(1, 2)) * 10 ** (-snr_db / 10)
    grain = rng.standard_gamma(6, size=power.shape, dtype=np.float32) / np.float32(6)
    return (level[:, None] * spectrum).astype(np.float32)[:, :, None] * grain
