"""What is pretrained on and what is tuned on, and what is said of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.data import rendered
from instrlib.data.splits import make_split, save_splits
from instrlib.data.store import build_store
from instrlib.evaluation.statistics import nested
from instrlib.findings.tuning import tuning_sentences
from instrlib.models import embeddings
from instrlib.models.finetune import CHOSEN, PROBE, RECIPES
from instrlib.models.layers import Layer
from instrlib.models.train import train_model
from instrlib.models.transfer import SCRATCH
from instrlib.studies import tuning

TINY = (Layer("conv", 6, 5, 4, norm=True), Layer("conv", 8, 3, norm=True), Layer("average", dropout=0.1))
SHORT = TrainConfig(epochs=1, batch_size=8, patience=1)


def domain(name, *fonts, splits=("fold-0.json",)):
    return SimpleNamespace(name=name, fonts=frozenset(fonts), splits=splits)


def test_recordings_come_before_fonts_and_nothing_is_tuned_on_a_font_of_the_pretraining():
    own, tim, merlin = domain("rendered", "Tim", "Merlin"), domain("Tim", "Tim"), domain("Merlin", "Merlin")
    fluid, few, recorded = domain("Fluid", "Fluid"), domain("few", splits=()), domain("recorded")
    assert tuning.choose_pair([own, merlin, fluid, few, recorded]) == (own, recorded)
    assert tuning.choose_pair([own, fluid, merlin, few]) == (own, fluid)
    assert tuning.choose_pair([own, merlin, tim]) == (merlin, tim)


def test_a_study_of_recordings_is_tuned_on_its_own_after_what_soundfonts_play():
    mine, fluid, tim, other = domain("mine"), domain("Fluid", "Fluid"), domain("Tim", "Tim"), domain("other")
    assert tuning.choose_pair([mine, fluid, tim, other]) == (fluid, mine)
    assert tuning.choose_pair([domain("mine", splits=()), fluid, tim, other]) == (fluid, other)


def test_without_two_sound_worlds_nothing_is_tuned_and_that_is_said(tmp_path):
    worlds = [domain("mine"), domain("other"), domain("Tim", "Tim"), domain("rendered", "Tim", splits=())]
    assert tuning.choose_pair(worlds[:2]) is None
    found = tuning.study(tmp_path, worlds[:2], {}, SHORT, seeds=(0,), n_resamples=50, root=tmp_path)
    assert found is tuning.NOTHING and nested(found.scores) == {}
    assert tuning_sentences(found) == [found.about] and "was not tried" in found.about


def test_a_study_holds_what_was_pretrained_beside_scratch_probes_and_trivial_answers(small, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "available", lambda: [])
    clips = rendered.load(tmp_path / "clips", clips_per_class=12, classes=("trumpet", "cello", "organ"), workers=1)
    store = build_store(clips, FeatureConfig(n_mels=32, hop_length=1024), root=tmp_path / "features", workers=1)
    splits = tuple(save_splits([make_split(store.clips, seed=0)], tmp_path / "splits"))
    pretrained = train_model(tmp_path / "pretrained", small.store.folder, small.split_path, TINY, SHORT, 0)
    heard = SimpleNamespace(name="own", label="Own", fonts=frozenset({"Tim"}), splits=(small.split_path,))
    there = SimpleNamespace(name="there", label="There", fonts=frozenset(), splits=splits, store=store, corpus=clips)
    outcomes = {"own": SimpleNamespace(folders=[[pretrained]])}
    given = {"seeds": (0, 1), "n_resamples": 50, "root": tmp_path, "workers": 1}
    found = tuning.study(tmp_path / "tuned", [heard, there], outcomes, SHORT, **given)
    assert found.about == "Pretrained on Own, tuned on There."
    assert found.described.index.to_list() == [SCRATCH, *RECIPES, CHOSEN]
    kinds = pd.Series(found.kinds)
    assert kinds[kinds == "probe"].index.to_list() == [PROBE] and "majority class" in kinds[kinds == "trivial"]
    arrays = tuning.figure_arrays(found)
    assert set(arrays["names"]) == set(kinds.index) and arrays["reference"] == SCRATCH
    assert np.isfinite(arrays["scores"]).all()
    told = tuning_sentences(found)
    assert len(told) == 2 and told[0].startswith("Pretraining on Own ")


def tuned(difference: float, p: float) -> tuning.Tuning:
    names = [CHOSEN, SCRATCH, PROBE]
    scores = pd.DataFrame({"model": names, "score": "accuracy", "estimate": [0.6, 0.4, 0.61], "low": 0.3, "high": 0.7})
    index = pd.MultiIndex.from_tuples([(CHOSEN, SCRATCH), (CHOSEN, PROBE)], names=["first", "second"])
    rows = [
        {"difference": value, "low": value - 0.05, "high": value + 0.05, "p": least, "p_holm": least}
        for value, least in ((difference, p), (-0.01, 0.9))
    ]
    return tuning.Tuning("rendered", "recordings", pd.DataFrame(), scores, pd.DataFrame(rows, index), {})


@pytest.mark.parametrize(
    ("difference", "p", "verdict"),
    [(0.2, 0.01, "helps"), (-0.2, 0.01, "does harm"), (0.2, 0.06, "is not shown to help")],
)
def test_pretraining_helps_only_where_it_is_shown_to(difference, p, verdict):
    said = tuning_sentences(tuned(difference, p))[0]
    assert said.startswith(f"Pretraining on rendered {verdict}: fine-tuned the network reaches 0.600 [0.300, 0.700]")
    assert f"{difference:+.3f}" in said and f"p = {p:.3f}" in said


def test_rivals_are_named_with_what_is_shown():
    assert "not shown to differ from “probe” (0.610" in tuning_sentences(tuned(0.2, 0.01))[1]
