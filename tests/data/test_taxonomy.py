"""Common names: every class of a corpus has one, and counterparts are never narrower than the class."""

import pandas as pd
import pytest

from instrlib.core.io import ConfigError
from instrlib.data import corpora, irmas, kaggle_instruments, nsynth, rendered, taxonomy
from instrlib.data.taxonomy import FAMILIES, INSTRUMENTS, common_classes, common_name

OPENMIC = (
    *("accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar", "mallet_percussion"),
    *("mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet", "ukulele", "violin", "voice"),
)


@pytest.mark.parametrize(
    ("corpus", "classes"),
    [
        ("rendered", rendered.CLASSES),
        ("irmas", irmas.INSTRUMENTS),
        ("openmic2018", OPENMIC),
        ("kaggle_instruments", kaggle_instruments.CLASSES),
    ],
)
def test_every_class_of_a_corpus_of_instruments_has_a_name_and_the_table_no_other(corpus, classes):
    assert sorted(taxonomy._MEANINGS[corpus]) == sorted(classes)
    assert all(common_name(corpus, label) for label in classes)
    assert common_classes(corpus, corpus) == {label: label for label in sorted(classes)}


def test_of_the_41_classes_of_fsdkaggle2018_19_are_instruments(test_data):
    labels = set(pd.read_csv(test_data / "fsdkaggle2018_meta" / "train_post_competition.csv").label)
    named = {label for label in labels if common_name("fsdkaggle2018", label)}
    assert (len(labels), len(named)) == (41, 19)
    assert set(taxonomy._MEANINGS["fsdkaggle2018"]) == named
    assert {"Violin_or_fiddle", "Hi-hat", "Gong"} < named
    assert named.isdisjoint({"Applause", "Computer_keyboard", "Finger_snapping", "Squeak"})


def test_the_table_is_whole():
    assert set(taxonomy._CORPORA) | {"folder"} == set(corpora.NAMES)
    assert set(nsynth.FAMILIES) < set(FAMILIES)
    assert len(set(INSTRUMENTS)) == len(INSTRUMENTS)
    assert set(taxonomy._INSTRUMENT.family) == set(FAMILIES)
    assert set(taxonomy._INSTRUMENT.broader) - {""} <= set(INSTRUMENTS)
    assert not taxonomy._TABLE.duplicated(["name", "level"]).any()


def test_an_instrument_belongs_to_the_narrowest_class_that_holds_it_and_never_to_a_narrower_one():
    assert common_classes("rendered", "openmic2018")["acoustic_guitar"] == "guitar"
    assert common_classes("fsdkaggle2018", "openmic2018")["Glockenspiel"] == "mallet_percussion"
    of_nsynth = common_classes("rendered", "nsynth")
    assert of_nsynth["cello"] == "string" and of_nsynth["electric_guitar"] == "guitar" and "drums" not in of_nsynth
    assert common_classes("nsynth", "rendered") == {}
    assert "guitar" not in common_classes("kaggle_instruments", "rendered")
    assert common_classes("nsynth", "openmic2018") == {"bass": "bass", "mallet": "mallet_percussion"}


def test_classes_may_be_chosen_and_keep_their_order():
    chosen = {"classes_a": ("violin", "cello", "flute"), "classes_b": ("Cello", "Flute")}
    assert list(common_classes("rendered", "fsdkaggle2018", **chosen).items()) == [
        ("cello", "Cello"),
        ("flute", "Flute"),
    ]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Acoustic Guitar", "acoustic guitar"),
        ("Violin_or_fiddle", "violin"),
        ("Sax", "saxophone"),
        ("drum_kit", "drums"),
        ("Hi-hat", "hi hat"),
        ("string", None),
        ("my dog", None),
        ("", None),
    ],
)
def test_a_corpus_outside_the_table_is_known_by_the_names_of_its_classes(folder, name):
    assert common_name("folder", folder) == name


def test_the_classes_of_a_corpus_outside_the_table_must_be_given():
    assert common_classes("folder", "irmas", classes_a=("Violoncello", "dogs")) == {"Violoncello": "cel"}
    with pytest.raises(ConfigError, match="folder"):
        common_classes("irmas", "folder")
