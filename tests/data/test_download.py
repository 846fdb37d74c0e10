"""Downloads against a server on this machine that breaks off, refuses and changes; archives that try to climb out."""

import contextlib
import hashlib
import http.server
import io
import pathlib
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from instrlib.core.io import CorpusError
from instrlib.data import download
from instrlib.data.download import Remote, fetch, unpack

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    break_after: list[int] = field(default_factory=list)
    """For each coming request: close the connection after so many bytes of the body."""
    statuses: list[int] = field(default_factory=list)
    """For each coming request: answer with this status and nothing else."""
    knows_ranges: bool = True
    tells_length: bool = True
    etag: str = ""
    ranges: list[str | None] = field(default_factory=list)

    @property
    def remote(self) -> Remote:
        return Remote(self.url, "archive.zip", f"md5:{MD5}")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_WAIT_S", 0.0)
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            if state.statuses:
                self.send_response(state.statuses.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            same = self.headers.get("If-Range", state.etag) == state.etag
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.knows_ranges and same else 0
            if start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            if state.etag:
                self.send_header("ETag", state.etag)
            if state.tells_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{running.server_port}/archive.zip?download=1"
        yield state
        running.shutdown()
        thread.join()


def starts(server):
    return [asked and int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.ranges]


def test_a_file_is_fetched_whole_once_and_leaves_no_part(server, tmp_path):
    path = fetch(server.remote, tmp_path / "new folder")
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["archive.zip"]
    fetch(replace(server.remote, checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"), tmp_path / "new folder")
    assert len(server.ranges) == 1


@pytest.mark.parametrize("etag", ["", '"one"'])
def test_a_connection_that_breaks_off_is_resumed_where_it_broke(server, tmp_path, etag):
    server.etag, server.break_after = etag, [1_200_000, 700_000]
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    first, second, third = starts(server)
    assert first is None and 0 < second <= 1_200_000 < third <= 1_900_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["archive.zip"]


def test_a_file_that_changed_since_it_was_begun_is_fetched_from_its_beginning(server, tmp_path):
    server.etag, server.content, server.break_after = '"old"', CONTENT[::-1], [1_200_000, *[0] * 5]
    server.statuses = []
    with pytest.raises(CorpusError, match="Cannot fetch"):
        fetch(server.remote, tmp_path)
    assert (tmp_path / "archive.zip.part").stat().st_size > 0
    server.etag, server.content, server.break_after = '"new"', CONTENT, []
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    assert starts(server)[-1] > 0, "it was asked for the rest, and If-Range gave the whole"


@pytest.mark.parametrize(
    ("part", "asked"),
    [(CONTENT[:2_000_000], [2_000_000]), (CONTENT, [len(CONTENT)]), (CONTENT + b"more", [len(CONTENT) + 4, None])],
)
def test_a_second_run_resumes_what_a_killed_one_left(server, tmp_path, part, asked):
    (tmp_path / "archive.zip.part").write_bytes(part)
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    assert starts(server) == asked


@pytest.mark.parametrize("setting", ["knows_ranges", "tells_length"])
def test_servers_without_ranges_or_lengths_serve_too(server, tmp_path, setting):
    setattr(server, setting, False)
    server.break_after = [1_500_000] if setting == "knows_ranges" else []
    server.statuses = [503, 429]
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up_and_the_part_kept(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT[:1000])
    server.statuses = [503] * 50
    with pytest.raises(CorpusError, match=r"503.*1,000 bytes"):
        fetch(server.remote, tmp_path)
    assert len(server.ranges) == 5
    assert (tmp_path / "archive.zip.part").read_bytes() == CONTENT[:1000]


def test_a_file_that_is_gone_and_a_server_that_is_not_there_are_named(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(CorpusError, match=r"404 Not Found for http://127\.0\.0\.1"):
        fetch(server.remote, tmp_path)
    assert len(server.ranges) == 1
    with pytest.raises(CorpusError, match=r"http://127\.0\.0\.1:9/a \(Connection refused\)"):
        fetch(replace(server.remote, url="http://127.0.0.1:9/a"), tmp_path)


def test_a_wrong_checksum_names_both_hashes_and_removes_only_what_was_fetched(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(CorpusError) as error:
        fetch(server.remote, tmp_path)
    assert all(part in str(error.value) for part in (MD5, hashlib.md5(server.content).hexdigest(), server.url))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "archive.zip").write_bytes(b"half of it")  # put there by hand
    with pytest.raises(CorpusError, match=MD5):
        fetch(server.remote, tmp_path)
    assert (tmp_path / "archive.zip").read_bytes() == b"half of it"


def test_without_a_published_checksum_that_of_the_first_fetch_holds(server, tmp_path):
    remote = replace(server.remote, checksum=None)
    path = fetch(remote, tmp_path)
    assert (tmp_path / "archive.zip.sha256").read_text() == hashlib.sha256(CONTENT).hexdigest() + "\n"
    assert fetch(remote, tmp_path) == path and len(server.ranges) == 1
    path.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(CorpusError, match=hashlib.sha256(CONTENT[::-1]).hexdigest()):
        fetch(remote, tmp_path)
    assert not path.exists()


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for member, content in members.items():
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("make", "name"), [(make_zip, "a.zip"), (make_tar, "a.tar.gz"), (make_tar, "a.tgz")])
def test_an_archive_is_unpacked_whole_and_what_is_there_stays(tmp_path, make, name):
    archive = make(tmp_path / name, {"one/1 é.wav": b"one", "one/sub/2.wav": b"two", "two/x.txt": b"new"})
    target = tmp_path / "target"
    (target / f".unpacking-{name}" / "two").mkdir(parents=True)  # left by a kill
    (target / f".unpacking-{name}" / "two" / "half.txt").write_bytes(b"")
    assert unpack(archive, target) == [target / "one", target / "two"]
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*.*")) == [
        "one/1 é.wav",
        "one/sub/2.wav",
        "two/x.txt",
    ]
    (target / "two" / "x.txt").write_bytes(b"old")
    unpack(archive, target, "one")
    assert (target / "two" / "x.txt").read_bytes() == b"old"
    assert unpack(archive, target, "named") == [target / "named"]
    assert (target / "named" / "one" / "sub" / "2.wav").read_bytes() == b"two"
    assert not (target / f".unpacking-{name}").exists()


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize(("make", "archive"), [(make_zip, "a.zip"), (make_tar, "a.tar")])
def test_a_member_that_climbs_out_writes_nothing_outside(tmp_path, make, archive, name):
    members = {"good.txt": b"good", name: b"evil"}
    path = make(tmp_path / archive, members) if make is make_zip else make(tmp_path / archive, members, "w")
    target = tmp_path / "in" / "target"
    with contextlib.suppress(CorpusError):
        unpack(path, target)
    outside = [entry for entry in tmp_path.rglob("*evil*") if target not in entry.parents]
    assert outside == [] and not pathlib.Path("/tmp/evil.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_out_and_devices_in_a_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(CorpusError, match="link"):
        unpack(make_tar(tmp_path / "a.tar", {member: b""}, "w"), tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_archive_is_refused_and_leaves_nothing(tmp_path, name, damage):
    path, members = tmp_path / name, {"x.bin": CONTENT[:50_000], "y.bin": CONTENT[50_000:90_000]}
    make_zip(path, members) if name == "a.zip" else make_tar(path, members, "w:" + name.rsplit(".", maxsplit=1)[1])
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "other": b"<html>not found</html>", "empty": b""}[damage])
    with pytest.raises(CorpusError, match=name):
        unpack(path, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []
