"""Recordings of any length are predicted as the study predicts its clips, block by block, without TensorFlow."""

import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
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


def tone(duration_s: float, frequency_hz: float = 440.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return 0.3 * np.sin(2 * np.pi * frequency_hz * time_s) * (1 + 0.3 * np.sin(2 * np.pi * 0.37 * time_s))


def write(path: Path, signal: np.ndarray) -> Path:
    soundfile.write(path, signal, RATE_HZ)
    return path


def test_every_segment_counts_and_a_top_class_below_its_threshold_is_not_reported(model, tmp_path):
    path = write(tmp_path / "long.wav", np.concatenate([tone(2.5, 110 * 2 ** (n / 5)) for n in range(25)]))
    config = model.single.features
    signal, n = decode.load(path, sample_rate_hz=RATE_HZ), config.segment_samples
    spectra = [extract(signal[first : first + n], config) for first in range(0, len(signal) - n // 4, n)]
    expected = published.predictor(model.single)(np.stack(spectra).astype(np.float16))[0].mean(axis=0)
    for threshold in (0.0, 1.01):
        network = dataclasses.replace(model.single, thresholds=np.full(3, threshold))
        found = published.predict_file(path, dataclasses.replace(model, single=network))
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        assert [share for _, share in found.top(9)] == sorted(found.probabilities, reverse=True)
        assert found.named == ((found.top(1)[0][0],) if threshold == 0 else ())


def test_windows_start_at_every_hop_until_one_reaches_the_end(model, tmp_path):
    for duration_s, hop_s, window_s, n in (
        (10.2, 1.0, 3.0, 9),
        (3.0, 1.0, 3.0, 1),
        (0.4, 1.0, 3.0, 1),
        (4.0, 0.5, 1.0, 7),
    ):
        path = write(tmp_path / "a.wav", tone(duration_s))
        found = published.window_scores(path, model.several, hop_s=hop_s, window_s=window_s)
        np.testing.assert_allclose(found.start_s, np.arange(n) * hop_s)
        assert found.window_s == window_s and found.probabilities.shape == (n, 3)


@pytest.mark.parametrize("name", ["single", "several"])
def test_each_window_is_predicted_from_its_samples_and_a_silent_one_has_probability_0(model, tmp_path, name):
    path = write(tmp_path / "a.wav", np.concatenate([tone(3.0, 200), np.zeros(6 * RATE_HZ), tone(4.3, 900)]))
    signal, network = decode.load(path, sample_rate_hz=RATE_HZ), getattr(model, name)
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


def test_memory_does_not_grow_with_the_length_of_a_recording(model, tmp_path):
    """At the network's rate, 40 minutes are 212 MB of samples."""
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1) as file:
        for _ in range(40):
            file.write(tone(60.0, rate_hz=8000))
    tracemalloc.start()
    published.window_scores(tmp_path / "long.wav", model.single, hop_s=20.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


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


@pytest.fixture
def folder(model, tmp_path, monkeypatch) -> Path:
    """Return a working folder with two recordings and a published model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model.folder, tmp_path / "reports" / "rendered-quick" / "model")
    write(tmp_path / "one.wav", tone(4.0))
    write(tmp_path / "two.flac", tone(64.0, 900))
    return tmp_path


def call(*arguments: str):
    """Return the result, and the lines on stderr after the two that name the model and its performance."""
    result = CliRunner().invoke(main, ["predict", *arguments])
    return result, result.stderr.splitlines()[2:]


def test_table_json_and_csv_hold_the_same_and_the_model_is_named_with_its_performance(folder, model):
    result, errors = call("one.wav", "two.flac", "--top", "2")
    first, second = result.stderr.splitlines()
    assert result.exit_code == 0 and model.name in first and not errors
    assert all(f"{value:.2f}" in second for value in model.about["scores"]["accuracy"].values())
    row = result.stdout.splitlines()[2].split("\t")
    found = published.predict_file(folder / "two.flac", model)
    name, share = found.top(1)[0]
    assert row[:2] == ["two.flac", "1:04.0"] and row[3].startswith(f"{name} {100 * share:.0f} %, ")
    (one,) = json.loads(call("two.flac", "--json")[0].stdout)
    top = [{"class": name, "probability": pytest.approx(share)} for name, share in found.top(3)]
    known = {"file": "two.flac", "answer": found.named[0] if found.named else None, "model": model.name}
    assert one == known | {"duration_s": 64.0, "top": top}
    (row,) = csv.DictReader(io.StringIO(call("two.flac", "--csv")[0].stdout))
    assert {name: row[name] for name in known} == known | {"answer": one["answer"] or ""}
    for number, best in enumerate(one["top"], 1):
        assert row[f"class_{number}"] == best["class"]
        assert float(row[f"probability_{number}"]) == pytest.approx(best["probability"], abs=1e-6)


def test_files_and_folders_are_predicted_in_order_and_bad_ones_reported_by_name_with_exit_code_1(folder):
    (folder / "takes" / "more").mkdir(parents=True)
    for name in ("takes/b.wav", "takes/more/a.FLAC", "takes/.hidden.wav", "takes/notes.txt"):
        shutil.copy(folder / "one.wav", folder / name)
    (folder / "text.mp3").write_text("no sound")
    (folder / "header.wav").write_bytes((folder / "one.wav").read_bytes()[:30])
    (folder / "empty").mkdir()
    for name, signal in (("silent", np.zeros(RATE_HZ)), ("short", tone(0.01)), ("nan", np.full(RATE_HZ, np.nan))):
        soundfile.write(folder / f"{name}.wav", signal, RATE_HZ, subtype="FLOAT")
    bad = ["text.mp3", "header.wav", "empty", "silent.wav", "short.wav", "nan.wav", "none.wav", 99 * "long" + ".wav"]
    result, errors = call("one.wav", *bad, "takes", "--json")
    found = [one["file"] for one in json.loads(result.stdout)]
    assert result.exit_code == 1 and found == ["one.wav", "takes/b.wav", "takes/more/a.FLAC"]
    assert [line.split(": ")[:2] for line in errors] == [["Error", name] for name in bad]


def test_a_local_model_can_be_named_but_is_no_default_and_wrong_usage_is_refused(folder):
    (folder / "reports").rename(folder / "runs")
    named = ("one.wav", "--model", "runs/rendered-quick/model")
    result, _ = call(*named, "--json")
    assert result.exit_code == 0 and named[2] in result.stderr
    for wrong in (["one.wav"], ["one.wav", "--model", "no"], [*named, "--top", "0"], [*named, "--json", "--csv"], []):
        result, _ = call(*wrong)
        assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.stderr


def test_predictions_before_an_interrupt_are_shown(folder, monkeypatch):
    original = published.predict_file

    def interrupted(path, *rest, **others):
        if path.name == "two.flac":
            raise KeyboardInterrupt
        return original(path, *rest, **others)

    monkeypatch.setattr(published, "predict_file", interrupted)
    result, errors = call("one.wav", "two.flac", "one.wav", "--json")
    assert result.exit_code == 130 and [one["file"] for one in json.loads(result.stdout)] == ["one.wav"]
    assert "1 of 3" in errors[0]


@pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
def test_hostile_names_break_no_line_and_control_no_terminal(folder):
    odd = folder / "two\nlines\t\x1b[31m.wav"
    for name in (bytes(odd), bytes(folder) + b"/latin-\xe9.wav", bytes(folder / "snow☃.wav")):
        shutil.copy(folder / "one.wav", name)
    result, errors = call(odd.name, "latin-\udce9.wav")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 2 and "\x1b" not in result.stdout
    assert len(errors) == 1 and "latin-\ufffd.wav" in errors[0]
    assert json.loads(call(odd.name, "--json")[0].stdout)[0]["file"] == odd.name
    command = [sys.executable, "-m", "instrlib.runner.cli", "predict", "snow☃.wav", "rain☃.wav"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    run = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert run.returncode == 1 and run.stdout.splitlines()[1].startswith(b"snow?.wav\t")
    assert len(run.stderr.splitlines()) == 3 and b"rain?.wav" in run.stderr


def test_the_command_imports_neither_tensorflow_nor_pandas(folder):
    code = (
        "import atexit, sys, instrlib.runner.cli\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'sklearn', 'jinja2'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "sys.argv[1:] = ['predict', 'one.wav']\n"
        "instrlib.runner.cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]" and len(run.stderr.splitlines()) == 2
