"""Data card and model card: made of results, right about them, and honest about what was not measured."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from instrlib.audio.effects import DEGRADATIONS
from instrlib.core.errors import RunError
from instrlib.core.io import read_json, write_arrays, write_json
from instrlib.data import corpora
from instrlib.deploy import release
from instrlib.models import published
from instrlib.reporting import cards
from instrlib.runner.publish import results_path

STUDY = "rendered-quick"
CLASSES = ("cello", "electric_guitar", "drums")
IDENTITY = "6fa91988"


def score(estimate, low=None, high=None):
    """An interval as results.json holds it."""
    return {"estimate": estimate, "low": low, "high": high}


def of_domain(domain, accuracy, n, n_groups):
    """The rows that notebook 13 writes of a domain."""
    rows = {
        "accuracy": score(accuracy, accuracy - 0.1, accuracy + 0.1),
        "confidence_gap": score(0.2, 0.1, 0.3),
        "refused": score(0.25, 0.2, 0.3),
        "most_frequent": score(0.125),
    }
    return [{"domain": domain, "score": name, "n": n, "n_groups": n_groups, **row} for name, row in rows.items()]


def losses(name, p_holm):
    """The rows that notebook 13 writes of a degradation, with such p at its levels, mild to severe."""
    return [
        {"degradation": name, "level": level, "difference": -0.1 * number, "low": -0.1 * number - 0.05,
         "high": -0.1 * number + 0.05, "p": p, "p_holm": p}
        for number, (level, p) in enumerate(zip(DEGRADATIONS[name].levels, p_holm, strict=True), 1)
    ]  # fmt: skip


def domain_shift(*domains):
    """What notebook 13 writes of a model."""
    return {
        "in_domains": [row for domain in ("held-out clips", *domains) for row in of_domain(domain, 0.5, 100, 20)],
        "curves": {"untouched": {"accuracy": score(0.61, 0.5, 0.7)}},
        "losses": [*losses("noise", (1, 1, 0.01, 0.01, 0.01)), *losses("mp3", (0.01, 1, 1, None))],
    }


def preprocessing(**changes):
    """What notebook 01 writes."""
    numbers = {
        "findings": ["A corpus.", "A split.", "A leak."],
        "n_clips": 1230, "n_groups": 33, "n_segments": 2000, "n_left_out": 0, "n_unusable": 0, "unusable": [],
        "parts": {"train": 600, "validation": 330, "test": 300},
    }  # fmt: skip
    return numbers | changes


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the results of a study, with the arrays of notebook 01."""

    def written(study=STUDY, *, corpus="rendered", data="", **notebooks):
        parameters = {"corpus": corpus, "data": data, "profile": "quick", "seeds": 3}
        manifest = {"parameters": parameters, "commit": "0123abc", "versions": {}}
        manifest |= {"inputs": {"corpus": "c0", "features": "f0", "split": "s0"}}
        entries = {name: {"metrics": metrics, "manifest": manifest} for name, metrics in notebooks.items()}
        place = tmp_path / "reports" / study
        write_json(place / "results.json", {"study": study, "notebooks": entries})
        sizes = {"classes": CLASSES, "n_clips": np.array([400, 410, 420]), "n_groups": np.array([4, 14, 15])}
        counts = np.array([[200, 200, 200], [100, 110, 120], [100, 100, 100]])
        write_arrays(place / "arrays/01_class_balance.npz", figure="class_balance", **sizes)
        dealt = {"classes": CLASSES, "parts": ("train", "validation", "test"), "counts": counts}
        write_arrays(place / "arrays/01_split_overview.npz", figure="split_overview", **dealt)
        lengths = {"duration_s": np.array([0.5, 29.5, 30.0]), "segment_s": 3.0}
        write_arrays(place / "arrays/01_duration_histogram.npz", figure="duration_histogram", **lengths)
        return place

    return written


