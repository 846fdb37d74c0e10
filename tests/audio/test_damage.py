"""Simulated damage: as long and as loud as the sound, nothing at severity 0, more with severity, as physics has it."""

import numpy as np
import pytest

from instrlib.audio.damage import (
    CONDITION_OF,
    KINDS,
    RECORDING_SNR_DB,
    SEVERITIES,
    DamageSimulation,
    simulate,
    version_id,
)
from instrlib.core.io import ConfigError
from instrlib.studies import condition

RATE_HZ = 22_050
KINDS_OF_DAMAGE = list(CONDITION_OF)


@pytest.fixture(scope="module")
def note() -> np.ndarray:
    """Two seconds of a plucked tone of 220 Hz with twenty partials, which falls by 20 dB a second."""
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    partials = [np.sin(2 * np.pi * 220 * number * time_s + number) / number for number in range(1, 21)]
    return (0.3 * 10 ** (-20 * time_s / 20) * np.sum(partials, axis=0)).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.square(signal, dtype=float).mean()))


def power(signal: np.ndarray, low_hz: float, high_hz: float) -> float:
    bins_hz = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    inside = (bins_hz >= low_hz) & (bins_hz < high_hz)
    return float(np.square(np.abs(np.fft.rfft(signal)))[inside].sum())


@pytest.mark.parametrize("kind", KINDS_OF_DAMAGE)
def test_at_severity_0_not_a_bit_changes(kind, note):
    same = simulate(note, RATE_HZ, kind, 0.0, rng())
    assert same.dtype == note.dtype and np.array_equal(same, note) and same is not note


@pytest.mark.parametrize("kind", KINDS_OF_DAMAGE)
@pytest.mark.parametrize("severity", [0.1, 1.0])
def test_length_loudness_and_type_stay(kind, severity, note):
    damaged = simulate(note, RATE_HZ, kind, severity, rng())
    assert damaged.shape == note.shape and damaged.dtype == note.dtype
    assert rms(damaged) == pytest.approx(rms(note), rel=1e-4)
    assert not np.allclose(damaged, note, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS_OF_DAMAGE)
def test_more_severe_is_farther_from_the_sound(kind, note):
    distance = [rms(simulate(note, RATE_HZ, kind, severity, rng()) - note) for severity in (0.01, 0.2, 0.6, 1.0)]
    assert distance == sorted(distance)
    assert distance[0] < 0.15 * rms(note)  # it begins at nothing


@pytest.mark.parametrize("kind", KINDS_OF_DAMAGE)
def test_the_generator_decides_all(kind, note):
    first, second = (simulate(note, RATE_HZ, kind, 0.7, rng()) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, simulate(note, RATE_HZ, kind, 0.7, np.random.default_rng(8)))


@pytest.mark.parametrize("kind", KINDS_OF_DAMAGE)
@pytest.mark.parametrize("n", [1, 2, 50, 1200])
def test_short_sounds_and_silence_come_out_finite(kind, n):
    short = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    assert np.isfinite(simulate(short, RATE_HZ, kind, 1.0, rng())).all()
    assert not simulate(np.zeros(n, np.float32), RATE_HZ, kind, 1.0, rng()).any()


def test_a_dull_string_loses_its_treble_by_at_most_12_db_an_octave(note):
    damaged = simulate(note, RATE_HZ, "dull", 1.0, rng())
    lost_db = [
        10 * np.log10(power(note, low, 2 * low) / power(damaged, low, 2 * low)) for low in (200.0, 1000.0, 2000.0)
    ]
    assert lost_db[0] < lost_db[1] < lost_db[2]
    assert 6 < lost_db[2] - lost_db[1] <= 12.5


def test_partials_of_an_uneven_decay_go_their_own_ways_and_a_detuned_copy_beats(note):
    whole = condition.measure(note, RATE_HZ)
    for kind in ("uneven decay", "detuned"):
        damaged = condition.measure(simulate(note, RATE_HZ, kind, 0.8, rng()), RATE_HZ)
        assert damaged["band_unevenness_db"] > whole["band_unevenness_db"] + 1
        assert damaged["decay_variance"] > whole["decay_variance"] + 10


def test_a_detuned_copy_is_off_by_less_than_a_third_of_a_semitone():
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * 1000 * time_s)
    spectrum = np.abs(np.fft.rfft(simulate(tone, RATE_HZ, "detuned", 1.0, rng()) * np.hanning(len(tone))))
    found_hz = np.flatnonzero(spectrum > 0.2 * spectrum.max()) / 4
    off_cents = 1200 * np.log2(found_hz / 1000)
    assert 5 < np.abs(off_cents).max() < 40


@pytest.mark.parametrize("seed", range(5))
def test_nothing_of_a_detuned_copy_sounds_before_an_attack_and_its_delay_goes_to_0_with_severity(seed):
    click = np.zeros(2 * RATE_HZ)
    click[RATE_HZ] = 1
    delays = []
    for severity in (1.0, 0.5, 0.1, 0.01):
        damaged = simulate(click, RATE_HZ, "detuned", severity, np.random.default_rng(seed))
        assert not damaged[:RATE_HZ].any()
        delays.append((np.flatnonzero(damaged).max() - RATE_HZ) / RATE_HZ)
    assert 0.004 < delays[0] < 0.018  # one second after the beginning
    assert delays[1] == pytest.approx(delays[0] / 2, abs=2 / RATE_HZ)
    assert delays[2] == pytest.approx(delays[0] / 10, abs=2 / RATE_HZ)
    assert delays[3] < 0.0003


