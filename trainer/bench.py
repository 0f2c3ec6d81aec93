"""How fast a round is. Run: python -m trainer.bench, or on a machine with a GPU: python -m trainer.bench --gpu

On several GPUs: torchrun --nproc-per-node 2 -m trainer.bench --gpu.

Here: the article's recipe, TRL's trainer and ours, on the same starter pairs with the embedded model, each in a process
of its own. On a GPU: the shape of Llama-2-7B with random weights and 512 made-up pairs, since speed and memory do not
depend on what the numbers say. One JSON line a recipe on standard output; tokens are real ones, padding is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

PAIRS = 64  # here; the article's recipe takes two minutes for them on two cores
PAIRS_GPU = 512
EPOCHS_GPU = 5
WARM_STEPS = 4  # kernels load and memory is laid out in the first ones
SHAPE_7B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a round is.")
    parser.add_argument("--gpu", action="store_true", help="the table of docs/performance.md, on one NVIDIA GPU")
    parser.add_argument("--short", action="store_true", help="with --gpu: the all-linear recipe only")
    parser.add_argument("--profile", type=Path, help="with --gpu: write where a step's time goes")
    parser.add_argument("--only", help="this alone, or ours:RECIPE; with --gpu those whose name holds it")
    arguments = parser.parse_args()
    if arguments.gpu:
        on_gpus(arguments)
    elif arguments.only:
        print(json.dumps({"recipe": arguments.only, **here(arguments.only)}), flush=True)
    else:
        for name in ("article", "trl", "ours"):
            subprocess.run([sys.executable, "-m", "trainer.bench", "--only", name], check=True)


def on_gpus(arguments: argparse.Namespace) -> None:
    from trainer.group import joined

    with joined(os.environ) as group:
        for name, settings in gpu_cases(arguments.short):
            if arguments.only and arguments.only not in name:
                continue
            try:
                figures = on_gpu(settings, group, arguments.profile if name == "all-linear r16" else None)
            except (RuntimeError, ImportError) as error:
                if group.size > 1:  # the others wait for this one
                    raise
                figures = {"failed": str(error).splitlines()[0][:200]}
            if group.rank == 0:
                print(json.dumps({"recipe": name, **figures}), flush=True)


def here(name: str) -> dict[str, Any]:
    """One recipe on the embedded model; the model is loaded before the clock starts."""
    from transformers.utils import logging

    from serving.model import base_model_path
    from serving.settings import read_settings
    from trainer.lora import peak_rss_gib

    logging.disable_progress_bar()
    base = base_model_path(read_settings())
    others = {"article": with_article, "trl": with_trl}
    figures = others[name](base) if name in others else with_ours(base, name.removeprefix("ours:"))
    return {**figures, "peak_gib": peak_rss_gib()}


def pairs_here() -> list[Any]:
    from serving.exchange import starter_pairs

    return list(starter_pairs("en"))[:PAIRS]


def with_ours(base: str, recipe_name: str) -> dict[str, Any]:
    from datasets import Dataset

    from trainer import lora
    from trainer.dataset import TrainingData
    from trainer.objective import Objective
    from trainer.recipe import recipe_named

    recipe = replace(recipe_named("default" if recipe_name == "ours" else recipe_name), epochs=1, min_steps=0)
    tokenizer, rows = rows_here(base)
    data = TrainingData((), Dataset.from_list(rows), (), 0, 0)
    fitted = lora.fit(Objective(lora.load_model(base, recipe), recipe, tokenizer.pad_token_id or 0), data)
    return {"real_tok_s": round(fitted.tokens / fitted.seconds, 1), "loss": round(fitted.losses[-1], 3)}


def with_article(base: str) -> dict[str, Any]:
    """The article's settings in transformers' own trainer, as it was published: its fp16 is fp32 on a CPU. The labels,
    which it forgets, are the answers, so that the losses can be compared."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from trainer.dataset import IGNORED
    from trainer.recipe import ARTICLE

    tokenizer, rows = rows_here(base)
    width, pad = ARTICLE.max_tokens, tokenizer.pad_token_id or 0
    padded = [
        {
            "input_ids": row["input_ids"] + [pad] * (width - len(row["input_ids"])),
            "attention_mask": [1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])),
            "labels": row["labels"] + [IGNORED] * (width - len(row["labels"])),
        }
        for row in rows
    ]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapter = LoraConfig(
        r=ARTICLE.rank, lora_alpha=ARTICLE.alpha, target_modules=list(ARTICLE.targets), lora_dropout=ARTICLE.dropout
    )

    def made(settings: dict[str, Any]) -> Any:
        arguments = TrainingArguments(
            **settings, per_device_train_batch_size=ARTICLE.batch_pairs, learning_rate=ARTICLE.learning_rate
        )
        return Trainer(get_peft_model(model, adapter), arguments, train_dataset=padded)

    return trained(made, sum(len(row["input_ids"]) for row in rows))