def record(**changes):
    """What the model.json of a made-up model holds; `changes` are to what it says of itself."""
    by_class = {
        name: {"n": 50, "n_groups": n_groups, **dict.fromkeys(("recall", "precision", "f1"), ends)}
        for name, n_groups, ends in zip(
            CLASSES, (1, 2, 9), (score(0.3), score(0.4, 0.1, 0.7), score(1, 1, 1)), strict=True
        )
    }
    info = corpora.info("rendered")
    names = ("accuracy", "macro_f1", "top3_accuracy", "log_loss", "expected_calibration_error")
    about = {
        "study": STUDY, "id": IDENTITY, "published_at": "2026-11-21T17:00:00+00:00", "commit": "0123abc",
        "corpus": {name: getattr(info, name) for name in ("name", "title", "licence", "citation")},
        "notebook": "11_timeline", "network": "compact CNN", "seed": 1, "fold": 0, "n_folds": 1, "agreement": 0.99,
        "n_tested": 150, "n_groups": 12, "scores": dict.fromkeys(names, score(0.6, 0.5, 0.7)), "by_class": by_class,
        "refusals": {"right_lost": 0.03, "wrong_refused": None}, "noises": {"white noise": 0.0, "clicks": 0.5},
        "several": None, "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    }  # fmt: skip
    features = {"segment_s": 3.0, "fmax_hz": 11_025.0}
    single = {"temperature": 1.46}
    return published.sealed(
        {"classes": list(CLASSES), "features": features, "single": single, "several": None, "about": about | changes}
    )


@pytest.fixture
def given_away(write):
    """Return a function that writes results beside a made-up model, and gives the model's folder."""

    def written(*, about=None, **notebooks):
        folder = write(**notebooks) / "model"
        write_json(folder / "model.json", record(**(about or {})))
        (folder / "single.tflite").write_bytes(b"a network")
        return folder

    return written


def check_form(card):
    """Check what every card must be: no holes, and tables whose rows are as wide as their heads."""
    assert not re.search(r"\bnan\b|\bNone\b|Undefined|\n\n\n| \n", card)
    assert card.startswith("# ") and card.endswith("\n") and not card.endswith("\n\n")
    width = None
    for line in card.splitlines():
        cells = line.count("|") if line.startswith("|") else None
        assert width is None or cells is None or cells == width, line
        width = cells
    return card


# -- the data card -----------------------------------------------------------------------------------------------------


def test_the_counts_of_the_data_card_are_those_of_the_results(write):
    write(**{"01_preprocessing": preprocessing(), "02_baseline_cnn": {"n_tested": 300}})
    path = cards.write_data_card(STUDY)
    assert path.name == "DATA_CARD.md"
    card = check_form(path.read_text())
    for expected in (
        "| clips | 1,230, 1 minutes in all |", "| length of a clip | 0.5 to 30.0 s |", "| groups | 33 |",
        "| cello | 4 | 400 | 200 | 100 | 100 |", "| electric guitar | 14 | 410 | 200 | 110 | 100 |",
        "- A split.\n- A leak.\n", "Nothing: every clip could be used.", "300 clips are tested.",
        "- Cello: fewer than 10 groups.", "clips `c0`, features `f0`, split `s0`; commit 0123abc",
        "| TimGM6mb | GNU General Public License, version 2 |", "| Merlin | for personal, not for commercial use |",
    ):  # fmt: skip
        assert expected in card, expected
    assert "several splits" not in card


def test_what_could_not_be_used_is_counted_by_reason_and_several_splits_are_named(write):
    unusable = [{"clip_id": f"{n}", "path": f"{n}.wav", "reason": "is silent" if n else "is cut"} for n in range(3)]
    numbers = preprocessing(n_left_out=1207, n_unusable=3, unusable=unusable)
    write(corpus="fsdkaggle2018", data="sample", **{"01_preprocessing": numbers, "02_baseline_cnn": {"n_tested": 1230}})
    card = check_form(cards.write_data_card(STUDY).read_text())
    assert "On purpose, 1,207: " in card and "Unusable, 3:\n\n- 2: is silent\n- 1: is cut\n" in card
    assert "the first of several splits" in card and "1230 clips are tested" in card
    assert "| folder that was used | `sample` |" in card
    assert "| cite as | E. Fonseca" in card and "soundfont" not in card
    assert "This study has 1,230 of the 11,073 clips of FSDKaggle2018: " in card


@pytest.mark.parametrize("name", corpora.NAMES)
def test_every_corpus_has_words_of_its_own(name, write):
    write(corpus=name, **{"01_preprocessing": preprocessing()})
    card = check_form(cards.write_data_card(STUDY).read_text())
    info = corpora.info(name)
    for expected in (info.title, info.licence, info.how_to_get, "## Good for", "## Limits", "A group: "):
        assert expected in card
    assert ("several instruments, each of them named" in card) == info.multilabel


def test_a_study_of_a_whole_release_or_of_ones_own_recordings_is_not_called_a_part(write):
    write(corpus="irmas", **{"01_preprocessing": preprocessing(n_clips=9579)})
    assert "This study has" not in cards.write_data_card(STUDY).read_text()
    counted = {"01_preprocessing": {"metrics": {"n_clips": 3}}}
    assert cards.part_of_whole("irmas", counted).startswith("3 of ")
    assert cards.part_of_whole("folder", counted) == cards.part_of_whole("irmas", {}) == ""


def test_the_clips_of_a_part_of_a_release_are_listed_and_the_list_outlives_their_sound(write, small, monkeypatch):
    write(corpus="fsdkaggle2018", **{"01_preprocessing": preprocessing(n_clips=221)})
    path = results_path(STUDY)
    entries = read_json(path)
    entries["notebooks"]["01_preprocessing"]["manifest"]["keeps"] = [small.store.folder.name]
    write_json(path, entries)
    assert cards.write_clip_list(STUDY) is None
    assert cards.CLIP_LIST not in cards.write_data_card(STUDY).read_text()
    monkeypatch.setenv("INSTRLIB_DATA", str(small.store.folder.parent))
    listed = pd.read_csv(cards.write_clip_list(STUDY))
    known = small.store.clips.sort_values("clip_id")
    assert listed.columns.to_list() == ["clip_id", "label", "group"]
    assert (listed.to_numpy() == known[["clip_id", "label", "group"]].to_numpy()).all()
    assert f"]({cards.CLIP_LIST})" in check_form(cards.write_data_card(STUDY).read_text())
    monkeypatch.delenv("INSTRLIB_DATA")
    assert len(pd.read_csv(cards.write_clip_list(STUDY))) == len(listed)
    write(corpus="folder", **{"01_preprocessing": preprocessing(n_clips=221)})
    assert cards.write_clip_list(STUDY) is None


def test_of_a_corpus_that_somebody_added_it_is_said_that_nothing_more_is_known():
    assert cards.what_clips_are("players") and cards.what_clips_are("players") != cards.what_clips_are("folder")


def test_without_notebook_01_the_data_card_says_that_nothing_was_counted(write):
    place = write(**{"03_third": {}})
    for path in (place / "arrays").iterdir():
        path.unlink()
    card = check_form(cards.write_data_card(STUDY).read_text())
    assert "Notebook 01 has not been run" in card and "## Classes" not in card and "## What was left out" not in card


def test_a_study_without_results_is_named_with_the_way_out():
    for write_card in (cards.write_data_card, cards.write_model_card):
        with pytest.raises(RunError, match=r"none-quick/results\.json is missing; run `instrlib study`"):
            write_card("none-quick")


# -- the model card ----------------------------------------------------------------------------------------------------


def test_before_notebook_13_the_card_says_what_was_not_measured():
    card = check_form(release.model_card(record()))
    for expected in (
        "Not measured: notebook 13 has not been run with this model.", "one of 3 classes",
        "| TimGM6mb | GNU General", "| Merlin | for personal", "**All of it is synthesised**",
        "| accuracy | 0.60 [0.50, 0.70] |", "The thresholds withhold 3 % of its right answers on these clips.",
        "| cello | 50 | 1 | 0.30 | 0.30 | 0.30 |", "| drums | 50 | 9 | 1.00 [1.00, 1.00] |",
        "| electric guitar | 50 | 2 | 0.40 [0.10, 0.70] |", "refused 0 % of white noise, 50 % of clicks.",
    ):  # fmt: skip
        assert expected in card, expected


def test_after_notebook_13_the_card_tells_of_other_sounds_and_of_worse_recordings(given_away):
    shift = domain_shift("FluidR3_GM", "fsdkaggle2018", "folder mine")
    folder = given_away(**{"11_timeline": {"published": {"id": IDENTITY}}, "13_domain_shift": shift})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert cards.write_model_card(STUDY) == folder / "MODEL_CARD.md"
    card = check_form((folder / "MODEL_CARD.md").read_text())
    for expected in (
        "| its own corpus, held-out clips | 100 | 20 | 0.50 [0.40, 0.60] | 0.12 | +0.20 [+0.10, +0.30] | 25 % |",
        "| phrases played by FluidR3_GM, a soundfont that it has not heard, but by which its recipe was chosen (so "
        "this flatters) | 100",
        "| clips of FSDKaggle2018 | 100", "| folder mine | 100", "with an accuracy of 0.61 [0.50, 0.70]",
        "| pink noise | 20 dB SNR | 0 dB SNR | -0.50 [-0.55, -0.45] |",
        "| MP3 | not shown | 8 kbit/s | -0.40 [-0.45, -0.35] |",
    ):  # fmt: skip
        assert expected in card, expected
    assert "Not measured" not in card and "No recording of a real instrument" not in card
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name, _ in after.items() - before.items()} == {"MODEL_CARD.md"}, "the model is left as it is"


