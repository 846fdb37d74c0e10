"""How a study was made, in words that are filled from its settings and numbers; works are cited by key."""

from typing import Any

from instrlib.core.config import FeatureConfig, Profile, TrainConfig
from instrlib.core.words import listed
from instrlib.report import released
from instrlib.reporting.overview import Notebooks

CORPUS_WORKS: dict[str, str] = {
    "rendered": "[@raffel2014]",
    "fsdkaggle2018": "[@fsdkaggle2018; @fonseca2018]",
    "irmas": "[@bosch2014; @bosch2012; @bittner2019]",
    "openmic2018": "[@humphrey2018; @bittner2019]",
    "nsynth": "[@engel2017]",
    "kaggle_instruments": "[@prasad]",
}
"""What to cite for a corpus."""

_OF_NOTEBOOKS: dict[str, str] = {
    "03": "Augmentations are CutMix [@yun2019], MixUp [@zhang2018], SpecAugment [@park2019] and changed copies of the "
    "sound. They touch training examples alone.",
    "04": "Hyperparameters are drawn at random [@bergstra2012] within a budget of multiply-adds; their importance is "
    "that of a random forest's permuted columns [@breiman2001]. The winner is trained again from fresh seeds.",
    "05": "The smallest weights are set to zero [@han2015], in one step or along a polynomial schedule [@zhu2017], and "
    "the network is fine-tuned; files are written with 32, 16 and 8 bits a weight and measured as they are run.",
    "06": "Maps are class activation maps [@zhou2016], with Grad-CAM [@selvaraju2017] for inner layers. They are "
    "tested by deletion and insertion [@petsiuk2018], and by making weights random [@adebayo2018].",
    "07": "In the ablation one part is changed at a time, and everything else stays as it is.",
    "08": "Published networks are rebuilt from their descriptions and trained on our split. Traditional classifiers "
    "see statistics of spectral features and cepstral coefficients [@davis1980].",
    "09": "Embeddings are those of networks that were trained on other sounds (YAMNet [@howard2017] and VGGish "
    "[@hershey2017], both on AudioSet [@gemmeke2017], where they are at hand, and our own) with a logistic regression.",
    "10": "Mixtures are made within a part of the split. Thresholds are chosen on validation mixtures to raise F1 "
    "[@lipton2014]; intervals and p come from a jackknife over groups [@arvesen1969; @efron1981].",
    "11": "A timeline is scored by seconds and by entries [@mesaros2016]; temperature and thresholds are fitted on "
    "validation clips [@guo2017]. Intervals and p come from a jackknife over ensembles [@arvesen1969; @efron1981].",
    "12": "Wear is simulated by filters, modulation and noise. Measures include the harmonics-to-noise ratio "
    "[@boersma1993] and inharmonicity [@fletcher1962].",
    "13": "Networks of one domain answer others; batch normalisation is adapted without labels [@li2016], embeddings "
    "are laid out by t-SNE [@vandermaaten2008]. Noise is pink [@voss1975], rooms are decaying noise [@moorer1979]. "
    "Fine-tuning begins with a linear probe [@kumar2022], at rates that fall towards the input [@howard2018].",
}


