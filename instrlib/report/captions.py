"""Captions of the figures that stand in the appendix; those of the key figures stand in `keys`."""

from instrlib.core.words import begin, spaced

_CURVES = "Loss and accuracy by epoch on training and validation segments; marked: the epoch that was kept."
_RELIABILITY = "How often an answer is right by how sure it is; on the diagonal confidence is deserved."
_MAPS = "The class activation map of its answer over the spectrogram; the number is the probability."

_CAPTIONS: dict[str, dict[str, str]] = {
    "01": {
        "class_balance": "Clips and groups of each class.",
        "duration_histogram": "How long the clips are; the line is the length of a segment.",
        "feature_settings": "One clip under four settings of the features.",
        "split_overview": "Clips of each class by part of the split.",
    },
    "02": {
        "learning_curves": _CURVES,
        "per_class_scores": "The baseline's scores class by class, with 95 % intervals where groups allow one.",
        "reliability_diagram": _RELIABILITY,
    },
    "03": {
        "copies": "Three clips and a changed copy of the sound of each.",
        "curves_cutmix": f"With CutMix. {_CURVES}",
        "curves_no_augmentation": f"Without augmentation. {_CURVES}",
        "model_comparison": "Accuracy with each augmentation, on the test part; lines are 95 % intervals.",
    },
    "04": {
        "hyperparameter_importance": "What each hyperparameter explains of the trials' validation loss, beside a "
        "number that decides nothing.",
        "search_progress": "The best validation loss by the number of trials.",
    },
    "05": {
        "paired_differences": "Each pruned network minus the dense one, on the same clips and from the same seeds.",
        "what_zeros_save": "What a pruned network costs against its share of zeros; the dense one costs 1.",
    },
    "06": {
        "frequency_profiles": "Over which frequencies the map lies for each class, beside those of the sound.",
        "layers": "Maps of one clip from three layers of the network.",
        "map_similarity": "How much a map still resembles itself as weights are made random, layer by layer.",
        "paired_differences": "The map minus each other order of the points: insertion minus deletion.",
        "right": f"Clips that were named rightly. {_MAPS}",
        "wrong": f"Clips that were named wrongly. {_MAPS}",
    },
    "07": {"reference_differences": "Networks with fewer convolutions minus that with three, as in the reference."},
    "08": {"paired_differences": "Each model minus our network, on the same clips."},
    "09": {
        "paired_differences": "Our embedding minus the network from scratch, by training clips of each class.",
        "pretraining": f"The network that gives the embedding. {_CURVES}",
    },
    "10": {
        "expected_and_named": "Six mixtures: what sounds, and what two networks name.",
        "learning_curves": _CURVES,
        "scores_by_number": "Scores by how many instruments sound at once.",
    },
    "11": {
        "per_class_scores": "F1 over the seconds, instrument by instrument.",
        "reliability_as_trained": f"The model that is given away, as it was trained. {_RELIABILITY}",
        "reliability_calibrated": f"The model that is given away, calibrated. {_RELIABILITY}",
        "scores_by_number": "F1 over the seconds by how many instruments sound at once.",
    },
    "12": {
        "confusion_matrix": "What each condition was taken for: the answers of all seeds together.",
        "degradations": "One clip as it is, and with each kind of simulated damage.",
        "measures_by_condition": "How measures are spread in each condition: boxes hold the middle half.",
        "reliability_diagram": _RELIABILITY,
    },
    "13": {
        "embedding_map": "Clips of several domains in the plane, by their embeddings: coloured by class and by domain.",
        "pretrained_or_not": "Fine-tuned from rendered sounds in several ways, beside the network from scratch.",
        "shift_reliability": f"The model that is given away in each domain. {_RELIABILITY}",
        "taken_for": f"Clips of another corpus that were named wrongly. {_MAPS}",
        "taken_for_rendered": f"Clips of another soundfont that were named wrongly. {_MAPS}",
    },
}


def appendix_caption(number: str, stem: str) -> str:
    """Return the caption of a figure of the appendix; of one that is not known here, its name.

    Parameters
    ----------
    number : str
        Number of the notebook, two digits.
    stem : str
        Name of the figure, without the number.

    Examples
    --------
    >>> appendix_caption("77", "a_figure")
    'A figure.'
    """
    return _CAPTIONS.get(number, {}).get(stem) or begin(spaced(stem)) + "."
