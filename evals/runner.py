"""Generate, score, aggregate: one scorecard over append-only samples. Killed at any point, the next run goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evals.chart import render_chart
from evals.checks import score
from evals.leaks import leaked
from evals.plan import Call, Plan
from evals.report import read_report, render_report
from evals.scorecard import Samples, Subject, make_card
from evals.suite import keep, suite_of_card, write_whole
from serving.card import Card, Verdict
from serving.client import Completion, EngineUnavailable, ModelClient, Sampling
from serving.grades import Grades
from serving.prompt import task_messages
from serving.records import CopydeskError, Sample, Scorecard, Version
from serving.registry import verify
from serving.store import BASE, Store

IN_FLIGHT = 24  # fewer than a CPU engine takes at once (32), so that a person's draft does not queue behind a card
SUITES_KEPT = "suites"  # folder of COPYDESK_HOME
MORE = 30  # briefs that an inconclusive card is extended by
# An engine that died, or made room for a round, is back within three minutes with a large model; the sum is five.
PAUSES_S = (2.0, 4.0, 8.0, 16.0, *[30.0] * 9)

Progress = Callable[[str, int, int], None]  # version, samples there, samples asked for


def _silent(version: str, done: int, total: int) -> None:
    return None


@dataclass(frozen=True)
class Runner:
    """Makes scorecards.

    Attributes:
        home: charts go to home/scorecards.
        base_model: the name of the base model that "base" stands for.
        pauses: seconds between tries while the engine does not answer.
    """

    store: Store
    client: ModelClient
    home: Path
    base_model: str
    progress: Progress = _silent
    pauses: Sequence[float] = PAUSES_S
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, name: str, plan: Plan, baseline: str | None = None) -> Scorecard:
        """Score a version against the baseline (the live version where none is named).

        Raises:
            CopydeskError: no such version, files that changed, an engine that refuses; samples so far are kept.
            EngineUnavailable: the engine did not come back; run again to go on.
        """
        against = baseline if baseline is not None else await asyncio.to_thread(self.store.live)
        if against == name:
            against = BASE
        await asyncio.to_thread(keep, plan.suite, self.home / SUITES_KEPT)
        if name == BASE:
            return await self._baseline(BASE, plan)
        version = await self._version(name)
        live = await self._baseline(against, plan)
        card = await asyncio.to_thread(
            self.store.start_scorecard, name, baseline=against, suite=plan.key(self.base_model), seed=plan.seed
        )
        samples = await self._samples(card, version, plan)
        looks = await asyncio.to_thread(self._looks, card, plan)
        return await asyncio.to_thread(self._finish, card, plan, version, samples, live, looks)

    async def extend(self, scorecard_id: int, more: int = MORE) -> Scorecard:
        """Add briefs to an inconclusive scorecard and decide anew. Killed, the same call goes on.

        The next briefs are drawn in the same order, so none comes twice.

        Raises:
            CopydeskError: the card says pass or fail, is not finished, or holds the whole suite; else as `run`.
        """
        card = await asyncio.to_thread(self.store.scorecard, scorecard_id)
        if card.body is None:
            raise CopydeskError(f"Scorecard {card.id} is not finished: copydesk eval run {card.version}")
        found = Card.from_json(card.body)
        if found.verdict is not Verdict.INCONCLUSIVE:
            raise CopydeskError(f"Scorecard {card.id} says {found.verdict}; only an inconclusive one is extended.")
        suite = await asyncio.to_thread(suite_of_card, found.suite, found.suite_digest, self.home / SUITES_KEPT)
        if found.items >= len(suite.items):
            raise CopydeskError(f"Scorecard {card.id} has all {found.items} briefs of its suite; there are no more.")
        sampling = Sampling(**found.sampling)  # type: ignore[arg-type]
        plan = Plan(suite, found.items + more, len(found.candidate.briefs), found.repeats, found.seed, sampling)
        if plan.key(self.base_model) != card.suite:
            raise CopydeskError(f"Scorecard {card.id} was made with {found.base_model}; COPYDESK_MODEL is another now.")
        version = await self._version(card.version)
        live = await self._baseline(card.baseline, plan) if found.live else None
        samples = await self._samples(card, version, plan)
        return await asyncio.to_thread(self._finish, card, plan, version, samples, live, found.looks + 1)

    async def _version(self, name: str) -> Version | None:
        """None is the base model."""
        if name == BASE:
            return None
        version = await asyncio.to_thread(self.store.version, name)
        await asyncio.to_thread(verify, version)
        return version

    async def _baseline(self, name: str, plan: Plan) -> Scorecard:
        """The baseline's own scorecard, made once for a suite, seed and sampling."""
        version = await self._version(name)
        key = plan.key(self.base_model)
        for card in await asyncio.to_thread(self.store.scorecards, name):
            if (card.suite, card.seed) == (key, plan.seed) and await self._covers(card, plan):
                return card
        card = await asyncio.to_thread(self.store.start_scorecard, name, baseline=name, suite=key, seed=plan.seed)
        samples = await self._samples(card, version, plan)
        # A baseline's own card is no news to the channel.
        await asyncio.to_thread(self.store.mark_announced, card.id, "", "")
        return await asyncio.to_thread(self._finish, card, plan, version, samples, None)

    async def _covers(self, card: Scorecard, plan: Plan) -> bool:
        stored = _by_key(await asyncio.to_thread(self.store.samples, card.id))
        return all(call.key in stored for call in plan.calls())

    async def _samples(self, card: Scorecard, version: Version | None, plan: Plan) -> Samples:
        """Everything that the plan asks for: stored before, or generated now."""
        await asyncio.to_thread(self._adopt, card, plan)
        stored = _by_key(await asyncio.to_thread(self.store.samples, card.id))
        calls = plan.calls()
        missing = [call for call in calls if call.key not in stored]
        done = len(calls) - len(missing)
        self.progress(card.version, done, len(calls))
        if missing:
            gate = asyncio.Semaphore(IN_FLIGHT)

            async def one(call: Call) -> None:
                nonlocal done
                async with gate:
                    completion = await self._complete(call, version, plan)
                    await asyncio.to_thread(self._store_sample, card, call, completion)
                    done += 1
                    self.progress(card.version, done, len(calls))

            try:
                async with asyncio.TaskGroup() as group:
                    for call in missing:
                        group.create_task(one(call))
            except* CopydeskError as errors:
                raise _first(errors) from None
            stored = _by_key(await asyncio.to_thread(self.store.samples, card.id))
        return stored

    def _looks(self, card: Scorecard, plan: Plan) -> int:
        """How many verdicts this one makes on growing parts of the same samples; checking anew is no look."""
        earlier = [
            Card.from_json(one.body or {})
            for one in self.store.scorecards(card.version)
            if (one.suite, one.seed) == (card.suite, card.seed)
        ]
        return max([1, *(found.looks + (found.items < plan.items) for found in earlier)])

    def _adopt(self, card: Scorecard, plan: Plan) -> None:
        """Samples of the same version, suite, sampling and seed are not generated twice, only checked anew.

        Nor are those of a card that was never finished: its run was killed, and another version has gone live since.
        """
        asked = {call.key: call for call in plan.calls()}
        for earlier in self.store.scorecards(card.version, unfinished=True):
            if (earlier.suite, earlier.seed) == (card.suite, card.seed):
                for key, sample in _by_key(self.store.samples(earlier.id)).items():
                    if key in asked:
                        self._add(card, asked[key], sample.text, sample.score)

    async def _complete(self, call: Call, version: Version | None, plan: Plan) -> Completion:
        for pause in (*self.pauses, None):
            try:
                if version is not None:
                    # Each time: an engine that restarted has forgotten its adapters.
                    async with self._loading:
                        await self.client.ensure_loaded(version)
                model = version.name if version else BASE
                sampling = plan.sampling_for(call.item.task)
                return await self.client.complete(task_messages(call.item.task), model, sampling)
            except EngineUnavailable as error:
                if pause is None:
                    raise EngineUnavailable(
                        f"{error} What was generated so far is kept; start the engine (copydesk up) and run this again."
                    ) from error
                await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _store_sample(self, card: Scorecard, call: Call, completion: Completion) -> None:
        facts = {
            "tokens": completion.completion_tokens,
            "seconds": round(completion.total_s, 3),
            "ended": round(time.time(), 3),
            "finish": completion.finish_reason,
        }
        self._add(card, call, completion.text, facts)

    def _add(self, card: Scorecard, call: Call, text: str, facts: dict[str, Any]) -> None:
        found = score(text, call.item.task)
        self.store.add_sample(
            card.id,
            item_id=call.item.id,
            part=call.part,
            repeat=call.repeat,
            text=text,
            grade=found.grade.value,
            score={**facts, "checks": [asdict(check) for check in found.checks]},
        )

    def _finish(
        self,
        card: Scorecard,
        plan: Plan,
        version: Version | None,
        samples: Samples,
        live: Scorecard | None,
        looks: int = 1,
    ) -> Scorecard:
        pairs = self.store.round_pairs(version.round_id) if version else []
        found = make_card(
            plan,
            Subject(card.version, version.digest if version else "", samples),
            self._subject(live) if live else None,
            base_model=version.base_model if version else self.base_model,
            training=[pair.output for pair in pairs],
            leaks=leaked(plan.suite.items, [(pair.task, pair.output) for pair in pairs]),
            looks=looks,
        )
        Grades(self.store).keep_items(card.suite, {call.item.id: call.item.task for call in plan.calls()})
        chart = Path("scorecards") / f"{card.id}.png"
        write_whole(self.home / chart, render_chart(found))
        body = replace(found, chart=str(chart)).to_json()
        report = read_report(self.store, replace(card, body=body), self.home / SUITES_KEPT)
        write_whole((self.home / chart).with_suffix(".html"), render_report(report).encode())
        return self.store.finish_scorecard(card.id, body)

    def _subject(self, card: Scorecard) -> Subject:
        digest = "" if card.version == BASE else self.store.version(card.version).digest
        return Subject(card.version, digest, _by_key(self.store.samples(card.id)))


def _by_key(samples: list[Sample]) -> Samples:
    return {(sample.item_id, sample.part, sample.repeat): sample for sample in samples}


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
