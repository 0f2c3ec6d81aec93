"""Typed reads and writes over the one SQLite file.

Connections are opened per operation, because sqlite3 connections stay on one thread and listeners run on many.
Every public method is one transaction: it happened whole, or it did not happen.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from serving import mapping, schema
from serving.mapping import Row
from serving.prompt import brief_key, normalised
from serving.records import (
    Brief,
    CopydeskError,
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
    Round,
    RoundState,
    Sample,
    Scorecard,
    Split,
    Task,
    Verdict,
    Version,
)

BASE = "base"  # the name of the live model while no version is approved
HELD_OUT_SHARE = 10  # one brief in so many is held out
MINOR_SHARE = 0.1  # of the pairs: a language below it is not what a version is for
BUSY_TIMEOUT_MS = 30_000


def split_of(task: Task) -> Split:
    """Train or held out, from the normalised brief alone, so that a brief never sits on both sides."""
    return Split.HELD_OUT if int(brief_key(task)[:8], 16) % HELD_OUT_SHARE == 0 else Split.TRAIN


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class NewPair:
    task: Task
    output: str
    source: PairSource
    author: str = ""


@dataclass(frozen=True)
class Added:
    """What an import did, in rows."""

    added: int
    duplicates: int


class Store:
    """The desk's memory.

    Args:
        path: the SQLite file; made, or upgraded, when needed.
        now: the clock, as an ISO 8601 string in UTC.

    Raises:
        CopydeskError: the file is not a database, cannot be written, or comes from a later release.
    """

    def __init__(self, path: Path, now: Callable[[], str] = _utc_now) -> None:
        self.path = path
        self._now = now
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as db:
                if db.journal_mode != "wal":
                    db.enable_wal()
                schema.upgrade(db)
        except (OSError, sqlite3.Error) as error:
            raise CopydeskError(
                f"The database {path} cannot be opened ({error}); check the disk and the file's owner."
            ) from error

    @contextmanager
    def _open(self) -> Iterator[Database]:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_MS / 1000)
        with Database(connection) as db:
            db.execute("PRAGMA foreign_keys = on")
            # FULL: an accepted request or a decision survives the machine, not only the process.
            db.execute("PRAGMA synchronous = full")
            yield db

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Writes that happen together or not at all; for this module and its siblings that own further tables."""
        with self._open() as db:
            try:
                # IMMEDIATE: what is read below is still true when it is written.
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.commit()
            except sqlite3.OperationalError as error:
                db.rollback()
                raise CopydeskError(
                    f"Nothing was saved: {error}. Check the free space and try again.", code="not_saved"
                ) from error
            except BaseException:
                db.rollback()
                raise

    def rows(self, sql: str, *values: Any) -> list[Row]:
        with self._open() as db:
            return list(db.query(sql, list(values)))

    def insert(self, db: Database, table: str, **values: Any) -> int:
        values.setdefault("created_at", self._now())
        rowid = db.table(table).insert(values).last_rowid
        assert rowid is not None
        return rowid

    # Events

    def first_sight(self, event_id: str) -> bool:
        """Remember a Slack event; False when it was seen before."""
        with self.transaction() as db:
            return self._first_sight(db, event_id)

    def _first_sight(self, db: Database, event_id: str) -> bool:
        cursor = db.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", [event_id, self._now()])
        return cursor.rowcount == 1

    # Briefs and requests

    def add_request(
        self, task: Task, *, user: str, channel: str, thread_ts: str, locale: str, event_id: str | None = None
    ) -> Request | None:
        """Accept a brief: the event, the brief and the waiting request become rows together.

        Returns None when the event was seen before.
        """
        with self.transaction() as db:
            if event_id is not None and not self._first_sight(db, event_id):
                return None
            brief_id = self.insert(
                db, "briefs", **mapping.task_columns(task), user=user, channel=channel, thread_ts=thread_ts
            )
            return self._add_request(db, brief_id, user, channel, thread_ts, locale)

    def add_another_request(
        self, brief_id: int, *, user: str, channel: str, thread_ts: str, locale: str, event_id: str | None = None
    ) -> Request | None:
        """Ask once more for the same brief ("Try again").

        Returns None when the event was seen before, or the person's last one for this brief is still being written.
        """
        with self.transaction() as db:
            if event_id is not None and not self._first_sight(db, event_id):
                return None
            unwritten = "SELECT 1 FROM requests WHERE brief_id = ? AND user = ? AND state = 'waiting'"
            if db.execute(unwritten, [brief_id, user]).fetchone():
                return None
            return self._add_request(db, brief_id, user, channel, thread_ts, locale)

    def _add_request(
        self, db: Database, brief_id: int, user: str, channel: str, thread_ts: str, locale: str
    ) -> Request:
        id = self.insert(
            db,
            "requests",
            brief_id=brief_id,
            user=user,
            channel=channel,
            thread_ts=thread_ts,
            locale=locale,
            reply_ts=None,
            state=RequestState.WAITING,
        )
        return mapping.request(_one(db, "SELECT * FROM requests WHERE id = ?", id))

    def request(self, id: int) -> Request:
        return mapping.request(self._get("requests", id))

    def waiting_requests(self) -> list[Request]:
        """Those whose answer nobody has seen whole, the oldest first."""
        sql = "SELECT * FROM requests WHERE state IN ('waiting', 'written') ORDER BY id"
        return [mapping.request(row) for row in self.rows(sql)]

    def set_thread(self, request_id: int, thread_ts: str) -> None:
        """Remember the message that a command's answer hangs under."""
        with self.transaction() as db:
            db.execute("UPDATE requests SET thread_ts = ? WHERE id = ?", [thread_ts, request_id])

    def has_requests(self, channel: str, thread_ts: str = "") -> bool:
        """Whether somebody asked for copy in a thread, or anywhere in a channel."""
        sql = "SELECT 1 FROM requests WHERE channel = ? AND ? IN (thread_ts, '') LIMIT 1"
        return bool(self.rows(sql, channel, thread_ts))

    def known_replies(self, channel: str) -> set[str]:
        """The messages of a channel that belong to a request."""
        rows = self.rows("SELECT reply_ts FROM requests WHERE channel = ? AND reply_ts IS NOT NULL", channel)
        return {row["reply_ts"] for row in rows}

    def set_reply(self, request_id: int, ts: str) -> None:
        """Remember the message that will become the draft, so that a restart continues in it."""
        with self.transaction() as db:
            db.execute("UPDATE requests SET reply_ts = ? WHERE id = ?", [ts, request_id])

    def fail_request(self, request_id: int) -> None:
        """The person was told that there will be no draft."""
        with self.transaction() as db:
            # One that is written, too: its channel may be gone.
            db.execute("UPDATE requests SET state = 'failed' WHERE id = ? AND state != 'answered'", [request_id])

    def answer(
        self,
        request_id: int,
        *,
        version: str,
        text: str,
        ts: str,
        prompt_tokens: int,
        completion_tokens: int,
        first_token_s: float | None,
        total_s: float,
    ) -> Draft:
        """Store the draft. A request has at most one: a second answer returns the first."""
        with self.transaction() as db:
            request = mapping.request(_one(db, "SELECT * FROM requests WHERE id = ?", request_id))
            rows = list(db.query("SELECT * FROM drafts WHERE request_id = ?", [request_id]))
            if rows:
                return mapping.draft(rows[0])
            id = self.insert(
                db,
                "drafts",
                brief_id=request.brief_id,
                request_id=request_id,
                version=version,
                text=text,
                channel=request.channel,
                ts=ts,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                first_token_s=first_token_s,
                total_s=total_s,
            )
            db.execute("UPDATE requests SET state = 'written', reply_ts = ? WHERE id = ?", [ts, request_id])
            return mapping.draft(_one(db, "SELECT * FROM drafts WHERE id = ?", id))

    def close_request(self, request_id: int) -> None:
        """The draft stands in the thread with its buttons."""
        with self.transaction() as db:
            db.execute("UPDATE requests SET state = 'answered' WHERE id = ?", [request_id])

    def brief(self, id: int) -> Brief:
        return mapping.brief(self._get("briefs", id))

    # Drafts and what people say about them

    def draft(self, id: int) -> Draft:
        """Raises CopydeskError when the draft is gone."""
        return mapping.draft(self._get("drafts", id))

    def draft_at(self, channel: str, ts: str) -> Draft | None:
        rows = self.rows("SELECT * FROM drafts WHERE channel = ? AND ts = ?", channel, ts)
        return mapping.draft(rows[0]) if rows else None

    def draft_of(self, request_id: int) -> Draft | None:
        rows = self.rows("SELECT * FROM drafts WHERE request_id = ?", request_id)
        return mapping.draft(rows[0]) if rows else None

    def drafts(self, limit: int = -1) -> list[Draft]:
        """The newest first."""
        return [mapping.draft(row) for row in self.rows("SELECT * FROM drafts ORDER BY id DESC LIMIT ?", limit)]

    def rate(
        self,
        draft_id: int,
        user: str,
        verdict: Verdict,
        source: RatingSource = RatingSource.BUTTON,
        reason: str = "",
        event_id: str | None = None,
    ) -> Rating | None:
        """A person's rating; the last one counts. A 👍 makes the draft a pair, its withdrawal takes it back.

        Returns None when the event was seen before: one that arrives late must not undo a later rating.
        """
        with self.transaction() as db:
            _one(db, "SELECT id FROM drafts WHERE id = ?", draft_id, what=f"Draft {draft_id}")
            if event_id is not None and not self._first_sight(db, event_id):
                return None
            db.execute(
                "INSERT INTO ratings (draft_id, user, verdict, reason, source, created_at) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (draft_id, user) DO UPDATE SET verdict = excluded.verdict, source = excluded.source, "
                "created_at = excluded.created_at, "
                "reason = CASE WHEN excluded.verdict = verdict AND excluded.reason = '' THEN reason "
                "ELSE excluded.reason END",
                [draft_id, user, verdict, reason, source, self._now()],
            )
            self._sync_accepted_pair(db, draft_id)
            return mapping.rating(_one(db, "SELECT * FROM ratings WHERE draft_id = ? AND user = ?", draft_id, user))

    def set_reason(self, draft_id: int, user: str, reason: str) -> None:
        """Why a person gave a 👎. Raises CopydeskError when there is none of theirs, or no longer."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE ratings SET reason = ? WHERE draft_id = ? AND user = ? AND verdict = ?",
                [reason, draft_id, user, Verdict.DOWN],
            ).rowcount
            if not changed:
                raise CopydeskError("There is no 👎 of yours on this draft; press 👎 again first.", code="no_rating")

    def unrate(self, draft_id: int, user: str, verdict: Verdict, event_id: str | None = None) -> bool:
        """Take a rating back, if it is still the one that counts. Returns whether it was."""
        with self.transaction() as db:
            if event_id is not None and not self._first_sight(db, event_id):
                return False
            removed = db.execute(
                "DELETE FROM ratings WHERE draft_id = ? AND user = ? AND verdict = ?", [draft_id, user, verdict]
            ).rowcount
            self._sync_accepted_pair(db, draft_id)
            return bool(removed)

    def ratings(self, draft_id: int | None = None) -> list[Rating]:
        where, values = ("", []) if draft_id is None else ("WHERE draft_id = ?", [draft_id])
        return [mapping.rating(row) for row in self.rows(f"SELECT * FROM ratings {where} ORDER BY id", *values)]

    def _sync_accepted_pair(self, db: Database, draft_id: int) -> None:
        """A draft is a pair while it has a 👍, no 👎, and no correction."""
        up, down = _counts(
            db, "SELECT sum(verdict = 'up'), sum(verdict = 'down') FROM ratings WHERE draft_id = ?", draft_id
        )
        (corrected,) = _counts(db, "SELECT count(*) FROM corrections WHERE draft_id = ?", draft_id)
        accepted = up > 0 and down == 0 and corrected == 0
        existing = list(
            db.query("SELECT id FROM pairs WHERE draft_id = ? AND source = ?", [draft_id, PairSource.ACCEPTED])
        )
        if existing:
            status = PairStatus.ACTIVE if accepted else PairStatus.REPLACED if corrected else PairStatus.WITHDRAWN
            db.execute("UPDATE pairs SET status = ? WHERE id = ?", [status, existing[0]["id"]])
        elif accepted:
            draft = mapping.draft(_one(db, "SELECT * FROM drafts WHERE id = ?", draft_id))
            brief = mapping.brief(_one(db, "SELECT * FROM briefs WHERE id = ?", draft.brief_id))
            self._insert_pair(db, NewPair(brief.task, draft.text, PairSource.ACCEPTED, brief.user), draft_id)

    def add_correction(self, draft_id: int, user: str, text: str) -> Correction:
        """Store an edit and its pair in one transaction; an earlier correction of the draft is replaced.

        Raises:
            CopydeskError: the draft is gone, or the text is empty or as it was: the last correction, or else the draft.
        """
        with self.transaction() as db:
            draft = mapping.draft(_one(db, "SELECT * FROM drafts WHERE id = ?", draft_id, what=f"Draft {draft_id}"))
            if not text.strip():
                raise CopydeskError(
                    "The correction is empty; write the copy as it should read.", code="correction_empty"
                )
            earlier = list(db.query("SELECT text FROM corrections WHERE draft_id = ? ORDER BY id", [draft_id]))
            if earlier and text.strip() == earlier[-1]["text"]:
                raise CopydeskError("The correction equals the one before; change the text.", code="correction_again")
            # After a correction the draft's own text is one, too: no rating brings it back.
            if not earlier and text.strip() == draft.text.strip():
                raise CopydeskError(
                    "The correction equals the draft; change the text, or press 👍 to keep it.", code="correction_same"
                )
            brief = mapping.brief(_one(db, "SELECT * FROM briefs WHERE id = ?", draft.brief_id))
            db.execute(
                "UPDATE pairs SET status = ? WHERE draft_id = ? AND status = ?",
                [PairStatus.REPLACED, draft_id, PairStatus.ACTIVE],
            )
            pair_id = self._insert_pair(db, NewPair(brief.task, text.strip(), PairSource.CORRECTION, user), draft_id)
            id = self.insert(db, "corrections", draft_id=draft_id, user=user, text=text.strip(), pair_id=pair_id)
            return mapping.correction(_one(db, "SELECT * FROM corrections WHERE id = ?", id))

    def corrections(self, draft_id: int | None = None) -> list[Correction]:
        where, values = ("", []) if draft_id is None else ("WHERE draft_id = ?", [draft_id])
        return [mapping.correction(row) for row in self.rows(f"SELECT * FROM corrections {where} ORDER BY id", *values)]

    # Pairs

    def _insert_pair(self, db: Database, pair: NewPair, draft_id: int | None) -> int:
        return self.insert(
            db,
            "pairs",
            **mapping.task_columns(pair.task),
            output=pair.output,
            source=pair.source,
            status=PairStatus.ACTIVE,
            split=split_of(pair.task),
            author=pair.author,
            draft_id=draft_id,
        )

    def add_pairs(self, pairs: Iterable[NewPair]) -> Added:
        """Import pairs, all or none. One that is there already (same brief, same output) is counted and left out."""
        added = duplicates = 0
        with self.transaction() as db:
            known = {
                (row["brief_key"], normalised(row["output"]))
                for row in db.query("SELECT brief_key, output FROM pairs WHERE status = 'active'")
            }
            for pair in pairs:
                key = (brief_key(pair.task), normalised(pair.output))
                if key in known:
                    duplicates += 1
                    continue
                known.add(key)
                self._insert_pair(db, pair, None)
                added += 1
        return Added(added, duplicates)

    def pairs(
        self, *, status: PairStatus | None = PairStatus.ACTIVE, split: Split | None = None, language: str | None = None
    ) -> list[Pair]:
        conditions = {"status": status, "split": split, "language": language}
        given = {column: value for column, value in conditions.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1"
        return [
            mapping.pair(row) for row in self.rows(f"SELECT * FROM pairs WHERE {where} ORDER BY id", *given.values())
        ]

    def pair_of(self, draft_id: int) -> Pair | None:
        """The active pair that a draft, or its last correction, became."""
        rows = self.rows("SELECT * FROM pairs WHERE draft_id = ? AND status = ?", draft_id, PairStatus.ACTIVE)
        return mapping.pair(rows[0]) if rows else None

    def pair(self, id: int) -> Pair:
        return mapping.pair(self._get("pairs", id))

    def withdraw_pair(self, id: int) -> None:
        self.pair(id)
        with self.transaction() as db:
            db.execute("UPDATE pairs SET status = ? WHERE id = ?", [PairStatus.WITHDRAWN, id])

    # Rounds and versions

    def start_round(self, recipe: dict[str, Any], pair_ids: Iterable[int], data_digest: str) -> Round:
        """Write down exactly what a round will see. Its version's name follows from its number."""
        with self.transaction() as db:
            db.table("rounds").insert(
                {
                    "recipe": mapping.json_text(recipe),
                    "state": RoundState.RUNNING,
                    "data_digest": data_digest,
                    "facts": "{}",
                    "message": "",
                    "started_at": self._now(),
                    "finished_at": None,
                }
            )
            (id,) = _counts(db, "SELECT max(id) FROM rounds")
            db.table("round_pairs").insert_all({"round_id": id, "pair_id": pair_id} for pair_id in pair_ids)
        return self.round(id)

    def finish_round(self, id: int, facts: dict[str, Any], *, path: str, digest: str, base_model: str) -> Version:
        """Register the version of a round whose files are whole. Files first, row last: a row means complete."""
        with self.transaction() as db:
            round = mapping.round(_one(db, _ROUNDS + "WHERE rounds.id = ?", id, what=f"Round {id}"))
            self.insert(
                db, "versions", name=round.version, round_id=id, path=path, digest=digest, base_model=base_model
            )
            self._close_round(db, id, RoundState.DONE, facts, "")
            return mapping.version(_one(db, "SELECT * FROM versions WHERE round_id = ?", id))

    def fail_round(self, id: int, message: str, facts: dict[str, Any] | None = None) -> None:
        with self.transaction() as db:
            self._close_round(db, id, RoundState.FAILED, facts or {}, message)

    def _close_round(self, db: Database, id: int, state: RoundState, facts: dict[str, Any], message: str) -> None:
        db.execute(
            "UPDATE rounds SET state = ?, facts = ?, message = ?, finished_at = ? WHERE id = ?",
            [state, mapping.json_text(facts), message, self._now(), id],
        )

    def round(self, id: int) -> Round:
        with self._open() as db:
            return mapping.round(_one(db, _ROUNDS + "WHERE rounds.id = ?", id, what=f"Round {id}"))

    def rounds(self) -> list[Round]:
        """The newest first."""
        return [mapping.round(row) for row in self.rows(_ROUNDS + "ORDER BY rounds.id DESC")]

    def round_pairs(self, id: int) -> list[Pair]:
        """Exactly the pairs that a round saw, whatever became of them since."""
        return [
            mapping.pair(row)
            for row in self.rows(
                "SELECT pairs.* FROM pairs JOIN round_pairs ON pair_id = pairs.id WHERE round_id = ? ORDER BY pairs.id",
                id,
            )
        ]

    def versions(self) -> list[Version]:
        """The newest first."""
        return [self._version(row) for row in self.rows("SELECT * FROM versions ORDER BY round_id DESC")]

    def version(self, name: str) -> Version:
        rows = self.rows("SELECT * FROM versions WHERE name = ?", name)
        if not rows:
            raise CopydeskError(
                f"There is no version {name}; copydesk version list shows those that exist.",
                code="no_version",
                version=name,
            )
        return self._version(rows[0])

    def _version(self, row: Row) -> Version:
        """With the path that its files have now: the desk may have moved. The digest still guards them."""
        version, here = mapping.version(row), self.path.parent / "adapters" / row["name"]
        if not os.path.isdir(version.path) and os.path.isdir(here):  # Path.is_dir raises where it may not look
            return replace(version, path=str(here.resolve()))
        return version

    # Scorecards

    def start_scorecard(self, version: str, *, baseline: str, suite: str, seed: int) -> Scorecard:
        """Open a scorecard, or go on with the unfinished one of the same version, baseline, suite and seed."""
        with self.transaction() as db:
            rows = list(
                db.query(
                    "SELECT * FROM scorecards WHERE version = ? AND baseline = ? AND suite = ? AND seed = ? "
                    "AND body IS NULL",
                    [version, baseline, suite, seed],
                )
            )
            if rows:
                return mapping.scorecard(rows[0])
            id = self.insert(db, "scorecards", version=version, baseline=baseline, suite=suite, seed=seed, body=None)
            return mapping.scorecard(_one(db, "SELECT * FROM scorecards WHERE id = ?", id))

    def add_sample(
        self, scorecard_id: int, *, item_id: str, part: str, repeat: int, text: str, grade: str, score: dict[str, Any]
    ) -> None:
        """Append one generation; the same item, part and repeat is kept once."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO samples "
                "(scorecard_id, item_id, part, repeat, text, grade, score, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [scorecard_id, item_id, part, repeat, text, grade, mapping.json_text(score), self._now()],
            )

    def samples(self, scorecard_id: int) -> list[Sample]:
        return [
            mapping.sample(row)
            for row in self.rows(
                "SELECT * FROM samples WHERE scorecard_id = ? ORDER BY part, item_id, repeat", scorecard_id
            )
        ]

    def finish_scorecard(self, id: int, body: dict[str, Any]) -> Scorecard:
        with self.transaction() as db:
            db.execute("UPDATE scorecards SET body = ? WHERE id = ?", [mapping.json_text(body), id])
        return self.scorecard(id)

    def scorecard(self, id: int) -> Scorecard:
        return mapping.scorecard(self._get("scorecards", id))

    def scorecards(self, version: str | None = None, *, unfinished: bool = False) -> list[Scorecard]:
        """Finished ones, the newest first; after them, where asked for, those that are not."""
        where, values = ("", []) if version is None else ("AND version = ?", [version])
        sql = f"SELECT * FROM scorecards WHERE (body IS NOT NULL OR ?) {where} ORDER BY body IS NULL, id DESC"
        return [mapping.scorecard(row) for row in self.rows(sql, unfinished, *values)]

    def unannounced_scorecards(self) -> list[Scorecard]:
        """Finished scorecards of trained versions that the channel has not seen as they are, the oldest first."""
        return [
            mapping.scorecard(row)
            for row in self.rows(
                "SELECT * FROM scorecards WHERE announced_looks < coalesce(json_extract(body, '$.looks'), 1) "
                "AND body IS NOT NULL AND announced_ts IS NOT '' AND version <> ? ORDER BY id",
                BASE,
            )
        ]

    def mark_announced(self, scorecard_id: int, channel: str, ts: str, looks: int = 1) -> None:
        """Where the channel has it; "" where it is no news to the channel.

        Args:
            looks: the scorecard's, once both message and picture show it; 0 while the picture is missing.
        """
        with self.transaction() as db:
            db.execute(
                "UPDATE scorecards SET announced_channel = ?, announced_ts = ?, announced_looks = ? WHERE id = ?",
                [channel, ts, looks, scorecard_id],
            )

    def languages(self, version: str) -> list[str]:
        """What a version is to write: languages of a tenth or more of the pairs of its round; of all pairs for BASE."""
        of_round = "JOIN round_pairs ON pair_id = pairs.id JOIN versions USING (round_id) WHERE name = ?"
        where, values = ("WHERE status = 'active'", []) if version == BASE else (of_round, [version])
        sql = f"SELECT language, count(*) AS pairs FROM pairs {where} GROUP BY language ORDER BY language"
        pairs = {row["language"]: row["pairs"] for row in self.rows(sql, *values)}
        return [language for language, n in pairs.items() if n >= MINOR_SHARE * sum(pairs.values())] or ["en"]

    def unscored_languages(self, version: str) -> list[str]:
        """Those of a version that have no finished scorecard on their own suite; none once it was decided about."""
        if self.decision_on(version):
            return []
        rows = self.rows("SELECT suite FROM scorecards WHERE body IS NOT NULL AND version = ?", version)
        scored = {row["suite"].partition("@")[0] for row in rows}
        return [language for language in self.languages(version) if language not in scored]

    # Promotions

    def live(self) -> str:
        """The name of the version that writes the next draft; BASE until one is approved."""
        with self._open() as db:
            return _live(db)[0]

    def decide(
        self,
        version: str,
        decision: Decision,
        *,
        digest: str,
        user: str,
        reason: str = "",
        expected_live: str | None = None,
    ) -> Promotion:
        """Record a lead's decision, if nobody was faster.

        Args:
            version: the candidate, or for a roll-back the version (or BASE) to go back to.
            expected_live: what the decider believed to be live; None does not check.

        Raises:
            CopydeskError: the version was decided already, or another version went live meanwhile.
        """
        with self.transaction() as db:
            live, by = _live(db)
            if expected_live is not None and live != expected_live:
                code = "rolled_back_already" if decision is Decision.ROLLED_BACK else "live_changed"
                raise CopydeskError(f"{by} made {live} live meanwhile; compare again.", code=code, live=live, user=by)
            if decision is not Decision.ROLLED_BACK:
                rows = list(
                    db.query(
                        "SELECT * FROM promotions WHERE version = ? AND decision IN ('approved', 'rejected')", [version]
                    )
                )
                if rows:
                    raise CopydeskError(
                        f"{version} was {rows[0]['decision']} already by {rows[0]['user']}.",
                        code="decided_already",
                        version=version,
                        user=rows[0]["user"],
                    )
            elif version == live:
                raise CopydeskError(f"{version} is live already; there is nothing to roll back.")
            id = self.insert(
                db,
                "promotions",
                version=version,
                digest=digest,
                decision=decision,
                user=user,
                reason=reason,
                previous=live,
            )
            return mapping.promotion(_one(db, "SELECT * FROM promotions WHERE id = ?", id))

    def promotions(self) -> list[Promotion]:
        """The newest first."""
        return [mapping.promotion(row) for row in self.rows("SELECT * FROM promotions ORDER BY id DESC")]

    def untold_promotions(self) -> list[Promotion]:
        """Those that the channel has not read of, the oldest first."""
        return [
            mapping.promotion(row) for row in self.rows("SELECT * FROM promotions WHERE told_at IS NULL ORDER BY id")
        ]

    def mark_told(self, promotion_id: int) -> None:
        with self.transaction() as db:
            db.execute("UPDATE promotions SET told_at = ? WHERE id = ?", [self._now(), promotion_id])

    def decision_on(self, version: str) -> Promotion | None:
        rows = self.rows("SELECT * FROM promotions WHERE version = ? AND decision IN ('approved', 'rejected')", version)
        return mapping.promotion(rows[0]) if rows else None

    def _get(self, table: str, id: int) -> Row:
        with self._open() as db:
            return _one(db, f"SELECT * FROM {table} WHERE id = ?", id, what=f"{table[:-1].capitalize()} {id}")


_ROUNDS = "SELECT rounds.*, (SELECT count(*) FROM round_pairs WHERE round_id = rounds.id) AS pairs FROM rounds "


def _one(db: Database, sql: str, *values: Any, what: str = "The row") -> Row:
    row = next(iter(db.query(sql, list(values))), None)
    if row is None:
        raise CopydeskError(f"{what} is not there.", code="gone")
    return row


def _counts(db: Database, sql: str, *values: Any) -> tuple[int, ...]:
    return tuple(value or 0 for value in db.execute(sql, list(values)).fetchone())


def _live(db: Database) -> tuple[str, str]:
    """The live version and who made it live."""
    sql = "SELECT version, user FROM promotions WHERE decision <> 'rejected' ORDER BY id DESC LIMIT 1"
    return next(iter(db.execute(sql)), (BASE, ""))
