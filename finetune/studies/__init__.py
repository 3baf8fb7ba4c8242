"""Studies: each answers one question by training a few settings over several seeds: `python -m finetune.studies NAME --help`."""

QUESTIONS = {
    "ablation": "Which component carries the result: pretraining, alignment, learned labels, unimodal tasks, audio, vision, text?",
    "label_source": "Which generator of unimodal labels is worth its cost, and is the meta step?",
    "label_quality": "Do better unimodal labels make a better model, and how strongly?",
    "label_noise": "How robust are the label generators to corrupted multimodal labels in training?",
    "label_ambiguity": "Are utterances whose modalities disagree harder, and do unimodal labels help there?",
    "missing_modality": "How far does the result drop where frames and words, or whole modalities, are missing?",
    "data_size": "How does the result grow with the number of labelled utterances, and what does pretraining add at each size?",
    "interaction": "What do the modalities say about the label together, alone and only in combination, and what can fusion gain?",
}
"""The built-in studies. The texts are here so that listing them imports none of the studies."""
