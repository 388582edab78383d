"""Notebooks as tests: the comparison sees what it must see, the build repeats itself, a wrong loss turns it red."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import badges  # noqa: E402
import chapter_files  # noqa: E402
import chapter_lint  # noqa: E402
import contents  # noqa: E402
import freshness  # noqa: E402

import notebooks  # noqa: E402

comparison = chapter_lint.comparison()
CHAPTERS = [path for path in chapter_files.sources([]) if path.stem.startswith(("ch", "lab"))]
HEAD = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"


def source(*cells: str) -> str:
    return HEAD + "\n\n".join(f"```{{code-cell}} ipython3\n{cell}\n```" for cell in cells) + "\n"


# --- The comparison --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "fresh"), [
    ("loss 1.2345", "loss 1.2350"),
    ("0.0001", "0.0009"),
    ("loss 1.2345, seed 3", "loss 1.2345,  seed   3\n"),
    ("1.5e-05", "1.6e-05"),
    ("| 0.5000 |\n|--------|", "| 0.5001 |\n|---------|"),
    ("a −0.5000", "a −0.5004"),
    ("tensor([0.1234, 2.0000])", "tensor([0.1235, 2.0010])"),
    ("<object at 0x7f26a20bc8b0>", "<object at 0x…>"),
    ('<p>0.5</p><script>x = 1</script>', '<p>0.5004</p><script>x = 2</script>'),
    ('<img alt="a" src="data:image/png;base64,AAAA">', '<img alt="a" src="data:image/png;base64,BBBB">'),
    ("12,345.67 steps", "12,345.99 steps"),
])
def test_the_same_result_with_other_last_digits_agrees(stored: str, fresh: str) -> None:
    assert comparison.texts_agree(stored, fresh)


@pytest.mark.parametrize(("stored", "fresh"), [
    ("loss 1.2345", "loss 1.2400"),
    ("loss 1.2345", "cost 1.2345"),
    ("3 layers", "4 layers"),
    ("22,713,216", "22,713,217"),
    ("0.5 0.5", "0.5"),
    ("0.5", "nan"),
    ("nan", "0.5"),
    ("0.5", "-0.5"),
    ("0.5", "−0.5"),
    ("1.0", "1"),
    ("ch01", "ch02"),
    ("v1.2", "v1.3"),
    ("2x128", "2x256"),
    ("<b>True</b>", "<b>False</b>"),
    ("1.0", "1.0e3"),
    ("inf", "0.1"),
])
def test_a_different_result_does_not_agree(stored: str, fresh: str) -> None:
    assert not comparison.texts_agree(stored, fresh)


def test_a_wider_tolerance_reaches_as_far_as_it_says_and_no_further() -> None:
    assert comparison.texts_agree("accuracy 86.3 %", "accuracy 88.0 %", 0.03)
    assert not comparison.texts_agree("accuracy 86.3 %", "accuracy 89.0 %", 0.03)
    assert comparison.texts_agree("1,295 of 1,500", "1,310 of 1,500", 0.03)
    assert not comparison.texts_agree("layer 3", "layer 4", 0.03)
    assert not comparison.texts_agree("loss 0.5", "price 0.5", 0.03)


@given(st.floats(-1e6, 1e6), st.floats(0, 0.99))
def test_a_float_agrees_within_the_tolerance(value: float, part: float) -> None:
    stored = f"{value:.6f}"
    fresh = f"{float(stored) + part * (1e-3 + 1e-3 * abs(float(stored))):.6f}"
    assert comparison.texts_agree(stored, fresh)


@given(st.floats(-1e6, 1e6), st.floats(1.01, 100), st.sampled_from([-1, 1]))
def test_a_float_beyond_the_tolerance_does_not_agree(value: float, part: float, sign: int) -> None:
    stored = f"{value:.6f}"
    fresh = f"{float(stored) + sign * part * (1e-3 + 1e-3 * abs(float(stored))):.6f}"
    assert not comparison.texts_agree(stored, fresh)


@given(st.integers(-(10**9), 10**9))
def test_a_whole_number_agrees_with_itself_only(value: int) -> None:
    assert comparison.texts_agree(f"{value:,}", f"{value:,}")
    assert not comparison.texts_agree(f"{value:,}", f"{value + 1:,}")


def test_tolerance_tags_are_read_and_slips_are_refused() -> None:
    assert comparison.tolerance_of(["remove-input", "tolerance-0.03"]) == 0.03
    assert comparison.tolerance_of(["hide-cell"]) is None
    for slip in ("tolerance", "tolerance-", "tolerance-3", "tolerance_0.03", "tolerance-x", "tolerance-0"):
        with pytest.raises(ValueError, match="is no tolerance"):
            comparison.tolerance_of([slip])


# --- nbval in a folder of its own ------------------------------------------------------------------------------------


def build_in(folder: Path, name: str, text: str) -> Path:
    """Write, run and store a chapter, with the course's own conftest beside it."""
    (folder / f"{name}.md").write_text(text)
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder)
    notebook = notebooks.execute(chapter_files.read_source(folder / f"{name}.md"), folder)
    chapter_files.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def nbval(path: Path, startup: str = "") -> tuple[int, str]:
    """Run nbval as `make test` does. `startup` is code that every kernel runs first (IPython's own start-up folder)."""
    ipython = path.parent / "ipython"
    (ipython / "profile_default" / "startup").mkdir(parents=True, exist_ok=True)
    (ipython / "profile_default" / "startup" / "00-first.py").write_text(startup)
    run = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "--nbval",
                          "--nbval-current-env", "--nbval-cell-timeout=600", "-rf", "-q", path.name],
                         cwd=path.parent, env=os.environ | {"IPYTHONDIR": str(ipython)}, capture_output=True, text=True,
                         check=False)
    return run.returncode, run.stdout + run.stderr


