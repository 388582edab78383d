"""Build the book from the committed notebooks, without the network; a warning is an error.

    python tools/book.py                  -> book/_build/html/index.html
    python tools/book.py --allow-stale    while you write: pages with outputs older than the code get a banner

Without that option a page never shows an output that is older than the code: the build refuses it.
The pages ask no other host for anything: MathJax comes from an installed package, and the rest of the theme is local.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import badges
import chapter_files
import landing
import nbformat
import print_book
import yaml

from course_lib.experiments import measuring, records

ROOT = Path(__file__).resolve().parent.parent


def assemble(pages: Path, chapters: Path, target: Path) -> None:
    """Lay pages and notebooks (with outputs, without their sources) side by side in one folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pages, target, ignore=shutil.ignore_patterns("_build", ".*"))
    shutil.copytree(chapters, target / "notebooks",
                    ignore=shutil.ignore_patterns("*.md", "*.py", ".*", "__pycache__", "contents.ipynb", "*.toml"))


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


RESULTS = """# Results

Every number that a chapter calls measured, from the files in `data/results`. Each row is a way to train ("arm"): the
mean over its seeds with the 95 % interval of the mean, and the paired difference to the first row. "No difference
shown" means that the interval of the difference contains zero. The chapters say what the arms are and why. Where an
experiment has claims, each row is a claim that was written down before the runs; its interval counts other seeds and
other test sentences, and is wider the more claims the table has (Holm's correction).
"""


def results_page() -> str:
    """The page of all measured numbers: one table per experiment, its first measure, against its first arm."""
    parts = [RESULTS]
    for name in measuring.names():
        path = ROOT / "data" / "results" / f"{name}.json"
        chapter = re.match(r"[a-z]+\d+", name)[0]  # "ch01few" belongs to chapter 1
        sources = list((ROOT / "notebooks").glob(f"{chapter}_*.md"))
        if not path.exists() or not sources:
            continue  # a draft: its numbers enter the book with its chapter
        record = records.load(name)
        parts += [f"## {title_of(sources[0])}", record["about"],
                  f"`{record['command']}` · {record['where']['hardware']} · torch {record['where']['torch']}",
                  claims_table(record) if "predictions" in record else arms_table(record)]
    return "\n\n".join(parts) + "\n"


def arms_table(record: dict) -> str:
    """One row per arm: its mean, and its difference to the first arm, over seeds."""
    measure = next(key for key in record["runs"][0] if key not in ("arm", "seed"))
    lines = records.summary(record["experiment"], measure, next(iter(record["arms"])))
    rows = "\n".join(row_of(line) for line in lines)
    return f"| arm | {measure} | difference to the first row | |\n|---|---|---|---|\n{rows}"


def claims_table(record: dict) -> str:
    """One row per claim: what was predicted, and the gain in points with its corrected interval."""
    words = {"+": "better", "-": "worse", "0": "no difference"}
    rows = [f"| {p['claim']} | {p['arm']} | {p['baseline']} | {words[p['sign']]} | "
            "{:+.1f} [{:+.1f}, {:+.1f}]".format(*p["gain"]) + f" | {p['verdict']} |" for p in record["predictions"]]
    return ("| claim | arm | baseline | predicted | gain, points | verdict |\n|---|---|---|---|---|---|\n"
            + "\n".join(rows))


