"""MUG fine-tuning on labelled corpora: stages, metrics, reports."""

from skesl_mug.interruption import one_line_while_importing

one_line_while_importing()
