"""Exercises: right answers pass, wrong ones are told apart, and nothing a learner writes can hurt the notebook."""

import contextlib
import importlib
import json
import linecache
import math
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from solutions import make_golden

from course_lib.methods import hinton
from course_lib.notebook import exercises as ex
from course_lib.notebook.exercises import guard, store
from course_lib.notebook.exercises.questions import Question, cases, chapter, chapter_names, question
from course_lib.notebook.exercises.values import Value, equal, from_json, from_python, same_form, to_json

ROOT = Path(__file__).parents[1]
MODULES = {name: importlib.import_module(f"solutions.{name}") for name in chapter_names()}
REFERENCE = {name: importlib.import_module(f"{ex.__name__}.reference.{name}") for name in chapter_names()}
QUESTIONS = [q for name in chapter_names() for q in chapter(name).questions]
EACH_QUESTION = pytest.mark.parametrize("asked", QUESTIONS, ids=lambda q: q.name)
IN_A_CHILD = pytest.mark.skipif(sys.platform != "linux", reason="functions run in a child process on Linux only")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COURSE_PROGRESS_FILE", raising=False)
    store._unsaved.clear()
    return tmp_path


def solution(name: str):
    return REFERENCE[name.partition(".")[0]].SOLUTIONS[name]


def mistakes(name: str):
    return MODULES[name.partition(".")[0]].MISTAKES[name]


def stub_function(asked: Question):
    """The stub as a notebook knows it: with a source that can be read."""
    scope, name = {"torch": torch, "F": F, "Tensor": torch.Tensor}, f"<stub of {asked.name}>"
    linecache.cache[name] = (len(asked.stub), None, asked.stub.splitlines(keepends=True), name)
    exec(compile(asked.stub, name, "exec"), scope)
    return scope[asked.function]


class AlwaysEqual:
    """Says yes to every question that is put to it."""

    shape, dtype = (), torch.float32

    def __eq__(self, other):
        return True

    def __float__(self):
        return 1.0

    def __getattr__(self, name):
        return AlwaysEqual()

    def __call__(self, *_, **__):
        return self

    __hash__ = None


class EqualTensor(torch.Tensor):
    def __eq__(self, other):
        return torch.tensor(True)

    __hash__ = torch.Tensor.__hash__


class TestQuestions:
    @EACH_QUESTION
    def test_the_solution_gets_all_points(self, asked):
        if asked.forecast:
            ex.predict(asked.name, "a")
        verdict = ex.check(asked.name, solution(asked.name))
        assert repr(verdict).startswith(f"{asked.name}: correct ({asked.points:g} of {asked.points:g} points)")
        assert verdict.example == () and (not verdict.message or asked.forecast)

    @EACH_QUESTION
    def test_the_stub_is_not_started_and_leaves_no_trace(self, asked, own_folder):
        verdict = ex.check(asked.name, stub_function(asked))
        assert verdict.status == "not started" and verdict.points == 0
        assert list(own_folder.iterdir()) == []

    @EACH_QUESTION
    def test_every_typical_mistake_gets_its_own_sentence(self, asked):
        assert len(asked.mistakes) >= 2 and set(asked.mistakes) == set(mistakes(asked.name))
        said = {}
        for name, wrong in mistakes(asked.name).items():
            verdict = ex.check(asked.name, wrong)
            assert (verdict.status, verdict.points, verdict.tier) == ("not yet", 0, 3), name
            assert verdict.message == asked.mistakes[name], name
            said[verdict.message] = name
        assert len(said) == len(asked.mistakes)

    # A lie is unmasked before a question is reached: `from_python` copies an answer with exact type checks, and only
    # plain numbers are compared (TestValues). So three questions stand for all: their answers are a list, a tensor
    # and a Python number. That no constant is right for any question is tested for every one of them below.
    @pytest.mark.parametrize("name", ["ch00.q1", "ch01.q2", "ch01.q5"])
    @pytest.mark.parametrize("liar", [AlwaysEqual(), EqualTensor([1.0]), float("nan"), math.inf, None, "1", [], 1 + 1j,
                                      torch.tensor(math.nan), torch.tensor(True)],
                             ids=lambda liar: "always equal" if isinstance(liar, AlwaysEqual) else repr(liar))
    def test_an_answer_that_does_not_depend_on_the_input_gets_nothing(self, name, liar):
        verdict = ex.check(name, lambda *_, **__: liar)
        assert verdict.status == "not yet" and verdict.points == 0 and verdict.message

    @EACH_QUESTION
    def test_no_constant_answers_all_cases_of_a_question(self, asked):
        stored = cases(asked)
        assert any(not equal(case.expected, stored[0].expected, asked.rtol) for case in stored[1:])

    @EACH_QUESTION
    def test_stored_numbers_are_what_the_independent_computation_gives(self, asked):
        name = asked.name.partition(".")[0]
        file = ROOT / "course_lib" / "notebook" / "exercises" / "golden" / f"{name}.json"
        made = json.loads(json.dumps(make_golden.golden(name)[asked.name]))
        stored = json.loads(file.read_text(encoding="utf-8"))[asked.name]
        assert len(made) == len(stored) and [c["about"] for c in made] == [c["about"] for c in stored]
        for new, old in zip(made, stored, strict=True):
            for key, value in new["args"].items():  # another processor rounds the last bit of a softmax otherwise
                again, before = from_json(value), from_json(old["args"][key])
                assert again == before if isinstance(again, set) else equal(from_python(again), from_python(before),
                                                                            rtol=1e-6)
            for key in ("expected", "gradient"):
                a, b = (from_python(from_json(c[key]["expected"] if key == "gradient" else c[key]))
                        for c in (new, old)) if key in new else (Value("none"),) * 2
                assert a.kind == "none" or equal(a, b, rtol=1e-6)
            for mistake, number in new.get("mistakes", {}).items():
                assert equal(from_python(from_json(number)), from_python(from_json(old["mistakes"][mistake])), 1e-5)

    @EACH_QUESTION
    def test_another_seed_makes_hidden_cases_that_the_solution_solves(self, asked):
        name = asked.name.partition(".")[0]
        module = MODULES[name]
        for case in module.cases(seed=99)[asked.name]:
            right = from_python(make_golden._tensors(module.EXPECTED[asked.name](**case["args"])))
            assert equal(from_python(solution(asked.name)(**case["args"])), right, asked.rtol)

    @EACH_QUESTION
    def test_difficulty_minutes_and_hints_are_stated(self, asked):
        assert asked.difficulty in (1, 2, 3) and 3 <= asked.minutes <= 20
        assert len(asked.hints) == 2 and all(len(h) > 20 for h in asked.hints)
        assert asked.name in asked.stub and asked.repair != ("NotImplementedError" in asked.stub)

    def test_the_library_itself_passes_the_exercises_of_its_chapter(self):
        def soft(student_logits, teacher_logits, temperature):
            return hinton.soft_target_loss(student_logits, teacher_logits, temperature=temperature)

        def token(student_logits, teacher_logits, mask, temperature):
            return hinton.soft_target_loss(student_logits, teacher_logits, mask, temperature=temperature)

        answers = {"ch01.q1": hinton.soft_targets, "ch01.q2": soft, "ch01.q4": token}
        assert [ex.check(name, function).status for name, function in answers.items()] == ["correct"] * 3

    def test_the_textbook_number_of_the_original_codes_is_the_right_answer_of_q3(self):
        from oracle import oracle

        truth = oracle("kd_zoo/torchdistill_KDLoss/T4_alpha0.5")
        logits = {"student_logits": truth.inputs["logits_S"], "teacher_logits": truth.inputs["logits_T"]}
        loss = MODULES["ch01"].EXPECTED["ch01.q3"](**logits, labels=truth.inputs["labels"], temperature=4.0,
                                                   hard_weight=0.5, soft_weight=0.5)
        truth.check("loss", torch.as_tensor(loss))
        assert round(float(loss), 4) == 2.9145

    def test_a_chapter_has_as_many_points_as_it_says(self):
        assert (chapter("ch01").points, chapter("ch00").points) == (20, 10)
        assert len(chapter("ch01").questions) == 6 and len(chapter("ch01").quiz) == 8


