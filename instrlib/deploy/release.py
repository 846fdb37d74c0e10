"""The model that a study gives away: chosen on validation, converted, calibrated, scored as the file that it is.

What comes out is a model folder, which `published` reads.
"""

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from instrlib.audio.features import Scaler, extract
from instrlib.core.backend import load_keras
from instrlib.core.cache import code_hash, commit, versions
from instrlib.core.config import FeatureConfig, TrainConfig
from instrlib.core.errors import EvaluationError, RunError
from instrlib.core.io import (
    atomic_path,
    hash_file,
    hash_json,
    read_arrays,
    read_json,
    to_jsonable,
    write_json,
    write_text,
)
from instrlib.core.parallel import parallel_map
from instrlib.data import corpora
from instrlib.data.inputs import Inputs
from instrlib.data.rendered import sources as soundfont
from instrlib.data.splits import load_split
from instrlib.data.store import FeatureStore
from instrlib.evaluation import statistics
from instrlib.evaluation.calibration import (
    answer_thresholds,
    fit_label_temperature,
    fit_temperature,
    is_named,
    refusals,
    sigmoid,
    softmax,
)
from instrlib.evaluation.metrics import CLASS_SCORES, best_thresholds, clip_probabilities, scores
from instrlib.evaluation.predictions import Predictions
from instrlib.evaluation.statistics import class_table, nested
from instrlib.models import export, published
from instrlib.models.answers import answer_test, read_test
from instrlib.models.layers import output_of
from instrlib.models.published import CARD, FILES, FORMAT, RECORD, Network, PublishedModel
from instrlib.models.train import validation_examples
from instrlib.models.trained import COMPLETE, load_model, open_trained, part_segments, summary
from instrlib.models.variants import run_folder
from instrlib.runner.run import Run
from instrlib.studies import saliency

if TYPE_CHECKING:
    import keras

MAX_BYTES = 200_000
"""The model folder that is committed stays under this, but for its card; a kB is 1000 bytes."""

MAX_PARAMETERS = 90_000
"""Of a network with a byte a weight, two of which fit into such a folder. A corpus of so many classes that even the
smallest network has more is given away all the same."""

MIN_AGREEMENT = 0.9
"""Share of the validation answers that a converted file must give as its network does, or nearly so."""

_NEARLY = 0.05
"""An answer that the network finds so little less probable than its own is no other answer: weights of a byte decide
ties as they fall."""

N_NOISES = 20
"""Segments of each kind of noise that a model is given."""

_KIND = "dynamic int8"
_SYNTHESISED = "rendered"
"""The corpus whose clips are played by a synthesiser; what was learned from it is said to be so."""

_INTERVAL = ("estimate", "low", "high")

_NOISES = ("white noise", "pink noise", "brown noise", "mains hum", "clicks")


@dataclass(frozen=True)
class Candidate:
    """Networks that were trained alike, one for each seed and fold.

    Attributes
    ----------
    notebook : str
        Where they were trained.
    name : str
        What it calls them.
    folders : tuple of tuple of Path
        Run folders, first by seed, then by fold.
    inputs : Inputs, optional
        Features and splits that they were trained with, when these are not the study's; see `enlarge.enlarge`.
    """

    notebook: str
    name: str
    folders: tuple[tuple[Path, ...], ...]
    inputs: Inputs | None = None


@dataclass(frozen=True)
class Choice:
    """A network that was chosen.

    Attributes
    ----------
    candidate : Candidate
        Those that it is one of.
    seed, fold : int
        Which one.
    folder : Path
        Its run folder.
    table : pandas.DataFrame
        All candidates, the best first: `notebook`, `name`, `parameters`, `networks` (how many there are), the mean of
        the score on validation and `fits` (small enough).
    """

    candidate: Candidate
    seed: int
    fold: int
    folder: Path
    table: pd.DataFrame


@dataclass(frozen=True)
class Release:
    """A model folder and what was found while it was made.

    Attributes
    ----------
    model : PublishedModel
        The folder.
    before, after : dict
        `evaluation.Predictions` on the test part of the network as it was trained, and of the file.
    scores : pandas.DataFrame
        Of both; see `evaluation.compare_models`.
    validation : pandas.DataFrame
        One row a network, "as trained" and "calibrated": its scores on validation.
    """

    model: PublishedModel
    before: Predictions
    after: Predictions
    scores: pd.DataFrame
    validation: pd.DataFrame


