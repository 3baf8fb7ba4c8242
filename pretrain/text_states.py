"""The states of a frozen text encoder, computed once and kept on disk as float16, memory-mapped.

Fine-tuning keeps the states of every token. Pretraining asks for the masked words alone and keeps the states of their pieces: about
one in thirty of all, so that VoxCeleb2 takes some 2 GB with bert-base where all states would take 44.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.batches import pad_tokens
from pretrain.options import LAST_LAYER, WEIGHTED_LAYERS, parse_layer
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json

STATES_FILE = "states.npy"
OFFSETS_FILE = "offsets.npy"
KEY_FILE = "cache.json"
TokenLists = Sequence[Sequence[int]] | Sequence[np.ndarray]


class TextStateCache:
    """Text states by sample: `cache[i]` is [L_i, D] float32. Safe to hand to worker processes (the map is opened by each)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.offsets = np.load(folder / OFFSETS_FILE)
        self._states: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        model: Any,
        token_lists: TokenLists,
        folder: Path,
        batch_size: int = 32,
        progress: bool = True,
        positions: TokenLists | None = None,
    ) -> "TextStateCache":
        """Open the cache in `folder`, or make it where it is absent or was made of another model or other texts.

        Args:
            model: a `SkeslModel`; its text encoder is run in evaluation mode.
            token_lists: token ids of each text (with special tokens, masks applied).
            folder: where the files lie.
            batch_size: texts at a time.
            progress: show a bar.
            positions: of the tokens of each text whose states to keep, in this order; None: of all.

        Raises:
            UserError: the disk has no room for it.
        """
        key = cache_key(model, token_lists, positions)
        if _stored_key(folder) == key:
            return cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KEY_FILE).unlink(missing_ok=True)
        width = int(model.config.hidden_size)
        kept = token_lists if positions is None else positions
        offsets = np.concatenate([[0], np.cumsum(lengths_of(kept))]).astype(np.int64)
        size = cache_bytes(kept, width)
        free = shutil.disk_usage(folder).free
        if size > free * 0.95:
            raise UserError(
                f"{folder}: the text states take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room or use another disk"
            )
        write_atomically(
            folder / STATES_FILE, lambda path: _write_states(path, model, token_lists, positions, offsets, batch_size, progress)
        )
        write_atomically(folder / OFFSETS_FILE, lambda path: _save_array(path, offsets))
        write_json(folder / KEY_FILE, {"key": key, "texts": len(token_lists), "width": width, "bytes": size})
        return cls(folder)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        if self._states is None:
            self._states = np.load(self.folder / STATES_FILE, mmap_mode="r")
        return torch.from_numpy(self._states[self.offsets[index] : self.offsets[index + 1]].astype(np.float32))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_states": None}


def cache_bytes(kept: TokenLists, width: int) -> int:
    """Bytes on disk of the states of width `width` of these tokens."""
    return int(lengths_of(kept).sum()) * width * 2


def lengths_of(rows: TokenLists) -> np.ndarray:
    """The length of each row [N]; lists that lie packed on disk tell theirs without being read."""
    if hasattr(rows, "lengths"):
        return np.asarray(rows.lengths(), np.int64)
    return np.fromiter((len(row) for row in rows), np.int64, len(rows))


def cache_key(model: Any, token_lists: TokenLists, positions: TokenLists | None = None) -> str:
    """A fingerprint of the text encoder (config, weights, layer that is read) and of the tokens, hence of tokenizer, texts and masks."""
    digest = hashlib.sha256()
    config = model.text_model.config.to_dict()
    config = {name: value for name, value in config.items() if name not in ("_name_or_path", "transformers_version", "dtype")}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    weights = dict(model.text_model.state_dict())
    if model.config.text_layer != LAST_LAYER:
        digest.update(f"layer {model.config.text_layer}".encode())
        weights |= {} if model.text_mix is None else model.text_mix.state_dict()
    for name, tensor in weights.items():
        digest.update(name.encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().reshape(-1)))
    for rows in (token_lists, positions or ()):
        for row in rows:
            digest.update(np.asarray([len(row), *row], np.int32).tobytes())
    return digest.hexdigest()


def _stored_key(folder: Path) -> str | None:
    if not all((folder / name).is_file() for name in (KEY_FILE, STATES_FILE, OFFSETS_FILE)):
        return None
    try:
        return str(json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))["key"])
    except (ValueError, KeyError, TypeError):
        return None


