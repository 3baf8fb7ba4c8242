"""Reading text files of unknown encoding: UTF-8, UTF-16, GBK, Big5, Shift-JIS, EUC-JP, EUC-KR, Windows-1251, -1252, and others by guess.

Texts may be a single short row, so each candidate is judged by how likely its characters are: the cost of a text is the sum of its
characters' -log2 probabilities under rough frequencies of the script. All candidates read the same bytes, so costs are comparable.
"""

import io
import re
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from skesl_mug.errors import UserError
from skesl_mug.wording import counted

PACKED = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed",
    b"PAR1": "a parquet file",
}
FEW_DAMAGED = 0.1  # damaged characters per intact non-ASCII character up to which a text counts as UTF-8
FEW_NULS = 0.1  # share of characters up to which NULs are removed; above, a file is not text
SAMPLE = 1 << 14  # bytes of lines with non-ASCII characters that are judged
NAMED = 40.0  # bits in favour of an encoding in which a known name occurs
UNLIKELY = {"cp1251": 6.8, "koi8_r": 6.8, "cp1252": 11.5}  # bits per byte above 127; with a higher cost, charset-normalizer is asked
UNDEFINED = 17.0  # bits of a byte that Windows-1252 lacks
CLEAR = 8.0  # bits by which an encoding has to be better than Windows-1252, the usual one of files with a few accents
MANY_NAMED = 20  # known names after which no more are counted


def read_text(
    path: Path, *, place: str | None = None, needed: str = "choose a text file", names: Collection[str] = ()
) -> tuple[str, list[str]]:
    """The text of a file and notes for the user: a guessed encoding, damaged characters, removed NULs with their lines.

    Args:
        path: the file.
        place: how messages name it; default: its path.
        needed: advice on what to choose instead of a file that is not text.
        names: names that may occur in it, such as those of a corpus's files: an encoding in which they occur is preferred.

    Raises:
        UserError: the file cannot be read or is not text.
    """
    place = place or str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror or error})") from error
    for mark, what in PACKED.items():
        if content.startswith(mark):
            raise UserError(f"{place}: is {what}; save or unpack it as a csv file (UTF-8)")
    encoding = guess_encoding(content, names)
    text = content.decode(encoding, errors="replace").removeprefix("\ufeff")
    notes = []
    if encoding != "utf-8":
        known_as = f" ({KNOWN_AS[encoding]})" if encoding in KNOWN_AS else ""
        notes.append(f"read as {encoding}{known_as}, because it is not UTF-8; if characters look wrong, save it as UTF-8")
    damaged = text.count("\ufffd")
    if damaged:
        notes.append(f"{counted(damaged, 'damaged character')} in {'UTF-8' if encoding == 'utf-8' else encoding} text")
    nuls = text.count("\0")
    if nuls > max(1, FEW_NULS * len(text)) or damaged > len(text) / 2:
        raise UserError(f"{place}: is not a text file; {needed}")
    if nuls:
        lines = [number for number, line in enumerate(io.StringIO(text, newline=None), 1) if "\0" in line]
        shown = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:5]))}{', …' if len(lines) > 5 else ''}"
        notes.append(f"{shown}: {counted(nuls, 'NUL character')} (\\x00) removed; the file may be damaged")
    return text.replace("\0", "").rstrip("\x1a"), notes  # Ctrl-Z: the end of a file of DOS


def print_notes(path: Path, notes: Collection[str]) -> None:
    """Print notes on a file to stderr."""
    for note in notes:
        print(f"note: {path.name}: {note}", file=sys.stderr)


