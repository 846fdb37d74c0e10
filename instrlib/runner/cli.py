"""The command `instrlib`. What a command needs is imported when it runs, so that `--help` is there at once."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from instrlib.core.errors import ConfigError, InstrlibError

if TYPE_CHECKING:
    from instrlib.models.predict import Prediction

_RESUMED = ("study", "download", "notebooks")
_INTERRUPTED = 130  # as a shell counts a command that Ctrl-C ended


class _Commands(TyperGroup):
    """Turns what a user can cause into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a file's name can hold what the terminal cannot show
        try:
            return super().invoke(ctx)
        except InstrlibError as error:
            _fail(error)
        except BrokenPipeError:
            raise
        except OSError as error:
            _fail(f"{error.strerror or error}: {error.filename}" if error.filename else error)
        except KeyboardInterrupt:
            if ctx.invoked_subcommand in _RESUMED:
                _fail("interrupted; the same command goes on where it was.")
            _say_error("interrupted.")
            raise typer.Exit(_INTERRUPTED) from None


main = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A reproducible study of musical instrument recognition, from raw audio to its report.",
    epilog="Start with: instrlib study",
)

Corpus = Annotated[str, typer.Option(help="Name of the corpus; see: instrlib corpora", metavar="NAME")]
Data = Annotated[str, typer.Option(help="Folder of the corpus. Default: data/<corpus>.", metavar="FOLDER")]
Profile = Annotated[str, typer.Option(help="Size of the study: smoke, quick or full.", metavar="NAME")]
Seeds = Annotated[int, typer.Option(min=1, metavar="N", help="Number of seeds of each network.")]
Only = Annotated[list[str] | None, typer.Option(help="Run this notebook alone; can be repeated.", metavar="NOTEBOOK")]
Study = Annotated[str, typer.Argument(help="Name of the study, such as rendered-quick.", metavar="STUDY")]
Local = Annotated[bool, typer.Option("--local", help="The study in runs/, not the published one.")]
Recordings = Annotated[
    list[Path], typer.Argument(help="wav, flac, ogg or mp3 files of any length, or folders of them.", metavar="FILE...")
]
Model = Annotated[str, typer.Option(help="Model folder. Default: the published model.", metavar="FOLDER")]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, metavar="N", envvar="INSTRLIB_DEMO_PORT", help="Default: the first free one."),
]
Compared = Annotated[
    tuple[str, str] | None,
    typer.Option("--compare", metavar="STUDY STUDY", help="Compare names, folders, or NAME@REVISION of git."),
]
Name = Annotated[str, typer.Argument(help="Name of the corpus; see: instrlib corpora", metavar="NAME")]


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:", *lines])


@main.command(
    epilog=_examples(
        "instrlib study",
        "instrlib study --profile full --seeds 5",
        "instrlib study --corpus fsdkaggle2018 --data ~/sound/FSDKaggle2018",
    )
)
def study(
    corpus: Corpus = "rendered", data: Data = "", profile: Profile = "quick", seeds: Seeds = 3, only: Only = None
) -> None:
    """Run the notebooks in order, each only when something has changed; results go to runs/."""
    from instrlib.core.config import folders, study_name
    from instrlib.runner.study import run_study

    say = partial(typer.echo, err=True)
    run_study(corpus=corpus, data=data, profile=profile, seeds=seeds, notebooks=only, say=say)
    if not only:
        _conclude(folders().runs.absolute() / study_name(corpus, profile, data))


@main.command(epilog=_examples("instrlib status"))
def status() -> None:
    """Show the state of every notebook in every local study, and which commits made the published ones."""
    from instrlib.runner import state
    from instrlib.runner.study import duration

    rows = [
        (
            one.study,
            one.notebook,
            one.state,
            f"{one.when:%Y-%m-%d %H:%M}" if one.when else "",
            duration(one.duration_s) if one.duration_s is not None else "",
            one.detail,
        )
        for one in state.status()
    ]
    if rows:
        _table(("study", "notebook", "state", "when", "took", "detail"), rows)
    else:
        typer.echo("No local study; start with: instrlib study")
    if published := state.published():
        _table(("published study", "commit", "notebooks"), [(name, made, str(n)) for name, made, n in published])


@main.command(epilog=_examples("instrlib publish rendered-quick"))
def publish(study: Study) -> None:
    """Copy a finished study from runs/ to reports/ and figures/, and to the notebooks where they show it."""
    from instrlib.core.config import folders
    from instrlib.reporting import readme
    from instrlib.runner.study import publish_study

    _write_reports(folders().runs.absolute() / study)
    written = publish_study(study)
    if any(path.suffix == ".ipynb" for path in written):
        readme.main()
    for path in written:
        typer.echo(f"{_near(path)}: up to date")


