"""Small copies of the public corpora in the layout of their releases, a server, and commands that heed signals."""

import contextlib
import http.server
import json
import sys
import threading
import zlib

import numpy as np
import pandas as pd
import soundfile

from instrlib.core.io import hash_file

TONES_HZ = {"low": 220.0, "middle": 880.0, "high": 3520.0}


def tone(timbre, pitch, duration_s, sample_rate_hz=22050):
    """Return a tone whose partials depend on its timbre; `pitch` (a whole number) chooses one of twelve notes."""
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    f0_hz = 220.0 * 2 ** (pitch % 12 / 12)
    partials = (np.array([1.0]), np.array([1.0, 0, 1, 0, 1]), 1 / np.arange(1, 13), np.arange(1.0, 9.0))[timbre % 4]
    partials = partials / (1 + timbre // 4)
    partials[0] = 1.0
    waves = [size * np.sin(2 * np.pi * (number + 1) * f0_hz * time_s) for number, size in enumerate(partials)]
    return 0.3 * np.sum(waves, axis=0) / np.abs(partials).sum() * np.exp(-(timbre % 3) * time_s)


def write_audio(path, signal, sample_rate_hz=22050):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, sample_rate_hz)


def write_own(path, signal, sample_rate_hz=22050):
    """Write a signal with a level of its own, so that no file is a copy of another."""
    write_audio(path, signal * (0.5 + zlib.crc32("/".join(path.parts[-2:]).encode()) / 2**33), sample_rate_hz)


def write_table(path, rows, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns.split()).to_csv(path, index=False)


