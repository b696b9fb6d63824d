"""From phonemes to facial actions, with coarticulation by dominance functions.

Cohen and Massaro 1993, "Modeling coarticulation in synthetic visual speech": segment s pulls control p towards its
target T_sp with dominance D_sp(τ) = α_sp exp(−θ_s |τ|), τ the time outside the segment; the control is Σ D T / Σ D. A
strong, brief dominance keeps lips closed for [b]; a weak one lets [t] take the lips of its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from datamodules.synthetic.speech import Segment

# Controls of a mouth: facial actions of the built-in head, both sides at once, and `closure`, the share of whatever
# opens the lips that is taken back.
CONTROLS = (
    "jaw_open", "closure", "pucker", "funnel", "spread", "press", "roll_lower", "upper_raise", "lower_drop",
    "tongue_up", "tongue_out", "tongue_back",
)  # fmt: skip


@dataclass(frozen=True)
class Viseme:
    """Targets of the controls that matter to a sound, the strength with which it insists, and how briefly (1/s)."""

    targets: dict[str, float]
    strength: float = 1.0
    rate: float = 22.0
    insists: dict[str, float] = field(default_factory=dict)  # strength of single controls


_BILABIAL = Viseme(
    {"closure": 1.0, "jaw_open": 0.12, "press": 0.40}, 0.5, 48, {"closure": 16, "press": 4, "jaw_open": 2}
)
_LABIODENTAL = Viseme(
    {"roll_lower": 0.85, "jaw_open": 0.13, "closure": 0.55, "upper_raise": 0.30}, 0.5, 40,
    {"roll_lower": 9, "closure": 4, "upper_raise": 3, "jaw_open": 1.5},
)  # fmt: skip
_SIBILANT = Viseme(
    {"jaw_open": 0.07, "spread": 0.25, "lower_drop": 0.45, "upper_raise": 0.20, "tongue_up": 0.5}, 0.6, 24,
    {"jaw_open": 3, "lower_drop": 2},
)  # fmt: skip
_POSTALVEOLAR = Viseme({"jaw_open": 0.10, "funnel": 0.75, "pucker": 0.25}, 0.7, 22, {"funnel": 4, "jaw_open": 3})
_ALVEOLAR = Viseme(
    {"jaw_open": 0.15, "tongue_up": 0.9, "lower_drop": 0.15}, 0.35, 24, {"jaw_open": 1.0, "tongue_up": 5}
)
_DENTAL = Viseme({"jaw_open": 0.18, "tongue_out": 0.9, "lower_drop": 0.2}, 0.5, 24, {"tongue_out": 6})
_LATERAL = Viseme({"jaw_open": 0.26, "tongue_up": 1.0}, 0.4, 22, {"tongue_up": 6})
_VELAR = Viseme({"jaw_open": 0.22, "tongue_back": 1.0}, 0.3, 24, {"tongue_back": 5, "jaw_open": 0.7})
_I = Viseme({"jaw_open": 0.17, "spread": 0.75, "upper_raise": 0.20, "lower_drop": 0.25}, 1.0, 18)
_SHORT_I = Viseme({"jaw_open": 0.26, "spread": 0.45, "lower_drop": 0.2}, 0.9, 20)
_E = Viseme({"jaw_open": 0.44, "spread": 0.40, "upper_raise": 0.10}, 1.0, 18)
_A = Viseme({"jaw_open": 0.68, "spread": 0.22, "upper_raise": 0.12}, 1.1, 17)
_BACK_A = Viseme({"jaw_open": 0.72, "funnel": 0.10}, 1.1, 17)
_OPEN_O = Viseme({"jaw_open": 0.50, "funnel": 0.45, "pucker": 0.12}, 1.0, 18)
_O = Viseme({"jaw_open": 0.34, "funnel": 0.65, "pucker": 0.40}, 1.0, 18)
_U = Viseme({"jaw_open": 0.12, "pucker": 0.90, "funnel": 0.30}, 1.0, 18, {"pucker": 2})
_SCHWA = Viseme({"jaw_open": 0.29}, 0.5, 22)
_REST = Viseme({}, 1.5, 10)
_EDGE = 0.03  # s, how far at most a segment's edge belongs to its neighbour already
_REACH = 2.0  # s, beyond which a segment has no say
_BLOCK = 250  # frames worked out at once

# espeak-ng's phoneme names (stress marks off): those of English, then what French, German, Spanish and Italian add when
# they read it. A diphthong is two visemes in turn.
VISEMES: dict[str, tuple[Viseme, ...]] = {
    **dict.fromkeys(("p", "b", "m"), (_BILABIAL,)),
    **dict.fromkeys(("f", "v"), (_LABIODENTAL,)),
    **dict.fromkeys(("T", "D"), (_DENTAL,)),
    **dict.fromkeys(("s", "z"), (_SIBILANT,)),
    **dict.fromkeys(("S", "Z", "tS", "dZ"), (_POSTALVEOLAR,)),
    **dict.fromkeys(("t", "d", "n", "t2", "?"), (_ALVEOLAR,)),
    **dict.fromkeys(("l", "l/", "@L", "@-L"), (_LATERAL,)),
    **dict.fromkeys(("k", "g", "N", "h", "x"), (_VELAR,)),
    **dict.fromkeys(("r", "r-"), (Viseme({"jaw_open": 0.14, "pucker": 0.40, "funnel": 0.35}, 0.7, 22, {"funnel": 2}),)),
    **dict.fromkeys(
        ("w", "w2", "w#"), (Viseme({"jaw_open": 0.08, "pucker": 0.95}, 0.8, 24, {"pucker": 5, "jaw_open": 2}),)
    ),
    "j": (Viseme({"jaw_open": 0.14, "spread": 0.5}, 0.6, 24),),
    **dict.fromkeys(("i:", "i", "I2"), (_I,)),
    "I": (_SHORT_I,),
    **dict.fromkeys(("E", "e"), (_E,)),
    **dict.fromkeys(("a", "aa", "V"), (_A,)),
    **dict.fromkeys(("A:", "A@", "A"), (_BACK_A,)),
    **dict.fromkeys(("0", "O2"), (_OPEN_O,)),
    **dict.fromkeys(("o@", "O:", "O"), (_O,)),
    **dict.fromkeys(("u:", "U", "u"), (_U,)),
    **dict.fromkeys(("@", "a#", "3", "3:", "@2", "@5", "I#"), (_SCHWA,)),
    "aI": (_A, _SHORT_I), "eI": (_E, _I), "OI": (_O, _SHORT_I), "aU": (_A, _U), "oU": (_O, _U),
    "i@": (_SHORT_I, _SCHWA), "e@": (_E, _SCHWA), "U@": (_U, _SCHWA), "i@3": (_SHORT_I, _SCHWA),
    **dict.fromkeys(("y", "y:"), (_U,)),
    **dict.fromkeys(("o", "o:"), (_O,)),
    **dict.fromkeys(("e:", "E~"), (_E,)),
    "EI": (_E, _I), "aI2": (_A, _SHORT_I), "O@": (_O,), "@-": (_SCHWA,), "Q": (_VELAR,), "B": (_BILABIAL,),
    **dict.fromkeys(("ts", "dz", "ss"), (_SIBILANT,)),
    **dict.fromkeys(("*", "**", "R", "R2", "d[", "t[", "t#"), (_ALVEOLAR,)),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a person articulates.

    Attributes:
        gain: strength of every control, in the order of CONTROLS.
        briskness: factor on how briefly a sound insists; low values blur neighbours together.
        asymmetry: how much more the right side of the image moves, a share.
        lead: how far the face is ahead of the sound, s.
    """

    gain: Float[np.ndarray, "12"]
    briskness: float
    asymmetry: float
    lead: float


