"""The analysis and the page without a browser: what they compute, send and serve, and what they refuse."""

import base64
import dataclasses
import itertools
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
from recordings import SIMULATED, made_up_analysis, write_tone
from signals import heeding
from trees import tone

from instrlib.core.io import AudioError, ConfigError, CorpusError, RunError
from instrlib.data.rendered import sampler
from instrlib.deploy import analysis, page
from instrlib.models import published
from instrlib.models.published import predict_file
from instrlib.studies import condition

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.usefixtures("event_loops_closed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
]


@pytest.fixture(scope="module")
def model(page_folder):
    return published.open_model(page_folder)


# -- the analysis ------------------------------------------------------------------------------------------------------


def test_a_recording_is_analysed_in_every_respect(model, tmp_path):
    path = write_tone(tmp_path / "tone.wav", duration_s=7.5)
    progress = []
    made = analysis.analyse(path, model, on_progress=lambda share, stage: progress.append((share, stage)))
    assert (made.name, made.prediction.duration_s) == ("tone.wav", pytest.approx(7.5))
    np.testing.assert_array_equal(made.prediction.probabilities, predict_file(path, model).probabilities)
    assert made.timeline.scores.shape == (8, 3) and (made.timeline.events.end_s <= 7.5).all()
    assert made.condition["verdict"] in condition.CONDITIONS and made.condition["about"] == SIMULATED
    assert made.level_db.shape == made.activation.shape == model.single.features.shape
    assert made.activation.min() >= 0
    shares = [share for share, _ in progress]
    assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1 and len(dict(map(reversed, progress))) == 5


def test_a_model_without_timeline_and_condition_leaves_them_out(model, tmp_path):
    about = {name: value for name, value in model.about.items() if name != "timeline"}
    bare = dataclasses.replace(model, condition=None, about=about)
    made = analysis.analyse(write_tone(tmp_path / "tone.wav", duration_s=4), bare)
    assert made.timeline is None and made.condition is None
    assert json.loads(analysis.to_json(made))["timeline"] is None
    assert page.result_page(made).count("<img") == 1


@pytest.mark.parametrize(("n_channels", "duration_s", "rate_hz"), [(1, 601, 1000), (33, 1, 8000)])
def test_a_recording_that_is_too_long_or_has_too_many_channels_is_refused(
    model, tmp_path, n_channels, duration_s, rate_hz
):
    soundfile.write(tmp_path / "large.wav", np.full((duration_s * rate_hz, n_channels), 0.1), rate_hz)
    with pytest.raises(AudioError, match=r"large\.wav"):
        analysis.analyse(tmp_path / "large.wav", model)