class TestDiagnosis:
    """The third tier also speaks about mistakes that nobody listed."""

    def test_a_constant_factor_is_reported_as_one(self):
        verdict = ex.check("ch01.q2", lambda s, t, temperature: 7 * solution("ch01.q2")(s, t, temperature))
        assert "7 times the right ones" in verdict.message and verdict.tier == 2

    def test_an_overflow_is_told_from_a_wrong_formula(self):
        def naive(logits, temperature):
            e = (logits / temperature).exp()
            return e / e.sum(-1, keepdim=True)

        message = ex.check("ch01.q1", naive).message
        assert message.startswith("Right on ordinary inputs, but nan with logits of 10,000 at T = 0.05. exp overflows.")

    def test_a_value_without_gradient_is_noticed(self):
        right = solution("ch01.q2")
        for broken in (lambda s, t, temperature: torch.tensor(right(s, t, temperature).item()),
                       lambda s, t, temperature: right(s.detach(), t, temperature)):
            verdict = ex.check("ch01.q2", broken)
            assert verdict.points == 0 and "its gradient is not" in verdict.message and ".item()" in verdict.message

    def test_a_python_number_instead_of_a_tensor_is_explained(self):
        verdict = ex.check("ch01.q2", lambda s, t, temperature: solution("ch01.q2")(s, t, temperature).item())
        assert "Return the tensor itself" in verdict.message and verdict.tier == 1

    def test_a_wrong_shape_is_named(self):
        verdict = ex.check("ch01.q1", lambda logits, temperature: solution("ch01.q1")(logits, temperature).sum(-1))
        assert "the shape (), but (3,) was expected. A dimension was summed" in verdict.message

    def test_a_memorised_table_of_the_stored_numbers_breaks_a_property(self):
        table = {(c.call.args[0].sum().item(), c.call.args[2]): c for c in cases(question("ch01.q2"))}

        def memory(student_logits, teacher_logits, temperature):
            key = student_logits.sum().item(), temperature
            if key not in table:
                return 0 * student_logits.sum() + 0.5
            expected = torch.tensor(table[key].expected.items[0])
            if table[key].gradient is None:
                return expected
            gradient = torch.tensor(table[key].gradient.items).reshape(student_logits.shape)
            return expected + (gradient * (student_logits - student_logits.detach())).sum()

        assert ex.check("ch01.q2", memory).message == question("ch01.q2").properties[0].otherwise

    def test_properties_alone_do_not_make_a_right_answer(self):
        assert ex.check("ch01.q2", lambda s, t, temperature: 0 * s.sum()).points == 0