def draw_style(rng: np.random.Generator) -> Style:
    """A style at random: overall vigour, then each control on its own."""
    gain = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.15, len(CONTROLS)))
    gain[CONTROLS.index("closure")] = 1.0  # everybody closes the lips for [b]
    return Style(gain, float(np.exp(rng.normal(0, 0.12))), float(rng.normal(0, 0.08)), float(rng.uniform(0.0, 0.04)))


def articulate(
    phonemes: Sequence[Segment], style: Style, times: Float[np.ndarray, "T"]
) -> dict[str, Float[np.ndarray, "T"]]:
    """Weights of facial actions at the given times (s), 1 = full strength.

    Raises:
        ValueError: a phoneme has no viseme.
    """
    segments = _with_rests(phonemes)
    starts, ends = (np.array([getattr(s, side) for s, _ in segments]) - style.lead for side in ("start", "end"))
    visemes = [v for _, v in segments]
    targets = np.array([[v.targets.get(c, 0.0) for c in CONTROLS] for v in visemes])
    strength = np.array([[v.insists.get(c, v.strength) for c in CONTROLS] for v in visemes])
    rate = np.array([v.rate for v in visemes]) * style.briskness
    margin = np.minimum(0.2 * (ends - starts), _EDGE)
    controls = np.empty((len(times), len(CONTROLS)))
    for first in range(0, len(times), _BLOCK):
        t = times[first : first + _BLOCK]
        near = (starts < t[-1] + _REACH) & (ends > t[0] - _REACH)
        # τ of the dominance: 0 in the middle of a segment, then the time since.
        outside = np.maximum(np.maximum((starts + margin)[near] - t[:, None], t[:, None] - (ends - margin)[near]), 0)
        dominance = np.exp(-rate[near] * outside)[..., None] * strength[near]  # (T, S, C)
        controls[first : first + _BLOCK] = (dominance * targets[near]).sum(axis=1) / dominance.sum(axis=1)
    return _actions(dict(zip(CONTROLS, np.clip(controls * style.gain, 0, 1.2).T, strict=True)), style)


