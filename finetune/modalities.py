"""The modalities and what the corpora call them."""

TEXT, AUDIO, VISION = "text", "audio", "vision"
MODALITIES = (TEXT, AUDIO, VISION)
FUSED = "fused"
"""The multimodal task, beside the three unimodal ones."""
LETTERS = {FUSED: "M", TEXT: "T", AUDIO: "A", VISION: "V"}
HUMAN_LABELS = {TEXT: "label_T", AUDIO: "label_A", VISION: "label_V"}
"""The corpora's names of the annotators' unimodal labels."""
