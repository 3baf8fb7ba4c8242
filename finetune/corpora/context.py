"""The transcripts of the utterances before one in its video (`--context`)."""

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from finetune.corpora.splits import Findings, LabelledCorpus, LabelledSplit, Place, Turn
from skesl_mug.errors import UserError


def numbers_in(name: str) -> Place:
    """The numbers in the part of an id that names the clip: "0012" and "clip12" give (12,), "$_$3.5$_$7.25" (start and end) (3.5, 7.25)."""
    found: list[float] = []
    for part in name.split("$_$"):
        known = [part] if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", part) else re.findall(r"\d+(?:\.\d+)?", part)
        found += [number for number in map(float, known) if math.isfinite(number)]
    return tuple(found)


def video_of(sample_id: str) -> str:
    """The video in "video$_$clip", "video/clip" or "video[clip]"; empty for other ids."""
    mark = next((mark for mark in ("$_$", "/") if mark in sample_id), None)
    if mark:
        return sample_id.split(mark)[0]
    match = re.fullmatch(r"(.+)\[[^\[\]]*\]", sample_id)
    return match[1] if match else ""


def turn_of(sample_id: str, video: str) -> Turn | None:
    """The turn of an id such as "video$_$12"; None if there is no video or no number."""
    place = numbers_in(sample_id.removeprefix(video)) if video else ()
    return Turn(video, place) if place else None


def earlier_texts(
    turns: Sequence[Turn | None], texts: Sequence[str], count: int, others: Iterable[tuple[Turn, str]] = ()
) -> list[tuple[str, ...]]:
    """The last `count` transcripts before each utterance in its recording, oldest first; they do not depend on the order of the rows.

    Utterances without a transcript are passed over, and have no context themselves; of two at the same place neither is before the other.

    Args:
        turns: where each utterance is; None: unknown, so it neither has context nor is one.
        texts: their transcripts, empty where there is none.
        count: maximum number of transcripts.
        others: further transcripts that can be context.
    """
    said: dict[str, list[tuple[Place, str]]] = defaultdict(list)
    for turn, text in (*zip(turns, texts, strict=True), *others):
        if turn is not None and text.strip():
            said[turn.recording].append((turn.place, text))
    for rows in said.values():
        rows.sort()
    found: list[tuple[str, ...]] = []
    for turn, text in zip(turns, texts, strict=True):
        rows = said[turn.recording] if turn is not None and text.strip() else []
        first = bisect_left(rows, (turn.place,)) if turn is not None else 0  # a shorter tuple is smaller
        found.append(tuple(text for _, text in rows[max(0, first - count) : first]))
    return found


def with_context(corpus: LabelledCorpus, count: int) -> LabelledCorpus:
    """The corpus with up to `count` earlier transcripts of the same split and video for each utterance (`LabelledSplit.context`).

    Raises:
        UserError: it has no transcripts, its own token ids are read, or no utterance of train has an earlier one.
    """
    if not count:
        return corpus
    flag, train = f"--context {count}: {corpus.source}", corpus.splits["train"]
    if corpus.text_width:
        raise UserError(f"{flag} has text vectors instead of transcripts; leave the option out")
    if train.tokens is not None:
        raise UserError(f"{flag} was read with its own token ids (--text-bert), which cannot be put together; leave one of the two out")
    if train.text is None:
        raise UserError(f"{flag} has no transcripts; leave the option out")
    findings = Findings()
    splits = {name: _with_context(split, count, name, findings) for name, split in corpus.splits.items()}
    if not any(splits["train"].context or ()):
        needed = (
            "a `video_id` for several rows and their `start`" if corpus.info else "`id`s such as VIDEO$_$3, of which several share a video"
        )
        raise UserError(f"{flag} has no utterance in train with an earlier one of its video; it needs {needed}, or leave the option out")
    return replace(corpus, splits=splits, findings=[*corpus.findings, *findings], context=count)


def _with_context(split: LabelledSplit, count: int, name: str, findings: Findings) -> LabelledSplit:
    turns, texts = split.turns or [None] * len(split), split.text or [""] * len(split)
    context = earlier_texts(turns, texts, count, split.unlabelled)
    unknown = sum(turn is None for turn in turns)
    if unknown:
        findings.warn(f"{name}/id", "utterances whose id has no video or no clip number: read without context", unknown)
    places = Counter([turn for turn in turns if turn is not None] + [turn for turn, _ in split.unlabelled])
    shared = sum(number for number in places.values() if number > 1)
    if shared:
        findings.warn(f"{name}/id", "utterances at the same place in their video as another: neither is context of the other", shared)
    findings.note(f"{name}/text", f"transcripts read after up to {count} earlier ones of their video", sum(map(bool, context)))
    return replace(split, context=context)
