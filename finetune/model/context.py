"""Earlier utterances as tokens before an utterance's own: `[CLS] earlier [SEP] earlier [SEP] own [SEP]`.

The language model reads all of them; of its states only those of the utterance's own tokens, of the tokenizer's first token and of its
closing one are used, by the text network, the pooling and the cross-modal blocks (which treat each token by itself, so that further
queries would change nothing). Segment ids are 0 throughout, as in pretraining.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.tokens import text_tokens, token_limit


@dataclass
class TokenContext:
    """The tokens of the earlier utterances of each sample, with a separator behind each; they stand behind the first `head` tokens."""

    rows: list[list[int]]
    head: int

    def sequence(self, row: int, own: Sequence[int]) -> list[int]:
        """All tokens that the language model reads."""
        return [*own[: self.head], *self.rows[row], *own[self.head :]]

    def own_places(self, row: int, own: Sequence[int]) -> list[int]:
        """The places of the own tokens in `sequence`."""
        shift = len(self.rows[row])
        return [place if place < self.head else place + shift for place in range(len(own))]

    def dropped(self, rates: np.ndarray, random: np.random.Generator, own: Sequence[Sequence[int]]) -> "TokenContext":
        """Without a random share `rates[i]` of the tokens of sample i; without any where its `own` are special tokens alone."""
        kept = [
            [token for token, chance in zip(row, random.random(len(row)), strict=True) if chance >= rate]
            for row, rate in zip(self.rows, rates, strict=True)
        ]
        return TokenContext([row if len(left) > 2 else [] for row, left in zip(kept, own, strict=True)], self.head)

    def select(self, rows: Sequence[int]) -> "TokenContext":
        """The context of some samples."""
        return TokenContext([self.rows[row] for row in rows], self.head)


def token_context(
    earlier: Sequence[Sequence[str]], own: Sequence[Sequence[int]], tokenizer: Any, max_tokens: int, count: int
) -> TokenContext:
    """Tokenise the earlier transcripts of each sample.

    They are separated by the tokenizer's separator, or else its end token (nothing if it has neither), and cut from the oldest end so that
    the sequence has at most `max_tokens * (1 + count)` tokens and no more than the language model has positions.

    Args:
        earlier: up to `count` transcripts per sample, oldest first.
        own: the tokens of each sample, with special tokens.
        tokenizer: a fast tokenizer.
        max_tokens: maximum number of own tokens.
        count: maximum number of earlier transcripts.
    """
    separator = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    ending = [] if separator is None else [separator]
    texts = list(dict.fromkeys(text for row in earlier for text in row))
    ids, head = text_tokens(texts, tokenizer)
    known = dict(zip(texts, ids, strict=True))
    limit = token_limit(tokenizer, max_tokens * (1 + count))
    assert limit is not None
    rows = []
    for before, tokens in zip(earlier, own, strict=True):
        found: list[int] = []
        for text in reversed(before):
            room = limit - len(tokens) - len(found) - len(ending)
            if room <= 0:
                break
            found = [*known[text][-room:], *ending, *found]
        rows.append(found)
    return TokenContext(rows, head)


def pad_places(rows: Sequence[Sequence[int]]) -> Tensor:
    """Places of tokens as [B, L], padded with -1."""
    padded = torch.full((len(rows), max(map(len, rows), default=0)), -1, dtype=torch.long)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded


def pick_states(states: Tensor, places: Tensor) -> Tensor:
    """The states [B, L', D] of the tokens at `places` [B, L'] of [B, L, D]; those at -1 are undefined."""
    picked: Tensor = states.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, states.shape[-1]))
    return picked