class TestAccidents:
    """Whatever the function does, one sentence comes back and the notebook goes on."""

    def run(self, function, name="ch01.q1"):
        verdict = ex.check(name, function)
        assert verdict.points == 0 and verdict.status == "not yet" and len(verdict.message) > 10
        return verdict.message

    def test_an_exception_is_reported_with_its_line(self):
        def broken(logits, temperature):
            x = logits / temperature
            return x.nothing

        assert "AttributeError" in self.run(broken) and "(line 3 of your function)" in self.run(broken)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError, MemoryError])
    def test_no_exception_of_any_kind_gets_through(self, error):
        def broken(logits, temperature):
            raise error

        self.run(broken)

    def test_an_exception_that_cannot_be_shown_is_no_problem(self):
        class Rude(Exception):
            def __str__(self):
                raise ValueError

        def broken(logits, temperature):
            raise Rude

        assert "Rude" in self.run(broken)

    @pytest.mark.parametrize("in_a_child", [pytest.param(True, marks=IN_A_CHILD), False])
    def test_an_endless_loop_ends(self, monkeypatch, in_a_child):
        def endless(logits, temperature):
            while True:
                pass

        if not in_a_child:
            monkeypatch.setattr(guard, "_in_a_child", guard._in_this_process)
        calls = [guard.Call((torch.zeros(2), 1.0))] * 2
        start = time.monotonic()
        outcomes = guard.run(endless, calls, seconds=0.5)
        assert time.monotonic() - start < 5
        assert len(outcomes) == 1 and "did not finish within 0.5 seconds" in outcomes[0].trouble

    @IN_A_CHILD
    def test_an_endless_loop_that_swallows_everything_ends_too(self):
        def stubborn(logits, temperature):
            while True:
                with contextlib.suppress(BaseException):
                    time.sleep(0.01)

        assert "did not finish" in guard.run(stubborn, [guard.Call((torch.zeros(2), 1.0))], seconds=0.5)[0].trouble

    @IN_A_CHILD
    def test_ending_the_process_ends_only_the_child(self):
        assert "ended the whole Python process" in self.run(lambda logits, temperature: os._exit(3))

    @IN_A_CHILD
    @pytest.mark.parametrize("hog", [lambda z, t: torch.empty(10**9), lambda z, t: torch.ones(10**12),
                                     lambda z, t: [0] * 10**9], ids=["4 GB", "4 TB", "list"])
    def test_a_huge_tensor_is_refused(self, hog):
        assert "memory" in self.run(hog)

    @pytest.mark.parametrize("in_a_child", [pytest.param(True, marks=IN_A_CHILD), False])
    @pytest.mark.parametrize("spoil", [lambda z, t: torch.softmax(z.div_(t), -1), lambda z, t: z.mul_(1.0),
                                       lambda z, t: z.resize_(0)])
    def test_a_changed_input_is_noticed(self, monkeypatch, in_a_child, spoil):
        if not in_a_child:
            monkeypatch.setattr(guard, "_in_a_child", guard._in_this_process)
        assert "changes its input" in self.run(spoil)

    def test_a_changed_set_is_noticed(self):
        def spoil(word, vocabulary):
            vocabulary.clear()
            return ["[UNK]"]

        assert "changes its input" in self.run(spoil, "ch00.q1")

    @IN_A_CHILD
    def test_changed_globals_stay_in_the_child(self):
        def spoil(logits, temperature):
            torch.set_default_dtype(torch.float16)
            os.environ["SPOILT"] = "1"
            torch.manual_seed(0)
            return torch.softmax(logits / temperature, -1)

        state = torch.random.get_rng_state()
        assert "changes PyTorch's default type" in self.run(spoil)
        assert torch.get_default_dtype() == torch.float32 and "SPOILT" not in os.environ
        assert torch.equal(torch.random.get_rng_state(), state)

    @pytest.mark.parametrize("in_a_child", [pytest.param(True, marks=IN_A_CHILD), False])
    @pytest.mark.parametrize("line", ["global spoilt; spoilt = 1", "kept.append(1)", "weights.add_(1)",
                                      "torch.set_grad_enabled(False)"])
    def test_a_changed_global_is_reported(self, monkeypatch, in_a_child, line):
        if not in_a_child:
            monkeypatch.setattr(guard, "_in_a_child", guard._in_this_process)
        scope = {"torch": torch, "kept": [], "weights": torch.zeros(1)}
        body = f"    {line}\n    return torch.softmax(logits / temperature, -1)"
        exec(f"def softened(logits, temperature):\n{body}", scope)
        with torch.enable_grad():  # in this process the change would last
            assert "which is not its own" in self.run(scope["softened"])

    def test_a_global_that_is_only_read_is_no_problem(self):
        scope = {"torch": torch, "one": torch.ones(1), "table": {"a": 1}}
        exec("def softened(logits, temperature):\n    scale = one * table['a']\n"
             "    return torch.softmax(scale * logits / temperature, -1)", scope)
        assert ex.check("ch01.q1", scope["softened"]).status == "correct"

    @pytest.mark.parametrize("thing", [None, 3, "softened", AlwaysEqual, torch.ones(2), lambda: 0, lambda a, b, c: 0,
                                       int, print])
    def test_something_that_is_not_the_function_is_refused_politely(self, thing):
        self.run(thing)

    def test_a_missing_return_is_guessed(self):
        assert "Is there a `return`" in self.run(lambda logits, temperature: None)

    @IN_A_CHILD
    def test_printing_and_asking_do_not_reach_the_notebook(self, capfd):
        def noisy(logits, temperature):
            print("hello")
            os.write(1, b"hello")
            return torch.softmax(logits / temperature, -1)

        assert ex.check("ch01.q1", noisy).status == "correct"
        assert capfd.readouterr().out == ""
        assert "EOFError" in self.run(lambda logits, temperature: input("T?"))

    def test_an_unknown_exercise_names_the_ones_there_are(self):
        with pytest.raises(ValueError, match=r"ch01\.q1, ch01\.q2"):
            ex.check("ch01.q9", None)
        with pytest.raises(ValueError, match="ch00, ch01"):
            ex.quiz("ch77")

    @IN_A_CHILD
    def test_a_check_takes_well_under_a_second(self):
        ex.check("ch01.q3", solution("ch01.q3"))
        start = time.monotonic()
        ex.check("ch01.q3", solution("ch01.q3"))
        assert time.monotonic() - start < 1.5


