"""What the instructor reads: scores.csv, and one page with a picture, the hardest questions and the common mistakes."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path

from classroom.grading import Result
from course_lib.notebook import plots
from course_lib.notebook.exercises.questions import question
from course_lib.notebook.tables import Table

FEWEST = 5  # students of a chapter before a share of them means something


def write(results: Sequence[Result], course: Path, about: str) -> tuple[Path, Path]:
    """Write scores.csv and report.html into the course folder. `about`: one sentence on how the grading ran."""
    scores, page = course / "scores.csv", course / "report.html"
    _scores(results, scores)
    page.write_text(_page(results, about), encoding="utf-8")
    return scores, page


def _scores(results: Sequence[Result], file: Path) -> None:
    names = sorted({name.partition(".")[2] for result in results for name in result.questions},
                   key=lambda name: (name == "quiz", name))
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["student", "file", "chapter", "points", "out_of", *names, "notes"])
        for result in results:
            points = [result.questions.get(f"{result.chapter}.{name}", {}).get("points", "") for name in names]
            table.writerow([_safe(result.student), _safe(result.file), result.chapter, f"{result.points:g}",
                            f"{result.out_of:g}", *points, _safe(" ".join(result.notes))])


def _safe(text: str) -> str:
    """A spreadsheet runs a cell that starts with =, + or @ as a formula; names come from strangers."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# --- the page ---------------------------------------------------------------------------------------------------------


def solved(results: Sequence[Result]) -> dict[str, tuple[int, int]]:
    """Exercise -> (how many solved it, how many handed that chapter in)."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result in results:
        for name, entry in result.questions.items():
            counts[name][0] += entry["points"] == entry["out_of"]
            counts[name][1] += 1
    return {name: (right, of) for name, (right, of) in counts.items()}


def diagnoses(results: Sequence[Result]) -> list[tuple[str, str, int]]:
    """(exercise, diagnosis, how often), commonest first. The quiz has a text for every answer and is left out."""
    said = Counter((name, entry["message"]) for result in results for name, entry in result.questions.items()
                   if entry["status"] == "not yet" and not name.endswith(".quiz"))
    return [(name, message, count) for (name, message), count in
            sorted(said.items(), key=lambda item: (-item[1], item[0]))]


@plots.style()
def figure(results: Sequence[Result]) -> plots.Figure:
    """Left: how many submissions reached which share of the points. Right: the exercises that fewest solved."""
    drawn, (left, right) = plots.canvas(2, figsize=(9.6, 4.2))
    shares = [100 * result.points / result.out_of for result in results if result.out_of]
    left.hist(shares, bins=range(0, 101, 10), color=plots.OKABE_ITO["blue"], edgecolor="white")
    left.set(title="Scores", xlabel="% of a chapter's points", ylabel="submissions", xlim=(0, 100))
    left.yaxis.set_major_locator(plots.MaxNLocator(integer=True))
    hardest = _hardest(results)[:8][::-1]
    right.barh([name for name, _, _ in hardest], [100 * done / of for _, done, of in hardest],
               color=plots.OKABE_ITO["vermillion"])
    right.set(title="Hardest exercises", xlabel="% who solved it", xlim=(0, 100))
    right.grid(visible=False, axis="y")
    return drawn


def _hardest(results: Sequence[Result]) -> list[tuple[str, int, int]]:
    counted = [(name, done, of) for name, (done, of) in solved(results).items() if not name.endswith(".quiz")]
    enough = [entry for entry in counted if entry[2] >= FEWEST] or counted
    return sorted(enough, key=lambda entry: (entry[1] / entry[2], entry[0]))


def _page(results: Sequence[Result], about: str) -> str:
    graded, beside = [result for result in results if result.out_of], sum(result.attachment for result in results)
    parts = [f"<h1>Class report</h1><p>{escape(about)}</p>",
             f"<p>{len(results)} rows: {len(graded)} graded, {len(results) - len(graded) - beside} that could not be "
             f"read, {beside} with nothing to grade (pictures and the like).</p>"]
    if graded:
        mean = sum(100 * result.points / result.out_of for result in graded) / len(graded)
        hardest = _hardest(graded)
        alt = (f"Histogram of the scores of {len(graded)} submissions, {mean:.0f} % of the points on average, and bars "
               f"for the exercises that fewest solved; the hardest is {hardest[0][0]}.")
        parts += [plots.picture(figure(graded), alt)._repr_html_(), _table_of_questions(hardest).html(),
                  _table_of_diagnoses(graded).html()]
    parts.append(_table_of_rows(results).html())
    return _FRAME.format("\n".join(parts))


def _table_of_questions(hardest: Sequence[tuple[str, int, int]]) -> Table:
    rows = [[name, question(name).title, f"{done} of {of}", f"{100 * done / of:.0f} %"] for name, done, of in hardest]
    return Table("Exercises, hardest first", ("exercise", "title", "solved by", "share"), rows)


def _table_of_diagnoses(results: Sequence[Result]) -> Table:
    rows = [[name, message, str(count)] for name, message, count in diagnoses(results)[:20]]
    return Table("The commonest diagnoses", ("exercise", "what the student was told", "how often"), rows)


def _table_of_rows(results: Sequence[Result]) -> Table:
    rows = [[result.student, result.file, result.chapter or "-", f"{result.points:g} of {result.out_of:g}",
             " ".join(result.notes)] for result in results]
    return Table("All rows", ("student", "file", "chapter", "points", "notes"), rows)


_FRAME = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Class report</title>
<style>body{{font:16px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#111;background:#fff}}
table{{border-collapse:collapse;margin:1.5em 0}}caption{{text-align:left;font-weight:bold}}img{{max-width:100%}}
th,td{{text-align:left;vertical-align:top;padding:.2em .8em .2em 0;border-bottom:1px solid #ddd}}</style>
</head><body>
{}
</body></html>
"""
