"""One LoRA round, on the real tokenizer and a tiny model of the real architecture."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from peft import PeftModel
from safetensors.torch import load_file
from tiny import EXACT, objective, pair, starter_data
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from serving.prompt import task_messages
from serving.records import CopydeskError, Pair, PairSource, RoundState, Split, Task
from serving.registry import verify
from serving.settings import Settings
from serving.store import NewPair, Store
from trainer import lora
from trainer.__main__ import main
from trainer.dataset import IGNORED, end_token, prompt_tokens, training_data
from trainer.recipe import ARTICLE, DEFAULT, QLORA, Recipe
from trainer.reporting import reported
from trainer.rounds import FACTS, run_round

pytestmark = pytest.mark.usefixtures("one_thread")


# Data


def test_the_prompt_is_what_the_engine_renders_and_only_the_answer_is_learned(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    asked = pair(1, " Alder lamp glows. ", input="Tone: calm")
    row = training_data([asked], tokenizer, 256).rows[0]
    prompt = tokenizer.apply_chat_template(task_messages(asked.task), add_generation_prompt=True, tokenize=False)
    learned = [label for label in row["labels"] if label != IGNORED]
    start = len(row["labels"]) - len(learned)
    assert row["labels"][start:] == row["input_ids"][start:] == learned
    assert row["input_ids"][:start] == tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(row["input_ids"]) == f"{prompt}Alder lamp glows.<|im_end|>"
    assert learned[-1] == end_token(tokenizer) == tokenizer.eos_token_id


def test_a_pair_longer_than_the_recipe_or_the_model_takes_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    pairs = [pair(1, "Fine."), pair(4, "long " * 300)]
    data = training_data(pairs, tokenizer, 256)
    assert [kept.id for kept in data.pairs] == [1]
    assert [str(skipped) for skipped in data.skipped] == [
        f"pair 4: {data.tokens - 3 + 301} tokens, and the recipe takes 256"
    ]
    short = copy.copy(tokenizer)
    short.model_max_length = 40
    assert "and the base model takes 40" in str(training_data(pairs, short, 256).skipped[1])


def test_a_base_model_without_a_chat_template_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    bare = copy.copy(tokenizer)
    bare.chat_template = None
    with pytest.raises(CopydeskError, match="no chat template; take an instruct model"):
        training_data([pair(1, "Fine.")], bare, 256)


def test_the_prompt_is_the_same_bytes_whichever_way_letters_are_composed(tokenizer: PreTrainedTokenizerBase) -> None:
    composed, decomposed = "Café crème", unicodedata.normalize("NFD", "Café crème")
    assert composed != decomposed
    assert prompt_tokens(Task(composed), tokenizer) == prompt_tokens(Task(decomposed), tokenizer)


def test_the_digest_follows_ids_and_texts_not_the_order(tokenizer: PreTrainedTokenizerBase) -> None:
    one, two = pair(1, "One."), pair(2, "Two.")

    def digest(*pairs: Pair) -> str:
        return training_data(pairs, tokenizer, 256).digest

    assert digest(one, two) == digest(two, one)
    assert (
        len({digest(one, two), digest(one), digest(one, replace(two, id=3)), digest(one, replace(two, output="2"))})
        == 4
    )


# Recipes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rank": 12}, "rank 12 cannot be served by vLLM; take one of 1, 8, 16"),
        ({"targets": ("q_proj", "qkv")}, "unknown target modules qkv"),
        ({"targets": ()}, "no target modules"),
        ({"learning_rate": 0.0}, "learning_rate must be in"),
        ({"epochs": 0, "batch_pairs": 0}, "epochs must be at least 1, not 0; batch_pairs must be at least 1"),
        ({"batching": "loose"}, "batching must be one of padded, bucketed, packed"),
    ],
)
def test_a_recipe_that_cannot_work_says_what_to_change(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CopydeskError, match=says):
        replace(DEFAULT, **change)


@pytest.mark.parametrize("recipe", [DEFAULT, ARTICLE])
def test_a_recipe_survives_being_saved(recipe: Recipe) -> None:
    assert Recipe.from_mapping(json.loads(json.dumps(recipe.to_mapping()))) == recipe


def test_a_saved_recipe_with_other_keys_is_refused() -> None:
    with pytest.raises(CopydeskError, match="A recipe has no rang"):
        Recipe.from_mapping({**DEFAULT.to_mapping(), "rang": 8})
    with pytest.raises(CopydeskError, match="lacks seed"):
        Recipe.from_mapping({key: value for key, value in DEFAULT.to_mapping().items() if key != "seed"})


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    factor = lora.learning_rate_of(replace(DEFAULT, warm_up=0.1, schedule="linear"), 100)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(10) == 1.0
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == 0.0
    assert lora.learning_rate_of(replace(DEFAULT, schedule="cosine"), 100)(100) == 0.0


def test_few_pairs_take_small_steps_and_many_take_full_ones() -> None:
    recipe = replace(DEFAULT, epochs=2, batch_pairs=16, min_steps=136)
    assert [recipe.pairs_a_step(pairs) for pairs in (3, 100, 272, 600, 5000)] == [1, 1, 4, 8, 16]
    assert ARTICLE.pairs_a_step(3) == 2


def test_a_larger_base_learns_at_a_lower_rate() -> None:
    assert DEFAULT.learning_rate_for(576) == DEFAULT.learning_rate
    assert DEFAULT.learning_rate_for(4096) == pytest.approx(4.3e-4, rel=0.02)
    assert ARTICLE.learning_rate_for(4096) == ARTICLE.learning_rate_for(576) == 2e-5


# Fitting


def save_config(config: PretrainedConfig, path: Path) -> str:
    """A base without weights: whoever asks for them gets an OSError."""
    config.save_pretrained(path)
    return str(path)


def test_a_base_that_lacks_targets_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    fused = save_config(Phi3Config(num_hidden_layers=1), tmp_path / "fused")
    for recipe in (DEFAULT, QLORA):
        with pytest.raises(CopydeskError) as refused:
            lora.load_model(fused, recipe)
        assert str(refused.value) == (
            f"Recipe {recipe.name} does not fit the base model: Phi3ForCausalLM has no q_proj, k_proj, v_proj, "
            "gate_proj, up_proj; set COPYDESK_MODEL to a base that has them."
        )
    experts = save_config(MixtralConfig(num_hidden_layers=1), tmp_path / "experts")
    with pytest.raises(CopydeskError, match="has no gate_proj, up_proj, down_proj; take recipe article, or set"):
        lora.load_model(experts, DEFAULT)
    lora.require_targets(experts, ARTICLE)


def test_each_process_loads_a_base_of_4_bits_onto_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "find_spec", lambda name: name)
    monkeypatch.setattr(lora, "BitsAndBytesConfig", dict)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert lora.packing(QLORA, torch.device("cuda"), torch.bfloat16)["device_map"] == {"": 1}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_adapter(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, precision: str
) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        recipe = replace(EXACT, seed=seed, precision=precision, dropout=0.1, batch_pairs=2)
        ours = objective(tiny_model, recipe)
        lora.fit(ours, starter_data(tokenizer))
        return {name: p.detach() for name, p in ours.model.named_parameters() if p.requires_grad}

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_loss_falls_and_progress_is_told(tiny_model: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    recipe = replace(EXACT, epochs=15, batch_pairs=3)
    told: list[lora.Progress] = []
    fitted = lora.fit(objective(tiny_model, recipe), starter_data(tokenizer), told.append)
    assert [progress.step for progress in told] == list(range(1, 31))
    assert told[-1].seconds_left == 0
    assert fitted.facts["loss_last"] < 0.8 * fitted.facts["loss_first"]
    assert fitted.tokens == 15 * starter_data(tokenizer).tokens


def test_a_loss_that_is_no_number_stops_the_round(desk: Settings, filled: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(desk.copydesk_model)
    model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(broken)
    AutoTokenizer.from_pretrained(desk.copydesk_model).save_pretrained(broken)
    with pytest.raises(CopydeskError, match="The loss is not a number at step 1"):
        run_round(desk.model_copy(update={"copydesk_model": str(broken)}), filled, EXACT)
    assert filled.rounds()[0].state is RoundState.FAILED
    assert filled.rounds()[0].message.startswith("The loss is not a number")
    assert filled.versions() == []


# Rounds


def test_a_round_registers_a_whole_adapter_that_plain_peft_loads(desk: Settings, filled: Store) -> None:
    recipe = replace(EXACT, epochs=2)
    outcome = run_round(desk, filled, recipe)
    path = Path(outcome.version.path)
    assert path == desk.adapters.resolve() / "copy-0001"
    verify(outcome.version)
    files = {file.name for file in path.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= files
    assert {"recipe.json", "README.md", "loss.png", FACTS} <= files
    assert Recipe.from_mapping(json.loads((path / "recipe.json").read_text())) == recipe
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == desk.copydesk_model
    assert {pair.id for pair in filled.round_pairs(1)} == {pair.id for pair in filled.pairs(split=Split.TRAIN)}
    facts = outcome.round.facts
    assert outcome.round.state is RoundState.DONE
    assert facts["pairs"] == len(filled.round_pairs(1))
    assert facts["loss_last"] < facts["loss_first"]
    assert {"tokens", "tokens_per_s", "seconds", "trainable_share", "peak_rss_gib", "skipped"} <= set(facts)

    base = AutoModelForCausalLM.from_pretrained(desk.copydesk_model)
    ids = torch.tensor([list(range(100, 140))])
    with torch.no_grad():
        before = base(ids).logits
        served = PeftModel.from_pretrained(base, path)(ids).logits
    weights = load_file(path / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * len(DEFAULT.targets)
    assert (served - before).abs().max() > 1e-3
    again = lora.load_model(desk.copydesk_model, recipe)
    again.load_state_dict(
        {key.replace(".weight", ".default.weight"): value for key, value in weights.items()}, strict=False
    )
    again.eval()
    with torch.no_grad():
        ours = again(input_ids=ids, segments=(40,)).logits
    torch.testing.assert_close(served, ours, rtol=1e-4, atol=1e-4)


def test_the_same_round_twice_gives_the_same_files(desk: Settings, filled: Store) -> None:
    first, second = run_round(desk, filled, EXACT), run_round(desk, filled, EXACT)
    assert (first.version.name, second.version.name) == ("copy-0001", "copy-0002")
    assert first.version.digest == second.version.digest
    assert first.round.data_digest == second.round.data_digest


def test_held_out_and_withdrawn_pairs_do_not_train(desk: Settings, filled: Store) -> None:
    withdrawn = filled.pairs(split=Split.TRAIN)[0]
    filled.withdraw_pair(withdrawn.id)
    run_round(desk, filled, EXACT, max_pairs=5)
    trained = filled.round_pairs(1)
    assert [pair.id for pair in trained] == [pair.id for pair in filled.pairs(split=Split.TRAIN)][-5:]
    assert all(pair.split is Split.TRAIN and pair.id != withdrawn.id for pair in trained)


def test_the_article_trains_as_published(desk: Settings, filled: Store) -> None:
    facts = run_round(desk, filled, ARTICLE, max_pairs=4).round.facts
    hidden, key_values, rank, layers = 64, 32, 8, 2
    assert facts["trainable"] == layers * rank * ((hidden + hidden) + (hidden + key_values))
    assert facts["precision"] == "float32"  # fp16 is for GPUs
    assert facts["steps"] == 6


def test_nothing_to_train_on_is_told_without_a_round(desk: Settings, store: Store) -> None:
    with pytest.raises(CopydeskError, match="No pairs to train on; correct drafts"):
        run_round(desk, store, EXACT)
    store.add_pairs([NewPair(Task(f"Write {n}."), "x" * (3000 + n), PairSource.IMPORT) for n in range(3)])
    with pytest.raises(CopydeskError, match=r"left out, the first: pair \d: .* tokens, and the recipe takes 256"):
        run_round(desk, store, EXACT)
    assert store.rounds() == []


def test_two_rounds_never_run_at_once(desk: Settings, filled: Store) -> None:
    desk.adapters.mkdir()
    with (
        FileLock(desk.adapters.resolve() / ".lock"),
        pytest.raises(CopydeskError, match="A round is running already"),
    ):
        run_round(desk, filled, EXACT)
    assert filled.rounds() == []


def test_a_directory_of_another_desk_is_not_overwritten(desk: Settings, filled: Store) -> None:
    other = desk.adapters / "copy-0001"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    with pytest.raises(CopydeskError, match="move it away"):
        run_round(desk, filled, EXACT)
    assert (other / "notes.txt").read_text() == "mine"
    assert filled.rounds()[0].state is RoundState.FAILED


def command(desk: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """What `python -m trainer` does, in this process: starting another with torch takes ten seconds."""
    monkeypatch.setenv("COPYDESK_HOME", str(desk.copydesk_home))
    monkeypatch.setenv("COPYDESK_MODEL", desk.copydesk_model)
    monkeypatch.setattr(sys, "argv", ["trainer", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_prints_progress_as_json_lines(
    desk: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(desk, monkeypatch, "starter", "--language", "en", "--json")
    assert json.loads(capsys.readouterr().out)["added"] >= 100
    command(desk, monkeypatch, "starter", "--language", "en", "--json")
    assert json.loads(capsys.readouterr().out)["added"] == 0
    code = command(desk, monkeypatch, "run", "--language", "en", "--max-pairs", "9", "--json")
    done = capsys.readouterr()
    *steps, last = [json.loads(line) for line in done.out.splitlines()]
    assert code == 0
    assert done.err.startswith("Memory: ")
    assert [step["step"] for step in steps] == list(range(1, steps[0]["steps"] + 1))
    assert last["version"] == "copy-0001"
    assert last["pairs"] == 9


def test_the_command_says_what_went_wrong_in_one_line(
    desk: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command(desk, monkeypatch, "run")
    failed = capsys.readouterr()
    assert (code, failed.out) == (1, "")
    assert failed.err.splitlines() == ["No pairs to train on; correct drafts, or run: python -m trainer starter"]
    command(desk, monkeypatch, "run", "--recipe", "secret")
    assert "there are default, article" in capsys.readouterr().err
    command(desk, monkeypatch, "starter", "--language", "fr")
    assert "there are en, zh" in capsys.readouterr().err


def test_a_tracker_that_is_not_there_is_told_before_anything_is_read(
    desk: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(desk, monkeypatch, "run", "--report-to", "paper") == 1
    assert capsys.readouterr().err.startswith("Nothing is called paper; there are ")
    monkeypatch.setattr("trainer.reporting.get_available_trackers", list)
    assert command(desk, monkeypatch, "run", "--report-to", "mlflow") == 1
    assert "mlflow is not installed" in capsys.readouterr().err


def test_a_round_is_drawn_where_the_person_looks(desk: Settings, filled: Store, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with reported("tensorboard", tmp_path / "runs", "default", EXACT) as report:
        run_round(desk, filled, EXACT, on_progress=report)
    assert list((tmp_path / "runs" / "default").glob("events.out.tfevents.*"))


def test_a_preview_marks_what_is_learned(
    desk: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task("为「云朵」写一句文案。", "", "zh")
    store.add_pairs([NewPair(task, "云朵保温😀。", PairSource.IMPORT)])
    command(desk, monkeypatch, "preview", "1", "--json")
    found = json.loads(capsys.readouterr().out)
    learned = [token for token in found["tokens"] if token["learned"]]
    assert "".join(token["text"] for token in learned) == "云朵保温😀。<|im_end|>"
    row = training_data([store.pair(1)], lora.load_tokenizer(desk.copydesk_model), 256).rows[0]
    assert [id for token in found["tokens"] for id in token["ids"]] == row["input_ids"]
    assert [id for token in learned for id in token["ids"]] == [id for id in row["labels"] if id != IGNORED]
    command(desk, monkeypatch, "preview", "1")
    text = capsys.readouterr().out
    assert "<|im_start|>assistant⏎\n[" in text
    assert "[<|im_end|>]" in text
    assert "[user]" not in text


def test_a_preview_without_pairs_says_what_to_do(
    desk: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(desk, monkeypatch, "preview") == 1
    assert "There are no pairs yet" in capsys.readouterr().err


def test_the_module_runs_as_a_program(desk: Settings) -> None:
    done = subprocess.run([sys.executable, "-m", "trainer", "--help"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
