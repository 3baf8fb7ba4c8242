"""The plan of a sample corpus: people, their sentences, and the sentiment of words, voice and face, drawn from one seed."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from preprocessing.sample.sentences import VOCABULARIES, Sentence, make_sentence

SPLITS = ("unlabelled", "train", "valid", "test")
MIN_CLIPS = 6
SMALL_CORPUS, MORE_TESTS = 600, 250
CLIPS_PER_SPEAKER = 6
CLIPS_PER_VIDEO = 3
CONTRADICTING_SHARE = 0.25
LABEL_STEP = 0.2
WEIGHT_T, WEIGHT_A, WEIGHT_V = 0.45, 0.25, 0.30
IRONY_PULL, BRAVE_LIFT = 0.4, 0.15
SPREAD_OF_AGREEMENT, LABEL_NOISE = 0.7, 0.1
CONTRADICTIONS = ("irony", "brave_face", "poker_face", "flat_voice")


@dataclass(frozen=True)
class ClipPlan:
    """The plan of one clip. `clip` is its path below its corpus's root without suffix; `seed` determines everything random in it.

    `part` is unlabelled, train, valid or test; `kind` is `agreeing` or one of `CONTRADICTIONS`. The labels are in [-3, 3].
    """

    clip: str
    part: str
    speaker: str
    speaker_number: int
    video: str
    kind: str
    sentence: Sentence
    label: float
    label_T: float  # noqa: N815 - the corpora's own names
    label_A: float  # noqa: N815
    label_V: float  # noqa: N815
    seed: int

    @property
    def corpus(self) -> str:
        """Which of the two corpora the clip belongs to: `unlabelled` or `labelled`."""
        return "unlabelled" if self.part == "unlabelled" else "labelled"


def part_sizes(clips: int) -> dict[str, int]:
    """Number of clips per part, none empty: a third unlabelled, a quarter test, a twelfth valid, the rest train. Clips 601 to 850 are all
    test clips, because a small test part decides nothing: 850 clips are 200, 400, 50 and 200."""
    more_tests = min(max(clips - SMALL_CORPUS, 0), MORE_TESTS)
    base = clips - more_tests
    sizes = {"unlabelled": max(2, round(base / 3)), "test": max(1, ceil(base / 4)), "valid": max(1, round(base / 12))}
    if clips < 8:
        sizes["test"] = 1
    sizes["train"] = base - sum(sizes.values())
    sizes["test"] += more_tests
    return {part: sizes[part] for part in SPLITS}


def plan_corpus(clips: int, seed: int) -> list[ClipPlan]:
    """Draw the plan of a corpus: a pure function of its arguments.

    No person or sentence is in two parts, and no sentiment word is in two of train, valid and test. The unlabelled part shares sentiment
    words (never sentences) with all three, so that pretraining can teach the weights of words.

    The sentiment of a clip: `label_T` is the sentence's intended intensity. In three of four clips voice and face agree with it,
    `label_A, label_V = label_T + N(0, 0.7)`. In the others they contradict it: irony (positive words, negative voice and face), a brave
    face (negative words, a smile, a voice in between), a poker face (no expression), a flat voice (no expression). The label is

        label = 0.45 T + 0.25 A + 0.30 V - 0.4 min(T+, N-) + 0.15 min(T-, N+) + N(0, 0.1),   N = (A + V) / 2

    with x+ = max(x, 0), x- = max(-x, 0): irony is more negative than the mean of its parts, and a smile softens a complaint. Labels are
    clipped to [-3, 3] and rounded to steps of 0.2, like averages of five raters.

    Raises:
        ValueError: fewer clips than `MIN_CLIPS`.
    """
    if clips < MIN_CLIPS:
        raise ValueError(f"a sample corpus has at least {MIN_CLIPS} clips, not {clips}")
    rng = np.random.default_rng([seed, clips])
    plans: list[ClipPlan] = []
    spoken: dict[str, str] = {}  # sentence -> its part
    speakers = 0
    for part, size in part_sizes(clips).items():
        people = max(min(size, 2), round(size / CLIPS_PER_SPEAKER))
        kinds = _kinds(size, rng)
        for place in range(size):
            person = place * people // size
            first = -(-person * size // people)  # the person's first clip
            plans.append(_plan_clip(part, speakers + person, place - first, kinds[place], spoken, rng))
        speakers += people
    return plans


def _kinds(size: int, rng: np.random.Generator) -> list[str]:
    """The kinds of a part's clips in random order: a quarter contradict."""
    contradicting = round(size * CONTRADICTING_SHARE)
    kinds = [CONTRADICTIONS[place % len(CONTRADICTIONS)] for place in range(contradicting)] + ["agreeing"] * (size - contradicting)
    return [kinds[int(place)] for place in rng.permutation(size)]