WRONG_LOSS = """
import course_lib.methods.hinton as hinton
_right = hinton.soft_target_loss
def without_t_squared(student_logits, teacher_logits, mask=None, *, temperature, **knobs):
    return _right(student_logits, teacher_logits, mask, temperature=temperature, **knobs) / temperature**2
hinton.soft_target_loss = without_t_squared
"""


@pytest.mark.slow
def test_a_wrong_loss_turns_the_notebook_red_at_the_cell_that_shows_it(tmp_path: Path) -> None:
    path = build_in(tmp_path, "small", source(
        "import torch\nfrom course_lib.methods import hinton",
        "student, teacher = torch.tensor([[2., 0., 1.]]), torch.tensor([[3., 1., -1.]])\nteacher",
        'loss = hinton.soft_target_loss(student, teacher, temperature=4.0)\nprint(f"{loss:.4f}")',
        'hinton.soft_targets(teacher, 4.0).sum().item()'))
    status, said = nbval(path)
    assert status == 0 and "4 passed" in said, said
    status, said = nbval(path, startup=WRONG_LOSS)
    assert status == 1 and "1 failed, 3 passed" in said, said
    assert "FAILED small.ipynb::Cell 2" in said
    assert "Cell outputs differ" in said, "red for another reason than the number"


@pytest.mark.slow
@pytest.mark.assets
def test_chapter_1_turns_red_when_its_loss_forgets_t_squared(tmp_path: Path) -> None:
    """The chapter as committed, up to the first cell that shows the soft loss; the trainings after it are left out."""
    stored = chapter_files.FOLDER / "ch01_hinton.ipynb"
    if not stored.exists():
        pytest.skip("chapter 1 has not been built yet: make notebooks")
    chapter = nbformat.read(stored, as_version=4)
    shows = [number for number, cell in enumerate(chapter.cells)
             if "soft_target_loss(" in cell.source and chapter_lint.is_compared(cell)]
    assert shows, "no compared cell of chapter 1 calls soft_target_loss"
    chapter.cells = chapter.cells[:shows[0] + 1]
    code_number = sum(cell.cell_type == "code" for cell in chapter.cells) - 1
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    chapter_files.write(chapter, tmp_path / "ch01.ipynb")
    status, said = nbval(tmp_path / "ch01.ipynb")
    assert status == 0, said
    status, said = nbval(tmp_path / "ch01.ipynb", startup=WRONG_LOSS)
    assert status == 1 and f"FAILED ch01.ipynb::Cell {code_number} -" in said, said


