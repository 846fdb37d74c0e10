"""Simulated damage: unchanged length and level, nothing at severity 0, and the effects that physics predicts."""

import numpy as np
import pytest

from instrlib.audio.damage import CONDITION_OF, KINDS, RECORDING_SNR_DB, SEVERITIES, DamageSimulation, simulate
from instrlib.audio.effects import rms
from instrlib.studies import condition

RATE_HZ = 22_050
TIME_S = np.arange(2 * RATE_HZ) / RATE_HZ
# A plucked tone of 220 Hz with twenty partials, which falls by 20 dB a second.
PARTIALS = [np.sin(2 * np.pi * 220 * number * TIME_S + number) / number for number in range(1, 21)]
NOTE = (0.3 * 10 ** (-20 * TIME_S / 20) * np.sum(PARTIALS, axis=0)).astype(np.float32)
TONE_220, TONE_440 = (np.sin(2 * np.pi * frequency_hz * TIME_S) for frequency_hz in (220, 440))


def damaged(signal: np.ndarray, kind: str, severity: float, seed: int = 7) -> np.ndarray:
    return simulate(signal, RATE_HZ, kind, severity, np.random.default_rng(seed))


def power(signal: np.ndarray, low_hz: float, high_hz: float) -> float:
    bins_hz = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    return float(np.square(np.abs(np.fft.rfft(signal)))[(bins_hz >= low_hz) & (bins_hz < high_hz)].sum())


@pytest.mark.parametrize("kind", CONDITION_OF)
def test_damage_grows_from_nothing_keeps_length_level_and_type_and_is_finite(kind):
    np.testing.assert_array_equal(damaged(NOTE, kind, 0.0), NOTE)
    versions = [damaged(NOTE, kind, severity) for severity in (0.01, 0.2, 0.6, 1.0)]
    for one in versions:
        assert one.shape == NOTE.shape and one.dtype == NOTE.dtype and rms(one) == pytest.approx(rms(NOTE), rel=1e-4)
    distance = [rms(one - NOTE) for one in versions]
    assert distance == sorted(distance) and distance[0] < 0.15 * rms(NOTE) and distance[-1] > 0.05 * rms(NOTE)
    np.testing.assert_array_equal(damaged(NOTE, kind, 0.6), versions[2])
    assert not np.array_equal(damaged(NOTE, kind, 0.6, seed=8), versions[2])
    for n in (1, 2, 50, 1200):
        assert np.isfinite(damaged(NOTE[:n], kind, 1.0)).all() and not damaged(0 * NOTE[:n], kind, 1.0).any()


def test_dull_strings_lose_12_db_per_octave_uneven_partials_differ_and_detuned_copies_beat():
    dull = damaged(NOTE, "dull", 1.0)
    lost_db = [10 * np.log10(power(NOTE, low, 2 * low) / power(dull, low, 2 * low)) for low in (200, 1000, 2000)]
    assert lost_db[0] < lost_db[1] < lost_db[2] and 6 < lost_db[2] - lost_db[1] <= 12.5
    whole = condition.measure(NOTE, RATE_HZ)
    for kind in ("uneven decay", "detuned"):
        found = condition.measure(damaged(NOTE, kind, 0.8), RATE_HZ)
        assert found["band_unevenness_db"] > whole["band_unevenness_db"] + 1
        assert found["decay_variance"] > whole["decay_variance"] + 10


@pytest.mark.parametrize("seed", range(3))
def test_a_detuned_copy_is_flat_and_its_delay_grows_with_severity(seed):
    delays = []
    for severity in (1.0, 0.5, 0.1):
        heard = damaged(np.eye(1, 2 * RATE_HZ, RATE_HZ)[0], "detuned", severity, seed)
        assert not heard[:RATE_HZ].any()  # nothing precedes the attack
        delays.append((np.flatnonzero(heard).max() - RATE_HZ) / RATE_HZ)
    assert 8 <= 1200 * np.log2(1 + delays[0]) <= 30.5  # cents, from the delay after one second
    np.testing.assert_allclose(delays[1:], np.array([0.5, 0.1]) * delays[0], atol=2 / RATE_HZ)


@pytest.mark.parametrize(("kind", "severity"), [("noise", 1.0), ("noise", 0.25), ("rattle", 0.5)])
def test_noise_and_rattle_have_the_level_of_the_severity_and_rattle_comes_in_bursts(kind, severity):
    found = damaged(TONE_440, kind, severity)
    other = power(found, 0, 430) + power(found, 450, RATE_HZ)
    assert np.sqrt(other / power(found, 430, 450)) == pytest.approx(0.5 * severity, rel=0.1)
    steady = condition.measure(damaged(TONE_440, "noise", severity), RATE_HZ)["treble_burstiness_db"]
    assert (condition.measure(found, RATE_HZ)["treble_burstiness_db"] > 10 * steady) == (kind == "rattle")


def test_modulation_has_one_rate_and_a_depth_of_20_db_and_buzz_keeps_the_period_and_adds_partials_above():
    found = damaged(TONE_440, "amplitude modulation", 1.0)
    peaks = np.abs(found).reshape(-1, 63)[2:-2].max(axis=1)  # more than one period each
    assert 20 * np.log10(peaks.max() / peaks.min()) == pytest.approx(20, abs=1.5)
    assert condition.modulation(found, RATE_HZ)[1] > 0.7
    found = damaged(TONE_220, "buzz", 0.5)
    measured = condition.measure(found, RATE_HZ)
    assert measured["harmonic_to_noise_db"] > 30 and measured["fundamental_hz"] == pytest.approx(220, rel=0.01)
    assert 0.1 < np.sqrt(power(found, 1000, RATE_HZ) / power(found, 0, 1000)) < 0.25


def test_versions_follow_from_seed_and_name_have_any_kind_and_severity_and_faint_noise():
    for name, kinds in KINDS.items():
        drawn, severity = zip(*(DamageSimulation(seed=0).damage(f"clip {n} {name}") for n in range(300)), strict=True)
        assert min(drawn.count(kind) for kind in kinds) > 0.7 * 300 / len(kinds)
        assert min(severity) < SEVERITIES[0] + 0.05 and max(severity) > SEVERITIES[1] - 0.05
        assert np.mean(severity) == pytest.approx(np.mean(SEVERITIES), abs=0.05)

    def made(seed: int, version: str, offset_s: float = 0.0) -> np.ndarray:
        given = {"sample_rate_hz": RATE_HZ, "clip_id": version, "offset_s": offset_s}
        return next(DamageSimulation(seed=seed).copies(NOTE, **given))

    first = made(0, "a broken")
    np.testing.assert_array_equal(made(0, "a broken"), first)
    for other in ((1, "a broken"), (0, "b broken"), (0, "a aged"), (0, "a broken", 3.0)):
        assert not np.array_equal(made(*other), first)
    for name in condition.CONDITIONS:
        found = made(3, f"x {name}")
        assert found.dtype == np.float32 and rms(found) == pytest.approx(rms(NOTE), rel=2e-3)
    snr_db = 20 * np.log10(rms(NOTE) / rms(made(3, "x healthy") - NOTE))
    assert RECORDING_SNR_DB[0] - 0.5 < snr_db < RECORDING_SNR_DB[1] + 0.5
