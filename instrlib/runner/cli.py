"""The command `instrlib`. What it needs is imported when a command runs, so that `--help` is there at once."""

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

from instrlib.core.errors import InstrlibError
from instrlib.core.io import expanded

if TYPE_CHECKING:
    from rich.console import Console

    from instrlib.models.predict import Prediction


_RESUMED = ("study", "download", "notebooks", "trials")
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
Data = Annotated[str, typer.Option(help="Folder of the corpus; data/<corpus> when empty.", metavar="FOLDER")]
Profile = Annotated[str, typer.Option(help="Size of the study: smoke, quick or full.", metavar="NAME")]
Seeds = Annotated[int, typer.Option(min=1, metavar="N", help="How many seeds each network is trained with.")]
Recordings = Annotated[
    list[Path], typer.Argument(help="wav, flac, ogg or mp3 files of any length, or folders of them.", metavar="FILE...")
]
Model = Annotated[str, typer.Option(help="Model folder; the one published last when empty.", metavar="FOLDER")]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, metavar="N", envvar="INSTRLIB_DEMO_PORT", help="The first free one from 7860 on."),
]
Compared = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--compare",
        metavar="STUDY STUDY",
        help="Two studies, or two versions of one: names, folders, results.json files, or NAME@REVISION of git.",
    ),
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
def study(corpus: Corpus = "rendered", data: Data = "", profile: Profile = "quick", seeds: Seeds = 3) -> None:
    """Run the notebooks in order, each only when something has changed, and publish their results."""
    from instrlib.runner.study import run_study
    from instrlib.runner.terminal import TerminalWatcher

    watcher = TerminalWatcher(_console(stderr=True))
    outcome = run_study(corpus=corpus, data=data, profile=profile, seeds=seeds, watcher=watcher)
    places = {"results": outcome.results, "figures": outcome.figures, "notebooks and their pages": outcome.pages}
    _say_where(places | _write_reports(outcome.study))


@main.command(epilog=_examples("instrlib status"))
def status() -> None:
    """Show how every notebook stands in every study."""
    from instrlib.runner import study
    from instrlib.runner.terminal import in_words

    states = study.status()
    if not states:
        typer.echo("Nothing has been run yet; start with: instrlib study")
        return
    rows = [
        (
            state.study,
            state.notebook,
            state.state,
            f"{state.when:%Y-%m-%d %H:%M}" if state.when else "",
            in_words(state.duration_s) if state.duration_s is not None else "",
            state.detail,
        )
        for state in states
    ]
    _table(("study", "notebook", "state", "when", "took", "detail"), rows)


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
    from instrlib.core.errors import AudioError, ConfigError
    from instrlib.models.predict import predict_file, recordings
    from instrlib.models.published import open_model

    if as_json and as_csv:
        raise ConfigError("Give --json or --csv, not both.")
    published = open_model(Path(model) if model else None)
    heard, n_bad, interrupted = [], 0, False
    with _share_done(_console(stderr=True)) as tell:
        paths = recordings(files)
        for number, path in enumerate(paths):
            try:
                if isinstance(path, AudioError):
                    raise path
                heard.append(predict_file(path, published, on_progress=partial(tell, number, len(paths))))
            except AudioError as error:
                n_bad += 1
                _say_error(error)
            except KeyboardInterrupt:
                interrupted = True
                break
    _show_predictions(heard, published.name, top=top, as_json=as_json, as_csv=as_csv)
    if interrupted:
        _say_error(f"interrupted; {len(heard)} of {len(paths)} files were heard.")
        raise typer.Exit(_INTERRUPTED)
    if n_bad:
        raise typer.Exit(1)


@main.command(epilog=_examples("instrlib demo", "instrlib demo --port 8000"))
def demo(model: Model = "", port: Port = None) -> None:
    """Serve a page on this machine alone, on which to try your own recordings."""
    typer.echo("Getting the page ready; this takes a few seconds.")
    from instrlib.deploy.page import serve

    serve(
        Path(model) if model else None,
        port=port,
        on_ready=lambda address: typer.echo(f"Open {address} in a browser; Ctrl-C ends it."),
    )


