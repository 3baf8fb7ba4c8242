"""Scores of texts by an encoder trained on rated sentences, for prediction and as a teacher for utterances."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from pretrain.batches import pad_tokens
from pretrain.encoder import SkeslForMaskedIntensity
from pretrain.selection import KEY_FILE, JoinedDatasets, Selection
from pretrain.text_models import load_config, load_tokenizer, opening, quiet_loading, resolve_text_model, run_model_folder
from pretrain.tokens import tokenise
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically

CHUNK_ROWS = 8192
SCORES_FILE = "teacher.npy"


@torch.no_grad()
def rate_token_lists(
    model: SkeslForMaskedIntensity, token_lists: Sequence[Sequence[int]], pad_token_id: int, batch_size: int = 64, bar: str | None = None
) -> np.ndarray:
    """The rating of each text in label units, float32 [N]; `bar` is the title of a progress bar (None: no bar)."""
    model.train(False)
    device = next(model.parameters()).device
    order = np.argsort([-len(tokens) for tokens in token_lists], kind="stable")
    scores = np.zeros(len(token_lists), np.float32)
    hidden = None if bar else True
    with tqdm(total=len(order), desc=bar, unit=" texts", leave=False, disable=hidden) as progress:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = pad_tokens([token_lists[place] for place in chosen], pad_token_id)
            scores[chosen] = model.rate(input_ids=ids.to(device), attention_mask=mask.to(device)).cpu().numpy()
            progress.update(len(chosen))
    return scores


def rater_folder(run: str | Path) -> str:
    """The model folder of a pretraining run with rated sentences.

    Raises:
        UserError: there is no model, or it has no rating head.
    """
    folder = resolve_text_model(run_model_folder(run))
    if not getattr(load_config(folder), "rating_dim", 0):
        raise UserError(f"--teacher {run}: was not trained on ratings; choose a pretraining run with --objective.rated, or `starter`")
    return folder


def load_rater(run: str | Path) -> tuple[SkeslForMaskedIntensity, Any]:
    """Model and tokenizer of such a run; errors as in `rater_folder`."""
    folder = rater_folder(run)
    with opening(folder, "teacher"), quiet_loading():
        model = SkeslForMaskedIntensity.from_pretrained(folder, dtype=torch.float32)
    return model, load_tokenizer(folder)


def teacher_scores(
    teacher: str, dataset: JoinedDatasets, selection: Selection, folder: Path, accelerator: Accelerator, max_tokens: int | None = None
) -> np.ndarray:
    """A teacher's rating of the unmasked transcript (up to `max_tokens` tokens) of every utterance of a selection, float32 [N].

    The ratings are stored in `folder` for a resumed run.
    """
    model, tokenizer = load_rater(teacher)
    digest = hashlib.sha256((folder / KEY_FILE).read_bytes())
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(memoryview(tensor.reshape(-1).contiguous().view(torch.uint8).numpy()))
    place = folder / f"{digest.hexdigest()[:16]}-{SCORES_FILE}"
    if place.is_file():
        return np.asarray(np.load(place))
    model.to(accelerator.device)
    scores = np.zeros(len(dataset), np.float32)
    wanted = np.zeros(len(dataset), bool)
    wanted[selection.rows] = True
    shown = accelerator.is_local_main_process and (len(selection) > CHUNK_ROWS or sys.stderr.isatty())
    for first, chunk in dataset.chunks(["text"], CHUNK_ROWS):
        rows = np.flatnonzero(wanted[first : first + len(chunk["text"])])
        if len(rows):
            tokens = tokenise([chunk["text"][row] for row in rows], tokenizer, max_tokens)
            scores[first + rows] = rate_token_lists(model, tokens, tokenizer.pad_token_id, bar="teacher" if shown else None)

    def save(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, scores[selection.rows])

    if accelerator.is_main_process:
        write_atomically(place, save)
    return np.asarray(scores[selection.rows])
