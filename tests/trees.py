"""Small copies of the public corpora in the layout of their releases, and a server to fetch them from."""

import contextlib
import dataclasses
import functools
import http.server
import json
import threading
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from instrlib.core.io import hash_file
from instrlib.data import rendered
from instrlib.data.dataset import Corpus

TONES_HZ = {"low": 220.0, "middle": 880.0, "high": 3520.0}
"""The instruments of `make_tones`."""


def tone(timbre, pitch, duration_s, sample_rate_hz=22050):
    """Return a tone whose partials tell its timbre; `pitch` (a whole number) chooses one of twelve notes."""
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    f0_hz = 220.0 * 2 ** (pitch % 12 / 12)
    partials = (np.array([1.0]), np.array([1.0, 0, 1, 0, 1]), 1 / np.arange(1, 13), np.arange(1.0, 9.0))[timbre % 4]
    partials = partials / (1 + timbre // 4)
    partials[0] = 1.0
    waves = [size * np.sin(2 * np.pi * (number + 1) * f0_hz * time_s) for number, size in enumerate(partials)]
    return 0.3 * np.sum(waves, axis=0) / np.abs(partials).sum() * np.exp(-(timbre % 3) * time_s)


def own_level(path):
    """Return a level by a file's name and folder, so that no tone is a copy of another."""
    return 0.5 + zlib.crc32("/".join(path.parts[-2:]).encode()) / 2**33


def write_audio(path, signal, sample_rate_hz=22050):
    """Write a signal in the format of the path's ending, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, sample_rate_hz)


def write_index(index, folder):
    """Write mirdata's list of all files of a folder, with the MD5 of each."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != index)
    listed = [[path.relative_to(folder).as_posix(), hash_file(path, algorithm="md5")] for path in files]
    tracks = {str(number): {"audio": pair} for number, pair in enumerate(listed)}
    index.write_text(json.dumps({"version": "1.0", "tracks": tracks}))


def make_irmas(root, *, duration_s=1.0):
    """Make the training set and the three parts of the test set, and mirdata's list of their files.

    Each of 4 classes has 8 recordings of 2 excerpts, named in the three ways of the release. The first recording also
    has an excerpt in the folder of the second class. The test set has 6 recordings of 2 excerpts, with one to three
    instruments each; the last of them stands in two parts.
    """
    root, classes = Path(root), ("cel", "flu", "pia", "tru")
    for timbre, label in enumerate(classes):
        for number in range(8):
            recording = 1 + 8 * timbre + number
            start = (f"[{label}][cla]", f"[{label}][nod][jaz_blu]", f"{number:03}__[{label}][dru][pop_roc]")[number % 3]
            for excerpt in (1, 2):
                path = root / "IRMAS-TrainingData" / label / f"{start}{recording:04}__{excerpt}.wav"
                write_audio(path, tone(timbre, 5 * number + excerpt, duration_s) * own_level(path))
    also = root / "IRMAS-TrainingData" / classes[1] / f"[{classes[1]}][cla]0001__3.wav"
    write_audio(also, tone(1, 3, duration_s))
    places = (
        ("IRMAS-TestingData-Part1/Part1", "(02) dont kill the whale"),
        ("IRMAS-TestingData-Part1/Part1", "02 - And The Body Will Die"),
        ("IRMAS-TestingData-Part2/IRTestingData-Part2", "john_coltrane-01-a_love_supreme_part_1-rns"),
        ("IRMAS-TestingData-Part2/IRTestingData-Part2", "Debussy, Violin Sonata - 1 Allegro vivo"),
        ("IRMAS-TestingData-Part3/Part3", "Johnny Cash - One"),
        ("IRMAS-TestingData-Part3/Part3", "Vacation Island"),
    )
    for number, (folder, name) in enumerate(places):
        for excerpt in (1, 12):
            timbres = sorted({(number + step) % len(classes) for step in range(1 + (number + excerpt) % 3)})
            where = places[0][0] if (number, excerpt) == (5, 12) else folder
            signal = sum(tone(timbre, number + timbre, 2 * duration_s) for timbre in timbres) / len(timbres)
            path = root / where / f"{name}-{excerpt}.wav"
            write_audio(path, signal * own_level(path))
            text = "".join(f"{classes[timbre]}\t\n" for timbre in timbres)
            (root / where / f"{name}-{excerpt}.txt").write_text(text)
    write_index(root / "irmas_index_1.0.json", root)
    return root


def make_openmic2018(root, *, duration_s=1.0):
    """Make the release in `root/openmic-2018`, and mirdata's list of its files.

    Each of 4 classes has 8 artists of 2 clips, the last 2 of them in the official test part. In a clip its class is
    present, the next one is present in every second clip and else absent, the one after is absent, and the others were
    not looked for.
    """
    base, classes = Path(root) / "openmic-2018", ("cello", "drums", "flute", "piano")
    rows, metadata, keys, parts = [], [], [], {"train": [], "test": []}
    for timbre, name in enumerate(classes):
        for artist in range(8):
            for clip in range(2):
                key = f"{46 + 137 * len(keys):06}_{3840 * (clip + 1)}"
                following, absent = classes[(timbre + 1) % len(classes)], classes[(timbre + 2) % len(classes)]
                signal = tone(timbre, 5 * artist + clip, duration_s)
                if clip % 2:
                    signal = (signal + tone((timbre + 1) % len(classes), artist, duration_s)) / 2
                path = base / "audio" / key[:3] / f"{key}.ogg"
                write_audio(path, signal * own_level(path))
                rows += [
                    (key, name, 0.5 + 0.5 / (1 + clip), 3),
                    (key, following, 0.82895 if clip % 2 else 0.17105, 3),
                    (key, absent, 0.0, 4),
                ]
                described = {"sample_key": key, "artist_name": f"Artist {timbre}{artist}", "start_time": 0}
                described |= {"track_title": f"Song {len(keys)}", "license_title": "Attribution 3.0 International"}
                metadata.append(described)
                parts["test" if artist >= 6 else "train"].append(key)
                keys.append(key)
    pd.DataFrame(metadata).to_csv(base / "openmic-2018-metadata.csv", index=False)
    columns = ["sample_key", "instrument", "relevance", "num_responses"]
    pd.DataFrame(rows, columns=columns).to_csv(base / "openmic-2018-aggregated-labels.csv", index=False)
    (base / "partitions").mkdir()
    for part, names in parts.items():
        (base / "partitions" / f"split01_{part}.csv").write_text("".join(f"{key}\n" for key in names))
    embeddings = np.random.default_rng(0).integers(0, 256, (len(keys), 10, 128))
    times_s = [round(0.96 * number, 2) for number in range(10)]
    for key, values in zip(keys, embeddings, strict=True):
        path = base / "vggish" / key[:3] / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"time_points": times_s, "features": values.tolist()}))
    write_index(Path(root) / "openmic2018_index_1.0.json", base)
    return Path(root)


