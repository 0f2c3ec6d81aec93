"""A draft as a person would have written it: button or message shortcut, modal, save, what changed."""

from __future__ import annotations

import asyncio
import difflib
import json
import re

from slack_bolt.context.ack.async_ack import AsyncAck

from bot.blocks import JSON, context, plain, section
from bot.marks import metadata
from bot.markup import markdown
from bot.office import Office
from bot.texts import Words
from serving.records import CopydeskError, Correction, Draft, Split

CORRECT_VIEW = "correct_view"
SHORTCUT = "correct_draft"
INPUT_LIMIT = 3000  # of a plain_text_input
MOSTLY_NEW = 0.5  # a correction less like its draft is shown whole


class Corrections:
    def __init__(self, office: Office) -> None:
        self._office = office
        self._store = office.store

    async def pressed(self, ack: AsyncAck, body: JSON) -> None:
        container = body["container"]
        draft = await asyncio.to_thread(self._store.draft, int(body["actions"][0]["value"]))
        await self._open(body, draft, container.get("thread_ts") or container["message_ts"])
        await ack()

    async def chosen(self, ack: AsyncAck, body: JSON) -> None:
        """The message shortcut, which Slack offers on any message."""
        message = body["message"]
        draft = await asyncio.to_thread(self._store.draft_at, body["channel"]["id"], message["ts"])
        if draft is None:
            words = await self._office.locales.words(body["user"]["id"])
            view = notice_view(words("correct_title"), words("not_a_draft"), words)
            await self._office.slack.views_open(trigger_id=body["trigger_id"], view=view)
        else:
            await self._open(body, draft, message.get("thread_ts") or message["ts"])
        await ack()

    async def _open(self, body: JSON, draft: Draft, thread_ts: str) -> None:
        words = await self._office.locales.words(body["user"]["id"])
        earlier = await asyncio.to_thread(self._store.corrections, draft.id)
        view = correct_view(draft, thread_ts, words, earlier[-1].text if earlier else draft.text)
        await self._office.slack.views_open(trigger_id=body["trigger_id"], view=view)

    async def submitted(self, ack: AsyncAck, body: JSON, view: JSON) -> None:
        user = body["user"]["id"]
        words = await self._office.locales.words(user)
        about = json.loads(view["private_metadata"])
        values = view["state"]["values"]
        parts = [values[block]["text"]["value"] or "" for block in sorted(values)]
        text = "".join(parts).strip()
        # One submission may arrive twice; the second would be the same correction over again.
        known = await asyncio.to_thread(self._store.corrections, about["draft"])
        if known and (known[-1].text, known[-1].user) == (text, user):
            await ack()
            return
        try:
            draft = await asyncio.to_thread(self._store.draft, about["draft"])
            correction = await asyncio.to_thread(self._store.add_correction, draft.id, user, text)
        except CopydeskError as error:
            await ack(response_action="errors", errors={min(values): words.of(error)})
            return
        await ack()
        self._office.work.start(self._show(draft, correction, about["thread_ts"], words))

    async def _show(self, draft: Draft, correction: Correction, thread_ts: str, words: Words) -> None:
        pair = await asyncio.to_thread(self._store.pair, correction.pair_id)
        held_out = pair.split is Split.HELD_OUT
        await self._office.slack.chat_postMessage(
            channel=draft.channel,
            thread_ts=thread_ts,
            text=words("corrected", user=correction.user),
            blocks=changed_blocks(draft, correction, words, held_out=held_out),
            metadata=metadata("correction", correction=correction.id),
            unfurl_links=False,
            unfurl_media=False,
        )


def pieces_of(text: str) -> list[str]:
    """Words with the space after them; each Han character by itself."""
    return re.findall(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+\s*|\s+", text)


def likeness(before: str, after: str) -> float:
    """The share of words, or of Han characters, that two texts have in common in the same order: 0 to 1."""
    return difflib.SequenceMatcher(None, pieces_of(before), pieces_of(after), autojunk=False).ratio()


def difference(before: str, after: str) -> str:
    """What changed as Markdown: what went is struck out, what came is bold."""
    old, new = pieces_of(before), pieces_of(after)
    parts: list[str] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(markdown("".join(old[i:j])))
            continue
        parts += [_marked("".join(old[i:j]), "~~"), _marked("".join(new[k:m]), "**")]
    return "".join(parts)


def _marked(text: str, mark: str) -> str:
    """Marks hug the words, on each line by itself: `** bold **` is not bold in Markdown."""
    lines = []
    for line in text.split("\n"):
        core = line.strip()
        head, tail = line[: len(line) - len(line.lstrip())], line[len(line.rstrip()) :]
        lines.append(f"{head}{mark}{markdown(core)}{mark}{tail}" if core else line)
    return "\n".join(lines)


def changed_blocks(draft: Draft, correction: Correction, words: Words, *, held_out: bool = False) -> list[JSON]:
    changes = difference(draft.text, correction.text)
    if len(changes) > 10_000:
        changes = markdown(correction.text[:1800]) + " …"
    elif likeness(draft.text, correction.text) < MOSTLY_NEW:
        changes = markdown(correction.text)  # struck-out words between new ones would hide both
    return [
        section(words("corrected", user=correction.user)),
        {"type": "markdown", "text": changes},
        context(words("tests_next" if held_out else "trains_next")),
    ]


def correct_view(draft: Draft, thread_ts: str, words: Words, text: str) -> JSON:
    """The draft as it reads now, in several inputs where it is longer than one takes."""
    parts = [text[i : i + INPUT_LIMIT] for i in range(0, max(1, len(text)), INPUT_LIMIT)]
    inputs = [
        {
            "type": "input",
            "block_id": f"text{number}",
            "label": plain(words("correct_label") if len(parts) == 1 else words("correct_part", n=number + 1)),
            "element": {
                "type": "plain_text_input",
                "action_id": "text",
                "multiline": True,
                **({"initial_value": part} if part else {}),
            },
            "optional": len(parts) > 1,  # a part may go; Slack asks for a text that is the only one
        }
        for number, part in enumerate(parts)
    ]
    return {
        "type": "modal",
        "callback_id": CORRECT_VIEW,
        "private_metadata": json.dumps({"draft": draft.id, "thread_ts": thread_ts}),
        "title": plain(words("correct_title")),
        "submit": plain(words("save")),
        "close": plain(words("cancel")),
        "blocks": [*inputs, context(words("correct_hint"))],
    }


def notice_view(title: str, text: str, words: Words) -> JSON:
    return {"type": "modal", "title": plain(title), "close": plain(words("close")), "blocks": [section(text)]}