def candidates(run: Run, n_folds: int) -> list[Candidate]:
    """List the softmax networks that a study has trained on the features of notebook 01.

    Parameters
    ----------
    run : Run
        Of the notebook that publishes; it uses the runs of 02, 03 and 04.
    n_folds : int
        Number of splits.

    Returns
    -------
    list of Candidate

    Raises
    ------
    RunError
        When one of the notebooks has not been run to its end.
    """
    baseline, cutmix, search = (run.other(name) for name in ("02_baseline_cnn", "03_cutmix", "04_random_search"))
    winners = [name for name in search.declared["numbers"]["trained"] if name.startswith("winner")]
    found = [Candidate(baseline.notebook, "compact CNN", places(baseline.folder, "compact CNN", run.seeds, n_folds))]
    for name in cutmix.declared["numbers"]["trained"]:
        found.append(Candidate(cutmix.notebook, name, places(cutmix.folder, name, run.seeds, n_folds)))
    for name in winners:  # each fold has a winner of its own
        by_seed = [
            tuple(run_folder(search.folder / f"fold-{fold}", name, fold=0, seed=seed) for fold in range(n_folds))
            for seed in run.seeds
        ]
        found.append(Candidate(search.notebook, name, tuple(by_seed)))
    return found


def places(folder: Path, name: str, seeds: Sequence[int], n_folds: int) -> tuple[tuple[Path, ...], ...]:
    """Return the run folders of a variant, first by seed, then by fold; see `variants.run_folder`."""
    return tuple(tuple(run_folder(folder, name, fold=fold, seed=seed) for fold in range(n_folds)) for seed in seeds)


def choose(found: Sequence[Candidate], *, score: str = "accuracy", fold: int | None = None) -> Choice:
    """Choose a network by validation alone: the candidate with the best mean, and of its networks the best one.

    Parameters
    ----------
    found : sequence of Candidate
        What there is to choose from.
    score : str
        A validation score; higher is better.
    fold : int, optional
        Take the network from this fold: whatever clips another network of the folder was not trained on, this one was
        not trained on either.

    Returns
    -------
    Choice
        Of equally good ones the first.

    Raises
    ------
    RunError
        When a run folder is not finished.
    """
    column = f"validation_{score}"
    rows = [[pd.DataFrame([summary(folder) for folder in by_fold]) for by_fold in one.folders] for one in found]
    table = pd.DataFrame(
        {
            "notebook": one.notebook,
            "name": one.name,
            "parameters": int(max(of_seed.parameters.max() for of_seed in by_seed)),
            "networks": sum(map(len, by_seed)),
            column: np.mean([of_seed[column].mean() for of_seed in by_seed]),
        }
        for one, by_seed in zip(found, rows, strict=True)
    )
    table["fits"] = table.parameters <= max(MAX_PARAMETERS, table.parameters.min())
    best = table[column][table.fits].idxmax()
    own = np.array([of_seed[column] for of_seed in rows[best]])
    allowed = np.full(own.shape, -np.inf)
    allowed[:, slice(None) if fold is None else fold] = 0
    seed, chosen = map(int, np.unravel_index(np.argmax(own + allowed), own.shape))
    ordered = table.sort_values(column, ascending=False, kind="stable", ignore_index=True)
    return Choice(found[best], seed, chosen, found[best].folders[seed][chosen], ordered)