class TestProgress:
    def test_the_best_result_counts(self):
        ex.check("ch01.q1", solution("ch01.q1"))
        ex.check("ch01.q1", mistakes("ch01.q1")["multiplied"])
        entry = json.loads(Path(store.FILE).read_text())["exercises"]["ch01.q1"]
        assert (entry["points"], entry["status"], entry["attempts"]) == (2, "correct", 2)
        assert entry["source"].startswith("def softened")
        assert "2 of 20" in repr(ex.progress()) and "correct" in repr(ex.progress("ch01"))

    def test_an_empty_panel_is_always_the_same(self, own_folder):
        assert repr(ex.progress("ch01")).startswith("Soft targets (Hinton 2015): 0 of 20 points")
        assert ex.progress("ch01")._repr_html_() == ex.progress("ch01")._repr_html_()
        assert list(own_folder.iterdir()) == []

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"version": 1}', b"[" * 100_000,
                                         b'{"version": 1, "exercises": {"ch01.q1": 3}, "quiz": {}, "polls": {}}',
                                         b'{"version": 99, "exercises": {}, "quiz": {}, "polls": {}}'])
    def test_a_damaged_file_is_moved_aside_and_work_goes_on(self, content):
        Path(store.FILE).write_bytes(content)
        verdict = ex.check("ch01.q1", solution("ch01.q1"))
        assert verdict.status == "correct" and "was damaged" in repr(verdict)
        assert Path("progress.damaged.json").read_bytes() == content
        assert "2 of 20" in repr(ex.progress())
        Path(store.FILE).write_bytes(content)
        assert "progress.damaged2.json" in repr(ex.progress())

    def test_a_write_that_fails_leaves_the_old_file_and_keeps_the_result(self, monkeypatch, own_folder):
        ex.check("ch01.q1", solution("ch01.q1"))
        before = Path(store.FILE).read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(store.os, "replace", full)
            assert "No space left on device" in repr(ex.check("ch01.q2", solution("ch01.q2")))
            assert "5 of 20" in repr(ex.progress())
        assert Path(store.FILE).read_bytes() == before
        assert [p.name for p in own_folder.iterdir()] == [store.FILE]
        ex.check("ch01.q3", solution("ch01.q3"))
        assert "8 of 20" in repr(ex.progress()) and len(json.loads(Path(store.FILE).read_text())["exercises"]) == 3

    def test_the_file_can_be_elsewhere_or_nowhere(self, monkeypatch, own_folder):
        monkeypatch.setenv("COURSE_PROGRESS_FILE", "off")
        ex.check("ch01.q1", solution("ch01.q1"))
        assert "2 of 20" in repr(ex.progress()) and list(own_folder.iterdir()) == []
        monkeypatch.setenv("COURSE_PROGRESS_FILE", str(own_folder / "mine.json"))
        ex.check("ch01.q2", solution("ch01.q2"))
        assert "3 of 20" in repr(ex.progress()) and (own_folder / "mine.json").exists()

    def test_hints_come_one_by_one(self):
        first, second, third = (repr(ex.hint("ch01.q2")) for _ in range(3))
        asked = question("ch01.q2")
        assert asked.hints[0] in first and asked.hints[1] not in first
        assert asked.hints[1] in second and third == second

    def test_the_file_to_hand_in_holds_functions_verdicts_and_versions(self):
        assert "nothing to hand in" in repr(ex.export_answers()) and not Path("answers.json").exists()
        ex.check("ch01.q2", solution("ch01.q2"))
        ex.check("ch01.q6", mistakes("ch01.q6")["sign"])
        ex.answer("ch01.quiz3", "b")
        ex.hint("ch01.q4")
        assert "3.5 of 20" in repr(ex.export_answers("mine.json", who="Zoë"))
        content = json.loads(Path("mine.json").read_text(encoding="utf-8"))
        assert set(content["exercises"]) == {"ch01.q2", "ch01.q6"} and content["who"] == "Zoë"
        scope = {"torch": torch, "F": F, "Tensor": torch.Tensor}
        exec(content["exercises"]["ch01.q2"]["source"], scope)
        assert ex.check("ch01.q2", scope["soft_loss"]).status == "correct"
        assert content["quiz"] == {"ch01.quiz3": "b"} and content["points"]["ch01"] == 3.5
        assert content["versions"]["torch"] == torch.__version__
        assert "cannot be written" in repr(ex.export_answers("no/such/folder/x.json"))

    def test_a_function_is_handed_in_with_the_helpers_it_uses(self, monkeypatch):
        own = types.ModuleType("notebook")
        lines = ["import torch", "import torch.nn.functional as nnf", "from torch import Tensor", "ONE = 1",
                 "def deepest(z: Tensor, t):", "    return nnf.softmax(z / t, -1) * ONE",
                 "def helper(z, t):", "    return [deepest(z, t) for _ in range(ONE)][0]",
                 "def softened(logits, temperature):", "    return helper(logits, temperature)"]
        Path("notebook.py").write_text("\n".join(lines), encoding="utf-8")
        exec(compile("\n".join(lines), "notebook.py", "exec"), own.__dict__)
        monkeypatch.setitem(sys.modules, "notebook", own)
        assert ex.check("ch01.q1", own.softened).status == "correct"
        ex.export_answers("mine.json")
        entry = json.loads(Path("mine.json").read_text(encoding="utf-8"))["exercises"]["ch01.q1"]
        assert set(entry["needs"]) == {"helper", "deepest", "nnf", "ONE", "Tensor"}
        again: dict = {}
        imports = [text for text in entry["needs"].values() if "import" in text]
        exec("\n".join([*imports, *entry["needs"].values(), entry["source"]]), again)
        assert ex.check("ch01.q1", again["softened"]).status == "correct"

    def test_it_works_in_plain_python_alone_in_a_folder(self, own_folder):
        code = ("import torch\nfrom course_lib.notebook.exercises import check\n"
                "def softened(logits, temperature):\n    return torch.softmax(logits / temperature, dim=-1)\n"
                "print(check('ch01.q1', softened))\n")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=own_folder, check=True)
        assert done.stdout == "ch01.q1: correct (2 of 2 points)\n"


