"""Token ids of texts: special tokens are added around a text and never read from it, and words are masked by their character spans."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TOKENISER_CHUNK = 1024


@dataclass(frozen=True)
class MaskedText:
    """A tokenised text with masked words: token ids with special tokens, and the positions of each masked word's pieces."""

    token_ids: list[int]
    positions: tuple[tuple[int, ...], ...]

    @property
    def pieces(self) -> list[int]:
        """Positions of all masked pieces, word by word."""
        return [piece for word in self.positions for piece in word]

    def masked_words_only(self) -> "MaskedText":
        """The text reduced to its masked pieces, for a sample whose cached states are those of `pieces` only."""
        ends = np.cumsum([len(word) for word in self.positions]).tolist()
        return MaskedText([], tuple(tuple(range(end - len(word), end)) for word, end in zip(self.positions, ends, strict=True)))


def tokenise(texts: Sequence[str], tokenizer: Any, max_tokens: int | None = None) -> list[list[int]]:
    """Token ids of each text with special tokens, cut at `max_tokens` (special tokens included; None: the limit of the model).

    An empty text consists of special tokens, at least one, so that every text has a state.
    """
    limit = token_limit(tokenizer, max_tokens)
    filler = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None][:1]
    return [_cut(encoded, limit) or filler for encoded in _encode(texts, tokenizer)]


def tokenise_with_offsets(texts: Sequence[str], tokenizer: Any, max_tokens: int | None = None) -> list[list[tuple[int, int, int]]]:
    """As `tokenise`, each token with the characters that it stands for: (id, start, end), where start equals end for special tokens."""
    limit = token_limit(tokenizer, max_tokens)
    rows = []
    for encoded in _encode(texts, tokenizer):
        spans = [(0, 0) if flag else span for span, flag in zip(encoded.offsets, encoded.special, strict=True)]
        head, first, last, tail = _window(encoded, limit)
        kept = [*range(head), *range(first, last), *range(tail, len(encoded.ids))]
        rows.append([(encoded.ids[place], *spans[place]) for place in kept])
    return [row or [(token, 0, 0) for token in tokenise([""], tokenizer)[0]] for row in rows]


def text_tokens(texts: Sequence[str], tokenizer: Any) -> tuple[list[list[int]], int]:
    """Token ids of each complete text without special tokens, and the number of special tokens that the tokenizer puts before a text."""
    rows, before = [], 0
    for encoded in _encode(texts, tokenizer):
        head, first, last, _ = _window(encoded, None)
        rows.append(encoded.ids[first:last])
        before = head if rows[-1] else before
    return rows, before


def token_counts(texts: Sequence[str], tokenizer: Any) -> list[int]:
    """Tokens of each complete text, special tokens included, whatever the limit of the model."""
    return [len(encoded.ids) for encoded in _encode(texts, tokenizer)]


def tokenise_masked(
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    tokenizer: Any,
    max_tokens: int | None = None,
    one_token: bool = False,
) -> list[MaskedText | None]:
    """Tokenise texts with whole words masked.

    Args:
        texts: transcripts.
        spans: for each text, the character spans `(start, end)` of the words to mask, without overlap.
        tokenizer: a fast tokenizer with a mask token.
        max_tokens: maximum length, special tokens included; the text is cut around the first masked word.
        one_token: replace each word by one mask token instead of one per piece.

    Returns:
        For each text a `MaskedText` (a word that was cut off has no positions), or None if a span covers no token or the first word is
        longer than the limit.
    """
    limit = token_limit(tokenizer, max_tokens)
    encodings = _encode(texts, tokenizer)
    return [_mask_words(encoded, row, tokenizer.mask_token_id, limit, one_token) for encoded, row in zip(encodings, spans, strict=True)]


def token_limit(tokenizer: Any, max_tokens: int | None) -> int | None:
    """The smaller of `max_tokens` and the tokenizer's own limit; None if neither is set."""
    own = tokenizer.model_max_length
    known = [limit for limit in (max_tokens, own if own < 1_000_000 else None) if limit is not None]
    return min(known) if known else None


@dataclass
class _Encoded:
    ids: list[int]
    offsets: list[tuple[int, int]]
    special: list[int]


