"""What goes beside an adapter for people: a card and the loss as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.records import Round
from trainer.recipe import Recipe


def card(round: Round, recipe: Recipe, facts: dict[str, Any], base: str) -> str:
    """The model card in Markdown; `facts` are those of the round's row."""
    rows = {
        "base model": base,
        "recipe": f"{recipe.name}: r={recipe.rank}, α={recipe.alpha}, {', '.join(recipe.targets)}",
        "learning rate": f"{facts['learning_rate']:.2g}, {recipe.schedule}",
        "steps": f"{facts['steps']} in {recipe.epochs} epochs",
        "trainable": f"{facts['trainable']:,} parameters ({facts['trainable_share']:.2%})",
        "pairs": f"{facts['pairs']} (sha256 of the pairs: `{round.data_digest}`)",
        "tokens": f"{facts['tokens']:,} in {facts['seconds']:,.0f} s ({facts['tokens_per_s']:,.0f} a second)",
        "loss": f"{facts['loss_first']:.3f} at the first step, {facts['loss_last']:.3f} at the end",
        "seed": str(recipe.seed),
        "made with": ", ".join(f"{name} {version}" for name, version in facts["packages"].items()),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"---\nlibrary_name: peft\npipeline_tag: text-generation\ntags: [lora, copydesk]\n---\n\n"
        f"# {round.version}\n\nA LoRA adapter that writes product copy in a team's style. Copydesk trained it on "
        f"the team's instruction-output pairs in round {round.id}.\n\n| | |\n|---|---|\n{table}\n\n"
        f"![Loss by step](loss.png)\n"
    )


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