@pytest.mark.slow
def test_nbval_applies_tags_and_ignores_stderr_bars_and_pictures(tmp_path: Path) -> None:
    cells = [
        ":tags: [tolerance-0.2]\n\nimport random, sys, warnings\nprint('accuracy', 0.8 + random.random() / 50)",
        ":tags: [nbval-ignore-output]\n\nimport time\ntime.perf_counter()",
        ":tags: [raises-exception]\n\nraise NotImplementedError('your turn')",
        "warnings.warn(str(random.random()))\nprint('seen', file=sys.stderr)\n'kept'",
        "print('a bare number', round(random.random() * 1e9))",
    ]
    path = build_in(tmp_path, "tags", source(*cells))
    status, said = nbval(path)
    assert status == 1 and "1 failed, 4 passed" in said and "FAILED tags.ipynb::Cell 4" in said, said


# --- The build -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    text = source(chapter_files.setup_cell(), "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): print(object())",
                  "import ipywidgets\nslider = ipywidgets.IntSlider(description='T'); slider",
                  "print('a'); print('b')\nimport sys; print('c', file=sys.stderr)", "object()", "object()")
    first = build_in(tmp_path, "twice", text).read_bytes()
    second = build_in(tmp_path, "twice", text).read_bytes()
    assert first == second
    stored = nbformat.reads(first.decode(), as_version=4)
    assert b"it/s" not in first and b"0x7f" not in first and b'"name": "stderr"' not in first
    assert "execution" not in stored.cells[0].metadata
    assert stored.cells[0].id == "setup" and len({cell.id for cell in stored.cells}) == len(stored.cells)
    assert chapter_lint.lint(stored, chapter_files.setup_cell()) == []


def test_two_chapters_run_at_a_time_and_a_broken_one_does_not_stop_the_other(monkeypatch, tmp_path, capsys) -> None:
    """Each waits for the other one: one after the other, both would break."""
    meet = threading.Barrier(2, timeout=60)

    def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
        meet.wait()
        if "1 / 0" in notebook.cells[0].source:
            raise ZeroDivisionError("division by zero")
        return notebook

    for name, code in (("ch01_whole", "1 / 1"), ("ch02_broken", "1 / 0")):
        (tmp_path / f"{name}.md").write_text(source(code))
    monkeypatch.setattr(chapter_files, "FOLDER", tmp_path)
    monkeypatch.setattr(notebooks, "execute", execute)
    monkeypatch.setattr(notebooks.os, "cpu_count", lambda: 2)
    assert notebooks.build([], everything=False) == 1
    said = capsys.readouterr()
    assert "ch01_whole: written" in said.out and "ch02_broken: NOT written\ndivision by zero" in said.err
    assert chapter_files.why_stale(tmp_path / "ch01_whole.md") == ""
    assert not (tmp_path / "ch02_broken.ipynb").exists()