@main.command(epilog=_examples("instrlib corpora"))
def corpora() -> None:
    """List the corpora: names, labels a clip, licences, sizes, and what of them is on disk."""
    from instrlib.data import corpora

    known = [corpora.info(name) for name in corpora.NAMES]
    rows = [
        (
            info.name,
            info.title,
            "several" if info.multilabel else "one",
            info.licence,
            info.size,
            corpora.on_disk(info.name),
        )
        for info in known
    ]
    _table(("name", "title", "labels a clip", "licence", "size", "on disk"), rows)


@main.command(
    epilog=_examples("instrlib download fsdkaggle2018", "instrlib download fsdkaggle2018 --data /mnt/audio/fsd")
)
def download(name: Name, data: Data = "") -> None:
    """Fetch a corpus from its publisher; an interrupted download is resumed."""
    from instrlib.data import corpora

    info = corpora.info(name)
    for what, value in {
        "": info.title,
        "Licence: ": info.licence,
        "Cite as: ": info.citation,
        "Size: ": info.size,
    }.items():
        if value:
            typer.echo(what + value)
    place = expanded(data) if data else None
    corpora.download(name, place)
    typer.echo(f"{name}: {corpora.on_disk(name, place)}")


@main.command(epilog=_examples("instrlib validate fsdkaggle2018", "instrlib validate folder --data ~/my-instruments"))
def validate(name: Name, data: Data = "") -> None:
    """Check a corpus on disk; exit code 1 when something is wrong."""
    from instrlib.data import corpora

    place = expanded(data) if data else None
    findings = corpora.validate(name, place)
    for finding in findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(1)
    typer.echo(f"{name}: nothing wrong; {corpora.on_disk(name, place)}")


@main.command(epilog=_examples("instrlib figures", "instrlib figures --corpus fsdkaggle2018"))
def figures(corpus: Corpus = "rendered", profile: Profile = "quick") -> None:
    """Draw a study's figures again from its stored arrays; nothing is trained."""
    from instrlib.runner.publish import figures_folder, redraw
    from instrlib.runner.run import study_name

    name = study_name(corpus, profile)
    drawn = redraw(name)
    typer.echo(f"{len(drawn)} figures in {_near(figures_folder(name))}")


@main.command(
    epilog=_examples(
        "instrlib report",
        "instrlib report --corpus fsdkaggle2018",
        "instrlib report --compare rendered-quick fsdkaggle2018-quick",
        "instrlib report --compare rendered-quick@v1.0 rendered-quick",
    )
)
def report(corpus: Corpus = "rendered", profile: Profile = "quick", compare: Compared = None) -> None:
    """Write a study's report and cards from its stored results, or put two studies side by side."""
    if compare:
        _compare(*compare)
        return
    from instrlib.runner.run import study_name

    _say_where(_write_reports(study_name(corpus, profile)))


@main.command(hidden=True, epilog=_examples("instrlib notebooks"))
def notebooks() -> None:
    """Bring the outputs of the committed notebooks and the README's table up to date."""
    from instrlib.reporting import readme
    from instrlib.runner.study import execute_demo, execute_in_place
    from instrlib.runner.terminal import TerminalWatcher

    for path in [*execute_in_place(watcher=TerminalWatcher(_console(stderr=True))), execute_demo()]:
        typer.echo(f"{_near(path)}: outputs up to date")
    readme.main()


