"""CPU time of a fine-tuning epoch against a plain implementation of the same mathematics, interleaved in one single-threaded process.

    OMP_NUM_THREADS=1 python benchmarks/finetune_step.py

Data: unaligned, the size of MOSI, 1,284 rows, batches of 16. Features are noise. Lengths are drawn (seeded) to match MOSI: seconds are
log-normal with mean 1.15 and deviation .66 of the logarithms, words correlate with them (.87), frames at the 12.5 (audio) and 15 (vision)
per second of its unaligned features (Tsai et al., 2019), cut at 50 tokens, 375 and 500 frames.

A step is one of stage 1: batch, forward, loss of all tasks with the alignment, backward, clipping, optimiser. The plain form shuffles,
pads every batch to 50, 375 and 500, runs the language model on every token with eager attention, computes keys and values in every block,
packs the LSTMs' inputs, and uses AdamW's for-loop implementation, in float32. Ours is what `finetune/run_mug.py` runs, with cached states
if the language model is frozen.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from finetune.corpora import LabelledSplit
from finetune.modalities import AUDIO, FUSED, TEXT, VISION
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import LazyStates, PreparedSplit, frames_of
from finetune.model.networks import MugConfig, MugInputs, MugModel, MugOutput
from finetune.model.unimodal import FrameNetwork, masked_mean
from finetune.options import TrainingOptions
from finetune.training.stages import stage_one_loss, trained_parameters
from pretrain.crossmodal import feature_statistics
from pretrain.text_states import TextStateCache

ROWS, BATCH = 1284, 16
TOKENS, FRAMES, WIDTHS = 50, {AUDIO: 375, VISION: 500}, {AUDIO: 5, VISION: 20}
RATES = {AUDIO: 12.5, VISION: 15.0}
Step = Callable[[MugModel, MugInputs], MugOutput]


def made_data(seed: int = 0) -> tuple[LabelledSplit, list[list[int]]]:
    """The split and its token ids."""
    draw = np.random.default_rng(seed)
    seconds = draw.normal(1.15, 0.66, ROWS)
    words = np.exp(2.3 + 0.70 * (0.87 * (seconds - 1.15) / 0.66 + np.sqrt(1 - 0.87**2) * draw.normal(size=ROWS)))
    seconds = np.exp(seconds)
    lengths = np.clip(np.round(words * 1.15) + 2, 3, TOKENS).astype(int)  # 1.15 pieces a word, two special tokens
    tokens = [[101, *draw.integers(1996, 30000, length - 2).tolist(), 102] for length in lengths]
    frames = {name: np.clip(np.ceil(seconds * RATES[name]), 1, FRAMES[name]).astype(int) for name in RATES}
    features = {name: [draw.normal(size=(length, WIDTHS[name])).astype(np.float32) for length in frames[name]] for name in RATES}
    ids = [str(row) for row in range(ROWS)]
    label = draw.uniform(-1, 1, ROWS).astype(np.float32)
    print(
        "lengths, mean and longest: "
        + ", ".join(f"{name} {np.mean(x):.0f} {np.max(x)}" for name, x in (("tokens", lengths), *frames.items()))
    )
    return LabelledSplit(ids, ids, label, ["words"] * ROWS, features[AUDIO], features[VISION]), tokens


def new_model(source: EncoderSource, split: LabelledSplit, frozen: bool) -> MugModel:
    """The model that both sides train, each a copy of its own."""
    encoder, _ = source.load(WIDTHS[AUDIO], WIDTHS[VISION], seed=0)
    statistics = feature_statistics(frames_of(split))
    encoder.set_feature_statistics(**statistics)
    torch.manual_seed(0)
    model = MugModel.around(encoder, MugConfig(audio_dim=WIDTHS[AUDIO], vision_dim=WIDTHS[VISION]))
    model.set_feature_statistics(statistics)
    model.train()
    if frozen:
        model.encoder.text_model.eval().requires_grad_(False)
    return model


def padded(inputs: MugInputs) -> MugInputs:
    """The same batch at the fixed lengths of the plain form, without cached states."""

    def wider(values: Tensor | None, length: int) -> Tensor | None:
        if values is None:
            return None
        full = torch.zeros(values.shape[0], length, *values.shape[2:], dtype=values.dtype)
        full[:, : values.shape[1]] = values
        return full

    lengths = {"input_ids": TOKENS, "attention_mask": TOKENS}
    lengths |= {f"{name}{what}": length for name, length in FRAMES.items() for what in ("", "_mask")}
    return replace(inputs, text_states=None, **{name: wider(getattr(inputs, name), length) for name, length in lengths.items()})


def plain_blocks(model: MugModel, text: Tensor, inputs: MugInputs) -> Tensor:
    """SKESL's blocks written plainly: keys and values in each, eager attention."""
    stack = model.encoder.crossmodal
    for block in stack.blocks:
        mixed = block.norm_residual(text)
        for name in (AUDIO, VISION):
            layer, mask = block.attention[name], getattr(inputs, f"{name}_mask")
            normed = layer.norm_features(stack.norms[name](getattr(inputs, name)))
            scores = layer.query(layer.norm_text(text)) @ layer.key(normed).transpose(1, 2) / layer.query.out_features**0.5
            weights = scores.masked_fill(mask[:, None] == 0, float("-inf")).softmax(-1)
            weights = torch.nn.functional.dropout(weights, layer.dropout, model.training)
            mixed = mixed + layer.output(weights @ layer.value(normed))
        text = block.feed_forward(block.norm_feed_forward(mixed)) + mixed
    return text


