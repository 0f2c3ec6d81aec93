"""Which claims product copy must not make, which words a person should look at, and which are innocent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.checks import Grade, score
from evals.claims import DATA, Claims, claims_in
from evals.lint import read_starter
from evals.suite import read_suite
from evals.text import comparable
from serving.prompt import task_of
from serving.records import Requirements, Task

INNOCENT = {
    "en": (
        "Best regards from the whole team.",
        "All the best for the new year!",
        "Made of 100% cotton, washed at home.",
        "Knit from 100 % merino wool.",
        "Woven from 100% organic Egyptian cotton.",
        "The shell is 100 percent recycled polyester.",
        "Charge it to 100% over lunch.",
        "A walk with your best friends.",
        "Take your best friend's advice.",
        "Best served chilled, with a slice of lime.",
        "Best if used within a week.",
        "Get the most out of a rainy Sunday.",
        "Make the most of the light.",
        "Leave the resin to cure overnight.",
        "The concrete cures in a day.",
        "Cured ham and secure lids.",
        "It is not a miracle, just a good brush.",
        "No miracles, no fuss.",
        "It isn't perfect, and we like it that way.",
        "We are not the cheapest.",
        "We can't guarantee sunshine.",
        "It comes with a two-year guarantee.",
        "A 30-day money-back guarantee is in the box.",
        "The only thing left is to lie down.",
        "Rule number one: sit down first.",
        "Get rich, dark flavor from slow roasting.",
        "Rest, test, request, harvest: almost every west-facing guest room.",
        "All the world's oceans on one map.",
        "We leave the world's forests standing.",
        "Built for the world's busiest airports.",
        "The number one rule of camp coffee: keep it simple.",
        "Print once-in-a-lifetime moments.",
        "Unmatched socks find a home here.",
        "Bottle no. 12 of the top 100.",
        "Water it when the top 1 inch is dry.",
        "#1: soak. #2: rinse.",
        "Our lifetime guarantee covers the zip.",
        "Soles of 100% natural rubber, poured over 100% pure maple syrup.",
        "Cure cold-smoked salmon slowly.",
        "Sewn as best we can; nobody's perfect.",
        "It does not claim to be the best.",
        "Nothing is perfect, least of all a hand-thrown mug.",
        "A treat for cold mornings; wrap it and prevent creases.",
    ),
    "zh": (
        "人生第一支口红，选它刚好。",
        "陪你过第一个冬天。",
        "开店第一年，先做好一碗面。",
        "第一次下厨也不慌，第一步只要烧水。",
        "清晨第一口，晚上第一杯，第一眼就想带走。",
        "第1次用的人也能上手。",
        "第一，洗净；第二，晾干。",
        "出门在外，安全第一。",
        "它总坐在店里最角落的位置。",
        "它不是最贵的，也不是最便宜的。",
        "我们并非第一，只是认真。",
        "100%纯棉，贴身穿也放心。",
        "面料是100 % 羊毛。",
        "百分百新疆长绒棉。",
        "含棉100%，机洗不怕。",
        "充到 100% 只要一小时。",
        "最后一件，最近上新，最早明天送到。",
        "孩子最爱的那一碗。",
        "最好先试一小块。",
        "最佳赏味期三天。",
        "最重要的是睡个好觉。",
        "唯一的烦恼是太快吃完。",
        "治愈系的小夜灯。",
        "入选 TOP10 书单。",
        "云栖青稞粉来自世界第一高峰脚下。",
        "最好的周末，是一壶云栖白茶。",
        "云栖老面馒头唯一的秘诀是慢。",
        "今天瘦肉粥管够，专治赖床。",
        "我们的第一家店，第一大口咬下去。",
        "最高气温三十度也不怕，最大容量500毫升。",
        "最好的朋友送的。",
        "没有最好，只有更好。",
        "国家级非遗传人的手艺。",
        "确保本店都是现做，环保本色。",
        "現在就放進手提包，開會也不怕。",
        "不追求最好，只求合脚。",
        "角落里唯一亮着的灯，唯一的一张椅子。",
        "孩子的世界第一次这么亮。",
        "经超高温瞬时灭菌，常温保存。",
    ),
}
SOFT = {
    "en": (
        ("The best mist for the train.", "best"),
        ("Perfect for commuters.", "perfect"),
        ("The ultimate travel mug.", "ultimate"),
        ("A flawless finish.", "flawless"),
        ("The most comfortable chair.", "the most"),
        ("The only bag you need.", "the only"),
        ("We give it 100%.", "100%"),
        ("Not the best. The best!", "best"),
        ("Our best-selling mug.", "best"),
        ("Proven to last.", "proven to"),
        ("The finest wool of the valley.", "the finest"),
        ("A zip that never breaks.", "never breaks"),
        ("Our experts recommend a cold wash.", "experts recommend"),
    ),
    "zh": (
        ("今年最温柔的颜色。", "最温柔"),
        ("這是最溫柔的顏色。", "最温柔"),
        ("通勤首选。", "首选"),
        ("妈妈心里永远第一。", "第一。"),
        ("给你100%的专注。", "100%"),
        ("可爱无敌。", "无敌"),
        ("质量第一", "第一"),
        ("永久保修。", "永久"),
        ("一盏治愈你的灯。", "治愈"),
        ("用料万无一失。", "万无一失"),
        ("杀菌喷雾。", "杀菌"),
    ),
}
HARD = {
    "en": (
        ("The number-one mist.", "number one"),
        ("Our #1 mist, the No. 1 choice.", "#1"),
        ("A scientifically-proven formula.", "scientifically proven"),
        ("Clinically proven to work.", "clinically proven"),
        ("Completely risk free.", "risk free"),
        ("A risk‑free start.", "risk free"),
        ("It is 100 % safe.", "100 % safe"),
        ("100% natural and 100 percent effective.", "100% natural"),
        ("The cheapest, safest mist.", "cheapest"),
        ("Simply the safest.", "safest"),
        ("The best-in-class mist.", "the best in class"),
        ("Your best-in-class mist.", "best in class"),
        ("The best mist on the market.", "best mist on the market"),
        ("The world's softest towel.", "the world's softest"),
        ("A world-class chair.", "world class"),
        ("It works, guaranteed.", "guaranteed"),
        ("We guarantee brighter skin.", "guarantee"),
        ("A small miracle.", "miracle"),
        ("It cures acne.", "cures acne"),
        ("Cure your insomnia tonight.", "cure your insomnia"),
        ("Unbeatable on price.", "unbeatable"),
        ("The finest wool, unrivalled.", "unrivalled"),
        ("The finest cashmere in the world.", "the finest cashmere in the world"),
        ("Doctors recommend it.", "doctors recommend"),
        ("Recommended by leading dermatologists.", "recommended by leading dermatologists"),
        ("It treats acne overnight.", "treats acne"),
        ("Relieves joint pain.", "relieves joint pain"),
        ("It kills 99.9% of germs.", "kills 99.9%"),
        ("Lose 10 pounds in a week.", "lose 10 pounds"),
        ("It helps you lose ten pounds in a week.", "lose ten pounds"),
        ("The world's busiest brand.", "the world's busiest"),
        ("The world's best trail shoe.", "the world's best"),
        ("FDA-approved.", "fda approved"),
        ("Not just soft: the most trusted brand.", "the most trusted"),
        ("No side effects.", "no side effects"),
        ("GUARANTEED", "guaranteed"),
        ("A guaranteed result.", "guaranteed"),
        ("It cures the common cold.", "cures the common cold"),
        ("The lowest price, ever.", "lowest price"),
        ("The first and only mist.", "first and only"),
    ),
    "zh": (
        ("全网NO.1", "no.1"),
        ("销量TOP1", "top1"),
        ("人气 TOP 1。", "top 1"),
        ("我们的#1", "#1"),
        ("全网第1", "全网第1"),
        ("國家級頂級配方", "国家级"),
        ("全國第一", "全国第一"),
        ("全国第一口碑", "全国第一"),
        ("全国第一支防晒口红", "全国第一"),
        ("第一口碑", "第一口碑"),
        ("天下第一天然", "天下第一"),
        ("第一天然", "第一天然"),
        ("用最上等的料", "最上等"),
        ("最前沿的科技", "最前沿"),
        ("最多人信赖的牌子", "最多人信赖"),
        ("最好的喷雾", "最好"),
        ("味道最佳", "最佳"),
        ("最先進的科技", "最先进"),
        ("它不是最贵的，却是最有效的", "最有效"),
        ("顶级配方", "顶级"),
        ("唯一的选择", "唯一"),
        ("独一无二", "独一无二"),
        ("全网最低价", "全网最低"),
        ("100%安全", "100%安全"),
        ("100 % 有效", "100 % 有效"),
        ("百分百纯天然", "百分百纯天然"),
        ("根治脱发", "根治"),
        ("治愈失眠", "治愈失眠"),
        ("销量冠军", "销量冠军"),
        ("世界領先的技術", "世界领先"),
        ("最好喝的豆浆", "最好"),
        ("无副作用", "无副作用"),
        ("不是第一，却是唯一", "唯一"),
        ("绝对安全", "绝对安全"),
        ("永久脱毛", "永久脱毛"),
        ("0副作用", "0副作用"),
        ("营养师强烈推荐", "营养师强烈推荐"),
        ("轻松治疗失眠", "治疗失眠"),
        ("增强免疫力", "增强免疫力"),
        ("全国首家工坊", "全国首家"),
        ("百分之一百安全", "百分之一百安全"),
        ("七天见效", "七天见效"),
        ("月瘦二十斤", "月瘦"),
        ("专治失眠", "专治"),
        ("国家免检产品", "国家免检"),
        ("驰名商标", "驰名商标"),
    ),
}


def brief(language: str, product: str = "Luma Dew", **changes: object) -> Task:
    return task_of(Requirements(product=product, **changes), language, "beauty")  # type: ignore[arg-type]


def found(text: str, language: str) -> Claims:
    return claims_in(comparable(text), brief(language))


def table(rows: dict[str, tuple[object, ...]]) -> list[tuple[str, object]]:
    return [(language, row) for language, own in rows.items() for row in own]


@pytest.mark.parametrize(("language", "text"), table({**INNOCENT}))
def test_innocent_sentences_make_no_claim(language: str, text: str) -> None:
    assert found(text, language) == Claims()


@pytest.mark.parametrize(("language", "row"), table({**SOFT}))
def test_doubtful_words_are_shown_to_a_person(language: str, row: tuple[str, str]) -> None:
    assert found(row[0], language) == Claims(soft=(row[1],))


@pytest.mark.parametrize(("language", "row"), table({**HARD}))
def test_absolute_and_unprovable_claims_are_found(language: str, row: tuple[str, str]) -> None:
    assert row[1] in found(row[0], language).hard


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_text_that_people_wrote_for_this_project_makes_a_claim(language: str) -> None:
    texts = [(pair.task, pair.output) for pair in read_starter(language)]
    texts += [(item.task, text) for item in read_suite(language).items for text in item.references]
    assert len(texts) > 400
    assert [text for task, text in texts if claims_in(comparable(text), task) != Claims()] == []


def test_what_the_brief_itself_says_is_no_claim() -> None:
    task = brief("en", "Best Foot socks", aliases=("The Number-One",), selling_points=(("100% safe dyes",),))
    assert claims_in(comparable("Best Foot socks, the number one. 100% safe dyes."), task) == Claims()
    assert claims_in(comparable("顶级熊出门了"), brief("zh", "頂級熊")) == Claims()


def test_a_hard_claim_fails_a_text_and_a_soft_one_makes_it_acceptable() -> None:
    texts = {
        "en": ("Luma Dew is {} light.", "guaranteed", "perfectly"),
        "zh": ("Luma Dew 是{}喷雾。", "顶级", "最柔和"),
    }
    for language, (text, hard, soft) in texts.items():
        task = brief(language)
        forbidden, doubtful = (score(text.format(word), task) for word in (hard, soft))
        assert (forbidden.grade, doubtful.grade) == (Grade.FAIL, Grade.ACCEPTABLE)
        assert hard in forbidden.claim
        assert doubtful.claim == ""
        assert [check.kind for check in doubtful.checks if not check.passed] == ["wording"]
        assert soft in doubtful.reasons[0]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Notes: Ana said the number one risk is time; best regards."),
        ("zh", "会议纪要：最好的方案是唯一的方案。"),
    ],
)
def test_meeting_notes_and_replies_are_not_searched_for_claims(language: str, text: str) -> None:
    notes = Task("Write the meeting notes.", "Ana, Bo", language, "office")
    assert not {"claims", "wording"} & {check.kind for check in score(text, notes).checks}


@settings(deadline=None)
@given(text=st.text(max_size=200), language=st.sampled_from(["en", "zh"]))
def test_any_text_can_be_searched(text: str, language: str) -> None:
    found(text, language)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_claims_files_hold_no_rule_twice(language: str) -> None:
    lines = (DATA / f"claims_{language}.txt").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert len(rules) == len(set(rules))
    assert not [rule for rule in rules if rule != rule.strip()]
