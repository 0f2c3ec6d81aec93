"""When a text says a selling point."""

from __future__ import annotations

import pytest

from evals.numbers import in_digits
from evals.points import says
from evals.text import comparable, plain


def said(text: str, *point: str) -> bool:
    return says(comparable(text), point, "en" if text.isascii() and point[0].isascii() else "zh")


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("Not only waterproof but light.", "waterproof"),
        ("Not just waterproof; it floats.", "waterproof"),
        ("No seams, waterproof all over.", "waterproof"),
        ("It leaves no residue and sinks in quickly.", "sinks in quickly"),
        ("No frills: waterproof, light, done.", "waterproof"),
        ("Never leave home without an eight-hour battery.", "eight-hour battery"),
        ("Not without waterproof seams.", "waterproof seams"),
        ("A shirt that is not heavy. Waterproof, too.", "waterproof"),
        ("It is not waterproof on paper only. It is waterproof.", "waterproof"),
        ("It will not melt.", "will not melt"),
        ("Craving gluten-free pasta? No need to compromise: it is here.", "gluten-free pasta"),
        ("Need a fast charge? No problem. Plug it in.", "fast charge"),
        ("Sweat-resistant shells.", "sweat-resistant shell"),
        ("不仅防水，还轻。", "防水"),
        ("不只防水，不但防水，不光防水。", "防水"),
        ("非常防水。", "防水"),
        ("不得不说，防水。", "防水"),
        ("无不防水。", "防水"),
        ("不能不防水。", "防水"),
        ("是不是防水，一试便知。", "防水"),
        ("不少防水款都重，它轻。", "防水"),
        ("防水没有问题。", "防水"),
        ("不怕雨，防水。", "防水"),
        ("洗完不拔干。", "洗完不拔干"),
        ("想要低糖？不必将就，一口就懂。", "低糖"),
        ("想要长效保温？不用每小时续热水，它热着。", "长效保温"),
    ],
)
def test_innocent_words_before_a_point_do_not_deny_it(text: str, point: str) -> None:
    assert said(text, point)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("It is not waterproof.", "waterproof"),
        ("It isn't waterproof.", "waterproof"),
        ("It is not really waterproof.", "waterproof"),
        ("There is no eight-hour battery.", "eight-hour battery"),
        ("There is no 8-hour battery.", "eight-hour battery"),
        ("It does not have an eight-hour battery.", "eight-hour battery"),
        ("It comes without a 5L tank.", "5L tank"),
        ("It is not warm or waterproof.", "waterproof"),
        ("It is neither warm nor waterproof.", "waterproof"),
        ("5L tank sold separately.", "5L tank"),
        ("The eight-hour battery is not included.", "eight-hour battery"),
        ("这款不防水。", "防水"),
        ("它是不防水的。", "防水"),
        ("没有八小时续航。", "八小时续航"),
        ("没有8小时续航。", "八小时续航"),
        ("也不带5L水箱。", "5L水箱"),
        ("并不是防水的。", "防水"),
        ("无法防水。", "防水"),
        ("5L水箱另购。", "5L水箱"),
        ("Waterproof? No.", "waterproof"),
        ("Waterproof? No, it drinks rain.", "waterproof"),
        ("Waterproof? Not really.", "waterproof"),
        ("Waterproof? Hardly!", "waterproof"),
        ("防水？想多了。", "防水"),
        ("防水？不，它怕雨。", "防水"),
        ("防水？没有。", "防水"),
        ("防水？不存在的。", "防水"),
    ],
)
def test_a_denied_point_is_not_said(text: str, point: str) -> None:
    assert not said(text, point)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("It runs 12 hours.", "12 hours"),
        ("It runs twelve hours.", "12 hours"),
        ("It runs 12 h.", "12 hours"),
        ("It runs 12h.", "twelve hours"),
        ("A 12-hour battery.", "twelve-hour battery"),
        ("A twelve hour battery.", "12-hour battery"),
        ("Twenty-two hours.", "22 hours"),
        ("A 5 L tank.", "5L tank"),
        ("A five-liter tank.", "5 litre tank"),
        ("Opens with 1 hand.", "opens with one hand"),
        ("续航12小时。", "续航十二小时"),
        ("续航 12 小时。", "续航十二小时"),
        ("续航十二个小时。", "续航12小时"),
        ("续航12h。", "续航十二小时"),
        ("续航十二\n小时。", "续航12小时"),
        ("耐热200度。", "耐热二百度"),
        ("耐热一百二十度。", "耐热120度"),
        ("二〇二六年上新。", "2026年上新"),
        ("5升水箱。", "5L水箱"),
        ("统一三天出小样。", "三天出小样"),
        ("百搭。", "百搭"),
    ],
)
def test_an_amount_counts_however_it_is_spelt(text: str, point: str) -> None:
    assert said(text, point)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("It runs 112 hours.", "12 hours"),
        ("It runs 1.2 hours.", "2 hours"),
        ("It runs 1.2 hours.", "12 hours"),
        ("It runs 1,012 hours.", "12 hours"),
        ("It holds a 2.5L tank.", "5L tank"),
        ("A twenty-two-person crew.", "two-person crew"),
        ("One hundred two phones.", "two phones"),
        ("It costs 12.50.", "costs 12"),
        ("It costs 12,000.", "costs 12"),
        ("It runs 120 hours.", "12 hours"),
        ("续航112小时。", "12小时"),
        ("续航1.2小时。", "2小时"),
        ("续航二十二小时。", "二小时"),
        ("二十分钟一把。", "十分钟一把"),
        ("续航十二小时。", "续航二小时"),
        ("2.5L水箱。", "5L水箱"),
        ("只要12万。", "只要12"),
    ],
)
def test_a_part_of_a_number_is_another_number(text: str, point: str) -> None:
    assert not said(text, point)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("It fits easily into your handbag.", "fits in a handbag"),
        ("A small-batch roasted coffee.", "roasted in small batches"),
        ("The handles are soft rope.", "soft rope handles"),
        ("Lightly sweetened, with a little maple.", "lightly sweetened with maple"),
        ("Folding flat takes a second.", "folds flat"),
        ("It stays cold for a full 12 hours.", "keeps cold for 12 hours; stays cold 12 hours"),
        ("The cap won't ever leak.", "cap that never leaks"),
        ("A battery for 40 hours.", "40-hour battery"),
        ("It holds two full loads.", "holds two loads"),
        ("Serves up to 5, and it cooks fast.", "cooks fast, serves 5"),
    ],
)
def test_a_point_in_other_forms_and_another_order_is_said(text: str, point: str) -> None:
    assert said(text, *point.split("; "))


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("It does not fit in your handbag.", "fits in a handbag"),
        ("It fits no handbag.", "fits in a handbag"),
        ("Sweetened, but without any maple.", "sweetened with maple"),
        ("The cap leaks.", "cap that never leaks"),
        ("Folds in a second. It lies flat.", "folds flat"),
        ("Folds away under any bed, on any shelf, and the lid is flat.", "folds flat"),
        ("It stays cold for 112 hours.", "cold for 12 hours"),
        ("Hot for 12 hours and cold for 6.", "cold for 12 hours and hot for 6"),
        ("It is a handbag.", "fits in a handbag"),
        ("TrailPeak comes with a 2-year warranty and ships in 5 days.", "5-year warranty"),
        ("An 8-hour battery, 40 mm drivers.", "40-hour battery"),
        ("An 8-hour battery and 12 colors.", "12-hour battery"),
        ("An 8-hour battery, 12 colors and hours of fun.", "12-hour battery"),
        ("It cooks in 20 minutes and serves 5.", "cooks in 5 minutes"),
        ("It cooks in 20 minutes and serves 5.", "cooks in 5"),
        ("Waterproof to 3 meters with 10 straps.", "waterproof to 10 meters"),
    ],
)
def test_the_same_words_apart_denied_or_with_numbers_exchanged_do_not_say_it(text: str, point: str) -> None:
    assert not said(text, point)


def test_any_phrasing_counts() -> None:
    assert said("Battery for 8 hours.", "eight-hour battery", "battery for eight hours")
    assert said("八小时续航。", "长续航", "续航八小时", "8小时续航")


@pytest.mark.parametrize(
    ("text", "language", "digits"),
    [
        ("twenty-two 5-hr days, usb3 and 10 min.", "en", "22 5 hour days, usb3 and 10 minute."),
        ("一百零五克、十二 个小时、三千二百、百搭", "zh", "105克、12小时、3200、百搭"),
    ],
)
def test_numbers_are_written_in_digits(text: str, language: str, digits: str) -> None:
    assert in_digits(plain(text), language) == digits
