"""Settings check themselves, and what they are called decides nothing but what it says."""

import dataclasses

import pytest

from instrlib.core.config import AugmentConfig, FeatureConfig, TrainConfig, folders, study_name
from instrlib.core.io import ConfigError, expanded


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (FeatureConfig, {"kind": "chroma"}),
        (FeatureConfig, {"segment_s": "3"}),
        (FeatureConfig, {"segment_s": float("nan")}),
        (FeatureConfig, {"n_mels": 64.5}),
        (FeatureConfig, {"hop_length": -1}),
        (FeatureConfig, {"fmax_hz": 12_000.0}),
        (FeatureConfig, {"kind": "mfcc", "n_mfcc": 65}),
        (AugmentConfig, {"mix": "cut"}),
        (AugmentConfig, {"beta": 0}),
        (AugmentConfig, {"share": 1.5}),
        (AugmentConfig, {"n_sources": (2, 1)}),
        (AugmentConfig, {"level_range_db": float("inf")}),
        (TrainConfig, {"schedule": "step"}),
        (TrainConfig, {"augment": AugmentConfig(mix="mixtures"), "output": "softmax"}),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind, values):
    with pytest.raises(ConfigError, match="|".join(values)):
        kind(**values)


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="n_melz"):
        FeatureConfig.from_dict({"n_melz": 1})


def test_fingerprint_and_shape_are_those_of_the_stored_values():
    base = FeatureConfig(sample_rate_hz=16_000, segment_s=2.0, hop_length=512, fmax_hz=8_000.0)
    assert FeatureConfig.from_dict(base.to_dict()) == base
    assert base.segment_samples == 32_000 and base.shape == (64, 63), "centred frames"
    same = dataclasses.replace(base, segment_s=2), dataclasses.replace(base, scaling="fixed")
    changed = [dataclasses.replace(base, **{name: value}) for name, value in {"n_mels": 32, "top_db": 60.0}.items()]
    assert {one.fingerprint for one in same} == {base.fingerprint}
    assert len({one.fingerprint for one in (base, *changed)}) == 3
    assert dataclasses.replace(base, kind="mfcc").shape == (20, 63)


def test_an_own_folder_names_its_study(tmp_path):
    assert study_name("rendered", "quick", "/data/x") == "rendered-quick"
    assert study_name("folder", "quick", str(tmp_path / "Ännes Flöten/")) == "folder-ännes-flöten-quick"
    assert study_name("folder", "quick") == "folder-quick"


def test_the_root_moves_all_folders_and_a_variable_one(tmp_path, monkeypatch):
    for name in ("DATA", "RUNS", "REPORTS", "FIGURES"):
        monkeypatch.delenv(f"INSTRLIB_{name}")
    monkeypatch.setenv("INSTRLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("INSTRLIB_DATA", "/elsewhere")
    found = {name: str(path) for name, path in vars(folders()).items()}
    assert found.pop("data") == "/elsewhere"
    assert found == {name: str(tmp_path / name) for name in ("runs", "reports", "figures", "notebooks")}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INSTRLIB_DATA", "~/sounds")
    assert folders().data == tmp_path / "sounds"
    monkeypatch.setenv("INSTRLIB_DATA", "~no-such-user-here/sounds")
    with pytest.raises(ConfigError, match="no-such-user"):
        folders()
    with pytest.raises(ConfigError, match="sounds/mine"):
        expanded("sounds/mine", "PLACE")
