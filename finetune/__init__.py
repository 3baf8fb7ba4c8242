"""MUG fine-tuning on labelled corpora: stages, metrics, reports."""

import preprocessing  # noqa: F401 - Ctrl-C while heavy libraries are imported is one line
