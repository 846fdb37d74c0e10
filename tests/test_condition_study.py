"""Versions stand where their clips stand, what is scored is what is given away, and a damage left out is never seen."""

import numpy as np
import pandas as pd
import pytest

from instrlib.audio.damage import CONDITION_OF, KINDS, split_version
from instrlib.core.errors import EvaluationError
from instrlib.core.io import read_json, write_arrays, write_json
from instrlib.data.splits import load_split
from instrlib.findings import condition as condition_findings
from instrlib.models.published import sealed
from instrlib.models.trained import part_segments
from instrlib.models.variants import Outcome
from instrlib.studies import condition, condition_study, measures
from instrlib.studies.condition import CONDITIONS, MEASURES

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("condition")


@pytest.fixture(scope="module")
def task(small, inputs, place):
    return condition_study.prepare(small.clips, inputs, folder=place / "run", root=place / "features", workers=1)


@pytest.fixture(scope="module")
def answers(task, place):
    return condition_study.answer_all(place / "run", task, seeds=SEEDS, workers=1)


@pytest.fixture(scope="module")
def described(answers, place):
    return condition_study.describe(place / "run", 1)


@pytest.fixture(scope="module")
def unseen(answers, task, place):
    return condition_study.answer_unseen(place / "run", task, workers=1)


# -- the versions ------------------------------------------------------------------------------------------------------


def test_every_clip_has_one_version_of_each_condition_in_its_own_part_and_group(task, small):
    clips = task.inputs.store.clips
    source = clips.clip_id.map(lambda version: split_version(version)[0])
    assert set(clips.groupby(source).label.agg(lambda labels: " ".join(sorted(labels)))) == {"aged broken healthy"}
    assert set(source) == set(small.store.clips.clip_id)
    parts = load_split(task.inputs.splits[0], task.inputs.store.segments).parts
    for version, group in zip(clips.clip_id, clips.group, strict=True):
        clip_id, _ = split_version(version)
        assert parts[version] == small.split.parts[clip_id]
        assert group == small.store.clips.set_index("clip_id").group[clip_id]


