"""Events as a real workspace sends them, which people at the sandbox's page cannot make."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bot_world import offers, world
from openai_double import Answer
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.announcements import as_far_as_drawn
from bot.doctor import channel, examine
from bot.markup import with_emoji

pytestmark = pytest.mark.socket
MENTION = {"type": "app_mention", "channel": "C_COPY", "user": "U_ANNA", "text": "<@U_BOT> a line for our Alder lamp"}


async def test_a_mention_that_is_edited_is_answered_once(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        ts = await it.anna.mention("C_COPY", "a line for our Alder lamp")
        await it.draft(it.anna, "C_COPY", ts)
        edited = {**MENTION, "text": "<@U_BOT> two lines for our Alder lamp", "ts": ts}
        it.sandbox.acts.send_event({**edited, "edited": {"user": "U_ANNA", "ts": "9.9"}})
        await it.draft(it.anna, "C_COPY", await it.anna.mention("C_COPY", "a line for our Sora rug"))
        assert len(it.store.rows("SELECT * FROM requests")) == 2


async def test_words_about_a_draft_are_told_what_can_be_done(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        first = await it.anna.say(it.anna.dm, "a line for our Alder lamp")
        await it.draft(it.anna, it.anna.dm, first)
        for thread_ts in (first, None):
            ts = await it.anna.say(it.anna.dm, "can you make it shorter for Instagram?", thread_ts)
            reply = await it.anna.wait_message(
                it.anna.dm, lambda m, ts=ts: "rewrite" in m["text"] and m["ts"] > ts, thread_ts=thread_ts or ts
            )
            assert reply["text"].startswith("I cannot rewrite a draft by a reply.")
        assert len(it.store.rows("SELECT * FROM requests")) == 1


async def test_a_command_that_asks_for_help_gets_it(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.anna.slash("/copy", "help", "C_COPY")
        told = await it.anna.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert told["text"].startswith("Tell me what to write")
        assert it.store.rows("SELECT * FROM requests") == []


async def test_a_mention_by_a_workflow_or_another_bot_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path) as it:
        workflow = {name: value for name, value in MENTION.items() if name != "user"}
        it.sandbox.acts.send_event({**workflow, "bot_id": "B1", "ts": "5.1"})
        it.sandbox.acts.send_event({**MENTION, "bot_id": "B2", "ts": "5.2"})
        await it.draft(it.anna, "C_COPY", await it.anna.mention("C_COPY", "a line for our Sora rug"))
        assert len(it.store.rows("SELECT * FROM requests")) == 1
    assert "A listener failed" not in caplog.text


async def test_a_draft_that_a_person_stops_keeps_what_is_written(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engine.answers = [Answer(tuple(f"word{n} " for n in range(200)), pause=0.1)]
        ts = await it.anna.mention("C_COPY", "a line for our Alder lamp")
        growing = await it.anna.wait_message("C_COPY", lambda m: "word5" in m["text"], thread_ts=ts)
        it.sandbox.acts.send_event(
            {
                "type": "agent_session_stopped",
                "channel": "C_COPY",
                "thread_ts": ts,
                "streaming_message_ts": [growing["ts"]],
                "user": "U_ANNA",
            }
        )
        draft = await asyncio.wait_for(it.draft(it.anna, "C_COPY", ts), 10)
        assert draft["ts"] == growing["ts"]
        (stored,) = it.store.drafts()
        assert stored.text.startswith("word0 word1")
        assert "word150" not in stored.text
        assert offers(draft, "again")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lamp :sparkles: now", "lamp ✨ now"),
        ("hi :wave::skin-tone-3: there", "hi 👋🏼 there"),
        ("at 10:30:15, a ratio of 3:4:5", "at 10:30:15, a ratio of 3:4:5"),
    ],
)
def test_emoji_that_come_by_name_are_read_as_themselves(text: str, expected: str) -> None:
    named = [
        {"type": "emoji", "name": "sparkles", "unicode": "2728"},
        {"type": "emoji", "name": "wave", "unicode": "1f44b-1f3fc", "skin_tone": 3},
        {"type": "emoji", "name": "our_logo"},
    ]
    blocks = [{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": named}]}]
    assert with_emoji(text, blocks) == expected


async def test_a_channel_that_the_bot_cannot_post_in_is_named_with_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        slack = AsyncWebClient(it.settings.slack_bot_token, base_url=it.settings.slack_api_url)
        assert (await channel(slack, "C_COPY")).ok
        wrong = await channel(slack, "#copy")
    assert not wrong.ok
    assert wrong.found == "#copy: channel_not_found"
    assert "such as C0123ABCD" in wrong.next_step


async def test_a_lead_by_a_name_in_place_of_an_id_is_named_with_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path, bot=False) as it:
        found = await examine(it.settings.model_copy(update={"copydesk_leads": ("U_MARA", "@mara")}))
    (wrong,) = [finding for finding in found if finding.what == "lead"]
    assert (wrong.ok, wrong.found) == (False, "@mara: user_not_found")
    assert "Copy member ID" in wrong.next_step


@pytest.mark.parametrize(
    ("refused", "shown"),
    [
        ((), ["header", "table", "data_visualization"]),
        (("data_visualization",), ["header", "table"]),
        (("data_visualization", "table"), ["header", "section"]),
    ],
)
async def test_a_card_is_posted_also_where_slack_draws_less(refused: tuple[str, ...], shown: list[str]) -> None:
    async def send(*, blocks: list[dict[str, Any]], text: str) -> Any:
        if any(block["type"] in refused for block in blocks):
            raise SlackApiError("no", {"error": "invalid_blocks"})
        return [block["type"] for block in blocks]

    blocks = [{"type": kind} for kind in ("header", "table", "data_visualization")]
    assert await as_far_as_drawn(send, blocks, "Excellent 40 %.") == shown
