"""Extension points of fine-tuning: label generators, alignments, studies (docs/extending.md)."""

from skesl_mug.registry import Registry

GENERATORS = Registry("label generator", "--labels")
ALIGNMENTS = Registry("alignment", "--training.alignment.by")
STUDIES = Registry(
    "study",
    "study",
    {
        "ablation": "finetune.studies.ablation:Ablation",
        "label_source": "finetune.studies.label_source:LabelSource",
        "label_quality": "finetune.studies.label_quality:LabelQuality",
        "label_noise": "finetune.studies.label_noise:LabelNoise",
        "label_ambiguity": "finetune.studies.label_noise:LabelAmbiguity",
        "missing_modality": "finetune.studies.missing_data:MissingModality",
        "data_size": "finetune.studies.missing_data:DataSize",
        "interaction": "finetune.studies.interaction:Interaction",
    },
)

register_generator = GENERATORS.register
register_alignment = ALIGNMENTS.register
register_study = STUDIES.register
