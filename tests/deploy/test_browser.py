"""The page in a real browser: what a user does with it, and what must not happen meanwhile."""

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import SIMULATED, write_tone

from instrlib.deploy import page as served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 30_000
NARROW = {"width": 390, "height": 844}
FAKE_MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("event_loops_closed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; install it (Debian: apt-get install chromium)"),
]

_called: list[str | bytes | None] = []
_watching = threading.Event()


def _watch(event: str, arguments: tuple) -> None:
    if _watching.is_set() and event == "socket.connect" and isinstance(arguments[1], tuple):
        _called.append(arguments[1][0])
    elif _watching.is_set() and event == "socket.getaddrinfo":
        _called.append(arguments[0])


sys.addaudithook(_watch)  # cannot be removed; does nothing while `_watching` is not set


@pytest.fixture(scope="module")
def address(page_folder: Path) -> Iterator[str]:
    _called.clear()
    _watching.set()
    with served.opened(page_folder) as address:
        yield address
    _watching.clear()


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_MICROPHONE])
        yield browser
        browser.close()


@pytest.fixture
def visit(address, chromium) -> Iterator:
    """Return a function that opens the page as another user; a script's error or a foreign request fails the test."""
    contexts, errors, urls = [], [], []

    def visit(size: dict[str, int] | None = None):
        context = chromium.new_context(viewport=size, accept_downloads=True, permissions=["microphone"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address)
        page.locator("#result article").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors and not [url for url in urls if not url.startswith((address, "data:", "blob:"))]


def give(page, path: Path) -> None:
    """Put a file into the page as a user would, in place of the one that is there."""
    page.locator("#recording :is(button[aria-label='Clear'], input[type=file])").first.wait_for(state="attached")
    clear = page.locator("#recording button[aria-label='Clear']")
    if clear.count():
        clear.first.click()
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


@pytest.fixture(scope="module")
def low(tmp_path_factory) -> Path:
    return write_tone(tmp_path_factory.mktemp("low") / "low note.wav", duration_s=4)


@pytest.fixture(scope="module")
def high(tmp_path_factory) -> Path:
    return write_tone(tmp_path_factory.mktemp("high") / "high note.wav", duration_s=6, pitch=11)


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


def test_the_microphone_is_recorded_and_analysed(visit):
    """Chromium's fake microphone beeps once a second."""
    page = visit()
    page.locator("#recording button[aria-label='Record audio']").click()
    page.locator("#recording .record-button").click()
    page.wait_for_timeout(2500)
    page.locator("#recording .stop-button").click()
    result_of(page, ".wav")
    assert left_behind() == []


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


def test_a_narrow_screen_needs_no_sideways_scrolling(visit, low):
    page, width = visit(NARROW), NARROW["width"]
    give(page, low)
    result_of(page, "low note.wav")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for element in page.locator("#result section, #result img, #recording").all():
        box = element.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_server_contacted_no_other_machine(address):
    assert _called, "not even its own start was seen: nothing is watched"
    assert set(_called) <= {None, "127.0.0.1", "localhost", "::1"}
    with contextlib.suppress(OSError):
        socket.getaddrinfo("name.invalid", 80)
    assert _called.pop() == "name.invalid", "a look-up without a connection is seen too"
