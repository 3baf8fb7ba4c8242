"""What the rows of a run are called, alike in its progress lines, its table on the terminal and its report."""

CONTROL_NAMES = {
    "constant": "Constant",
    "text_only": "Text only",
    "audio_only": "Audio only",
    "vision_only": "Vision only",
    "no_pretraining": "Without pretraining",
    "no_unimodal_tasks": "Without unimodal tasks",
    "permuted_audio_vision": "Audio and vision permuted at test",
    "shuffled_audio_vision": "Audio and vision permuted",
    "labels_none": "Without unimodal tasks",
    "labels_copy": "Labels: y copied",
    "labels_human": "Labels: the known ones (human)",
    "labels_regressor": "Labels: regressor",
    "labels_ulgm": "Labels: ULGM (Self-MM)",
    "labels_mucn_meta": "Labels: mucn-meta (bi-level)",
    "labels_meta_weight_net": "Labels: Meta-Weight-Net",
    "labels_mlc": "Labels: MLC",
    "labels_mucn_crossfit": "Labels: mucn-crossfit",
}


def model_name(headline: str) -> str:
    """The name of the model whose labels come from `headline`."""
    return "Without unimodal tasks" if headline == "none" else f"MUG ({headline})"


def humanise(name: str) -> str:
    """A control's name in words; unknown ones as they are spelt, without underscores."""
    words = name.replace("_", " ")
    return CONTROL_NAMES.get(name, words[:1].upper() + words[1:])


def variant_name(variant: str, headline: str) -> str:
    """A trained model by its variant's name: the run's own, or what its row is called."""
    if variant == headline:
        return model_name(headline)
    return humanise(variant if variant in CONTROL_NAMES else f"labels_{variant.replace('-', '_')}")