def _right_is_longest(item):
    lengths = {option.right: 0 for option in item.options}
    for option in item.options:
        lengths[option.right] = max(lengths[option.right], len(option.text))
    return lengths[True] >= lengths[False]


class TestQuiz:
    @pytest.mark.parametrize("name", chapter_names())
    def test_every_item_has_one_right_answer_and_every_option_explains_itself(self, name):
        for item in chapter(name).quiz:
            assert sum(option.right for option in item.options) == 1 and 3 <= len(item.options) <= 5
            assert all(len(option.why) > 15 for option in item.options)
            assert len({option.why for option in item.options}) == len(item.options)

    @pytest.mark.parametrize("name", chapter_names())
    def test_neither_the_place_nor_the_length_gives_the_right_answer_away(self, name):
        quiz = chapter(name).quiz
        assert len({item.right for item in quiz}) >= 3
        longest = [item for item in quiz if _right_is_longest(item)]
        assert len(longest) <= len(quiz) / 3, [item.ask for item in longest]

    def test_over_all_quizzes_the_right_option_is_the_longest_in_at_most_a_third(self):
        items = [item for name in chapter_names() for item in chapter(name).quiz]
        assert sum(map(_right_is_longest, items)) <= len(items) / 3

    @pytest.mark.parametrize("name", chapter_names())
    def test_the_page_holds_everything_it_needs(self, name):
        page = ex.quiz(name)._repr_html_()
        options = sum(len(item.options) for item in chapter(name).quiz)
        assert page.count('type="radio"') == options == page.count('class="why"')
        assert page.count("<fieldset>") == len(chapter(name).quiz) == page.count("<legend>")
        assert not re.search(r"https?://|src=|href=", page)
        assert page == ex.quiz(name)._repr_html_()

    def test_answers_count_points_and_explain(self):
        right = "".join(item.right for item in chapter("ch01").quiz)
        assert "not right. KL is never negative" in repr(ex.answer("ch01.quiz2", "A"))
        assert repr(ex.answer("ch01.quiz", "--------")) == "ch01 quiz: 1 of 8 answered, 0 of 4 points."
        assert repr(ex.answer("ch01.quiz", right)).endswith("ch01 quiz: 8 of 8 answered, 4 of 4 points.")
        assert "4 of 20" in repr(ex.progress())

    def test_no_answer_leaves_no_trace(self, own_folder):
        assert repr(ex.answer("ch00.quiz", "------")) == "ch00 quiz: 0 of 6 answered, 0 of 3 points."
        assert list(own_folder.iterdir()) == []

    @pytest.mark.parametrize(("name", "choice", "words"), [
        ("ch01.quiz9", "a", "quiz1 to quiz8"), ("ch01.quizx", "a", "quiz1 to quiz8"), ("ch01.quiz1", "e", "a, b, c, d"),
        ("ch01.quiz1", "", "none of them"), ("ch01.quiz", "abc", "one letter for each of the 8"),
        ("ch77.quiz1", "a", "no chapter"),
    ])
    def test_an_answer_to_nothing_gets_a_sentence(self, name, choice, words, own_folder):
        said = repr(ex.answer(name, choice))
        assert words in said and "Nothing was changed." in said
        assert list(own_folder.iterdir()) == []

    def test_as_text_it_can_be_read_without_a_browser(self):
        text = repr(ex.quiz("ch01"))
        assert all(item.ask in text for item in chapter("ch01").quiz) and 'answer("ch01.quiz1", "a")' in text

    @pytest.mark.browser
    def test_on_a_static_page_the_keyboard_is_enough(self, own_folder):
        from browser import open_page

        page_file = own_folder / "quiz.html"
        twice = ex.quiz("ch01")._repr_html_() * 2
        page_file.write_text(f'<!doctype html><meta charset="utf-8"><title>Quiz</title>{twice}', encoding="utf-8")
        with open_page() as watched:
            page = watched.page
            page.goto(page_file.as_uri())
            first, second = page.locator(".course-quiz").all()
            page.keyboard.press("Tab")
            page.keyboard.press("ArrowDown")
            chosen = first.locator("fieldset").first.locator("input:checked")
            assert chosen.get_attribute("value") == "b"
            why = first.locator(".why:visible")
            assert why.count() == 1 and chapter("ch01").quiz[0].options[1].why in why.text_content()
            assert "1 of 8 answered, 0 right" in first.locator(".count").text_content()
            assert first.locator(".count code").text_content() == 'answer("ch01.quiz", "b-------")'
            first.locator("fieldset").nth(3).get_by_label("c)").check()
            assert "2 of 8 answered, 1 right" in first.locator(".count").text_content()
            assert second.locator("input:checked").count() == 0 and "Choose" in second.locator(".count").text_content()
            watched.check()


