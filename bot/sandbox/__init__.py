"""A Slack-compatible workspace on 127.0.0.1, for the demo, the tests and developers without a Slack account.

Run: python -m bot.sandbox --port 8765. Point Bolt at it with SLACK_API_URL and the two tokens that it prints.
"""

from bot.sandbox.people import People, Person
from bot.sandbox.server import Sandbox

__all__ = ["People", "Person", "Sandbox"]
