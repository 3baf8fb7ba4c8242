"""Names of special tokens in a transcript are ordinary text, for tokenizers of every family; the mask is put in by position."""

import random

import pytest
from synthetic_pretraining import SENTIMENT, WORDS
from synthetic_text_models import FAMILIES, MASKED, make_tokenizer

from pretrain.text_models import load_tokenizer
from pretrain.tokens import tokenise, tokenise_masked

NAMES = ("[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "<s>", "</s>", "<unk>", "<mask>", "<pad>", "<|endoftext|>", "[unused1]")
TEXTS = (
    [f"a good {name} film" for name in NAMES]
    + [f"good{name}{name} film" for name in NAMES]
    + [*NAMES, "＜ｓ＞ film", "<s><s></s>[MASK]<mask>"]
)

DRAW = random.Random(0)
FORMS = ("{}.", "{}!", '"{}," she said', "Well, {} (really)")
ORDINARY = [DRAW.choice(FORMS).format(" ".join(DRAW.choices([*WORDS, *SENTIMENT], k=9))) for _ in range(300)]
ORDINARY += ["<3 a great film [laughs] <b>bold</b> 50 % | é 你好", "{laugh} (umm) I don't [inaudible] know"]


def content(row, tokenizer):
    """The ids of a text without the special tokens that were added around it."""
    added = tokenizer("")["input_ids"]
    return row[len(added[:1]) : len(row) - len(added[1:])]


@pytest.fixture(scope="module")
def tokenizers():
    return {family: make_tokenizer(family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_special_token_is_read_from_a_text(tokenizers, family):
    tokenizer = tokenizers[family]
    never = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for text, row in zip(TEXTS, tokenise(TEXTS, tokenizer), strict=True):
        assert not never & set(content(row, tokenizer)), text


@pytest.mark.parametrize("family", ["xlm-roberta", "deberta-v2"])
def test_the_name_of_the_unknown_token_is_spelled_out(tokenizers, family):
    tokenizer = tokenizers[family]
    rows = tokenise([f"film {tokenizer.unk_token}", f"film  {tokenizer.unk_token[1:-1]} "], tokenizer)
    assert rows[0] == rows[1]


@pytest.mark.parametrize("family", MASKED)
def test_a_masked_word_beside_a_literal_mask_is_the_only_mask(tokenizers, family):
    tokenizer = tokenizers[family]
    text = f"{tokenizer.mask_token} the good {tokenizer.mask_token} film"
    start = text.index("good")
    found = tokenise_masked([text], [[(start, start + 4)]], tokenizer)[0]
    masks = [place for place, token in enumerate(found.token_ids) if token == tokenizer.mask_token_id]
    assert masks == found.pieces
    whole = tokenise([text], tokenizer)[0]
    assert [token for place, token in enumerate(whole) if place not in masks] == [
        t for p, t in enumerate(found.token_ids) if p not in masks
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_texts_have_the_same_ids_as_ever(tokenizers, family):
    tokenizer = tokenizers[family]
    assert tokenise(ORDINARY, tokenizer) == tokenizer(ORDINARY)["input_ids"]


def test_the_real_bert_spells_names_out_and_keeps_ordinary_ids():
    tokenizer = load_tokenizer("embedded")
    assert tokenizer.convert_ids_to_tokens(tokenise(["a [MASK] [CLS]"], tokenizer)[0])[1:-1] == [
        "a",
        "[",
        "mask",
        "]",
        "[",
        "cl",
        "##s",
        "]",
    ]
    assert tokenise(ORDINARY, tokenizer) == tokenizer(ORDINARY)["input_ids"]
