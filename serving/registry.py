"""Versions: are their files what was registered, who may decide about them, which one is live."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from serving.life import Life
from serving.records import CopydeskError, Decision, Promotion, Version
from serving.store import BASE, Store

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# The linear layers that an adapter may change, by their names in the families that rounds train.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
TARGETS = ATTENTION + MLP
COMMIT = re.compile("[0-9a-f]{40}")


def digest_of(directory: Path) -> str:
    """sha256 over the names and bytes of the files that decide what an adapter does.

    Raises:
        CopydeskError: one of them is missing, or cannot be read.
    """
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        path = directory / name
        try:
            if not path.is_file():
                raise CopydeskError(
                    f"Adapter {directory.name} has no {name}; run the round again: copydesk round run",
                    code="file_missing",
                    version=directory.name,
                    file=name,
                )
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise CopydeskError(
                f"Adapter {directory.name}: {path} cannot be read ({error.strerror}); correct its owner and mode."
            ) from error
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


def base_of(model: str) -> tuple[str, str]:
    """A base's own name without what stands before it, and its commit where the path is one of the hub's cache."""
    parts = Path(model).parts
    for repository, folder, commit in zip(parts, parts[1:], parts[2:], strict=False):
        if repository.startswith("models--") and folder == "snapshots":
            return repository.rsplit("--", 1)[-1], commit
    return Path(model).name, ""


def check(version: Version, base_model: str, max_rank: int, revision: str = "") -> None:
    """Whether the engine can serve a version's files, before it is asked to.

    Args:
        base_model: the directory or name of the base that the engine serves.
        revision: of the base that the version was trained on, as its round recorded it; only a commit is compared.

    Raises:
        CopydeskError: other files than registered, another base, or a shape that vLLM refuses.
    """
    verify(version)
    try:
        config = json.loads((Path(version.path) / "adapter_config.json").read_text())
        rank, modules = int(config["r"]), set(config["target_modules"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CopydeskError(f"{version.name} is no LoRA adapter (its adapter_config.json cannot be read).") from error
    (trained, trained_at), (served, served_at) = base_of(version.base_model), base_of(base_model)
    trained_at = trained_at or (revision if COMMIT.fullmatch(revision) else "")
    if trained != served:
        raise CopydeskError(f"{version.name} was trained on {version.base_model}; {served} is served.")
    if trained_at and served_at and trained_at != served_at:
        raise CopydeskError(f"{version.name} was trained on {trained} at {trained_at}; {served_at} is served.")
    if rank > max_rank:
        raise CopydeskError(f"{version.name} has rank {rank}; this engine serves up to {max_rank}.")
    refused = [name for name in ("use_dora", "modules_to_save") if config.get(name)]
    if refused or config.get("bias", "none") != "none" or not modules or modules - set(TARGETS):
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
            raise CopydeskError(
                f"The scorecard is about other files than {name} has now; score it again first.",
                code="other_files_scored",
                version=name,
            )
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

    def roll_back(
        self, *, user: str, reason: str = "", expected_live: str | None = None, to_base: bool = False
    ) -> Promotion:
        """Return to what was live before the live version. The base model counts as the first one.

        Args:
            to_base: return to the base model, whatever was live before; it needs no files.

        Raises:
            CopydeskError: no right, nothing was live before, or what was cannot be served any more.
        """
        self.require_lead(user)
        live = expected_live or self.store.live()
        approved = next((p for p in self.store.promotions() if p.version == live and p.decision == "approved"), None)
        if approved is None:
            raise CopydeskError("The base model is live; there is nothing to roll back to.", code="nothing_before")
        previous = BASE if to_base else approved.previous
        digest = ""
        if previous != BASE:
            version = self.store.version(previous)
            verify(version)
            if failure := Life(self.store).last_failure(previous):
                raise CopydeskError(
                    f"{previous}, which was live before, cannot be served: {failure} "
                    "Return to the base model: copydesk version rollback --base",
                    code="previous_not_served",
                    version=previous,
                    failure=failure,
                )
            digest = version.digest
        return self.store.decide(
            previous, Decision.ROLLED_BACK, digest=digest, user=user, reason=reason, expected_live=live
        )
