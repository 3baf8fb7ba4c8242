"""MUG fine-tuning on labelled corpora: stages, metrics, reports."""
