"""A class: assignments agree with the chapters, the sandbox holds, every file gets the score that it deserves."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader", reason="nbgrader is not installed: python tools/set_up.py class")

import simulated_class as simulated
import simulated_odd as odd
from classroom import assignments, grading, handout, overrides, report, running, sandbox, submissions
from classroom.untrusted import UnreadableError, folder_name, parsed, shown
from solutions import make_golden

from course_lib.notebook import pick
from course_lib.notebook.exercises.questions import chapter

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"),
              pytest.mark.skipif(sys.platform == "win32", reason="the course runs in WSL on Windows")]
WITH_BUBBLEWRAP = pytest.mark.skipif(sandbox.kind() != "bubblewrap", reason="bubblewrap does not work on this machine")
NAMES = assignments.available()
EACH_CHAPTER = pytest.mark.parametrize("name", NAMES)
# The accidents of the short lane: no answer, a wrong one, a forged one, and what must not reach another's points.
FEW = {"empty", "naive", "forged answers", "syntax error", "endless loop", "exit in a cell", "reads solutions",
       "network", "edited tests", "deleted tests"}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder with the assignments of all chapters."""
    folder = tmp_path_factory.mktemp("course")
    assignments.generate(folder, NAMES, seed=11)
    return folder


def few(folder, expected):
    """Keep FEW, files that nobody can read, a name that is a formula, and one good file of each chapter."""
    good = {one.chapter: one for one in expected if one.kind.startswith("student ")}
    kept = [one for one in expected if one.kind in FEW | {"broken"} or one.file.startswith("=")] + [*good.values()]
    for one in expected:
        if one not in kept:
            (folder / one.file).unlink()
    return kept


