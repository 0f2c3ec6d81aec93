"""Make .venv and install the complete list for this machine. Run: python3 requirements/install.py [gpu|cpu]

Does nothing, in well under a second, when that was done before. Uses the standard library alone: it runs first.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed"
PYTHONS = ((3, 11), (3, 13))
NEEDED_GB = 8


def main() -> None:
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        found = ".".join(map(str, sys.version_info[:2]))
        fail(f"Python 3.11, 3.12 or 3.13 is needed, this is {found}. Name another one: make PYTHON=python3.12 …")
    # Named where an image is built, which sees its GPU only when it runs.
    kind = sys.argv[1] if sys.argv[1:] in (["gpu"], ["cpu"]) else "gpu" if shutil.which("nvidia-smi") else "cpu"
    listing = ROOT / "requirements" / f"{kind}.txt"
    if STAMP.exists() and STAMP.read_text() == fingerprint(listing):
        return
    free_gb = shutil.disk_usage(ROOT).free >> 30
    if free_gb < NEEDED_GB:
        fail(f"{NEEDED_GB} GB of disk are needed at {ROOT}, {free_gb} GB are free. Free some space and run it again.")
    print(f"Installing {listing.relative_to(ROOT)} into .venv, once; this takes some minutes.", file=sys.stderr)
    STAMP.unlink(missing_ok=True)
    run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        "The virtual environment was not made; on Debian and Ubuntu: apt install python3-venv",
    )
    torch = next(line.split()[0] for line in listing.read_text().splitlines() if line.startswith("torch=="))
    if "+cpu" in torch and not pip("--no-deps", torch, quiet=True):
        # PyTorch's CPU builds are on an index of PyTorch's own, which uv knows.
        need(pip("uv"), "uv")
        command = [python(), "-m", "uv", "pip", "install", "--python", python(), "--no-deps", "--torch-backend", "cpu"]
        run([*command, torch], f"{torch} was not found. Is there a network? Then run it again.")
    need(pip("--no-deps", "-r", str(listing)), listing.name)
    need(pip("--no-deps", "--no-build-isolation", "-e", str(ROOT)), "copydesk")
    STAMP.write_text(fingerprint(listing))


def python() -> str:
    return str(VENV / "bin" / "python")


def pip(*arguments: str, quiet: bool = False) -> bool:
    # Without byte-compiling: the few modules that are used compile as they are imported.
    command = [python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *arguments]
    return subprocess.run(command, stderr=subprocess.DEVNULL if quiet else None).returncode == 0


def need(done: bool, what: str) -> None:
    if not done:
        fail(f"{what} was not installed (the lines above say why). Check network and disk, then run it again.")


def run(command: list[str], problem: str) -> None:
    if subprocess.run(command).returncode:
        fail(problem)


def fingerprint(listing: Path) -> str:
    """What was installed, for which Python, into which folder."""
    parts = [listing.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def fail(problem: str) -> None:
    sys.exit(problem)


if __name__ == "__main__":
    main()