def test_without_recordings_the_card_says_that_real_instruments_were_not_heard(given_away):
    given_away(**{"11_timeline": {"published": {"id": IDENTITY}}, "13_domain_shift": domain_shift("FluidR3_GM")})
    assert "No recording of a real instrument was at hand" in check_form(cards.write_model_card(STUDY).read_text())


def test_results_of_another_model_are_not_told_of_this_one(given_away):
    given_away(**{"11_timeline": {"published": {"id": "another"}}, "13_domain_shift": domain_shift("FluidR3_GM")})
    assert "Not measured: notebook 13 has not been run with this model." in cards.write_model_card(STUDY).read_text()


def test_a_model_of_conditions_is_told_of_with_its_scores(given_away):
    folder = given_away(**{"11_timeline": {}})
    assert "| `condition.json` | may be there" in cards.write_model_card(STUDY).read_text()
    known = {"about": "The labels are simulated.", "n_tested": 414, "scores": {"accuracy": score(0.62, 0.58, 0.66)}}
    known |= {"recall": {"healthy": 0.45, "aged": 0.69, "broken": 0.71}}
    write_json(folder / "condition.json", published.sealed(known))
    card = check_form(cards.write_model_card(STUDY).read_text())
    assert "right for 0.62 [0.58, 0.66] of 414 clips (recall: healthy 45 %, aged 69 %, broken 71 %)." in card
    assert "The labels are simulated." in card and "may be there" not in card


