"""One clip under several feature settings, side by side."""

from typing import Any

import numpy as np
import pandas as pd

from instrlib.core.io import padded
from instrlib.audio.decode import load
from instrlib.core.config import FeatureConfig
from instrlib.data.base import Corpus
from instrlib.audio.features import mel_edges_hz, spectrum


def describe(settings: dict[str, FeatureConfig]) -> pd.DataFrame:
    """Say what each setting costs and resolves.

    Parameters
    ----------
    settings : dict of str to FeatureConfig
        By name.

    Returns
    -------
    pandas.DataFrame
        One row a setting: `bins`, `frames`, `window_ms`, `hop_ms`, `kB_a_segment` (as stored).

    Examples
    --------
    >>> describe({"default": FeatureConfig()}).loc["default", ["bins", "frames"]].astype(int).tolist()
    [64, 130]
    """
    rows = {
        name: {
            "bins": config.n_bins,
            "frames": config.n_frames,
            "window_ms": round(1000 * config.n_fft / config.sample_rate_hz, 1),
            "hop_ms": round(1000 * config.hop_s, 1),
            "kB_a_segment": round(2 * config.n_bins * config.n_frames / 1000, 1),
        }
        for name, config in settings.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_settings(corpus: Corpus, clip: pd.Series, settings: dict[str, FeatureConfig]) -> dict[str, Any]:
    """Compute one clip's first segment under each setting.

    Parameters
    ----------
    corpus : Corpus
        Where the clip lies.
    clip : pandas.Series
        A row of its manifest.
    settings : dict of str to FeatureConfig
        By name.

    Returns
    -------
    dict
        The arguments of `plots.feature_settings`.
    """
    pictures, frequencies = [], []
    for config in settings.values():
        duration_s = min(config.segment_s, clip.duration_s)
        signal = load(
            corpus.root / clip.path, sample_rate_hz=config.sample_rate_hz, start_s=clip.start_s, duration_s=duration_s
        )
        pictures.append(spectrum(signal[: config.segment_samples], config))
        is_mel = config.kind == "log_mel"
        frequencies.append(mel_edges_hz(config)[1:-1] if is_mel else np.full(config.n_bins, np.nan))
    return {
        "values": padded(pictures),
        "titles": list(settings),
        "hop_s": np.array([config.hop_s for config in settings.values()]),
        "frequencies_hz": padded(frequencies),
    }
