"""Files are whole or not there, and a disk that refuses gets one sentence."""

import errno
import os
import platform
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from instrlib.core import io


def in_new_process(path, *lines):
    imports = "import os, resource, signal, sys; import numpy as np; from pathlib import Path"
    code = [imports, "from instrlib.core.io import *; path = Path(sys.argv[1])", *lines]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(code), str(path)], capture_output=True, text=True, check=False
    )


def test_a_failure_a_kill_or_a_disk_without_room_leaves_the_old_file(tmp_path):
    path = tmp_path / "numbers.npz"
    io.write_arrays(path, x=np.arange(3))
    with pytest.raises(ZeroDivisionError), io.atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        assert 1 / 0
    writes = "    write_arrays(path, x=np.random.default_rng(0).random(10_000))"
    limit = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    full = in_new_process(path, limit, "try:", writes, "except DiskError as error:", "    print(error)")
    assert str(path) in full.stdout and list(tmp_path.iterdir()) == [path]
    killing = "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    assert in_new_process(path, "with atomic_path(path) as temporary:", killing).returncode == -signal.SIGKILL
    assert io.read_arrays(path)["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOENT])
def test_what_the_disk_refuses_names_the_path_and_other_errors_stay(tmp_path, number):
    expected = FileNotFoundError if number == errno.ENOENT else io.DiskError
    with pytest.raises(expected, match=str(tmp_path / "x")), io.disk_errors(tmp_path / "x"):
        raise OSError(number, "refused", str(tmp_path / "x"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        io.write_text(tmp_path / "text", "a")
        io.write_arrays(tmp_path / "arrays.npz", x=1)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("text", "arrays.npz")] == [mode, mode]


def test_arrays_come_back_as_they_were_and_objects_are_neither_written_nor_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    io.write_arrays(path, numbers=np.eye(2), words=["cello", "Violoncelle à piston"], one=3.5)
    back = io.read_arrays(path)
    np.testing.assert_array_equal(back["numbers"], np.eye(2))
    assert back["words"].tolist() == ["cello", "Violoncelle à piston"] and float(back["one"]) == 3.5
    with pytest.raises(ValueError, match="Object arrays"):
        io.write_arrays(path, x=[{"a": 1}])
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(io.InstrlibError, match=path.name):
        io.read_arrays(path)


def test_json_takes_numpy_values_hashes_do_not_depend_on_order_and_a_broken_file_is_named(tmp_path):
    path = tmp_path / "m.json"
    io.write_json(path, {"a": np.float32(0.5), "b": np.arange(2), "c": [np.float64("nan")]})
    assert io.read_json(path) == {"a": 0.5, "b": [0, 1], "c": [None]}
    for content in (b"{", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(io.InstrlibError, match=r"m\.json"):
            io.read_json(path)
    assert io.hash_json({"a": 1, "b": 2}) == io.hash_json({"b": 2, "a": 1}) != io.hash_json({"a": 2, "b": 1})


def test_files_count_by_name_size_and_time_but_not_hidden_or_partial_ones(tmp_path):
    clip = tmp_path / "piano" / "a.wav"
    clip.parent.mkdir()
    clip.write_bytes(b"1")
    seen = [io.hash_tree(tmp_path)]
    for name in (".cache/x", "archive.zip.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    assert seen == [io.hash_tree(tmp_path)]
    for change in (
        lambda: os.utime(clip, ns=(0, 0)),
        lambda: (clip.write_bytes(b"22"), os.utime(clip, ns=(0, 0))),
        lambda: clip.rename(clip.with_name("b.wav")),
        lambda: (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav"),
    ):
        change()
        seen.append(io.hash_tree(tmp_path))
    assert len({*seen, io.hash_tree(tmp_path / "nowhere")}) == 6
    if platform.system() == "Linux":  # other systems allow only UTF-8 in names
        (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"1")
        assert io.hash_tree(tmp_path) not in seen
