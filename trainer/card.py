"""What goes beside an adapter for people: a card in the Hub's format and the loss as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from serving.card import Card
from serving.records import Round
from serving.shares import with_interval
from trainer.recipe import Recipe

PIPELINE = "text-generation"


def card(
    round: Round,
    recipe: Recipe,
    facts: dict[str, Any],
    digest: str,
    scores: Card | None = None,
    *,
    merged: bool = False,
) -> str:
    """The model card in Markdown.

    Args:
        facts: those of the round's row.
        digest: of the adapter's files, as it is registered.
        scores: the version's newest scorecard.
        merged: the weights are a whole model rather than an adapter.
    """
    base = facts["base"]
    data = ModelCardData(
        base_model=base["name"],
        base_model_relation="finetune" if merged else "adapter",
        library_name="transformers" if merged else "peft",
        pipeline_tag=PIPELINE,
        license=base["license"],
        language=facts["languages"],
        tags=["copydesk"] if merged else ["lora", "copydesk"],
        model_name=round.version,
        eval_results=_results(scores) if scores else None,
    )
    rows = {
        "base model": f"{base['name']}, revision `{base['revision']}`",
        "licence of the base": base["license"],
        "recipe": f"{recipe.name}: r={recipe.rank}, α={recipe.alpha}, {', '.join(recipe.targets)}",
        "learning rate": f"{facts['learning_rate']:.2g}, {recipe.schedule}",
        "steps": f"{facts['steps']} in {recipe.epochs} epochs",
        "trainable": f"{facts['trainable']:,} parameters ({facts['trainable_share']:.2%})",
        "pairs": f"{facts['pairs']}, {len(facts['skipped'])} left out: "
        + ", ".join(f"{count} {category}" for category, count in facts["categories"].items()),
        **_preferences(facts),
        "digest of the data": f"sha256 `{round.data_digest}`",
        "digest of the adapter": f"sha256 `{digest}`",
        "tokens": f"{facts['tokens']:,} in {facts['seconds']:,.0f} s ({facts['tokens_per_s']:,.0f} a second)",
        "loss": f"{facts['loss_first']:.3f} at the first step, {facts['loss_last']:.3f} at the end",
        "seed": str(recipe.seed),
        "made with": ", ".join(f"{name} {version}" for name, version in facts["packages"].items()),
    }
    kind = "A model" if merged else "A LoRA adapter"
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {round.version}\n\n{kind} that writes product copy in a team's style. "
        f"Copydesk trained it on the team's instruction-output pairs in round {round.id}.\n\n{_table(rows)}\n\n"
        f"{_scores(scores) if scores else ''}![Loss by step](loss.png)\n"
    )


def _preferences(facts: dict[str, Any]) -> dict[str, str]:
    heard = facts.get("judgements")
    if not heard:
        return {}
    drafts = ", ".join(f"{len(ids)} {name}" for name, ids in heard.items())
    return {"then preferences": f"{drafts} drafts, learning rate {facts['preference_rate']:.2g}"}


def _table(rows: dict[str, str]) -> str:
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _scores(scores: Card) -> str:
    arm = scores.candidate
    rows = {
        "verdict": f"{scores.verdict} against {scores.baseline}",
        "suite": f"{scores.suite} `{scores.suite_digest[:12]}`, {scores.items} briefs, seed {scores.seed}",
        "excellent": with_interval(arm.excellent, scores.bar),
        **{metric.name: f"{metric.value:.2f}" for metric in arm.metrics},
    }
    return f"## Scores\n\n{_table(rows)}\n\n"


def _results(scores: Card) -> list[EvalResult]:
    values = {"excellent": scores.candidate.excellent.share, **{m.name: m.value for m in scores.candidate.metrics}}
    return [
        EvalResult(
            task_type=PIPELINE,
            dataset_type="copydesk-suite",
            dataset_name=f"Copydesk suite {scores.suite}",
            dataset_revision=scores.suite_digest,
            metric_type=name,
            metric_value=round(value, 4),
        )
        for name, value in values.items()
    ]


def draw_losses(losses: Sequence[float], path: Path) -> None:
    """The loss of every step, and its running mean of ten."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(losses) + 1)
    means = [sum(losses[max(0, at - 10) : at]) / len(losses[max(0, at - 10) : at]) for at in steps]
    axes.plot(steps, losses, color="#9ab", linewidth=1, label="step")
    axes.plot(steps, means, color="#14508c", linewidth=2, label="mean of ten")
    axes.set(xlabel="step", ylabel="loss per answer token (nats)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
