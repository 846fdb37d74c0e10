"""A recording of any length is heard as the study hears its clips, block by block, without TensorFlow."""

import csv
import dataclasses
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from instrlib.audio import decode as audio
from instrlib.audio.features import extract
from instrlib.core.errors import AudioError, ConfigError
from instrlib.data import store
from instrlib.models import predict, published
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


# -- as the study hears it ---------------------------------------------------------------------------------------------


def test_held_out_clips_get_the_answers_that_their_scores_were_computed_from(released, small, model):
    after, paths = released.made.after, small.clips.manifest.set_index("clip_id").path
    heard = [predict.predict_file(small.clips.root / paths[clip], model) for clip in after["clip_id"]]
    np.testing.assert_allclose([one.probabilities for one in heard], after["probabilities"], atol=1e-5)
    first = np.array([small.store.classes.index(one.top(1)[0][0]) for one in heard])
    assert (first == after["targets"]).mean() == model.about["scores"]["accuracy"]["estimate"]
    assert np.mean([bool(one.named) for one in heard]) == model.about["refusals"]["named"]


@pytest.mark.real_data
def test_real_clips_up_to_a_minute_are_heard_in_the_segments_of_the_study(sample_root, model, tmp_path):
    """The stored features of a few real clips, given to the network, are what the file itself gives."""
    from instrlib.core.config import get_profile
    from instrlib.data import corpora

    clips = corpora.load("fsdkaggle2018", data=sample_root, profile=get_profile("smoke"))
    longest = clips.manifest.sort_values(["duration_s", "clip_id"]).index
    some = sorted({*longest[-4:], *longest[:4]})
    few = dataclasses.replace(clips, manifest=clips.manifest.loc[some].reset_index(drop=True))
    features = store.build_store(few, model.single.features, root=tmp_path, workers=1)
    hear = published.listener(model.single)
    for clip_id, segments in features.segments.groupby("clip_id"):
        expected = hear(features.features[segments.row.to_numpy()])[0].mean(axis=0)
        path = few.root / few.manifest.set_index("clip_id").path[clip_id]
        np.testing.assert_allclose(predict.predict_file(path, model).probabilities, expected, atol=1e-5)


