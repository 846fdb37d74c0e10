"""The page without a browser: what it sends and serves, and what it refuses."""

import base64
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import requests
from recordings import made_up_analysis, write_tone
from signals import heeding

from instrlib.core.io import ConfigError, CorpusError, RunError
from instrlib.deploy import page
from instrlib.models import published

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.usefixtures("event_loops_closed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
]


def test_a_result_holds_its_figures_and_downloads_and_requests_nothing():
    html = page.result_page(made_up_analysis())
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', html)
    assert "http" not in re.sub(r'"data:[^"]*"', "", html)
    content = {kind: base64.b64decode(text) for kind, text in re.findall(r'href="data:([\w/]+);base64,([^"]*)"', html)}
    assert content["application/pdf"].startswith(b"%PDF-")
    assert json.loads(content["application/json"])["answer"] == "piano"
    assert len(re.findall(r'<img [^>]*alt="[^"]{20,}"', html)) == html.count("<img") == 2


@pytest.mark.parametrize("name", ['<img src=x onerror="alert(1)">.wav', '${alert(1)} {{value}} " onload="x.wav'])
def test_a_hostile_name_stands_in_the_page_as_text(name):
    html = page.result_page(made_up_analysis(name=name))
    assert not any(part in html for part in (name, "<img src=x", "${", "{{", '" onload'))


@pytest.fixture(scope="module")
def address(page_folder):
    with page.opened(page_folder) as address:
        yield address


def test_the_page_is_served_on_this_machine_with_the_name_of_its_model_and_nothing_else(address, page_folder):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    intro = requests.get(address + "config", timeout=20).json()["components"][0]["props"]["value"]
    assert all(text in intro for text in (published.open_model(page_folder).name, "Accuracy 0."))
    assert requests.get(address, headers={"Host": "evil.example"}, timeout=20).status_code == 400
    api = ("info", "openapi.json", "runs", "call/answer", "proxy=http://a.example/", "file=http://a.example/x.wav")
    for path in ("docs", "openapi.json", "monitoring/summary", *(f"gradio_api/{name}" for name in api)):
        assert requests.get(address + path, timeout=20).status_code == 404
    for path in ("/etc/passwd", "/proc/self/environ", "/../etc/passwd"):
        assert requests.get(f"{address}gradio_api/file={path}", timeout=20).status_code in (403, 404)


def test_neither_an_address_nor_a_file_that_was_not_uploaded_is_read(address, tmp_path, monkeypatch):
    asked = []
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: asked.append(host) or original(host, *a, **k))
    mine, url = str(write_tone(tmp_path / "mine.wav", duration_s=3)), "http://example.org/x.wav"
    hostile = [{"path": path} for path in ("/etc/passwd", mine, url)]
    hostile += [{"path": url, "is_stream": True}, {"path": "https://example.org/x.wav", "url": url}]
    for (number, file), function in itertools.product(enumerate(hostile), (0, 1)):
        recording, session = file | {"meta": {"_type": "gradio.FileData"}}, f"{function}{number}"
        body = {"data": [recording], "fn_index": function, "session_hash": session, "trigger_id": 1}
        assert requests.post(f"{address}gradio_api/queue/join", json=body, timeout=20).status_code == 200
        where = {"url": f"{address}gradio_api/queue/data", "params": {"session_hash": session}}
        with requests.get(**where, stream=True, timeout=20) as answer:
            messages = (json.loads(line.removeprefix(b"data:") or b"{}") for line in answer.iter_lines())
            ended = next(one for one in messages if one.get("msg") == "process_completed")
        assert ended["success"] is False
        assert "root:" not in json.dumps(ended) and "data:" not in json.dumps(ended)
    assert (tmp_path / "mine.wav").exists() and not [host for host in asked if "example" in str(host)]


def test_requests_of_other_sites_are_refused(address):
    given = {"files": {"files": ("a.wav", b"1")}, "timeout": 20}
    others = ("http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null")
    for path, origin in itertools.product(("", "gradio_api/upload", "gradio_api/queue/join"), others):
        assert requests.post(address + path, headers={"Origin": origin}, **given).status_code == 403
    assert requests.get(address, headers={"Origin": address.rstrip("/")}, timeout=20).status_code == 200