def publish(
    folder: Path,
    single: Choice,
    several: Choice | None = None,
    *,
    run: Run,
    inputs: Inputs,
    recipe: TrainConfig | None = None,
    n_resamples: int,
    workers: int | None = None,
) -> Release:
    """Make a model folder of networks that were chosen.

    Each is converted to weights of one byte. The file answers the validation part, from which temperature and
    thresholds are fitted, and must answer it as its network does. Then the file for one instrument, with its
    temperature, answers the test part of its split, once.

    Parameters
    ----------
    folder : Path
        The model folder, `<run folder>/model`; what lies there is replaced as a whole. Working files, among them the
        answers to the test part, are kept in `published/` beside it.
    single : Choice
        With softmax outputs.
    several : Choice, optional
        With sigmoid outputs, trained on mixtures; of the same fold.
    run : Run
        Whose notebook publishes.
    inputs : Inputs
        Features and splits of the study. Candidates with their own have the same validation and test parts.
    recipe : TrainConfig, optional
        How `several` was trained: its validation examples follow from it.
    n_resamples : int
        Of the bootstrap over groups.
    workers : int, optional
        Number of processes.

    Returns
    -------
    Release
        `model.about` holds `study`, `id`, `corpus` (`name`, `title`, `licence`, `citation`), `profile`, `notebook` and
        `network` (where and what it was trained as), `seed`, `fold`, `n_folds`, `split` and `features` (fingerprints),
        `commit`, `versions`, `published_at` (UTC), `n_tested`, `n_groups`, `scores` (each with `estimate`, `low`,
        `high`; of the file on the test part), `by_class` (`n`, `n_groups`, and such scores), `refusals` (see
        `calibration.refusals`), `noises` (the share of each kind that is refused), `validation`, `agreement` (with the
        network) and `several` (`notebook`, `network`, `seed`, `validation`, `agreement`) or None.

    Raises
    ------
    RunError
        When a run folder is unfinished, damaged, or of another split or other features; when the networks are of
        different folds.
    EvaluationError
        When a file answers otherwise than its network.
    """
    if several is not None and several.fold != single.fold:
        raise RunError(
            f"The networks are of folds {single.fold} and {several.fold}: what the one was tested on, the other may "
            "have been trained on; choose both from one fold."
        )
    work = folder.with_name("published")
    chosen = {"single": single} | ({} if several is None else {"several": several})
    recipes = {"single": None, "several": recipe}
    tasks = []
    for name, one in chosen.items():
        given = one.candidate.inputs or inputs
        tasks.append((work / name, one.folder, given.store.folder, given.splits[one.fold], recipes[name]))
    results = parallel_map(_make, tasks, workers=workers, describe="converting the networks", isolate=True)
    made = dict(zip(chosen, results, strict=True))
    kept = made["single"]
    before, after = kept["answers"]
    table = statistics.score_table(
        {"network as trained": before, "file, calibrated": after},
        n_resamples=n_resamples,
        seed=0,
    )
    about = {
        **_origin(run, single, len(inputs.splits), made),
        "split": load_split(inputs.splits[single.fold], inputs.store.segments).fingerprint,
        "features": inputs.store.fingerprint,
        "n_tested": len(after["targets"]),
        "n_groups": len(set(after["group"])),
        "scores": nested(table)["file, calibrated"],
        "by_class": _by_class(after, inputs.store.classes, n_resamples),
        "refusals": refusals(after["targets"], after["probabilities"], np.array(kept["settings"]["thresholds"])),
        "validation": kept["validation"]["calibrated"],
        "agreement": kept["agreement"],
        "several": None if several is None else _about_several(several, made["several"]),
    }
    _write(folder, work, made, about, inputs)
    validation = pd.concat({name: pd.DataFrame(one["validation"]).T for name, one in made.items()})
    note(folder, noises=hear_noises(published.open_model(folder)).refused.to_dict())
    return Release(published.open_model(folder), before, after, table, validation)


def note(folder: Path, **sections: Any) -> None:
    """Add sections to `about` of a model folder, and write its card again.

    Parameters
    ----------
    folder : Path
        The model folder.
    **sections
        Plain values by name, such as `timeline`; one that is there is replaced.

    Raises
    ------
    RunError
        When there is no model folder, or its `model.json` is altered.
    """
    record = published.read_sealed(folder / RECORD)
    _write_record(folder, record | {"about": record["about"] | sections})


def size_bytes(folder: Path) -> pd.Series:
    """Return the size of each file of a model folder in bytes; hidden ones are none of the model's."""
    return pd.Series({path.name: path.stat().st_size for path in sorted(folder.glob("[!.]*"))}, name="bytes")