@main.command(
    epilog=_examples(
        "instrlib predict recording.wav", "instrlib predict *.mp3 --top 5 --csv", "instrlib predict takes/ --json"
    )
)
def predict(
    files: Recordings,
    model: Model = "",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many classes to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV.")] = False,
) -> None:
    """Name the instrument in recordings; exit code 1 when a file cannot be used."""
    from instrlib.core.errors import AudioError
    from instrlib.models.predict import predict_file, recordings
    from instrlib.models.published import open_model

    if as_json and as_csv:
        raise ConfigError("Give --json or --csv, not both.")
    published = open_model(Path(model) if model else None)
    typer.echo(f"Model: {published.name} in {_near(published.folder)}\n{published.performance}", err=True)
    heard, n_bad, interrupted = [], 0, False
    paths = recordings(files)
    with _bar(len(paths)) as tell:
        for number, path in enumerate(paths):
            try:
                if isinstance(path, AudioError):
                    raise path
                heard.append(predict_file(path, published, on_progress=partial(tell, number)))
            except AudioError as error:
                n_bad += 1
                _say_error(error)
            except KeyboardInterrupt:
                interrupted = True
                break
    _show_predictions(heard, published.name, top=top, as_json=as_json, as_csv=as_csv)
    if interrupted:
        _say_error(f"interrupted; {len(heard)} of {len(paths)} files were predicted.")
        raise typer.Exit(_INTERRUPTED)
    if n_bad:
        raise typer.Exit(1)


@main.command(epilog=_examples("instrlib demo", "instrlib demo --port 8000"))
def demo(model: Model = "", port: Port = None) -> None:
    """Serve a page on this machine alone, on which to try your own recordings."""
    typer.echo("Starting the page; this takes a few seconds.")
    from instrlib.deploy.page import serve

    ready = "Open {} in a browser; Ctrl-C ends it.".format
    serve(Path(model) if model else None, port=port, on_ready=lambda address: typer.echo(ready(address)))


@main.command(epilog=_examples("instrlib corpora"))
def corpora() -> None:
    """List the corpora: names, labels a clip, licences, sizes, and what of them is on disk."""
    from instrlib.data import corpora

    rows = []
    for info in map(corpora.info, corpora.NAMES):
        labels = "several" if info.multilabel else "one"
        rows.append((info.name, info.title, labels, info.licence, info.size, corpora.on_disk(info.name)))
    _table(("name", "title", "labels a clip", "licence", "size", "on disk"), rows)


@main.command(
    epilog=_examples("instrlib download fsdkaggle2018", "instrlib download fsdkaggle2018 --data /mnt/audio/fsd")
)
def download(name: Name, data: Data = "") -> None:
    """Fetch a corpus from its publisher; an interrupted download is resumed."""
    from instrlib.data import corpora

    info = corpora.info(name)
    for what, value in (("", info.title), ("Licence: ", info.licence), ("Cite as: ", info.citation)):
        if value:
            typer.echo(what + value)
    typer.echo(f"Size: {info.size}")
    place = _place(data)
    corpora.download(name, place)
    typer.echo(f"{name}: {corpora.on_disk(name, place)}")


@main.command(epilog=_examples("instrlib validate fsdkaggle2018", "instrlib validate folder --data ~/my-instruments"))
def validate(name: Name, data: Data = "") -> None:
    """Check a corpus on disk; exit code 1 when something is wrong."""
    from instrlib.data import corpora

    place = _place(data)
    wrong = corpora.validate(name, place)
    for line in wrong:
        typer.echo(line)
    if wrong:
        raise typer.Exit(1)
    typer.echo(f"{name}: nothing wrong; {corpora.on_disk(name, place)}")


@main.command(epilog=_examples("instrlib figures", "instrlib figures --corpus fsdkaggle2018 --local"))
def figures(corpus: Corpus = "rendered", data: Data = "", profile: Profile = "quick", local: Local = False) -> None:
    """Draw a study's figures again from its stored arrays; nothing is trained."""
    from instrlib.reporting.summary import open_study
    from instrlib.runner.publish import redraw

    found = open_study(_results(corpus, profile, data, local=local))
    drawn = redraw(found.folder / "arrays", found.figures)
    typer.echo(f"{sum(drawn)} of {len(drawn)} figures drawn in {_near(found.figures)}")
    if not all(drawn):
        typer.echo("The others are of another version and stay as they were published.")


