"""`python -m finetune.studies NAME --dataset … --data … --lm … --output …`: one question about the method, answered over seeds."""

import os
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from finetune.studies.catalogue import QUESTIONS, STUDIES
from skesl_mug.console import print_and_leave, run_command, say_loading
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.studies.frame import Setting, StudyOptions

PROGRAM = "python -m finetune.studies"
SEARCH = "Which training options are best on the development split? (Optuna)"


def main(name: str, options: "StudyOptions") -> None:
    """Train what is not finished of a study and write its report."""
    from finetune.studies.study_folder import check_folder, claim_folder
    from finetune.training.first_checks import check_places

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("accelerate launch: a study's processes take a seed each; start it with python and --workers")
    check_folder(name, options)
    check_places(options)
    from transformers.utils import logging

    from finetune.training.experiment import open_corpus, set_threads
    from finetune.training.trainer import open_source
    from skesl_mug.locks import run_lock

    if not options.debug:
        logging.disable_progress_bar()
    set_threads(options)
    corpus, source = open_corpus(options), open_source(options)
    settings = STUDIES[name].settings(options, corpus, source)
    with run_lock(options.output):
        claim_folder(name, options, corpus, source)
        _work(name, options, corpus, settings)


def _work(name: str, options: "StudyOptions", corpus: "LabelledCorpus", settings: "list[Setting]") -> None:
    """Train and write, in the folder that is ours."""
    from finetune.run_mug import print_corpus
    from finetune.studies.results import StudyResults
    from finetune.studies.writing import write_study
    from finetune.training.experiment import Experiment
    from finetune.training.output_folder import CHECKPOINTS

    study = STUDIES[name]
    print_corpus(options, corpus)
    models = sum(len(setting.variants) for setting in settings)
    print(f"{study.title}: {counted(len(options.seeds), 'seed')} x {counted(models, 'model')} in {counted(len(settings), 'setting')}")
    Experiment(settings, options.seeds, corpus, options.output / CHECKPOINTS).run()
    results = StudyResults(options.output / CHECKPOINTS, options.seeds)
    outcome = study.outcome(options, corpus, results)
    page = write_study(name, study, options, corpus, outcome, f"{PROGRAM} {name} {shlex.join(sys.argv[1:])}")
    print(f"\nShows. {outcome.shows}\nDoes not show. {outcome.not_shown}\n\nstudy: {page.resolve()}")


def program() -> str:
    """What was typed to come here."""
    return sys.argv[0] if sys.argv[0].startswith("skesl-mug ") else PROGRAM


def search() -> NoReturn:
    """Hand over to the search, which is no study: it has trials instead of settings."""
    from finetune.studies.search import SearchOptions
    from finetune.studies.search import main as run

    sys.argv = [f"{program()} search", *sys.argv[2:]]
    run_command(SearchOptions, run)
    sys.exit(0)


def start() -> None:
    """Find the study and parse its own options."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        listed = [f"  {name:<18} {question}" for name, question in {**QUESTIONS, "search": SEARCH}.items()]
        print_and_leave("\n".join([f"usage: {program()} NAME [options; NAME --help shows them]", "", *listed]))
    name = sys.argv[1]
    if name == "search":
        search()
    if name not in STUDIES:
        print(f"error: {name}: is no study; choose from {', '.join([*QUESTIONS, 'search'])}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{program()} {name}", *sys.argv[2:]]
    say_loading("transformers")
    run_command(STUDIES[name].options, lambda options: main(name, options))


if __name__ == "__main__":
    start()
