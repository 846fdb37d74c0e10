"""Kaggle's instruments: the published layout with its errors, groups read from file names, what else may be wrong."""

import shutil

import pandas as pd
import pytest
from trees import KAGGLE_TEST, KAGGLE_TRAIN, make_kaggle_instruments

from instrlib.core.config import get_profile
from instrlib.core.errors import ConfigError, CorpusError
from instrlib.data import corpora, kaggle_instruments
from instrlib.data.kaggle_instruments import CLASSES, CONTRADICTION, GROUP_IN_TEST, group_of, load, validate
from instrlib.data.splits import make_split

TRAIN = "Train_submission/Train_submission"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_kaggle_instruments(tmp_path_factory.mktemp("kaggle") / "set", duration_s=0.2)


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def edit(root, table, change):
    change(pd.read_csv(root / table)).to_csv(root / table, index=False)


def labels(corpus):
    return corpus.manifest.set_index("clip_id").label


def test_the_four_classes_are_read_and_the_publishers_parts_are_kept(whole):
    corpus = load(whole)
    assert corpus.classes == CLASSES == ("drums", "guitar", "piano", "violin")
    assert corpus.manifest.split.value_counts()["test"] == sum(map(len, KAGGLE_TEST.values()))
    assert (corpus.manifest.split == corpus.manifest.clip_id.str.partition("/")[0]).all()
    clip = corpus.manifest.set_index("clip_id").loc["train/AR_Lick1_FN"]
    assert (clip.path, clip.label, clip.group) == (f"{TRAIN}/AR_Lick1_FN.wav", "guitar", "guitar-ar")
    assert validate(whole) == []


def test_files_that_the_table_names_as_drums_and_as_violin_are_drums(whole):
    table = pd.read_csv(whole / "Metadata_Train.csv")
    twice = table.FileName[table.FileName.duplicated()]
    assert len(twice) == len(KAGGLE_TRAIN["Sound_Drum"])
    of_drums = labels(load(whole))[[f"train/{name}" for name in ("RealDrum01_00MIX", "african-98600")]]
    assert of_drums.tolist() == ["drums", "drums"]


def test_violins_that_no_table_names_are_known_by_their_file_names(whole):
    manifest = load(whole).manifest
    found = manifest[(manifest.label == "violin") & (manifest.split == "train")]
    assert set(found.named_by) == {"file name"}
    assert len(found) == len(KAGGLE_TRAIN["Sound_Violin"]) - 1, "the viola of the test part stands in training too"
    assert set(manifest.named_by[manifest.label != "violin"]) == {"table"}


def test_the_misspelt_guitar_is_a_guitar(whole):
    assert "Sound_Guiatr" in (whole / "Metadata_Test.csv").read_text()
    assert labels(load(whole))["test/guitar-solo-27194"] == "guitar"


def test_a_corrected_table_gives_the_same_corpus(root, whole):
    def corrected(table):
        table = table[table.Class != "Sound_Violin"]
        violins = [f"{stem}.wav" for stem in KAGGLE_TRAIN["Sound_Violin"]]
        return pd.concat([table, pd.DataFrame({"FileName": violins, "Class": "Sound_Violin"})])

    edit(root, "Metadata_Train.csv", corrected)
    assert load(root).fingerprint == load(whole).fingerprint
    assert set(load(root).manifest.named_by) == {"table"}