def with_trl(base: str) -> dict[str, Any]:
    """TRL's trainer in bf16 with the default recipe's adapter and its own defaults for the rest."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from serving.processor import has_bf16
    from serving.prompt import task_messages
    from trainer.recipe import DEFAULT

    tokenizer, rows = rows_here(base)
    turns = [[*task_messages(pair.task), {"role": "assistant", "content": pair.output}] for pair in pairs_here()]
    quick = has_bf16()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if quick else torch.float32)
    adapter = LoraConfig(r=DEFAULT.rank, lora_alpha=DEFAULT.alpha, target_modules=list(DEFAULT.targets))

    def made(settings: dict[str, Any]) -> Any:
        return SFTTrainer(
            model,
            args=SFTConfig(**settings, bf16=quick, learning_rate=DEFAULT.learning_rate),
            train_dataset=Dataset.from_list([{"prompt": turn[:-1], "completion": turn[-1:]} for turn in turns]),
            processing_class=tokenizer,
            peft_config=adapter,
        )

    return trained(made, sum(len(row["input_ids"]) for row in rows))


def rows_here(base: str) -> tuple[Any, list[dict[str, list[int]]]]:
    """The tokenizer, and the pairs as tokens."""
    from trainer import lora
    from trainer.dataset import end_token, row_of

    tokenizer = lora.load_tokenizer(base)
    end = end_token(tokenizer)
    return tokenizer, [row_of(pair.task, pair.output, tokenizer, end) for pair in pairs_here()]


def trained(make: Callable[[dict[str, Any]], Any], tokens: int) -> dict[str, Any]:
    """One epoch with a trainer of others."""
    from transformers import PrinterCallback

    with tempfile.TemporaryDirectory() as folder:
        settings = {"num_train_epochs": 1, "use_cpu": True, "report_to": "none", "save_strategy": "no"}
        trainer = make({"output_dir": folder, "logging_steps": 1, "disable_tqdm": True, **settings})
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"real_tok_s": round(tokens / seconds, 1), "loss": round(losses[-1], 3)}


def gpu_cases(short: bool) -> list[tuple[str, dict[str, Any]]]:
    """Name, and what differs from the default recipe and from all of the card's memory."""
    if short:
        return [("all-linear r16", {"batch_pairs": 64})]
    narrow = {"rank": 8, "targets": ("q_proj", "v_proj")}
    return [
        ("q+v r8", {"batch_pairs": 128, **narrow}),
        ("all-linear r16", {"batch_pairs": 104}),
        ("all-linear r16, batch 64", {"batch_pairs": 64}),
        ("all-linear r16, batch 16", {"batch_pairs": 16}),
        ("all-linear r16, in 16 GiB", {"batch_pairs": 64, "limit_gib": 15.5}),
        ("all-linear r16, 4-bit base, in 8 GiB", {"batch_pairs": 64, "bits": 4, "limit_gib": 7.5}),
    ]


