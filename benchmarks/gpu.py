"""Steps of pretraining and fine-tuning on a GPU: utterances per second, milliseconds, share of the card's own matrix-product rate.

    python benchmarks/gpu.py

Pretraining: what `pretrain/run.py` runs, the authors' configuration, utterances with the lengths of VoxCeleb2. Fine-tuning: an epoch of
stage 1 on features of MOSI's size (see pretrain_step.py and finetune_step.py). Weights and features are random. The share is the
operations of forward and backward over the time of a whole step (batch to the card, forward, backward, clipping, optimiser), against the
rate of one large product of the same precision measured first. Peak memory is what PyTorch allocated.
"""

import argparse
import sys
import time
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from benchmarks.finetune_step import ROWS, made_data, new_model
from benchmarks.pretrain_step import SHAPES, batches_of, build
from finetune.corpora import LabelledSplit
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import LazyStates, PreparedSplit
from finetune.options import TrainingOptions
from finetune.training.stages import stage_one_loss, trained_parameters
from pretrain.evaluation import model_inputs
from pretrain.optimisation import choose_attention_kernels, layerwise_rates, parameter_groups
from pretrain.options import PretrainOptions
from pretrain.text_states import TextStateCache

GPU = torch.device("cuda")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def peak_rate(dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two 8192 x 8192 matrices of random numbers, the best of ten."""
    a, b = torch.randn(2, 8192, 8192, device=GPU).to(dtype)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * 8192**3 / best / 1e12


@lru_cache
def pretraining_batches(count: int, width: int, size: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Drawing them takes longer than training on them."""
    return list(batches_of(True, count, width, size))


def pretraining(lm: str, frozen: bool, precision: str, compiled: bool, batch_size: int, steps: int, peak: float) -> str:
    """One line for a configuration."""
    model = build(lm, "authors", frozen).to(GPU)
    options = PretrainOptions(data=[Path()], output=Path())
    groups = parameter_groups(
        model.named_parameters(), layerwise_rates(model, options.lr, options.lm_lr, options.lm_layer_decay), options.weight_decay
    )
    optimiser = torch.optim.AdamW(groups, fused=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    forward: Any = torch.compile(model, dynamic=True) if compiled else model
    batches = [cached if frozen else plain for plain, cached in pretraining_batches(steps + 4, model.config.hidden_size, batch_size)]

    def loss_of(batch: dict[str, Any]) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss: torch.Tensor = forward(**model_inputs(batch, GPU)).loss
        return loss

    def step(batch: dict[str, Any]) -> None:
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        float(loss.detach())  # training reads it after every step

    began = time.perf_counter()
    for batch in batches[:4]:
        step(batch)
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    torch.cuda.reset_peak_memory_stats()
    times = []
    for batch in batches[4:]:
        began = time.perf_counter()
        step(batch)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() / 2**30
    work = 0.0
    if not compiled:
        with FlopCounterMode(display=False) as counter:
            loss_of(batches[-1]).backward()
        work = counter.get_total_flops() / 1e12
        optimiser.zero_grad()
    seconds = float(np.median(times))
    share = f"{work / times[-1]:6.1f} TFLOP/s ({work / times[-1] / peak:5.1%} of the product)" if work else ""
    kind = f"{'frozen ' if frozen else 'trained'} {precision}{' compiled' if compiled else '         '}"
    first_steps = f"first four steps {first:.0f} s" if compiled else ""
    return (
        f"pretraining {lm:9s} {kind} batch {batch_size:4d}: {1000 * seconds:6.1f} ms per step, {batch_size / seconds:8,.0f} utterances/s, "
        f"{memory:5.2f} GiB  {share}{first_steps}"
    )


def fine_tuning(source: EncoderSource, data: PreparedSplit, frozen: bool, precision: str, batch_size: int) -> str:
    """One line for an epoch of stage 1."""
    torch.manual_seed(0)
    model = new_model(source, data.split, frozen).to(GPU)
    loss_of = stage_one_loss(data.y, TrainingOptions(), unimodal=True)
    optimiser = torch.optim.AdamW(trained_parameters(model, TrainingOptions(), data.use_states), fused=True)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    seconds = 0.0
    for epoch in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for rows in data.batches(batch_size, torch.Generator().manual_seed(epoch)):
            inputs = data.batch(rows).to(GPU)
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                output = model(inputs)
            loss = loss_of(output, inputs.present, torch.as_tensor(rows))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    kind = "frozen " if frozen else "trained"
    return (
        f"fine-tuning minilm    {kind} {precision}          batch {batch_size:4d}: {seconds:6.2f} s per epoch of {ROWS:,}, "
        f"{ROWS / seconds:8,.0f} utterances/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of pretraining")
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 256], help="batch sizes")
    parser.add_argument("--cudnn-attention", action="store_true", help="let PyTorch choose cuDNN's attention, which training leaves out")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device on this machine")
    if not arguments.cudnn_attention:
        choose_attention_kernels()
    peaks = {name: peak_rate(dtype) for name, dtype in PRECISIONS.items()}
    print(
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; product: "
        + ", ".join(f"{k} {v:.0f} TFLOP/s" for k, v in peaks.items())
    )
    for lm in SHAPES:
        for frozen in (True, False):
            for precision in PRECISIONS:
                for batch_size in arguments.batches:
                    print(pretraining(lm, frozen, precision, False, batch_size, arguments.steps, peaks[precision]), flush=True)
    if not arguments.no_compile:
        print(pretraining("minilm", False, "bf16", True, arguments.batches[0], arguments.steps, peaks["bf16"]), flush=True)
    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        BertModel(BertConfig(**SHAPES["minilm"], num_attention_heads=12)).save_pretrained(folder)
        source = EncoderSource(None, folder, zero_init_blocks=False)
        split, tokens = made_data()
        for frozen in (True, False):
            data = prepared(source, split, tokens, Path(folder) / "states", frozen)
            for precision in PRECISIONS:
                print(fine_tuning(source, data, frozen, precision, 32), flush=True)


def prepared(source: EncoderSource, split: LabelledSplit, tokens: list[list[int]], folder: Path, frozen: bool) -> PreparedSplit:
    encoder, _ = source.load(split.audio[0].shape[1], split.vision[0].shape[1], seed=0)  # type: ignore[index]
    encoder.to(GPU)
    states = LazyStates(lambda: TextStateCache.build(encoder, tokens, folder, progress=False))
    return PreparedSplit(split, tokens, states, frozen, torch.as_tensor(split.label), 0)


if __name__ == "__main__":
    main()
