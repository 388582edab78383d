"""Chapters have one source, notebooks/*.md (jupytext, md:myst); this makes the executed .ipynb from it, one way only.

    python tools/notebooks.py build [--all] [ch01 ...]   run the stale chapters (or all, or the named ones)
    python tools/notebooks.py check                      .md and .ipynb are the same chapter, and the chapter is sound
    python tools/notebooks.py stale                      list the chapters whose outputs are older than the code
    python tools/notebooks.py stamp                      write the setup cell into every chapter, with the address

The same source gives the same bytes: fixed cell ids, no times, no random ids, no progress bars.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import statistics
import sys
import time
from datetime import datetime
from functools import cache
from pathlib import Path
from types import ModuleType

import badges
import contents
import freshness
import jupytext
import nbformat
from nbformat import NotebookNode

from course_lib.notebook import NO_BARS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
FORMAT = "md:myst"

MIN_COMPARED = 5
MEDIAN_LINES, LONG_LINES, LONG_SHARE = 8, 25, 0.10
# The kernel would add the version of this machine's Python.
METADATA = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}
COLUMNS = 80  # of code; a page of the book shows as many on a laptop, and JupyterLab beside its file list
PLUMBING = {"hide-input", "hide-cell", "remove-input", "remove-cell"}  # MyST-NB's words
START = "from course_lib.notebook import start"


# --- The setup cell ------------------------------------------------------------------------------------------------


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook: it starts the course, and without the library it knows the way to it.

    With an address ([project.urls] Repository in pyproject.toml) it installs from there. Without one it can only say
    what to do; a SystemExit shows its text alone, no traceback.
    """
    address = badges.address(root)
    install = [f"    %pip install -q git+{address}", f"    {START}"] if address else [
        '    raise SystemExit("""The course is not installed here. In Colab: click on the',
        "folder icon at the left, upload course_lib-*.whl, and run in a new code cell",
        "this line: %pip install course_lib-*.whl",
        'Then run this cell again.""")']
    return "\n".join([f"try: {START}", "except ImportError:", *install, "start()"])


