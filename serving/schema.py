"""The tables, as numbered migrations. A migration is never edited once it has shipped; the next one is appended."""

from __future__ import annotations

from sqlite_utils import Database, Migrations

from serving.records import CopydeskError

migrations = Migrations("copydesk")


@migrations()
def m0001_the_loop(db: Database) -> None:
    _execute(db, _M0001)


@migrations()
def m0002_people(db: Database) -> None:
    _execute(db, _M0002)


@migrations()
def m0003_rounds(db: Database) -> None:
    _execute(db, _M0003)


@migrations()
def m0004_life(db: Database) -> None:
    _execute(db, _M0004)


@migrations()
def m0005_preferences(db: Database) -> None:
    _execute(db, _M0005)


@migrations()
def m0006_trials(db: Database) -> None:
    _execute(db, _M0006)


@migrations()
def m0007_decisions_and_tries(db: Database) -> None:
    _execute(db, _M0007)


@migrations()
def m0008_announced_looks(db: Database) -> None:
    _execute(db, _M0008)


def _execute(db: Database, script: str) -> None:
    """Statement by statement: sqlite3's own executescript would end the transaction that all migrations share."""
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


def upgrade(db: Database) -> None:
    """Bring the database to this release's migration; two processes may try at once.

    Raises:
        CopydeskError: the database was written by a later release.
    """
    newer = {migration.name for migration in migrations.applied(db)} - {step.name for step in migrations._migrations}
    if newer:
        raise CopydeskError(
            f"The database has the later migration {max(newer)}; "
            "upgrade Copydesk, or point COPYDESK_HOME at another folder."
        )
    if migrations.pending(db):
        db.execute("BEGIN IMMEDIATE")
        try:
            migrations.apply(db)
        except BaseException:
            db.rollback()
            raise
        db.commit()


_M0001 = """
CREATE TABLE events (
    event_id TEXT PRIMARY KEY,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE briefs (
    id INTEGER PRIMARY KEY,
    instruction TEXT NOT NULL,
    input TEXT NOT NULL,
    language TEXT NOT NULL,
    category TEXT NOT NULL,
    requirements TEXT NOT NULL,
    brief_key TEXT NOT NULL,
    user TEXT NOT NULL,
    channel TEXT NOT NULL,
    thread_ts TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    brief_id INTEGER NOT NULL REFERENCES briefs(id),
    user TEXT NOT NULL,
    channel TEXT NOT NULL,
    thread_ts TEXT NOT NULL,
    locale TEXT NOT NULL,
    reply_ts TEXT,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'written', 'answered', 'failed')),
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX requests_state ON requests(state);
CREATE TABLE drafts (
    id INTEGER PRIMARY KEY,
    brief_id INTEGER NOT NULL REFERENCES briefs(id),
    request_id INTEGER NOT NULL UNIQUE REFERENCES requests(id),
    version TEXT NOT NULL,
    text TEXT NOT NULL,
    channel TEXT NOT NULL,
    ts TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    first_token_s REAL,
    total_s REAL NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (channel, ts)
) STRICT;
CREATE TABLE ratings (
    id INTEGER PRIMARY KEY,
    draft_id INTEGER NOT NULL REFERENCES drafts(id),
    user TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('up', 'down')),
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (draft_id, user)
) STRICT;
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY,
    instruction TEXT NOT NULL,
    input TEXT NOT NULL,
    output TEXT NOT NULL,
    language TEXT NOT NULL,
    category TEXT NOT NULL,
    requirements TEXT NOT NULL,
    source TEXT NOT NULL,
    status TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'held_out')),
    brief_key TEXT NOT NULL,
    author TEXT NOT NULL,
    draft_id INTEGER REFERENCES drafts(id),
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX pairs_brief ON pairs(brief_key);
CREATE INDEX pairs_draft ON pairs(draft_id);
CREATE TABLE corrections (
    id INTEGER PRIMARY KEY,
    draft_id INTEGER NOT NULL REFERENCES drafts(id),
    user TEXT NOT NULL,
    text TEXT NOT NULL,
    pair_id INTEGER NOT NULL REFERENCES pairs(id),
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY,
    recipe TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    data_digest TEXT NOT NULL,
    facts TEXT NOT NULL,
    message TEXT NOT NULL,
    started_at TEXT NOT NULL,
    finished_at TEXT
) STRICT;
CREATE TABLE round_pairs (
    round_id INTEGER NOT NULL REFERENCES rounds(id),
    pair_id INTEGER NOT NULL REFERENCES pairs(id),
    PRIMARY KEY (round_id, pair_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX round_pairs_pair ON round_pairs(pair_id);
CREATE TABLE versions (
    name TEXT PRIMARY KEY,
    round_id INTEGER NOT NULL UNIQUE REFERENCES rounds(id),
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    base_model TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE scorecards (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    baseline TEXT NOT NULL,
    suite TEXT NOT NULL,
    seed INTEGER NOT NULL,
    body TEXT,
    announced_channel TEXT,
    announced_ts TEXT,
    created_at TEXT NOT NULL
) STRICT;
CREATE TABLE samples (
    id INTEGER PRIMARY KEY,
    scorecard_id INTEGER NOT NULL REFERENCES scorecards(id),
    item_id TEXT NOT NULL,
    part TEXT NOT NULL,
    repeat INTEGER NOT NULL,
    text TEXT NOT NULL,
    grade TEXT NOT NULL,
    score TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (scorecard_id, item_id, part, repeat)
) STRICT;
CREATE TABLE promotions (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('approved', 'rejected', 'rolled_back')),
    user TEXT NOT NULL,
    reason TEXT NOT NULL,
    previous TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX promotions_once ON promotions(version) WHERE decision IN ('approved', 'rejected');
"""

