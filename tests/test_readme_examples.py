"""The README's examples in Python are run as they stand there, and give what it says."""

import ast
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import tone, write_audio

import instrlib.data
from instrlib.core.config import get_profile
from instrlib.core.io import write_json
from instrlib.data import corpora, splits
from instrlib.data.taxonomy import common_classes
from instrlib.models import training
from instrlib.reporting import cards
from instrlib.reporting.summary import open_study

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
LONGEST = 20


def run(code: str, names: dict[str, Any]) -> Any:
    """Run a block, and return what its last line gives, as a notebook would show it."""
    *statements, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        statements.append(last)
    exec(compile(ast.Module(statements, []), "README.md", "exec"), names)
    return eval(compile(ast.Expression(last.value), "README.md", "eval"), names) if isinstance(last, ast.Expr) else None


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> dict[str, Any]:
    """Run the first three blocks in a new place; return their names, and what the second and the third show."""
    place, names = tmp_path_factory.mktemp("examples"), {"__name__": "readme"}
    with pytest.MonkeyPatch.context() as moved:
        for folder in ("data", "runs", "reports", "figures"):
            moved.setenv(f"INSTRLIB_{folder.upper()}", str(place / folder))
        moved.setenv("INSTRLIB_WORKERS", "1")  # other tests have the second core
        common, model, augmentation, _ = BLOCKS
        run(common, names)
        return names | {"of_model": run(model, names), "of_augmentation": run(augmentation, names)}


@pytest.fixture
def players(tmp_path, monkeypatch):
    """Save the last block where the README says, and name it there; return the folder of its recordings."""
    module = "instrlib.data.players"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "players.py").write_text(BLOCKS[-1])
    monkeypatch.setattr(instrlib.data, "__path__", [*instrlib.data.__path__, str(tmp_path / "modules")])
    monkeypatch.setattr(corpora, "NAMES", (*corpora.NAMES, "players"))
    for timbre, label in enumerate(("cello", "flute")):
        for player in ("Ann", "Bo", "Cem", "Dana Ó"):
            for number in range(3):
                write_audio(tmp_path / "takes" / player / f"{label} {number}.wav", tone(timbre, number, 1.0))
    yield tmp_path / "takes"
    sys.modules.pop(module, None)
    vars(instrlib.data).pop("players", None)


def test_there_is_one_example_each_and_none_is_long():
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line]) <= LONGEST


@pytest.mark.slow
@pytest.mark.parametrize(("what", "name"), [("of_model", "two layers"), ("of_augmentation", "with tremolo")])
def test_a_model_and_an_augmentation_are_compared_with_the_usual_network(shown, what, name):
    table = shown[what]
    assert list(table.index) == [name]
    assert {"difference", "low", "high", "p"} <= set(table)
    row = table.loc[name]
    assert -1 <= row.low <= row.difference <= row.high <= 1


@pytest.mark.slow
def test_the_new_model_has_the_layers_of_its_table_and_the_scores_of_the_classes(shown):
    kernels = (7 * 7 * 1 * 32, 3 * 3 * 32 * 64)  # batch normalisation takes the place of the biases
    norms = (4 * 32, 4 * 64)
    scores = (64 + 1) * len(shown["clips"].classes)
    (folder,) = shown["place"].glob("two-layers/fold-0/seed-1")
    assert training.summary(folder)["parameters"] == sum(kernels) + sum(norms) + scores


@pytest.mark.slow
def test_the_augmentation_changes_every_segment_by_what_its_name_says(shown):
    copies, features = shown["copies"], shown["features"]
    assert copies.segments["copy"].eq(1).all() and len(copies.segments) == len(features.segments)
    assert (np.abs(copies.features[:].astype(float) - features.features[:]) > 1).any(axis=(1, 2)).all()
    settings = {"sample_rate_hz": 22_050, "clip_id": "one", "offset_s": 0.0}
    (level,) = shown["Tremolo"]().copies(np.ones(22_050, np.float32), **settings)
    assert 20 * np.log10(level.max() / level.min()) == pytest.approx(2 * 6, abs=0.01)


def test_settings_for_spectrograms_make_a_variant_as_it_says():
    (setting,) = re.findall(r"`(replace\(profile\.experiment, .*?\))`", TEXT)
    names: dict[str, Any] = {"profile": get_profile("smoke")}
    exec("from dataclasses import replace\nfrom instrlib.core.config import AugmentConfig", names)
    assert run(setting, names).augment.mix == "mixup"


def test_a_new_corpus_is_loaded_by_its_name(players):
    corpus = corpora.load("players", data=players, profile=get_profile("smoke"))
    assert corpus.classes == ("cello", "flute") and len(corpus.manifest) == 24
    assert set(corpus.manifest.group) == {"Ann", "Bo", "Cem", "Dana Ó"}
    assert corpora.info("players").name == "players"
    assert corpora.on_disk("players", players).startswith("24 audio files")


def test_in_a_new_corpus_no_player_crosses_a_split(players):
    corpus = corpora.load("players", data=players, profile=get_profile("smoke"))
    parts = splits.make_split(corpus.manifest, seed=0).parts
    by_player = corpus.manifest.clip_id.map(parts).groupby(corpus.manifest.group)
    assert by_player.nunique().eq(1).all() and by_player.first().nunique() == 3


def test_a_new_corpus_draws_its_classes_and_names_what_is_broken(players):
    assert corpora.validate("players", players) == []
    (players / "Ann" / "flute 0.wav").write_bytes(b"no sound")
    (finding,) = corpora.validate("players", players)
    assert finding.startswith("Ann/flute 0.wav")
    (players / "Bo" / "oboe 1.wav").write_bytes((players / "Bo" / "cello 1.wav").read_bytes())
    (players / "Bo" / "oboe 2.wav").write_bytes((players / "Bo" / "cello 2.wav").read_bytes())
    chosen = corpora.load("players", data=players, profile=get_profile("smoke"), classes=("cello", "oboe"))
    assert chosen.classes == ("cello", "oboe") and len(chosen.manifest) == 14


def test_a_new_corpus_is_compared_by_the_names_of_its_classes_and_has_a_data_card(players, tmp_path):
    shared = common_classes("players", "irmas", classes_a=("cello", "flute"))
    assert shared == {"cello": "cel", "flute": "flu"}
    parameters = {"corpus": "players", "data": "takes", "profile": "smoke", "seeds": 1}
    corpus = {"title": corpora.info("players").title}
    entry = {"manifest": {"parameters": parameters, "corpus": corpus, "inputs": {}}}
    results = {"study": "players-smoke", "notebooks": {"01_preprocessing": entry}}
    write_json(tmp_path / "reports" / "players-smoke" / "results.json", results)
    card = cards.data_card(open_study("players-smoke"))
    assert card.startswith("# Data card: By player\n") and "column `group`" in card
