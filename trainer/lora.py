"""Fit a LoRA adapter on tokenised pairs and save it as plain PEFT files.

A round restarts from the base every time; a killed one goes on from its last checkpoint. The head runs at answer
positions only, and nothing is padded with the default recipe.
"""

from __future__ import annotations

import json
import math
import random
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from serving.processor import has_bf16
from serving.records import CopydeskError
from trainer.attention import SEGMENTS
from trainer.checkpoint import Checkpoints, Moment
from trainer.dataset import IGNORED, Row, TrainingData
from trainer.group import ALONE, Group
from trainer.objective import Objective
from trainer.plan import MemoryPlan, keep_freed_memory, memory_plan
from trainer.recipe import RECIPES, Recipe

DIVERGED = 2.0  # times the first steps' loss
WATCHED_STEPS = 10


@dataclass(frozen=True)
class Progress:
    """One optimiser step. Loss is the mean over the step's answer tokens; seconds_left an estimate."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Fit:
    """What a fit measured. Tokens are real ones, prompt and answer, over all epochs; padding is not counted.

    Attributes:
        losses: of the steps on pairs; those of a preference stage are of another kind and stand apart.
        stages: what the stages say of themselves.
    """

    losses: tuple[float, ...]
    tokens: int
    seconds: float
    trainable: int
    parameters: int
    learning_rate: float
    device: str
    precision: str
    preference_losses: tuple[float, ...] = ()
    stages: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        last = self.losses[-WATCHED_STEPS:]
        return {
            "steps": len(self.losses),
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "tokens_per_s": round(self.tokens / self.seconds, 1),
            "loss_first": round(self.losses[0], 4),
            "loss_last": round(sum(last) / len(last), 4),
            "trainable": self.trainable,
            "trainable_share": self.trainable / self.parameters,
            "learning_rate": self.learning_rate,
            "device": self.device,
            "precision": self.precision,
            **self.stages,
        }


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    try:
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(base))
    except OSError as error:
        raise CopydeskError(f"The base model {base} cannot be read; check COPYDESK_MODEL.") from error


def load_model(base: str, recipe: Recipe) -> torch.nn.Module:
    """The base with a fresh adapter, on the device it will train on.

    Raises:
        CopydeskError: there is no such model, or it lacks some of the recipe's target modules.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = working_dtype(recipe, device)
    attention = SEGMENTS if recipe.batching == "packed" else "sdpa"
    try:
        require_targets(base, recipe)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation=attention, **packing(recipe, device, dtype)
        )
    except OSError as error:
        raise CopydeskError(f"The base model {base} cannot be read; check COPYDESK_MODEL.") from error
    if recipe.bits == 16:
        torch.nn.Module.to(model, device)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.targets),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    # bf16 adapters spare two conversions a layer (232 against 168 tok/s on two cores); their exact values and
    # the optimiser's state are kept in fp32 beside them.
    return cast(torch.nn.Module, get_peft_model(model, config, autocast_adapter_dtype=dtype is torch.float16))