@pytest.mark.parametrize(
    "names",
    [
        ("ROOM_room6_MUS_mozart_DEV_lg", "ROOM-room6-MUS-beethoven1", "ROOM_room6_MUS_joplin"),
        ("WaveDrum02_39KD (1)", "WaveDrum02_43HH (133)", "WaveDrum02_45SD (2)"),
        ("RealDrum01_00HHtrain", "RealDrum01_13MIX"),
        ("AR_Lick11_FN", "AR_A_fret_0-20", "AR_NH_IX"),
        ("G53-40100-1111-00079", "G53-76612-1111-312"),
        ("rock_2_115BPM", "slow_rock_2_100BPM", "rock_2_100BPM"),
        ("1-E1-Major 00", "1-E1-Major 10"),
        ("Vn-ord-F5-pp-1c", "Vn-ord-G6-ff-1cR"),
        ("11_emil-telmanyi_bwv1003", "1_emil-telmanyi_bwv1005", "0_emil-telmanyi_bwv1002_mov3"),
        ("violin_sound (255)", "VIOLIN_SOUND (140)", "Violin_Sound (6)", "violin_sounds (19)"),
        ("DRUM_SOUND (1)", "DRUM_SOUND (75)"),
        ("140-bpm-amen-break-original-processed-6945 (1)", "140-bpm-amen-break-original-processed-6945"),
        ("muvibeat8_130bpm-14338", "muvibeat3_130bpm-14333"),
        ("on-rd-piano-loop-1-89745", "on-rd-piano-loop-2-106459"),
    ],
)
def test_names_that_differ_in_take_device_or_number_are_one_group(names):
    assert len({group_of(f"{name}.wav") for name in names}) == 1
    assert group_of(names[0]) == group_of(f"{names[0]}.WAV")


@pytest.mark.parametrize(
    "names",
    [
        ("ROOM_room6_MUS_mozart_DEV_lg", "ROOM_room7_MUS_mozart_DEV_lg"),
        ("RealDrum01_00MIX", "TechnoDrum01_00MIX", "WaveDrum02_39KD (1)"),
        ("AR_Lick11_FN", "FS_Lick11_FN", "LP_Lick11_FN"),
        ("rock_2_115BPM", "rock_3_115BPM", "jazz_2_170BPM", "rock-drum-loop-85371"),
        ("Vn-ord-F5-pp-1c", "Va-ord-F5-pp-1c"),
        ("11_emil-telmanyi_bwv1003", "11_silei-li_bwv1003"),
        ("do-80236", "si-80238", "808-d3-38858", "04-47367", "2018-11-15-22563"),
    ],
)
def test_other_players_rooms_and_pieces_are_other_groups(names):
    assert len({group_of(name) for name in names}) == len(names)


def test_no_group_stands_on_both_sides_and_what_reaches_into_the_test_part_is_left_out(whole):
    corpus = load(whole)
    groups = corpus.manifest.groupby("split").group.agg(set)
    assert groups["train"].isdisjoint(groups["test"])
    left_out = set(corpus.problems.clip_id[corpus.problems.reason == GROUP_IN_TEST])
    assert left_out == {
        *(f"train/ROOM_room6_MUS_{piece}_DEV_{device}" for piece in ("bartok", "mozart") for device in ("ipad", "lg")),
        *("train/hip-hop-drum-loop-23-75663", "train/rock_1_115BPM", "train/slow_rock_1_100BPM"),
        "train/Va-ord-C5-mf-2c",
    }
    parts = make_split(corpus.manifest, seed=0).parts
    assert set(parts) == {"train", "validation", "test"}
    assert corpus.manifest.groupby("group").clip_id.apply(lambda ids: parts[ids].nunique()).max() == 1


def test_copies_of_one_sound_share_a_group_whatever_they_are_called(root):
    folder = root / TRAIN
    shutil.copy(folder / "AR_Lick1_FN.wav", folder / "folk_2_100BPM.wav")
    shutil.copy(folder / "african-98600.wav", root / "Test_submission/Test_submission/world-drum-beat-76217.wav")
    corpus = load(root)
    groups = corpus.manifest.set_index("clip_id").group
    assert groups["train/folk_2_100BPM"] == groups["train/AR_Lick2_MN"]
    assert corpus.problems.set_index("clip_id").reason["train/african-98600"] == GROUP_IN_TEST


def test_one_sound_under_two_classes_is_left_out(root):
    shutil.copy(root / TRAIN / "african-98600.wav", root / TRAIN / "toy-piano-27311.wav")
    reasons = load(root).problems.set_index("clip_id").reason
    assert reasons[["train/african-98600", "train/toy-piano-27311"]].tolist() == [CONTRADICTION] * 2


