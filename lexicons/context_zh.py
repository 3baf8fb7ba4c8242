"""The intensity of a Chinese word under negation and degree words, after VADER's rules for English (`lexicons.context`).

Degree words have four grades, a selection from the list of degree words of HowNet's sentiment lexicon (Dong and Dong, "Vocabulary for
sentiment analysis", 2007: extreme, very, more, -ish); their amounts, on VADER's scale of 4, are ours: 1.5, 1, 0.5 and -1 times
VADER's 0.293.
A negation multiplies by VADER's -0.74. Modifiers are applied from the word outwards, so that their order matters:

    不好      bad, -0.74 of good        太不好   very bad (a degree of the negated word)
    不太好    not very good, half of 不好 with the same sign        不是不好   good, weakly (negated twice)

Only the clause of the word counts (up to a punctuation mark, another entry or a word like 但是), and at most `GAP` characters
between that are
neither modifiers nor fillers. Text is read by characters: segmenters glue 不太好, 太好了 and 别难过 into one word.
"""

import re
from collections.abc import Mapping, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATION = -0.74
NEGATED_DEGREE = NEGATION / 2
STEP = 0.293
GAP = 3
NEGATIONS = _words("""
不 没 没有 没什么 没啥 没能 别 别再 未 未能 未必 未曾 无 无法 毫无 毫不 非 并非 并不 并没有 并没 不是 不会 不能 不要 不该 不应该
不想 不愿 不肯 不再 不必 不一定 不用 绝不 决不 绝非 从不 从未 从没 从来不 从来没 从来没有 从没有 尚未 莫 勿 休 甭 不曾 算不上 谈不上
称不上 说不上 难以 缺乏 缺少 拒绝
""")
MILD_NEGATIONS = _words("不太 不大 不怎么 没怎么 不很 不够 不那么 没那么 没有那么 不是很 不是太 不甚 没多 没有多 不算 欠")
NEVER = ("从未", "从没", "从来没", "从来没有", "从没有")
SO = _words("这么 这样 如此 这般")
DEGREES = {
    1.5: """
太 最 极 极其 极为 极度 极端 非常非常 万分 无比 超 超级 超极 绝对 完全 根本 彻底 十足 百分百 百分之百 死 从来 丝毫 简直 一点都
一点也 一点儿都 一点儿也 半点都 半点也 不能更 不能再 巨 爆 贼 忒 最为 至为 顶
""",
    1.0: """
很 非常 特别 十分 相当 真 真的 好 好生 挺 蛮 格外 分外 尤其 异常 实在 实在是 确实 太过 过于 过分 多么 多 何等 老 怪 颇 颇为 甚 甚为
深 深深 大为 别提多 这么 这样 如此 那么 那样 这般 狠 可 够 足够 满心 由衷 更加 愈加 倍感 越来越 愈发 好不
""",
    0.5: "更 更为 还 还是 较 较为 比较 越 越发 愈 进一步 再 又 满 还算 算是",
    -1.0: """
有点 有点儿 有些 有一点 有一些 稍 稍微 稍稍 稍许 略 略微 略为 略显 些许 微 一点 一点点 几分 多少 多少有点 多少有些 不怎么太
""",
}
"""Degree words before the entry, by their amount in units of `STEP`."""
AFTER = {
    1.5: """
极了 死了 死我了 坏了 透了 透顶 至极 之极 无比 得要命 得要死 得不得了 不得了 得不行 到爆 爆了 得很 万分 非凡 到极点 到家了 惨了
""",
    1.0: "得很 得慌",
    0.5: "得多 多了 许多",
    -1.0: "一点 一点儿 一些 了点 了一点",
}
"""Degree words after the entry."""
NEGATIONS_AFTER = ("不起来", "不到哪去", "不到哪里去", "不到哪儿去", "不了")
NEUTRAL = _words("""
不仅 不但 不只 不单 不光 不止 不得不 不由得 不禁 不愧 不断 不管 不论 不少 不知不觉 不一会 不久 好不容易 差不多 了不起 是不是
是不是很 是不是太 有没有 能不能 会不会 要不要 别人 别的 分别 区别 告别 个别 级别 性别 离别 无论 毫无疑问 无疑 没错 非得 非要 未来
未婚 难道不 难道没 谁不 何尝不 怎能不 怎么能不 哪能不 不外乎 不失为 不妨 不料 可不是 别看 太阳 太太 最近 最后 最终 最初 很多 多少人
真正 再三 可能 可以 可是 非凡 老师 老板 老人 老公 老婆 无意 更新 还有 比较起来 大不了
""")
"""Words that look like modifiers or contain one."""
FILLERS = _words("""
是 会 能 得 有 让 人 让人 令人 叫人 使人 觉得 感到 感觉 的 地 我 你 他 她 它 我们 你们 他们 大家 什么 都 也 过 怎么 想 要 去 被 给
那 到 变 变得
""")
CLAUSE_END = re.compile(r"[，。！？；：、,.!?;:…～~\n—()（）“”\"《》]|但是|可是|不过(?!了)|然而|而是|而且|所以|因为|虽然|反而|但|却")
MODIFIERS = NEGATIONS | MILD_NEGATIONS | frozenset(word for words in DEGREES.values() for word in words.split())
_AMOUNTS = {word: amount * STEP for amount, words in DEGREES.items() for word in words.split()}
_AFTER = sorted(((word, amount * STEP) for amount, words in AFTER.items() for word in words.split()), key=lambda entry: -len(entry[0]))
_LONGEST = 5


