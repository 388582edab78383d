"""The odd part of a class: files that once cost an honest student points, or that once stopped or fooled the grader.

`make_odd` writes them and says what each must get, as `simulated_class.make_class` does for the rest. A file that is
not described otherwise is a right chapter 1 (20 of 20 points) with what its name says.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
from classroom.untrusted import shown
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from simulated_class import Expected, Student, right_letters, same_for_all, whole_chapter

from course_lib.notebook.exercises.questions import chapter, golden

CHAPTER = "ch01"
SECRET = "course-secret-7f31c9"  # planted in the environment, in a home folder and in a parent process
TOLD = "told-by-a-function"
PUBLIC = next(case["args"]["logits"]["tensor"][0] for case in golden(CHAPTER)["ch01.q1"]
              if case["args"]["logits"]["shape"] == [5, 5])
SOFTMAX = "torch.softmax(logits / temperature, -1)"
ANSWER = f"def softened(logits, temperature):\n    return {SOFTMAX}"
SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


def _right(student: Student) -> Student:
    """Everything right, and no cell defines the function of another: breaking one costs its own points only."""
    student.solves()
    return student.writes({"ch01.q1": ANSWER, "ch01.q6": """\
def soft_gradient(student_logits, teacher_logits, temperature):
    gap = torch.softmax(student_logits / temperature, -1) - torch.softmax(teacher_logits / temperature, -1)
    return temperature * gap / len(gap)"""})


def _q1(text: str) -> Callable[[Student], object]:
    return lambda s: _right(s).writes({"ch01.q1": text})


def _quiz(text: str) -> Callable[[Student], object]:
    return lambda s: _right(s).writes({"ch01.quiz": text.replace("LETTERS", right_letters(s.asked))})


def _last(text: str) -> Callable[[Student], object]:
    return lambda s: _right(s).adds(text, len(s.notebook.cells))


def _first(text: str) -> Callable[[Student], object]:
    return lambda s: _right(s).adds(text)


def _in_a_text_cell(student: Student) -> None:
    cell = _right(student).cell("ch01.q1")
    place = student.notebook.cells.index(cell)
    student.notebook.cells[place] = new_markdown_cell(cell.source)


def _active(student: Student) -> None:
    _right(student)
    student.notebook.cells.insert(3, new_markdown_cell(SCRIPT))
    student.notebook.cells.insert(3, new_code_cell(f"# {SCRIPT}", metadata={"tags": [SCRIPT]}, outputs=[
        new_output("display_data", {"text/html": SCRIPT, "image/svg+xml": f"<svg onload='{SCRIPT}'/>",
                                    "application/javascript": "window.hacked = 3"})]))
    student.adds(f"from IPython.display import HTML, display\ndisplay(HTML({SCRIPT!r}))\nprint({SCRIPT!r})")


def _reads(text: str) -> Callable[[Student], object]:
    """A cell that looks for what is not its own, and prints it."""
    return lambda s: _right(s).adds(f"try:\n    print({text})\nexcept OSError as error:\n    print(type(error))")


# kind -> (what the student does, points missing from 20, words in the notes, words in the diagnosis of ch01.q1)
KINDS: dict[str, tuple[Callable[[Student], object], float, str, str]] = {
    "flood of prints": (_first("for _ in range(3000):\n    print('x' * 1_000_000)"), 0, "", ""),
    "flood of displays": (_first("from IPython.display import display\nfor i in range(100):\n"
                                 "    display({'text/plain': 'y' * 3_000_000}, raw=True)"), 0, "", ""),
    "long message": (_q1("def softened(logits, temperature):\n    raise ValueError('z' * 15_000_000)"), 2, "", "zzz"),
    "long type name": (_q1("Long = type('L' * 10_000_000, (), {})\n"
                           "def softened(logits, temperature):\n    return Long()"), 2, "", "LLL"),
    "exit at the end": (_last("exit()"), 0, "", ""),
    "quit at the end": (_last("quit"), 0, "", ""),
    "sys exit at the end": (_last("import sys\nsys.exit(1)"), 0, "", ""),
    "SystemExit at the end": (_last("raise SystemExit"), 0, "", ""),
    "reset at the end": (_last("%reset -f"), 0, "", ""),
    "deletes at the end": (_last("del softened"), 0, "", ""),
    "overwrites with a result": (_last("softened = softened(torch.zeros(1, 2), 1.0)"), 0, "", ""),
    "comment after the letters": (_quiz('answer("ch01.quiz", "LETTERS")\n# answer("ch01.quiz", "bbbbbbbb")'), 0, "",
                                  ""),
    "letters in a variable": (_quiz('mine = "LETTERS"\nanswer("ch01.quiz", mine)'), 0, "", ""),
    "letters by keyword": (_quiz('answer(name="ch01.quiz", choice="LETTERS")'), 0, "", ""),
    "letters in a loop": (_quiz('for i, x in enumerate("LETTERS", 1):\n    answer(f"ch01.quiz{i}", x)'), 0, "", ""),
    "letters in triple quotes": (_quiz('answer(\n    "ch01.quiz",\n    """LETTERS""",\n)'), 0, "", ""),
    "letters with blanks": (_quiz('answer("ch01.quiz", " ".join("LETTERS".upper()))'), 0, "", ""),
    "conditional def": (_q1(f'if torch.__version__ >= "1":\n    def softened(logits, temperature):\n'
                            f"        return {SOFTMAX}"), 0, "", ""),
    "tuple assignment": (_q1(f"def a(logits, temperature):\n    return {SOFTMAX}\nsoftened, other = a, None"), 0, "",
                         ""),
    "double assignment": (_q1(f"softened = mine = lambda logits, temperature: {SOFTMAX}"), 0, "", ""),
    "walrus": (_q1(f"print(softened := lambda logits, temperature: {SOFTMAX})"), 0, "", ""),
    "partial": (_q1("from functools import partial\ndef any_axis(axis, logits, temperature):\n"
                    "    return torch.softmax(logits / temperature, axis)\nsoftened = partial(any_axis, -1)"), 0, "",
                ""),
    "callable object": (_q1(f"class Soft:\n    def __call__(self, logits, temperature):\n        return {SOFTMAX}\n"
                            "softened = Soft()"), 0, "", ""),
    "error in the line above": (_q1(f"print(never_defined)\n{ANSWER}"), 0, "", ""),
    "magic above": (_q1(f"%matplotlib inline\n{ANSWER}"), 0, "", ""),
    "time magic": (_q1(f"%%time\n{ANSWER}"), 0, "", ""),
    "answer in a text cell": (_in_a_text_cell, 2, "Markdown cell", "Markdown cell"),
    "softmax of whole numbers": (_q1("def softened(logits, temperature):\n    return torch.softmax(logits.long(), -1)"),
                                 2, "", "not implemented for"),
    "its own NotImplementedError": (_q1("def softened(logits, temperature):\n    if logits.dim() > 2:\n"
                                        "        raise NotImplementedError('no idea for 3 dimensions')\n"
                                        f"    return {SOFTMAX}"), 2, "", "no idea for 3 dimensions"),
    "half precision": (_q1(f"def softened(logits, temperature):\n    return {SOFTMAX}.half()"), 2, "", "type float16"),
    "complex": (_q1(f"def softened(logits, temperature):\n    return {SOFTMAX} + 0j"), 2, "", "complex64"),
    "meta tensor": (_q1(f"def softened(logits, temperature):\n    return {SOFTMAX}.to('meta')"), 2, "", "meta"),
    "huge whole number": (_q1("def softened(logits, temperature):\n    return 10 ** 5000"), 2, "", "300 digits"),
    "bad picture": (_first("from IPython.display import display\n"
                           "display({'text/plain': 5, 'image/png': '###'}, raw=True)"), 0, "", ""),
    "deep json": (_first("from IPython.display import display\nx = []\nfor _ in range(900): x = [x]\n"
                         "display({'application/json': x}, raw=True)"), 0, "", ""),
    "a sum of 400 terms": (_q1(f"{ANSWER}\n    return " + "+".join(["1"] * 400)), 0, "", ""),
    "a number of 5,000 digits": (_q1(f"BIG = {'9' * 4000}\n{ANSWER}\n    return {'9' * 5000}"), 2, "", "no function"),
    "empty outcomes": (lambda s: s.adds("from course_lib.notebook.exercises import guard\n"
                                        "guard.run = lambda *_, **__: []"
                                        ).writes(same_for_all(s.asked, "return 'none'")), 20, "",
                       "returns a str"),
    "one outcome for all": (lambda s: s.adds(
        "from course_lib.notebook.exercises import guard\nkept = guard.run\n"
        "guard.run = guard._in_a_child = lambda *a, **k: kept(*a, **k)[:1]"
        ).writes(same_for_all(s.asked, "return 'none'")), 20, "", ""),
    "looks for the public numbers": (_first("from course_lib.notebook.exercises.questions import golden\n"
                                            "print(golden('ch01'))"), 0, "", ""),
    "looks for the hidden inputs": (_reads("open('/course/inputs.json').read(), __import__('os').listdir('/course')"),
                                    0, "", ""),
    "tells of its inputs": (_q1("def softened(logits, temperature):\n"
                                f"    if logits.shape == (5, 5) and abs(float(logits[0, 0]) - {PUBLIC}) > 1e-5:\n"
                                f"        raise ValueError('{TOLD} ' + repr(logits.tolist()))\n"
                                f"    return {SOFTMAX}"), 2, "", "ValueError with a hidden input"),
    "environment": (_reads("dict(__import__('os').environ), [open(f'/proc/{p}/environ').read() for p in "
                           "__import__('os').listdir('/proc') if p.isdigit()]"), 0, "", ""),
    "home folders": (_reads("[open(os.path.join(d, f)).read() for top in ('/root', '/home', '/tmp') "
                            "for d, _, n in os.walk(top) for f in n if f.endswith('.secret')] if (os := "
                            "__import__('os')) else 0"), 0, "", ""),
    "active content": (_active, 0, "", ""),
    "many processes": (_first("import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n"
                              "        end = time.time() + 5\n        while time.time() < end: pass\n"
                              "        os._exit(0)"), 0, "", ""),
    "memory without an owner": (_first("import os\nfor i in range(60):\n    f = os.memfd_create(str(i))\n"
                                       "    os.write(f, b'x' * 30_000_000)"), 0, "", ""),
    "a namespace of its own": (_first("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0\n"
                                      "del softened"), 0, "", ""),
    "fills the disk": (_first("import os\nfor i in range(200):\n    for d in ('/tmp', '/dev/shm'):\n"
                              "        try:\n            open(f'{d}/{i}', 'wb').write(b'x' * 10_000_000)\n"
                              "        except OSError:\n            pass"), 0, "", ""),
}


def make_odd(folder: Path, course: Path) -> list[Expected]:
    """Write the odd files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    release = nbformat.read(course / "release" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    made = []
    for kind, (does, missing, note, said) in KINDS.items():
        student = Student(release, CHAPTER)
        does(student)
        made.append(_write(folder / f"{kind}.ipynb", student, missing, note, said))
    return [*made, *_whole_chapters(folder), *_files(folder, release), *_names(folder, release)]


def _write(file: Path, student: Student, missing: float = 0, note: str = "", said: str = "") -> Expected:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(nbformat.writes(student.notebook), encoding="utf-8")
    return Expected(shown(file.name), file.stem, CHAPTER, chapter(CHAPTER).points - missing, note,
                    {"ch01.q1": said} if said else None)


HELPERS = {
    "a helper with a print below": "def mine(z):\n    return torch.softmax(z, -1)\n\nprint(mine(torch.zeros(3)))",
    "a helper that is an object": "mine = torch.nn.Softmax(dim=-1)",
    "a helper below a magic": "%matplotlib inline\ndef mine(z):\n    return torch.softmax(z, -1)",
    "a helper below a docstring": '"""My helper."""\ndef mine(z):\n    return torch.softmax(z, -1)',
    "a helper in an if": "if True:\n    def mine(z):\n        return torch.softmax(z, -1)",
    "a helper with a constant": "AXES = [-1]\nNO = float('nan')\n\ndef mine(z):\n    return torch.softmax(z, AXES[0])",
}


def _whole_chapters(folder: Path) -> list[Expected]:
    """Whole chapters with a helper of the student's own; nothing of it may be dropped silently, nothing trained."""
    made = []
    for kind, text in HELPERS.items():
        notebook = whole_chapter(chapter(CHAPTER))
        place = next(i for i, cell in enumerate(notebook.cells) if "def softened(" in cell.source)
        notebook.cells[place].source = "def softened(logits, temperature):\n    return mine(logits / temperature)"
        notebook.cells.insert(place, new_code_cell(text))
        notebook.cells.append(new_code_cell("history = train(student, steps=10**9)\nwhile True: pass"))
        file = folder / f"whole chapter, {kind}.ipynb"
        file.write_text(nbformat.writes(notebook), encoding="utf-8")
        made.append(Expected(file.name, file.stem, CHAPTER, chapter(CHAPTER).points, "were not run"))
    return made


def _files(folder: Path, release: nbformat.NotebookNode) -> list[Expected]:
    """Files of other forms, and things that are no files."""
    student = _right(Student(release, CHAPTER))
    content = json.loads(nbformat.writes(student.notebook))
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [
        {"cell_type": "code", "input": cell["source"], "outputs": []} if cell["cell_type"] == "code" else cell
        for cell in content["cells"]]}]}
    written = {"format 3.ipynb": json.dumps(old).encode(), "utf-16.ipynb": json.dumps(content).encode("utf-16"),
               "utf-8 with a mark.ipynb": b"\xef\xbb\xbf" + json.dumps(content).encode(),
               "windows lines.ipynb": json.dumps(content).replace("\\n", "\\r\\n").encode(),
               ".a dot file.ipynb": json.dumps(content).encode()}
    for name, text in written.items():
        (folder / name).write_bytes(text)
    made = [Expected(name, name, CHAPTER, chapter(CHAPTER).points) for name in written]
    pixel = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5C"
                             "YII=")
    made.append(_write(folder / "anna" / "mine.ipynb", student))
    (folder / "anna" / "a picture.png").write_bytes(pixel)
    (folder / "cells.ipynb").write_text('{"cells":[' + "{}," * 19_999_999 + "{}]}", encoding="utf-8")
    with (folder / "sparse.ipynb").open("wb") as file:
        file.truncate(3_000_000_000)
    os.mkfifo(folder / "fifo.ipynb")
    (folder / "a folder.ipynb").mkdir()
    said = {"a picture.png": "nothing to grade", "cells.ipynb": "too many parts", "sparse.ipynb": "3,000 MB",
            "fifo.ipynb": "no ordinary file"}
    return made + [Expected(name, name, "", 0, note) for name, note in said.items()]


def _names(folder: Path, release: nbformat.NotebookNode) -> list[Expected]:
    """Names of any bytes, and names that would share a folder."""
    student = _right(Student(release, CHAPTER))
    file = folder / "right.ipynb"
    made = [_write(file, student)]
    raw = [b"Zo\x89 (from a zip of Windows).ipynb", b"evil\n[9_9] alice.ipynb: ch01 20 of 20\x1b[2J.ipynb",
           b"<img src=x onerror=alert(1)>.ipynb", b"Right.ipynb", b"a b.ipynb", b"a-b.ipynb"]
    for name in raw:
        shutil.copy(file, os.path.join(os.fsencode(folder), name))
        made.append(Expected(shown(os.fsdecode(name)), "a name", CHAPTER, chapter(CHAPTER).points))
    return made
