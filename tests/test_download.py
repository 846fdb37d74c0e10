"""Downloads against a server on this machine that breaks off, refuses and changes; archives that try to climb out."""

import hashlib
import http.server
import io
import stat
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from instrlib.core.errors import CorpusError, DiskError
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
    ranges: list[str | None] = field(default_factory=list)

    @property
    def remote(self) -> Remote:
        return Remote(self.url, "archive.zip", None, f"md5:{MD5}")


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
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.knows_ranges else 0
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


def test_a_file_is_fetched_whole_and_leaves_no_part(server, tmp_path):
    path = fetch(server.remote, tmp_path / "new folder")
    assert path == tmp_path / "new folder" / "archive.zip"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["archive.zip"]


def test_a_sha256_checksum_is_understood(server, tmp_path):
    remote = replace(server.remote, checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


def test_a_whole_file_is_not_fetched_again(server, tmp_path):
    fetch(server.remote, tmp_path)
    fetch(server.remote, tmp_path)
    assert len(server.ranges) == 1


def test_a_connection_that_breaks_off_is_resumed_where_it_broke(server, tmp_path):
    server.break_after = [1_200_000, 700_000]
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges[0] is None
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.ranges[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 1_200_000 < starts[1] <= 1_900_000


def test_a_second_run_goes_on_from_what_a_killed_one_left(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT[:2_000_000])
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=2000000-"]


def test_a_part_that_is_already_whole_is_only_checked(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT)
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT + b"more")
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] is None


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.knows_ranges = False
    server.break_after = [1_500_000]
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT


def test_a_server_that_does_not_tell_the_length_is_believed_when_the_checksum_fits(server, tmp_path):
    server.tells_length = False
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT


def test_a_known_size_finds_a_short_answer_where_the_server_tells_no_length(server, tmp_path):
    server.tells_length = False
    server.break_after = [1_000_000]
    assert fetch(replace(server.remote, size_bytes=len(CONTENT)), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 500]
    assert fetch(server.remote, tmp_path).read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up_and_the_part_kept(server, tmp_path):
    (tmp_path / "archive.zip.part").write_bytes(CONTENT[:1000])
    server.statuses = [503] * 50
    with pytest.raises(CorpusError, match=r"Cannot fetch http.*the server answers 503.*1,000 bytes are kept"):
        fetch(server.remote, tmp_path)
    assert len(server.ranges) == 5
    assert (tmp_path / "archive.zip.part").read_bytes() == CONTENT[:1000]


