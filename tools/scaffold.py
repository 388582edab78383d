"""The files of a new method or a new chapter, each with tests that fail until its work is done.

    make method NAME=fitnets            course_lib/methods/fitnets.py, tests/test_fitnets.py, a line in methods/table.py
    make chapter NAME=ch11_fitnets      the page, the experiment, its test, a row in chapters.toml, an entry in the
                                        references

Nothing that is there is overwritten. The two lists of CONTRIBUTING say what comes after it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent

# --- A method ---------------------------------------------------------------------------------------------------------

METHOD = Template('''\
"""$title: Authors, "Title of the paper" (year, arXiv number).

One sentence on what the student learns from the teacher.

    L = mean over the real tokens of ...                                      (eq. 1)

## Deviations of the original code

| what | paper | code | here |
|---|---|---|---|
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from course_lib.shared.method import Job, Method, Stage, Training

States = Float[Tensor, "batch tokens hidden"]


def ${name}_loss(student: States, teacher: States, mask: Shaped[Tensor, "batch tokens"] | None = None
                 ) -> Float[Tensor, ""]:
    """What it measures, in one sentence.

    student, teacher: (batch, tokens, hidden). mask: 1 = a real token.
    Raises: ValueError for other shapes, with the way out.
    Source: eq. 1.
    """
    raise NotImplementedError("${name}_loss: write equation 1 here, then delete this line.")


@dataclass(frozen=True)
class ${title}Recipe:
    """The paper's values."""

    weight: float = 1.0


def terms(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], recipe: ${title}Recipe | None = None
          ) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms of one batch; a term of weight 0 is left out."""
    raise NotImplementedError("terms: read both models (course_lib.shared.probes) and return the named terms.")


def stages(job: Job) -> list[Stage]:
    """One call of the training loop, or several; `job.preset` says whose numbers."""
    training = Training(2e-4, steps=300) if job.preset == "laptop" else Training(2e-5, epochs=3)
    return [Stage("distillation", lambda student, batch: terms(student, job.teacher, batch, job.recipe), training)]


# `steps` brings the method into the table of what teaching costs, `compared` into chapter 10.
RECORD = Method("$name", "$title", "Authors year", stages,
                {"laptop": ${title}Recipe(), "paper": ${title}Recipe()})
''')

METHOD_TEST = Template('''\
"""$title: a well-behaved loss, the numbers of its original code, and what only this paper promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loss_properties import assert_all, ragged_mask

from course_lib.methods import $name
from course_lib.methods.table import METHODS

ORIGINAL: list[tuple[torch.Tensor, torch.Tensor, float]] = []  # student, teacher, the original code's number


def test_the_loss_is_a_well_behaved_loss():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    assert_all($name.${name}_loss, student, teacher, ragged_mask(3, 5))


def test_the_loss_gives_the_numbers_of_the_original_code():
    assert ORIGINAL, "$name: run the original code on three small inputs and write its numbers into ORIGINAL."
    for student, teacher, number in ORIGINAL:
        assert $name.${name}_loss(student, teacher).item() == pytest.approx(number, rel=1e-5)


def test_the_file_says_where_the_original_code_differs():
    rows = [line for line in $name.__doc__.splitlines() if line.startswith("| ")][1:]
    assert rows, "$name: fill the table 'Deviations of the original code' (or write one row that says: none found)."


def test_the_method_says_what_it_is():
    record = METHODS["$name"]
    assert record.paper != "Authors year", "$name: name the paper in RECORD."
    page = Path(__file__).resolve().parent.parent / "book" / "your_own.md"
    row = "| `$name` |" in page.read_text("utf-8")
    assert row, "$name: add its row to the table of methods in book/your_own.md."
