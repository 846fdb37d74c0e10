"""The web page for your own recordings, served by Gradio on this machine.

The server accepts connections from 127.0.0.1 only and contacts no other host. Uploads are removed after the analysis.
Results are embedded in the page, so that no other user can fetch them from the server.
"""

import atexit
import base64
import contextlib
import html
import importlib.resources
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import instrlib
from instrlib import charts
from instrlib.audio.decode import load
from instrlib.core.io import ConfigError, InstrlibError
from instrlib.deploy.analysis import MAX_DURATION_S, NARROW, analyse, content, drawn, example_clip, pdf, to_json
from instrlib.deploy.players import PLAYER_RATE_HZ, mp3
from instrlib.models.published import PublishedModel, open_model

if TYPE_CHECKING:
    import gradio

    from instrlib.deploy.analysis import Analysis

HOST = "127.0.0.1"
MAX_MB = 200
"""Ten minutes of stereo at CD quality have 106 MB."""

_AT_ONCE = 2
_MAX_WAITING = 20
_KEPT_SESSIONS = 50
_STRAY_AGE_S = 900  # of uploads that were interrupted, or whose page was closed before the analysis
_SWEEP_EVERY_S = 60
_TITLE = "Which instrument is it?"
_INTRO = """<div class="intro"><h1>{}</h1><p>Upload a recording to see its instrument, a timeline, a saliency map
and the condition of the instrument. It stays on this machine and is removed after the analysis. An example is shown
below.</p><p class="model">Model: {}. {}</p></div>"""
_HINT = f"""<p class="hint">wav, flac, ogg or mp3, up to {MAX_DURATION_S / 60:.0f} minutes and {MAX_MB} MB;
or use the microphone.</p>"""
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_ALLOWED_PATHS": "",
}


@contextlib.contextmanager
def opened(folder: Path | None = None, *, port: int | None = None) -> Iterator[str]:
    """Serve the page while the block runs and yield its address.

    Parameters
    ----------
    folder : Path, optional
        Model folder; for the default see `published.open_model`.
    port : int, optional
        Default: the first free port from 7860.
    """
    model = open_model(folder)
    with TemporaryDirectory(prefix="instrlib-page-") as uploads, _environment(uploads):
        kept = _Uploads(Path(uploads))
        page = _page(model, kept)
        try:
            _, address, _ = page.launch(**_launch_settings(port))
        except OSError as error:
            if port is not None and not _is_free(port):
                raise ConfigError(f"Port {port} is in use; choose another one with --port.") from error
            raise ConfigError(f"The page cannot be served: {error}") from error
        try:
            with kept.swept():
                yield address
        finally:
            page.close(verbose=False)


def serve(folder: Path | None, *, port: int | None, on_ready: Callable[[str], None]) -> None:
    """Serve the page until the process ends; `on_ready` receives the address."""
    for name in ("SIGTERM", "SIGHUP"):  # SIGHUP, sent when a terminal is closed, does not exist on Windows
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # set by nohup
            signal.signal(number, signal.default_int_handler)  # like Ctrl-C, so that uploads are removed
    with contextlib.suppress(KeyboardInterrupt), opened(folder, port=port) as address:
        on_ready(address)
        threading.Event().wait()


def show(folder: Path | None = None) -> Any:
    """Show the page in a notebook; it is served until the kernel ends."""
    from IPython.display import IFrame

    stack = contextlib.ExitStack()
    address = stack.enter_context(opened(folder))
    atexit.register(stack.close)
    return IFrame(address, "100%", 900, extras=['allow="microphone"'])


