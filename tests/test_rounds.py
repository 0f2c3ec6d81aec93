"""A round that is killed, cancelled, starved of memory or of its data, on a tiny model of the real architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import EXACT, starter_data
from transformers import PreTrainedTokenizerBase

from trainer import lora
from trainer.checkpoint import Checkpoints, Moment
from trainer.lora import Progress

pytestmark = pytest.mark.usefixtures("one_thread")


class PulledPlugError(Exception):
    pass


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_fit_that_is_taken_up_again_ends_in_the_same_bytes(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, precision: str, dropout: float
) -> None:
    recipe = replace(EXACT, precision=precision, dropout=dropout, epochs=3, batch_pairs=2, warm_up=0.3)
    file = tmp_path / "checkpoint.safetensors"

    def trained(
        checkpoints: Checkpoints | None = None, until: int | None = None
    ) -> tuple[lora.Fit, list[torch.Tensor]]:
        def pull(progress: Progress) -> None:
            if progress.step == until:
                raise PulledPlugError

        model = lora.load_model(str(tiny_model), recipe)
        fitted = lora.fit(model, starter_data(tokenizer), recipe, 2, pull, checkpoints)
        return fitted, [p.detach() for p in model.parameters() if p.requires_grad]

    whole, expected = trained()
    for until in (4, 8):
        with pytest.raises(PulledPlugError):
            trained(Checkpoints(file, "same", every_s=0), until)
    resumed, found = trained(Checkpoints(file, "same", every_s=0))
    assert resumed.losses == whole.losses
    assert resumed.tokens == whole.tokens
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_checkpoint_of_another_round_or_a_torn_one_is_not_taken_up(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    assert Checkpoints(file, "one").take_up() is None
    Checkpoints(file, "one").save(Moment([0.5], 7, 1.0), {"0.master": torch.ones(3)})
    moment, tensors = Checkpoints(file, "one").take_up() or pytest.fail("no checkpoint")
    assert moment == Moment([0.5], 7, 1.0)
    assert tensors["0.master"].tolist() == [1, 1, 1]
    assert Checkpoints(file, "other").take_up() is None
    file.write_bytes(file.read_bytes()[:-9])
    assert Checkpoints(file, "one").take_up() is None
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
