"""Milliseconds per pretraining step against a plain implementation of the same mathematics, interleaved in one process.

    OMP_NUM_THREADS=1 python benchmarks/pretrain_step.py

The plain form pads everything to 39 tokens, 400 audio and 55 vision frames, runs the language model every step, computes keys and values
in every block, uses eager attention and PyTorch's default optimiser loop, in float32. Ours is what `pretrain/run.py` runs. Each line
gives language model, frozen or trained, precision, form of the blocks and lengths; then both times, their ratio, the losses of both on
the same batch without dropout, the achieved GFLOP/s of each part against the measured peak, and peak memory.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from pretrain.batches import LengthBucketSampler, MaskedCollator, MaskedSample
from pretrain.encoder import SkeslConfig, SkeslForMaskedIntensity
from pretrain.loop import model_inputs
from pretrain.optimisation import layerwise_rates, parameter_groups
from pretrain.options import PretrainOptions
from pretrain.tokens import MaskedText

TOKENS, AUDIO, VISION, BATCH = 39, 400, 55, 32
SHAPES = {"minilm": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}, "bert-base": {}}
FORMS = {
    "authors": {"share_blocks": True, "residual": "raw", "feed_forward": "linear", "dropout": 0.5},
    "paper": {"share_blocks": False, "residual": "layernorm", "feed_forward": "two_layer", "dropout": 0.1},
}


def build(lm: str, form: str, frozen: bool, dropout: float | None = None) -> SkeslForMaskedIntensity:
    """A model with random weights of the given shape; `dropout` overrides all dropouts."""
    torch.manual_seed(0)
    rest = {} if dropout is None else {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    text = BertConfig(**SHAPES[lm], num_attention_heads=12, **rest)
    options = {**FORMS[form], **({} if dropout is None else {"dropout": dropout})}
    model = SkeslForMaskedIntensity(SkeslConfig(text, 33, 709, attention_dim=256, num_blocks=4, **options)).train()
    if frozen:
        model.skesl.text_model.requires_grad_(False).eval()
    return model


def samples(realistic: bool, count: int, width: int, with_states: bool, seed: int = 0) -> list[MaskedSample]:
    """VoxCeleb2-like utterances (at least 4 s, 8 s mean, 22 words mean, 1.15 pieces a word) or all of them at the longest lengths."""
    generator = np.random.default_rng(seed)
    made = []
    for place in range(count):
        seconds = 4 + generator.exponential(4.0)
        tokens = int(np.clip(round(seconds * 22 / 8 * generator.normal(1.0, 0.2) * 1.15) + 2, 5, TOKENS)) if realistic else TOKENS
        audio, vision = (min(AUDIO, round(seconds * 43)), min(VISION, round(seconds * 6))) if realistic else (AUDIO, VISION)
        pieces = 1 + int(generator.random() < 0.15)
        first = int(generator.integers(1, tokens - 2))
        ids = generator.integers(1000, 30000, tokens).tolist()
        text = MaskedText(ids, (tuple(range(first, first + pieces)),))
        made.append(
            MaskedSample(
                place,
                text.masked_words_only() if with_states else text,
                (float(generator.normal()),),
                generator.normal(size=(audio, 33)).astype(np.float32),
                generator.normal(size=(vision, 709)).astype(np.float32),
                torch.randn(pieces, width) if with_states else None,
            )
        )
    return made


def padded(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch at the fixed lengths of the plain form."""
    full = dict(batch)
    for name, length in (
        ("input_ids", TOKENS),
        ("attention_mask", TOKENS),
        ("audio", AUDIO),
        ("audio_mask", AUDIO),
        ("vision", VISION),
        ("vision_mask", VISION),
    ):
        value = batch[name]
        wider = torch.zeros(value.shape[0], length, *value.shape[2:], dtype=value.dtype)
        wider[:, : value.shape[1]] = value
        full[name] = wider
    return full


def plain_loss(model: SkeslForMaskedIntensity, batch: dict[str, Any]) -> torch.Tensor:
    """The same mathematics written plainly: every token through every block, keys and values in each, eager attention."""
    skesl, config = model.skesl, model.config
    frozen = not next(skesl.text_model.parameters()).requires_grad
    with torch.no_grad() if frozen else nullcontext():
        text = skesl.text_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    for number in range(config.num_blocks):
        block = skesl.crossmodal.blocks[0 if config.share_blocks else number]
        mixed = block.norm_residual(text)
        for name in ("audio", "vision"):
            layer = block.attention[name]
            normed = layer.norm_features(skesl.crossmodal.norms[name](batch[name]))
            scores = layer.query(layer.norm_text(text)) @ layer.key(normed).transpose(1, 2) / config.attention_dim**0.5
            scores = scores.masked_fill(batch[f"{name}_mask"][:, None] == 0, float("-inf"))
            weights = torch.nn.functional.dropout(scores.softmax(-1), config.dropout, model.training)
            mixed = mixed + layer.output(weights @ layer.value(normed))
        text = block.feed_forward(block.norm_feed_forward(mixed)) + mixed
    positions = batch["mask_positions"][:, 0]
    real = (positions >= 0).unsqueeze(-1)
    word = (text[torch.arange(len(text))[:, None], positions.clamp(min=0)] * real).sum(1) / real.sum(1)
    return (model.head(word).float() - batch["labels"][:, 0]).abs().mean()


def our_loss(model: SkeslForMaskedIntensity, batch: dict[str, Any]) -> torch.Tensor:
    return model(**model_inputs(batch, torch.device("cpu"))).loss