''')


def method(name: str, root: Path = ROOT) -> list[Path]:
    """Make the files of a method and put it into the table. Raises: ValueError for a name that is taken or no name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"'{name}' is no name for a Python file: small letters, digits and _, for example fitnets.")
    words = {"name": name, "title": "".join(part.capitalize() for part in name.split("_"))}
    made = _write({root / "course_lib" / "methods" / f"{name}.py": METHOD.substitute(words),
                   root / "tests" / f"test_{name}.py": METHOD_TEST.substitute(words)})
    table = root / "course_lib" / "methods" / "table.py"
    table.write_text(_with_method(table.read_text("utf-8"), name), "utf-8")
    return [*made, table]


def _with_method(table: str, name: str) -> str:
    """The table of methods with one more: its import in its place, its record at the end."""
    lines = table.splitlines(keepends=True)
    where = [i for i, line in enumerate(lines) if line.startswith("from course_lib.methods.")]
    new = f"from course_lib.methods.{name} import RECORD as {name.upper()}\n"
    lines[where[0] : where[-1] + 1] = sorted([*lines[where[0] : where[-1] + 1], new])
    text, found = re.subn(r"\)\}\n\Z", f",\n    {name.upper()})}}\n", "".join(lines))
    if not found:
        raise ValueError("course_lib/methods/table.py does not end with the tuple of methods; add the method by hand.")
    return text


# --- A chapter --------------------------------------------------------------------------------------------------------

SECTIONS = ("1 · A question, and your prediction", "2 · The paper in one page", "3 · By hand", "4 · Play",
            "5 · From math to code", "6 · Build it", "7 · Train and look", "8 · Paper, we, you", "9 · Failure lab",
            "10 · Quiz", "11 · Summary", "12 · Stretch", "13 · Further reading")

EXPERIMENT = Template('''\
"""Chapter $number: the question that the runs answer, in one sentence.

Which texts, which teacher, which student; what differs between the arms, and what does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from course_lib.experiments.described import Part
from course_lib.experiments.sentences import SEEDS, prepare, scores

__all__ = ["ABOUT", "ARMS", "SEEDS", "prepare", "run", "scores", "training"]

ABOUT = "One line for the list of experiments."


@dataclass(frozen=True)
class Arm:
    """What one arm learns from."""


ARMS: dict[str, Arm] = {}  # first the baseline that learns without a teacher


def training(arm: Arm, seed: int) -> tuple[nn.Module, list[Part]]:
    """The student of an arm and the parts of its training; chapter 10 times them."""
    raise NotImplementedError("training: build the student and its parts, as in ch04_pkd.py.")


def run(arm_name: str, seed: int) -> dict[str, float]:
    """Train one student and measure it on the test split."""
    model, parts = training(ARMS[arm_name], seed)
    for part in parts:
        model, _ = part.learn(model, seed)
    return scores(model)
''')

CHAPTER_TEST = Template('''\
"""Chapter $number is complete. Every test names what is missing; all of them stay."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from course_lib.experiments import $file as lab
from course_lib.experiments import records
from course_lib.mistakes import MUTANTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "notebooks" / "$file.md").read_text("utf-8")


def test_the_experiment_has_a_baseline_and_a_method():
    assert len(lab.ARMS) >= 2, "$chapter: describe a baseline and the method in ARMS of experiments/$file.py."


def test_the_arms_are_measured_over_five_seeds():
    assert records.path_of("$chapter").exists(), "$chapter: measure it: python -m course_lib.experiments $chapter"
    assert all(len(records.values("$chapter", arm, "accuracy")) >= 5 for arm in lab.ARMS)


def test_there_are_six_exercises_with_solutions_and_right_numbers():
    folder = ROOT / "course_lib" / "notebook" / "exercises"
    for path in (folder / "$chapter.py", folder / "reference" / "$chapter.py", ROOT / "tests/solutions/$chapter.py",
                 folder / "golden" / "$chapter.json"):
        assert path.exists(), f"$chapter: {path.relative_to(ROOT)} is missing; see ch05's, and make_golden.py."
    from course_lib.notebook.exercises.questions import chapter
    assert len(chapter("$chapter").questions) == 6


def test_the_page_has_no_empty_section():
    left = [part.splitlines()[0] for part in PAGE.split("\\n## ")[1:] if "To be written" in part]
    assert not left, f"$chapter: these sections are empty: {', '.join(left)}."


def test_the_page_has_a_picture_of_the_idea():
    assert "figures." in PAGE, "$chapter: draw the idea in course_lib/notebook/figures.py and show it in section 2."


