"""Negation and degree words in Chinese: 100 phrases as people say them, with the sign or the order that their intensities must have."""

import numpy as np
import pytest

from lexicons.lexicon import Lexicon
from preprocessing.masking import find_masks

pytest.importorskip("jieba")
GOOD = "好 喜欢 开心 漂亮 好吃 好看 满意 精彩 感动 高兴 聪明 意思 成功 优秀 热闹 诚意 佩服 便宜 舒服 希望"
BAD = "差 难看 难过 失望 糟糕 讨厌 难吃 害怕 痛苦 生气 无聊 后悔 担心 伤心 坏 愤怒 难受 坏事"
LEXICON = Lexicon("test", "zh", (-3.0, 3.0), 1.0, "", "", dict.fromkeys(GOOD.split(), 1.5) | dict.fromkeys(BAD.split(), -1.5))
SIGNS = {
    1: """
很好 不难看 别难过 别担心 太好了 好极了 不觉得难看 不得不佩服 不由得感动 我不是不喜欢 没有不满意 不是不好 好开心 真漂亮 不但聪明
不仅好看 特别喜欢 别提多高兴了 从来没有这么开心过 没有比这更好的 再好不过了 并非坏事 不再害怕 不会失望 绝不后悔 不用担心
毫无疑问很好 好不热闹 不那么糟糕 没那么难吃 无比开心 虽然不便宜，但是很好 不管怎么说还是喜欢 差不多满意 谁不喜欢 难道不好吗 好不好
喜不喜欢 是不是很开心 越来越好 够好 不能更好 高兴得不得了 一点都不难看 我一点也不讨厌
""",
    -1: """
不好 不太好 太不好 不是很好看 一点都不好吃 没有意思 没什么意思 并不怎么漂亮 有点失望 毫无诚意 不那么开心 未必成功 不开心 不高兴
很不满意 非常不满意 难受死了 糟糕透了 太差了 差得很 没有诚意 未能成功 无法喜欢 算不上优秀 谈不上满意 不够好 我不喜欢 他并不聪明
高兴不起来 从来不开心 从来没有这么失望过 根本不好吃 完全没有希望 稍微有点无聊 不觉得好看 不让人满意 不是那么舒服 真的很难吃
别提多难受了 我并没有感动
""",
}
ORDERS = [  # from the most negative to the most positive
    "太不好 不好 不太好 好 很好 太好了",
    "非常不满意 不满意 不太满意 满意 非常满意",
    "难受死了 难受 有点难受 不难受",
    "极其愤怒 很愤怒 愤怒 稍微愤怒",
    "不喜欢 不怎么喜欢 比较喜欢 特别喜欢 最喜欢",
]


def intensity(phrase: str) -> float:
    """The context intensity of the phrase's strongest entry; of the last one on a tie."""
    masks = find_masks([], LEXICON, np.random.default_rng(0), "zh", phrase, context=True)
    value = max(masks, key=lambda mask: (abs(mask.intensity), mask.start_char)).context_intensity
    assert value is not None
    return value


@pytest.mark.parametrize(("sign", "phrase"), [(sign, phrase) for sign, phrases in SIGNS.items() for phrase in phrases.split()])
def test_sign(sign: int, phrase: str) -> None:
    assert np.sign(intensity(phrase)) == sign


@pytest.mark.parametrize("order", ORDERS)
def test_order(order: str) -> None:
    values = [intensity(phrase) for phrase in order.split()]
    assert values == sorted(values)
    assert len(set(values)) == len(values), values


def test_there_are_enough_phrases() -> None:
    assert sum(len(phrases.split()) for phrases in (*SIGNS.values(), *ORDERS)) >= 100


def test_constants_are_those_of_vader_and_the_range_is_kept() -> None:
    assert intensity("不好") == pytest.approx(-0.74 * 1.5)
    assert intensity("很好") == pytest.approx(1.5 + 0.293 * 3 / 4)
    assert intensity("不太好") == pytest.approx(-0.37 * 1.5)
    assert intensity("超级无比简直根本绝对丝毫彻底完全太好") <= 3.0


def test_a_clause_ends_the_reach_of_a_modifier() -> None:
    for phrase in ("我不去，好", "不去但是好", "不是难看而是好看", "没有人来。好"):
        assert intensity(phrase) == pytest.approx(1.5), phrase


def test_traditional_characters_are_looked_up_as_simplified_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Converter:
        def convert(self, text: str) -> str:
            return text.replace("難", "难").replace("過", "过")

    monkeypatch.setattr("lexicons.words._converter", Converter)
    assert intensity("不難過") == pytest.approx(0.74 * 1.5)
    monkeypatch.setattr("lexicons.words._converter", lambda: None)
    (mask,) = find_masks([], LEXICON, np.random.default_rng(0), "zh", "難過")
    assert not mask.from_lexicon


def test_without_context_nothing_changes() -> None:
    (mask,) = find_masks([], LEXICON, np.random.default_rng(0), "zh", "这 很 不 好")
    assert (mask.intensity, mask.context_intensity) == (1.5, None)
    assert not find_masks([], LEXICON, np.random.default_rng(0), "zh", "，。！……", context=True)
    (word,) = find_masks([], LEXICON, np.random.default_rng(0), "zh", "１２３号", context=True)
    assert (word.from_lexicon, word.context_intensity) == (False, 0.0)
    (emoji,) = find_masks([], LEXICON, np.random.default_rng(0), "zh", "😀不好😭", context=True)
    assert emoji.context_intensity == pytest.approx(-0.74 * 1.5)