def plain_frames(network: FrameNetwork, frames: Tensor, mask: Tensor) -> Tensor:
    packed = pack_padded_sequence(network.norm(frames), mask.sum(-1), batch_first=True, enforce_sorted=False)
    _, (last, _) = network.lstm(packed)
    return network.layers(last[-1])


def plain_step(model: MugModel, inputs: MugInputs) -> MugOutput:
    """`MugModel.forward` written plainly."""
    frozen = not next(model.encoder.text_model.parameters()).requires_grad
    with torch.no_grad() if frozen else nullcontext():
        text = model.encoder.text_model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state
    hidden = {TEXT: model.unimodal[TEXT](text, inputs.attention_mask)}
    for name in (AUDIO, VISION):
        hidden[name] = plain_frames(model.unimodal[name], getattr(inputs, name), getattr(inputs, f"{name}_mask"))
    fused = model.pool(model.dropout(masked_mean(plain_blocks(model, text, inputs), inputs.attention_mask))) + model.fused_bias
    for name, vector in hidden.items():
        fused = fused + model.gather[name](model.dropout(vector))
    output = MugOutput(representations={FUSED: torch.relu(fused), **hidden})
    for name, vector in output.representations.items():
        output.predictions[name] = model.heads[name](model.dropout(vector)).squeeze(-1)
        if name != FUSED:
            output.projected[name] = model.projections[name](output.representations[FUSED])
    return output


class Side:
    """One side of the comparison: its model, optimiser and CPU time by part."""

    def __init__(self, model: MugModel, data: PreparedSplit, forward: Step, precision: str, ours: bool):
        self.model, self.data, self.forward, self.bf16, self.ours = model, data, forward, precision == "bf16", ours
        self.loss = stage_one_loss(data.y, TrainingOptions(), unimodal=True)
        if ours:
            self.optimiser = torch.optim.AdamW(trained_parameters(model, TrainingOptions(), data.use_states), fused=True)
        else:
            model.encoder.text_model.set_attn_implementation("eager")
            self.optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, foreach=False)
        self.trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.parts = dict.fromkeys(("batch", "forward", "backward", "optimiser"), 0.0)
        self.steps: list[float] = []

    def loss_of(self, rows: list[int]) -> Tensor:
        began = time.process_time()
        inputs = self.data.batch(rows)
        if not self.ours:
            inputs = padded(inputs)
        self.parts["batch"] += time.process_time() - began
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            output = self.forward(self.model, inputs)
        return self.loss(output, inputs.present, torch.as_tensor(rows))

    def step(self, rows: list[int], timed: bool) -> None:
        before = dict(self.parts)
        times = [time.process_time()]
        loss = self.loss_of(rows)
        times.append(time.process_time())
        self.optimiser.zero_grad()
        loss.backward()
        times.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        times.append(time.process_time())
        if not timed:
            self.parts = before
            return
        self.steps.append(times[-1] - times[0])
        for name, spent in zip(("forward", "backward", "optimiser"), np.diff(times), strict=True):
            self.parts[name] += float(spent)
        self.parts["forward"] -= self.parts["batch"] - before["batch"]


