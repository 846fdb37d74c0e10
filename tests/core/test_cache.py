"""A result is made again when something that decides it has changed, and only then."""

import functools
import json
import shutil
import subprocess

import numpy as np
import pytest

from instrlib.core import cache
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import ConfigError, StoreError
from instrlib.data import rendered, store
from instrlib.models import train

MODULE = """
'''Words.'''

HINT = "go on"
'''Of the module.'''

def level(x):
    '''Return the level.'''
    if x < 0:
        raise ConfigError(f"{x} is negative; {HINT}.")
    scale = 2
    if x > 9:
        raise ConfigError(f"{x * scale} is large.")
    x *= scale
    return list(parallel_map(f, x, describe="levels"))  # in dB
"""
SAME = {
    "comment": ("# in dB", "# in decibels"),
    "docstring": ("Return the level.", "Return how loud it is."),
    "module docstring": ("Words.", "Other words."),
    "message": ("is negative", "is below 0"),
    "docstring of a constant": ("Of the module", "Of this module"),
    "progress": ('"levels"', '"loudness"'),
    "layout": ("\n\ndef", "\n\n\n\ndef"),
}
OTHER = {
    "number": ("x < 0", "x < 1"),
    "a number that a message names": ("scale = 2", "scale = 3"),
    "call": ("parallel_map(f,", "parallel_map(g,"),
    "kind of error": ("ConfigError", "AudioError"),
    "condition": ("if x < 0", "while x < 0"),
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a package of two layers, of which `level` is the code of the lower; nothing is remembered of another."""
    for layer in cache.LAYERS:
        (tmp_path / layer).mkdir()
        (tmp_path / layer / "module.py").write_text(MODULE)
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    monkeypatch.setattr(cache, "_package_hash", cache._package_hash.__wrapped__)
    return tmp_path


def alter(path, old, new, count=-1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize("change", SAME)
def test_wording_changes_no_key(package, change):
    before = cache.key("audio")
    alter(package / "audio" / "module.py", *SAME[change])
    assert cache.key("audio") == before


@pytest.mark.parametrize("change", OTHER)
def test_a_change_of_code_changes_the_keys_of_its_floor_and_those_above(package, change):
    before = {layer: cache.key(layer) for layer in cache.LAYERS}
    alter(package / "data" / "module.py", *OTHER[change])
    changed = [layer for layer in cache.LAYERS if cache.key(layer) != before[layer]]
    assert changed == list(cache.LAYERS[cache.LAYERS.index("data") :])


def test_a_module_that_is_new_or_renamed_counts(package):
    keys = {cache.key("core")}
    (package / "core" / "other.py").write_text("x = 1")
    keys.add(cache.key("core"))
    (package / "core" / "other.py").rename(package / "core" / "another.py")
    keys.add(cache.key("core"))
    assert len(keys) == 3


def test_the_hash_of_a_text_is_the_same_in_every_version_of_python():
    text = MODULE + "type_ = f'{level(1):.2f} dB'\nx: int = b'1'\nasync def g(*a, b=1, **c):\n    yield 1j, ..., None\n"
    assert cache.source_hash(text) == "3c67cda12d39c917ea54b8c36635622ae49586dceab2d9dc4fc942e86db9b077"


def test_a_version_and_an_input_change_the_key(monkeypatch):
    before = cache.key("audio", settings=FeatureConfig(), seed=0)
    assert cache.key("audio", seed=0, settings=FeatureConfig(segment_s=3)) == before
    assert cache.key("audio", seed=1, settings=FeatureConfig()) != before
    found = cache.versions()
    for name in ("python", "numpy", "keras-tuner", "pandas", "numba"):
        monkeypatch.setattr(cache, "versions", lambda name=name: found | {name: "0"})
        assert cache.key("audio", seed=0, settings=FeatureConfig()) != before


def test_packages_that_only_show_do_not_count():
    assert not {"papermill", "gradio", "typst", "pytest", "ruff", "jupyterlab"} & set(cache.versions())


@pytest.mark.parametrize("name", ["a.npz", "a.json"])
def test_a_result_is_made_once_and_again_when_its_key_differs_or_its_file_is_damaged(tmp_path, name):
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(len(made))}

    def sizes(key):
        return [len(cache.cached(tmp_path / name, key, make)["x"]) for _ in range(2)]

    assert sizes("k") == [1, 1]
    assert sizes("other") == [2, 2]
    for damage in (b"", b"[1, 2]", b"{"):
        (tmp_path / name).write_bytes(damage)
        before = len(made)
        assert sizes("other") == [before + 1, before + 1]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_cannot_be_made_leaves_the_old_result(tmp_path):
    def fail():
        raise ConfigError("no.")

    assert cache.cached(tmp_path / "a.json", "k", lambda: 1) == 1
    with pytest.raises(ConfigError):
        cache.cached(tmp_path / "a.json", "other", fail)
    assert json.loads((tmp_path / "a.json").read_text()) == {"key": "k", "value": 1}


def test_the_commit_is_that_of_the_packages_own_clone(tmp_path, monkeypatch):
    def commit():
        return cache.commit.__wrapped__()

    package = tmp_path / "clone" / "instrlib"
    package.mkdir(parents=True)
    monkeypatch.setattr(cache, "PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit() == "unknown"
    for path in (package / "module.py", package.parent / "page.md"):
        path.write_text("1\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=package.parent, check=True)
    clean = commit()
    (package.parent / "page.md").write_text("2\n")
    assert len(clean) == 12 and commit() == clean
    (package / "module.py").write_text("2\n")
    assert commit() == clean + "+"

    inside = package.parent / ".venv" / "site-packages" / "instrlib"  # installed inside a foreign clone
    inside.mkdir(parents=True)
    monkeypatch.setattr(cache, "PACKAGE", inside)
    assert commit() == "unknown"


REMADE = {
    "log_mel": ("audio/features.py", "10 * np.log10(np.maximum(power", "5 * np.log10(np.maximum(power"),
    "a phrase": ("data/rendered/phrases.py", "rng.uniform(0.3, 3.2)", "rng.uniform(0.4, 3.2)"),
    "an effect": ("audio/effects.py", "ROOM_VOLUME_M3 = 200.0", "ROOM_VOLUME_M3 = 100.0"),
    "training": ("models/train.py", "config.learning_rate / 2**halvings", "config.learning_rate / 3**halvings"),
    "a message": ("core/config.py", "The mel bands must be", "The mel bands have to be"),
    "a docstring": ("data/rendered/phrases.py", '"""', '"""Or: ', 1),
}


@pytest.mark.parametrize("change", [*REMADE, "numpy"])
def test_features_clips_and_networks_are_made_again_when_what_makes_them_changes(change, small, tmp_path, monkeypatch):
    class MadeAgain(Exception):
        pass

    def make(*_arguments, **_settings):
        raise MadeAgain

    def remade(call):
        try:
            call()
        except (MadeAgain, StoreError):  # networks are not trained on features of other code
            return True
        return False

    library = shutil.copytree(cache.PACKAGE, tmp_path / "library", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "PACKAGE", library)
    monkeypatch.setattr(cache, "_package_hash", functools.cache(cache._package_hash.__wrapped__))
    place = shutil.copytree(small.store.folder.parents[1], tmp_path / "small")
    features = place / "features"
    variant = train.Variant("small", "small", TrainConfig(epochs=1), features / small.store.folder.name)
    network = (place / "network", variant, place / "split.json", 0)
    train.train_model(*network)
    for module, name in ((rendered, "_render_batch"), (store, "_fill"), (train, "fit")):
        monkeypatch.setattr(module, name, make)
    makers = {
        "clips": lambda: rendered.load(place / "rendered", classes=small.clips.classes, clips_per_class=24, workers=1),
        "features": lambda: store.build_store(small.clips, small.store.config, root=features, workers=1),
        "networks": lambda: train.train_model(*network),
    }
    assert not any(map(remade, makers.values()))
    if change == "numpy":
        found = cache.versions()
        monkeypatch.setattr(cache, "versions", lambda: found | {"numpy": "0"})
    else:
        alter(library / REMADE[change][0], *REMADE[change][1:])
    cache._package_hash.cache_clear()
    same = {"a message": [], "a docstring": [], "training": ["networks"]}
    assert [name for name, call in makers.items() if remade(call)] == same.get(change, list(makers))
