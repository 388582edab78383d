"""A class: assignments agree with the chapters, the sandbox holds, every file gets the score that it deserves."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader", reason="nbgrader is not installed: python tools/set_up.py class")

import simulated_class as simulated
from classroom import assignments, grading, report, running, sandbox, submissions

from course_lib.notebook import pick
from course_lib.notebook.exercises.questions import chapter

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.slow,
              pytest.mark.skipif(sys.platform == "win32", reason="the course runs in WSL on Windows")]
WITH_BUBBLEWRAP = pytest.mark.skipif(sandbox.kind() != "bubblewrap", reason="bubblewrap does not work on this machine")
NAMES = assignments.available()
EACH_CHAPTER = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder with the assignments of all chapters."""
    folder = tmp_path_factory.mktemp("course")
    assignments.generate(folder, NAMES, seed=11)
    return folder


@pytest.fixture(scope="module")
def graded(course, tmp_path_factory):
    """The simulated class, graded once: one file of each kind, or a hundred files with COURSE_TIER=full."""
    folder = tmp_path_factory.mktemp("handed in")
    expected = simulated.make_class(folder, course, count=pick(fast=0, full=100))
    before = time.monotonic()
    results = running.grade_all(folder, course, running.here(running.workers()))
    print(f"{len(results)} submissions graded in {time.monotonic() - before:.0f} s")
    return folder, expected, results


def release(course, name):
    return nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4)


class TestAssignments:
    """Chapter, stub, solution and assignment cannot drift apart."""

    @EACH_CHAPTER
    def test_an_assignment_is_made_of_the_chapters_own_cells(self, course, name):
        notebook = release(course, name)
        sources = [cell.source for cell in notebook.cells]
        text = assignments.text_of(name).read_text(encoding="utf-8")
        for asked in chapter(name).questions:
            assert asked.stub.strip() in text
            assert [s.strip() for s in sources].count(asked.stub.strip()) == 1
            assert f'check("{asked.name}", {asked.function})' in sources
        assert sum(c.metadata.get("nbgrader", {}).get("points", 0) for c in notebook.cells) == chapter(name).points

    @EACH_CHAPTER
    def test_the_release_holds_no_hidden_test_and_no_solution(self, course, name):
        text = nbformat.writes(release(course, name))
        assert not re.search("HIDDEN TESTS|inside import|BEGIN SOLUTION", text)
        for asked in chapter(name).questions:
            body = simulated.solution_text(asked.name).split("\n", 1)[1].strip()
            assert body not in text

    @EACH_CHAPTER
    def test_nothing_is_trained_and_no_teacher_is_asked_in_an_assignment(self, course, name):
        code = "\n".join(c.source for c in release(course, name).cells if c.cell_type == "code")
        assert not re.search(r"train\(|load_teacher|load_data|transformers|course_lib\.(?!exercises|notebook)", code)

    @EACH_CHAPTER
    def test_the_sandbox_sees_inputs_and_no_right_number(self, course, name):
        seen = (course / "hidden" / f"{name}.inputs.json").read_text(encoding="utf-8")
        assert "expected" not in seen and "mistakes" not in seen
        public = (ROOT / "course_lib" / "exercises" / "golden" / f"{name}.json").read_text(encoding="utf-8")
        hidden, shown = json.loads(seen), json.loads(public)
        assert hidden.keys() == shown.keys()
        other = [q for q in hidden if [c["args"] for c in hidden[q]] != [c["args"] for c in shown[q]]]
        assert other, "the hidden inputs are the public ones"

    def test_a_stub_that_differs_from_its_question_stops_the_generator(self, tmp_path):
        original = assignments.text_of("ch01")
        changed = original.read_text(encoding="utf-8").replace("def softened(logits: Tensor,", "def softened(logits,")
        (tmp_path / original.name).write_text(changed, encoding="utf-8")
        with pytest.raises(assignments.DriftError, match=r"no cell ends with the stub of ch01\.q1"):
            assignments.assignment("ch01", tmp_path)

    def test_a_missing_check_call_stops_the_generator(self, tmp_path):
        original = assignments.text_of("ch01")
        changed = original.read_text(encoding="utf-8").replace('check("ch01.q6", soft_gradient)', "soft_gradient")
        (tmp_path / original.name).write_text(changed, encoding="utf-8")
        with pytest.raises(assignments.DriftError, match=r'check\("ch01\.q6", soft_gradient\) is missing'):
            assignments.assignment("ch01", tmp_path)

    def test_making_them_again_changes_nothing(self, course):
        files = sorted(file for part in ("source", "release", "hidden") for file in (course / part).rglob("*.*"))
        before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
        assignments.generate(course, NAMES, seed=11)
        assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files} == before

    def test_another_course_folder_has_other_hidden_inputs(self, tmp_path):
        seeds = {assignments._seed(tmp_path / str(number)) for number in range(4)}
        assert len(seeds) == 4


