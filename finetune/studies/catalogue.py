"""The studies by the names that the command takes."""

from finetune.studies import ablation
from finetune.studies.frame import Study

STUDIES: dict[str, Study] = {
    "ablation": ablation.STUDY,
}
