"""Degradations do what their level says, measured by other means, and leave length and alignment alone."""

import io

import numpy as np
import pytest
import soundfile

from instrlib.audio import effects
from instrlib.audio.damage import DamageSimulation
from instrlib.audio.effects import (
    DEGRADATIONS,
    ChangedCopies,
    EverydayRecordings,
    degrade,
    encode,
    generator,
    room_response,
)
from instrlib.core.io import ConfigError

RATE_HZ = 22_050
EVERY = [(one.name, level) for one in DEGRADATIONS.values() for level in one.levels]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(frequency_hz: float, *, duration_s: float = 2.0, size: float = 0.4) -> np.ndarray:
    return size * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * RATE_HZ)) / RATE_HZ)


def bursts() -> np.ndarray:
    """Return tones and noise that begin and end sharply at irregular times: they show where a delay is."""
    signal = np.zeros(2 * RATE_HZ)
    for number, start_s in enumerate((0.21, 0.55, 0.83, 1.37)):
        first = round(start_s * RATE_HZ)
        part = tone(330.0 * (number + 1), duration_s=0.12) + 0.1 * rng(number).standard_normal(round(0.12 * RATE_HZ))
        signal[first : first + len(part)] = part
    return signal


def power_db(signal: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(signal, dtype=np.float64)))


