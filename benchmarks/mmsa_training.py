"""MMSA itself (PyPI, in an environment of its own, CPU) trains LF-DNN and Self-MM for one epoch on a feature file of `skesl-mug to-mmsa`.

    python benchmarks/mmsa_training.py --folder build/mmsa                    # makes a sample corpus first
    python benchmarks/mmsa_training.py --folder build/mmsa --data DATASET     # on a labelled dataset of yours

One line per model with MMSA's own test metrics. MMSA downloads bert-base-uncased; here `pretrained` is the embedded BERT (MiniLM, 384 wide,
hence `text_out=384`), so that nothing needs a hub. MMSA calls `torch.cuda.set_device` on the CPU device, which PyTorch refuses: without
CUDA that call is disabled. Nothing else of MMSA is changed. The environment takes a few GB where pip installs PyTorch with CUDA.
"""

import argparse
import ast
import csv
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = "2.2.1"
MODELS = {"LF_DNN": {}, "Self_MM": {"text_out": 384}}
"""Models, and the settings that differ from MMSA's for MOSI; both train for one epoch."""


def main() -> None:
    """Prepare what is missing, then train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/mmsa"), help="environment, data and results (default: build/mmsa)")
    parser.add_argument("--data", type=Path, help="labelled utterance dataset (default: made from a sample corpus of 36 clips)")
    parser.add_argument("--inside", nargs=3, metavar=("FILE", "BERT", "MODEL"), help=argparse.SUPPRESS)  # in MMSA's environment
    options = parser.parse_args()
    if options.inside:
        train(*options.inside, options.folder)
        return
    folder = options.folder.resolve()
    python = environment(folder / "env")
    data = options.data or sample_dataset(folder)
    sys.path.insert(0, str(ROOT))
    from finetune.to_mmsa import to_mmsa
    from pretrain.embedded_models import embedded_folder

    for alignment, length in (("unaligned", None), ("aligned 50", 50)):
        file = folder / f"{alignment.replace(' ', '_')}.pkl"
        counts = to_mmsa(data, file, aligned=length)["splits"]["counts"]
        print(f"{file.name}: " + ", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
        for model in MODELS:
            arguments = ["--folder", str(folder), "--inside", str(file), str(embedded_folder("embedded")), model]
            call(python, str(Path(__file__).resolve()), *arguments)


def call(*command: str) -> None:
    """Run a command without this process's PYTHONPATH; raises `SystemExit` if it fails."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    if subprocess.run(command, env=variables, check=False).returncode:
        raise SystemExit(f"failed: {' '.join(command)}")


def environment(folder: Path) -> str:
    """The Python of MMSA's environment, created if it is absent; its dependencies are unpinned, ours are used where they are the same."""
    python = str(folder / "bin" / "python")
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True, clear=True)
        call(python, "-m", "pip", "install", "-qq", "-c", str(ROOT / "constraints.txt"), f"MMSA=={VERSION}")
        (folder / "ready").touch()
    return python


def sample_dataset(folder: Path) -> Path:
    """The labelled part of a preprocessed sample corpus."""
    corpus, dataset = folder / "corpus", folder / "dataset"
    if not corpus.is_dir():
        command = ["--output", str(corpus), "--clips", "36", "--workers", "2"]
        subprocess.run([sys.executable, str(ROOT / "preprocessing" / "sample_corpus.py"), *command], check=True)
    if not (dataset / "dataset.json").is_file():
        command = ["--corpus", "folder", "--root", str(corpus / "labelled"), "--output", str(dataset), "--workers", "2"]
        subprocess.run([sys.executable, str(ROOT / "preprocessing" / "run.py"), *command], check=True)
    return dataset


def train(file: str, bert: str, model: str, folder: Path) -> None:
    """In MMSA's environment: train one model and print its line."""
    import torch
    from MMSA import MMSA_run

    if not torch.cuda.is_available():
        torch.cuda.set_device = lambda device: None
    results = folder / "results" / model
    aligned = "unaligned" not in Path(file).name
    with open(Path(file).with_suffix(".json"), encoding="utf-8") as opened:
        count = json.load(opened)["splits"]["counts"]["train"]
    config = {"early_stop": 0, "train_samples": count, "need_data_aligned": aligned, "pretrained": bert, **MODELS[model]}
    (results / "normal" / "mosi.csv").unlink(missing_ok=True)
    MMSA_run(
        model,
        "mosi",
        seeds=[1111],
        config=config,
        custom_feature=file,
        gpu_ids=[],
        num_workers=0,
        verbose_level=0,
        model_save_dir=str(results),
        res_save_dir=str(results),
        log_dir=str(results),
    )
    with open(results / "normal" / "mosi.csv", newline="", encoding="utf-8") as opened:
        row = list(csv.DictReader(opened))[-1]
    shown = {name: float(ast.literal_eval(value.replace("np.float64", ""))[0]) / 100 for name, value in row.items() if name != "Model"}
    print(f"  {model:<8} " + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()), flush=True)


if __name__ == "__main__":
    main()
