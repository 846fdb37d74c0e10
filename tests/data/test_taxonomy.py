"""Common names: every class of a corpus has one, and a match is never narrower than the class."""

import pandas as pd
import pytest

from instrlib.core.io import ConfigError
from instrlib.data import corpora, irmas, nsynth, rendered, taxonomy
from instrlib.data.taxonomy import FAMILIES, common_classes, common_name

OPENMIC = (
    *("accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar", "mallet_percussion"),
    *("mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet", "ukulele", "violin", "voice"),
)
CLASSES = {
    "rendered": rendered.CLASSES,
    "irmas": irmas.INSTRUMENTS,
    "openmic2018": OPENMIC,
    "kaggle_instruments": ("drums", "guitar", "piano", "violin"),
}


def test_every_class_of_a_corpus_has_a_common_name():
    for corpus, classes in CLASSES.items():
        assert common_classes(corpus, corpus) == {label: label for label in sorted(classes)}


def test_the_table_names_its_corpora_families_and_wider_instruments(test_data):
    table = taxonomy._TABLE
    instruments = table[table.level == "instrument"]
    assert {*table.columns[5:], "folder"} == set(corpora.NAMES)
    assert set(nsynth.FAMILIES) < set(FAMILIES) == set(instruments.family)
    assert set(instruments.broader) - {""} <= set(instruments.name)
    assert not table.duplicated(["name", "level"]).any()
    labels = set(pd.read_csv(test_data / "fsdkaggle2018_meta" / "train_post_competition.csv").label)
    named = {label for label in labels if common_name("fsdkaggle2018", label)}
    assert (len(labels), len(named)) == (41, 19) and set(common_classes("fsdkaggle2018", "fsdkaggle2018")) == named
    assert named.isdisjoint({"Applause", "Computer_keyboard", "Finger_snapping", "Squeak"})


def test_an_instrument_maps_to_the_narrowest_class_that_contains_it():
    assert common_name("folder", "Double-Bass") == "double bass"
    assert common_classes("rendered", "openmic2018")["acoustic_guitar"] == "guitar"
    assert common_classes("fsdkaggle2018", "openmic2018")["Glockenspiel"] == "mallet_percussion"
    of_nsynth = common_classes("rendered", "nsynth")
    assert of_nsynth["cello"] == "string" and of_nsynth["electric_guitar"] == "guitar" and "drums" not in of_nsynth
    assert common_classes("nsynth", "rendered") == {}
    chosen = {"classes_a": ("violin", "cello", "flute"), "classes_b": ("Cello", "Flute")}
    assert list(common_classes("rendered", "fsdkaggle2018", **chosen)) == ["cello", "flute"]
    assert common_classes("folder", "irmas", classes_a=("Violoncello", "dogs")) == {"Violoncello": "cel"}
    with pytest.raises(ConfigError, match="folder"):
        common_classes("irmas", "folder")


def test_a_class_of_a_folder_is_known_by_its_spelling():
    spelled = {"Acoustic Guitar": "acoustic guitar", "Violin_or_fiddle": "violin", "Sax": "saxophone"}
    spelled |= {"drum_kit": "drums", "Hi-hat": "hi hat", "string": None, "my dog": None, "": None}
    assert {label: common_name("folder", label) for label in spelled} == spelled
