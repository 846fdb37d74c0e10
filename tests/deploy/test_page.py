"""The analysis of a recording with its texts, JSON and PDF, and the page: its guards, and its use in a real browser."""

import dataclasses
import io
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
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import requests
import soundfile
import typst
from PIL import Image
from recordings import SIMULATED, made_up_analysis, write_tone
from trees import heeding

from instrlib.core.io import AudioError, ConfigError, CorpusError, RunError
from instrlib.data.rendered import sources
from instrlib.deploy import analysis
from instrlib.deploy import page as served
from instrlib.models import published
from instrlib.studies import condition

WAIT_MS = 30_000

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
def model(page_folder: Path) -> published.PublishedModel:
    return published.open_model(page_folder)


def test_many_channels_and_a_high_rate_take_no_more_memory_and_longer_or_wider_recordings_are_refused(
    model, tmp_path, monkeypatch
):
    """All channels of this file at its own rate are 184 MB."""
    path = tmp_path / "large.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (96_000, 8)).astype(np.float32)
    soundfile.write(path, np.tile(noise, (60, 1)), 96_000, subtype="PCM_U8")
    monkeypatch.setattr(condition, "verdict", lambda signal, *_: ("healthy", {"healthy": 1.0}, {"n": len(signal)}))
    tracemalloc.start()
    found = analysis.analyse(path, model)
    assert tracemalloc.get_traced_memory()[1] < 80e6
    tracemalloc.stop()
    assert found.condition["measures"]["n"] == 60 * model.single.features.sample_rate_hz
    for shape in ((601_000, 1), (1000, 33)):
        soundfile.write(path, np.full(shape, 0.1), 1000)
        with pytest.raises(AudioError, match=r"large\.wav"):
            analysis.analyse(path, model)


def test_the_texts_and_the_json_hold_the_numbers_of_the_analysis():
    found, unnamed = (analysis.content(made_up_analysis(named=named)) for named in (True, False))
    share, healthy = "67\N{NO-BREAK SPACE}%", found["condition"]
    assert (found["headline"], found["confidence"], unnamed["confidence"]) == ("Piano", share, "")
    bar = {"name": "piano", "share": pytest.approx(0.67), "percent": share, "threshold": 0.45, "strong": True}
    assert found["bars"][0] == bar and not any(bar["strong"] for bar in unnamed["bars"])
    assert found["timeline"]["events"] == [["piano", "0.0", "24.0", "0.90"], ["flute", "8.0", "12.0", "0.80"]]
    texts = healthy["sentence"], healthy["caution"], dict(found["method"])["performance"], unnamed["sentence"]
    for text, parts in zip(texts, ("82", "48", "0.83 0.78 0.88", "piano 38 45"), strict=True):
        assert all(part in text for part in parts.split())
    assert healthy["about"] == SIMULATED and dict(healthy["measures"])["inharmonicity B"] == "–"
    assert [analysis.percent(one)[:1] for one in (0.9996, 0.0004)] == [">", "<"], "never 0 or 100 %"
    written, other = (json.loads(analysis.to_json(made_up_analysis(named=named))) for named in (True, False))
    assert (written["answer"], other["answer"]) == ("piano", None)
    assert written["condition"]["measures"]["inharmonicity"] is None


def test_equal_analyses_give_equal_pdfs_of_two_pages_at_most_and_none_is_blank():
    def pages(found: analysis.Analysis) -> int:
        made = analysis.pdf(found, analysis.drawn(found), format="png")
        made = [Image.open(io.BytesIO(one)) for one in (made if isinstance(made, list) else [made])]
        assert all((np.asarray(page.convert("L")) < 128).mean() > 0.005 for page in made)
        return len(made)

    first, again = (analysis.pdf(found, analysis.drawn(found)) for found in (made_up_analysis(), made_up_analysis()))
    assert first.startswith(b"%PDF-") and first == again and pages(made_up_analysis()) == 2
    plain = dataclasses.replace(made_up_analysis(), timeline=None, condition=None, activation=None)
    assert set(analysis.drawn(plain)) == {"segment"} and pages(plain) == 1
    busy = made_up_analysis(name="long " * 30 + ".wav", scores=np.random.default_rng(0).random((600, 12)))
    found, n_events = analysis.content(busy)["timeline"], len(busy.timeline["events"])
    assert pages(busy) == 2 and len(found["events"]) == analysis.MAX_EVENTS
    assert str(n_events - analysis.MAX_EVENTS) in found["more"]


