"""The released model: chosen on validation, tested once on held-out clips, opened safely; predictions of any length."""

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
from unittest import mock

import numpy as np
import pytest
from recordings import RATE_HZ
from trees import tone, write_audio
from typer.testing import CliRunner

from instrlib.audio import decode
from instrlib.audio.features import extract, scale
from instrlib.core.io import ConfigError, RunError, read_arrays, read_json, write_json
from instrlib.core.parallel import without_stderr
from instrlib.data.splits import check_no_leak, load_split
from instrlib.deploy import release
from instrlib.deploy.release import Candidate, choose
from instrlib.models import published, trained
from instrlib.runner.cli import main
from instrlib.studies import saliency


def write_run(folder: Path, *, accuracy: float = 0.5, parameters: int = 1000, **manifest: str | int) -> Path:
    """Write what `trained.summary` reads of a finished training."""
    metrics = {"validation": {"accuracy": accuracy}, "parameters": parameters, "multiply_adds": 1}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "manifest.json", {"key": "", "seed": 0, "store": "", "split": ""} | manifest)
    return folder


@pytest.mark.parametrize(("fold", "seed", "of_fold"), [(None, 1, 0), (0, 1, 0), (1, 0, 1)])
def test_the_best_mean_on_validation_is_chosen_and_then_its_best_network(tmp_path, fold, seed, of_fold):
    def candidate(name: str, *rows: list[float], **known: int) -> Candidate:
        made = [[write_run(tmp_path / f"{name}{one}", accuracy=one, **known) for one in row] for row in rows]
        return Candidate("02_baseline_cnn", name, tuple(map(tuple, made)))

    lucky, steady = candidate("lucky", [0.5, 0.99], [0.4, 0.6]), candidate("steady", [0.7, 0.8], [0.9, 0.6])
    large = candidate("large", [1.0, 0.9], [0.8, 0.7], parameters=release.MAX_PARAMETERS + 1)
    choice = choose([lucky, steady, large], fold=fold)
    assert (choice.candidate.name, choice.seed, choice.fold) == ("steady", seed, of_fold)
    assert choice.folder == steady.folders[seed][of_fold]
    assert choice.table.name.tolist() == ["large", "steady", "lucky"] and choice.table.networks.tolist() == [4, 4, 4]
    assert choice.table.fits.tolist() == [False, True, True]
    np.testing.assert_allclose(choice.table.validation_accuracy, [0.85, 0.75, 0.6225])
    assert choose([large]).candidate.name == "large", "where there is no smaller one"
    with pytest.raises(RunError, match="folds"):
        release.publish(tmp_path, choice, choose([steady], fold=1 - of_fold), run=None, inputs=None, n_resamples=10)


def test_more_clips_keep_each_group_in_its_part_and_each_clip_its_features(tmp_path, small, inputs):
    more = release.enlarge(inputs, tmp_path / "more", clips_per_class=40)
    assert more.store.classes == small.store.classes and more.fingerprint != inputs.fingerprint
    many, parts = load_split(more.splits[0], more.store.segments).parts, small.split.parts
    assert many[parts.index].equals(parts.rename(many.name))
    assert (many.value_counts() > 1.3 * parts.value_counts()).all()
    check_no_leak(more.store.clips, many)
    first = small.store.segments.iloc[5]
    again = more.store.segments.set_index("clip_id").loc[[first.clip_id]].iloc[0]
    np.testing.assert_array_equal(small.store.features[first.row], more.store.features[again.row])
    with pytest.raises(ConfigError, match="clip"):
        release.enlarge(inputs, tmp_path / "fewer", clips_per_class=6)