def require_targets(base: str, recipe: Recipe) -> None:
    """Refuse a base that lacks some of the recipe's target modules: PEFT would train the others and say nothing.

    Asked of the configuration alone, before any weights are read.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))  # type: ignore[no-untyped-call]
    modules = model.named_modules()
    linear = {name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)}
    if missing := [target for target in recipe.targets if target not in linear]:
        fitting = [name for name, other in RECIPES.items() if linear.issuperset(other.targets)]
        instead = f"take recipe {' or '.join(fitting)}, or set" if fitting else "set"
        raise CopydeskError(
            f"Recipe {recipe.name} does not fit the base model: {type(model).__name__} has no {', '.join(missing)}; "
            f"{instead} COPYDESK_MODEL to a base that has them."
        )


def packing(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """How the base is loaded: as it is, or in 4-bit blocks."""
    if recipe.bits == 16:
        return {}
    if device.type != "cuda" or find_spec("bitsandbytes") is None:
        raise CopydeskError(f"Recipe {recipe.name} needs an NVIDIA GPU and the package bitsandbytes; take default.")
    return {
        "quantization_config": BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        ),
        "device_map": {"": torch.cuda.current_device()},  # of several processes each has its own
    }


def working_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """CPUs have no quick products of fp16, and many none of bf16: there they become fp32."""
    if device.type == "cpu" and (recipe.precision == "fp16" or not has_bf16()):
        return torch.float32
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[recipe.precision]


class Stage(Protocol):
    """A part of a fit with an optimiser of its own.

    Attributes:
        plan: the rows or judgements of every step, by number.
        rate: the highest learning rate.
    """

    plan: list[list[int]]
    rate: float

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage measured, for the round's row."""

    def begin(self) -> None:
        """Look at the model before the first step."""

    def state(self) -> dict[str, Tensor]:
        """What `begin` saw, for a checkpoint."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take out of a checkpoint what `state` put there."""

    def tokens(self, batch: Sequence[int]) -> int:
        """Of a step, over all processes."""

    def losses(self, batch: Sequence[int]) -> Iterator[Tensor]:
        """Parts of a step's loss; their sum over all processes is the step's."""


class Answers:
    """The stage that learns the pairs' answers: cross-entropy per answer token."""

    def __init__(self, objective: Objective, data: TrainingData, shrink: int, group: Group) -> None:
        model, recipe = objective.model, objective.recipe
        self.rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in data.rows]
        self.objective = objective
        self.plan = batches(self.rows, recipe)
        self.rate = recipe.learning_rate_for(hidden_size(model))
        sizes = [len(row["input_ids"]) for row in self.rows]
        longest = recipe.max_tokens if recipe.batching == "padded" else max(sizes)
        most = max(sum(sizes[index] for index in batch) for batch in self.plan)
        self.memory = memory_plan(model, recipe, longest=longest, step_tokens=most, shrink=shrink)
        if self.memory.checkpointed:
            objective.checkpoint()
        self.group = group

    @property
    def facts(self) -> dict[str, Any]:
        return {"memory": asdict(self.memory)}

    def begin(self) -> None: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None: ...

    def tokens(self, batch: Sequence[int]) -> int:
        return sum(len(self.rows[index]["input_ids"]) for index in batch)

    def losses(self, batch: Sequence[int]) -> Iterator[Tensor]:
        answers = sum(label != IGNORED for index in batch for label in self.rows[index]["labels"][1:])
        mine = [self.rows[index] for index in self.group.share(batch)]
        for part in parts_of(mine, self.objective.recipe, self.memory.row_tokens) if mine else ():
            yield self.objective(part).sum() / answers