def hear_noises(model: PublishedModel, *, n: int = N_NOISES, seed: int = 0) -> pd.DataFrame:
    """Let a model hear what is no instrument.

    Parameters
    ----------
    model : PublishedModel
        The model.
    n : int
        Segments of each kind.
    seed : int
        Decides them.

    Returns
    -------
    pandas.DataFrame
        By kind: `refused`, the share that is answered by "none of these", `confidence` (mean), and `answer`, the class
        that is most often the most probable one. Silence is no kind of its own: a silent file is refused before.
    """
    config, listen = model.single.features, published.listener(model.single)
    rng = np.random.default_rng(seed)
    rows = {}
    for kind in _NOISES:
        spectra = [extract(_noise(kind, config, rng), config) for _ in range(n)]
        heard = listen(np.stack(spectra))[0]
        rows[kind] = {
            "refused": 1 - is_named(heard, model.single.thresholds).mean(),
            "confidence": heard.max(axis=1).mean(),
            "answer": model.classes[np.bincount(heard.argmax(axis=1)).argmax()],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def with_maps(model: "keras.Model") -> "keras.Model":
    """Return a network that gives its logits and, where it has them, the class activation maps that they are means of.

    Parameters
    ----------
    model : keras.Model
        Built by `models.build`.

    Returns
    -------
    keras.Model
        Outputs `logits` [shape=(batch, n_classes)] and, when the network ends with the mean over frequency and time
        and one dense layer, `maps` [shape=(batch, n_rows, n_columns, n_classes)]; see `saliency.class_activation_maps`.
    """
    keras = load_keras()
    last = model.layers[-1]
    kernel, bias = last.get_weights()
    average = _mean_before(model)
    if average is None:
        dense = keras.layers.Dense(len(bias), name="logits")
        outputs = {"logits": dense(last.input)}
        dense.set_weights([kernel, bias])
    else:
        # The mean of what is weighed is what the mean is weighed to: one set of weights for both.
        weigh = keras.layers.Conv2D(len(bias), 1, use_bias=False, name="weigh")
        maps = weigh(average.input)
        weigh.set_weights([kernel[None, None]])
        outputs = {"logits": keras.ops.add(keras.ops.mean(maps, axis=(1, 2)), bias), "maps": maps}
    return keras.Model(model.input, outputs)


def _mean_before(model: "keras.Model") -> Any | None:
    """Return the layer that takes the mean, where nothing but dropout lies between it and the last one."""
    for layer in reversed(model.layers[:-1]):
        if type(layer).__name__ == "GlobalAveragePooling2D":
            return layer
        if type(layer).__name__ != "Dropout":
            break
    return None


def _make(
    work: Path, network: Path, store_folder: Path, split_path: Path, recipe: TrainConfig | None
) -> dict[str, Any]:
    """Convert and calibrate one network; with softmax outputs, let the network and the file answer the test part."""
    trained, store, split = open_trained(network, store_folder, split_path)
    code = code_hash("studies")
    key = hash_json([code, trained["key"], versions(), recipe])
    file, record = _file(work), work / COMPLETE
    if not (file.is_file() and record.is_file() and read_json(record).get("key") == key):
        record.unlink(missing_ok=True)
        model, scaler = load_model(network)
        both = with_maps(model)
        with atomic_path(file) as path:
            path.write_bytes(export.convert_model(both, (_KIND,))[_KIND])
        grid = saliency.cell_grid(model, saliency.last_picture_layer(model)) if _mean_before(model) else None
        plain = Network(file, store.config, scaler, output_of(model), 1.0, np.zeros(len(store.classes)))
        segments = part_segments(store, split, "validation")
        if plain.output == "softmax":
            found = _calibrate(plain, store, segments, network)
        else:
            found = _calibrate_labels(plain, store, segments, network, recipe)
        scaling = {"mean": _short(scaler.mean), "deviation": _short(scaler.deviation)}
        write_json(record, {"key": key, "scaler": scaling, "grid": grid, "output": plain.output, **found})
    kept = read_json(record)
    settings = {
        "sha256": hash_file(file),
        **{name: kept[name] for name in ("output", "temperature", "thresholds", "grid")},
    }
    made = {
        "settings": settings,
        "scaler": kept["scaler"],
        "validation": kept["validation"],
        "agreement": kept["agreement"],
    }
    if kept["output"] == "softmax":
        scaler = Scaler.from_dict(kept["scaler"])
        calibrated = Network(file, store.config, scaler, "softmax", kept["temperature"], np.array(kept["thresholds"]))
        after_key = hash_json([settings, kept["scaler"], store.fingerprint, split.fingerprint])
        after = answer_test(
            work / "predictions.npz",
            after_key,
            functools.partial(_predictor, calibrated),
            store=store,
            scaler=scaler,
            split=split,
        )
        made["answers"] = read_test(network, store_folder, split_path), after
    return made


def _predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    answer = published.logits(network)
    return lambda x: published.probabilities(network, answer(x)[0])


def _calibrate(plain: Network, store: FeatureStore, segments: pd.DataFrame, network: Path) -> dict[str, Any]:
    logits, _ = published.logits(plain)(store.read(segments.row.to_numpy(), plain.scaler))
    clips, clip_index = np.unique(segments.clip_id.to_numpy(str), return_inverse=True)
    targets = segments.groupby("clip_id", sort=True).target.first().to_numpy()
    temperature = fit_temperature(logits, targets, clip_index)
    as_trained, calibrated = (clip_probabilities(softmax(logits, one), clip_index) for one in (1.0, temperature))
    known = read_arrays(network / "validation.npz")
    if not np.array_equal(known["clip_id"], clips):
        raise RunError(f"{network} was validated on other clips; run the notebook that trains it again.")
    theirs, answered = known["probabilities"], as_trained.argmax(axis=1)
    agreement = float((theirs.argmax(axis=1) == answered).mean())
    _check_agreement(theirs.max(axis=1) - theirs[np.arange(len(theirs)), answered], network)
    return {
        "temperature": temperature,
        "thresholds": answer_thresholds(targets, calibrated),
        "agreement": agreement,
        "validation": {
            name: scores(targets, one) for name, one in (("as trained", as_trained), ("calibrated", calibrated))
        },
    }


def _calibrate_labels(
    plain: Network, store: FeatureStore, segments: pd.DataFrame, network: Path, recipe: TrainConfig | None
) -> dict[str, Any]:
    if recipe is None:
        raise RunError(f"How {network} was trained must be given: its validation examples follow from the recipe.")
    held_out = validation_examples(store, segments, plain.scaler, recipe)
    answer, labels = published.logits(plain), held_out.labels
    logits = np.concatenate([answer(x)[0] for x in held_out.batches()])
    known = read_arrays(network / "validation.npz")
    if not np.array_equal(known["labels"], labels, equal_nan=True):
        raise RunError(f"{network} was validated on other examples; run the notebook that trains it again.")
    temperature = fit_label_temperature(logits, labels)
    as_trained, calibrated = (sigmoid(logits, one) for one in (1.0, temperature))
    agreement = float(((known["probabilities"] >= 0.5) == (as_trained >= 0.5)).mean())
    _check_agreement(np.abs(known["probabilities"] - as_trained), network)
    thresholds, _ = best_thresholds(labels, calibrated)
    return {
        "temperature": temperature,
        "thresholds": thresholds,
        "agreement": agreement,
        "validation": {
            "as trained": scores(labels, as_trained),
            "calibrated": scores(labels, calibrated, thresholds),
        },
    }


def _check_agreement(apart: np.ndarray, network: Path) -> None:
    share = (apart <= _NEARLY).mean()
    if share < MIN_AGREEMENT:
        raise EvaluationError(
            f"The file made of {network} gives {share:.0%} of its validation answers as the network does, and at "
            f"least {MIN_AGREEMENT:.0%} are needed; publish another network."
        )


def _origin(run: Run, single: Choice, n_folds: int, made: dict[str, Any]) -> dict[str, Any]:
    info = corpora.info(run.parameters["corpus"])
    return {
        "study": run.study,
        "id": hash_json([[one["settings"], one["scaler"]] for one in made.values()])[:8],
        "corpus": {name: getattr(info, name) for name in ("name", "title", "licence", "citation")},
        "profile": run.profile.name,
        "notebook": single.candidate.notebook,
        "network": single.candidate.name,
        "seed": single.seed,
        "fold": single.fold,
        "n_folds": n_folds,
        "commit": commit(),
        "versions": versions(),
    }


def _about_several(several: Choice, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "notebook": several.candidate.notebook,
        "network": several.candidate.name,
        "seed": several.seed,
        "validation": made["validation"]["calibrated"],
        "agreement": made["agreement"],
    }


def _write(folder: Path, work: Path, made: dict[str, dict[str, Any]], about: dict[str, Any], inputs: Inputs) -> None:
    """Write a model folder under another name and put it in the place of the one that is there."""
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in made:
        shutil.copyfile(_file(work / name), partial / FILES[name])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "format": FORMAT,
        "classes": list(inputs.store.classes),
        "features": inputs.store.config.to_dict(),
        "scaler": made["single"]["scaler"],  # of the training part of a fold, so it is the same for both
        **{name: made[name]["settings"] if name in made else None for name in FILES},
        "about": about | {"published_at": _published_before(folder, about["id"]) or now},
    }
    _write_record(partial, record)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _published_before(folder: Path, identity: str) -> str:
    """Return when the same networks were published first, "" when they were not: what is the same stays the same."""
    try:
        about = published.read_sealed(folder / RECORD)["about"]
        return about["published_at"] if about["id"] == identity else ""
    except (RunError, KeyError, TypeError):
        return ""


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    whole = published.sealed(to_jsonable(record))
    # A line for each entry: numbers on lines of their own take more room than they are worth.
    lines = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in whole.items())
    write_text(folder / RECORD, "{\n" + ",\n".join(lines) + "\n}\n")
    write_text(folder / CARD, model_card(whole))


