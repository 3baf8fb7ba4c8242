"""Tiny random language models of many families, each a Hugging Face folder with a fast tokenizer of the family's kind."""

from pathlib import Path

from synthetic_pretraining import SENTIMENT, WORDS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

TEXTS = [" ".join([*WORDS, *SENTIMENT]), "a really great film, I think", "the food was awful and the phone dull"]
VOCABULARY = 330
POSITIONS = 24  # what a text may be long
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
BERT_NAMES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_NAMES = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
BEHIND_PADDING = ("roberta", "mpnet", "xlm-roberta")
MASKED = ("bert", "roberta", "mpnet", "deberta-v2", "xlm-roberta", "modernbert")
DECODERS = ("llama", "gpt2")
FAMILIES = (*MASKED, *DECODERS)


def make_config(family: str):
    """The family's config, without what a hub's folder often lacks too (a decoder's padding)."""
    plain, shifted = {**SHAPE, "max_position_embeddings": POSITIONS}, {**SHAPE, "max_position_embeddings": POSITIONS + 2}
    own = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return {
        "bert": lambda: BertConfig(**plain),
        "roberta": lambda: RobertaConfig(**shifted, type_vocab_size=1, **own),
        "mpnet": lambda: MPNetConfig(**shifted, **own),
        "xlm-roberta": lambda: XLMRobertaConfig(**shifted, type_vocab_size=1, **own),
        "deberta-v2": lambda: DebertaV2Config(**plain, relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False),
        "modernbert": lambda: ModernBertConfig(
            **plain, local_attention=8, global_attn_every_n_layers=2, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2,
            eos_token_id=3,
        ),
        "llama": lambda: LlamaConfig(**plain, num_key_value_heads=1, bos_token_id=0, eos_token_id=1),
        "gpt2": lambda: GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=POSITIONS, bos_token_id=0, eos_token_id=0
        ),
    }[family]()  # fmt: skip


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Word pieces, byte-level pairs or unigrams as the family has them; no `model_max_length`, and for decoders no padding token."""
    names = BERT_NAMES if family in ("bert", "deberta-v2", "modernbert") else ROBERTA_NAMES
    if family == "llama":
        names = {"bos": "<s>", "eos": "</s>"}
    elif family == "gpt2":
        names = {"eos": "<|endoftext|>"}
    special = list(names.values())
    options = {"vocab_size": VOCABULARY, "special_tokens": special, "show_progress": False}
    if family == "bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**options)
    elif family in ("xlm-roberta", "deberta-v2"):
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token=names["unk"], **options)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    tokenizer.train_from_iterator(TEXTS, trainer)
    first, last = names.get("cls", names.get("bos")), names.get("sep", names.get("eos") if family != "llama" else None)
    if first is not None:
        template = f"{first} $A {last}" if last else f"{first} $A"
        ids = [(name, tokenizer.token_to_id(name)) for name in (first, last) if name]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{f"{kind}_token": name for kind, name in names.items()})


def write_family(folder: Path, family: str) -> Path:
    """A random model of the family with its tokenizer."""
    import torch

    torch.manual_seed(7)
    make_tokenizer(family).save_pretrained(folder)
    model = AutoModel.from_config(make_config(family))
    for parameter in model.parameters():  # not the neutral start
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder
