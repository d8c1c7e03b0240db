"""Makes a folder from which a station computer without a network installs: `python -m tools.wheelhouse OUT --extras modbus`.

It holds a wheel of lineside and of every package it needs, `requirements.txt` with the SHA-256 of each, `SHA256SUMS` for
`sha256sum -c`, and `release.sh`, which installs, updates and goes back (deploy/install.md).  The wheels fit the Python and
the kind of machine that this runs on.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("inspection", "datasets", "training", "tools")
FILES = ("pyproject.toml", "README.md", "LICENSE")
EXTRAS = ("modbus",)
PIP_LIMIT_S = 1800


def make(out: Path, extras: tuple[str, ...] = EXTRAS) -> list[Path]:
    """Fill the new folder ``out``; the wheels in it.  CalledProcessError when pip could not get or build one."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    if unknown := sorted(set(extras) - set(known)):
        raise SystemExit(f"no extra is called {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        own = _pip("wheel", "--no-deps", "--wheel-dir", str(out), str(_source(Path(folder) / "lineside")), out=out)
        wanted = f"{own[0]}[{','.join(extras)}]" if extras else str(own[0])
        wheels = _pip("wheel", "--wheel-dir", str(out), wanted, out=out)
    sums = {wheel.name: _sha256(wheel) for wheel in wheels}
    lines = [f"{_requirement(name, extras)} --hash=sha256:{digest}" for name, digest in sums.items()]
    (out / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy2(ROOT / "deploy" / "release.sh", out / "release.sh")
    listed = {**sums, **{name: _sha256(out / name) for name in ("requirements.txt", "release.sh")}}
    (out / "SHA256SUMS").write_text("".join(f"{d}  {name}\n" for name, d in listed.items()), encoding="utf-8")
    return wheels


def installed_mb(environment: Path) -> float:
    """What a virtual environment takes on disk, in MB of 10^6 bytes, links not followed."""
    files = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def environment_variables() -> dict[str, str]:
    """Ours, without what would let another installation shine through."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _source(to: Path) -> Path:
    """A copy of what the wheel is made of: a build in place would leave its remains in the checkout, and pick up old ones."""
    to.mkdir()
    for name in FILES:
        shutil.copy2(ROOT / name, to / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def _pip(*arguments: str, out: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=PIP_LIMIT_S, env=environment_variables())
    return sorted(out.glob("*.whl"))


def _requirement(wheel: str, extras: tuple[str, ...]) -> str:
    name, version = wheel.split("-")[:2]
    name = re.sub(r"[-_.]+", "-", name).lower()
    chosen = f"[{','.join(extras)}]" if name == "lineside" and extras else ""
    return f"{name}{chosen}=={version}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Parse, make, print the result as JSON."""
    parser = argparse.ArgumentParser(description="Make a folder for installation without a network.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; must not exist")
    parser.add_argument(
        "--extras", default=",".join(EXTRAS), help="extras of lineside, comma between (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} exists already; give a new folder")
    wheels = make(args.out, tuple(filter(None, args.extras.split(","))))
    size_mb = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    print(json.dumps({"folder": str(args.out), "wheels": len(wheels), "mb": round(size_mb, 1)}))


if __name__ == "__main__":
    main()
