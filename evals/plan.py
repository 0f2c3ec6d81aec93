"""What one scorecard asks for: which items, how often, drawn how. The same plan holds for both arms."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from evals.suite import Item, Suite
from serving.client import Sampling
from serving.lengths import tokens_for
from serving.records import Task

FOLLOWING, STABILITY = "following", "stability"
# At least: people's Chinese texts take up to 183 tokens, and a text that was cut is judged as it ends.
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=256)


@dataclass(frozen=True)
class Call:
    """One generation."""

    item: Item
    part: str
    repeat: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.item.id, self.part, self.repeat


@dataclass(frozen=True)
class Plan:
    """Attributes:
    items: how many briefs the following part draws, each asked once.
    briefs: how many briefs the stability part draws, each asked `repeats` times.
    seed: draws the briefs and the bootstraps. Requests carry none.
    """

    suite: Suite
    items: int = 20
    briefs: int = 10
    repeats: int = 5
    seed: int = 1
    sampling: Sampling = SAMPLING

    def following(self) -> tuple[Item, ...]:
        return self.suite.draw(self.items, self.seed, FOLLOWING)

    def stability(self) -> tuple[Item, ...]:
        return self.suite.draw(self.briefs, self.seed, STABILITY)

    def calls(self) -> list[Call]:
        return [Call(item, FOLLOWING, 0) for item in self.following()] + [
            Call(item, STABILITY, repeat) for item in self.stability() for repeat in range(self.repeats)
        ]

    def sampling_for(self, task: Task) -> Sampling:
        """A brief that asks for more gets more, as a draft does."""
        return replace(self.sampling, max_tokens=tokens_for(task, self.sampling.max_tokens))

    def key(self, base_model: str) -> str:
        """What stored samples can be used again for: this suite's bytes, this sampling, this base model."""
        longer = {self.sampling_for(item.task).max_tokens for item in self.suite.items} - {self.sampling.max_tokens}
        facts = json.dumps([self.suite.digest, asdict(self.sampling), base_model, *sorted(longer)], sort_keys=True)
        return f"{self.suite.name}@{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
