"""How likely characters are in texts of each encoding: rough frequencies of scripts and alphabets, for guessing the encoding of a file."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

PUNCTUATION = "“”‘’„–—…•€£°«»¿¡·"
WIDE_PUNCTUATION = "，。！？、：；“”‘’（）《》「」『』…—～·　"
SMALL_GREEK, GREEK = "α-ωά-ώ", "Α-ΩΆ-Ώ"
SMALL_CYRILLIC, CYRILLIC = "а-яё-џґ", "А-ЯЁ-ЏҐ"
DAMAGED = 40.0
"""Bits of a byte that an encoding lacks, or of a character for private use."""


@dataclass(frozen=True)
class Model:
    """The texts of one encoding: -log2 probabilities of characters, what is unusual in them, and bits against a rare encoding."""

    bits: Callable[[str], float]
    habits: tuple[tuple[str, float], ...] = ()
    prior: float = 0.0
    unlikely: float = 11.0
    """Bits per byte above 127 from which a text is in another encoding."""

    def cost(self, text: str) -> float:
        """The bits of a text: those of its characters (5 for ASCII) and of each match of an unusual pattern."""
        return self.prior + sum(map(self.bits, text)) + sum(bits * len(re.findall(pattern, text)) for pattern, bits in self.habits)


def _ascii(character: str) -> float | None:
    if character > "\x7f":
        return DAMAGED if character == "\ufffd" or "\ue000" <= character <= "\uf8ff" else None
    return 5.0 if character >= " " or character in "\t\r\n" else 12.0


def _alphabet(
    tiers: Mapping[str, float], *, capital: float = 0.0, other: float = 17.0, undefined: float = DAMAGED
) -> Callable[[str], float]:
    """A model of letters: bits of the small ones, further bits of capitals, and those of any other character."""
    known: dict[str, float] = dict.fromkeys("\xa0©®™½§´²ºª×÷±µ¶№", 10.0) | dict.fromkeys(PUNCTUATION, 8.0)
    known |= {letter.upper(): bits + capital for letters, bits in tiers.items() for letter in letters if len(letter.upper()) == 1}
    known |= {letter: bits for letters, bits in tiers.items() for letter in letters}
    known["\ufffd"] = undefined

    @cache
    def bits(character: str) -> float:
        fixed = _ascii(character) if character != "\ufffd" else undefined
        return known.get(character, other) if fixed is None else fixed

    return bits


def _ideographs(codec: str, tiers: Mapping[str, float], rows: tuple[int, int], kana: float) -> Callable[[str], float]:
    """A model of a two-byte encoding: its frequent characters, punctuation, kana, and those whose lead byte is in the common `rows`."""
    known: dict[str, float] = {character: bits for characters, bits in tiers.items() for character in characters}
    known |= dict.fromkeys(WIDE_PUNCTUATION, 8.0)

    @cache
    def bits(character: str) -> float:
        fixed = _ascii(character)
        if fixed is not None:
            return fixed
        if character in known:
            return known[character]
        if "\u3041" <= character <= "\u30fe":
            return kana
        if "\uff61" <= character <= "\uff9f":  # half-width katakana: one byte each
            return 15.0
        raw = character.encode(codec, errors="replace")
        return 14.0 if len(raw) == 2 and rows[0] <= raw[0] <= rows[1] and (raw[1] > 0xA0 or codec in ("cp932", "cp950")) else 24.0

    return bits


@cache
def _any_script(character: str) -> float:
    fixed = _ascii(character)
    if fixed is not None:
        return fixed
    if character < "\u0700":
        return 8.0
    if "\u3000" <= character <= "\u30ff" or "\u2000" <= character <= "\u206f":
        return 9.0
    if character in FREQUENT_CHINESE or character in FREQUENT_HANGUL:
        return 9.0
    return 15.0 if "\u4e00" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3" else 25.0


def _side_by_side(bits: float) -> tuple[str, float]:
    """Accented letters side by side: in Western languages they mostly stand alone."""
    return r"[\u00aa\u00ba\u00c0-\u024f](?=[\u00aa\u00ba\u00c0-\u024f])", bits


def _cased(small: str, capitals: str) -> tuple[tuple[str, float], ...]:
    """Capitals begin a word or fill it, and the script rarely touches Latin letters."""
    return (
        (f"[{small}](?=[{capitals}])|(?<=[{capitals}]{{2}})[{small}]", 12.0),
        (f"(?<![{capitals}])[{capitals}]", 2.0),
        (f"[{capitals}]{{2,}}", 3.0),
        (f"[{capitals}]", 1.0),
        (f"(?<![{small}{capitals}])[{small}{capitals}](?![{small}{capitals}])", 6.0),
        (f"[A-Za-z](?=[{small}{capitals}])|(?<=[{small}{capitals}])[A-Za-z]", 10.0),
    )


INSIDE = (r"(?<=[A-Za-z\u00c0-\u024f])[¿¡«»°£€„“”•¹³¼¾](?=[A-Za-z\u00c0-\u024f])", 8.0)
"""Punctuation inside a word."""
TOUCHING = (r"[A-Za-z](?=[\u3041-\ud7ff])|(?<=[\u3041-\ud7ff])[A-Za-z]", 6.0)
"""Ideographs and Hangul that touch Latin letters."""
FREQUENT_CHINESE = (
    "视频片影演员欢喜爱值推荐评剧精彩无聊失望句错快乐怒哀伤惊吓笑哭词音段录字幕测试训练验证集她您吗吧呢啊哦嗯哇啦嘛呀哈嘿哎唉棒差烂号码标签很好不非常真太一是人了在有大中国和为这上他个地年来我会以到时要出的生学说道民家子也成行下们于后就发自之对得主长可过天作分方用多"
    "你着部能市等业全里工公经本都而高政法面门动日进区事代那去心小同北定开产前其军还然起种所如现理机体表力外与文当两实重新三么只山水关明从化平建又制南内西没此将名手最东头者月间安看见各城十相但已些正口通想度加第合院物性战由位点海意场武使次二向治因立数样身情入原问把路"
    "被并利石老教万知级量任江及应省资委务元美特期世湖回系比气汉总展电科金先声提品设或义王社统处四首共马形己儿司目基领队直计别女权话少流命至报米给打变果书清活几州华解议更称程今决张导术府才保交放管结师便走达族反再题色五視頻員歡愛薦評劇無錯樂傷驚嚇詞錄測試訓練驗證嗎爛"
    "號碼標籤國爲這個來會時學說們於後發對長過業裏經門動進區開產軍還種現機體與當兩實麼關從內沒將東頭間見戰點場數樣問並萬級應資務氣漢總電聲設義統處馬兒領隊計別權話報給變書幾華議稱決張導術結師達題"
)
COMMON_CHINESE = (
    "京河接条规式县白它改风光运信受什组听布百济党指论强做取技黄神选记斯却职界件花类何眼兵传带空干农边据联古广完质阳难增历史专官每住商即步认车台林必死游举线言皇土团收考求德叫近备研争具李众连调感转革该持始英克士尔让拉思根格造较际亲单朝红型价校约器周亚深候则功属积图火"
    "千准究往极育装许参半令吃观鱼办像帝八复告远群包整构料随划算象容示投势热夫网源息语股铁断派速怎需律纪支早况病境编越局满且列觉服双未居除企引确织初青志率项飞球节察龙响药站施均消客轻存低甚般击曾防请离落显罗营足素护副食创余照兴占巴虽洲村费易星木黑左宝置跟央识维采六底"
    "宫房环案批切斗富乡另倒若按查故突责严桥模仅胜杀围席态破承招杨负层须父供续状域似依银范修找九致密终血旅钱赛独细效玉冲获习医毛尽脸弹楼艺航陆右协七攻镇检写苏宗章注阿抗弟坐封紧劳户优财养适陈卫排射哥油刻留急降念云微例景拿绝阶座刘刚害印亿沙母酒助闻超审待压升送监策略限"
    "竟香配藏敌仍兰温园树征善波哪岛止预怕继皮执味份角草男普答益谁船核街夏宣掌田久著画辑奇尼剑谈背免孩礼材愿洋春架筑括晚乱乎讲尚良友临激刀夜室既敢邦挥昌板胡欧福港叶简苦担岁荆贵娘守辖威宜衣帮块堂额充够孙班呼阵销坚脚退读吴希宁换版异某顾曲楚典朱毒菜判救宋茶洪含顺鲜败货"
    "矿端兄归冷忙买险康肉厂永沉散遗停笔假输牛洞松渐顶否述毕督控丰献姑忽爷互亮纳襄登咱钟伯臣雄季脑介鄂召饭暗扩祖齐短烈赶牌恩诉移诗础露届蒙静喝盘卖植授伊湾博痛减穿逐秘庭陵固禁票灵杂姓泽吸侧庆妈遇追甲馆补唐炮沿殿刺怪俄旧警索岸轮妇载靠附毫怀软骨探雷旁罪枪牙迎序慢盛雨墙"
    "恶谷顿危稳熟條規縣風運組聽濟黨論強黃選記卻職類傳帶幹農邊據聯廣質陽難歷專認車臺遊舉線團備爭衆連調轉該爾讓較際親單紅價約亞則屬積圖準極裝許參喫觀魚辦復遠羣構隨勢熱網語鐵斷紀況編滿覺雙確織項飛節龍響藥輕擊請離顯羅營護創餘興佔雖費寶識維採宮環鬥鄉責嚴橋僅勝殺圍態楊負"
    "層須續狀銀範緻終錢賽獨細衝獲習醫盡臉彈樓藝陸協鎮檢寫蘇緊勞戶優財養適陳衛雲絕階劉剛億聞審壓監敵蘭溫園樹徵島預繼執誰畫輯劍談禮願築亂講臨揮歐葉簡擔歲荊貴轄幫塊額夠孫陣銷堅腳讀吳寧換異顧順鮮敗貨礦歸買險廠遺筆輸漸頂畢豐獻爺納鍾腦飯擴齊趕訴詩礎屆靜盤賣灣減祕靈雜澤側"
    "慶媽館補舊輪婦載懷軟槍牆惡頓穩"
)
FREQUENT_HANGUL = (
    "이다니지을수에습는없로를가하스시자의일정서음기용파사할리트합인어한은오않터위션있아문드대제그만함치프보상값데패작실해부으름모표버크형입된중소전키옵바되업설력요여고식못도들블경나행디구적메성개잘라명테열야세레비료호류원변목안거게었것우주면말네장생각때람무마같저와"
    "과진공유내좋았영화조동선신번건심악너재미감연최별추천쉽움망매싫랑던년월슬출국관방분당까간강결계단달될든따란렇려른르림반발밖백본불빠현회후황활확험학통큰쪽집직질찬참처청체초타태토투특편평품필"
)
FREQUENT_KANJI = (
    "日一人年大十二本中長出三時行見月分後前生五間上東四今金九入学高円子外八六下来気小七山話女北午百書先名川千水半男西電校語土木聞食車何南万毎白天母火右読友左休父雨良悪好面映画最思言作品感動楽聴声音怒泣笑嫌愛心事方手自国会社的場内部対者同問題物意味新私彼僕当全然素晴"
    "退屈役監督期待定数用使不効指文要表列力字無設合示失変値正敗成必更込取除型有実存関在可式明置終再鍵認削能証引号配開了告続検化警報接義得形換理付複情制限照発信性番現共選含位空約切択目以算所索識保署準囲参致受加範持解演始視集追処別標状記態覧法予張通個起確構返属利送求"
    "像適想拡完非単印機縮権代初止応回際計項命圧端許暗元移結色重異整度容向順他割多和違幅未令常刷特古決体操序互装録果既秒次境線査条呼件区依並庫統規点否直種知述連側進符域類扱復替句末超壊停済格象御注密刻破詳展環領細辞改挿帰競足各誤拒継試修相副量描頭与族答過少戻遅提備組"
    "探係隔管例優仮閉秘釈両強補尾比承断親訳基供翻第築析延公影経較界略押層論旧島納製安平短浮反登省余周英詰説由消達主却固去造損響景残転避身棄矢等様編留宣増推背負価渡州似低紙"
)
WESTERN = {"éèàçáíóúâêîôäöüåñãß": 8.0, "æø": 8.5, "ùòëïû": 8.7, "õìý": 9.5, "œšž": 11.0, "ðþÿ": 12.0}
CENTRAL = {"ő": 7.0, "áéíóúąćęłńśźżčěřšž": 7.8, "ýöüăâîş": 8.0, "ţďťňôäđ": 8.5, "űů": 8.7, "ß": 12.0}
TURKISH = {"ı": 6.5, "çğöşü": 7.8, "âîû": 10.0}
CYRILLIC_TIERS = {"оаеинт": 3.5, "срвлкмдпу": 5.0, "яыьгзбчйхжшюії": 6.5, "цщэёфъєґў": 8.5}
GREEK_TIERS = {"αειονσςτ": 4.0, "ρκπλημυωθγδ": 5.5, "άέήίόύώ": 6.0, "βζξφχψϊϋΐΰ": 7.5}
CHINESE_TIERS = {COMMON_CHINESE: 11.5, FREQUENT_CHINESE: 9.0}
MODELS = {
    "cp1252": Model(_alphabet(WESTERN, capital=2.0, undefined=17.0), (_side_by_side(6.0), INSIDE), unlikely=11.5),
    "gb18030": Model(_ideographs("gbk", CHINESE_TIERS, (0xB0, 0xD7), 16.0), (TOUCHING,)),
    "cp950": Model(_ideographs("cp950", CHINESE_TIERS, (0xA4, 0xC6), 16.0), (TOUCHING,)),
    "cp932": Model(_ideographs("cp932", {FREQUENT_KANJI: 9.0}, (0x88, 0x97), 7.5), (TOUCHING,)),
    "euc_jp": Model(_ideographs("euc_jp", {FREQUENT_KANJI: 9.0}, (0xB0, 0xCF), 7.5), (TOUCHING,), prior=8.0),
    "cp949": Model(_ideographs("cp949", {FREQUENT_HANGUL: 9.0}, (0xB0, 0xC8), 16.0), (TOUCHING,), prior=1.0),
    "cp1251": Model(_alphabet(CYRILLIC_TIERS, other=20.0), _cased(SMALL_CYRILLIC, CYRILLIC), prior=1.0, unlikely=6.8),
    "koi8_r": Model(_alphabet(CYRILLIC_TIERS, other=20.0), _cased(SMALL_CYRILLIC, CYRILLIC), prior=9.0, unlikely=6.8),
    "cp1250": Model(_alphabet(CENTRAL, capital=2.0), (_side_by_side(4.0), INSIDE), prior=7.0),
    "cp1253": Model(_alphabet(GREEK_TIERS, other=20.0), _cased(SMALL_GREEK, GREEK), prior=3.0, unlikely=7.0),
    "cp1254": Model(_alphabet(TURKISH, capital=2.0), (_side_by_side(4.0), INSIDE), prior=5.0),
}
"""The encodings that are compared, as codecs of Python; each contains the older ones of its script (GB2312, ISO 8859-1, ...)."""
UNICODE = Model(_any_script)
HEBREW_ARABIC = "".join(map(chr, range(0x5D0, 0x64B)))
SHORT_UTF_8 = Model(
    _alphabet({HEBREW_ARABIC: 8.0, **CYRILLIC_TIERS, **GREEK_TIERS, **TURKISH, **CENTRAL, **WESTERN}, capital=2.0, other=17.5),
    (_side_by_side(7.0),),
)
"""Two-byte characters of UTF-8: two characters of GBK may have the same bytes."""
KNOWN_AS = {
    "gb18030": "GBK", "cp950": "Big5", "cp932": "Shift-JIS", "euc_jp": "EUC-JP", "cp949": "EUC-KR", "cp1252": "Western",
    "cp1250": "Central European", "cp1251": "Cyrillic", "koi8_r": "Cyrillic", "cp1253": "Greek", "cp1254": "Turkish",
}  # fmt: skip
OTHERS = ("cp1255", "cp1256", "cp1257", "cp1258", "tis_620", "iso8859_5", "cp866", "mac_roman")
"""Encodings among which charset-normalizer chooses if none of `MODELS` is plausible."""
