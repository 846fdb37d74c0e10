"""Simulated wear and damage of an instrument, as physics suggests them, each at a severity from 0 (none) to 1.

Every degradation is a function of a signal, its sample rate, a severity and a generator. The result is as long and as
loud (RMS) as the signal, so that neither tells anything; at severity 0 it is the signal to the bit. Nothing is clipped:
where a peak comes to lie above full scale, it stays there, in floating point.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from instrlib.core.errors import ConfigError
from instrlib.core.io import hash_bytes, hash_json

VERSION = 2
"""Raised whenever the samples of a degradation change."""

SEVERITIES = (0.2, 1.0)
"""Range that the severity of a version is drawn from, all alike: below a fifth nobody hears anything."""

RECORDING_SNR_DB = (25.0, 40.0)
"""Range of the white noise under every version, the healthy one too. The noise of the original recording is filtered
and modulated together with the sound, which alone could give a degradation away. New noise masks it in part: where a
recording's own noise is louder, it is still heard."""

_PAD_S = 0.2
_SHARE = 0.5


def dull(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Take the treble away, as on old strings, whose inner friction grows with frequency, and on hardened pads.

    Above a knee between 400 and 1200 Hz the spectrum falls by 12 dB an octave more than it did at severity 1.
    """
    knee_hz = rng.uniform(400, 1200)

    def gain(frequency_hz: np.ndarray) -> np.ndarray:
        return (np.maximum(frequency_hz, knee_hz) / knee_hz) ** (-2.0 * severity)

    return _filtered(signal, sample_rate_hz, gain)


def uneven_decay(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Let the partials swell and fade irregularly, as where a string's or a bridge's contact is worn.

    Bands of half an octave go up and down on their own, at rates up to 6 Hz; at severity 1 by 8 dB RMS.
    """
    edges_hz = 100.0 * 2 ** (np.arange(13) / 2)
    n_fft = _fast(len(signal), sample_rate_hz)
    spectrum = np.fft.rfft(signal, n_fft)
    place = np.interp(
        np.log2(np.maximum(np.fft.rfftfreq(n_fft, 1 / sample_rate_hz), 1.0)),
        np.log2(edges_hz),
        np.arange(len(edges_hz), dtype=float),
    )
    # The swings are slow, so they are drawn 100 times a second.
    time_s = np.arange(len(signal)) / sample_rate_hz
    steps_s = np.arange(0, time_s[-1] + 0.01, 0.01)
    uneven = np.zeros(len(signal))
    for band in range(len(edges_hz)):
        # Triangles over the logarithm of frequency: together they are 1 everywhere.
        share = np.maximum(1 - np.abs(place - band), 0)
        rates_hz, phases = rng.uniform(0.5, 6, 4), rng.uniform(0, 2 * np.pi, 4)
        swing = np.sin(2 * np.pi * rates_hz[:, None] * steps_s + phases[:, None]).sum(axis=0) / np.sqrt(2)
        gain = np.interp(time_s, steps_s, 10 ** (8 * severity * swing / 20))
        uneven += np.fft.irfft(spectrum * share, n_fft)[: len(signal)] * gain
    return uneven


def detuned(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Lay a detuned copy over the sound, so that its partials beat, as of strings of one choir that drifted apart.

    The copy is 8 to 30 cents flat, times the severity, as of strings that lost tension, and at severity 1 nearly as
    loud. It is the sound read more slowly, so it begins with it and falls behind by 5 to 17 ms a second at severity 1,
    less in proportion below: it never sounds before an attack. A sharp copy would.
    """
    cents = rng.uniform(8, 30) * severity
    at = np.arange(len(signal), dtype=float)
    return signal + 0.9 * severity * np.interp(at * 2 ** (-cents / 1200), at, signal)


def buzz(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Let something touch the vibrating part when it swings far enough, as a string against a fret.

    Beyond a threshold, a force that grows with the power 3/2 of the excess (Hertz's law of contact) hits a resonance
    between 1.5 and 4 kHz once a period; at severity 1 it is 6 dB below the sound.
    """
    envelope = _envelope(signal, sample_rate_hz)
    threshold = rng.uniform(0.8, 1.2)
    # On one side only: that is where the fret is.
    excess = np.maximum(signal / np.maximum(envelope, 1e-9) - threshold, 0)
    pulses = _resonant(envelope * excess**1.5, sample_rate_hz, rng.uniform(1500, 4000), quality=3.0)
    return signal + _scaled(pulses, signal, _SHARE * severity)


def rattle(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Let a loose part rattle: bursts of filtered noise, more of them and louder while the sound is loud.

    6 to 25 bursts a second, each dying away in 5 to 25 ms, at a resonance between 1.5 and 5 kHz; at severity 1 they are
    6 dB below the sound.
    """
    envelope = _envelope(signal, sample_rate_hz)
    share = envelope / envelope.sum()
    n_bursts = max(1, round(rng.uniform(6, 25) * len(signal) / sample_rate_hz))
    starts, strengths = rng.choice(len(signal), n_bursts, p=share), rng.uniform(0.3, 1, n_bursts)
    decay_s = rng.uniform(0.005, 0.025)
    tail = np.exp(-np.arange(round(6 * decay_s * sample_rate_hz)) / (decay_s * sample_rate_hz))
    bursts = np.zeros(len(signal))
    for start, strength in zip(starts, strengths, strict=True):
        part = bursts[start : start + len(tail)]
        part += strength * tail[: len(part)]
    bursts *= envelope * rng.standard_normal(len(signal))
    loose = _resonant(bursts, sample_rate_hz, rng.uniform(1500, 5000), quality=1.5)
    return signal + _scaled(loose, signal, _SHARE * severity)


def amplitude_modulation(
    signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator
) -> np.ndarray:
    """Let the level tremble 4 to 16 times a second, as where a contact, a reed or a joint is loose.

    At severity 1 the level falls by 20 dB each time.
    """
    rate_hz, phase = rng.uniform(4, 16), rng.uniform(0, 2 * np.pi)
    time_s = np.arange(len(signal)) / sample_rate_hz
    return signal * (1 - 0.45 * severity * (1 + np.sin(2 * np.pi * rate_hz * time_s + phase)))


def noise(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise, half of it steady and half with the sound, as of leaking air, a torn membrane or a bad pickup.

    White to pink; at severity 1 it is 6 dB below the sound.
    """
    tilt, steady = rng.uniform(0, 0.5), rng.random()
    white = rng.standard_normal(len(signal))
    envelope = _envelope(signal, sample_rate_hz)
    level = steady + (1 - steady) * envelope / max(float(np.sqrt(np.square(envelope).mean())), 1e-12)

    def gain(frequency_hz: np.ndarray) -> np.ndarray:
        return np.maximum(frequency_hz, 50.0) ** -tilt

    return signal + _scaled(level * _filtered(white, sample_rate_hz, gain), signal, _SHARE * severity)


Degradation = Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]

KINDS: dict[str, dict[str, Degradation]] = {
    "aged": {"dull": dull, "uneven decay": uneven_decay, "detuned": detuned},
    "broken": {"buzz": buzz, "rattle": rattle, "amplitude modulation": amplitude_modulation, "noise": noise},
}
"""The degradations by the condition that they stand for."""

CONDITION_OF = {kind: condition for condition, kinds in KINDS.items() for kind in kinds}


def degrade(
    signal: np.ndarray, sample_rate_hz: int, kind: str, severity: float, rng: np.random.Generator
) -> np.ndarray:
    """Degrade a sound in one way.

    Parameters
    ----------
    signal : np.ndarray [shape=(n,)]
        Mono samples, floating point.
    sample_rate_hz : int
        Their rate.
    kind : str
        A name in `CONDITION_OF`.
    severity : float
        From 0 to 1.
    rng : np.random.Generator
        Decides what is drawn: rates, resonances, noise.

    Returns
    -------
    np.ndarray [shape=(n,), dtype of signal]
        As loud as the signal; the signal itself at severity 0, and of silence.

    Raises
    ------
    ConfigError
        When the kind is unknown or the severity out of range.

    Examples
    --------
    >>> tone = np.sin(np.arange(22_050) / 10)
    >>> buzzing = degrade(tone, 22_050, "buzz", 0.5, np.random.default_rng(0))
    >>> bool(np.isclose(np.square(buzzing).mean(), np.square(tone).mean()))
    True
    """
    if kind not in CONDITION_OF:
        raise ConfigError(f"Unknown degradation {kind!r}; there is: {', '.join(CONDITION_OF)}.")
    if not 0 <= severity <= 1:
        raise ConfigError(f"The severity must lie between 0 and 1, not {severity!r}.")
    signal = np.asarray(signal)
    loudness = _rms(signal)
    if severity == 0 or not loudness > 0:
        return signal.copy()
    changed = KINDS[CONDITION_OF[kind]][kind](signal.astype(np.float64), sample_rate_hz, severity, rng)
    return (changed * (loudness / _rms(changed))).astype(signal.dtype)


# -- versions of clips -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What is wrong with one version of a clip.

    Attributes
    ----------
    kind : str
        A name in `CONDITION_OF`; "" of a healthy version.
    severity : float
        0 of a healthy version.
    """

    kind: str
    severity: float


def version_id(clip_id: str, condition: str) -> str:
    """Name the version of a clip in a condition.

    Examples
    --------
    >>> version_id("cello 7", "aged")
    'cello 7 aged'
    """
    return f"{clip_id} {condition}"


def split_version(version: str) -> tuple[str, str]:
    """Return the clip and the condition of a version; see `version_id`."""
    clip_id, _, condition = version.rpartition(" ")
    return clip_id, condition


@dataclass(frozen=True)
class Wear:
    """Which damage each version of a clip has: give it to `store.build_store` as `change`.

    One kind a version, all kinds of a condition alike, at a severity drawn from `SEVERITIES`; the seed and the
    version's name decide, so every process finds the same.

    Attributes
    ----------
    seed : int
        Decides all of it.
    n_copies : int
        1: a version is stored once.
    """

    seed: int
    n_copies: int = 1

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the versions."""
        return hash_json([vars(self), VERSION, SEVERITIES, RECORDING_SNR_DB, list(CONDITION_OF)])[:16]

    def damage(self, version: str) -> Damage:
        """Return the damage of a version.

        Parameters
        ----------
        version : str
            From `version_id`.

        Returns
        -------
        Damage
        """
        kinds = KINDS.get(split_version(version)[1])
        if kinds is None:
            return Damage("", 0.0)
        rng = self._generator("damage", version)
        return Damage(str(rng.choice(list(kinds))), float(rng.uniform(*SEVERITIES)))

    def copies(self, signal: np.ndarray, *, sample_rate_hz: int, clip_id: str, offset_s: float) -> Iterator[np.ndarray]:
        """Yield the degraded sound of a segment.

        Parameters
        ----------
        signal : np.ndarray [shape=(n,), float32]
            Mono samples of the clip as it stands in the corpus.
        sample_rate_hz : int
            Their rate.
        clip_id, offset_s : str, float
            The version, from `version_id`, and which segment of it.

        Yields
        ------
        np.ndarray [shape=(n,), float32]
        """
        damage = self.damage(clip_id)
        rng = self._generator("sound", clip_id, f"{offset_s:.6f}")
        worn = degrade(signal, sample_rate_hz, damage.kind, damage.severity, rng) if damage.kind else signal
        hiss = rng.standard_normal(len(worn), dtype=np.float32)
        snr_db = rng.uniform(*RECORDING_SNR_DB)
        yield worn + hiss * np.float32(_rms(worn) * 10 ** (-snr_db / 20))

    def _generator(self, *names: str) -> np.random.Generator:
        return np.random.default_rng(
            int(hash_bytes(str(self.seed).encode(), *(one.encode() for one in names))[:16], 16)
        )


# -- parts -------------------------------------------------------------------------------------------------------------


def _rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) if signal.size else 0.0


def _scaled(part: np.ndarray, signal: np.ndarray, share: float) -> np.ndarray:
    """Bring what is added to a share of the signal's RMS."""
    own = _rms(part)
    return part * (share * _rms(signal) / own) if own > 0 else part


def _fast(n: int, sample_rate_hz: int) -> int:
    """Return a fast length of a transform in which a filter's tail does not reach the beginning."""
    import scipy.fft

    return scipy.fft.next_fast_len(n + round(_PAD_S * sample_rate_hz), real=True)


def _filtered(signal: np.ndarray, sample_rate_hz: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    n_fft = _fast(len(signal), sample_rate_hz)
    response = gain(np.fft.rfftfreq(n_fft, 1 / sample_rate_hz))
    return np.fft.irfft(np.fft.rfft(signal, n_fft) * response, n_fft)[: len(signal)]


def _resonant(signal: np.ndarray, sample_rate_hz: int, centre_hz: float, *, quality: float) -> np.ndarray:
    """Filter by one resonance, that of a loose part: a band-pass of second order, causal."""
    centre_hz = min(centre_hz, 0.4 * sample_rate_hz)

    def gain(frequency_hz: np.ndarray) -> np.ndarray:
        ratio = np.maximum(frequency_hz, 1e-3) / centre_hz
        return 1 / (1 + 1j * quality * (ratio - 1 / ratio))

    return _filtered(signal, sample_rate_hz, gain)


def _envelope(signal: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """RMS over about 40 ms around each sample, and a thousandth of the largest, so that nothing is divided by 0."""
    n = max(1, min(round(0.04 * sample_rate_hz), len(signal)))
    total = np.cumsum(np.pad(np.square(signal), (n // 2 + 1, n - n // 2 - 1)))
    # Differences of sums can come out a little below 0.
    envelope = np.sqrt(np.maximum(total[n:] - total[:-n], 0) / n)
    return envelope + 1e-3 * envelope.max()