def paragraphs(notebooks: Notebooks, profile: Profile, seeds: int, *, several: bool) -> list[str]:
    """Say how the study was made.

    Parameters
    ----------
    notebooks : dict
        `metrics` and `manifest` by name, as `results.json` holds them.
    profile : Profile
        Its settings.
    seeds : int
        Seeds that each network was trained from.
    several : bool
        Whether a clip of the corpus may have several labels.

    Returns
    -------
    list of str
        Paragraphs, with citations; see `bibliography.Citations`.
    """
    numbers = {name[:2]: entry["metrics"] for name, entry in notebooks.items()}
    own = [_OF_NOTEBOOKS[number] for number in numbers if number in _OF_NOTEBOOKS]
    return [
        "**Splits.** A group is whatever must not be heard on both sides: a recording, a session, a performer, an "
        "instrument or the samples of one. Parts are drawn by whole groups, stratified by class, from a seed. Training "
        "clips teach, validation clips choose, and the test part is read once for each model."
        f"{_few(profile.min_test_clips)}",
        f"**What the networks see.** {_features(profile.features)}",
        f"**Training.** {_training(profile.train, numbers.get('02', {}), seeds, several)} Networks that are "
        f"compared with each other (`{profile.network}`) are trained for at most {profile.experiment.epochs} epochs.",
        "**Scores and trivial answers.** Scores are accuracy, balanced accuracy [@brodersen2010], F1 as the mean over "
        "the classes (macro), MAP@3 [@fonseca2018] and the expected calibration error [@guo2017]; with several labels "
        "a clip, mean average precision, F1 and Hamming loss. Beside each score stand answers that need no listening: "
        "always the most frequent class, stratified random answers, and the nearest centroid of mean spectra.",
        f"**Intervals.** They cover 95 % and come from at least {profile.n_bootstrap:,} bootstrap resamples of whole "
        "groups [@field2007], and of seeds where there are several [@bouthillier2021], unless said otherwise.",
        "**Tests.** Models are compared on the same clips and seeds (paired). p is two-sided: twice the share of the "
        "differences in the resamples that lie at 0 or beyond it, with one added to their number, so that of n "
        f"resamples none gives less than 2/(n + 1), which is {2 / (profile.n_bootstrap + 1):.2g} for "
        f"{profile.n_bootstrap:,}. Where several comparisons answer one question, p is corrected for their number by "
        "Holm's method [@holm1979], which multiplies the least by their number, and so its floor. The main "
        "comparisons, one a notebook, are corrected over the whole study instead, from the p without the first "
        "correction where they are fixed by name. So one comparison can have two values of p: among those of its "
        "notebook, and among the main ones. McNemar's test [@mcnemar1947] stands beside in the appendix of "
        "`report.html`.",
        *filter(None, [released.method(notebooks, profile)]),
        *([f"**The experiments.** {' '.join(own)}"] if own else []),
    ]


def _few(least: int) -> str:
    if not least:
        return ""
    return f" With fewer than {least} test clips, every clip is tested once by cross-validation over groups."


def _features(config: FeatureConfig) -> str:
    kinds = {
        "log_mel": "log-mel spectrograms [@davis1980; @slaney1998]",
        "mfcc": "cepstral coefficients [@davis1980]",
        "pcen": "mel spectrograms with per-channel energy normalisation [@wang2017]",
    }
    scaled = {
        "fixed": "from 0 for silence to 1",
        "segment": "to mean 0 and deviation 1 in each segment",
        "train": "by mean and deviation of the training part",
    }
    return (
        f"Sound is brought to {config.sample_rate_hz:,} Hz and cut into segments of {config.segment_s:g} s, at most "
        f"{config.max_segments} a clip, whose probabilities are averaged. A segment becomes {config.n_bins} bands by "
        f"{config.n_frames} frames: {kinds[config.kind]}, computed as by librosa [@mcfee2015] with windows of "
        f"{1000 * config.n_fft / config.sample_rate_hz:.0f} ms every {1000 * config.hop_s:.0f} ms from "
        f"{config.fmin_hz:g} to {config.fmax_hz:,.0f} Hz, in dB below the loudest value down to −{config.top_db:g} dB. "
        f"Values are scaled {scaled[config.scaling]}."
    )


def _training(config: TrainConfig, baseline: dict[str, Any], seeds: int, several: bool) -> str:
    schedules = {
        "cosine": "along a cosine [@loshchilov2017]",
        "plateau": "whenever the validation loss stays",
        "constant": "never",
    }
    trained = baseline.get("trained") or [{}]
    size = (
        f" It has {trained[0]['parameters']:,} weights and takes {trained[0]['multiply_adds'] / 1e6:.1f} million "
        "multiply-adds a segment."
        if "parameters" in trained[0]
        else ""
    )
    starts = "one seed" if seeds == 1 else f"{seeds} seeds"
    # See `training.train_model`: classes are weighed where a clip has one label.
    best = (
        "with the least validation loss"
        if several
        else "that names most validation segments rightly, each class counting alike"
    )
    extras = [
        *(["weighs classes by the inverse of their share"] if config.class_weights and not several else []),
        f"keeps the epoch {best} (patience {config.patience})",
    ]
    return (
        f"The baseline is a convolutional network, trained by Adam [@kingma2015] from {starts} for at most "
        f"{config.epochs} epochs in batches of {config.batch_size}, from a learning rate of {config.learning_rate:g} "
        f"that falls {schedules[config.schedule]}; training {listed(extras)}.{size}"
    )