def compare(source: EncoderSource, splits: dict[bool, PreparedSplit], frozen: bool, precisions: list[str], steps: int) -> None:
    """One line for each precision of ours, all interleaved with one plain side."""
    data = splits[frozen]
    plain = Side(new_model(source, data.split, frozen), splits[False], plain_step, "fp32", ours=False)
    sides = {name: Side(new_model(source, data.split, frozen), data, MugModel.__call__, name, ours=True) for name in precisions}
    ours_rows = list(data.batches(BATCH, torch.Generator().manual_seed(1)))  # their order is random, so the first are a fair sample
    plain_rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2)).split(BATCH)
    for number in range(min(steps, len(ours_rows)) + 1):
        timed = number > 0  # the first step allocates
        place = max(0, number - 1)
        plain.step(plain_rows[place].tolist(), timed)
        for side in sides.values():
            side.step(ours_rows[place], timed)
    epoch = len(ours_rows)
    slow = float(np.mean(plain.steps))
    for name, side in sides.items():
        fast = float(np.mean(side.steps))
        parts = ", ".join(f"{part} {1000 * spent / len(side.steps):.0f}" for part, spent in side.parts.items())
        print(
            f"LM {'frozen ' if frozen else 'trained'} {name}: plain {1000 * slow:5.0f} ms per step, {slow * epoch:5.1f} s per epoch; "
            f"ours {1000 * fast:5.0f} ms, {fast * epoch:5.1f} s; {slow / fast:5.2f} times faster  (ours by part, ms: {parts})",
            flush=True,
        )


@torch.no_grad()
def losses_agree(source: EncoderSource, data: PreparedSplit) -> tuple[float, float]:
    """Loss of both forms of the same weights on the same batch, float32, no dropout."""
    model = new_model(source, data.split, frozen=False).eval()
    rows = list(range(BATCH))
    y = stage_one_loss(data.y, TrainingOptions(), unimodal=True)
    inputs = data.batch(rows)
    return tuple(
        float(y(forward(model, batch), batch.present, torch.as_tensor(rows)))
        for forward, batch in ((plain_step, padded(inputs)), (MugModel.__call__, inputs))
    )  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="embedded", help="language model: hub name, folder or `embedded`")
    parser.add_argument("--modes", nargs="+", default=["trained", "frozen"], choices=["trained", "frozen"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=27, help="timed steps of each side; an epoch has 81")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; times are this process's CPU time")
    source = EncoderSource(None, arguments.lm, zero_init_blocks=False)  # blocks that add nothing would hide a difference
    split, tokens = made_data()
    y = torch.as_tensor(split.label)
    with TemporaryDirectory() as folder:
        encoder, _ = source.load(WIDTHS[AUDIO], WIDTHS[VISION], seed=0)
        states = LazyStates(lambda: TextStateCache.build(encoder, tokens, Path(folder), progress=False))
        splits = {frozen: PreparedSplit(split, tokens, states, frozen, y, 0) for frozen in (False, True)}
        plain, ours = losses_agree(source, splits[False])
        print(f"loss of the same weights and batch in fp32, no dropout: plain {plain:.6f}, ours {ours:.6f}")
        for mode in arguments.modes:
            compare(source, splits, mode == "frozen", arguments.precisions, arguments.steps)


if __name__ == "__main__":
    main()
