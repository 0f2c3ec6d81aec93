"""What people read, in English and Chinese. `Words("zh")("draft_gone")` is one sentence of it."""

from __future__ import annotations

from dataclasses import dataclass

from bot.texts import en, zh

TEXTS = {"en": en.TEXTS, "zh": zh.TEXTS}


@dataclass(frozen=True)
class Words:
    language: str

    def __call__(self, key: str, **values: object) -> str:
        return TEXTS[self.language][key].format(**values)
