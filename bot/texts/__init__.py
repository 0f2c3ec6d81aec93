"""What people read, in English and Chinese. `Words("zh")("draft_gone")` is one sentence of it."""

from __future__ import annotations

from dataclasses import dataclass

from bot.markup import escape
from bot.texts import en, zh
from serving.records import CopydeskError
from serving.store import BASE

TEXTS = {"en": en.TEXTS, "zh": zh.TEXTS}


@dataclass(frozen=True)
class Words:
    language: str

    def __call__(self, key: str, **values: object) -> str:
        return TEXTS[self.language][key].format(**values)

    def left(self, seconds: float) -> str:
        """As in “about 5 min”, rounded up."""
        return self("under_a_minute") if seconds < 60 else self("minutes", n=-int(-seconds // 60))

    def version(self, name: str) -> str:
        return self("base_model") if name == BASE else name

    def who(self, user: str) -> str:
        return self("command_line") if user == "cli" else f"<@{user}>"

    def of(self, error: CopydeskError) -> str:
        """What went wrong, in the reader's language; what has no sentence of its own is shown as it is."""
        key = f"error_{error.code}"
        if error.code and key in TEXTS[self.language]:
            live, user = (error.values.get(name, "") for name in ("live", "user"))
            return self(key, **{**error.values, "live": self.version(live), "who": self.who(user)})
        return self("error_other", detail=escape(str(error)))
