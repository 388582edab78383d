"""Write the two version files from the environment that runs this: what was tested is what everyone gets.

    python tools/lock.py            write constraints.txt and environment.yml
    python tools/lock.py --conda    write environment.yml from constraints.txt alone
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"

HEADER = """\
# The exact versions that the course is tested with. `make lock` writes this file from .venv; do not edit it.
# To try newer ones: make clean; pip install -e .[dev] in a fresh .venv without -c; make lock; make test.
# torch stands here without "+cpu": a machine with an NVIDIA card takes the default build, all others the small one.
"""


def pins(freeze: str) -> list[str]:
    """Keep the plain `name==version` lines; drop our own package and torch's local version."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s+]+)(?:\+\S+)?$", freeze, flags=re.M)
    return [f"{name}=={version}" for name, version in sorted(found, key=lambda pin: normal(pin[0]))
            if normal(name) not in {"course-lib", "pip"}]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_names(project: dict) -> list[str]:
    """The packages that pyproject.toml asks for, in its order."""
    asked = project["dependencies"] + project["optional-dependencies"]["dev"]
    return [re.match(r"[A-Za-z0-9_.-]+", requirement)[0] for requirement in asked]


def environment_yml(constraints: str, project: dict) -> str:
    """The conda file: conda brings Python, pip brings the same versions as everywhere else."""
    version = {normal(pin.split("==")[0]): pin.split("==")[1] for pin in pins(constraints)}
    lines = [f"      - {name}=={version[normal(name)]}" for name in direct_names(project)]
    return "\n".join([
        "# With conda: conda env create -f environment.yml; conda activate distilling-bert; jupyter lab notebooks",
        "# Written by `make lock` from pyproject.toml and constraints.txt; a test fails when they disagree.",
        "name: distilling-bert", "channels:", "  - conda-forge", "dependencies:", f"  - python={PYTHON}", "  - pip",
        "  - pip:", "      - --constraint constraints.txt", *lines, "      - --editable .", ""])


def main(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    path = ROOT / "constraints.txt"
    if "--conda" not in arguments:
        # --all: plain freeze leaves out setuptools, which torch needs at run time
        command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
        freeze = subprocess.run(command, check=True, text=True, capture_output=True).stdout
        path.write_text(HEADER + "\n".join(pins(freeze)) + "\n")
    (ROOT / "environment.yml").write_text(environment_yml(path.read_text(), project))


if __name__ == "__main__":
    main(sys.argv[1:])
