"""Labelled corpora: pickles of several toolkits, computational sequences and utterance datasets, read into one form and checked."""

from finetune.corpora.loading import load_corpus
from finetune.corpora.splits import DATASETS, LABEL_RANGES, Finding, LabelledCorpus, LabelledSplit, carve_by_video

__all__ = ["DATASETS", "LABEL_RANGES", "Finding", "LabelledCorpus", "LabelledSplit", "carve_by_video", "load_corpus"]
