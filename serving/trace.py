"""From a Slack message to what it became: request, brief, draft, version and round, and what people made of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from serving.jobs import Jobs
from serving.records import (
    Brief,
    CopydeskError,
    Correction,
    Draft,
    Promotion,
    Rating,
    Request,
    Round,
    Version,
)
from serving.store import BASE, Store

_PERMALINK = re.compile(r"/archives/(\w+)/p(\d{10,})(\d{6})$")


@dataclass(frozen=True)
class Learned:
    """A pair that the draft left behind, and the versions that trained on it."""

    pair_id: int
    status: str
    versions: list[str]


@dataclass(frozen=True)
class Chain:
    """One request and all that hangs on it. What does not exist yet, or never did, is None or empty."""

    request: Request
    brief: Brief
    draft: Draft | None
    version: Version | None  # None: the base model wrote, or nobody yet
    round: Round | None
    decision: Promotion | None
    ratings: list[Rating]
    corrections: list[Correction]
    learned: list[Learned]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trace(store: Store, what: str) -> list[Chain]:
    """The chains of a draft's number, or of a Slack message's link: the brief, the draft, or any message between.

    Raises:
        CopydeskError: it is neither, or nothing is known of it.
    """
    requests = _requests(store, what)
    if not requests:
        raise CopydeskError(
            f"No request belongs to {what}; give a draft's number, or a message's link (⋮ → Copy link)."
        )
    return [_chain(store, id) for id in requests]


def _requests(store: Store, what: str) -> list[int]:
    if what.isdecimal():
        return [store.draft(int(what)).request_id]
    url = urlsplit(what)
    found = _PERMALINK.search(url.path)
    if found is None:
        return []
    channel, ts = found[1], f"{found[2]}.{found[3]}"
    own = store.rows("SELECT id FROM requests WHERE channel = ? AND reply_ts = ?", channel, ts)
    # Any other message leads to its thread: people copy the link of what they wrote, or of the note.
    thread = parse_qs(url.query).get("thread_ts", [ts])[0]
    rows = own or store.rows("SELECT id FROM requests WHERE channel = ? AND thread_ts = ? ORDER BY id", channel, thread)
    return [row["id"] for row in rows]


def _chain(store: Store, request_id: int) -> Chain:
    request = store.request(request_id)
    draft = store.draft_of(request_id)
    version = store.version(draft.version) if draft and draft.version != BASE else None
    pairs = store.rows("SELECT id, status FROM pairs WHERE draft_id = ? ORDER BY id", draft.id) if draft else []
    jobs = Jobs(store)
    return Chain(
        request,
        store.brief(request.brief_id),
        draft,
        version,
        store.round(version.round_id) if version else None,
        store.decision_on(version.name) if version else None,
        store.ratings(draft.id) if draft else [],
        store.corrections(draft.id) if draft else [],
        [Learned(row["id"], row["status"], jobs.versions_that_saw(row["id"])) for row in pairs],
    )


def lines(chain: Chain) -> list[str]:
    """A chain for people, one step a line."""
    request, draft = chain.request, chain.draft
    told = [f"request {request.id}: {request.state} · {request.user} in {request.channel} · {request.created_at[:19]}"]
    told.append(f"  brief {chain.brief.id}: {chain.brief.task.instruction.splitlines()[0][:100]}")
    if draft is None:
        return told
    first = f"first token {draft.first_token_s:.2f} s, " if draft.first_token_s is not None else ""
    told.append(f"  draft {draft.id}: message {draft.ts} · {first}whole {draft.total_s:.2f} s")
    if chain.version and chain.round:
        told.append(f"    version {chain.version.name} · digest {chain.version.digest[:12]}")
        trained = chain.round
        told.append(f"      round {trained.id}: {trained.state} · {trained.pairs} pairs · {trained.started_at[:19]}")
        if chain.decision:
            told.append(f"      {chain.decision.decision} by {chain.decision.user} · {chain.decision.created_at[:19]}")
    else:
        told.append("    version: the base model")
    told += [f"    rated {rating.verdict} by {rating.user} {rating.reason}".rstrip() for rating in chain.ratings]
    told += [f"    corrected by {correction.user} → pair {correction.pair_id}" for correction in chain.corrections]
    for pair in chain.learned:
        told.append(f"    pair {pair.pair_id} ({pair.status}) → {', '.join(pair.versions) or 'no round yet'}")
    return told
