"""Recordings of any length are predicted as the study predicts its clips, block by block, without TensorFlow."""

import csv
import dataclasses
import io
import json
import math
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from instrlib.audio import decode
from instrlib.audio.features import extract
from instrlib.core.parallel import without_stderr
from instrlib.models import published
from instrlib.runner.cli import main

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def model(released) -> published.PublishedModel:
    return released.made.model


def tone(duration_s: float, *, frequency_hz: float = 440.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return 0.3 * np.sin(2 * np.pi * frequency_hz * time_s) * (1 + 0.3 * np.sin(2 * np.pi * 0.37 * time_s))


def write(path: Path, signal: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    soundfile.write(path, signal, rate_hz)
    return path


def test_held_out_clips_get_the_predictions_that_their_scores_were_computed_from(released, small, model):
    after, paths = released.made.after, small.clips.manifest.set_index("clip_id").path
    found = [published.predict_file(small.clips.root / paths[clip], model) for clip in after["clip_id"]]
    np.testing.assert_allclose([one.probabilities for one in found], after["probabilities"], atol=1e-5)
    first = np.array([small.store.classes.index(one.top(1)[0][0]) for one in found])
    assert (first == after["targets"]).mean() == model.about["scores"]["accuracy"]["estimate"]
    assert np.mean([bool(one.named) for one in found]) == model.about["refusals"]["named"]


def test_every_segment_of_a_longer_recording_counts(model, tmp_path):
    parts = [tone(2.5, frequency_hz=110 * 2 ** (number / 5)) for number in range(25)]
    path = write(tmp_path / "long.wav", np.concatenate(parts))
    config = model.single.features
    signal, n = decode.load(path, sample_rate_hz=RATE_HZ), config.segment_samples
    spectra = [extract(signal[first : first + n], config) for first in range(0, len(signal) - n // 4, n)]
    assert len(spectra) == math.ceil((62.5 - 0.75) / 3)
    expected = published.predictor(model.single)(np.stack(spectra).astype(np.float16))[0].mean(axis=0)
    np.testing.assert_allclose(published.predict_file(path, model).probabilities, expected, atol=1e-5)


def test_the_prediction_does_not_depend_on_rate_channels_or_format(model, tmp_path):
    expected, signal = published.predict_file(write(tmp_path / "a.wav", tone(5.0)), model), tone(5.0, rate_hz=44_100)
    for name, n_channels, atol in (("a.flac", 2, 0.02), ("a.ogg", 1, 0.15), ("a.mp3", 1, 0.15)):
        found = published.predict_file(write(tmp_path / name, np.stack([signal] * n_channels, axis=1), 44_100), model)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=atol)
        assert found.duration_s == pytest.approx(5.0, abs=0.1)


def test_a_top_class_below_its_threshold_is_not_reported(model, tmp_path):
    path = write(tmp_path / "a.wav", tone(4.0))
    for threshold in (0.0, 1.01):
        network = dataclasses.replace(model.single, thresholds=np.full(3, threshold))
        found = published.predict_file(path, dataclasses.replace(model, single=network))
        assert found.probabilities.sum() == pytest.approx(1)
        assert found.named == ((found.top(1)[0][0],) if threshold == 0 else ())


def test_windows_start_at_every_hop_until_one_reaches_the_end(model, tmp_path):
    for duration_s, hop_s, window_s, n in ((10.2, 1.0, None, 9), (0.4, 1.0, None, 1), (4.0, 0.5, 1.0, 7)):
        path = write(tmp_path / "a.wav", tone(duration_s))
        found = published.window_scores(path, model.several, hop_s=hop_s, window_s=window_s)
        np.testing.assert_allclose(found.start_s, np.arange(n) * hop_s)
        assert found.window_s == (window_s or 3.0) and found.probabilities.shape == (n, 3)


@pytest.mark.parametrize("name", ["single", "several"])
def test_each_window_is_predicted_from_its_samples_and_a_silent_one_has_probability_0(model, tmp_path, name):
    parts = [tone(3.0, frequency_hz=200), np.zeros(6 * RATE_HZ), tone(4.3, frequency_hz=900)]
    path, network = write(tmp_path / "a.wav", np.concatenate(parts)), getattr(model, name)
    signal = decode.load(path, sample_rate_hz=RATE_HZ)
    found, predictor = published.window_scores(path, network), published.predictor(network)
    for start_s, given in zip(found.start_s, found.probabilities, strict=True):
        one = extract(signal[round(start_s * RATE_HZ) :][: 3 * RATE_HZ], network.features)
        expected = 0 if 3 <= start_s <= 6 else predictor(one[None].astype(np.float16))[0][0]
        np.testing.assert_allclose(given, expected, atol=1e-6)


def test_the_rest_of_a_truncated_file_is_predicted(model, tmp_path):
    for name, duration_s, tolerance_s in (("cut.wav", 30.0, 0.1), ("cut.mp3", 90.0, 1.5)):
        path = write(tmp_path / name, tone(duration_s))
        os.truncate(path, path.stat().st_size // 3)
        left_s = published.predict_file(path, model).duration_s
        assert left_s == pytest.approx(duration_s / 3, abs=tolerance_s)
        found = published.window_scores(path, model.several)
        ends_s = found.start_s + found.window_s
        assert ends_s[-2] < left_s <= ends_s[-1], "the last window is the first that reaches the end"


@pytest.fixture
def folder(model, tmp_path, monkeypatch) -> Path:
    """Return a working folder with two recordings and a published model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model.folder, tmp_path / "reports" / "rendered-quick" / "model")
    write(tmp_path / "one.wav", tone(4.0))
    write(tmp_path / "two.flac", tone(64.0, frequency_hz=900))
    return tmp_path


def call(*arguments: str):
    return CliRunner().invoke(main, ["predict", *arguments])


def errors(result) -> list[str]:
    """Return the lines on stderr after the two that name the model and its performance."""
    return result.stderr.splitlines()[2:]


def test_table_json_and_csv_hold_the_same_and_the_model_is_named_with_its_performance(folder, model):
    result = call("one.wav", "two.flac", "--top", "2")
    assert result.exit_code == 0 and errors(result) == []
    first, second = result.stderr.splitlines()
    assert model.name in first and str(Path("reports/rendered-quick/model")) in first
    accuracy = model.about["scores"]["accuracy"]
    assert all(f"{accuracy[end]:.2f}" in second for end in accuracy)
    row = result.stdout.splitlines()[2].split("\t")
    found = published.predict_file(folder / "two.flac", model)
    name, share = found.top(1)[0]
    assert row[:2] == ["two.flac", "1:04.0"] and row[3].startswith(f"{name} {100 * share:.0f} %, ")
    (one,) = json.loads(call("two.flac", "--json").stdout)
    top = [{"class": name, "probability": pytest.approx(share)} for name, share in found.top(3)]
    known = {"file": "two.flac", "answer": found.named[0] if found.named else None, "model": model.name}
    assert one == known | {"duration_s": 64.0, "top": top}
    (row,) = csv.DictReader(io.StringIO(call("two.flac", "--csv").stdout))
    assert {name: row[name] for name in known} == known | {"answer": one["answer"] or ""}
    assert float(row["duration_s"]) == 64
    for number, best in enumerate(one["top"], 1):
        assert row[f"class_{number}"] == best["class"]
        assert float(row[f"probability_{number}"]) == pytest.approx(best["probability"], abs=1e-6)


def test_bad_files_among_good_ones_are_reported_by_name_with_exit_code_1(folder):
    whole = (folder / "one.wav").read_bytes()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("no sound")
    (folder / "header.wav").write_bytes(whole[:30])
    write(folder / "silent.wav", np.zeros(RATE_HZ))
    write(folder / "short.wav", tone(0.01))
    soundfile.write(folder / "nan.wav", np.full(RATE_HZ, np.nan), RATE_HZ, subtype="FLOAT")
    bad = [f"{name}.wav" for name in ("empty", "header", "silent", "short", "nan", "none", 99 * "long")] + ["text.mp3"]
    result = call("one.wav", *bad, "two.flac", "--json")
    assert result.exit_code == 1
    assert [one["file"] for one in json.loads(result.stdout)] == ["one.wav", "two.flac"]
    assert [line.split(": ")[:2] for line in errors(result)] == [["Error", name] for name in bad]


def test_the_audio_files_of_a_folder_are_predicted_in_order(folder):
    (folder / "takes" / "more").mkdir(parents=True)
    for name in ("takes/b.wav", "takes/more/a.FLAC", "takes/.hidden.wav", "takes/notes.txt"):
        shutil.copy(folder / "one.wav", folder / name)
    assert [one["file"] for one in json.loads(call("takes", "--json").stdout)] == ["takes/b.wav", "takes/more/a.FLAC"]
    (folder / "none").mkdir()
    result = call("none", "one.wav", "--json")
    assert result.exit_code == 1 and len(json.loads(result.stdout)) == 1 and "none" in errors(result)[0]


def test_another_model_can_be_named_and_wrong_usage_is_refused(folder):
    shutil.move(folder / "reports" / "rendered-quick" / "model", folder / "mine")
    assert call("one.wav", "--model", "mine").exit_code == 0
    named = ("one.wav", "--model", "mine")
    for wrong in (["one.wav"], ["one.wav", "--model", "no"], [*named, "--top", "0"], [*named, "--json", "--csv"], []):
        result = call(*wrong)
        assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.stderr


def test_predictions_before_an_interrupt_are_shown(folder, monkeypatch):
    original = published.predict_file

    def interrupted(path, *rest, **others):
        if path.name == "two.flac":
            raise KeyboardInterrupt
        return original(path, *rest, **others)

    monkeypatch.setattr(published, "predict_file", interrupted)
    result = call("one.wav", "two.flac", "one.wav", "--json")
    assert result.exit_code == 130 and [one["file"] for one in json.loads(result.stdout)] == ["one.wav"]
    assert "1 of 3" in errors(result)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
def test_hostile_names_break_no_line_and_control_no_terminal(folder):
    odd = folder / "two\nlines\t\x1b[31m.wav"
    shutil.copy(folder / "one.wav", odd)
    shutil.copy(folder / "one.wav", bytes(folder) + b"/latin-\xe9.wav")
    result = call(odd.name, "latin-\udce9.wav")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 2 and "\x1b" not in result.stdout
    assert len(errors(result)) == 1 and "latin-\ufffd.wav" in errors(result)[0]
    assert json.loads(call(odd.name, "--json").stdout)[0]["file"] == odd.name
    shutil.copy(folder / "one.wav", folder / "snow☃.wav")
    run = subprocess.run(
        [sys.executable, "-m", "instrlib.runner.cli", "predict", "snow☃.wav", "rain☃.wav"],
        check=False,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert run.returncode == 1 and run.stdout.splitlines()[1].startswith(b"snow?.wav\t")
    assert len(run.stderr.splitlines()) == 3 and b"rain?.wav" in run.stderr


def test_the_command_imports_neither_tensorflow_nor_pandas(folder):
    """It does import librosa and scipy, whose definitions the features use."""
    code = (
        "import atexit, sys, instrlib.runner.cli\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'sklearn', 'jinja2'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "sys.argv[1:] = ['predict', 'one.wav']\n"
        "instrlib.runner.cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]" and len(run.stderr.splitlines()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="the peak of memory is read from resource")
def test_memory_does_not_grow_with_the_length_of_a_recording(model, tmp_path):
    """At the network's rate, 40 minutes are 212 MB of samples."""
    code = (
        "import resource, sys; from pathlib import Path; from instrlib.models import published\n"
        "model = published.open_model(Path(sys.argv[2]))\n"
        "published.predict_file(Path(sys.argv[1]), model)\n"
        "published.window_scores(Path(sys.argv[1]), model.single, hop_s=10.0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10))"
    )
    minute, peaks_mb = tone(60.0, rate_hz=8000), []
    for minutes in (4, 40):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        command = [sys.executable, "-c", code, str(path), str(model.folder)]
        peaks_mb.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks_mb[1] - peaks_mb[0] < 15


def test_two_threads_that_load_a_network_leave_stderr_where_it_was():
    """Each redirects it and back; crosswise, the second would restore the redirected one."""

    def load(enters_s: float) -> None:
        time.sleep(enters_s)
        with without_stderr():
            time.sleep(0.2)

    before = os.fstat(2).st_ino
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(load, (0, 0.1)))
    assert os.fstat(2).st_ino == before
