"""Faults on request: what Slack does on a bad day, so that the bot's answer to it can be tested and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FaultKind = Literal["ratelimit", "error500"]


@dataclass
class MethodFault:
    """The next `times` calls of a Web API method fail; "*" means any method."""

    method: str
    kind: FaultKind
    times: int
    retry_after: int


@dataclass
class Faults:
    """What is to go wrong. Events: the next `duplicates` come three times; each waits `late_seconds` first."""

    methods: list[MethodFault] = field(default_factory=list)
    duplicates: int = 0
    late_seconds: float = 0.0

    def fail(self, method: str, kind: FaultKind, times: int = 1, retry_after: int = 1) -> None:
        self.methods.append(MethodFault(method, kind, times, retry_after))

    def take(self, method: str) -> MethodFault | None:
        """The fault that this call meets, used up by one; None when the call may proceed."""
        for fault in self.methods:
            if fault.method in (method, "*") and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def take_duplicate(self) -> bool:
        if self.duplicates <= 0:
            return False
        self.duplicates -= 1
        return True
