"""What this machine's processor computes well."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# As oneDNN asks, through which torch and vLLM multiply: any of these sets of flags; the last one is ARM's.
_BF16 = ({"avx512bw", "avx512vl", "avx512dq"}, {"avx_ne_convert"}, {"bf16"})


@cache
def has_bf16() -> bool:
    """Whether products of bf16 are quick. Elsewhere, as on most laptops, they take many times as long as in fp32."""
    return any(needed <= set(_flags()) for needed in _BF16)


def _flags() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