def test_the_failure_lab_has_two_real_mistakes():
    ours = [found for found in MUTANTS.values() if found.chapter == "$chapter"]
    assert len(ours) >= 2, "$chapter: add two real mistakes of chapter $number to course_lib/mistakes."


def test_the_doctor_is_silent_on_a_healthy_run():
    tests = (ROOT / "tests" / "test_doctor.py").read_text("utf-8")
    assert "def healthy_$name" in tests, "$chapter: add healthy_$name to the healthy runs of tests/test_doctor.py."


def test_the_paper_is_in_the_references():
    entry = (ROOT / "book" / "references.bib").read_text("utf-8").split("{$chapter,")[-1]
    assert "To be written" not in entry, "$chapter: write the paper's entry in book/references.bib, with a key like it."


def test_the_method_has_its_record():
    made = importlib.util.find_spec("course_lib.methods.$name")
    assert made, "$chapter: make the method first: make method NAME=$name"
''')


def chapter(file: str, root: Path = ROOT) -> list[Path]:
    """Make the files of a chapter. Raises: ValueError for a name without a number, or one that is taken."""
    match = re.fullmatch(r"(ch(\d\d))_([a-z][a-z0-9_]*)", file)
    if not match:
        raise ValueError(f"'{file}' is no name for a chapter: its number and a word, for example ch11_fitnets.")
    taken = [path.stem for path in sorted((root / "notebooks").glob(f"{match[1]}_*.md"))]
    if taken:
        raise ValueError(f"Chapter {int(match[2])} is there: {taken[0]}. Take the next number.")
    words = {"file": file, "chapter": match[1], "number": str(int(match[2])), "name": match[3]}
    made = _write({root / "notebooks" / f"{file}.md": _page(words, root),
                   root / "course_lib" / "experiments" / f"{file}.py": EXPERIMENT.substitute(words),
                   root / "tests" / f"test_{file}.py": CHAPTER_TEST.substitute(words)})
    rows, references = root / "notebooks" / "chapters.toml", root / "book" / "references.bib"
    _append(rows, f'\n[[chapter]]\nfile = "{file}"\npaper = "To be written"\ncite = "{match[1]}"\n'
                  'can = "to be written"\nlevel = 3\n')
    _append(references, f"\n@article{{{match[1]},\n  title = {{To be written}},\n  year = {{2000}}\n}}\n")
    return [*made, rows, references]


def _page(words: dict[str, str], root: Path) -> str:
    """Every section of a chapter, empty, behind the setup cell that all chapters share."""
    first = (root / "notebooks" / "ch01_hinton.md").read_text("utf-8")
    head, setup = first.split("\n# ", 1)[0], re.search(r"```\{code-cell\}.*?```\n", first, re.DOTALL)[0]
    title = f"# {words['number']} · {words['name'].replace('_', ' ').capitalize()}"
    paper = "**Paper:** To be written. **Time:** 75 minutes. **Points:** 20."
    return "\n".join([head, title, "", paper, "", "After this chapter you can", "", "1. to be written.", "", setup,
                      *(f"## {section}\n\nTo be written.\n" for section in SECTIONS)])


def _write(files: dict[Path, str]) -> list[Path]:
    """All files or none. Raises: ValueError for a file that is there."""
    for path in files:
        if path.exists():
            raise ValueError(f"{path.name} is there already; nothing was written. Take another name.")
    for path, text in files.items():
        path.write_text(text, "utf-8")
    return list(files)


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text("utf-8").rstrip("\n") + "\n" + text, "utf-8")


def main(arguments: Sequence[str]) -> int:
    kinds = {"method": method, "chapter": chapter}
    if len(arguments) != 2 or arguments[0] not in kinds or not arguments[1]:
        print("make method NAME=fitnets, or make chapter NAME=ch11_fitnets", file=sys.stderr)
        return 2
    try:
        made = kinds[arguments[0]](arguments[1])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(f"  {path.relative_to(ROOT)}" for path in made))
    print(f"Its tests fail until the work is done: .venv/bin/pytest {made[-2 if arguments[0] == 'method' else 2]}"
          .replace(f"{ROOT}/", ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
