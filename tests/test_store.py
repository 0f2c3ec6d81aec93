"""The desk's memory, on a real SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from serving.prompt import brief_key, task_of
from serving.records import (
    CopydeskError,
    Decision,
    Draft,
    Pair,
    PairSource,
    PairStatus,
    RatingSource,
    Request,
    RequestState,
    Requirements,
    RoundState,
    Split,
    Task,
    Verdict,
)
from serving.schema import migrations
from serving.store import BASE, NewPair, Store, split_of

LAMP = Requirements(product="Alder lamp", selling_points=(("warm light",),), length=(20, 30))


def ask(store: Store, event_id: str | None = None, task: Task | None = None) -> Request:
    task = task or task_of(LAMP, "en", "home")
    request = store.add_request(task, user="U_ANNA", channel="C1", thread_ts="1.0", locale="en-US", event_id=event_id)
    assert request is not None
    return request


def answer(store: Store, request: Request, text: str = "Alder lamp gives warm light.") -> Draft:
    return store.answer(
        request.id,
        version=BASE,
        text=text,
        ts=f"2.{request.id}",
        prompt_tokens=80,
        completion_tokens=7,
        first_token_s=0.2,
        total_s=1.0,
    )


def test_the_same_event_is_accepted_once(store: Store) -> None:
    ask(store, "Ev1")
    task = task_of(LAMP, "en")
    for _ in range(2):
        again = store.add_request(task, user="U", channel="C", thread_ts="1", locale="en-US", event_id="Ev1")
        assert again is None
    assert len(store.waiting_requests()) == 1


def test_a_request_waits_until_it_is_answered_and_has_one_draft(store: Store) -> None:
    request = ask(store)
    assert [r.id for r in store.waiting_requests()] == [request.id]
    first = answer(store, request, "one")
    second = answer(store, request, "two")
    assert second == first
    assert store.request(request.id).state is RequestState.WRITTEN
    assert [r.id for r in store.waiting_requests()] == [request.id], "nobody has seen it whole yet"
    store.close_request(request.id)
    assert store.waiting_requests() == []
    assert store.request(request.id).state is RequestState.ANSWERED
    assert store.draft_at("C1", first.ts) == store.draft_of(request.id) == first


def test_a_second_press_of_try_again_waits_for_the_first(store: Store) -> None:
    def press(user: str, event: str) -> Request | None:
        return store.add_another_request(
            asked.brief_id, user=user, channel="C1", thread_ts="1", locale="en-US", event_id=event
        )

    asked = ask(store)
    answer(store, asked)
    first = press("U_ANNA", "press 1")
    assert first is not None
    assert press("U_ANNA", "press 2") is None
    assert press("U_LIWEI", "press 3") is not None
    answer(store, first, "two")
    assert press("U_ANNA", "press 4") is not None


def test_the_brief_comes_back_as_it_was_stored(store: Store) -> None:
    task = task_of(LAMP, "en", "home")
    assert store.brief(ask(store, task=task).brief_id).task == task


def test_a_second_rating_replaces_the_first(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.UP)
    store.rate(draft.id, "U_ANNA", Verdict.DOWN, RatingSource.REACTION)
    (rating,) = store.ratings(draft.id)
    assert (rating.verdict, rating.source) == (Verdict.DOWN, RatingSource.REACTION)


def test_the_same_rating_again_keeps_its_reason_and_another_verdict_drops_it(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.DOWN)
    store.set_reason(draft.id, "U_ANNA", "too_long")
    again = store.rate(draft.id, "U_ANNA", Verdict.DOWN)
    other = store.rate(draft.id, "U_ANNA", Verdict.UP)
    assert again is not None
    assert other is not None
    assert (again.reason, other.reason) == ("too_long", "")


def test_a_rating_that_arrives_late_once_more_does_not_undo_a_later_one(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.UP, event_id="Ev1")
    store.rate(draft.id, "U_ANNA", Verdict.DOWN, event_id="Ev2")
    assert store.rate(draft.id, "U_ANNA", Verdict.UP, event_id="Ev1") is None
    assert [rating.verdict for rating in store.ratings()] == [Verdict.DOWN]


def test_a_reason_needs_a_rating(store: Store) -> None:
    draft = answer(store, ask(store))
    with pytest.raises(CopydeskError, match="no 👎 of yours"):
        store.set_reason(draft.id, "U_ANNA", "too_long")
    store.rate(draft.id, "U_ANNA", Verdict.UP)  # the buttons that ask why a 👎 may still be there
    with pytest.raises(CopydeskError, match="no 👎 of yours"):
        store.set_reason(draft.id, "U_ANNA", "facts")
    assert [rating.reason for rating in store.ratings()] == [""]


def test_a_thumbs_up_makes_a_pair_and_taking_it_back_withdraws_it(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.UP)
    (pair,) = store.pairs()
    assert (pair.source, pair.output, pair.draft_id) == (PairSource.ACCEPTED, draft.text, draft.id)
    assert store.unrate(draft.id, "U_ANNA", Verdict.UP)
    assert store.pairs() == []
    store.rate(draft.id, "U_ANNA", Verdict.UP)
    assert len(store.pairs()) == 1


def test_a_rating_that_was_replaced_cannot_be_taken_back(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.DOWN)
    assert not store.unrate(draft.id, "U_ANNA", Verdict.UP)
    assert len(store.ratings()) == 1


def test_one_thumbs_down_outweighs_a_thumbs_up(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.UP)
    store.rate(draft.id, "U_LIWEI", Verdict.DOWN)
    assert store.pairs() == []


def test_a_correction_is_stored_with_its_pair_and_replaces_what_was_accepted(store: Store) -> None:
    draft = answer(store, ask(store))
    store.rate(draft.id, "U_ANNA", Verdict.UP)
    store.add_correction(draft.id, "U_ANNA", "Alder lamp glows.")
    second = store.add_correction(draft.id, "U_LIWEI", "Alder lamp glows warmly.")
    (pair,) = store.pairs()
    assert (pair.id, pair.output, pair.source) == (second.pair_id, "Alder lamp glows warmly.", PairSource.CORRECTION)
    assert [p.status for p in store.pairs(status=None)] == [PairStatus.REPLACED, PairStatus.REPLACED, PairStatus.ACTIVE]


def test_a_draft_that_is_written_may_still_fail(store: Store) -> None:
    request = ask(store)
    answer(store, request)
    store.fail_request(request.id)
    assert store.waiting_requests() == []


def test_the_drafts_own_text_may_replace_a_correction(store: Store) -> None:
    draft = answer(store, ask(store))
    bad = store.add_correction(draft.id, "U_LIWEI", "Alder lamp, buy it.")
    with pytest.raises(CopydeskError, match="equals the one before"):
        store.add_correction(draft.id, "U_ANNA", " Alder lamp, buy it.")
    restored = store.add_correction(draft.id, "U_ANNA", draft.text)
    (pair,) = store.pairs()
    assert (pair.id, pair.output, pair.author) == (restored.pair_id, draft.text, "U_ANNA")
    assert store.pair(bad.pair_id).status is PairStatus.REPLACED


@pytest.mark.parametrize(("text", "problem"), [("  ", "empty"), (" Alder lamp gives warm light. ", "equals the draft")])
def test_a_correction_that_says_nothing_is_refused(store: Store, text: str, problem: str) -> None:
    draft = answer(store, ask(store))
    with pytest.raises(CopydeskError, match=problem):
        store.add_correction(draft.id, "U_ANNA", text)
    assert store.corrections() == []
    assert store.pairs() == []


def test_a_draft_that_is_gone_is_named(store: Store) -> None:
    for act in (lambda: store.draft(99), lambda: store.rate(99, "U", Verdict.UP)):
        with pytest.raises(CopydeskError, match="Draft 99 is not there"):
            act()


def test_imported_pairs_are_added_once(store: Store) -> None:
    pair = NewPair(task_of(LAMP, "en"), "Alder lamp.", PairSource.IMPORT)
    spelt = NewPair(task_of(LAMP, "en"), "ALDER  lamp.", PairSource.IMPORT)
    assert store.add_pairs([pair, spelt]).duplicates == 1
    assert store.add_pairs([pair]).added == 0


def test_an_import_that_breaks_off_adds_nothing(store: Store) -> None:
    def rows() -> object:
        yield NewPair(task_of(LAMP, "en"), "Alder lamp.", PairSource.IMPORT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_pairs(rows())  # type: ignore[arg-type]
    assert store.pairs() == []


@given(st.text("abcäß 汉字09", min_size=1), st.sampled_from([" ", "  ", "\n"]))
def test_the_same_brief_is_on_one_side_however_it_is_spelt(text: str, space: str) -> None:
    one, other = Task(f"Write {text}"), Task(f" WRITE{space}{text.upper()}  ")
    assert brief_key(one) == brief_key(other)
    assert split_of(one) is split_of(other)


def test_about_a_tenth_of_briefs_is_held_out() -> None:
    held = sum(split_of(Task(f"Write about product {n}.")) is Split.HELD_OUT for n in range(2000))
    assert 140 < held < 260


def test_a_round_remembers_exactly_what_it_saw(store: Store) -> None:
    store.add_pairs(NewPair(Task(f"Write {n}."), "Text.", PairSource.IMPORT) for n in range(3))
    seen = store.pairs()[:2]
    round = store.start_round({"name": "default"}, [p.id for p in seen], "digest")
    store.withdraw_pair(seen[0].id)
    assert [p.id for p in store.round_pairs(round.id)] == [p.id for p in seen]
    assert (round.version, round.state, round.pairs) == ("copy-0001", RoundState.RUNNING, 2)


def test_a_failed_round_registers_nothing_and_its_name_is_not_used_again(store: Store) -> None:
    store.fail_round(store.start_round({}, [], "d").id, "no memory")
    second = store.start_round({}, [], "d")
    store.finish_round(second.id, {"loss": 1.0}, path="/p", digest="d", base_model="b")
    assert [v.name for v in store.versions()] == ["copy-0002"]
    assert [r.message for r in store.rounds()] == ["", "no memory"]


def trained(store: Store) -> str:
    round = store.start_round({}, [], "d")
    return store.finish_round(round.id, {}, path="/p", digest=f"digest-{round.id}", base_model="b").name


def test_a_version_is_scored_in_each_language_that_it_learned_until_it_was_decided_about(store: Store) -> None:
    texts = ["en"] * 12 + ["zh"] * 7
    store.add_pairs(NewPair(Task(f"Write {n}", "", lang), "x", PairSource.IMPORT) for n, lang in enumerate(texts))
    in_english, in_chinese = store.pairs(language="en"), store.pairs(language="zh")

    def languages(pairs: list[Pair]) -> tuple[str, list[str]]:
        round = store.start_round({}, [pair.id for pair in pairs], "d")
        name = store.finish_round(round.id, {}, path="/p", digest=f"{round.id}", base_model="b").name
        return name, store.languages(name)

    assert store.languages(BASE) == ["en", "zh"]
    assert languages(in_english + in_chinese[:1])[1] == ["en"], "less than a tenth"
    assert languages(in_chinese)[1] == ["zh"]
    name, both = languages(in_english + in_chinese)
    assert both == store.unscored_languages(name) == ["en", "zh"]
    for suite, left in (("rolling-zh@1", both), ("zh@5c", ["en"])):
        card = store.start_scorecard(name, baseline=BASE, suite=suite, seed=1)
        assert store.unscored_languages(name) == both
        store.finish_scorecard(card.id, {"verdict": "pass"})
        assert store.unscored_languages(name) == left
    store.decide(name, Decision.REJECTED, digest="", user="U1")
    assert store.unscored_languages(name) == []


def test_a_scorecard_goes_on_where_it_stopped_and_keeps_each_sample_once(store: Store) -> None:
    name = trained(store)
    card = store.start_scorecard(name, baseline=BASE, suite="en", seed=1)
    for text in ("first", "second"):
        store.add_sample(card.id, item_id="a", part="following", repeat=0, text=text, grade="fail", score={"x": 1})
    again = store.start_scorecard(name, baseline=BASE, suite="en", seed=1)
    assert again.id == card.id
    assert [s.text for s in store.samples(card.id)] == ["first"]
    assert store.unscored_languages(name) == ["en"]
    store.finish_scorecard(card.id, {"verdict": "pass"})
    assert store.unscored_languages(name) == []
    assert [c.body for c in store.unannounced_scorecards()] == [{"verdict": "pass"}]
    store.mark_announced(card.id, "C1", "3.0")
    assert store.unannounced_scorecards() == []


def test_an_extended_scorecard_keeps_its_place_and_is_to_be_shown_again(store: Store) -> None:
    name = trained(store)
    card = store.start_scorecard(name, baseline=BASE, suite="en", seed=1)
    store.finish_scorecard(card.id, {"looks": 1})
    store.mark_announced(card.id, "C1", "3.0", looks=0)
    assert [c.announced_ts for c in store.unannounced_scorecards()] == ["3.0"]  # its picture is missing
    store.mark_announced(card.id, "C1", "3.0", looks=1)
    assert store.unannounced_scorecards() == []
    store.finish_scorecard(card.id, {"looks": 2})
    assert [c.announced_ts for c in store.unannounced_scorecards()] == ["3.0"]
    store.mark_announced(card.id, "C1", "3.0", looks=2)
    assert store.unannounced_scorecards() == []


def test_what_an_earlier_release_announced_is_not_announced_again(tmp_path: Path) -> None:
    path = tmp_path / "earlier.db"
    sql = (
        "INSERT INTO scorecards (version, baseline, suite, seed, body, announced_ts, created_at) "
        "VALUES ('copy-0001', 'base', 'en', 1, ?, ?, 'then')"
    )
    with Database(sqlite3.connect(path)) as db:
        migrations.apply(db, stop_before="m0008_announced_looks")
        for body, ts in (('{"looks": 2}', "1.1"), ('{"verdict": "pass"}', "2.2"), ("{}", None)):
            db.execute(sql, [body, ts])
        db.commit()
    assert [card.id for card in Store(path).unannounced_scorecards()] == [3]


def test_a_version_is_decided_once_even_by_two_at_the_same_moment(store: Store) -> None:
    name = trained(store)
    outcomes: list[str] = []

    def decide(user: str) -> None:
        try:
            store.decide(name, Decision.APPROVED, digest="d", user=user)
            outcomes.append("done")
        except CopydeskError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=decide, args=(f"U{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("done") == 1
    assert sum("already" in outcome for outcome in outcomes) == 7
    assert store.live() == name


def test_rolling_back_returns_to_what_was_live(store: Store) -> None:
    first, second = trained(store), trained(store)
    assert store.live() == BASE
    store.decide(first, Decision.APPROVED, digest="d", user="U")
    store.decide(second, Decision.APPROVED, digest="d", user="U")
    store.decide(first, Decision.ROLLED_BACK, digest="d", user="U", expected_live=second)
    assert store.live() == first
    with pytest.raises(CopydeskError, match=r"U made copy-\d+ live meanwhile"):
        store.decide(BASE, Decision.ROLLED_BACK, digest="", user="U", expected_live=second)


def test_a_rejected_version_never_goes_live(store: Store) -> None:
    name = trained(store)
    store.decide(name, Decision.REJECTED, digest="d", user="U")
    assert store.live() == BASE
    with pytest.raises(CopydeskError, match="rejected already"):
        store.decide(name, Decision.APPROVED, digest="d", user="U")


def test_tables_are_strict_foreign_keys_hold_and_the_journal_is_wal(store: Store) -> None:
    connection = sqlite3.connect(store.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    assert {name for name, strict in tables if not strict} <= {"_sqlite_migrations", "sqlite_schema", "sqlite_sequence"}
    with store.transaction() as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO round_pairs VALUES (1, 1)")


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    assert Store(tmp_path / "empty.db").pairs() == []


FIRST_RELEASE = """
INSERT INTO briefs VALUES (1, 'Write.', '', 'en', 'home', '{}', 'key', 'U_ANNA', 'C1', '1.0', 'then');
INSERT INTO requests VALUES (1, 1, 'U_ANNA', 'C1', '1.0', 'en', '2.0', 'answered', 'then');
INSERT INTO requests VALUES (2, 1, 'U_ANNA', 'C1', '1.0', 'en', NULL, 'waiting', 'then');
INSERT INTO drafts VALUES (1, 1, 1, 'base', 'A draft.', 'C1', '2.0', 9, 3, 0.1, 0.5, 'then');
INSERT INTO ratings VALUES (1, 1, 'U_ANNA', 'down', '', 'button', 'then');
INSERT INTO pairs VALUES (1, 'Write.', '', 'Better.', 'en', 'home', '{}', 'correction', 'active', 'train', 'key',
    'U_LI', 1, 'then');