class TestClass:
    def test_every_file_has_a_row_with_the_score_it_deserves(self, graded):
        _, expected, results = graded
        assert len(expected) >= 45
        assert simulated.wrong(expected, results) == []

    def test_every_reference_solution_passes_every_hidden_test(self, graded, course):
        # one good submission of each chapter is not among the accidents, so it is graded here, from the same folder
        folder, _, results = graded
        full = {result.chapter for result in results if result.out_of and result.points == result.out_of}
        for name in set(NAMES) - full:
            student = simulated.Student(release(course, name), name).solves()
            file = folder.parent / f"good {name}.ipynb"
            file.write_text(nbformat.writes(student.notebook), encoding="utf-8")
            running.supervised(file, "good", course, course / "good" / name)
            (result,) = json.loads((course / "good" / name / "results.json").read_text(encoding="utf-8"))
            assert result["points"] == result["out_of"], result["questions"]

    def test_a_second_run_grades_only_what_changed(self, graded, course):
        folder, _, results = graded
        said = []

        def engine(tasks, *_):
            said.append([task.file.name for task in tasks])
            return iter(())

        again = running.grade_all(folder, course, engine, say=lambda _: None)
        assert said == [[]] and [r.points for r in again] == [r.points for r in results]
        (folder / "naive.ipynb").write_text((folder / "empty.ipynb").read_text(encoding="utf-8"), encoding="utf-8")
        tasks = [t for t in running.collect(folder)
                 if running._stamped(course / "graded" / t.name) != running.stamp(t, course)]
        assert [task.file.name for task in tasks] == ["naive.ipynb"]

    def test_scores_and_report_are_written(self, graded, course):
        _, expected, results = graded
        scores, page = report.write(results, course, "A test.")
        with scores.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == len(expected) and sum(float(row["points"]) for row in rows) > 0
        assert not any(row["student"].startswith("=") for row in rows), "a name would run as a formula"
        text = page.read_text(encoding="utf-8")
        assert re.search(r"<img[^>]* alt=.Histogram of the scores", text) and "Exercises, hardest first" in text
        assert "The commonest diagnoses" in text and "http" not in re.sub(r"http://www\.w3\.org/\S+", "", text)

    def test_every_student_has_a_feedback_page(self, graded, course):
        _, _, results = graded
        for result in results:
            pages = list((course / "feedback" / running.plain(result.student)).glob("*.html"))
            assert pages, result.file
        page = (course / "feedback" / running.plain("syntax error")).glob("*.html")
        assert "There is no function" in next(page).read_text(encoding="utf-8")

    def test_points_given_by_hand_win_and_stay(self, graded, course):
        folder, _, results = graded
        one = next(result for result in results if result.file == "edited tests.ipynb")
        (course / "overrides.csv").write_text("student,chapter,question,points,reason\n"
                                              f"edited tests,{one.chapter},q1,1.5,a good idea\nnobody,ch01,q1,1,x\n")
        again = running.grade_all(folder, course, lambda *_: iter(()), say=lambda _: None)
        changed = next(result for result in again if result.file == "edited tests.ipynb")
        assert changed.points == one.points + 1.5 and "given by hand" in " ".join(changed.notes)
        (course / "overrides.csv").write_text("student,chapter,question,points,reason\n"
                                              f"edited tests,{one.chapter},q1,,\n")
        again = running.grade_all(folder, course, lambda *_: iter(()), say=lambda _: None)
        assert next(result for result in again if result.file == "edited tests.ipynb").points == one.points
        (course / "overrides.csv").unlink()

    def test_two_dask_workers_give_the_same_grades(self, graded, course, tmp_path):
        distributed = pytest.importorskip("distributed")
        folder, _, results = graded
        chosen = ["corrupt.ipynb", "syntax error.ipynb", "deleted tests.ipynb"]
        for name in chosen:
            shutil.copy(folder / name, tmp_path / name)
        import dask

        other = tmp_path.parent / "the same course"
        shutil.copytree(course, other, ignore=shutil.ignore_patterns("graded", "feedback", "autograded"))
        with dask.config.set({"distributed.worker.daemon": False}), distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            found = running.grade_all(tmp_path, other, running.on_dask(cluster.scheduler_address))
        here = {result.file: result.points for result in results}
        assert {result.file: result.points for result in found} == {name: here[name] for name in chosen}


