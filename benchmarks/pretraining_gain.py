"""Does SKESL pretraining help, and is it the sentiment knowledge? Text-only pretraining, then fine-tuning on few labels.

    python benchmarks/pretraining_gain.py --output runs/gain

Every arm starts from the same language model and is fine-tuned alike (same labels, order, steps; the last epoch counts, nothing is chosen
on the evaluated split); the arms differ in their starting weights alone:

    none       the language model, cross-modal blocks at random
    lm-only    the language model without any block: is `none` a weak opponent?
    skesl      masked-intensity pretraining with the lexicon's intensities
    shuffled   the same with the intensities of other sentences: what the text and the loss alone do
    compound   the same masked words, target: the sentence's VADER compound (times 3)
    mlm        plain masked-language modelling on the same sentences, as many passes

and variants of `skesl`: -context (intensities with negation and degree words), -masks (up to three masked words), -long (twice the
passes), -1k and -3k (so many sentences alone, with as many updates as all of them take).

Each piece (a pretraining, a fine-tuning run) is a file under --output; the same command goes on where it stopped, and `--report` prints
the table of what is there.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from preprocessing.console import CommandOptions, run_command
from skesl_mug.errors import UserError

ArmName = Literal[
    "none", "lm-only", "skesl", "shuffled", "compound", "mlm", "skesl-context", "skesl-masks", "skesl-long", "skesl-1k", "skesl-3k"
]
ROWS = {"skesl-1k": 1000, "skesl-3k": 3000}
METRICS = ("Corr", "MAE", "Non0_acc_2")
LABEL_SCALE = 3.0
CORPORA = Path(os.environ.get("MSA_DATA", "."))
"""The folder of research data, by the environment variable `MSA_DATA`."""


@dataclass(kw_only=True)
class GainOptions(CommandOptions):
    """Measure the gain of SKESL pretraining on MOSI transcripts with few labels, beside the controls that make it a claim."""

    output: Path
    """Folder of datasets, pretraining runs, fine-tuning results and the table."""
    sentences: Path = CORPORA / "reviews" / "sentences.txt"
    """Unlabelled sentences, one a line."""
    labelled: Path = CORPORA / "mosi" / "mosi_text_audio_train_valid.pkl"
    """MOSI in MMSA's format; its transcripts and labels alone are read."""
    lm: str = "embedded"
    """The language model under all arms."""
    arms: list[ArmName] = field(default_factory=lambda: ["none", "skesl", "mlm", "shuffled", "compound", "lm-only"])
    """Which arms to run, in this order."""
    sizes: list[int] = field(default_factory=lambda: [64, 256, 1284])
    """Numbers of labelled training utterances; a smaller one is a random subset of its own for every seed."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Each decides the labelled subset, the order, dropout and the new weights of a fine-tuning run."""
    rows: int = 0
    """Use the first so many sentences of a seeded shuffle; 0: all."""
    pretrain_seed: int = 1
    """Of the pretraining runs."""
    epochs: int = 2
    """Passes of every pretraining."""
    pretrain_lm_lr: float = 5e-5
    """Learning rate of the language model in every pretraining."""
    pretrain_lr: float = 1e-4
    """Learning rate of blocks and heads in every pretraining."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of pretraining and fine-tuning."""
    steps: list[int] = field(default_factory=lambda: [80, 160, 320])
    """Updates of a fine-tuning run, one number for each of --sizes."""
    batch_size: int = 16
    """Utterances a step of fine-tuning."""
    lm_lr: float = 5e-5
    """Learning rate of the language model in fine-tuning."""
    lr: float = 2e-4
    """Learning rate of the blocks in fine-tuning (the output layer: five times that)."""
    report: bool = False
    """Only print the table of what is there."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if len(self.steps) != len(self.sizes):
            raise UserError(f"--steps: wants one number for each of --sizes ({len(self.sizes)}), got {len(self.steps)}")


# --- unlabelled text -> utterance datasets


def read_sentences(options: GainOptions) -> list[str]:
    import numpy as np

    if not options.sentences.is_file():
        raise UserError(f"--sentences {options.sentences}: no such file; give a text file with one sentence a line")
    lines = [line.strip() for line in options.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    order = np.random.default_rng(0).permutation(len(lines))
    return [lines[place] for place in (order[: options.rows] if options.rows else order)]


def split_words(text: str) -> list[Any]:
    from preprocessing.schema import Word

    words, end = [], 0
    for token in text.split():
        start = text.index(token, end)
        end = start + len(token)
        words.append(Word(token, start, end))
    return words


def make_dataset(folder: Path, sentences: list[str], arm: str) -> Path:
    """An utterance dataset without audio and vision; the arms differ in the intensities of the same masked words."""
    import numpy as np
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    from lexicons.sources import load_lexicon
    from preprocessing.masking import find_masks, generator_for
    from preprocessing.schema import DatasetInfo, Utterance
    from preprocessing.store import INFO_FILE, write_dataset

    if (folder / INFO_FILE).is_file():
        return folder
    lexicon = load_lexicon("vader")
    rows = []
    for number, text in enumerate(sentences):
        name = f"s{number:06d}"
        words = split_words(text)
        masks = find_masks(words, lexicon, generator_for(name, 0), text=text, context=True)
        rows.append(Utterance(name, name, "", 0.0, 0.0, "en", text, words=words, masks=masks))
    rows = [row for row in rows if row.masks]
    if arm == "shuffled":
        values = [row.masks[0].intensity for row in rows]
        for row, place in zip(rows, np.random.default_rng(1).permutation(len(rows)), strict=True):
            row.masks[0].intensity = values[place]
    if arm == "compound":
        analyzer = SentimentIntensityAnalyzer()
        for row in rows:
            row.masks[0].intensity = LABEL_SCALE * analyzer.polarity_scores(row.text)["compound"]
    info = DatasetInfo(corpus={"name": f"sentences ({arm})", "root": ""}, lexicon={**lexicon.describe(), "arm": arm})
    write_dataset(folder, rows, info)
    return folder


# --- pretraining


def pretrain_arm(arm: ArmName, options: GainOptions) -> Path:
    """The folder of the arm's pretrained weights, made where it is absent."""
    if arm == "mlm":
        return pretrain_mlm(options)
    from pretrain.options import ObjectiveOptions, PretrainOptions
    from pretrain.pretraining import pretrain

    run = options.output / "pretrain" / arm
    if not (run / "results.json").is_file():
        sentences = read_sentences(options)
        rows = ROWS.get(arm, len(sentences))
        targets = arm if arm in (*ROWS, "skesl-context") or not arm.startswith("skesl") else "skesl"
        pretrain(
            PretrainOptions(
                data=[str(make_dataset(options.output / "data" / targets, sentences[:rows], targets))],
                output=run,
                lm=options.lm,
                freeze_lm=False,
                epochs=round(options.epochs * len(sentences) / rows) * (2 if arm == "skesl-long" else 1),
                objective=ObjectiveOptions(masks=3 if arm == "skesl-masks" else 1),
                lr=options.pretrain_lr,
                lm_lr=options.pretrain_lm_lr,
                valid_share=0.05,
                patience=0,
                context_intensity=arm == "skesl-context",
                precision=options.precision,
                seed=options.pretrain_seed,
                checkpoint_steps=100,
                keep_checkpoints=1,
            )
        )
    return run


