"""What a judging model said of stored samples, question by question, and how far it agrees with people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from serving.card import Card, Judged, Rate
from serving.counts import wilson
from serving.grades import Grades, agreement, text_of
from serving.mapping import Row
from serving.records import Scorecard
from serving.store import Store

PAIR = "pair"  # the question that compares a candidate's sample with that of the live version
YES = 0.5  # from here on an answer is a yes


@dataclass(frozen=True)
class JudgeAnswer:
    """Attributes:
    yes: probability of yes, 0..1; for PAIR 1 is better than live, 0.5 a tie, 0 worse; None is unscored.
    reason: why it is unscored; "" else.
    """

    sample_id: int
    question: str
    yes: float | None
    reason: str = ""


class JudgeAnswers:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._grades = Grades(store)

    def add(self, judge: str, answers: Iterable[JudgeAnswer], at: str) -> None:
        """Keep answers; a later one takes the place of one that was unscored."""
        with self._store.transaction() as db:
            for one in answers:
                db.execute(
                    "INSERT INTO judgements (sample_id, judge, question, yes, reason, created_at) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (sample_id, judge, question) DO UPDATE SET "
                    "yes = excluded.yes, reason = excluded.reason, created_at = excluded.created_at WHERE yes IS NULL",
                    [one.sample_id, judge, one.question, one.yes, one.reason, at],
                )

    def answered(self, judge: str, scorecard_id: int) -> set[tuple[int, str]]:
        """Sample and question of every usable answer."""
        sql = (
            "SELECT sample_id, question FROM judgements JOIN samples ON samples.id = sample_id "
            "WHERE judge = ? AND scorecard_id = ? AND yes IS NOT NULL"
        )
        return {(row["sample_id"], row["question"]) for row in self._store.rows(sql, judge, scorecard_id)}

    @property
    def newest(self) -> str:
        """When the last answer came; "" before the first."""
        return str(self._store.rows("SELECT coalesce(max(created_at), '') AS at FROM judgements")[0]["at"])

    def recent_scorecards(self) -> list[int]:
        """The few that were judged last."""
        sql = (
            "SELECT scorecard_id FROM judgements JOIN samples ON samples.id = sample_id "
            "GROUP BY scorecard_id ORDER BY max(judgements.created_at) DESC LIMIT 3"
        )
        return [row["scorecard_id"] for row in self._store.rows(sql)]

    def of(self, scorecard: Scorecard) -> Judged | None:
        """The newest judge's word on a scorecard; None where none was asked."""
        live_id = self._grades.baseline_of(scorecard)
        rows = self._store.rows(
            "SELECT judge FROM judgements JOIN samples ON samples.id = sample_id WHERE scorecard_id = ? "
            "ORDER BY judgements.created_at DESC LIMIT 1",
            scorecard.id,
        )
        if not rows:
            return None
        judge = rows[0]["judge"]
        said = self._said(judge)
        own = [row for row in said if row["scorecard_id"] in (scorecard.id, live_id)]
        pairs = [row["yes"] for row in own if row["question"] == PAIR and row["scorecard_id"] == scorecard.id]
        by_people = self._grades.by_people()
        texts = {row["sample_id"]: text_of(row) for row in said}
        by_judge = {texts[sample]: good for sample, good in _verdicts(said).items()}  # of copies the newest counts
        return Judged(
            judge=judge,
            candidate=_rate(row for row in own if row["scorecard_id"] == scorecard.id),
            live=_rate(row for row in own if row["scorecard_id"] == live_id),
            wins=pairs.count(1.0),
            ties=pairs.count(0.5),
            losses=pairs.count(0.0),
            unscored=sum(row["yes"] is None for row in own),
            people=agreement(
                [
                    (str(good), str(by_people[text] == "excellent"))
                    for text, good in by_judge.items()
                    if text in by_people
                ]
            ),
        )

    def _said(self, judge: str) -> list[Row]:
        sql = (
            "SELECT sample_id, scorecard_id, version, scorecards.suite, seed, item_id, question, yes FROM judgements "
            "JOIN samples ON samples.id = sample_id JOIN scorecards ON scorecards.id = scorecard_id "
            "WHERE judge = ? ORDER BY sample_id"
        )
        return self._store.rows(sql, judge)


def seen(store: Store, scorecard: Scorecard) -> Card:
    """A scorecard as it is shown now, with what people and the judge have said. Raises as Card.from_json does."""
    card = Card.from_json(scorecard.body or {})
    return card.seen_with(Grades(store).people(scorecard), JudgeAnswers(store).of(scorecard))


def _verdicts(said: Iterable[Row]) -> dict[int, bool]:
    """Whether every question about a sample is a yes; a sample with an unscored question has no verdict."""
    found: dict[int, bool] = {}
    for sample, group in groupby((row for row in said if row["question"] != PAIR), key=lambda row: row["sample_id"]):
        answers = [row["yes"] for row in group]
        if None not in answers:
            found[sample] = all(yes >= YES for yes in answers)
    return found


def _rate(said: Iterable[Row]) -> Rate:
    verdicts = _verdicts(said)
    return wilson(sum(verdicts.values()), len(verdicts))
