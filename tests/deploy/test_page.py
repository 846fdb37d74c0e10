"""The page: what it sends and serves, what it refuses, and what a user does with it in a real browser."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import requests
from recordings import SIMULATED, made_up_analysis, write_tone
from trees import heeding

from instrlib.core.io import ConfigError, CorpusError, RunError
from instrlib.deploy import page as served
from instrlib.models import published

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 30_000

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.usefixtures("event_loops_closed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
]

called: list[str | bytes | None] = []  # machines that were looked up or connected to


def watch(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        called.append(arguments[0] if event == "socket.getaddrinfo" else arguments[1][0])


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def address(page_folder: Path) -> Iterator[str]:
    called.clear()
    with served.opened(page_folder) as address:
        yield address


@pytest.mark.parametrize("name", ['<img src=x onerror="alert(1)">.wav', '${alert(1)} {{value}} " onload="x.wav'])
def test_a_result_holds_its_figures_and_downloads_requests_nothing_and_shows_a_hostile_name_as_text(name):
    html = served.result_page(made_up_analysis(name=name))
    assert not any(part in html for part in (name, "<img src=x", "${", "{{", '" onload'))
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', html)
    assert "http" not in re.sub(r'"data:[^"]*"', "", html)
    content = {kind: base64.b64decode(text) for kind, text in re.findall(r'href="data:([\w/]+);base64,([^"]*)"', html)}
    assert content["application/pdf"].startswith(b"%PDF-")
    assert json.loads(content["application/json"])["answer"] == "piano"
    assert len(re.findall(r'<img [^>]*alt="[^"]{20,}"', html)) == html.count("<img") == 2


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


def test_neither_an_address_nor_a_file_that_was_not_uploaded_is_read(address, tmp_path):
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
    assert (tmp_path / "mine.wav").exists() and not [host for host in called if "example" in str(host)]


def test_requests_of_other_sites_and_a_file_that_is_too_large_are_refused(address, monkeypatch):
    import gradio

    given = {"files": {"files": ("a.wav", b"1")}, "timeout": 20}
    others = ("http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null")
    for path, origin in itertools.product(("", "gradio_api/upload", "gradio_api/queue/join"), others):
        assert requests.post(address + path, headers={"Origin": origin}, **given).status_code == 403
    assert requests.get(address, headers={"Origin": address.rstrip("/")}, timeout=20).status_code == 200
    for one in gradio.Blocks.get_instances():
        if one.local_url == address:
            monkeypatch.setattr(one, "max_file_size", 1000)
    answer = requests.post(f"{address}gradio_api/upload", files={"files": ("big.wav", bytes(5000))}, timeout=20)
    assert answer.status_code == 413


@mock.patch.dict(os.environ)
def test_a_taken_port_another_failure_and_a_missing_model_are_told_apart(address, page_folder, tmp_path):
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"{port}.*--port"):
        served.opened(page_folder, port=port).__enter__()
    with pytest.raises(RunError, match=tmp_path.name):
        served.opened(tmp_path).__enter__()
    full = mock.patch("gradio.Blocks.launch", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(ConfigError, match="No space"):
        served.opened(page_folder, port=1).__enter__()


@mock.patch.dict(os.environ, {"GRADIO_TEMP_DIR": "/nowhere"})
def test_its_uploads_are_private_and_removed_and_it_opens_without_a_synthesiser(page_folder):
    with mock.patch.object(served, "example_clip", side_effect=CorpusError), served.opened(page_folder) as address:
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


class Uploads(served.Waiting):
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


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium; install it (Debian: apt-get install chromium)")
    options = "--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visit(address, chromium) -> Iterator:
    """Return a function that opens the page as another user; a script's error or a foreign request fails the test."""
    errors, urls = [], []

    def visit():
        page = chromium.new_context(accept_downloads=True, permissions=["microphone"]).new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address)
        page.locator("#result article").wait_for()
        return page

    yield visit
    for context in chromium.contexts:
        context.close()
    assert not errors and not [url for url in urls if not url.startswith((address, "data:", "blob:"))]


def give(page, path: Path) -> None:
    """Put a file into the page as a user would, in place of the one that is there."""
    page.locator("#recording :is(button[aria-label='Clear'], input[type=file])").first.wait_for(state="attached")
    for clear in page.locator("#recording button[aria-label='Clear']").all()[:1]:
        clear.click()
    page.locator("#recording input[type=file]").set_input_files(path)


def result_of(page, name: str) -> str:
    """Wait for the result of a file and return its text."""
    page.locator("#result .file", has_text=name).wait_for()
    return page.locator("#result article").inner_text()


