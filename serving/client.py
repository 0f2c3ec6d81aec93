"""The model over HTTP, in OpenAI's protocol. Bot, evals and engine speak to it through this alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from serving.endpoint import BUSY, NO_SUCH_ROUTE, OURS, REFUSED, Abilities, ask, endpoint_key
from serving.records import CopydeskError, Version
from serving.settings import Settings
from serving.store import BASE

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 120.0  # the longest silence of a living engine: a full queue on two cores
WHOLE_TIMEOUT_S = 900.0  # of an answer in one piece: a whole card in flight on two slow cores
CLUSTER_ATTEMPTS = 5
ATTEMPT_PAUSE_S = 0.5
CHOICE = ("yes", "no")


class EngineUnavailable(CopydeskError):  # noqa: N818  (a state of the engine, not a fault of the caller)
    """Nobody answers, or the answer broke off: worth another try once the engine is back."""


@dataclass(frozen=True)
class Sampling:
    """How a completion is drawn. `seed` is for evaluation only: on vLLM's CPU build a seed can end the engine."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 256
    seed: int | None = None


@dataclass(frozen=True)
class Piece:
    """The next characters of a streamed completion."""

    text: str


@dataclass(frozen=True)
class Completion:
    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float | None
    total_s: float
    finish_reason: str


