"""Everything a change must pass: `python3 tools/check.py`.

Sets up .venv (with torch for the small training tests) and runs lint, format, types and tests there.  What it is given
goes on to pytest, for example `python3 tools/check.py -k golden`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.bootstrap import inside_venv, run_in_venv  # noqa: E402

# torch first and alone: this release has a small CPU build, where the newest would bring gigabytes of CUDA.
REQUIREMENTS = [["torch==2.13.0"], ["-e", ".[dev,train,openvino]"]]
STEPS = (
    ("lint", ["ruff", "check", "."]),
    ("format", ["ruff", "format", "--check", "."]),
    ("types", ["mypy"]),
    ("tests", ["pytest", "-q"]),
)


def check(arguments: list[str]) -> int:
    """Run every step; returns 1 when one failed."""
    failed = []
    for name, command in STEPS:
        print(f"--- {name}: {' '.join(command)}", flush=True)
        extra = arguments if name == "tests" else []
        if subprocess.run([sys.executable, "-m", *command, *extra], cwd=ROOT, check=False).returncode:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all checks passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if inside_venv():
        sys.exit(check(sys.argv[1:]))
    sys.exit(run_in_venv(Path(__file__), REQUIREMENTS, sys.argv[1:]))