@pytest.fixture(scope="module")
def model(released) -> published.PublishedModel:
    return released.made.model


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_file_gives_what_the_network_gives_the_same_each_time_and_one_that_disagrees_is_refused(
    released, model, small, tmp_path
):
    """As closely as one-byte weights allow."""
    place = small.store.folder, small.split_path
    for name, trained_in in released.trained.items():
        network = getattr(model, name)
        release.convert(tmp_path / "file", trained_in, *place)
        assert (tmp_path / "file").read_bytes() == network.file.read_bytes()
        original, scaler = trained.load_model(trained_in)
        spectra = small.store.features[small.store.segments.row.to_numpy()[:12]].astype(np.float32)
        predicted, maps = published.predictor(dataclasses.replace(network, temperature=1.0))(spectra)
        x = scale(spectra, small.store.config, scaler)[..., None]
        np.testing.assert_allclose(predicted, original.predict_on_batch(x), atol=0.08)
        logits = published.load_tflite(network.file)(x)[2]
        np.testing.assert_allclose(maps.mean(axis=(1, 2)) + original.layers[-1].get_weights()[1], logits, atol=1e-3)
        wanted = np.moveaxis(saliency.class_activation_maps(original, x), 1, -1)
        assert name == "several" or np.abs(maps - wanted).max() < 0.1 * np.abs(wanted).max()
        assert saliency.upsample(maps[..., 0], saliency.Grid(**network.grid)).shape == (12, *small.store.config.shape)
    for name, array in (("single", "probabilities"), ("single", "clip_id"), ("several", "labels")):
        network = shutil.copytree(released.trained[name], tmp_path / f"{name}-{array}")
        known = read_arrays(network / "validation.npz")
        np.savez(network / "validation.npz", **known | {array: np.roll(known[array], 1, axis=-1)})
        with pytest.raises(RunError, match=network.name):
            release.convert(tmp_path / "file", network, *place)


def test_the_folder_is_complete_and_its_file_is_tested_on_the_held_out_clips_of_its_split(released, model, small):
    after, about, paths = released.made.after, model.about, small.clips.manifest.set_index("clip_id").path
    assert set(content(model.folder)) == {"model.json", *published.FILES.values(), "MODEL_CARD.md"}
    assert (model.single.output, model.several.output, model.condition) == ("softmax", "sigmoid", None)
    assert str(released.trained["single"].parent).encode() not in content(model.folder)["model.json"]
    assert after["clip_id"].tolist() == sorted(small.split.parts.index[small.split.parts == "test"])
    assert about["split"] == small.split.fingerprint and about["n_tested"] == len(after["clip_id"])
    found = [published.predict_file(small.clips.root / paths[clip], model) for clip in after["clip_id"]]
    np.testing.assert_allclose([one.probabilities for one in found], after["probabilities"], atol=1e-5)
    right = np.array([model.classes.index(one.top(1)[0][0]) for one in found]) == after["targets"]
    assert about["scores"]["accuracy"]["estimate"] == right.mean() == about["refusals"]["accuracy"]
    assert about["refusals"]["named"] == np.mean([bool(one.named) for one in found])
    card = content(model.folder)["MODEL_CARD.md"].decode()
    assert "| accuracy | {estimate:.2f} [{low:.2f}, {high:.2f}] |".format(**about["scores"]["accuracy"]) in card
    for number, name in enumerate(model.classes):
        one, own = about["by_class"][name], after["targets"] == number
        assert (one["n"], one["n_groups"]) == (own.sum(), len(set(after["group"][own])))
        assert one["recall"]["estimate"] == pytest.approx(right[own].mean(), abs=5e-4)
        assert (one["f1"]["low"] is None) == (one["n_groups"] < 2)
        assert f"| {name} | {one['n']} | {one['n_groups']} | {one['recall']['estimate']:.2f}" in card
    assert "nan" not in card and "None" not in card
    losses, noises = released.made.validation.log_loss.unstack(), released.made.noises
    assert (losses["calibrated"] <= losses["as trained"]).all()
    assert about["several"]["agreement"] >= release.MIN_AGREEMENT
    assert about["noises"] == noises.abstained.to_dict() and list(noises.index) == list(release.NOISES)
    for threshold, share in ((0.0, 0), (1.1, 1)):
        network = dataclasses.replace(model.single, thresholds=np.full(3, threshold))
        assert (release.noise_rejection(network, model.classes, n=2).abstained == share).all()
        one = published.predict_file(found[0].path, dataclasses.replace(model, single=network))
        assert one.named == (() if share else (one.top(1)[0][0],))


