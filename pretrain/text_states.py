"""States of the text encoder: the choice of a layer, and a cache on disk for a frozen encoder (float16, memory-mapped).

Fine-tuning caches the states of every token, pretraining only those of masked words: about one in thirty, so that VoxCeleb2 takes about
2 GB with bert-base instead of 44 GB.
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
    """Text states by sample: `cache[i]` is [L_i, D] float32. Can be passed to worker processes, which open the file themselves."""

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
        """Open the cache in `folder`, or build it if it is absent or belongs to another model or other texts.

        Args:
            model: a `SkeslModel`; its text encoder is run in evaluation mode.
            token_lists: token ids of each text, with special tokens and masks.
            folder: folder of the cache.
            batch_size: number of texts per batch.
            progress: show a progress bar.
            positions: positions of the tokens whose states to keep, in this order; None: all tokens.

        Raises:
            UserError: the disk is too full.
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
                f"{folder}: the text states take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free some space or use another disk"
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
    """Size on disk of the states of these tokens in bytes."""
    return int(lengths_of(kept).sum()) * width * 2


def lengths_of(rows: TokenLists) -> np.ndarray:
    """Length of each row [N]; lists packed on disk know theirs without being read."""
    if hasattr(rows, "lengths"):
        return np.asarray(rows.lengths(), np.int64)
    return np.fromiter((len(row) for row in rows), np.int64, len(rows))


def cache_key(model: Any, token_lists: TokenLists, positions: TokenLists | None = None) -> str:
    """A fingerprint of the text encoder (config, weights, layer) and of the tokens, hence of tokenizer, texts and masks."""
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
    pad_id = getattr(text_model.config, "pad_token_id", None) or 0  # missing in many decoders; its value affects no real token
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
    """A softmax-weighted sum of all hidden states, including the embeddings; initially their mean.

    Source: SUPERB, Yang et al., arXiv 2105.01051, section 3 (there for the layers of a speech model).
    """

    def __init__(self, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers + 1))

    def shares(self) -> Tensor:
        """Weight of each hidden state [layers + 1]; they sum to 1."""
        return self.scores.softmax(0)

    def forward(self, hidden_states: tuple[Tensor, ...]) -> Tensor:
        """`layers` + 1 states [B, L, D] -> [B, L, D]."""
        shares = self.shares()
        mixed = hidden_states[0] * shares[0]
        for share, states in zip(shares[1:], hidden_states[1:], strict=True):
            mixed = mixed + states * share
        return mixed


def check_layer(layer: int | str, text_config: Any) -> int | str:
    """`layer` as parsed by `parse_layer`.

    Raises:
        UserError: a language model with this config does not have this layer.
    """
    layer = parse_layer(layer)
    if layer == LAST_LAYER:
        return layer
    count = getattr(text_config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise UserError(f"--lm-layer {layer}: a {text_config.model_type} model does not state its number of layers; choose {LAST_LAYER}")
    if layer != WEIGHTED_LAYERS and not -count - 1 <= int(layer) <= count:
        raise UserError(
            f"--lm-layer {layer}: the language model has {count} layers; choose 0 (embeddings) to {count}, or -1 to {-count - 1} "
            "from the end"
        )
    return layer


def make_mix(config: Any) -> LayerMix | None:
    """The learned layer weights of an encoder with this `SkeslConfig`, if any."""
    return LayerMix(config.text_config.num_hidden_layers) if config.text_layer == WEIGHTED_LAYERS else None


def read_layer(text_model: Any, layer: int | str, mix: LayerMix | None, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """States [B, L, D] of the chosen layer. All layers are computed in any case; states of other layers are kept only if needed."""
    if layer == LAST_LAYER:
        result: Tensor = text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return result
    states = text_model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
    result = mix(states) if mix is not None else states[layer]
    return result


def describe_layers(encoder: Any) -> dict[str, list[float]]:
    """The entry of `results.json` for learned layer weights, from the embeddings up: `lm_layer_weights`; {} if there are none."""
    if encoder.text_mix is None:
        return {}
    return {"lm_layer_weights": [round(share, 6) for share in encoder.text_mix.shares().tolist()]}


def recompute_layers(text_model: Any) -> None:
    """Recompute the text model's activations in the backward pass (gradient checkpointing).

    Raises:
        UserError: transformers does not support it for this kind of model.
    """
    if not text_model.supports_gradient_checkpointing:
        raise UserError(f"--gradient-checkpointing: not supported for {text_model.config.model_type} models; leave it out")
    text_model.gradient_checkpointing_enable({"use_reentrant": False})
