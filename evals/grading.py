"""Grading blind on a terminal, text by text; Slack's button does the same with the same list."""

from __future__ import annotations

import time

from rich.console import Console

from serving.grades import GRADES, Grades, Sheet

KEYS = {grade[0]: grade for grade in GRADES}
ASK = "e excellent, a acceptable, f fail; Enter alone leaves: "


def grade_on_terminal(grades: Grades, sheet: Sheet) -> Sheet:
    """Ask until all texts are graded or the person leaves."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    while entry := sheet.next:
        brief = "\n".join(part for part in (entry.task.instruction, entry.task.input) if part)
        console.rule(f"{entry.position} of {len(sheet.entries)}")
        console.print(brief, style="dim")
        console.print(f"\n{entry.texts[0] or '(empty)'}\n")
        try:
            key = input(ASK).strip().casefold()
        except EOFError:
            key = ""
        if not key:
            break
        if grade := KEYS.get(key[0]):
            sheet = grades.answer(sheet.id, sheet.user, entry.position, grade, time.time())
    return sheet
