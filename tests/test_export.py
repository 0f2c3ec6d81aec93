"""What comes out of a round for other people: the card, the folder for the Hub, the merged model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cards import example_card
from conftest import full_disk
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from tiny import EXACT
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.card import GRADES_NEEDED, Verdict
from serving.grades import Grades, Kind
from serving.prompt import task_of
from serving.records import CopydeskError, Requirements
from serving.settings import Settings
from serving.store import Store
from trainer.base import describe
from trainer.export import export
from trainer.rounds import run_round

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trained(desk: Settings, filled: Store) -> Settings:
    run_round(desk, filled, EXACT)
    return desk


def front_matter(path: Path) -> dict[str, Any]:
    card = ModelCard.load(path / "README.md")
    return card.data.to_dict()


def test_the_card_of_a_round_is_one_of_the_hub(trained: Settings, store: Store) -> None:
    path = Path(store.version("copy-0001").path)
    data = front_matter(path)
    assert data["base_model"] == Path(trained.copydesk_model).name
    assert (data["library_name"], data["pipeline_tag"], data["language"]) == ("peft", "text-generation", ["en"])
    assert data["tags"] == ["lora", "copydesk"]
    text = (path / "README.md").read_text()
    assert store.version("copy-0001").digest in text
    assert store.round(1).data_digest in text
    assert re.search(r"revision `files:[0-9a-f]{16}`", text)


def test_a_folder_for_the_hub_names_the_base_and_the_scores_and_no_place_of_this_machine(
    trained: Settings, store: Store, tmp_path: Path
) -> None:
    card = replace(example_card(), version="copy-0001")
    scorecard = store.start_scorecard("copy-0001", baseline="base", suite="en", seed=1)
    store.finish_scorecard(scorecard.id, card.to_json())
    target = tmp_path / "out"
    export(trained, store, "copy-0001", target)
    names = {path.name for path in target.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "loss.png"} <= names
    for path in target.iterdir():
        if path.suffix in (".json", ".md"):
            assert str(trained.copydesk_home) not in path.read_text()
            assert str(Path(trained.copydesk_model).parent) not in path.read_text()
    results = front_matter(target)["model-index"][0]["results"][0]
    assert {metric["type"] for metric in results["metrics"]} >= {"excellent", "bleu"}
    assert "## Scores" in (target / "README.md").read_text()
    base = AutoModelForCausalLM.from_pretrained(trained.copydesk_model)
    PeftModel.from_pretrained(base, target)


def test_a_pass_that_people_took_back_is_none_on_the_model_card(
    trained: Settings, store: Store, tmp_path: Path
) -> None:
    items = [f"en-{n}" for n in range(GRADES_NEEDED)]
    scorecard = store.start_scorecard("copy-0001", baseline="base", suite="en@x", seed=1)
    for item in items:
        store.add_sample(scorecard.id, item_id=item, part="following", repeat=0, text=item, grade="excellent", score={})
    card = replace(example_card(Verdict.PASS), version="copy-0001")
    scorecard, grades = store.finish_scorecard(scorecard.id, card.to_json()), Grades(store)
    grades.keep_items("en@x", {item: task_of(Requirements(item), "en") for item in items})
    sheet = grades.open(scorecard, "U_ANNA", Kind.GRADES)
    for entry in sheet.entries:
        grades.answer(sheet.id, sheet.user, entry.position, "fail", entry.position)
    export(trained, store, "copy-0001", tmp_path / "out")
    assert "| verdict | inconclusive against" in (tmp_path / "out" / "README.md").read_text()


def test_a_disk_that_fills_is_one_clear_message_and_leaves_nothing(
    trained: Settings, store: Store, tmp_path: Path
) -> None:
    with full_disk(1 << 20), pytest.raises(CopydeskError, match=r"cannot be written .*File too large.*another place"):
        export(trained, store, "copy-0001", tmp_path / "merged", merged=True)
    assert [path for path in tmp_path.iterdir() if "merged" in path.name] == []


def test_a_merged_model_answers_as_the_adapter_does(trained: Settings, store: Store, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    export(trained, store, "copy-0001", target, merged=True)
    ids = torch.tensor([list(range(100, 160))])
    exact = AutoModelForCausalLM.from_pretrained(trained.copydesk_model, dtype=torch.float32)
    with torch.no_grad():
        before = exact(ids).logits
        adapted = PeftModel.from_pretrained(exact, store.version("copy-0001").path)(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(trained.copydesk_model, dtype=torch.bfloat16).float()(ids).logits
    noise = (plain - before).abs().mean()  # what rounding the base's weights to bf16 does alone
    assert (adapted - before).abs().mean() > 4 * noise
    assert (merged - adapted).abs().mean() < 2 * noise
    assert AutoTokenizer.from_pretrained(target).chat_template
    assert front_matter(target)["library_name"] == "transformers"
    assert not (target / "adapter_model.safetensors").exists()


def test_an_export_that_cannot_be_says_why_and_leaves_nothing(trained: Settings, store: Store, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(CopydeskError, match="is there already"):
        export(trained, store, "copy-0001", full)
    with pytest.raises(CopydeskError, match="There is no version copy-0009"):
        export(trained, store, "copy-0009", tmp_path / "out")
    other = trained.model_copy(update={"copydesk_model": "another"})
    with pytest.raises(CopydeskError, match=r"was trained on .*; export it with COPYDESK_MODEL="):
        export(other, store, "copy-0001", tmp_path / "out")
    weights = Path(store.version("copy-0001").path) / "adapter_model.safetensors"
    assert load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CopydeskError, match="are not those that were trained"):
        export(trained, store, "copy-0001", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_does_not_fit_its_base_is_refused(trained: Settings, store: Store, tmp_path: Path) -> None:
    config = Path(trained.copydesk_model) / "config.json"
    text = config.read_text()
    try:
        config.write_text(json.dumps(json.loads(text) | {"hidden_size": 32}))
        with pytest.raises(CopydeskError, match="does not fit the base model"):
            export(trained, store, "copy-0001", tmp_path / "out", merged=True)
    finally:
        config.write_text(text)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_base_is_named_by_its_snapshot_on_the_hub(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0a1b2c"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: llama2\n---\n# Name\n")
    base = describe(str(snapshot))
    assert (base.name, base.revision, base.license) == ("org/name", "0a1b2c", "llama2")
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert describe(str(folder)).license == "other"
    assert describe(str(folder)).revision.startswith("files:")
