"""The command as a person runs it: one line says what went wrong, and JSON is JSON."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.test_utils import unused_port
from filelock import FileLock
from openai_double import Answer, EngineDouble

from serving.jobs import Jobs
from serving.life import Life
from serving.prompt import task_of
from serving.records import Decision, PairSource, Requirements, Version
from serving.registry import ADAPTER_FILES, Registry, digest_of
from serving.settings import EMBEDDED_MODEL
from serving.store import BASE, NewPair, Store

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def copydesk(tmp_path: Path) -> Command:
    """Run the command in a folder of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COPYDESK", "SLACK"))}
        environment = {**kept, "COPYDESK_HOME": str(tmp_path), "COLUMNS": "200"}
        command = [sys.executable, "-m", "bot.cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "copydesk.db")


def pair(number: int) -> NewPair:
    return NewPair(task_of(Requirements(product=f"Lamp {number}"), "en"), f"Lamp {number} glows.", PairSource.IMPORT)


def test_a_missing_token_is_named_with_the_next_step(copydesk: Command) -> None:
    done = copydesk("up")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "SLACK_BOT_TOKEN and SLACK_APP_TOKEN missing" in done.stderr
    assert "copydesk demo" in done.stderr


def test_a_second_demo_leaves_the_first_alone(copydesk: Command, tmp_path: Path) -> None:
    kept = tmp_path / "demo" / "copydesk.db"
    kept.parent.mkdir()
    kept.write_text("of the first")
    (tmp_path / "models" / EMBEDDED_MODEL).mkdir(parents=True)
    with FileLock(tmp_path / "demo.lock"):
        done = copydesk("demo", "--exit", "--port", "0")
    assert (done.returncode, done.stderr) == (1, "A demo is up already; end it with Ctrl-C.\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = copydesk("demo", "--exit", "--port", str(port))
    assert (done.returncode, done.stderr) == (1, f"Port {port} is taken; --port 0 takes any free one.\n")
    assert kept.read_text() == "of the first"


def test_with_a_cluster_a_round_goes_there(copydesk: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"COPYDESK_RAY_ADDRESS=127.0.0.1:{unused_port()}\n")
    done = copydesk("round", "run")
    assert done.returncode == 1
    assert re.match("No Ray cluster answers|Ray is not installed", done.stderr)


def test_pairs_go_out_and_come_back(copydesk: Command, store: Store, tmp_path: Path) -> None:
    store.add_pairs(pair(number) for number in range(3))
    for name in ("pairs.csv", "pairs.jsonl", "pairs.json"):
        assert copydesk("pairs", "export", str(tmp_path / name)).returncode == 0
        back = json.loads(copydesk("pairs", "import", str(tmp_path / name), "--json").stdout)
        assert back == {"added": 0, "duplicates": 3, "problems": []}
    (tmp_path / "pairs.jsonl").rename(tmp_path / "pairs.txt")
    assert "add --format" in copydesk("pairs", "import", str(tmp_path / "pairs.txt")).stderr
    again = copydesk("pairs", "import", str(tmp_path / "pairs.txt"), "--format", "jsonl", "--json")
    assert json.loads(again.stdout)["duplicates"] == 3
    listed = json.loads(copydesk("pairs", "list", "--json").stdout)
    assert [row["output"] for row in listed] == ["Lamp 2 glows.", "Lamp 1 glows.", "Lamp 0 glows."]


def test_rows_that_cannot_be_used_are_named_and_the_others_are_kept(copydesk: Command, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("instruction,input,output\nWrite about a lamp.,,It glows.\nWrite about a mug.,,\n")
    done = copydesk("pairs", "import", str(path))
    assert (done.returncode, "1 added" in done.stdout, "1 left out" in done.stdout) == (0, True, True)
    assert "3" in done.stderr, "the line of the file"


def test_a_table_without_the_columns_is_refused_whole(copydesk: Command, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("question,answer\nWhy?,Because.\n")
    done = copydesk("pairs", "import", str(path))
    assert "instruction" in done.stderr + done.stdout
    assert store.pairs() == []


def test_square_brackets_and_colons_in_a_pair_are_shown_as_they_are(copydesk: Command, store: Store) -> None:
    store.add_pairs([NewPair(task_of(Requirements(product="[name] lamp"), "en"), ":cat: [/url]", PairSource.IMPORT)])
    for command in (("list",), ("show", "1")):
        done = copydesk("pairs", *command)
        assert (done.returncode, "[name] lamp" in done.stdout, ":cat: [/url]" in done.stdout) == (0, True, True)


def test_a_file_that_is_not_there_is_one_line(copydesk: Command) -> None:
    done = copydesk("pairs", "import", "nowhere.csv")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nowhere.csv" in done.stderr


def test_versions_are_listed_with_what_became_of_them(copydesk: Command, store: Store) -> None:
    assert json.loads(copydesk("version", "list", "--json").stdout) == {"live": "base", "versions": []}
    trained = store.start_round({"name": "default"}, [], "digest")
    store.finish_round(trained.id, {"loss": 1.5}, path="/gone", digest="d", base_model="b")
    store.decide("copy-0001", Decision.REJECTED, digest="d", user="U_MARA")
    listed = json.loads(copydesk("version", "list", "--json").stdout)
    assert [(v["name"], v["state"]) for v in listed["versions"]] == [("copy-0001", "rejected")]
    shown = json.loads(copydesk("version", "show", "copy-0001", "--json").stdout)
    assert "run the round again" in shown["files"]
    assert json.loads(copydesk("round", "show", "1", "--json").stdout)["facts"] == {"loss": 1.5}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("version", "promote", "copy-0009"), "There is no version copy-0009"),
        (("version", "rollback"), "nothing to roll back to"),
        (("round", "show", "7"), "Round 7 is not there"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_does_not_exist_is_one_clear_line(copydesk: Command, arguments: tuple[str, ...], problem: str) -> None:
    done = copydesk(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert problem in done.stderr


@pytest.mark.parametrize("arguments", [("version", "list"), ("trace", "1"), ("pairs", "list"), ("version", "rollback")])
def test_a_folder_without_a_desk_is_not_taken_for_an_empty_one(
    copydesk: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = copydesk(*arguments)
    told = f"There is no desk in {tmp_path}; set COPYDESK_HOME, or begin with copydesk up\n"
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (1, told, [])


def test_settings_of_somebody_else_are_one_clear_line(copydesk: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to("/proc/self/mem")  # refuses even root
    done = copydesk("version", "list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.match(r"The file \.env cannot be read .*run this as its owner", done.stderr)


def made(store: Store, home: Path) -> Version:
    round = store.start_round({"name": "default"}, [], "digest")
    directory = home / "adapters" / round.version
    directory.mkdir(parents=True)
    for name in ADAPTER_FILES:
        (directory / name).write_text(name)
    return store.finish_round(round.id, {}, path=str(directory), digest=digest_of(directory), base_model="b")


def test_a_version_that_no_engine_tried_is_not_promoted_without_one(
    copydesk: Command, store: Store, tmp_path: Path
) -> None:
    version = made(store, tmp_path)
    (tmp_path / ".env").write_text("COPYDESK_ENDPOINT=http://127.0.0.1:9\n")
    done = copydesk("version", "promote", version.name)
    assert (done.returncode, done.stderr.count("\n"), store.live()) == (1, 1, BASE)
    assert "No engine has tried copy-0001 yet, so it cannot go live. Start the engine" in done.stderr
    Life(store).record_load(version.name)
    assert copydesk("version", "promote", version.name).stdout == "copy-0001 is live; before it was base.\n"


async def test_the_engine_tries_a_version_before_it_is_promoted(
    copydesk: Command, store: Store, tmp_path: Path
) -> None:
    version = made(store, tmp_path)
    asked_what_it_can_do = Answer()
    async with EngineDouble(answers=[asked_what_it_can_do, Answer(status=400)]) as engine:
        (tmp_path / ".env").write_text(f"COPYDESK_ENDPOINT={engine.url}\n")
        refused = await asyncio.to_thread(copydesk, "version", "promote", version.name)
        assert (refused.returncode, store.live()) == (1, BASE)
        assert "refused the request" in refused.stderr
        assert "refused the request" in (Life(store).last_failure(version.name) or "")
        done = await asyncio.to_thread(copydesk, "version", "promote", version.name)
        assert (done.returncode, store.live()) == (0, version.name)
    assert Life(store).last_failure(version.name) == ""


def test_the_base_is_returned_to_where_the_version_before_fails(
    copydesk: Command, store: Store, tmp_path: Path
) -> None:
    first, second = made(store, tmp_path), made(store, tmp_path)
    for version in (first, second):
        Registry(store, ()).approve(version.name, user="cli")
    Life(store).record_load(first.name, "no memory")
    assert "copydesk version rollback --base" in copydesk("version", "rollback").stderr
    assert store.live() == second.name
    assert copydesk("version", "rollback", "--base").returncode == 0
    assert store.live() == BASE


def test_a_round_under_way_is_seen_and_cancelled(copydesk: Command, store: Store) -> None:
    store.add_pairs([pair(1), pair(2)])
    jobs = Jobs(store)
    round = store.start_round({"name": "default"}, [1], "digest")
    jobs.exclude(round.id, [(2, "the same as pair 1")])
    jobs.begin(round.id, "fingerprint")
    jobs.report(round.id, 5, 20, 300.0)
    assert "step 5 of 20, 0:05:00 left" in copydesk("round", "list").stdout
    assert json.loads(copydesk("round", "list", "--json").stdout)[0]["job"]["step"] == 5
    assert copydesk("round", "cancel").stdout == "copy-0001 stops after its current step.\n"
    assert jobs.report(round.id, 6, 20, 280.0) == "cli"
    store.fail_round(round.id, "cancelled by cli")
    assert "nothing to cancel" in copydesk("round", "cancel").stderr
    left_out = json.loads(copydesk("pairs", "show", "2", "--json").stdout)["left_out"]
    assert left_out == [{"round_id": 1, "pair_id": 2, "reason": "the same as pair 1"}]


def test_the_doctor_says_what_is_missing(copydesk: Command) -> None:
    done = copydesk("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert findings["database"]["ok"]
    assert "SLACK_BOT_TOKEN" in findings["Slack"]["found"]
    assert "COPYDESK_LEADS" in findings["leads"]["next_step"]
    assert findings["rounds"]["found"].startswith("a round and the engine run together")
