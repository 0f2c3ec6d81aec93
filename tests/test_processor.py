"""What is known of a processor without torch is what torch knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serving import processor
from serving.engine import arguments
from serving.processor import has_bf16
from trainer.lora import working_dtype
from trainer.recipe import DEFAULT


def test_bf16_is_quick_where_torch_has_products_for_it() -> None:
    assert has_bf16() == torch.ops.mkldnn._is_mkldnn_bf16_supported()


@pytest.mark.parametrize(
    ("flags", "quick"),
    [
        ("avx avx2 fma", False),
        ("avx2 avx512f avx512bw avx512vl avx512dq", True),
        ("avx2 avx_ne_convert", True),
        ("asimd bf16", True),
        ("", False),
    ],
)
def test_flags_tell(flags: str, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_flags", flags.split)
    assert has_bf16.__wrapped__() is quick


def test_without_it_rounds_and_engine_compute_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for quick, name, dtype in ((False, "float32", torch.float32), (True, "bfloat16", torch.bfloat16)):
        monkeypatch.setattr("serving.engine.has_bf16", lambda quick=quick: quick)
        monkeypatch.setattr("trainer.lora.has_bf16", lambda quick=quick: quick)
        monkeypatch.setattr("serving.engine.has_cpu_build", lambda: True)
        assert f"--dtype {name}" in " ".join(arguments("model", Path("engine.sock")))
        assert working_dtype(DEFAULT, cpu) is dtype
        assert working_dtype(DEFAULT, gpu) is torch.bfloat16
