"""Fine-tuned models in use: `SentimentModel.from_pretrained(run).predict("video.mp4")`."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch

from finetune.modalities import AUDIO, FUSED, MODALITIES, TEXT, VISION
from finetune.model.networks import MugInputs, MugModel
from finetune.prediction.inputs import earlier_in, network_inputs
from finetune.prediction.model_folder import model_folder, push_model, save_model
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, SkippedStretch, UtterancePrediction, in_words
from finetune.prediction.reading import Reading, read_recording, sound_notes
from finetune.prediction.recipe import Recipe, check_features, check_predictable, pipeline_settings, read_clips, split_with
from finetune.prediction.seed_average import AveragedModel, load_network
from preprocessing.long_media import Stretch
from preprocessing.media import MediaError, probe
from preprocessing.options import AUTO, MIX, Channels
from preprocessing.pipeline import ClipProcessor
from preprocessing.schema import Utterance
from preprocessing.timeline import Faults
from pretrain.embedded_models import EMBEDDED
from pretrain.starter import STARTER, starter_lm
from pretrain.text_models import load_tokenizer, opening, quiet_loading
from skesl_mug.errors import UserError
from skesl_mug.transcripts import read_transcripts
from skesl_mug.wording import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 32


class SentimentModel:
    """A fine-tuned model that scores recordings and texts.

    `predict` does everything; `read` (utterances with features) and `recording` (their scores) are its two steps, for callers that
    score the same utterances several times. `seconds` sums the time of each stage, `notes` lists differences from training, `faults` are
    those of the recording that `read` went through last.

    >>> model = SentimentModel.from_pretrained("runs/mosi")  # doctest: +SKIP
    >>> for utterance in model.predict("video.mp4"):  # doctest: +SKIP
    ...     print(utterance.start, utterance.score, utterance.sentiment, utterance.text)
    """

    def __init__(
        self,
        network: MugModel | AveragedModel,
        tokenizer: "PreTrainedTokenizerBase",
        recipe: Recipe,
        folder: Path,
        *,
        name: str = "model",
        asr_model: str | None = None,
        openface: str | None = None,
        quiet: bool = True,
    ):
        self.network, self.tokenizer, self.recipe, self.name = network.train(False), tokenizer, recipe, name
        self.folder = folder
        self._asr_model, self._openface, self._quiet = asr_model, openface, quiet
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = list(recipe.remarks)
        self.faults = Faults()

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, asr_model: str | None = None, openface: str | None = None, device: str = "auto", quiet: bool = True
    ) -> "SentimentModel":
        """Load a model.

        Args:
            name: a run folder, a model folder (such as the run's `model/`), a hub name, or "starter" (see `starter`).
            asr_model: speech recognition model, instead of the one used for the training data (as --asr.model of preprocessing).
            openface: OpenFace's csv files or program, for models trained on OpenFace features.
            device: "auto" (a GPU if there is one), or a torch device.
            quiet: suppress messages of libraries.

        Raises:
            UserError: there is no such model, or it is not a fine-tuned model.
        """
        lm = starter_lm(name)
        if lm is not None:
            from finetune.starter import starter_model

            folder = starter_model(lm)
        else:
            folder = model_folder(name)
        recipe = Recipe.read(folder)
        with opening(str(folder), "fine-tuned model"), quiet_loading():
            network = load_network(folder, recipe)
            tokenizer = load_tokenizer(folder)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        network.to(torch.device(device))  # type: ignore[arg-type]
        return cls(network, tokenizer, recipe, folder, name=str(name), asr_model=asr_model, openface=openface, quiet=quiet)

    @classmethod
    def starter(cls, lm: str = EMBEDDED, **options: Any) -> "SentimentModel":
        """The starter model, which uses words alone. The first call trains it on rated sentences, which takes minutes.

        Args:
            lm: `embedded`, `embedded-base`, or another language model (hub name or folder).
            options: as for `from_pretrained`.

        Raises:
            UserError: the rated sentences or the language model are not available.
        """
        return cls.from_pretrained(f"{STARTER}:{lm}", **options)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write weights (safetensors), tokenizer, recipe and card into an empty folder, without local paths.

        Raises:
            UserError: the folder is not empty.
        """
        return save_model(self.folder, Path(folder))

    def push_to_hub(self, name: str, *, private: bool = True) -> str:
        """Upload what `save_pretrained` writes to the hub as `owner/name`; returns its URL.

        Raises:
            UserError: no permission, no network, or no such owner.
        """
        with TemporaryDirectory() as folder:
            return push_model(self.save_pretrained(Path(folder) / "model"), name, private=private)

    @cached_property
    def processor(self) -> ClipProcessor:
        """The models that extract features, loaded when first used and compared with the recipe.

        Raises:
            UserError: one of them is missing, or its features differ from those of the training data.
        """
        check_predictable(self.recipe, self.name)
        processor = ClipProcessor(pipeline_settings(self.recipe, self._asr_model, self._openface, self._quiet))
        self.notes += check_features(self.recipe, processor)
        processor.warm_up()
        return processor

    @cached_property
    def clips(self) -> dict[str, str]:
        """The split of each clip of the model's corpus, by the hash of its name (see `read_clips`)."""
        return read_clips(self.folder)

    @property
    def modalities(self) -> list[str]:
        """The modalities that the model uses."""
        return list(self.recipe.modalities)

    def predict(
        self,
        recordings: str | Path | Sequence[str | Path],
        *,
        without: Collection[str] = (),
        **how: Unpack[Reading],
    ) -> list[UtterancePrediction]:
        """Score the utterances of one recording or several.

        Args:
            recordings: a video or sound file of any length, or a list of them; `source` of an utterance is the name of its file.
            without: modalities to leave out, of "text", "audio", "vision".
            how: `segments` "pauses" (utterances) or "whole" (one per file); `limits` of utterances; `audio_track` "auto", a number from
                1 or a language; `channels` "mix", "left", "right" or "split" (each is a `speaker`). See `Reading`.

        Returns:
            the utterances in order, each with `start` and `end` (seconds), `speaker`, `text`, `score` (label units), `low` and `high`
            (interval around it, or None), `sentiment` (in words), `score_text`, `score_audio`, `score_vision` and `words`.

        Raises:
            UserError: a file cannot be read.
        """
        paths = [recordings] if isinstance(recordings, (str, Path)) else recordings
        return [row for path in paths for row in self.predict_recording(path, without=without, **how).utterances]

    def predict_recording(
        self,
        path: str | Path,
        *,
        without: Collection[str] = (),
        progress: Callable[[float, float], object] | None = None,
        **how: Unpack[Reading],
    ) -> RecordingPrediction:
        """As `predict` for one recording, with its length and the stretches that have no utterance.

        `progress` is called with the seconds that were read so far and the length of the recording.
        """
        with _media_errors(path):
            seconds, _ = probe(Path(path))
        stretches = []
        for stretch in self.read(path, **how):
            stretches.append(stretch)
            seconds = max(seconds, stretch.end)  # a file that is being written grows
            if progress is not None:
                progress(stretch.end, seconds)
        recording = self.recording(path, stretches, without)
        recording.seconds, recording.faults = seconds, self.faults
        recording.notes = self.recording_notes(path, how.get("audio_track", AUTO), how.get("channels", MIX))
        return recording

    def recording(self, path: str | Path, stretches: Sequence[Stretch], without: Collection[str] = ()) -> RecordingPrediction:
        """The prediction for a recording from what `read` returned."""
        kept = [stretch for stretch in stretches if isinstance(stretch.result, Utterance)]
        skipped = [
            SkippedStretch(stretch.start, stretch.end, stretch.result.reason, stretch.result.detail, stretch.speaker)
            for stretch in stretches
            if not isinstance(stretch.result, Utterance)
        ]
        source = printable(Path(path).name)
        utterances = [stretch.result for stretch in kept if isinstance(stretch.result, Utterance)]
        scored = self.score(utterances, without, source, earlier_in(utterances, self.recipe.context))
        rows = [row for row in scored if row.used]
        empty = [
            SkippedStretch(row.start, row.end, "no_modality", "none of the selected modalities is available", row.speaker)
            for row in scored
            if not row.used
        ]
        skipped = sorted([*skipped, *empty], key=lambda gap: gap.start)
        seconds = max((stretch.end for stretch in stretches), default=0.0)
        return RecordingPrediction(source, seconds, rows, skipped, split_with(self.clips, Path(path)))

    def read(self, path: str | Path, **how: Unpack[Reading]) -> Iterator[Stretch]:
        """Iterate over the utterances of a recording with their features, before scoring.

        Raises:
            UserError: the file cannot be read.
        """
        self.faults = Faults()
        with _media_errors(path):
            yield from read_recording(self.processor, Path(path), self._add, self._set_faults, **how)

    def recording_notes(self, path: str | Path, audio_track: str = AUTO, channels: Channels = MIX) -> list[str]:
        """Notes on the recording that `read` went through last: on its sound and its faults."""
        return [*sound_notes(Path(path), audio_track, channels), *self.faults.notes()]

    def _set_faults(self, faults: Faults) -> None:
        self.faults = faults

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def predict_texts(self, texts: Sequence[str | None]) -> list[UtterancePrediction]:
        """Score texts as transcripts without voice and face: one utterance per text, `score` clipped to the label range.

        An empty or missing text (None, NaN) has the score NaN and no `sentiment`; control characters are removed.

        Raises:
            UserError: the model does not use text.
        """
        label_range = self.recipe.label_range
        clean = read_transcripts(texts)[0]
        rows = []
        for text, score in zip(clean, self.score_texts(clean).tolist(), strict=True):
            used = [] if np.isnan(score) else [TEXT]
            low, high = self._interval(score, used)
            word = in_words(score, label_range) if used else ""
            rows.append(UtterancePrediction(text=text, score=score, low=low, high=high, sentiment=word, used=used, label_range=label_range))
        return rows

    def score_texts(self, texts: Sequence[str | None]) -> np.ndarray:
        """The scores of `predict_texts` as an array: float32 [N], in label units, clipped to the label range; NaN for empty texts.

        Raises:
            UserError: the model does not use text.
        """
        if TEXT not in self.recipe.modalities:
            raise UserError(f"--model {self.name}: does not use text (its modalities: {', '.join(self.recipe.modalities)})")
        if self.network.config.text_dim:
            raise UserError(f"--model {self.name}: was trained on text vectors; fine-tune on a file with transcripts")
        clean = read_transcripts(texts)[0]
        order = np.argsort([-len(text) for text in clean], kind="stable")
        scores = np.full(len(clean), np.nan, np.float32)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            rows = self.score([Utterance("", "", "", 0.0, 0.0, "", clean[place]) for place in places])
            scores[places] = [row.score if row.used else np.nan for row in rows]
        return np.clip(scores, *self.recipe.label_range)

    @torch.no_grad()
    def score(
        self,
        utterances: Sequence[Utterance],
        without: Collection[str] = (),
        source: str = "",
        earlier: Sequence[Sequence[str]] = (),
    ) -> list[UtterancePrediction]:
        """Score utterances exactly as the evaluation in fine-tuning does; modalities in `without` are left out.

        `earlier` are the transcripts before each utterance, for a model trained with context; without them each is scored alone.
        """
        unknown = set(without) - set(MODALITIES)
        if unknown:
            raise UserError(f"--without {sorted(unknown)[0]}: not a modality; choose from {', '.join(MODALITIES)}")
        if not set(self.recipe.modalities) - set(without):
            raise UserError(f"--without {' '.join(without)}: leaves no modality; this model uses {', '.join(self.recipe.modalities)}")
        began = time.perf_counter()
        rows: list[UtterancePrediction] = []
        for start in range(0, len(utterances), BATCH):
            batch = utterances[start : start + BATCH]
            inputs = network_inputs(batch, self.network, self.tokenizer, self.recipe, without, earlier[start : start + BATCH])
            output = self.network(inputs.to(self.network.device))
            scores = {name: self.recipe.scale.decode(values.float().cpu()).tolist() for name, values in output.predictions.items()}
            rows += [self._row(utterance, place, scores, inputs, source) for place, utterance in enumerate(batch)]
        self._add("network", time.perf_counter() - began)
        return rows

    def _row(self, utterance: Utterance, place: int, scores: dict[str, list[float]], inputs: MugInputs, source: str) -> UtterancePrediction:
        used = [name for name in MODALITIES if bool(inputs.present[name][place])]
        heads: dict[str, Any] = {name: scores[name][place] for name in used if name in self.recipe.unimodal_heads and name in scores}
        value = scores[FUSED][place]
        low, high = self._interval(value, used)
        return UtterancePrediction(
            source=source,
            start=round(utterance.start, 3),
            end=round(utterance.end, 3),
            speaker=utterance.speaker,
            text=utterance.text,
            language=utterance.language,
            score=value,
            sentiment=in_words(value, self.recipe.label_range),
            score_text=heads.get(TEXT),
            score_audio=heads.get(AUDIO),
            score_vision=heads.get(VISION),
            used=used,
            face_rate=utterance.face_rate,
            label_range=self.recipe.label_range,
            words=words_of(utterance),
            low=low,
            high=high,
        )

    def _interval(self, score: float, used: Sequence[str]) -> tuple[float | None, float | None]:
        """The interval around a score; none with a missing modality: it was calibrated on utterances that have them all."""
        interval = self.recipe.interval
        if interval is None or not set(self.recipe.modalities) <= set(used):
            return None, None
        return interval.around(score, self.recipe.label_range)


@contextmanager
def _media_errors(path: str | Path) -> Iterator[None]:
    """Report a recording that cannot be read as a user-fixable error."""
    try:
        yield
    except MediaError as error:
        if error.reason == "no_track":
            raise UserError(f"{path}: {error}; choose one of them") from error
        raise UserError(f"{path}: cannot be used ({error}); choose a video or sound file that ffmpeg reads") from error


def words_of(utterance: Utterance) -> list[PredictedWord]:
    """The words of an utterance with their times in the recording and the intensity of the lexicon entry that includes them."""
    spans = [(mask.start_char, mask.end_char, mask.intensity) for mask in utterance.masks if mask.from_lexicon]

    def shifted(seconds: float | None) -> float | None:
        return None if seconds is None else round(utterance.start + seconds, 3)

    return [
        PredictedWord(
            text=word.text,
            start=shifted(word.start),
            end=shifted(word.end),
            probability=word.probability,
            intensity=next((value for start, end, value in spans if start < word.end_char and word.start_char < end), None),
        )
        for word in utterance.words
    ]
