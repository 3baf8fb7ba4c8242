"""Search: training options by Optuna, on the development split only: `python -m finetune.studies search --help`.

Trials are kept in a journal: the same command resumes until there are as many as requested. The best options are written to `best.yaml`,
which `skesl-mug finetune --config` reproduces exactly.
"""

import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml

from finetune.options import MugOptions, TrainOptions
from finetune.training.folder import RECIPE, check_places
from skesl_mug.console import COMMAND_FIELDS, next_command, say_loading, to_plain
from skesl_mug.errors import DivergedError, UserError
from skesl_mug.files import write_atomically, write_json

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus

Tunable = Literal[
    "training.lr", "training.encoder-lr", "training.weight-decay", "training.alignment.weight", "training.alignment.temperature",
    "model.dropout", "model.dim",
]  # fmt: skip
RANGES: dict[Tunable, tuple[float, float] | list[int]] = {
    "training.lr": (1e-4, 1e-2),
    "training.encoder-lr": (2e-5, 2e-3),
    "training.weight-decay": (1e-4, 1e-1),
    "training.alignment.weight": (1e-2, 1.0),
    "training.alignment.temperature": (0.03, 0.3),
    "model.dropout": (0.05, 0.5),
    "model.dim": [32, 64, 128],
}
"""Ranges on a logarithmic scale; lists are choices."""
JOURNAL = "trials.log"


@dataclass(kw_only=True)
class SearchOptions(TrainOptions):
    """Search the training options with the smallest MAE on the development split, mean over the seeds; the test split is never used.

    Example: skesl-mug search --dataset mosi --data mosi.pkl --encoder runs/skesl --seeds 1111 --output runs/search
    """

    labels: str = "mucn-crossfit"
    """Source of the unimodal labels of stage 3."""
    tune: list[Tunable] = field(default_factory=lambda: list(RANGES))
    """The options to search; all others keep their values."""
    trials: int = 30
    """Total number of trials, including those of earlier sessions."""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        if self.trials < 1 or not self.tune:
            raise UserError("--trials, --tune: need at least one trial and one option to search")


def options_with(options: SearchOptions, chosen: dict[str, Any], output: Path) -> MugOptions:
    """The options of a run with the chosen values, without further generators and controls."""
    shared = {each.name: getattr(options, each.name) for each in fields(TrainOptions)}
    run = MugOptions(**shared | {"output": output, "overwrite": False, "labels": options.labels, "compare_labels": [], "controls": []})
    run.model, run.training = replace(options.model), replace(options.training, alignment=replace(options.training.alignment))
    for flag, value in chosen.items():
        *path, name = flag.replace("-", "_").split(".")
        target: Any = run
        for part in path:
            target = getattr(target, part)
        setattr(target, name, value)
    return run


def kept_error(curve: list[float], keep: str) -> float:
    """The development MAE of the epoch that a stage keeps, its best or its last."""
    return curve[-1] if keep == "last" else min(curve)


def development_error(run: MugOptions, corpus: "LabelledCorpus", trial: Any) -> float:
    """The development MAE of the epoch that stage 3 keeps, mean over the seeds.

    With --workers all seeds are trained before the trial is compared with the others; its value and fate are the same.

    Raises:
        TrialPruned: the trial is behind the median after a seed.
        DivergedError: its training diverged.
    """
    import optuna

    from finetune.training.experiment import Experiment
    from finetune.training.trainer import Setting
    from finetune.training.variants import of_generator

    setting = Setting(run.output.name, run, [of_generator(run.labels)])
    experiment = Experiment([setting], run.seeds, corpus, run.output.parent)
    if run.workers > 1:
        experiment.run()
    errors: list[float] = []
    for place, seed in enumerate(run.seeds):
        experiment.run_seed(seed)
        history = experiment.seed_folder(setting, seed).results(run.labels)["history"]
        curve = [epoch["dev_MAE"] for epoch in history if epoch["stage"] == 3]
        errors.append(kept_error(curve, run.training.keep))
        trial.report(float(np.mean(errors)), place)
        if trial.should_prune():
            raise optuna.TrialPruned("behind the median")
    return float(np.mean(errors))