def fit(
    objective: Objective,
    data: TrainingData,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    checkpoints: Checkpoints | None = None,
    shrink: int = 1,
    group: Group = ALONE,
    then: Stage | None = None,
    on_plan: Callable[[MemoryPlan], None] = lambda plan: None,
) -> Fit:
    """Train the adapter in place. On a CPU the same seed gives the same adapter, also when it is taken up again.

    Args:
        objective: of the model to train.
        checkpoints: where to go on from, and to write to.
        shrink: hold so many times fewer tokens' activations at once.
        group: the processes that share each step.
        then: a stage that follows the pairs.
        on_plan: told what will be held in memory, before the first step.

    Raises:
        CopydeskError: the loss is not a number, or grew to twice what it was.
    """
    model, recipe = objective.model, objective.recipe
    answers = Answers(objective, data, shrink, group)
    on_plan(answers.memory)
    stages: list[Stage] = [answers, *([then] if then else [])]
    steps = sum(len(stage.plan) for stage in stages)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if parameters[0].device.type == "cpu":
        keep_freed_memory()
    dtype = working_dtype(recipe, parameters[0].device)
    scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=dtype is torch.float16)
    torch.manual_seed(recipe.seed + group.rank)
    moment, tensors = group.same((checkpoints and checkpoints.take_up()) or (Moment(), {}))
    if moment.scaler:
        scaler.load_state_dict(moment.scaler)
    losses, tokens = list(moment.losses), moment.tokens
    model.train()
    started = time.perf_counter() - moment.seconds
    ends = list(accumulate(len(stage.plan) for stage in stages))

    def settle(waiting: deque[tuple[Tensor, int]], stage: Stage, first: int, left: int) -> None:
        """Look at the losses of all but so many steps."""
        nonlocal tokens
        while len(waiting) > left:
            loss, read = waiting.popleft()
            losses.append(float(loss))
            _check(losses[first:], stage.rate)
            tokens += read
            elapsed = time.perf_counter() - started
            step = len(losses)
            on_progress(Progress(step, steps, losses[-1], tokens / elapsed, elapsed / step * (steps - step)))

    for stage, first, end in zip(stages, [0, *ends], ends, strict=False):
        if len(losses) > end:
            continue
        optimiser = Masters(parameters, recipe, stage.rate, len(stage.plan))
        if tensors:
            stage.restore(tensors)
            optimiser.restore(tensors, len(losses) - first)
            tensors = {}
        else:
            stage.begin()
        waiting: deque[tuple[Tensor, int]] = deque()
        for batch in stage.plan[len(losses) - first :]:
            parts = []
            for part in stage.losses(batch):
                torch.autograd.backward(scaler.scale(part))
                parts.append(part.detach())
            group.sum_gradients(parameters)
            optimiser.step(scaler)
            own = torch.stack(parts).sum() if parts else torch.zeros((), device=parameters[0].device)
            # Summed here and not where it is looked at, which the first process does sooner before a checkpoint: what
            # all processes do together, all must do in one order.
            waiting.append((group.summed(own), stage.tokens(batch)))
            # Asking for a loss waits for the device: a GPU is asked for the step before, and never stands still.
            settle(waiting, stage, first, left=1 if parameters[0].is_cuda else 0)
            if checkpoints and len(losses) + len(waiting) < steps and checkpoints.due():
                settle(waiting, stage, first, left=0)
                state = {**optimiser.tensors(), **stage.state()}
                elapsed = time.perf_counter() - started
                checkpoints.save(Moment(losses, tokens, elapsed, scaler.state_dict()), state)
        settle(waiting, stage, first, left=0)
    return Fit(
        losses=tuple(losses[: ends[0]]),
        tokens=tokens,
        seconds=time.perf_counter() - started,
        trainable=sum(p.numel() for p in parameters),
        parameters=sum(p.numel() for p in model.parameters()),
        learning_rate=stages[0].rate,
        device=torch.cuda.get_device_name() if parameters[0].is_cuda else "cpu",
        precision=str(dtype).removeprefix("torch."),
        preference_losses=tuple(losses[ends[0] :]),
        stages={**stages[0].facts, **(then.facts if then else {})},
    )


def hidden_size(model: torch.nn.Module) -> int:
    return int(cast(Any, model).config.get_text_config().hidden_size)


def _check(losses: Sequence[float], rate: float) -> None:
    step = len(losses)
    if not math.isfinite(losses[-1]):
        raise CopydeskError(f"The loss is not a number at step {step}; take a learning rate below {rate:.1e}.")
    if step >= 2 * WATCHED_STEPS:
        first, last = losses[:WATCHED_STEPS], losses[-WATCHED_STEPS:]
        if sum(last) > DIVERGED * sum(first) and sum(last) > WATCHED_STEPS:
            raise CopydeskError(f"The loss doubled by step {step}; take a learning rate below {rate:.1e}.")


