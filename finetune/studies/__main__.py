"""The command `python -m finetune.studies NAME ...`: answers one question about the method by training over several seeds."""

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from finetune.extensions import STUDIES
from finetune.studies import QUESTIONS
from skesl_mug.console import COMMAND_FIELDS, all_flags, print_and_leave, run_command, say_loading, this_command, to_plain
from skesl_mug.errors import UserError
from skesl_mug.registry import plugin_errors, use_plugins, values_of
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from finetune.studies.study import Study, StudyOptions

PROGRAM = "python -m finetune.studies"
SEARCH = "Which training options are best on the development split? (Optuna)"


def main(name: str, options: "StudyOptions") -> None:
    """Train what is missing of a study and write its report."""
    from finetune.studies.folder import check_folder, code_of_study
    from finetune.training.folder import check_places

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("accelerate launch: each process of a study trains a seed; start it with python and --workers")
    folder = check_folder(name, options)
    check_places(options)
    from transformers.utils import logging

    from finetune.finetuning import print_corpus
    from finetune.studies.report import power_in_words, write_study
    from finetune.studies.study import StudyResults, find_study
    from finetune.training.experiment import Experiment, open_corpus, set_threads
    from finetune.training.folder import CHECKPOINTS, RECIPE
    from finetune.training.trainer import open_source

    if not options.debug:
        logging.disable_progress_bar()
    set_threads(options)
    study, corpus, source = find_study(name), open_corpus(options), open_source(options)
    with plugin_errors(study):
        settings = study.settings(options, corpus, source)
    identity = {"recipe": RECIPE, "study": name, "data": corpus.sha256, "encoder": source.fingerprint()}
    identity |= code_of_study(study, settings)
    with folder.claimed(to_plain(options, leave_out=COMMAND_FIELDS), identity, options.overwrite):
        print_corpus(options, corpus)
        models = sum(len(setting.variants) for setting in settings)
        print(f"{study.title}: {counted(len(options.seeds), 'seed')} x {counted(models, 'model')} in {counted(len(settings), 'setting')}")
        Experiment(settings, options.seeds, corpus, options.output / CHECKPOINTS).run()
        results = StudyResults(options, corpus)
        with plugin_errors(study):
            outcome = study.outcome(options, corpus, results)
        print("drawing the report …")
        power = power_in_words(results, outcome)
        page = write_study(name, study, results, outcome, this_command(f"-m finetune.studies {name}"))
    print(f"\nShows. {outcome.shows}\nDoes not show. {outcome.not_shown}\n{power}\n\nstudy: {page.resolve()}")


def program() -> str:
    """The command as it was typed."""
    return sys.argv[0] if sys.argv[0].startswith("skesl-mug ") else PROGRAM


def usage() -> str:
    """The list of studies, including those of plugins."""
    questions = {name: QUESTIONS.get(name) or _question(name) for name in STUDIES.names()}
    listed = [f"  {name:<18} {question}" for name, question in {**questions, "search": SEARCH}.items()]
    return "\n".join([f"usage: {program()} NAME [options; NAME --help shows them]", "", *listed])


def _question(name: str) -> str:
    from finetune.studies.study import find_study

    return find_study(name).question


def search() -> NoReturn:
    """Run the search, which has trials instead of settings."""
    from finetune.studies.search import SearchOptions
    from finetune.studies.search import main as run

    sys.argv = [f"{program()} search", *sys.argv[2:]]
    run_command(SearchOptions, run)


def chosen_study(name: str) -> "Study":
    """The study of a name; a misspelt name is reported before anything slow is imported."""
    STUDIES.check(name)
    say_loading("transformers")
    from finetune.studies.study import find_study

    return find_study(name)


def start() -> None:
    """Find the study, then parse its own options."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    arguments = sys.argv[1 if name.startswith("-") else 2 :]
    if name == "search":
        search()
    try:
        use_plugins(values_of("--plugin", all_flags(arguments)))
        if name.startswith("-"):
            print_and_leave(usage())
        study = chosen_study(name)
    except UserError as error:
        if "--debug" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{program()} {name}", *sys.argv[2:]]
    run_command(study.options, lambda options: main(name, options))


if __name__ == "__main__":
    start()