def model_card(
    record: dict[str, Any], *, condition: dict[str, Any] | None = None, shift: dict[str, Any] | None = None
) -> str:
    """Write the card of a model in words and tables.

    Parameters
    ----------
    record : dict
        What `model.json` holds. One that an older version wrote may lack scores by class: the card then says so.
    condition : dict, optional
        What `condition.json` holds.
    shift : dict, optional
        How the model does on other sounds; see `cards.under_shift`. When left out, the card says that nobody measured.

    Returns
    -------
    str
        Markdown.
    """
    import jinja2

    loader = jinja2.PackageLoader("instrlib")
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    corpus = record["about"]["corpus"]
    fonts = [{"name": name, **vars(font)} for name, font in soundfont.FONTS.items() if name in corpus["licence"]]
    text = environment.get_template("model_card.md").render(
        record,
        condition=condition,
        shift=shift,
        fonts=fonts,
        synthesised=corpus["name"] == _SYNTHESISED,
        share=_percent,
        interval=_bracketed,
        n_noises=N_NOISES,
    )
    return text + "\n"


def _by_class(answers: Predictions, classes: tuple[str, ...], n_resamples: int) -> dict[str, dict[str, Any]]:
    """Score each class, in as few digits as say something: the record is to stay small."""
    table = class_table(answers, classes, n_resamples=n_resamples, seed=0).round(3)
    columns = {
        score: dict(zip(_INTERVAL, (score, f"{score}_low", f"{score}_high"), strict=True)) for score in CLASS_SCORES
    }
    return {
        name: {"n": int(row.support), "n_groups": int(row.n_groups)}
        | {score: {end: row[column] for end, column in of.items()} for score, of in columns.items()}
        for name, row in table.iterrows()
    }


