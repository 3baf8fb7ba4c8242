"""The modalities, and their names in the corpora."""

TEXT, AUDIO, VISION = "text", "audio", "vision"
MODALITIES = (TEXT, AUDIO, VISION)
FUSED = "fused"
"""The multimodal task."""
LETTERS = {FUSED: "M", TEXT: "T", AUDIO: "A", VISION: "V"}
HUMAN_LABELS = {TEXT: "label_T", AUDIO: "label_A", VISION: "label_V"}
"""The corpora's names of human unimodal labels."""