def test_no_group_is_on_both_sides(task):
    store = task.measures
    split = load_split(task.inputs.splits[0], store.segments)
    groups = [set(part_segments(store, split, part).group) for part in ("train", "validation", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_the_measures_are_those_of_the_sound_that_the_networks_see(task):
    from instrlib.audio.features import extract

    store, config = task.inputs.store, task.inputs.store.config
    for row in store.segments.sample(5, random_state=1).itertuples():
        clip = task.corpus.manifest.set_index("clip_id").loc[row.clip_id]
        signal = condition_study._sound(task.corpus.root / clip.path, clip.start_s, clip.duration_s, config)
        worn = next(task.wear.copies(signal, sample_rate_hz=config.sample_rate_hz, clip_id=row.clip_id, offset_s=0.0))
        np.testing.assert_allclose(store.features[row.row], extract(worn, config), atol=0.05)
        own = task.measures.segments.set_index("clip_id").row[row.clip_id]
        found = condition.measure(worn, config.sample_rate_hz)
        np.testing.assert_allclose(task.measures.vectors[own], list(found.values()), rtol=1e-6)


def test_asked_again_nothing_is_measured_again(task, small, inputs, place, monkeypatch):
    monkeypatch.setattr(condition_study, "_measure_batch", None)
    again = condition_study.prepare(small.clips, inputs, folder=place / "run", root=place / "features", workers=1)
    assert again.measures.fingerprint == task.measures.fingerprint
    assert again.inputs.fingerprint == task.inputs.fingerprint


def test_damages_are_told_in_the_order_asked_for(task):
    versions = task.inputs.store.clips.clip_id.to_list()[:9]
    table = condition_study.damages(task, versions)
    assert table.condition.to_list() == [split_version(version)[1] for version in versions]
    healthy = table.condition == "healthy"
    assert (table.kind[healthy] == "").all() and (table.severity[healthy] == 0).all()
    assert (table.kind[~healthy].map(CONDITION_OF) == table.condition[~healthy]).all()


def test_examples_show_the_clip_and_every_damage(task):
    shown = condition_study.examples(task, task.corpus.manifest.iloc[0])
    assert shown["titles"][0] == "untouched" and len(shown["titles"]) == 1 + len(CONDITION_OF)
    assert shown["spectra"].shape == (len(shown["titles"]), *task.inputs.store.config.shape)


def test_a_measure_that_separates_perfectly_has_area_1_and_noise_has_a_half():
    rng = np.random.default_rng(0)
    kinds = ["", "dull"] * 200
    told = {name: rng.normal(size=400) for name in MEASURES}
    told["roll_off_hz"] = np.where(np.array(kinds) == "dull", 1.0, 2.0) + 0.1 * rng.random(400)
    condition_of = ["healthy", "aged"] * 200
    found = condition_study.separation(pd.DataFrame({"condition": condition_of, "kind": kinds, **told}))
    assert found.dull["roll_off_hz"] == 1
    assert found.dull["decay_variance"] == pytest.approx(0.5, abs=0.08)
    assert np.isnan(found.buzz["roll_off_hz"])


# -- the models --------------------------------------------------------------------------------------------------------


def test_every_model_answers_the_same_test_versions_with_probabilities(answers, task):
    split = load_split(task.inputs.splits[0], task.measures.segments)
    tested = sorted(part_segments(task.measures, split, "test").clip_id)
    assert list(answers) == [*condition_study.CANDIDATES, condition_study.RULES]
    for name, predictions in answers.items():
        assert predictions["clip_id"].tolist() == tested
        shape = (len(tested), 3) if name == condition_study.RULES else (len(SEEDS), len(tested), 3)
        assert predictions["probabilities"].shape == shape
        np.testing.assert_allclose(predictions["probabilities"].sum(axis=-1), 1)


def test_the_classifiers_of_the_measures_learn_more_than_chance(answers):
    right = [
        answers[name]["probabilities"].argmax(axis=-1) == answers[name]["targets"]
        for name in condition_study.CANDIDATES
    ]
    assert np.mean(right) > 1 / 3 + 0.05  # 48 versions of clips of few groups


def test_asked_again_nothing_is_fitted_again(answers, task, place, monkeypatch):
    monkeypatch.setattr(condition_study, "_fit", None)
    again = condition_study.answer_all(place / "run", task, seeds=SEEDS, workers=1)
    for name, predictions in again.items():
        np.testing.assert_array_equal(predictions["probabilities"], answers[name]["probabilities"])


def test_the_choice_is_made_by_validation_log_loss_and_not_by_accuracy(described):
    told = pd.DataFrame({"accuracy": [0.9, 0.7, 0.8], "log_loss": [0.7, 0.6, 0.9]}, index=["sure", "right", "neither"])
    assert condition_study.choose(told) == "right"
    assert described.log_loss.is_monotonic_increasing and (described.temperature > 0).all()


def test_networks_get_the_temperature_that_is_best_on_validation(tmp_path):
    """Of a network that is nearly certain and right in 8 of 10 answers each, .8 is what it should say."""
    certain = np.tile([0.999, 0.0005, 0.0005], (10, 1))
    targets = np.array([0] * 8 + [1, 2])
    tested = {"clip_id": np.array([f"c{number}" for number in range(10)]), "group": np.array(["g"] * 10)}
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_arrays(folder / "validation.npz", probabilities=certain, targets=targets)
        write_arrays(folder / "predictions.npz", key="k", probabilities=certain[::-1], targets=targets, **tested)
    outcome = Outcome(((tmp_path / "0",), (tmp_path / "1",)), {})
    predictions, validated = condition_study.calibrate(outcome)
    assert predictions["probabilities"].shape == (2, 10, 3)
    np.testing.assert_allclose(predictions["probabilities"], np.tile([0.8, 0.1, 0.1], (2, 10, 1)), atol=1e-3)
    assert validated.accuracy == pytest.approx(0.8) and validated.temperature > 1
    assert validated.log_loss == pytest.approx(-(0.8 * np.log(0.8) + 0.2 * np.log(0.1)), abs=1e-3)
    assert np.array_equal(predictions["targets"], targets)


def test_what_is_given_away_is_what_was_scored(task, answers, described, place, tmp_path):
    from instrlib.audio import decode as audio

    model = condition_study.publish(place / "run", task, n_resamples=50)
    write_json(tmp_path / "condition.json", sealed(model))
    model = read_json(tmp_path / "condition.json")
    predictions = answers[condition_study.GIVEN_AWAY]
    for number in range(0, len(predictions["clip_id"]), 6):
        version = str(predictions["clip_id"][number])
        clip = task.corpus.manifest.set_index("clip_id").loc[version]
        rate_hz = model["sample_rate_hz"]
        signal = audio.load(task.corpus.root / clip.path, sample_rate_hz=rate_hz, duration_s=clip.duration_s)
        worn = next(task.wear.copies(signal, sample_rate_hz=rate_hz, clip_id=version, offset_s=0.0))
        name, probabilities, _ = condition.verdict(worn, rate_hz, model)
        answered = predictions["probabilities"][0, number]
        np.testing.assert_allclose(list(probabilities.values()), answered, atol=1e-4)
        assert name == CONDITIONS[int(answered.argmax())]
    right = (predictions["probabilities"][0].argmax(axis=-1) == predictions["targets"]).mean()
    assert model["scores"]["accuracy"]["estimate"] == pytest.approx(right, abs=1e-4)
    assert model["n_tested"] == len(predictions["clip_id"])
    alarms = condition_study.false_alarms(task, one_seed(predictions))
    healthy = 1 - (alarms.damaged * alarms.n).sum() / alarms.n.sum()
    assert model["recall"]["healthy"] == pytest.approx(healthy, abs=1e-4)
    shares = np.bincount(predictions["targets"]) / len(predictions["targets"])
    assert list(model["recall"].values()) @ shares == pytest.approx(right, abs=1e-3)


def test_the_model_is_a_small_file_and_says_that_its_labels_are_simulated(task, answers, place, tmp_path):
    model = condition_study.publish(place / "run", task, n_resamples=50)
    write_json(tmp_path / "condition.json", sealed(model))
    assert (tmp_path / "condition.json").stat().st_size < 3000
    assert "The labels are simulated" in model["about"]


def test_a_classifier_without_a_kind_never_saw_it(task, answers, place, monkeypatch):
    seen = []

    def watched(folder, key, store, split, train, *rest, own=condition_study._fit):
        seen.append({task.wear.damage(version).kind for version in train.clip_id})
        return own(folder, key, store, split, train, *rest)

    monkeypatch.setattr(condition_study, "_fit", watched)
    condition_study.answer_unseen(place / "again", task_settings(task, place), workers=1)
    assert [set(CONDITION_OF) | {""}] * len(CONDITION_OF) == [
        kinds | {kind} for kinds, kind in zip(seen, CONDITION_OF, strict=True)
    ]
    assert all(kind not in kinds for kinds, kind in zip(seen, CONDITION_OF, strict=True))


def one_seed(predictions):
    """Return predictions as the first seed's network alone gave them."""
    return predictions | {"probabilities": predictions["probabilities"][0]}


def task_settings(task, place):
    """Bring the chosen settings to another folder, in which nothing was answered yet."""
    source = condition_study._place(place / "run", "logistic regression", 0) / "metrics.json"
    target = condition_study._place(place / "again", "logistic regression", 0) / "metrics.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    return task


def test_unseen_kinds_are_compared_on_their_own_versions_alone(task, answers, unseen):
    seen = answers["logistic regression"]
    table = condition_study.compare_unseen(task, seen, unseen, n_resamples=50)
    damage = condition_study.damages(task, seen["clip_id"].tolist())
    assert table.n.to_dict() == damage.kind[damage.kind != ""].value_counts()[table.index].to_dict()
    assert (table.noticed_seen >= table.named_seen).all() and (table.noticed_unseen >= table.named_unseen).all()
    np.testing.assert_allclose(table.difference, table.named_unseen - table.named_seen)
    assert not ((table.p_holm < table.p) | (table.noticed_more_p_holm < table.noticed_more_p)).any()
    moved = {kind: one | {"clip_id": one["clip_id"][::-1]} for kind, one in unseen.items()}
    with pytest.raises(EvaluationError, match="not tested on the same versions"):
        condition_study.compare_unseen(task, seen, moved, n_resamples=50)


def test_a_classifier_that_calls_everything_damaged_notices_nothing_and_one_that_tells_them_apart_does(task, answers):
    seen = one_seed(answers["logistic regression"])
    damage = condition_study.damages(task, seen["clip_id"].tolist())
    always = seen | {"probabilities": np.tile([0.1, 0.8, 0.1], (len(damage), 1))}
    knowing = seen | {"probabilities": np.where(damage[["kind"]] == "", [0.8, 0.1, 0.1], [0.1, 0.8, 0.1])}
    everything = condition_study.compare_unseen(task, seen, dict.fromkeys(CONDITION_OF, always), n_resamples=50)
    assert (everything.noticed_unseen == 1).all() and (everything.alarms_unseen == 1).all()
    assert (everything.noticed_more == 0).all() and not (everything.noticed_more_p_holm < 0.05).any()
    told = condition_study.compare_unseen(task, seen, dict.fromkeys(CONDITION_OF, knowing), n_resamples=50)
    assert (told.alarms_unseen == 0).all() and (told.noticed_more == 1).all()
    for table, count in ((everything, 0), (told, (told.noticed_more_p_holm < 0.05).sum())):
        said = condition_findings.unseen_sentence(table, "logistic regression")
        assert said.count(": noticed)") == count and f"corrected for {len(table)} kinds" in said


# -- rules -------------------------------------------------------------------------------------------------------------


def rows(**columns) -> np.ndarray:
    n = len(next(iter(columns.values())))
    values = np.zeros((n, len(MEASURES)))
    for name, column in columns.items():
        values[:, list(MEASURES).index(name)] = column
    return values


def test_rules_that_explain_the_training_part_are_found():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2, 2], 50)
    values = rows(
        harmonic_to_noise_db=np.where(np.arange(200) < 150, 20.0, 0.0) + rng.random(200),
        spectral_flatness=np.where((np.arange(200) >= 100) & (np.arange(200) < 150), 0.8, 0.1) + 0.1 * rng.random(200),
        decay_variance=np.where(targets == 1, 500.0, 10.0) + rng.random(200),
    )
    thresholds = condition_study.fit_rules(values, targets)
    assert 0 < thresholds["harmonic_to_noise_db"] <= 20.2
    assert 0.1 < thresholds["spectral_flatness"] <= 0.81
    assert 10 < thresholds["decay_variance"] <= 501
    assert (condition_study.follow_rules(values, thresholds).argmax(axis=1) == targets).mean() > 0.95


