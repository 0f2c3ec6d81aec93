"""The life of a version: registered, loaded, candidate, live, previous, retired; each step with its time and reason.

Decisions are rows already, and so is a version's birth: only what an engine made of the version is written here.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.client import EngineUnavailable, ModelClient, Sampling
from serving.prompt import messages
from serving.records import CopydeskError, Decision, Version
from serving.store import BASE, Store

PROBE = Sampling(temperature=0.0, max_tokens=1)


@dataclass(frozen=True)
class Step:
    """`state` is registered, loaded, failed, candidate, live, previous, rejected or retired."""

    state: str
    created_at: str
    reason: str = ""


class Life:
    def __init__(self, store: Store) -> None:
        self._store = store

    def record_load(self, version: str, failure: str = "") -> None:
        """What an engine made of a version, where it differs from the last time."""
        if self.last_failure(version) == failure:
            return
        with self._store.transaction() as db:
            self._store.insert(db, "loads", version=version, failure=failure)

    def last_failure(self, version: str) -> str | None:
        """Why the version did not load; "" when it did, None when no engine has tried."""
        rows = self._store.rows("SELECT failure FROM loads WHERE version = ? ORDER BY id DESC LIMIT 1", version)
        return str(rows[0]["failure"]) if rows else None

    def steps(self, version: Version) -> list[Step]:
        """The oldest first."""
        found = [Step("registered", version.created_at)]
        found += [
            Step("failed" if row["failure"] else "loaded", row["created_at"], row["failure"])
            for row in self._store.rows("SELECT failure, created_at FROM loads WHERE version = ?", version.name)
        ]
        candidacies = self._store.rows(
            "SELECT created_at, 'scored' AS why FROM scorecards WHERE version = ? AND body IS NOT NULL "
            "UNION ALL SELECT created_at, 'canary' FROM canaries WHERE version = ?",
            version.name,
            version.name,
        )
        found += [Step("candidate", row["created_at"], row["why"]) for row in candidacies]
        found += self._decided(version.name)
        return sorted(found, key=lambda step: step.created_at)

    def state(self, version: Version) -> str:
        """Where the version is now; a later load of a version that was decided about changes nothing."""
        decided = self._decided(version.name)
        if decided:
            return decided[-1].state
        return self.steps(version)[-1].state

    def _decided(self, name: str) -> list[Step]:
        """The decisions played again from the first: each changes what is live and what was live before."""
        steps: list[Step] = []
        live, before = BASE, dict[str, str]()
        for promotion in reversed(self._store.promotions()):
            if promotion.decision is Decision.REJECTED:
                after = {promotion.version: "rejected"}
            elif promotion.decision is Decision.APPROVED:
                after = {before.get(live, ""): "retired", live: "previous", promotion.version: "live"}
                before[promotion.version], live = live, promotion.version
            else:
                after = {before.get(promotion.version, ""): "previous", promotion.version: "live"}
                while live != promotion.version:  # back to the base, several versions may go
                    after[live] = "retired"
                    live = before.get(live, promotion.version)
            if name in after:
                reason = " ".join(filter(None, (promotion.decision, f"{promotion.version}:", promotion.reason)))
                steps.append(Step(after[name], promotion.created_at, reason))
        return steps


async def probe(client: ModelClient, version: Version) -> None:
    """Load a version and let it answer one token.

    Raises:
        EngineUnavailable: nobody answers now, or in trouble; it says nothing about the version.
        CopydeskError: the version does not load, or does not answer.
    """
    await client.ensure_loaded(version)
    await client.complete(messages("Say hello."), version.name, PROBE)


async def prove(client: ModelClient, version: Version) -> None:
    """Probe a version on an engine of our own: where that lives and cannot serve the version, the version is at fault.

    Raises:
        EngineUnavailable: the engine went away; it says nothing about the version.
        CopydeskError: as `probe` does.
    """
    try:
        await probe(client, version)
    except EngineUnavailable as error:
        if not await client.healthy():
            raise
        raise CopydeskError(f"{version.name} is tried again at the engine's next start. {error}") from error
