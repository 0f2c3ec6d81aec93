"""What several tests stand on: a real store on disk, settings of their own, the embedded model."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving.exchange import starter_pairs
from serving.model import base_model_path
from serving.settings import Settings
from serving.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parent.parent
REAL = ("engine", "socket", "browser")  # the parts that a test may use as they are
_passed_with = Counter[str]()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _passed_with.update(part for part in REAL if part in report.keywords)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = ", ".join(f"{part} {_passed_with[part]}" for part in REAL)
    terminalreporter.write_line(f"Passed with real parts: {counts}")


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


@pytest.fixture(scope="session")
def tiny_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import save_tiny  # torch takes seconds to load, and most tests do not need it

    path = tmp_path_factory.mktemp("tiny")
    save_tiny(base_model, path)
    return path


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    from trainer.lora import load_tokenizer

    return load_tokenizer(str(tiny_model))


@pytest.fixture
def desk(settings: Settings, tiny_model: Path) -> Settings:
    """Settings whose base is the tiny model."""
    return settings.model_copy(update={"copydesk_model": str(tiny_model)})


@pytest.fixture
def filled(store: Store) -> Store:
    store.add_pairs(starter_pairs("en")[:24])
    return store


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: the kernel refuses the write, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The tiny model is too small to share."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