def test_a_file_that_is_too_large_is_refused_by_the_server(address, monkeypatch):
    import gradio

    # A page that another test has closed may have had the same port.
    for served in gradio.Blocks.get_instances():
        if served.local_url == address:
            monkeypatch.setattr(served, "max_file_size", 1000)
    answer = requests.post(f"{address}gradio_api/upload", files={"files": ("big.wav", bytes(5000))}, timeout=20)
    assert answer.status_code == 413


def test_a_taken_port_another_failure_and_a_missing_model_are_told_apart(address, page_folder, tmp_path):
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"{port}.*--port"), page.opened(page_folder, port=port):
        pass
    with pytest.raises(RunError, match=tmp_path.name), page.opened(tmp_path):
        pass
    launch = {"side_effect": OSError(28, "No space left on device")}
    with mock.patch("gradio.Blocks.launch", **launch), pytest.raises(ConfigError, match="No space"):
        page.opened(page_folder, port=1).__enter__()


def test_its_uploads_are_private_and_removed_and_it_opens_without_a_synthesiser(page_folder):
    without = mock.patch.object(page, "example_clip", side_effect=CorpusError)
    with mock.patch.dict(os.environ, {"GRADIO_TEMP_DIR": "/nowhere"}), without, page.opened(page_folder) as address:
        uploads = Path(os.environ["GRADIO_TEMP_DIR"])
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and "127.0.0.1" in os.environ["NO_PROXY"]
        assert uploads.stat().st_mode & 0o077 == 0 and requests.get(address, timeout=20).status_code == 200
    assert not uploads.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_the_command_without_a_file_left(page_folder, tmp_path, name):
    command = [sys.executable, "-m", "instrlib.runner.cli", "demo", "--model", str(page_folder)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(heeding(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() and b"http://127.0.0.1:" in process.stdout.readline()
        assert list(tmp_path.glob("instrlib-page-*"))
        process.send_signal(getattr(signal, name))
        assert process.wait(20) == 0 and process.stderr.read() == b""
    assert not list(tmp_path.glob("instrlib-page-*"))


class Uploads(page.Waiting):
    """Uploads as Gradio makes them: equal contents have the same path, and a later one replaces an earlier one."""

    def add(self, content: bytes) -> Path:
        path = self.uploads / content.hex() / "a.wav"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return path

    def analysed(self, user: str) -> bytes | None:
        with self.taken(user) as path:
            return path and path.read_bytes()


@pytest.fixture
def waiting(tmp_path) -> Uploads:
    (tmp_path / "uploads").mkdir()
    return Uploads(tmp_path / "uploads")


def test_a_waiting_recording_outlives_its_upload_and_both_go_after_the_analysis(waiting):
    """Gradio removes old uploads, also before the turn of a page in the queue."""
    waiting.replace("first", waiting.add(b"1"))
    waiting.replace("second", waiting.add(b"2"))
    (waiting.uploads / b"2".hex() / "a.wav").unlink()
    assert [waiting.analysed(name) for name in ("first", "second", "second")] == [b"1", b"2", None]
    assert not [path for path in waiting.uploads.parent.rglob("*") if path.is_file()]


def test_the_end_of_one_analysis_leaves_the_same_recording_of_another_user(waiting):
    waiting.replace("first", waiting.add(b"1"))
    with waiting.taken("first"):
        waiting.replace("second", waiting.add(b"1"))
        last = waiting.add(b"1")  # a third user has uploaded it, but the page has not received it yet
    assert last.exists() and waiting.analysed("second") == b"1"


def test_a_later_recording_replaces_one_that_waits_and_not_one_that_is_analysed(waiting):
    waiting.replace("user", waiting.add(b"1"))
    with waiting.taken("user") as first:
        for content in (b"2", b"3"):
            waiting.replace("user", waiting.add(content))
        assert first.read_bytes() == b"1"
    waiting.replace("other", waiting.add(b"1"))
    waiting.replace("other", None)
    assert (waiting.analysed("user"), waiting.analysed("other")) == (b"3", None)


def test_what_is_no_upload_and_a_page_with_a_hostile_name_are_harmless(waiting, tmp_path):
    mine = write_tone(tmp_path / "mine.wav", duration_s=1)
    for path in (mine, waiting.uploads / "31" / ".." / ".." / "mine.wav"):
        with pytest.raises(ValueError, match="mine"):
            waiting.replace("page", str(path))
    waiting.replace("../../mine.wav", None)
    waiting.replace("../../uploads", waiting.add(b"1"))
    assert mine.exists() and waiting.add(b"1").exists()
