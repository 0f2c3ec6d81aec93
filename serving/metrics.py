"""The desk in figures, for Prometheus. They are read from the store when they are asked for: a restart forgets none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.jobs import Jobs
from serving.store import Store

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
PARTS = ("slack", "engine")


class Metrics:
    """Every figure of the desk.

    Args:
        restarts: how often the engine was started again.
    """

    def __init__(self, store: Store, restarts: Callable[[], int] = lambda: 0) -> None:
        self._store = store
        self._lock = Lock()
        self._seen = 0
        self.registry = CollectorRegistry()
        self._up = Gauge("copydesk_up", "1 while this part answers", ["part"], registry=self.registry)
        self._first, self._total, self._waited = (
            Histogram(f"copydesk_{name}_seconds", what, ["version"], buckets=SECONDS, registry=self.registry)
            for name, what in (
                ("first_token", "From the order to the engine to its first token"),
                ("generation", "From the order to the engine to the last token"),
                ("answer", "From the accepted request to the stored draft, the wait included"),
            )
        )
        self.registry.register(_Rows(store, restarts))

    def render(self, up: dict[str, bool]) -> bytes:
        """The page that Prometheus reads.

        Args:
            up: whether each of PARTS answers now.
        """
        with self._lock:  # two readers at once would count a draft twice
            for part, answers in up.items():
                self._up.labels(part).set(answers)
            self._observe_new_drafts()
            return generate_latest(self.registry)

    def _observe_new_drafts(self) -> None:
        rows = self._store.rows(
            "SELECT drafts.id, version, first_token_s, total_s, "
            "(julianday(drafts.created_at) - julianday(requests.created_at)) * 86400 AS answer_s "
            "FROM drafts JOIN requests ON requests.id = request_id WHERE drafts.id > ? ORDER BY drafts.id",
            self._seen,
        )
        for row in rows:
            if row["first_token_s"] is not None:
                self._first.labels(row["version"]).observe(row["first_token_s"])
            self._total.labels(row["version"]).observe(row["total_s"])
            self._waited.labels(row["version"]).observe(row["answer_s"])
            self._seen = row["id"]


class _Rows(Collector):
    """What is counted in the store at the moment of asking."""

    def __init__(self, store: Store, restarts: Callable[[], int]) -> None:
        self._store = store
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        states = {row["state"]: row["n"] for row in self._store.rows(_BY_STATE.format("requests"))}
        outcomes = CounterMetricFamily("copydesk_requests", "Requests by outcome", labels=["outcome"])
        for outcome in ("answered", "failed"):
            outcomes.add_metric([outcome], states.get(outcome, 0))
        yield outcomes
        waiting = states.get("waiting", 0) + states.get("written", 0)
        yield GaugeMetricFamily("copydesk_requests_waiting", "Requests whose answer nobody has seen whole", waiting)
        yield CounterMetricFamily("copydesk_engine_restarts", "Starts of the engine after a fall", self._restarts())
        live = GaugeMetricFamily("copydesk_live_version_info", "The version that writes new drafts", labels=["version"])
        live.add_metric([self._store.live()], 1)
        yield live
        yield from self._rounds()

    def _rounds(self) -> Iterator[Metric]:
        states = {row["state"]: row["n"] for row in self._store.rows(_BY_STATE.format("rounds"))}
        rounds = GaugeMetricFamily("copydesk_rounds", "Training rounds by state", labels=["state"])
        running = Jobs(self._store).running()
        under_way = 1 if running else 0
        # A row that says running outlives its process; an engine is away only for a process.
        states |= {"running": under_way, "interrupted": max(0, states.get("running", 0) - under_way)}
        for state in ("running", "interrupted", "done", "failed"):
            rounds.add_metric([state], states.get(state, 0))
        yield rounds
        progress = GaugeMetricFamily(
            "copydesk_round_progress_ratio", "0 to 1, of the running round", labels=["version"]
        )
        left = GaugeMetricFamily("copydesk_round_left_seconds", "Until the running round ends", labels=["version"])
        if running:
            round, job = running
            progress.add_metric([round.version], job.step / job.steps if job.steps else 0)
            if job.seconds_left is not None:
                left.add_metric([round.version], job.seconds_left)
        yield progress
        yield left


_BY_STATE = "SELECT state, count(*) AS n FROM {} GROUP BY state"