def title_of(source: Path) -> str:
    """The title of a chapter's page, as a link to it."""
    heading = next(line for line in source.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return f"[{heading[2:]}](notebooks/{source.stem}.ipynb)"


def row_of(line) -> str:
    """One arm as a row of a table."""
    measured, difference, verdict = line.measured, "", ""
    if line.gain:
        interval, verdict = line.gain.interval, line.gain.verdict
        difference = f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"| {line.arm} | {measured.mean:.2f} [{measured.low:.2f}, {measured.high:.2f}] | {difference} | {verdict} |"


def speed_page() -> str:
    """The page of sizes, times and memory, from what `make bench` measured."""
    from course_lib.experiments.speed import page, record

    return page.page(record.load())


LIBRARY = """# The library

Every public function and class of `course_lib`, with its shapes, units, errors and source. This page is made from the
docstrings. In a notebook, `show(function)` shows the code itself.
"""
# Answers to exercises, measurements, mistakes and the grader are no reference.
NOT_SHOWN = tuple(f"course_lib.{package}." for package in (
    "notebook.exercises", "experiments", "mistakes"))


def library_page() -> str:
    """The reference of the library, from signatures and docstrings (read as text; nothing is imported)."""
    parts = [LIBRARY]
    files = [file for file in (ROOT / "course_lib").rglob("*.py") if not file.name.startswith("_")]
    for file in sorted(files, key=lambda file: (len(file.parts), file)):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        module = ast.parse(file.read_text(encoding="utf-8"))
        entries = [entry_of(node) for node in module.body
                   if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
        if entries and not name.startswith(NOT_SHOWN):
            about = (ast.get_docstring(module) or "").partition("\n\n")[0].replace("\n", " ")
            parts += [f"## `{name}`", f"``{about}``" if set(about) & set("$<_*") else about, *entries]
    return "\n\n".join(parts) + "\n"


def entry_of(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Signature and docstring of one function or class, as a block of plain text."""
    head = f"class {node.name}"
    if isinstance(node, ast.FunctionDef):
        head = f"{node.name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    signature = textwrap.fill(head, 100, subsequent_indent=" " * 8)
    docstring = textwrap.indent(ast.get_docstring(node) or "", "    ")
    return f"### `{node.name}`\n\n````text\n{signature}\n\n{docstring}\n````"


def sections(file: str, title: str, *headings: str) -> str:
    """Sections of a file of the repository as a page of the book: written once, read in both places.

    Raises: ValueError for a heading that the file does not have (any more).
    """
    text, parts = (ROOT / file).read_text(encoding="utf-8"), [f"# {title}"]
    for heading in headings:
        _, found, rest = text.partition(f"## {heading}\n")
        if not found:
            raise ValueError(f"{file} has no section '{heading}'; tools/book.py makes the page '{title}' of it.")
        parts.append(f"## {heading}\n\n" + rest.partition("\n## ")[0].strip())
    return "\n\n".join(parts) + "\n"


def scaling_page() -> str:
    """The page on several processes, with its table of memory."""
    from course_lib.distill.memory import table

    return (ROOT / "book" / "scaling.md").read_text(encoding="utf-8").replace("<!-- MEMORY -->", table())


def generated() -> dict[str, str]:
    """The pages that are made from the repository itself: name of the file -> text."""
    return {"deviations.md": deviations(), "results.md": results_page(), "library.md": library_page(),
            "speed.md": speed_page(), "scaling.md": scaling_page(),
            "add_a_paper.md": sections("CONTRIBUTING.md", "Add a method or a chapter", "Add a method in an hour",
                                       "Add a chapter in a week"),
            "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}


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


def run_sphinx(source: Path, parent: Path) -> int:
    """Build the folder `source` into `parent`/_build. Returns 0 if there was no warning."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source),
               "--path-output", str(parent), "--all", "--warningiserror", "--keep-going", "--quiet"]
    return subprocess.run(command, cwd=parent, check=False).returncode


def build(pages: Path, chapters: Path, output: Path, stale: dict[str, str] | None = None) -> int:
    """Write `output`/html; `stale` pages get a banner. Returns the exit status of Sphinx: 0 if there was no warning."""
    source = output / "src"
    assemble(pages, chapters, source)
    for name, reason in (stale or {}).items():
        if (notebook := source / "notebooks" / f"{name}.ipynb").exists():
            put_banner(notebook, reason)
    for name, text in generated().items():
        (source / name).write_text(text, encoding="utf-8")
    settings = yaml.safe_load((source / "_config.yml").read_text(encoding="utf-8"))
    (source / "_config.yml").write_text(yaml.safe_dump(badges.config(settings), allow_unicode=True), encoding="utf-8")
    landing.write(source)
    status = run_sphinx(source, output.parent)
    if (output / "html").exists():
        add_mathjax(output / "html")
    if status == 0:
        single = print_book.single_page(output / "html", pages / "_toc.yml")
        print(print_book.pdf(single, output / "course-book.pdf") or f"printed: {output / 'course-book.pdf'}")
        print_book.pack(output / "html", output / "course-book.zip")
    return status


def stale_pages() -> dict[str, str]:
    """The pages whose outputs are older than what they depend on: name of the notebook -> what changed."""
    pages = [path for path in chapter_files.sources([]) if path.stem != "contents"]
    reasons = {path.stem: chapter_files.why_stale(path) for path in pages}
    return {name: reason for name, reason in reasons.items() if reason}


BANNER = """:::{{warning}}
The outputs of this page are older than the code: {reason}. `make notebooks` runs the chapter again.
:::"""


def put_banner(notebook: Path, reason: str) -> None:
    """Say at the top of a page that its numbers may be old."""
    page = nbformat.read(notebook, as_version=4)
    named = re.sub(r"\S*[/_]\S*\w", r"`\g<0>`", reason)
    page.cells.insert(1, nbformat.v4.new_markdown_cell(BANNER.format(reason=named), id="stale"))
    nbformat.write(page, notebook)


def main(arguments: list[str]) -> int:
    started = time.monotonic()
    stale = stale_pages()
    if stale and "--allow-stale" not in arguments:
        for name, reason in stale.items():
            print(f"{name}.ipynb shows outputs that are older than the code: {reason}. Run `make notebooks`.",
                  file=sys.stderr)
        return 1
    output = ROOT / "book" / "_build"
    status = build(ROOT / "book", ROOT / "notebooks", output, stale)
    if status == 0:
        print(f"book built in {time.monotonic() - started:.0f} s: {output / 'html' / 'index.html'}"
              + (f"; {len(stale)} pages carry a banner because they are stale" if stale else ""))
    else:
        print("The book has errors or warnings; they stand above.", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
