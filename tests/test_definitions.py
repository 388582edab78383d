"""A learner's function is found and carried in whatever way it was defined; what cannot be carried is said."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest
import torch

from course_lib.notebook import exercises as ex
from course_lib.notebook.exercises import checking, definitions, fresh, guard, store
from course_lib.notebook.exercises.questions import question

SOFT = "torch.softmax(logits / temperature, -1)"
DEF = f"def softened(logits, temperature):\n    return {SOFT}"

# name -> cells of a notebook; the last thing that each does is a check of ch01.q1, which is right
FORMS = {
    "plain": [DEF],
    "tuple constant": ["AXES = (-1,)", "def softened(logits, temperature):\n"
                       "    return torch.softmax(logits / temperature, AXES[0])"],
    "module object": ["soft = torch.nn.Softmax(dim=-1)", "def softened(logits, temperature):\n"
                      "    return soft(logits / temperature)"],
    "from torch import softmax": ["from torch import softmax", "def softened(logits, temperature):\n"
                                  "    return softmax(logits / temperature, -1)"],
    "from math import exp": ["from math import exp, log", "def softened(logits, temperature):\n"
                             "    return torch.softmax(logits / exp(log(temperature)), -1)"],
    "partial": ["from functools import partial", "def by(axis, logits, temperature):\n"
                "    return torch.softmax(logits / temperature, axis)\nsoftened = partial(by, -1)"],
    "callable object": [f"class Soft:\n    def __call__(self, logits, temperature):\n        return {SOFT}",
                        "softened = Soft()"],
    "factory": ["def make(d):\n    def inner(logits, temperature):\n"
                "        return torch.softmax(logits / temperature, d)\n    return inner", "softened = make(-1)"],
    "lambda": [f"softened = lambda logits, temperature: {SOFT}"],
    "None constant": ["DIM = None", "def softened(logits, temperature):\n"
                      "    return torch.softmax(logits / temperature, -1 if DIM is None else DIM)"],
    "decorator": ["import functools", "def deco(f):\n    @functools.wraps(f)\n    def inner(*a):\n"
                  "        return f(*a)\n    return inner", f"@deco\n{DEF}"],
    "alias": ["soft = torch.softmax", "def softened(logits, temperature):\n"
              "    return soft(logits / temperature, -1)"],
    "class helper": ["class H:\n    axis = -1", "def softened(logits, temperature):\n"
                     "    return torch.softmax(logits / temperature, H.axis)"],
    "other name": [f"def mine(logits, temperature):\n    return {SOFT}", "check('ch01.q1', mine)"],
    "dtype constant": ["D = torch.float32", "def softened(logits, temperature):\n"
                       "    return torch.softmax((logits / temperature).to(D), -1)"],
    "inf constant": ["BIG = float('inf')", "def softened(logits, temperature):\n"
                     f"    return {SOFT} + (0 if BIG > 1 else 1)"],
    "time magic above": [f"%%time\n{DEF}"],
    "private helpers": ["def _b(x):\n    return torch.softmax(x, -1)\ndef _a(x):\n    return _b(x)",
                        "def softened(logits, temperature):\n    return _a(logits / temperature)"],
    "helper that was changed": ["def h(x):\n    return x", "def h(x):\n    return torch.softmax(x, -1)",
                                "def softened(logits, temperature):\n    return h(logits / temperature)"],
    "table that grows": ["T = {}", "T['d'] = -1", "names = []\nnames.append('d')",
                         "def softened(logits, temperature):\n"
                         "    return torch.softmax(logits / temperature, T[names[0]])"],
    "wrapped later": [DEF, "def twice(f):\n    return lambda *a: f(*a)", "softened = twice(softened)"],
    "in the check itself": [f"check('ch01.q1', lambda logits, temperature: {SOFT})"],
    "in an if": [f"if True:\n    def softened(logits, temperature):\n        return {SOFT}"],
    "two at once": [f"softened, other = (lambda logits, temperature: {SOFT}), None"],
}
NOTEBOOK = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from course_lib.notebook.exercises import store
shell, said = InteractiveShell.instance(), {}
for name, cells in json.load(sys.stdin).items():
    shell.reset()
    store._unsaved.clear()
    shell.history_manager.input_hist_raw[:] = [""]
    for cell in ["import torch\\nfrom course_lib.notebook.exercises import check, export_answers", *cells]:
        shell.run_cell(cell, store_history=True)
    if not any("check(" in cell for cell in cells):
        shell.run_cell("check('ch01.q1', softened)", store_history=True)
    shell.run_cell("told = repr(export_answers('answers.json'))", store_history=True)
    said[name] = json.load(open("answers.json"))["exercises"]["ch01.q1"] | {"told": shell.user_ns["told"]}
json.dump(said, open("said.json", "w"))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every form, checked and exported in a notebook: name -> its entry in the file that is handed in."""
    return in_a_notebook(FORMS, tmp_path_factory.mktemp("notebook"))


