"""The released model: chosen on validation, checked as a file, tested once on held-out clips, opened safely."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from instrlib.audio.features import FeatureConfig, scale
from instrlib.core.io import ConfigError, EvaluationError, RunError, read_arrays, read_json, write_json
from instrlib.data import rendered
from instrlib.data.splits import check_no_leak, fingerprint_of, k_folds, load_split, save_splits
from instrlib.data.store import Inputs, build_store
from instrlib.deploy import release
from instrlib.deploy.release import Candidate, choose
from instrlib.evaluation.calibration import fit_temperature, softmax
from instrlib.evaluation.metrics import clip_probabilities
from instrlib.models import compression, published, trained
from instrlib.models.layers import Layer, build
from instrlib.studies import saliency


def write_run(folder: Path, *, accuracy: float = 0.5, parameters: int = 1000, seed: int = 0, **manifest: str) -> Path:
    """Write what `trained.summary` reads of a finished training."""
    metrics = {"validation": {"accuracy": accuracy}, "parameters": parameters, "multiply_adds": 1}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "manifest.json", {"key": "", "seed": seed, "store": "", "split": ""} | manifest)
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


def test_candidates_are_the_declared_models_with_a_network_for_every_seed_and_split(tmp_path, small, inputs):
    same = {"store": small.store.fingerprint, "split": small.split.fingerprint}
    changes = {"a-b": {}, "fold-0/nested": {}, "other-split": {"split": "x"}, "other-features": {"store": "x"}}
    for place, change in {**changes, "undeclared": {}, "one-seed": {}}.items():
        for seed in (0,) if place == "one-seed" else (0, 1):
            write_run(tmp_path / place / "fold-0" / f"seed-{seed}", seed=seed, **same | change)
    rows = ("A, b", "nested", "one seed", "other split", "other features", "baseline")
    other = SimpleNamespace(folder=tmp_path, declared={"models": {"rows": dict.fromkeys(rows)}})
    run = SimpleNamespace(seeds=(0, 1), other=lambda name: other)
    first, nested = release.candidates(run, ["03_cutmix"], inputs)
    assert (first.notebook, first.name, nested.name) == ("03_cutmix", "A, b", "nested")
    assert nested.folders == tuple((tmp_path / f"fold-0/nested/fold-0/seed-{seed}",) for seed in (0, 1))
    other.declared.clear()
    with pytest.raises(RunError, match="03_cutmix"):
        release.candidates(run, ["03_cutmix"], inputs)


def test_more_clips_keep_each_group_in_its_part_and_each_clip_its_features(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_DATA", str(tmp_path))
    corpus = rendered.load(tmp_path / "rendered", clips_per_class=12, classes=("flute", "trumpet"), workers=1)
    config = FeatureConfig(hop_length=1024, n_mels=16)
    store = build_store(corpus, config, root=tmp_path / "features", workers=1)
    splits = k_folds(store.clips, 3, seed=0)
    study = Inputs(store, tuple(save_splits(splits, tmp_path / "splits")), fingerprint_of(splits))
    more = release.enlarge(study, tmp_path / "more", clips_per_class=40)
    assert more.store.classes == store.classes and more.fingerprint != study.fingerprint
    for before, after in zip(splits, more.splits, strict=True):
        many = load_split(after, more.store.segments).parts
        assert many[before.parts.index].equals(before.parts.rename(many.name))
        assert (many.value_counts() > 2 * before.parts.value_counts()).all()
        check_no_leak(more.store.clips, many)
    first = store.segments.iloc[5]
    again = more.store.segments.set_index("clip_id").loc[[first.clip_id]].iloc[0]
    np.testing.assert_array_equal(store.features[first.row], more.store.features[again.row])
    with pytest.raises(ConfigError, match="clip"):
        release.enlarge(study, tmp_path / "fewer", clips_per_class=6)


@pytest.fixture
def model(released) -> published.PublishedModel:
    return released.made.model


@pytest.fixture
def folder(model, tmp_path) -> Path:
    """Return a copy of the model folder."""
    return shutil.copytree(model.folder, tmp_path / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_file_gives_the_logits_maps_and_probabilities_of_the_network(released, model, small):
    """As closely as one-byte weights allow."""
    for name, trained_in in released.trained.items():
        network = getattr(model, name)
        original, scaler = trained.load_model(trained_in)
        np.testing.assert_array_equal(network.scaler.mean, np.float32(scaler.mean))
        spectra = small.store.features[small.store.segments.row.to_numpy()[:12]].astype(np.float32)
        predicted, maps = published.predictor(dataclasses.replace(network, temperature=1.0))(spectra)
        x = scale(spectra, small.store.config, scaler)[..., None]
        np.testing.assert_allclose(predicted, original.predict_on_batch(x), atol=0.08)
        logits = published.load_tflite(network.file)(x)[2]
        np.testing.assert_allclose(maps.mean(axis=(1, 2)) + original.layers[-1].get_weights()[1], logits, atol=1e-3)
        if name == "single":
            wanted = np.moveaxis(saliency.class_activation_maps(original, x), 1, -1)
            assert np.abs(maps - wanted).max() < 0.1 * np.abs(wanted).max()
        found = saliency.upsample(np.moveaxis(maps, -1, 1), saliency.Grid(**network.grid))
        assert found.shape == (12, 3, *small.store.config.shape)


def test_a_network_without_a_mean_at_its_end_gives_logits_only():
    network = build((Layer("conv", 4, pool=4), Layer("flatten"), Layer("dense", 5)), (16, 24, 1), 3)
    x = np.random.default_rng(0).standard_normal((2, 16, 24, 1)).astype(np.float32)
    found = compression.with_maps(network).predict_on_batch(x)
    assert list(found) == ["logits"]
    np.testing.assert_allclose(softmax(found["logits"]), network.predict_on_batch(x), atol=1e-6)


def test_temperature_and_thresholds_are_fitted_on_the_validation_part(released, model, small):
    network = model.single
    segments = trained.part_segments(small.store, small.split, "validation")
    logits = published.load_tflite(network.file)(small.store.read(segments.row.to_numpy(), network.scaler))[2]
    clips, index = np.unique(segments.clip_id.to_numpy(str), return_inverse=True)
    targets = segments.groupby("clip_id").target.first()[clips].to_numpy()
    assert network.temperature == pytest.approx(fit_temperature(logits, targets, index), rel=1e-4)
    probabilities = clip_probabilities(softmax(logits, network.temperature), index)
    right = probabilities[probabilities.argmax(axis=1) == targets].max(axis=1)
    assert np.unique(network.thresholds).tolist() == [pytest.approx(np.quantile(right, 0.05, method="lower"))]
    losses = released.made.validation.log_loss.unstack()
    assert (losses["calibrated"] <= losses["as trained"]).all()
    assert model.about["several"]["agreement"] >= release.MIN_AGREEMENT


def test_equal_networks_give_equal_files_and_one_that_disagrees_is_refused(released, model, small, tmp_path):
    place = small.store.folder, small.split_path
    for name, network in released.trained.items():
        release.convert(tmp_path / "file", network, *place)
        assert (tmp_path / "file").read_bytes() == getattr(model, name).file.read_bytes()
    for name, array in (("single", "probabilities"), ("single", "clip_id"), ("several", "labels")):
        network = shutil.copytree(released.trained[name], tmp_path / f"{name}-{array}")
        known = read_arrays(network / "validation.npz")
        np.savez(network / "validation.npz", **known | {array: np.roll(known[array], 1, axis=-1)})
        with pytest.raises(EvaluationError if array == "probabilities" else RunError, match=network.name):
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
    for number, (name, one) in enumerate((name, about["by_class"][name]) for name in model.classes):
        own = after["targets"] == number
        assert (one["n"], one["n_groups"]) == (own.sum(), len(set(after["group"][own])))
        assert one["recall"]["estimate"] == pytest.approx(right[own].mean(), abs=5e-4)
        assert (one["f1"]["low"] is None) == (one["n_groups"] < 2)
        assert f"| {name} | {one['n']} | {one['n_groups']} | {one['recall']['estimate']:.2f}" in card
    assert "nan" not in card and "None" not in card


def test_a_second_release_or_a_kill_changes_nothing(released, model):
    def interrupt(*_, **__) -> None:
        raise KeyboardInterrupt

    before, original = content(model.folder), Path.rename
    rename = {"rename": lambda path, new: original(path, new) if path.suffix != ".new" else interrupt()}
    for place, steps in ((release, {"noise_rejection": interrupt}), (release, {"filled": interrupt}), (Path, rename)):
        with mock.patch.multiple(place, **steps), pytest.raises(KeyboardInterrupt):
            released.publish()
        assert content(published.open_model(model.folder).folder) == before
    released.publish()
    assert content(model.folder) == before and not list(model.folder.parent.glob(".model*"))


def test_noise_rejection_counts_abstentions(released, model):
    table = released.made.noises
    assert list(table.index) == list(release.NOISES) and table.confidence.between(1 / 3, 1).all()
    assert model.about["noises"] == table.abstained.to_dict()
    for threshold, share in ((0.0, 0), (1.1, 1)):
        network = dataclasses.replace(model.single, thresholds=np.full(3, threshold))
        assert (release.noise_rejection(network, model.classes, n=2).abstained == share).all()


def test_a_section_is_added_or_replaced_and_the_card_is_written_again(model, folder):
    for pooling in ("max", "mean"):
        (folder / "MODEL_CARD.md").unlink()
        release.note(folder, timeline={"pooling": pooling, "on": np.array([0.5, 0.4])})
    about = published.open_model(folder).about
    assert about["timeline"] == {"pooling": "mean", "on": [0.5, 0.4]} and about["id"] == model.about["id"]
    assert content(folder)["MODEL_CARD.md"] == content(model.folder)["MODEL_CARD.md"]


@pytest.mark.parametrize("name", ["model.json", "single.tflite", "several.tflite", "condition.json"])
def test_a_file_that_is_cut_altered_or_missing_is_refused_by_name(folder, name):
    write_json(folder / "condition.json", published.sealed({"weight": 0.1}))
    assert published.open_model(folder).condition["weight"] == 0.1
    whole = (folder / name).read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], b"", None):
        (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
        if (damaged, name) != (None, "condition.json"):
            with pytest.raises(RunError, match=name):
                published.open_model(folder)


def test_a_record_that_does_not_describe_a_model_is_refused(folder):
    record = read_json(folder / "model.json")
    settings = record["single"]
    wrong = [
        *({"single": {key: value for key, value in settings.items() if key != lost}} for lost in settings),
        *({"single": settings | change} for change in ({"thresholds": [0.5]}, {"output": "linear"})),
        *({"classes": None}, {"single": None}, {"format": published.FORMAT + 1}),
    ]
    for one in (*(published.sealed(record | change) for change in wrong), ["a list"]):
        write_json(folder / "model.json", one)
        with pytest.raises(RunError, match=r"model\.json|single\.tflite"):
            published.open_model(folder)


def test_the_default_is_the_model_published_last_and_never_a_smoke_model(model, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRLIB_REPORTS", str(tmp_path))
    with pytest.raises(RunError, match="--model"):
        published.open_model()
    dates = {"a-quick": "2026-02-01", "b-quick": "2026-03-01", "c-quick": "2026-01-01", "d-smoke": "2026-04-01"}
    for study, when in dates.items():
        release.note(shutil.copytree(model.folder, tmp_path / study / "model"), published_at=when)
    assert published.open_model().folder == tmp_path / "b-quick" / "model"
    (tmp_path / "b-quick" / "model" / "model.json").write_text("{")
    assert published.open_model().folder == tmp_path / "a-quick" / "model"


@pytest.mark.parametrize("study", ["rendered-quick", "fsdkaggle2018-full"])
def test_the_committed_models_are_small_and_answer(repository, small, study):
    model = published.open_model(repository / "reports" / study / "model")
    assert sum(len(file) for name, file in content(model.folder).items() if name != "MODEL_CARD.md") < release.MAX_BYTES
    found = published.predict_file(small.clips.root / small.clips.manifest.path.iloc[0], model)
    assert found.probabilities.sum() == pytest.approx(1) and found.classes == model.classes