_M0002 = """
CREATE TABLE suite_items (
    suite TEXT NOT NULL,
    item_id TEXT NOT NULL,
    instruction TEXT NOT NULL,
    input TEXT NOT NULL,
    language TEXT NOT NULL,
    category TEXT NOT NULL,
    requirements TEXT NOT NULL,
    PRIMARY KEY (suite, item_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE sheets (
    id INTEGER PRIMARY KEY,
    scorecard_id INTEGER NOT NULL REFERENCES scorecards(id),
    user TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('grades', 'votes')),
    seed INTEGER NOT NULL,
    closed_by TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (scorecard_id, user, kind)
) STRICT;
CREATE TABLE sheet_samples (
    sheet_id INTEGER NOT NULL REFERENCES sheets(id),
    position INTEGER NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('a', 'b')),
    sample_id INTEGER NOT NULL REFERENCES samples(id),
    PRIMARY KEY (sheet_id, position, side)
) STRICT, WITHOUT ROWID;
CREATE TABLE grades (
    id INTEGER PRIMARY KEY,
    sample_id INTEGER NOT NULL REFERENCES samples(id),
    user TEXT NOT NULL,
    grade TEXT NOT NULL CHECK (grade IN ('excellent', 'acceptable', 'fail')),
    pressed_at REAL NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (sample_id, user)
) STRICT;
CREATE TABLE votes (
    id INTEGER PRIMARY KEY,
    sheet_id INTEGER NOT NULL REFERENCES sheets(id),
    position INTEGER NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('a', 'tie', 'b')),
    pressed_at REAL NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (sheet_id, position)
) STRICT;
CREATE TABLE extensions (
    id INTEGER PRIMARY KEY,
    scorecard_id INTEGER NOT NULL REFERENCES scorecards(id),
    user TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    items INTEGER NOT NULL,
    pid INTEGER,
    pid_started REAL,
    created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX extensions_once ON extensions(scorecard_id) WHERE state = 'running';
CREATE TABLE judgements (
    id INTEGER PRIMARY KEY,
    sample_id INTEGER NOT NULL REFERENCES samples(id),
    judge TEXT NOT NULL,
    question TEXT NOT NULL,
    yes REAL,
    reason TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (sample_id, judge, question)
) STRICT;
"""

_M0003 = """
CREATE TABLE round_jobs (
    round_id INTEGER PRIMARY KEY REFERENCES rounds(id),
    fingerprint TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started REAL NOT NULL,
    step INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    seconds_left REAL,
    cancelled_by TEXT,
    channel TEXT,
    ts TEXT,
    shown TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE TABLE round_exclusions (
    round_id INTEGER NOT NULL REFERENCES rounds(id),
    pair_id INTEGER NOT NULL REFERENCES pairs(id),
    reason TEXT NOT NULL,
    PRIMARY KEY (round_id, pair_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX round_exclusions_pair ON round_exclusions(pair_id);
"""

_M0004 = """
CREATE TABLE loads (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL REFERENCES versions(name),
    failure TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX loads_version ON loads(version);
CREATE TABLE canaries (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL REFERENCES versions(name),
    share REAL NOT NULL CHECK (share > 0 AND share < 1),
    started_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    ended_by TEXT,
    ended_at TEXT
) STRICT;
CREATE UNIQUE INDEX canaries_once ON canaries((1)) WHERE ended_by IS NULL;
"""

_M0005 = """
CREATE TABLE round_drafts (
    round_id INTEGER NOT NULL REFERENCES rounds(id),
    draft_id INTEGER NOT NULL REFERENCES drafts(id),
    used_as TEXT NOT NULL CHECK (used_as IN ('corrected', 'liked', 'disliked', '')),
    reason TEXT NOT NULL,
    PRIMARY KEY (round_id, draft_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX round_drafts_draft ON round_drafts(draft_id);
"""

_M0006 = """
ALTER TABLE canaries ADD COLUMN told_at TEXT;
UPDATE canaries SET told_at = coalesce(ended_at, (
    SELECT created_at FROM promotions
    WHERE promotions.version = canaries.version AND decision IN ('approved', 'rejected')
));
"""

_M0007 = """
ALTER TABLE promotions ADD COLUMN told_at TEXT;
UPDATE promotions SET told_at = created_at;
ALTER TABLE round_jobs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE round_jobs ADD COLUMN tried_from INTEGER NOT NULL DEFAULT 0;
"""

_M0008 = """
ALTER TABLE scorecards ADD COLUMN announced_looks INTEGER NOT NULL DEFAULT 0;
UPDATE scorecards SET announced_looks = coalesce(json_extract(body, '$.looks'), 1) WHERE announced_ts IS NOT NULL;
"""