def in_a_notebook(forms, folder):
    subprocess.run([sys.executable, "-W", "ignore", "-c", NOTEBOOK], input=json.dumps(forms), text=True, cwd=folder,
                   env=guard.os.environ | {"COURSE_PROGRESS_FILE": "off", "HOME": str(folder)}, check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    return json.loads((folder / "said.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", FORMS)
def test_what_passes_in_the_notebook_is_exported_so_that_it_works_elsewhere(exported, form, monkeypatch):
    entry = exported[form]
    assert entry["status"] == "correct" and entry["missing"] == [], entry
    assert "no cell of this notebook" not in entry["told"]
    space: dict = {"__name__": "elsewhere"}
    exec("\n".join([*entry["needs"].values(), entry["source"]]), space)
    monkeypatch.setenv("COURSE_PROGRESS_FILE", "off")
    assert checking.judge(question("ch01.q1"), space["softened"]).status == "correct"


def test_what_cannot_be_carried_is_said_when_exporting(tmp_path):
    hidden = in_a_notebook({"made by exec": ["exec('SECRET_AXIS = -1')", "def softened(logits, temperature):\n"
                                             "    return torch.softmax(logits / temperature, SECRET_AXIS)"],
                            "all by exec": [f"exec({DEF!r})"]}, tmp_path)
    assert "SECRET_AXIS" in hidden["made by exec"]["told"] and hidden["made by exec"]["missing"] == ["SECRET_AXIS"]
    assert "was not found" in hidden["all by exec"]["told"]


@pytest.mark.parametrize(("cell", "binds"), [
    ("a, (b, *c) = 1, (2, 3)", {"a", "b", "c"}), ("for i in x:\n    j = i", {"i", "j"}), ("with f() as g: pass", {"g"}),
    ("if (n := 1): pass", {"n"}), ("def f(a):\n    inside = 1", {"f"}), ("class K:\n    attribute = 1", {"K"}),
    ("import os.path, sys as s", {"os", "s"}), ("T['a'].b = 1", {"T"}), ("x.append(1)", {"x"}), ("print(1)", set()),
    ("%matplotlib inline\nx = 1", {"x"}), ("%%bash\nx=1", set()), ("def broken(:", set()), ("# y = 1", set()),
    ("try:\n    import q\nexcept ImportError:\n    q = None", {"q"}), ("[z for z in y]", set())])
def test_a_cell_binds_what_python_would_bind(cell, binds):
    assert {name for part in definitions.statements(cell) for name in part.binds} == binds


@pytest.mark.parametrize(("returned", "words"), [
    ("torch.softmax(logits.long(), -1)", "not implemented for"), (f"{SOFT}.half()", "type float16"),
    (f"{SOFT} + 0j", "complex64"), ("10 ** 5000", "300 digits"), (f"{SOFT}.to('meta')", "meta"),
    (f"{SOFT} * 1.0005", "nearly the right ones")])
def test_a_sentence_fits_the_answer(returned, words):
    space = {"torch": torch}
    exec(f"def softened(logits, temperature):\n    return {returned}", space)
    verdict = checking.judge(question("ch01.q1"), space["softened"])
    assert words in verdict.message and verdict.status == "not yet"


def test_missing_outcomes_give_no_points():
    asked = question("ch00.q1")
    verdict = checking.assess(asked, ex.checking.cases(asked), [])
    assert verdict.points == 0 and "calls of your function" in verdict.message


def test_time_that_a_function_waits_for_a_busy_processor_is_not_its_own(monkeypatch):
    waiting = iter([0.0, 5.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(guard._Clock, "_waited", lambda _: next(waiting))
    clock = guard._Clock(1, 10.0)
    assert clock.left() == pytest.approx(10, abs=0.5) and clock.left() == pytest.approx(15, abs=0.5)


# --- where a fork is not safe -----------------------------------------------------------------------------------------

AXIS = (-1,)


def right(logits, temperature):
    return torch.softmax(logits / temperature, AXIS[0])


def never_ends(logits, temperature):
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.1)


def ends_python(logits, temperature):
    guard.os._exit(3)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "words"), [(right, ""), (never_ends, "did not finish"),
                                                 (ends_python, "ended the whole Python process")])
def test_elsewhere_a_fresh_python_runs_the_function(function, words):
    asked = question("ch01.q1")
    calls = checking.all_calls(asked, [case.call for case in ex.checking.cases(asked)])
    outcomes = fresh.run(function, calls, 2.0)
    assert words in outcomes[-1].trouble and bool(words) == bool(outcomes[-1].trouble)
    assert words or len(outcomes) == len(calls)


def test_a_function_without_a_text_has_a_time_limit_in_a_thread_too(monkeypatch):
    monkeypatch.setattr(guard.sys, "platform", "darwin")
    loop, found = eval("lambda l, t: __import__('time').sleep(60)"), []
    thread = threading.Thread(target=lambda: found.append(guard.run(loop, [guard.Call((1, 2))], 0.5)))
    thread.start()
    thread.join(20)
    assert "did not finish" in found[0][-1].trouble


def test_settings_of_pytorch_are_put_back(monkeypatch):
    guard._in_this_process(lambda: torch.set_default_dtype(torch.float64), [guard.Call(())], 5)
    assert torch.get_default_dtype() == torch.float32


def test_progress_from_before_is_still_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COURSE_PROGRESS_FILE", raising=False)
    store._unsaved.clear()
    ex.check("ch01.q1", right)
    stored = json.loads((tmp_path / store.FILE).read_text(encoding="utf-8"))
    del stored["exercises"]["ch01.q1"]["missing"]
    (tmp_path / store.FILE).write_text(json.dumps(stored), encoding="utf-8")
    assert "2 of" in repr(ex.export_answers())


def test_names_without_a_value_are_found():
    cell = "import torch\ndef f(x, y=LATER):\n    z = [torch.exp(i) + HERE for i in x]\n    return z"
    parts = definitions.statements(cell)
    assert definitions.unbound(parts) == {"LATER", "HERE"}