def intensity_in_clause(before: str, entry: str, after: str, intensity: float, unit: float) -> float:
    """The intensity of an entry under the modifiers around it.

    Args:
        before: the text before it, from the end of the previous entry on.
        entry: the entry as it stands in the text.
        after: the text after it, up to the next entry.
        intensity: of the entry alone.
        unit: the size of 1 on VADER's scale of 4, in the units of `intensity`.
    """
    before = before[max((found.end() for found in CLAUSE_END.finditer(before)), default=0) :]
    after = after[: found.start()] if (found := CLAUSE_END.search(after)) else after
    value = intensity / unit
    is_question = any(before.endswith(entry[:length] + no) for length in range(1, len(entry) + 1) for no in "不没")  # 好不好, 喜不喜欢
    if is_question:
        return intensity
    degree = next((amount for word, amount in _AFTER if after.startswith(word)), 0.0)
    if before.endswith("再") and after.startswith("不过"):  # 再好不过
        before, degree = before[:-1], 1.5 * STEP
    if after.startswith(NEGATIONS_AFTER):
        value *= NEGATION
    so = False
    for word, between in modifiers(before):
        if word in _AMOUNTS:
            degree += _AMOUNTS[word]
            so = so or word in SO
        elif word in MILD_NEGATIONS:
            value, degree, so = value * NEGATED_DEGREE, 0.0, False
        elif (so and word in NEVER) or "比" in between:  # "never so good", "nothing is better"
            value, degree, so = value * 1.25, 0.0, False
        elif degree > 0:
            value, degree, so = value * NEGATED_DEGREE, 0.0, False
        else:
            value, degree, so = _stronger(value, degree) * NEGATION, 0.0, False
    return _stronger(value, degree) * unit


def _stronger(value: float, amount: float) -> float:
    """A value moved away from zero by an amount, or towards it by a negative one, but not beyond."""
    size = max(0.0, abs(value) + amount)
    return size if value > 0 else -size if value < 0 else 0.0


def modifiers(before: str) -> list[tuple[str, str]]:
    """The modifiers at the end of a clause's beginning, the nearest first, each with the text between it and the entry."""
    found: list[tuple[str, str]] = []
    end, gap = len(before), 0
    while end and gap <= GAP:
        for length in range(min(_LONGEST, end), 0, -1):
            word = before[end - length : end]
            if word in MODIFIERS:
                found.append((word, before[end:]))
            elif word not in NEUTRAL and word not in FILLERS:
                continue
            end -= length
            break
        else:
            end, gap = end - 1, gap + (not before[end - 1].isspace())
    return found


def split_glued(text: str, span: tuple[int, int], entries: Mapping[str, float]) -> list[tuple[int, int]]:
    """A segment that is not in the lexicon, divided into modifiers and an entry if it consists of these (不太好, 太好了); else
    as it is."""
    start, end = span
    segment = text[start:end]
    if segment in entries or segment in MODIFIERS or segment in NEUTRAL:
        return [span]
    for tail in ("", "了", "的", "得", "吗", "啊", "不过", *(word for word, _ in _AFTER)):
        if not segment.endswith(tail):
            continue
        body = segment[: len(segment) - len(tail)]
        if len(body) > 3 and body[1] in "不没" and body[0] == body[2] and body[2:] in entries:  # 喜不喜欢
            return [(start, start + 2), (start + 2, start + len(body)), *([(start + len(body), end)] if tail else [])]
        for first in range(len(body)):
            head = body[:first]
            if body[first:] in entries and (parts := _as_modifiers(head)) is not None:
                pieces, place = [], start
                for part in (*parts, body[first:], *([tail] if tail else [])):
                    pieces.append((place, place + len(part)))
                    place += len(part)
                return pieces
    return [span]


def _as_modifiers(head: str) -> Sequence[str] | None:
    """A string divided into modifiers; None if it has anything else."""
    parts: list[str] = []
    while head:
        length = next((length for length in range(min(_LONGEST, len(head)), 0, -1) if head[:length] in MODIFIERS), 0)
        if not length:
            return None
        parts.append(head[:length])
        head = head[length:]
    return parts
