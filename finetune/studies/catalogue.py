"""The studies by the names that the command takes."""

from finetune.studies import ablation, label_quality
from finetune.studies.frame import Study

STUDIES: dict[str, Study] = {
    "ablation": ablation.STUDY,
    "label_quality": label_quality.STUDY,
}