class Masters:
    """AdamW on fp32 copies of the adapter's weights, so that small steps are not lost in bf16."""

    def __init__(self, parameters: list[torch.nn.Parameter], recipe: Recipe, learning_rate: float, steps: int) -> None:
        self.parameters = parameters
        self.masters = [torch.nn.Parameter(p.detach().float().clone()) for p in parameters]
        self.recipe = recipe
        self.optimiser = torch.optim.AdamW(
            self.masters, lr=learning_rate, weight_decay=0.0, fused=parameters[0].is_cuda or None
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, learning_rate_of(recipe, steps))

    def step(self, scaler: torch.amp.GradScaler) -> None:
        exact: list[Tensor] = []
        given: list[Tensor] = []
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = torch.empty_like(master) if master.grad is None else master.grad
            exact.append(master.grad)
            given.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            parameter.grad = None
        torch._foreach_copy_(exact, given)
        scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.masters, self.recipe.max_grad_norm)
        scaler.step(self.optimiser)
        scaler.update()
        self.schedule.step()
        with torch.no_grad():
            torch._foreach_copy_([*self.parameters], [*self.masters])

    def tensors(self) -> dict[str, Tensor]:
        """What the next step depends on, by names such as "3.exp_avg"."""
        found = {f"{number}.master": master.detach() for number, master in enumerate(self.masters)}
        for number, state in self.optimiser.state_dict()["state"].items():
            found |= {f"{number}.{name}": value for name, value in state.items()}
        return found

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Stand where `tensors` were taken, after so many steps."""
        state: dict[int, dict[str, Tensor]] = {number: {} for number in range(len(self.masters))}
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            state[int(number)][name] = value
        with torch.no_grad():
            for parameter, master, own in zip(self.parameters, self.masters, state.values(), strict=True):
                master.copy_(own.pop("master"))
                parameter.copy_(master)
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.schedule.last_epoch = steps
        for group, base, factor in zip(
            self.optimiser.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(steps)


def learning_rate_of(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """The factor on the learning rate at each step: up over the warm-up, then down to 0 at the end."""
    warm_up = round(recipe.warm_up * steps)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        left = 1 - (step - warm_up) / max(1, steps - warm_up)
        return {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[recipe.schedule]

    return factor


def batches(rows: Sequence[Row], recipe: Recipe) -> list[list[int]]:
    """The rows of every step of every epoch, in an order that depends on the seed alone."""
    dice = random.Random(recipe.seed)
    size = recipe.pairs_a_step(len(rows))
    plan = []
    for _ in range(recipe.epochs):
        order = list(range(len(rows)))
        dice.shuffle(order)
        if recipe.batching == "bucketed":
            order.sort(key=lambda index: len(rows[index]["input_ids"]))
        epoch = [order[at : at + size] for at in range(0, len(order), size)]
        dice.shuffle(epoch)
        plan += epoch
    return plan


def parts_of(chosen: list[Row], recipe: Recipe, limit: int) -> list[list[Row]]:
    """A step's rows, cut where activations of more than `limit` tokens would be held at once."""
    longest = recipe.max_tokens if recipe.batching == "padded" else max(len(row["input_ids"]) for row in chosen)
    parts: list[list[Row]] = [[]]
    filled = 0
    for row in chosen:
        size = len(row["input_ids"]) if recipe.batching == "packed" else longest
        if parts[-1] and filled + size > limit:
            parts.append([])
            filled = 0
        parts[-1].append(row)
        filled += size
    return parts


def save(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, directory: Path) -> None:
    """adapter_model.safetensors, adapter_config.json, tokenizer files and recipe.json."""
    cast(Any, model).save_pretrained(directory)
    # PEFT writes its set of modules in an order that differs between processes, and the digest covers this file.
    config_file = directory / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["target_modules"].sort()
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's template; the round writes its own card
    tokenizer.save_pretrained(directory)
    text = json.dumps(recipe.to_mapping(), indent=2) + "\n"
    (directory / "recipe.json").write_text(text, encoding="utf-8")


def peak_rss_gib() -> float:
    """The most memory that this process held so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20), 2)


def progress_line(progress: Progress) -> str:
    return json.dumps({key: round(value, 4) for key, value in asdict(progress).items()})
