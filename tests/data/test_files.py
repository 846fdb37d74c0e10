"""Downloads from a server that breaks off, refuses and changes; archives whose members are outside of their folder."""

import hashlib
import http.server
import io
import pathlib
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from trees import serving

from instrlib.core.io import CorpusError
from instrlib.data import files
from instrlib.data.files import Remote, fetch, unpack

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server of CONTENT; a test chooses what it does, and `starts` are the bytes that were asked for."""
    monkeypatch.setattr(files, "_WAIT_S", 0.0)
    state = SimpleNamespace(content=CONTENT, etag="", knows_ranges=True, tells_length=True, starts=[])
    state.break_after, state.statuses = [], []  # bytes of the next bodies; the next answers, which have no body

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            state.starts.append(asked and int(asked.removeprefix("bytes=").rstrip("-")))
            same = self.headers.get("If-Range", state.etag) == state.etag
            start = state.starts[-1] if asked and state.knows_ranges and same else 0
            status = state.statuses.pop(0) if state.statuses else 206 if start else 200
            if start >= len(state.content):
                status = 416
            body = state.content[start:] if status < 300 else b""
            self.send_response(status)
            if state.etag:
                self.send_header("ETag", state.etag)
            if state.tells_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

        def log_message(self, *args):
            pass

    with serving(Handler) as address:
        state.remote = Remote(f"{address}/archive.zip?download=1", "archive.zip", f"md5:{MD5}")
        yield state


@pytest.mark.parametrize(("breaks", "left"), [([1_200_000, 700_000], 0), ([], 2_000_000), ([], len(CONTENT))])
def test_what_broken_connections_and_killed_runs_left_is_resumed_and_a_whole_file_kept(server, tmp_path, breaks, left):
    server.etag, server.break_after = '"one"', [*breaks]
    if left:
        (tmp_path / "archive.zip.part").write_bytes(CONTENT[:left])
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    starts = [*server.starts]
    assert starts == [left] if left else starts[0] is None and 0 < starts[1] <= 1_200_000 < starts[2] <= 1_900_000
    fetch(replace(server.remote, checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"), tmp_path)
    assert len(server.starts) == len(starts) and [entry.name for entry in tmp_path.iterdir()] == ["archive.zip"]


def test_a_file_that_has_changed_is_fetched_from_its_beginning(server, tmp_path):
    server.etag, server.content, server.break_after = '"old"', CONTENT[::-1], [1_200_000, *[0] * 5]
    with pytest.raises(CorpusError, match="Cannot fetch"):
        fetch(server.remote, tmp_path)
    assert (tmp_path / "archive.zip.part").stat().st_size > 0
    server.etag, server.content, server.break_after = '"new"', CONTENT, []
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    assert server.starts[-1] > 0, "the rest was asked for, and If-Range gave the whole"


@pytest.mark.parametrize(("setting", "breaks"), [("knows_ranges", [0, 0, 1_500_000]), ("tells_length", [])])
def test_servers_without_ranges_or_lengths_serve_too(server, tmp_path, setting, breaks):
    vars(server).update({setting: False, "break_after": breaks, "statuses": [503, 429]})
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_given_up_and_the_part_kept(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT[:1000])
    server.statuses = [503] * 50
    with pytest.raises(CorpusError, match=r"503.*1,000 bytes"):
        fetch(server.remote, tmp_path)
    assert len(server.starts) == 5
    server.statuses = [404]
    with pytest.raises(CorpusError, match=r"404 Not Found for http://127\.0\.0\.1"):
        fetch(server.remote, tmp_path)
    assert len(server.starts) == 6
    assert (tmp_path / "archive.zip.part").read_bytes() == CONTENT[:1000]


def test_a_wrong_checksum_names_both_hashes_and_removes_only_what_was_fetched(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(CorpusError, match=f"{hashlib.md5(server.content).hexdigest()}, not {MD5}"):
        fetch(server.remote, tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "archive.zip").write_bytes(b"half of it")  # put there by the user
    with pytest.raises(CorpusError, match=MD5):
        fetch(server.remote, tmp_path)
    assert (tmp_path / "archive.zip").read_bytes() == b"half of it"


def pack(path, members):
    """Write an archive of the format of its suffix, from contents by name."""
    with zipfile.ZipFile(path, "w") if path.suffix == ".zip" else tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            if path.suffix == ".zip":
                archive.writestr(name, content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_an_archive_becomes_a_folder_of_the_given_name(tmp_path, name):
    archive = pack(tmp_path / name, {"one/1 é.wav": b"one", "one/sub/2.wav": b"two", "x.txt": b"new"})
    (tmp_path / ".unpacking-one" / "half").mkdir(parents=True)  # left by a killed run
    unpack(archive, tmp_path / "one")
    assert (tmp_path / "one" / "1 é.wav").read_bytes() == b"one" and not (tmp_path / "one" / "half").exists()
    unpack(archive, tmp_path / "named")
    assert (tmp_path / "named" / "one" / "sub" / "2.wav").read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["named", "one", name])


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("archive", ["a.zip", "a.tgz"])
def test_a_member_with_a_path_outside_writes_nothing_there(tmp_path, archive, name):
    target = tmp_path / "in" / "target"
    with suppress(CorpusError):
        unpack(pack(tmp_path / archive, {"good.txt": b"good", name: b"evil"}), target)
    assert [entry for entry in tmp_path.rglob("*evil*") if target not in entry.parents] == []
    assert not pathlib.Path("/tmp/evil.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_to_the_outside_and_devices_in_a_tar_are_errors(tmp_path, kind):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(CorpusError, match="link"):
        unpack(tmp_path / "a.tar", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_is_an_error_and_leaves_nothing(tmp_path, name):
    path = pack(tmp_path / name, {"x.bin": CONTENT[:50_000], "y.bin": CONTENT[50_000:90_000]})
    for damaged in (path.read_bytes()[: path.stat().st_size // 2], b"<html>not found</html>", b""):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=name):
            unpack(path, tmp_path / "target")
        assert [path.name for path in tmp_path.iterdir()] == [name]
