"""What a chat model puts around the copy and a copywriter would have to delete: openers, offers, labels, markup."""

from __future__ import annotations

import re

# At the start of a line.
_OPENERS = {
    "en": (
        # With a comma it opens copy too: "Of course, the mountain is still there on Monday."
        r"(?:sure|certainly|of course|absolutely|okay|ok)\b(?:[!.:]|,(?=\s*$|\s*(?:here|below|i|this is|these are)\b))",
        r"(?:here(?:'s| is| are)|below is|this is) [^\n.]{0,80}:\s*$",
        r"here(?:'s| is| are) (?:the|your|a|an|my|some) (?:\w+ ){0,3}"
        r"(?:copy|draft|text|description|version(?! (?:of|for)\b))\b",
        r"(?:version|option|draft|copy|product copy|product|title|subject|headline|assistant|user|answer|response)"
        r"(?: \d+)?:",
        r"(?:audience|selling points|tone|length|format|emoji|call to action|avoid):",
    ),
    "zh": (
        r"好的[，,]|(?:好的|当然可以|当然|没问题)(?:[！!。:：]|[，,](?=\s*(?:$|这是|以下|下面|我)))",
        r"(?:以下|下面|这)(?:是|为)[^\n。]{0,30}(?:文案|版本|草稿|内容)[^\n。]{0,6}(?:[:：]|$)",
        r"(?:文案|产品文案|标题|版本|方案|产品|助手)(?:[一二三四五\d])?[:：]",
        r"(?:受众|卖点|语气|长度|格式|表情|行动号召|避免)[:：]",
    ),
}
# Anywhere, by what the text must hold for a rule to be worth a search: most texts hold none of it.
_MARKUP = {
    "<": r"<\|[^|]*\|>|</?[a-z]+>",
    "```": r"```",
    "[": r"\[/?inst\]|^\s*\[\s*\"|\[(?:insert|link|your|name|brand|product|url|add)\b[^\]]*\]",
    "{": r"^\s*{\s*\"",
}
_INSIDE = {
    "en": {
        "let me know": r"\blet me know (?:if|what|whether|how)\b",
        "feel free to": r"\bfeel free to (?:ask|adjust|modify|edit|change|let me|request)\b(?! (?:our|us|the|in)\b)",
        "hope": r"\b(?:i hope|hope) (?:this|that) (?:helps|meets|works)\b"
        r"|\b(?:i hope|(?<!\bwe )hope) (?:this|that|you) (?:like|find)\b",
        "would you like me to": r"\bwould you like me to\b",
        "as an ai": r"\bas an ai(?=(?: (?:assistant|model|writer|copywriter))?,? i\b| language model\b)",
        "sorry, but i": r"\bi(?:'m| am) sorry, but i (?:can't|cannot|am unable)\b",
        "please note": r"\bplease note (?:that )?(?:this|the above)\b",
    },
    "zh": {
        "如": r"如(?:果|有)?(?:您|你)?(?:还有|有|需要?)[^\n。]{0,14}(?:修改|调整|告诉我(?!们)|联系我(?!们))",
        "希望": r"希望(?:您|你)(?:喜欢|满意)[，,。！!][^\n]{0,10}(?:修改|意见|建议)",
        "对": r"希望(?:这|以上)[^\n。]{0,8}对(?:您|你)有",
        "作为": r"作为(?:一个|一名)?(?:ai|人工智能)(?=(?:助手|助理|模型)?[，,]?我|大?语言模型)",
        "，我": r"(?:抱歉|对不起)，我(?:不能|无法)",
    },
}
_FLAGS = re.IGNORECASE | re.MULTILINE
_OPENS = {language: re.compile("|".join(parts), _FLAGS) for language, parts in _OPENERS.items()}
_RULES = {
    language: [(cue, re.compile(rule, _FLAGS)) for cue, rule in (*rules.items(), *_MARKUP.items())]
    for language, rules in _INSIDE.items()
}


def wrapping(text: str, language: str) -> str:
    """The first words that are not copy but about it; "" where the text is copy alone."""
    text = text.replace("‘", "'").replace("’", "'")
    lower = text.lower()
    starts = [0, *(end + 1 for end, character in enumerate(text) if character == "\n")]
    found = [_OPENS[language].match(text, start) for start in starts]
    found += [rule.search(text) for cue, rule in _RULES[language] if cue in lower]
    first = min(filter(None, found), key=re.Match.start, default=None)
    return first[0].strip() if first else ""