def _plan_clip(part: str, person: int, number: int, kind: str, spoken: dict[str, str], rng: np.random.Generator) -> ClipPlan:
    sentence = _new_sentence(part, kind, spoken, rng)
    text, voice, face = _sentiments(sentence, kind, rng)
    label = _multimodal_label(text, voice, face) + float(rng.normal(0.0, LABEL_NOISE))
    video = number // CLIPS_PER_VIDEO + 1
    if part == "unlabelled":
        speaker = f"id{70001 + person}"
        clip, video_name = f"{speaker}/made_v{video}/{number % CLIPS_PER_VIDEO + 1:05d}", f"made_v{video}"
    else:
        speaker = f"spk{person + 1:03d}"
        video_name = f"{speaker}_v{video}"
        clip = f"{video_name}/{number % CLIPS_PER_VIDEO + 1:04d}"
    return ClipPlan(
        clip=clip,
        part=part,
        speaker=speaker,
        speaker_number=person,
        video=video_name,
        kind=kind,
        sentence=sentence,
        label=_round_label(label),
        label_T=_round_label(text),
        label_A=_round_label(voice),
        label_V=_round_label(face),
        seed=int(rng.integers(2**31)),
    )


def _new_sentence(part: str, kind: str, spoken: dict[str, str], rng: np.random.Generator) -> Sentence:
    """A sentence for the kind of clip that no other part has, and that is new in this part (unless it seems to be exhausted)."""
    for trial in range(10_000):
        sentence = make_sentence(VOCABULARIES[part], _polarity(kind, rng), rng)
        strong_enough = kind == "agreeing" or abs(sentence.intensity) >= 0.8  # weak words cannot be contradicted
        owner = spoken.get(sentence.text)
        if strong_enough and (owner is None or (owner == part and trial >= 200)):
            spoken[sentence.text] = part
            return sentence
    raise ValueError(f"the grammar has no sentences left for the {part} part: use fewer clips")


def _polarity(kind: str, rng: np.random.Generator) -> str:
    if kind == "irony":
        return "positive"
    if kind == "brave_face":
        return "negative"
    if kind in ("poker_face", "flat_voice"):
        return "positive" if rng.random() < 0.5 else "negative"
    return str(rng.choice(["positive", "negative", "mixed", "neutral"], p=[0.38, 0.38, 0.12, 0.12]))


def _sentiments(sentence: Sentence, kind: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """The sentiment of words, voice and face, each in [-3, 3]."""
    text = sentence.intensity
    voice, face = text + rng.normal(0.0, SPREAD_OF_AGREEMENT, 2)
    if kind == "irony":
        voice, face = -rng.uniform(0.8, 2.6), -rng.uniform(0.8, 2.6)
    elif kind == "brave_face":
        voice, face = 0.3 * text + rng.normal(0.0, 0.5), rng.uniform(1.0, 2.6)
    elif kind == "poker_face":
        face = rng.normal(0.0, 0.25)
    elif kind == "flat_voice":
        voice = rng.normal(0.0, 0.25)
    return text, float(np.clip(voice, -3, 3)), float(np.clip(face, -3, 3))


def _multimodal_label(text: float, voice: float, face: float) -> float:
    """The noiseless label: see `plan_corpus`."""
    mean = WEIGHT_T * text + WEIGHT_A * voice + WEIGHT_V * face
    body = (voice + face) / 2
    irony = IRONY_PULL * min(max(text, 0.0), max(-body, 0.0))
    softened = BRAVE_LIFT * min(max(-text, 0.0), max(body, 0.0))
    return mean - irony + softened


def _round_label(value: float) -> float:
    return round(round(float(np.clip(value, -3, 3)) / LABEL_STEP) * LABEL_STEP, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
