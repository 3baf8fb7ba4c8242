"""Export of a fine-tuned network to ONNX: `python -m finetune.export --model RUN --output model.onnx` (extra `[onnx]`)."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import importlib.util
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import torch

    from finetune.prediction.sentiment_model import SentimentModel

TOLERANCE = 1e-4
"""Maximum difference from the PyTorch network, in label units."""
OPSET = 17
INPUTS = ("input_ids", "attention_mask", "audio", "audio_mask", "vision", "vision_mask", "text_present")
LENGTHS = {"input_ids": "tokens", "attention_mask": "tokens", "audio": "audio_frames", "audio_mask": "audio_frames"}
LENGTHS |= {"vision": "vision_frames", "vision_mask": "vision_frames"}
TRIALS = 20


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Export the network of a fine-tuned model (language model, cross-modal blocks, heads) as an ONNX file, compare it with PyTorch on
    random inputs of several lengths, and time both.

    Inputs: token ids and feature frames with their masks; a missing modality is one frame with mask 0. Output: [B, tasks] scores in
    label units; the file's metadata names the tasks, the label range, and level and half width of the interval around the multimodal score.
    Segmentation and feature extraction are not part of it.
    """

    model: str
    """A fine-tuning run, its model/ folder, or a model's hub name."""
    output: Path
    """The ONNX file to write."""


def main(options: Options) -> None:
    """Export, compare, time."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"this needs the extra `onnx` ({package} is not installed): pip install -e '.[onnx]'")
    from finetune.prediction.sentiment_model import SentimentModel

    model = SentimentModel.from_pretrained(options.model, device="cpu", quiet=not options.debug)
    tasks = export(model, options.output)
    difference, eager, exported = compare(model, options.output)
    if not difference <= TOLERANCE:
        options.output.unlink()
        raise UserError(
            f"--output {options.output}: differs from the network by {difference:.2g} label units and was deleted; please report this model"
        )
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {size:.1f} MB; outputs {', '.join(tasks)}; maximum difference from the network {difference:.1e} label units")
    if model.recipe.context:
        print("note: the model also reads earlier utterances; the exported network scores each utterance as the first of its video")
    print(f"one utterance (24 tokens, 4 s): {eager * 1000:.1f} ms in PyTorch, {exported * 1000:.1f} ms in ONNX Runtime (one thread)")


def export(model: "SentimentModel", path: Path) -> list[str]:
    """Write the network of a model to `path`; returns the tasks in the order of the output columns.

    Raises:
        UserError: the network does not use all three modalities, or reads text vectors.
    """
    import torch

    if set(model.network.modalities) != {"text", "audio", "vision"}:
        raise UserError(f"--model {model.name}: uses only {', '.join(model.network.modalities)}; the export needs all three modalities")
    if model.network.config.text_dim:
        raise UserError(f"--model {model.name}: was trained on text vectors, not on transcripts; the export needs transcripts")
    network, tasks = _Exported(model), model.network.tasks
    shapes = {name: {0: "batch"} | ({1: LENGTHS[name]} if name in LENGTHS else {}) for name in INPUTS}

    def write(temporary: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # from tracing: `compare` covers every size that a branch depends on
            torch.onnx.export(
                network,
                tuple(random_inputs(model, 2, (9, 20, 11))),
                str(temporary),
                input_names=list(INPUTS),
                output_names=["scores"],
                dynamic_axes={**shapes, "scores": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        entries = {"tasks": " ".join(tasks), "label_range": " ".join(map(str, model.recipe.label_range))}
        if (interval := model.recipe.interval) is not None and interval.half_width is not None:
            entries |= {"interval_level": f"{interval.level:g}", "interval_half_width": f"{interval.half_width:.6f}"}
        _add_metadata(temporary, entries)

    write_atomically(path, write)
    return list(tasks)


def _add_metadata(path: Path, entries: dict[str, str]) -> None:
    import onnx

    stored = onnx.load(str(path))
    for key, value in entries.items():
        stored.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(stored)
    onnx.save(stored, str(path))


def random_inputs(model: "SentimentModel", batch: int, lengths: tuple[int, int, int], seed: int = 0) -> "list[torch.Tensor]":
    """Random inputs of the exported network in the order of `INPUTS`; if B > 1, the last utterance is shorter and has no vision."""
    import torch

    random = torch.Generator().manual_seed(seed)
    tokens, heard, looked = lengths
    vocabulary = model.network.encoder.text_model.config.vocab_size
    ids = torch.randint(5, min(vocabulary, 20_000), (batch, tokens), generator=random)
    masks = [torch.ones(batch, length, dtype=torch.long) for length in lengths]
    if batch > 1:
        masks[0][-1, tokens // 2 :] = 0
        masks[1][-1, heard // 2 :] = 0
        masks[2][-1] = 0
    config = model.network.config
    audio = torch.randn(batch, heard, config.audio_dim, generator=random) * 10
    vision = torch.randn(batch, looked, config.vision_dim, generator=random)
    return [ids, masks[0], audio, masks[1], vision, masks[2], torch.ones(batch, dtype=torch.bool)]


def compare(model: "SentimentModel", path: Path) -> tuple[float, float, float]:
    """The maximum difference in label units over several sizes, and seconds per utterance in PyTorch and in ONNX Runtime."""
    import torch

    network = _Exported(model)
    session = open_session(path)
    worst = 0.0
    for number, (batch, lengths) in enumerate([(2, (9, 20, 11)), (1, (24, 172, 24)), (3, (40, 400, 60)), (1, (3, 1, 1))]):
        inputs = random_inputs(model, batch, lengths, number)
        with torch.no_grad():
            eager = network(*inputs).numpy()
        worst = max(worst, float(abs(run(session, inputs) - eager).max()))
    single = random_inputs(model, 1, (24, 172, 24))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        seconds = [_median_seconds(lambda: network(*single)), _median_seconds(lambda: run(session, single))]
    torch.set_num_threads(threads)
    return worst, seconds[0], seconds[1]


def open_session(path: Path):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    """An onnxruntime session of one thread on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session, inputs: "list[torch.Tensor]") -> "np.ndarray":  # type: ignore[no-untyped-def]
    """The scores [B, tasks] of one batch."""
    scores: np.ndarray = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)})[0]
    return scores


def _median_seconds(call) -> float:  # type: ignore[no-untyped-def]
    call()
    taken = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[TRIALS // 2]


def _Exported(model: "SentimentModel") -> "torch.nn.Module":  # noqa: N802 - a class made where torch is there
    """The network with tensors as inputs and outputs, including the rounding of a frozen language model's states."""
    import torch

    from finetune.model.networks import MugInputs
    from finetune.prediction.inputs import HALF_LIMIT

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.network

        def forward(self, ids, mask, audio, audio_mask, vision, vision_mask, text_present):  # type: ignore[no-untyped-def]
            states = None  # each network has its own
            if model.recipe.frozen_lm:
                states = self.network.encoder.text_states(ids, mask)
                states = states.clamp(-HALF_LIMIT, HALF_LIMIT).half().float() * mask.unsqueeze(-1)
            present = {"text": text_present, "audio": audio_mask.sum(1) > 0, "vision": vision_mask.sum(1) > 0}
            found = self.network(MugInputs(ids, mask, states, audio, audio_mask, vision, vision_mask, present)).predictions
            return model.recipe.scale.decode(torch.stack([found[name] for name in model.network.tasks], 1))

    return Exported().eval()


if __name__ == "__main__":
    run_command(Options, main)
