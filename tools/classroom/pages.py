"""What is read after grading: a feedback page for the student, a notebook for the instructor's formgrader.

Whatever a student wrote is text here. A page has no script, no picture and no address of another host, and its first
lines forbid the browser all of them; a notebook has code cells with plain text below them and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from classroom.grading import Result, defined_in
from classroom.submissions import grade_id
from classroom.untrusted import clean
from course_lib.notebook.exercises.questions import chapter, question

MOST_CODE = 20_000  # characters of one cell on a page

FRAME = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:56em;margin:2em auto;padding:0 1em;color:#111;background:#fff}}
table{{border-collapse:collapse;margin:1em 0}}caption{{text-align:left;font-weight:bold}}
th,td{{text-align:left;vertical-align:top;padding:.2em .8em .2em 0;border-bottom:1px solid #ddd}}
pre{{background:#f5f5f5;padding:.6em;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}}
.verdict{{border-left:4px solid #767676;padding:.2em .8em}}
.right{{border-color:#009e73}}.not-yet{{border-color:#d55e00}}
</style></head><body>
{body}
</body></html>
"""


# --- the feedback page ------------------------------------------------------------------------------------------------


def feedback(result: Result, kept: dict[str, Any]) -> str:
    """The page of one chapter of one file. kept: what grading kept for it (cells and quiz letters)."""
    asked = chapter(result.chapter)
    rows = [_row(name, entry) for name, entry in result.questions.items()]
    parts = [f"<h1>{escape(asked.title)}</h1>",
             f"<p><strong>{escape(result.student)}</strong>, file {escape(result.file)}: {result.points:g} of "
             f"{result.out_of:g} points.</p>",
             "<table><caption>One line for each exercise</caption><thead><tr><th scope='col'>exercise</th>"
             "<th scope='col'>points</th><th scope='col'>result</th></tr></thead><tbody>" + "".join(rows)
             + "</tbody></table>"]
    parts += [f"<p>Note: {escape(note)}</p>" for note in result.notes]
    parts += _exercises(result, kept["cells"])
    if kept["letters"]:
        given = ", ".join(f"{item}: {letter}" for item, letter in kept["letters"].items())
        parts += ["<h2>Quiz</h2>", f"<p>Your answers: {escape(given)}</p>",
                  _verdict(result.questions.get(f"{result.chapter}.quiz", {}))]
    return FRAME.format(title=escape(f"{result.student}: {result.chapter}"), body="\n".join(parts))


def not_graded(result: Result) -> str:
    """The page of a file that could not be graded."""
    body = (f"<h1>{escape(result.file)}</h1><p><strong>{escape(result.student)}</strong>: this file was not graded. "
            f"{escape(' '.join(result.notes))}</p>")
    return FRAME.format(title="Not graded", body=body)


def _row(name: str, entry: dict[str, Any]) -> str:
    title = "Quiz" if name.endswith(".quiz") else question(name).title
    said = [entry["status"], *([entry["message"]] if entry["message"] else []), *_by_hand(entry)]
    return (f"<tr><td>{escape(name)}<br>{escape(title)}</td><td>{entry['points']:g} of {entry['out_of']:g}</td>"
            f"<td>{'<br>'.join(escape(line) for line in said)}</td></tr>")


def _by_hand(entry: dict[str, Any]) -> list[str]:
    if "automatic" not in entry:
        return []
    reason = f" Reason: {entry['reason']}" if entry.get("reason") else ""
    return [f"Points given by hand: {entry['points']:g} instead of {entry['automatic']:g}.{reason}"]


def _exercises(result: Result, cells: Sequence[dict[str, Any]]) -> list[str]:
    parts, used = [], set()
    for name, entry in result.questions.items():
        if name.endswith(".quiz"):
            continue
        mine = defined_in(cells, name)[-1:]  # the last one counts
        used |= set(mine)
        parts.append(f"<h2>{escape(name)}: {escape(question(name).title)}</h2>")
        parts += [_code(cells[i]) for i in mine] or ["<p>There is no code for this exercise.</p>"]
        parts.append(_verdict(entry))
        if entry["status"] != "correct":
            parts.append(f"<p>Hint: {escape(question(name).hints[0])}</p>")
    others = [cell for i, cell in enumerate(cells) if i not in used]
    if others:
        parts += ["<h2>Your other cells</h2>", *map(_code, others)]
    return parts


def _verdict(entry: dict[str, Any]) -> str:
    if not entry:
        return ""
    colour = {"correct": "right", "not yet": "not-yet"}.get(entry["status"], "")
    lines = [f"{entry['status']}: {entry['points']:g} of {entry['out_of']:g} points", entry["message"],
             *_by_hand(entry)]
    if entry.get("example"):
        pairs = "".join(f"<tr><th scope='row'>{escape(label)}</th><td>{escape(value)}</td></tr>"
                        for label, value in entry["example"])
        return (f'<div class="verdict {colour}"><p>{"<br>".join(escape(line) for line in lines if line)}</p>'
                f"<table><tbody>{pairs}</tbody></table></div>")
    return f'<p class="verdict {colour}">{"<br>".join(escape(line) for line in lines if line)}</p>'


def _code(cell: dict[str, Any]) -> str:
    below = "\n".join(line for line in (cell["output"], cell["error"]) if line)
    output = f"<p>It printed:</p><pre>{escape(below)}</pre>" if below else ""
    return f"<pre>{escape(clean(cell['text'], MOST_CODE))}</pre>{output}"


# --- the notebook for formgrader --------------------------------------------------------------------------------------


def autograded(result: Result, kept: dict[str, Any], assignment: NotebookNode) -> NotebookNode:
    """The student's cells and the assignment's tests with their verdicts, as nbgrader's formgrader shows them."""
    originals = {cell.metadata.nbgrader.grade_id: cell for cell in assignment.cells if "nbgrader" in cell.metadata}
    made = [_plain(cell) for cell in kept["cells"]]
    for q in chapter(result.chapter).questions:
        original = originals[grade_id(q.name)]
        mine = [i for i in defined_in(kept["cells"], q.name) if "nbgrader" not in made[i].metadata]
        if mine:  # a cell may answer several exercises
            made[mine[-1]].metadata = nbformat.from_dict(dict(original.metadata))
        else:
            made.append(_plain({"text": original.source, "output": "", "error": ""}, original))
    for name, entry in result.questions.items():
        if name.endswith(".quiz"):
            letters = "".join(kept["letters"].get(str(i), "-") for i in range(1, len(chapter(result.chapter).quiz) + 1))
            made.append(_plain({"text": f'answer("{name}", "{letters}")', "output": "", "error": ""},
                               originals[grade_id(name)]))
        test = originals[f"{grade_id(name)}-test"]
        said = "\n".join(line for line in (f"{entry['status']}: {entry['points']:g} of {entry['out_of']:g} points",
                                           entry["message"]) if line)
        made.append(_plain({"text": test.source, "output": said, "error": ""}, test))
    notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": assignment.metadata.kernelspec})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def _plain(cell: dict[str, Any], original: NotebookNode | None = None) -> NotebookNode:
    text = "\n".join(line for line in (cell["output"], cell["error"]) if line)
    outputs = [new_output("stream", name="stdout", text=clean(text))] if text else []
    metadata = {"nbgrader": dict(original.metadata.nbgrader)} if original is not None else {}
    return new_code_cell(clean(cell["text"], MOST_CODE), outputs=outputs, metadata=nbformat.from_dict(metadata))
