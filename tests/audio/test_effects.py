"""Degradations have the effect of their level, measured by other means, and keep length and alignment."""

import numpy as np
import pytest
from scipy.signal import correlate, welch

from instrlib.audio import effects
from instrlib.audio.effects import DEGRADATIONS, ChangedCopies, degrade, encode, room_response
from instrlib.audio.features import extract
from instrlib.core.config import FeatureConfig

RATE_HZ = 22_050


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(frequency_hz: float, *, duration_s: float = 2.0) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * RATE_HZ)) / RATE_HZ)


def bursts() -> np.ndarray:
    """Tones and noise with sharp beginnings and ends at irregular times, which show any delay."""
    signal, n = np.zeros(2 * RATE_HZ), round(0.12 * RATE_HZ)
    for number, start_s in enumerate((0.21, 0.55, 0.83, 1.37)):
        part = tone(330.0 * (number + 1), duration_s=0.12) + 0.1 * rng(number).standard_normal(n)
        signal[round(start_s * RATE_HZ) :][:n] = part
    return signal


def power_db(signal: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(signal, dtype=np.float64)))


def slope_db(noise: np.ndarray) -> float:
    """The slope of the power spectrum per octave, from 100 Hz to 6.4 kHz."""
    frequency_hz, power = welch(noise, RATE_HZ, nperseg=4096)
    inside = (frequency_hz > 100) & (frequency_hz < 6400)
    return np.polyfit(np.log2(frequency_hz[inside]), 10 * np.log10(power[inside]), 1)[0]


def delay(signal: np.ndarray, changed: np.ndarray) -> int:
    return correlate(changed, signal, method="fft").argmax() - (len(signal) - 1)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_level_keeps_length_type_and_alignment_and_is_worse_than_the_one_before(name):
    signal = (tone(440.0) * np.exp(-2 * np.arange(2 * RATE_HZ) / RATE_HZ) + 0.5 * bursts()).astype(np.float32)
    before, clean, distances = signal.copy(), extract(signal, FeatureConfig()), []
    for level in DEGRADATIONS[name].levels:
        changed, again = (degrade(signal, RATE_HZ, name, level, rng()) for _ in range(2))
        assert changed.shape == signal.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
        np.testing.assert_array_equal(changed, again)
        np.testing.assert_array_equal(signal, before)
        if name != "room":  # see below; the windows of the pitch smear an attack by up to 12 ms
            assert abs(delay(signal**2, changed**2)) <= (265 if name.startswith("pitch") else 64)
        distances.append(np.abs(extract(changed, FeatureConfig()) - clean).mean())
        assert not degrade(np.zeros(1000, np.float32), RATE_HZ, name, level, rng()).any()
    if name != "quiet":  # hardly audible
        assert (np.diff([0, *distances]) > 0).all(), distances


@pytest.mark.parametrize("level", DEGRADATIONS["noise"].levels)
def test_noise_falls_with_its_slope_in_degradations_by_3_db_an_octave_and_has_the_power_asked_for(level):
    signal = tone(440.0, duration_s=4.0)
    added = degrade(signal, RATE_HZ, "noise", level, rng()) - signal
    assert power_db(signal) - power_db(added) == pytest.approx(level, abs=1e-6)
    for slope in (0.0, 0.5, 1.0, 2.0):
        noise = added if slope == 1 else effects.coloured_noise(8 * RATE_HZ, RATE_HZ, rng(), slope=slope)
        assert slope_db(noise) == pytest.approx(-3.01 * slope, abs=0.3)


@pytest.mark.parametrize("level", DEGRADATIONS["room"].levels)
def test_a_room_decays_by_60_db_in_its_time_by_schroeder_integration(level):
    heard = degrade(np.eye(1, 5 * RATE_HZ)[0], RATE_HZ, "room", level, rng())
    assert np.abs(heard[1 : round(0.005 * RATE_HZ)]).max() < 1e-9 < np.abs(heard[0])  # before the first reflection
    direct, tail = heard[0] ** 2, heard[round(0.005 * RATE_HZ) :] ** 2
    decay_db = 10 * np.log10(np.maximum(np.cumsum(tail[::-1])[::-1] / tail.sum(), 1e-12))
    from_5_to_35 = (decay_db <= -5) & (decay_db >= -35)
    slope = np.polyfit(np.flatnonzero(from_5_to_35) / RATE_HZ, decay_db[from_5_to_35], 1)[0]
    assert -60 / slope == pytest.approx(level, rel=0.06)
    # The critical distance of a diffuse field, for a source 2 m away in 200 cubic metres.
    critical_db = 20 * np.log10(0.057 * np.sqrt(200 / level) / 2)
    assert 10 * np.log10(direct / tail.sum()) == pytest.approx(critical_db, abs=0.1)
    response = room_response(RATE_HZ, 0.5, rng(), reverberation_db=-12.0, first_reflection_s=0.02)
    assert 10 * np.log10(np.square(response[1:]).sum()) == pytest.approx(-12)
    assert np.flatnonzero(response)[1] == round(0.02 * RATE_HZ)
    for rt60_s in (1e-5, 0.004):  # shorter than the way of the first reflection
        np.testing.assert_allclose(degrade(bursts(), RATE_HZ, "room", rt60_s, rng()), bursts(), atol=1e-12)


