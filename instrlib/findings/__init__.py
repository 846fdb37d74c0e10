"""Sentences made from numbers: what a notebook found is computed, never typed."""

from instrlib.core.words import bullets
from instrlib.findings.corpus import corpus_sentence, leak_sentence, split_sentence
from instrlib.findings.layered import all_present_sentence, level_sentence, number_sentence, trivial_sentence
from instrlib.findings.scores import (
    difference_sentence,
    differences_sentence,
    pair_sentences,
    score_sentence,
)
from instrlib.findings.training import epochs_sentence

__all__ = [
    "all_present_sentence",
    "bullets",
    "corpus_sentence",
    "difference_sentence",
    "differences_sentence",
    "epochs_sentence",
    "leak_sentence",
    "level_sentence",
    "number_sentence",
    "pair_sentences",
    "score_sentence",
    "split_sentence",
    "trivial_sentence",
]
