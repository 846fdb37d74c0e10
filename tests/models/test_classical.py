"""Traditional classifiers: statistics that padding does not change, settings chosen inside the training part."""

import warnings

import numpy as np
import pandas as pd
import pytest
from librosa import feature
from sklearn import ensemble, naive_bayes, neural_network, svm, tree
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from instrlib.audio.features import extract, mel_edges_hz, sounding
from instrlib.core.config import FeatureConfig
from instrlib.models import classical
from instrlib.models.trained import part_segments

CONFIG = FeatureConfig(n_mels=40, segment_s=1.0)
TREE = (tree.DecisionTreeClassifier(), {"max_depth": [2, None]})
BAYES = (naive_bayes.GaussianNB(), {"var_smoothing": [1e-9, 1e-2]})
MACHINE = make_pipeline(StandardScaler(), svm.SVC())


@pytest.fixture(scope="module")
def separable() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of four separate classes, with their classes and groups."""
    targets = np.repeat(np.arange(4), 24)
    x = np.random.default_rng(0).normal(size=(96, 6)) + 4 * np.eye(4, 6)[targets]
    return x, targets, np.arange(96) // 4


def test_statistics_are_those_of_librosas_features_over_sounding_frames_whatever_the_padding():
    rng, time_s = np.random.default_rng(0), np.arange(CONFIG.sample_rate_hz // 2) / CONFIG.sample_rate_hz
    tone = np.exp(-3 * time_s) * np.sin(2 * np.pi * 440 * time_s) + 0.05 * rng.normal(size=len(time_s))
    level_db = extract(tone, CONFIG)  # padded to a second
    amplitude, freq = 10 ** (level_db.astype(np.float64) / 20), mel_edges_hz(CONFIG)[1:-1]
    series = [
        feature.mfcc(S=level_db, n_mfcc=20),
        feature.spectral_centroid(S=amplitude, freq=freq),
        feature.spectral_bandwidth(S=amplitude, freq=freq),
        feature.spectral_rolloff(S=amplitude, freq=freq),
        feature.spectral_flatness(S=amplitude),
    ]
    used = np.concatenate(series)[:, sounding(level_db, CONFIG)]
    found = classical.statistics(level_db[None], CONFIG)
    expected = [used.mean(axis=1), used.std(axis=1)]
    np.testing.assert_allclose(found.reshape(2, 25)[:, :-1], expected, rtol=1e-3, atol=1e-3)
    assert used.shape[1] < 0.6 * CONFIG.shape[1]
    short = classical.statistics(level_db[None, :, : used.shape[1]], CONFIG)
    np.testing.assert_allclose(found, short, rtol=1e-4, atol=1e-4)


def test_flux_is_the_mean_rise_of_a_band_between_sounding_frames():
    levels = np.full((1, 40, 5), -20.0)
    levels[0, :, 2] = -10.0  # one rise by 10 dB, one fall
    levels[0, :, 4] = -80.0  # silence does not count
    assert classical.statistics(levels, CONFIG)[0, 24] == pytest.approx(10 / 3)
    assert np.isfinite(classical.statistics(np.full((2, 40, 9), -80.0), CONFIG)).all()


@pytest.mark.parametrize("model", [MACHINE[1], neural_network.MLPClassifier((8,)), ensemble.RandomForestClassifier(20)])
def test_each_kind_gives_probabilities_that_depend_on_the_seed_alone(model, separable):
    x, targets, _ = separable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, same = (classical.fit(model, {}, x[::2], targets[::2], seed=1) for _ in range(2))
    found = classical.probabilities(one, x[1::2], 5)  # the fifth class has no training row
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found[:, 4] == 0).all()
    assert (found.argmax(axis=1) == targets[1::2]).mean() > 0.75
    np.testing.assert_array_equal(found, classical.probabilities(same, x[1::2], 5))
    two = classical.fit(model, {}, x[:48], targets[:48], seed=1)  # a support vector machine has one value for two
    np.testing.assert_array_equal(classical.probabilities(two, x[:48], 2).argmax(axis=1), two.predict(x[:48]))


def test_settings_are_chosen_on_folds_that_no_group_crosses(separable, monkeypatch):
    (x, targets, groups), fit, seen = separable, GridSearchCV.fit, []

    def spy(self, x, y, groups):
        seen.extend(self.cv.split(x, y, groups))
        return fit(self, x, y, groups=groups)

    monkeypatch.setattr(GridSearchCV, "fit", spy)
    settings, score = classical.tune(MACHINE, {"svc__C": [1e-6, 1.0]}, x, targets, groups)
    assert settings == {"svc__C": 1.0} and score > 0.8 and len(seen) == classical.N_FOLDS
    assert all(not set(groups[train]) & set(groups[test]) for train, test in seen)
    with warnings.catch_warnings():  # a class with one group, then one with one row
        warnings.simplefilter("error")
        classical.tune(MACHINE, {"svc__C": [0.01, 1.0]}, x, targets, np.where(targets == 3, 99, groups))
        settings, score = classical.tune(*BAYES, x[:73], targets[:73], groups[:73])
    assert settings == {"var_smoothing": 1e-9} and np.isnan(score)


def test_the_test_part_is_predicted_from_the_training_part_alone_and_cached(small, inputs, tmp_path, monkeypatch):
    fitted_on, tune, kinds = [], classical.tune, {"tree": TREE, "naive Bayes": BAYES}
    monkeypatch.setattr(classical, "tune", lambda *of: fitted_on.append(of[2]) or tune(*of))
    for _ in range(2):
        found, chosen = classical.answer_all(tmp_path, inputs, kinds, seeds=(0, 1), workers=1)
    train, test = (part_segments(small.store, small.split, part) for part in ("train", "test"))
    x, test_x = (classical.statistics(small.store.features[one.row], small.store.config) for one in (train, test))
    assert len(fitted_on) == 2 and list(found) == list(chosen.index) == list(kinds)
    np.testing.assert_array_equal(fitted_on[0], x)
    bayes = clone(BAYES[0]).set_params(**chosen.settings["naive Bayes"]).fit(x, train.target)
    means = pd.DataFrame(bayes.predict_proba(test_x)).groupby(test.clip_id.to_numpy()).mean()
    np.testing.assert_allclose(found["naive Bayes"]["probabilities"], [means, means], atol=1e-9)
    assert found["naive Bayes"]["clip_id"].tolist() == means.index.tolist()
