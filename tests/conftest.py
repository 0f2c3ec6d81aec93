"""What several tests stand on: a real store on disk, settings of their own, the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.model import base_model_path
from serving.settings import Settings
from serving.store import Store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, copydesk_home=tmp_path, copydesk_leads=("U_MARA",), copydesk_channel="C_COPY")


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.database)


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The embedded model, unpacked once into var/ where the product keeps it."""
    return Path(base_model_path(Settings(_env_file=None, copydesk_home=ROOT / "var")))
