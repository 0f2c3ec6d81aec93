"""The base model as a version's papers name it: which one, at which revision, under which licence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, try_to_load_from_cache

from serving.model import GGUF
from serving.settings import EMBEDDED_MODEL

HEAD = (
    1 << 20
)  # bytes of each file of weights that its fingerprint reads: the tensors' names and shapes, and some values
EMBEDDED_SOURCE = f"HuggingFaceTB/{EMBEDDED_MODEL}"


@dataclass(frozen=True)
class Base:
    """Attributes:
    path: what transformers loads: a directory, or a name of the hub.
    name: as on the hub where it is known, else the directory's.
    revision: the hub's commit, or "files:" and a fingerprint of the directory's files.
    license: an identifier such as "apache-2.0", or "other" where the base does not say.
    """

    path: str
    name: str
    revision: str
    license: str


def describe(path: str) -> Base:
    """The base behind what `serving.model.base_model_path` returned."""
    cached = try_to_load_from_cache(path, "config.json") if path.count("/") == 1 and not Path(path).exists() else None
    directory = Path(cached).parent if isinstance(cached, str) else Path(path)
    if directory.parent.name == "snapshots":
        repository = directory.parent.parent.name.removeprefix("models--").replace("--", "/")
        return Base(path, repository, directory.name, _license(directory))
    if not directory.is_dir():
        return Base(path, path, "main", "other")
    if directory.name == EMBEDDED_MODEL and directory.parent.name == "models":
        # Its package carries the weights as one GGUF file, whose own card says Apache 2.0.
        return Base(path, EMBEDDED_SOURCE, f"{GGUF}, {_fingerprint(directory)}", "apache-2.0")
    return Base(path, directory.name, _fingerprint(directory), _license(directory))


def _fingerprint(directory: Path) -> str:
    """Over configuration and tokenizer whole, and size and head of each file of weights."""
    digest = hashlib.sha256()
    for path in sorted([*directory.glob("*.json"), *directory.glob("*.jinja"), *directory.glob("*.safetensors")]):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(HEAD) if path.suffix == ".safetensors" else file.read())
    return f"files:{digest.hexdigest()[:16]}"


def _license(directory: Path) -> str:
    card = directory / "README.md"
    if not card.is_file():
        return "other"
    found = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
    return found if isinstance(found, str) else "other"
