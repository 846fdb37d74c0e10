"""Traditional classifiers: statistics that padding does not change, settings chosen inside the training part."""

import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from instrlib.audio.features import extract, mel_edges_hz, sounding
from instrlib.core.config import FeatureConfig
from instrlib.core.io import ConfigError
from instrlib.models import classical
from instrlib.models.trained import part_segments

CONFIG = FeatureConfig(n_mels=40, segment_s=1.0)
SERIES = [*(f"MFCC {n}" for n in range(20)), "centroid", "bandwidth", "roll-off", "flatness", "flux"]
NAMES = [f"{kind} of {name}" for kind in ("mean", "deviation") for name in SERIES]


@pytest.fixture(scope="module")
def level_db() -> np.ndarray:
    """Return the spectrogram of half a second of a decaying tone in noise, padded to a second."""
    rng = np.random.default_rng(0)
    time_s = np.arange(CONFIG.sample_rate_hz // 2) / CONFIG.sample_rate_hz
    return extract(np.exp(-3 * time_s) * np.sin(2 * np.pi * 440 * time_s) + 0.05 * rng.normal(size=len(time_s)), CONFIG)


@pytest.fixture(scope="module")
def separable() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of four separate classes, with their classes and groups."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 24)
    return rng.normal(size=(96, 6)) + 4 * np.eye(4, 6)[targets], targets, np.arange(96) // 4


def value(statistics: np.ndarray, name: str) -> float:
    return float(statistics[0, NAMES.index(name)])


def test_statistics_are_those_of_librosas_features_over_sounding_frames(level_db):
    import librosa

    amplitude, freq = 10 ** (level_db.astype(np.float64) / 20), mel_edges_hz(CONFIG)[1:-1]
    series = {
        "centroid": librosa.feature.spectral_centroid(S=amplitude, freq=freq)[0],
        "bandwidth": librosa.feature.spectral_bandwidth(S=amplitude, freq=freq)[0],
        "roll-off": librosa.feature.spectral_rolloff(S=amplitude, freq=freq)[0],
        "flatness": librosa.feature.spectral_flatness(S=amplitude)[0],
        "MFCC 3": librosa.feature.mfcc(S=level_db, n_mfcc=20)[3],
    }
    used, found = sounding(level_db, CONFIG), classical.statistics(level_db[None], CONFIG)
    for name, values in series.items():
        assert value(found, f"mean of {name}") == pytest.approx(values[used].mean(), rel=1e-4, abs=1e-4), name
        assert value(found, f"deviation of {name}") == pytest.approx(values[used].std(), rel=1e-3, abs=1e-3), name


def test_flux_is_the_mean_rise_of_a_band_between_sounding_frames():
    levels = np.full((1, 40, 5), -20.0)
    levels[0, :, 2] = -10.0  # one rise by 10 dB, one fall
    levels[0, :, 4] = -80.0  # silence does not count
    assert value(classical.statistics(levels, CONFIG), "mean of flux") == pytest.approx(10 / 3)


def test_padding_changes_no_statistic_and_silence_has_finite_ones(level_db):
    n_used = int(sounding(level_db, CONFIG).sum())
    assert n_used < 0.6 * CONFIG.n_frames
    short = classical.statistics(level_db[None, :, :n_used], CONFIG)
    np.testing.assert_allclose(classical.statistics(level_db[None], CONFIG), short, rtol=1e-4, atol=1e-4)
    assert np.isfinite(classical.statistics(np.full((2, 40, 9), -80.0), CONFIG)).all()


def test_summaries_follow_the_order_of_the_segments_over_blocks(small, monkeypatch):
    monkeypatch.setattr(classical, "_BLOCK", 2)
    found = classical.summaries(small.store, small.store.segments.iloc[[7, 3, 12, 0, 5]])
    one = classical.statistics(np.asarray(small.store.features)[[12]], small.store.config)
    assert found.shape == (5, len(NAMES))
    np.testing.assert_allclose(found[2:3], one, rtol=1e-6)


@pytest.mark.parametrize("name", list(classical.GRIDS))
def test_each_classifier_learns_and_gives_probabilities(name, separable):
    x, targets, _ = separable
    settings = {setting: values[-1] for setting, values in classical.GRIDS[name].items()}
    fitted = classical.fit(name, settings, x[::2], targets[::2], seed=0)
    found = classical.probabilities(fitted, x[1::2], 5)  # the fifth class has no training row
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found[:, 4] == 0).all()
    assert (found.argmax(axis=1) == targets[1::2]).mean() > 0.75
    if name in classical.UNSEEDED:
        again = classical.fit(name, settings, x[::2], targets[::2], seed=7)
        np.testing.assert_array_equal(classical.probabilities(again, x[1::2], 5), found)


