"""A version as a folder for other people: ready for the Hub as an adapter, or merged into the base as a whole model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.judge_answers import seen
from serving.model import base_model_path
from serving.records import CopydeskError, Version
from serving.registry import verify
from serving.settings import Settings
from serving.store import Store
from trainer.base import Base, describe
from trainer.card import card
from trainer.hygiene import counts
from trainer.recipe import Recipe

KEPT = ("loss.png", "recipe.json")
LEFT = ("round.json", "README.md")  # what left-out pairs say stays at home; the card is written anew, with the scores


def export(settings: Settings, store: Store, name: str, target: Path, *, merged: bool = False) -> None:
    """Write version `name` to `target`, which appears whole or not at all.

    Args:
        merged: the base's weights with the adapter in them, in bf16, for programs that know no adapters.

    Raises:
        CopydeskError: there is no such version, its files changed, it belongs to another base, `target` holds files
            already, or the disk is too small.
    """
    version = store.version(name)
    verify(version)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise CopydeskError(f"{target} is there already; name a folder that does not exist.")
    if version.base_model != settings.copydesk_model:
        raise CopydeskError(
            f"{name} was trained on {version.base_model}; export it with COPYDESK_MODEL={version.base_model}."
        )
    working = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if merged:
            _merge(version, base_model_path(settings), working)
        else:
            _copy(version, describe(base_model_path(settings)).name, working)
        text = card_of(store, version, describe(base_model_path(settings)), merged=merged)
        (working / "README.md").write_text(text, encoding="utf-8")
        if target.is_dir():
            target.rmdir()
        working.rename(target)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise CopydeskError(f"{target} cannot be written ({why}); choose another place.") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def card_of(store: Store, version: Version, base: Base, *, merged: bool = False) -> str:
    """The card with the newest scorecard's figures, and its verdict as people left it."""
    round, pairs = store.round(version.round_id), store.round_pairs(version.round_id)
    # Rounds of the first release did not note these.
    earlier = {
        "base": {"name": base.name, "revision": base.revision, "license": base.license},
        "languages": sorted({pair.task.language for pair in pairs}),
        "categories": counts(pairs),
    }
    scorecards = store.scorecards(version.name)
    scores = seen(store, scorecards[0]) if scorecards else None
    recipe = Recipe.from_mapping(round.recipe)
    return card(round, recipe, earlier | round.facts, version.digest, scores, merged=merged)


def _copy(version: Version, base: str, working: Path) -> None:
    shutil.copytree(version.path, working, ignore=shutil.ignore_patterns(*LEFT))
    # Here the adapter names its base by a directory of this machine; elsewhere the name on the hub finds it.
    config_file = working / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _merge(version: Version, base: str, working: Path) -> None:
    directory = Path(base)
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors")) if directory.is_dir() else 0
    free = shutil.disk_usage(working.parent).free
    if free < 1.1 * size:
        raise CopydeskError(f"The merged model needs {size / 1e9:.1f} GB of free disk; {free >> 20} MB are free.")
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        merged = cast(Any, PeftModel.from_pretrained(model, version.path)).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise CopydeskError(f"{version.name} does not fit the base model {base}: {line}") from error
    merged.save_pretrained(working)
    AutoTokenizer.from_pretrained(version.path).save_pretrained(working)
    for name in KEPT:
        shutil.copyfile(Path(version.path) / name, working / name)