INSERT INTO corrections VALUES (1, 1, 'U_LI', 'Better.', 1, 'then');
INSERT INTO rounds VALUES (1, '{"name": "default"}', 'done', 'd', '{}', '', 'then', 'later');
INSERT INTO round_pairs VALUES (1, 1);
INSERT INTO versions VALUES ('copy-0001', 1, '/adapters/copy-0001', 'digest', 'base-model', 'then');
INSERT INTO scorecards VALUES (1, 'copy-0001', 'base', 'en', 1, '{}', 'C1', '3.0', 'then');
INSERT INTO samples VALUES (1, 1, 'en-001', 'items', 0, 'A text.', 'fail', '{}', 'then');
INSERT INTO promotions VALUES (1, 'copy-0001', 'digest', 'approved', 'U_MARA', '', 'base', 'then');
"""


@pytest.mark.parametrize("step", [step.name for step in migrations._migrations[1:]])
def test_a_database_of_each_earlier_migration_keeps_all_that_is_in_it(tmp_path: Path, step: str) -> None:
    path = tmp_path / "earlier.db"
    with Database(sqlite3.connect(path)) as db:
        migrations.apply(db, stop_before=migrations._migrations[1].name)
        db.executescript(FIRST_RELEASE)
        migrations.apply(db, stop_before=step)
        before = {table.name: list(table.rows) for table in db.tables}
        db.conn.commit()
    store = Store(path)
    for table, rows in before.items():
        if table != "_sqlite_migrations":
            now = store.rows(f"SELECT * FROM [{table}]")
            assert [{name: row[name] for name in old} for row, old in zip(now, rows, strict=True)] == rows
    assert [pair.output for pair in store.round_pairs(1)] == ["Better."]
    assert [rating.verdict for rating in store.ratings(1)] == [Verdict.DOWN]
    assert [request.id for request in store.waiting_requests()] == [2]
    assert store.live() == "copy-0001"
    assert store.unannounced_scorecards() == []
    assert [card.announced_ts for card in store.scorecards("copy-0001")] == ["3.0"]


def test_a_database_of_a_later_release_is_refused_and_left_alone(store: Store) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('copydesk', 'm9999_later', 'x')"
    )
    connection.commit()
    with pytest.raises(CopydeskError, match="m9999_later; upgrade Copydesk"):
        Store(store.path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("Dear diary, " * 100)
    with pytest.raises(CopydeskError, match="cannot be opened"):
        Store(path)
    assert path.read_text().startswith("Dear diary")


def test_a_full_disk_loses_only_what_was_being_written(store: Store) -> None:
    draft = answer(store, ask(store))
    pages = sqlite3.connect(store.path).execute("PRAGMA page_count").fetchone()[0]
    opened = store._open

    def cramped() -> object:
        return _Cramped(opened(), pages)

    store._open = cramped  # type: ignore[method-assign,assignment]
    with pytest.raises(CopydeskError, match=r"Nothing was saved: .*full"):
        store.add_correction(draft.id, "U_ANNA", "much longer " * 4000)
    store._open = opened  # type: ignore[method-assign]
    assert store.corrections() == []
    assert store.draft(draft.id) == draft


class _Cramped:
    """A connection to a database that may not grow: SQLite's own answer to a full disk."""

    def __init__(self, inner: object, pages: int) -> None:
        self._inner, self._pages = inner, pages

    def __enter__(self) -> object:
        db = self._inner.__enter__()  # type: ignore[attr-defined]
        db.execute(f"PRAGMA max_page_count = {self._pages}")
        return db

    def __exit__(self, *error: object) -> object:
        return self._inner.__exit__(*error)  # type: ignore[attr-defined]