def test_a_model_of_an_older_version_gets_a_card_too(given_away):
    folder = given_away(**{"11_timeline": {}})
    older = json.loads((folder / "model.json").read_text())
    del older["about"]["by_class"], older["about"]["noises"]
    write_json(folder / "model.json", published.sealed(older))
    assert "did not keep scores by class" in check_form(cards.write_model_card(STUDY).read_text())


def test_another_number_makes_another_card():
    changed = record(scores=record()["about"]["scores"] | {"accuracy": score(0.123, 0.1, 0.2)})
    assert "| accuracy | 0.12 [0.10, 0.20] |" in release.model_card(changed) != release.model_card(record())


def test_a_model_of_recordings_is_cited_and_not_called_synthesised():
    info = corpora.info("fsdkaggle2018")
    corpus = {name: getattr(info, name) for name in ("name", "title", "licence", "citation")}
    card = check_form(release.model_card(record(corpus=corpus)))
    assert f"Cite as: {info.citation}" in card and info.licence in card
    assert "synthesised" not in card and "soundfont" not in card


def test_the_card_of_a_model_of_a_part_of_a_release_says_so(given_away):
    info = corpora.info("fsdkaggle2018")
    corpus = {name: getattr(info, name) for name in ("name", "title", "licence", "citation")}
    folder = given_away(about={"corpus": corpus}, **{"01_preprocessing": preprocessing(n_clips=221)})
    before = (folder / "model.json").read_bytes()
    assert cards.write_model_card(STUDY) == folder / "MODEL_CARD.md"
    card = check_form((folder / "MODEL_CARD.md").read_text())
    assert "\n221 of the 11,073 clips of FSDKaggle2018. Licence: " in card
    assert (folder / "model.json").read_bytes() == before


def test_without_a_model_there_is_no_model_card_and_an_altered_one_is_refused(write, given_away):
    write(**{"11_timeline": {}})
    assert cards.write_model_card(STUDY) is None
    folder = given_away(**{"11_timeline": {}})
    (folder / "model.json").write_text((folder / "model.json").read_text().replace('"compact CNN"', '"better CNN"'))
    with pytest.raises(RunError, match="missing, cut or altered"):
        cards.write_model_card(STUDY)
