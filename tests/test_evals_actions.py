"""Does a text end by asking: tables of sentences, and every text by people."""

from __future__ import annotations

import pytest

from evals.actions import asks
from evals.lint import read_starter
from evals.suite import read_suite
from serving.records import Task

ASKING_EN = [
    "Grab yours today!",
    "Don't miss out!",
    "Shop now! #newin #skincare",
    "Order yours today. ✨🌿",
    "Try it tonight! 👉",
    "Treat yourself today.",
    "Get yours before they're gone.",
    "Why not try it today?",
    "Ready to glow? Tap the link in bio.",
    "Click the link below to order.",
    "It's time to upgrade your mornings.",
    "Your new favorite mug is waiting, so order now.",
    "For softer skin, try it tonight.",
    "Before the rain comes, pack one.",
    "Join us on Saturday.",
    "👉 Add to cart now",
    "Hurry, the sale ends Sunday!",
    "Snag a pair while they last.",
    "Say goodbye to tangles today!",
    "Let's get cooking.",
    "Visit our store this weekend.",
    "Claim your spot before it fills up!",
    "Make Monday softer.",
    "Bring the beach home tonight. 🏖️ #summer",
    "If your mornings are slow, brew a cup.",
    "Swing by for a taste.",
    "Do your skin a favor.",
    "Be first in line on Friday.",
    "Start your trial today!",
    "Find yours online.",
    "Act fast, stock is small.",
    "Check it out today.",
    "You deserve a break, so book one.",
    "Discover the range.",
    "Upgrade your desk today!",
    "Experience the difference tonight.",
    "Limited stock - order soon.",
    "Give one to a friend.",
    "Let your hair down.",
]
TELLING_EN = [
    "Light, soft and warm.",
    "Comfort, style and value in one bag.",
    "Design meets function.",
    "Smooth, quiet and ready for work.",
    "Your skin will thank you.",
    "It fits in any handbag.",
    "Made for long days.",
    "The finish is never sticky.",
    "Perfect for cold mornings.",
    "A small bottle for a big day.",
    "Every cup starts with fresh beans.",
    "Light enough for any trip.",
    "Test results come in two days.",
    "Work feels easier with it.",
    "Lasts all day, washes in minutes.",
    "Cool, clean and calm.",
    "You get two speeds and a timer.",
    "Water, soap and sunlight are all it needs.",
    "We ship in two days. #newin 🌿",
    "Warm, dry and light on your feet.",
    "Clean lines and calm colors suit any room.",
    "A gift they will use every day.",
    "Rich taste, low effort.",
    "Now available in three sizes.",
    "Your mornings just got easier.",
    "Built to last.",
    "Brewed slowly and bottled cold.",
    "It is ready when you are.",
    "Charge times are short, too.",
    "Step sizes are easy to read.",
    "Fresh scent, clean finish.",
    "Simple to use and easy to store.",
    "That is what a good towel does.",
    "Two pockets hold your phone and keys.",
    "One bottle lasts a month.",
    "Soft on skin, tough on stains.",
    "Each pair is knitted in Maine.",
    "Just water and ten minutes.",
]
ASKING_ZH = [
    "立即抢购！",
    "马上入手吧！",
    "快来试试吧",
    "点击下单",
    "戳链接带回家。",
    "赶紧安排上！",
    "心动不如行动！",
    "别错过这次好价。",
    "现在就下单，让早晨多一点香气。",
    "欢迎到店体验。",
    "快把它带回家吧🎉",
    "今天就来一杯。",
    "冲就完了！",
    "加入购物车吧。 #好物",
    "给自己一个拥抱的理由，今晚就试。",
    "不妨今晚试一试。",
    "点击链接，了解更多。",
    "收藏起来，下次出门用得上。",
    "扫码领券，先到先得。",
    "一起来露营吧！",
    "赶快把它带走吧！",
    "喜欢就买。",
    "还等什么？",
    "现在下单，明天就到。",
    "今晚，给自己煮一碗。",
    "快戳左下角！",
    "添一件给爸爸。",
    "周末一起出发。",
    "心动就来。",
    "选它，准没错。",
    "和朋友分享这份甜。",
    "一键下单，轻松到家。",
    "约上三五好友，开喝！",
    "拿起它，出门走走。",
    "赶上换季，入一件吧。",
    "别再犹豫。",
    "记得回购哦。",
    "让它陪你过冬吧。",
    "到店试穿。",
    "动动手指，把春天带回家。",
]
TELLING_ZH = [
    "一口下去，满满幸福。",
    "轻松收纳，生活更从容。",
    "每一口都是阳光的味道。",
    "陪你度过每个夜晚。",
    "用心做好每一碗面。",
    "送礼自用两相宜。",
    "一抹清凉，整日舒爽。",
    "穿上身轻盈透气。",
    "放进包里毫无负担。",
    "开盖即食，省时省力。",
    "来自云南的阳光与雨露。",
    "随手一放，满屋清香。",
    "清爽一整天。",
    "让肌肤喝饱水。",
    "拿在手里轻巧顺滑。",
    "带来舒适的睡眠体验。",
    "喝一口，整个下午都清爽了。",
    "打开窗户，满是花香。",
    "先锋设计，匠心之选。🌿",
    "入口即化，甜而不腻。",
    "细腻丝滑，久留余香。",
    "一杯入喉，暖到心里。",
    "它懂你的每一次出发。",
    "轻轻一按，光就亮了。",
    "走路带风，脚下生云。",
    "给你家的温暖。",
    "用一次就爱上。",
    "通勤路上的好搭档。",
    "穿一整天也不累。",
    "加班的夜里有它陪着。",
    "放在床头，一夜安眠。",
    "这就是夏天的味道。",
    "安静得像一片云。",
    "打开盒子，香气扑鼻。",
    "装得下一家人的周末。",
    "每天都有好心情。",
    "好看，也好用。",
    "洗完不用晾，折好就收。",
    "做工精细，用着放心。",
]