class TestPoll:
    def test_the_prediction_of_section_1_is_there_in_section_8(self):
        assert "Kept: you predict b)" in repr(ex.predict("ch01", "b"))
        assert "Your prediction fits." in repr(ex.recall("ch01", "b", "82.0 % against 80.1 %."))
        said = repr(ex.recall("ch01", "c", "82.0 % against 80.1 %."))
        assert "You predicted b)" in said and "Your prediction does not fit." in said and "82.0 %" in said

    def test_without_a_prediction_the_text_is_always_the_same(self, own_folder):
        assert "Write predict" in repr(ex.predict("ch01"))
        assert "You made no prediction." in repr(ex.recall("ch01", "c")) and "fit" not in repr(ex.recall("ch01", "c"))
        assert repr(ex.recall("ch01")) == repr(ex.recall("ch01"))
        assert list(own_folder.iterdir()) == []

    def test_a_letter_that_is_not_offered_gets_a_sentence_and_changes_nothing(self, own_folder):
        assert "The answers are a, b, c, d, e; 'z' is none of them." in repr(ex.predict("ch01", "z"))
        assert list(own_folder.iterdir()) == []
        with pytest.raises(ValueError, match="a, b, c, d, e"):  # the course itself must not measure an unknown letter
            ex.recall("ch01", "z")


    def test_in_a_run_that_nobody_watches_the_form_is_plain_html(self, monkeypatch):
        monkeypatch.setenv("COURSE_PROGRESS_FILE", "off")
        with pytest.raises(NotImplementedError):
            ex.quiz("ch01")._ipython_display_()

    def test_what_the_browser_sends_is_kept_and_answered(self):
        from course_lib.notebook.exercises.forms import _bridge

        said = _bridge("x", ex.predict("ch01").heard)
        said.children[0].value = "1:c"
        assert "Kept: you predict c)" in said.children[1].value and "You predicted c)" in repr(ex.recall("ch01"))
        said.children[0].value = "2:z"
        assert "is none of them" in said.children[1].value
        points = _bridge("y", ex.quiz("ch01").heard)
        points.children[0].value = "1:" + "".join(item.right for item in chapter("ch01").quiz)
        assert "8 of 8 answered, 4 of 4 points" in points.children[1].value
        points.children[0].value = "2:zz"
        assert "This could not be kept" in points.children[1].value
        assert 'value="a" checked' in ex.quiz("ch01").html("bridge")

    @pytest.mark.browser
    def test_on_a_static_page_a_click_is_looked_at_again_further_down(self, own_folder, monkeypatch):
        from browser import open_page

        monkeypatch.setenv("COURSE_PROGRESS_FILE", "off")
        page_file = own_folder / "poll.html"
        shown = ex.predict("ch01")._repr_html_() + ex.recall("ch01", "c", "82 %.")._repr_html_()
        page_file.write_text(f'<!doctype html><meta charset="utf-8"><title>Poll</title>{shown}', encoding="utf-8")
        with open_page() as watched:
            page = watched.page
            page.goto(page_file.as_uri())
            recall = page.locator(".course-recall")
            assert "You made no prediction." in recall.inner_text()
            page.keyboard.press("Tab")
            page.keyboard.press("Space")
            assert "You predict a)" in page.locator(".course-poll .count").inner_text()
            assert "You predicted a)" in recall.inner_text() and "does not fit" in recall.inner_text()
            page.get_by_label("c)").check()
            assert "Your prediction fits." in recall.inner_text()
            watched.check()


class TestExample:
    """A failed check shows one small input, what the function made of it, and what was expected."""

    def test_the_smallest_input_is_shown_with_yours_and_expected(self):
        verdict = ex.check("ch01.q1", mistakes("ch01.q1")["multiplied"])
        assert dict(verdict.example) == {"with": "logits = [2, 1, 0], temperature = 2",
                                         "yours": "[0.8668, 0.1173, 0.01588]", "expected": "[0.5065, 0.3072, 0.1863]"}
        assert all(text in repr(verdict) and text in verdict._repr_html_() for row in verdict.example for text in row)

    def test_an_exception_shows_the_input_too(self):
        assert dict(ex.check("ch01.q1", lambda logits, temperature: logits.nothing).example)["yours"] == "(it stops)"

    def test_a_wrong_gradient_is_shown_beside_the_right_one(self):
        right = solution("ch01.q2")
        rows = dict(ex.check("ch01.q2", lambda s, t, temperature: right(s.detach(), t, temperature)).example)
        assert rows["your gradient"] == "no gradient" and rows["expected"].startswith("[[")

    def test_a_broken_property_shows_its_own_calls(self):
        table = {str(c.call.args): c.expected for c in cases(question("ch03.q5"))}

        def memory(position_embeddings, token_type_embeddings):
            known = table.get(str((position_embeddings, token_type_embeddings)))
            return torch.tensor(known.items).reshape(known.shape) if known else position_embeddings + 1

        verdict = ex.check("ch03.q5", memory)
        assert verdict.message == question("ch03.q5").properties[0].otherwise
        assert [label for label, _ in verdict.example] == ["with", "yours"]

    def test_a_large_input_is_named_and_not_printed(self):
        verdict = ex.check("ch07.q2", lambda student_scores, teacher_scores, mask: torch.tensor(0.0))
        assert len(dict(verdict.example)["with"]) < 80

    def test_nothing_is_shown_that_belongs_to_hidden_tests(self):
        """A grader's verdict is made by `assess` alone: it must not carry the hidden numbers to the student."""
        from course_lib.notebook.exercises.checking import all_calls, assess

        asked = question("ch01.q1")
        stored = cases(asked)
        wrong = mistakes("ch01.q1")["multiplied"]
        verdict = assess(asked, stored, guard.run(wrong, all_calls(asked, [case.call for case in stored]), 5))
        assert verdict.status == "not yet" and verdict.example == ()