def test_what_cannot_be_told_passes_no_threshold():
    thresholds = {"harmonic_to_noise_db": 10.0, "spectral_flatness": 0.5, "decay_variance": 100.0}
    values = rows(harmonic_to_noise_db=[20.0, 5.0], spectral_flatness=[0.1, 0.1], decay_variance=[np.nan, np.nan])
    assert condition_study.follow_rules(values, thresholds).tolist() == [[1, 0, 0], [0, 0, 1]]


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_severities_and_kinds_count_every_tested_version_once(task, answers):
    models = {name: answers[name] for name in condition_study.CANDIDATES[:2]}
    n = len(models["logistic regression"]["clip_id"])
    for table in (
        condition_study.by_severity(task, models, n_resamples=50),
        condition_study.by_kind(task, models, n_resamples=50),
    ):
        assert table.groupby("model").n.sum().to_dict() == dict.fromkeys(models, n)
        for name, predictions in models.items():
            own = table[table.model == name]
            right = (predictions["probabilities"].argmax(axis=-1) == predictions["targets"]).mean()
            assert (own.estimate * own.n).sum() / n == pytest.approx(right)
    severity = condition_study.by_severity(task, models, n_resamples=50)
    assert (severity[severity.condition == "healthy"].up_to == 0).all()
    assert set(severity[severity.condition != "healthy"].up_to) <= set(condition_study.SEVERITY_EDGES[1:])