def test_a_second_release_or_a_kill_changes_nothing(released, model):
    def interrupt(*_, **__) -> None:
        raise KeyboardInterrupt

    before, original = content(model.folder), Path.rename
    rename = {"rename": lambda path, new: original(path, new) if path.suffix != ".new" else interrupt()}
    for place, steps in ((release, {"noise_rejection": interrupt}), (Path, rename)):
        with mock.patch.multiple(place, **steps), pytest.raises(KeyboardInterrupt):
            released.publish()
        assert content(published.open_model(model.folder).folder) == before
    released.publish()
    assert content(model.folder) == before and not list(model.folder.parent.glob(".model*"))


def test_a_file_that_is_cut_altered_or_missing_or_describes_no_model_is_refused_by_name(model, tmp_path):
    folder = shutil.copytree(model.folder, tmp_path / "model")
    write_json(folder / "condition.json", published.sealed({"weight": 0.1}))
    assert published.open_model(folder).condition["weight"] == 0.1
    for name, whole in content(folder).items():
        altered = bytearray(whole)
        altered[len(whole) // 2] ^= 1
        for damaged in (whole[: len(whole) // 2], altered, b"", None):
            (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
            if name != "MODEL_CARD.md" and (damaged, name) != (None, "condition.json"):
                with pytest.raises(RunError, match=name):
                    published.open_model(folder)
        (folder / name).write_bytes(whole)
    record = read_json(folder / "model.json")
    settings, others = record["single"], ({"classes": None}, {"single": None}, {"format": published.FORMAT + 1})
    wrong = [{key: value for key, value in settings.items() if key != lost} for lost in settings]
    wrong += [settings | change for change in ({"thresholds": [0.5]}, {"output": "linear"})]
    changed = (record | change for change in (*({"single": one} for one in wrong), *others))
    for one in (*map(published.sealed, changed), ["a list"]):
        write_json(folder / "model.json", one)
        with pytest.raises(RunError, match=r"model\.json|single\.tflite"):
            published.open_model(folder)


def test_the_default_is_the_model_published_last_and_never_a_smoke_model(model, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(tmp_path))
    with pytest.raises(RunError, match="--model"):
        published.open_model()
    dates = {"a-quick": "2026-02-01", "b-quick": "2026-03-01", "c-quick": "2026-01-01", "d-smoke": "2026-04-01"}
    for study, when in dates.items():
        folder = shutil.copytree(model.folder, tmp_path / study / "model")
        (folder / "MODEL_CARD.md").unlink()
        release.note(folder, published_at=when, timeline={"on": np.array([0.5, 0.4])})
        noted = {"published_at": when, "timeline": {"on": [0.5, 0.4]}}
        assert published.open_model(folder).about == model.about | noted
        assert when in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert published.open_model().folder == tmp_path / "b-quick" / "model"
    (tmp_path / "b-quick" / "model" / "model.json").write_text("{")
    assert published.open_model().folder == tmp_path / "a-quick" / "model"


@pytest.mark.parametrize("study", ["rendered-quick", "fsdkaggle2018-full"])
def test_the_committed_models_are_small_and_answer(repository, small, study):
    model = published.open_model(repository / "reports" / study / "model")
    assert sum(len(file) for name, file in content(model.folder).items() if name != "MODEL_CARD.md") < release.MAX_BYTES
    found = published.predict_file(small.clips.root / small.clips.manifest.path.iloc[0], model)
    assert found.probabilities.sum() == pytest.approx(1) and found.classes == model.classes


@pytest.mark.parametrize("name", ["single", "several"])
def test_windows_start_at_every_hop_until_one_reaches_the_end_and_silent_ones_have_probability_0(model, tmp_path, name):
    path, network = tmp_path / "a.wav", getattr(model, name)
    predictor = published.predictor(network)
    for duration_s, hop_s, window_s, n in ((13.3, 1, 3, 12), (3, 1, 3, 1), (0.4, 1, 3, 1), (4, 0.5, 1, 7)):
        signal = np.concatenate([tone(3, n, 0.7) for n in range(19)])[: round(duration_s * RATE_HZ)]
        signal[3 * RATE_HZ : 9 * RATE_HZ] = 0
        write_audio(path, signal)
        found = published.window_scores(path, network, hop_s=hop_s, window_s=window_s)
        np.testing.assert_allclose(found.start_s, np.arange(n) * hop_s)
        for start_s, given in zip(found.start_s, found.probabilities, strict=True):
            part = decode.load(path, sample_rate_hz=RATE_HZ)[round(start_s * RATE_HZ) :][: round(window_s * RATE_HZ)]
            expected = predictor(extract(part, network.features)[None].astype(np.float16))[0][0] if part.any() else 0
            np.testing.assert_allclose(given, expected, atol=1e-6)


def test_every_segment_counts_also_in_what_is_left_of_a_truncated_file_and_memory_does_not_grow(model, tmp_path):
    """At the network's rate, 40 minutes are 212 MB of samples."""
    for name, duration_s, parts in (("a.wav", 62.5, 1), ("b.mp3", 210.0, 3)):
        path = tmp_path / name
        write_audio(path, np.concatenate([tone(3, n, 2.5) for n in range(int(duration_s / 2.5))]))
        os.truncate(path, path.stat().st_size // parts)
        found, windows = published.predict_file(path, model), published.window_scores(path, model.single, hop_s=3.0)
        assert found.duration_s == pytest.approx(duration_s / parts, abs=parts - 1)
        assert windows.start_s[-1] < found.duration_s <= windows.start_s[-1] + 3.0
        np.testing.assert_allclose(found.probabilities, windows.probabilities.mean(axis=0), atol=1e-5)
    write_audio(tmp_path / "long.wav", np.tile(tone(3, 0, 60.0, 8000), 40), 8000)
    tracemalloc.start()
    published.window_scores(tmp_path / "long.wav", model.single, hop_s=20.0)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_two_threads_that_load_a_network_leave_stderr_where_it_was():
    """Each redirects it and back; crosswise, the second would restore the redirected one."""
    before = os.fstat(2).st_ino
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(without_stderr()(time.sleep), (0.2, 0.3)))
    assert os.fstat(2).st_ino == before


@pytest.fixture
def work(model, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model.folder, tmp_path / "reports" / "rendered-quick" / "model")
    write_audio(tmp_path / "one.wav", tone(3, 0, 4.0))
    write_audio(tmp_path / "two.flac", tone(3, 5, 64.0))
    return tmp_path


def call(*arguments: str):
    """Return the result, and the lines on stderr after the two that name the model and its performance."""
    result = CliRunner().invoke(main, ["predict", *arguments])
    return result, result.stderr.splitlines()[2:]


def test_table_json_and_csv_hold_the_same_and_the_model_is_named_with_its_performance(work, model):
    result, errors = call("one.wav", "two.flac", "--top", "2")
    first, second = result.stderr.splitlines()
    assert result.exit_code == 0 and model.name in first and not errors
    assert all(f"{value:.2f}" in second for value in model.about["scores"]["accuracy"].values())
    found = published.predict_file(work / "two.flac", model)
    name, share = found.top(1)[0]
    row = result.stdout.splitlines()[2].split("\t")
    assert row[:2] == ["two.flac", "1:04.0"] and row[3].startswith(f"{name} {100 * share:.0f} %, ")
    (one,) = json.loads(call("two.flac", "--json")[0].stdout)
    (row,) = csv.DictReader(io.StringIO(call("two.flac", "--csv")[0].stdout))
    known = {"file": "two.flac", "answer": found.named[0] if found.named else None, "model": model.name}
    top = [{"class": name, "probability": pytest.approx(share, abs=1e-6)} for name, share in found.top(3)]
    assert one == known | {"duration_s": 64.0, "top": top}
    assert {name: row[name] for name in known} == known | {"answer": one["answer"] or ""}
    by_rank = [{"class": row[f"class_{n}"], "probability": float(row[f"probability_{n}"])} for n in (1, 2, 3)]
    assert by_rank == top


def test_files_and_folders_are_predicted_in_order_and_bad_ones_reported_by_name_with_exit_code_1(work):
    (work / "takes" / "more").mkdir(parents=True)
    for name in ("takes/b.wav", "takes/more/a.FLAC", "takes/.hidden.wav", "takes/notes.txt"):
        shutil.copy(work / "one.wav", work / name)
    (work / "text.mp3").write_text("no sound")
    (work / "empty").mkdir()
    write_audio(work / "silent.wav", np.zeros(RATE_HZ))
    bad = ["text.mp3", "empty", "silent.wav", "none.wav", 99 * "long" + ".wav"]
    result, errors = call("one.wav", *bad, "takes", "--json")
    found = [one["file"] for one in json.loads(result.stdout)]
    assert result.exit_code == 1 and found == ["one.wav", "takes/b.wav", "takes/more/a.FLAC"]
    assert [line.split(": ")[:2] for line in errors] == [["Error", name] for name in bad]


def test_a_local_model_is_no_default_wrong_usage_is_refused_and_an_interrupt_keeps_what_was_predicted(
    work, monkeypatch
):
    (work / "reports").rename(work / "runs")
    named = ("one.wav", "--model", "runs/rendered-quick/model")
    result, _ = call(*named, "--json")
    assert result.exit_code == 0 and named[2] in result.stderr
    for wrong in (["one.wav"], ["one.wav", "--model", "no"], [*named, "--top", "0"], [*named, "--json", "--csv"], []):
        result, _ = call(*wrong)
        assert result.exit_code == 2 and result.stdout == "" and "Traceback" not in result.stderr
    found = [published.predict_file(Path("one.wav"), published.open_model(Path(named[2]))), KeyboardInterrupt]
    monkeypatch.setattr(published, "predict_file", mock.Mock(side_effect=found))
    result, errors = call("two.flac", "one.wav", *named, "--json")
    assert result.exit_code == 130 and [one["file"] for one in json.loads(result.stdout)] == ["one.wav"]
    assert "1 of 3" in errors[0]


@pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
def test_hostile_names_break_no_line_and_control_no_terminal_and_tensorflow_and_pandas_are_not_imported(work):
    names = ("two\nlines\t\x1b[31m.wav", "latin-\udce9.wav", "snow☃.wav")
    for name in names:
        shutil.copy(work / "one.wav", work / name)
    result, errors = call(*names)
    assert result.exit_code == 0 and not errors and "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()) == 4 and "latin-?.wav" in result.stdout
    assert json.loads(call(names[0], "--json")[0].stdout)[0]["file"] == names[0]
    code = (
        "import atexit, sys, instrlib.runner.cli\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'sklearn', 'jinja2'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "instrlib.runner.cli.main(['predict', 'snow☃.wav', 'rain☃.wav'])"
    )
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=environment)
    _, row, heavy = run.stdout.splitlines()
    assert run.returncode == 1 and row.startswith(b"snow?.wav\t") and heavy == b"[]"
    assert len(run.stderr.splitlines()) == 3 and b"rain?.wav" in run.stderr
