"""Studies: one question each, answered by training a handful of settings over seeds: `python -m finetune.studies NAME --help`."""