@pytest.mark.parametrize(
    ("language", "text"), [("en", text) for text in ASKING_EN] + [("zh", text) for text in ASKING_ZH]
)
def test_a_sentence_that_asks_is_a_call_to_action(language: str, text: str) -> None:
    assert asks(text, language)


@pytest.mark.parametrize(
    ("language", "text"), [("en", text) for text in TELLING_EN] + [("zh", text) for text in TELLING_ZH]
)
def test_a_sentence_that_tells_is_none(language: str, text: str) -> None:
    assert not asks(text, language)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("It is soft.\nOrder yours today! ✨\n#newin #skincare", "en"),
        ("It is soft. Order yours today!\n---", "en"),
        ("很轻。今天就带一瓶走！🌿\n#好物推荐# #护肤", "zh"),
    ],
)
def test_hashtags_emoji_and_lines_after_the_last_sentence_do_not_hide_it(text: str, language: str) -> None:
    assert asks(text, language)


def test_a_number_sign_is_no_hashtag() -> None:
    assert not asks("Try it. It became our #1 mug.", "en")


def test_a_chinese_sentence_about_the_product_tells() -> None:
    assert asks("带两瓶走。", "zh", ("露米",))
    assert not asks("露米给早晨添一道光。", "zh", ("露米",))
    assert asks("云栖 Pro给早晨添一道光。", "zh")
    assert not asks("云栖 Pro给早晨添一道光。", "zh", ("云栖Pro",))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_by_people_ask_where_their_brief_wants_it(language: str) -> None:
    texts: list[tuple[Task, str]] = [(pair.task, pair.output) for pair in read_starter(language)]
    texts += [(item.task, text) for item in read_suite(language).items for text in item.references]
    wanted = {True: 0, False: 0}
    wrong = []
    for task, text in texts:
        needs = task.requirements
        if needs.call_to_action is None or not needs.product:
            continue
        wanted[needs.call_to_action] += 1
        if asks(text, language, (needs.product, *needs.aliases)) is not needs.call_to_action:
            wrong.append(text)
    assert wanted[True] > 400
    assert wanted[False] > 50
    assert wrong == []
