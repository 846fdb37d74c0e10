"""The model that is given away: chosen on validation, checked as a file, scored on clips it never saw, read safely."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from instrlib.audio.features import scale
from instrlib.core.backend import without_stderr
from instrlib.core.errors import EvaluationError, RunError
from instrlib.core.io import hash_file, read_arrays, read_json, write_json
from instrlib.deploy import release
from instrlib.deploy.release import Candidate, choose
from instrlib.evaluation.calibration import fit_temperature, softmax
from instrlib.evaluation.metrics import clip_probabilities
from instrlib.findings.release import release_sentences
from instrlib.models import answers, published, trained
from instrlib.models.layers import Layer, build
from instrlib.models.predict import predict_file
from instrlib.runner import publish
from instrlib.studies import layered, saliency


def write_summary(folder: Path, *, accuracy: float, parameters: int = 1000) -> Path:
    """Write what `trained.summary` reads of a finished training."""
    metrics = {"validation": {"accuracy": accuracy}, "parameters": parameters, "multiply_adds": 1}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "manifest.json", {"key": "", "seed": 0, "store": "", "split": ""})
    return folder


def made_up(folder: Path, name: str, accuracy: list[list[float]], **settings: int) -> Candidate:
    """Return a candidate with a validation accuracy for each seed and fold."""
    folders = tuple(
        tuple(
            write_summary(folder / name / f"{seed}-{fold}", accuracy=value, **settings)
            for fold, value in enumerate(by_fold)
        )
        for seed, by_fold in enumerate(accuracy)
    )
    return Candidate("02_baseline_cnn", name, folders)


def test_two_threads_that_load_a_network_leave_stderr_where_it_was():
    """Each leads it nowhere and back: crosswise, the second would lead it back to nowhere."""

    def load(enters_s: float):
        time.sleep(enters_s)
        with without_stderr():
            time.sleep(0.2)

    before = os.fstat(2).st_ino, os.dup(2)
    threads = [threading.Thread(target=load, args=(enters_s,)) for enters_s in (0, 0.1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    after = os.fstat(2).st_ino
    os.dup2(before[1], 2)
    os.close(before[1])
    assert after == before[0]


def test_the_best_mean_on_validation_decides_and_then_the_best_network_of_its_kind(tmp_path):
    lucky = made_up(tmp_path, "lucky once", [[0.5, 0.99], [0.5, 0.5]])
    steady = made_up(tmp_path, "steady", [[0.7, 0.8], [0.9, 0.6]])
    choice = choose([lucky, steady])
    assert (choice.candidate.name, choice.seed, choice.fold) == ("steady", 1, 0)
    assert choice.folder == steady.folders[1][0]
    assert choice.table.name.tolist() == ["steady", "lucky once"]
    np.testing.assert_allclose(choice.table.validation_accuracy, [0.75, 0.6225])


def test_a_second_network_comes_from_the_fold_of_the_first_and_one_that_is_too_large_is_not_taken(tmp_path):
    steady = made_up(tmp_path, "steady", [[0.7, 0.8], [0.9, 0.6]])
    large = made_up(tmp_path, "large", [[1.0, 1.0], [1.0, 1.0]], parameters=release.MAX_PARAMETERS + 1)
    choice = choose([large, steady], fold=1)
    assert (choice.candidate.name, choice.seed, choice.fold) == ("steady", 0, 1)
    assert choice.table.fits.to_dict() == {0: False, 1: True}
    assert choose([large]).candidate.name == "large", "where there is none smaller"


def test_networks_of_two_folds_are_not_put_into_one_folder(tmp_path, inputs):
    first, second = (choose([made_up(tmp_path, name, [[0.5, 0.6]])], fold=fold) for fold, name in enumerate("ab"))
    with pytest.raises(RunError, match="are of folds 0 and 1"):
        release.publish(tmp_path / "model", first, second, run=None, inputs=inputs, n_resamples=10)


def test_the_folder_holds_all_that_it_takes_and_is_small(released):
    folder = released.made.model.folder
    assert {path.name for path in folder.iterdir()} == {
        "model.json", "single.tflite", "several.tflite", "MODEL_CARD.md",
    }  # fmt: skip
    assert release.size_bytes(folder).drop("MODEL_CARD.md").sum() < release.MAX_BYTES
    model = published.open_model(folder)
    assert model.classes == ("flute", "piano", "drums") and model.condition is None
    assert (model.single.output, model.several.output) == ("softmax", "sigmoid")
    assert model.name == f"rendered-smoke {model.about['id']}"


def test_the_file_gives_the_networks_own_logits_maps_and_answers(released, small):
    """As closely as weights of one byte allow."""
    for name, folder in released.trained.items():
        network = getattr(released.made.model, name)
        model, scaler = trained.load_model(folder)
        rows = small.store.segments.row.to_numpy()[:12]
        spectra = small.store.features[rows].astype(np.float32)
        listened, maps = published.listener(dataclasses.replace(network, temperature=1.0))(spectra)
        x = scale(spectra, small.store.config, scaler)[..., None]
        expected = model.predict_on_batch(x)
        np.testing.assert_allclose(listened, expected, atol=0.08)
        np.testing.assert_allclose(network.scaler.mean, scaler.mean, rtol=0)

        _, bias = model.layers[-1].get_weights()
        active = saliency.predict(saliency.channels(model), x) if name == "single" else None
        logits, same_maps = published.logits(network)(x)
        np.testing.assert_array_equal(maps, same_maps)
        np.testing.assert_allclose(maps.mean(axis=(1, 2)) + bias, logits, atol=1e-3)
        if active is not None:
            wanted = np.moveaxis(saliency.weighted_channels(active, model), 1, -1)
            assert np.abs(maps - wanted).max() < 0.1 * np.abs(wanted).max()
            grid = saliency.Grid(**network.grid)
            assert saliency.upsample(np.moveaxis(maps, -1, 1), grid).shape == (12, 3, *small.store.config.shape)


def test_a_network_without_a_mean_at_its_end_gives_logits_alone():
    table = (Layer("conv", 4, pool=4), Layer("flatten"), Layer("dense", 5))
    model = build(table, (16, 24, 1), 3)
    both = release.with_maps(model)
    x = np.random.default_rng(0).standard_normal((2, 16, 24, 1)).astype(np.float32)
    found = both.predict_on_batch(x)
    assert list(found) == ["logits"]
    np.testing.assert_allclose(softmax(found["logits"]), model.predict_on_batch(x), atol=1e-6)


def test_temperature_and_thresholds_are_fitted_on_the_validation_part_alone(released, small):
    network, table = released.made.model.single, released.made.validation.loc["single"]
    segments = trained.part_segments(small.store, small.split, "validation")
    logits, _ = published.logits(network)(small.store.read(segments.row.to_numpy(), network.scaler))
    clips, index = np.unique(segments.clip_id.to_numpy(str), return_inverse=True)
    targets = segments.groupby("clip_id").target.first()[clips].to_numpy()
    assert network.temperature == pytest.approx(fit_temperature(logits, targets, index), rel=1e-4)
    assert table.log_loss["calibrated"] <= table.log_loss["as trained"]
    sure = clip_probabilities(softmax(logits, network.temperature), index)
    right = sure[sure.argmax(axis=1) == targets].max(axis=1)
    assert np.unique(network.thresholds).tolist() == [pytest.approx(np.quantile(right, 0.05, method="lower"))]


def test_the_file_itself_answers_the_held_out_clips_of_its_split_and_is_scored_on_them(released, small):
    about, after = released.made.model.about, released.made.after
    test = sorted(small.split.parts.index[small.split.parts == "test"])
    assert after["clip_id"].tolist() == test and about["n_tested"] == len(test)
    assert about["split"] == small.split.fingerprint and about["fold"] == 0
    segments = trained.part_segments(small.store, small.split, "test")
    hear = published.listener(released.made.model.single)
    heard, _ = hear(small.store.features[segments.row.to_numpy()])
    _, index = np.unique(segments.clip_id.to_numpy(str), return_inverse=True)
    np.testing.assert_allclose(clip_probabilities(heard, index), after["probabilities"], atol=1e-6)
    right = after["probabilities"].argmax(axis=1) == after["targets"]
    assert about["scores"]["accuracy"]["estimate"] == right.mean() == about["refusals"]["accuracy"]
    kept = answers.read_test(released.trained["single"], small.store.folder, small.split_path)
    np.testing.assert_array_equal(released.made.before["probabilities"], kept["probabilities"])


def test_the_network_for_several_is_calibrated_on_the_examples_that_it_was_validated_on(released):
    known = read_arrays(released.trained["several"] / "validation.npz")
    table = released.made.validation.loc["several"]
    assert table.log_loss["calibrated"] <= table.log_loss["as trained"]
    about = released.made.model.about["several"]
    assert about["network"] == "trained on mixtures" and about["agreement"] >= release.MIN_AGREEMENT
    assert about["validation"]["mean_average_precision"] == table.mean_average_precision["calibrated"]
    assert known["labels"].shape[1] == len(released.made.model.several.thresholds)


def test_published_again_nothing_changes_and_the_test_part_is_not_read_again(released, inputs, monkeypatch):
    folder = released.made.model.folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    answered = {path: path.stat().st_mtime_ns for path in folder.parent.glob("published/*/*")}
    released.publish()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in folder.parent.glob("published/*/*")} == answered
    assert not list(folder.parent.glob(".model*"))


def test_a_file_that_answers_otherwise_than_its_network_is_not_published(released, small, tmp_path):
    network = tmp_path / "network"
    shutil.copytree(released.trained["single"], network)
    known = read_arrays(network / "validation.npz")
    np.savez(network / "validation.npz", **known | {"probabilities": np.roll(known["probabilities"], 1, axis=1)})
    with pytest.raises(EvaluationError, match=r"gives \d+ ?% of its validation answers as the network does"):
        release._make(tmp_path / "work", network, small.store.folder, small.split_path, None)
    with pytest.raises(RunError, match=r"How .* was trained must be given"):
        release._make(tmp_path / "b", released.trained["several"], small.store.folder, small.split_path, None)
    recipe = dataclasses.replace(released.recipe, augment=dataclasses.replace(released.recipe.augment, layers=(2, 2)))
    with pytest.raises(RunError, match="was validated on other examples"):
        release._make(tmp_path / "c", released.trained["several"], small.store.folder, small.split_path, recipe)


def test_a_section_is_added_to_what_is_known_of_a_model_and_its_card_says_what_it_is(released, tmp_path):
    folder = shutil.copytree(released.made.model.folder, tmp_path / "model")
    release.note(folder, timeline={"pooling": "max", "on": [0.5, 0.4, 0.3]})
    release.note(folder, timeline={"pooling": "mean", "on": np.array([0.5, 0.4, 0.3])})
    about = published.open_model(folder).about
    assert about["timeline"] == {"pooling": "mean", "on": [0.5, 0.4, 0.3]}
    assert about["id"] == released.made.model.about["id"]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for expected in (
        "flute, piano, drums", "All of it is synthesised", "General Public License",
        "`several.tflite`", "`condition.json` | may be there",
        f"answered {about['n_tested']} clips",
        f"| accuracy | {about['scores']['accuracy']['estimate']:.2f}",
    ):  # fmt: skip
        assert expected in card
    assert "nan" not in card and "None" not in card and card.endswith("\n") and "\n\n\n" not in card


def test_scores_by_class_are_those_of_the_answers_to_the_test_part(released):
    about, after = released.made.model.about, released.made.after
    answers = after["probabilities"].argmax(axis=1)
    assert list(about["by_class"]) == list(released.made.model.classes)
    for number, one in enumerate(about["by_class"].values()):
        own, named = after["targets"] == number, answers == number
        assert (one["n"], one["n_groups"]) == (own.sum(), len(set(after["group"][own])))
        assert one["recall"]["estimate"] == pytest.approx((answers[own] == number).mean(), abs=5e-4)
        if named.any():
            assert one["precision"]["estimate"] == pytest.approx((after["targets"][named] == number).mean(), abs=5e-4)
        for name in ("recall", "precision", "f1"):
            low, high = one[name]["low"], one[name]["high"]
            assert low is None if one["n_groups"] < 2 else 0 <= low <= high <= 1


def test_the_card_shows_the_scores_by_class(released):
    card = (released.made.model.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name, one in released.made.model.about["by_class"].items():
        assert f"| {name} | {one['n']} | {one['n_groups']} | {one['recall']['estimate']:.2f}" in card


def test_noises_are_heard_and_the_share_that_is_refused_is_counted(released):
    table = release.hear_noises(released.made.model, n=3)
    assert len(table) == 5 and table.refused.between(0, 1).all() and table.confidence.between(1 / 3, 1).all()
    model = released.made.model
    assert model.about["noises"] == release.hear_noises(model).refused.to_dict()
    everything = dataclasses.replace(released.made.model.single, thresholds=np.full(3, 1.1))
    assert (release.hear_noises(dataclasses.replace(released.made.model, single=everything), n=3).refused == 1).all()


def refused(folder: Path) -> str:
    with pytest.raises(RunError) as error:
        published.open_model(folder)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("name", ["model.json", "single.tflite", "several.tflite", "condition.json"])
def test_a_file_that_is_cut_altered_or_missing_is_named(released, tmp_path, name):
    folder = shutil.copytree(released.made.model.folder, tmp_path / "model")
    write_json(folder / "condition.json", published.sealed({"classes": ["healthy", "aged", "broken"], "weight": 0.1}))
    assert published.open_model(folder).condition["classes"] == ["healthy", "aged", "broken"]
    whole = (folder / name).read_bytes()
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    for damaged in (whole[:middle], whole[:middle] + flipped + whole[middle + 1 :], b""):
        (folder / name).write_bytes(damaged)
        assert f"{folder / name} is missing or altered" in refused(folder)
    (folder / name).unlink()
    if name == "model.json":
        assert "model.json" in refused(folder)
    elif name != "condition.json":
        assert f"{folder / name} is missing or altered" in refused(folder)


def test_a_model_of_another_format_or_without_what_it_takes_is_refused(released, tmp_path):
    folder = shutil.copytree(released.made.model.folder, tmp_path / "model")
    record = read_json(folder / "model.json")
    write_json(folder / "model.json", published.sealed(record | {"format": 2}))
    assert "format 2" in refused(folder)
    for name in ("classes", "single", "features", "scaler", "about"):
        write_json(
            folder / "model.json", published.sealed({key: value for key, value in record.items() if key != name})
        )
        assert "does not describe a model" in refused(folder)
    for lost in ("temperature", "grid", "sha256"):
        single = {key: value for key, value in record["single"].items() if key != lost}
        write_json(folder / "model.json", published.sealed(record | {"single": single}))
        assert "does not describe a model" in refused(folder)
    for wrong in ({"thresholds": [0.5]}, {"output": "linear"}):
        write_json(folder / "model.json", published.sealed(record | {"single": record["single"] | wrong}))
        assert "does not describe a model" in refused(folder)
    write_json(folder / "model.json", ["a list"])
    assert "is missing or altered" in refused(folder)


def test_without_a_name_the_model_published_last_is_opened(released, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(tmp_path))
    with pytest.raises(RunError, match="make study"):
        published.open_model()
    for study, when in (("a-quick", "2026-02-01"), ("b-quick", "2026-03-01"), ("c-quick", "2026-01-01")):
        folder = shutil.copytree(released.made.model.folder, tmp_path / study / "model")
        release.note(folder, published_at=when)
    smoke = shutil.copytree(released.made.model.folder, tmp_path / "d-smoke" / "model")
    release.note(smoke, published_at="2026-04-01")
    assert published.open_model().folder == tmp_path / "b-quick" / "model"
    (tmp_path / "b-quick" / "model" / "model.json").write_text("{")
    assert published.open_model().folder == tmp_path / "a-quick" / "model"


def test_no_file_of_the_folder_needs_unpickling_and_no_path_in_it_is_followed(released, tmp_path):
    folder = shutil.copytree(released.made.model.folder, tmp_path / "model")
    record = read_json(folder / "model.json")
    assert record["single"]["sha256"] == hash_file(folder / "single.tflite")
    assert "/" not in json.dumps({name: record[name] for name in ("single", "several", "features", "classes")})
    assert str(released.trained["single"]) not in (folder / "model.json").read_text(encoding="utf-8")


def test_reading_a_model_imports_neither_tensorflow_nor_pandas(released):
    code = (
        "import sys; from pathlib import Path; from instrlib.models import published\n"
        "published.listener(published.open_model(Path(sys.argv[1])).single)\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'scipy', 'librosa', 'matplotlib', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(released.made.model.folder)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_candidates_are_the_networks_of_three_notebooks(tmp_path):
    class Study:
        seeds = (0, 1)

        def other(self, notebook: str):
            trained = {"03_cutmix": ["CutMix"], "04_random_search": ["winner (own space)", "small CNN"]}
            made = Study()
            made.notebook, made.folder = notebook, tmp_path / notebook
            made.declared = {"numbers": {"trained": dict.fromkeys(trained.get(notebook, []))}}
            return made

    found = release.candidates(Study(), 2)
    assert [one.name for one in found] == ["compact CNN", "CutMix", "winner (own space)"]
    assert found[0].folders[1][1] == tmp_path / "02_baseline_cnn/compact-cnn/fold-1/seed-1"
    assert found[2].folders[1][1] == tmp_path / "04_random_search/fold-1/winner-own-space/fold-0/seed-1"


def test_the_recipe_of_the_network_for_several_is_that_of_notebook_10(released):
    assert released.recipe.augment.mix == "layers" and released.recipe.output == "sigmoid"
    assert released.recipe.augment.share == layered.MIXED_SHARE


def test_what_is_said_of_it_is_computed(released):
    table = choose_table(released)
    noises = release.hear_noises(released.made.model, n=3)
    chosen, right, calibrated, refused_share = release_sentences(released.made, table, noises)
    about = released.made.model.about
    assert "'compact CNN' of notebook 02, seed 0, the only network of its kind (validation accuracy " in chosen
    assert f"{about['n_tested']} clips of {about['n_groups']} groups" in right
    assert f"accuracy {about['scores']['accuracy']['estimate']:.3f} [" in right
    temperature = released.made.model.single.temperature
    was = "about right" if 0.95 < temperature < 1.05 else "too sure" if temperature > 1 else "not sure enough"
    assert was in calibrated and f"{temperature:.2f}" in calibrated
    losses = released.made.scores.pivot(index="score", columns="model", values="estimate").loc["log_loss"]
    numbers = f"{losses['file, calibrated']:.3f}, the network as trained {losses['network as trained']:.3f}"
    assert f"log loss of {numbers}" in calibrated
    assert "keep 95 % of the right answers" in refused_share
    worthless = {"named": 1.0, "right_lost": 0.2, "wrong_refused": 0.1, "accuracy": 0.5, "accuracy_of_named": 0.5}
    model = dataclasses.replace(released.made.model, about=about | {"refusals": worthless})
    said = release_sentences(dataclasses.replace(released.made, model=model), table, noises)[-1]
    assert "to 20 % of the right answers on test, to 10 % of the wrong ones" in said and "worth nothing" in said
    no_wrong = worthless | {"wrong_refused": None, "accuracy": 1.0}
    model = dataclasses.replace(released.made.model, about=about | {"refusals": no_wrong})
    assert (
        "to none there are of the wrong ones"
        in release_sentences(dataclasses.replace(released.made, model=model), table, noises)[-1]
    )


def choose_table(released):
    folder = released.trained["single"]
    return choose([Candidate("02_baseline_cnn", "compact CNN", ((folder,),))]).table


def finished(folder: Path, files: dict[str, bytes]) -> Path:
    """Return a finished run of a study that adds files to the model folder."""
    write_json(folder / "manifest.json", {})
    shutil.rmtree(folder / "model", ignore_errors=True)
    for name, content in files.items():
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / name).write_bytes(content)
    return folder


def test_what_two_notebooks_give_away_meets_in_one_folder_of_the_reports(tmp_path):
    runs, names = tmp_path / "runs" / "a-quick", ["11_timeline", "12_instrument_condition"]
    model = {"model.json": b"{}", "single.tflite": b"1", "several.tflite": b"2", "MODEL_CARD.md": b"#"}
    publish.publish(finished(runs / names[0], model), known=names)
    publish.publish(finished(runs / names[1], {"condition.json": b"3"}), known=names)
    folder = tmp_path / "reports" / "a-quick" / "model"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == model | {"condition.json": b"3"}

    del model["several.tflite"]
    publish.publish(finished(runs / names[0], model), known=names)
    assert {path.name for path in folder.iterdir()} == {*model, "condition.json"}
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    publish.publish(runs / names[0], known=names)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_study_without_a_model_makes_no_folder_for_one(tmp_path):
    publish.publish(finished(tmp_path / "runs" / "a-quick" / "02_baseline_cnn", {}), known=["02_baseline_cnn"])
    assert not (tmp_path / "reports" / "a-quick" / "model").exists()


def test_the_committed_model_is_small_whole_and_hears_an_instrument(repository, small):
    """What a fresh clone answers with, before any study."""
    folder = repository / "reports" / "rendered-quick" / "model"
    assert release.size_bytes(folder).drop("MODEL_CARD.md").sum() < release.MAX_BYTES
    assert not [path.name for path in folder.iterdir() if path.suffix not in (".json", ".tflite", ".md")]
    model = published.open_model(folder)
    assert {"flute", "piano", "drums"} <= set(model.classes) and model.several is not None
    results = read_json(repository / "reports" / "rendered-quick" / "results.json")["notebooks"]
    assert results["11_timeline"]["metrics"]["published"]["id"] == model.about["id"]
    one = small.clips.manifest.iloc[0]
    heard = predict_file(small.clips.root / one.path, model)
    assert heard.probabilities.sum() == pytest.approx(1) and heard.classes == model.classes
