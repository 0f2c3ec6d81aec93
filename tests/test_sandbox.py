"""The sandbox, driven by the real Bolt over a real Socket Mode connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient
from toy_app import connected, toy_app

from bot.sandbox import People, Person, Sandbox
from bot.sandbox.people import SandboxRefusalError

pytestmark = pytest.mark.socket

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)


class Desk:
    """A sandbox with the toy app connected and a person before it."""

    def __init__(self, sandbox: Sandbox, app: AsyncApp, handler: AsyncSocketModeHandler, people: People) -> None:
        self.sandbox, self.app, self.handler, self.people = sandbox, app, handler, people
        self.client: AsyncWebClient = app.client
        self.seen: list[Any] = app.seen  # type: ignore[attr-defined]

    @property
    def anna(self) -> Person:
        return self.people.person("U_ANNA")

    @property
    def mara(self) -> Person:
        return self.people.person("U_MARA")


@asynccontextmanager
async def desk_of(**options: Any) -> AsyncIterator[Desk]:
    async with Sandbox(**options) as sandbox, People(sandbox.url) as people:
        app = toy_app(sandbox)
        async with connected(app, sandbox) as handler:
            yield Desk(sandbox, app, handler, people)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with desk_of() as desk:
        yield desk


@pytest.fixture
async def client() -> AsyncIterator[AsyncWebClient]:
    async with Sandbox() as sandbox:
        yield AsyncWebClient(token=sandbox.bot_token, base_url=sandbox.api_url)


async def drafted(desk: Desk) -> dict[str, Any]:
    ts = await desk.anna.mention("C_COPY", "stream a line")
    return await desk.anna.wait_message("C_COPY", lambda m: len(m["blocks"]) > 1, thread_ts=ts)


async def test_a_mention_is_answered_in_its_thread(desk: Desk) -> None:
    ts = await desk.anna.mention("C_COPY", "say <b> & </b>")
    reply = await desk.anna.wait_message("C_COPY", thread_ts=ts)
    assert reply["text"] == "heard: <@U_COPYDESK> say &lt;b&gt; &amp; &lt;/b&gt;"
    assert [m["text"] for m in await desk.anna.thread("C_COPY", ts)] == [reply["text"]]
    assert (await desk.anna.messages("C_COPY"))[0]["reply_count"] == 1


async def test_a_mention_comes_as_two_events_and_a_direct_message_as_one(desk: Desk) -> None:
    await desk.anna.mention("C_COPY", "hello")
    await desk.anna.say(desk.anna.dm, "hello there")
    await desk.sandbox.socket_mode.settle()
    kinds = [(event["type"], event.get("channel_type")) for event in desk.seen if event.get("user") == "U_ANNA"]
    assert sorted(kinds, key=str) == [("app_mention", None), ("message", "channel"), ("message", "im")]


async def test_the_bots_own_messages_do_not_reach_its_listeners(desk: Desk) -> None:
    ts = await desk.anna.mention("C_COPY", "hello")
    await desk.anna.wait_message("C_COPY", thread_ts=ts)
    await desk.sandbox.socket_mode.settle()
    assert {event["user"] for event in desk.seen} == {"U_ANNA"}


async def test_a_draft_streams_and_ends_with_feedback_buttons(desk: Desk) -> None:
    ts = await desk.anna.mention("C_COPY", "stream slowly")
    partial = await desk.anna.wait_message("C_COPY", lambda m: m["streaming"] and m["text"] != "", thread_ts=ts)
    assert partial["text"] == "Warm "
    assert await desk.anna.status("C_COPY", ts) == ""
    done = await desk.anna.wait_message("C_COPY", lambda m: not m["streaming"], thread_ts=ts)
    assert done["text"] == "Warm **to the last** drop."
    assert [block["type"] for block in done["blocks"]] == ["markdown", "context_actions", "actions"]
    assert done["metadata"] == {"event_type": "draft", "event_payload": {"draft": 7}}


async def test_the_status_shows_until_the_bot_answers(desk: Desk) -> None:
    ts = await desk.anna.mention("C_COPY", "think")
    await desk.anna.wait_until(lambda state: bool(state["statuses"]), "No status came")
    assert await desk.anna.status("C_COPY", ts) == "is thinking"
    await desk.anna.wait_message("C_COPY", thread_ts=ts)
    assert await desk.anna.status("C_COPY", ts) == ""


async def test_feedback_buttons_tell_which_one_was_pressed(desk: Desk) -> None:
    draft = await drafted(desk)
    await desk.anna.press("C_COPY", draft["ts"], "rate", "positive")
    await desk.anna.press("C_COPY", draft["ts"], "rate", "bad:7")
    actions = [event["actions"][0] for event in desk.seen if event.get("type") == "block_actions"]
    assert [(action["type"], action["value"]) for action in actions] == [
        ("feedback_buttons", "good:7"),
        ("feedback_buttons", "bad:7"),
    ]


async def test_pressing_what_is_not_there_names_what_is(desk: Desk) -> None:
    draft = await drafted(desk)
    with pytest.raises(SandboxRefusalError, match="there is: rate, correct"):
        await desk.anna.press("C_COPY", draft["ts"], "approve")


async def test_a_modal_shows_its_errors_then_closes(desk: Desk) -> None:
    draft = await drafted(desk)
    await desk.anna.press("C_COPY", draft["ts"], "correct")
    modal = await desk.anna.wait_modal()
    assert (modal.title, modal.private_metadata) == ("Correct", draft["ts"])
    assert modal.inputs["text"]["initial_value"] == "Warm"
    assert await desk.anna.submit(modal, {"text": ""}) == {"copy": "Please complete this required field."}
    assert await desk.anna.submit(modal, {"text": "bad"}) == {"copy": "Say more than that."}
    assert await desk.anna.modal() is not None
    assert await desk.anna.submit(modal, {"text": "Warm for hours.", "tone": "dry", "marks": ["a", "b"]}) is None
    assert await desk.anna.modal() is None
    values = next(event for event in reversed(desk.seen) if event.get("type") == "view_submission")["view"]["state"]
    assert values["values"]["copy"]["text"] == {"type": "plain_text_input", "value": "Warm for hours."}
    assert values["values"]["tone"]["tone"]["selected_option"]["value"] == "dry"
    assert [option["value"] for option in values["values"]["marks"]["marks"]["selected_options"]] == ["a", "b"]
    assert values["values"]["count"]["count"] == {"type": "number_input", "value": "3"}


async def test_a_submission_may_change_the_modal_or_clear_it(desk: Desk) -> None:
    draft = await drafted(desk)
    await desk.anna.press("C_COPY", draft["ts"], "correct")
    modal = await desk.anna.wait_modal()
    assert await desk.anna.submit(modal, {"text": "update me please"}) is None
    changed = await desk.anna.wait_modal()
    assert (changed.id, changed.title) == (modal.id, "Changed")
    assert await desk.anna.submit(changed, {"text": "clear"}) is None
    assert await desk.anna.modal() is None


async def test_a_message_shortcut_opens_the_same_modal(desk: Desk) -> None:
    draft = await drafted(desk)
    await desk.anna.shortcut("correct_draft", "C_COPY", draft["ts"])
    assert (await desk.anna.wait_modal(callback_id="correction")).private_metadata == draft["ts"]


async def test_a_dismissed_modal_is_reported(desk: Desk) -> None:
    draft = await drafted(desk)
    await desk.anna.press("C_COPY", draft["ts"], "correct")
    await desk.anna.dismiss(await desk.anna.wait_modal())
    assert desk.seen[-1]["type"] == "view_closed"


async def test_reactions_come_and_go(desk: Desk) -> None:
    draft = await drafted(desk)
    await desk.anna.react("C_COPY", draft["ts"], "+1")
    with pytest.raises(SandboxRefusalError, match="already_reacted"):
        await desk.anna.react("C_COPY", draft["ts"], "+1")
    await desk.anna.unreact("C_COPY", draft["ts"], "+1")
    await desk.sandbox.socket_mode.settle()
    reactions = [event for event in desk.seen if event["type"].startswith("reaction")]
    assert [event["type"] for event in reactions] == ["reaction_added", "reaction_removed"]
    assert reactions[0]["item"] == {"type": "message", "channel": "C_COPY", "ts": draft["ts"]}
    assert reactions[0]["item_user"] == "U_COPYDESK"


async def test_a_slash_command_is_answered_for_its_reader_only(desk: Desk) -> None:
    await desk.anna.slash("/copy", "help", "C_COPY")
    answer = await desk.anna.wait_message("C_COPY", lambda m: m["ephemeral"])
    assert answer["text"] == "You said help"
    await desk.anna.wait_message("C_COPY", lambda m: m["text"] == "later, for all")
    assert [m["text"] for m in await desk.mara.messages("C_COPY")] == ["later, for all"]


async def test_the_home_tab_is_published_when_it_is_opened(desk: Desk) -> None:
    await desk.mara.open_home()
    home = await desk.mara.home()
    assert home.blocks[0]["text"]["text"] == "Home of U_MARA"
    await desk.mara.press_in(home, "refresh")
    assert desk.seen[-1]["container"] == {"type": "view", "view_id": home.id}


async def test_an_event_without_an_ack_comes_again_with_its_attempt() -> None:
    async with Sandbox(ack_seconds=0.2) as sandbox, People(sandbox.url) as people:
        client = AsyncWebClient(token=sandbox.app_token, base_url=sandbox.api_url)
        address = (await client.apps_connections_open(app_token=sandbox.app_token))["url"]
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
            assert (await socket.receive_json())["type"] == "hello"
            await people.person("U_ANNA").say("C_COPY", "hello?")
            envelopes = [await socket.receive_json(timeout=3) for _ in range(4)]
            with pytest.raises(TimeoutError):
                await socket.receive_json(timeout=0.5)
    assert [envelope["retry_attempt"] for envelope in envelopes] == [0, 1, 2, 3]
    assert [envelope["retry_reason"] for envelope in envelopes] == ["", "timeout", "timeout", "timeout"]
    assert len({envelope["payload"]["event_id"] for envelope in envelopes}) == 1
    assert len({envelope["envelope_id"] for envelope in envelopes}) == 4


async def test_events_wait_while_nobody_is_connected() -> None:
    async with Sandbox() as sandbox, People(sandbox.url) as people:
        anna = people.person("U_ANNA")
        ts = await anna.mention("C_COPY", "early")
        app = toy_app(sandbox)
        async with connected(app, sandbox):
            assert (await anna.wait_message("C_COPY", thread_ts=ts))["text"].endswith("early")


async def test_each_envelope_goes_to_one_of_two_connections(desk: Desk) -> None:
    other = toy_app(desk.sandbox)
    async with connected(other, desk.sandbox):
        for number in range(4):
            await desk.anna.say(desk.anna.dm, f"number {number}")
        await desk.sandbox.socket_mode.settle()
    counts = [sum(e["type"] == "message" for e in seen) for seen in (desk.seen, other.seen)]  # type: ignore[attr-defined]
    assert counts == [2, 2]


async def test_the_app_comes_back_after_a_refresh_and_after_a_cut(desk: Desk) -> None:
    for fault in ("refresh_socket", "drop_socket"):
        await desk.people.fault(fault)
        ts = await desk.anna.mention("C_COPY", f"after {fault}")
        reply = await desk.anna.wait_message("C_COPY", thread_ts=ts)
        assert reply["text"].endswith(fault)


async def test_a_duplicated_event_keeps_its_id(desk: Desk) -> None:
    await desk.people.fault("duplicate_events", times=1)
    await desk.anna.say(desk.anna.dm, "thrice")
    await desk.anna.say(desk.anna.dm, "once")
    await desk.sandbox.socket_mode.settle()
    assert [event["text"] for event in desk.seen] == ["thrice", "thrice", "thrice", "once"]
    assert len(set(desk.app.event_ids[:3])) == 1  # type: ignore[attr-defined]


async def test_late_events_come_late(desk: Desk) -> None:
    await desk.people.fault("late_events", seconds=0.5)
    began = time.monotonic()
    ts = await desk.anna.mention("C_COPY", "late")
    await desk.anna.wait_message("C_COPY", thread_ts=ts)
    assert time.monotonic() - began >= 0.5


async def test_slack_sdk_waits_out_a_rate_limit(desk: Desk) -> None:
    await desk.people.fault("ratelimit", method="chat.postMessage", times=1, retry_after=1)
    with pytest.raises(SlackApiError, match="ratelimited"):
        await desk.client.chat_postMessage(channel="C_COPY", text="no patience")
    desk.client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
    desk.sandbox.fail("chat.postMessage", "ratelimit", retry_after=1)
    assert (await desk.client.chat_postMessage(channel="C_COPY", text="patience"))["ok"]
    assert [m["text"] for m in await desk.anna.messages("C_COPY")] == ["patience"]


async def test_a_server_error_reaches_the_client(desk: Desk) -> None:
    await desk.people.fault("error500", method="chat.update")
    with pytest.raises(SlackApiError) as caught:
        await desk.client.chat_update(channel="C_COPY", ts="1.1", text="x")
    assert caught.value.response.status_code == 500


async def test_an_uploaded_picture_appears_in_the_thread(desk: Desk) -> None:
    ts = await desk.anna.say("C_COPY", "show me")
    await desk.client.files_upload_v2(
        content=PIXEL, filename="chart.png", title="Chart", channel="C_COPY", thread_ts=ts, initial_comment="Here"
    )
    message = await desk.anna.wait_message("C_COPY", lambda m: bool(m.get("files")), thread_ts=ts)
    assert (message["text"], message["files"][0]["title"]) == ("Here", "Chart")
    async with aiohttp.ClientSession() as session, session.get(message["files"][0]["url_private"]) as response:
        assert (response.content_type, await response.read()) == ("image/png", PIXEL)


async def test_without_streaming_a_stream_is_an_unknown_method() -> None:
    async with Sandbox(streaming=False) as sandbox:
        client = AsyncWebClient(token=sandbox.bot_token, base_url=sandbox.api_url)
        stream = await client.chat_stream(channel="D_ANNA", thread_ts="1.1", buffer_size=1)
        with pytest.raises(SlackApiError, match="unknown_method"):
            await stream.append(markdown_text="hello")


async def test_a_stream_that_stayed_open_too_long_is_closed_and_can_still_be_updated() -> None:
    async with Sandbox(stream_seconds=0.1) as sandbox, People(sandbox.url) as people:
        client = AsyncWebClient(token=sandbox.bot_token, base_url=sandbox.api_url)
        anna = people.person("U_ANNA")
        ts = await anna.say("D_ANNA", "go")
        stream = await client.chat_stream(channel="D_ANNA", thread_ts=ts, buffer_size=1)
        await stream.append(markdown_text="half")
        await asyncio.sleep(0.2)
        with pytest.raises(SlackApiError, match="message_not_in_streaming_state"):
            await stream.append(markdown_text=" and")
        assert stream.ts is not None
        await client.chat_update(channel="D_ANNA", ts=stream.ts, text="half and half")
        assert [m["text"] for m in await anna.thread("D_ANNA", ts)] == ["half and half"]


async def test_a_stream_in_a_channel_needs_its_recipient(client: AsyncWebClient) -> None:
    root = await client.chat_postMessage(channel="C_COPY", text="root")
    with pytest.raises(SlackApiError, match="missing_recipient_team_id"):
        await client.chat_startStream(channel="C_COPY", thread_ts=root["ts"])


SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "x"}}


@pytest.mark.parametrize(
    ("blocks", "complaint"),
    [
        ([{"type": "sectoin"}], "unsupported type: sectoin [json-pointer:/blocks/0/type]"),
        (
            [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}],
            "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
        ),
        ([{"type": "section", "text": {"type": "mrkdwn", "text": ""}}], "more than 0 characters"),
        ([{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}], "less than 151"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "must be a plain_text object"),
        ([SECTION] * 51, "no more than 50 items"),
        ([{**SECTION, "block_id": "a"}, {**SECTION, "block_id": "a"}], "is not unique"),
        ([{"type": "markdown", "text": "x" * 6001}] * 2, "less than 12001 characters in all"),
        ([{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}] * 2, "only one table"),
        (
            [{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x" * 76}}]}],
            "less than 76",
        ),
        (
            [
                {
                    "type": "actions",
                    "elements": [
                        {"type": "button", "text": {"type": "plain_text", "text": "x"}, "action_id": "a" * 256}
                    ],
                }
            ],
            "less than 256",
        ),
    ],
)
async def test_blocks_over_the_limits_are_refused_by_name(
    client: AsyncWebClient, blocks: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(SlackApiError) as caught:
        await client.chat_postMessage(channel="C_COPY", text="x", blocks=blocks)
    assert caught.value.response["error"] == "invalid_blocks"
    assert complaint in " ".join(caught.value.response["response_metadata"]["messages"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"title": {"type": "plain_text", "text": "x" * 25}}, "/view/title/text"),
        ({"private_metadata": "x" * 3001}, "/view/private_metadata"),
        ({"blocks": [SECTION] * 101}, "no more than 100 items"),
        ({"blocks": [{"type": "table", "rows": []}]}, "unsupported type: table"),
        (
            {
                "blocks": [
                    {
                        "type": "input",
                        "label": {"type": "plain_text", "text": "x"},
                        "element": {"type": "plain_text_input", "initial_value": "x" * 3001},
                    }
                ]
            },
            "/view/blocks/0/element/initial_value",
        ),
    ],
)
async def test_views_over_the_limits_are_refused_by_name(
    client: AsyncWebClient, change: dict[str, Any], complaint: str
) -> None:
    title = {"type": "plain_text", "text": "x"}
    view = {"type": "modal", "title": title, "submit": title, "blocks": [SECTION], **change}
    with pytest.raises(SlackApiError) as caught:
        await client.views_open(trigger_id="1.2.3", view=view)
    assert caught.value.response["error"] == "invalid_arguments"
    assert complaint in " ".join(caught.value.response["response_metadata"]["messages"])


async def test_errors_have_slacks_names(client: AsyncWebClient) -> None:
    view = {"type": "modal", "title": {"type": "plain_text", "text": "x"}, "blocks": [SECTION]}
    posted = await client.chat_postMessage(channel="C_COPY", text="x")
    calls = {
        "channel_not_found": client.chat_postMessage(channel="C_NOWHERE", text="x"),
        "message_not_found": client.chat_update(channel="C_COPY", ts="1.1", text="x"),
        "thread_not_found": client.conversations_replies(channel="C_COPY", ts="1.1"),
        "no_text": client.chat_postMessage(channel="C_COPY", text=""),
        "user_not_found": client.users_info(user="U_NOBODY"),
        "invalid_trigger_id": client.views_open(trigger_id="1.2.3", view=view),
        "not_found": client.views_update(view_id="V1", view=view),
        "invalid_name": client.reactions_add(channel="C_COPY", timestamp=posted["ts"], name="👍"),
        "unknown_method": client.api_call("chat.sing"),
        "msg_too_long": client.chat_postMessage(channel="C_COPY", markdown_text="x" * 12_001),
        "not_allowed_token_type": client.apps_connections_open(app_token=client.token or ""),
        "invalid_auth": AsyncWebClient(token="xoxb-wrong", base_url=client.base_url).auth_test(),
        "not_authed": AsyncWebClient(base_url=client.base_url).auth_test(),
    }
    for error, call in calls.items():
        with pytest.raises(SlackApiError) as caught:
            await call
        assert caught.value.response["error"] == error


async def test_a_trigger_serves_once_and_only_for_a_while(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = await drafted(desk)
    await desk.anna.press("C_COPY", draft["ts"], "correct")
    await desk.anna.wait_modal()
    press = next(event for event in reversed(desk.seen) if event.get("type") == "block_actions")
    view = {"type": "modal", "title": {"type": "plain_text", "text": "x"}, "blocks": [SECTION]}
    with pytest.raises(SlackApiError, match="exchanged_trigger_id"):
        await desk.client.views_open(trigger_id=press["trigger_id"], view=view)
    monkeypatch.setattr("bot.sandbox.workspace.TRIGGER_SECONDS", -1.0)
    with pytest.raises(SlackApiError, match="expired_trigger_id"):
        await desk.client.views_open(trigger_id=desk.sandbox.workspace.new_trigger("U_ANNA"), view=view)


async def test_metadata_comes_back_when_it_is_asked_for(client: AsyncWebClient) -> None:
    metadata = {"event_type": "draft", "event_payload": {"draft": 3}}
    posted = await client.chat_postMessage(channel="C_COPY", text="x", metadata=metadata)
    await client.chat_postMessage(channel="C_COPY", text="y", thread_ts=posted["ts"])
    thread = await client.conversations_replies(channel="C_COPY", ts=posted["ts"], include_all_metadata=True)
    assert [message.get("metadata") for message in thread["messages"]] == [metadata, None]
    history = await client.conversations_history(channel="C_COPY", latest=posted["ts"], inclusive=True, limit=1)
    assert [(m["text"], "metadata" in m) for m in history["messages"]] == [("x", False)]


async def test_people_do_not_see_each_others_conversations(desk: Desk) -> None:
    await desk.anna.say(desk.anna.dm, "between us")
    with pytest.raises(SandboxRefusalError, match="channel_not_found"):
        await desk.mara.say(desk.anna.dm, "hello")
    assert await desk.mara.messages(desk.anna.dm) == []


async def test_nothing_answers_to_other_hosts_and_other_sites() -> None:
    async with Sandbox() as sandbox, aiohttp.ClientSession() as session:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            async with session.get(sandbox.url + "/sandbox/state?person=U_ANNA", headers=headers) as response:
                assert response.status == 403
        async with session.post(sandbox.url + "/sandbox/say", data='{"person":"U_ANNA"}') as response:
            assert response.status == 415
        async with session.get(sandbox.url + "/page/..%2Fserver.py") as response:
            assert response.status == 404


async def test_a_silent_app_is_reported_to_the_person() -> None:
    async with Sandbox(ack_seconds=0.2) as sandbox, People(sandbox.url) as people:
        with pytest.raises(SandboxRefusalError, match="is it running and connected"):
            await people.person("U_ANNA").slash("/copy", "help", "C_COPY")
