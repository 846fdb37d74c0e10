"""Decoding: librosa's values for every format, and one sentence for a file that cannot be used."""

import os
import sys
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from instrlib.audio import decode as audio
from instrlib.core.io import AudioError

RATE_HZ = 22_050


def tone(duration_s: float, rate_hz: int, n_channels: int = 1) -> np.ndarray:
    """A decaying 440-Hz tone in some noise, other in every channel [shape=(n, n_channels)]."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    gains = 0.5 / np.arange(1, n_channels + 1)
    wave = np.sin(2 * np.pi * 440 * time_s) * np.exp(-time_s)
    return wave[:, None] * gains + rng.normal(0, 0.01, (len(time_s), n_channels))


def written(path: Path, samples: np.ndarray, rate_hz: int = 44_100, **options: str) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path


def assert_like_librosa(path: Path, rate_hz: int = RATE_HZ) -> None:
    expected, _ = librosa.load(path, sr=rate_hz)
    found = audio.load(path, sample_rate_hz=rate_hz)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        *(("wav", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("flac", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")),
        ("ogg", "VORBIS"),
        ("ogg", "OPUS"),
        ("mp3", "MPEG_LAYER_III"),
    ],
)
def test_every_format_and_bit_depth_gives_what_librosa_gives(tmp_path, ending, subtype):
    rate_hz = 48_000 if subtype == "OPUS" else 44_100
    path = written(tmp_path / f"tone.{ending}", tone(0.5, rate_hz, 2), rate_hz, subtype=subtype)
    assert_like_librosa(path)
    assert audio.probe(path) == audio.AudioInfo(rate_hz, 2, pytest.approx(0.5, abs=0.06))


@pytest.mark.parametrize("n_channels", range(1, 7))
def test_channels_are_averaged(tmp_path, n_channels):
    samples = tone(0.2, RATE_HZ, n_channels)
    path = written(tmp_path / "tone.wav", samples, RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(path, sample_rate_hz=RATE_HZ), samples.mean(axis=1), atol=1e-7)
    assert audio.probe(path).n_channels == n_channels


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_is_brought_to_the_one_that_is_asked_for(tmp_path, rate_hz):
    assert_like_librosa(written(tmp_path / "tone.wav", tone(0.7321, rate_hz), rate_hz))


@pytest.mark.parametrize("name", ["with spaces in it.wav", "Flöte – ré♯ 笛.flac", "100%.wav", "a'b\"c.wav"])
def test_names_may_hold_spaces_and_any_letters(tmp_path, name):
    assert_like_librosa(written(tmp_path / name, tone(0.2, 44_100)))


@pytest.mark.real_data
def test_real_clips_load_as_with_librosa(sample_root):
    paths = sorted(sample_root.rglob("*.flac"))[::20]
    assert paths
    for path in paths:
        assert_like_librosa(path)


def test_a_part_begins_and_ends_where_it_is_asked_to(tmp_path):
    samples = tone(2.0, 44_100)
    path = written(tmp_path / "tone.flac", samples)
    part = audio.load(path, sample_rate_hz=44_100, start_s=0.5, duration_s=0.25)
    np.testing.assert_allclose(part, samples[22_050:33_075, 0], atol=2**-15)
    assert len(audio.load(path, sample_rate_hz=44_100, start_s=1.9, duration_s=5.0)) == 4_410


@pytest.mark.parametrize("block_s", [0.011, 0.1, 0.5, 10.0])
@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100])
def test_blocks_put_together_are_the_whole_file(tmp_path, rate_hz, block_s):
    path = written(tmp_path / "tone.wav", tone(1.0, rate_hz, 2), rate_hz)
    pieces = list(audio.blocks(path, sample_rate_hz=RATE_HZ, block_s=block_s))
    np.testing.assert_array_equal(np.concatenate(pieces), audio.load(path, sample_rate_hz=RATE_HZ))
    assert all(len(piece) for piece in pieces)


def test_two_hours_pass_through_blocks_in_flat_memory(tmp_path):
    path, rate_hz, duration_s = tmp_path / "long.wav", 8_000, 7_200
    minute = tone(60.0, rate_hz)
    minute[:, 0] += 0.05 * np.random.default_rng(1).normal(size=len(minute))
    with soundfile.SoundFile(path, "w", rate_hz, 1, subtype="PCM_U8") as file:
        for _ in range(duration_s // 60):
            file.write(minute)
    assert audio.probe(path).duration_s == duration_s
    tracemalloc.start()
    n_samples = sum(len(block) for block in audio.blocks(path, sample_rate_hz=4_000, block_s=10.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_samples == duration_s * 4_000
    assert peak < 5e6  # The whole would be 115 MB.
    end = audio.load(path, sample_rate_hz=rate_hz, start_s=duration_s - 1.0)
    np.testing.assert_allclose(end, minute[-rate_hz:, 0], atol=2**-6)


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _header_only(path: Path) -> None:
    written(path, np.zeros((0, 1)))


def _unknown_length(path: Path) -> None:
    content = bytearray(written(path, tone(1.0, 44_100)).read_bytes())
    total = content.index(b"fLaC") + 8 + 13  # The last 36 bits before the digest: samples in the stream.
    content[total] &= 0xF0
    content[total + 1 : total + 5] = bytes(4)
    path.write_bytes(content)


def _text(path: Path) -> None:
    path.write_text("These are words, and no sound at all.\n" * 100)


def _silence(path: Path) -> None:
    written(path, np.full((44_100, 2), 0.9e-4), subtype="FLOAT")


def _opposite_channels(path: Path) -> None:
    written(path, tone(1.0, 44_100) * [1, -1], subtype="FLOAT")


def _nan(path: Path) -> None:
    samples = tone(1.0, 44_100)
    samples[-1] = np.nan
    written(path, samples, subtype="FLOAT")


def _infinity(path: Path) -> None:
    samples = tone(1.0, 44_100, 2)
    samples[0] = np.inf, -np.inf
    written(path, samples, subtype="DOUBLE")


def _too_loud_for_float32(path: Path) -> None:
    written(path, np.full((44_100, 1), 1e300), subtype="DOUBLE")


def _short(path: Path) -> None:
    written(path, tone(0.02, 44_100))


def _absurd_length(path: Path) -> None:
    """A header that claims 2^36 - 1 samples, as in a file that was damaged or made to exhaust memory."""
    content = bytearray(written(path, tone(1.0, 44_100)).read_bytes())
    total = content.index(b"fLaC") + 8 + 13
    content[total] |= 0x0F
    content[total + 1 : total + 5] = b"\xff" * 4
    path.write_bytes(content)


BAD = [
    (lambda path: None, "sound.wav", "cannot be read"),
    (lambda path: path.mkdir(), "sound.wav", "regular file"),
    (_nothing, "sound.wav", "empty"),
    (_nothing, "sound.mp3", "empty"),
    (_header_only, "sound.wav", "no samples"),
    (_unknown_length, "sound.flac", "length"),
    (_absurd_length, "sound.flac", "68719476735 samples"),
    *((_text, f"sound.{ending}", "decoded") for ending in ("wav", "flac", "ogg", "mp3", "raw")),
    (_silence, "sound.wav", "silent"),
    (_opposite_channels, "sound.wav", "silent"),
    (_nan, "sound.wav", "NaN"),
    (_infinity, "sound.wav", "infinite"),
    (_too_loud_for_float32, "sound.wav", "infinite"),
    (_short, "sound.wav", "too short, 20 ms"),
]


@pytest.mark.parametrize(("make", "name", "reason"), BAD, ids=[f"{m.__name__}-{n}" for m, n, _ in BAD])
def test_a_file_that_cannot_be_used_gives_one_sentence_with_its_path(tmp_path, make, name, reason):
    path = tmp_path / name
    make(path)
    for read in (audio.load, lambda path, **rate: list(audio.blocks(path, block_s=0.1, **rate))):
        tracemalloc.start()
        with pytest.raises(AudioError) as caught:
            read(path, sample_rate_hz=RATE_HZ)
        assert tracemalloc.get_traced_memory()[1] < 20e6, "memory is asked for before the file is refused"
        tracemalloc.stop()
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert reason in message
        assert "\n" not in message


def test_long_silence_in_flac_is_not_taken_for_an_absurd_header(tmp_path):
    with soundfile.SoundFile(tmp_path / "quiet.flac", "w", 44_100, 1) as file:
        file.write(tone(1.0, 44_100))
        for _ in range(30):
            file.write(np.zeros(44_100 * 60))
    assert audio.probe(tmp_path / "quiet.flac").duration_s == pytest.approx(1801)
    whole = audio.load(tmp_path / "quiet.flac", sample_rate_hz=44_100, duration_s=60.0)  # several blocks of decoding
    np.testing.assert_allclose(whole[:44_100], tone(1.0, 44_100)[:, 0], atol=2**-15)
    assert len(whole) == 60 * 44_100


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes and names there")
def test_a_pipe_is_not_called_empty_and_a_name_that_is_no_text_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="regular file"):
        audio.probe(tmp_path / "pipe.wav")
    path = written(tmp_path / "a.wav", tone(1.0, 44_100)).rename(tmp_path / "latin-\udce9.wav")
    with pytest.raises(AudioError, match="UTF-8"):
        audio.probe(path)


def test_a_file_that_one_may_not_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = written(tmp_path / "a.wav", tone(1.0, 44_100))
    monkeypatch.setattr(os, "access", lambda asked, mode: not (asked == path and mode == os.R_OK))
    with pytest.raises(AudioError, match="permission"):
        audio.probe(path)


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [bad for bad in BAD if bad[0] in (_nothing, _header_only, _unknown_length, _absurd_length, _short)],
)
def test_probe_refuses_what_the_header_alone_shows(tmp_path, make, name, reason):
    make(tmp_path / name)
    with pytest.raises(AudioError, match=reason):
        audio.probe(tmp_path / name)


def test_fifty_milliseconds_are_enough_and_so_is_a_peak_above_the_limit(tmp_path):
    path = written(tmp_path / "short.wav", np.full((2_205, 1), 1.1e-4), subtype="FLOAT")
    assert len(audio.load(path, sample_rate_hz=44_100)) == 2_205


@pytest.mark.parametrize("ending", ["wav", "ogg", "mp3"])
def test_of_a_truncated_file_what_decodes_is_used(tmp_path, ending):
    path = written(tmp_path / f"tone.{ending}", tone(3.0, 44_100))
    whole = audio.load(path, sample_rate_hz=44_100)
    os.truncate(path, path.stat().st_size // 2)
    part = audio.load(path, sample_rate_hz=44_100)
    assert 0.8 < len(part) / 44_100 < 2.0
    np.testing.assert_allclose(part[: 44_100 // 2], whole[: 44_100 // 2], atol=1e-6)
    pieces = list(audio.blocks(path, sample_rate_hz=44_100, block_s=0.3))
    np.testing.assert_allclose(np.concatenate(pieces), part, atol=1e-6)


@pytest.mark.parametrize(("ending", "kept_bytes"), [("mp3", 300), ("mp3", 900), ("ogg", 2_000), ("flac", 60_000)])
def test_a_truncated_file_of_which_nothing_decodes_is_refused(tmp_path, ending, kept_bytes):
    path = written(tmp_path / f"tone.{ending}", tone(3.0, 44_100))
    os.truncate(path, kept_bytes)
    with pytest.raises(AudioError, match=r"cannot be decoded|too short|no samples"):
        audio.load(path, sample_rate_hz=RATE_HZ)
