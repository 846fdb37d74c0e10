"""Decoding: librosa's values for every format, and one sentence for a file that cannot be used."""

import functools
import os
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from instrlib.audio import decode
from instrlib.core.io import AudioError

RATE_HZ = 22_050


def tone(duration_s: float, rate_hz: int = 44_100, n_channels: int = 1) -> np.ndarray:
    """A decaying tone of 440 Hz in noise, different in every channel [shape=(n, n_channels)]."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    gains = 0.5 / np.arange(1, n_channels + 1)
    wave = np.sin(2 * np.pi * 440 * time_s) * np.exp(-time_s)
    return wave[:, None] * gains + rng.normal(0, 0.01, (len(time_s), n_channels))


def written(path: Path, samples: object, rate_hz: int = 44_100, **options: str) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path


@pytest.mark.parametrize(
    ("ending", "subtype", "rate_hz", "n_channels"),
    [
        *(("wav", subtype, 44_100, 2) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("flac", "PCM_24", 44_100, 2), ("ogg", "VORBIS", 44_100, 2), ("ogg", "OPUS", 48_000, 2)),
        *(("mp3", "MPEG_LAYER_III", 44_100, 2), ("flac", "PCM_S8", 8_000, 1), ("flac", "PCM_16", 192_000, 6)),
        *(("wav", "PCM_16", rate_hz, 1) for rate_hz in (11_025, 16_000, RATE_HZ)),
    ],
)
def test_every_format_depth_and_rate_has_the_values_of_librosa(tmp_path, ending, subtype, rate_hz, n_channels):
    duration_s = 0.5 if subtype == "OPUS" else 0.7321  # libsndfile errs in an incomplete last packet of Opus
    path = tmp_path / f"Flöte – 笛 100%'.{ending}"
    written(path, tone(duration_s, rate_hz, n_channels), rate_hz, subtype=subtype)
    found = decode.load(path, sample_rate_hz=RATE_HZ)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, librosa.load(path, sr=RATE_HZ)[0], rtol=0, atol=1e-6)
    for block_s in (0.011, 0.5):
        blocks = list(decode.blocks(path, sample_rate_hz=RATE_HZ, block_s=block_s))
        np.testing.assert_array_equal(np.concatenate(blocks), found)
    assert decode.probe(path) == decode.AudioInfo(rate_hz, n_channels, pytest.approx(duration_s, abs=0.06))


def test_a_part_begins_and_ends_where_it_should(tmp_path):
    samples = tone(2.0)
    path = written(tmp_path / "tone.flac", samples)
    part = decode.load(path, sample_rate_hz=44_100, start_s=0.5, duration_s=0.25)
    np.testing.assert_allclose(part, samples[22_050:33_075, 0], atol=2**-15)
    assert len(decode.load(path, sample_rate_hz=44_100, start_s=1.9, duration_s=5.0)) == 4_410
    with pytest.raises(AudioError, match="too short"):
        decode.load(path, sample_rate_hz=44_100, start_s=2.5)
    path = written(tmp_path / "short.wav", np.full((2_205, 1), 1.1e-4), subtype="FLOAT")
    assert len(decode.load(path, sample_rate_hz=44_100)) == 2_205  # 50 ms and a peak above the limit are enough


def test_two_hours_are_decoded_in_constant_memory(tmp_path):
    path, rate_hz, n_minutes = tmp_path / "long.wav", 8_000, 120
    minute = tone(60.0, rate_hz) + 0.05 * np.sin(np.arange(60 * rate_hz))[:, None]
    written(path, np.tile(minute, (n_minutes, 1)), rate_hz, subtype="PCM_U8")
    for start_s, duration_s in ((0.0, 90.0), (60 * n_minutes - 1.0, 1.0)):  # several reads; the last second
        part = decode.load(path, sample_rate_hz=rate_hz, start_s=start_s, duration_s=duration_s)
        expected = np.resize(np.roll(minute, -round(start_s * rate_hz)), len(part))
        np.testing.assert_allclose(part, expected, atol=2**-6)
    tracemalloc.start()
    n_samples = sum(len(block) for block in decode.blocks(path, sample_rate_hz=4_000, block_s=10.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_samples == 60 * n_minutes * 4_000 and peak < 5e6  # the whole is 115 MB


def with_length(path: Path, four_bits: int, byte: int) -> None:
    """Write a flac file whose header has another number of samples: the last 36 bits before the digest."""
    content = bytearray(written(path, tone(1.0)).read_bytes())
    total = content.index(b"fLaC") + 8 + 13
    content[total : total + 5] = bytes([content[total] & 0xF0 | four_bits, *[byte] * 4])
    path.write_bytes(content)


WORDS = "words\n" * 100
BAD_HEADERS = [
    (lambda path: None, "wav", "cannot be read"),
    *((make, "wav", "regular file") for make in (Path.mkdir, getattr(os, "mkfifo", Path.mkdir))),
    *((Path.touch, ending, "empty") for ending in ("wav", "mp3")),
    *((lambda path, n=n: written(path, tone(n / 1000)), "wav", f"too short, {n} ms") for n in (0, 20)),
    (lambda path: with_length(path, 0, 0), "flac", "samples in"),
    (lambda path: with_length(path, 15, 255), "flac", "68719476735 samples"),
    *((lambda path: path.write_text(WORDS), ending, "decoded") for ending in ("wav", "flac", "ogg", "raw")),
]
BAD_CONTENTS = [
    (lambda path: path.write_text(WORDS), "mp3", "decoded"),
    (lambda path: written(path, np.full((44_100, 2), 0.9e-4), subtype="FLOAT"), "wav", "silent"),
    (lambda path: written(path, tone(1.0) * [1, -1], subtype="FLOAT"), "wav", "silent"),
    (lambda path: written(path, np.append(tone(1.0), [[np.nan]], 0), subtype="FLOAT"), "wav", "NaN"),
    (lambda path: written(path, [[1e300]] * 9_999, subtype="DOUBLE"), "wav", "infinite"),
    *((lambda path: os.truncate(written(path, tone(3.0)), 900), ending, "") for ending in ("mp3", "ogg")),
    (lambda path: os.truncate(written(path, tone(3.0)), 60_000), "flac", "cannot be decoded"),
]


@pytest.mark.parametrize(("make", "ending", "reason"), [*BAD_HEADERS, *BAD_CONTENTS])
def test_a_file_that_cannot_be_used_gives_one_sentence_with_its_path(tmp_path, make, ending, reason):
    path = tmp_path / f"sound.{ending}"
    make(path)
    readers = [decode.probe] * ((make, ending, reason) in BAD_HEADERS)
    for read in (*readers, functools.partial(decode.load, sample_rate_hz=RATE_HZ)):
        tracemalloc.start()
        with pytest.raises(AudioError) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6, "memory is asked for before the header is checked"
        tracemalloc.stop()
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and reason in message and "\n" not in message


@pytest.mark.parametrize("ending", ["wav", "ogg", "mp3"])
def test_a_truncated_file_is_used_up_to_the_damage_and_its_name_may_be_no_text(tmp_path, ending):
    path = written(tmp_path / f"tone.{ending}", tone(3.0)).rename(tmp_path / f"latin-\udce9.{ending}")
    whole = decode.load(path, sample_rate_hz=44_100)
    os.truncate(path, path.stat().st_size // 2)
    part = decode.load(path, sample_rate_hz=44_100)
    assert 0.8 < len(part) / 44_100 < 2.0
    np.testing.assert_allclose(part[: 44_100 // 2], whole[: 44_100 // 2], atol=1e-6)
