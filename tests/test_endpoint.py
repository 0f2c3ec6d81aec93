"""An engine that somebody else runs: what it can do is found out, and what it cannot is said in one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from bot_world import BRIEF, scored, serving_desk
from openai_double import Answer, EngineDouble

from bot.doctor import examine
from serving.client import Completion, EngineUnavailable, ModelClient, Piece, Sampling
from serving.records import CopydeskError
from serving.settings import Settings
from serving.store import BASE

HELLO = [{"role": "user", "content": "Hello"}]
GATEWAY = {"loads": False, "streams": False, "health": False}


def client_of(engine: EngineDouble, **settings: str) -> ModelClient:
    return ModelClient.of(Settings(_env_file=None, copydesk_endpoint=engine.url, **settings))


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_in_v1_or_not(suffix: str) -> None:
    async with EngineDouble() as engine, ModelClient(engine.url + suffix) as client:
        assert await client.models() == ["base"]
        assert (await client.complete(HELLO, BASE, Sampling())).text.startswith("Warm light")


async def test_vllm_is_found_able_to_do_all() -> None:
    async with EngineDouble(loaded=["Qwen/Qwen3-8B"]) as engine, client_of(engine) as client:
        abilities = await client.abilities()
        assert (abilities.base, abilities.loads, abilities.streams) == ("Qwen/Qwen3-8B", True, True)
        assert list(abilities.lacks()) == []
        assert not await client.constrains(BASE)
        engine.answers = [Answer(("yes",))]
        assert await client.constrains(BASE)


async def test_a_gateway_says_what_it_lacks_and_a_draft_comes_whole() -> None:
    async with EngineDouble(**GATEWAY) as engine, client_of(engine) as client:
        assert await client.healthy()
        lacks = [lack for lack, _ in (await client.abilities()).lacks()]
        assert [lack.split(":")[0] for lack in lacks] == ["it loads no adapters", "it does not stream"]
        piece, whole = [part async for part in client.stream(HELLO, BASE, Sampling())]
        assert isinstance(piece, Piece)
        assert isinstance(whole, Completion)
        assert piece.text == whole.text == "Warm light for late pages. Try it tonight."


async def test_the_base_model_may_have_another_name_there() -> None:
    async with EngineDouble(loaded=["small", "large"]) as engine:
        async with client_of(engine) as client:
            with pytest.raises(CopydeskError, match="set COPYDESK_ENDPOINT_MODEL to one of: small, large"):
                await client.complete(HELLO, BASE, Sampling())
        async with client_of(engine, copydesk_endpoint_model="large") as client:
            await client.complete(HELLO, BASE, Sampling())
            await client.complete(HELLO, "copy-0001", Sampling())
        assert [body["model"] for body in engine.asked[-2:]] == ["large", "copy-0001"]
        async with client_of(engine, copydesk_endpoint_model="huge") as client:
            with pytest.raises(CopydeskError, match="serves no huge"):
                await client.abilities()


async def test_a_wrong_key_is_named_and_the_right_one_opens_every_route() -> None:
    async with EngineDouble(key="right") as engine:
        async with client_of(engine, copydesk_endpoint_key="wrong") as client:
            with pytest.raises(CopydeskError, match="set COPYDESK_ENDPOINT_KEY"):
                await client.abilities()
        async with client_of(engine, copydesk_endpoint_key="right") as client:
            assert (await client.abilities()).loads
            assert await client.healthy()


def test_a_key_is_not_printed_with_the_settings() -> None:
    assert "secret-key" not in repr(Settings(_env_file=None, copydesk_endpoint_key="secret-key"))


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (Answer(status=500), "does not answer"),
        (Answer(status=429), "does not answer"),
        (Answer(raw=b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "\xff\xfe"}}]}\n\n'), "be read"),
        (Answer(raw=b"data: <html>bad gateway</html>\n\n"), "cannot be read"),
        (Answer(raw=b'data: {"choices": [{"delta": null}]}\n\n'), "cannot be read"),
        (Answer(raw=b'data: {"choices": null}\n\n'), "in the middle"),
        (Answer(raw=b"data: [DONE]\n\n"), "in the middle"),
        (Answer(("Warm ", "light"), breaks_after=1), "does not answer"),
    ],
)
async def test_an_endpoint_in_trouble_is_worth_another_try(trouble: Answer, told: str) -> None:
    async with EngineDouble([trouble]) as engine, ModelClient(engine.url) as client:
        with pytest.raises(EngineUnavailable, match=told):
            _ = [part async for part in client.stream(HELLO, BASE, Sampling())]
        assert (await client.complete(HELLO, BASE, Sampling())).text


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"error": {"message": "upstream is overloaded"}}', "application/json"),
        (b'{"choices": []}', "application/json"),
        (b'{"choices": [{"message": null}]}', "application/json"),
        (b"<html>bad gateway</html>", "text/html"),
    ],
)
async def test_a_success_that_is_no_answer_is_worth_another_try(raw: bytes, kind: str) -> None:
    odd = Answer(raw=raw, kind=kind)
    async with EngineDouble([odd, odd]) as engine, ModelClient(engine.url) as client:
        assert not await client.constrains(BASE)
        with pytest.raises(EngineUnavailable, match="cannot be read"):
            await client.complete(HELLO, BASE, Sampling())
        assert (await client.complete(HELLO, BASE, Sampling())).text


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_a_busy_endpoint_is_not_taken_for_one_that_cannot_stream(status: int) -> None:
    async with EngineDouble([Answer(status=status)]) as engine, client_of(engine) as client:
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await client.abilities()
        assert (await client.abilities()).streams


@pytest.mark.parametrize("status", [400, 404, 501])
async def test_an_endpoint_that_refuses_to_stream_is_asked_for_whole_drafts(status: int) -> None:
    async with EngineDouble([Answer(status=status)]) as engine, client_of(engine) as client:
        assert not (await client.abilities()).streams


async def test_an_endpoint_that_hangs_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.READ_TIMEOUT_S", 0.3)
    async with EngineDouble([Answer(("Warm ", "light"), pause=3)]) as engine, ModelClient(engine.url) as client:
        with pytest.raises(EngineUnavailable, match="Timeout"):
            _ = [part async for part in client.stream(HELLO, BASE, Sampling())]


async def test_an_answer_in_one_piece_may_take_longer_than_a_streams_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.READ_TIMEOUT_S", 0.3)
    async with EngineDouble([Answer(("Warm ", "light"), pause=0.5)]) as engine, ModelClient(engine.url) as client:
        assert (await client.complete(HELLO, BASE, Sampling())).text == "Warm light"


async def test_something_else_than_an_engine_at_the_address_is_named() -> None:
    async with EngineDouble() as engine:
        elsewhere = Settings(_env_file=None, copydesk_endpoint=f"{engine.url}/chat")
        async with ModelClient.of(elsewhere) as client:
            with pytest.raises(CopydeskError, match=r"/chat/v1/models lists no models .* correct COPYDESK_ENDPOINT"):
                await client.abilities()


async def test_the_doctor_tells_what_the_endpoint_cannot_do(tmp_path: Path) -> None:
    async with EngineDouble(**GATEWAY) as engine:
        findings = await examine(Settings(_env_file=None, copydesk_home=tmp_path, copydesk_endpoint=engine.url))
    found = [(f.ok, f.found) for f in findings if f.what == "endpoint"]
    assert found[0] == (True, f"{engine.url} answers, base model base")
    assert [(ok, text[:12]) for ok, text in found[1:]] == [(False, "it loads no "), (False, "it does not ")]


@pytest.mark.socket
async def test_a_desk_before_a_gateway_drafts_and_refuses_a_version_it_cannot_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        EngineDouble(loaded=["house-model"], key="k", **GATEWAY) as engine,
        serving_desk(tmp_path, engine, copydesk_endpoint_key="k") as it,
    ):
        ts = await it.anna.mention("C_COPY", BRIEF)
        assert "Warm light" in (await it.draft(it.anna, "C_COPY", ts))["blocks"][0]["text"]
        assert engine.asked[-1]["model"] == "house-model"
        assert it.store.drafts()[0].version == BASE
        version = scored(it)
        card = await it.card(it.mara, version.name)
        await it.mara.press("C_COPY", card["ts"], "approve")
        refused = await it.mara.wait_message("C_COPY", lambda m: m["ephemeral"])
        assert refused["text"].startswith("copy-0001 cannot go live: the engine that writes here does not know it")
        engine.loaded.append(version.name)  # its operator did what the sentence asks for
        await it.mara.press("C_COPY", card["ts"], "approve")
        await it.mara.wait_modal(callback_id="approve_view")
    assert f"{engine.url}: it loads no adapters" in caplog.text
    assert f"Drafts come from {engine.url}, base model house-model." in caplog.text


@pytest.mark.socket
async def test_a_desk_starts_before_its_endpoint_and_drafts_when_that_is_up(tmp_path: Path) -> None:
    async with EngineDouble(loaded=["house-model"]) as engine:
        await engine.__aexit__()
        async with serving_desk(tmp_path, engine) as it:
            ts = await it.anna.mention("C_COPY", BRIEF)
            waits = await it.anna.wait_message("C_COPY", lambda m: "restarting" in m["text"], thread_ts=ts)
            port = int(engine.url.rsplit(":", 1)[1])
            async with EngineDouble(loaded=["house-model"], port=port):
                draft = await it.draft(it.anna, "C_COPY", ts)
            assert draft["ts"] == waits["ts"], "the same message became the draft"