def test_a_file_that_is_named_under_two_other_classes_is_left_out_and_validation_says_so(root):
    more = pd.DataFrame({"FileName": ["toy-piano-27311.wav"], "Class": ["Sound_Drum"]})
    edit(root, "Metadata_Train.csv", lambda table: pd.concat([table, more]))
    reason = "Metadata_Train.csv names it under drums and piano"
    assert load(root).problems.set_index("clip_id").reason["train/toy-piano-27311"].endswith(reason)
    assert validate(root) == [f"{TRAIN}/toy-piano-27311.wav: {reason}"]


def test_folders_that_were_unpacked_flat_are_read_too(whole, tmp_path):
    flat = make_kaggle_instruments(tmp_path / "flat", duration_s=0.2, nested=False)
    corpus = load(flat)
    assert set(corpus.manifest.path.str.rpartition("/")[0]) == {"Train_submission", "Test_submission"}
    assert corpus.manifest.content.tolist() == load(whole).manifest.content.tolist()


@pytest.mark.parametrize("column", ["FileName", "Class"])
def test_a_missing_column_is_named_with_its_file(root, column):
    edit(root, "Metadata_Test.csv", lambda table: table.drop(columns=column))
    with pytest.raises(CorpusError, match=rf"Metadata_Test\.csv lacks the column {column}; it has: "):
        load(root)
    assert "lacks the column" in validate(root)[0]


def test_a_class_outside_the_list_is_named(root):
    edit(root, "Metadata_Train.csv", lambda table: table.replace("Sound_Guitar", "Sound_Lute"))
    with pytest.raises(
        CorpusError, match=r"Metadata_Train\.csv: class outside the list: Sound_Lute; there is: Sound_Drum"
    ):
        load(root)


def test_missing_unreadable_and_unknown_files_are_named(root):
    (root / TRAIN / "folk_2_100BPM.wav").unlink()
    (root / TRAIN / "jazz_1_160BPM.wav").write_text("no sound")
    (root / TRAIN / "kazoo.wav").write_bytes(b"")
    missing, broken, stranger = validate(root)
    assert missing.startswith(f"{TRAIN}/folk_2_100BPM.wav: the file is missing")
    assert broken.startswith(f"{TRAIN}/jazz_1_160BPM.wav: ")
    assert stranger == f"{TRAIN}/kazoo.wav: Metadata_Train.csv does not name this file."
    unusable = load(root).problems.clip_id.tolist()[:2]
    assert unusable == ["train/folk_2_100BPM", "train/jazz_1_160BPM"]


def test_a_part_without_its_folder_is_not_used(root):
    shutil.rmtree(root / "Test_submission")
    assert set(load(root).manifest.split) == {""}
    assert validate(root) == ["Metadata_Test.csv is there, but not Test_submission: this part is not used."]


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_set_tells_step_by_step_how_to_get_it(tmp_path, there):
    root = tmp_path / "none"
    if there:
        root.mkdir()
    with pytest.raises(
        CorpusError, match=r"Kaggle wants a login: open https://www\.kaggle\.com/datasets/soumendraprasad"
    ):
        load(root)
    with pytest.raises(
        ConfigError, match=r"does not fetch kaggle_instruments\. Kaggle wants a login.*Metadata_Train\.csv"
    ):
        corpora.download("kaggle_instruments", root)
    assert not hasattr(kaggle_instruments, "download")


def test_a_class_without_a_usable_clip_is_named(root):
    for path in root.glob("*/*/*[vV]*"):
        if path.stem in (*KAGGLE_TRAIN["Sound_Violin"], *KAGGLE_TEST["Sound_Violin"]):
            path.unlink()
    with pytest.raises(CorpusError, match="no usable clip of violin"):
        load(root)


def test_it_loads_by_its_name_at_the_size_of_a_profile(whole):
    corpus = corpora.load("kaggle_instruments", data=whole, profile=get_profile("smoke"), classes=["violin", "drums"])
    assert corpus.classes == ("drums", "violin")
    assert corpus.manifest.label.value_counts().to_dict() == {"drums": 12, "violin": 12}
    make_split(corpus.manifest, seed=0)
    with pytest.raises(ConfigError, match="Unknown class kazoo"):
        load(whole, classes=["violin", "kazoo"])