MARKUP = ["= head\n<label> @ref // \\ \u202e \U0001f3bb", '#panic("x") *b $x _y_ `code']


@pytest.mark.parametrize("name", [*MARKUP, '<img src=x onerror=""> ${a} {{b}} " onload="', ""])
def test_a_name_is_text_and_never_markup_and_a_result_requests_nothing(name, monkeypatch):
    found = made_up_analysis(name=name)
    html, figures = served.result_page(found), analysis.drawn(found)
    assert not any(part in html for part in (name or "${", "<img src=x", "${", "{{", '" onload'))
    assert not re.search(r'(?:src|href|srcset)="(?!data:)|http', re.sub(r'"data:[^"]*"', '"data:"', html))
    assert len(re.findall(r'<img [^>]*alt="[^"]{20,}"', html)) == html.count("<img") == 2
    assert analysis.pdf(found, figures).startswith(b"%PDF-")

    def title(template: bytes, *, sys_inputs: dict[str, str], **_) -> str:
        return typst.query(template, "heading.where(level: 1)", field="body", sys_inputs=sys_inputs)

    monkeypatch.setattr(typst, "compile", title)
    (set_as,) = json.loads(analysis.pdf(found, figures))
    assert set_as["child"] == {"func": "text", "text": name}


@pytest.fixture(scope="module")
def address(page_folder: Path) -> Iterator[str]:
    called.clear()
    with served.opened(page_folder) as address:
        yield address


def test_the_page_with_the_name_of_its_model_is_served_on_this_machine_to_itself_and_nothing_else(address, model):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    config = requests.get(address + "config", timeout=20).json()
    intro = config["components"][0]["props"]["value"]
    assert all(text in intro for text in (model.name, "Accuracy 0.")) and config["max_file_size"] == 200_000_000
    api = ("info", "openapi.json", "runs", "call/answer", "proxy=http://a.example/", "file=http://a.example/x.wav")
    files = [f"file={path}" for path in ("/etc/passwd", "/proc/self/environ", "/../etc/passwd")]
    for path in ("docs", "openapi.json", "monitoring/summary", *(f"gradio_api/{name}" for name in (*api, *files))):
        assert requests.get(address + path, timeout=20).status_code in (403, 404)
    others = ("http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null")
    for path, origin in itertools.product(("", "gradio_api/upload", "gradio_api/queue/join"), others):
        given = {"headers": {"Origin": origin}, "files": {"files": ("a.wav", b"1")}}
        assert requests.post(address + path, timeout=20, **given).status_code == 403
    for name, value, status in (("Host", "evil.example", 400), ("Origin", address.rstrip("/"), 200)):
        assert requests.get(address, headers={name: value}, timeout=20).status_code == status