def left_behind() -> list[str]:
    """Names of the uploads that are still on disk."""
    return [path.name for path in Path(os.environ["GRADIO_TEMP_DIR"]).parent.rglob("*") if path.is_file()]


def downloaded(page, ending: str) -> bytes:
    with page.expect_download() as waiting:
        page.locator(f"#result a[download$='.{ending}']").click()
    return Path(waiting.value.path()).read_bytes()


@pytest.fixture
def low(tmp_path) -> Path:
    return write_tone(tmp_path / "low note.wav", duration_s=4)


@pytest.fixture
def high(tmp_path) -> Path:
    return write_tone(tmp_path / "high note.wav", duration_s=6, pitch=11)


@pytest.mark.slow
def test_it_opens_on_an_example_and_a_file_is_uploaded_analysed_shown_downloaded_and_removed(visit, high):
    page = visit()
    page.locator("#result audio").evaluate("player => player.play()")
    page.wait_for_function("document.querySelector('#result audio').currentTime > 0.2")
    give(page, high)
    text = result_of(page, "high note.wav")
    assert re.search(r"\d\s?%", text) and SIMULATED in text
    for image in page.locator("#result img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 100")
    assert left_behind() == []
    page.locator("#recording button[aria-label='Play']").click()  # the browser still has it
    page.locator("#recording button[aria-label='Pause']").wait_for()
    page.wait_for_function("document.querySelector('#recording').innerText.includes('0:01')")
    assert downloaded(page, "pdf").startswith(b"%PDF-")
    numbers = json.loads(downloaded(page, "json"))
    assert numbers["file"]["name"] == "high note.wav" and numbers["file"]["duration_s"] == pytest.approx(6)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a narrow screen needs no sideways scrolling"
    boxes = [element.bounding_box() for element in page.locator("#result section, #result img, #recording").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)


@pytest.mark.slow
def test_an_unusable_file_gets_one_sentence_and_the_next_one_is_analysed(visit, low, tmp_path):
    page, alert = visit(), "#status [role=alert]"
    for name, content in (("holiday.wav", b"this is no sound"), ("empty.wav", b"")):
        (tmp_path / name).write_bytes(content)
        give(page, tmp_path / name)
        page.locator(alert, has_text=name).wait_for()
        text = page.locator(alert).inner_text()
        assert text.startswith(name) and "Traceback" not in text and "/" not in text
        assert left_behind() == []
    give(page, low)
    result_of(page, "low note.wav")
    assert page.locator(alert).count() == 0


@pytest.mark.slow
def test_the_microphone_is_recorded_and_analysed(visit):
    """Chromium's fake microphone beeps once a second."""
    page = visit()
    page.locator("#recording button[aria-label='Record audio']").click()
    page.locator("#recording .record-button").click()
    page.wait_for_timeout(2500)
    page.locator("#recording .stop-button").click()
    result_of(page, ".wav")
    assert left_behind() == []


@pytest.mark.slow
def test_two_users_with_the_same_file_and_a_third_with_another_get_their_own_results(visit, low, high, monkeypatch):
    """Gradio keeps equal files once; the first analysis to end must not remove the file of the second."""
    first, second, third = visit(), visit(), visit()
    both_given, first_done = threading.Event(), threading.Event()
    original, turns = served.analyse, iter([both_given, first_done])

    def in_turns(path, model, *, on_progress):
        on_progress(0.4, "Waiting")
        assert next(turns).wait(WAIT_MS / 1000)
        return original(path, model, on_progress=on_progress)

    monkeypatch.setattr(served, "analyse", in_turns)
    for page in (first, second):
        give(page, low)
        page.locator("#result article").wait_for(state="detached")
        page.get_by_text("Waiting").first.wait_for()  # progress, in the place of the last result
    both_given.set()
    result_of(first, "low note.wav")
    assert set(left_behind()) == {"low note.wav"}
    monkeypatch.setattr(served, "analyse", original)
    give(third, high)
    result_of(third, "high note.wav")
    first_done.set()
    result_of(second, "low note.wav")
    found = [json.loads(downloaded(page, "json"))["file"]["duration_s"] for page in (second, third)]
    assert found == pytest.approx([4, 6]) and left_behind() == []


def test_the_server_contacted_no_other_machine(address):
    assert called and set(called) <= {None, "127.0.0.1", "localhost", "::1"}
    with contextlib.suppress(OSError):
        socket.getaddrinfo("name.invalid", 80)
    assert called.pop() == "name.invalid", "a look-up without a connection is seen too"