def test_a_file_that_is_gone_is_refused_at_once_with_its_address(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(CorpusError, match=r"answers 404 Not Found for http://127.0.0.1.*archive.zip by hand"):
        fetch(server.remote, tmp_path)
    assert len(server.ranges) == 1


def test_no_connection_is_one_sentence_with_the_address(server, tmp_path):
    nobody = replace(server.remote, url="http://127.0.0.1:9/archive.zip")
    with pytest.raises(
        CorpusError, match=r"^Cannot fetch http://127.0.0.1:9/archive.zip \(Connection refused\); 0 bytes"
    ):
        fetch(nobody, tmp_path)


def test_a_wrong_checksum_names_both_hashes_and_the_address_and_removes_the_part(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    found = hashlib.md5(server.content).hexdigest()
    with pytest.raises(CorpusError) as error:
        fetch(server.remote, tmp_path)
    assert all(part in str(error.value) for part in (MD5, found, server.url))
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_there_by_hand_is_checked_and_kept(server, tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"half of it")
    with pytest.raises(CorpusError, match=f"not {MD5} as expected"):
        fetch(server.remote, tmp_path)
    assert (tmp_path / "archive.zip").read_bytes() == b"half of it"
    assert server.ranges == []


def test_a_folder_that_is_a_file_is_an_error_of_the_disk(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="choose another folder"):
        fetch(server.remote, tmp_path / "file" / "below")


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


@pytest.mark.parametrize(("make", "name"), [(make_zip, "a.zip"), (make_tar, "a.tar.gz")])
def test_an_archive_is_unpacked_and_leaves_nothing_else(tmp_path, make, name):
    archive = make(
        tmp_path / name, {"Corpus.audio/1 é.wav": b"one", "Corpus.audio/sub/2.wav": b"two", "note.txt": b"n"}
    )
    target = tmp_path / "target"
    assert unpack(archive, target) == [target / "Corpus.audio", target / "note.txt"]
    assert sorted(entry.name for entry in target.iterdir()) == ["Corpus.audio", "note.txt"]
    assert (target / "Corpus.audio" / "1 é.wav").read_bytes() == b"one"
    assert (target / "Corpus.audio" / "sub" / "2.wav").read_bytes() == b"two"


def test_what_is_there_already_stays_and_a_killed_attempt_is_swept_away(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"one/x.txt": b"new", "two/x.txt": b"new"})
    target = tmp_path / "target"
    (target / "one").mkdir(parents=True)
    (target / "one" / "x.txt").write_bytes(b"old")
    (target / ".unpacking-a.zip" / "two").mkdir(parents=True)
    (target / ".unpacking-a.zip" / "two" / "half.txt").write_bytes(b"")
    unpack(archive, target)
    assert (target / "one" / "x.txt").read_bytes() == b"old"
    assert [entry.name for entry in (target / "two").iterdir()] == ["x.txt"]
    assert not (target / ".unpacking-a.zip").exists()


CLIMBING = ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt", "C:/evil.txt"]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize(("make", "archive"), [(make_zip, "a.zip"), (make_tar, "a.tar")])
def test_a_member_that_climbs_out_is_refused_and_nothing_is_written(tmp_path, make, archive, name):
    members = {"good.txt": b"good", name: b"evil"}
    path = make(tmp_path / archive, members) if make is make_zip else make(tmp_path / archive, members, "w")
    with pytest.raises(CorpusError, match="out of its folder; nothing was unpacked"):
        unpack(path, tmp_path / "in" / "target")
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == [archive, "in", "target"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(CorpusError, match="'link', a link or a path out"):
        unpack(make_tar(tmp_path / "a.tar", {member: b""}, "w"), tmp_path / "target")


def test_links_in_a_zip_are_refused(tmp_path):
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(CorpusError, match="'link', a link or a path out"):
        unpack(make_zip(tmp_path / "a.zip", {member: "/etc/passwd"}), tmp_path / "target")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_a_damaged_archive_is_one_clear_error_and_leaves_nothing(tmp_path, name, damage):
    path, members = tmp_path / name, {"x.bin": CONTENT[:50_000], "y.bin": CONTENT[50_000:90_000]}
    if name == "a.zip":
        make_zip(path, members)
    else:
        make_tar(path, members, "w:" + name.rsplit(".", maxsplit=1)[1])
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "flipped": whole[:30_000] + bytes(255 - byte for byte in whole[30_000:31_000]) + whole[31_000:],
            "other": b"<html>not found</html>",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(CorpusError, match="delete it and download it again"):
        unpack(path, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


# ---- files without a published checksum ------------------------------------------------------------------------------


def test_without_a_published_checksum_that_of_the_first_fetch_is_recorded_and_holds_from_then_on(server, tmp_path):
    remote = replace(server.remote, checksum=None)
    server.break_after = [1_000_000]
    path = fetch(remote, tmp_path)
    assert path.read_bytes() == CONTENT
    record = tmp_path / "archive.zip.sha256"
    assert record.read_text() == hashlib.sha256(CONTENT).hexdigest() + "\n"
    assert fetch(remote, tmp_path) == path
    assert len(server.ranges) == 2
    path.unlink()
    server.content = CONTENT[::-1]
    found, expected = (hashlib.sha256(one).hexdigest() for one in (CONTENT[::-1], CONTENT))
    with pytest.raises(CorpusError, match=f"has the sha256 {found}, not {expected}"):
        fetch(remote, tmp_path)
    assert not path.exists()