class TestSolution:
    def tries(self, number):
        for _ in range(number):
            ex.check("ch01.q4", mistakes("ch01.q4")["no_mask"])

    def test_it_stays_closed_until_both_hints_and_three_tries(self):
        self.tries(3)
        ex.hint("ch01.q4")
        said = repr(ex.solution("ch01.q4"))
        assert "So far: 1 of 2 hints, 3 of 3 tries." in said and "no points, only honesty" in said
        assert "def " not in said
        ex.hint("ch01.q4")
        opened = repr(ex.solution("ch01.q4"))
        assert "def token_loss" in opened and "It costs no points, only honesty" in opened

    def test_two_tries_are_not_enough(self):
        self.tries(2)
        ex.hint("ch01.q4"), ex.hint("ch01.q4")
        assert "2 of 3 tries" in repr(ex.solution("ch01.q4"))

    def test_a_pass_opens_it_and_takes_no_points(self):
        ex.check("ch01.q4", solution("ch01.q4"))
        assert "Yours passed too" in repr(ex.solution("ch01.q4")) and "3 of 20" in repr(ex.progress())

    def test_a_class_can_switch_it_off(self, monkeypatch):
        ex.check("ch01.q4", solution("ch01.q4"))
        monkeypatch.setenv("COURSE_SOLUTIONS", "off")
        assert "switched the solutions off" in repr(ex.solution("ch01.q4"))
        with pytest.raises(ImportError, match="switched off here"):
            importlib.reload(importlib.import_module(f"{ex.__name__}.reference"))

    @EACH_QUESTION
    def test_the_text_that_is_shown_passes_with_the_other_answers_of_the_chapter(self, asked):
        from course_lib.notebook.exercises.solving import source

        name = f"<shown {asked.name}>"
        scope = {"torch": torch, "F": F, "Tensor": torch.Tensor}
        for other in chapter(asked.name.partition(".")[0]).questions:
            if f"# {other.function} is the answer to {other.name}." in source(asked):
                scope[other.function] = solution(other.name)
        exec(compile(source(asked), name, "exec"), scope)
        if asked.forecast:
            ex.predict(asked.name, "a")
        assert ex.check(asked.name, scope[asked.function]).status == "correct"

    def test_it_is_highlighted_with_inline_styles_and_can_be_copied(self):
        ex.check("ch01.q1", solution("ch01.q1"))
        page = ex.solution("ch01.q1")._repr_html_()
        assert "<span style=" in page and "data-copy" in page and "class=\"k\"" not in page

    def test_an_unknown_exercise_names_the_ones_there_are(self):
        with pytest.raises(ValueError, match=r"ch01\.q1, ch01\.q2"):
            ex.solution("ch01.q9")


class TestPassed:
    @pytest.fixture(autouse=True)
    def fresh_kernel(self, monkeypatch):
        from course_lib.notebook.exercises import solving

        monkeypatch.setattr(solving, "_passed", {})

    def test_the_run_takes_the_function_that_passed(self):
        def soft_loss(student_logits, teacher_logits, temperature):
            soft_loss.calls += 1
            return solution("ch01.q2")(student_logits, teacher_logits, temperature)

        soft_loss.calls = 0
        ex.check("ch01.q2", soft_loss)
        mine = ex.passed("ch01.q2", instead=lambda *_: pytest.fail("the learner's own function is there"))
        before = soft_loss.calls
        mine(torch.zeros(1, 2), torch.ones(1, 2), 2.0)
        assert mine and soft_loss.calls == before + 1 and "runs with your soft_loss" in repr(mine)

    def test_before_a_pass_the_stand_in_runs_and_says_so(self):
        ex.check("ch01.q2", mistakes("ch01.q2")["no_t2"])
        mine = ex.passed("ch01.q2", instead=lambda a, b: a + b)
        assert not mine and mine(1, 2) == 3 and "the course's own function" in repr(mine)

    def test_without_a_stand_in_a_call_says_what_to_do(self):
        with pytest.raises(RuntimeError, match=r"solve it, run check\(\"ch01.q2\", soft_loss\)"):
            ex.passed("ch01.q2")()

    def test_chapter_1_trains_with_a_function_of_the_same_signature(self):
        import inspect

        mine = list(inspect.signature(stub_function(question("ch01.q3"))).parameters)
        theirs = inspect.signature(hinton.distillation_loss).parameters
        assert [name for name in theirs if name in mine] == mine and 'instead=hinton.distillation_loss' in (
            ROOT / "notebooks" / "ch01_hinton.md").read_text(encoding="utf-8")


