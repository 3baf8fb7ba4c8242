"""Extension points of fine-tuning: label generators, alignments, studies (docs/extending.md)."""

from skesl_mug.registry import Registry

GENERATORS = Registry("label generator", "--labels")
ALIGNMENTS = Registry("alignment", "--training.alignment.by")
STUDIES = Registry("study", "skesl-mug study")

register_generator = GENERATORS.register
register_alignment = ALIGNMENTS.register
register_study = STUDIES.register
