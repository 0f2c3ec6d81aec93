"""Metrics of plain text files, one output a line. Run: python -m evals metrics --hyp FILE --ref FILE [--ref FILE …]"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evals import metrics
from evals.overlap import ROUGE, Reading
from serving.records import CopydeskError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, empty ones too, since the place of a line says which output it is.

    Raises:
        CopydeskError: the file is missing, holds nothing, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CopydeskError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise CopydeskError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8.") from error
    if not text.strip():
        raise CopydeskError(f"{path} is empty; it needs one output a line.")
    # Not str.splitlines, which also splits at U+2028 and its like inside an output.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def file_metrics(hypotheses: Path, references: Sequence[Path]) -> dict[str, float | int | str]:
    """Every metric of a file against one reference file or more, line by line; a line may lack some references.

    Raises:
        CopydeskError: a file cannot be used, or the files do not match.
    """
    texts = read_lines(hypotheses)
    columns = [read_lines(path) for path in references]
    for path, column in zip(references, columns, strict=True):
        if len(column) != len(texts):
            raise CopydeskError(
                f"{path} has {len(column)} lines, {hypotheses} has {len(texts)}; line n of one belongs to line n "
                "of the other."
            )
    rows = [[text for text in row if text.strip()] for row in zip(*columns, strict=True)]
    for number, row in enumerate(rows, start=1):
        if not row:
            raise CopydeskError(f"Line {number} has no reference; remove the line everywhere, or give it one.")
    quality = metrics.quality(texts, rows)
    return {
        "n": len(texts),
        "bleu": quality.values["bleu"],
        "signature": quality.signatures["bleu"],
        **{name: quality.values[name] for name in (*ROUGE, "chrf")},
        "distinct1": metrics.distinct(texts, 1),
        "distinct2": metrics.distinct(texts, 2),
        "self_bleu": metrics.self_bleu([Reading(text).words for text in texts]),
    }
