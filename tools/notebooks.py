"""Chapters have one source, notebooks/*.md (jupytext, md:myst); this makes the executed .ipynb from it, one way only.

    python tools/notebooks.py build [--all] [ch01 ...]   run the stale chapters (or all, or the named ones)
    python tools/notebooks.py check                      .md and .ipynb are the same chapter, and the chapter is sound
    python tools/notebooks.py stale                      list the chapters whose outputs are older than the code
    python tools/notebooks.py stamp                      write the setup cell into every chapter, with the address

The same source gives the same bytes: fixed cell ids, no times, no random ids, no progress bars.
"""

from __future__ import annotations

import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path

import badges
import contents
import nbformat
from chapter_files import (
    FOLDER,
    METADATA,
    drift,
    fingerprint,
    is_setup,
    longest_first,
    read_source,
    setup_cell,
    sources,
    why_stale,
    write,
)
from chapter_lint import lint, lint_columns, lint_plumbing, widget_errors
from nbformat import NotebookNode

from course_lib.notebook import UNWATCHED


def execute(notebook: NotebookNode, folder: Path = FOLDER) -> NotebookNode:
    """Run all cells in a fresh kernel. Raises: CellExecutionError, or RuntimeError if a widget swallowed an error."""
    if not any(cell.cell_type == "code" for cell in notebook.cells):
        return notebook
    from nbclient import NotebookClient

    os.environ.update(UNWATCHED)
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

    slowest = sorted((c for c in notebook.cells if c.cell_type == "code"), key=seconds, reverse=True)[:count]
    title = next((c.source.splitlines()[0] for c in notebook.cells if c.source.startswith("# ")), "slowest cells")
    print("\n".join([title, *(f"    {seconds(cell):5.1f} s  {cell.source.strip().splitlines()[-1][:90]}"
                             for cell in slowest)]), flush=True)  # in one piece: another chapter speaks too


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


# --- Commands ------------------------------------------------------------------------------------------------------


def build(names: list[str], everything: bool) -> int:
    """Run chapters side by side, one on each core (four at most). Returns 1 if one of them was not written."""
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        written = list(pool.map(partial(build_one, asked=everything or bool(names)), longest_first(sources(names))))
    return 0 if all(written) else 1


def build_one(path: Path, asked: bool) -> bool:
    """Run one chapter if it is stale or asked for. False: it could not be written."""
    reason = why_stale(path)
    if not (reason or asked):
        print(f"{path.stem}: up to date")
        return True
    print(f"{path.stem}: running ({reason or 'asked for'}) ...", flush=True)
    started, before = time.monotonic(), fingerprint(path)
    try:
        notebook = execute(read_source(path))
    except Exception as error:  # one broken chapter must not keep the others from being built
        print(f"{path.stem}: NOT written\n{error}", file=sys.stderr)
        return False
    notebook.metadata["course"] = before
    write(notebook, path.with_suffix(".ipynb"))
    print(f"{path.stem}: written after {time.monotonic() - started:.0f} s", flush=True)
    return True


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
