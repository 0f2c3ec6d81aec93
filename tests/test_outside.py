"""The desk as its operators see it: figures, readiness, a log that can be followed, and files to run it with."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession
from aiohttp.test_utils import unused_port
from bot_world import BRIEF, World, serving_desk
from openai_double import EngineDouble
from prometheus_client.parser import text_string_to_metric_families

from bot.outside import outside
from serving.jobs import Jobs
from serving.logs import JsonLines, about
from serving.metrics import Metrics
from serving.prompt import task_of
from serving.records import CopydeskError, Decision, Requirements, Verdict
from serving.settings import Settings
from serving.store import Store
from serving.trace import lines, trace

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LAMP = task_of(Requirements(product="Alder lamp"), "en", "home")
ALL_UP = {"slack": True, "engine": True}


def figures(page: bytes) -> dict[tuple[str, ...], float]:
    """Samples by name and label values."""
    samples = [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]
    return {(s.name, *s.labels.values()): s.value for s in samples if not s.name.endswith("_created")}


def drafted(
    store: Store, version: str = "base", first_token_s: float | None = 0.3, ts: str = "1700000001.000001"
) -> int:
    request = store.add_request(LAMP, user="U_ANNA", channel="C1", thread_ts="1700000000.000001", locale="en")
    assert request is not None
    draft = store.answer(
        request.id,
        version=version,
        text="Warm light.",
        ts=ts,
        prompt_tokens=40,
        completion_tokens=12,
        first_token_s=first_token_s,
        total_s=1.5,
    )
    store.close_request(request.id)
    return draft.id


async def get(port: int, path: str) -> tuple[int, Any]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if "json" in answer.content_type else body


@asynccontextmanager
async def watched(tmp_path: Path) -> AsyncIterator[tuple[World, EngineDouble, int]]:
    port = unused_port()
    async with EngineDouble() as engine, serving_desk(tmp_path, engine, copydesk_metrics_port=port) as it:
        yield it, engine, port


@pytest.mark.socket
async def test_a_running_desk_is_ready_and_counts_its_drafts(tmp_path: Path) -> None:
    async with watched(tmp_path) as (it, _, port):
        assert await get(port, "/live") == (200, {"live": True})
        assert await get(port, "/ready") == (200, {"ready": True, "reasons": []})
        ts = await it.anna.mention("C_COPY", BRIEF)
        await it.draft(it.anna, "C_COPY", ts)
        await it.anna.wait_until(lambda state: not it.store.waiting_requests(), "The request stays open")
        found = figures((await get(port, "/metrics"))[1])
        assert found["copydesk_requests_total", "answered"] == 1
        assert found["copydesk_first_token_seconds_count", "base"] == 1
        assert found["copydesk_live_version_info", "base"] == 1
        assert found["copydesk_up", "slack"] == found["copydesk_up", "engine"] == 1


@pytest.mark.socket
async def test_a_desk_whose_engine_is_gone_is_alive_and_says_why_it_is_not_ready(tmp_path: Path) -> None:
    async with watched(tmp_path) as (_, engine, port):
        await engine.__aexit__()
        assert await get(port, "/ready") == (503, {"ready": False, "reasons": ["The engine does not answer."]})
        assert (await get(port, "/live"))[0] == 200
        assert figures((await get(port, "/metrics"))[1])["copydesk_up", "engine"] == 0


async def test_before_slack_is_connected_the_desk_is_not_ready(store: Store) -> None:
    port = unused_port()

    async def answers() -> bool:
        return True

    async with outside(port, Metrics(store), {"engine": answers}):
        assert await get(port, "/ready") == (503, {"ready": False, "reasons": ["Slack's socket is not connected."]})


async def test_a_taken_port_is_one_clear_message_and_port_0_is_off(store: Store) -> None:
    port = unused_port()
    async with outside(port, Metrics(store), {}):
        with pytest.raises(CopydeskError, match=f"Port {port} is taken; set COPYDESK_METRICS_PORT"):
            async with outside(port, Metrics(store), {}):
                pass
    async with outside(0, Metrics(store), {}):
        pass


def test_latencies_are_told_by_version_and_a_restart_forgets_none(store: Store) -> None:
    drafted(store)
    metrics = Metrics(store)
    metrics.render(ALL_UP)
    drafted(store, version="copy-0001", first_token_s=None, ts="1700000002.000001")
    assert figures(metrics.render(ALL_UP)) == (after := figures(Metrics(store).render(ALL_UP)))
    assert after["copydesk_first_token_seconds_bucket", "0.5", "base"] == 1
    assert ("copydesk_first_token_seconds_count", "copy-0001") not in after, "it was not streamed"
    assert after["copydesk_generation_seconds_sum", "copy-0001"] == 1.5
    assert after["copydesk_answer_seconds_count", "copy-0001"] == 1


def test_the_queue_the_restarts_and_the_outcomes_are_counted(store: Store) -> None:
    for _ in range(3):
        store.add_request(LAMP, user="U_ANNA", channel="C1", thread_ts="1.1", locale="en")
    store.fail_request(2)
    found = figures(Metrics(store, lambda: 4).render(ALL_UP))
    assert found["copydesk_requests_waiting",] == 2
    assert found["copydesk_requests_total", "failed"] == 1
    assert found["copydesk_engine_restarts_total",] == 4


def test_a_round_shows_its_progress_while_it_runs(store: Store) -> None:
    round = store.start_round({}, [], "d")
    Jobs(store).begin(round.id, "fingerprint")
    Jobs(store).report(round.id, 30, 120, 45.0)
    found = figures(Metrics(store).render(ALL_UP))
    assert found["copydesk_rounds", "running"] == 1
    assert found["copydesk_round_progress_ratio", "copy-0001"] == 0.25
    assert found["copydesk_round_left_seconds", "copy-0001"] == 45
    store.fail_round(round.id, "no memory")
    found = figures(Metrics(store).render(ALL_UP))
    assert found["copydesk_rounds", "failed"] == 1
    assert ("copydesk_round_progress_ratio", "copy-0001") not in found


def test_a_round_whose_process_is_gone_counts_as_interrupted(store: Store) -> None:
    store.start_round({}, [], "d")
    found = figures(Metrics(store).render(ALL_UP))
    assert (found["copydesk_rounds", "running"], found["copydesk_rounds", "interrupted"]) == (0, 1)
    round = store.start_round({}, [], "d")
    Jobs(store).begin(round.id, "fingerprint")
    found = figures(Metrics(store).render(ALL_UP))
    assert (found["copydesk_rounds", "running"], found["copydesk_rounds", "interrupted"]) == (1, 1)


# The log


@pytest.mark.socket
async def test_the_log_leads_from_a_slack_message_to_its_request_draft_and_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(json.loads(JsonLines().format(record)))  # type: ignore[method-assign]
    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        async with EngineDouble() as engine, serving_desk(tmp_path, engine) as it:
            sent = [await it.anna.mention("C_COPY", BRIEF), await it.liwei.mention("C_COPY", BRIEF)]
            for ts in sent:
                await it.draft(it.anna, "C_COPY", ts)
            await it.anna.wait_until(lambda state: not it.store.waiting_requests(), "The requests stay open")
    finally:
        logging.getLogger().removeHandler(handler)
    answered = {line["ts"]: line for line in told if "is answered" in line["message"]}
    assert set(answered) == set(sent)
    for ts in sent:
        draft = it.store.draft(answered[ts]["draft"])
        assert (draft.request_id, draft.version) == (answered[ts]["request"], answered[ts]["version"])
        assert answered[ts]["channel"] == "C_COPY"


def test_a_line_of_json_holds_its_exception_and_what_it_is_about() -> None:
    async def work() -> str:
        about(request=7)
        try:
            raise ValueError("zu viel")
        except ValueError as error:
            record = logging.LogRecord("bot", logging.ERROR, "", 0, "It failed: %s", ("坏",), (ValueError, error, None))
            return JsonLines().format(record)

    line = json.loads(asyncio.run(work()))
    assert (line["message"], line["level"], line["request"]) == ("It failed: 坏", "error", 7)
    assert "zu viel" in line["exception"]


# copydesk trace


def link(ts: str, thread: str = "") -> str:
    tail = f"?thread_ts={thread}&cid=C1" if thread else ""
    return f"https://team.slack.com/archives/C1/p{ts.replace('.', '')}{tail}"


def test_a_draft_is_traced_to_its_round_and_to_what_was_learned(store: Store) -> None:
    round = store.start_round({"name": "default"}, [], "d")
    version = store.finish_round(round.id, {}, path="/gone", digest="f" * 64, base_model="m")
    store.decide(version.name, Decision.APPROVED, digest="f" * 64, user="U_MARA")
    draft = drafted(store, version.name)
    store.rate(draft, "U_LIWEI", Verdict.UP)
    corrected = store.add_correction(draft, "U_ANNA", "Alder lamp: warm light.")
    later = store.start_round({}, [corrected.pair_id], "d")
    store.finish_round(later.id, {}, path="/gone", digest="e" * 64, base_model="m")
    (chain,) = trace(store, str(draft))
    assert chain.request.user == "U_ANNA"
    assert chain.round is not None
    assert chain.round.id == round.id
    assert ["copy-0002"] in [learned.versions for learned in chain.learned]
    told = "\n".join(lines(chain))
    for part in (
        "request 1: answered",
        "version copy-0001",
        "approved by U_MARA",
        "rated up by U_LIWEI",
        "→ copy-0002",
    ):
        assert part in told


def test_a_link_of_the_brief_the_draft_or_anything_between_finds_the_request(store: Store) -> None:
    drafted(store)
    drafted(store, ts="1700000005.000001")
    thread = "1700000000.000001"
    assert [chain.request.id for chain in trace(store, link(thread))] == [1, 2], "both were asked in this thread"
    assert [chain.request.id for chain in trace(store, link("1700000005.000001", thread))] == [2]
    assert [chain.request.id for chain in trace(store, link("1700000003.000009", thread))] == [1, 2]


@pytest.mark.parametrize("what", ["https://team.slack.com/archives/C9/p1700000000000001", "good morning"])
def test_what_leads_nowhere_says_what_would(store: Store, what: str) -> None:
    with pytest.raises(CopydeskError, match="give a draft's number, or a message's link"):
        trace(store, what)


def test_the_command_prints_the_chain_as_json(tmp_path: Path) -> None:
    drafted(Store(tmp_path / "copydesk.db"))
    command = [sys.executable, "-m", "bot.cli", "trace", "1", "--json"]
    done = subprocess.run(command, env={"COPYDESK_HOME": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True)
    (chain,) = json.loads(done.stdout)
    assert (chain["request"]["id"], chain["draft"]["version"], chain["version"]) == (1, "base", None)


# What docs/ offers to operators


def test_every_figure_of_the_dashboard_exists(store: Store) -> None:
    drafted(store)
    known = {sample[0] for sample in figures(Metrics(store).render(ALL_UP))}
    known |= {"copydesk_round_progress_ratio", "copydesk_round_left_seconds"}  # only while a round runs
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"copydesk_\w+", target["expr"])
    }
    assert asked <= known
    assert {"copydesk_requests_total", "copydesk_requests_waiting", "copydesk_engine_restarts_total"} <= asked


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_the_systemd_unit_is_valid(tmp_path: Path) -> None:
    text = (DOCS / "copydesk.service").read_text().replace("/opt/copydesk/.venv/bin/copydesk", sys.executable)
    unit = tmp_path / "copydesk.service"
    unit.write_text(text.replace("User=copydesk\n", "").replace("/opt/copydesk\n", f"{tmp_path}\n"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "copydesk" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_files_to_run_it_with_name_settings_that_exist() -> None:
    compose, unit = yaml.safe_load((DOCS / "compose.yaml").read_text()), (DOCS / "copydesk.service").read_text()
    service = compose["services"]["copydesk"]
    named = {*service["environment"], *re.findall(r"(COPYDESK_\w+)=", unit)}
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    assert "\nEnvironment=" in unit
    assert " COPYDESK_HOME=" not in re.sub("#.*", "", unit), "a command in a shell would work on another desk"
    used = {config["source"] for each in compose["services"].values() for config in each.get("configs", [])}
    assert used == set(compose["configs"])
    scraped = yaml.safe_load(compose["configs"]["prometheus"]["content"])
    port = service["environment"]["COPYDESK_METRICS_PORT"]
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == [f"127.0.0.1:{port}"]
    assert all(port not in publish for publish in service["ports"]), "figures stay inside"
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".env" in ignored, "tokens never become part of an image"
