"""pyproject.toml, environment.yml and requirements.lock name the same packages, each with its reason."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

CONDA_NAMES = {"jupyter_client": "jupyter-client", "matplotlib-base": "matplotlib"}
CONDA_NAMES |= {"pysoundfile": "soundfile", "soxr-python": "soxr"}
CONDA_ALONE = {"python", "pip", "pyaudio"}


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def direct(project):
    listed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return {requirement.name: requirement.specifier for requirement in map(Requirement, listed)}


def test_environment_yml_lists_the_direct_dependencies_with_the_same_ranges(repository, direct):
    entries = yaml.safe_load((repository / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    both = [*(entry for entry in entries if isinstance(entry, str)), *(entry for entry in pip if entry != "-e .")]
    found = {CONDA_NAMES.get(r.name, r.name): r.specifier for r in map(Requirement, both) if r.name not in CONDA_ALONE}
    assert found == direct
    for name, pattern in {"pyproject.toml": r'^  "[\w-]+[<>=].*', "environment.yml": r"^ +- [\w-]+[<>=].*"}.items():
        lines = re.findall(pattern, (repository / name).read_text(), re.M)
        assert len(lines) > 30 and all(re.search(r"# .{10,}", line) for line in lines), "each says why it is there"


def test_lock_pins_every_direct_dependency_with_hashes_and_no_address_and_is_installed(repository, project, direct):
    text = (repository / "requirements.lock").read_text()
    locked = [(name, Version(version)) for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)]
    for name, wanted in direct.items():
        pinned = [version for locked_name, version in locked if locked_name == name]
        assert pinned and all(version in wanted for version in pinned), name
    compared = {Requirement(text).name for text in project["optional-dependencies"]["bench"]}
    assert compared == {"torch"} and not compared & {name for name, _ in locked}
    for one in (text, (repository / "requirements-sdist.lock").read_text()):
        pins = re.split(r"^(?=[\w.-]+==)", one, flags=re.M)[1:]
        assert pins and all("--hash=sha256:" in pin for pin in pins)
        assert "://" not in one and "--index" not in one and "--find-links" not in one
    installed = {one.name: Version(one.version) for one in distributions()}
    wrong = {name for name, _ in locked if name in installed and (name, installed[name]) not in locked}
    assert not wrong, "delete .venv/.ready and run make again"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("instrlib.runner.cli", "tensorflow librosa sklearn matplotlib papermill pandas scipy joblib"),
        ("instrlib.evaluation.calibration", "tensorflow pandas scipy"),
        ("instrlib.studies.condition", "tensorflow keras sklearn pandas librosa"),
        ("instrlib.data.corpora", "tensorflow mirdata librosa sklearn"),
        ("instrlib.charts", "tensorflow keras librosa sklearn soundfile"),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module, heavy):
    code = f"import {module}, sys; print(*set({heavy!r}.split()) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
