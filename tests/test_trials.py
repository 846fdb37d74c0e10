"""Recipes for training on rendered sounds: each says what it changes, and recordings have no say in the choice."""

import dataclasses

import pandas as pd
import pytest

from instrlib.core.config import FeatureConfig, TrainConfig, get_profile
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.data import rendered
from instrlib.data.rendered import sources as soundfont
from instrlib.findings.trials import trial_sentences
from instrlib.models.layers import Layer
from instrlib.studies import trials

TINY = trials.Trial(
    "tiny",
    "nothing",
    players=rendered.Players(("TimGM6mb",)),
    clips_per_class=12,
    features=FeatureConfig(hop_length=2048, n_mels=24),
    spec=(Layer("conv", 6, 5, 2, 2, True), Layer("average")),
    config=TrainConfig(epochs=2, patience=2),
)


def log_of(**scores: tuple[float, float, float]) -> pd.DataFrame:
    """Return a log of recipes by their scores by the judge, on recordings, and there adapted."""
    rows = []
    for name, (judged, recorded, adapted) in scores.items():
        row = {"trial": name, "change": "", "judged": judged, trials.JUDGE: judged + 0.1, trials.EVERYDAY: judged - 0.1}
        row["sea shanties"] = recorded
        for domain in (trials.JUDGE, trials.EVERYDAY, "sea shanties"):
            row |= {f"{domain}_low": row[domain] - 0.1, f"{domain}_high": row[domain] + 0.1}
        rows.append(row | {"sea shanties_adapted": adapted})
    return pd.DataFrame(rows)


def test_every_recipe_has_a_name_of_its_own_and_says_what_it_changes_against_one_before_it():
    names = [trial.name for trial in trials.TRIALS]
    assert len(set(names)) == len(names)
    many = names.index("two fonts, exercises, 400 clips")
    for trial in trials.TRIALS[many + 1 :]:
        assert trial.change.startswith(f"{names[many]}, but ")
        changed = [
            field.name
            for field in dataclasses.fields(trial)
            if getattr(trial, field.name) != getattr(trials.TRIALS[many], field.name)
        ]
        of_clips = dict.fromkeys(("1000 clips", "takes, CutMix, 1000 clips", "takes, CutMix, 3000 clips"), 2)
        together = of_clips | {"everything": 3}  # the epochs go with the clips
        assert len(set(changed) - {"name", "change"}) == together.get(trial.name, 1), trial.name


def test_recipes_that_are_compared_see_about_as_many_examples():
    seen = [trial.clips_per_class * trial.config.epochs for trial in trials.TRIALS]
    names = ("three times as long", "takes, CutMix, three times as long", "takes, CutMix, 1000 clips", "everything")
    longer = dict.fromkeys(names, 3) | {"takes, CutMix, 3000 clips": 9}
    for trial, number in zip(trials.TRIALS, seen, strict=True):
        assert number == pytest.approx(seen[0] * longer.get(trial.name, 1), rel=0.01)


def test_no_recipe_is_trained_on_the_judge():
    assert not any(trials.JUDGE in trial.players.fonts for trial in trials.TRIALS)


def test_the_judge_alone_chooses():
    log = log_of(simple=(0.4, 0.9, 0.9), rich=(0.6, 0.1, 0.2))
    assert trials.winner(log) == "rich"


def test_the_log_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "log_path", lambda: tmp_path / "log.json")
    log = log_of(simple=(0.4, 0.3, 0.3), rich=(0.6, 0.5, 0.4))
    trials.write_log(log.to_dict("records"), seeds=range(2))
    pd.testing.assert_frame_equal(trials.read_log(), log)


def test_the_committed_log_holds_every_recipe():
    assert trials.read_log().trial.to_list() == [trial.name for trial in trials.TRIALS]


def test_what_the_log_says_is_told_with_its_doubt():
    log = log_of(simple=(0.4, 0.3, 0.25), rich=(0.6, 0.5, 0.4), fancy=(0.55, 0.55, 0.4))
    told = " ".join(trial_sentences(log, trials.winner(log)))
    assert (
        "“rich”: 0.60, the mean of 0.70 on clean clips and 0.50 in everyday recordings of them, instead of 0.40" in told
    )
    assert "Within half of its interval below it: “fancy”." in told
    assert "On sea shanties, of which nothing was trained on and nothing chosen, it reaches 0.50 [0.40, 0.60]" in told
    assert "highest of all recipes there is 0.55 (“fancy”)" in told
    assert "raises the score in 0 of 3 recipes; the mean change is -0.10" in told


def test_a_recipe_is_trained_on_its_own_clips_and_scored_on_sounds_that_it_never_heard(tmp_path, monkeypatch):
    if trials.JUDGE not in soundfont.fonts():
        pytest.skip(f"{trials.JUDGE} is not installed (Debian: fluid-soundfont-gm)")
    monkeypatch.setattr(trials, "JUDGE_CLIPS", 2)
    answered = trials.hear(TINY, tmp_path / "run", profile=get_profile("smoke"), seeds=(0,), workers=1)
    assert [one.target.label for one in answered[1:]] == [trials.JUDGE, trials.EVERYDAY]
    clean, worse = (one.target.store for one in answered[1:])
    assert clean.segments.clip_id.tolist() == worse.segments.clip_id.tolist()
    assert 0.5 < (clean.features[:] != worse.features[:]).any(axis=(1, 2)).mean() <= 1
    assert all(one.source.corpus.manifest.font.eq("TimGM6mb").all() for one in answered)
    row = trials.row(TINY, answered, n_resamples=50)
    store = answered[0].source.store
    assert 0 < row["examples"] < 2 * len(store.segments)
    for name in ("own test part", trials.JUDGE, trials.EVERYDAY):
        assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
    arrays = trials.figure_arrays(pd.DataFrame([row]))
    assert arrays["domains"] == ["own test part", trials.JUDGE, trials.EVERYDAY]
    assert arrays["chosen"] == 0


def test_without_the_judge_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(trials.domains, "at_hand", lambda *_, **__: ([], []))
    with pytest.raises(CorpusError, match="install fluid-soundfont-gm"):
        trials.hear(TINY, tmp_path / "run", profile=get_profile("smoke"), seeds=(0,), workers=1)


def test_a_recipe_that_there_is_not_is_one_sentence():
    with pytest.raises(ConfigError, match="no recipe 'magic'; there is: simple"):
        trials.chosen(["magic"])
