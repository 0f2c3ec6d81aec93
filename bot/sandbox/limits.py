"""What Slack refuses in blocks and views. Limits: https://docs.slack.dev/reference/block-kit"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from bot.sandbox.workspace import JSON, SlackError

MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100
MARKDOWN_CHARACTERS = 12_000
MESSAGE_TEXT = 40_000
UPDATE_TEXT = 4_000

_INPUTS = {
    "plain_text_input",
    "number_input",
    "static_select",
    "multi_static_select",
    "radio_buttons",
    "checkboxes",
}
_BUTTONS = {"button", "overflow", "static_select", "multi_static_select", "radio_buttons", "checkboxes"}
_CONTEXT = {"mrkdwn", "plain_text", "image"}
_CONTEXT_ACTIONS = {"feedback_buttons", "icon_button"}
_OPTIONS = {"radio_buttons": 10, "checkboxes": 10, "overflow": 5, "static_select": 100, "multi_static_select": 100}
_MESSAGE_ONLY = {"table", "data_table", "data_visualization", "context_actions", "file", "task_card", "plan"}


class _Complaints(list[str]):
    def add(self, text: str, at: str) -> None:
        self.append(f"[ERROR] {text} [json-pointer:{at}]")

    def length(self, text: Any, most: int, at: str, *, least: int = 1) -> None:
        if not isinstance(text, str):
            self.add("must be a string", at)
        elif len(text) > most:
            self.add(f"must be less than {most + 1} characters", at)
        elif len(text) < least:
            self.add(f"must be more than {least - 1} characters", at)

    def text(self, value: Any, most: int, at: str, *, plain: bool = False) -> None:
        if not isinstance(value, dict) or value.get("type") not in ({"plain_text"} if plain else _CONTEXT - {"image"}):
            self.add("must be a plain_text object" if plain else "must be a text object", at)
        else:
            self.length(value.get("text"), most, f"{at}/text")

    def items(self, value: Any, most: int, at: str, *, least: int = 1) -> list[Any]:
        if not isinstance(value, list):
            self.add("must be an array", at)
            return []
        if len(value) > most:
            self.add(f"no more than {most} items allowed", at)
        if len(value) < least:
            self.add(f"no fewer than {least} items allowed", at)
        return value


def checked_message_blocks(blocks: Any) -> list[JSON]:
    """Return the blocks with the ids that Slack adds. Raises SlackError invalid_blocks naming each fault."""
    complaints = _Complaints()
    found = _check_blocks(blocks, MESSAGE_BLOCKS, "message", complaints)
    kinds = [block["type"] for block in found if isinstance(block, dict) and "type" in block]
    if kinds.count("table") + kinds.count("data_table") > 1:
        complaints.add("only one table allowed", "/blocks")
    if kinds.count("data_visualization") > 2:
        complaints.add("no more than 2 data_visualization blocks allowed", "/blocks")
    if complaints:
        raise SlackError("invalid_blocks", complaints)
    return _with_ids(found)


def checked_view(view: Any) -> JSON:
    """Return the view with the ids that Slack adds. Raises SlackError invalid_arguments naming each fault."""
    complaints = _Complaints()
    if not isinstance(view, dict) or view.get("type") not in ("modal", "home"):
        raise SlackError("invalid_arguments", ['[ERROR] must be "modal" or "home" [json-pointer:/view/type]'])
    if view["type"] == "modal":
        complaints.text(view.get("title"), 24, "/view/title", plain=True)
        for part in ("submit", "close"):
            if view.get(part) is not None:
                complaints.text(view[part], 24, f"/view/{part}", plain=True)
    complaints.length(view.get("private_metadata", ""), 3000, "/view/private_metadata", least=0)
    complaints.length(view.get("callback_id", ""), 255, "/view/callback_id", least=0)
    complaints.length(view.get("external_id", ""), 255, "/view/external_id", least=0)
    blocks = _check_blocks(view.get("blocks"), VIEW_BLOCKS, view["type"], complaints, "/view/blocks")
    has_input = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
    if view["type"] == "modal" and has_input and view.get("submit") is None:
        complaints.add("missing required field: submit (the view has input blocks)", "/view")
    if complaints:
        raise SlackError("invalid_arguments", complaints)
    return {**view, "blocks": _with_ids(blocks)}


def checked_markdown(text: Any) -> str:
    if not isinstance(text, str):
        raise SlackError("invalid_arguments", ["[ERROR] must be a string [json-pointer:/markdown_text]"])
    if len(text) > MARKDOWN_CHARACTERS:
        raise SlackError("msg_too_long")
    return text


def elements_of(block: JSON) -> Iterator[JSON]:
    """Every interactive element of a block, wherever Slack lets it sit."""
    for element in [*block.get("elements", []), block.get("accessory"), block.get("element")]:
        if isinstance(element, dict) and "action_id" in element:
            yield element


def _with_ids(blocks: list[JSON]) -> list[JSON]:
    for block in blocks:
        block.setdefault("block_id", secrets.token_hex(3))
    return blocks


def _check_blocks(value: Any, most: int, surface: str, complaints: _Complaints, at: str = "/blocks") -> list[JSON]:
    blocks = complaints.items(value, most, at, least=0)
    markdown, ids = 0, set()
    for number, block in enumerate(blocks):
        here = f"{at}/{number}"
        kind = block.get("type") if isinstance(block, dict) else None
        check = _CHECKS.get(str(kind))
        if check is None or (surface != "message" and kind in _MESSAGE_ONLY) or (surface == "home" and kind == "file"):
            complaints.add(f"unsupported type: {kind}", f"{here}/type")
            continue
        if "block_id" in block:
            complaints.length(block["block_id"], 255, f"{here}/block_id")
            if block["block_id"] in ids:
                complaints.add(f"block_id {block['block_id']} is not unique", f"{here}/block_id")
            ids.add(block["block_id"])
        check(block, here, complaints)
        if kind == "markdown" and isinstance(block.get("text"), str):
            markdown += len(block["text"])
    if markdown > MARKDOWN_CHARACTERS:
        complaints.add(f"markdown text must be less than {MARKDOWN_CHARACTERS + 1} characters in all", at)
    return blocks


def _section(block: JSON, at: str, complaints: _Complaints) -> None:
    if "text" not in block and "fields" not in block:
        complaints.add("missing required field: text or fields", at)
    if "text" in block:
        complaints.text(block["text"], 3000, f"{at}/text")
    if "fields" in block:
        for number, part in enumerate(complaints.items(block["fields"], 10, f"{at}/fields")):
            complaints.text(part, 2000, f"{at}/fields/{number}")
    if "accessory" in block:
        _element(block["accessory"], f"{at}/accessory", complaints, _BUTTONS | {"image"})


def _header(block: JSON, at: str, complaints: _Complaints) -> None:
    complaints.text(block.get("text"), 150, f"{at}/text", plain=True)


def _markdown(block: JSON, at: str, complaints: _Complaints) -> None:
    complaints.length(block.get("text"), MARKDOWN_CHARACTERS, f"{at}/text")


def _context(block: JSON, at: str, complaints: _Complaints) -> None:
    for number, part in enumerate(complaints.items(block.get("elements"), 10, f"{at}/elements")):
        here = f"{at}/elements/{number}"
        if isinstance(part, dict) and part.get("type") == "image":
            _image(part, here, complaints)
        else:
            complaints.text(part, 2000, here)


def _actions(block: JSON, at: str, complaints: _Complaints) -> None:
    _elements(block, at, complaints, 25, _BUTTONS)


def _context_actions(block: JSON, at: str, complaints: _Complaints) -> None:
    _elements(block, at, complaints, 5, _CONTEXT_ACTIONS)


def _elements(block: JSON, at: str, complaints: _Complaints, most: int, allowed: set[str]) -> None:
    seen = set()
    for number, part in enumerate(complaints.items(block.get("elements"), most, f"{at}/elements")):
        here = f"{at}/elements/{number}"
        _element(part, here, complaints, allowed)
        action_id = part.get("action_id") if isinstance(part, dict) else None
        if action_id in seen:
            complaints.add(f"action_id {action_id} already exists in this block", f"{here}/action_id")
        seen.add(action_id)


def _input(block: JSON, at: str, complaints: _Complaints) -> None:
    complaints.text(block.get("label"), 2000, f"{at}/label", plain=True)
    if "hint" in block:
        complaints.text(block["hint"], 2000, f"{at}/hint", plain=True)
    _element(block.get("element"), f"{at}/element", complaints, _INPUTS)


def _image(block: JSON, at: str, complaints: _Complaints) -> None:
    complaints.length(block.get("alt_text"), 2000, f"{at}/alt_text")
    if "image_url" in block:
        complaints.length(block["image_url"], 3000, f"{at}/image_url")
    elif not isinstance(block.get("slack_file"), dict):
        complaints.add("missing required field: image_url or slack_file", at)


def _table(block: JSON, at: str, complaints: _Complaints) -> None:
    for number, row in enumerate(complaints.items(block.get("rows"), 100, f"{at}/rows")):
        for column, cell in enumerate(complaints.items(row, 20, f"{at}/rows/{number}")):
            if not isinstance(cell, dict) or cell.get("type") not in ("raw_text", "raw_number", "rich_text"):
                complaints.add("unsupported cell type", f"{at}/rows/{number}/{column}/type")


def _data_visualization(block: JSON, at: str, complaints: _Complaints) -> None:
    complaints.length(block.get("title"), 50, f"{at}/title")
    chart = block.get("chart")
    if not isinstance(chart, dict) or chart.get("type") not in ("bar", "line", "area", "pie"):
        complaints.add("unsupported chart type", f"{at}/chart/type")
    elif chart["type"] == "pie":
        complaints.items(chart.get("segments"), 6, f"{at}/chart/segments")
    else:
        categories = (chart.get("axis_config") or {}).get("categories")
        complaints.items(categories, 20, f"{at}/chart/axis_config/categories")
        for number, series in enumerate(complaints.items(chart.get("series"), 6, f"{at}/chart/series")):
            points = complaints.items(series.get("data"), 20, f"{at}/chart/series/{number}/data")
            if [point.get("label") for point in points] != categories:
                complaints.add("labels must match the axis categories", f"{at}/chart/series/{number}/data")


def _nothing(block: JSON, at: str, complaints: _Complaints) -> None:
    """A divider or a rich text: nothing that this bot can get wrong."""


def _element(element: Any, at: str, complaints: _Complaints, allowed: set[str]) -> None:
    kind = element.get("type") if isinstance(element, dict) else None
    if kind not in allowed:
        complaints.add(f"unsupported type: {kind}", f"{at}/type")
        return
    if kind == "image":
        _image(element, at, complaints)
        return
    element.setdefault("action_id", secrets.token_hex(3))
    complaints.length(element["action_id"], 255, f"{at}/action_id")
    if "placeholder" in element:
        complaints.text(element["placeholder"], 150, f"{at}/placeholder", plain=True)
    if "confirm" in element:
        for part, most in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)):
            if part in element["confirm"] or part in ("title", "text"):
                complaints.text(element["confirm"].get(part), most, f"{at}/confirm/{part}")
    if kind == "button":
        _button(element, at, complaints)
        if element.get("style", "primary") not in ("primary", "danger"):
            complaints.add("must be one of primary, danger", f"{at}/style")
    elif kind == "feedback_buttons":
        for part in ("positive_button", "negative_button"):
            _button(element.get(part) or {}, f"{at}/{part}", complaints)
    elif kind == "plain_text_input":
        complaints.length(element.get("initial_value", ""), 3000, f"{at}/initial_value", least=0)
        if not 1 <= element.get("max_length", 3000) <= 3000:
            complaints.add("must be between 1 and 3000", f"{at}/max_length")
    elif kind == "number_input" and not isinstance(element.get("is_decimal_allowed"), bool):
        complaints.add("missing required field: is_decimal_allowed", at)
    elif kind in _OPTIONS:
        _options(element, at, complaints, _OPTIONS[kind])


def _button(button: JSON, at: str, complaints: _Complaints) -> None:
    complaints.text(button.get("text"), 75, f"{at}/text", plain=True)
    complaints.length(button.get("value", ""), 2000, f"{at}/value", least=0)


def _options(element: JSON, at: str, complaints: _Complaints, most: int) -> None:
    options = complaints.items(element.get("options"), most, f"{at}/options")
    for number, option in enumerate(options):
        complaints.text(option.get("text"), 75, f"{at}/options/{number}/text")
        complaints.length(option.get("value"), 150, f"{at}/options/{number}/value")
    initial = [*element.get("initial_options", []), *filter(None, [element.get("initial_option")])]
    if any(option not in options for option in initial):
        complaints.add("must match one of the options exactly", f"{at}/initial_option")


_CHECKS: dict[str, Callable[[JSON, str, _Complaints], None]] = {
    "section": _section,
    "header": _header,
    "markdown": _markdown,
    "context": _context,
    "actions": _actions,
    "context_actions": _context_actions,
    "input": _input,
    "image": _image,
    "table": _table,
    "data_table": _table,
    "data_visualization": _data_visualization,
    "divider": _nothing,
    "rich_text": _nothing,
}