def on_gpu(settings: dict[str, Any], group: Any, profile: Path | None) -> dict[str, Any]:
    """Tokens are of all processes, memory is of one."""
    import gc

    import torch
    from datasets import Dataset

    from trainer import lora
    from trainer.dataset import TrainingData
    from trainer.objective import Objective
    from trainer.plan import memory_plan as plain
    from trainer.recipe import DEFAULT

    limit = settings.pop("limit_gib", None)
    recipe = replace(DEFAULT, epochs=EPOCHS_GPU, min_steps=0, max_tokens=512, **settings)
    gc.collect()
    torch.cuda.empty_cache()
    objective = Objective(model_7b(recipe), recipe, 0)
    rows = made_up_pairs()
    data = TrainingData((), Dataset.from_list(rows), (), 0, 0)
    if limit:
        # The plan is made for a card of this size: what the weights leave of it.
        setattr(lora, "memory_plan", limited(limit, plain))  # noqa: B010
    torch.cuda.reset_peak_memory_stats()
    times: list[tuple[float, float]] = []
    plans: list[Any] = []

    def told(progress: Any) -> None:
        times.append((time.perf_counter(), progress.loss))

    fitted = lora.fit(objective, data, told, group=group, on_plan=plans.append)
    if limit:
        setattr(lora, "memory_plan", plain)  # noqa: B010
    sizes = [sum(len(rows[index]["input_ids"]) for index in batch) for batch in lora.batches(rows, recipe)]
    seconds = times[-1][0] - times[WARM_STEPS - 1][0]
    figures = {
        "real_tok_s": round(sum(sizes[WARM_STEPS:]) / seconds),
        "with_start_tok_s": round(fitted.tokens / fitted.seconds),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "loss": round(times[-1][1], 3),
        "steps": len(times),
        "processes": group.size,
        "memory": asdict(plans[0]),
        "device": torch.cuda.get_device_name(),
    }
    if profile:
        write_profile(objective, rows[: recipe.batch_pairs], profile)
    return figures


def limited(gib: float, plan: Any) -> Any:
    import torch

    def planned(*arguments: Any, **options: Any) -> Any:
        return plan(*arguments, **options, free=int(gib * 2**30) - torch.cuda.memory_allocated())

    return planned


def made_up_pairs(seed: int = 1) -> list[dict[str, list[int]]]:
    """Pairs of 40 to 400 tokens, 115 on average, half prompt and half answer."""
    import random

    dice = random.Random(seed)
    rows = []
    for _ in range(PAIRS_GPU):
        length = min(400, max(40, round(dice.lognormvariate(4.64, 0.5))))
        ids = [dice.randrange(3, 32000) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    return rows


def model_7b(recipe: Any) -> Any:
    """The shape with random weights, a fresh adapter, and the base in as many bits as the recipe says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32000, dtype=torch.bfloat16, **SHAPE_7B)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    for parent in list(model.modules()):
        for name, linear in list(parent.named_children()):
            if isinstance(linear, torch.nn.Linear) and recipe.bits == 4 and name != "lm_head":
                setattr(parent, name, four_bit(linear))
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                weight = torch.empty(parameter.shape, dtype=torch.bfloat16, device="cuda")
                filled = weight.normal_(std=0.02) if weight.ndim == 2 else weight.fill_(1)
                module._parameters[name] = torch.nn.Parameter(filled, requires_grad=False)
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to("cuda")
    adapter = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(recipe.targets), task_type="CAUSAL_LM"
    )
    peft = get_peft_model(model, adapter, autocast_adapter_dtype=False)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(device="cuda", dtype=torch.bfloat16)
    return peft


def four_bit(linear: Any) -> Any:
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    shape = (linear.out_features, linear.in_features)
    packed = Linear4bit(
        shape[1], shape[0], bias=False, compute_dtype=torch.bfloat16, compress_statistics=False, quant_type="nf4"
    )
    weight = torch.randn(shape, dtype=torch.bfloat16, device="cuda") * 0.02
    packed.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=False)
    return packed.to("cuda")


def write_profile(objective: Any, rows: list[dict[str, list[int]]], path: Path) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        objective(rows).sum().backward()
        torch.cuda.synchronize()
    table = seen.key_averages().table(sort_by="cuda_time_total", row_limit=40, max_name_column_width=70)
    path.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
