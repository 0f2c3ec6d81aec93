"""What people say of a scorecard's texts, blind: grades of single texts, and votes between two.

A person gets a sheet: a fixed, shuffled list of texts of the candidate and of the live version, without their names.
The sheet is stored whole before its first text is shown, so that it can be left and continued, and what it showed can
be read later.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby

from serving.card import Agreement, Duel, People, Rate
from serving.counts import kappa, sign_test, wilson, wins_needed
from serving.mapping import Row
from serving.records import CopydeskError, Requirements, Scorecard, Task
from serving.store import Store

SHEET_SIZE = 20
GRADES = ("excellent", "acceptable", "fail")  # the best first
Text = tuple[str, str, int, str]  # version, suite, seed, item: what stays itself when a version is scored again
Pair = tuple[Text, str]  # a candidate's text, and the version whose text of the same brief it is compared with
CHOICES = ("a", "tie", "b")


class Kind(StrEnum):
    GRADES = "grades"
    VOTES = "votes"


@dataclass(frozen=True)
class Entry:
    """One question of a sheet.

    Attributes:
        position: from 1.
        texts: the one to grade, or the two to compare.
        answer: one of GRADES or CHOICES; "" while it is open.
    """

    position: int
    task: Task
    texts: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Sheet:
    """Attributes:
    closed_by: the lead who closed it before its end.
    """

    id: int
    scorecard_id: int
    user: str
    kind: Kind
    seed: int
    closed_by: str | None
    entries: tuple[Entry, ...]

    @property
    def answered(self) -> int:
        return sum(bool(entry.answer) for entry in self.entries)

    @property
    def done(self) -> bool:
        return self.closed_by is not None or self.answered == len(self.entries)

    @property
    def next(self) -> Entry | None:
        """The first open question; None when the sheet is done."""
        return None if self.done else next(entry for entry in self.entries if not entry.answer)


class Grades:
    def __init__(self, store: Store) -> None:
        self._store = store

    def keep_items(self, suite: str, items: Mapping[str, Task]) -> None:
        """Remember the briefs behind a scorecard's samples: people read them beside the texts.

        Args:
            suite: as the scorecard names it.
        """
        with self._store.transaction() as db:
            db.table("suite_items").insert_all(
                (
                    {
                        "suite": suite,
                        "item_id": item_id,
                        "instruction": task.instruction,
                        "input": task.input,
                        "language": task.language,
                        "category": task.category,
                        "requirements": task.requirements.to_json(),
                    }
                    for item_id, task in items.items()
                ),
                ignore=True,
            )

    def tasks(self, suite: str) -> dict[str, Task]:
        """The briefs that were kept, by the item's id."""
        rows = self._store.rows("SELECT * FROM suite_items WHERE suite = ?", suite)
        return {row["item_id"]: _task(row) for row in rows}

    # Sheets

    def open(self, scorecard: Scorecard, user: str, kind: Kind) -> Sheet:
        """A person's sheet for a scorecard: drawn at the first time, the same ever after.

        Raises:
            CopydeskError: the scorecard's samples or their briefs are not kept.
        """
        seed = secrets.randbelow(2**31)
        drawn = self._draw(scorecard, kind, random.Random(seed))
        with self._store.transaction() as db:
            sql = "SELECT id FROM sheets WHERE scorecard_id = ? AND user = ? AND kind = ?"
            id = next((int(row["id"]) for row in db.query(sql, [scorecard.id, user, kind])), None)
            if id is None:
                if not drawn:
                    raise CopydeskError(
                        f"Scorecard {scorecard.id} keeps no briefs to grade by; score the version again: "
                        f"copydesk eval run {scorecard.version}",
                        code="not_gradable",
                        version=scorecard.version,
                    )
                id = self._store.insert(
                    db, "sheets", scorecard_id=scorecard.id, user=user, kind=kind, seed=seed, closed_by=None
                )
                db.table("sheet_samples").insert_all(
                    {"sheet_id": id, "position": position, "side": side, "sample_id": sample}
                    for position, samples in enumerate(drawn, start=1)
                    for side, sample in zip("ab", samples, strict=False)
                )
        return self.sheet(id)

    def _draw(self, scorecard: Scorecard, kind: Kind, rng: random.Random) -> list[tuple[int, ...]]:
        candidate, live = self._followed(scorecard.id), self._followed(self.baseline_of(scorecard))
        if kind is Kind.VOTES:
            pairs = [(candidate[item]["id"], live[item]["id"]) for item in sorted(candidate.keys() & live.keys())]
            rng.shuffle(pairs)
            return [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs[:SHEET_SIZE]]
        own, other = _least_graded(candidate.values(), rng), _least_graded(live.values(), rng)
        picked = own[: SHEET_SIZE - min(SHEET_SIZE // 2, len(other))]
        picked += other[: SHEET_SIZE - len(picked)]
        rng.shuffle(picked)
        return [(sample,) for sample in picked]

    def baseline_of(self, scorecard: Scorecard) -> int:
        """The id of the scorecard of the version that this one was compared with; 0 where there is none."""
        sql = (
            "SELECT id FROM scorecards WHERE version = ? AND suite = ? AND seed = ? AND id <> ? AND body IS NOT NULL "
            "ORDER BY id DESC LIMIT 1"
        )
        rows = self._store.rows(sql, scorecard.baseline, scorecard.suite, scorecard.seed, scorecard.id)
        return int(rows[0]["id"]) if rows else 0

    def _followed(self, scorecard_id: int) -> dict[str, Row]:
        """Samples whose brief is known, one an item, each with how often it was graded."""
        sql = (
            "SELECT samples.id, item_id, (SELECT count(*) FROM grades JOIN samples AS twin ON twin.id = sample_id "
            "JOIN scorecards AS other ON other.id = twin.scorecard_id WHERE (other.version, other.suite, other.seed) = "
            "(scorecards.version, scorecards.suite, scorecards.seed) AND twin.item_id = samples.item_id) AS graded "
            "FROM samples JOIN scorecards ON scorecards.id = scorecard_id JOIN suite_items USING (suite, item_id) "
            "WHERE scorecard_id = ? AND part = 'following' AND repeat = 0 ORDER BY item_id"
        )
        return {row["item_id"]: row for row in self._store.rows(sql, scorecard_id)}

    def sheet(self, id: int) -> Sheet:
        rows = self._store.rows("SELECT * FROM sheets WHERE id = ?", id)
        if not rows:
            raise CopydeskError(f"Sheet {id} is gone; press the button under the scorecard again.", code="sheet_gone")
        answers = {
            row["position"]: row["answer"]
            for row in self._store.rows(
                "SELECT position, choice AS answer FROM votes WHERE sheet_id = ?1 UNION ALL "
                "SELECT position, grade FROM sheet_samples JOIN sheets ON sheets.id = sheet_id JOIN grades USING "
                "(sample_id, user) WHERE sheet_id = ?1 AND kind = 'grades'",
                id,
            )
        }
        shown: dict[int, list[Row]] = defaultdict(list)
        for row in self._store.rows(
            "SELECT position, text, suite_items.* FROM sheet_samples JOIN samples ON samples.id = sample_id "
            "JOIN scorecards ON scorecards.id = samples.scorecard_id "
            "JOIN suite_items USING (suite, item_id) WHERE sheet_id = ? ORDER BY position, side",
            id,
        ):
            shown[row["position"]].append(row)
        entries = tuple(
            Entry(position, _task(own[0]), tuple(row["text"] for row in own), answers.get(position, ""))
            for position, own in shown.items()
        )
        row = rows[0]
        return Sheet(id, row["scorecard_id"], row["user"], Kind(row["kind"]), row["seed"], row["closed_by"], entries)

    def answer(self, sheet_id: int, user: str, position: int, answer: str, pressed_at: float) -> Sheet:
        """Store a grade or a vote; the last press of a person counts, in whatever order they arrive.

        A comparison that is done takes no more votes.

        Raises:
            CopydeskError: the sheet is another person's.
        """
        when = datetime.fromtimestamp(pressed_at, UTC).isoformat(timespec="milliseconds")
        with self._store.transaction() as db:
            sheet = self.sheet(sheet_id)
            if sheet.user != user:
                raise CopydeskError("This sheet is another person's; open your own.", code="not_your_sheet")
            if sheet.kind is Kind.GRADES:
                sample = "SELECT sample_id FROM sheet_samples WHERE sheet_id = ? AND position = ?"
                (sample_id,) = db.execute(sample, [sheet_id, position]).fetchone()
                sql = _LAST_PRESS.format(table="grades", keys="sample_id, user", value="grade")
                db.execute(sql, [sample_id, user, answer, pressed_at, when])
            elif not sheet.done:  # what was revealed stays
                sql = _LAST_PRESS.format(table="votes", keys="sheet_id, position", value="choice")
                db.execute(sql, [sheet_id, position, answer, pressed_at, when])
        return self.sheet(sheet_id)

    def close_votes(self, scorecard_id: int, user: str) -> int:
        """End every comparison that somebody has begun and not finished; returns how many there were."""
        with self._store.transaction() as db:
            return db.execute(
                "UPDATE sheets SET closed_by = ?2 WHERE id IN (SELECT id FROM (" + _VOTING + "))",
                [scorecard_id, user],
            ).rowcount

    # What they add up to

    def by_people(self) -> dict[Text, str]:
        """The grade of every text that people have graded, from each person's last word on it."""
        rows = self._store.rows(
            "SELECT version, suite, seed, item_id, grades.grade, max(pressed_at) FROM grades "
            "JOIN samples ON samples.id = sample_id JOIN scorecards ON scorecards.id = scorecard_id "
            "GROUP BY version, suite, seed, item_id, user ORDER BY version, suite, seed, item_id"
        )
        return {text: _middle(row["grade"] for row in own) for text, own in groupby(rows, key=text_of)}

    def recent_scorecards(self) -> list[int]:
        """The few that people graded or compared last."""
        sql = "SELECT scorecard_id FROM sheets GROUP BY scorecard_id ORDER BY max(id) DESC LIMIT 3"
        return [row["scorecard_id"] for row in self._store.rows(sql)]

    def people(self, scorecard: Scorecard) -> People | None:
        """None while nobody has graded, or begun to compare."""
        rows = self._store.rows(_GRADED, scorecard.version, scorecard.suite, scorecard.seed, scorecard.baseline)
        checked = {own: self._checked(id) for own, id in ((1, scorecard.id), (0, self.baseline_of(scorecard)))}
        graded: dict[tuple[int, str], list[str]] = defaultdict(list)
        for row in rows:
            graded[row["own"], row["item_id"]].append(row["grade"])
        found = {text: _middle(grades) for text, grades in graded.items()}
        voting = len(self._store.rows(_VOTING, scorecard.id))
        duel = self.duel(scorecard)
        if not found and not voting and duel is None:
            return None
        return People(
            graders=len({row["user"] for row in rows}),
            candidate=_excellent(grade for (own, _), grade in found.items() if own),
            live=_excellent(grade for (own, _), grade in found.items() if not own),
            checks=agreement(
                [(grade, checked[own][item]) for (own, item), grade in found.items() if item in checked[own]]
            ),
            duel=duel,
            voting=voting,
        )

    def _checked(self, scorecard_id: int) -> dict[str, str]:
        """What the checks said, by the item's id."""
        sql = "SELECT item_id, grade FROM samples WHERE scorecard_id = ? AND part = 'following'"
        return {row["item_id"]: row["grade"] for row in self._store.rows(sql, scorecard_id)}

    def duel(self, scorecard: Scorecard, sheet_id: int | None = None) -> Duel | None:
        """The comparison over every sheet that is done, or over one; None where there is none."""
        rows = self._store.rows(
            f"{_VOTED} AND sheets.scorecard_id IN ({_SAME_TEXTS}) AND sheets.id = coalesce(?2, sheets.id)",
            scorecard.id,
            sheet_id,
        )
        if not rows:
            return None
        decided = list(_majorities(rows).values())
        wins, losses = decided.count(1.0), decided.count(0.0)
        return Duel(
            wins=wins,
            ties=decided.count(0.5),
            losses=losses,
            p=sign_test(wins, losses),
            needed=wins_needed(wins + losses),
            voters=len({row["user"] for row in rows}),
            closed_early=any(row["closed_by"] is not None for row in rows),
        )

    def preferred(self) -> dict[Pair, float]:
        """What the majority of voters chose, over every sheet that is done: 1 the text, 0.5 a tie, 0 the other."""
        return _majorities(self._store.rows(_VOTED))


# The press that came later by the person's own clock wins; the same one again changes nothing.
_LAST_PRESS = (
    "INSERT INTO {table} ({keys}, {value}, pressed_at, created_at) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT ({keys}) DO UPDATE SET {value} = excluded.{value}, pressed_at = excluded.pressed_at, "
    "created_at = excluded.created_at WHERE excluded.pressed_at > pressed_at"
)

# A version that is scored again brings its texts along, and what people said of them stays said.
_SAME_TEXTS = (
    "SELECT id FROM scorecards WHERE (version, baseline, suite, seed) = "
    "(SELECT version, baseline, suite, seed FROM scorecards WHERE id = ?1)"
)

# The votes of every sheet that is done, each with what it is for the candidate.
_VOTED = (
    "SELECT user, closed_by, version, baseline, suite, scorecards.seed, item_id, votes.pressed_at, "
    "CASE WHEN choice = 'tie' THEN 0 WHEN samples.scorecard_id = sheets.scorecard_id THEN 1 ELSE -1 END AS won "
    "FROM sheets JOIN scorecards ON scorecards.id = sheets.scorecard_id JOIN votes ON votes.sheet_id = sheets.id "
    "JOIN sheet_samples ON sheet_samples.sheet_id = sheets.id AND sheet_samples.position = votes.position "
    "AND side = iif(choice = 'tie', 'a', choice) JOIN samples ON samples.id = sample_id "
    "WHERE (closed_by IS NOT NULL OR (SELECT count(*) FROM votes WHERE sheet_id = sheets.id) = "
    "(SELECT count(DISTINCT position) FROM sheet_samples WHERE sheet_id = sheets.id))"
)

_VOTING = (
    f"SELECT id FROM sheets WHERE scorecard_id IN ({_SAME_TEXTS}) AND kind = 'votes' AND closed_by IS NULL "
    "AND (SELECT count(*) FROM votes WHERE sheet_id = sheets.id) BETWEEN 1 AND "
    "(SELECT count(DISTINCT position) FROM sheet_samples WHERE sheet_id = sheets.id) - 1"
)

# Each person's last word on each text of a version (?1) and of its baseline (?4).
_GRADED = (
    "SELECT version = ?1 AS own, item_id, user, grades.grade, max(pressed_at) FROM grades "
    "JOIN samples ON samples.id = sample_id JOIN scorecards ON scorecards.id = scorecard_id "
    "WHERE version IN (?1, ?4) AND suite = ?2 AND seed = ?3 GROUP BY own, item_id, user"
)


def agreement(pairs: Sequence[tuple[str, str]]) -> Agreement:
    return Agreement(kappa(pairs), len(pairs))


def _majorities(voted: Iterable[Row]) -> dict[Pair, float]:
    # A person who compares the same texts on a second sheet thinks again, and has no second voice.
    last = {
        (row["user"], text_of(row), row["baseline"]): row["won"]
        for row in sorted(voted, key=lambda row: float(row["pressed_at"]))
    }
    sums: Counter[Pair] = Counter()
    for (_, text, baseline), won in last.items():
        sums[text, baseline] += won
    return {pair: 0.5 if won == 0 else float(won > 0) for pair, won in sums.items()}


def text_of(row: Row) -> Text:
    return row["version"], row["suite"], row["seed"], row["item_id"]


def _least_graded(samples: Iterable[Row], rng: random.Random) -> list[int]:
    """Those that fewest people have seen come first, so that several graders cover more texts."""
    order = list(samples)
    rng.shuffle(order)
    return [int(row["id"]) for row in sorted(order, key=lambda row: int(row["graded"]))]


def _middle(grades: Iterable[str]) -> str:
    ranked = sorted(grades, key=GRADES.index)
    return ranked[len(ranked) // 2]


def _excellent(grades: Iterable[str]) -> Rate:
    found = list(grades)
    return wilson(sum(grade == GRADES[0] for grade in found), len(found))


def _task(row: Row) -> Task:
    requirements = Requirements.from_json(row["requirements"])
    return Task(row["instruction"], row["input"], row["language"], row["category"], requirements)