class Stepper:
    """One side of the comparison: its model, optimiser and loss, timed by part."""

    def __init__(self, model: SkeslForMaskedIntensity, loss: Callable[..., torch.Tensor], bf16: bool, ours: bool):
        self.model, self.loss, self.bf16 = model, loss, bf16
        options = PretrainOptions(data=[Path()], output=Path())
        rates = layerwise_rates(model, options.lr, options.lm_lr, options.lm_layer_decay)
        groups = parameter_groups(model.named_parameters(), rates, options.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, fused=True) if ours else torch.optim.AdamW(groups)
        self.parts: dict[str, list[float]] = {"forward": [], "backward": [], "optimiser": []}
        self.memory = 0.0

    def autocast(self) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16)

    def step(self, batch: dict[str, Any]) -> float:
        reset_peak_memory()
        times = [time.perf_counter()]
        with self.autocast():
            loss = self.loss(self.model, batch)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        times.append(time.perf_counter())
        for name, spent in zip(self.parts, np.diff(times), strict=True):
            self.parts[name].append(float(spent))
        self.memory = max(self.memory, peak_memory())
        return times[-1] - times[0]


def reset_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """MB of the largest resident set since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def measured_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of one large matrix product, the best of several."""
    a, b = torch.randn(1024, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    best = float("inf")
    for _ in range(12):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 1024 * 2048 * 2048 / best / 1e9


def flops(stepper: Stepper, batch: dict[str, Any]) -> tuple[float, float]:
    """GFLOP of forward and of backward."""
    with FlopCounterMode(display=False) as forward, stepper.autocast():
        loss = stepper.loss(stepper.model, batch)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    stepper.optimizer.zero_grad()
    return forward.get_total_flops() / 1e9, backward.get_total_flops() / 1e9


def batches_of(realistic: bool, count: int, width: int, size: int = BATCH) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of one batch with token ids and the same one with cached states."""
    pool = size * min(50, 2 * count)
    plain, cached = samples(realistic, pool, width, False), samples(realistic, pool, width, True)
    lengths = [len(sample.text.token_ids) + len(sample.audio) / 10 for sample in plain]
    for _, rows in zip(range(count), LengthBucketSampler(lengths, size), strict=False):
        yield MaskedCollator(0)([plain[row] for row in rows]), MaskedCollator(0)([cached[row] for row in rows])


def losses_agree(lm: str, form: str) -> tuple[float, float]:
    """Loss of both implementations with the same weights on the same batch, float32, no dropout."""
    model = build(lm, form, True, dropout=0.0)
    batch = next(batches_of(True, 1, model.config.hidden_size))[0]
    with torch.no_grad():
        plain = float(plain_loss(model, padded(batch)))
        return plain, float(our_loss(model, batch))


def compare(lm: str, frozen: bool, bf16: bool, form: str, realistic: bool, steps: int, peak: float) -> None:
    plain_model = build(lm, form, frozen)
    plain_model.skesl.text_model.set_attn_implementation("eager")
    ours_model = build(lm, form, frozen)
    plain, ours = Stepper(plain_model, plain_loss, False, False), Stepper(ours_model, our_loss, bf16, True)
    pairs = list(batches_of(realistic, steps + 1, plain_model.config.hidden_size))
    times: list[tuple[float, float]] = []
    for number, (batch, cached) in enumerate(pairs):
        spent = plain.step(padded(batch)), ours.step(cached if frozen else batch)
        if number:  # the first step allocates
            times.append(spent)
    slow, fast = (1000 * float(np.median(side)) for side in zip(*times, strict=True))
    work = flops(ours, pairs[-1][1] if frozen else pairs[-1][0])
    rates = [amount / float(np.median(ours.parts[name][1:])) for amount, name in zip(work, ("forward", "backward"), strict=True)]
    share = " ".join(f"{name} {rate:.0f} GFLOP/s ({rate / peak:.0%})" for name, rate in zip(("forward", "backward"), rates, strict=True))
    parts = " ".join(f"{name} {1000 * float(np.median(values[1:])):.0f}" for name, values in ours.parts.items())
    print(
        f"{lm:9s} {'frozen ' if frozen else 'trained'} {'bf16' if bf16 else 'fp32'} {form:7s} {'realistic' if realistic else 'padded   '}"
        f"  plain {slow:6.0f} ms  ours {fast:6.0f} ms  ratio {slow / fast:5.1f}  | ours by part (ms): {parts}; {share}"
        f"  | peak memory plain {plain.memory:.0f} MB, ours {ours.memory:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lms", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--modes", nargs="+", default=["frozen", "trained"], choices=["frozen", "trained"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--forms", nargs="+", default=["authors", "paper"], choices=list(FORMS))
    parser.add_argument("--lengths", nargs="+", default=["realistic", "padded"], choices=["realistic", "padded"])
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each side")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peaks = {"fp32": measured_peak(torch.float32), "bf16": measured_peak(torch.bfloat16)}
    print(f"peak {peaks['fp32']:.0f} GFLOP/s in fp32, {peaks['bf16']:.0f} in bf16; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for lm in arguments.lms:
        for form in arguments.forms:
            plain, ours = losses_agree(lm, form)
            print(f"{lm:9s} {form:7s} loss of the same weights and batch in fp32: plain {plain:.6f}, ours {ours:.6f}")
            for mode in arguments.modes:
                for precision in arguments.precisions:
                    for lengths in arguments.lengths:
                        compare(lm, mode == "frozen", precision == "bf16", form, lengths == "realistic", arguments.steps, peaks[precision])


if __name__ == "__main__":
    main()
