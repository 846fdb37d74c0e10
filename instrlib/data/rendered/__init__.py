"""The built-in corpus `rendered`: sampled instruments that play short phrases."""

from instrlib.data.rendered.corpus import (
    CLASSES,
    DURATION_S,
    INFO,
    PLAYERS,
    SAMPLE_RATE_HZ,
    Players,
    compose,
    groups,
    load,
    notes,
    render,
    validate,
)

__all__ = [
    "CLASSES",
    "DURATION_S",
    "INFO",
    "PLAYERS",
    "SAMPLE_RATE_HZ",
    "Players",
    "compose",
    "groups",
    "load",
    "notes",
    "render",
    "validate",
]
