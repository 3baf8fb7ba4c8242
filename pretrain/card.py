"""The model card that lies beside the weights: what the encoder is, of which data it was made, and how well it did."""

from pathlib import Path
from typing import Any

from skesl_mug.files import write_atomically

PURPOSES = {
    "SKESL": "predict the sentiment intensity of masked words from text, voice and face",
    "rated sentences": "rate whole texts as people rated them",
    "teacher's scores": "give whole utterances the scores that a text model gives their transcripts",
}
"""What the rows of scores that are no controls stand for."""
NAMES = {"constant": "constant (train median)", "text_only": "text only", "shuffled_audio_vision": "audio and vision permuted"}


def write_card(
    folder: Path, data: dict[str, Any], text_model: dict[str, Any], scores: dict[str, dict[str, Any]], remarks: list[str]
) -> None:
    """Write `README.md` in the hub's form: a YAML head, then Markdown.

    Args:
        folder: of the model.
        data: `utterances`, `used`, `train`, `valid`, `made` and `sources`, as in `results.json`.
        text_model: `name` and `frozen`.
        scores: MAE and Corr by row name, on the validation part.
        remarks: sentences to stand under the table.
    """
    text = card_text(data, text_model, scores, remarks)
    write_atomically(folder / "README.md", lambda path: path.write_text(text, encoding="utf-8"))


def card_text(data: dict[str, Any], text_model: dict[str, Any], scores: dict[str, dict[str, Any]], remarks: list[str]) -> str:
    """The card's text; a folder of this machine is named by its last part alone."""
    name = Path(text_model["name"]).name if Path(text_model["name"]).is_absolute() else text_model["name"]
    rated = data.get("rated")
    purposes = [purpose for row, purpose in PURPOSES.items() if row in scores]
    lines = ["---", "library_name: transformers", "tags: [skesl, sentiment-analysis, multimodal]", "---", "", "# SKESL encoder", ""]
    lines += [
        f"Pretrained to {' and to '.join(purposes)}, around the text encoder `{name}` "
        f"({'frozen' if text_model['frozen'] else 'trained'}). Method: Qian and Han, Findings of ACL 2023.",
        "",
        "    from pretrain.encoder import load_encoder",
        "    encoder, notes = load_encoder(FOLDER_OR_NAME, audio_dim=33, vision_dim=709)",
        "",
        "## Data",
        "",
    ]
    if data["utterances"]:
        lines.append(
            f"{data['train']} utterances to train on, {data['valid']} to validate on, {data['utterances']} in all."
            + (" **Synthetic data: the scores say nothing about real people.**" if data["made"] else "")
        )
    if rated:
        lines += [""] if data["utterances"] else []
        lines.append(
            f"{rated['train']:,} rated sentences to train on, {rated['valid']:,} to validate on, held out by {rated['split_by']}; "
            f"source: {rated['source']}."
        )
    lines.append("")
    for source in data["sources"]:
        lexicon, asr = source.get("lexicon") or {}, source.get("asr") or {}
        facts = [f"corpus {source['corpus']}", f"lexicon {lexicon.get('name', 'unknown')} ({lexicon.get('licence', 'licence unknown')})"]
        facts += [f"speech recognition {asr['model']}"] if asr.get("model") else []
        facts += [f"{kind} {source[kind]['width']} columns by {source[kind]['extractor']}" for kind in ("audio", "vision") if source[kind]]
        lines.append(f"- {'; '.join(facts)}")
    lines += ["", "## Scores on the validation part", "", "| | MAE | Corr |", "|---|---|---|"]
    for row, score in scores.items():
        corr = score.get("Corr")
        lines.append(f"| {NAMES.get(row, row)} | {score['MAE']:.3f} | {'–' if corr is None else f'{corr:.3f}'} |")
    return "\n".join([*lines, "", *remarks, ""])
