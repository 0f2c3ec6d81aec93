"""What people said about drafts as training data, and the stage that learns from it, on a tiny real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import BAD, EXACT, GOOD, choices, dpo, judged, kto, objective, starter_data
from torch.nn.functional import log_softmax
from transformers import PreTrainedTokenizerBase

from serving.exchange import starter_pairs
from serving.jobs import Jobs
from serving.records import CopydeskError, Split, Task, Verdict
from serving.settings import Settings
from serving.store import Store, split_of
from trainer import judgements, lora
from trainer.checkpoint import Checkpoints
from trainer.dataset import IGNORED, Row
from trainer.group import ALONE
from trainer.judgements import Choice, Judgements, LeftOut, Opinion, corrections, edit_share, opinions, too_alike
from trainer.preference import Preferences
from trainer.recipe import DPO, KTO, Preference, Recipe
from trainer.rounds import run_round

pytestmark = pytest.mark.usefixtures("one_thread")


def drafted(store: Store, text: str, task: Task | None = None) -> int:
    """A draft of the base model for a brief of its own."""
    number = len(store.drafts())
    while task is None:
        number += 1
        candidate = Task(f"Write product copy for Alder lamp {number}.")
        task = candidate if split_of(candidate) is Split.TRAIN else None
    request = store.add_request(task, user="U1", channel="C1", thread_ts="1", locale="en")
    assert request is not None
    return store.answer(
        request.id,
        version="base",
        text=text,
        ts=str(request.id),
        prompt_tokens=1,
        completion_tokens=1,
        first_token_s=None,
        total_s=1.0,
    ).id


def training(store: Store) -> Any:
    return store.pairs(split=Split.TRAIN)


# Judgements


def test_a_correction_is_chosen_over_its_draft(store: Store) -> None:
    draft = drafted(store, BAD)
    store.add_correction(draft, "U2", "First try.")
    pair_id = store.add_correction(draft, "U2", GOOD).pair_id
    found = corrections(store, training(store), ())
    assert found.choices == (Choice(draft, store.pair(pair_id).task, GOOD, BAD),)
    assert found.used == {"corrected": [draft], "liked": [], "disliked": []}


def test_a_restored_draft_trains_as_a_text_and_is_no_choice(store: Store) -> None:
    draft = drafted(store, GOOD)
    store.rate(draft, "U2", Verdict.UP)
    store.add_correction(draft, "U3", BAD)
    store.add_correction(draft, "U2", GOOD)
    assert [pair.output for pair in training(store)] == [GOOD]
    found = corrections(store, training(store), ())
    assert (found.choices, [one.draft_id for one in found.left_out]) == ((), [draft])
    assert opinions(store, training(store), (), frozenset()) == Judgements()


def test_ratings_are_opinions_and_a_correction_takes_their_place(store: Store) -> None:
    liked, disliked, both, corrected = (drafted(store, f"{GOOD} Model {n}.") for n in range(4))
    store.rate(liked, "U2", Verdict.UP)
    store.rate(disliked, "U2", Verdict.DOWN)
    store.rate(both, "U2", Verdict.UP)
    store.rate(both, "U3", Verdict.DOWN)
    store.rate(corrected, "U2", Verdict.DOWN)
    store.add_correction(corrected, "U2", BAD)
    found = opinions(store, training(store), (), frozenset())
    assert [(one.draft_id, one.liked) for one in found.opinions] == [(liked, True), (disliked, False)]
    assert found.left_out == (LeftOut(both, "people disagree about it"),)
    assert opinions(store, training(store), (), frozenset(), language="zh") == Judgements()


def test_a_thumbs_down_is_never_a_text_to_imitate(store: Store) -> None:
    draft = drafted(store, BAD)
    store.rate(draft, "U2", Verdict.DOWN)
    assert training(store) == []


def test_a_withdrawn_pair_is_no_opinion_either(store: Store) -> None:
    draft = drafted(store, GOOD)
    store.rate(draft, "U2", Verdict.UP)
    store.withdraw_pair(training(store)[0].id)
    found = opinions(store, training(store), (), frozenset())
    assert found.opinions == ()
    assert "was withdrawn" in str(found.left_out[0])


@pytest.mark.parametrize("verdict", list(Verdict))
def test_held_out_briefs_are_no_preferences(store: Store, verdict: Verdict) -> None:
    tasks = (Task(f"Write product copy for Alder lamp {n}.") for n in range(1000))
    held_out = next(task for task in tasks if split_of(task) is Split.HELD_OUT)
    store.rate(drafted(store, GOOD, held_out), "U2", verdict)
    store.add_correction(drafted(store, BAD, held_out), "U2", GOOD)
    assert opinions(store, training(store), (), frozenset()).opinions == ()
    assert corrections(store, training(store), ()).choices == ()


@pytest.mark.parametrize(
    ("draft", "correction", "language", "says"),
    [
        (" ", GOOD, "en", "its text is empty"),
        (GOOD, GOOD.upper().replace(" ", "  "), "en", "changes only spaces or capitals"),
        (" ".join(f"w{n}" for n in range(50)), " ".join(f"w{n}" for n in range(49)), "en", "changes only 1.0% of it"),
        ("木" * 49 + "灯", "木" * 50, "zh", "changes only 2.0% of it"),
        (GOOD, GOOD.replace("warm", "cold"), "en", ""),
    ],
)
def test_texts_that_are_nearly_the_same_are_no_preference(
    draft: str, correction: str, language: str, says: str
) -> None:
    assert says in too_alike(draft, correction, language)
    assert bool(says) == bool(too_alike(draft, correction, language))


def test_an_edit_counts_words_in_english_and_characters_in_chinese() -> None:
    assert edit_share("a warm glow", "a cold glow", "en") == pytest.approx(1 / 3)
    assert edit_share("温暖的光", "温柔的光", "zh") == pytest.approx(1 / 4)


def test_too_few_judgements_train_no_stage_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("Write.")
    few = Judgements(opinions=tuple(Opinion(n, task, "x", n > 2) for n in range(1, 9)))
    assert few.if_enough().opinions == ()
    assert few.if_enough().too_few.endswith("drafts of each kind, and there are: 6 liked, 2 disliked")
    assert len(few.if_enough().left_out) == 8
    assert Judgements().if_enough().too_few.endswith("there are: none")
    monkeypatch.setattr(judgements, "FEWEST", 2)
    assert few.if_enough() == few


# The stage


def move(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give the adapter other weights, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return model


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def answer_log_prob(model: Any, row: Row) -> torch.Tensor:
    """By transformers' plain forward pass over one row, and the definition."""
    ids = torch.tensor([row["input_ids"]])
    logits = model(input_ids=ids, segments=(ids.shape[1],), use_cache=False).logits[0, :-1]
    found = log_softmax(logits.float(), -1).gather(1, ids[0, 1:, None])[:, 0]
    return found[torch.tensor(row["labels"])[1:] != IGNORED].sum()