def guess_encoding(content: bytes, names: Collection[str] = ()) -> str:
    """The most plausible encoding of a text, as a codec of Python; see `read_text` for `names`."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32"), (b"\xfe\xff", "utf-16"), (b"\xff\xfe", "utf-16")):
        if content.startswith(mark):
            return encoding
    if content.isascii() and b"\0" not in content:
        return "utf-8"
    if b"\0" in content:
        wide = content[: SAMPLE + len(content) % 2]
        best = min(("utf-8", "utf-16-le", "utf-16-be"), key=lambda encoding: _cost(_decoded(wide, encoding), encoding, ()))
        if best != "utf-8":
            return best
    local = {name for name in names if not name.isascii()}
    repaired = content.decode("utf-8", errors="replace")
    damaged = repaired.count("\ufffd")
    intact = len(repaired) - len(repaired.encode("ascii", errors="ignore")) - damaged
    if damaged <= FEW_DAMAGED * intact and (damaged or not local or _named(repaired, local) or "\n" not in repaired):
        return "utf-8"
    sample = _lines_to_judge(content)
    costs = {encoding: _cost(_decoded(sample, encoding), encoding, local) for encoding in CANDIDATES}
    best = min(costs, key=costs.__getitem__)
    if not damaged and costs[best] > _cost(_decoded(sample, "utf-8"), "utf-8", local) - NAMED / 2:
        return "utf-8"
    high = sum(byte > 127 for byte in sample)
    undefined = UNDEFINED * _decoded(sample, best).count("\ufffd") if best == "cp1252" else 0.0
    if costs[best] - undefined - 5 * (len(sample) - high) > UNLIKELY.get(best, 11.0) * high:
        return _other(sample, best)
    return "cp1252" if costs["cp1252"] < costs[best] + CLEAR and best in BYTES else best


def _decoded(content: bytes, encoding: str) -> str:
    return content.decode(encoding, errors="replace")


def _lines_to_judge(content: bytes) -> bytes:
    """Lines with bytes above 127, up to `SAMPLE` bytes of them."""
    kept, size = [], 0
    for line in re.finditer(rb"[^\n]*[\x80-\xff][^\n]*\n?", content):
        kept.append(line[0][:SAMPLE])
        size += len(kept[-1])
        if size >= SAMPLE:
            break
    return b"".join(kept)


def _other(sample: bytes, best: str) -> str:
    """The guess of charset-normalizer for an encoding that is not among the candidates; `best` if it has none."""
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=list(OTHERS)).best()
    return best if found is None else found.encoding


def _named(text: str, names: Collection[str]) -> int:
    """How many of some names are a cell of a text, or its last part after a slash, with or without a suffix."""
    cells = {cell.strip() for cell in re.split(r"[,;\t|\r\n\"/\\]", text)}
    return len(names & (cells | {cell.rpartition(".")[0] for cell in cells})) if isinstance(names, (set, frozenset)) else 0


def _cost(text: str, encoding: str, names: Collection[str]) -> float:
    """Bits: 5 for each ASCII character, those of the script's model for others, less `NAMED` for each known name."""
    model = MODELS.get(encoding, _wide)
    bits = sum(map(model, text)) + sum(_crowded(found[0], encoding) for found in re.finditer(r"[^\x00-\x7f]+", text))
    if encoding in PAIRS or encoding in CYRILLIC:  # such letters touch Latin ones rarely
        bits += 6 * len(re.findall(r"[A-Za-z](?=[\u0400-\u04ff\u3041-\ud7ff])|(?<=[\u0400-\u04ff\u3041-\ud7ff])[A-Za-z]", text))
    return bits + RARE.get(encoding, 0.0) - NAMED * min(MANY_NAMED, _named(text, names))


def _crowded(run: str, encoding: str) -> float:
    """Bits for what is unusual about a run of non-ASCII characters in an encoding of one byte per character."""
    if encoding == "cp1252":  # accented letters mostly stand alone
        return 7.0 * len(re.findall(r"[\u00aa\u00ba\u00c0-\u024f](?=[\u00aa\u00ba\u00c0-\u024f])", run))
    if encoding in CYRILLIC:  # capitals begin a word or fill it
        mixed = len(re.findall(r"[а-яё](?=[А-ЯЁ])|(?<=[А-ЯЁ]{2})[а-яё]", run))
        return 12.0 * mixed + 2.0 * len(re.findall(r"(?<![А-ЯЁ])[А-ЯЁ]", run)) + len(re.findall("[А-ЯЁ]", run))
    return 0.0


def _ascii(character: str) -> float | None:
    if character > "\x7f":
        return 40.0 if character == "\ufffd" or "\ue000" <= character <= "\uf8ff" else None
    return 5.0 if character >= " " or character in "\t\r\n" else 12.0


def _levels(codec: str, frequent: str, common: tuple[int, int], kana: float) -> Callable[[str], float]:
    """A model of a two-byte encoding: its frequent characters, punctuation, kana, and those whose lead byte is in the common rows."""
    usual = frozenset(frequent)

    @cache
    def bits(character: str) -> float:
        fixed = _ascii(character)
        if fixed is not None:
            return fixed
        if character in "，。！？、：；“”‘’（）《》「」『』…—～·　":
            return 8.0
        if "\u3041" <= character <= "\u30fe":
            return kana
        if "\uff61" <= character <= "\uff9f":  # half-width katakana: one byte each
            return 15.0
        if character in usual:
            return 9.0
        raw = character.encode(codec, errors="replace")
        return (
            13.5 if len(raw) == 2 and common[0] <= raw[0] <= common[1] and (codec == "cp932" or codec == "cp950" or raw[1] > 0xA0) else 24.0
        )

    return bits


