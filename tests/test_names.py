"""Names across corpora: one table, every class in it once, and counterparts that are never narrower than the class."""

import pandas as pd
import pytest

from instrlib.core.errors import ConfigError
from instrlib.data import corpora, irmas, kaggle_instruments, names, nsynth, rendered
from instrlib.data.names import common_classes, common_name, family, table

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
        ("nsynth", nsynth.FAMILIES),
        ("kaggle_instruments", kaggle_instruments.CLASSES),
    ],
)
def test_every_class_of_a_corpus_of_instruments_has_a_name_and_the_table_has_no_other(corpus, classes):
    assert sorted(table().query("corpus == @corpus").label) == sorted(classes)
    assert all(common_name(corpus, label) for label in classes)


def test_of_the_41_classes_of_fsdkaggle2018_the_instruments_have_names_and_the_others_none(test_data):
    labels = set(pd.read_csv(test_data / "fsdkaggle2018_meta" / "train_post_competition.csv").label)
    named = set(table().query("corpus == 'fsdkaggle2018'").label)
    assert len(labels) == 41 and named <= labels
    assert {common_name("fsdkaggle2018", label) for label in labels - named} == {None}
    assert labels - named == {
        *("Applause", "Bark", "Burping_or_eructation", "Bus", "Computer_keyboard", "Cough", "Drawer_open_or_close"),
        *("Fart", "Finger_snapping", "Fireworks", "Gunshot_or_gunfire", "Keys_jangling", "Knock", "Laughter", "Meow"),
        *("Microwave_oven", "Scissors", "Shatter", "Squeak", "Tearing", "Telephone", "Writing"),
    }


def test_there_is_a_table_for_every_corpus_but_a_folder_of_ones_own():
    assert set(table().corpus) | {"folder"} == set(corpora.NAMES)


def test_no_two_classes_of_a_corpus_have_one_name():
    assert not table().duplicated(["corpus", "label"]).any()
    assert not table().duplicated(["corpus", "name", "level"]).any()


def test_every_name_belongs_to_a_family_that_the_module_describes():
    assert set(table().query("level == 'instrument'").name) <= set(names.INSTRUMENTS)
    assert set(table().query("level == 'family'").name) <= set(names.FAMILIES)
    assert set(table().family) <= set(names.FAMILIES)
    assert all(f"\n`{name}`" in names.__doc__ for name in names.FAMILIES)
    assert all(family(name) in names.FAMILIES for name in names.INSTRUMENTS)
    assert set(nsynth.FAMILIES) | {"percussion"} == set(names.FAMILIES)


def test_the_same_instrument_is_found_whatever_a_corpus_calls_it():
    found = table().query("name == 'violin'").set_index("corpus").label
    assert found.to_dict() == {
        "rendered": "violin",
        "fsdkaggle2018": "Violin_or_fiddle",
        "irmas": "vio",
        "openmic2018": "violin",
        "kaggle_instruments": "violin",
    }
    assert common_classes("rendered", "irmas", classes_a=("voice", "acoustic_guitar")) == {
        "voice": "voi",
        "acoustic_guitar": "gac",
    }


def test_an_instrument_belongs_to_the_narrowest_class_that_holds_it():
    assert common_classes("rendered", "openmic2018")["acoustic_guitar"] == "guitar"
    assert common_classes("openmic2018", "nsynth")["banjo"] == "guitar"
    assert common_classes("fsdkaggle2018", "openmic2018")["Glockenspiel"] == "mallet_percussion"
    assert common_classes("rendered", "nsynth") == {
        "acoustic_guitar": "guitar",
        "cello": "string",
        "clarinet": "reed",
        "electric_guitar": "guitar",
        "flute": "flute",
        "organ": "organ",
        "piano": "keyboard",
        "saxophone": "reed",
        "trumpet": "brass",
        "violin": "string",
        "voice": "vocal",
    }


def test_a_class_never_belongs_to_a_narrower_one():
    assert common_classes("nsynth", "rendered") == {}
    assert "guitar" not in common_classes("kaggle_instruments", "rendered")
    assert common_classes("nsynth", "openmic2018") == {"bass": "bass", "mallet": "mallet_percussion"}


def test_every_corpus_agrees_with_itself():
    for corpus in set(table().corpus):
        labels = table().query("corpus == @corpus").label
        assert common_classes(corpus, corpus) == {label: label for label in labels}


def test_a_part_of_a_corpuss_classes_may_be_asked_for_in_its_order():
    chosen = common_classes(
        "rendered", "fsdkaggle2018", classes_a=("violin", "cello", "flute"), classes_b=("Cello", "Flute")
    )
    assert list(chosen.items()) == [("cello", "Cello"), ("flute", "Flute")]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("cello", "cello"),
        ("Acoustic Guitar", "acoustic guitar"),
        ("double-bass", "double bass"),
        ("Violin_or_fiddle", "violin"),
        ("Sax", "saxophone"),
        ("drum_kit", "drums"),
        ("Hi-hat", "hi hat"),
        ("my dog", None),
        ("", None),
    ],
)
def test_class_folders_are_known_by_their_names(folder, name):
    assert common_name("folder", folder) == name


def test_a_folder_of_ones_own_is_compared_by_the_classes_that_it_has():
    assert common_classes("folder", "irmas", classes_a=("Violoncello", "dogs")) == {"Violoncello": "cel"}
    with pytest.raises(ConfigError, match="classes of the corpus 'folder' are not known beforehand; name them"):
        common_classes("irmas", "folder")


def test_a_corpus_without_a_table_is_known_by_the_names_of_its_classes():
    assert common_name("players", "Cello") == "cello" and common_name("players", "my dog") is None
    assert common_classes("players", "irmas", classes_a=("cello", "dogs")) == {"cello": "cel"}
    assert common_classes("irmas", "players", classes_a=("cel", "flu"), classes_b=("cello",)) == {"cel": "cello"}
    with pytest.raises(ConfigError, match="classes of the corpus 'players' are not known beforehand; name them"):
        common_classes("irmas", "players")


def test_an_unknown_instrument_is_refused():
    with pytest.raises(ConfigError, match="Unknown instrument 'kazoo'; there is: accordion, "):
        family("kazoo")
