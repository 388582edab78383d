"""Build the book from the committed notebooks, without the network; a warning is an error.

    python tools/book.py        -> book/_build/html/index.html

The pages ask no other host for anything: MathJax comes from an installed package, and the rest of the theme is local.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def assemble(pages: Path, notebooks: Path, target: Path) -> None:
    """Lay pages and notebooks (with outputs, without their sources) side by side in one folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pages, target, ignore=shutil.ignore_patterns("_build", ".*"))
    shutil.copytree(notebooks, target / "notebooks",
                    ignore=shutil.ignore_patterns("*.md", "*.py", ".*", "__pycache__", "contents.ipynb"))


DEVIATIONS = """# Paper and code

Where the code that people copy computes something else than its paper, the library offers both under one name
(`as_in="paper"` or `as_in="code"`, or a named knob). These tables stand in the docstrings of `course_lib/methods`, and
this page is made from them.
"""


def deviations() -> str:
    """The page of all deviation tables, taken from the docstrings (read as text; nothing is imported)."""
    parts = [DEVIATIONS]
    for file in sorted((ROOT / "course_lib" / "methods").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        title, _, rest = docstring.partition("\n")
        _, heading, table = rest.partition("## Deviations of the original code\n")
        if heading:
            name = title.split(":")[0].rstrip(".")
            parts.append(f"## {name}\n\nIn `course_lib.methods.{file.stem}`.\n\n{table.strip()}\n")
    return "\n".join(parts)


def add_mathjax(html: Path) -> None:
    """Copy MathJax into the built pages. Not before: every script in the book's own _static is loaded by every page."""
    import jupyter_server_mathjax

    def other_languages(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder).name == "localization" and name != "en"]

    shutil.copytree(Path(jupyter_server_mathjax.__file__).parent / "static", html / "_static" / "mathjax",
                    ignore=other_languages, dirs_exist_ok=True)
    # Two style rules name fonts that are not in the package; each would be a failed request on every page.
    bundle = html / "_static" / "mathjax" / "config" / "TeX-AMS-MML_HTMLorMML-full.js"
    text = bundle.read_text(encoding="utf-8")
    bundle.write_text(text.replace("url('about:blank')", "local('none')")
                      .replace("""url('"+n+"/MathJax_""", """local('"+n+"/MathJax_"""), encoding="utf-8")


def build(pages: Path, notebooks: Path, output: Path) -> int:
    """Write `output`/html. Returns the exit status of Sphinx: 0 if there was no warning."""
    source = output / "src"
    assemble(pages, notebooks, source)
    (source / "deviations.md").write_text(deviations(), encoding="utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source),
               "--path-output", str(output.parent), "--all", "--warningiserror", "--keep-going", "--quiet"]
    status = subprocess.run(command, cwd=output.parent, check=False).returncode
    if (output / "html").exists():
        add_mathjax(output / "html")
    return status


def note_stale() -> None:
    """Say which pages show outputs that are older than the code."""
    sys.path.insert(0, str(ROOT / "tools"))
    import notebooks

    for path in notebooks.sources([]):
        reason = notebooks.why_stale(path)
        if reason:
            print(f"note: {path.stem} shows outputs from before this change: {reason}")


def main() -> int:
    started = time.monotonic()
    note_stale()
    output = ROOT / "book" / "_build"
    status = build(ROOT / "book", ROOT / "notebooks", output)
    if status == 0:
        print(f"book built in {time.monotonic() - started:.0f} s: {output / 'html' / 'index.html'}")
    else:
        print("The book has errors or warnings; they stand above.", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