def main(options: SearchOptions) -> None:
    """Run the missing trials and write the best options.

    Raises:
        UserError: Optuna is not installed, the output folder cannot be used, or a trial failed for another reason than divergence; such
            a trial does not count.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("the search needs Optuna: pip install 'skesl-mug[search]'") from error

    from finetune.extensions import plugin_code
    from finetune.studies.folder import check_folder

    folder = check_folder("search", options)
    check_places(options)
    say_loading("transformers")
    from finetune.training.experiment import open_corpus, set_threads
    from finetune.training.trainer import open_source

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    set_threads(options)
    corpus = open_corpus(options)
    identity = {"recipe": RECIPE, "study": "search", "data": corpus.sha256, "encoder": open_source(options).fingerprint()}
    identity |= plugin_code(options)
    with folder.claimed(to_plain(options, leave_out=COMMAND_FIELDS), identity, options.overwrite):
        _search(options, corpus)


def _search(options: SearchOptions, corpus: "LabelledCorpus") -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    from finetune.training.folder import CHECKPOINTS

    checkpoints = options.output / CHECKPOINTS
    journal = checkpoints / JOURNAL
    _drop_unfinished_line(journal)
    name = " ".join([options.labels, *sorted(options.tune), *map(str, options.seeds)])
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True, pruner=pruner)
    except (ValueError, KeyError) as error:
        raise UserError(f"{journal}: is damaged ({error}); delete it to run the trials again") from error
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # of a session that was killed: we hold the lock
        study.tell(stale.number, state=TrialState.FAIL)
    while (done := len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))) < options.trials:
        study.sampler = optuna.samplers.TPESampler(seed=options.seeds[0] + done)
        trial = study.ask()
        chosen: dict[str, Any] = {flag: _suggest(trial, flag) for flag in options.tune}
        run = options_with(options, chosen, checkpoints / f"trial-{trial.number}")
        shutil.rmtree(run.output, ignore_errors=True)  # of a search whose journal was deleted
        try:
            found = development_error(run, corpus, trial)
        except (optuna.TrialPruned, DivergedError) as reason:
            study.tell(trial, state=TrialState.PRUNED)
            print(f"trial {trial.number}: stopped ({reason})")
        else:
            study.tell(trial, found)
            print(f"trial {trial.number}: development MAE {found:.4f}; best {study.best_value:.4f}")
    _write_best(options, study)


def _drop_unfinished_line(journal: Path) -> None:
    """Remove the last line if a full disk or a kill cut it off: Optuna would append to it."""
    content = journal.read_bytes() if journal.is_file() else b"\n"
    if not content.endswith(b"\n"):
        write_atomically(journal, lambda path: path.write_bytes(content[: content.rfind(b"\n") + 1]))


def _suggest(trial: Any, flag: Tunable) -> float | int:
    within = RANGES[flag]
    if isinstance(within, list):
        return int(trial.suggest_categorical(flag, within))
    return float(trial.suggest_float(flag, *within, log=True))


def _write_best(options: SearchOptions, study: Any) -> None:
    finished = [trial for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    if not finished:
        raise UserError("--trials: none was completed (all diverged or were stopped); add trials or lower --training.lr")
    best = options_with(options, study.best_params, options.output / "best")
    text = yaml.safe_dump(_without_none(to_plain(best, leave_out=COMMAND_FIELDS)), sort_keys=False, allow_unicode=True)
    write_atomically(options.output / "best.yaml", lambda path: path.write_text(text, encoding="utf-8"))
    trials = [{"number": trial.number, "state": trial.state.name, "dev_MAE": trial.value, **trial.params} for trial in study.trials]
    write_json(options.output / "search.json", {"best_trial": study.best_trial.number, "dev_MAE": study.best_value, "trials": trials})
    print(f"best of {len(finished)} completed trials: development MAE {study.best_value:.4f}")
    print(f"its run: {next_command('finetune', 'finetune/run_mug.py')} --config {options.output / 'best.yaml'}")


def _without_none(entries: dict[str, Any]) -> dict[str, Any]:
    """Without entries of None, which no flag can express."""
    return {key: _without_none(value) if isinstance(value, dict) else value for key, value in entries.items() if value is not None}