@contextlib.contextmanager
def serving(folder):
    """Serve a folder's files; yield the address that they stand below."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


NSYNTH_FAMILIES = ("brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "vocal")


def nsynth_note(family, source, number, pitch, velocity):
    """Return one entry of `examples.json`, with the fields that are read and one that is not."""
    instrument = f"{family}_{source}_{number:03}"
    return {
        "note_str": f"{instrument}-{pitch:03}-{velocity:03}",
        "instrument_str": instrument,
        "instrument_family_str": family,
        "instrument_source_str": source,
        "instrument": number,
        "pitch": pitch,
        "velocity": velocity,
    }


def write_nsynth_part(root, part, notes):
    """Write `nsynth-<part>`: its JSON, and 4 s of 16 kHz for each note, held for 3 s and then let go."""
    folder = Path(root) / f"nsynth-{part}"
    (folder / "audio").mkdir(parents=True)
    listed = {note["note_str"]: note for note in notes}
    (folder / "examples.json").write_text(json.dumps(listed, indent=4))
    envelope = np.ones(64_000)
    envelope[48_000:] = np.linspace(1, 0, 16_000)
    for name, note in listed.items():
        pitch = 7 * note["instrument"] + note["pitch"]
        signal = (
            tone(NSYNTH_FAMILIES.index(note["instrument_family_str"]), pitch, 4.0, 16_000)
            * envelope
            * note["velocity"]
            / 127
        )
        path = folder / "audio" / f"{name}.wav"
        soundfile.write(path, signal * own_level(path), 16_000, subtype="PCM_16")
    return folder


def make_nsynth(root, *, families=("brass", "flute", "keyboard", "string")):
    """Make the three parts of the release.

    Each family has 6 acoustic instruments of 4 notes. The last two of them stand in `nsynth-valid` and `nsynth-test`,
    one half of the notes of each instrument in either, as in the release; the others in `nsynth-train`, together with
    one electronic organ.
    """
    parts = {"train": [nsynth_note("organ", "electronic", 900, 60 + note, 127) for note in range(4)]}
    for place, family in enumerate(families):
        for number in range(6):
            for note in range(4):
                part = "train" if number < 4 else "valid" if note % 2 else "test"
                made = nsynth_note(family, "acoustic", 10 * place + number, 48 + 3 * note, 25 * (note + 1))
                parts.setdefault(part, []).append(made)
    for part, listed in parts.items():
        write_nsynth_part(root, part, listed)
    return Path(root)


KAGGLE_TRAIN = {
    "Sound_Drum": (
        *(
            f"{kit}_{number:02}{drum}"
            for kit in ("RealDrum01", "TechnoDrum01")
            for number in range(3)
            for drum in ("MIX", "HHtrain")
        ),
        *(f"WaveDrum02_39KD ({number})" for number in range(1, 5)),
        *("chill-drum-loop-6887", "african-98600", "asian-gong-102397", "hip-hop-drum-loop-23-75663"),
    ),
    "Sound_Guitar": (
        *(
            f"{guitar}_Lick{number}_{style}"
            for guitar in ("AR", "FS", "LP")
            for number in (1, 2)
            for style in ("FN", "MN")
        ),
        *("G53-40100-1111-00079", "G53-40100-1111-157", "1-E1-Major 00", "1-E1-Major 01", "jazz_1_160BPM"),
        *("slow_jazz_1_160BPM", "folk_2_100BPM", "rock_1_115BPM", "slow_rock_1_100BPM"),
    ),
    "Sound_Piano": (
        *(
            f"ROOM_room{room}_MUS_{piece}_DEV_{device}"
            for room in (1, 2, 3, 6)
            for piece in ("bartok", "mozart")
            for device in ("ipad", "lg")
        ),
        *("toy-piano-27311", "sad-piano-58774", "piano-harp-sequence-28500", "piano-harp-sequence-66667"),
    ),
    # These files lie there, but no table names them.
    "Sound_Violin": (
        *(f"{number}_{player}_bwv1003" for player in ("emil-telmanyi", "silei-li", "ray-chen") for number in (0, 11)),
        *("0_john-garner_bwv1002_mov3", "1_john-garner_bwv1002_mov6", "violin_sound (4)", "VIOLIN_SOUND (29)"),
        *("Violin_Sound (65)", "violin_sounds (19)", "Vn-ord-F5-pp-1c", "Vn-ord-C7-mf-1c", "Va-ord-C5-mf-2c"),
    ),
}
KAGGLE_TEST = {
    "Sound_Guiatr": ("acoustic-guitar-logo-13084", "guitar-solo-27194", "guitar-solo-5999", "rock_1_100BPM"),
    "Sound_Drum": ("darbuka-drum-percussion-64018", "hip-hop-drum-loop-22-33572", "world-drum-beat-76217"),
    "Sound_Violin": (
        "Sad-Violin-A-www.fesliyanstudios.com",
        "Sad-Violin-Slow-K-www.fesliyanstudios.com",
        "Va-ord-E4-ff-4c",
    ),
    "Sound_Piano": ("ROOM_room6_MUS_mozart_DEV_redmi", "short-logo-108964", "wingrandpiano-96338"),
}
_TIMBRES = {"Sound_Drum": 0, "Sound_Guitar": 1, "Sound_Guiatr": 1, "Sound_Piano": 2, "Sound_Violin": 3}


def make_kaggle_instruments(root, *, duration_s=1.0):
    """Make the set with the file names and the errors of the published one.

    In the table of the training part every drum file stands once more as a violin, and the violins do not stand at all;
    the table of the test part misspells the guitar. The folders lie in folders of their own name.
    """
    root = Path(root)
    for part, content in (("Train", KAGGLE_TRAIN), ("Test", KAGGLE_TEST)):
        folder = root / f"{part}_submission" / f"{part}_submission"
        rows = [(f"{stem}.wav", label) for label, stems in content.items() for stem in stems]
        for number, (name, label) in enumerate(rows):
            # No two files are of one length, so none is a copy of another.
            longer_s = number / 100 + (0.005 if part == "Test" else 0)
            write_audio(folder / name, tone(_TIMBRES[label], number, duration_s + longer_s))
        if part == "Train":
            drums = [(name, "Sound_Violin") for name, label in rows if label == "Sound_Drum"]
            rows = [row for row in rows if row[1] != "Sound_Violin"] + drums
        pd.DataFrame(rows, columns=["FileName", "Class"]).to_csv(root / f"Metadata_{part}.csv", index=False)
    return root


def make_folders(root, *, classes=("cello", "flute", "piano"), recordings=8):
    """Make a folder of recordings for each class."""
    for timbre, label in enumerate(classes):
        for number in range(recordings):
            write_audio(Path(root) / label / f"take {number}.wav", tone(timbre, 5 * number, 1.0 + number / 10))


def make_tones(root, sample_rate_hz=22_050):
    """Write three instruments that cannot be mistaken: pure tones of one second and more, of different levels."""
    rows = []
    for number, (label, frequency_hz) in enumerate(TONES_HZ.items()):
        time_s = np.arange(2 * sample_rate_hz) / sample_rate_hz
        sound = 0.5 / (number + 1) * np.sin(2 * np.pi * frequency_hz * time_s)
        sound[(time_s < 0.25) | (time_s > 1.25 + 0.25 * number)] = 0
        soundfile.write(root / f"{label}.wav", sound, sample_rate_hz)
        rows.append((label, f"{label}.wav", 0.0, 2.0, label, label, ""))
    columns = ["clip_id", "path", "start_s", "duration_s", "label", "group", "split"]
    manifest = pd.DataFrame(rows, columns=columns).sort_values("clip_id", ignore_index=True)
    info = dataclasses.replace(rendered.INFO, name="tones")
    return Corpus(info, root, manifest, tuple(sorted(TONES_HZ)))
