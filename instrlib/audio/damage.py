"""Simulated damage of an instrument, based on physical causes, with a severity from 0 (none) to 1.

The result has the length and the RMS of the signal, so that neither reveals the damage. At severity 0 it equals the
signal. Nothing is clipped.
"""

from collections.abc import Callable

import numpy as np

from instrlib.audio.effects import Change, add, as_loud_as, coloured_noise, generator, rms, spectral_gain

SEVERITIES = (0.2, 1.0)  # range in damaged versions; less than a fifth is inaudible

# White noise under every version, the healthy one too. The damage also filters and modulates the noise of the original
# recording, which alone could reveal it; new noise masks this in part.
RECORDING_SNR_DB = (25.0, 40.0)

_LARGEST_SHARE = 0.5  # RMS of what is added (buzz, rattle, noise) at severity 1, as a share of the signal's: -6 dB


def dull(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Old strings or hardened pads: at severity 1, a loss of 12 dB per octave above 400 to 1200 Hz."""
    knee_hz = rng.uniform(400, 1200)
    return spectral_gain(signal, sample_rate_hz, lambda hz: (np.maximum(hz, knee_hz) / knee_hz) ** (-2.0 * severity))


def uneven_decay(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Worn contact of a string or bridge: half-octave bands swell and fade, by 8 dB RMS at severity 1."""
    time_s = np.arange(len(signal)) / sample_rate_hz
    steps_s = np.arange(0, time_s[-1] + 0.01, 0.01)  # the gains change slowly
    uneven, n_bands = np.zeros(len(signal)), 13
    for band in range(n_bands):
        # Triangles over log frequency, from 100 Hz, that sum to 1.
        def share(frequency_hz: np.ndarray, band: int = band) -> np.ndarray:
            place = np.clip(2 * np.log2(np.maximum(frequency_hz, 1.0) / 100), 0, n_bands - 1)
            return np.maximum(1 - np.abs(place - band), 0)

        rates_hz, phases = rng.uniform(0.5, 6, 4), rng.uniform(0, 2 * np.pi, 4)
        swing = np.sin(2 * np.pi * rates_hz[:, None] * steps_s + phases[:, None]).sum(axis=0) / np.sqrt(2)
        gain = np.interp(time_s, steps_s, 10 ** (8 * severity * swing / 20))
        uneven += spectral_gain(signal, sample_rate_hz, share) * gain
    return uneven


def detuned(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Detuned strings: beating with a copy that is read more slowly (flat), so it never precedes an attack."""
    cents = rng.uniform(8, 30) * severity
    at = np.arange(len(signal), dtype=float)
    return signal + 0.9 * severity * np.interp(at * 2 ** (-cents / 1200), at, signal)


def buzz(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Contact of a string with a fret: a force excites a resonance once a period.

    Beyond a threshold, the force grows with the power 3/2 of the excess (Hertz's law of contact), on one side only.
    """
    envelope = _envelope(signal, sample_rate_hz)
    excess = np.maximum(signal / np.maximum(envelope, 1e-9) - rng.uniform(0.8, 1.2), 0)
    pulses = _resonant(envelope * excess**1.5, sample_rate_hz, rng.uniform(1500, 4000), quality=3.0)
    return _added(signal, pulses, severity)


def rattle(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Loose part: 6 to 25 bursts of filtered noise per second, more and louder in loud passages."""
    from scipy.signal import oaconvolve

    envelope = _envelope(signal, sample_rate_hz)
    n_bursts = max(1, round(rng.uniform(6, 25) * len(signal) / sample_rate_hz))
    starts = rng.choice(len(signal), n_bursts, p=envelope / envelope.sum())
    strikes = np.bincount(starts, weights=rng.uniform(0.3, 1, n_bursts), minlength=len(signal))
    decay = rng.uniform(0.005, 0.025) * sample_rate_hz
    bursts = oaconvolve(strikes, np.exp(-np.arange(round(6 * decay)) / decay))[: len(signal)]
    bursts *= envelope * rng.standard_normal(len(signal))
    return _added(signal, _resonant(bursts, sample_rate_hz, rng.uniform(1500, 5000), quality=1.5), severity)


def amplitude_modulation(
    signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator
) -> np.ndarray:
    """Loose contact, reed or joint: the level falls 4 to 16 times a second, by 20 dB at severity 1."""
    rate_hz, phase = rng.uniform(4, 16), rng.uniform(0, 2 * np.pi)
    time_s = np.arange(len(signal)) / sample_rate_hz
    return signal * (1 - 0.45 * severity * (1 + np.sin(2 * np.pi * rate_hz * time_s + phase)))


def noise(signal: np.ndarray, sample_rate_hz: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Leaking air, torn membrane or bad pickup: white to pink noise, partly steady, partly following the level."""
    steady = rng.random()
    envelope = _envelope(signal, sample_rate_hz)
    level = steady + (1 - steady) * envelope / max(rms(envelope), 1e-12)
    return _added(signal, level * coloured_noise(len(signal), sample_rate_hz, rng, slope=rng.random()), severity)


KINDS: dict[str, dict[str, Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]]] = {
    "aged": {"dull": dull, "uneven decay": uneven_decay, "detuned": detuned},
    "broken": {"buzz": buzz, "rattle": rattle, "amplitude modulation": amplitude_modulation, "noise": noise},
}
CONDITION_OF = {kind: condition for condition, kinds in KINDS.items() for kind in kinds}


def simulate(
    signal: np.ndarray, sample_rate_hz: int, kind: str, severity: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the signal with one kind of damage (a name in `CONDITION_OF`); silence is returned unchanged."""
    if severity == 0 or not rms(signal) > 0:
        return signal.copy()
    damaged = KINDS[CONDITION_OF[kind]][kind](signal.astype(np.float64), sample_rate_hz, severity, rng)
    return as_loud_as(signal, damaged).astype(signal.dtype)


class DamageSimulation(Change):
    """Damaged versions of clips, named "<clip_id> <condition>": one kind per version, at a random severity."""

    def damage(self, version: str) -> tuple[str, float]:
        """Return kind and severity of the damage of a version; "" and 0 for a healthy one."""
        kinds = KINDS.get(version.rpartition(" ")[2])
        if kinds is None:
            return "", 0.0
        rng = generator(self.seed, "damage", version)
        return str(rng.choice(list(kinds))), float(rng.uniform(*SEVERITIES))

    def change(self, signal: np.ndarray, sample_rate_hz: int, clip_id: str, rng: np.random.Generator) -> np.ndarray:
        """Return one segment with its damage; `clip_id` is the name of the version."""
        kind, severity = self.damage(clip_id)
        if kind:
            signal = simulate(signal, sample_rate_hz, kind, severity, rng)
        hiss = rng.standard_normal(len(signal), dtype=np.float32)
        return add(signal, hiss, rng.uniform(*RECORDING_SNR_DB)).astype(signal.dtype)


def _added(signal: np.ndarray, part: np.ndarray, severity: float) -> np.ndarray:
    return signal + _LARGEST_SHARE * severity * as_loud_as(signal, part)


def _resonant(signal: np.ndarray, sample_rate_hz: int, centre_hz: float, *, quality: float) -> np.ndarray:
    centre_hz = min(centre_hz, 0.4 * sample_rate_hz)

    def gain(frequency_hz: np.ndarray) -> np.ndarray:
        ratio = np.maximum(frequency_hz, 1e-3) / centre_hz
        return 1 / (1 + 1j * quality * (ratio - 1 / ratio))

    return spectral_gain(signal, sample_rate_hz, gain)


def _envelope(signal: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return the RMS over about 40 ms around each sample, at least a thousandth of its maximum."""
    from scipy.ndimage import uniform_filter1d

    n = max(1, min(round(0.04 * sample_rate_hz), len(signal)))
    power = uniform_filter1d(np.square(signal), n, mode="constant")
    envelope = np.sqrt(np.maximum(power, 0))  # rounding can give values just below 0
    return envelope + 1e-3 * envelope.max()
