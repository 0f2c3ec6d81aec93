"""Engines on several machines, on Ray: Serve passes each request to one of them; a round runs where there is room.
Run: python -m serving.cluster run, with the options of python -m trainer run

COPYDESK_RAY_ADDRESS names the cluster. Every machine has Copydesk installed and sees the adapters and models of
COPYDESK_HOME at the same path. The desk speaks to Serve's proxy as it speaks to any engine; the replicas agree among
themselves, over the roster, on the versions that each of them must know.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from serving.client import EngineUnavailable, ModelClient
from serving.endpoint import endpoint_key
from serving.engine import arguments, environment, reason_of
from serving.lock import alone, only_round
from serving.model import base_model_path
from serving.records import CopydeskError, RoundState
from serving.settings import Settings, read_settings
from serving.store import BASE, Store

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

APP, ROSTER, NAMESPACE = "copydesk", "copydesk-roster", "copydesk"
CONNECT_S = 5.0
PROXY_S = 60.0
SYNC_S = 0.3
GONE_S = 10.0  # a replica that was silent for so long is not waited for
LOAD_S = 120.0  # for all replicas to load an adapter
ROOM_S = 10.0  # for what just ended to leave its room to a round
AT_ONCE = 256  # requests in one replica; vLLM queues what it cannot batch


@dataclass(frozen=True)
class Fleet:
    """The engines of a desk: what each of them serves, and how many there are.

    Attributes:
        model, adapters: as every machine sees them.
        gpus: of one replica; without any, there is one replica a machine.
        command: the engine's command line, "{socket}" standing for its Unix socket; () is vLLM.
    """

    model: str
    adapters: str
    replicas: int
    gpus: int
    key: str = field(repr=False)
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """A version that is wanted; ordered again, after a refusal, it has a new number."""

    path: str
    number: int


@dataclass(frozen=True)
class Refusal:
    order: int
    why: str


@dataclass(frozen=True)
class Member:
    """What a replica said last, and when: name → path of what it knows, and why it could not load the rest."""

    seen: float
    known: dict[str, str]
    refused: dict[str, Refusal]


class Roster:
    """Which versions every replica must know, and what each says about them. An actor; its calls come one by one.

    It keeps nothing on disk: after a fall it learns from the replicas what they know.
    """

    def __init__(self) -> None:
        self.fleet: Fleet | None = None
        self._orders = 0
        self._wanted: dict[str, Order] = {}
        self._retired: set[str] = set()
        self._members: dict[str, Member] = {}

    def get_fleet(self) -> Fleet | None:
        return self.fleet

    def set_fleet(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def want(self, name: str, path: str) -> None:
        self._retired.discard(name)
        self._orders += 1
        self._wanted[name] = Order(path, self._orders)

    def retire(self, name: str) -> None:
        self._retired.add(name)
        self._wanted.pop(name, None)

    def sync(self, replica: str, known: dict[str, str], refused: dict[str, Refusal]) -> dict[str, Order]:
        """A replica says what it knows and what it could not load; it is told what is wanted, by name."""
        self._members[replica] = Member(time.monotonic(), known, refused)
        for name, path in known.items():
            if name not in self._retired:
                self._wanted.setdefault(name, Order(path, 0))
        return self._wanted

    def standing(self, name: str) -> tuple[list[bool], list[str]]:
        """Whether each living replica knows a version, and why those that refused it did."""
        members, order = self._living(), self._wanted.get(name)
        if order is None:
            return [], [f"{name} was refused or retired meanwhile."]
        refusals = [member.refused[name] for member in members if name in member.refused]
        return [name in member.known for member in members], [r.why for r in refusals if r.order == order.number]

    def known_to_all(self) -> list[str]:
        members = self._living()
        return [name for name in self._wanted if members and all(name in member.known for member in members)]

    def _living(self) -> list[Member]:
        now = time.monotonic()
        return [member for member in self._members.values() if now - member.seen < GONE_S]


class Replica:
    """One engine on its machine, behind Serve: requests pass to its private socket, answers stream back."""

    async def __init__(self, fleet: Fleet) -> None:  # type: ignore[misc]  # Serve awaits it
        import ray

        self._fleet = fleet
        self._roster = ray.get_actor(ROSTER, namespace=NAMESPACE)
        context = ray.get_runtime_context()
        self._name = context.get_actor_id()
        cores = next(n["Resources"].get("CPU", 1) for n in ray.nodes() if n["NodeID"] == context.get_node_id())
        self._home = Path(tempfile.mkdtemp(prefix="copydesk-"))  # 0700: nobody else on the machine reaches the socket
        path = self._home / "engine.sock"
        self._engine = self._start(path, int(cores))
        self._client = ModelClient(f"unix://{path}")
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        limits = httpx2.Limits(max_connections=None)
        self._http = httpx2.AsyncClient(transport=transport, base_url="http://engine", timeout=None, limits=limits)
        self._known: dict[str, str] = {}
        self._refused: dict[str, Refusal] = {}
        while not await self._client.healthy():
            if self._engine.poll() is not None:
                raise RuntimeError(f"The engine did not start: {reason_of(self._home / 'engine.log')}")
            await asyncio.sleep(SYNC_S)
        await self._sync()  # before the first request: a replica that comes late knows what the others know
        self._loop = asyncio.create_task(self._keep())

    def _start(self, path: Path, cores: int) -> subprocess.Popen[bytes]:
        vllm = [sys.executable, "-m", "serving.vllm_server", str(os.getpid()), *arguments(self._fleet.model, path)]
        command = [word.replace("{socket}", str(path)) for word in self._fleet.command] or vllm
        variables = {**os.environ, **environment(self._fleet.model, path), "OMP_NUM_THREADS": str(max(1, cores))}
        with (self._home / "engine.log").open("wb") as output:
            return subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    async def _keep(self) -> None:
        """Follow the roster. A replica whose engine is gone ends at once, so that Serve sends nobody there."""
        while self._engine.poll() is None:
            await asyncio.sleep(SYNC_S)
            await self._sync()
        print(f"The engine ended: {reason_of(self._home / 'engine.log')}", file=sys.stderr, flush=True)
        shutil.rmtree(self._home, ignore_errors=True)
        os._exit(1)

    async def _sync(self) -> None:
        import ray

        try:
            wanted = await self._roster.sync.remote(self._name, self._known, self._refused)
        except ray.exceptions.RayError:
            return  # it is starting again; what is known stays known
        for name, order in wanted.items():
            if name not in self._known and self._refused.get(name, Refusal(-1, "")).order != order.number:
                await self._load(name, order)
        for name in [name for name in self._known if name not in wanted]:
            await self._client.unload(name)
            del self._known[name]

    async def _load(self, name: str, order: Order) -> None:
        try:
            await self._client.load(name, order.path)
            self._known[name] = order.path
        except EngineUnavailable:
            return  # the next round of the loop tries again, or finds the engine gone
        except CopydeskError as error:
            self._refused[name] = Refusal(order.number, f"{os.uname().nodename}: {error}")

    def check_health(self) -> None:
        if self._loop.done():
            raise RuntimeError("Nobody keeps this replica in step with the others.")

    def __del__(self) -> None:
        """Serve takes the replica down in order; however else it goes, the kernel ends the engine with it."""
        self._engine.terminate()
        shutil.rmtree(self._home, ignore_errors=True)

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import JSONResponse, Response

        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(sent.encode(), self._fleet.key.encode()):
            return _error(401, "Incorrect API key")
        match request.method, request.url.path:
            case "GET", "/health":
                return Response(status_code=200 if await self._client.healthy() else 503)
            case "GET", "/v1/models":
                names = [BASE, *await self._roster.known_to_all.remote()]
                return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
            case "POST", "/v1/load_lora_adapter":
                return await self._load_everywhere(json.loads(await request.body()))
            case "POST", "/v1/unload_lora_adapter":
                await self._roster.retire.remote(json.loads(await request.body())["lora_name"])
                return Response("retired")
            case "POST", "/v1/chat/completions":
                return await self._pass_on(request)
        return _error(404, "There is no such route.")

    async def _load_everywhere(self, order: dict[str, str]) -> Response:
        """Answer when every living replica knows the version, or one refused it."""
        from starlette.responses import Response

        name, path = order.get("lora_name", ""), Path(order.get("lora_path", ""))
        if path.parent != Path(self._fleet.adapters) or path.name != name:
            return _error(400, f"{path} is not a version under {self._fleet.adapters}.")
        await self._roster.want.remote(name, str(path))
        deadline = time.monotonic() + LOAD_S
        while time.monotonic() < deadline:
            knows, refusals = await self._roster.standing.remote(name)
            if refusals:
                await self._roster.retire.remote(name)
                return _error(400, "; ".join(refusals))
            if knows and all(knows):
                return Response("loaded")
            await asyncio.sleep(SYNC_S / 3)
        return _error(503, f"{knows.count(False)} of {len(knows)} replicas did not load {name} in {LOAD_S:.0f} s.")

    async def _pass_on(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        body = await request.body()
        order = self._http.build_request(
            "POST", request.url.path, content=body, headers={"Content-Type": "application/json"}
        )
        try:
            answer = await self._http.send(order, stream=True)
        except httpx2.HTTPError as error:
            return _error(503, f"The engine of this replica does not answer ({type(error).__name__}).")
        return StreamingResponse(_chunks(answer), answer.status_code, media_type=answer.headers.get("content-type"))


async def _chunks(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The engine's bytes as they come; who asked and went away ends the engine's work too."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _error(status: int, message: str) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"message": message}}, status_code=status)


@contextmanager
def joined(settings: Settings) -> Iterator[Any]:
    """The ray module, as a member of the cluster.

    Raises:
        CopydeskError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise CopydeskError("Ray is not installed; run: make install") from error
    host, _, port = settings.copydesk_ray_address.rpartition(":")
    try:
        # Ray itself waits for minutes, and then ends the process.
        socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(settings.copydesk_ray_address, namespace=NAMESPACE, log_to_driver=False, ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CopydeskError(
            f"No Ray cluster answers at {settings.copydesk_ray_address}; start it (ray start --head --port=6379) "
            "and run the desk on that machine."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def deploy(settings: Settings, command: tuple[str, ...] = ()) -> Fleet:
    """Start the engines, or find them running. They outlive the desk: it comes back to them, or another one does.

    Args:
        command: see Fleet.

    Raises:
        CopydeskError: no cluster, no room on it, or an engine that does not start.
    """
    with joined(settings) as ray:
        fleet = _deployed(ray, settings, command)
    deadline = time.monotonic() + PROXY_S
    while not asyncio.run(_proxy_answers(settings)):
        if time.monotonic() > deadline:
            raise CopydeskError(
                f"The engines run, but nothing answers at {settings.endpoint}; Serve was started here before, "
                "on another port: set COPYDESK_RAY_PORT to that."
            )
        time.sleep(SYNC_S)
    return fleet


async def _proxy_answers(settings: Settings) -> bool:
    async with ModelClient.of(settings) as client:
        return await client.healthy()


def _deployed(ray: Any, settings: Settings, command: tuple[str, ...]) -> Fleet:
    from ray import serve

    model = BASE if command else base_model_path(settings)
    fleet = _fleet(ray, settings, model, command)
    with suppress(ray.exceptions.RayError):  # on a busy machine the proxy misses its deadline, and is started again
        serve.start(http_options={"host": "127.0.0.1", "port": settings.copydesk_ray_port})
    roster = (
        ray.remote(Roster)
        .options(name=ROSTER, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_restarts=-1, num_cpus=0)
        .remote()
    )
    status = serve.status().applications.get(APP)
    if status is not None and status.status == "RUNNING" and ray.get(roster.get_fleet.remote()) == fleet:
        return fleet
    options: dict[str, Any] = {"num_gpus": fleet.gpus} if fleet.gpus else {"num_cpus": 1}
    replicas = serve.deployment(
        name="engine",
        num_replicas=fleet.replicas,
        max_ongoing_requests=AT_ONCE,
        ray_actor_options=options,
        max_replicas_per_node=None if fleet.gpus else 1,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=60,
    )(Replica)
    try:
        serve.run(replicas.bind(fleet), name=APP, route_prefix="/")
    except RuntimeError as error:
        reason = _reason(serve)
        serve.delete(APP)
        raise CopydeskError(f"The engines did not start: {reason}") from error
    ray.get(roster.set_fleet.remote(fleet))
    return fleet


def _reason(serve: Any) -> str:
    """The line that a replica ended with; Serve wraps it in tracebacks."""
    application = serve.status().applications[APP]
    text = "\n".join([application.message, *(engine.message for engine in application.deployments.values())])
    found = re.findall(r"The engine did not start: ([^\n\\]+)", text)
    return found[-1] if found else text[-300:]


def _fleet(ray: Any, settings: Settings, model: str, command: tuple[str, ...]) -> Fleet:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    room = gpus or len(nodes)
    replicas = settings.copydesk_ray_replicas or room
    if replicas > room:
        what = "GPUs" if gpus else "machines"
        raise CopydeskError(f"The cluster has {room} {what}; set COPYDESK_RAY_REPLICAS to {room} or less.")
    adapters = settings.adapters.resolve()
    adapters.mkdir(parents=True, exist_ok=True)
    return Fleet(model, str(adapters), replicas, 1 if gpus else 0, endpoint_key(settings), command)


# Rounds

COPY = ".round-"  # how the name of a round's copy of COPYDESK_HOME begins
ROUND_TABLES = {"rounds": "id"} | dict.fromkeys(
    ("round_pairs", "round_exclusions", "round_drafts", "round_jobs", "versions"), "round_id"
)


def run_round(settings: Settings, options: list[str]) -> int:
    """`python -m trainer run` on a machine with room, over a copy of the database; what it made comes into the desk's.

    SQLite does not work over a network, the shared adapters do. If the machine dies, another goes on.

    Args:
        options: of python -m trainer run.

    Returns:
        The trainer's exit status; its output goes to ours.

    Raises:
        CopydeskError: another round runs, or there is no cluster, or no room on it, or it lost the round.
    """
    with alone(settings.copydesk_home / "round.lock", "A round runs on the cluster already; wait for it to end."):
        store = Store(settings.database)
        _recover(settings, store)
        last = _last(store)
        # A round that was killed is taken up again, so it is among those that change.
        first = min((round.id for round in store.rounds() if round.state is RoundState.RUNNING), default=last + 1)
        home = Path(tempfile.mkdtemp(prefix=COPY, dir=settings.copydesk_home.resolve()))
        trained = False  # and not taken over: the copy is for `_recover`
        try:
            _copy_home(settings, home)
            with joined(settings) as ray:
                try:
                    status, output = _trained(ray, settings, home, options)
                except ray.exceptions.RayError as error:
                    trained = True
                    raise CopydeskError(
                        f"The cluster lost the round ({error.__class__.__name__}); when it is well (ray status), "
                        "copydesk round run goes on with it."
                    ) from error
            print(output, end="", flush=True)
            if _last(store) > last:
                raise CopydeskError("Another round began here meanwhile; this one is not taken over. Run it again.")
            trained = True
            _take_over(Store(home / settings.database.name), store, first)
            trained = False
        finally:
            if not trained:
                shutil.rmtree(home)
    return status


def _last(store: Store) -> int:
    return max((round.id for round in store.rounds()), default=0)


def _recover(settings: Settings, store: Store) -> None:
    """Take over what a `run_round` that was killed left in its copy, so that the next round goes on with it.

    Its trainer ends with it. Should one train on nevertheless, it has the lock, and its copy stays.
    """
    with only_round(settings.adapters.resolve()):
        for home in settings.copydesk_home.glob(f"{COPY}*"):
            _take_over(Store(home / settings.database.name), store, _last(store) + 1)
            shutil.rmtree(home)


def _copy_home(settings: Settings, home: Path) -> None:
    for shared in (settings.adapters, settings.models):
        shared.mkdir(parents=True, exist_ok=True)
        (home / shared.name).symlink_to(shared.resolve())
    with (
        closing(sqlite3.connect(settings.database)) as source,
        closing(sqlite3.connect(home / settings.database.name)) as target,
    ):
        source.backup(target)


def _trained(ray: Any, settings: Settings, home: Path, options: list[str]) -> tuple[int, str]:
    """`_train` on a machine that has room for all its processes."""
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    processes = settings.copydesk_ray_round_processes
    what = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
    # A bundle lies on one machine. A task alone would wait without a word for room that never comes.
    room = placement_group([{what: processes}])
    if not room.wait(ROOM_S):
        raise CopydeskError(no_room(what, processes))
    resources = {"num_gpus": processes, "num_cpus": 0} if what == "GPU" else {"num_cpus": processes}
    strategy = PlacementGroupSchedulingStrategy(room)
    train = ray.remote(_train).options(**resources, max_retries=3, scheduling_strategy=strategy)
    variables = {"COPYDESK_MODEL": settings.copydesk_model, "COPYDESK_HOME": str(home), "COPYDESK_RAY_ADDRESS": ""}
    status, output = ray.get(train.remote(processes, options, variables))
    return int(status), str(output)


def no_room(what: str, count: int) -> str:
    """Args: what: "GPU" or "CPU"; count: that the round needs."""
    step = "wait for what runs there to end"
    if what == "GPU":
        step = f"set COPYDESK_RAY_REPLICAS to {count} less than there are GPUs and start the desk again"
    things = what if count == 1 else f"{what}s"
    return f"No machine of the cluster has {count} {things} free for the round; {step}, or add a machine."


def _train(processes: int, options: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """On the chosen machine."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    # Ray's own number of threads is for all of them together.
    threads = {"OMP_NUM_THREADS": "1"} if processes > 1 else {}
    done = subprocess.run(
        [sys.executable, "-m", *(launcher if processes > 1 else []), "trainer", "run", *options],
        env={**os.environ, **threads, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def _take_over(copy: Store, store: Store, first: int) -> None:
    """The rounds from `first` on as the copy has them, with all that hangs on them."""
    with store.transaction() as db:
        for table in ROUND_TABLES:
            key = "id" if table == "rounds" else "round_id"
            db.table(table).insert_all(copy.rows(f"SELECT * FROM {table} WHERE {key} >= ?", first), replace=True)


if __name__ == "__main__":
    try:
        sys.exit(run_round(read_settings(), sys.argv[2:]))
    except CopydeskError as error:
        sys.exit(str(error))
