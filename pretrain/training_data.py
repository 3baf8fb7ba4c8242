"""What a pretraining run is made of: utterances with masked words, rated sentences, and the part of each that is held out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from lexicons.rated import RatedTexts, load_rated
from pretrain.batches import tokenise
from pretrain.corpora import Corpora
from pretrain.evaluation import HeldOut
from pretrain.holdout import hold_out, thin_zeros
from pretrain.options import PretrainOptions
from pretrain.rating import rater_folder, teacher_scores
from pretrain.run_folder import MASKED_TEXTS
from pretrain.samples import MaskedUtterances, Mixture, RatedSentences, Samples
from pretrain.selection import MaskingOptions, Selection, select
from skesl_mug.wording import counted


@dataclass
class TrainingData:
    """The samples of both sides and how they were divided; `split_by` by kind of sample ("utterances", "sentences").

    `teacher` is the run that scored the transcripts, if one did.
    """

    corpora: Corpora | None = None
    selection: Selection | None = None
    rated: RatedTexts | None = None
    train_utterances: MaskedUtterances | None = None
    train_sentences: RatedSentences | None = None
    held: HeldOut = field(default_factory=lambda: HeldOut(None, None))
    split_by: dict[str, str] = field(default_factory=dict)
    unknown_speakers: int = 0
    teacher: str | None = None

    @property
    def train(self) -> Samples:
        """The training side as one data set."""
        parts = [part for part in (self.train_utterances, self.train_sentences) if part is not None]
        return parts[0] if len(parts) == 1 else Mixture(parts)

    def width(self, modality: str) -> int:
        """Columns of `audio` or `vision`; 0: there are none."""
        return self.corpora.width(modality) if self.corpora is not None else 0


def load_data(accelerator: Accelerator, tokenizer: Any, options: PretrainOptions, teacher: str | None = None) -> TrainingData:
    """Open the datasets, choose and mask the usable utterances, hold out speakers; read the rated sentences, hold out documents."""
    data = TrainingData(teacher=teacher)
    if teacher is not None:
        rater_folder(teacher)  # what is wrong with small things is told before large ones are read
    if options.objective.rated:
        load_sentences(data, accelerator, tokenizer, options)
    if options.data:
        load_utterances(data, accelerator, tokenizer, options)
    return data


def load_utterances(data: TrainingData, accelerator: Accelerator, tokenizer: Any, options: PretrainOptions) -> None:
    """Add the utterances of --data."""
    with accelerator.main_process_first():  # opening a dataset may convert it
        corpora = Corpora(options.data)
    masking = MaskingOptions(
        max_tokens=options.max_tokens,
        one_token=options.one_mask_token,
        context=options.context_intensity,
        all_splits=options.all_splits,
        masks_per_row=options.objective.masks,
        confidence=options.objective.confidence,
    )
    ratings = None
    with accelerator.main_process_first():
        selection = select(corpora, tokenizer, options.output / MASKED_TEXTS, masking, accelerator.is_local_main_process)
        if data.teacher is not None:
            folder = options.output / MASKED_TEXTS
            ratings = teacher_scores(data.teacher, corpora, selection, folder, accelerator, options.max_tokens)
    share = min(options.valid_share, options.valid_most / len(selection)) if options.valid_most else options.valid_share
    train, valid, split_by, data.unknown_speakers = hold_out(selection.speakers, selection.videos, share, options.seed, selection.skipped)
    if options.objective.zero_share is not None:
        kept = thin_zeros(selection.intensities, train, options.objective.zero_share, options.seed)
        if len(kept) < len(train):
            selection.skipped["zero_intensity_beyond_share"] = len(train) - len(kept)
        train = kept

    def samples(members: np.ndarray) -> MaskedUtterances:
        return MaskedUtterances(
            corpora,
            selection,
            members,
            options.max_audio_frames,
            options.max_vision_frames,
            word_weight=options.objective.word,
            ratings=ratings,
            rating_weight=options.objective.distil,
        )

    data.corpora, data.selection = corpora, selection
    data.train_utterances, data.held.utterances = samples(train), samples(valid)
    data.split_by["utterances"] = split_by


def load_sentences(data: TrainingData, accelerator: Accelerator, tokenizer: Any, options: PretrainOptions) -> None:
    """Add the rated sentences of --rated, each document on one side; a sentence whose raters agreed weighs more."""
    with accelerator.main_process_first():
        rated = load_rated(options.rated, options.rated_range)
    token_lists = tokenise(rated.texts, tokenizer, options.max_tokens)
    weights = options.objective.rated * agreement(rated.spreads)
    share = min(options.valid_share, options.valid_most / len(rated.texts)) if options.valid_most else options.valid_share
    train, valid, split_by, _ = hold_out([""] * len(rated.texts), rated.groups, share, options.seed)

    def samples(members: np.ndarray) -> RatedSentences:
        return RatedSentences([token_lists[place] for place in members], rated.scores[members], weights[members].astype(np.float32))

    data.rated = rated
    data.train_sentences, data.held.sentences = samples(train), samples(valid)
    data.split_by["sentences"] = {"video": "document", "utterance": "sentence"}[split_by]


def agreement(spreads: np.ndarray) -> np.ndarray:
    """The weight of each sentence [N], mean 1: 1 / (1 + variance of its ratings); 1 where the variance is unknown."""
    weights = 1.0 / (1.0 + np.nan_to_num(np.asarray(spreads, np.float64)) ** 2)
    weights[np.isnan(spreads)] = np.mean(weights[~np.isnan(spreads)]) if not np.isnan(spreads).all() else 1.0
    return np.asarray(weights / weights.mean())


def announce(accelerator: Accelerator, data: TrainingData, options: PretrainOptions) -> None:
    """Say what was found and how it was divided."""
    if data.corpora is not None and data.selection is not None and data.train_utterances is not None:
        made = " (synthetic)" if any(source.info.synthetic for source in data.corpora.sources) else ""
        skipped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in data.selection.skipped.items())
        found = f"{len(data.selection):,} of {counted(len(data.corpora), 'utterance')}{made}{f'; skipped: {skipped}' if skipped else ''}"
        accelerator.print(f"Data: {found}")
        held = counted(len(data.held.utterances or ()), "utterance")
        accelerator.print(
            f"Validation: {held} held out by {data.split_by['utterances']}, {len(data.train_utterances)} to train on; "
            f"audio {data.width('audio')} columns, vision {data.width('vision')}; text encoder {options.lm}"
            f"{' (frozen)' if options.freeze_lm else ''}"
        )
        if note := speaker_note(data.split_by["utterances"], data.unknown_speakers, len(data.selection)):
            accelerator.print(note)
    if data.rated is not None and data.train_sentences is not None:
        accelerator.print(
            f"Rated sentences: {data.rated.name}; {len(data.held.sentences or ()):,} of {len(data.rated.texts):,} held out by "
            f"{data.split_by['sentences']}"
        )
        for note in data.rated.notes:
            accelerator.print(f"Note: {note}")
        if options.freeze_lm:
            accelerator.print("Note: the text encoder is frozen; rated sentences teach far more with --train-lm.")


def speaker_note(by: str, unknown: int, count: int) -> str:
    """What to say about the speakers of the validation split; empty where all are known and held out whole."""
    if by == "speaker":
        if not unknown:
            return ""
        return f"Note: {counted(unknown, 'utterance')} without a speaker; the speaker of the same video, or else the video, counts as one."
    if unknown == count:
        return f"Note: no speaker is known; the validation split is by {by}."
    return f"Note: there are too few speakers to hold out whole ones; the validation split is by {by}."


def describe_data(data: TrainingData) -> dict[str, Any]:
    """What the run was made of, as `results.json` has it."""
    sources = [describe_source(Path(source.folder), source.info) for source in data.corpora.sources] if data.corpora is not None else []
    entries: dict[str, Any] = {
        "path": ", ".join(source["path"] for source in sources),
        "utterances": len(data.corpora) if data.corpora is not None else 0,
        "used": len(data.selection) if data.selection is not None else 0,
        "train": len(data.train_utterances or ()),
        "valid": len(data.held.utterances or ()),
        "skipped": data.selection.skipped if data.selection is not None else {},
        "made": any(source["made"] for source in sources),
        "corpus": ", ".join(str(source["corpus"]) for source in sources),
        "sources": sources,
    }
    if data.rated is not None:
        entries["rated"] = {
            "source": data.rated.name,
            "sha256": data.rated.sha256,
            "sentences": len(data.rated.texts),
            "train": len(data.train_sentences or ()),
            "valid": len(data.held.sentences or ()),
            "split_by": data.split_by["sentences"],
            "notes": list(data.rated.notes),
        }
    return entries


def describe_source(folder: Path, info: Any) -> dict[str, Any]:
    """What a dataset's `dataset.json` says, as far as a reader of the results wants it."""
    features = {name: getattr(info, name) for name in ("audio", "vision")}
    return {
        "path": str(folder),
        "corpus": info.corpus.get("name"),
        "made": info.synthetic,
        "asr": info.asr,
        "lexicon": info.lexicon,
        "counts": info.counts,
        **{name: None if f is None else {"extractor": f.extractor, "width": f.width, "rate_hz": f.rate_hz} for name, f in features.items()},
    }