def test_a_severity_that_no_tested_version_has_is_left_open_in_the_figure(task, answers):
    models = {name: answers[name] for name in condition_study.CANDIDATES[:2]}
    table = condition_study.by_severity(task, models, n_resamples=50)
    table = table[~((table.condition == "aged") & (table.up_to == 0.4))]
    arguments = condition_study.severity_curve(table, list(models))
    assert arguments["accuracy"].shape == (2, 2, 4) and arguments["n"].shape == (2, 4)
    assert np.isnan(arguments["accuracy"][0, :, 0]).all() and arguments["n"][0, 0] == 0
    own = table[(table.condition == "broken") & (table.model == "logistic regression")].set_index("up_to")
    np.testing.assert_array_equal(arguments["accuracy"][1, 0][-1], own.estimate[1.0])


def test_false_alarms_are_of_healthy_versions_alone(task, answers):
    predictions = answers["logistic regression"]
    always = {"probabilities": np.tile([0.1, 0.2, 0.7], (len(predictions["clip_id"]), 1))}
    table = condition_study.false_alarms(task, predictions | always)
    assert (table.broken == 1).all() and (table.aged == 0).all() and (table.damaged == 1).all()
    assert table.n.sum() == (predictions["targets"] == 0).sum()
    assert table.index.is_monotonic_increasing and (table.n_groups <= table.n).all()


