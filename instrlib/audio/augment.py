"""Augmentation of spectrograms: CutMix, MixUp, mixtures, SpecAugment and recording augmentation.

All act on features before scaling, so a pasted box is part of a spectrogram and a mask is silence. All random choices
come from the generator `rng`.
"""

import numpy as np

from instrlib.audio.effects import CENTRE_HZ, equaliser_db
from instrlib.core.config import AugmentConfig

LATEST_SHARE = 1 / 3  # of a segment: largest delay of a sound in a mixture, which keeps half of its energy

# Recording augmentation: the shortest cut, RT60 (even on a logarithmic scale) and signal-to-noise ratios.
SHORTEST_S = 0.3
REVERBERATION_S = (0.15, 1.8)
SNR_DB = (10.0, 60.0)


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
    """Augment one batch: recording augmentation first, then CutMix, MixUp or mixtures, then masks.

    `x` [batch, n_bins, n_frames] are features before scaling, `y` [batch, n_classes] shares of the classes; or 1
    present, 0 absent, NaN not observed (in a mix, unless both examples are observed). A batch is mixed as a whole, with
    probability `share`. `floor` [n_bins] is the value of silence (`features.silence`). `edges_hz` [n_bins + 2], see
    `features.mel_edges_hz`, are required for mixtures and recording augmentation.

    CutMix: arXiv:1905.04899; MixUp: arXiv:1710.09412; masks: SpecAugment without time warping,
    doi:10.21437/Interspeech.2019-2680.
    """
    if config.recording:
        x = augment_recording(x, share=config.recording, centres_hz=edges_hz[1:-1], hop_s=hop_s, floor=floor, rng=rng)
    if config.mix == "mixtures" and rng.random() < config.share:
        settings = {"number": config.n_sources, "range_db": config.level_range_db, "floor": floor}
        x, y = mixtures(x, y, **settings, widths_hz=edges_hz[2:] - edges_hz[:-2], rng=rng)
    elif config.mix in ("cutmix", "mixup") and rng.random() < config.share:
        x, y = _mixed(x, y, config, rng)
    hidden = np.zeros(x.shape, bool)
    for axis, number, longest in (
        (2, config.time_masks, round(config.time_mask_s / hop_s)),
        (1, config.frequency_masks, config.frequency_mask_bins),
    ):
        for _ in range(number):
            size = rng.integers(min(longest, x.shape[axis]), size=len(x), endpoint=True)
            low = rng.integers(x.shape[axis] - size, endpoint=True)
            hidden |= np.expand_dims(_runs(x.shape[axis], low, size), 3 - axis)
    return np.where(hidden, floor[:, None].astype(x.dtype), x), y