@pytest.mark.real_data
@pytest.mark.slow
def test_real_held_out_clips_are_named_as_often_as_the_model_says(sample_root, tmp_path, monkeypatch):
    """The whole way: features, a fold, training, the file, the command; then the true labels beside its answers."""
    from instrlib.core.config import FeatureConfig, TrainConfig, get_profile
    from instrlib.data import corpora
    from instrlib.data.inputs import Inputs
    from instrlib.data.splits import k_folds, save_split
    from instrlib.deploy import release
    from instrlib.models import variants
    from instrlib.models.layers import get_spec
    from instrlib.runner import run as runs

    clips = corpora.load("fsdkaggle2018", data=sample_root, profile=get_profile("smoke"))
    config = FeatureConfig(n_mels=32, hop_length=1024, max_segments=3)
    features = store.build_store(clips, config, root=tmp_path / "features", workers=2)
    split = k_folds(features.clips, 3, seed=0)[0]
    save_split(split, tmp_path / "split.json")
    inputs = Inputs(features, (tmp_path / "split.json",), split.fingerprint)
    variant = variants.Variant("compact CNN", get_spec("small"), TrainConfig(epochs=8), features.folder)
    trained = variants.run_variants(tmp_path / "02", [variant], splits=inputs.splits, seeds=(0,), workers=1)
    choice = release.choose([release.Candidate("02_baseline_cnn", "compact CNN", trained["compact CNN"].folders)])
    parameters = {"corpus": "fsdkaggle2018", "data": "", "profile": "smoke", "seeds": 1}
    run = runs.Run("11_timeline", parameters, tmp_path / "reports" / "fsdkaggle2018-smoke")
    made = release.publish(run.folder / "model", choice, run=run, inputs=inputs, n_resamples=50, workers=1)

    monkeypatch.chdir(tmp_path)
    about, rows, held_out = made.model.about, clips.manifest.set_index("clip_id"), made.after["clip_id"]
    paths = [str(clips.root / rows.path[clip]) for clip in held_out]
    answered = json.loads(call(*paths, "--json").stdout)
    assert [one["file"] for one in answered] == paths and len(paths) == about["n_tested"] > 30
    first = [one["top"][0]["class"] for one in answered]
    right = np.array(first) == rows.label[held_out].to_numpy()
    assert right.mean() == pytest.approx(about["scores"]["accuracy"]["estimate"])
    assert right.mean() > 1.5 / len(clips.classes), "better than guessing, or the comparison says nothing"
    assert np.mean([one["answer"] is not None for one in answered]) == pytest.approx(about["refusals"]["named"])
    card = (made.model.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "FSDKaggle2018" in card and "synthesised" not in card and "several.tflite" not in card


def test_a_clip_is_cut_as_in_the_store_up_to_the_duration_that_the_store_decodes_whole():
    assert predict.STUDY_CLIP_S == store.WHOLE_CLIP_S


def test_of_a_longer_recording_every_segment_counts_and_not_six_of_them(model, tmp_path):
    parts = [tone(2.5, frequency_hz=110 * 2 ** (number / 5)) for number in range(25)]
    path = write(tmp_path / "long.wav", np.concatenate(parts))
    config = model.single.features
    signal = audio.load(path, sample_rate_hz=RATE_HZ)
    n = config.segment_samples
    spectra = [extract(signal[first : first + n], config) for first in range(0, len(signal) - n // 4, n)]
    assert len(spectra) == math.ceil((62.5 - 0.75) / 3)
    expected = published.listener(model.single)(np.stack(spectra).astype(np.float16))[0].mean(axis=0)
    np.testing.assert_allclose(predict.predict_file(path, model).probabilities, expected, atol=1e-5)


def test_the_answer_does_not_depend_on_rate_channels_or_format(model, tmp_path):
    signal = tone(5.0, rate_hz=44_100)
    named = {
        "a.wav": (signal, 44_100), "b.flac": (np.stack([signal, signal], axis=1), 44_100), "c.ogg": (signal, 44_100),
        "d.mp3": (signal, 44_100),
    }  # fmt: skip
    heard = [predict.predict_file(write(tmp_path / name, *sound), model) for name, sound in named.items()]
    for one in heard[1:]:
        np.testing.assert_allclose(one.probabilities, heard[0].probabilities, atol=0.15)
        assert one.duration_s == pytest.approx(5.0, abs=0.1)
    np.testing.assert_allclose(heard[1].probabilities, heard[0].probabilities, atol=1e-3)


def test_probabilities_sum_to_one_and_the_top_is_not_made_to(model, tmp_path):
    heard = predict.predict_file(write(tmp_path / "a.wav", tone(4.0)), model)
    assert heard.probabilities.sum() == pytest.approx(1)
    top = heard.top(2)
    assert [name for name, _ in top] == [heard.classes[number] for number in np.argsort(-heard.probabilities)[:2]]
    assert sum(share for _, share in top) == pytest.approx(1 - heard.probabilities.min(), abs=1e-12)
    assert len(heard.top(10)) == len(model.classes)


def test_what_does_not_reach_its_threshold_is_none_of_these(model, tmp_path):
    path = write(tmp_path / "a.wav", tone(4.0))
    never = dataclasses.replace(model.single, thresholds=np.full(3, 1.01))
    always = dataclasses.replace(model.single, thresholds=np.zeros(3))
    assert predict.predict_file(path, dataclasses.replace(model, single=never)).named == ()
    heard = predict.predict_file(path, dataclasses.replace(model, single=always))
    assert heard.named == (heard.top(1)[0][0],)


# -- windows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration_s", "hop_s", "window_s", "n"),
    [(10.0, 1.0, None, 8), (10.2, 1.0, None, 9), (3.0, 1.0, None, 1), (0.4, 1.0, None, 1), (4.0, 0.5, 1.0, 7)],
)
def test_windows_begin_at_every_hop_until_one_reaches_the_end(model, tmp_path, duration_s, hop_s, window_s, n):
    path = write(tmp_path / "a.wav", tone(duration_s))
    found = predict.window_scores(path, model.several, hop_s=hop_s, window_s=window_s)
    np.testing.assert_allclose(found.start_s, np.arange(n) * hop_s)
    assert found.window_s == (window_s or 3.0) and found.probabilities.shape == (n, 3)
    assert found.start_s[-1] + found.window_s >= duration_s - 1e-6


def test_each_window_is_the_networks_answer_to_what_lies_in_it(model, tmp_path):
    signal = np.concatenate([tone(3.0, frequency_hz=200), tone(4.3, frequency_hz=900)])
    path = write(tmp_path / "a.wav", signal)
    signal = audio.load(path, sample_rate_hz=RATE_HZ)
    found = predict.window_scores(path, model.several)
    hear = published.listener(model.several)
    for begin, given in zip(found.start_s, found.probabilities, strict=True):
        first = round(begin * RATE_HZ)
        one = extract(signal[first : first + 3 * RATE_HZ], model.several.features)
        np.testing.assert_allclose(given, hear(one[None].astype(np.float16))[0][0], atol=1e-6)


def test_where_nothing_sounds_every_class_has_probability_0(model, tmp_path):
    signal = np.concatenate([tone(3.0), np.zeros(6 * RATE_HZ), tone(3.0)])
    for network in (model.single, model.several):
        found = predict.window_scores(write(tmp_path / "a.wav", signal), network)
        silent = (found.start_s >= 3) & (found.start_s <= 6)
        assert (found.probabilities[silent] == 0).all() and (found.probabilities[~silent].sum(axis=1) > 0).all()
    np.testing.assert_allclose(predict.window_scores(tmp_path / "a.wav", model.single).probabilities[0].sum(), 1)


def test_silent_segments_do_not_dilute_an_answer(model, tmp_path):
    alone = write(tmp_path / "alone.wav", tone(3.0))
    late = write(tmp_path / "late.wav", np.concatenate([np.zeros(6 * RATE_HZ), tone(3.0)]))
    first, second = (predict.predict_file(path, model) for path in (alone, late))
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"hop_s": 0}, {"hop_s": math.nan}, {"window_s": 0.01}, {"window_s": 4.0}])
def test_windows_that_cannot_be_are_refused(model, tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"hop_s|window_s"):
        predict.window_scores(write(tmp_path / "a.wav", tone(1.0)), model.several, **wrong)