def test_log_probs_of_packed_rows_are_those_of_each_row_alone(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    ours = objective(tiny_model, dpo())
    model = move(ours.model, 1)
    rows = list(starter_data(tokenizer).rows)
    expected = torch.stack([answer_log_prob(model, row) for row in rows])
    torch.testing.assert_close(-ours(rows), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(-ours.plain(rows), expected, rtol=1e-5, atol=1e-4)


def texts(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    start = sum(label == IGNORED for label in row["labels"])
    return tokenizer.decode(row["input_ids"][:start]), tokenizer.decode(row["input_ids"][start:])


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_the_stage_has_the_loss_and_gradients_of_trl(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, kind: str
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    options: dict[str, Any] = {
        **{"output_dir": str(tmp_path), "beta": 0.1, "per_device_train_batch_size": 4, "max_length": None},
        **{"report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True},
    }
    plain = replace(EXACT, batching="bucketed")
    theirs: Any = move(lora.load_model(str(tiny_model), plain), 1)
    mine = objective(tiny_model, dpo(batch=4) if kind == "dpo" else kto(batch=4))
    ours = move(mine.model, 1)
    trainer: Any
    if kind == "dpo":
        stage = Preferences(mine, choices(), tokenizer, ALONE, 1)
        rows = [(*texts(chosen, tokenizer), texts(rejected, tokenizer)[1]) for chosen, rejected in stage.rows]
        data = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in rows])
        config = DPOConfig(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 1.0], **options)
        trainer = DPOTrainer(model=theirs, args=config, train_dataset=data, processing_class=tokenizer)
    else:
        stage = Preferences(mine, judged(), tokenizer, ALONE, 1)
        liked = stage.liked.tolist()
        rows = [(*texts(row, tokenizer), like) for (row, _), like in zip(stage.rows, liked, strict=True)]
        data = Dataset.from_list([{"prompt": p, "completion": c, "label": like} for p, c, like in rows])
        config = KTOConfig(undesirable_weight=3.0, **options)
        trainer = KTOTrainer(model=theirs, args=config, train_dataset=data, processing_class=tokenizer)
    stage.begin()  # as TRL, which keeps a copy of the adapter for reference
    move(ours, 2)
    move(trainer.model, 2)

    ours.train()
    loss = 0.0
    for part in stage.losses([0, 1, 2, 3]):
        part.backward()
        loss += part.item()
    trainer.model.train()
    their_loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    their_loss.backward()
    assert loss == pytest.approx(their_loss.item(), rel=1e-4)
    found, expected = gradients(ours), gradients(trainer.model)
    assert len(found) == len(expected) > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


class PulledPlugError(Exception):
    pass


@pytest.mark.parametrize("until", [2, 3, 4])  # among the pairs, after the last of them, among the judgements
@pytest.mark.parametrize("recipe", [dpo(batch=2), kto(batch=2)])
def test_a_stage_that_is_taken_up_again_ends_in_the_same_bytes(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, recipe: Recipe, until: int
) -> None:
    recipe = replace(recipe, batch_pairs=2)
    of = choices(6) if recipe.name == "dpo" else judged(6)

    def trained(every: bool, until: int = 0) -> tuple[lora.Fit, list[torch.Tensor]]:
        def pull(progress: lora.Progress) -> None:
            if progress.step == until + 1:  # the checkpoint of the step before is written
                raise PulledPlugError

        ours = objective(tiny_model, recipe)
        stage = Preferences(ours, of, tokenizer, ALONE, 1)
        checkpoints = Checkpoints(tmp_path / "checkpoint.safetensors", "same", every_s=0) if every else None
        fitted = lora.fit(ours, starter_data(tokenizer), pull, checkpoints, then=stage)
        return fitted, [p.detach() for p in ours.model.parameters() if p.requires_grad]

    whole, expected = trained(every=False, until=-1)
    with pytest.raises(PulledPlugError):
        trained(every=True, until=until)
    resumed, found = trained(every=True, until=-1)
    assert len(whole.losses) == len(whole.preference_losses) == 3
    assert (resumed.losses, resumed.preference_losses) == (whole.losses, whole.preference_losses)
    assert {**resumed.stages, "memory": None} == {**whole.stages, "memory": None}
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("recipe", [dpo(epochs=4, batch=2), kto(epochs=4, batch=2)])
def test_the_stage_raises_the_margin_of_what_people_chose(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> None:
    ours = objective(tiny_model, recipe)
    stage = Preferences(ours, choices() if recipe.name == "dpo" else judged(), tokenizer, ALONE, 1)
    fitted = lora.fit(ours, starter_data(tokenizer), then=stage)
    first, last = stage.margins[:4], stage.margins[-4:]
    assert sum(last) > sum(first)
    assert len(fitted.losses) == 1
    assert len(fitted.preference_losses) == len(stage.plan) == 8
    assert fitted.facts["preference_margin_last"] > 0
    assert fitted.facts["preference_rate"] == pytest.approx(fitted.learning_rate / 10)


@pytest.mark.parametrize("recipe", [dpo(batch=4), kto(batch=4)])
def test_small_parts_give_the_same_step(tiny_model: Path, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
    ours = objective(tiny_model, recipe)
    stage = Preferences(ours, choices() if recipe.name == "dpo" else judged(), tokenizer, ALONE, 1)
    stage.begin()
    move(ours.model, 2)
    found = []
    for row_tokens in (1, 10_000):
        stage.memory = replace(stage.memory, row_tokens=row_tokens)
        found.append([loss.item() for loss in stage.losses([0, 1, 2, 3])])
    assert [len(losses) for losses in found] == [4, 1]
    assert sum(found[0]) == pytest.approx(sum(found[1]), rel=1e-5)


# Recipes and rounds


@pytest.mark.parametrize("recipe", [DPO, KTO])
def test_a_preference_recipe_survives_being_saved(recipe: Recipe) -> None:
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe


def test_a_preference_stage_that_cannot_work_says_what_to_change() -> None:
    with pytest.raises(CopydeskError, match="beta must be positive, not 0; batch must be at least 2, not 1"):
        Preference("dpo", beta=0, batch=1)
    with pytest.raises(CopydeskError, match='a preference stage needs batching "packed", not "padded"'):
        replace(DPO, batching="padded")


def corrected(store: Store, count: int) -> list[int]:
    """Drafts that were corrected to texts unlike any others."""
    found = [drafted(store, f"{BAD} Number {n}.") for n in range(count)]
    for draft, new in zip(found, starter_pairs("en")[30:], strict=False):
        store.add_correction(draft, "U2", new.output)
    return found


def test_a_dpo_round_says_which_corrections_it_learned_from(
    desk: Settings, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgements, "FEWEST", 3)
    drafts = corrected(filled, 4)
    spaces = drafted(filled, "The lamp for people who read in bed and think in the morning.")
    filled.add_correction(spaces, "U2", "The lamp for people who read in bed  and think in the Morning.")
    outcome = run_round(desk, filled, dpo())
    facts = outcome.round.facts
    assert facts["judgements"] == {"corrected": drafts}
    assert facts["judgements_left_out"] == [f"draft {spaces}: the correction changes only spaces or capitals"]
    assert facts["preference_steps"] == 1
    heard = Jobs(filled).heard(outcome.round.id)
    assert [(one.draft_id, one.used_as) for one in heard] == [*((id, "corrected") for id in drafts), (spaces, "")]
    assert Recipe.from_mapping(outcome.round.recipe) == dpo()


def test_a_round_with_few_judgements_trains_on_pairs_only_and_says_so(desk: Settings, filled: Store) -> None:
    drafts = corrected(filled, 2)
    notes: list[str] = []
    outcome = run_round(desk, filled, dpo(), on_note=notes.append)
    said = "Pairs only: a preference stage needs 100 drafts of each kind, and there are: 2 corrected."
    assert notes == outcome.round.facts["notes"]
    assert notes[0] == said
    assert "preference_steps" not in outcome.round.facts
    assert [one.draft_id for one in Jobs(filled).heard(outcome.round.id)] == drafts
    plain = run_round(desk, filled, EXACT)
    assert plain.version.digest == outcome.version.digest
    assert plain.round.data_digest == outcome.round.data_digest