def test_neither_an_address_nor_a_file_that_was_not_uploaded_is_read(address, tmp_path):
    mine, url = str(write_tone(tmp_path / "mine.wav", duration_s=3)), "http://example.org/x.wav"
    hostile = [*({"path": path} for path in ("/etc/passwd", mine, url)), {"path": url, "url": url, "is_stream": True}]
    for (number, file), function in itertools.product(enumerate(hostile), (0, 1)):
        recording, session = file | {"meta": {"_type": "gradio.FileData"}}, f"{function}{number}"
        body = {"data": [recording], "fn_index": function, "session_hash": session, "trigger_id": 1}
        assert requests.post(f"{address}gradio_api/queue/join", json=body, timeout=20).status_code == 200
        where = {"url": f"{address}gradio_api/queue/data", "params": {"session_hash": session}}
        with requests.get(**where, stream=True, timeout=20) as answer:
            messages = (json.loads(line.removeprefix(b"data:") or b"{}") for line in answer.iter_lines())
            ended = next(one for one in messages if one.get("msg") == "process_completed")
        assert ended["success"] is False and not re.search("root:|data:", json.dumps(ended))
    assert (tmp_path / "mine.wav").exists() and not [host for host in called if "example" in str(host)]


@mock.patch.dict(os.environ, {"GRADIO_TEMP_DIR": "/nowhere"})
def test_uploads_are_limited_private_and_removed_it_opens_without_a_synthesiser_and_a_taken_port_is_reported(
    page_folder, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    monkeypatch.setattr(served, "MAX_MB", 1)
    sources.synthesiser.cache_clear()
    with pytest.raises(CorpusError, match="tinysoundfont"):
        analysis.example_clip(page_folder)
    with served.opened(page_folder) as address:
        uploads, port = Path(os.environ["GRADIO_TEMP_DIR"]), int(address.rstrip("/").rpartition(":")[2])
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and "127.0.0.1" in os.environ["NO_PROXY"]
        assert uploads.stat().st_mode & 0o077 == 0 and requests.get(address, timeout=20).status_code == 200
        for size, status in ((1_000_000, 200), (1_000_001, 413)):
            files = {"files": ("a.wav", bytes(size))}
            assert requests.post(f"{address}gradio_api/upload", files=files, timeout=20).status_code == status
        assert [path.stat().st_size for path in uploads.rglob("*.wav")] == [1_000_000]
        with pytest.raises(ConfigError, match=f"{port}.*--port"):
            served.opened(page_folder, port=port).__enter__()
    assert not uploads.parent.exists()
    with pytest.raises(RunError, match=uploads.name):
        served.opened(uploads).__enter__()


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


def test_each_page_keeps_its_recording_until_its_analysis_ends_and_nothing_else_can_be_given(tmp_path):
    uploads, mine = tmp_path / "uploads", write_tone(tmp_path / "mine.wav", duration_s=1)
    waiting = served.Waiting(uploads)

    def give(user: str, content: bytes) -> Path:
        path = uploads / content.hex() / "a.wav"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        waiting.replace(user, str(path))
        return path

    def analysed(user: str) -> bytes | None:
        with waiting.taken(user) as path:
            return path and path.read_bytes()

    give("second", b"2").unlink()  # Gradio removes old uploads, also before the turn of a page in the queue
    assert [analysed("second"), analysed("second")] == [b"2", None]
    give("first", b"1")
    with waiting.taken("first") as first:
        last = give("second", b"1")
        for content in (b"2", b"3"):
            give("first", content)
        assert first.read_bytes() == b"1"
    assert last.exists() and [analysed(name) for name in ("second", "first")] == [b"1", b"3"]
    give("third", b"1")
    for path in (mine, uploads / "31" / ".." / ".." / "mine.wav"):
        with pytest.raises(ValueError, match="mine"):
            waiting.replace("third", str(path))
    waiting.replace("third", None)
    assert analysed("third") is None and mine.exists()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"mine.wav", "a.wav"}


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def visit(address) -> Iterator:
    """Return a function that opens the page as another user; a script's error or a foreign request fails the test."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium; install it (Debian: apt-get install chromium)")
    options = ["--no-sandbox", *(f"--use-fake-{one}-for-media-stream" for one in ("ui", "device"))]
    errors, urls = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)

        def visit():
            page = browser.new_context(accept_downloads=True, permissions=["microphone"]).new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: urls.append(request.url))
            page.goto(address)
            page.locator("#result article").wait_for()
            return page

        yield visit
        browser.close()
    assert urls and not errors and all(url.startswith((address, "data:", "blob:")) for url in urls)


def give(page, path: Path) -> None:
    """Put a file into the page as a user would, in place of the one that is there."""
    page.locator("#recording :is(button[aria-label='Clear'], input[type=file])").first.wait_for(state="attached")
    for clear in page.locator("#recording button[aria-label='Clear']").all()[:1]:
        clear.click()
    page.locator("#recording input[type=file]").set_input_files(path)


def result_of(page, name: str) -> str:
    page.locator("#result .file", has_text=name).wait_for()
    return page.locator("#result article").inner_text()


def left_behind() -> list[str]:
    return [path.name for path in Path(os.environ["GRADIO_TEMP_DIR"]).parent.rglob("*") if path.is_file()]


def downloaded(page, ending: str) -> bytes:
    with page.expect_download() as waiting:
        page.locator(f"#result a[download$='.{ending}']").click()
    return Path(waiting.value.path()).read_bytes()


@pytest.mark.slow
def test_a_user_hears_an_example_gives_unusable_files_records_uploads_and_downloads(visit, tmp_path):
    page, alert = visit(), "#status [role=alert]"
    page.locator("#result audio").evaluate("player => player.play()")
    page.wait_for_function("document.querySelector('#result audio').currentTime > 0.2")
    for name, content in (("holiday.wav", b"this is no sound"), ("empty.wav", b"")):
        (tmp_path / name).write_bytes(content)
        give(page, tmp_path / name)
        page.locator(alert, has_text=name).wait_for()
        text = page.locator(alert).inner_text()
        assert text.startswith(name) and "Traceback" not in text and "/" not in text and left_behind() == []
    give(page, write_tone(tmp_path / "high note.wav", duration_s=6))
    text = result_of(page, "high note.wav")
    assert re.search(r"\d\s?%", text) and SIMULATED in text and not left_behind() and not page.locator(alert).count()
    for image in page.locator("#result img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 100")
    assert downloaded(page, "pdf").startswith(b"%PDF-")
    numbers = json.loads(downloaded(page, "json"))
    assert numbers["file"]["name"] == "high note.wav" and numbers["file"]["duration_s"] == pytest.approx(6)
    page.locator("#recording button[aria-label='Clear']").first.click()
    page.locator("#recording button[aria-label='Record audio']").click()
    page.locator("#recording .record-button").click()
    page.wait_for_timeout(2500)  # Chromium's fake microphone beeps once a second
    page.locator("#recording .stop-button").click()
    page.locator("#result .file", has_not_text="high note").wait_for()
    assert left_behind() == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a narrow screen needs no sideways scrolling"


@pytest.mark.slow
def test_two_users_with_the_same_file_and_a_third_with_another_get_their_own_results(visit, tmp_path, monkeypatch):
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
        give(page, write_tone(tmp_path / "low note.wav", duration_s=4))
        page.locator("#result article").wait_for(state="detached")
        page.get_by_text("Waiting").first.wait_for()  # progress, in the place of the last result
    both_given.set()
    result_of(first, "low note.wav")
    assert set(left_behind()) == {"low note.wav"}
    monkeypatch.setattr(served, "analyse", original)
    give(third, write_tone(tmp_path / "high note.wav", duration_s=6, pitch=11))
    result_of(third, "high note.wav")
    first_done.set()
    result_of(second, "low note.wav")
    found = [json.loads(downloaded(page, "json"))["file"]["duration_s"] for page in (second, third)]
    assert found == pytest.approx([4, 6]) and left_behind() == []


def test_the_server_contacted_no_other_machine(address):
    assert called and set(called) <= {None, "127.0.0.1", "localhost", "::1"}
    with pytest.raises(OSError):
        socket.getaddrinfo("name.invalid", 80)
    assert called.pop() == "name.invalid", "a look-up without a connection is seen too"