def test_a_low_pass_loses_48_db_an_octave_and_an_equaliser_has_the_curve_that_was_drawn():
    impulse = np.eye(1, RATE_HZ, RATE_HZ // 2)[0]  # without phase, half of the response lies before it

    def gain_db(changed: np.ndarray, frequency_hz: object) -> np.ndarray:
        return 20 * np.log10(np.abs(np.fft.rfft(changed))[frequency_hz])

    for level in DEGRADATIONS["low_pass"].levels:
        changed = degrade(impulse, RATE_HZ, "low_pass", level, rng())
        found_db = gain_db(changed, [level // 2, level, min(2 * level, 10_000)]) - gain_db(changed, 0)
        np.testing.assert_allclose(found_db, [0, -3.01, -48.2 if level < 5_000 else found_db[2]], atol=0.3)
    settings, frequency_hz = {"bells": 1, "largest_db": 6, "tilt_db": (-1, 1)}, np.array([50, 400, 800, 3000, 8000])
    expected_db = effects.equaliser_db(np.log2(frequency_hz / 800), rng(), **settings)[0]
    changed = effects.equalise(impulse, RATE_HZ, rng(), **settings)
    np.testing.assert_allclose(gain_db(changed, frequency_hz), expected_db, atol=0.1)


@pytest.mark.parametrize("rate_hz", [8_000, RATE_HZ, 44_100, 96_000])
@pytest.mark.parametrize("name", ["mp3", "vorbis"])
def test_codecs_have_no_delay_at_any_level_and_rate_and_mp3_has_its_bit_rate(name, rate_hz, monkeypatch):
    written, n = [], 8 * rate_hz
    monkeypatch.setattr(effects, "encode", lambda *a, **k: written.append(encode(*a, **k)) or written[-1])
    signal = np.interp(np.arange(n) * (RATE_HZ / rate_hz), np.arange(8 * RATE_HZ), np.tile(bursts(), 4))
    for level in DEGRADATIONS[name].levels:
        changed = degrade(signal, rate_hz, name, level, rng())
        assert changed.shape == signal.shape and abs(delay(signal, changed)) <= 1
        if name == "mp3":
            assert written[-1].getbuffer().nbytes / 1000 == pytest.approx(level, rel=0.04)  # 8 s


def test_clipping_quiet_and_pitch_have_the_effect_of_their_level():
    """Clipping cuts samples over full scale and no others; a quiet recording has the noise of 16 bits."""
    signal = tone(441.3, duration_s=4.0) * np.linspace(0, 1, 4 * RATE_HZ)
    own = signal / np.abs(signal).max()
    for name in ("clipping", "quiet", "pitch_up", "pitch_down"):
        for level in DEGRADATIONS[name].levels:
            changed, louder = degrade(signal, RATE_HZ, name, level, rng()), own * 10 ** (level / 20)
            if name == "clipping":
                np.testing.assert_allclose(changed, np.clip(louder, -1, 1), atol=1e-12)
            elif name == "quiet":  # the error is uniform within a step: 1/12 of its square
                assert power_db(changed - louder) == pytest.approx(-20 * np.log10(32_767 * np.sqrt(12)), abs=0.3)
            else:
                inside = changed[RATE_HZ:-RATE_HZ] * np.hanning(2 * RATE_HZ)
                peak_hz = np.abs(np.fft.rfft(inside, 2**20)).argmax() * RATE_HZ / 2**20
                assert 12 * np.log2(peak_hz / 441.3) == pytest.approx(level, abs=0.1)


def test_copies_follow_from_seed_clip_offset_and_number_and_their_noise_has_its_level(monkeypatch):
    def copies(signal, n_copies=24, *, seed=0, clip_id="a", offset_s=0.0):
        change = ChangedCopies(seed=seed, n_copies=n_copies)
        return list(change.copies(signal, sample_rate_hz=RATE_HZ, clip_id=clip_id, offset_s=offset_s))

    signal = bursts().astype(np.float32)[: RATE_HZ // 2]
    first = copies(signal)
    assert len({one.tobytes() for one in first}) > 16
    np.testing.assert_array_equal(copies(signal, 2), first[:2])
    for other in ({"seed": 1}, {"clip_id": "b"}, {"offset_s": 0.5}):
        assert not np.array_equal(copies(signal, **other), first)
    for n in (400, 1_103, 11_025):
        for copy in copies(rng().normal(0, 0.1, n).astype(np.float32)):
            assert copy.shape == (n,) and copy.dtype == np.float32 and np.isfinite(copy).all() and copy.std() > 1e-4
    assert len({ChangedCopies(seed=seed, n_copies=n).fingerprint for seed, n in ((0, 1), (1, 1), (0, 2))}) == 3
    monkeypatch.setattr(effects, "COPY_GAIN_DB", (0.0, 0.0))
    monkeypatch.setattr(effects, "COPY_SNR_DB", (20.0, 20.0))
    snr_db = [power_db(bursts()) - power_db(copy - bursts() + 1e-9) for copy in copies(bursts(), 60)]
    assert (np.abs(np.array(snr_db) - 20) < 0.5).any() and max(snr_db) > 100  # noise alone, and nothing