@main.command(hidden=True, epilog=_examples("instrlib trials", "instrlib trials simple 'two fonts'"))
def trials(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes; all when left out.", metavar="NAME...")] = None,
    seeds: Seeds = 2,
) -> None:
    """Try every recipe for training on rendered sounds and write the log that notebook 13 shows; hours."""
    from instrlib.core.config import folders, get_profile
    from instrlib.studies import trials as recipes

    profile, rows = get_profile("quick"), []
    for trial in recipes.chosen(names):
        place = folders().runs / "trials" / trial.name
        answered = recipes.hear(trial, place, profile=profile, seeds=range(seeds))
        rows.append(recipes.row(trial, answered, n_resamples=profile.n_bootstrap))
        typer.echo(f"{trial.name}: {rows[-1][recipes.JUDGE]:.3f} by {recipes.JUDGE}")
    if not names:
        recipes.write_log(rows, seeds=range(seeds))
        typer.echo(f"Log: {_near(recipes.log_path())}")


def _write_reports(name: str) -> dict[str, Path]:
    """Write report and cards of a study, and return where they are."""
    from instrlib.reporting.cards import write_cards
    from instrlib.reporting.render import write_report
    from instrlib.reporting.summary import open_study

    study = open_study(name)
    page, pdf = write_report(study)
    return {"report": page, "PDF": pdf} | dict(zip(("data card", "model card"), write_cards(study), strict=False))


def _compare(first: str, second: str) -> None:
    from instrlib.reporting import compare

    found = compare.compare(first, second)
    for name, header in found.headers().items():
        if rows := getattr(found, name)[:40]:
            _table(header, rows)
    typer.echo(compare.agreement(found.first, found.second))
    _say_where({"page": compare.write_page(found)})


def _say_where(places: dict[str, Path]) -> None:
    for what, path in places.items():
        typer.echo(f"{what[0].upper()}{what[1:]}: {_near(path)}")


def _show_predictions(heard: Sequence["Prediction"], model: str, *, top: int, as_json: bool, as_csv: bool) -> None:
    if as_json:
        import json

        rows = [
            {
                "file": os.fspath(one.path),
                "duration_s": round(one.duration_s, 3),
                "answer": one.named[0] if one.named else None,
                "top": [{"class": name, "probability": share} for name, share in one.top(top)],
                "model": model,
            }
            for one in heard
        ]
        typer.echo(json.dumps(rows, indent=2))  # in ASCII: a file's name need not be text
        return
    if as_csv:
        import csv
        import io

        n_shown = min(top, max((len(one.classes) for one in heard), default=top))
        columns = [f"{what}_{number}" for number in range(1, n_shown + 1) for what in ("class", "probability")]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "duration_s", "answer", *columns, "model"])
        for one in heard:
            best = [value for name, share in one.top(top) for value in (name, f"{share:.6f}")]
            writer.writerow([_text(one.path), f"{one.duration_s:.3f}", *(one.named or ("",)), *best, model])
        typer.echo(text.getvalue(), nl=False)
        return
    rows = [
        (
            _printable(_text(one.path)),
            f"{one.duration_s // 60:.0f}:{one.duration_s % 60:04.1f}",
            one.named[0] if one.named else "none of these",
            ", ".join(f"{name} {100 * share:.0f} %" for name, share in one.top(top)),
        )
        for one in heard
    ]
    if rows:
        _table(("file", "min:s", "answer", "most probable"), rows)


@contextlib.contextmanager
def _share_done(console: "Console") -> Iterator[Callable[[int, int, float], None]]:
    """Show a bar in a terminal; it is told the number of the file, how many there are, and the share done of it."""
    if not console.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("listening", total=1.0)
        yield lambda number, n_files, share: bar.update(task, completed=(number + share) / n_files)


def _text(path: Path) -> str:
    """Name a path in characters that can be written: a name need not be UTF-8."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _say_error(message: object) -> None:
    text = str(message).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    typer.echo(f"Error: {_printable(' '.join(text.split()))}", err=True)


def _fail(message: object) -> None:
    _say_error(message)
    raise typer.Exit(2)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table in a terminal, and columns between tabs everywhere else, where nothing is cut or folded."""
    console = _console()
    if not console.is_terminal:
        for row in [header, *rows]:
            typer.echo("\t".join(row))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)


def _near(path: Path) -> str:
    """Name a path from the working folder when it lies under it, and in full otherwise."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    main()
