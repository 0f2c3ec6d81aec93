"""Slack's error codes, also where a failing server answered with something that is not JSON."""

from __future__ import annotations

from slack_sdk.errors import SlackApiError

GONE = {"message_not_found", "thread_not_found", "channel_not_found"}  # what we would write to was deleted


def code_of(error: SlackApiError) -> str:
    """Slack's word for what went wrong, such as "channel_not_found"; else the HTTP status."""
    body = error.response.data if hasattr(error.response, "data") else error.response
    code = body.get("error") if isinstance(body, dict) else None
    return str(code or f"http_{getattr(error.response, 'status_code', 'error')}")