def pretrain_mlm(options: GainOptions) -> Path:
    """Plain masked-language modelling: 15 % of the tokens, 80 % of them masked, 10 % another token, 10 % kept."""
    import torch
    from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling

    from pretrain.batches import tokenise
    from pretrain.encoder import load_tokenizer
    from pretrain.optimisation import learning_rate_factor
    from pretrain.text_models import quiet_loading, resolve_text_model

    folder = options.output / "pretrain" / "mlm"
    if (folder / "done.json").is_file():
        return folder
    tokenizer = load_tokenizer(options.lm)
    torch.manual_seed(options.pretrain_seed)
    with quiet_loading():
        model = AutoModelForMaskedLM.from_pretrained(resolve_text_model(options.lm), dtype=torch.float32).train()
    tokens = tokenise(read_sentences(options), tokenizer, 128)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    body = list(model.base_model.parameters())
    known = {id(parameter) for parameter in body}
    head = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups = [{"params": body, "base": options.pretrain_lm_lr}, {"params": head, "base": options.pretrain_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    batches = [batch for epoch in range(options.epochs) for batch in epoch_of_batches(tokens, 32, options.pretrain_seed, epoch)]
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * learning_rate_factor(step, len(batches), 0.06)
        with autocast(options):
            loss = model(**collate([{"input_ids": tokens[place]} for place in batch])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"mlm step {step}/{len(batches)} loss {float(loss):.3f}", flush=True)
    model.base_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "done.json").write_text(json.dumps({"loss": float(loss)}))
    return folder


def epoch_of_batches(tokens: list[list[int]], size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    from pretrain.batches import LengthBucketSampler

    sampler = LengthBucketSampler([len(row) for row in tokens], size, seed)
    sampler.set_epoch(epoch)
    return iter(sampler)


def autocast(options: GainOptions) -> Any:
    import torch

    from pretrain.pretraining import resolve_precision

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=resolve_precision(options.precision) == "bf16")


# --- fine-tuning


def starting_encoder(arm: ArmName, options: GainOptions) -> Any:
    """The arm's encoder without audio and vision; new weights come from torch's seed, set by the caller."""
    from pretrain.encoder import SkeslModel, load_encoder

    if arm not in ("none", "lm-only", "mlm"):
        return load_encoder(pretrain_arm(arm, options), 0, 0)[0]
    return SkeslModel.from_text_model(str(pretrain_arm(arm, options)) if arm == "mlm" else options.lm, 0, 0)


def fine_tune(arm: ArmName, size: int, steps: int, seed: int, corpus: Any, options: GainOptions) -> dict[str, Any]:
    """Train on `size` labelled utterances, predict the evaluated split."""
    import numpy as np
    import torch

    from finetune.metrics import score
    from pretrain.batches import tokenise
    from pretrain.encoder import load_tokenizer
    from pretrain.optimisation import learning_rate_factor

    torch.manual_seed(seed)
    encoder = starting_encoder(arm, options).train()
    torch.manual_seed(seed)
    head = torch.nn.Linear(encoder.config.hidden_size, 1)
    torch.nn.init.zeros_(head.bias)
    tokenizer = load_tokenizer(options.lm)
    (texts, labels), (test_texts, test_labels) = corpus
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(texts))[:size]
    train, test = (tokenise(rows, tokenizer, 64) for rows in ([texts[place] for place in chosen], test_texts))
    targets = torch.as_tensor(labels[chosen] / LABEL_SCALE)
    blocks = list(encoder.crossmodal.parameters()) if arm != "lm-only" else []
    groups = [
        {"params": list(encoder.text_model.parameters()), "base": options.lm_lr},
        {"params": list(head.parameters()), "base": 5 * options.lr},
    ]
    groups += [{"params": blocks, "base": options.lr}] if blocks else []
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)

    def predict(rows: list[list[int]]) -> Any:
        from pretrain.padding import pad_tokens

        ids, mask = pad_tokens(rows, tokenizer.pad_token_id)
        with autocast(options):
            states = encoder.text_states(ids, mask) if arm == "lm-only" else encoder(ids, mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        pooled = (states.float() * weights).sum(1) / weights.sum(1)
        return head(torch.nn.functional.dropout(pooled, 0.1, head.training)).squeeze(-1)

    order: list[int] = []
    for step in range(steps):
        while len(order) < options.batch_size:
            order += generator.permutation(size).tolist()
        batch, order = order[: options.batch_size], order[options.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * learning_rate_factor(step, steps, 0.1)
        loss = (predict([train[place] for place in batch]) - targets[batch]).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    encoder.eval()
    head.eval()
    with torch.no_grad():
        predictions = torch.cat([predict(test[a : a + 64]) for a in range(0, len(test), 64)]).numpy() * LABEL_SCALE
    return {"metrics": score(predictions, test_labels, "mosi"), "predictions": np.round(predictions, 4).tolist()}


def read_labelled(options: GainOptions) -> Any:
    """((texts, labels) of the whole train split, the same of the evaluated one)."""
    import numpy as np

    from finetune.corpora import load_corpus

    corpus = load_corpus("mosi", options.labelled)
    evaluated = corpus.splits[corpus.evaluated_on]
    parts = [corpus.splits["train"]] + ([corpus.splits["dev"]] if corpus.evaluated_on == "valid" else [])  # what was carved goes back
    texts = [text for part in parts for text in part.text or []]
    return (texts, np.concatenate([part.label for part in parts])), (list(evaluated.text or []), evaluated.label)


# --- the table


def collect(options: GainOptions) -> dict[tuple[str, int], dict[int, dict[str, float]]]:
    found: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    for path in sorted((options.output / "finetune").glob("*.json")):
        arm, size, seed = path.stem.rsplit("_", 2)
        found.setdefault((arm, int(size)), {})[int(seed)] = json.loads(path.read_text())["metrics"]
    return found


def print_table(options: GainOptions) -> None:
    """Mean and standard deviation over seeds, and paired tests against `none`: better in how many seeds, p of a paired t-test."""
    import numpy as np
    from scipy.stats import ttest_rel

    found = collect(options)
    print("labels  arm            seeds" + "".join(f"   {name:>12s}  better   p" for name in METRICS))
    for size in options.sizes:
        for arm in dict.fromkeys(name for name, _ in found):
            runs, base = found.get((arm, size), {}), found.get(("none", size), {})
            if not runs:
                continue
            line = f"{size:6d}  {arm:14s} {len(runs):4d} "
            for name in METRICS:
                values = np.array([runs[seed][name] for seed in sorted(runs)])
                line += f"   {values.mean():.3f} ± {values.std(ddof=1) if len(values) > 1 else 0:.3f}"
                both = sorted(set(runs) & set(base))
                if arm == "none" or len(both) < 2:
                    line += "             "
                    continue
                change = np.array([runs[seed][name] - base[seed][name] for seed in both]) * (-1 if name == "MAE" else 1)
                p = ttest_rel([runs[seed][name] for seed in both], [base[seed][name] for seed in both]).pvalue
                line += f"  {(change > 0).sum()}/{len(both)} {p:6.3f}"
            print(line)


def main(options: GainOptions) -> None:
    if not options.report:
        corpus = read_labelled(options)
        print(f"{len(corpus[0][0])} labelled utterances to draw from, {len(corpus[1][0])} to evaluate on", flush=True)
        (options.output / "finetune").mkdir(parents=True, exist_ok=True)
        for size, steps in zip(options.sizes, options.steps, strict=True):
            for arm in options.arms:
                for seed in options.seeds:
                    path = options.output / "finetune" / f"{arm}_{size}_{seed}.json"
                    if path.is_file():
                        continue
                    began = time.perf_counter()
                    result = fine_tune(arm, size, steps, seed, corpus, options)
                    path.write_text(json.dumps(result))
                    shown = "  ".join(f"{name} {result['metrics'][name]:.3f}" for name in METRICS)
                    print(f"{arm} {size} seed {seed}: {shown}  ({time.perf_counter() - began:.0f} s)", flush=True)
    print_table(options)


if __name__ == "__main__":
    run_command(GainOptions, main)
