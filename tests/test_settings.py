"""Settings come from the environment once, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from serving.engine import environment
from serving.records import CopydeskError
from serving.settings import MAX_SOCKET_PATH, Settings, read_settings


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_leads_are_listed_with_commas_or_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPYDESK_LEADS", "U1, U2 U3")
    assert read_settings().copydesk_leads == ("U1", "U2", "U3")


def test_a_dotenv_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("COPYDESK_CHANNEL=C1\nCOPYDESK_MODEL=from-file\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("COPYDESK_MODEL", "from-environment")
    settings = read_settings()
    assert (settings.copydesk_channel, settings.copydesk_model) == ("C1", "from-environment")


def test_a_dotenv_that_is_no_text_is_one_clear_message() -> None:
    Path(".env").write_bytes(b"\xff\xfe\x00COPYDESK")
    with pytest.raises(CopydeskError, match=r"\.env"):
        read_settings()


def test_the_engine_is_behind_a_socket_unless_somebody_else_runs_it(tmp_path: Path) -> None:
    ours = Settings(_env_file=None, copydesk_home=tmp_path)
    assert ours.endpoint == f"unix://{tmp_path}/engine/engine.sock"
    assert Settings(_env_file=None, copydesk_endpoint="http://gpu:8000").endpoint == "http://gpu:8000"


def test_a_deep_folder_still_gets_a_socket_that_the_kernel_takes(tmp_path: Path) -> None:
    deep = Settings(_env_file=None, copydesk_home=tmp_path / ("d" * 120))
    assert len(f"{deep.engine_socket.parent}/{uuid4()}") <= MAX_SOCKET_PATH


def test_the_engine_asks_the_hub_for_names_alone(tmp_path: Path) -> None:
    assert environment(str(tmp_path), tmp_path / "s")["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment("Qwen/Qwen3-0.6B", tmp_path / "s")
