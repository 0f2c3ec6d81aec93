"""What an engine that somebody else runs can do. It is asked once, and what it lacks is one line each.

vLLM, or any gateway that speaks OpenAI's protocol. Our own engine needs no asking: see OURS.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from serving.records import CopydeskError
from serving.settings import Settings
from serving.store import BASE

ASK_TIMEOUT_S = 20.0  # one token of a model that was idle
REFUSED = (401, 403)
NO_SUCH_ROUTE = (404, 405, 501)
BUSY = (408, 425, 429)  # of a gateway; worth another try, as a 5xx is


@dataclass(frozen=True)
class Abilities:
    """What an endpoint can do.

    Attributes:
        base: the base model's name there; "" when it cannot be told from the list.
        models: what it listed when asked.
    """

    base: str = BASE
    loads: bool = True
    streams: bool = True
    models: tuple[str, ...] = ()

    def model_of(self, version: str) -> str:
        """What goes into a request's model field.

        Raises:
            CopydeskError: nobody said which of its models is the base.
        """
        if version == BASE and not self.base:
            raise CopydeskError(self._which_base(), code="base_unknown")
        return self.base if version == BASE else version

    def lacks(self) -> Iterator[tuple[str, str]]:
        """What it cannot do, and the next step."""
        if not self.base:
            yield "no base model is named", self._which_base()
        if not self.loads:
            step = "start vLLM there with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            yield "it loads no adapters: only versions that it lists already can be approved", step
        if not self.streams:
            yield "it does not stream: a draft appears when it is whole", "nothing to do, unless its gateway can stream"

    def _which_base(self) -> str:
        return f"set COPYDESK_ENDPOINT_MODEL to one of: {', '.join(self.models) or 'nothing is listed there'}"


OURS = Abilities()


def endpoint_key(settings: Settings) -> str:
    """The key as it is set; for a cluster of ours else one that is made once, in a file that only we read."""
    if settings.copydesk_endpoint_key or settings.copydesk_endpoint or not settings.copydesk_ray_address:
        return settings.copydesk_endpoint_key
    path = settings.copydesk_home / "engine" / "key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        contextlib.suppress(FileExistsError),
        os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file,
    ):
        file.write(secrets.token_urlsafe(32))
    return path.read_text()


async def ask(http: httpx2.AsyncClient, base: str = "") -> Abilities:
    """Find out what the endpoint behind `http` can do: one list, one token, one load of nothing.

    Args:
        base: the base model's name there; "" finds it where only one can be meant.

    Raises:
        CopydeskError: it refuses the key, or does not serve `base`.
        httpx2.HTTPError: nobody answers, or not in this protocol.
    """
    answer = await http.get("/v1/models", timeout=ASK_TIMEOUT_S)
    if answer.status_code in REFUSED:
        text = "The endpoint refuses the key; set COPYDESK_ENDPOINT_KEY to one that it accepts."
        raise CopydeskError(text, code="key_refused")
    if answer.status_code not in NO_SUCH_ROUTE:
        answer.raise_for_status()
    try:
        cards = {str(card["id"]): card.get("parent") for card in answer.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CopydeskError(
            f"{answer.url} lists no models as OpenAI's protocol does; correct COPYDESK_ENDPOINT.", code="no_models"
        ) from error
    if base and base not in cards:
        text = f"The endpoint serves no {base}; set COPYDESK_ENDPOINT_MODEL to one of: {', '.join(cards)}"
        raise CopydeskError(text, code="base_unknown")
    base = base or _only(cards)
    streams = await _streams(http, base) if base else True
    return Abilities(base, await _loads(http), streams, tuple(cards))


def _only(cards: dict[str, str | None]) -> str:
    """The one model that can be meant: ours by name, else the one that is no adapter of another."""
    bases = [name for name, parent in cards.items() if parent is None]
    return BASE if BASE in cards else bases[0] if len(bases) == 1 else ""


async def _loads(http: httpx2.AsyncClient) -> bool:
    """Whether the route is there; an empty order is refused and changes nothing."""
    status = (await http.post("/v1/load_lora_adapter", json={}, timeout=ASK_TIMEOUT_S)).status_code
    return status not in (*NO_SUCH_ROUTE, *REFUSED)


async def _streams(http: httpx2.AsyncClient, model: str) -> bool:
    order = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True}
    async with http.stream("POST", "/v1/chat/completions", json=order, timeout=ASK_TIMEOUT_S) as answer:
        if answer.status_code in BUSY or (answer.is_server_error and answer.status_code not in NO_SUCH_ROUTE):
            answer.raise_for_status()  # says nothing about streaming, and what is returned is kept
        return answer.is_success and "event-stream" in answer.headers.get("content-type", "")