@pytest.fixture(scope="module")
def graded(course, tmp_path_factory, short_lane):
    """The simulated class, graded once: one file of each kind (few in the short lane, 100 with COURSE_TIER=full)."""
    folder = tmp_path_factory.mktemp("handed in")
    expected = simulated.make_class(folder, course, count=100 if short_lane else pick(fast=0, full=100))
    expected = few(folder, expected) if short_lane else expected
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
    def test_every_question_has_hidden_inputs_and_none_of_them_is_public(self, course, name):
        hidden = json.loads((course / "hidden" / f"{name}.json").read_text(encoding="utf-8"))
        public = json.loads((make_golden.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        assert hidden.keys() == public.keys()
        for question, cases in hidden.items():
            known = [case["args"] for case in public[question]]
            assert len(cases) >= 2 and not [case for case in cases if case["args"] in known], question

    def test_the_sandbox_is_sent_inputs_and_no_right_number(self, course):
        hidden = json.loads((course / "hidden" / "ch01.json").read_text(encoding="utf-8"))
        sent = json.dumps([grading.inputs_only(cases) for cases in hidden.values()])
        assert "expected" not in sent and "mistakes" not in sent and "gradient" in sent

    def test_students_get_a_zip_without_solutions_and_without_the_grader(self, course):
        with zipfile.ZipFile(course / "release.zip") as made:
            names = made.namelist()
        assert {f"{handout.FOLDER}/assignments/{name}.ipynb" for name in NAMES} <= set(names)
        assert f"{handout.FOLDER}/pyproject.toml" in names and f"{handout.FOLDER}/Makefile" in names
        assert not [name for name in names if re.search(r"/(solutions|reference|tests|classroom|hidden|\.git)/", name)]

    def test_only_its_owner_opens_the_folder_of_a_class(self, course):
        assert [(course / part).stat().st_mode & 0o077 for part in (".", "hidden")] == [0, 0]

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
        seeds = {assignments._seed(tmp_path / str(number), "ch01", None, fresh=False) for number in range(4)}
        assert len(seeds) == 4

    def test_every_assignment_has_a_seed_of_its_own_and_a_changed_one_another(self, tmp_path):
        first = [assignments._seed(tmp_path, name, None, fresh=False) for name in ("ch01", "ch02", "ch01")]
        assert first[0] == first[2] != first[1]
        assert assignments._seed(tmp_path, "ch01", None, fresh=True) != first[0]
        asked = [assignments._seed(tmp_path, name, 11, fresh=False) for name in ("ch01", "ch02", "ch01")]
        assert asked[0] == asked[2] != asked[1]


class TestQuick:
    def test_right_answers_get_all_points_and_ten_accidents_what_they_deserve(self, course, tmp_path):
        expected = simulated.make_quick(tmp_path / "in", course)
        other = tmp_path / "course"
        shutil.copytree(course, other)
        results = running.grade_all(tmp_path / "in", other, running.here(running.workers()), say=lambda _: None)
        assert len(results) == len(NAMES) + 10 and simulated.wrong(expected, results) == []


@pytest.mark.slow
class TestClass:
    def test_every_file_has_a_row_with_the_score_it_deserves(self, graded, short_lane):
        _, expected, results = graded
        kinds = {one.kind for one in expected}
        assert kinds >= FEW and (short_lane or kinds >= simulated.ACCIDENTS.keys() | simulated.REARRANGED.keys())
        assert len(expected) >= (len(FEW) + len(NAMES) if short_lane else 45)
        assert simulated.wrong(expected, results) == []

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
            pages = list((course / "feedback" / folder_name(result.student)).glob("*.html"))
            assert pages, result.file
        page = (course / "feedback" / folder_name("syntax error")).glob("*.html")
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

    @pytest.mark.slow
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


@pytest.mark.slow
class TestOddClass:
    """Files that once cost an honest student points, or that once stopped or fooled the grader."""

    @pytest.fixture(scope="class")
    def odd_class(self, tmp_path_factory):
        course, folder = tmp_path_factory.mktemp("odd course"), tmp_path_factory.mktemp("odd")
        assignments.generate(course, [odd.CHAPTER], seed=11)
        expected = odd.make_odd(folder, course)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("A_TOKEN", odd.SECRET)
            results = running.grade_all(folder, course, running.here(running.workers()))
        report.write(results, course, "A test.")
        return course, expected, results

    def test_every_file_gets_what_it_is_due(self, odd_class):
        _, expected, results = odd_class
        assert simulated.wrong(expected, results) == []

    def test_no_page_and_no_notebook_holds_anything_active_or_asks_another_host(self, odd_class):
        course, _, results = odd_class
        made = list((course / "feedback").rglob("*.html"))
        assert len(made) >= len(results) - 1
        for page in made:
            text = page.read_text(encoding="utf-8")
            assert "default-src 'none'" in text
            assert not re.search(r"<(script|img|svg|iframe|object|link)\b|https?://|javascript:", text), page
        for file in (course / "autograded").rglob("*.ipynb"):
            notebook = nbformat.read(file, as_version=4)
            assert {cell.cell_type for cell in notebook.cells} == {"code"}
            assert {output.output_type for cell in notebook.cells for output in cell.outputs} <= {"stream"}
            assert not [cell for cell in notebook.cells if set(cell.metadata) - {"nbgrader"}]

    def test_no_secret_and_no_hidden_input_reaches_a_page_a_notebook_or_a_table(self, odd_class):
        course, _, _ = odd_class
        written = [file for part in ("feedback", "autograded", "graded") for file in (course / part).rglob("*")]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in
                 (*written, course / "scores.csv", course / "report.html") if file.is_file()]
        assert len(texts) > 100
        hidden = json.loads((course / "hidden" / "ch01.json").read_text(encoding="utf-8"))
        (told,) = (case for case in hidden["ch01.q1"] if case["args"]["logits"]["shape"] == [5, 5])
        number = str(told["args"]["logits"]["tensor"][0])[:9]
        assert not [text for text in texts if odd.SECRET in text or f"{odd.TOLD} [" in text or number in text]

    def test_pages_and_tables_stay_small(self, odd_class):
        course, _, _ = odd_class
        sizes = {file: file.stat().st_size for part in ("feedback", "autograded", "graded", "report.html", "scores.csv")
                 for file in [course / part, *(course / part).rglob("*")] if file.is_file()}
        assert max(sizes.values()) < 1_000_000, max(sizes, key=sizes.get)

    def test_a_feedback_page_says_who_what_and_why(self, odd_class):
        course, _, _ = odd_class
        text = (course / "feedback" / folder_name("half precision") / "ch01.html").read_text(encoding="utf-8")
        assert "half precision" in text and text.count("ch01.q1") >= 2 and "type float16" in text and "Hint:" in text
        assert "HIDDEN" not in text and "Test cell" not in text
        assert text.index(".half()") < text.index('class="verdict not-yet"')  # the verdict stands beside the code

    def test_nobody_shares_a_folder(self, odd_class):
        _, _, results = odd_class
        names = {"right", "Right", "a b", "a-b"}
        assert len({result.key for result in results if result.student in names}) == len(names)


class TestWords:
    """What may be said of a function that met a hidden input, or that ran where it sees the instructor's files."""

    @pytest.mark.parametrize(("message", "said"), [
        ("Your function stops with ValueError: [1.5, 2.5] (line 3).", "Your function stops with ValueError"),
        ("Your function stops with My_secret: x.", "Your function does not give an answer"),
        ("Your function returns an object of type secret, but", "Your function returns another type than it should"),
        ("Your function returns the shape (1, 5, 9), but", "Your function returns another shape than it should"),
        ("Your function did not finish within 10 seconds.", "Your function did not finish"),
        ("secret", "Your function does not give an answer"),
        ("There is no function secret", "There is no function softened in the notebook")])
    def test_an_error_s_own_words_are_left_out(self, message, said):
        verdict = grading.Verdict("ch01.q1", "not yet", 0, 2, message, 1)
        found = grading._without_their_words(verdict)
        assert found == f"{said}." and "secret" not in found

    def test_without_a_sandbox_nothing_that_code_prints_reaches_a_page(self, monkeypatch):
        class Box:
            def ask(self, *_):
                return {"text": odd.SECRET, "error": f"ValueError: {odd.SECRET}"}

        cell = submissions.Cell("print(open('x').read())")
        monkeypatch.setattr(sandbox, "holds", lambda: True)
        assert odd.SECRET in grading._cell(Box(), cell, "")["output"]
        monkeypatch.setattr(sandbox, "holds", lambda: False)
        assert odd.SECRET not in str(grading._cell(Box(), cell, ""))


class TestNames:
    @pytest.mark.parametrize(("one", "other"), [("a b", "a-b"), ("Zoe", "zoe"), ("x" * 50, "x" * 51), ("ä", "ö"),
                                                ("a b", folder_name("a b")), ("", "student")])
    def test_two_names_never_share_a_folder(self, one, other):
        assert folder_name(one).lower() != folder_name(other).lower()
        assert re.fullmatch(r"[a-z0-9_-]+", folder_name(one))

    def test_a_name_of_any_bytes_becomes_one_readable_line(self):
        assert shown(os.fsdecode(b"Zo\x89")) == "Zoë"
        assert shown("evil\n\x1b[2J\u202etxt") == "evil \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}txt"

    @pytest.mark.parametrize("content", [b"[" * 200_000, b"{" + b'"a":{},' * 2_000_000, b"\xff\xfe", b"9" * 5000,
                                         b"x" * 1001])
    def test_json_of_strangers_is_refused_with_a_sentence(self, content):
        with pytest.raises(UnreadableError, match=r"^It "):
            parsed(content, 1000 if content.startswith(b"x") else 100_000_000)


class TestOverrides:
    RESULTS = (grading.Result("Zoë Ångström", "z.ipynb", "ch01", key="zo", questions={
        "ch01.q3": {"points": 0, "out_of": 3, "status": "not yet", "message": ""}}),)

    def read(self, tmp_path, content: bytes):
        (tmp_path / "overrides.csv").write_bytes(content)
        return overrides.read(tmp_path / "overrides.csv", self.RESULTS)

    @pytest.mark.parametrize("content", [
        "student,chapter,question,points,reason\r\nZoë Ångström,ch01,q3,2.5,idée\r\n".encode("cp1252"),
        "student;chapter;question;points;reason\r\nZoë Ångström;ch01;q3;2,5;idée\r\n".encode("cp1252"),
        "sep=;\nStudent;Chapter;Question;Points;Reason\nZoë Ångström;ch01;ch01.q3;2.5;idée\n".encode("utf-8-sig"),
        "student\tchapter\tquestion\tpoints\treason\nzo\tch01\tq3\t2.5\tidée\n".encode("utf-16")])
    def test_a_table_from_any_spreadsheet_is_read(self, tmp_path, content):
        found, said = self.read(tmp_path, content)
        assert (found, said) == ([overrides.Override("zo", "ch01.q3", 2.5, "idée")], [])

    @pytest.mark.parametrize(("line", "words"), [
        ("zo,ch01,q3,99,x", "0 to 3"), ("zo,ch01,q3,-5,x", "0 to 3"), ("zo,ch01,q3,nan,x", "0 to 3"),
        ("zo,ch01,q3,two,x", "no number"), ("nobody,ch01,q3,1,x", "no student"), ("zo,ch02,q3,1,x", "nothing for"),
        ("zo,ch01,q9,1,x", "no exercise"), ("zo", "nothing for")])
    def test_a_wrong_line_is_refused_with_a_sentence(self, tmp_path, line, words):
        found, said = self.read(tmp_path, f"student,chapter,question,points,reason\n{line}\n".encode())
        assert found == [] and len(said) == 1 and words in said[0] and "line 2" in said[0]

    def test_a_table_without_its_columns_is_refused(self, tmp_path):
        found, said = self.read(tmp_path, b"name,mark\nzo,3\n")
        assert found == [] and "student is missing" in said[0]


class TestStopping:
    def test_ctrl_c_keeps_what_is_graded_and_ends_the_others(self, tmp_path, course, monkeypatch):
        for name in ("one", "two", "three"):
            (tmp_path / "in" / f"{name}.png").parent.mkdir(exist_ok=True)
            (tmp_path / "in" / f"{name}.png").write_bytes(b"")
        other = tmp_path / "course"
        shutil.copytree(course, other, ignore=shutil.ignore_patterns("graded", "feedback", "autograded"))

        def interrupted(tasks, course_folder, graded):
            grading.save([grading.not_graded(tasks[0].file, tasks[0].student, "x")], graded / tasks[0].name)
            yield tasks[0]
            raise KeyboardInterrupt

        with pytest.raises(running.Stopped, match="1 of 3 files") as stopped:
            running.grade_all(tmp_path / "in", other, interrupted, say=lambda _: None)
        assert [result.notes[-1] for result in stopped.value.results].count("Not graded yet: the run was stopped.") == 2
        assert len([t for t in running.collect(tmp_path / "in")
                    if not running._stamped(other / "graded" / t.name)]) == 2

    @pytest.mark.slow
    def test_a_file_that_is_being_graded_ends_within_seconds(self, tmp_path, course):
        student = simulated.Student(release(course, "ch01"), "ch01").adds("import time\ntime.sleep(15)")
        file, stopped = tmp_path / "slow.ipynb", threading.Event()
        file.write_text(nbformat.writes(student.notebook), encoding="utf-8")
        warm = running._server().Process(target=os.getpid)  # the server has imported everything when this has ended
        warm.start()
        warm.join()
        thread = threading.Thread(target=running.supervised, args=(file, "slow", course, tmp_path / "out", stopped))
        thread.start()
        time.sleep(1)
        stopped.set()
        thread.join(10)
        assert not thread.is_alive() and not (tmp_path / "out" / running.RESULTS).exists()


@pytest.mark.slow
class TestSandbox:
    def run(self, code):
        """What one cell prints where students' code runs."""
        with sandbox.Box() as box:
            reply = box.ask({"cell": code, "space": ""}, 60)
        return reply["text"].strip(), reply["error"]

    @WITH_BUBBLEWRAP
    def test_the_course_and_the_home_folders_are_not_there(self):
        places = [str(ROOT / "tests"), str(ROOT / ".git"), str(Path.home() / ".ssh"), "/home"]
        assert self.run(f"import os; print([p for p in {places!r} if os.path.exists(p)])") == ("[]", "")

    @WITH_BUBBLEWRAP
    def test_nothing_outside_tmp_can_be_written(self):
        code = ("import os\nfor p in ('/', '/usr', '/etc', '/dev', os.path.dirname(os.__file__), '/course'):\n"
                "    try:\n        open(os.path.join(p, 'x'), 'w'); print(p)\n    except OSError:\n        pass\n"
                "open('/tmp/x', 'w'); print('tmp')")
        assert self.run(code) == ("tmp", "")

    @WITH_BUBBLEWRAP
    @pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
    def test_what_can_be_written_has_a_size(self, folder):
        code = (f"import os\nwritten = 0\ntry:\n    for i in range(200):\n"
                f"        written += open(f'{folder}/{{i}}', 'wb').write(b'x' * 1_000_000)\n"
                "except OSError:\n    print(written <= 80_000_000)")
        assert self.run(code) == ("True", "")

    @WITH_BUBBLEWRAP
    def test_there_is_no_network(self):
        assert "unreachable" in self.run("import socket; socket.create_connection(('1.1.1.1', 53), 3)")[1]

    @WITH_BUBBLEWRAP
    def test_the_environment_is_empty_in_every_process(self, monkeypatch):
        monkeypatch.setenv("A_TOKEN", odd.SECRET)
        code = ("import os\nfound = [dict(os.environ)]\nfor p in os.listdir('/proc'):\n    if p.isdigit():\n"
                "        try:\n            found.append(open(f'/proc/{p}/environ').read())\n"
                f"        except OSError:\n            pass\nprint(len(found[0]) > 5, {odd.SECRET!r} in str(found))")
        assert self.run(code) == ("True False", "")

    @WITH_BUBBLEWRAP
    def test_no_user_namespace_no_memory_without_an_owner(self):
        code = ("import ctypes, os\nprint(ctypes.CDLL(None).unshare(0x10000000))\ntry:\n    os.memfd_create('x')\n"
                "except OSError as error:\n    print(error.errno)")
        assert self.run(code) == ("-1\n1", "")

    @WITH_BUBBLEWRAP
    def test_golden_numbers_and_solutions_are_not_there(self):
        code = ("import course_lib.notebook.exercises as e, os\nhere = os.path.dirname(e.__file__)\n"
                "print([os.listdir(os.path.join(here, f)) for f in ('golden', 'reference') "
                "if os.path.isdir(os.path.join(here, f))])\nimport course_lib.methods.hinton")
        text, error = self.run(code)
        assert text == "[[], []]" and "course_lib.methods" in error and "functions of your own" in error

    def test_what_prints_without_end_is_cut_while_it_arrives(self):
        text, error = self.run("for _ in range(300): print('x' * 1_000_000)")
        assert 0 < len(text) <= 4_000 and not error

    def test_all_processes_of_a_submission_share_one_limit_of_memory(self):
        code = ("import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n"
                "        hoard = b'x' * 500_000_000; time.sleep(30)\ntime.sleep(30)")
        with pytest.raises(sandbox.Ended, match="memory"):
            self.run(code)

    def test_time_is_the_process_s_own(self):
        with sandbox.Box() as box:
            before = time.monotonic()
            with pytest.raises(sandbox.Ended, match="did not come to an end"):
                box.ask({"cell": "while True: pass", "space": ""}, 1)
            assert time.monotonic() - before < sandbox.PATIENCE + 5

    def test_an_outcome_that_is_missing_gives_no_points(self):
        asked = chapter("ch00").questions[0]
        assert not asked.properties
        verdict = grading._verdict(asked, {"refused": "", "outcomes": []}, grading.golden("ch00")[asked.name])
        assert verdict.points == 0 and "calls of your function" in verdict.message

    def test_without_bubblewrap_a_plain_process_grades_and_says_so(self, course, tmp_path):
        student = simulated.Student(release(course, NAMES[0]), NAMES[0]).solves().first_is("while True: pass")
        file = tmp_path / "plain.ipynb"
        file.write_text(nbformat.writes(student.notebook), encoding="utf-8")
        code = ("import sys; from pathlib import Path; from classroom import grading, sandbox\n"
                "print(sandbox.explained()); (r,) = grading.grade(*map(Path, sys.argv[1:2]), 'plain', "
                "*map(Path, sys.argv[2:4])); print(r.sandbox, r.points)")
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, file, course, tmp_path / "out"], text=True,
                              capture_output=True, check=False, cwd=ROOT, timeout=300,
                              env=os.environ | {"COURSE_SANDBOX_KIND": "plain", "PYTHONPATH": str(ROOT / "tools")})
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
        assert submissions.letters(asked, 'answer("ch01.quiz", "ab-x----")') == {1: "a", 2: "b"}
        assert submissions.letters(asked, "answer('ch01.quiz3', 'C')  # sure") == {3: "c"}
        assert submissions.letters(asked, 'answer("ch02.quiz", "aaaaaaaa")') == {}

    def test_of_a_whole_chapter_only_definitions_are_kept(self, course, tmp_path):
        asked = chapter("ch01")
        notebook = simulated.whole_chapter(asked)
        notebook.cells.append(nbformat.v4.new_code_cell("def helper(x):\n    return x"))
        notebook.cells.append(nbformat.v4.new_code_cell("history = train(model, steps=10**9)"))
        file = tmp_path / "mine.ipynb"
        file.write_text(nbformat.writes(notebook), encoding="utf-8")
        (handed,) = submissions.read(file, grading.released(course))
        code = "\n".join(cell.text for cell in handed.cells)
        assert "def helper" in code and "train(" not in code and "load_teacher" not in code
        assert all(q.function in code for q in asked.questions) and len(handed.quiz) == len(asked.quiz)