def test_progress_rises_to_one(model, tmp_path):
    path = write(tmp_path / "a.wav", tone(100.0))
    for work in (
        lambda tell: predict.predict_file(path, model, on_progress=tell),
        lambda tell: predict.window_scores(path, model.several, on_progress=tell),
    ):
        told: list[float] = []
        work(told.append)
        assert told == sorted(told) and told[-1] == 1 and told[0] > 0


# -- files that cannot be used -----------------------------------------------------------------------------------------


def bad_files(folder: Path) -> dict[str, Path]:
    whole = write(folder / "whole.wav", tone(2.0)).read_bytes()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("no sound")
    (folder / "header.wav").write_bytes(whole[:30])
    write(folder / "silent.wav", np.zeros(RATE_HZ))
    write(folder / "short.wav", tone(0.01))
    soundfile.write(folder / "nan.wav", np.full(RATE_HZ, np.nan), RATE_HZ, subtype="FLOAT")
    names = ("empty.wav", "text.mp3", "header.wav", "silent.wav", "short.wav", "nan.wav", "missing.wav")
    return {name: folder / name for name in (*names, "long" * 100 + ".wav")}


def test_each_bad_file_is_one_sentence_that_names_it(model, tmp_path):
    for path in bad_files(tmp_path).values():
        with pytest.raises(AudioError) as error:
            predict.predict_file(path, model)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_of_a_truncated_file_what_is_there_is_heard(model, tmp_path):
    whole = write(tmp_path / "a.wav", tone(30.0)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 3])
    assert predict.predict_file(tmp_path / "cut.wav", model).duration_s == pytest.approx(10, abs=0.1)
    mp3 = write(tmp_path / "a.mp3", tone(90.0)).read_bytes()
    (tmp_path / "cut.mp3").write_bytes(mp3[: len(mp3) // 3])
    duration_s = predict.predict_file(tmp_path / "cut.mp3", model).duration_s
    assert duration_s == pytest.approx(30, abs=1.5)
    found = predict.window_scores(tmp_path / "cut.mp3", model.several)
    ends = found.start_s + found.window_s
    assert ends[-2] < duration_s <= ends[-1], "the last window is the first that reaches the end"


# -- the command -------------------------------------------------------------------------------------------------------


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


def test_the_command_shows_a_row_for_each_file(folder, model):
    result = call("one.wav", "two.flac", "--top", "2")
    assert result.exit_code == 0 and result.stderr == ""
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == ["file", "min:s", "answer", "most probable"]
    assert [row[0] for row in rows] == ["one.wav", "two.flac"] and [row[1] for row in rows] == ["0:04.0", "1:04.0"]
    heard = predict.predict_file(folder / "one.wav", model)
    assert rows[0][2] == (heard.named[0] if heard.named else "none of these")
    (name, share), _ = heard.top(2)
    assert rows[0][3].startswith(f"{name} {100 * share:.0f} %, ") and rows[0][3].count("%") == 2


def test_json_and_csv_say_the_same_in_full(folder, model):
    listed = json.loads(call("one.wav", "two.flac", "--json").stdout)
    assert [one["file"] for one in listed] == ["one.wav", "two.flac"]
    heard = predict.predict_file(folder / "two.flac", model)
    assert listed[1] == {
        "file": "two.flac",
        "duration_s": 64.0,
        "answer": heard.named[0] if heard.named else None,
        "top": [{"class": name, "probability": pytest.approx(share)} for name, share in heard.top(3)],
        "model": model.name,
    }
    rows = list(csv.DictReader(io.StringIO(call("one.wav", "two.flac", "--csv").stdout)))
    for row, one in zip(rows, listed, strict=True):
        assert row["file"] == one["file"] and row["answer"] == (one["answer"] or "")
        assert float(row["duration_s"]) == one["duration_s"] and row["model"] == model.name
        for number, best in enumerate(one["top"], 1):
            assert row[f"class_{number}"] == best["class"]
            assert float(row[f"probability_{number}"]) == pytest.approx(best["probability"], abs=1e-6)


def test_a_bad_file_among_good_ones_is_reported_the_others_are_done_and_the_exit_code_is_1(folder):
    bad = bad_files(folder)
    result = call("one.wav", *(path.name for path in bad.values()), "two.flac", "--json")
    assert result.exit_code == 1
    assert [one["file"] for one in json.loads(result.stdout)] == ["one.wav", "two.flac"]
    lines = result.stderr.splitlines()
    assert len(lines) == len(bad)
    for line, name in zip(lines, bad, strict=True):
        assert line.startswith(f"Error: {name}: ") and line.endswith(".")


def test_of_a_folder_its_sound_files_are_heard_in_order(folder):
    (folder / "takes" / "more").mkdir(parents=True)
    for name in ("takes/b.wav", "takes/more/a.FLAC", "takes/.hidden.wav"):
        shutil.copy(folder / "one.wav", folder / name)
    (folder / "takes" / "notes.txt").write_text("no sound")
    assert [one["file"] for one in json.loads(call("takes", "--json").stdout)] == ["takes/b.wav", "takes/more/a.FLAC"]
    (folder / "none").mkdir()
    result = call("none", "one.wav", "--json")
    assert result.exit_code == 1 and len(json.loads(result.stdout)) == 1
    assert result.stderr.startswith("Error: none: ")


def test_without_a_model_one_sentence_says_how_to_get_one(folder):
    shutil.rmtree(folder / "reports")
    result = call("one.wav")
    assert result.exit_code == 2 and result.stdout == ""
    assert "make study" in result.stderr and "--model" in result.stderr and len(result.stderr.splitlines()) == 1
    assert "not a model folder" in call("one.wav", "--model", "nowhere").stderr


def test_a_model_can_be_named(folder):
    shutil.move(folder / "reports" / "rendered-quick" / "model", folder / "mine")
    assert call("one.wav", "--model", "mine").exit_code == 0


def test_wrong_usage_is_refused(folder):
    for arguments in (["one.wav", "--top", "0"], ["one.wav", "--json", "--csv"], []):
        result = call(*arguments)
        assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.stderr


def test_a_name_that_the_terminal_cannot_show_is_no_traceback(folder):
    shutil.copy(folder / "one.wav", folder / "snow☃.wav")
    run = subprocess.run(
        [sys.executable, "-m", "instrlib.runner.cli", "predict", "snow☃.wav", "rain☃.wav"],
        check=False,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert run.returncode == 1
    assert run.stdout.decode("latin-1").splitlines()[1].startswith("snow?.wav\t")
    assert run.stderr.startswith(b"Error: rain?.wav: cannot be read") and len(run.stderr.splitlines()) == 1


def test_what_was_heard_before_an_interrupt_is_shown(folder, monkeypatch):
    hear = predict.predict_file

    def interrupted(path, *rest, **others):
        if path.name == "two.flac":
            raise KeyboardInterrupt
        return hear(path, *rest, **others)

    monkeypatch.setattr(predict, "predict_file", interrupted)
    result = call("one.wav", "two.flac", "one.wav", "--json")
    assert result.exit_code == 130
    assert [one["file"] for one in json.loads(result.stdout)] == ["one.wav"]
    assert result.stderr == "Error: interrupted; 1 of 3 files were heard.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
def test_names_that_would_break_a_line_or_are_no_text_do_not(folder):
    odd = folder / "two\nlines\t\x1b[31m.wav"
    shutil.copy(folder / "one.wav", odd)
    shutil.copy(folder / "one.wav", bytes(folder) + b"/latin-\xe9.wav")
    result = call(odd.name, "latin-\udce9.wav")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 2 and "\x1b" not in result.stdout
    assert result.stderr == "Error: latin-\ufffd.wav: its name is not in UTF-8; rename the file.\n"
    assert json.loads(call(odd.name, "--json").stdout)[0]["file"] == odd.name
    (folder / "no\nsound.wav").write_bytes(b"")
    assert len(call("no\nsound.wav").stderr.splitlines()) == 1


def test_the_command_imports_neither_tensorflow_nor_pandas(folder):
    code = (
        "import atexit, sys, instrlib.runner.cli\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'scipy', 'librosa', 'matplotlib', 'sklearn', 'jinja2'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "sys.argv[1:] = ['predict', 'one.wav']\n"
        "instrlib.runner.cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]" and run.stderr == ""


def peak_mb(path: Path, model: Path) -> float:
    code = (
        "import resource, sys; from pathlib import Path; from instrlib.models import predict, published\n"
        "model = published.open_model(Path(sys.argv[2]))\n"
        "predict.predict_file(Path(sys.argv[1]), model)\n"
        "predict.window_scores(Path(sys.argv[1]), model.single, hop_s=10.0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path), str(model)], check=True, capture_output=True, text=True
    )
    return float(run.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="the peak of memory is read from resource")
def test_memory_does_not_grow_with_the_length_of_a_recording(model, tmp_path):
    """At the network's rate an hour is 318 MB of samples: it is never there as a whole."""
    minute = tone(60.0, rate_hz=8000)
    peaks = []
    for minutes in (4, 40):
        with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        peaks.append(peak_mb(tmp_path / f"{minutes}.wav", model.folder))
    assert peaks[1] - peaks[0] < 15
