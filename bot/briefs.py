"""How people ask: mention, direct message, /copy, the form, and "Change" on what was understood."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from slack_bolt.context.ack.async_ack import AsyncAck

from bot.blocks import JSON, emoji_said, help_blocks, plain
from bot.drafts import Drafts
from bot.marks import metadata
from bot.markup import plain_of, with_emoji
from bot.office import Office
from bot.parsing import (
    DEFAULT_EMOJI,
    DEFAULT_LENGTH,
    MAX_LENGTH,
    follows_up,
    phrases_of,
    points_of,
    says_nothing,
    task_from,
)
from bot.texts import Words
from serving.prompt import language_of, task_of
from serving.records import CATEGORIES, FORMATS, Brief, CopydeskError, Requirements, Task

ASK_VIEW = "ask_view"
LONGEST_BRIEF = 4_000  # characters
EMOJI = {"none": DEFAULT_EMOJI, "few": (1, 2)}  # what the form offers


class Briefs:
    def __init__(self, office: Office, drafts: Drafts) -> None:
        self._office = office
        self._drafts = drafts

    async def mentioned(self, event: JSON) -> None:
        if event.get("bot_id") or not event.get("user"):  # a workflow's, or another bot's
            return
        await self._asked(event)

    async def said(self, event: JSON) -> None:
        """A direct message is a brief; what people say elsewhere is theirs."""
        if event.get("channel_type") != "im" or event.get("bot_id") or event.get("subtype") not in (None, "file_share"):
            return
        await self._asked(event)

    async def _asked(self, event: JSON) -> None:
        text = plain_of(with_emoji(event.get("text", ""), event.get("blocks", ())))
        user, channel = event["user"], event["channel"]
        thread_ts = event.get("thread_ts") or event["ts"]
        # A message that is edited comes as a new event; it is answered once.
        event_id = f"{channel}:{event['ts']}"
        words = await self._office.locales.words(user)
        task = task_from(text)
        if not text or says_nothing(text):
            if await asyncio.to_thread(self._office.store.first_sight, event_id):
                await self._tell(channel, thread_ts, words("help"), help_blocks(channel, words))
        elif len(text) > LONGEST_BRIEF:
            if await asyncio.to_thread(self._office.store.first_sight, event_id):
                await self._tell(channel, thread_ts, _too_long(text, words))
        elif not task.requirements.product and await self._answers_a_draft(event, text):
            if await asyncio.to_thread(self._office.store.first_sight, event_id):
                labels = {name: words(name) for name in ("correct", "again", "change")}
                await self._tell(channel, thread_ts, words("no_rewrite", **labels))
        else:
            await self._drafts.accept(task, user=user, channel=channel, thread_ts=thread_ts, event_id=event_id)

    async def _answers_a_draft(self, event: JSON, text: str) -> bool:
        """Whether somebody speaks to a draft: in its thread or, in a conversation with the bot alone, below it."""
        has = self._office.store.has_requests
        if thread_ts := event.get("thread_ts"):
            return await asyncio.to_thread(has, event["channel"], thread_ts)
        return event.get("channel_type") == "im" and follows_up(text) and await asyncio.to_thread(has, event["channel"])

    async def _tell(self, channel: str, thread_ts: str, text: str, blocks: list[JSON] | None = None) -> None:
        await self._office.slack.chat_postMessage(
            channel=channel, thread_ts=thread_ts, text=text, blocks=blocks, metadata=metadata("notice")
        )

    async def command(self, ack: AsyncAck, command: JSON) -> None:
        """/copy with a brief begins a draft, without one it opens the form."""
        text, user, channel = plain_of(command.get("text", "")), command["user_id"], command["channel_id"]
        words = await self._office.locales.words(user)
        if not text:
            await self._open(command["trigger_id"], channel, words)
            await ack()
        elif says_nothing(text):
            await ack(words("help"))
        elif len(text) > LONGEST_BRIEF:
            await ack(_too_long(text, words))
        else:
            await self._drafts.accept(
                task_from(text), user=user, channel=channel, thread_ts="", event_id=command["trigger_id"]
            )
            await ack()

    async def form(self, ack: AsyncAck, body: JSON) -> None:
        """A button that opens the empty form; its value is the channel to write in."""
        words = await self._office.locales.words(body["user"]["id"])
        await self._open(body["trigger_id"], body["actions"][0]["value"], words)
        await ack()

    async def change(self, ack: AsyncAck, body: JSON) -> None:
        """ "Change" on what was understood: the form with the brief in it; the new draft comes into the same thread."""
        brief = await asyncio.to_thread(self._office.store.brief, int(body["actions"][0]["value"]))
        words = await self._office.locales.words(body["user"]["id"])
        container = body["container"]
        thread_ts = container.get("thread_ts") or container["message_ts"]
        await self._open(body["trigger_id"], body["channel"]["id"], words, brief, thread_ts)
        await ack()

    async def _open(
        self, trigger_id: str, channel: str, words: Words, brief: Brief | None = None, thread_ts: str = ""
    ) -> None:
        view = ask_view(words, channel, thread_ts, brief.task if brief else None)
        await self._office.slack.views_open(trigger_id=trigger_id, view=view)

    async def submitted(self, ack: AsyncAck, body: JSON, view: JSON) -> None:
        user = body["user"]["id"]
        words = await self._office.locales.words(user)
        values = _values(view)
        errors = _errors(values, words)
        if errors:
            await ack(response_action="errors", errors=errors)
            return
        about = json.loads(view["private_metadata"])
        try:
            await self._drafts.accept(
                task_in(values),
                user=user,
                channel=about["channel"],
                thread_ts=about["thread_ts"],
                event_id=f"{view['id']}:{view['hash']}",
            )
        except CopydeskError as error:  # the form stays open, with all that was written in it
            await ack(response_action="errors", errors={"product": words.of(error)})
            return
        await ack()


def _too_long(text: str, words: Words) -> str:
    return words("brief_too_long", n=len(text), most=LONGEST_BRIEF)


def _values(view: JSON) -> dict[str, str]:
    """What stands in the form, by action id."""
    found: dict[str, str] = {}
    for actions in view["state"]["values"].values():
        for action_id, entry in actions.items():
            chosen = entry.get("selected_option") or {}
            found[action_id] = str(entry.get("value") or chosen.get("value") or "").strip()
    return found


def _errors(values: dict[str, str], words: Words) -> dict[str, str]:
    errors: dict[str, str] = {}
    if not values["product"]:
        errors["product"] = words("product_missing")
    if sum(map(len, values.values())) > LONGEST_BRIEF:
        errors["selling_points"] = words("brief_too_long", n=sum(map(len, values.values())), most=LONGEST_BRIEF)
    low, high = values["length_min"], values["length_max"]
    if low and high and int(low) > int(high):
        errors["length_max"] = words("length_turned_round", low=low)
    return errors


def task_in(values: dict[str, str]) -> Task:
    """The form's values as a task. Fields that were left empty are free or take the defaults."""
    language = values.get("language", "auto")
    if language not in ("en", "zh"):
        language = language_of(f"{values['product']} {values['selling_points']} {values['audience']}")
    low, high = DEFAULT_LENGTH[language]
    if values["length_min"] or values["length_max"]:
        low = int(values["length_min"] or max(1, int(values["length_max"]) * 6 // 10))
        high = int(values["length_max"] or max(low, min(low * 3 // 2, MAX_LENGTH)))
    return task_of(
        Requirements(
            product=values["product"],
            audience=values["audience"],
            selling_points=tuple((point,) for point in points_of(values["selling_points"]))
            if values["selling_points"]
            else (),
            tone=values["tone"],
            length=(low, high),
            emoji=_emoji(values.get("emoji") or "none"),
            call_to_action={"yes": True, "no": False}.get(values.get("call_to_action", "yes")),
            format=values.get("format") or "paragraph",
            must_not=phrases_of(values["must_not"]),
        ),
        language,
        values.get("category") or "other",
    )


def _emoji(value: str) -> tuple[int, int] | None:
    if value == "free":
        return None
    low, _, high = value.partition("-")
    return EMOJI.get(value) or (int(low), int(high))


def ask_view(words: Words, channel: str, thread_ts: str = "", task: Task | None = None) -> JSON:
    """The form, empty or with a brief in it."""
    r = task.requirements if task else Requirements(length=None, emoji=DEFAULT_EMOJI, call_to_action=True)
    verbatim = task.instruction if task and not r.product else ""
    call = {True: "yes", False: "no", None: "free"}[r.call_to_action]
    points = "\n".join(point[0] for point in r.selling_points) or verbatim
    # Briefs of an earlier release may ask for more; Slack refuses a form with a number over its maximum.
    low, high = (str(min(n, MAX_LENGTH)) for n in r.length) if r.length else ("", "")
    return {
        "type": "modal",
        "callback_id": ASK_VIEW,
        "private_metadata": json.dumps({"channel": channel, "thread_ts": thread_ts}),
        "title": plain(words("ask_title")),
        "submit": plain(words("ask_submit")),
        "close": plain(words("cancel")),
        "blocks": [
            _text("product", words, r.product, required=True, most=150),
            _text("audience", words, r.audience, most=300),
            _text("selling_points", words, points, multiline=True, most=2000),
            _text("tone", words, r.tone, most=150),
            _number("length_min", words, low),
            _number("length_max", words, high),
            _select("language", words, ("auto", "en", "zh"), task.language if task else "auto"),
            _select("call_to_action", words, ("yes", "no", "free"), call),
            _select("format", words, FORMATS, r.format),
            _emoji_select(words, r.emoji),
            _text("must_not", words, ", ".join(r.must_not), most=500),
            _select("category", words, CATEGORIES, task.category if task else "other"),
        ],
    }


def _input(name: str, words: Words, element: JSON, *, required: bool = False) -> JSON:
    block: JSON = {
        "type": "input",
        "block_id": name,
        "label": plain(words(f"ask_{name}")),
        "element": {"action_id": name, **element},
        "optional": not required,
    }
    return block


def _text(name: str, words: Words, initial: str, *, required: bool = False, multiline: bool = False, most: int) -> JSON:
    element: dict[str, Any] = {"type": "plain_text_input", "multiline": multiline, "max_length": most}
    if initial:
        element["initial_value"] = initial[:most]
    hint = words(f"hint_{name}")
    return {**_input(name, words, element, required=required), "hint": plain(hint)}


def _number(name: str, words: Words, initial: str) -> JSON:
    element: JSON = {
        "type": "number_input",
        "is_decimal_allowed": False,
        "min_value": "1",
        "max_value": str(MAX_LENGTH),
    }
    return _input(name, words, {**element, "initial_value": initial} if initial else element)


def _select(name: str, words: Words, values: tuple[str, ...], initial: str) -> JSON:
    return _chosen(name, words, {value: words(f"{name}_{value}") for value in values}, initial)


def _emoji_select(words: Words, bounds: tuple[int, int] | None) -> JSON:
    """With a choice of its own for a number that the brief has and the form does not offer."""
    labels = {value: words(f"emoji_{value}") for value in (*EMOJI, "free")}
    initial = next((value for value, offered in EMOJI.items() if offered == bounds), "free")
    if bounds and initial == "free":
        initial = f"{bounds[0]}-{bounds[1]}"
        labels[initial] = emoji_said(bounds, words)
    return _chosen("emoji", words, labels, initial)


def _chosen(name: str, words: Words, labels: dict[str, str], initial: str) -> JSON:
    options = {value: {"text": plain(label), "value": value} for value, label in labels.items()}
    element = {"type": "static_select", "options": list(options.values()), "initial_option": options[initial]}
    return _input(name, words, element)