class TestSandbox:
    def run(self, code, tmp_path, *, kind="", monkeypatch=None):
        """Run one line of Python where students' code runs, without a kernel around it."""
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "inputs.json").write_text("{}")
        sandbox.kernelspec(tmp_path, tmp_path / "inputs.json")
        spec = json.loads((tmp_path / "kernels" / sandbox.KERNEL / "kernel.json").read_text())
        command = [*spec["argv"][:-2], "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)

    @WITH_BUBBLEWRAP
    def test_the_course_and_the_home_folders_are_not_there(self, tmp_path):
        places = [str(ROOT / "tests"), str(ROOT / ".git"), str(Path.home() / ".ssh"), "/home"]
        done = self.run(f"import os; print([p for p in {places!r} if os.path.exists(p)])", tmp_path)
        assert done.stdout.strip() == "[]", done.stderr

    @WITH_BUBBLEWRAP
    def test_nothing_outside_tmp_can_be_written(self, tmp_path):
        code = ("import os\nfor p in ('/', '/usr', '/etc', os.path.dirname(os.__file__), '/course'):\n"
                "    try:\n        open(os.path.join(p, 'x'), 'w'); print(p)\n    except OSError:\n        pass\n"
                "open('/tmp/x', 'w'); print('tmp')")
        assert self.run(code, tmp_path).stdout.split() == ["tmp"]

    @WITH_BUBBLEWRAP
    def test_there_is_no_network(self, tmp_path):
        done = self.run("import socket; socket.create_connection(('1.1.1.1', 53), 3)", tmp_path)
        assert "unreachable" in done.stderr

    @WITH_BUBBLEWRAP
    def test_the_librarys_own_solutions_are_hidden(self, tmp_path):
        code = "import course_lib.notebook.exercises; print('here'); import course_lib.methods.hinton"
        done = self.run(code, tmp_path)
        assert done.stdout.strip() == "here" and "course_lib.methods" in done.stderr

    def test_without_bubblewrap_a_plain_process_grades_and_says_so(self, course, tmp_path):
        student = simulated.Student(release(course, NAMES[0]), NAMES[0]).solves().first_is("while True: pass")
        file = tmp_path / "plain.ipynb"
        file.write_text(nbformat.writes(student.notebook), encoding="utf-8")
        code = ("import sys; from pathlib import Path; from classroom import grading, sandbox\n"
                "print(sandbox.explained()); (r,) = grading.grade(*map(Path, sys.argv[1:2]), 'plain', "
                "*map(Path, sys.argv[2:4])); print(r.sandbox, r.points)")
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, file, course, tmp_path / "out"], text=True,
                              capture_output=True, check=False, cwd=ROOT, timeout=300,
                              env=os.environ | {"COURSE_SANDBOX_KIND": "plain"})
        assert "CAN see your files" in done.stdout, done.stderr
        assert f"plain {student.asked.points - student.first.points:g}" in done.stdout, done.stderr


class TestSubmissions:
    def test_the_chapter_is_found_by_what_is_in_the_file(self, course):
        released = grading.released(course)
        for name in NAMES:
            asked = chapter(name)
            assert submissions._which_chapter([f"{name}-q1"], "", released) == name
            assert submissions._which_chapter([], f"def {asked.questions[0].function}(x):\n    pass", released) == name
        with pytest.raises(submissions.NotAnAnswerError):
            submissions._which_chapter([], "print(1)", released)

    def test_quiz_letters_are_read_and_not_run(self):
        asked = chapter("ch01")
        assert submissions._letters(asked, 'answer("ch01.quiz", "ab-x----")') == {1: "a", 2: "b"}
        assert submissions._letters(asked, "answer('ch01.quiz3', 'C')  # sure") == {3: "c"}
        assert submissions._letters(asked, 'answer("ch02.quiz", "aaaaaaaa")') == {}

    def test_of_a_whole_chapter_only_definitions_are_kept(self, course, tmp_path):
        asked = chapter("ch01")
        notebook = simulated.whole_chapter(asked)
        notebook.cells.append(nbformat.v4.new_code_cell("def helper(x):\n    return x"))
        notebook.cells.append(nbformat.v4.new_code_cell("history = train(model, steps=10**9)"))
        file = tmp_path / "mine.ipynb"
        file.write_text(nbformat.writes(notebook), encoding="utf-8")
        (handed,) = submissions.read(file, grading.released(course))
        code = "\n".join(handed.cells)
        assert "def helper" in code and "train(" not in code and "load_teacher" not in code
        assert all(q.function in code for q in asked.questions) and len(handed.quiz) == len(asked.quiz)