def test_two_classes_get_probabilities_from_a_support_vector_machine(separable):
    x, targets, _ = separable
    rows = targets < 2
    fitted = classical.fit("RBF SVM", {"C": 1.0}, x[rows], targets[rows], seed=0)
    found = classical.probabilities(fitted, x[rows], 2)
    np.testing.assert_array_equal(found.argmax(axis=1), fitted.predict(x[rows]))


def test_settings_are_chosen_on_folds_that_no_group_crosses(separable, monkeypatch):
    x, targets, groups = separable
    seen = []
    fit = GridSearchCV.fit
    monkeypatch.setattr(GridSearchCV, "fit", lambda self, x, y: seen.extend(self.cv) or fit(self, x, y))
    settings, score = classical.tune("k nearest neighbours", x, targets, groups)
    assert settings["n_neighbors"] in classical.GRIDS["k nearest neighbours"]["n_neighbors"]
    assert score > 0.8 and len(seen) == classical.N_FOLDS
    assert all(not set(groups[train]) & set(groups[test]) for train, test in seen)


def test_a_class_with_one_group_or_one_row_does_not_stop_the_choice(separable):
    x, targets, groups = separable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("logistic regression", "RBF SVM", "gradient boosting"):
            one_group = np.where(targets == 3, 99, groups)
            assert set(classical.tune(name, x, targets, one_group)[0]) == set(classical.GRIDS[name])
        settings, score = classical.tune("naive Bayes", x[:73], targets[:73], groups[:73])
    assert settings == {"var_smoothing": 1e-9} and np.isnan(score)


def test_an_unknown_classifier_gets_the_list_of_names():
    with pytest.raises(ConfigError, match="random forest"):
        classical.estimator("oracle", 0)


def test_predictions_come_from_the_training_part_alone_and_are_cached(small, inputs, tmp_path, monkeypatch):
    fitted_on = []
    tune = classical.tune
    monkeypatch.setattr(classical, "tune", lambda name, x, *rest: fitted_on.append(len(x)) or tune(name, x, *rest))
    names = ("decision tree", "naive Bayes")
    found, chosen = classical.answer_all(tmp_path, inputs, seeds=(0, 1), names=names, workers=1)
    assert fitted_on == [len(part_segments(small.store, small.split, "train"))] * 2
    assert list(found) == list(chosen.index) == list(names)
    bayes = found["naive Bayes"]
    assert bayes["clip_id"].tolist() == sorted(small.split.parts.index[small.split.parts == "test"])
    assert bayes["probabilities"].shape == (2, len(bayes["clip_id"]), 3)
    np.testing.assert_array_equal(*bayes["probabilities"])  # it has no seed
    assert (bayes["probabilities"][0].argmax(axis=1) == bayes["targets"]).mean() > 0.6
    assert set(chosen.settings["decision tree"]) == {"max_depth", "min_samples_leaf"}
    assert (chosen[["size_kb", "tuning_s", "training_s"]] > 0).all(axis=None)
    again, _ = classical.answer_all(tmp_path, inputs, seeds=(0, 1), names=names, workers=1)
    assert len(fitted_on) == 2
    np.testing.assert_array_equal(again["decision tree"]["probabilities"], found["decision tree"]["probabilities"])


def test_a_clip_is_scored_by_the_mean_of_its_segments(small, inputs, tmp_path):
    found, chosen = classical.answer_all(tmp_path, inputs, seeds=(0,), names=("naive Bayes",), workers=1)
    train, test = (part_segments(small.store, small.split, part) for part in ("train", "test"))
    x = classical.summaries(small.store, train)
    fitted = classical.fit("naive Bayes", chosen.settings["naive Bayes"], x, train.target.to_numpy(), seed=0)
    first = test[test.clip_id == found["naive Bayes"]["clip_id"][0]]
    by_segment = classical.probabilities(fitted, classical.summaries(small.store, first), 3)
    np.testing.assert_allclose(found["naive Bayes"]["probabilities"][0, 0], by_segment.mean(axis=0), atol=1e-9)
