"""A row of SQLite as a record, and a record as columns."""

from __future__ import annotations

import json
from typing import Any

from serving.prompt import brief_key
from serving.records import (
    Brief,
    Correction,
    Decision,
    Draft,
    Pair,
    PairSource,
    PairStatus,
    Promotion,
    Rating,
    RatingSource,
    Request,
    RequestState,
    Requirements,
    Round,
    RoundState,
    Sample,
    Scorecard,
    Split,
    Task,
    Verdict,
    Version,
)

Row = dict[str, Any]


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def task_columns(task: Task) -> Row:
    return {
        "instruction": task.instruction,
        "input": task.input,
        "language": task.language,
        "category": task.category,
        "requirements": task.requirements.to_json(),
        "brief_key": brief_key(task),
    }


def task(row: Row) -> Task:
    requirements = Requirements.from_json(row["requirements"])
    return Task(row["instruction"], row["input"], row["language"], row["category"], requirements)


def brief(row: Row) -> Brief:
    return Brief(row["id"], task(row), row["user"], row["channel"], row["thread_ts"], row["created_at"])


def request(row: Row) -> Request:
    return Request(**{**row, "state": RequestState(row["state"])})


def draft(row: Row) -> Draft:
    return Draft(**row)


def rating(row: Row) -> Rating:
    return Rating(**{**row, "verdict": Verdict(row["verdict"]), "source": RatingSource(row["source"])})


def correction(row: Row) -> Correction:
    return Correction(**row)


def pair(row: Row) -> Pair:
    return Pair(
        row["id"],
        task(row),
        row["output"],
        PairSource(row["source"]),
        PairStatus(row["status"]),
        Split(row["split"]),
        row["author"],
        row["draft_id"],
        row["created_at"],
    )


def round(row: Row) -> Round:
    return Round(
        row["id"],
        f"copy-{row['id']:04d}",
        json.loads(row["recipe"]),
        RoundState(row["state"]),
        row["pairs"],
        row["data_digest"],
        json.loads(row["facts"]),
        row["message"],
        row["started_at"],
        row["finished_at"],
    )


def version(row: Row) -> Version:
    return Version(**row)


def sample(row: Row) -> Sample:
    return Sample(**{**row, "score": json.loads(row["score"])})


def scorecard(row: Row) -> Scorecard:
    return Scorecard(**{**row, "body": json.loads(row["body"]) if row["body"] else None})


def promotion(row: Row) -> Promotion:
    return Promotion(**{**row, "decision": Decision(row["decision"])})