def _save_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


@torch.no_grad()
def _write_states(
    path: Path,
    model: Any,
    token_lists: TokenLists,
    positions: TokenLists | None,
    offsets: np.ndarray,
    batch_size: int,
    progress: bool,
) -> None:
    from tqdm import tqdm

    text_model = model.text_model
    device = next(text_model.parameters()).device
    pad_id = getattr(text_model.config, "pad_token_id", None) or 0  # a decoder's config often has none; what it is changes no real state
    training = text_model.training
    text_model.eval()
    states = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(int(offsets[-1]), int(model.config.hidden_size)))
    order = np.argsort(-lengths_of(token_lists), kind="stable")
    limit = float(np.finfo(np.float16).max)
    with tqdm(
        total=len(order), desc="text states", unit=" texts", disable=not progress, mininterval=0.5 if sys.stderr.isatty() else 10.0
    ) as bar:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = pad_tokens([token_lists[index] for index in chosen], pad_id)
            hidden = model.text_states(ids.to(device), mask.to(device)).float().clamp(-limit, limit).cpu().numpy()
            for row, index in enumerate(chosen):
                wanted = slice(len(token_lists[index])) if positions is None else list(positions[index])
                states[offsets[index] : offsets[index + 1]] = hidden[row, wanted]
            bar.update(len(chosen))
    states.flush()
    text_model.train(training)


class LayerMix(nn.Module):
    """A softmax-weighted sum of all hidden states, the embeddings' among them; at first their mean.

    Source: SUPERB, Yang et al., arXiv 2105.01051, section 3 (there over the layers of a speech model).
    """

    def __init__(self, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers + 1))

    def shares(self) -> Tensor:
        """The weight of each hidden state [layers + 1], which sum to 1."""
        return self.scores.softmax(0)

    def forward(self, hidden_states: tuple[Tensor, ...]) -> Tensor:
        """`layers` + 1 states [B, L, D] -> [B, L, D]."""
        shares = self.shares()
        mixed = hidden_states[0] * shares[0]
        for share, states in zip(shares[1:], hidden_states[1:], strict=True):
            mixed = mixed + states * share
        return mixed


def check_layer(layer: int | str, text_config: Any) -> int | str:
    """`layer` as `parse_layer` gives it, where a language model of this config has it.

    Raises:
        UserError: it does not.
    """
    layer = parse_layer(layer)
    if layer == LAST_LAYER:
        return layer
    count = getattr(text_config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise UserError(f"--lm-layer {layer}: a {text_config.model_type} model does not say how many layers it has; take {LAST_LAYER}")
    if layer != WEIGHTED_LAYERS and not -count - 1 <= int(layer) <= count:
        raise UserError(
            f"--lm-layer {layer}: the language model has {count} layers; give 0 (its embeddings) to {count}, or -1 to {-count - 1} "
            "from the end"
        )
    return layer


def make_mix(config: Any) -> LayerMix | None:
    """The learned weights that an encoder of this `SkeslConfig` has, if any."""
    return LayerMix(config.text_config.num_hidden_layers) if config.text_layer == WEIGHTED_LAYERS else None


def read_layer(text_model: Any, layer: int | str, mix: LayerMix | None, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The states [B, L, D] of the chosen layer. All layers run, whichever is chosen; only for the last are the others' states not kept."""
    if layer == LAST_LAYER:
        result: Tensor = text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return result
    states = text_model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    result = mix(states) if mix is not None else states[layer]
    return result


def describe_layers(encoder: Any) -> dict[str, list[float]]:
    """What `results.json` says of a `SkeslModel`'s learned weights: `lm_layer_weights` from the embeddings up; {} where it has none."""
    if encoder.text_mix is None:
        return {}
    return {"lm_layer_weights": [round(share, 6) for share in encoder.text_mix.shares().tolist()]}


def recompute_layers(text_model: Any) -> None:
    """Have the text model compute its inner states again in the backward pass instead of keeping them.

    Raises:
        UserError: transformers does not offer that for this kind of model.
    """
    if not text_model.supports_gradient_checkpointing:
        raise UserError(f"--gradient-checkpointing: transformers does not offer it for {text_model.config.model_type} models; leave it out")
    text_model.gradient_checkpointing_enable({"use_reentrant": False})