def result_page(analysis: "Analysis", *, sound: bytes | None = None) -> str:
    """Return an analysis as HTML with figures and downloads; `sound` is an mp3 for a player. File names are escaped."""
    wide, narrow = (drawn(analysis, width=width) for width in (charts.WIDTH, NARROW))
    files = {
        "pdf": _data_address("application/pdf", pdf(analysis, wide)),
        "json": _data_address("application/json", to_json(analysis).encode()),
    }
    sizes = {"wide": wide, "narrow": narrow}
    images = {
        name: {size: _data_address("image/svg+xml", figures[name].encode()) for size, figures in sizes.items()}
        for name in wide
    }
    page = _template().render(
        **content(analysis),
        stem=Path(analysis.name).stem,
        sound=sound and _data_address("audio/mpeg", sound),
        images=images,
        files=files,
    )
    # Gradio would replace these brackets in a file name.
    return page.replace("${", "&#36;{").replace("{{", "&#123;{")


# -- the page ----------------------------------------------------------------------------------------------------------


def _page(model: PublishedModel, uploads: "_Uploads") -> "gradio.Blocks":
    import gradio

    progress = gradio.Progress()

    def empty(recording: str | None, request: gradio.Request) -> tuple[str, str]:
        if recording is not None:
            uploads.wait(request.session_hash, Path(recording))
        return "", ""

    def answer(recording: str | None, request: gradio.Request, progress: Any = progress) -> tuple[str, str]:
        if recording is None:
            return "", ""
        path = Path(recording)
        with uploads.analysed(request.session_hash, path):
            try:
                analysis = analyse(path, model, on_progress=lambda share, stage: progress(0.9 * share, desc=stage))
                progress(0.9, desc="Drawing figures and PDF")
                return "", result_page(analysis)
            except InstrlibError as error:
                message = html.escape(str(error).replace(str(path), path.name))
                return f'<p class="refusal" role="alert">{message}</p>', ""

    first = _example(model, uploads.folder)
    with gradio.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gradio.HTML(_INTRO.format(_TITLE, *map(html.escape, (model.name, model.performance))))
        sources = ["upload", "microphone"]
        look = {"editable": False, "buttons": [], "label": "Recording", "elem_id": "recording"}
        recording = gradio.Audio(sources=sources, type="filepath", **look)
        gradio.HTML(_HINT)
        status = gradio.HTML(elem_id="status")
        result = gradio.HTML(first, elem_id="result")
        # A recording that is given during an analysis waits; the last one is never lost.
        settings = {"api_visibility": "private", "trigger_mode": "always_last"}
        # The last result is removed first, so that the progress is shown in its place.
        emptied = {"fn": empty, "inputs": recording, "outputs": [status, result], "show_progress": "hidden", **settings}
        recording.clear(**emptied)
        gradio.on([recording.upload, recording.stop_recording], **emptied).then(
            answer, recording, [status, result], show_progress_on=status, concurrency_limit=_AT_ONCE, **settings
        )
    return page.queue(api_open=False, max_size=_MAX_WAITING)


def _example(model: PublishedModel, folder: Path) -> str:
    """Return the result page of the example, with a player."""
    path = example_clip(folder)
    analysis = analyse(path, model, name="Example: a tune played by a sampled violin")
    sound = mp3(load(path, sample_rate_hz=PLAYER_RATE_HZ), PLAYER_RATE_HZ)
    path.unlink()
    return result_page(analysis, sound=sound)


def _launch_settings(port: int | None) -> dict[str, Any]:
    import gradio
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_Guard)]
    return {
        "server_name": HOST,
        "server_port": port,
        "share": False,
        "inline": False,
        "inbrowser": False,
        "prevent_thread_lock": True,
        "quiet": True,
        "max_file_size": MAX_MB * 1_000_000,
        "state_session_capacity": _KEPT_SESSIONS,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None, "middleware": guards},
        "theme": gradio.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        "css": (importlib.resources.files(instrlib) / "templates" / "demo.css").read_text(encoding="utf-8"),
    }


