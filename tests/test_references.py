"""The published networks as data: rebuilt to the last parameter, cut short only where it is said, timed alone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from instrlib import findings
from instrlib.audio.features import extract
from instrlib.core.config import PROFILES, TrainConfig
from instrlib.core.errors import ConfigError, RunError
from instrlib.data.inputs import Inputs
from instrlib.data.splits import make_split, save_split
from instrlib.evaluation import statistics
from instrlib.models import classical, experiments, references
from instrlib.models.layers import Layer, build, count_multiply_adds
from instrlib.studies import leak

TINY = Layer("conv", 4, 3, stride=2, norm=True), Layer("average")
NAMES = list(references.REFERENCES)


def network(name: str, n_classes: int):
    reference = references.get_reference(name)
    return build(reference.spec, (*reference.features.shape, 1), n_classes)


def test_freesound_cutmix_has_the_parameters_that_its_authors_print():
    assert references.get_reference("freesound-cutmix").features.shape == (13, 275)
    assert network("freesound-cutmix", 5).count_params() == 3_664_413


def test_nsynth_condition_has_the_6_52_million_parameters_of_its_third_version():
    assert references.get_reference("nsynth-condition").features.shape == (128, 128)
    assert network("nsynth-condition", 8).count_params() == 6_517_512


def test_layered_four_has_the_parameters_that_follow_from_its_table():
    kernels = 9 * 16 + 9 * 16 * 32 + 9 * 32 * 64 + 4 * (16 + 32 + 64)
    flat = (128 // 8) * (517 // 2 // 2 // 2) * 64
    assert network("layered-four", 4).count_params() == kernels + flat * 128 + 128 + 128 * 4 + 4


def test_openmic_vggish_sees_128_values_a_clip_as_it_did():
    built = network("openmic-vggish", 20)
    dense = 128 * 1024 + 4 * 1024 + 1024 * 512 + 4 * 512 + 512 * 20 + 20
    assert built.count_params() == dense


def test_irmas_app_does_about_157_million_multiply_adds():
    grids, kernels = [128 * 130, 64 * 65, 32 * 32], [9 * 32, 9 * 32 * 64, 9 * 64 * 128]
    expected = int(np.dot(grids, kernels)) + 128 * 128 + 128 * 10
    assert count_multiply_adds(network("irmas-app", 10)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_each_sees_what_its_description_says_and_answers_with_probabilities(name):
    reference = references.get_reference(name)
    tone = np.sin(2 * np.pi * 440 * np.arange(reference.features.segment_samples) / reference.features.sample_rate_hz)
    picture = extract(tone, reference.features)
    assert picture.shape == reference.features.shape
    answers = network(name, 3).predict_on_batch(picture[None, ..., None] / 80)
    assert answers.shape == (1, 3) and answers.sum() == pytest.approx(1, abs=1e-5)


def test_a_valid_convolution_that_finds_nothing_to_pool_is_refused_at_its_row():
    with pytest.raises(ConfigError, match="Row 2 "):
        build((Layer("conv", 2, 3, pool=2, padding="valid"), Layer("conv", 2, 5, padding="valid")), (8, 8, 1), 2)


def test_only_the_number_of_epochs_depends_on_the_profile_and_full_has_all_of_them():
    assert set(references.LIMITS) == set(PROFILES)
    for name, reference in references.REFERENCES.items():
        assert references.settings(name, "full") == reference.train
        quick = references.settings(name, "quick")
        assert dataclasses.replace(quick, epochs=reference.train.epochs) == reference.train
    assert references.cut_short("full") == []
    assert references.cut_short("quick") == [name for name in NAMES if name != "openmic-vggish"]
    assert references.first_seeds((4, 5, 6)) == (4,)


def test_what_is_cut_short_is_said():
    quick, full = references.table("quick"), references.table("full")
    assert "layered-four 1 of 20, irmas-app 1 of 30" in findings.shortened_sentence(quick)
    assert "openmic" not in findings.shortened_sentence(quick)
    assert "trained to their end" in findings.shortened_sentence(full)


def test_an_unknown_reference_gets_the_list_of_those_there_are():
    with pytest.raises(ConfigError, match="Unknown reference 'yamnet'; there is: " + ", ".join(NAMES)):
        references.get_reference("yamnet")


@pytest.fixture(scope="module")
def inputs(small):
    return Inputs(small.store, (small.split_path,), small.split.fingerprint)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    variant = experiments.Variant("tiny", TINY, TrainConfig(epochs=1), small.store.folder)
    folder = tmp_path_factory.mktemp("tiny")
    return experiments.run_variants(folder, [variant], splits=[small.split_path], seeds=(0, 1), workers=1)["tiny"]


def test_a_variant_may_have_splits_and_seeds_of_its_own(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    leaky = leak.by_segment(inputs, folder, keep_groups=False)
    made = references.variants({"openmic-vggish": leaky}, "smoke", seeds=(3,), suffix=", at random")
    assert [one.name for one in made] == ["openmic-vggish, at random"]
    own = dataclasses.replace(made[0], spec=TINY)
    other = experiments.Variant("other", TINY, TrainConfig(epochs=1), inputs.store.folder)
    found = experiments.run_variants(folder, [own, other], splits=inputs.splits, seeds=(0, 1), workers=1)
    assert [len(found[one.name].folders) for one in (own, other)] == [1, 2]
    assert all("#" in clip for clip in found[own.name].predictions["clip_id"])
    assert found["other"].predictions["probabilities"].shape[0] == 2


def test_a_network_answers_the_segments_of_its_clips_alike(inputs, trained, tmp_path):
    segments = leak.by_segment(inputs, tmp_path / "splits", keep_groups=True)
    answers = references.answer_segments(tmp_path, trained.folders, inputs, segments, workers=1)
    joined = leak.by_clip(answers)
    assert joined["clip_id"].tolist() == trained.predictions["clip_id"].tolist()
    np.testing.assert_allclose(joined["probabilities"], trained.predictions["probabilities"], atol=1e-5)


def test_a_network_of_another_split_does_not_answer(small, inputs, trained, tmp_path):
    save_split(make_split(small.store.clips, seed=1), tmp_path / "split.json")
    other = dataclasses.replace(inputs, splits=(tmp_path / "split.json",))
    segments = leak.by_segment(other, tmp_path / "splits", keep_groups=True)
    with pytest.raises(RunError, match="was trained with the split"):
        references.answer_segments(tmp_path, trained.folders, other, segments, workers=1)


def test_networks_and_classifiers_are_timed_and_put_into_one_table(small, inputs, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(classical, "GRIDS", {"naive Bayes": classical.GRIDS["naive Bayes"]})
    classic = classical.answer_all(tmp_path, {"honest": inputs}, seeds=(0, 1), workers=1)["honest"]
    latency = references.measure_latency(
        {"tiny": trained.flat[0]},
        {"naive Bayes": classical.place(tmp_path, "honest", "naive Bayes", fold=0)},
        stores=dict.fromkeys(("tiny", "naive Bayes"), small.store.folder),
        split=small.split_path,
        repeats=3,
    )
    assert (latency > 0).all() and (latency < 10_000).all()
    majority = trained.predictions | {"probabilities": np.eye(3)[np.zeros(len(trained.predictions["targets"]), int)]}
    answers = {"tiny": trained.predictions, "majority class": majority} | classic
    table = references.overview(
        statistics.score_table(answers, n_resamples=50, seed=0),
        {"tiny": "ours", "naive Bayes": "traditional", "majority class": "trivial"},
        networks=experiments.describe({"tiny": trained}),
        classifiers=classical.describe(tmp_path, "honest", 1),
        latency_ms=latency,
    )
    assert table.index.tolist() == ["majority class", "naive Bayes", "tiny"]
    assert table.parameters["naive Bayes"] == 2 * 3 * len(classical.statistic_names())
    assert table.multiply_adds.notna().tolist() == [False, False, True]
    trained_ones = {name: answers[name] for name in ("tiny", "naive Bayes")}
    compared = statistics.compare(trained_ones, against="tiny", n_resamples=50, seed=0).droplevel("second")
    sentence = findings.rivals_sentence(table, compared, "tiny", unfinished=[])
    assert sentence.startswith("Tiny reaches ") and "naive Bayes" in sentence and "Of the 1 models" in sentence


def test_the_sentence_on_the_protocols_names_the_largest_gain_and_a_change_of_the_best():
    table = pd.DataFrame(
        {"honest": [0.5, 0.4], "leaky": [0.6, 0.9], "difference": [0.1, 0.5], "low": [-0.1, 0.3]}, index=["a", "b"]
    )
    sentence = findings.protocols_sentence(table)
    assert "+0.10 (a) to +0.50 (b)" in sentence and "for 1 of 2 models" in sentence
    assert "under the leaky protocol is b, under the honest one a" in sentence
