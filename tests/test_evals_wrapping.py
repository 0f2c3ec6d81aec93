"""What a chat model puts around the copy is found, and copy that only sounds like it is not."""

from __future__ import annotations

import pytest

from evals.lint import read_starter
from evals.suite import read_suite
from evals.wrapping import wrapping

AROUND = {
    "en": (
        ("Sure! Luma Dew is here.", "Sure!"),
        ("Here's your product copy:\nLuma Dew is here.", "Here's your product copy:"),
        ("Here is a friendly draft for the mist.\nLuma Dew is here.", "Here is a friendly draft"),
        ("Headline: Luma Dew is here.", "Headline:"),
        ("Luma Dew is here.\nTone: fresh", "Tone:"),
        ("Luma Dew is here. Let me know if you want changes.", "Let me know if"),
        ("Luma Dew is here. Would you like me to shorten it?", "Would you like me to"),
        ("As an AI I have no skin.", "As an AI"),
        ("Luma Dew is here. [Insert link]", "[Insert link]"),
        ("Luma Dew is here.<|im_end|>", "<|im_end|>"),
        ("```\nLuma Dew is here.\n```", "```"),
    ),
    "zh": (
        ("好的，露米来了。", "好的，"),
        ("以下是为您写的文案：\n露米来了。", "以下是为您写的文案："),
        ("标题：露米来了", "标题："),
        ("露米来了。\n语气：清新", "语气："),
        ("露米来了。如果您需要修改，请说。", "如果您需要修改"),
        ("作为一个AI，我没有皮肤。", "作为一个AI"),
        ("抱歉，我不能写。", "抱歉，我不能"),
    ),
}
COPY = {
    "en": (
        "Sure footing on wet rock.",
        "Of course it floats.",
        "Here is a lamp that waits for you.",
        "A mug for tea: blue, thick, yours.",
        "Feel free to roam.",
        "Let me know the mountains, said the boot.",
        "I hope you brought a towel.",
        "Prices from < 20 and > 10.",
    ),
    "zh": (
        "好的睡眠从枕头开始。",
        "以下是雨季，带把伞。",
        "当然可以放进手提包。",
        "没问题的鞋底。",
        "希望你喜欢这个夏天。",
        "如果你需要一盏灯，它在。",
        "这是一份留给清晨的安静：一杯茶。",
    ),
}


@pytest.mark.parametrize(("language", "row"), [(language, row) for language in AROUND for row in AROUND[language]])
def test_words_about_the_copy_are_found(language: str, row: tuple[str, str]) -> None:
    assert wrapping(row[0], language) == row[1]


@pytest.mark.parametrize(("language", "text"), [(language, text) for language in COPY for text in COPY[language]])
def test_copy_is_left_alone(language: str, text: str) -> None:
    assert wrapping(text, language) == ""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_text_that_people_wrote_has_any(language: str) -> None:
    texts = [pair.output for pair in read_starter(language) if pair.task.requirements.product]
    items = read_suite(language).items
    texts += [text for item in items if item.task.requirements.product for text in item.references]
    assert [found for text in texts if (found := wrapping(text, language))] == []
