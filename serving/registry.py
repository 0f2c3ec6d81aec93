"""Versions: are their files what was registered, who may decide about them, which one is live."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from serving.life import Life
from serving.records import CopydeskError, Decision, Promotion, Version
from serving.store import BASE, Store

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def digest_of(directory: Path) -> str:
    """sha256 over the names and bytes of the files that decide what an adapter does.

    Raises:
        CopydeskError: one of them is missing.
    """
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        path = directory / name
        if not path.is_file():
            raise CopydeskError(f"Adapter {directory.name} has no {name}; run the round again: copydesk round run")
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def verify(version: Version) -> None:
    """Raises CopydeskError when the files are gone or are not those that were registered."""
    if digest_of(Path(version.path)) != version.digest:
        raise CopydeskError(
            f"The files of {version.name} are not those that were trained (their digest differs). "
            "It stays out of service; run the round again: copydesk round run",
            code="files_changed",
            version=version.name,
        )


def check(version: Version, base_model: str, max_rank: int) -> None:
    """Whether the engine can serve a version's files, before it is asked to.

    Args:
        base_model: the directory or name of the base that the engine serves.

    Raises:
        CopydeskError: other files than registered, another base, or a shape that vLLM refuses.
    """
    verify(version)
    try:
        config = json.loads((Path(version.path) / "adapter_config.json").read_text())
        rank, modules = int(config["r"]), config["target_modules"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CopydeskError(f"{version.name} is no LoRA adapter (its adapter_config.json cannot be read).") from error
    if Path(version.base_model).name not in base_model:  # a directory of the hub's cache has the name further up
        raise CopydeskError(f"{version.name} was trained on {version.base_model}; {Path(base_model).name} is served.")
    if rank > max_rank:
        raise CopydeskError(f"{version.name} has rank {rank}; this engine serves up to {max_rank}.")
    refused = [name for name in ("use_dora", "modules_to_save") if config.get(name)]
    if refused or config.get("bias", "none") != "none" or not modules:
        raise CopydeskError(f"{version.name} is no plain LoRA adapter; train it with a recipe of Copydesk's.")


class Registry:
    """Decisions about versions. Every way to decide (button, command) comes through here.

    Args:
        leads: the Slack user ids that may decide; the command line decides as "cli".
    """

    def __init__(self, store: Store, leads: tuple[str, ...]) -> None:
        self.store = store
        self.leads = leads

    def is_lead(self, user: str) -> bool:
        return user in self.leads or user == "cli"

    def require_lead(self, user: str) -> None:
        if not self.is_lead(user):
            raise CopydeskError(
                "Only a team lead can decide about versions. Leads are listed in COPYDESK_LEADS.",
                code="leads_only",
                leads=" ".join(f"<@{lead}>" for lead in self.leads),
            )

    def approve(
        self, name: str, *, user: str, reason: str = "", digest: str | None = None, expected_live: str | None = None
    ) -> Promotion:
        """Make a version live.

        Args:
            digest: what the scorecard that was read is bound to; None takes the registered one.
            expected_live: what was live when the lead began to decide; None does not check.

        Raises:
            CopydeskError: no right to decide, no such version, decided already, files that changed, or another version
                went live meanwhile.
        """
        self.require_lead(user)
        version = self.store.version(name)
        verify(version)
        if digest is not None and digest != version.digest:
            raise CopydeskError(f"The scorecard is about other files than {name} has now; score it again first.")
        if failure := Life(self.store).last_failure(name):
            raise CopydeskError(
                f"{name} cannot be served, so it cannot go live: {failure}",
                code="not_served",
                version=name,
                failure=failure,
            )
        return self.store.decide(
            name, Decision.APPROVED, digest=version.digest, user=user, reason=reason, expected_live=expected_live
        )

    def reject(self, name: str, *, user: str, reason: str = "") -> Promotion:
        self.require_lead(user)
        version = self.store.version(name)
        return self.store.decide(name, Decision.REJECTED, digest=version.digest, user=user, reason=reason)

    def roll_back(self, *, user: str, reason: str = "", expected_live: str | None = None) -> Promotion:
        """Return to what was live before the live version. The base model counts as the first one."""
        self.require_lead(user)
        live = expected_live or self.store.live()
        approved = next((p for p in self.store.promotions() if p.version == live and p.decision == "approved"), None)
        if approved is None:
            raise CopydeskError("The base model is live; there is nothing to roll back to.", code="nothing_before")
        previous = approved.previous
        digest = ""
        if previous != BASE:
            version = self.store.version(previous)
            verify(version)
            digest = version.digest
        return self.store.decide(
            previous, Decision.ROLLED_BACK, digest=digest, user=user, reason=reason, expected_live=live
        )
