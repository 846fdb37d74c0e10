"""Traditional classifiers: statistics that padding does not change, settings chosen inside the training part."""

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from instrlib.audio.features import extract, mel_edges_hz, sounding
from instrlib.core.config import FeatureConfig
from instrlib.core.errors import ConfigError
from instrlib.core.io import read_json
from instrlib.data.inputs import Inputs
from instrlib.evaluation.predictions import join_folds
from instrlib.models import classical
from instrlib.models.training import part_segments

CONFIG = FeatureConfig(n_mels=40, segment_s=1.0)
NAMES = classical.statistic_names()


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    """Half a second of a decaying tone in noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(CONFIG.sample_rate_hz // 2) / CONFIG.sample_rate_hz
    return np.exp(-3 * time_s) * np.sin(2 * np.pi * 440 * time_s) + 0.05 * rng.normal(size=len(time_s))


@pytest.fixture(scope="module")
def separable() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of four classes that stand apart, with their classes and groups."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 24)
    x = rng.normal(size=(96, 6)) + 4 * np.eye(4, 6)[targets]
    return x, targets, np.arange(96) // 4


def value(statistics: np.ndarray, name: str) -> float:
    return float(statistics[0, NAMES.index(name)])


def test_spectral_statistics_are_librosas_on_the_same_mel_amplitudes(signal):
    librosa = pytest.importorskip("librosa")
    level_db = extract(signal, CONFIG)
    used = sounding(level_db, CONFIG)
    amplitude = 10 ** (level_db.astype(np.float64) / 20)
    freq = mel_edges_hz(CONFIG)[1:-1]
    series = {
        "centroid (Hz)": librosa.feature.spectral_centroid(S=amplitude, freq=freq)[0],
        "bandwidth (Hz)": librosa.feature.spectral_bandwidth(S=amplitude, freq=freq)[0],
        "roll-off (Hz)": librosa.feature.spectral_rolloff(S=amplitude, freq=freq, roll_percent=classical.ROLL_OFF)[0],
        "flatness": librosa.feature.spectral_flatness(S=amplitude)[0],
        **{f"MFCC {n}": row for n, row in enumerate(librosa.feature.mfcc(S=level_db, n_mfcc=classical.N_MFCC))},
    }
    found = classical.statistics(level_db[None], CONFIG)
    for name, values in series.items():
        assert value(found, f"mean of {name}") == pytest.approx(values[used].mean(), rel=1e-4, abs=1e-4), name
        assert value(found, f"deviation of {name}") == pytest.approx(values[used].std(), rel=1e-3, abs=1e-3), name


def test_flux_is_the_mean_rise_of_a_band_from_one_sounding_frame_to_the_next():
    level_db = np.full((1, 40, 5), -20.0)
    level_db[0, :, 2] = -10.0  # one rise by 10 dB, one fall
    level_db[0, :, 4] = -80.0  # silence is not compared with
    found = classical.statistics(level_db, CONFIG)
    assert value(found, "mean of flux (dB)") == pytest.approx(10 / 3)


def test_padding_changes_no_statistic_so_a_short_clip_does_not_tell_its_length(signal):
    level_db = extract(signal, CONFIG)
    n_used = int(sounding(level_db, CONFIG).sum())
    assert n_used < 0.6 * CONFIG.n_frames
    short = classical.statistics(level_db[None, :, :n_used], CONFIG)
    np.testing.assert_allclose(classical.statistics(level_db[None], CONFIG), short, rtol=1e-5, atol=1e-5)


def test_a_picture_of_silence_has_finite_statistics():
    assert np.isfinite(classical.statistics(np.full((2, 40, 9), -80.0), CONFIG)).all()


def test_summaries_are_the_statistics_of_each_segment_in_order_block_by_block(small, monkeypatch):
    segments = small.store.segments.iloc[[7, 3, 12, 0, 5]]
    whole = classical.summaries(small.store, segments)
    assert whole.shape == (5, len(NAMES))
    monkeypatch.setattr(classical, "_BLOCK", 2)
    np.testing.assert_array_equal(classical.summaries(small.store, segments), whole)
    one = classical.statistics(np.asarray(small.store.features)[[12]], small.store.config)
    np.testing.assert_allclose(whole[2:3], one, rtol=1e-6)


@pytest.mark.parametrize("name", list(classical.GRIDS))
def test_each_classifier_learns_what_can_be_learned_and_answers_with_probabilities(name, separable):
    x, targets, _ = separable
    settings = {setting: values[-1] for setting, values in classical.GRIDS[name].items()}
    fitted = classical.fit(name, settings, x[::2], targets[::2], seed=0)
    answers = classical.probabilities(fitted, x[1::2], 5)  # the fifth class was never seen
    assert answers.shape == (48, 5)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    assert (answers[:, 4] == 0).all()
    assert (answers.argmax(axis=1) == targets[1::2]).mean() > 0.75
    assert classical.count_numbers(fitted) > 0
    if name in classical.UNSEEDED:
        again = classical.fit(name, settings, x[::2], targets[::2], seed=7)
        np.testing.assert_array_equal(classical.probabilities(again, x[1::2], 5), answers)


def test_two_classes_get_probabilities_from_a_support_vector_machine(separable):
    x, targets, _ = separable
    rows = targets < 2
    fitted = classical.fit("RBF SVM", {"C": 1.0}, x[rows], targets[rows], seed=0)
    answers = classical.probabilities(fitted, x[rows], 2)
    np.testing.assert_array_equal(answers.argmax(axis=1), fitted.predict(x[rows]))


def test_numbers_are_counted_as_the_shapes_say(separable):
    x, targets, _ = separable
    counted = {name: classical.count_numbers(classical.fit(name, {}, x, targets, seed=0)) for name in classical.GRIDS}
    assert counted["logistic regression"] == counted["linear SVM"] == 4 * 6 + 4
    assert counted["naive Bayes"] == 2 * 4 * 6
    assert counted["k nearest neighbours"] == 96 * 7
    assert counted["multilayer perceptron"] == 6 * 64 + 64 + 64 * 4 + 4
    tree = classical.fit("decision tree", {"max_depth": 1}, x, targets, seed=0)
    assert classical.count_numbers(tree) == 2 * 1 + 2 * 4


def test_settings_are_chosen_on_folds_that_no_group_crosses(separable, monkeypatch):
    x, targets, groups = separable
    seen = []
    search = GridSearchCV.fit

    def spy(self, x, y):
        seen.extend(self.cv)
        return search(self, x, y)

    monkeypatch.setattr(GridSearchCV, "fit", spy)
    settings, score = classical.tune("k nearest neighbours", x, targets, groups)
    assert settings["n_neighbors"] in classical.GRIDS["k nearest neighbours"]["n_neighbors"]
    assert score > 0.8
    assert len(seen) == classical.N_FOLDS
    assert all(not set(groups[train]) & set(groups[test]) for train, test in seen)


def test_a_class_with_one_group_or_one_row_does_not_stop_the_choice(separable):
    x, targets, groups = separable
    one_group = np.where(targets == 3, 99, groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("logistic regression", "RBF SVM", "gradient boosting"):
            assert set(classical.tune(name, x, targets, one_group)[0]) == set(classical.GRIDS[name])
        rows = np.r_[0:72, 72]  # one row of the last class
        settings, score = classical.tune("naive Bayes", x[rows], targets[rows], groups[rows])
    assert settings == {"var_smoothing": 1e-9} and np.isnan(score)


def test_an_unknown_classifier_gets_the_list_of_those_there_are():
    with pytest.raises(ConfigError, match=r"Unknown classifier 'oracle'; there is: .*random forest"):
        classical.estimator("oracle", 0)


def test_the_test_part_is_answered_from_the_training_part_alone_and_kept(small, tmp_path, monkeypatch):
    fitted_on = []
    tune = classical.tune
    monkeypatch.setattr(classical, "tune", lambda name, x, *rest: fitted_on.append(len(x)) or tune(name, x, *rest))
    arguments = (tmp_path, small.store.folder, small.split_path, "naive Bayes", (0, 1))
    answers = classical.answer(*arguments)
    assert fitted_on == [len(part_segments(small.store, small.split, "train"))]
    test = small.split.parts.index[small.split.parts == "test"]
    assert answers["clip_id"].tolist() == sorted(test)
    assert answers["probabilities"].shape == (2, len(test), 3)
    np.testing.assert_array_equal(*answers["probabilities"])  # no seed in it
    assert (answers["probabilities"][0].argmax(axis=1) == answers["targets"]).mean() > 0.6
    again = classical.answer(*arguments)
    assert len(fitted_on) == 1
    np.testing.assert_array_equal(again["probabilities"], answers["probabilities"])


def test_what_is_fitted_again_for_its_latency_gives_the_same_answers(small, tmp_path):
    answers = classical.answer(tmp_path, small.store.folder, small.split_path, "decision tree", (0,))
    fitted = classical.refit(tmp_path, small.store, small.split, "decision tree", seed=0)
    segments = part_segments(small.store, small.split, "test")
    by_segment = classical.probabilities(fitted, classical.summaries(small.store, segments), 3)
    first = segments[segments.clip_id == answers["clip_id"][0]]
    place = segments.index.get_indexer(first.index)
    np.testing.assert_allclose(by_segment[place].mean(axis=0), answers["probabilities"][0, 0], atol=1e-5)


def test_all_classifiers_fan_out_with_the_same_result_for_any_number_of_workers(small, tmp_path, monkeypatch):
    few = {name: classical.GRIDS[name] for name in ("decision tree", "naive Bayes")}
    monkeypatch.setattr(classical, "GRIDS", few)
    monkeypatch.setattr(classical, "parallel_map", lambda function, tasks, **_: (function(*task) for task in tasks))
    inputs = {"honest": Inputs(small.store, (small.split_path,), "")}
    found = classical.answer_all(tmp_path, inputs, seeds=(0, 1))
    assert list(found["honest"]) == list(few)
    direct = classical.answer(tmp_path / "direct", small.store.folder, small.split_path, "decision tree", (0, 1))
    np.testing.assert_array_equal(found["honest"]["decision tree"]["probabilities"], direct["probabilities"])
    described = classical.describe(tmp_path, "honest", 1)
    assert list(described.index) == list(few)
    record = read_json(classical.place(tmp_path, "honest", "decision tree", fold=0) / classical.RECORD)
    assert described.parameters["decision tree"] == record["parameters"]
    joined = join_folds([direct])
    np.testing.assert_array_equal(joined["probabilities"], direct["probabilities"])


def test_pictures_scaled_for_reading_become_the_stored_levels_again(small):
    rows = small.store.segments.row.to_numpy()[:4]
    pictures = dataclasses.replace(small.store, config=dataclasses.replace(small.store.config, scaling="fixed"))
    x = classical.summaries(small.store, small.store.segments)
    fitted = classical.fit("naive Bayes", {}, x, small.store.segments.target.to_numpy(), seed=0)
    predict = classical.predictor(fitted, small.store.config, 3)
    np.testing.assert_allclose(predict(pictures.read(rows)), classical.probabilities(fitted, x[:4], 3), atol=1e-4)
