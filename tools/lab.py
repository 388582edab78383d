"""Open JupyterLab on the contents page; without a screen, print the address instead.

    python tools/lab.py [--port N] [more JupyterLab options]

Nothing here asks the network: no news, no update check. The list of files shows each chapter once: its text source
(.md) is hidden.
"""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = "lab/tree/notebooks/contents.ipynb"
HIDDEN = ("__pycache__", "*.pyc", "*.pyo", ".DS_Store", "*~",  # what Jupyter hides anyway
          "ch[0-9][0-9]_*.md", "lab[0-9]_*.md", "contents.md", "chapters.toml", "conftest.py")


def has_screen(environment: dict[str, str] = os.environ, system: str | None = None) -> bool:
    """Whether opening a browser makes sense: not over ssh, not in a container, not on a server."""
    if "SSH_CONNECTION" in environment:
        return False
    if (system or platform.system()) == "Linux":
        return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
    return True


def free_port(first: int = 8888) -> int:
    """The first port from `first` on that nobody listens on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise SystemExit("All ports from 8888 to 8987 are in use: close an old JupyterLab and try again.")


def trust_own_notebooks() -> None:
    """Sign the committed notebooks, so that their explorers are alive before the first cell is run."""
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notary.sign(nbformat.read(path, as_version=4))


def port_and_rest(options: list[str]) -> tuple[int, list[str]]:
    """The port that was asked for, or a free one; and the other options, which are JupyterLab's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    parser.add_argument("--port", "--ServerApp.port", type=int, metavar="N",
                        help="default: the first free one from 8888")
    asked, rest = parser.parse_known_args(options)
    return asked.port or free_port(), rest


def main(options: list[str]) -> None:
    port, rest = port_and_rest(options)
    token = os.environ.setdefault("JUPYTER_TOKEN", secrets.token_hex(16))
    show = has_screen()
    trust_own_notebooks()
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}", f"--port={port}",
               "--ServerApp.port_retries=0", "--log-level=WARN", f"--LabApp.default_url=/{START}",
               "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += [f"--ContentsManager.hide_globs={pattern}" for pattern in HIDDEN]
    command += [] if show else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    print(f"\nJupyterLab: http://localhost:{port}/{START}?token={token}\n"
          f"{'Your browser opens it.' if show else 'No screen here: open this address in a browser.'} "
          "Stop it with Ctrl-C.\n", flush=True)
    os.chdir(ROOT)
    os.execv(sys.executable, command + rest)


if __name__ == "__main__":
    main(sys.argv[1:])