def test_channels_and_a_high_rate_take_no_more_memory(model, tmp_path, monkeypatch):
    """All channels of this file at its own rate are 184 MB."""
    path = tmp_path / "wide.wav"
    with soundfile.SoundFile(path, "w", 96_000, 8, subtype="PCM_U8") as file:
        for _ in range(60):
            file.write(np.random.default_rng(0).uniform(-0.5, 0.5, (96_000, 8)).astype(np.float32))
    monkeypatch.setattr(condition, "verdict", lambda signal, *_: ("healthy", {"healthy": 1.0}, {"n": len(signal)}))
    tracemalloc.start()
    found = analysis._condition(path, model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["measures"]["n"] == 60 * model.single.features.sample_rate_hz
    assert peak < 80e6


def test_events_of_a_truncated_file_end_with_it(model, tmp_path):
    path = tmp_path / "cut.mp3"
    soundfile.write(path, tone(2, 0, 60.0, 22_050), 22_050)
    os.truncate(path, path.stat().st_size // 3)
    always = model.about["timeline"] | {"on": 0.0, "off": 0.0}
    made = analysis.analyse(path, dataclasses.replace(model, about=model.about | {"timeline": always}))
    events = made.timeline.events
    assert (
        10 < made.prediction.duration_s < 25
        and len(events)
        and len(made.timeline.scores) == math.ceil(made.prediction.duration_s)
    )
    assert (events.start_s < events.end_s).all() and (events.end_s <= made.prediction.duration_s).all()


def test_the_json_explains_each_of_its_fields():
    written = json.loads(analysis.to_json(made_up_analysis()))
    parts = ("file", "segment", "timeline", "condition")
    inner = {f"{part}.{name}" for part in parts for name in written[part]}
    assert inner | set(written) - {*parts, "fields"} == set(written["fields"])
    assert written["condition"]["measures"]["inharmonicity"] is None
    assert written["answer"] == "piano" and sum(written["probabilities"].values()) == pytest.approx(1)
    assert json.loads(analysis.to_json(made_up_analysis(named=False)))["answer"] is None


def test_the_example_is_the_same_each_time_and_the_page_opens_without_a_synthesiser(tmp_path, page_folder, monkeypatch):
    first = analysis.example_clip(tmp_path).read_bytes()
    signal, rate_hz = soundfile.read(analysis.example_clip(tmp_path))
    assert (tmp_path / "example.wav").read_bytes() == first and len(signal) == 9 * rate_hz
    assert all(np.abs(part).max() > 0.05 for part in np.split(signal, 3))

    def none() -> str:
        raise CorpusError("no synthesiser")

    monkeypatch.setattr(sampler, "engine_name", none)
    with page.opened(page_folder) as address:
        assert requests.get(address, timeout=20).status_code == 200


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_a_result_holds_its_figures_and_downloads_and_requests_nothing():
    html = page.result_page(made_up_analysis())
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', html)
    assert "http" not in re.sub(r'"data:[^"]*"', "", html)
    content = {kind: base64.b64decode(text) for kind, text in re.findall(r'href="data:([\w/]+);base64,([^"]*)"', html)}
    assert content["application/pdf"].startswith(b"%PDF-")
    assert json.loads(content["application/json"])["answer"] == "piano"
    pictures = re.findall(r"<img [^>]*>", html)
    assert len(pictures) == 2 and all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)


@pytest.mark.parametrize(
    "name", ['<img src=x onerror="alert(1)">.wav', "${alert(1)}.wav", "{{value}}.wav", '" onload="x.wav']
)
def test_a_hostile_name_stands_in_the_page_as_text(name):
    html = page.result_page(made_up_analysis(name=name))
    assert not any(part in html for part in (name, "<img src=x", "${", "{{", '" onload'))


# -- what is served ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(page_folder):
    with page.opened(page_folder) as address:
        yield address


def call(address: str, data: list, *, function: int = 0, session: str = "test") -> requests.Response:
    body = {"data": data, "fn_index": function, "session_hash": session, "event_data": None, "trigger_id": 1}
    return requests.post(f"{address}gradio_api/queue/join", json=body, timeout=20)


def test_it_is_served_on_this_machine_and_says_which_model_it_uses(address, model):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    config = requests.get(address + "config", timeout=20).json()
    intro = config["components"][0]["props"]["value"]
    assert model.name in intro and f"{model.about['scores']['accuracy']['estimate']:.2f}" in intro


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("", {"Host": "evil.example"}, 400),  # a foreign name may point to this machine
        *((path, {}, 404) for path in ("docs", "openapi.json", "gradio_api/info", "gradio_api/openapi.json")),
        *((path, {}, 404) for path in ("gradio_api/runs", "monitoring/summary", "gradio_api/call/answer")),
        ("gradio_api/proxy=http://example.org/", {}, 404),
        ("gradio_api/file=http://example.org/x.wav", {}, 404),
        ("gradio_api/file=/etc/passwd", {}, 403),
        ("gradio_api/file=/proc/self/environ", {}, 403),
        ("gradio_api/file=/../etc/passwd", {}, 403),
    ],
)
def test_nothing_else_is_served(address, path, headers, status):
    found = requests.get(address + path, headers=headers, timeout=20).status_code
    assert found == status or (status == 403 and found == 404)


def test_neither_an_address_nor_a_file_that_was_not_uploaded_is_read(address, tmp_path, monkeypatch):
    asked = []
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: asked.append(host) or original(host, *a, **k))
    hostile = [{"path": path} for path in ("/etc/passwd", str(write_tone(tmp_path / "mine.wav", duration_s=3)))]
    hostile += [{"path": "http://example.org/x.wav"}, {"path": "http://example.org/x.wav", "is_stream": True}]
    hostile += [{"path": "https://example.org/x.wav", "url": "http://example.org/x.wav"}]
    for (number, file), function in itertools.product(enumerate(hostile), (0, 1)):
        recording, session = file | {"meta": {"_type": "gradio.FileData"}}, f"{function}{number}"
        assert call(address, [recording], function=function, session=session).status_code == 200
        where = {"url": f"{address}gradio_api/queue/data", "params": {"session_hash": session}}
        with requests.get(**where, stream=True, timeout=20) as answer:
            messages = (json.loads(line.removeprefix(b"data:") or b"{}") for line in answer.iter_lines())
            ended = next(one for one in messages if one.get("msg") == "process_completed")
        assert ended["success"] is False
        assert "root:" not in json.dumps(ended) and "data:" not in json.dumps(ended)
    assert (tmp_path / "mine.wav").exists() and not [host for host in asked if "example" in str(host)]


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "null"])
def test_requests_of_other_sites_are_refused(address, origin):
    for path in ("", "gradio_api/upload", "gradio_api/queue/join"):
        answer = requests.post(address + path, headers={"Origin": origin}, files={"files": ("a.wav", b"1")}, timeout=20)
        assert answer.status_code == 403
    assert requests.get(address, headers={"Origin": address.rstrip("/")}, timeout=20).status_code == 200


