"""A result is made again when something that decides it has changed, and only then."""

import functools
import shutil
import subprocess

import numpy as np
import pytest

from instrlib.core import cache
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.io import StoreError
from instrlib.data import rendered, store
from instrlib.models import train

MODULE = """
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
CHANGES = {
    "comment": ("# in dB", "# in decibels", False),
    "docstring": ("Return the level.", "Return how loud it is.", False),
    "message": ("is negative", "is below 0", False),
    "docstring of a constant": ("Of the module", "Of this module", False),
    "progress": ('"levels"', '"loudness"', False),
    "layout": ("\n\ndef", "\n\n\n\ndef", False),
    "number": ("x < 0", "x < 1", True),
    "a number that a message names": ("scale = 2", "scale = 3", True),
    "call": ("parallel_map(f,", "parallel_map(g,", True),
    "kind of error": ("ConfigError", "AudioError", True),
    "condition": ("if x < 0", "while x < 0", True),
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a package with one module in each layer."""
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


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_code_but_not_of_wording_changes_the_keys_of_its_layer_and_those_above(package, change):
    before = {layer: cache.key(layer) for layer in cache.LAYERS}
    old, new, counts = CHANGES[change]
    alter(package / "data" / "module.py", old, new)
    changed = [layer for layer in cache.LAYERS if cache.key(layer) != before[layer]]
    assert changed == (list(cache.LAYERS[cache.LAYERS.index("data") :]) if counts else [])


def test_a_module_that_is_renamed_counts(package):
    before = cache.key("core")
    (package / "core" / "module.py").rename(package / "core" / "another.py")
    assert cache.key("core") != before


def test_the_hash_of_a_text_is_the_same_in_every_version_of_python():
    text = MODULE + "type_ = f'{level(1):.2f} dB'\nx: int = b'1'\nasync def g(*a, b=1, **c):\n    yield 1j, ..., None\n"
    assert cache.source_hash(text) == "3c67cda12d39c917ea54b8c36635622ae49586dceab2d9dc4fc942e86db9b077"


def test_a_version_and_an_input_change_the_key_but_not_packages_that_only_show(monkeypatch):
    before = cache.key("audio", settings=FeatureConfig(), seed=0)
    assert cache.key("audio", seed=0, settings=FeatureConfig(segment_s=3)) == before
    assert cache.key("audio", seed=1, settings=FeatureConfig()) != before
    found = cache.versions()
    for name in ("python", "numpy", "keras-tuner", "pandas", "numba"):
        monkeypatch.setattr(cache, "versions", lambda name=name: found | {name: "0"})
        assert cache.key("audio", seed=0, settings=FeatureConfig()) != before
    assert not {"papermill", "gradio", "typst", "pytest", "ruff", "jupyterlab"} & set(found)


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
    with pytest.raises(ZeroDivisionError):
        cache.cached(tmp_path / name, "third", lambda: 1 / 0)
    assert sizes("other") == [before + 1, before + 1], "what cannot be made leaves the old result"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_commit_is_that_of_the_packages_own_clone(tmp_path, monkeypatch):
    commit = cache.commit.__wrapped__
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

    def remade():
        found = []
        for name, call in makers.items():
            try:
                call()
            except (MadeAgain, StoreError):  # networks are not trained on features of other code
                found.append(name)
        return found

    library = shutil.copytree(cache.PACKAGE, tmp_path / "library", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "PACKAGE", library)
    monkeypatch.setattr(cache, "_package_hash", functools.cache(cache._package_hash.__wrapped__))
    place, (clips, features) = shutil.copytree(small.split_path.parent, tmp_path / "small"), (small.clips, small.store)
    variant = train.Variant("small", "small", TrainConfig(epochs=1), place / "features" / features.folder.name)
    makers = {
        "clips": lambda: rendered.load(place / "rendered", classes=clips.classes, clips_per_class=24, workers=1),
        "features": lambda: store.build_store(clips, features.config, root=place / "features", workers=1),
        "networks": lambda: train.train_model(place / "network", variant, place / "split.json", 0),
    }
    makers["networks"]()
    for module, name in ((rendered, "_render_batch"), (store, "_fill"), (train, "fit")):
        monkeypatch.setattr(module, name, make)
    assert not remade()
    if change == "numpy":
        found = cache.versions()
        monkeypatch.setattr(cache, "versions", lambda: found | {"numpy": "0"})
    else:
        alter(library / REMADE[change][0], *REMADE[change][1:])
    cache._package_hash.cache_clear()
    same = {"a message": [], "a docstring": [], "training": ["networks"]}
    assert remade() == same.get(change, list(makers))
