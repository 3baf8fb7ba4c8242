"""Batches: every utterance once per epoch, similar costs together, never the same batches twice; and the unpacked LSTM's numbers."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from finetune.corpora import LabelledSplit
from finetune.model.minibatches import PreparedSplit
from finetune.model.unimodal import FrameNetwork


def made(rows: int) -> PreparedSplit:
    rng = np.random.default_rng(0)
    ids = [str(row) for row in range(rows)]
    audio = [np.ones((length, 2), np.float32) for length in rng.integers(1, 300, rows)]
    tokens = [[2] * length for length in rng.integers(3, 50, rows)]
    split = LabelledSplit(ids, ids, np.zeros(rows, np.float32), text=["words"] * rows, audio=audio)
    return PreparedSplit(split, tokens, None, False, torch.zeros(rows), 0)


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (15, 16), (100, 7), (640, 16)])
def test_every_utterance_comes_once_per_epoch_in_different_batches(rows, size):
    data, random = made(rows), torch.Generator().manual_seed(1)
    first, second = list(data.batches(size, random)), list(data.batches(size, random))
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(rows))
        assert max(map(len, epoch)) <= size
        assert len(epoch) == -(-rows // size)
    if rows >= 100:
        assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    assert first == list(data.batches(size, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_the_permuted_control_gives_every_utterance_the_frames_of_another(rows):
    data = made(rows)
    for seed in range(10):
        permuted = data.with_permuted_frames(seed)
        donors = [next(i for i, own in enumerate(data.split.audio) if own is frames) for frames in permuted.split.audio]
        assert sorted(donors) == list(range(rows))
        assert rows == 1 or all(donor != row for row, donor in enumerate(donors))


def test_padding_costs_little():
    data = made(640)
    lengths = np.array([len(row) for row in data.tokens])
    padded = sum(len(batch) * lengths[batch].max() for batch in data.batches(16, torch.Generator().manual_seed(1)))
    plain = sum(len(batch) * lengths[batch].max() for batch in data.batches(16))
    assert padded < 1.15 * lengths.sum() < 1.6 * lengths.sum() < plain


def test_the_unpacked_lstm_equals_the_packed_one():
    torch.manual_seed(0)
    network = FrameNetwork(3, 8, "lstm", dropout=0.0)
    lengths = torch.tensor([7, 1, 4, 9])
    frames = torch.randn(4, 9, 3)
    mask = (torch.arange(9) < lengths.unsqueeze(1)).long()

    def packed() -> torch.Tensor:
        _, (last, _) = network.lstm(pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False))
        return network.layers(last[-1])

    results = []
    for forward in (packed, lambda: network(frames, mask)):
        network.zero_grad()
        values = forward()
        values.square().sum().backward()
        results.append([values, *(weight.grad.clone() for weight in network.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
