"""Asking, rating, correcting and deciding, by the real Bolt over the sandbox's socket."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from bot_world import BRIEF, BRIEF_ZH, offers, refused_in, running, scored, scored_in_chinese, until, world
from openai_double import Answer

from serving.records import Decision, PairSource, RatingSource, Verdict
from serving.store import BASE

pytestmark = pytest.mark.socket


async def test_a_mention_is_drafted_rated_and_corrected(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        assert draft["blocks"][0]["text"] == "Warm light for late pages. Try it tonight."
        note = (await it.anna.thread("C_COPY", ts))[0]
        assert "Larkbeam desk lamp · for students · warm dimmable light; folds flat" in note["text"]
        await it.anna.press("C_COPY", draft["ts"], "rate", "negative")
        asked = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"], thread_ts=ts)
        await it.anna.press("C_COPY", asked["ts"], "reason:tone")
        assert [(r.verdict, r.reason) for r in it.store.ratings()] == [(Verdict.DOWN, "tone")]
        await it.anna.press("C_COPY", draft["ts"], "correct")
        view = await it.anna.wait_modal(callback_id="correct_view")
        same = await it.anna.submit(view)
        assert same == {"text0": "This is the draft as it was. Change it, or close this and press “Good” to keep it."}
        assert await it.anna.submit(view, {"text": "Warm light for late readers. Try it tonight."}) is None
        shown = await it.anna.wait_message("C_COPY", lambda m: "corrected" in m["text"], thread_ts=ts)
        assert shown["blocks"][1]["text"] == "Warm light for late ~~pages.~~ **readers.** Try it tonight."
        (pair,) = it.store.pairs()
        assert (pair.source, pair.output) == (PairSource.CORRECTION, "Warm light for late readers. Try it tonight.")


async def test_thanks_say_what_becomes_of_the_draft(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        await it.liwei.react("C_COPY", draft["ts"], "-1")
        await until(lambda: len(it.store.ratings()) == 1)
        await it.anna.press("C_COPY", draft["ts"], "rate", "positive")
        told = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"], thread_ts=ts)
        assert told["text"] == "Thanks. Somebody else found it not good, so it is no example for now."
        await it.liwei.unreact("C_COPY", draft["ts"], "-1")
        await until(lambda: len(it.store.ratings()) == 1)
        await it.mara.press("C_COPY", draft["ts"], "rate", "positive")
        told = await it.mara.wait_message("C_COPY", lambda m: m["ephemeral"], thread_ts=ts)
        assert told["text"] == "Thanks. This draft will be an example for the next round."


async def test_a_wrong_correction_is_undone_by_the_drafts_own_text(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        await it.liwei.press("C_COPY", draft["ts"], "correct")
        assert await it.liwei.submit(await it.liwei.wait_modal(), {"text": "Buy it."}) is None
        await it.anna.press("C_COPY", draft["ts"], "correct")
        view = await it.anna.wait_modal(callback_id="correct_view")
        same = await it.anna.submit(view)
        assert same == {"text0": "This is the text as it was corrected last. Change it, or close this to leave it so."}
        original = "Warm light for late pages. Try it tonight."
        assert await it.anna.submit(view, {"text": original}) is None
        await it.anna.wait_message("C_COPY", lambda m: m["text"] == "<@U_ANNA> corrected the draft:", thread_ts=ts)
        assert [(pair.output, pair.author) for pair in it.store.pairs()] == [(original, "U_ANNA")]


async def test_a_chinese_reader_is_answered_in_chinese(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engine.default = Answer(("云朵保温杯，", "保温12小时，", "一键开盖。", "今天就带上它。"))
        ts = await it.liwei.say(it.liwei.dm, BRIEF_ZH)
        draft = await it.draft(it.liwei, it.liwei.dm, ts)
        assert "基础模型 · 19 字 · 要求 48–72" in json.dumps(draft["blocks"], ensure_ascii=False)
        await it.liwei.react(it.liwei.dm, draft["ts"], "+1")
        await it.sandbox.socket_mode.settle()
        assert [(r.verdict, r.source) for r in it.store.ratings()] == [(Verdict.UP, RatingSource.REACTION)]
        assert it.engine.asked[0]["messages"][1]["content"].startswith("为「云朵保温杯」写一段产品文案。")
        await it.liwei.unreact(it.liwei.dm, draft["ts"], "+1")
        await it.sandbox.socket_mode.settle()
        assert it.store.ratings() == []


async def test_the_same_event_three_times_makes_one_draft_and_one_rating(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.sandbox.duplicate_events(100)
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        await it.anna.react("C_COPY", draft["ts"], "-1")
        asked = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"], thread_ts=ts)
        await it.sandbox.socket_mode.settle()
        assert len(it.store.drafts()) == len(it.store.ratings()) == 1
        whispers = [m["ts"] for m in await it.anna.thread("C_COPY", ts) if m["ephemeral"]]
        assert whispers == [asked["ts"]]


async def test_a_command_without_text_opens_the_form_and_change_brings_it_back_filled(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.anna.slash("/copy", "", "C_COPY")
        view = await it.anna.wait_modal(callback_id="ask_view")
        assert await it.anna.submit(view, {"product": "Kettlewick bars", "length_min": "40", "length_max": "30"}) == {
            "length_max": "The longest must be at least the shortest (40)."
        }
        filled = {"product": "Kettlewick bars", "selling_points": "honey, baked\nsmall", "category": "food"}
        assert await it.anna.submit(view, {**filled, "length_min": "", "length_max": ""}) is None
        note = await it.anna.wait_message("C_COPY", lambda m: offers(m, "change"))
        await it.draft(it.anna, "C_COPY", note["ts"])
        await it.anna.press("C_COPY", note["ts"], "change")
        again = await it.anna.wait_modal(callback_id="ask_view")
        assert again.inputs["product"]["initial_value"] == "Kettlewick bars"
        assert again.inputs["selling_points"]["initial_value"] == "honey, baked\nsmall"
        task = it.store.brief(1).task
        assert (task.category, task.requirements.length) == ("food", (25, 45))


async def test_change_keeps_what_was_not_touched_and_a_long_text_may_take_more_tokens(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        text = "*Product:* Larkbeam lamp\n*Format:* list\n*Emoji:* 3\n*Length:* 240-300 words"
        ts = await it.anna.mention("C_COPY", text)
        await it.draft(it.anna, "C_COPY", ts)
        (note,) = [m for m in await it.anna.thread("C_COPY", ts) if offers(m, "change")]
        await it.anna.press("C_COPY", note["ts"], "change")
        assert await it.anna.submit(await it.anna.wait_modal(callback_id="ask_view"), {"tone": "dry"}) is None
        await it.anna.wait_message("C_COPY", lambda m: offers(m, "change") and "dry" in m["text"], thread_ts=ts)
        before, after = (it.store.brief(n).task.requirements for n in (1, 2))
        assert (before.product, before.format, before.emoji) == ("Larkbeam lamp", "list", (3, 3))
        assert after == replace(before, tone="dry")
        assert it.engine.asked[0]["max_tokens"] == 600


async def test_try_again_drafts_the_same_brief_once_more(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.anna.slash("/copy", BRIEF, "C_COPY")
        note = await it.anna.wait_message("C_COPY", lambda m: offers(m, "change"))
        draft = await it.draft(it.anna, "C_COPY", note["ts"])
        await it.anna.press("C_COPY", draft["ts"], "again")
        await it.anna.wait_message(
            "C_COPY", lambda m: offers(m, "correct") and m["ts"] != draft["ts"], thread_ts=note["ts"]
        )
        assert [d.brief_id for d in it.store.drafts()] == [1, 1]


async def test_a_brief_that_is_too_long_or_empty_is_answered_with_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.say(it.anna.dm, "x" * 10_000)
        reply = await it.anna.wait_message(it.anna.dm, thread_ts=ts)
        assert "has 10000 characters; I read up to 4000" in reply["text"]
        empty = await it.liwei.mention("C_COPY", "")
        reply = await it.liwei.wait_message("C_COPY", thread_ts=empty)
        assert reply["text"].startswith("告诉我写什么")
        assert it.store.waiting_requests() == it.store.drafts() == []


async def test_what_the_model_writes_cannot_ping_or_link(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engine.default = Answer(("<!chan", "nel> <@U_MARA> ", "[free](http://x.example) ", "# **now**"))
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        text = "&lt;\\!channel&gt; &lt;@U\\_MARA&gt; \\[free\\](http:\\//x.example) # \\*\\*now\\*\\*"
        assert draft["blocks"][0]["text"] == text
        assert it.store.drafts()[0].text == "<!channel> <@U_MARA> [free](http://x.example) # **now**"


async def test_a_button_on_a_draft_that_is_gone_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.liwei.mention("C_COPY", BRIEF_ZH)
        draft = await it.draft(it.liwei, "C_COPY", ts)
        with it.store.transaction() as db:
            db.execute("DELETE FROM drafts")
        await it.liwei.press("C_COPY", draft["ts"], "rate", "positive")
        told = await it.liwei.wait_message("C_COPY", lambda m: m["ephemeral"], thread_ts=ts)
        assert told["text"] == "这一稿已经不在了，请重新提需求。"


async def test_the_shortcut_on_a_message_that_is_no_draft_explains_itself(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.say("C_COPY", "good morning")
        await it.anna.shortcut("correct_draft", "C_COPY", ts)
        view = await it.anna.wait_modal()
        assert "not a draft of mine" in view.blocks[0]["text"]["text"]


async def test_app_home_tells_in_the_persons_language_what_is_live(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.liwei.open_home()
        view = await it.liwei.home()
        assert view.blocks[1]["text"]["text"] == "现在由 基础模型 写草稿。"
        await it.anna.open_dm()
        greeting = await it.anna.wait_message(it.anna.dm)
        assert greeting["text"].startswith("Tell me what to write")


async def test_a_draft_under_way_ends_on_its_version_and_the_next_one_takes_the_new(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engine.default = Answer(tuple(f"word{n} " for n in range(20)), pause=0.1)
        version = scored(it)

        async def begun() -> str:
            ts = await it.anna.mention("C_COPY", BRIEF)
            await it.anna.wait_message("C_COPY", lambda m: m["text"].startswith("word0"), thread_ts=ts)
            return ts

        threads = [await begun()]
        it.store.decide(version.name, Decision.APPROVED, digest=version.digest, user="U_MARA")
        threads.append(await begun())
        it.store.decide(BASE, Decision.ROLLED_BACK, digest="", user="U_MARA", expected_live=version.name)
        threads.append(await begun())
        for ts in threads:
            await it.draft(it.anna, "C_COPY", ts)
        assert [asked["model"] for asked in it.engine.asked] == [BASE, version.name, BASE]
        drafts = sorted(it.store.drafts(), key=lambda draft: draft.id)
        assert {draft.version for draft in drafts} == {BASE, version.name}
        wrote = {it.store.brief(draft.brief_id).thread_ts: draft.version for draft in drafts}
        assert [wrote[ts] for ts in threads] == [BASE, version.name, BASE]


async def test_only_a_lead_approves_once_and_the_next_draft_is_written_by_the_version(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        card = await it.card(it.anna, version.name)
        assert card["blocks"][0]["text"]["text"] == "copy-0001 passes in English"
        picture = await it.anna.wait_message("C_COPY", lambda m: bool(m.get("files")), thread_ts=card["ts"])
        assert picture["files"][0]["name"] == "copy-0001.png"
        await it.anna.press("C_COPY", card["ts"], "approve")
        refused = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert refused["text"] == "Only a lead decides about versions: <@U_MARA>"
        await it.mara.press("C_COPY", card["ts"], "approve")
        view = await it.mara.wait_modal(callback_id="approve_view")
        assert await it.mara.submit(view, {"reason": "reads better"}) is None
        live = await it.mara.wait_message("C_COPY", lambda m: offers(m, "roll_back"))
        shown = await it.anna.wait_message("C_COPY", lambda m: m["ts"] == card["ts"] and not offers(m, "approve"))
        assert "<@U_MARA> approved copy-0001 on" in json.dumps(shown["blocks"])
        assert "“reads better”" in shown["blocks"][-1]["text"]["text"]
        assert it.engine.loaded == ["base", version.name]
        ts = await it.anna.mention("C_COPY", BRIEF)
        draft = await it.draft(it.anna, "C_COPY", ts)
        assert it.engine.asked[-1]["model"] == version.name
        assert "copy-0001 · 8 words · asked: 24–36" in json.dumps(draft["blocks"], ensure_ascii=False)
        await it.mara.press("C_COPY", live["ts"], "roll_back")
        await it.mara.wait_message("C_COPY", lambda m: "base model is live again" in m["text"])
        assert it.store.live() == "base"


async def test_a_version_whose_files_changed_cannot_be_approved_and_a_decided_one_not_again(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        version = scored(it)
        card = await it.card(it.mara, version.name)
        await it.mara.press("C_COPY", card["ts"], "approve")
        approve = await it.mara.wait_modal(callback_id="approve_view")
        weights = Path(version.path) / "adapter_model.safetensors"
        weights.write_text("other")
        refused = await refused_in(it.mara, approve)
        assert refused.startswith("The files of copy-0001 are not those that were trained")
        assert it.store.live() == "base"
        weights.write_text("adapter_model.safetensors")
        await it.mara.press("C_COPY", card["ts"], "approve")
        approve = await it.mara.wait_modal(callback_id="approve_view")
        it.store.decide(version.name, Decision.REJECTED, digest="", user="cli")
        refused = await refused_in(it.mara, approve)
        assert refused == "Nothing changed: the command line decided about copy-0001 already."


async def test_a_decision_stands_on_the_scorecards_of_both_languages(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        version = scored(it)
        scored_in_chinese(it, version)
        async with running(it):
            english, chinese = [
                await it.mara.wait_message("C_COPY", lambda m: offers(m, "approve") and "in English" in m["text"]),
                await it.mara.wait_message("C_COPY", lambda m: offers(m, "approve") and "in Chinese" in m["text"]),
            ]
            await it.mara.press("C_COPY", english["ts"], "approve")
            view = await it.mara.wait_modal(callback_id="approve_view")
            assert "It has another scorecard: *copy-0001 does not pass in Chinese*." in view.blocks[0]["text"]["text"]
            assert await it.mara.submit(view) is None
            for ts in (english["ts"], chinese["ts"]):
                shown = await it.anna.wait_message(
                    "C_COPY", lambda m, ts=ts: m["ts"] == ts and not offers(m, "approve")
                )
                assert "<@U_MARA> approved copy-0001 on" in json.dumps(shown["blocks"])


async def test_what_the_command_line_decided_is_told_once_also_after_a_kill(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        async with running(it):
            version = scored(it)
            card = await it.card(it.anna, version.name)
        it.store.decide(version.name, Decision.APPROVED, digest=version.digest, user="cli")
        for _ in range(2):
            async with running(it):
                said = await it.anna.wait_message("C_COPY", lambda m: offers(m, "roll_back"))
                assert "copy-0001 is live" in said["text"]
                assert said["text"].endswith("Approved by the command line. Nobody has scored it in Chinese.")
                shown = await it.anna.wait_message(
                    "C_COPY", lambda m: m["ts"] == card["ts"] and not offers(m, "approve")
                )
                assert "the command line approved copy-0001 on" in json.dumps(shown["blocks"])
                await it.anna.wait_until(lambda _: not it.store.untold_promotions(), "The decision was not marked told")
            with sqlite3.connect(it.store.path) as db:  # as a process leaves it that was killed after it had posted
                db.execute("UPDATE promotions SET told_at = NULL")
        everything = await it.anna.messages("C_COPY")
        assert sum(offers(message, "roll_back") for message in everything) == 1


async def test_of_two_leads_who_approve_at_once_the_slower_looks_again(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        it.settings = it.settings.model_copy(update={"copydesk_leads": ("U_MARA", "U_LIWEI")})
        async with running(it):
            modals = {}
            for person in (it.mara, it.liwei):
                card = await it.card(person, scored(it).name)
                await person.press("C_COPY", card["ts"], "approve")
                modals[person.id] = await person.wait_modal(callback_id="approve_view")
            assert "代替 基础模型" in str(modals["U_LIWEI"].blocks[0])
            assert await it.mara.submit(modals["U_MARA"]) is None
            told = await refused_in(it.liwei, modals["U_LIWEI"])
            assert told == "什么都没改：<@U_MARA> 刚刚把现用版本换成了 copy-0001。请再看一遍对比，然后决定。"
            assert it.store.live() == "copy-0001"
            await it.liwei.press("C_COPY", card["ts"], "approve")
            view = await it.liwei.wait_modal(callback_id="approve_view")
            assert "代替 copy-0001" in str(view.blocks[0])
            assert "它的评分卡比的是 基础模型，现用版本是 copy-0001" in str(view.blocks[0])
            assert await it.liwei.submit(view) is None
            assert it.store.live() == "copy-0002"
