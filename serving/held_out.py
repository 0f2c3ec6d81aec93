"""What no round may learn: the briefs and references of the evaluation suites, as digests.

The trainer does not know the suites (evals and trainer stand side by side), so their keys lie here, written by
`python -m evals keys`; a test compares them with the suites.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from functools import cache

from serving.prompt import brief_key, normalised
from serving.records import CopydeskError, Task

FILE = "suite_keys.txt"
KEY = 16  # hex digits of a key


def key_of_brief(task: Task) -> str:
    return brief_key(task)[:KEY]


def key_of_text(text: str) -> str:
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:KEY]


@cache
def suite_keys() -> frozenset[str]:
    """Raises CopydeskError when the keys are not there: without them nothing may train."""
    try:
        keys = (importlib.resources.files("serving") / FILE).read_text(encoding="ascii").split()
    except OSError as error:
        raise CopydeskError(f"serving/{FILE} cannot be read ({error}); install Copydesk again.") from error
    if not keys:
        raise CopydeskError(f"serving/{FILE} is empty; install Copydesk again.")
    return frozenset(keys)