def write_index(index, folder):
    """Write mirdata's list of all files of a folder, with the MD5 of each."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != index)
    pairs = [[path.relative_to(folder).as_posix(), hash_file(path, algorithm="md5")] for path in files]
    index.write_text(json.dumps({"tracks": {str(number): {"audio": pair} for number, pair in enumerate(pairs)}}))


FSD_TRAIN = [(f"{label}{n}", label, 1000 * n + at) for at, label in enumerate(("Cello", "Flute")) for n in range(6)]
FSD_TEST = [("t1", "Cello", 90_000), ("t2", "Flute", 90_001), ("pad", "None", 5)]


def make_fsdkaggle2018(root, train=FSD_TRAIN):
    """Make the release from (name, label, Freesound id) rows; the last of the test part pads the competition."""
    for part, rows in (("train", train), ("test", FSD_TEST)):
        for name, *_ in rows:
            write_own(root / f"FSDKaggle2018.audio_{part}" / f"{name}.wav", tone(0, 0, 0.3))
        listed = [(f"{name}.wav", *row, "CC0", "Ignored" if name == "pad" else "Public") for name, *row in rows]
        table = root / f"FSDKaggle2018.meta/{part}_post_competition.csv"
        write_table(table, listed, "fname label freesound_id license usage")
    return root


IRMAS_TEST = ("(02) dont kill the whale", "john_coltrane-01-a_love", "Johnny Cash - One", "Vacation Island")
IRMAS_PLACES = ("Part1/Part1", "Part2/IRTestingData-Part2", "Part3/Part3", "Part3/Part3")


def make_irmas(root):
    """Make 8 recordings of 2 excerpts for each class (the first also in the second class), and the test set."""
    classes = ("cel", "flu", "pia", "tru")
    for timbre, label in enumerate(classes):
        for number in range(8):
            start = (f"[{label}][cla]", f"[{label}][nod][jaz_blu]", f"{number:03}__[{label}][dru][pop_roc]")[number % 3]
            for excerpt in (1, 2):
                name = f"{start}{1 + 8 * timbre + number:04}__{excerpt}.wav"
                write_own(root / "IRMAS-TrainingData" / label / name, tone(timbre, 5 * number + excerpt, 1.0))
    write_own(root / "IRMAS-TrainingData" / "flu" / "[flu][cla]0001__3.wav", tone(1, 3, 1.0))
    for number, (name, place) in enumerate(zip(IRMAS_TEST, IRMAS_PLACES, strict=True)):
        for excerpt in (1, 12):
            timbres = sorted({(number + step) % len(classes) for step in range(1 + (number + excerpt) % 3)})
            folder = root / f"IRMAS-TestingData-{'Part1/Part1' if (number, excerpt) == (3, 12) else place}"
            signal = sum(tone(timbre, number + timbre, 2.0) for timbre in timbres) / len(timbres)
            write_own(folder / f"{name}-{excerpt}.wav", signal)
            (folder / f"{name}-{excerpt}.txt").write_text("".join(f"{classes[timbre]}\t\n" for timbre in timbres))
    write_index(root / "irmas_index_1.0.json", root)
    return root


def make_openmic2018(root):
    """Make 8 artists of 2 clips for each class, which is present, as the next may be; the next but one is absent."""
    base, classes = root / "openmic-2018", ("cello", "drums", "flute", "piano")
    rows, metadata, parts = [], [], {"train": "", "test": ""}
    for number in range(64):
        timbre, artist, clip = number // 16, number // 2 % 8, number % 2
        key = f"{46 + 137 * number:06}_{3840 * (clip + 1)}"
        signal = tone(timbre, 5 * artist + clip, 1.0)
        if clip:
            signal = (signal + tone((timbre + 1) % 4, artist, 1.0)) / 2
        write_own(base / "audio" / key[:3] / f"{key}.ogg", signal)
        relevances = (0.5 + 0.5 / (1 + clip), 0.82895 if clip else 0.17105, 0.0)
        rows += [(key, classes[(timbre + step) % 4], relevance) for step, relevance in enumerate(relevances)]
        metadata.append((key, f"Artist {timbre}{artist}", f"Song {number}", "Attribution 3.0 International"))
        parts["test" if artist >= 6 else "train"] += f"{key}\n"
    write_table(base / "openmic-2018-metadata.csv", metadata, "sample_key artist_name track_title license_title")
    write_table(base / "openmic-2018-aggregated-labels.csv", rows, "sample_key instrument relevance")
    (base / "partitions").mkdir()
    for part, keys in parts.items():
        (base / "partitions" / f"split01_{part}.csv").write_text(keys)
    write_index(root / "openmic2018_index_1.0.json", base)
    return root


def make_nsynth(root):
    """Make 6 acoustic instruments of 4 notes for each family; the last two are in both small parts."""
    parts = {"train": [("organ", "electronic", 900, 60 + note, 127) for note in range(4)], "valid": [], "test": []}
    for place, family in enumerate(("brass", "flute", "keyboard", "string")):
        for number in range(6):
            for note in range(4):
                part = "train" if number < 4 else "valid" if note % 2 else "test"
                parts[part].append((family, "acoustic", 10 * place + number, 48 + 3 * note, 25 * (note + 1)))
    for part, notes in parts.items():
        listed = {}
        for family, source, number, pitch, velocity in notes:
            instrument = f"{family}_{source}_{number:03}"
            name = f"{instrument}-{pitch:03}-{velocity:03}"
            listed[name] = {"note_str": name, "instrument_str": instrument, "instrument_family_str": family}
            listed[name] |= {"instrument_source_str": source, "pitch": pitch, "velocity": velocity}
            signal = tone(number // 10, 7 * number + pitch, 4.0, 16_000) * velocity / 127
            write_own(root / f"nsynth-{part}" / "audio" / f"{name}.wav", signal, 16_000)
        (root / f"nsynth-{part}" / "examples.json").write_text(json.dumps(listed))
    return root


KAGGLE = {
    "Train": {
        "Sound_Drum": [f"RealDrum0{kit}_0{take}MIX" for kit in range(5) for take in range(4)],
        "Sound_Guitar": [f"rock_{piece}_1{tempo}5BPM" for piece in range(5) for tempo in range(4)],
        "Sound_Piano": [f"ROOM_room{room}_MUS_{piece}_DEV_lg" for room in range(7) for piece in ("bartok", "mozart")],
        "Sound_Violin": [f"{take}_player-{name}_bwv1003" for name in "abcde" for take in range(3)]
        + ["Va-ord-C5-mf-2c"],
    },
    "Test": {
        "Sound_Guiatr": ["acoustic-guitar-logo-13084", "guitar-solo-27194", "guitar-solo-5999", "rock_1_100BPM"],
        "Sound_Drum": ["darbuka-drum-percussion-64018", "hip-hop-drum-loop-22-33572", "world-drum-beat-76217"],
        "Sound_Violin": ["Sad-Violin-A-www.fesliyanstudios.com", "Sad-Violin-Slow", "Va-ord-E4-ff-4c"],
        "Sound_Piano": ["ROOM_room6_MUS_mozart_DEV_redmi", "short-logo-108964", "wingrandpiano-96338"],
    },
}


def make_kaggle_instruments(root):
    """Make the set with the published errors: drums are listed as violins, no violin is, the guitar is misspelt."""
    timbres = {"Sound_Drum": 0, "Sound_Guitar": 1, "Sound_Guiatr": 1, "Sound_Piano": 2, "Sound_Violin": 3}
    for part, content in KAGGLE.items():
        rows = [(f"{stem}.wav", label) for label, stems in content.items() for stem in stems]
        for number, (name, label) in enumerate(rows):
            place = root / f"{part}_submission" / f"{part}_submission" / name
            write_own(place, tone(timbres[label], number, 1.0))
        if part == "Train":
            drums = [(name, "Sound_Violin") for name, label in rows if label == "Sound_Drum"]
            rows = [row for row in rows if row[1] != "Sound_Violin"] + drums
        write_table(root / f"Metadata_{part}.csv", rows, "FileName Class")
    return root


def make_folder(root, *, classes=("cello", "flute", "piano"), recordings=8, longer_s=0.0):
    for timbre, label in enumerate(classes):
        for number in range(recordings):
            write_audio(root / label / f"take {number}.wav", tone(timbre, 5 * number, 1.0 + number / 10 + longer_s))
    return root


@contextlib.contextmanager
def serving(handler):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def heeding(command):
    """Return a command line that heeds signals as in a terminal; background jobs begin with signals ignored."""
    heed = "import os, signal, sys; [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)]; "
    return [sys.executable, "-c", heed + "os.execv(sys.argv[1], sys.argv[1:])", *command]