def _actions(control: dict[str, np.ndarray], style: Style) -> dict[str, np.ndarray]:
    closure = np.clip(control.pop("closure"), 0, 1)
    opening = 1 - closure
    actions = {name: control[name] for name in ("jaw_open", "pucker", "spread", "press", "roll_lower")}
    actions |= {name: control[name] for name in ("tongue_up", "tongue_out", "tongue_back")}
    actions["close"] = closure * control["jaw_open"]  # the action undoes a jaw opened by as much
    actions["funnel"] = control["funnel"] * opening
    for name in ("upper_raise", "lower_drop"):
        for side, sign in (("left", -1), ("right", 1)):
            actions[f"{name}_{side}"] = control[name] * opening * (1 + sign * style.asymmetry)
    return actions


def _with_rests(phonemes: Sequence[Segment]) -> list[tuple[Segment, Viseme]]:
    """Phonemes as visemes, diphthongs split, pauses and both ends at rest."""
    result = [(Segment("_", -10.0, phonemes[0].start if phonemes else 10.0), _REST)]
    previous = None
    for phoneme in phonemes:
        if phoneme.label not in VISEMES:
            raise ValueError(f"no viseme for the phoneme {phoneme.label!r}; add it to articulation.VISEMES")
        if previous and phoneme.start - previous.end > 0.12:
            result.append((Segment("_", previous.end, phoneme.start), _REST))
        visemes = VISEMES[phoneme.label]
        edges = np.linspace(phoneme.start, phoneme.end, len(visemes) + 1)
        result += [(Segment(phoneme.label, a, b), v) for a, b, v in zip(edges, edges[1:], visemes, strict=False)]
        previous = phoneme
    if previous:
        result.append((Segment("_", previous.end, previous.end + 10.0), _REST))
    return result