def _encode(texts: Sequence[str], tokenizer: Any) -> Iterator[_Encoded]:
    special = {token: tokenizer.convert_ids_to_tokens(token) for token in tokenizer.all_special_ids}
    special |= {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    for start in range(0, len(texts), TOKENISER_CHUNK):
        chunk = list(texts[start : start + TOKENISER_CHUNK])
        for text, encoded in zip(chunk, _call(chunk, tokenizer), strict=True):
            while (plain := _without_literals(text, encoded, special, tokenizer.unk_token_id)) != text:
                text = plain
                encoded = next(_call([text], tokenizer))
            yield encoded


def _call(texts: list[str], tokenizer: Any) -> Iterator[_Encoded]:
    batch = tokenizer(
        texts,
        add_special_tokens=True,
        split_special_tokens=True,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    for ids, offsets, special in zip(batch["input_ids"], batch["offset_mapping"], batch["special_tokens_mask"], strict=True):
        yield _Encoded(list(ids), [(int(a), int(b)) for a, b in offsets], list(special))


def _without_literals(text: str, encoded: _Encoded, special: Mapping[int, str], unknown: int | None) -> str:
    """The text, in which spaces replace the brackets of what was still read as a special token; no character changes its place.

    `split_special_tokens` is not enough where special tokens are also pieces of the vocabulary (SentencePiece: XLM-R, DeBERTa). The
    unknown token also stands for ordinary characters, so it counts only where its own name is written.
    """
    tokens = zip(encoded.ids, encoded.offsets, encoded.special, strict=True)
    read = [(token, *place) for token, place, added in tokens if token in special and not added]
    if not read:
        return text
    characters = list(text)
    for token, start, end in read:
        spans = [(start, end)]
        if token == unknown:
            spans = [found.span() for found in re.compile(re.escape(special[token])).finditer(text, start, end)]
        for a, b in spans:
            if a < b:
                characters[a] = characters[b - 1] = " "
    return "".join(characters)


def _window(encoded: _Encoded, limit: int | None, keep: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
    """The tokens to keep: `ids[:head] + ids[first:last] + ids[tail:]`, where head and tail delimit the special tokens around the text.

    The kept part starts with the text, unless the tokens `keep` are beyond the limit; it is then centred on them.
    """
    inner = [place for place, flag in enumerate(encoded.special) if not flag]
    head, tail = (inner[0], inner[-1] + 1) if inner else (len(encoded.ids), len(encoded.ids))
    specials = len(encoded.ids) - (tail - head)
    room = tail - head if limit is None else max(0, min(tail - head, limit - specials))
    first = head
    if keep is not None and keep[1] > head + room:
        first = min(max(head, (keep[0] + keep[1] - room) // 2), tail - room)
    return head, first, first + room, tail


def _cut(encoded: _Encoded, limit: int | None) -> list[int]:
    head, first, last, tail = _window(encoded, limit)
    return encoded.ids[:head] + encoded.ids[first:last] + encoded.ids[tail:]


def _mask_words(encoded: _Encoded, spans: Sequence[tuple[int, int]], mask_id: int, limit: int | None, one_token: bool) -> MaskedText | None:
    words = []
    for start, end in spans:
        pieces = [place for place, (a, b) in enumerate(encoded.offsets) if a < end and b > start and b > a and not encoded.special[place]]
        if not pieces:
            return None
        words.append((pieces[0], pieces[-1] + 1))
    if not words:
        return None
    if one_token:
        encoded, words = _join_pieces(encoded, words)
    head, first, last, tail = _window(encoded, limit, words[0])
    if words[0][0] < first or words[0][1] > last:
        return None
    ids = list(encoded.ids)
    for a, b in words:
        ids[a:b] = [mask_id] * (b - a)
    ids = ids[:head] + ids[first:last] + ids[tail:]
    shift = head - first
    # other masked words may have lost some of their pieces
    kept = (range(max(a, first) + shift, min(b, last) + shift) for a, b in words)
    return MaskedText(ids, tuple(tuple(pieces) for pieces in kept))


def _join_pieces(encoded: _Encoded, words: list[tuple[int, int]]) -> tuple[_Encoded, list[tuple[int, int]]]:
    """Reduce every masked word to its first piece."""
    dropped = {place for a, b in words for place in range(a + 1, b)}
    stay = [place for place in range(len(encoded.ids)) if place not in dropped]
    new_place = {place: new for new, place in enumerate(stay)}
    joined = _Encoded(*([column[place] for place in stay] for column in (encoded.ids, encoded.offsets, encoded.special)))  # type: ignore[arg-type]
    return joined, [(new_place[a], new_place[a] + 1) for a, _ in words]
