"""Train the starter model, once, into the cache: `python finetune/starter.py [--lm embedded-base]`."""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lexicons.rated import HUTTO, rated_file
from pretrain.embedded_models import EMBEDDED
from pretrain.starter import STARTER, starter_options
from pretrain.text_models import resolve_text_model
from skesl_mug.console import CommandOptions, next_command, run_command, say_loading


@dataclass(kw_only=True)
class StarterOptions(CommandOptions):
    """Train the starter model, which judges words alone, on sentences that people rated, and keep it in the cache.

    `predict` and `web` use it where no --model is given, and `finetune --encoder starter` starts from it.
    Around `embedded` it takes some seven minutes on one core; around `embedded-base` (better) half an hour and 8 GB.
    """

    lm: str = EMBEDDED
    """The language model: `embedded`, `embedded-base`, a hub name or a local folder."""
    rated: str = HUTTO
    """The rated texts: `hutto-gilbert` (fetched once with pip), its archive from a machine with network, or a csv of texts and scores."""


def main(options: StarterOptions) -> None:
    """Train it where it is not there, say how good it is and what comes next."""
    if options.rated != HUTTO:
        rated_file(options.rated)
    resolve_text_model(options.lm)
    say_loading("transformers")
    from finetune.prediction.recipe import Recipe
    from finetune.prediction.starter import starter_model

    folder = starter_model(options.lm, options.rated)
    for remark in Recipe.read(folder).remarks:
        print(remark)
    name = STARTER if options.lm == EMBEDDED else f"{STARTER}:{options.lm}"
    if starter_options(options.lm).output != starter_options(options.lm, options.rated).output:
        name = str(folder)
    model = "" if name == STARTER else f" --model {name}"
    print(f"model: {folder}")
    print(f"next:  {next_command('predict', 'finetune/predict.py')} VIDEO{model}")
    if name != str(folder):
        command = next_command("finetune", "finetune/run_mug.py")
        print(f"or:    {command} --dataset custom --data LABELLED --encoder {name} --few 64 --output RUN")


if __name__ == "__main__":
    run_command(StarterOptions, main)
