"""What a person put into a view's inputs, as the state that Slack sends with it."""

from __future__ import annotations

from typing import Any

from bot.sandbox.workspace import JSON

REQUIRED = "Please complete this required field."


class InputError(Exception):
    """A value that Slack's own client would refuse before the app sees it."""


def state_of(blocks: list[JSON], values: JSON) -> tuple[JSON, dict[str, str]]:
    """Build `state.values` and the client's own complaints by block_id.

    Args:
        values: {block_id: {action_id: value}} or {action_id: value}. Inputs that are not named keep what the view
            gave them. Options are named by their `value`, several of them in a list.
    """
    state: JSON = {}
    errors: dict[str, str] = {}
    for block in blocks:
        if block.get("type") != "input":
            continue
        element, block_id = block["element"], block["block_id"]
        action_id = element["action_id"]
        inner = values.get(block_id)
        named = inner if isinstance(inner, dict) else values
        try:
            given = named[action_id] if action_id in named else _initial(element)
            state.setdefault(block_id, {})[action_id] = entry = _entry(element, given)
        except InputError as error:
            errors[block_id] = str(error)
            continue
        if not block.get("optional") and _is_empty(entry):
            errors[block_id] = REQUIRED
    return state, errors


def _initial(element: JSON) -> Any:
    if "initial_option" in element:
        return element["initial_option"]["value"]
    if "initial_options" in element:
        return [option["value"] for option in element["initial_options"]]
    return element.get("initial_value")


def _entry(element: JSON, given: Any) -> JSON:
    kind = element["type"]
    match kind:
        case "plain_text_input":
            return {"type": kind, "value": _text(element, given)}
        case "number_input":
            return {"type": kind, "value": _number(element, given)}
        case "static_select" | "radio_buttons":
            return {"type": kind, "selected_option": None if given in (None, "") else _option(element, given)}
        case _:
            return {"type": kind, "selected_options": [_option(element, value) for value in given or []]}


def _text(element: JSON, given: Any) -> str | None:
    text = str(given or "")
    if len(text) > (most := element.get("max_length", 3000)):
        raise InputError(f"Please enter no more than {most} characters.")
    if text and len(text) < (least := element.get("min_length", 0)):
        raise InputError(f"Please enter at least {least} characters.")
    return text or None


def _number(element: JSON, given: Any) -> str | None:
    if given in (None, ""):
        return None
    try:
        number = float(given)
    except ValueError:
        raise InputError("Please enter a number.") from None
    if not element.get("is_decimal_allowed") and not number.is_integer():
        raise InputError("Please enter a whole number.")
    if number < float(element.get("min_value", number)) or number > float(element.get("max_value", number)):
        low, high = element.get("min_value", "any"), element.get("max_value", "any")
        raise InputError(f"Please enter a number from {low} to {high}.")
    return str(given)


def _option(element: JSON, value: Any) -> JSON:
    for option in element["options"]:
        if option["value"] == value:
            return dict(option)
    offered = ", ".join(option["value"] for option in element["options"])
    raise InputError(f"There is no option {value!r}; choose one of: {offered}")


def _is_empty(entry: JSON) -> bool:
    return not (entry.get("value") or entry.get("selected_option") or entry.get("selected_options"))