@contextlib.contextmanager
def _environment(uploads: str) -> Iterator[None]:
    """Set environment variables for Gradio: the folder of uploads, no analytics, no proxy for this machine."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    no_proxy = dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, [known, HOST, "localhost"])))
    before = dict(os.environ)
    os.environ.update({**_SETTINGS, "GRADIO_TEMP_DIR": uploads, **no_proxy})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


class _Guard:
    """Serves only what the page itself requests.

    Blocks Gradio's documentation, its proxy, files given by address, and requests from other origins.
    """

    _SERVED = (
        *("/assets/", "/static/", "/theme.css", "/favicon.ico", "/manifest.json", "/config"),
        *(f"/gradio_api/{name}" for name in ("upload", "queue/", "heartbeat/", "startup-events", "file=/")),
    )

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and origin != b"http://" + headers.get(b"host", b""):
            await PlainTextResponse("Only requests of this page are accepted.", 403)(scope, receive, send)
            return
        path = scope["path"]
        if path != "/" and not path.startswith(self._SERVED):
            await PlainTextResponse("Not served here.", 404)(scope, receive, send)
            return
        if path.startswith("/gradio_api/queue/join"):
            body = await Request(scope, receive).body()
            if _names_an_address(body):
                await PlainTextResponse("Only files that were uploaded here are read.", 403)(scope, receive, send)
                return
            receive = _replayed(body, receive)
        await self._app(scope, receive, send)


def _names_an_address(body: bytes) -> bool:
    """Return whether a call names a file by a URL instead of the path of an upload."""

    def look(value: Any) -> bool:
        if isinstance(value, dict):
            return "://" in str(value.get("path", "")) or any(map(look, value.values()))
        return isinstance(value, list) and any(map(look, value))

    try:
        return look(json.loads(body))
    except ValueError:
        return True


def _replayed(body: bytes, receive: Any) -> Any:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Any:
        message = next(messages, None)
        return await receive() if message is None else message

    return again


class _Uploads:
    """Uploads, each removed when no page needs it any more.

    Gradio names the folder of an upload by its content, so two users can share a path. If a page makes several uploads
    while it waits, only the last one is analysed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._lock = threading.Lock()
        self._waiting: dict[str | None, list[Path]] = {}
        self._used: Counter[Path] = Counter()

    def wait(self, page: str | None, path: Path) -> None:
        """Queue a recording of a page."""
        with self._lock:
            self._waiting.setdefault(page, []).append(path.resolve())

    @contextlib.contextmanager
    def analysed(self, page: str | None, path: Path) -> Iterator[None]:
        """Keep a recording while the block runs, then remove it."""
        path = path.resolve()
        with self._lock:
            self._used[path] += 1
            given = self._waiting.pop(page, [])
            n_passed = given.index(path) + 1 if path in given else 0
            if given[n_passed:]:
                self._waiting[page] = given[n_passed:]
            for passed in set(given[:n_passed]):
                self._let_go(passed)
        try:
            yield
        finally:
            with self._lock:
                self._used[path] -= 1
                self._let_go(path)

    @contextlib.contextmanager
    def swept(self) -> Iterator[None]:
        """Call `sweep` regularly while the block runs."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(_SWEEP_EVERY_S):
                self.sweep()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def sweep(self) -> None:
        """Remove old files that are neither queued nor being analysed, such as interrupted uploads."""
        oldest = time.time() - _STRAY_AGE_S
        with self._lock:
            needed = {path for path, users in self._used.items() if users}.union(*self._waiting.values())
            for path in list(self.folder.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_mtime < oldest and path not in needed:
                        self._remove(path)

    def _let_go(self, path: Path) -> None:
        if not self._used[path] and not any(path in given for given in self._waiting.values()):
            del self._used[path]
            self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove an upload and its folder; files outside the folder of uploads are kept."""
        if not path.is_relative_to(self.folder):
            return
        path.unlink(missing_ok=True)
        if path.parent != self.folder:
            with contextlib.suppress(OSError):  # not empty if the same file was given under two names
                path.parent.rmdir()


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("instrlib"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("analysis.html")
