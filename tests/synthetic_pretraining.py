"""A synthetic utterance dataset (voice and face carry the intensity, the text does not) and a tiny text model, for pretraining tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from preprocessing.schema import DatasetInfo, FeatureInfo, Mask, Utterance
from preprocessing.store import write_dataset
from pretrain.options import EncoderShape, PretrainOptions

WORDS = ["the", "a", "film", "food", "phone", "hotel", "was", "is", "really", "quite", "and", "i", "think", "that"]
SENTIMENT = ["great", "awful", "nice", "poor", "lovely", "horrid", "fine", "dull"]


def write_text_model(folder: Path, hidden: int = 16) -> Path:
    """A random BERT of one layer with a word-piece vocabulary, saved as a Hugging Face folder."""
    import torch

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *SENTIMENT, "hor", "##rid"]
    tokenizer = Tokenizer(models.WordPiece({name: place for place, name in enumerate(names) if name != "horrid"}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(vocab_size=len(names), hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2 * hidden)
    BertModel(config).save_pretrained(folder)
    return folder


def made_utterances(count: int = 60, speakers: int = 6, audio: int = 33, vision: int = 8, seconds: float = 1.0, seed: int = 0):
    """Utterances whose masked word's intensity is a shift of some audio and vision columns."""
    generator = np.random.default_rng(seed)
    for place in range(count):
        words = [*generator.choice(WORDS, generator.integers(2, 7)), str(generator.choice(SENTIMENT)), "film"]
        text = " ".join(words)
        start = len(" ".join(words[:-2])) + 1
        intensity = float(np.round(generator.uniform(-3, 3), 2))
        length = seconds * generator.uniform(0.6, 1.4)
        sound = generator.normal(size=(round(length * 43), max(audio, 1))) * 2 + 1
        sound[:, : max(1, audio // 4)] += intensity
        face = generator.normal(size=(round(length * 12), max(vision, 1)))
        face[:, : max(1, vision // 4)] += intensity
        valid = generator.random(len(face)) > 0.1
        yield Utterance(
            id=f"u{place:04d}",
            video_id=f"v{place % (3 * speakers)}",
            speaker=f"s{place % speakers}",
            start=0.0,
            end=length,
            language="en",
            text=text,
            masks=[Mask(start, start + len(words[-2]), intensity)],
            audio=sound if audio and place % 10 != 3 else None,
            vision=face if vision and place % 10 != 7 else None,
            vision_valid=valid if vision and place % 10 != 7 else None,
        )


def feature_info(width: int, rate: float) -> FeatureInfo | None:
    """Columns without a meaning."""
    return FeatureInfo("made", rate, [{"name": f"c{n}", "unit": ""} for n in range(width)]) if width else None


def write_made_dataset(folder: Path, audio: int = 33, vision: int = 8, **options) -> Path:
    """Write the synthetic utterances as a dataset."""
    info = DatasetInfo(
        corpus={"name": "made", "root": "", "made": True}, audio=feature_info(audio, 43.0), vision=feature_info(vision, 12.0)
    )
    write_dataset(folder, made_utterances(audio=audio, vision=vision, **options), info)
    return folder


def options_of(made: tuple[Path, Path], output: Path, **changes) -> PretrainOptions:
    """A short run on (dataset, text model)."""
    data, lm = made
    plain = PretrainOptions(
        data=[str(data)],
        lm=str(lm),
        output=output,
        epochs=3,
        batch_size=8,
        lr=3e-3,
        valid_share=0.2,
        encoder=EncoderShape(attention_dim=16, num_blocks=1),
    )
    return replace(plain, **changes)