def test_a_cell_that_moves_keeps_its_id(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(source("x = 1", "y = 2"))
    (tmp_path / "b.md").write_text(source("z = 0", "y = 2", "x = 1"))
    first, second = (chapter_files.read_source(tmp_path / name) for name in ("a.md", "b.md"))
    assert {first.cells[0].id, first.cells[1].id} < {cell.id for cell in second.cells}


def test_an_error_behind_a_widget_stops_the_build() -> None:
    notebook = new_notebook(cells=[new_code_cell("w")])
    state = {"abc": {"state": {"outputs": [{"output_type": "error", "ename": "KeyError", "evalue": "'T'"}]}}}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": state}}
    with pytest.raises(RuntimeError, match="KeyError: 'T'"):
        notebooks.canonical_ids(notebook)
    assert any("KeyError" in problem for problem in chapter_lint.lint(notebook, chapter_files.setup_cell()))


def test_a_traceback_in_stderr_stops_the_build() -> None:
    hidden = new_output("stream", name="stderr", text="Traceback (most recent call last):\n ...")
    with pytest.raises(RuntimeError, match="hides in stderr"):
        notebooks.canonical_outputs([hidden])


# --- The pair and the lint -------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    path = tmp_path / "ch99_pair.md"
    path.write_text(HEAD + "# Title\n\n" + source("x = 1", ":tags: [hide-input]\n\nx").removeprefix(HEAD))
    chapter_files.write(chapter_files.read_source(path), path.with_suffix(".ipynb"))
    return path


def test_a_fresh_pair_agrees(pair: Path) -> None:
    assert chapter_files.drift(pair) == ""


@pytest.mark.parametrize(("old", "new"), [("x = 1", "x = 2"), ("# Title", "# Other"), ("hide-input", "hide-output")])
def test_a_change_in_the_text_alone_is_drift(pair: Path, old: str, new: str) -> None:
    pair.write_text(pair.read_text().replace(old, new))
    assert "differs" in chapter_files.drift(pair)


def test_a_change_in_the_notebook_alone_is_drift(pair: Path) -> None:
    notebook = nbformat.read(pair.with_suffix(".ipynb"), as_version=4)
    notebook.cells.append(new_markdown_cell("more"))
    chapter_files.write(notebook, pair.with_suffix(".ipynb"))
    assert "run `make notebooks`" in chapter_files.drift(pair)


def test_a_missing_notebook_is_drift(pair: Path) -> None:
    pair.with_suffix(".ipynb").unlink()
    assert "is missing" in chapter_files.drift(pair)


def sound(*extra) -> nbformat.NotebookNode:
    shown = [new_code_cell(f"{n}", execution_count=n, outputs=[new_output("execute_result", {"text/plain": f"{n}"})])
             for n in range(5)]
    return new_notebook(cells=[new_code_cell(chapter_files.setup_cell()), *shown, *extra])


def test_a_sound_chapter_has_no_finding() -> None:
    assert chapter_lint.lint(sound(), chapter_files.setup_cell()) == []


def _shows(data: dict) -> nbformat.NotebookNode:
    return new_code_cell("show()", outputs=[new_output("display_data", data)])


@pytest.mark.parametrize(("notebook", "finding"), [
    (new_notebook(cells=sound().cells[:5]), "only 4 cells"),
    (new_notebook(cells=sound().cells[1:]), "setup cell"),
    (new_notebook(cells=[new_code_cell(chapter_files.setup_cell() + "\n"), *sound().cells[1:]]), "setup cell"),
    (sound(*[new_code_cell("\n".join("abcdefghi")) for _ in range(7)]), "median"),
    (sound(new_code_cell("x\n" * 26)), "exceed 25 lines"),
    (sound(new_code_cell("1/0", outputs=[new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])])),
     "ZeroDivisionError"),
    (sound(_shows({"image/png": "AAAA", "text/plain": "<Figure>"})), "alt text"),
    (sound(_shows({"text/html": "<img src='a.png'>"})), "<img> without alt"),
    (sound(_shows({"text/html": "<img src='a.png' alt=''>"})), "<img> without alt"),
    (sound(_shows({"text/html": "<svg viewBox='0 0 1 1'></svg>"})), "<svg> without"),
    (sound(new_markdown_cell("![](picture.png)")), "picture in the text"),
    (sound(new_code_cell("1", metadata={"tags": ["tolerance-2"]})), "'tolerance-2' is no tolerance"),
])
def test_the_lint_names_what_is_wrong(notebook: nbformat.NotebookNode, finding: str) -> None:
    assert any(finding in problem for problem in chapter_lint.lint(notebook, chapter_files.setup_cell()))


def test_cells_that_are_not_compared_do_not_count() -> None:
    shown = [new_output("execute_result", {"text/plain": "1"})]
    assert chapter_lint.is_compared(new_code_cell("1", outputs=shown))
    for tag in ("nbval-ignore-output", "nbval-skip"):
        assert not chapter_lint.is_compared(new_code_cell("1", outputs=shown, metadata={"tags": [tag]}))
    assert not chapter_lint.is_compared(new_code_cell("x = 1"))
    assert not chapter_lint.is_compared(new_code_cell("f", outputs=[
        new_output("display_data", {"text/plain": "<Figure size 1x1>", "image/png": "A"})]))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_is_a_sound_pair(path: Path) -> None:
    assert chapter_files.drift(path) == ""
    assert chapter_lint.lint(nbformat.read(path.with_suffix(".ipynb"), as_version=4), chapter_files.setup_cell()) == []


def test_the_contents_page_links_every_chapter() -> None:
    page = (chapter_files.FOLDER / "contents.md").read_text()
    assert [path.stem for path in CHAPTERS if f"({path.stem}.ipynb)" not in page] == []


# --- One source for the tables of chapters ---------------------------------------------------------------------------