@main.command(
    epilog=_examples(
        "instrlib report",
        "instrlib report --corpus fsdkaggle2018 --local",
        "instrlib report --compare rendered-quick runs/rendered-quick",
        "instrlib report --compare rendered-quick@v1.0 rendered-quick",
    )
)
def report(
    corpus: Corpus = "rendered",
    data: Data = "",
    profile: Profile = "quick",
    local: Local = False,
    compare: Compared = None,
) -> None:
    """Write a study's report and cards from its stored results, or compare two studies."""
    if compare:
        from instrlib.reporting import compare as comparing

        compared = comparing.compare(*compare)
        for name, header in compared.headers().items():
            if rows := getattr(compared, name)[:40]:
                _table(header, rows)
        typer.echo(comparing.agreement(compared.first, compared.second))
        written = [comparing.write_page(compared)]
    else:
        written = _write_reports(_results(corpus, profile, data, local=local))
    for path in written:
        typer.echo(_near(path))


@main.command(hidden=True, epilog=_examples("instrlib notebooks"))
def notebooks() -> None:
    """For maintainers: run the study that the notebooks show, and publish it."""
    from instrlib.core.config import study_name
    from instrlib.runner.notebooks import numbered_notebooks

    own = numbered_notebooks()[0].parameters
    study(**own)
    publish(study_name(own["corpus"], own["profile"], own["data"]))


def _results(corpus: str, profile: str, data: str, *, local: bool) -> Path:
    from instrlib.core.config import folders, study_name

    return (folders().runs if local else folders().reports).absolute() / study_name(corpus, profile, data)


def _write_reports(folder: Path) -> list[Path]:
    """Write report and cards of a study beside its results."""
    from instrlib.reporting.cards import write_cards
    from instrlib.reporting.render import write_report
    from instrlib.reporting.summary import open_study

    found = open_study(folder)
    return [*write_cards(found).values(), *write_report(found)]


def _conclude(folder: Path) -> None:
    """Write the reports of a local study where something has changed, and compare it with the published one."""
    from instrlib.core.cache import code_hash
    from instrlib.core.config import folders
    from instrlib.core.io import hash_file, hash_json, write_text
    from instrlib.reporting.compare import agreement
    from instrlib.reporting.summary import open_study

    mark = folder / ".report"
    key = hash_json([hash_file(folder / "results.json"), code_hash("reporting")])
    if not (mark.is_file() and mark.read_text() == key):
        _write_reports(folder)
        write_text(mark, key)
    typer.echo(f"Results, figures, report and model: {_near(folder)}")
    if (folders().reports / folder.name / "results.json").is_file():
        typer.echo(agreement(open_study(folder), open_study(folder.name)))


def _show_predictions(heard: Sequence["Prediction"], model: str, *, top: int, as_json: bool, as_csv: bool) -> None:
    rows: list[Any] = []
    for one in heard:
        answer, best = (one.named[0] if one.named else None), one.top(top)
        if as_json:
            named = [{"class": name, "probability": share} for name, share in best]
            path, seconds = os.fspath(one.path), round(one.duration_s, 3)
            rows.append({"file": path, "duration_s": seconds, "answer": answer, "top": named, "model": model})
        elif as_csv:
            shares = [value for name, share in best for value in (name, f"{share:.6f}")]
            rows.append([_text(one.path), f"{one.duration_s:.3f}", answer or "", *shares, model])
        else:
            length = f"{one.duration_s // 60:.0f}:{one.duration_s % 60:04.1f}"
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in best)
            rows.append((_printable(_text(one.path)), length, answer or "none of these", shares))
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))  # in ASCII: a file's name need not be text
    elif as_csv:
        import csv

        n_shown = min(top, max((len(one.classes) for one in heard), default=top))
        columns = [f"{what}_{number}" for number in range(1, n_shown + 1) for what in ("class", "probability")]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([["file", "duration_s", "answer", *columns, "model"], *rows])
        typer.echo(text.getvalue(), nl=False)
    elif rows:
        _table(("file", "min:s", "answer", "most probable"), rows)


@contextlib.contextmanager
def _bar(n_files: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar in a terminal; it is told the number of the file and the share done of it."""
    from tqdm import tqdm

    with tqdm(total=100, leave=False, disable=None, bar_format="{l_bar}{bar}") as bar:
        yield lambda number, share: bar.update(100 * (number + share) / n_files - bar.n)


def _place(data: str) -> Path | None:
    from instrlib.core.io import expanded

    return expanded(data) if data else None


def _text(path: object) -> str:
    """Return a path or message in characters that can be written: a file's name need not be UTF-8."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _say_error(message: object) -> None:
    typer.echo(f"Error: {_printable(' '.join(_text(message).split()))}", err=True)


def _fail(message: object) -> None:
    _say_error(message)
    raise typer.Exit(2)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table in aligned columns in a terminal, and in columns between tabs everywhere else."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        aligned = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.echo(aligned if sys.stdout.isatty() else "\t".join(row))


def _near(path: Path) -> str:
    """Return a path from the working folder when it is in it, and in full otherwise."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    main()
