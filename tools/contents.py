"""Write every table of chapters from one file, notebooks/chapters.toml, between two marks in each page.

    python tools/contents.py            write them
    python tools/contents.py --check    only say which page is out of date

The pages: book/index.md, book/_toc.yml, notebooks/contents.md (with its .ipynb) and README.md. Title and minutes are
read from the chapter itself. A chapter is in the tables exactly when notebooks/<file>.md exists.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blocks import with_block

ROOT = Path(__file__).resolve().parent.parent
LEVELS = "Level 1: begin here. Level 2: wants chapter 1. Level 3: puts several losses together."


@dataclass(frozen=True)
class Entry:
    """One chapter or lab: a row of chapters.toml, and what its text says about itself."""

    file: str
    title: str
    minutes: int
    paper: str
    cite: str
    can: str
    level: int

    @property
    def is_lab(self) -> bool:
        return self.file.startswith("lab")


def entries(root: Path = ROOT) -> list[Entry]:
    """The chapters that exist, in the order of the file. Raises: SystemExit where row and chapter do not fit."""
    rows = tomllib.loads((root / "notebooks" / "chapters.toml").read_text(encoding="utf-8"))["chapter"]
    here = {path.stem for path in (root / "notebooks").glob("*.md") if path.stem.startswith(("ch", "lab"))}
    without = sorted(here - {row["file"] for row in rows})
    if without:
        raise SystemExit(f"notebooks/{without[0]}.md has no row in notebooks/chapters.toml: write one.")
    return [entry(row, root) for row in rows if row["file"] in here]


def entry(row: dict, root: Path) -> Entry:
    text = (root / "notebooks" / f"{row['file']}.md").read_text(encoding="utf-8")
    title = re.search(r"^# (.+)$", text, flags=re.M)
    minutes = re.search(r"\*\*Time:\*\* (\d+) minutes", text)
    if not (title and minutes):
        raise SystemExit(f"notebooks/{row['file']}.md must have a title '# ...' and a line '**Time:** N minutes'.")
    return Entry(row["file"], title[1], int(minutes[1]), row["paper"], row.get("cite", ""), row["can"], row["level"])


def table(head: str, rows: list[str]) -> str:
    return "\n".join([head, re.sub(r"[^|]+", "---", head), *rows])


# --- What each page shows --------------------------------------------------------------------------------------------


def landing(found: list[Entry]) -> str:
    def card(e: Entry) -> str:
        paper = f"{{cite:t}}`{e.cite}`" if e.cite else e.paper[0].upper() + e.paper[1:]
        return (f":::{{grid-item-card}} [{e.title}](notebooks/{e.file}.ipynb)\n:class-card: front-card {e.file}\n\n"
                f"{paper}.\nAfterwards you can {e.can}.\n\n{e.minutes} minutes · level {e.level}\n:::")

    def grid(lab: bool) -> str:
        return "\n\n".join(["::::{grid} 1 2 2 3\n:gutter: 2", *(card(e) for e in found if e.is_lab is lab), "::::"])

    return "\n\n".join(["## Chapters", grid(False), LEVELS, "## Failure labs", grid(True)])


def contents(found: list[Entry]) -> str:
    chapters, labs = ([f"| [{e.title}]({e.file}.ipynb) | {e.paper} | {e.minutes} | {e.level} |"
                       for e in found if e.is_lab is lab] for lab in (False, True))
    return "\n\n".join([table("| chapter | paper | minutes | level |", chapters), LEVELS,
                        table("| failure lab | about | minutes | level |", labs)])


def readme(found: list[Entry]) -> str:
    return table("| chapter | paper | minutes | level |",
                 [f"| {e.title} | {e.paper} | {e.minutes} | {e.level} |" for e in found]) + f"\n\n{LEVELS}"


def side_bar(found: list[Entry]) -> str:
    lines = []
    for caption, lab in (("Chapters", False), ("Failure labs", True)):
        lines += [f"  - caption: {caption}", "    numbered: false", "    chapters:"]
        lines += [f"      - file: notebooks/{e.file}" for e in found if e.is_lab is lab]
    return "\n".join(lines)


PAGES: dict[str, Callable[[list[Entry]], str]] = {
    "book/index.md": landing, "notebooks/contents.md": contents, "README.md": readme, "book/_toc.yml": side_bar}


# --- Writing ---------------------------------------------------------------------------------------------------------


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Each page as it should be."""
    found = entries(root)
    return {root / name: with_block(name, (root / name).read_text(encoding="utf-8"), make(found))
            for name, make in PAGES.items()}


def out_of_date(root: Path = ROOT) -> list[str]:
    """One sentence for every page that differs from what chapters.toml gives."""
    return [f"{path.relative_to(root)}: the table of chapters is not what notebooks/chapters.toml gives: "
            "run `make contents`" for path, text in pages(root).items() if path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        old = out_of_date()
        print("\n".join(old) or "every table of chapters is up to date")
        return 1 if old else 0
    import chapter_files

    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: written")
    chapter_files.carry_text(ROOT / "notebooks" / "contents.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