def test_the_tables_of_chapters_are_what_their_one_source_gives() -> None:
    assert contents.out_of_date() == []


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """The four pages of the course with two chapters of their own."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    for name in contents.PAGES:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks" / "chapters.toml").write_text("".join(
        f'[[chapter]]\nfile = "{file}"\npaper = "P {file}"\ncite = "{cite}"\ncan = "do it"\nlevel = 2\n'
        for file, cite in (("ch01_a", "key2015"), ("ch02_b", ""), ("lab1_c", ""))))
    for file in ("ch01_a", "lab1_c"):
        (tmp_path / "notebooks" / f"{file}.md").write_text(f"# Title of {file}\n\n**Time:** 42 minutes.\n")
    return tmp_path


def test_a_chapter_is_in_all_tables_exactly_when_its_file_is_there(tables: Path) -> None:
    for moved_up in (False, True):
        if moved_up:
            (tables / "notebooks" / "ch02_b.md").write_text("# Two\n\n**Time:** 7 minutes\n")
        for path, text in contents.pages(tables).items():
            assert "ch01_a" in text and "lab1_c" in text and "ch01_hinton" not in text, path
            assert ("ch02_b" in text) is moved_up, path
            path.write_text(text)
        assert contents.out_of_date(tables) == []
    landing = (tables / "book/index.md").read_text()
    assert ("[Title of ch01_a](notebooks/ch01_a.ipynb)\n:class-card: front-card ch01_a\n\n{cite:t}`key2015`.\n"
            "Afterwards you can do it.\n\n42 minutes · level 2\n") in landing
    assert "[Two](notebooks/ch02_b.ipynb)" in landing and "P ch02_b." in landing and "7 minutes · level 2" in landing
    assert landing.index("## Chapters") < landing.index("[Two]") < landing.index("## Failure labs")


def test_a_table_that_is_out_of_date_says_how_to_mend_it(tables: Path) -> None:
    said = contents.out_of_date(tables)
    assert len(said) == 4 and all("make contents" in line for line in said)


def test_a_chapter_without_a_row_is_refused(tables: Path) -> None:
    (tables / "notebooks" / "ch11_new.md").write_text("# New\n\n**Time:** 7 minutes\n")
    with pytest.raises(SystemExit, match=r"ch11_new\.md has no row in notebooks/chapters\.toml"):
        contents.entries(tables)


def test_changed_prose_reaches_the_notebook_and_the_outputs_stay(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(HEAD + "# Old\n\n" + source("1 + 1").removeprefix(HEAD))
    notebook = chapter_files.read_source(path)
    notebook.cells[1].outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    chapter_files.write(notebook, path.with_suffix(".ipynb"))
    path.write_text(path.read_text().replace("# Old", "# New"))
    chapter_files.carry_text(path)
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert stored.cells[0].source == "# New" and stored.cells[1].outputs[0].data["text/plain"] == "2"
    path.write_text(path.read_text().replace("1 + 1", "1 + 2"))
    chapter_files.carry_text(path)
    assert "differs" in chapter_files.drift(path), "code that changed must be run"


# --- Freshness -------------------------------------------------------------------------------------------------------


def test_a_notebook_is_stale_when_its_text_changes_and_not_when_its_address_does(pair: Path) -> None:
    pair.write_text(source(chapter_files.setup_cell(), "x = 1"))
    notebook = chapter_files.read_source(pair)
    notebook.metadata["course"] = chapter_files.fingerprint(pair)
    chapter_files.write(notebook, pair.with_suffix(".ipynb"))
    assert chapter_files.why_stale(pair) == ""
    pair.write_text(source(chapter_files.setup_cell().replace("In Colab", "On Colab"), "x = 1"))
    assert chapter_files.why_stale(pair) == ""
    pair.write_text(source(chapter_files.setup_cell(), "x = 2"))
    assert chapter_files.why_stale(pair) == "chapter changed"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A made-up course: a chapter that imports one module, which imports another inside a function."""
    files = {
        "pyproject.toml": '[project]\nname = "x"\ndependencies = ["torch>=2"]\n',
        "constraints.txt": "# pins\nruff==1\ntorch==2.0\n",
        "course_lib/__init__.py": "", "course_lib/unused.py": "", "course_lib/deep.py": "x = 1\n",
        "course_lib/notebook/__init__.py": "",
        "course_lib/notebook/tables.py": "def file(name): ...\nshared = file('shared.css')\n",
        "course_lib/notebook/views/__init__.py": "from course_lib.notebook.tables import shared\n",
        "course_lib/notebook/views/slide.py": "from . import shared\ndef f():\n    from course_lib import deep\n",
        "course_lib/notebook/views/slide.js": "1", "course_lib/notebook/views/other.js": "2",
        "course_lib/notebook/shared.css": "a", "course_lib/experiments/__init__.py": "",
        "course_lib/experiments/records.py": "from course_lib.material.assets import DATA\n",
        "course_lib/material/assets.py": "DATA = 0\nmanifest = (DATA, 'assets.toml')\n",
        "course_lib/notebook/exercises/__init__.py": "", "course_lib/notebook/exercises/ch01.py": "",
        "course_lib/notebook/exercises/ch02.py": "",
        "course_lib/notebook/exercises/golden/ch01.json": "{}",
        "data/assets.toml": "", "data/results/ch01.json": "{}", "data/results/ch02.json": "{}", "data/other.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    chapter = tmp_path / "ch01_made_up.md"
    chapter.write_text(source("%matplotlib inline\nfrom course_lib.notebook.views.slide import f",
                              "from course_lib.experiments import records", 'records.load("ch01")',
                              "from course_lib.notebook.exercises import check", 'check("ch01.q1")'))
    notebook = chapter_files.read_source(chapter)
    notebook.metadata["course"] = chapter_files.fingerprint(chapter, tmp_path)
    chapter_files.write(notebook, chapter.with_suffix(".ipynb"))
    return tmp_path


@pytest.mark.parametrize("name", [
    "course_lib/notebook/views/slide.py", "course_lib/notebook/views/slide.js", "course_lib/notebook/shared.css",
    "course_lib/notebook/tables.py", "course_lib/deep.py", "course_lib/notebook/views/__init__.py",
    "course_lib/experiments/records.py", "course_lib/material/assets.py", "course_lib/notebook/exercises/ch01.py",
    "course_lib/notebook/exercises/golden/ch01.json", "data/assets.toml", "data/results/ch01.json"])
def test_a_chapter_is_stale_when_something_changes_that_it_reads(course: Path, name: str) -> None:
    chapter = course / "ch01_made_up.md"
    assert chapter_files.why_stale(chapter, course) == ""
    (course / name).write_text((course / name).read_text() + "\n ")
    assert chapter_files.why_stale(chapter, course) == f"{name} changed"


@pytest.mark.parametrize("name", [
    "course_lib/unused.py", "course_lib/notebook/views/other.js", "course_lib/notebook/exercises/ch02.py",
    "data/results/ch02.json", "data/other.txt"])
def test_a_chapter_stays_fresh_when_something_else_changes(course: Path, name: str) -> None:
    (course / name).write_text("7")
    assert chapter_files.why_stale(course / "ch01_made_up.md", course) == ""


def test_versions_of_what_a_chapter_can_see_count_and_those_of_tools_do_not(course: Path) -> None:
    (course / "constraints.txt").write_text("ruff==2\ntorch==2.0\n")
    assert chapter_files.why_stale(course / "ch01_made_up.md", course) == ""
    (course / "constraints.txt").write_text("ruff==2\ntorch==2.1\n")
    assert chapter_files.why_stale(course / "ch01_made_up.md", course) == "versions changed"


def test_a_file_that_came_or_went_makes_a_chapter_stale_and_a_long_list_is_cut(course: Path) -> None:
    (course / "course_lib/notebook/views/slide.css").write_text("")
    assert chapter_files.why_stale(course / "ch01_made_up.md", course) == "course_lib/notebook/views/slide.css changed"
    (course / "course_lib/notebook/views/slide.py").write_text("")  # now nothing leads to deep.py
    assert chapter_files.why_stale(course / "ch01_made_up.md", course) == (
        "course_lib/notebook/views/slide.css, course_lib/notebook/views/slide.py, course_lib/deep.py changed")


def test_a_page_that_counts_all_points_depends_on_all_exercises(course: Path) -> None:
    needs = freshness.depends_on(["from course_lib.notebook.exercises import progress", "progress()"], course)
    exercises = course / "course_lib/notebook/exercises"
    assert {exercises / "ch01.py", exercises / "ch02.py"} <= set(needs)


def test_what_a_real_chapter_depends_on() -> None:
    parts = chapter_files.fingerprint(chapter_files.FOLDER / "ch01_hinton.md")
    assert {"course_lib/methods/hinton.py", "course_lib/notebook/shared.css", "course_lib/experiments/few_labels.py",
            "course_lib/notebook/views/temperature.js", "course_lib/notebook/exercises/ch01.py",
            "course_lib/notebook/exercises/forms.js", "data/results/ch01few.json", "data/assets.toml",
            "data/teachers/sentiment-500/card.json"} <= set(parts)
    others = ("tools/classroom", "course_lib/__main__", "course_lib/mistakes", "course_lib/methods/minilm",
              "course_lib/notebook/exercises/ch02", "course_lib/notebook/views/pareto", "data/results/ch02",
              "data/japanese")
    assert [part for part in parts if part.startswith(others)] == []


def test_the_book_refuses_stale_pages_one_line_each_before_it_builds(monkeypatch, capsys) -> None:
    import book

    monkeypatch.setattr(book, "stale_pages", lambda: {"ch01_a": "course_lib/x.py changed", "ch02_b": "never built"})
    monkeypatch.setattr(book, "build", lambda *_: pytest.fail("Sphinx must not run"))
    assert book.main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("make notebooks" in line for line in lines)
    assert "ch01_a.ipynb" in lines[0] and "course_lib/x.py changed" in lines[0] and "never built" in lines[1]


def test_a_stale_page_that_is_built_all_the_same_says_so_at_its_top(pair: Path) -> None:
    import book

    book.put_banner(pair.with_suffix(".ipynb"), "course_lib/x.py changed")
    cells = nbformat.read(pair.with_suffix(".ipynb"), as_version=4).cells
    assert cells[0].source.startswith("# Title")
    assert "{warning}" in cells[1].source and "`course_lib/x.py` changed" in cells[1].source


# --- The setup cell --------------------------------------------------------------------------------------------------


def without_the_library(cell: str) -> str:
    """The cell as Python that looks for a course which is nowhere installed; `%pip` becomes a call of `pip`."""
    cell = re.sub(r"^( *)%pip (.*)$", r"\1pip('\2')", cell, flags=re.M)
    return cell.replace("course_lib.notebook", "no_such_course.notebook")


def test_the_setup_cell_installs_from_the_address_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n[project.urls]\nRepository = "https://example.org/r"\n')
    cell = chapter_files.setup_cell(tmp_path)
    asked = []
    with pytest.raises(ModuleNotFoundError):  # the import after the installation
        exec(without_the_library(cell), {"pip": asked.append})
    assert asked == ["install -q git+https://example.org/r"]
    assert max(map(len, cell.splitlines())) <= chapter_lint.COLUMNS


def test_the_setup_cell_without_an_address_gives_a_line_to_copy(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    cell = chapter_files.setup_cell(tmp_path)
    with pytest.raises(SystemExit) as said:
        exec(without_the_library(cell), {})
    assert "In Colab" in str(said.value) and "%pip install course_lib-*.whl\n" in str(said.value)
    assert max(map(len, cell.splitlines())) <= chapter_lint.COLUMNS


@pytest.mark.parametrize("toml", ['[project]\nname = "x"\n',
                                  '[project]\nname = "x"\n[project.urls]\nRepository = "https://example.org/r"\n'])
def test_where_the_course_is_installed_the_setup_cell_only_starts_it(tmp_path: Path, toml: str) -> None:
    (tmp_path / "pyproject.toml").write_text(toml)
    asked: list[str] = []
    names = {"pip": asked.append}
    cell = re.sub(r"^( *)%pip (.*)$", r"\1pip('\2')", chapter_files.setup_cell(tmp_path), flags=re.M)
    exec(cell, names)
    assert asked == [] and callable(names["start"])


@pytest.mark.parametrize("path", chapter_files.sources([]), ids=lambda path: path.stem)
def test_the_code_of_every_chapter_fits_the_page_and_its_plumbing_is_folded(path: Path) -> None:
    assert chapter_lint.lint_columns(chapter_files.read_source(path)) == []
    assert chapter_lint.lint_plumbing(chapter_files.read_source(path)) == []


def test_a_line_that_is_too_wide_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(source("x = 1", "y = " + "1" * 77))
    said = chapter_lint.lint_columns(chapter_files.read_source(tmp_path / "a.md"))
    assert len(said) == 1 and "code cell 1: 81 columns, 80 are the most: y = 1" in said[0]


def test_plumbing_is_folded_in_lab_as_in_the_book_and_what_is_not_is_named(tmp_path: Path) -> None:
    plot = "plots.picture(figure, 'A line.')"
    (tmp_path / "a.md").write_text(source(f":tags: [hide-input]\n\n{plot}", plot, "x = 1"))
    notebook = chapter_files.read_source(tmp_path / "a.md")
    assert [cell.metadata.get("jupyter") for cell in notebook.cells] == [{"source_hidden": True}, None, None]
    assert [said.partition(";")[0] for said in chapter_lint.lint_plumbing(notebook)] == [
        "code cell 1: plumbing that is not folded"]


@pytest.fixture
def addressed(tmp_path: Path) -> Path:
    """A copy of the pages that show the address, with a made-up one."""
    (tmp_path / "book").mkdir()
    for name in ("README.md", "book/index.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/someone/distil/"\n')
    return tmp_path


SETTINGS = {"title": "x", "sphinx": {"config": {"language": "en", "html_theme_options": {"home_page_in_toc": True}}}}


def test_with_an_address_every_badge_and_button_follows_from_it(addressed: Path) -> None:
    assert len(badges.out_of_date(addressed)) == 2
    for path, text in badges.pages(addressed).items():
        path.write_text(text)
        assert "https://colab.research.google.com/github/someone/distil/blob/main/notebooks/ch00_start" in text
        assert "https://mybinder.org/v2/gh/someone/distil/main?urlpath=lab/tree/notebooks/ch00_start" in text
    assert badges.out_of_date(addressed) == []
    assert "git+https://github.com/someone/distil" in chapter_files.setup_cell(addressed)
    options = badges.config(SETTINGS, addressed)["sphinx"]["config"]["html_theme_options"]
    assert options["repository_url"] == "https://github.com/someone/distil" and options["home_page_in_toc"]
    assert options["use_repository_button"] and options["launch_buttons"]["colab_url"]
    # The landing page asks no other host: links, no pictures.
    assert "![" not in badges.landing(addressed) and "[![" in badges.readme(addressed)


def test_without_an_address_there_is_no_badge_and_no_button(addressed: Path) -> None:
    (addressed / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert badges.readme(addressed) == badges.landing(addressed) == ""
    assert badges.config(SETTINGS, addressed) == SETTINGS


def test_elsewhere_than_on_github_only_the_repository_is_linked(addressed: Path) -> None:
    (addressed / "pyproject.toml").write_text('[project.urls]\nRepository = "https://example.org/r"\n[project]\nname="x"')
    assert badges.readme(addressed) == "" and "https://example.org/r" in badges.landing(addressed)
    assert "colab_url" not in str(badges.config(SETTINGS, addressed))
    (addressed / "pyproject.toml").write_text('[project.urls]\nRepository = "git@example.org:r"\n[project]\nname="x"')
    with pytest.raises(SystemExit, match="must begin with https"):
        badges.address(addressed)


def test_start_is_one_sentence_and_gives_the_same_seeds_again(monkeypatch) -> None:
    import random

    import torch

    from course_lib.notebook import UNWATCHED, start

    threads = torch.get_num_threads()
    try:
        monkeypatch.setenv("COURSE_THREADS", UNWATCHED["COURSE_THREADS"])  # building and testing
        assert repr(start()) == "Ready: fast tier, seed 0, 1 thread." and torch.get_num_threads() == 1
        monkeypatch.delenv("COURSE_THREADS")
        assert repr(start()) == "Ready: fast tier, seed 0, 2 threads."
        first = (random.random(), torch.rand(1).item())
        start()
        assert (random.random(), torch.rand(1).item()) == first
    finally:
        torch.set_num_threads(threads)


def test_the_tier_comes_from_the_environment_and_a_slip_is_refused(monkeypatch) -> None:
    from course_lib.notebook import pick

    monkeypatch.delenv("COURSE_TIER", raising=False)
    assert pick(fast=1, full=2) == 1
    monkeypatch.setenv("COURSE_TIER", "full")
    assert pick(fast=1, full=2) == 2
    monkeypatch.setenv("COURSE_TIER", "ful")
    with pytest.raises(ValueError, match="'fast'"):
        pick(fast=1, full=2)
