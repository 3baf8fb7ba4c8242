"""MUG fine-tuning, from a labelled corpus to a model and its report: `python finetune/run_mug.py --help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os

from finetune.finetuning import FinetuneResult, run
from finetune.options import MugOptions
from skesl_mug.console import next_command, read_stored_options, run_command, this_command
from skesl_mug.registry import plugin_name
from skesl_mug.run_folder import CONFIG_FILE


def main(options: MugOptions) -> None:
    """Fine-tune, print the table, and say where the report is and what comes next."""
    result = run(options, this_command("finetune/run_mug.py"))
    if os.environ.get("RANK", "0") == "0":
        print_result(result)


def print_result(result: FinetuneResult) -> None:
    """The table on the terminal, the report, and what comes next."""
    from finetune.report.run_results import RunResults
    from finetune.report.verdict import against_controls, audio_vision, score_interval

    print(f"\n{result}")
    found = RunResults(result.folder)
    sentences = "\n".join(text.replace("**", "") for text in (against_controls(found), audio_vision(found), score_interval(found)) if text)
    print(f"\n{sentences}\n" if sentences else "")
    if result.report.is_file():
        print(f"report: {result.report.resolve()}")
    if result.results.get("preprocessing") is not None:  # preprocessing can make the same features of another video
        print(f"next:   {next_command('predict', 'finetune/predict.py')} VIDEO --model {result.folder}{plugin_flag(result)}")


def plugin_flag(result: FinetuneResult) -> str:
    """` --plugin MODULE...` with the plugins of the run and those that made the features of its dataset; empty without any."""
    from finetune.prediction.recipe import Recipe
    from preprocessing.blocks import blocks_of
    from preprocessing.features import plugin_module

    given = read_stored_options(result.folder / CONFIG_FILE).get("plugin") or []
    known = set(map(plugin_name, given))
    recipe = Recipe.read(result.folder / "model")
    infos = [block for modality in ("audio", "vision") for block in blocks_of(recipe.feature(modality))]
    needed = dict.fromkeys(module for info in infos if (module := plugin_module(info.settings)) not in (None, "__main__", *known))
    return "".join(f" {word}" for word in ("--plugin", *given, *needed)) if given or needed else ""


if __name__ == "__main__":
    run_command(MugOptions, main)
