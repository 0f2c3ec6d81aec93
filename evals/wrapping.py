"""What a chat model puts around the copy and a copywriter would have to delete: openers, offers, labels, markup."""

from __future__ import annotations

import re

_MARKUP = (
    r"<\|[^|]*\|>|</?[a-z]+>|```|\[/?inst\]|^\s*[{\[]\s*\"|\[(?:insert|link|your|name|brand|product|url|add)\b[^\]]*\]"
)
_PATTERNS = {
    "en": (
        r"^(?:sure|certainly|of course|absolutely|okay|ok)\b[!,.:]",
        r"^(?:here(?:'s| is| are)|below is|this is) [^\n.]{0,80}:\s*$",
        r"^here(?:'s| is| are) (?:the|your|a|an|my|some) (?:\w+ ){0,3}(?:copy|draft|text|version|description)\b",
        r"^(?:version|option|draft|copy|product copy|product|title|subject|headline|assistant|user|answer|response)"
        r"(?: \d+)?:",
        r"^(?:audience|selling points|tone|length|format|emoji|call to action|avoid):",
        r"\blet me know (?:if|what|whether|how)\b",
        r"\bfeel free to (?:ask|adjust|modify|edit|change|let me|request)\b",
        r"\b(?:i hope|hope) (?:this|that|you) (?:helps|meets|works|like|find)\b",
        r"\bwould you like me to\b|\bas an ai\b|\bi(?:'m| am) sorry, but i (?:can't|cannot|am unable)\b",
        r"\bplease note (?:that )?(?:this|the above)\b",
    ),
    "zh": (
        r"^(?:好的|当然可以|当然|没问题)[，,！!。:：]",
        r"^(?:以下|下面|这)(?:是|为)[^\n。]{0,30}(?:文案|版本|草稿|内容)[^\n。]{0,6}(?:[:：]|$)",
        r"^(?:文案|产品文案|标题|版本|方案|产品|助手)(?:[一二三四五\d])?[:：]",
        r"^(?:受众|卖点|语气|长度|格式|表情|行动号召|避免)[:：]",
        r"如(?:果|有)?(?:您|你)?(?:还有|有|需要?)[^\n。]{0,14}(?:修改|调整|告诉我(?!们)|联系我(?!们))",
        r"希望(?:您|你)(?:喜欢|满意)[，,。！!][^\n]{0,10}(?:修改|意见|建议)|希望(?:这|以上)[^\n。]{0,8}对(?:您|你)有",
        r"作为(?:一个|一名)?(?:ai|人工智能)|(?:抱歉|对不起)，我(?:不能|无法)",
    ),
}
_RULES = {
    language: re.compile("|".join(f"(?:{part})" for part in (*parts, _MARKUP)), re.IGNORECASE | re.MULTILINE)
    for language, parts in _PATTERNS.items()
}
_QUOTES = str.maketrans("‘’", "''")


def wrapping(text: str, language: str) -> str:
    """The first words that are not copy but about it; "" where the text is copy alone."""
    found = _RULES[language].search(text.translate(_QUOTES))
    return found[0].strip() if found else ""
