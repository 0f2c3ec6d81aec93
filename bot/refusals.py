"""Slack's error codes, also where a failing server answered with something that is not JSON."""

from __future__ import annotations

from slack_sdk.errors import SlackApiError

NOT_THERE = {"user_not_in_channel", "not_in_channel", "channel_not_found"}  # the person, or we
PASSING = {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}


def code_of(error: SlackApiError) -> str:
    """Slack's word for what went wrong, such as "channel_not_found"; else the HTTP status."""
    body = error.response.data if hasattr(error.response, "data") else error.response
    code = body.get("error") if isinstance(body, dict) else None
    return str(code or f"http_{getattr(error.response, 'status_code', 'error')}")


def passes(error: SlackApiError) -> bool:
    """Whether the same request may succeed later; a message that was deleted or may not be changed stays so."""
    return code_of(error) in PASSING or code_of(error).startswith("http_5")
