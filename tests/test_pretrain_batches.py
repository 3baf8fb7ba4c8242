"""Whole-word masking by character spans, truncation, padding, batches of similar length and the cache of text states."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pretrain.batches import LengthBucketSampler, MaskedCollator, MaskedSample, pad_frames, pad_text_states, real_frames
from pretrain.encoder import SkeslConfig, SkeslModel
from pretrain.text_states import TextStateCache
from pretrain.tokens import MaskedText, tokenise, tokenise_masked

SENTENCES = [
    "I think the movie was unbelievable and good",
    "the food is not good but the waiter is wonderful",
    "a terrible phone , broken screen and awful sound",
    "what a wonderful hotel we had a lovely time",
]


def make_tokenizer(kind):
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    elif kind == "bytes":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=290,
            special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=70, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.train_from_iterator(SENTENCES, trainer)
    ids = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=list(ids.items()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


TOKENIZERS = {kind: make_tokenizer(kind) for kind in ("wordpiece", "bytes", "metaspace")}
WORDS = ["movie", "unbelievable", "good", "the", "wonderful", "hotel", "ill-mannered", "naïve"]


def words_with_spans(words):
    text, spans = "", []
    for word in words:
        start = len(text) + bool(text)
        text = f"{text} {word}" if text else word
        spans.append((start, start + len(word)))
    return text, spans


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(TOKENIZERS)),
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=14),
    place=st.integers(0, 99),
    limit=st.one_of(st.none(), st.integers(14, 30)),
    one_token=st.booleans(),
)
def test_exactly_the_pieces_of_the_word_are_masked(kind, words, place, limit, one_token):
    tokenizer = TOKENIZERS[kind]
    text, spans = words_with_spans(words)
    span = spans[place % len(words)]
    masked = tokenise_masked([text], [[span]], tokenizer, limit, one_token)[0]
    pieces = [i for i, (a, b) in enumerate(tokenizer(text, return_offsets_mapping=True)["offset_mapping"]) if a < span[1] and b > span[0]]
    if masked is None:  # only where the word itself does not fit
        assert limit is not None
        assert len(pieces) > limit - 2
        return
    positions = masked.positions[0]
    assert limit is None or len(masked.token_ids) <= limit
    assert masked.token_ids[0] == tokenizer.cls_token_id
    assert masked.token_ids[-1] == tokenizer.sep_token_id
    assert [i for i, token in enumerate(masked.token_ids) if token == tokenizer.mask_token_id] == list(positions)
    plain = tokenizer(text)["input_ids"]
    assert len(positions) == (1 if one_token else len(pieces))
    if limit is None:  # all the rest is as it was, before the word and after it
        assert masked.token_ids[: pieces[0]] == plain[: pieces[0]]
        assert masked.token_ids[positions[-1] + 1 :] == plain[pieces[-1] + 1 :]
    else:  # what is left is a stretch of the text, as long as the limit admits
        whole = tokenise_masked([text], [[span]], tokenizer, None, one_token)[0].token_ids
        inner = masked.token_ids[1:-1]
        assert any(whole[a : a + len(inner)] == inner for a in range(1, len(whole)))
        assert len(masked.token_ids) == min(limit, len(whole))


def test_a_word_in_the_first_tokens_keeps_the_beginning():
    tokenizer = TOKENIZERS["wordpiece"]
    text = " ".join(["good", *["the"] * 50])
    masked = tokenise_masked([text], [[(0, 4)]], tokenizer, 12)[0]
    assert masked.positions[0][0] == 1
    late = " ".join([*["the"] * 50, "good"])
    masked = tokenise_masked([late], [[(200, 204)]], tokenizer, 12)[0]
    assert masked.positions[0][-1] == 10


def test_several_masks_phrases_and_spans_that_cover_nothing():
    tokenizer = TOKENIZERS["wordpiece"]
    text, spans = words_with_spans(["the", "hotel", "was", "good"])
    masked = tokenise_masked([text], [[spans[3], (spans[0][0], spans[1][1])]], tokenizer)[0]
    flat = [place for word in masked.positions for place in word]
    assert len(masked.positions) == 2
    assert [i for i, t in enumerate(masked.token_ids) if t == tokenizer.mask_token_id] == sorted(flat)
    assert tokenise_masked([text, "", text], [[(3, 4)], [(0, 0)], []], tokenizer) == [None, None, None]


def test_tokenise_cuts_at_the_limit_with_the_special_tokens():
    tokenizer = TOKENIZERS["bytes"]
    texts = [*SENTENCES, ""]
    assert tokenise(texts, tokenizer, 8) == [
        row if len(row) <= 8 else [*row[:7], tokenizer.sep_token_id] for row in tokenizer(texts)["input_ids"]
    ]
    assert tokenise(texts, tokenizer) == tokenizer(texts)["input_ids"]


def test_padding_and_absent_features():
    rows = [np.ones((2, 3)), None, np.zeros((0, 3)), np.array([[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]], np.float16)]
    padded, mask = pad_frames(rows)
    assert padded.shape == (4, 3, 3)
    assert padded.dtype == torch.float32
    assert mask.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]]
    assert torch.isfinite(padded).all()
    assert pad_frames([None, None]) == (None, None)


def test_frames_without_a_face_or_with_nan_are_left_out():
    features = np.arange(8.0).reshape(4, 2)
    features[1, 0] = np.inf
    np.testing.assert_array_equal(real_frames(features, np.array([True, True, False, True])), features[[0, 3]])
    np.testing.assert_array_equal(real_frames(features, None, 2), features[[0, 2]])
    assert real_frames(features, np.zeros(4, bool)) is None
    assert real_frames(None) is None


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=300),
    batch_size=st.integers(1, 40),
    processes=st.integers(1, 4),
    seed=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_every_sample_comes_once_and_all_processes_do_the_same_number_of_steps(lengths, batch_size, processes, seed, shuffle):
    if len(lengths) < processes:
        return
    sampler = LengthBucketSampler(lengths, batch_size, seed, shuffle, processes)
    batches = list(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert len(batches) % processes == 0
    assert all(batches)
    assert max(map(len, batches)) <= batch_size + 1
    one = LengthBucketSampler(lengths, batch_size * processes, seed, shuffle, 1)
    steps = [sorted(chain.from_iterable(batches[a : a + processes])) for a in range(0, len(batches), processes)]
    if len(steps) == len(one):
        assert [sorted(batch) for batch in one] == steps


def test_batches_depend_on_seed_and_epoch_alone_and_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 400, 2000)
    sampler = LengthBucketSampler(lengths, 16, seed=3)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    waste = sum(len(batch) * max(lengths[batch]) for batch in first) / lengths.sum()
    assert waste < 1.1
    assert [len(set(map(tuple, first)))] == [len(first)]


def sample(index, tokens, audio=None, states=None):
    text = MaskedText(list(range(tokens)), ((1, 2),) if index % 2 else ((0,),))
    return MaskedSample(index, text, (0.5 * index,), audio, None, states)


def test_the_collator():
    batch = MaskedCollator(9)([sample(0, 3), sample(1, 5, np.ones((4, 2)))])
    assert batch["input_ids"].tolist() == [[0, 1, 2, 9, 9], [0, 1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["mask_positions"].tolist() == [[[0, -1]], [[1, 2]]]
    assert batch["labels"].tolist() == [[0.0], [0.5]]
    assert batch["audio_mask"].tolist() == [[0] * 4, [1] * 4]
    assert batch["vision"] is None
    assert batch["text_states"] is None
    cached = MaskedCollator(9)([sample(0, 3, states=torch.ones(3, 4)), sample(1, 5, states=torch.ones(5, 4))])
    assert cached["text_states"].shape == (2, 5, 4)
    assert cached["input_ids"] is None


def small_model(seed=0):
    torch.manual_seed(seed)
    text = {"model_type": "bert", "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return SkeslModel(SkeslConfig({**text, "intermediate_size": 16}, 5, 7, attention_dim=8, num_blocks=1))


def test_the_cache_equals_the_text_encoder_and_is_made_again_when_anything_differs(tmp_path):
    model = small_model().train()
    lists = tokenise(SENTENCES, TOKENIZERS["bytes"], 20)
    cache = TextStateCache.build(model, lists, tmp_path / "cache", batch_size=3, progress=False)
    assert model.text_model.training
    model.eval()
    for place, row in enumerate(lists):
        expected = model.text_states(torch.tensor([row]))[0]
        torch.testing.assert_close(cache[place], expected, atol=3e-3, rtol=2e-3)
        assert cache[place].dtype == torch.float32
    assert len(cache) == len(lists)
    assert pad_text_states([cache[0], cache[1]]).shape[0] == 2
    written = (tmp_path / "cache" / "states.npy").stat().st_mtime_ns
    TextStateCache.build(model, lists, tmp_path / "cache", progress=False)
    assert (tmp_path / "cache" / "states.npy").stat().st_mtime_ns == written
    before = cache[0].clone()
    other = TextStateCache.build(small_model(1), lists, tmp_path / "cache", progress=False)
    assert not torch.equal(other[0], before)
    shorter = TextStateCache.build(small_model(1), lists[:2], tmp_path / "cache", progress=False)
    assert len(shorter) == 2
    with pytest.raises(IndexError):
        shorter[2]
    pieces = [[2], [3, 1], *([0] for _ in lists[2:])]
    few = TextStateCache.build(model, lists, tmp_path / "cache", progress=False, positions=pieces)
    assert few.offsets[-1] == len(lists) + 1
    expected = model.text_states(torch.tensor([lists[1]]))[0, [3, 1]]
    torch.testing.assert_close(few[1], expected, atol=3e-3, rtol=2e-3)
    assert MaskedText([9] * 8, ((4, 5), (2,))).pieces == [4, 5, 2]
    assert MaskedText([9] * 8, ((4, 5), (2,))).masked_words_only().positions == ((0, 1), (2,))