@cache
def _latin(character: str) -> float:
    fixed = _ascii(character) if character != "\ufffd" else UNDEFINED
    if fixed is not None:
        return fixed
    if character in "éèàçùâêîôûëïüöäñóáíúßåøæœãõòìÉ" or character in "“”‘’–—…•€£°«»¿¡·":
        return 8.0
    return 10.0 if character in "ÀÈÇÙÂÊÎÔÛËÏÜÖÄÑÓÁÍÚÅØÆŒÃÕìýžšÿ©®™½§´²" else 17.0


@cache
def _cyrillic(character: str) -> float:
    fixed = _ascii(character)
    if fixed is not None:
        return fixed
    small = character.lower()
    for letters, bits in (("оаеинт", 3.5), ("срвлкмдпу", 5.0), ("яыьгзбчйхжшю", 6.5), ("цщэёфъіїєґў", 9.0)):
        if small in letters:
            return bits
    return 10.0 if character in "«»–—“”„…№" else 20.0


@cache
def _wide(character: str) -> float:
    """Any script, for UTF-8 and UTF-16."""
    fixed = _ascii(character)
    if fixed is not None:
        return fixed
    if character < "\u0700":
        return 8.0
    if (
        character in FREQUENT_CHINESE
        or character in FREQUENT_HANGUL
        or "\u3000" <= character <= "\u30ff"
        or "\u2000" <= character <= "\u206f"
    ):
        return 9.0
    return 14.0 if "\u4e00" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3" else 25.0


FREQUENT_CHINESE = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同"
    "现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很"
    "最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走"
    "义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马"
    "科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运"
    "喜欢片影评频视号码标签演棒差烂爱值推荐剧精彩无聊失句错快乐怒哀伤惊吓笑哭词音乐段录字幕测试训练验证集她您吗吧呢啊哦嗯哇啦嘛呀哈嘿哎唉"
    "這個們來為國時會對裡後過發種經學當沒動還進樣開從實軍無與長機關點業將兩間問並應戰頭體見產東聲員論處義幾認條氣題爾別變總電數報結務場計資許統"
    "區隊決馬書則聽卻達強難權設記類據邊張該規萬術領確傳師觀讓識帶導爭運歡評頻視號碼標籤愛薦劇錯樂傷驚嚇詞錄測試訓練驗證嗎"
)
FREQUENT_HANGUL = (
    "이다는을에가의고하지은를서한도로사기나자어아리대시라인으니그해스일들정안거게수보었있것전부만우제여주면요구말상습네장생합세오원각때람할무마없같저와"
    "과진적데공비유소모내좋았영화문조동선신성번건심음악너재미감연최별추천아쉽움실망매못잘싫랑트드크터던년월슬프출중위국관경방분당까간강개결계단달된될든따란"
    "력렇려레른류르림바반발밖백본불빠행현회후호황활확험함학통큰쪽집직질찬참처청체초치타태테토투특파편평표품필"
)
FREQUENT_KANJI = (
    "日一人年大十二本中長出三時行見月分後前生五間上東四今金九入学高円子外八六下来気小七山話女北午百書先名川千水半男西電校語土木聞食車何南万毎白天母"
    "火右読友左休父雨良悪好面映画最思言作品感動楽聴声音楽怒泣笑嫌愛心事方手自国会社的場内部対者同問題物意味新私彼僕当全然本当素晴退屈役者監督期待"
)
PAIRS = ("gb18030", "cp932", "cp950", "cp949", "euc_jp")
CYRILLIC = ("cp1251", "koi8_r")
RARE = {"koi8_r": 8.0, "euc_jp": 8.0}
"""Bits against encodings that files of today rarely have."""
BYTES = ("cp1252", *CYRILLIC)
MODELS: dict[str, Callable[[str], float]] = {
    "gb18030": _levels("gbk", FREQUENT_CHINESE, (0xB0, 0xD7), 16.0),
    "cp950": _levels("cp950", FREQUENT_CHINESE, (0xA4, 0xC6), 16.0),
    "cp932": _levels("cp932", FREQUENT_KANJI, (0x88, 0x97), 7.5),
    "euc_jp": _levels("euc_jp", FREQUENT_KANJI, (0xB0, 0xCF), 7.5),
    "cp949": _levels("cp949", FREQUENT_HANGUL, (0xB0, 0xC8), 16.0),
    "cp1252": _latin,
    **dict.fromkeys(CYRILLIC, _cyrillic),
}
KNOWN_AS = {
    "gb18030": "GBK",
    "cp950": "Big5",
    "cp932": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "cp949": "EUC-KR",
    "cp1252": "Western",
    "cp1251": "Cyrillic",
}
CANDIDATES = tuple(MODELS)
"""The encodings that are compared, as codecs of Python; each contains the older ones of its script (GB2312, ISO 8859-1, ...)."""
OTHERS = ("cp1250", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "tis_620", "iso8859_5", "cp866", "mac_roman")
"""Encodings among which charset-normalizer chooses if none of `CANDIDATES` is plausible."""