def _mixed(
    x: np.ndarray, y: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply CutMix or MixUp, and mix the labels.

    CutMix pastes a box from a partner; its centre is uniform, the part beyond the edge is cut off, and the labels
    follow the remaining area. MixUp averages dB, which is not the spectrogram of the summed sounds (see `mixtures`).
    """
    partner, own = rng.permutation(len(x)), rng.beta(config.beta, config.beta, size=len(x))
    if config.mix == "mixup":
        share, pasted = own.astype(np.float32)[:, None, None], 1 - own
        x = share * x + (1 - share) * x[partner]
    else:
        side, box = np.sqrt(1 - own) if config.axes == "both" else 1 - own, np.ones(x.shape, bool)
        for axis, left_out in ((1, "time"), (2, "frequency")):
            if config.axes != left_out:
                size = np.rint(side * x.shape[axis]).astype(int)
                low = rng.integers(x.shape[axis], size=len(x)) - size // 2
                box &= np.expand_dims(_runs(x.shape[axis], low, size), 3 - axis)
        x, pasted = np.where(box, x[partner], x), box.mean(axis=(1, 2))
    pasted = pasted.astype(np.float32)[:, None]
    return x, (1 - pasted) * y + pasted * y[partner]


def mixtures(
    x: np.ndarray,
    y: np.ndarray,
    *,
    number: tuple[int, int],
    range_db: float,
    floor: np.ndarray,
    widths_hz: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Add other examples of the batch to each one, as if they sounded together; log-mel spectrograms only.

    `number` is the smallest and largest number of examples. The examples of a mixture share no class; a batch with too
    few classes gives fewer. All get the same mean power while they sound; then the level of each partner changes by up
    to `range_db` and its onset moves later. Powers add band by band, as for sounds with independent phases. `widths_hz`
    are the widths of the bands: they have equal area, so the power is the sum of levels times widths. A class is
    present if any example has it, absent if all lack it, and otherwise not observed.
    """
    n, _, n_frames = x.shape
    own = np.eye(n, dtype=bool)
    taken = _partners(y == 1, rng.integers(number[0], number[1], size=n, endpoint=True), rng)
    gain = np.where(own, 1.0, 10 ** (rng.uniform(-range_db, range_db, size=(n, n)) / 10))
    power = _power(x.astype(np.float64), floor)
    of_frame = np.einsum("nbt,b->nt", power, widths_hz)
    n_sounding = np.maximum((of_frame > 0).sum(axis=1), 1)
    power /= np.maximum(of_frame.sum(axis=1) / n_sounding, np.finfo(float).tiny)[:, None, None]
    energy = np.cumsum(of_frame, axis=1)
    last = np.minimum(round(LATEST_SHARE * n_frames), n_frames - 1 - (energy < energy[:, -1:] / 2).sum(axis=1))
    shift = np.where(own, 0, rng.integers(np.broadcast_to(last, (n, n)), endpoint=True))
    total = np.zeros_like(power)
    for first, other in zip(*np.nonzero(taken), strict=True):
        begin = shift[first, other]
        total[first, :, begin:] += gain[first, other] * power[other, :, : n_frames - begin]
    observed = np.where(taken[:, :, None], y[None], 0.0)
    labels = np.where((observed == 1).any(axis=1), 1.0, observed.sum(axis=1))
    return _level_db(total, floor).astype(x.dtype), labels.astype(y.dtype)


def augment_recording(
    x: np.ndarray, *, share: float, centres_hz: np.ndarray, hop_s: float, floor: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Simulate other recording conditions for a `share` of the examples; log-mel spectrograms only.

    In this order: equaliser bells and a tilt, with low-pass and high-pass (each one in three); a section around the
    loudest moment (half); reverberation, longer in the bass (half); steady coloured noise (seven in ten). All effects
    act on powers, because phases are unknown. `centres_hz` are those of the bands. Silence stays silent.
    """
    sounds = (x > floor[:, None]).any(axis=(1, 2))
    changed = np.flatnonzero((rng.random(len(x)) < share) & sounds)
    result = x.astype(np.float32)
    if not changed.size:
        return result
    octaves = np.log2(centres_hz / CENTRE_HZ).astype(np.float32)
    power = _power(result[changed], floor)
    n, _, n_frames = power.shape

    gain_db = equaliser_db(octaves, rng, n=n)
    slope_db = rng.uniform(12, 60, (n, 1))  # per octave
    above = np.where(rng.random((n, 1)) < 1 / 3, np.log2(rng.uniform(2000, 11000, (n, 1)) / CENTRE_HZ), np.inf)
    below = np.where(rng.random((n, 1)) < 1 / 3, np.log2(rng.uniform(40, 350, (n, 1)) / CENTRE_HZ), -np.inf)
    outside = np.maximum(octaves - above, 0) + np.maximum(below - octaves, 0) / 2
    power *= 10 ** ((gain_db - slope_db * outside).astype(np.float32)[:, :, None] / 10)

    length = rng.integers(min(max(1, round(SHORTEST_S / hop_s)), n_frames), n_frames, size=n, endpoint=True)
    first = np.clip(power.sum(axis=1).argmax(axis=1) - rng.integers(length), 0, n_frames - length)
    kept = _runs(n_frames, first, length) | (rng.random((n, 1)) < 0.5)
    power *= kept[:, None, :]

    rt60_s = np.exp(rng.uniform(*np.log(REVERBERATION_S), (n, 1)))
    rt60_s = rt60_s * np.exp2(-0.25 * rng.random((n, 1)) * np.maximum(octaves, 0))  # air absorbs the treble
    left = (10 ** (-6 * hop_s / rt60_s)).astype(np.float32)
    level_db = np.where(rng.random((n, 1)) < 0.5, rng.uniform(-20, -3, (n, 1)), -np.inf)
    wet = (10 ** (level_db / 10) * (1 - left)).astype(np.float32)
    total, tail = power.copy(), np.zeros(power.shape[:2], np.float32)
    for frame in range(1, n_frames):
        tail = left * tail + power[:, :, frame - 1]
        total[:, :, frame] += wet * tail

    colour = 10 ** (equaliser_db(octaves, rng, n=n, bells=2, largest_db=8.0, tilt_db=(-6, 2)) / 10)
    snr_db = np.where(rng.random(n) < 0.7, rng.uniform(*SNR_DB, n), np.inf)
    level = total.mean(axis=(1, 2)) * 10 ** (-snr_db / 10)
    steady = (level[:, None] * colour / colour.mean(axis=1, keepdims=True)).astype(np.float32)
    grain = rng.standard_gamma(6, size=total.shape, dtype=np.float32) / np.float32(6)  # fluctuation of real noise
    result[changed] = _level_db(total + steady[:, :, None] * grain, floor)
    return result


def _power(level_db: np.ndarray, floor: np.ndarray) -> np.ndarray:
    return np.where(level_db > floor[:, None], 10 ** (level_db / 10), level_db.dtype.type(0))


def _level_db(power: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return powers in dB below the loudest point of each example, at least the floor."""
    tiny = np.finfo(power.dtype).tiny
    loudest = np.maximum(power.max(axis=(1, 2), keepdims=True), tiny)
    return np.maximum(10 * np.log10(np.maximum(power / loudest, tiny)), floor[:, None])


def _partners(present: np.ndarray, number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw `number` examples for each example, itself included, without shared classes; bool [n, n]."""
    n = len(present)
    shares_class = present.astype(np.int64) @ present.T.astype(np.int64) > 0
    taken = np.eye(n, dtype=bool)
    closed = shares_class | taken
    for candidate in np.argsort(rng.random((n, n)), axis=1).T:
        rows = np.flatnonzero((taken.sum(axis=1) < number) & ~closed[np.arange(n), candidate])
        taken[rows, candidate[rows]] = True
        closed[rows] |= shares_class[candidate[rows]]
    return taken


def _runs(length: int, low: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return bool [n, length]: in each row the cells from `low` to before `low + size`."""
    cells = np.arange(length)
    return (cells >= low[:, None]) & (cells < (low + size)[:, None])
