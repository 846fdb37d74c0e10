"""Retaken, mixed, layered and masked spectrograms: CutMix, MixUp, SpecAugment and others, drawn anew for every batch.

All act on features as `features.spectrum` gives them, before scaling: a pasted patch is then a piece of a spectrogram,
and a mask is silence. Everything is decided by the generator that is given, so the same one gives the same batch in
every process.
"""

import dataclasses

import numpy as np

from instrlib.audio.takes import retake
from instrlib.core.config import AugmentConfig

LATEST_SHARE = 1 / 3
"""A layer begins later by at most this share of a segment, and keeps at least half of its energy."""


def augment(
    x: np.ndarray,
    y: np.ndarray,
    config: AugmentConfig,
    *,
    floor: np.ndarray,
    hop_s: float,
    rng: np.random.Generator,
    edges_hz: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Augment one batch: first each example is put into another recording, then they are mixed, then masked.

    Parameters
    ----------
    x : np.ndarray [shape=(batch, n_bins, n_frames), float32]
        Features before scaling, in dB or coefficients; left as they are.
    y : np.ndarray [shape=(batch, n_classes), float32]
        Share of each class; rows sum to 1. Or, with several labels a clip, 1 present, 0 absent and NaN not observed.
    config : AugmentConfig
        What to do. Whether a batch is mixed is decided once for all of it, with chance `share`.
    floor : np.ndarray [shape=(n_bins,), float32]
        Value of silence in each row; see `features.silence`.
    hop_s : float
        Step between two frames in seconds.
    rng : np.random.Generator
        Decides everything.
    edges_hz : np.ndarray [shape=(n_bins + 2,)], optional
        Needed for layers and other recordings alone; see `features.mel_edges_hz`.

    Returns
    -------
    x : np.ndarray [shape of x, float32]
    y : np.ndarray [shape of y, float32]
        Mixed by the same shares; so a class that was not observed in both is not observed in the mixture (see `layers`
        for those).

    See Also
    --------
    instrlib.audio.takes.retake, cutmix, mixup, layers, mask

    Examples
    --------
    >>> silence, tone = np.full((4, 6), -80.0), np.zeros((4, 6))
    >>> x, y = np.stack([silence, tone]).astype(np.float32), np.eye(2, dtype=np.float32)
    >>> config = AugmentConfig(mix="cutmix")
    >>> mixed, labels = augment(x, y, config, floor=silence[:, 0], hop_s=0.02, rng=np.random.default_rng(1))
    >>> share = (mixed == 0).mean(axis=(1, 2))  # of the picture that is tone ...
    >>> bool(np.allclose(share, labels[:, 1]))  # ... is the label's share of tone
    True
    """
    if config.retake:
        x = retake(x, share=config.retake, centres_hz=edges_hz[1:-1], hop_s=hop_s, floor=floor, rng=rng)
    if config.mix != "none" and rng.random() < config.share:
        if config.mix == "cutmix":
            x, y = cutmix(x, y, axes=config.axes, beta=config.beta, rng=rng)
        elif config.mix == "mixup":
            x, y = mixup(x, y, beta=config.beta, rng=rng)
        else:
            settings = {"number": config.layers, "range_db": config.level_range_db, "floor": floor}
            x, y = layers(x, y, **settings, widths_hz=edges_hz[2:] - edges_hz[:-2], rng=rng)
    if config.time_masks or config.frequency_masks:
        x = mask(
            x,
            floor=floor,
            time_masks=config.time_masks,
            longest_frames=round(config.time_mask_s / hop_s),
            frequency_masks=config.frequency_masks,
            widest_bins=config.frequency_mask_bins,
            rng=rng,
        )
    return x, y


def preview(
    x: np.ndarray, y: np.ndarray, configs: list[AugmentConfig], *, floor: np.ndarray, hop_s: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Show what several settings make of the same example with the same partner, for a figure.

    Parameters
    ----------
    x, y, floor, hop_s
        A batch of examples of several classes; see `augment`.
    configs : list of AugmentConfig
        The settings; each mixes, whatever its `share`.
    seed : int
        Decides partners, shares and places.

    Returns
    -------
    x : np.ndarray [shape=(2 + n_configs, n_bins, n_frames)]
        The example in which CutMix comes nearest to equal shares, its partner, then what each setting makes of it.
    y : np.ndarray [shape=(2 + n_configs, n_classes)]
        Their labels.
    """
    settings = {"floor": floor, "hop_s": hop_s}
    by_example = np.eye(len(x), dtype=np.float32)
    _, shares = augment(x, by_example, AugmentConfig(mix="cutmix"), **settings, rng=np.random.default_rng(seed))
    at = int(shares.max(axis=1).argmin())
    partner = int((shares[at] - 2 * by_example[at]).argmax())
    made = [
        augment(x, y, dataclasses.replace(config, share=1.0), **settings, rng=np.random.default_rng(seed))
        for config in configs
    ]
    return tuple(
        np.stack([given[at], given[partner], *(one[at] for one in changed)])
        for given, changed in zip((x, y), zip(*made, strict=True), strict=True)
    )


def cutmix(
    x: np.ndarray, y: np.ndarray, *, axes: str, beta: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste into each example a box of another one of the batch, at the same place, and mix the labels by its area.

    A share lambda ~ Beta(beta, beta) is drawn for each example. The box covers 1 - lambda of the picture: both sides
    sqrt(1 - lambda) of the picture's, or, along one axis alone, the whole of the other and 1 - lambda of this one. Its
    centre is anywhere; what stands out over the edge is cut off, and the labels go by the whole cells that are left.

    Parameters
    ----------
    x : np.ndarray [shape=(batch, n_bins, n_frames)]
        Features.
    y : np.ndarray [shape=(batch, n_classes)]
        Shares of the classes.
    axes : {"both", "time", "frequency"}
        Axes that the box is cut along.
    beta : float
        Above 0; 1 draws all shares alike, less favours examples that hardly change or are replaced.
    rng : np.random.Generator
        Decides shares, places and partners.

    Returns
    -------
    x, y : np.ndarray
        New arrays.

    Notes
    -----
    `keras.layers.CutMix` draws lambda uniformly and takes the label's share from corners between the cells of the
    mask, so that its label is not the area.

    References
    ----------
    .. [1] Yun, Han, Oh, Chun, Choe, Yoo. "CutMix: Regularization strategy to train strong classifiers with localizable
       features." ICCV 2019. arXiv:1905.04899
    """
    n, n_bins, n_frames = x.shape
    partner = rng.permutation(n)
    cut = 1 - rng.beta(beta, beta, size=n)
    side = np.sqrt(cut) if axes == "both" else cut
    in_bins = np.ones((n, n_bins), bool) if axes == "time" else _stripe(n_bins, side, rng)
    in_frames = np.ones((n, n_frames), bool) if axes == "frequency" else _stripe(n_frames, side, rng)
    box = in_bins[:, :, None] & in_frames[:, None, :]
    pasted = (in_bins.sum(axis=1) * in_frames.sum(axis=1) / (n_bins * n_frames)).astype(y.dtype)[:, None]
    return np.where(box, x[partner], x), (1 - pasted) * y + pasted * y[partner]


def mixup(x: np.ndarray, y: np.ndarray, *, beta: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Average each example with another one of the batch, and their labels alike, with a weight ~ Beta(beta, beta).

    Parameters
    ----------
    x : np.ndarray [shape=(batch, n_bins, n_frames)]
        Features; in dB the average is not what the sum of the sounds would look like.
    y : np.ndarray [shape=(batch, n_classes)]
        Shares of the classes.
    beta : float
        Above 0.
    rng : np.random.Generator
        Decides weights and partners.

    Returns
    -------
    x, y : np.ndarray
        New arrays.

    References
    ----------
    .. [1] Zhang, Cisse, Dauphin, Lopez-Paz. "mixup: Beyond empirical risk minimization." ICLR 2018. arXiv:1710.09412
    """
    partner = rng.permutation(len(x))
    weight = rng.beta(beta, beta, size=len(x)).astype(np.float32)
    of_x, of_y = weight[:, None, None], weight[:, None]
    return of_x * x + (1 - of_x) * x[partner], of_y * y + (1 - of_y) * y[partner]


def layers(
    x: np.ndarray,
    y: np.ndarray,
    *,
    number: tuple[int, int],
    range_db: float,
    floor: np.ndarray,
    widths_hz: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Lay other examples of the batch over each one, as if they sounded at once.

    To an example come others of classes that it and they do not share, drawn from the batch; as many as there are,
    when the batch has too few classes. All are brought to the same mean power while they sound; each of the others
    is then raised or lowered against the first by a difference drawn evenly, and begins later by a time drawn evenly
    (what passes the end is lost, what is missing at the beginning is silence). The powers are added, band by band:
    sounds that are not in step with each other add so on average. The sum is in dB below its loudest point, as
    `features.spectrum` gives it.

    Parameters
    ----------
    x : np.ndarray [shape=(batch, n_bins, n_frames)]
        Log-mel spectrograms in dB below the loudest point.
    y : np.ndarray [shape=(batch, n_classes)]
        1 present, 0 absent, NaN not observed.
    number : tuple of int
        Fewest and most examples that sound at once, drawn alike.
    range_db : float
        Largest difference of level, up or down, in dB.
    floor : np.ndarray [shape=(n_bins,)]
        Level of silence.
    widths_hz : np.ndarray [shape=(n_bins,)]
        Width of each band: the bands are normalised to equal area, so power is the sum of levels times widths.
    rng : np.random.Generator
        Decides partners, levels and times.

    Returns
    -------
    x : np.ndarray [shape of x, float32]
    y : np.ndarray [shape of y, float32]
        Present is what is present in any of them, absent what is absent in all; else it is not observed.

    Examples
    --------
    >>> low, high = np.full((2, 2, 4), -80.0)
    >>> low[0], high[1] = 0.0, 0.0
    >>> settings = {"number": (2, 2), "range_db": 0.0, "floor": np.full(2, -80.0), "widths_hz": np.ones(2)}
    >>> x, y = layers(np.stack([low, high]), np.eye(2), **settings, rng=np.random.default_rng(0))
    >>> x[0, :, -1].tolist(), y[0].tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """
    n, _, n_frames = x.shape
    taken = _partners(y == 1, rng.integers(number[0], number[1], size=n, endpoint=True), rng)
    gain = np.where(np.eye(n, dtype=bool), 1.0, 10 ** (rng.uniform(-range_db, range_db, size=(n, n)) / 10))
    power = np.where(x > floor[:, None], 10 ** (x.astype(np.float64) / 10), 0.0)
    of_frame = np.einsum("nbt,b->nt", power, widths_hz)
    n_sounding = np.maximum((of_frame > 0).sum(axis=1), 1)
    power /= np.maximum(of_frame.sum(axis=1) / n_sounding, np.finfo(float).tiny)[:, None, None]
    energy = np.cumsum(of_frame, axis=1)
    last = np.minimum(round(LATEST_SHARE * n_frames), n_frames - 1 - (energy < energy[:, -1:] / 2).sum(axis=1))
    shift = np.where(np.eye(n, dtype=bool), 0, rng.integers(np.broadcast_to(last, (n, n)), endpoint=True))
    total = np.zeros_like(power)
    for first, other in zip(*np.nonzero(taken), strict=True):
        begin = shift[first, other]
        total[first, :, begin:] += gain[first, other] * power[other, :, : n_frames - begin]
    loudest = np.maximum(total.max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
    level_db = 10 * np.log10(np.maximum(total / loudest, np.finfo(float).tiny))
    observed = np.where(taken[:, :, None], y[None], 0.0)
    labels = np.where((observed == 1).any(axis=1), 1.0, observed.sum(axis=1))
    return np.maximum(level_db, floor[:, None]).astype(x.dtype), labels.astype(y.dtype)


def mask(
    x: np.ndarray,
    *,
    floor: np.ndarray,
    time_masks: int,
    longest_frames: int,
    frequency_masks: int,
    widest_bins: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay stripes of silence over each example, as SpecAugment does (its warping of time is left out).

    Each stripe's width is drawn from 0 to the largest, all alike, then its place, so that all of it is inside.

    Parameters
    ----------
    x : np.ndarray [shape=(batch, n_bins, n_frames)]
        Features before scaling.
    floor : np.ndarray [shape=(n_bins,)]
        What a stripe is filled with.
    time_masks, frequency_masks : int
        Number of stripes over time and over frequency.
    longest_frames, widest_bins : int
        Their largest widths, at most the picture's.
    rng : np.random.Generator
        Decides widths and places.

    Returns
    -------
    np.ndarray [shape of x]
        A new array.

    References
    ----------
    .. [1] Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le. "SpecAugment: A simple data augmentation method for automatic
       speech recognition." Interspeech 2019. doi:10.21437/Interspeech.2019-2680
    """
    n, n_bins, n_frames = x.shape
    hidden = np.zeros(x.shape, bool)
    for _ in range(time_masks):
        hidden |= _inner_stripe(n, n_frames, longest_frames, rng)[:, None, :]
    for _ in range(frequency_masks):
        hidden |= _inner_stripe(n, n_bins, widest_bins, rng)[:, :, None]
    return np.where(hidden, floor[:, None].astype(x.dtype), x)


def _partners(present: np.ndarray, number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw for each example that many of the batch, itself included, of which no two share a class.

    Parameters
    ----------
    present : np.ndarray of bool [shape=(n, n_classes)]
        Classes of each example.
    number : np.ndarray of int [shape=(n,)]
        How many to draw; fewer when there are no more.
    rng : np.random.Generator
        Decides which.

    Returns
    -------
    np.ndarray of bool [shape=(n, n)]
        Row i holds those of example i.
    """
    n = len(present)
    shares_class = present.astype(np.int64) @ present.T.astype(np.int64) > 0
    taken = np.eye(n, dtype=bool)
    closed = shares_class | taken
    for candidate in np.argsort(rng.random((n, n)), axis=1).T:
        rows = np.flatnonzero((taken.sum(axis=1) < number) & ~closed[np.arange(n), candidate])
        taken[rows, candidate[rows]] = True
        closed[rows] |= shares_class[candidate[rows]]
    return taken


def _stripe(length: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return bool [n, length]: in each row a run of about `share * length` cells around any, cut off at both ends."""
    sizes = np.rint(shares * length).astype(int)
    return _run(length, rng.integers(length, size=len(shares)) - sizes // 2, sizes)


def _inner_stripe(n: int, length: int, longest: int, rng: np.random.Generator) -> np.ndarray:
    """Return bool [n, length]: in each row a run of 0 to `longest` cells, all inside."""
    sizes = rng.integers(min(longest, length), size=n, endpoint=True)
    return _run(length, rng.integers(length - sizes, endpoint=True), sizes)


def _run(length: int, low: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    cells = np.arange(length)
    return (cells >= low[:, None]) & (cells < (low + sizes)[:, None])