class TestForecast:
    """Change an experiment and predict: the points wait for the prediction, right or wrong."""

    def test_a_right_function_waits_for_the_prediction(self):
        right = solution("ch02.q6")
        said = ex.check("ch02.q6", right)
        assert (said.status, said.points) == ("not yet", 0) and 'predict("ch02.q6")' in said.message
        ex.predict("ch02.q6", "a")
        said = ex.check("ch02.q6", right)
        assert said.points == 3 and "does not fit" in said.message and "measurement says c)" in said.message
        ex.predict("ch02.q6", "c")
        assert "Your prediction fits." in ex.check("ch02.q6", right).message

    def test_the_experiment_runs_with_the_learners_function(self):
        letter, because = question("ch02.q6").forecast.experiment(lambda s, t: 2 * (s - t) / len(s))
        assert letter == "a" and "with your gradient it agrees after" in because

    def test_a_letter_that_is_not_on_offer_changes_nothing(self):
        assert "a, b, c; 'd' is none" in repr(ex.predict("ch02.q6", "d"))
        assert ex.check("ch02.q6", solution("ch02.q6")).points == 0

    def test_an_exercise_without_a_forecast_says_so(self):
        with pytest.raises(ValueError, match=r"ch01\.q1 asks for no prediction"):
            ex.predict("ch01.q1")


class TestRepair:
    """A stub that runs, and is wrong: untouched it counts as not started, and its own bug has a sentence."""

    def test_the_stub_itself_is_not_a_try(self, own_folder):
        verdict = ex.check("ch03.q5", stub_function(question("ch03.q5")))
        assert verdict.status == "not started" and "still the function with the bug" in verdict.message
        assert list(own_folder.iterdir()) == []

    def test_a_comment_repairs_nothing(self):
        stub = question("ch03.q5").stub.replace("this is the published script; repair it", "done")
        name = "<commented>"
        linecache.cache[name] = (len(stub), None, stub.splitlines(keepends=True), name)
        scope = {"Tensor": torch.Tensor}
        exec(compile(stub, name, "exec"), scope)
        assert ex.check("ch03.q5", scope["fold_token_types"]).status == "not started"

    def test_another_wrong_function_is_a_try(self):
        assert "The last type is added" in ex.check("ch03.q5", mistakes("ch03.q5")["last_type"]).message


class TestValues:
    @pytest.mark.parametrize("value", [torch.tensor([[1.0, math.nan, -math.inf]]), torch.tensor([True, False]),
                                       torch.zeros(2, 0, dtype=torch.int64), {"b", "a"}, (1, [2.5, "x"]), math.inf, 3])
    def test_what_is_stored_comes_back(self, value):
        back = from_json(json.loads(json.dumps(to_json(value))))
        assert type(back) is type(value)
        if isinstance(value, torch.Tensor):
            assert torch.equal(back.nan_to_num(), value.nan_to_num()) and back.dtype == value.dtype
        else:
            assert back == value

    def test_tolerance_is_relative_and_types_are_strict(self):
        one = from_python(torch.tensor([1.0, 1000.0]))
        assert equal(from_python(torch.tensor([1.00005, 1000.05])), one)
        assert not equal(from_python(torch.tensor([1.0005, 1000.0])), one)
        assert not equal(from_python(torch.tensor([1, 1000])), one)
        assert not equal(from_python([1.0, 1000.0]), one)
        assert not equal(from_python(True), from_python(1))
        assert same_form(from_python(4), from_python(4.0)) == ""

    def test_a_subclass_is_not_trusted(self):
        lying = EqualTensor([1.0])
        assert from_python(lying).kind == "other" and not equal(from_python(lying), from_python(torch.tensor([1.0])))

    def test_a_tensor_too_large_to_copy_is_never_equal(self):
        big = from_python(torch.zeros(300_000))
        assert big.items is None and not equal(big, big)


class TestChapters:
    """The chapter, the stub and the signature cannot drift apart."""

    @pytest.mark.parametrize("name", chapter_names())
    def test_the_stubs_in_the_chapter_are_the_stubs_of_the_questions(self, name):
        files = sorted((ROOT / "notebooks").rglob(f"{name}_*.md"))  # a draft as well
        if not files:
            pytest.skip(f"notebooks/{name}_*.md is not written yet")
        cells = re.findall(r"^```\{code-cell\}[^\n]*\n(?::[^\n]*\n|---\n.*?\n---\n)*\n*(.*?)^```$",
                           files[0].read_text(encoding="utf-8"), flags=re.M | re.S)
        for asked in chapter(name).questions:
            assert any(asked.stub.strip() in cell for cell in cells), f"{files[0].name}: the stub of {asked.name}"
            line = f'check("{asked.name}", {asked.function})'
            assert any(line in cell for cell in cells), f"{files[0].name}: {line} is missing"
            if asked.forecast:
                place = next(i for i, cell in enumerate(cells) if f'predict("{asked.name}")' in cell)
                assert place < next(i for i, cell in enumerate(cells) if line in cell), "the prediction comes first"
        points = "progress()" if name == "ch00" else f'progress("{name}")'  # chapter 0 shows the whole course
        for call in (f'predict("{name}")', f'recall("{name}"', f'quiz("{name}")', points):
            assert any(call in cell for cell in cells), f"{files[0].name}: {call} is missing"

    @EACH_QUESTION
    def test_the_checking_code_does_not_hold_the_answer(self, asked):
        """The formula must not stand beside the question; hints say it in words, on request."""
        import inspect

        from course_lib.notebook.exercises import checking

        source = inspect.getsource(checking) + inspect.getsource(guard)
        body = inspect.getsource(solution(asked.name)).split("\n", 1)[1].strip()
        own = sys.modules[f"course_lib.notebook.exercises.{asked.name.partition('.')[0]}"]
        assert body not in source + inspect.getsource(own)
