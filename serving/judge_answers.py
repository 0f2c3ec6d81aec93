"""What a judging model said of stored samples, question by question, and how far it agrees with people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from serving.card import Card, Judged, Rate
from serving.counts import wilson
from serving.grades import Grades, Text, agreement, text_of
from serving.records import Scorecard
from serving.store import Store

PAIR = "pair"  # the question that compares a candidate's sample with that of the live version
YES = 0.5  # from here on an answer is a yes

_Answers = dict[tuple[str, str], float | None]  # by the question, and for PAIR by the version it compares with


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

    def answered(self, judge: str, scorecard: Scorecard) -> set[tuple[Text, str]]:
        """Text and question of every usable answer, whichever scorecard it was asked for."""
        said = self._said(judge)
        return {
            (text, question)
            for text, answers in said.items()
            for (question, against), yes in answers.items()
            if yes is not None and against in ("", scorecard.baseline)
        }

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
        """The word of the judge that answered last on a scorecard's texts; None where none was asked."""
        rows = self._store.rows(
            "SELECT judge FROM judgements JOIN samples ON samples.id = sample_id "
            "JOIN scorecards ON scorecards.id = scorecard_id WHERE (version, scorecards.suite, seed) = (?, ?, ?) "
            "ORDER BY yes IS NOT NULL DESC, judgements.created_at DESC LIMIT 1",
            scorecard.version,
            scorecard.suite,
            scorecard.seed,
        )
        if not rows:
            return None
        judge = rows[0]["judge"]
        said = self._said(judge)
        sql = "SELECT DISTINCT item_id FROM samples WHERE scorecard_id = ?"
        items = {row["item_id"] for row in self._store.rows(sql, scorecard.id)}

        def about(version: str) -> list[_Answers]:
            same = (version, scorecard.suite, scorecard.seed)
            return [answers for text, answers in said.items() if text[:3] == same and text[3] in items]

        candidate, live = about(scorecard.version), about(scorecard.baseline)
        pairs = [answers.get((PAIR, scorecard.baseline)) for answers in candidate]
        by_people, preferred = self._grades.by_people(), self._grades.preferred()
        return Judged(
            judge=judge,
            candidate=_rate(candidate),
            live=_rate(live),
            wins=pairs.count(1.0),
            ties=pairs.count(0.5),
            losses=pairs.count(0.0),
            unscored=sum(yes is None for answers in candidate + live for yes in answers.values()),
            people=agreement(
                [
                    (str(good), str(by_people[text] == "excellent"))
                    for text, answers in said.items()
                    if text in by_people and (good := _verdict(answers)) is not None
                ]
            ),
            votes=agreement(
                [
                    (str(yes), str(preferred[text, against]))
                    for text, answers in said.items()
                    for (question, against), yes in answers.items()
                    if question == PAIR and yes is not None and (text, against) in preferred
                ]
            ),
        )

    def _said(self, judge: str) -> dict[Text, _Answers]:
        """A judge's answers by text. A text that was scored again is asked about once; a usable answer stays."""
        rows = self._store.rows(
            "SELECT version, baseline, scorecards.suite, seed, item_id, question, yes FROM judgements "
            "JOIN samples ON samples.id = sample_id JOIN scorecards ON scorecards.id = scorecard_id "
            "WHERE judge = ? ORDER BY yes IS NOT NULL, judgements.created_at, sample_id",
            judge,
        )
        said: dict[Text, _Answers] = defaultdict(dict)
        for row in rows:
            against = row["baseline"] if row["question"] == PAIR else ""
            said[text_of(row)][row["question"], against] = row["yes"]
        return said


def seen(store: Store, scorecard: Scorecard) -> Card:
    """A scorecard as it is shown now, with what people and the judge have said. Raises as Card.from_json does."""
    card = Card.from_json(scorecard.body or {})
    return card.seen_with(Grades(store).people(scorecard), JudgeAnswers(store).of(scorecard))


def _verdict(answers: _Answers) -> bool | None:
    """Whether every question about a text is a yes; None where one is unscored or none was asked."""
    found = [yes for (question, _), yes in answers.items() if question != PAIR]
    if not found or None in found:
        return None
    return all(yes is not None and yes >= YES for yes in found)


def _rate(texts: Iterable[_Answers]) -> Rate:
    verdicts = [good for answers in texts if (good := _verdict(answers)) is not None]
    return wilson(sum(verdicts), len(verdicts))