def is_setup(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and START in cell.source


def is_plumbing(cell: NotebookNode) -> bool:
    """Whether the book and JupyterLab fold the code of this cell."""
    return bool(PLUMBING & set(cell.metadata.get("tags", [])))


# --- From text to executed notebook --------------------------------------------------------------------------------


def sources(names: list[str]) -> list[Path]:
    """The chapters' texts, all of them or those whose name starts with one of `names`."""
    found = sorted(FOLDER.glob("*.md"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise SystemExit(f"There is no chapter '{name}' in notebooks/.")
    return [path for path in found if not names or any(path.name.startswith(name) for name in names)]


def read_source(path: Path) -> NotebookNode:
    """Read the text as a notebook without outputs, with cell ids made from the content.

    A cell whose code the book hides behind a click is folded in JupyterLab too.
    """
    notebook = jupytext.read(path, fmt=FORMAT)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = "setup" if is_setup(cell) else hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        if is_plumbing(cell):
            cell.metadata["jupyter"] = nbformat.from_dict({"source_hidden": True})
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: NotebookNode, folder: Path = FOLDER) -> NotebookNode:
    """Run all cells in a fresh kernel. Raises: CellExecutionError, or RuntimeError if a widget swallowed an error."""
    if not any(cell.cell_type == "code" for cell in notebook.cells):
        return notebook
    from nbclient import NotebookClient

    os.environ.update(NO_BARS)
    # Another front end on this machine may have chosen a backend; chapters draw inline.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=True,
                            resources={"metadata": {"path": str(folder)}})
    client.execute()
    tell_slow_cells(notebook)
    notebook.metadata.update(nbformat.from_dict(METADATA))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = canonical_outputs(cell.outputs)
    return canonical_ids(notebook)


def tell_slow_cells(notebook: NotebookNode, count: int = 3) -> None:
    """Print where the time went: a chapter that is too slow is mended in its slowest cells."""
    def seconds(cell: NotebookNode) -> float:
        times = cell.metadata.get("execution", {})
        began, ended = (datetime.fromisoformat(times.get(name, "1970-01-01")) for name in (
            "iopub.execute_input", "shell.execute_reply"))
        return (ended - began).total_seconds()

    for cell in sorted((c for c in notebook.cells if c.cell_type == "code"), key=seconds, reverse=True)[:count]:
        print(f"    {seconds(cell):5.1f} s  {cell.source.strip().splitlines()[-1][:90]}")


def canonical_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join streams, drop stderr and bars, mask addresses, cut tracebacks: nothing may change from run to run."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                if "Traceback (most recent call last)" in output.text:
                    raise RuntimeError(f"An error hides in stderr:\n{output.text}")
                said = re.sub(r".*\r", "", output.text).strip()
                if said:
                    print(f"    not stored, stderr: {said[:300]}")
                continue
            output.text = masked(re.sub(r"[^\n]*\r(?!\n)", "", output.text))
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        elif output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        else:
            for kind, text in output.data.items():
                if isinstance(text, str) and kind.startswith("text/"):
                    output.data[kind] = masked(text)
        kept.append(output)
    return kept


def masked(text: str) -> str:
    return re.sub(r"\b0x[0-9a-f]{6,}\b", "0x…", text)


def canonical_ids(notebook: NotebookNode) -> NotebookNode:
    """Give widgets numbers in their order of creation; a widget whose callback failed stops the build."""
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    failed = widget_errors(notebook)
    if failed:
        raise RuntimeError(f"A widget's callback raised {failed[0]}; the page would look fine and be dead.")
    text = nbformat.writes(notebook)
    for number, model in enumerate(state):
        text = text.replace(model, f"{number:032x}")
    return nbformat.reads(text, as_version=4)


def widget_errors(notebook: NotebookNode) -> list[str]:
    """Errors that sit in the stored state of a widget (an Output widget keeps what its callback raised)."""
    found = []
    for saved in notebook.metadata.get("widgets", {}).values():
        for model in saved.get("state", {}).values():
            for output in model.get("state", {}).get("outputs", []) or []:
                if output.get("output_type") == "error":
                    found.append(f"{output.get('ename')}: {output.get('evalue')}")
    return found


# --- Is it fresh? --------------------------------------------------------------------------------------------------


def fingerprint(path: Path, root: Path = ROOT) -> dict[str, str]:
    """What a chapter's outputs depend on: part -> digest, where a part is "chapter", "versions" or a file.

    The text of the setup cell is left out: it changes with the address only. What it imports counts.
    """
    cells = read_source(path).cells
    said = [f"{cell.cell_type}\0{cell.metadata.get('tags', [])}\0{cell.source}" for cell in cells if not is_setup(cell)]
    chapter = {"chapter": freshness.digest("\0".join(said).encode())}
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    if not code:
        return chapter
    return {**chapter, "versions": freshness.versions(root),
            **freshness.digests(freshness.depends_on(code, root), root)}


def why_stale(path: Path, root: Path = ROOT) -> str:
    """An empty text if the .ipynb is as new as everything it depends on; otherwise what changed."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return "never built"
    stored, now = nbformat.read(target, as_version=4).metadata.get("course", {}), fingerprint(path, root)
    changed = [part for part in dict.fromkeys([*now, *stored]) if stored.get(part) != now.get(part)]
    named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return f"{named} changed" if changed else ""


# --- Checks --------------------------------------------------------------------------------------------------------


def inputs(notebook: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(cell.cell_type, cell.source.rstrip(), tuple(cell.metadata.get("tags", []))) for cell in notebook.cells]


def drift(path: Path) -> str:
    """An empty text if the .md and the .ipynb hold the same cells; otherwise the first difference."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return f"{target.name} is missing: run `make notebooks`"
    text, stored = inputs(read_source(path)), inputs(nbformat.read(target, as_version=4))
    for number, (a, b) in enumerate(zip(text, stored, strict=False)):
        if a != b:
            return (f"cell {number} differs: {path.name} has {_short(a)}, {target.name} has {_short(b)}. The .md is "
                    "the source: put the change there and run `make notebooks`")
    if len(text) != len(stored):
        return f"{path.name} has {len(text)} cells, {target.name} has {len(stored)}: run `make notebooks`"
    return ""


def _short(cell: tuple[str, str, tuple[str, ...]]) -> str:
    kind, source, tags = cell
    first = source.splitlines()[0][:60] if source else ""
    return f"{kind} {first!r}" + (f" {list(tags)}" if tags else "")


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


# --- Commands ------------------------------------------------------------------------------------------------------


def build(names: list[str], everything: bool) -> int:
    failed = 0
    for path in sources(names):
        reason = why_stale(path)
        if not (reason or everything or names):
            print(f"{path.stem}: up to date")
            continue
        print(f"{path.stem}: running ({reason or 'asked for'}) ...", flush=True)
        started, before = time.monotonic(), fingerprint(path)
        try:
            notebook = execute(read_source(path))
        except Exception as error:  # one broken chapter must not keep the others from being built
            failed += 1
            print(f"{path.stem}: NOT written\n{error}", file=sys.stderr)
            continue
        notebook.metadata["course"] = before
        write(notebook, path.with_suffix(".ipynb"))
        print(f"{path.stem}: written after {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def write(notebook: NotebookNode, target: Path) -> None:
    """Write whole or not at all: a build that is killed leaves the old notebook."""
    nbformat.validate(notebook)
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, target)


def check() -> int:
    problems, setup = contents.out_of_date() + badges.out_of_date(), setup_cell()
    for path in sources([]):
        source = read_source(path)
        problems += [f"{path.stem}: {problem}" for problem in lint_columns(source) + lint_plumbing(source)]
        difference = drift(path)
        if difference:
            problems.append(f"{path.stem}: {difference}")
            continue
        notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
        if path.stem.startswith(("ch", "lab")):
            problems += [f"{path.stem}: {problem}" for problem in lint(notebook, setup)]
        if why_stale(path) and path.stem.startswith(("ch", "lab")):
            print(f"note: {path.stem} was built before this change: {why_stale(path)}")
    orphans = [path for path in FOLDER.glob("*.ipynb") if not path.with_suffix(".md").exists()]
    problems += [f"{path.name} has no source beside it: write {path.stem}.md" for path in orphans]
    print("\n".join(problems) or f"{len(sources([]))} pairs agree")
    return 1 if problems else 0


def stale() -> int:
    reasons = {path.stem: why_stale(path) for path in sources([])}
    for name, reason in reasons.items():
        print(f"{name}: {reason or 'up to date'}")
    return 1 if any(reasons.values()) else 0


def stamp() -> int:
    """Put the current setup cell into text and notebook. Outputs stay: the cell computes no number."""
    new = setup_cell()
    for path in sources([]):
        old = [cell.source for cell in read_source(path).cells if is_setup(cell)]
        if not old or old[0] == new:
            continue
        path.write_text(path.read_text(encoding="utf-8").replace(old[0], new), encoding="utf-8")
        target = path.with_suffix(".ipynb")
        if target.exists():
            notebook = nbformat.read(target, as_version=4)
            for cell in notebook.cells:
                if is_setup(cell):
                    cell.source = new
            write(notebook, target)
        print(f"{path.stem}: stamped")
    return 0


def carry_text(path: Path) -> None:
    """Put changed prose from the .md into the .ipynb. Outputs stay, so nothing happens where code has changed."""
    target = path.with_suffix(".ipynb")
    new, old = read_source(path), nbformat.read(target, as_version=4)
    if inputs(new) == inputs(old) or [c.source for c in new.cells if c.cell_type == "code"] != [
            c.source for c in old.cells if c.cell_type == "code"]:
        return
    run = [cell for cell in old.cells if cell.cell_type == "code"]
    old.cells = [run.pop(0) if cell.cell_type == "code" else cell for cell in new.cells]
    if "course" in old.metadata:
        old.metadata["course"]["chapter"] = fingerprint(path)["chapter"]
    write(old, target)


def main(arguments: list[str]) -> int:
    command, names = (arguments or ["check"])[0].lstrip("-"), [a for a in arguments[1:] if not a.startswith("-")]
    match command:
        case "build":
            return build(names, "--all" in arguments)
        case "check":
            return check()
        case "stale":
            return stale()
        case "stamp":
            return stamp()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