def test_buzz_keeps_the_period_and_adds_partials_above_of_no_more_than_the_severity_says():
    tone = np.sin(2 * np.pi * 220 * np.arange(2 * RATE_HZ) / RATE_HZ)
    damaged = simulate(tone, RATE_HZ, "buzz", 0.5, rng())
    found = condition.measure(damaged, RATE_HZ)
    assert found["harmonic_to_noise_db"] > 30
    assert found["fundamental_hz"] == pytest.approx(220, rel=0.01)
    # Some of it lies below 1 kHz, where the tone is.
    assert 0.1 < np.sqrt(power(damaged, 1000, RATE_HZ) / power(damaged, 0, 1000)) < 0.25


def test_noise_and_rattle_lie_so_far_below_the_sound_as_the_severity_says():
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * 440 * time_s)
    for kind, severity in (("noise", 1.0), ("noise", 0.25), ("rattle", 0.5)):
        damaged = simulate(tone, RATE_HZ, kind, severity, rng())
        other = power(damaged, 0, 430) + power(damaged, 450, RATE_HZ)
        assert np.sqrt(other / power(damaged, 430, 450)) == pytest.approx(0.5 * severity, rel=0.1), kind


def test_rattle_comes_in_bursts_and_noise_does_not():
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE_HZ) / RATE_HZ)
    bursts = {
        kind: condition.measure(simulate(tone, RATE_HZ, kind, 0.5, rng()), RATE_HZ)["treble_burstiness_db"]
        for kind in ("rattle", "noise")
    }
    assert bursts["rattle"] > 10 * bursts["noise"]


def test_a_loose_part_trembles_at_one_rate_by_as_much_as_the_severity_says():
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE_HZ) / RATE_HZ)
    damaged = simulate(tone, RATE_HZ, "amplitude modulation", 1.0, rng())
    peaks = np.abs(damaged).reshape(-1, 63)[2:-2].max(axis=1)  # each of more than one period
    assert 20 * np.log10(peaks.max() / peaks.min()) == pytest.approx(20, abs=1.5)
    assert condition.modulation(damaged, RATE_HZ)[1] > 0.7


@pytest.mark.parametrize(("kind", "severity"), [("scratched", 0.5), ("noise", -0.1), ("noise", 1.1)])
def test_unknown_kinds_and_severities_are_refused(kind, severity, note):
    with pytest.raises(ConfigError, match=r"damage|severity"):
        simulate(note, RATE_HZ, kind, severity, rng())


def versions_of(n: int, simulation: DamageSimulation, name: str) -> list:
    return [simulation.damage(version_id(f"clip {number}", name)) for number in range(n)]


def test_versions_draw_every_kind_of_their_condition_and_any_severity():
    simulation = DamageSimulation(seed=0)
    for name, kinds in KINDS.items():
        damages = versions_of(300, simulation, name)
        counts = [sum(one.kind == kind for one in damages) for kind in kinds]
        assert min(counts) > 0.7 * 300 / len(kinds)
        severity = np.array([one.severity for one in damages])
        assert severity.min() < SEVERITIES[0] + 0.05 and severity.max() > SEVERITIES[1] - 0.05
        assert severity.mean() == pytest.approx(np.mean(SEVERITIES), abs=0.05)
    assert {(one.kind, one.severity) for one in versions_of(20, simulation, "healthy")} == {("", 0.0)}


def test_versions_depend_on_seed_and_name_alone(note):
    def made(seed, version, offset_s=0.0):
        return next(
            DamageSimulation(seed=seed).copies(note, sample_rate_hz=RATE_HZ, clip_id=version, offset_s=offset_s)
        )

    first = made(0, "a broken")
    assert np.array_equal(first, made(0, "a broken"))
    for other in (made(1, "a broken"), made(0, "b broken"), made(0, "a broken", 3.0), made(0, "a aged")):
        assert not np.array_equal(first, other)
    assert (
        DamageSimulation(seed=0).fingerprint
        == DamageSimulation(seed=0).fingerprint
        != DamageSimulation(seed=1).fingerprint
    )


def test_a_healthy_version_is_the_clip_with_the_faint_noise_that_lies_under_all(note):
    for name in condition.CONDITIONS:
        made = next(DamageSimulation(seed=3).copies(note, sample_rate_hz=RATE_HZ, clip_id=f"x {name}", offset_s=0.0))
        assert made.dtype == np.float32 and rms(made) == pytest.approx(rms(note), rel=2e-3)
        if name == "healthy":
            snr_db = 20 * np.log10(rms(note) / rms(made - note))
            assert RECORDING_SNR_DB[0] - 0.5 < snr_db < RECORDING_SNR_DB[1] + 0.5
