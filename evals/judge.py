"""A judging model that somebody runs: independent yes/no questions about stored texts, and which of two is better.

Off unless COPYDESK_JUDGE_ENDPOINT is set. The questions stand in data/judge.json; one whose words change needs another
key, because answers are kept by key. Run: python -m evals judge SCORECARD
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from serving.grades import Grades
from serving.judge_answers import PAIR, YES, JudgeAnswer, JudgeAnswers
from serving.records import CopydeskError, Sample, Scorecard, Task
from serving.settings import Settings
from serving.store import BASE, Store

IN_FLIGHT = 8
TIMEOUT_S = 30.0
RETRIES = 4  # of the client, with growing pauses, on 429, 5xx and silence
SILENCES = 5  # questions in a row that nobody answered; then the rest is not asked
ANSWER_TOKENS = 4  # a space or a line break may come first
SURE = 0.5  # of the probability must lie on the two answers, else it is no answer
LONGEST = 8_000  # characters of a text that are shown to the judge

WORDS = {
    "yes": frozenset({"yes", "是", "是的", "对", "会"}),
    "no": frozenset({"no", "否", "不", "不是", "没有", "不会"}),
    "a": frozenset({"a"}),
    "b": frozenset({"b"}),
}

Ask = tuple[Sample, Task, list[str]]  # one text, and the questions about it by their keys


class UnscoredError(Exception):
    """There is no usable answer, and why."""


@dataclass
class Judge:
    """Attributes:
    model: as its endpoint calls it.
    """

    client: AsyncOpenAI
    model: str
    _logprobs: bool = True
    _silences: int = 0
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))

    async def question(self, text: str, task: Task, key: str) -> float:
        """The probability of yes, 0..1. Raises UnscoredError."""
        words = _template(task.language)
        prompt = f"{_shown(task, text)}\n\n{words['questions'][key]} {words['yes_or_no']}"
        return await self._share(prompt, task.language, "yes", "no")

    async def pair(self, text: str, other: str, task: Task) -> float:
        """1 when `text` is better than `other`, 0 when worse; 0.5 when order decides or nothing does. May raise too."""
        ask = _template(task.language)["pair"]
        first = await self._share(f"{_shown(task, text, other)}\n\n{ask}", task.language, "a", "b")
        second = await self._share(f"{_shown(task, other, text)}\n\n{ask}", task.language, "b", "a")
        return 1.0 if min(first, second) > YES else 0.0 if max(first, second) < YES else 0.5

    async def _share(self, prompt: str, language: str, this: str, that: str) -> float:
        """How much of the answer's probability lies on `this` rather than on `that`."""
        async with self._gate:
            if self._silences >= SILENCES:
                raise UnscoredError("not asked: the judge did not answer before")
            answer = await self._completed(
                [{"role": "system", "content": _template(language)["system"]}, {"role": "user", "content": prompt}]
            )
        positions, said = _read(answer)
        weighed = _weigh(positions, this, that)
        if weighed is not None:
            return weighed
        first = re.search(r"\w+", said)
        for word, value in ((this, 1.0), (that, 0.0)):
            if first and first.group().casefold() in WORDS[word]:
                return value
        raise UnscoredError(f"neither {this} nor {that}: {said[:60]!r}")

    async def _completed(self, messages: list[dict[str, str]]) -> ChatCompletion:
        extra: dict[str, Any] = {"logprobs": True, "top_logprobs": 10} if self._logprobs else {}
        try:
            answer: ChatCompletion = await self.client.chat.completions.create(
                model=self.model,
                messages=messages,  # type: ignore[arg-type]
                temperature=0,
                max_tokens=ANSWER_TOKENS,
                **extra,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise CopydeskError("The judge refuses the key; set COPYDESK_JUDGE_KEY to one that it accepts.") from error
        except openai.NotFoundError as error:
            raise CopydeskError(f"The judge has no model {self.model}; correct COPYDESK_JUDGE_MODEL.") from error
        except openai.BadRequestError as error:
            if not extra or "logprobs" not in error.message:
                raise UnscoredError(f"refused: {error.message[:80]}") from error
            self._logprobs = False  # some gateways know no logprobs; then the word counts
            return await self._completed(messages)
        except openai.APITimeoutError as error:
            self._silences += 1
            raise UnscoredError(f"no answer within {self.client.timeout} s") from error
        except openai.APIConnectionError as error:
            self._silences += 1
            raise UnscoredError("the judge cannot be reached") from error
        except openai.APIStatusError as error:
            self._silences += 1
            raise UnscoredError(f"HTTP {error.status_code}") from error
        except (openai.OpenAIError, ValueError) as error:
            raise UnscoredError(f"not an answer in OpenAI's form: {str(error)[:80]}") from error
        if not isinstance(answer, ChatCompletion):  # a gateway's page that is no JSON passes the client as text
            raise UnscoredError("not an answer in OpenAI's form")
        self._silences = 0
        return answer


def _read(answer: ChatCompletion) -> tuple[list[dict[str, float]], str]:
    """What each token might have been, with its logprob, and the text. Raises UnscoredError.

    The client checks no types: what a gateway leaves out is None, whatever the annotations say.
    """
    try:
        choice = answer.choices[0]
        tokens = (choice.logprobs and choice.logprobs.content) or ()
        positions = [{str(t.token): float(t.logprob) for t in at.top_logprobs or ()} for at in tokens]
        return positions, str(choice.message.content or "")
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UnscoredError("the answer has no text in OpenAI's form") from error


def _weigh(positions: Sequence[dict[str, float]], this: str, that: str) -> float | None:
    """The share of `this` at the first position where the answer stands; None when there is none."""
    for tokens in positions:
        mass = {
            word: sum(math.exp(logprob) for token, logprob in tokens.items() if _plain(token) in WORDS[word])
            for word in (this, that)
        }
        if (both := mass[this] + mass[that]) >= SURE:
            return mass[this] / both
    return None


def _plain(token: str) -> str:
    return token.strip(" \t\n\r.,!*\"'“”。，！#>▁Ġ").casefold()


def _shown(task: Task, *texts: str) -> str:
    words = _template(task.language)
    brief = "\n".join(part for part in (task.instruction, task.input) if part)
    parts = [f"{words['brief']}\n{brief}"]
    for side, text in zip("AB" if len(texts) > 1 else " ", texts, strict=True):
        parts.append(f"{words['text'].replace(':', f' {side}:').replace(' :', ':')}\n<<<\n{text[:LONGEST]}\n>>>")
    return "\n\n".join(parts)


@cache
def _template(language: str) -> dict[str, Any]:
    data = (Path(__file__).parent / "data" / "judge.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(data)[language]
    return found


def questions_for(task: Task) -> list[str]:
    """Audience and tone are asked where the brief names them."""
    named = {"audience": task.requirements.audience, "tone": task.requirements.tone}
    return [key for key in _template(task.language)["questions"] if named.get(key, "asked")]


async def open_judge(settings: Settings, store: Store, card: Scorecard) -> Judge:
    """The judge of the settings, unless it would judge itself.

    Raises:
        CopydeskError: there is none, it cannot be told which of its models is meant, or it is the version under test,
            what that is compared with, or their base.
    """
    endpoint, model = settings.copydesk_judge_endpoint, settings.copydesk_judge_model
    if not endpoint:
        raise CopydeskError("There is no judge; set COPYDESK_JUDGE_ENDPOINT to an OpenAI-compatible endpoint.")
    if _address(endpoint) == _address(settings.endpoint):
        raise CopydeskError(
            "The judge is the desk's own engine, which would judge itself; set COPYDESK_JUDGE_ENDPOINT to another."
        )
    client = AsyncOpenAI(
        base_url=f"{endpoint.rstrip('/').removesuffix('/v1')}/v1",
        api_key=settings.copydesk_judge_key or "none",
        timeout=TIMEOUT_S,
        max_retries=RETRIES,
    )
    served = await _served(client)
    if not model:
        if len(served) != 1:
            known = ", ".join(served) or "it lists none"
            raise CopydeskError(f"Set COPYDESK_JUDGE_MODEL to the judging model's name there: {known}.")
        (model,) = served
    own = await asyncio.to_thread(_own_names, settings, store, card)
    same = {_name(model), _name(served.get(model) or model)} & own
    if same or {_name(name) for name in served} & {BASE, _name(card.version)}:
        raise CopydeskError(
            f"{model} at {endpoint} is what is judged, or its base, or served beside it; "
            "set COPYDESK_JUDGE_ENDPOINT and COPYDESK_JUDGE_MODEL to another model."
        )
    return Judge(client, model)


async def _served(client: AsyncOpenAI) -> dict[str, str]:
    """What the endpoint lists: names, and where vLLM tells it, the files behind them."""
    try:
        listed = await client.models.list()
        return {model.id: str(getattr(model, "root", "") or "") for model in listed.data}
    except (openai.OpenAIError, ValueError, AttributeError, TypeError):
        return {}  # not every gateway lists its models


def _own_names(settings: Settings, store: Store, card: Scorecard) -> set[str]:
    bases = {str((card.body or {}).get("base_model", "")), settings.copydesk_model, settings.copydesk_endpoint_model}
    bases |= {version.base_model for version in store.versions()}
    return {_name(name) for name in {*bases, card.version, card.baseline, BASE} if name}


def _name(model: str) -> str:
    """The model's own name, without its folder or organisation."""
    return model.rstrip("/").rpartition("/")[2].casefold()


def _address(endpoint: str) -> tuple[str, int | None, str]:
    url = urlsplit(endpoint)
    host = "127.0.0.1" if url.hostname in ("localhost", "::1", "0.0.0.0") else url.hostname or ""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return host, port, url.path.rstrip("/").removesuffix("/v1")


Progress = Callable[[int, int], None]  # answered, asked for


async def judge_scorecard(store: Store, judge: Judge, card: Scorecard, progress: Progress) -> None:
    """Ask about every stored text of the following part, of both versions; what is answered already is not asked again.

    Raises:
        CopydeskError: the scorecard keeps no briefs, or the judge refuses key or model; answers so far are kept.
    """
    answers, grades = JudgeAnswers(store), Grades(store)
    tasks = await asyncio.to_thread(grades.tasks, card.suite)
    live_id = await asyncio.to_thread(grades.baseline_of, card)
    texts = {id: await asyncio.to_thread(_following, store, id, tasks) for id in (card.id, live_id)}
    if not texts[card.id]:
        raise CopydeskError(
            f"Scorecard {card.id} keeps no briefs; score the version again: copydesk eval run {card.version}"
        )
    known = await asyncio.to_thread(answers.answered, judge.model, card)
    asks: list[Ask] = []
    for id, own in texts.items():
        for sample in own.values():
            task = tasks[sample.item_id]
            pair = [PAIR] if id == card.id and sample.item_id in texts[live_id] else []
            text = (card.version if id == card.id else card.baseline, card.suite, card.seed, sample.item_id)
            asks.append((sample, task, [key for key in (*questions_for(task), *pair) if (text, key) not in known]))
    done, total = 0, sum(len(keys) for _, _, keys in asks)
    progress(done, total)

    async def answer(sample: Sample, task: Task, key: str) -> JudgeAnswer:
        nonlocal done
        try:
            if key == PAIR:
                yes = await judge.pair(sample.text, texts[live_id][sample.item_id].text, task)
            else:
                yes = await judge.question(sample.text, task, key)
            found = JudgeAnswer(sample.id, key, yes)
        except UnscoredError as error:
            found = JudgeAnswer(sample.id, key, None, str(error))
        done += 1
        progress(done, total)
        return found

    async def one(sample: Sample, task: Task, keys: list[str]) -> None:
        found = [await answer(sample, task, key) for key in keys]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # A text's answers at once: stopped in between, no text is judged by half of its questions.
        await asyncio.to_thread(answers.add, judge.model, found, now)

    try:
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                group.create_task(one(*ask))
    except* CopydeskError as errors:
        raise errors.exceptions[0] from None


def _following(store: Store, scorecard_id: int, tasks: dict[str, Task]) -> dict[str, Sample]:
    samples = store.samples(scorecard_id)
    return {s.item_id: s for s in samples if s.part == "following" and s.repeat == 0 and s.item_id in tasks}
