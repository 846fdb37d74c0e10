"""Drum grooves and fills."""

import numpy as np

# General MIDI keys (one is chosen for the clip) and how long each is left to sound, in s.
_KIT: dict[str, tuple[tuple[int, ...], float]] = {
    "kick": ((36, 36, 35), 0.3), "snare": ((38, 38, 40), 0.3), "stick": ((37,), 0.2), "clap": ((39,), 0.3),
    "hat": ((42,), 0.12), "pedal": ((44,), 0.12), "open": ((46,), 0.5), "ride": ((51, 59), 0.9), "bell": ((53,), 0.9),
    "crash": ((49, 57), 1.8), "tom1": ((50, 48), 0.5), "tom2": ((47,), 0.5), "tom3": ((45,), 0.5),
    "tom4": ((43, 41), 0.6),
}  # fmt: skip

# One bar of four beats in 16 (straight) or 12 (swung) steps: X accent, x hit, o ghost note.
_GROOVES: dict[int, tuple[dict[str, str], ...]] = {
    1: (
        {"kick": "X.......x.x.....", "snare": "....X.......X...", "hat": "X.x.X.x.X.x.X.x."},
        {"kick": "X.....x...x.....", "snare": "....X..o.o..X..o", "hat": "XxxxXxxxXxxxXxxx"},
        {"kick": "X...X...X...X...", "clap": "....x.......x...", "open": "..X...X...X...X."},
        {"kick": "X..x..x.X..x....", "snare": "....X.......X...", "ride": "X.x.X.x.X.x.X.x."},
        {"kick": "X..xX..xX..xX..x", "stick": "x..x..x...x..x..", "hat": "x.x.x.x.x.x.x.x."},
        {"kick": "X...x...X...x...", "snare": "ooXoooXoooXooxXx", "pedal": "..x...x...x...x."},
        {"kick": "X.x.....X.x.....", "snare": "....X.......X..o", "bell": "X...X...X...X..."},
        {"kick": "X.....x.X.......", "tom4": "X.x..x..X.x..x..", "tom2": "....X.......X.x."},
    ),
    2: (
        {"kick": "X.....X.x...", "snare": "...X.....X..", "hat": "X.xX.xX.xX.x"},
        {"kick": "o.....o.....", "snare": ".....o..o...", "ride": "X..X.xX..X.x", "pedal": "...x.....x.."},
        {"kick": "X....xX.....", "snare": "...X.....X..", "hat": "XxxXxxXxxXxx"},
        {"kick": "X.......x...", "snare": "..o.o.X.o.o.", "hat": "X.xX.xX.xX.x"},
        {"kick": "X.....x..x..", "tom3": "X.x..x..X..x", "tom1": "...X.xX.....", "pedal": "...x.....x.."},
        {"kick": "X.....X.....", "stick": "...X.....X..", "ride": "X..X.xX..X.x"},
    ),
}  # fmt: skip
_FILLS = {
    1: ("snare snare tom1 tom1 tom2 tom2 tom4 tom4", "snare snare snare snare tom1 tom2 tom3 tom4", "snare tom2 tom4"),
    2: ("snare snare tom1 tom2 tom3 tom4", "snare tom2 tom4", "snare snare snare"),
}
_ACCENTS = {"X": 14.0, "x": 0.0, "o": -34.0}


def groove(
    rng: np.random.Generator, register: int, n_beats: int, beat_s: float
) -> list[tuple[float, float, int, float]]:
    """Return a straight (register 1) or swung (2) groove as (beat, length in beats, key, accent)."""
    key = {name: int(rng.choice(keys)) for name, (keys, _) in _KIT.items()}
    bars, fills = _GROOVES[register], _FILLS[register]
    pattern, fill = bars[rng.integers(len(bars))], fills[rng.integers(len(fills))].split()
    steps_a_beat = 4 if register == 1 else 3
    bar, n_steps = 4 * steps_a_beat, n_beats * steps_a_beat
    shift = int(rng.choice((0, 0, 2))) * steps_a_beat  # where in the bar the clip begins
    turns = [step for step in range(bar - shift, n_steps + 1, bar) if step > len(fill)]
    turn = int(rng.choice(turns)) if turns and rng.random() < 0.65 else None
    filled = range(0) if turn is None else range(turn - len(fill), turn)
    played = [(step, name, pattern[name][(step + shift) % bar]) for step in range(n_steps) for name in pattern]
    hits = [(step, name, letter) for step, name, letter in played if letter != "." and step not in filled]
    if turn is not None:
        hits += [(step, name, "x") for step, name in zip(filled, fill, strict=True)]
        hits += [(turn, "crash", "X"), (turn, "kick", "X")]
    elif rng.random() < 0.3:
        hits.append((0, "crash", "X"))
    return [(step / steps_a_beat, _KIT[name][1] / beat_s, key[name], _ACCENTS[hit]) for step, name, hit in hits]
