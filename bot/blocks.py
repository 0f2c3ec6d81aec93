"""Messages as Block Kit. Pure: values in, blocks out."""

from __future__ import annotations

from typing import Any

from bot.markup import escape, shown
from bot.texts import Words
from serving.lengths import tokens_for
from serving.prompt import length_of
from serving.records import Brief, Draft, Requirements, Task

JSON = dict[str, Any]

FEEDBACK = "rate"
CORRECT = "correct"
AGAIN = "again"
CHANGE = "change"
ASK = "ask"
REASON = "reason"  # followed by ":" and one of REASONS
REASONS = ("off_brief", "facts", "tone", "length", "style", "other")
SECTION_LIMIT = 2900  # of 3,000


def plain(text: str) -> JSON:
    return {"type": "plain_text", "text": text}


def section(text: str, accessory: JSON | None = None) -> JSON:
    """`text` is mrkdwn: what comes from outside must be escaped before."""
    text = text if len(text) <= SECTION_LIMIT else text[:SECTION_LIMIT] + " …"
    block: JSON = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
    return {**block, "accessory": accessory} if accessory else block


def context(text: str) -> JSON:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text[:1900]}]}


def button(text: str, action_id: str, value: str, style: str = "") -> JSON:
    made: JSON = {"type": "button", "action_id": action_id, "text": plain(text), "value": value}
    return {**made, "style": style} if style else made


def actions(*buttons: JSON) -> JSON:
    return {"type": "actions", "elements": list(buttons)}


def copy_block(text: str) -> JSON:
    return {"type": "markdown", "text": shown(text)}


def size_of(text: str, language: str, words: Words) -> str:
    return words(f"size_{language}", n=length_of(text, language))


def draft_footer(draft: Draft, brief: Brief, words: Words) -> list[JSON]:
    """What stands under a draft: who wrote it, how long it is, and what a person can do about it."""
    line = " · ".join((words.version(draft.version), size_of(draft.text, brief.task.language, words)))
    line += "".join(f" · {remark}" for remark in _remarks(draft, brief, words))
    feedback = {
        "type": "feedback_buttons",
        "action_id": FEEDBACK,
        "positive_button": {"text": plain(words("good")), "value": f"up:{draft.id}"},
        "negative_button": {"text": plain(words("bad")), "value": f"down:{draft.id}"},
    }
    return [
        context(line),
        {"type": "context_actions", "elements": [feedback]},
        actions(
            button(words("correct"), CORRECT, str(draft.id)),
            button(words("again"), AGAIN, str(draft.id)),
        ),
    ]


def _remarks(draft: Draft, brief: Brief, words: Words) -> list[str]:
    """What a person should know before they use the draft."""
    requirements, remarks = brief.task.requirements, []
    size, asked = length_of(draft.text, brief.task.language), requirements.length
    if asked and not asked[0] <= size <= asked[1]:
        remarks.append(words("size_asked", low=asked[0], high=asked[1]))
    if draft.completion_tokens >= tokens_for(brief.task):
        remarks.append(words("cut_short" if asked and size <= asked[1] else "cut_off"))
    if not requirements.product:
        remarks.append(words("brief_verbatim"))
    return remarks


def draft_blocks(draft: Draft, brief: Brief, words: Words) -> list[JSON]:
    return [copy_block(draft.text), *draft_footer(draft, brief, words)]


def said_of(requirements: Requirements, language: str, words: Words) -> list[str]:
    """The requirements in a reader's words, one phrase each; escaped."""
    r = requirements
    phrases = [
        r.audience and words("for_audience", audience=escape(r.audience)),
        r.selling_points and escape(("；" if language == "zh" else "; ").join(point[0] for point in r.selling_points)),
        r.tone and words("tone_is", tone=escape(r.tone)),
        r.length and words(f"length_{language}", low=r.length[0], high=r.length[1]),
        r.format == "list" and words("as_list"),
        r.emoji and emoji_said(r.emoji, words),
        r.call_to_action is not None and words("with_call" if r.call_to_action else "without_call"),
        r.must_not and words("never", phrases=escape(("、" if language == "zh" else ", ").join(r.must_not))),
    ]
    return [str(phrase) for phrase in phrases if phrase]


def emoji_said(bounds: tuple[int, int], words: Words) -> str:
    low, high = bounds
    if high == 0:
        return words("no_emoji")
    return words("emoji_exactly", n=high) if low == high else words("emoji_is", low=low, high=high)


def brief_text(task: Task, words: Words) -> str:
    """A brief as one paragraph: product first, or the words of a task that is no product's."""
    if not task.requirements.product:
        return escape("\n".join(part for part in (task.instruction, task.input) if part))
    said = said_of(task.requirements, task.language, words)
    return " · ".join([f"*{escape(task.requirements.product)}*", *said])


def note_blocks(brief: Brief, words: Words, *, asker: str = "") -> list[JSON]:
    """What was understood, with the way to change it. `asker` is named where the note opens a thread."""
    task = brief.task
    change = button(words("change"), CHANGE, str(brief.id))
    opening = f"<@{asker}>: " if asker else ""
    if not task.requirements.product:
        return [section(opening + words("no_product", text=escape(task.instruction[:200])), change)]
    said = [escape(task.requirements.product), *said_of(task.requirements, task.language, words)]
    return [section(opening + words("understood", what=" · ".join(said)), change)]


def reason_blocks(draft_id: int, words: Words) -> list[JSON]:
    choices = [button(words(f"reason_{reason}"), f"{REASON}:{reason}", str(draft_id)) for reason in REASONS]
    return [section(words("why_down")), actions(*choices)]


def help_blocks(channel: str, words: Words) -> list[JSON]:
    return [section(words("help")), actions(button(words("open_form"), ASK, channel))]