def test_the_sentences_say_what_the_numbers_say(task, answers, described, unseen, place):
    models = {"logistic regression": answers["logistic regression"]}
    cnn = pd.Series({"log_loss": 9.0, "accuracy": 0.4})
    best = condition_study.choose(described)
    said = condition_findings.choice_sentence(described, best, condition_study.GIVEN_AWAY, cnn)
    assert f"{best} has the least validation log loss" in said and "is not better by validation" in said
    severity = condition_study.by_severity(task, models, n_resamples=50)
    said = condition_findings.severity_sentence(severity, "logistic regression")
    assert "aged versions" in said and "broken versions" in said and "healthy versions" in said
    kinds = condition_study.by_kind(task, models, n_resamples=50)
    worst = kinds[kinds.kind != "none"].sort_values("estimate").iloc[0]
    assert f"{worst.estimate:.3f}" in condition_findings.kind_sentence(kinds, "logistic regression")
    compared = condition_study.compare_unseen(task, models["logistic regression"], unseen, n_resamples=50)
    said = condition_findings.unseen_sentence(compared, "logistic regression")
    assert all(kind in said for kind in compared.index)
    alarms = condition_study.false_alarms(task, models["logistic regression"])
    said = condition_findings.false_alarm_sentence(alarms, "logistic regression")
    assert all(f"{name} {row.damaged:.0%} of {row.n:.0f}" in said for name, row in alarms.iterrows())
    assert "most often" not in said and "not compared with each other" in said
    alone = condition_study.separation(condition_study.by_condition(task))[list(CONDITION_OF)]
    said = condition_findings.measures_sentence(alone, measures.MEASURES)
    assert all(f"{kind} by the" in said for kinds in KINDS.values() for kind in kinds)
    rules = condition_study.rules(place / "run")
    assert f"{rules['decay_variance']:.3g}" in condition_findings.rules_sentence(rules, measures.MEASURES)


def test_a_single_group_shows_no_difference_and_has_no_interval():
    row = {"condition": "broken", "n": 2, "named_seen": 1.0, "named_unseen": 0.0, "noticed_unseen": 1.0}
    open_ = {
        "alarms_unseen": 0.5,
        "difference": -1.0,
        "p_holm": np.nan,
        "noticed_more": 1,
        "noticed_more_p_holm": np.nan,
    }
    said = condition_findings.unseen_sentence(pd.DataFrame({"rattle": row | open_}).T, "logistic regression")
    assert "not shown to differ" in said and "not shown to be noticed" in said and "worse" not in said
    cell = {"model": "CNN", "condition": "broken", "n": 2, "estimate": 1.0, "low": np.nan, "high": np.nan}
    told = {"kind": "buzz", "estimate": 0.5, "low": 0.2, "high": 0.8}
    kinds = pd.DataFrame([cell | {"kind": "rattle"}, cell | told])
    said = condition_findings.kind_sentence(kinds, "CNN")
    assert "all 2 (of one group" in said and "0.500 [0.200, 0.800]" in said and "nan" not in said


def test_where_all_are_right_it_says_all_and_gives_no_interval():
    cell = {"model": "CNN", "condition": "aged", "kind": "dull", "n": 39, "estimate": 1.0, "low": 1.0, "high": 1.0}
    never = cell | {"kind": "detuned", "estimate": 0.0, "low": 0.0, "high": 0.0}
    said = condition_findings.kind_sentence(pd.DataFrame([cell, never]), "CNN")
    assert "all 39" in said and "none of 39" in said and "1.000" not in said and "[" not in said
