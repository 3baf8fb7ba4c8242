"""The studies by the names that the command takes."""

from finetune.studies import ablation, data_size, interaction, label_ambiguity, label_noise, label_quality, label_source, missing_modality
from finetune.studies.frame import Study

STUDIES: dict[str, Study] = {
    "ablation": ablation.STUDY,
    "label_source": label_source.STUDY,
    "label_quality": label_quality.STUDY,
    "label_noise": label_noise.STUDY,
    "label_ambiguity": label_ambiguity.STUDY,
    "missing_modality": missing_modality.STUDY,
    "data_size": data_size.STUDY,
    "interaction": interaction.STUDY,
}