def spectrum_db(signal: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Return the power of a band."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency_hz = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    return 10 * np.log10(power[(frequency_hz >= low_hz) & (frequency_hz < high_hz)].mean())


def envelope(signal: np.ndarray, step: int = 64) -> np.ndarray:
    """Return the RMS of stretches of 3 ms."""
    return np.sqrt(np.square(signal[: len(signal) // step * step]).reshape(-1, step).mean(axis=1))


# -- what all of them keep ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_length_type_and_alignment_stay_and_all_is_finite(name, level):
    signal = bursts().astype(np.float32)
    changed = degrade(signal, RATE_HZ, name, level, generator(0, "a clip", name))
    assert changed.shape == signal.shape and changed.dtype == np.float32
    assert np.isfinite(changed).all() and changed.any()
    if name == "room":
        return  # it fills the gaps: see the next test
    before, after = envelope(signal), envelope(changed)
    lags = np.arange(-40, 41)
    match = [np.dot(before[50:-50], after[50 + lag : len(after) - 50 + lag]) for lag in lags]
    # 12 ms for the pitch, whose windows smear an attack; a codec whose delay is not cut is off by 50 ms.
    assert abs(lags[int(np.argmax(match))]) <= (4 if name.startswith("pitch") else 1)


@pytest.mark.parametrize("rt60_s", DEGRADATIONS["room"].levels)
def test_in_a_room_nothing_sounds_before_the_instrument_does(rt60_s):
    signal = bursts()
    begin = int(np.flatnonzero(signal)[0])
    heard = degrade(signal, RATE_HZ, "room", rt60_s, rng())
    assert np.abs(heard[:begin]).max() < 1e-9
    direct = heard[begin : begin + 100] / signal[begin : begin + 100]
    np.testing.assert_allclose(direct, direct[0], rtol=1e-6)  # until the first reflection comes


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_same_clip_and_seed_give_the_same_bytes_and_the_signal_is_left_alone(name):
    signal = bursts()
    kept, level = signal.copy(), DEGRADATIONS[name].levels[-1]
    first, again = (degrade(signal, RATE_HZ, name, level, generator(3, "x", name)) for _ in range(2))
    assert np.array_equal(first, again) and np.array_equal(signal, kept)
    assert not np.array_equal(first, signal)


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name != "quiet"])
def test_levels_grow_worse_by_how_far_they_are_from_the_untouched_sound(name):
    """By the log spectral distance of what is heard; a low level, which is hardly heard, has a test of its own."""
    from instrlib.audio.features import extract
    from instrlib.core.config import FeatureConfig

    config = FeatureConfig()
    signal = tone(440.0) * np.exp(-2 * np.arange(2 * RATE_HZ) / RATE_HZ) + 0.5 * bursts()
    clean = extract(signal, config)
    far = [
        np.abs(extract(degrade(signal, RATE_HZ, name, level, rng()), config) - clean).mean()
        for level in DEGRADATIONS[name].levels
    ]
    assert (np.diff(far) > 0).all(), far


def test_silence_stays_silence():
    silence = np.zeros(1000, np.float32)
    for name, one in DEGRADATIONS.items():
        assert not degrade(silence, RATE_HZ, name, one.levels[0], rng()).any()


# -- each by another measure -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", DEGRADATIONS["noise"].levels)
def test_noise_has_the_power_that_was_asked_for_and_falls_by_3_db_an_octave(snr_db):
    signal = tone(440.0, duration_s=4.0)
    added = degrade(signal, RATE_HZ, "noise", snr_db, rng()) - signal
    assert power_db(signal) - power_db(added) == pytest.approx(snr_db, abs=1e-6)
    octaves = [spectrum_db(added, 100 * 2**n, 200 * 2**n) for n in range(6)]
    assert np.polyfit(np.arange(6), octaves, 1)[0] == pytest.approx(-3.01, abs=0.3)


@pytest.mark.parametrize("rt60_s", DEGRADATIONS["room"].levels)
def test_a_room_decays_by_60_db_in_its_time_by_schroeder_integration(rt60_s):
    impulse = np.zeros(5 * RATE_HZ)
    impulse[0] = 1
    heard = degrade(impulse, RATE_HZ, "room", rt60_s, rng())
    direct, tail = heard[0] ** 2, heard[round(0.005 * RATE_HZ) :] ** 2
    decay_db = 10 * np.log10(np.maximum(np.cumsum(tail[::-1])[::-1] / tail.sum(), 1e-12))
    from_5_to_35 = (decay_db <= -5) & (decay_db >= -35)
    slope = np.polyfit(np.flatnonzero(from_5_to_35) / RATE_HZ, decay_db[from_5_to_35], 1)[0]
    assert -60 / slope == pytest.approx(rt60_s, rel=0.06)
    # The critical distance of a diffuse field, here that of a source 2 m away in 200 cubic metres.
    assert 10 * np.log10(direct / tail.sum()) == pytest.approx(
        20 * np.log10(0.057 * np.sqrt(200 / rt60_s) / 2), abs=0.1
    )


@pytest.mark.parametrize("cutoff_hz", DEGRADATIONS["low_pass"].levels)
def test_a_low_pass_loses_3_db_at_its_cutoff_and_48_db_an_octave_above(cutoff_hz):
    def gain_db(frequency_hz: float) -> float:
        # A strong tone far below carries the level, so that bringing back the loudness changes nothing here.
        low, probe = tone(200.0, duration_s=4.0), tone(frequency_hz, duration_s=4.0, size=1e-3)
        changed = degrade(low + probe, RATE_HZ, "low_pass", cutoff_hz, rng())
        reference = np.exp(-2j * np.pi * frequency_hz * np.arange(len(probe)) / RATE_HZ)
        inner = slice(RATE_HZ // 2, -RATE_HZ // 2)
        window = np.hanning(len(probe[inner]))
        return 20 * np.log10(
            abs(np.dot(changed[inner] * window, reference[inner]))
            / abs(np.dot(probe[inner] * window, reference[inner]))
        )

    assert gain_db(cutoff_hz / 2) == pytest.approx(0, abs=0.1)
    assert gain_db(cutoff_hz) == pytest.approx(-3.01, abs=0.1)
    if 2 * cutoff_hz < RATE_HZ / 2:
        assert gain_db(2 * cutoff_hz) == pytest.approx(-48.2, abs=0.5)


@pytest.mark.parametrize("kbps", DEGRADATIONS["mp3"].levels)
def test_an_mp3_is_as_large_as_its_bit_rate_says(kbps, monkeypatch):
    written = []
    monkeypatch.setattr("instrlib.audio.effects.encode", lambda *a, **k: written.append(encode(*a, **k)) or written[-1])
    signal = bursts()
    degrade(np.tile(signal, 4), RATE_HZ, "mp3", kbps, rng())
    (file,) = written
    # Frames are padded to whole ones, and one more holds what is left in the encoder.
    assert file.getbuffer().nbytes * 8 / (4 * len(signal) / RATE_HZ) / 1000 == pytest.approx(kbps, rel=0.03)
    assert soundfile.info(io.BytesIO(file.getvalue())).format == "MP3"


@pytest.mark.parametrize("drive_db", DEGRADATIONS["clipping"].levels)
def test_clipping_cuts_the_samples_that_lie_over_full_scale_and_no_others(drive_db):
    signal = tone(440.0) * np.linspace(0, 1, 2 * RATE_HZ)
    changed = degrade(signal, RATE_HZ, "clipping", drive_db, rng())
    over = np.abs(signal) > np.abs(signal).max() * 10 ** (-drive_db / 20)
    assert (np.abs(changed) == 1).mean() == pytest.approx(over.mean(), abs=1e-4)
    gain = 10 ** (drive_db / 20) / np.abs(signal).max()
    np.testing.assert_allclose(changed[~over], signal[~over] * gain, atol=1e-12)


@pytest.mark.parametrize("peak_dbfs", DEGRADATIONS["quiet"].levels)
def test_a_quiet_recording_has_its_peak_there_and_the_noise_of_16_bits(peak_dbfs):
    signal = tone(441.3) + tone(1234.5, size=0.2)
    changed = degrade(signal, RATE_HZ, "quiet", peak_dbfs, rng())
    assert 20 * np.log10(np.abs(changed).max()) == pytest.approx(peak_dbfs, abs=0.2)
    steps = changed * 32_767
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    error = changed - signal * (10 ** (peak_dbfs / 20) / np.abs(signal).max())
    # A step's error is spread evenly over it: 1/12 of its square.
    assert power_db(error) == pytest.approx(20 * np.log10(1 / 32_767) - 10 * np.log10(12), abs=0.3)


@pytest.mark.parametrize(
    ("name", "semitones"),
    [(name, level) for name in ("pitch_up", "pitch_down") for level in DEGRADATIONS[name].levels],
)
def test_the_pitch_moves_by_its_semitones(name, semitones):
    changed = degrade(tone(440.0, duration_s=4.0), RATE_HZ, name, semitones, rng())
    inner = changed[RATE_HZ:-RATE_HZ] * np.hanning(2 * RATE_HZ)
    peak_hz = np.abs(np.fft.rfft(inner, 2**20)).argmax() * RATE_HZ / 2**20
    assert 12 * np.log2(peak_hz / 440) == pytest.approx(semitones, abs=0.1)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, RATE_HZ, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("name", ["mp3", "vorbis"])
def test_codecs_work_at_every_level_and_sample_rate_and_move_no_sample(name, rate_hz):
    signal = np.interp(np.arange(2 * rate_hz) * (RATE_HZ / rate_hz), np.arange(2 * RATE_HZ), bursts())
    for level in DEGRADATIONS[name].levels:
        changed = degrade(signal, rate_hz, name, level, rng())
        assert changed.shape == signal.shape
        n_fft = 2 * len(signal)
        match = np.fft.irfft(np.fft.rfft(changed, n_fft) * np.conj(np.fft.rfft(signal, n_fft)), n_fft)
        assert abs((int(np.argmax(match)) + 100) % n_fft - 100) <= 1


@pytest.mark.parametrize("rt60_s", [1e-5, 0.004, 0.0051])
def test_a_room_that_is_over_before_the_first_reflection_leaves_the_sound_alone(rt60_s):
    signal = bursts()
    np.testing.assert_allclose(degrade(signal, RATE_HZ, "room", rt60_s, rng()), signal, atol=0.15)
    assert room_response(RATE_HZ, rt60_s, rng())[0] == 1


def test_the_reverberation_has_the_level_that_is_asked_for():
    response = room_response(RATE_HZ, 0.5, rng(), reverberation_db=-12.0, first_reflection_s=0.02)
    assert power_db(response[1:]) + 10 * np.log10(len(response) - 1) == pytest.approx(-12)
    assert np.flatnonzero(response)[1] == round(0.02 * RATE_HZ)


@pytest.mark.parametrize(
    ("name", "level", "place"),
    [
        ("rain", 1.0, "rain"),
        ("mp3", 321, "321"),
        ("mp3", 4, "kbit"),
        ("vorbis", 11, "11"),
        ("room", 0.0, "rt60_s"),
        ("room", np.nan, "rt60_s"),
    ],
)
def test_unknown_degradations_and_levels_are_refused(name, level, place):
    with pytest.raises(ConfigError, match=place):
        degrade(bursts(), RATE_HZ, name, level, rng())


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 2.0])
def test_coloured_noise_falls_with_its_slope(slope):
    found = effects.coloured_noise(8 * RATE_HZ, RATE_HZ, rng(), slope=slope)
    octaves = [spectrum_db(found, 100 * 2**n, 200 * 2**n) for n in range(6)]
    assert np.polyfit(np.arange(6), octaves, 1)[0] == pytest.approx(-3.01 * slope, abs=0.3)


def test_an_equaliser_changes_the_spectrum_by_what_was_drawn():
    impulse = np.zeros(RATE_HZ)
    impulse[RATE_HZ // 2] = 1  # without phase, half of the response lies before it
    changed = effects.equalise(impulse, RATE_HZ, rng(), bells=1, largest_db=6, tilt_db=(-1, 1))
    frequency_hz = np.array([50, 400, 800, 3000, 8000])
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(changed))[frequency_hz])
    expected = effects.equaliser_db(np.log2(frequency_hz / 800), rng(), bells=1, largest_db=6, tilt_db=(-1, 1))[0]
    np.testing.assert_allclose(gain_db, expected, atol=0.1)


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [ChangedCopies, EverydayRecordings])
def test_copies_differ_by_seed_clip_offset_and_number_and_are_the_same_in_every_process(change):
    signal = bursts().astype(np.float32)[: RATE_HZ // 2]

    def made(seed=0, clip_id="a", offset_s=0.0, n_copies=24):
        where = {"sample_rate_hz": RATE_HZ, "clip_id": clip_id, "offset_s": offset_s}
        return list(change(seed=seed, n_copies=n_copies).copies(signal, **where))

    first = made()
    assert all(one.shape == signal.shape and one.dtype == signal.dtype and np.isfinite(one).all() for one in first)
    assert len({one.tobytes() for one in first}) > 16
    for found, expected in zip(made(n_copies=2), first, strict=False):
        np.testing.assert_array_equal(found, expected)
    for other in (made(seed=1), made(clip_id="b"), made(offset_s=0.5)):
        assert any(not np.array_equal(one, another) for one, another in zip(other, first, strict=True))
    prints = {change(seed=seed, n_copies=n).fingerprint for seed, n in ((0, 1), (1, 1), (0, 2))}
    assert len(prints | {DamageSimulation().fingerprint}) == 4


@pytest.mark.parametrize("n_samples", [400, 1_103, 11_025, 66_150])
def test_a_copy_is_finite_as_long_as_its_original_and_audible(n_samples):
    signal = np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
    for copy in ChangedCopies(n_copies=12).copies(signal, sample_rate_hz=22_050, clip_id="a", offset_s=0.0):
        assert copy.shape == signal.shape
        assert np.isfinite(copy).all()
        assert copy.std() > 1e-4


def test_the_noise_of_a_copy_is_as_loud_as_its_range_says(monkeypatch):
    monkeypatch.setattr(effects, "COPY_GAIN_DB", (0.0, 0.0))
    monkeypatch.setattr(effects, "COPY_SNR_DB", (20.0, 20.0))
    signal = bursts()
    where = {"sample_rate_hz": RATE_HZ, "clip_id": "a", "offset_s": 0.0}
    noise = [np.mean((copy - signal) ** 2) for copy in ChangedCopies(n_copies=60).copies(signal, **where)]
    levels_db = 10 * np.log10(np.mean(signal**2) / np.maximum(noise, 1e-15))
    assert (np.abs(levels_db - 20) < 0.5).any(), "noise alone was drawn"
    assert (levels_db > 100).any(), "nothing was drawn"