class ModelClient:
    """Chat completions and adapters of one endpoint.

    Args:
        endpoint: "http://host:port", with or without "/v1", or "unix:///path/of/a/socket".
        abilities: what it can do; None asks it at the first need.
        base: the base model's name there, where it is asked and lists several.
    """

    def __init__(self, endpoint: str, key: str = "", abilities: Abilities | None = OURS, base: str = "") -> None:
        self.endpoint = endpoint
        self.attempts = 1  # at a request that breaks off before its first piece: on a cluster another engine answers
        self._abilities = abilities
        self._base = base
        url = urlsplit(endpoint)
        transport = httpx2.AsyncHTTPTransport(uds=url.path) if url.scheme == "unix" else None
        base = "http://engine" if url.scheme == "unix" else endpoint.removesuffix("/").removesuffix("/v1")
        self._http = httpx2.AsyncClient(
            transport=transport,
            base_url=base,
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self._openai = AsyncOpenAI(api_key=key or "none", base_url=f"{base}/v1", http_client=self._http, max_retries=0)

    @classmethod
    def of(cls, settings: Settings) -> ModelClient:
        """The client of this desk's endpoint; one that somebody else runs is asked what it can do."""
        abilities = None if settings.copydesk_endpoint else OURS
        client = cls(settings.endpoint, endpoint_key(settings), abilities, base=settings.copydesk_endpoint_model)
        client.attempts = CLUSTER_ATTEMPTS if settings.copydesk_ray_address else 1
        return client

    async def __aenter__(self) -> ModelClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._openai.close()

    async def abilities(self) -> Abilities:
        """What the endpoint can do; raises as `complete` does."""
        if self._abilities is None:
            with _translated():
                self._abilities = await ask(self._http, self._base)
        return self._abilities

    async def stream(
        self, messages: list[dict[str, str]], model: str, sampling: Sampling
    ) -> AsyncIterator[Piece | Completion]:
        """Pieces as they come, and last the whole Completion.

        Raises:
            EngineUnavailable: nobody answers, or the stream breaks off; nothing of it counts.
            CopydeskError: the endpoint refuses the request (unknown model, prompt too long).
        """
        for left in reversed(range(self.attempts)):
            begun = False
            try:
                async for part in self._stream(messages, model, sampling):
                    begun = True
                    yield part
                return
            except EngineUnavailable:
                if begun or not left:
                    raise
            await asyncio.sleep(ATTEMPT_PAUSE_S)

    async def _stream(
        self, messages: list[dict[str, str]], model: str, sampling: Sampling
    ) -> AsyncIterator[Piece | Completion]:
        abilities = await self.abilities()
        if not abilities.streams:
            whole = await self.complete(messages, model, sampling)
            yield Piece(whole.text)
            yield whole
            return
        started = time.monotonic()
        first: float | None = None
        parts: list[str] = []
        finish, usage = "", None
        with _translated():
            chunks = await self._openai.chat.completions.create(
                model=abilities.model_of(model),
                messages=_typed(messages),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed if sampling.seed is not None else openai.omit,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for chunk in chunks:
                usage = chunk.usage or usage
                for choice in chunk.choices or ():
                    finish = choice.finish_reason or finish
                    if choice.delta.content:
                        if first is None:
                            first = time.monotonic() - started
                        parts.append(choice.delta.content)
                        yield Piece(choice.delta.content)
        if not finish:
            raise EngineUnavailable("The engine stopped in the middle of the draft.")
        yield Completion(
            "".join(parts).strip(),
            model,
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
            first,
            time.monotonic() - started,
            finish,
        )

    async def complete(self, messages: list[dict[str, str]], model: str, sampling: Sampling) -> Completion:
        """The whole completion; raises as `stream` does."""
        abilities = await self.abilities()
        started = time.monotonic()
        with _translated():
            answer = await self._openai.chat.completions.create(
                model=abilities.model_of(model),
                messages=_typed(messages),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=sampling.seed if sampling.seed is not None else openai.omit,
                timeout=httpx2.Timeout(WHOLE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            )
            choice, usage = answer.choices[0], answer.usage
            return Completion(
                (choice.message.content or "").strip(),
                model,
                usage.prompt_tokens if usage else 0,
                usage.completion_tokens if usage else 0,
                None,
                time.monotonic() - started,
                choice.finish_reason,
            )

    async def constrains(self, model: str) -> bool:
        """Whether an answer keeps to a choice of words, in vLLM's protocol. The first may cost a second."""
        try:
            with _translated():
                answer = await self._openai.chat.completions.create(
                    model=(await self.abilities()).model_of(model),
                    messages=[{"role": "user", "content": "Is a lamp a light?"}],
                    max_tokens=8,
                    extra_body={"structured_outputs": {"choice": CHOICE}},
                )
                return answer.choices[0].message.content in CHOICE
        except CopydeskError:
            return False

    async def sleep(self) -> None:
        """Finish what is under way and give the GPU's memory back; what comes later waits until `wake`."""
        with _translated():
            (await self._http.post("/sleep", params={"level": "1", "mode": "wait"})).raise_for_status()

    async def wake(self) -> None:
        with _translated():
            (await self._http.post("/wake_up")).raise_for_status()

    async def models(self) -> list[str]:
        """The names that the endpoint serves: the base model and the adapters it knows."""
        with _translated():
            return [model.id for model in (await self._openai.models.list()).data]

    async def healthy(self) -> bool:
        try:
            status = (await self._http.get("/health", timeout=CONNECT_TIMEOUT_S)).status_code
            if status in NO_SUCH_ROUTE:  # a gateway
                status = (await self._http.get("/v1/models", timeout=CONNECT_TIMEOUT_S)).status_code
            return status == 200
        except httpx2.HTTPError:
            return False

    async def knows(self, name: str) -> bool:
        """Whether the endpoint serves a version already.

        Raises:
            CopydeskError: it does not, and never will: it loads no adapters.
        """
        if name in await self.models():
            return True
        if not (await self.abilities()).loads:
            raise CopydeskError(
                f"The endpoint does not serve {name} and loads no adapters; ask who runs it to load it.",
                code="endpoint_loads_none",
                version=name,
            )
        return False

    async def ensure_loaded(self, version: Version) -> None:
        """Make a version known by its name and path, once. The name is never reused for other files.

        Raises:
            CopydeskError: the endpoint refuses the adapter, or loads none at all.
        """
        if await self.knows(version.name):
            return
        await self.load(version.name, version.path)

    async def load(self, name: str, path: str) -> None:
        """Raises as `ensure_loaded` does."""
        await self._adapter("load_lora_adapter", {"lora_name": name, "lora_path": path}, name)

    async def unload(self, name: str) -> None:
        if name != BASE and name in await self.models():
            await self._adapter("unload_lora_adapter", {"lora_name": name}, name)

    async def _adapter(self, verb: str, body: dict[str, str], name: str) -> None:
        try:
            # A sleeping vLLM takes the call, writes where no memory is mapped, and dies. Others do not know the route.
            asleep = await self._http.get("/is_sleeping")
            if asleep.is_success and "true" in asleep.text:
                raise EngineUnavailable("The engine sleeps while a round trains.")
            answer = await self._http.post(f"/v1/{verb}", json=body)
        except httpx2.HTTPError as error:
            raise EngineUnavailable(f"The engine does not answer ({error.__class__.__name__}).") from error
        if answer.is_server_error or answer.status_code in BUSY:
            raise EngineUnavailable(f"The engine could not load {name} now ({answer.status_code}).")
        # 400 with "already": another process was faster, which is as good.
        if answer.is_error and "already" not in answer.text:
            text = f"The engine refused {name}: {answer.text[:300]}"
            raise CopydeskError(text, code="adapter_refused", version=name)


def _typed(messages: list[dict[str, str]]) -> list[ChatCompletionMessageParam]:
    return messages  # type: ignore[return-value]  # the same JSON, as openai's union of TypedDicts


def _refusal(error: openai.APIStatusError) -> str:
    """The code of the sentence for it; vLLM names a prompt that is too long by its message alone."""
    if error.code == "context_length_exceeded" or "context length" in error.message:
        return "prompt_too_long"
    if error.status_code in REFUSED:
        return "key_refused"
    return "model_unknown" if error.status_code == 404 else "request_refused"


class _translated:  # noqa: N801  (used as a verb)
    """openai's and httpx2's exceptions as ours, for `with`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, openai.APIStatusError) and error.status_code < 500 and error.status_code not in BUSY:
            text = f"The engine refused the request: {error.message[:300]}"
            raise CopydeskError(text, code=_refusal(error), status=str(error.status_code)) from error
        if isinstance(error, openai.APIError | httpx2.HTTPError):
            raise EngineUnavailable(f"The engine does not answer ({error.__class__.__name__}).") from error
        # No UTF-8, no JSON, or JSON without what openai's types promise, from a gateway in trouble.
        if isinstance(error, ValueError | TypeError | IndexError | AttributeError):
            raise EngineUnavailable(f"The engine's answer cannot be read ({error.__class__.__name__}).") from error
