"""What decides whether a result is still the one that the code and the files would give."""

import os
import platform
import subprocess

import numpy
import pytest

from instrlib.core import provenance
from instrlib.core.provenance import code_fingerprint, code_hashes, tree_fingerprint, used_modules

MODULES = {
    "__init__": "",
    "a": "from kit.b import f\n\ndef g():\n    from kit import lazy\n    return f() + lazy.h()\n",
    "b": "import numpy\nimport kit.sub.deep as deep\n\ndef f():\n    return deep.x\n",
    "lazy": "def h():\n    return 1\n",
    "named": "",
    "unrelated": "x = 1\n",
    "sub/__init__": "from . import near\n",
    "sub/near": "from .. import up\n",
    "sub/deep": "x = 1\n",
    "up": "",
}


@pytest.fixture
def package(tmp_path):
    """Return a package in which modules import each other in every way there is."""
    folder = tmp_path / "kit"
    for name, text in MODULES.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_modules_are_followed_through_imports_of_every_form(package):
    expected = ["kit", "kit.a", "kit.b", "kit.lazy", "kit.sub", "kit.sub.deep", "kit.sub.near", "kit.up"]
    assert used_modules(["from kit.a import g"], package=package) == expected
    assert used_modules(["import kit.lazy, os"], package=package) == ["kit", "kit.lazy"]
    assert used_modules(["from kit import lazy, named as n"], package=package) == ["kit", "kit.lazy", "kit.named"]
    assert used_modules(["importlib.import_module('kit.named')"], package=package) == ["kit", "kit.named"]
    assert used_modules(["import kitchen\nx = 'see kit.named'"], package=package) == []


def test_what_is_imported_for_type_hints_alone_does_not_count(package):
    text = "if TYPE_CHECKING:\n    from kit import lazy\nif x:\n    import kit.named"
    assert used_modules([text], package=package) == ["kit", "kit.named"]


def test_magic_lines_do_not_hide_imports(package):
    assert used_modules(["%matplotlib inline\n!ls\nfrom kit import lazy"], package=package) == ["kit", "kit.lazy"]


@pytest.mark.parametrize("name", ["a", "b", "lazy", "sub/__init__", "sub/near", "sub/deep", "up"])
def test_a_change_in_a_module_that_is_used_changes_the_fingerprint(package, name):
    before = code_fingerprint(["from kit.a import g"], package=package)
    (package / f"{name}.py").write_text(MODULES[name] + "y = 2\n")
    assert code_fingerprint(["from kit.a import g"], package=package) != before
    changed = code_hashes(["from kit.a import g"], package=package)
    (package / f"{name}.py").write_text(MODULES[name])
    old = code_hashes(["from kit.a import g"], package=package)
    module = f"kit.{name}".replace("/", ".").removesuffix(".__init__")
    assert {key for key in old if old[key] != changed[key]} == {module}


def test_an_unrelated_module_comments_docstrings_and_layout_do_not_count(package):
    before = code_fingerprint(["from kit.a import g\ng( )"], package=package)
    (package / "unrelated.py").write_text("x = 2\n")
    (package / "lazy.py").write_text('"""Words."""\n\n\ndef h():\n    """More words."""\n    return 1  # one\n')
    assert code_fingerprint(["from kit.a import g\n\ng()  # call"], package=package) == before
    assert code_fingerprint(["from kit.a import g\ng(1)"], package=package) != before


def test_a_text_that_is_not_python_counts_as_it_stands(package):
    assert code_fingerprint(["%time x = 1"], package=package) != code_fingerprint(["%time x = 2"], package=package)


def test_files_count_by_name_size_and_time_but_not_hidden_or_partial_ones(tmp_path):
    clip = tmp_path / "piano" / "a.wav"
    clip.parent.mkdir()
    clip.write_bytes(b"1")
    seen = {tree_fingerprint(tmp_path)}
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_bytes(b"1")
    (tmp_path / "archive.zip.part").write_bytes(b"1")
    assert {tree_fingerprint(tmp_path)} == seen

    os.utime(clip, ns=(0, 0))
    seen.add(tree_fingerprint(tmp_path))
    clip.write_bytes(b"22")
    os.utime(clip, ns=(0, 0))
    seen.add(tree_fingerprint(tmp_path))
    clip.rename(clip.with_name("b.wav"))
    seen.add(tree_fingerprint(tmp_path))
    seen.add(tree_fingerprint(tmp_path / "nowhere"))
    assert len(seen) == 5


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems allow only UTF-8 in names")
def test_a_name_that_is_not_utf8_and_a_dangling_link_do_no_harm(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"1")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert len(tree_fingerprint(tmp_path)) == 64


def test_versions_name_python_and_the_packages_that_are_there(monkeypatch):
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == numpy.__version__
    monkeypatch.setattr(provenance, "VERSIONED", ("numpy", "no-such-package"))
    assert list(provenance.versions.__wrapped__()) == ["python", "numpy"]


def test_the_commit_is_that_of_the_clone_and_empty_elsewhere(tmp_path, monkeypatch, repository):
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=False, cwd=repository, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("the tests do not lie in a clone")
    assert provenance.commit().rstrip("+") == head.stdout[:12]
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == ""


def test_a_plus_says_that_the_package_differs_from_the_commit_and_nothing_else_does(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "package")
    module, page = tmp_path / "package" / "module.py", tmp_path / "page.md"
    for path in (module, page):
        path.write_text("1\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = provenance.commit()
    page.write_text("2\n")
    assert len(clean) == 12 and provenance.commit() == clean
    module.write_text("2\n")
    assert provenance.commit() == clean + "+"
