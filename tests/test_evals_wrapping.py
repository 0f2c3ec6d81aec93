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
        ("Okay, here it is: Luma Dew.", "Okay,"),
        ("Of course,\nLuma Dew is here.", "Of course,"),
        ("Here's a shorter version:\nLuma Dew is here.", "Here's a shorter version:"),
        ("Here's the short version. Luma Dew is here.", "Here's the short version"),
        ("Luma Dew is here. I hope you like it!", "I hope you like"),
        ("Luma Dew is here. Feel free to ask for changes.", "Feel free to ask"),
        ("As an AI language model, I have no skin.", "As an AI"),
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
        ("当然，以下是文案。", "当然，"),
        ("没问题，\n露米来了。", "没问题，"),
        ("作为AI助手，我没有皮肤。", "作为AI"),
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
        "Sure, you could buy another plastic bottle.",
        "Okay, Monday. We are ready.",
        "Of course, the mountain is still there on Monday.",
        "Here's the travel version of the pillow you love: small and soft.",
        "It works as an AI coach on your wrist.",
        "We hope you like TrailPeak as much as our dog does.",
        "Questions? Feel free to ask our team at the front desk.",
        "Prices from < 20 and > 10.",
    ),
    "zh": (
        "好的睡眠从枕头开始。",
        "以下是雨季，带把伞。",
        "当然可以放进手提包。",
        "没问题的鞋底。",
        "作为AI翻译耳机，云栖一开口就懂你的意思。",
        "当然，好枕头不止柔软。",
        "没问题，周末的行李云栖全装下。",
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