def _bracketed(value: dict[str, float | None], pattern: str = ".2f") -> str:
    estimate, low, high = (
        "–" if value[end] is None else format(round(value[end], 2) + 0.0, pattern) for end in _INTERVAL
    )
    return estimate if "–" in (low, high) else f"{estimate} [{low}, {high}]"


def _percent(share: float | None) -> str:
    return "none there are" if share is None or np.isnan(share) else f"{100 * share:.0f} %"


def _file(work: Path) -> Path:
    return work / "network.tflite"


def _short(values: np.ndarray) -> list[float]:
    """Return float32 numbers in as few digits as tell them apart: in JSON they take half the room."""
    return [float(str(one)) for one in np.asarray(values, np.float32)]


def _noise(kind: str, config: FeatureConfig, rng: np.random.Generator) -> np.ndarray:
    n = config.segment_samples
    time_s = np.arange(n) / config.sample_rate_hz
    if kind == "mains hum":
        partials = np.arange(1, 9)
        parts = rng.uniform(0, 1, 8) / partials
        sound = parts @ np.sin(2 * np.pi * 50 * partials[:, None] * time_s + rng.uniform(0, 2 * np.pi, (8, 1)))
    elif kind == "clicks":
        sound = np.zeros(n)
        sound[rng.integers(0, n, 12)] = rng.uniform(0.3, 1, 12)
    else:
        # Power falls with no, the first and the second power of frequency.
        slope = {"white noise": 0.0, "pink noise": 0.5, "brown noise": 1.0}[kind]
        spectrum_of = np.fft.rfft(rng.standard_normal(n)) / np.maximum(np.arange(n // 2 + 1), 1) ** slope
        sound = np.fft.irfft(spectrum_of, n)
    return 0.3 * sound / np.abs(sound).max()
