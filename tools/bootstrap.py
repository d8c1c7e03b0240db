"""Makes .venv beside the project, installs into it what a command needs, and runs the command there.

Standard library only: this is what a fresh machine starts with.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"


def inside_venv() -> bool:
    """Whether this Python is the project's own."""
    return Path(sys.prefix).resolve() == VENV.resolve()


def run_in_venv(script: Path, requirements: list[list[str]], arguments: list[str]) -> int:
    """Install each list of requirements with pip into .venv (in that order) and run ``script`` there."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is the file that tells it
        print(f"lineside needs Python 3.11 or newer; this is {sys.version.split()[0]}", file=sys.stderr)
        print("install a newer Python and start this command with it", file=sys.stderr)
        return 2
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making {VENV}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    for names in requirements:
        print(f"installing {' '.join(names)}", flush=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *names]
        if subprocess.run(pip, cwd=ROOT, check=False).returncode:
            print(f"pip could not install {' '.join(names)}", file=sys.stderr)
            print("the first set-up needs a package index; in a plant, point pip at your mirror", file=sys.stderr)
            return 2
    return subprocess.run([str(python), str(script), *arguments], cwd=ROOT, check=False).returncode
