"""Who may decide about versions, and about which files."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.records import CopydeskError, Version
from serving.registry import ADAPTER_FILES, Registry, digest_of, verify
from serving.settings import Settings
from serving.store import BASE, Store


@pytest.fixture
def registry(store: Store, settings: Settings) -> Registry:
    return Registry(store, settings.copydesk_leads)


def trained(store: Store, home: Path) -> Version:
    round = store.start_round({}, [], "d")
    directory = home / "adapters" / round.version
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(round.version.encode())
    return store.finish_round(
        round.id, {}, path=str(directory), digest=digest_of(directory), base_model="SmolLM2-135M-Instruct"
    )


def test_a_lead_approves_and_the_version_is_live(registry: Registry, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    promotion = registry.approve(version.name, user="U_MARA", reason="reads well")
    assert (store.live(), promotion.digest, promotion.previous) == (version.name, version.digest, BASE)


def test_who_is_not_a_lead_decides_nothing(registry: Registry, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    for act in (
        lambda: registry.approve(version.name, user="U_ANNA"),
        lambda: registry.reject(version.name, user="U_ANNA"),
        lambda: registry.roll_back(user="U_ANNA"),
    ):
        with pytest.raises(CopydeskError, match="Only a team lead"):
            act()
    assert store.promotions() == []


def test_files_that_were_changed_never_go_live(registry: Registry, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    (Path(version.path) / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(CopydeskError, match="not those that were trained"):
        registry.approve(version.name, user="U_MARA")
    assert store.live() == BASE


def test_files_that_are_gone_are_named(store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    (Path(version.path) / "adapter_config.json").unlink()
    with pytest.raises(CopydeskError, match=r"copy-0001 has no adapter_config\.json; run the round again"):
        verify(version)


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_a_file_that_cannot_be_read_is_named_with_the_next_step(store: Store, tmp_path: Path, name: str) -> None:
    version = trained(store, tmp_path)
    path = Path(version.path) / name
    path.unlink()
    path.symlink_to("/proc/self/mem")  # a file that refuses even root, who runs tests in containers
    with pytest.raises(CopydeskError, match=rf"copy-0001: {path} cannot be read \(.*correct its owner and mode"):
        verify(version)


def test_a_decision_is_bound_to_the_digest_that_was_scored(registry: Registry, store: Store, tmp_path: Path) -> None:
    version = trained(store, tmp_path)
    with pytest.raises(CopydeskError, match="score it again"):
        registry.approve(version.name, user="U_MARA", digest="another")


def test_a_desk_that_was_moved_finds_its_versions(registry: Registry, store: Store, tmp_path: Path) -> None:
    home, there = tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved")
    version = trained(store, home)
    home.rename(there)
    moved = Store(there / "copydesk.db")
    found = moved.version(version.name)
    assert found.path == str((there / "adapters" / version.name).resolve())
    assert moved.versions() == [found]
    verify(found)
    (Path(found.path) / "adapter_config.json").write_text("{ }")
    with pytest.raises(CopydeskError, match="not those that were trained"):
        verify(moved.version(version.name))


def test_rolling_back_walks_through_what_was_live(registry: Registry, store: Store, tmp_path: Path) -> None:
    first, second = trained(store, tmp_path), trained(store, tmp_path)
    registry.approve(first.name, user="U_MARA")
    registry.approve(second.name, user="U_MARA")
    assert registry.roll_back(user="U_MARA").version == first.name
    assert registry.roll_back(user="cli").version == BASE
    with pytest.raises(CopydeskError, match="nothing to roll back to"):
        registry.roll_back(user="cli")
    assert store.live() == BASE