def test_a_file_that_is_too_large_is_refused_by_the_server(address, monkeypatch):
    import gradio

    # A page that another test has closed may have had the same port.
    for served in gradio.Blocks.get_instances():
        if served.local_url == address:
            monkeypatch.setattr(served, "max_file_size", 1000)
    answer = requests.post(f"{address}gradio_api/upload", files={"files": ("big.wav", bytes(5000))}, timeout=20)
    assert answer.status_code == 413


def test_a_taken_port_another_failure_and_a_missing_model_are_told_apart(address, page_folder, tmp_path, monkeypatch):
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"{port}.*--port"), page.opened(page_folder, port=port):
        pass
    with pytest.raises(RunError, match=tmp_path.name), page.opened(tmp_path):
        pass

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradio.Blocks.launch", full)
    with pytest.raises(ConfigError, match="No space"), page.opened(page_folder, port=1):
        pass


def test_it_leaves_the_environment_as_it_was_and_no_file_behind(page_folder, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/nowhere")
    before = dict(os.environ)
    with page.opened(page_folder):
        uploads = Path(os.environ["GRADIO_TEMP_DIR"])
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and "127.0.0.1" in os.environ["NO_PROXY"]
        assert uploads.stat().st_mode & 0o077 == 0
    assert dict(os.environ) == before and not uploads.exists()


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


# -- uploads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path):
    (tmp_path / "uploads").mkdir()
    return page.Waiting(tmp_path / "uploads")


def uploaded(waiting, content: bytes = b"1") -> Path:
    """Write an upload as Gradio does: equal contents have the same path, and a later one replaces an earlier one."""
    path = waiting.uploads / content.hex() / "a.wav"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def test_a_waiting_recording_outlives_its_upload_and_both_go_after_the_analysis(waiting):
    """Gradio removes old uploads, also before the turn of a page in the queue."""
    waiting.replace("first", uploaded(waiting))
    waiting.replace("second", uploaded(waiting, b"2"))
    uploaded(waiting, b"2").unlink()
    for page_, content in (("first", b"1"), ("second", b"2")):
        with waiting.taken(page_) as path:
            assert path.read_bytes() == content and path.name == "a.wav"
    with waiting.taken("second") as path:
        assert path is None, "nothing waits any more"
    assert not [path for path in waiting.uploads.parent.rglob("*") if path.is_file()]


def test_the_end_of_one_analysis_leaves_the_same_recording_of_another_user(waiting):
    waiting.replace("first", uploaded(waiting))
    with waiting.taken("first"):
        waiting.replace("second", uploaded(waiting).rename(waiting.uploads / "31" / "a.wav"))
        last = uploaded(waiting)  # a third user has uploaded it, but the page has not received it yet
    assert last.exists()
    with waiting.taken("second") as path:
        assert path.read_bytes() == b"1"


def test_a_later_recording_replaces_one_that_waits_and_not_one_that_is_analysed(waiting):
    waiting.replace("page", uploaded(waiting))
    with waiting.taken("page") as first:
        for content in (b"2", b"3"):
            waiting.replace("page", uploaded(waiting, content))
        assert first.read_bytes() == b"1"
    waiting.replace("other", uploaded(waiting))
    waiting.replace("other", None)
    for name, content in (("page", b"3"), ("other", None)):
        with waiting.taken(name) as path:
            assert (path and path.read_bytes()) == content


def test_what_is_no_upload_and_a_page_with_a_hostile_name_are_harmless(waiting, tmp_path):
    mine = write_tone(tmp_path / "mine.wav", duration_s=1)
    for path in (mine, waiting.uploads / "31" / ".." / ".." / "mine.wav"):
        with pytest.raises(ValueError, match="mine"):
            waiting.replace("page", str(path))
    waiting.replace("../../mine.wav", None)
    waiting.replace("../../uploads", uploaded(waiting))
    assert mine.exists() and uploaded(waiting).exists()
