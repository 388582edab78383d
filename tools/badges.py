"""The repository's address on the pages: badges in the README, launch links and buttons in the book.

    python tools/badges.py     write the blocks of README.md and book/index.md again (`make stamp` does it)

The address stands in one place, [project.urls] Repository in pyproject.toml. Without one, there are no dead buttons:
the blocks are empty and the book has none. Only the README shows pictures of other hosts; the book shows plain links.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from blocks import with_block

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "main"
FIRST = "notebooks/ch00_start_here.ipynb"
COLAB, BINDER = "https://colab.research.google.com", "https://mybinder.org"


def address(root: Path = ROOT) -> str:
    """The repository's address without a slash at its end, or an empty text. Raises: SystemExit if it is no https."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = project.get("urls", {}).get("Repository", "").rstrip("/")
    if found and (urlsplit(found).scheme != "https" or not urlsplit(found).netloc):
        raise SystemExit(f"[project.urls] Repository in pyproject.toml must begin with https://, and is {found}.")
    return found


def launchers(repository: str, notebook: str = FIRST) -> dict[str, str]:
    """Where a notebook runs without a computer of one's own: name -> address. Both know repositories on GitHub only."""
    name = urlsplit(repository).path.strip("/").removesuffix(".git")
    if urlsplit(repository).netloc != "github.com":
        return {}
    return {"Colab": f"{COLAB}/github/{name}/blob/{BRANCH}/{notebook}",
            "Binder": f"{BINDER}/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{notebook}"}


def readme(root: Path = ROOT) -> str:
    pictures = {"Colab": f"{COLAB}/assets/colab-badge.svg", "Binder": f"{BINDER}/badge_logo.svg"}
    return " ".join(f"[![Open in {name}]({pictures[name]})]({to})" for name, to in launchers(address(root)).items())


def landing(root: Path = ROOT) -> str:
    repository = address(root)
    links = [f"[open chapter 0 in {name}]({to})" for name, to in launchers(repository).items()]
    return "Without installing: " + " · ".join([*links, f"[the repository]({repository})"]) + "." if repository else ""


def config(settings: dict, root: Path = ROOT) -> dict:
    """The settings of the book, with the buttons that the address allows."""
    repository = address(root)
    if not repository:
        return settings
    launch = {"colab_url": COLAB, "binderhub_url": BINDER} if launchers(repository) else {}
    sphinx = settings["sphinx"]["config"]
    # Sphinx takes these options as they stand; Jupyter Book's own words for them would be overruled.
    options = sphinx["html_theme_options"] | {
        "repository_url": repository, "repository_branch": BRANCH, "path_to_docs": "", "use_repository_button": True,
        "launch_buttons": launch | {"notebook_interface": "jupyterlab"}}
    return settings | {"sphinx": settings["sphinx"] | {"config": sphinx | {"html_theme_options": options}}}


def pages(root: Path = ROOT) -> dict[Path, str]:
    """The pages that show the address, as they should be."""
    return {root / name: with_block(name, (root / name).read_text(encoding="utf-8"), make(root),
                                             "address", "make stamp")
            for name, make in (("README.md", readme), ("book/index.md", landing))}


def out_of_date(root: Path = ROOT) -> list[str]:
    return [f"{path.relative_to(root)}: its links do not fit the address in pyproject.toml: run `make stamp`"
            for path, text in pages(root).items() if path.read_text(encoding="utf-8") != text]


def main() -> int:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
