"""A brief in free text, English or Chinese, as requirements. What it does not say gets the desk's defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.prompt import language_of, task_of
from serving.records import CATEGORIES, Requirements, Task

DEFAULT_LENGTH = {"en": (25, 45), "zh": (50, 80)}
DEFAULT_EMOJI = (0, 0)
MAX_LENGTH = 500  # of what serving.lengths has room for beside a brief
LONGEST_WORD = 40  # characters

_LABELS = {
    "product": ("product", "产品", "品名", "商品"),
    "audience": ("audience", "for", "受众", "人群", "对象", "目标人群"),
    "points": ("selling points", "selling point", "points", "features", "卖点", "特点"),
    "tone": ("tone", "voice", "语气", "风格", "口吻"),
    "length": ("length", "长度", "字数"),
    "emoji": ("emoji", "表情"),
    "call": ("call to action", "cta", "行动号召"),
    "avoid": ("avoid", "must not be said", "must not", "do not say", "don't say", "避免", "禁用", "不要说", "不要出现"),
    "format": ("format", "格式"),
    "category": ("category", "类别", "品类"),
}
_KEY_OF = {label: key for key, labels in _LABELS.items() for label in labels}
_LINE = re.compile(
    rf"^\s*[-*•]?\s*({'|'.join(sorted(map(re.escape, _KEY_OF), key=len, reverse=True))})\s*[:：]\s*(.*)$", re.I
)
_BULLET = re.compile(r"^[^\S\n]*(?:[-*•·]|\d{1,2}[.)、．](?!\d))[^\S\n]*", re.M)
_COMMA = r"(?:(?<!\d),|,(?!\d{3}(?!\d))|，)"  # not the one in 1,200
# How a length is said: limits before the number and after its unit, and what only leads to it.
_MOST = (
    r"(?:(?:not|no) (?:more|longer) than|under|below|at most|max(?:imum|\.)?(?: of)?|up to|fewer than|less than|within"
    r"|[<≤]|(?:不要|不能|别|不得|不可|不)超过|最多|不多于|少于)"
)
_LEAST = r"(?:at least|minimum(?: of)?|no (?:fewer|less) than|至少|不少于|不低于)"
_MOST_AFTER = r"(?:\s+(?:or (?:less|fewer|under|below)|max(?:imum)?|at most|tops)\b|\s*(?:以内|以下|之内|内))"
_LEAST_AFTER = r"(?:\s+(?:or (?:more|longer)|minimum|at least)\b|\s*以上)"
_UNIT = {"en": r"[\s-]*words?\b", "zh": r"\s*个?字"}
_SAYS_LENGTH = {
    "en": re.compile(
        rf"(?:(?:keep|make) (?:it|this) |(?:it )?should be )?(?:\bto |\bin )?(?:between |from |{_LEAST}|{_MOST}|about"
        rf"|around|roughly|approx(?:imately|\.)?)?\s*\d+\s*(?:(?:-|–|—|~|to|and)\s*\d+)?{_UNIT['en']}"
        rf"(?:{_MOST_AFTER}|{_LEAST_AFTER}|\s+long)?",
        re.I,
    ),
    "zh": re.compile(
        rf"(?:字数|长度)?(?:控制)?在?(?:{_LEAST}|{_MOST}|大约|大概|约)?\s*\d+\s*(?:[-–—~～到至]\s*\d+)?{_UNIT['zh']}"
        rf"(?:{_MOST_AFTER}|{_LEAST_AFTER}|左右|上下)?的?"
    ),
}
_NO = re.compile(r"^(no|none|not|without|0|false|不|无|没有)", re.I)

_KIND = r"(?:product |sales |marketing )?(?:copy|texts?|lines?|posts?|descriptions?|captions?|taglines?|blurbs?|ads?)"
_FOR_EN = re.compile(rf"\b{_KIND}\s+(?:for|about|on)\s+(.+)$", re.I)
_VERB_EN = re.compile(
    r"^(?:please\s+|can you\s+|could you\s+)*(?:write|draft|make|create|give me|i need|we need|need)"
    r"\s+(?!(?:it|this|that|them|these)\b).*?\b(?:for|about)\s+(.+)$",  # a pronoun means what is there already
    re.I,
)
_NAMED_EN = re.compile(
    r"^\s*(?!(?:can|could|would|will|please|help|what|how|is|are|i|we|you|write|draft|make|create|give|need)\b)([^:;,.!?\n]{2,80}?)\s+for\s+([^:;,.!?\n]{2,120}):\s*(.+)$",
    re.I | re.S,
)
_AVOID = r"(?:avoid|(?:don't|don’t|do not|never|without)\s+(?:say(?:ing)?|mention(?:ing)?|us(?:e|ing)))"
_AVOID_ZH = r"(?:不要说|不能说|别说|不要出现|不得出现|避免(?:使用|出现)?|不要提到?|别提|禁用)"
_QUOTED = r"[\"“'‘「][^\"”'’」\n]{1,40}[\"”'’」]"
_NEXT = r"(?!\s*(?:for|with|in|no|use|write|keep|tone|audience|it|about|under)\b|[^,;.!?\n]*\d)"  # begins another wish
_AVOID_LIST = re.compile(
    rf"{_AVOID}\s+(?:[^,;.!?\n]{{1,40}},(?:{_NEXT}[^,;.!?\n]{{1,40}},)*{_NEXT}[^,;.!?\n]{{0,40}}\bor\s"
    rf"|{_QUOTED}(?:,\s*{_QUOTED})+)",
    re.I,
)
_AVOID_LIST_ZH = re.compile(
    rf"{_AVOID_ZH}(?:[^，,。；！？\n]{{1,12}}[，,])+?[^，,。；！？\n\d]{{0,12}}或|{_AVOID_ZH}{_QUOTED}(?:[，,]\s*{_QUOTED})+"
)
_STOP_EN = re.compile(
    r"\s+(?=(?:for|aimed at|with|that|which|featuring|in an?|under|at most|about|around|avoid|without|no)\b)", re.I
)
_ARTICLE = re.compile(r"^(?:our|the|my|an?|new)\s+(?:new\s+)?", re.I)
_PRODUCT_ZH = re.compile(
    r"(?:写|来|拟|要|做|出)(?:一?[段条句篇个则份])?(?:关于)?[「《“\"]?(.{0,30}?)[」》”\"]?的?(?:产品|商品)?"
    r"(?:文案|推广语|广告语|广告词|广告|介绍)"
)
_FOR_ZH = re.compile(r"(?:为|给|帮)[「《“\"]?(.+?)[」》”\"]?(?=(?:写|来|拟|做|出)(?![得短长]|.*(?:一点|一些|[点些])$))")

_ASKING_ZH = re.compile(r"^(?:请|麻烦|能不能|可以)*(?:帮|给|替|为)(?:我们|我|咱们|咱|忙)(?![们的])")
_OURS_ZH = re.compile(r"^(?:我们|我|咱们|咱)的?(?:新款|新品)?")
_TONE_ZH = re.compile(r"^(?:要|更|再)?(\S{1,6}?)(?:一点|一些|点|些)儿?$")
_ABOUT_ZH = re.compile(r"^(?:介绍|推广|宣传|推荐)(?:一下|下)?(.{2,30})$")
_LINE_ZH = re.compile(r"^(?:请)?(?:写|来|要|做|拟)(?:一|几|两|三|\d)?[段条句篇个则份]?话?$")
# Where a text is to appear, and what it is for: no product.
_PLACE_ZH = re.compile(
    r"^(?:小红书|朋友圈|公众号|抖音|快手|微博|淘宝|天猫|京东|电商|短视频|直播|种草|带货|促销|推广|详情页|的)+$"
)
_GREETING = re.compile(
    r"(?:(?:hi|hello|hey|there|thanks|thank you|thx|so much|a lot|very much|help|test|great|nice|perfect|cool|awesome"
    r"|lovely|ok|okay|well done|good (?:morning|afternoon|evening|job|work)|love it"
    r"|你好|您好|在吗|好的|谢谢|多谢|感谢|辛苦|收到|太好|很好|不错|可以|帮助|测试|你|您|啦|了|哦|呢)\W*)+",
    re.I,
)
# Words that speak of a draft which is there.
_FOLLOWS = re.compile(
    r"\b(?:it|this|that|shorter|longer|simpler|again|another one|one more|rewrite|shorten|tone down)\b"
    r"|[短长]一?[点些]|再[来写短长]|重写|改[成得一短长]|换一?[个种段版]|缩短|更[短长]",
    re.I,
)
_FEW = (10, 16)  # words, Han characters: a brief that brings its own text is longer


def says_nothing(text: str) -> bool:
    """A greeting, or a single word: nothing to write about."""
    han = re.findall(r"[\u4e00-\u9fff]", text)
    return bool(_GREETING.fullmatch(text)) or (len(text) < LONGEST_WORD and len(text.split()) < 2 and len(han) < 3)


def follows_up(text: str) -> bool:
    """A few words about a draft, as people answer one."""
    han = re.findall(r"[\u4e00-\u9fff]", text)
    return len(text.split()) <= _FEW[0] and len(han) <= _FEW[1] and bool(_FOLLOWS.search(text))


@dataclass
class _Found:
    product: str = ""
    audience: str = ""
    points: tuple[str, ...] = ()
    tone: str = ""
    length: tuple[int, int] | None = None
    emoji: tuple[int, int] | None = None
    call: bool | None = None
    avoid: tuple[str, ...] = ()
    format: str = "paragraph"
    category: str = "other"


def task_from(text: str) -> Task:
    """A brief as people write it. Where no product can be made out, their words are the instruction."""
    language = language_of(text)
    found = _Found()
    free: list[str] = []
    last = ""
    for line in text.splitlines():
        labelled = _LINE.match(line)
        if labelled:
            last = _KEY_OF[labelled[1].lower()]
            _take(found, last, labelled[2].strip(), language)
        elif last == "points" and _BULLET.match(line):
            found.points = (*found.points, _BULLET.sub("", line).strip())
        else:
            free.append(line)
    prose = _BULLET.sub("", "\n".join(free)).strip()
    if prose:
        (_chinese if language == "zh" else _english)(prose, found)
    if not found.product:
        return Task(text.strip(), language=language, category=found.category)
    return task_of(
        Requirements(
            product=found.product,
            audience=found.audience,
            selling_points=tuple((point,) for point in found.points),
            tone=found.tone,
            length=found.length or DEFAULT_LENGTH[language],
            emoji=found.emoji if found.emoji is not None else DEFAULT_EMOJI,
            call_to_action=True if found.call is None else found.call,
            format=found.format,
            must_not=found.avoid,
        ),
        language,
        found.category,
    )


def _take(found: _Found, key: str, value: str, language: str) -> None:
    match key:
        case "product":
            found.product = value.strip('"“”「」《》.。')
        case "audience":
            found.audience = value.rstrip(".。")
        case "points":
            found.points = points_of(value)
        case "tone":
            found.tone = value.rstrip(".。")
        case "length":
            found.length = _length(value, language, bare=True) or found.length
        case "emoji":
            found.emoji = _emoji(value)
        case "call":
            found.call = not _NO.match(value)
        case "avoid":
            found.avoid = phrases_of(value)
        case "format":
            found.format = "list" if re.search(r"list|bullet|列表|清单", value, re.I) else "paragraph"
        case "category":
            found.category = value.lower() if value.lower() in CATEGORIES else "other"


def points_of(text: str) -> tuple[str, ...]:
    """Selling points: one a line, or divided by semicolons, else by commas."""
    text = _BULLET.sub("", text)
    for separator in (r"\n", r"[;；]", rf"{_COMMA}|、"):
        parts = [part.strip(" \t-*•.。") for part in re.split(separator, text)]
        parts = [part for part in parts if part]
        if len(parts) > 1:
            return tuple(parts)
    return tuple(parts)


def phrases_of(text: str) -> tuple[str, ...]:
    """Phrases that may not be said, divided by commas, lines or "or"."""
    parts = re.split(r"[,，、;；\n]|\s+(?:or|and)\s+|[和或]", text)
    kept = (part.strip(" \t\"'“”‘’「」.。") for part in parts)
    return tuple(dict.fromkeys(part for part in kept if part))


def _range(low: int, high: int) -> tuple[int, int] | None:
    """None where it makes no sense. Longer than can be written becomes the longest that can."""
    if high > MAX_LENGTH:
        low, high = min(low, MAX_LENGTH * 8 // 10), MAX_LENGTH
    return (low, high) if 0 < low <= high else None


def _length(text: str, language: str, *, bare: bool = False) -> tuple[int, int] | None:
    """A length with its unit; `bare` takes numbers without one."""
    unit = f"(?:{_UNIT[language]})?" if bare else _UNIT[language]
    if found := re.search(rf"(\d+)\s*(?:-|–|—|~|～|to|and|到|至)\s*(\d+){unit}", text, re.I):
        return _range(int(found[1]), int(found[2]))
    # The least before the most: 不少于 holds 少于.
    if found := re.search(rf"{_LEAST}\s*(\d+){unit}|(\d+){unit}{_LEAST_AFTER}", text, re.I):
        n = int(found[1] or found[2])
        return _range(n, n * 3 // 2)
    if found := re.search(rf"{_MOST}\s*(\d+){unit}|(\d+)(?:{unit}|个?字){_MOST_AFTER}", text, re.I):
        n = int(found[1] or found[2])
        return _range(max(1, n * 6 // 10), n)
    if found := re.search(rf"(\d+){unit}", text, re.I):
        n = int(found[1])
        return _range(max(1, n * 8 // 10), n * 12 // 10)
    return None


def _emoji(text: str) -> tuple[int, int]:
    if _NO.match(text):
        return (0, 0)
    if found := re.search(r"(\d+)\s*(?:-|–|to|到|至)\s*(\d+)", text):
        return (int(found[1]), int(found[2])) if int(found[1]) <= int(found[2]) else (0, 0)
    if found := re.search(r"(\d+)", text):
        return (int(found[1]), int(found[1]))
    return (1, 2)


def _as_one_clause(listed: re.Match[str]) -> str:
    """A list that ends in "or", or whose phrases are quoted, with no comma at which it would be cut."""
    return re.sub(_COMMA, "、", listed[0])


def _english(text: str, found: _Found) -> None:
    rest: list[str] = []
    # "Larkbeam desk lamp for students: warm light; folds flat"
    if (named := _NAMED_EN.match(text)) and not (found.product or _FOR_EN.search(text) or _VERB_EN.search(text)):
        found.product, found.audience, text = _ARTICLE.sub("", named[1]), found.audience or named[2], named[3]
    text = _AVOID_LIST.sub(_as_one_clause, text)
    for clause in re.split(rf"{_COMMA}|[;\n]|(?<!\bmax)[.!?](?:\s|$)", text):
        clause = re.sub(r"^(?:and|but|please)\s+", "", clause.strip(), flags=re.I)
        if avoid := re.search(rf"{_AVOID}\s+(.+)$", clause, re.I):
            found.avoid = (*found.avoid, *phrases_of(re.sub(r"^the words?\s+", "", avoid[1], flags=re.I)))
            clause = clause[: avoid.start()].strip()
        if re.search(r"\bno (?:call to action|cta)\b", clause, re.I):
            found.call, clause = False, re.sub(r"\b(?:with )?no (?:call to action|cta)\b", "", clause, flags=re.I)
        if emoji := re.search(
            r"\b(no|without|with|use|(\d+)(?:\s*(?:-|to)\s*\d+)?)\s+(?:any\s+|some\s+)?emojis?\b", clause, re.I
        ):
            found.emoji = _emoji(emoji[1])
            clause = clause.replace(emoji[0], "")
        if length := _length(clause, "en"):
            found.length = found.length or length
            clause = _SAYS_LENGTH["en"].sub("", clause)
        if tone := re.search(r"(?:\bin\s+)?(?:\ban?\s+)?\b([\w-]+(?: and [\w-]+)?)\s+(?:tone|voice)\b", clause, re.I):
            found.tone = found.tone or tone[1]
            clause = clause.replace(tone[0], "")
        if not found.product and (asked := _FOR_EN.search(clause) or _VERB_EN.search(clause)):
            product, *more = _STOP_EN.split(asked[1].strip(), maxsplit=1)
            found.product = _ARTICLE.sub("", product).strip('"“”: ')
            clause = more[0] if more else ""
        clause = clause.strip()
        if audience := re.match(
            r"(?:for|aimed at|audience is)\s+(.+?)(?=\s+(?:with|that|which|featuring)\b|:|$)", clause, re.I
        ):
            found.audience = found.audience or audience[1].strip()
            clause = clause[audience.end() :].lstrip(":").strip()
        clause = re.sub(r"^(?:with|that is|that|which is|which|featuring|it is|it)\s+", "", clause, flags=re.I)
        if clause:
            rest.append(clause)
    if found.product and not found.points:
        found.points = tuple(point for clause in rest for point in re.split(r"\s+and\s+", clause) if point)


def _chinese(text: str, found: _Found) -> None:
    rest: list[str] = []
    placed = False  # the text names a place for the copy, and the product in another clause
    text = _AVOID_LIST_ZH.sub(_as_one_clause, _ASKING_ZH.sub("", text.strip()))
    for clause in re.split(rf"{_COMMA}|[。；！？;!?\n]", text):
        clause = clause.strip()
        if _LINE_ZH.match(clause):
            continue
        if avoid := re.search(rf"{_AVOID_ZH}(.+)$", clause):
            found.avoid = (*found.avoid, *phrases_of(avoid[1]))
            clause = clause[: avoid.start()]
        if re.search(r"(?:不要|不用|不带|不需要)行动号召", clause):
            found.call = False
            continue
        if emoji := re.search(r"(不要|不用|不带|无|别用|带|加|用|可以用)(\d*)个?(?:表情|emoji)(?:符号)?", clause, re.I):
            found.emoji = (0, 0) if emoji[1][0] in "不无别" else _emoji(emoji[2] or "yes")
            clause = clause.replace(emoji[0], "")
        if length := _length(clause, "zh"):
            found.length = found.length or length
            clause = _SAYS_LENGTH["zh"].sub("", clause)
        if tone := re.search(r"(?:语气|风格|口吻|调性)(?:要|是|为)?(.+)$|(.{1,8}?)的?(?:语气|风格|口吻)", clause):
            found.tone = found.tone or (tone[1] or tone[2]).strip("一点些的 ")
            clause = clause.replace(tone[0], "")
        if not found.product and (asked := _PRODUCT_ZH.search(clause) or _FOR_ZH.search(clause)):
            named = asked[1].strip() if asked.re is _PRODUCT_ZH else ""
            if named.startswith(("更", "再")):  # 更有活力的文案 names no product
                found.tone, named = found.tone or named[1:], ""
            whom = _FOR_ZH.search(clause)
            found.product = _OURS_ZH.sub("", named or (whom[1].strip() if whom else ""))
            if _PLACE_ZH.match(found.product):
                found.product, placed = "", True
                continue
            if named and whom:
                found.audience = found.audience or whom[1].strip()
            continue
        if audience := re.match(r"(?:给|面向|针对|目标人群是?|受众是?|适合)(.+?)(?:看|用)?的?$", clause):
            found.audience = found.audience or audience[1]
            continue
        if not found.product and (about := _ABOUT_ZH.match(clause)):
            found.product = about[1]
            continue
        if not found.tone and (tone := _TONE_ZH.match(clause)):
            found.tone = tone[1]
            continue
        if placed and not found.product and clause:
            found.product = clause
            continue
        clause = re.sub(r"^(?:卖点|特点|主打|突出|强调)(?:是|有|：|:)?", "", clause).strip()
        if clause:
            rest.append(clause)
    if found.product and not found.points:
        found.points = tuple(point for clause in rest for point in re.split(r"[、和]", clause) if point.strip())
