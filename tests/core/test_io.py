"""Files are whole or not there, and a disk that refuses gets one sentence."""

import errno
import signal
import subprocess
import sys

import numpy as np
import pytest

from instrlib.core.errors import DiskError, InstrlibError
from instrlib.core.io import (
    atomic_path,
    disk_errors,
    hash_json,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
    write_text,
)


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "numbers.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="on the way"), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise ValueError("on the way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "numbers.txt"
    write_text(path, "old")
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom instrlib.core.io import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_disk_without_room_says_so_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "big.npz"
    write_arrays(path, x=np.arange(3))
    code = (
        "import sys, signal, resource\nimport numpy as np\nfrom pathlib import Path\n"
        "from instrlib.core.io import write_arrays\nfrom instrlib.core.errors import DiskError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    write_arrays(Path(sys.argv[1]), x=np.random.default_rng(0).random(10_000))\n"
        "except DiskError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"Cannot write {path}: the file grew over the size")
    assert read_arrays(path)["x"].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "no permission")],
)
def test_each_refusal_of_the_disk_becomes_one_sentence_with_the_way_out(tmp_path, number, words):
    with pytest.raises(DiskError, match=rf"Cannot write .*{words}.*again\.$"), disk_errors(tmp_path / "x"):
        raise OSError(number, "refused")


def test_another_error_of_the_system_is_not_taken_for_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "x"):
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises((DiskError, FileExistsError)):
        write_text(tmp_path / "a" / "b.txt", "")


def test_arrays_come_back_as_they_were_and_objects_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, numbers=np.eye(2), words=["cello", "Violoncelle à piston"], one=3.5)
    back = read_arrays(path)
    np.testing.assert_array_equal(back["numbers"], np.eye(2))
    assert back["words"].tolist() == ["cello", "Violoncelle à piston"]
    assert float(back["one"]) == 3.5
    with pytest.raises(TypeError, match="objects are not stored: x"):
        write_arrays(path, x=[{"a": 1}])


def test_a_pickle_is_never_loaded(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InstrlibError, match="not readable as arrays"):
        read_arrays(path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_a_broken_json_names_the_file_and_the_way_out(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(InstrlibError, match=r"m\.json is not readable as JSON .*; delete it"):
        read_json(path)


def test_json_takes_numpy_values_and_hashes_do_not_depend_on_order(tmp_path):
    write_json(tmp_path / "m.json", {"a": np.float32(0.5), "b": np.arange(2), "c": [np.float64("nan")]})
    assert read_json(tmp_path / "m.json") == {"a": 0.5, "b": [0, 1], "c": [None]}
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1}) != hash_json({"a": 2, "b": 1})
