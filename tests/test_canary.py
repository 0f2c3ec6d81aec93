"""A candidate for a share of the people."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_life import trained

from serving.canary import Canaries, Canary
from serving.life import Life
from serving.prompt import task_of
from serving.records import CopydeskError, RatingSource, Requirements, Verdict
from serving.registry import Registry
from serving.settings import Settings
from serving.store import BASE, Store

PEOPLE = [f"U{number:04d}" for number in range(2000)]


@pytest.fixture
def canaries(store: Store, settings: Settings) -> Canaries:
    return Canaries(store, Registry(store, settings.copydesk_leads))


def canary(version: str, share: float) -> Canary:
    return Canary(1, version, share, "cli", "", None, None)


def test_a_share_of_the_people_gets_it_and_always_the_same_ones() -> None:
    chosen = {user for user in PEOPLE if canary("copy-0001", 0.2).chooses(user)}
    assert 340 < len(chosen) < 460
    assert chosen < {user for user in PEOPLE if canary("copy-0001", 0.4).chooses(user)}
    assert chosen != {user for user in PEOPLE if canary("copy-0002", 0.2).chooses(user)}


def test_it_writes_from_start_to_end_and_only_for_them(canaries: Canaries, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    started = canaries.start(version.name, 20, user="U_MARA")
    assert {canaries.version_for(user) for user in PEOPLE[:40] if started.chooses(user)} == {version.name}
    assert {canaries.version_for(user) for user in PEOPLE[:40] if not started.chooses(user)} == {BASE}
    assert Life(store).state(version) == "candidate"
    assert canaries.end(started.id, user="U_MARA").ended_by == "U_MARA"
    assert {canaries.version_for(user) for user in PEOPLE[:40]} == {BASE}


def test_a_decision_about_the_candidate_ends_it(canaries: Canaries, store: Store, tmp_path: Path) -> None:
    first, second = trained(store, tmp_path), trained(store, tmp_path)
    canaries.start(first.name, 20, user="cli")
    with pytest.raises(CopydeskError, match="is tried already"):
        canaries.start(second.name, 20, user="cli")
    Registry(store, ()).reject(first.name, user="cli")
    assert canaries.running is None
    with pytest.raises(CopydeskError, match="decided about already"):
        canaries.start(first.name, 20, user="cli")
    assert canaries.start(second.name, 20, user="cli").version == second.name


def test_the_same_start_and_the_same_end_count_once(canaries: Canaries, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    first = canaries.start(version.name, 20, user="U_MARA")
    assert canaries.start(version.name, 20, user="cli") == first
    with pytest.raises(CopydeskError, match="is tried already"):
        canaries.start(version.name, 30, user="cli")
    ended = canaries.end(first.id, user="cli")
    assert canaries.end(first.id, user="U_MARA") == ended
    second = canaries.start(version.name, 20, user="U_MARA")
    assert canaries.end(first.id, user="U_MARA") == ended
    assert canaries.running == second


def test_of_eight_who_start_different_trials_at_once_one_does(canaries: Canaries, store: Store, tmp_path: Path) -> None:
    names = [trained(store, tmp_path).name for _ in range(8)]

    def start(name: str) -> str:
        try:
            return canaries.start(name, 20, user="cli").version
        except CopydeskError as error:
            return str(error.code)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(start, names))
    assert outcomes.count("tried_already") == 7
    assert canaries.running is not None
    assert canaries.running.version in outcomes


def test_a_decision_is_who_ended_it_and_when(canaries: Canaries, store: Store, tmp_path: Path) -> None:
    first, second = trained(store, tmp_path), trained(store, tmp_path)
    started = canaries.start(first.name, 20, user="cli")
    decision = Registry(store, ("U_MARA",)).reject(first.name, user="U_MARA")
    assert canaries.end(started.id, user="cli").ended_at == decision.created_at
    (over,) = canaries.untold
    canaries.start(second.name, 20, user="cli")
    assert canaries.untold == [over]
    assert (over.canary.ended_by, over.canary.ended_at) == ("U_MARA", decision.created_at)
    canaries.mark_told(started.id)
    assert canaries.untold == []


def test_who_is_not_a_lead_and_what_cannot_be_served_start_none(
    canaries: Canaries, store: Store, tmp_path: Path
) -> None:
    version = trained(store, tmp_path)
    with pytest.raises(CopydeskError, match="Only a team lead"):
        canaries.start(version.name, 20, user="U_ANNA")
    with pytest.raises(CopydeskError, match="1 to 50 percent"):
        canaries.start(version.name, 100, user="cli")
    Life(store).record_load(version.name, "no memory")
    with pytest.raises(CopydeskError, match="cannot be served: no memory"):
        canaries.start(version.name, 20, user="cli")
    assert canaries.running is None


def test_both_are_compared_over_the_same_days(canaries: Canaries, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    drafted(store, BASE, "before")
    started = canaries.start(version.name, 20, user="cli")
    store.rate(drafted(store, version.name, "one"), "U_ANNA", Verdict.UP, RatingSource.BUTTON)
    store.rate(drafted(store, BASE, "two"), "U_ANNA", Verdict.DOWN, RatingSource.BUTTON)
    drafted(store, BASE, "three")
    candidate, live = canaries.liked(started)
    assert (candidate.version, candidate.drafts, candidate.up.successes, candidate.up.total) == (version.name, 1, 1, 1)
    assert (live.version, live.drafts, live.up.successes, live.up.total) == (BASE, 2, 0, 1)
    assert 0 < candidate.up.low < 1
    later = trained(store, tmp_path)
    Registry(store, ()).approve(later.name, user="cli")
    assert [liked.version for liked in canaries.liked(started)] == [version.name, later.name, BASE]
    ended = canaries.end(started.id, user="cli")
    assert [liked.version for liked in canaries.liked(ended)] == [version.name, BASE]


def drafted(store: Store, version: str, ts: str) -> int:
    task = task_of(Requirements(product="Alder lamp"), "en", "home")
    request = store.add_request(task, user="U_ANNA", channel="C", thread_ts="1", locale="en", event_id=ts)
    assert request is not None
    return store.answer(
        request.id,
        version=version,
        text="Warm light.",
        ts=ts,
        prompt_tokens=1,
        completion_tokens=1,
        first_token_s=0.1,
        total_s=0.2,
    ).id
