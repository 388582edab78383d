"""What makes a stored chapter sound: its size, its outputs, what nbval compares, text for every picture."""

from __future__ import annotations

import importlib.util
import re
import statistics
from functools import cache
from types import ModuleType

from chapter_files import ROOT, is_plumbing, is_setup
from nbformat import NotebookNode

MIN_COMPARED = 5
MEDIAN_LINES, LONG_LINES, LONG_SHARE = 8, 25, 0.10
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}
COLUMNS = 80  # of code; a page of the book shows as many on a laptop, and JupyterLab beside its file list


def widget_errors(notebook: NotebookNode) -> list[str]:
    """Errors that sit in the stored state of a widget (an Output widget keeps what its callback raised)."""
    found = []
    for saved in notebook.metadata.get("widgets", {}).values():
        for model in saved.get("state", {}).values():
            for output in model.get("state", {}).get("outputs", []) or []:
                if output.get("output_type") == "error":
                    found.append(f"{output.get('ename')}: {output.get('evalue')}")
    return found


def is_compared(cell: NotebookNode) -> bool:
    """Whether nbval compares something here: text is stored, and no tag takes the cell out."""
    if cell.cell_type != "code" or NOT_COMPARED & set(cell.metadata.get("tags", [])) or is_setup(cell):
        return False
    return any((output.output_type == "stream" and output.name == "stdout" and output.text.strip())
               or (output.output_type in ("execute_result", "display_data")
                   and any(kind.startswith("text/") and not str(text).startswith("<Figure")
                           for kind, text in output.data.items()))
               for output in cell.outputs)


@cache
def comparison() -> ModuleType:
    """notebooks/conftest.py, which says how outputs are compared: pytest finds it there, others load it from here."""
    spec = importlib.util.spec_from_file_location("notebook_comparison", ROOT / "notebooks" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lint(notebook: NotebookNode, setup: str) -> list[str]:
    """Everything that makes a stored chapter unsound, one sentence each."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    problems = _lint_size(code) + [f"a widget's callback raised {error}" for error in widget_errors(notebook)]
    starts = [cell for cell in code if is_setup(cell)]
    if len(starts) != 1 or code[0] is not starts[0] or starts[0].source != setup:
        problems.append("the first code cell is not the setup cell that all notebooks share: run `make stamp`")
    compared = sum(is_compared(cell) for cell in code)
    if compared < MIN_COMPARED:
        problems.append(f"only {compared} cells store text that nbval compares; {MIN_COMPARED} are the least")
    for number, cell in enumerate(code):
        problems += [f"code cell {number}: {problem}" for problem in _lint_outputs(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(r"!\[\s*\]\(", cell.source):
            problems.append("a picture in the text has no alt text: write ![what it shows](file)")
    return problems


def lint_columns(notebook: NotebookNode) -> list[str]:
    """Lines of code that are cut off beside a page's margin, one sentence each."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [f"code cell {number}: {len(line)} columns, {COLUMNS} are the most: {line.strip()[:40]} ..."
            for number, cell in enumerate(code) for line in cell.source.splitlines() if len(line) > COLUMNS]


def lint_plumbing(notebook: NotebookNode) -> list[str]:
    """Code that carries a page and teaches nothing, but is not folded: one sentence each."""
    problems = []
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        carries = is_setup(cell) or "plots.picture(" in cell.source
        if carries and not is_plumbing(cell):
            problems.append(f"code cell {number}: plumbing that is not folded; give it the tag hide-input")
    return problems


def _lint_size(code: list[NotebookNode]) -> list[str]:
    lines = [len(cell.source.splitlines()) for cell in code if not is_plumbing(cell)] or [0]
    problems = []
    if statistics.median(lines) > MEDIAN_LINES:
        problems.append(f"the median code cell has {statistics.median(lines):g} lines; {MEDIAN_LINES} are the most")
    too_long = sum(count > LONG_LINES for count in lines) / len(lines)
    if too_long > LONG_SHARE:
        problems.append(f"{too_long:.0%} of the code cells exceed {LONG_LINES} lines; {LONG_SHARE:.0%} are the most")
    return problems


def _lint_outputs(cell: NotebookNode) -> list[str]:
    problems = []
    try:  # here, and not only when nbval comes to the cell, a quarter of an hour into the tests
        comparison().tolerance_of(cell.metadata.get("tags", []))
    except ValueError as slip:
        problems.append(str(slip))
    for output in cell.outputs:
        if output.output_type == "error" and not {"raises-exception", "nbval-raises-exception"} & set(
                cell.metadata.get("tags", [])):
            problems.append(f"it stores the error {output.ename}")
        data = output.get("data", {})
        pictures = [kind for kind in data if kind.startswith("image/")]
        if pictures:
            problems.append(f"a bare {pictures[0]} carries no alt text: end the cell with plots.picture(figure, alt)")
        html = re.sub(r"<(script|style)\b.*?</\1>", "", data.get("text/html", ""), flags=re.DOTALL)
        for tag in re.findall(r"<img\b[^>]*>", html):
            if not re.search(r"""\balt=(?:"[^"]*[^"\s]|'[^']*[^'\s])""", tag):
                problems.append("an <img> without alt text")
        for tag in re.findall(r"<svg\b[^>]*>", html):
            if not re.search(r"aria-label(?:ledby)?=|aria-hidden=[\"']true|role=[\"'](?:presentation|none)", tag):
                problems.append("an <svg> without aria-label (or aria-hidden, if a table says the same)")
    return problems
