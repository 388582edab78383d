"""The benchmarks: what is counted agrees with published counts, and with pencil and paper. No test measures time."""

from __future__ import annotations

import json
import mmap
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, MobileBertConfig

from course_lib.experiments.speed import __main__ as bench
from course_lib.experiments.speed import cost, deployment, memory, page, record, shapes
from course_lib.methods import bilstm, cached, distilbert, hinton, minilm, mobilebert, pkd, theseus, tinybert
from course_lib.methods.distilbert import student_from
from course_lib.methods.hinton import soft_target_loss
from course_lib.methods.mobilebert_model import MobileBertForSequenceClassification, student_config_for
from course_lib.mistakes import tiny
from course_lib.shared import clock

# --- The clock --------------------------------------------------------------------------------------------------------


def test_every_round_has_everybody_and_begins_with_another_one():
    calls = []
    times = clock.in_turns({name: lambda i, name=name: calls.append(f"{name}{i}") for name in "abc"}, 0.0, least=3)
    assert " ".join(calls) == "a0 b0 c0 a0 b0 c0 b1 c1 a1 c2 a2 b2"  # the first three only warm up
    assert [len(times[name]) for name in "abc"] == [3, 3, 3]


def test_two_rounds_are_refused():
    with pytest.raises(ValueError, match="spread"):
        clock.in_turns({"a": lambda _: None}, 0.0, least=2)
    with pytest.raises(ValueError, match="0 rounds measure nothing"):
        clock.take_turns({"a": lambda _: 1.0}, 0)


def test_a_ratio_of_two_is_made_in_turns_and_a_warm_up_does_not_count():
    seen = []

    def model(name, seconds):
        return lambda i: seen.append(name) or (100.0 if i < 2 else seconds)
    assert clock.ratio_in_turns(model("a", 3.0), model("b", 2.0), pairs=4) == [1.5, 1.5, 1.5]
    assert "".join(seen) == "abba" "abba" "abba"


def test_the_ratio_is_taken_inside_the_round():
    """A round in which the machine was ten times as slow changes no ratio."""
    times = {"student": [1.0, 1.1, 9.0, 1.0], "teacher": [2.0, 2.2, 18.0, 2.0]}
    assert clock.ratio(times, "student", "teacher") == [0.5, 0.5, 0.5]
    assert clock.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == [2.0, 3.0, 4.0]
    assert clock.milliseconds(times, "student") == 1050.0


def test_conditions_name_no_machine():
    text = json.dumps(clock.conditions(torch.device("cpu")))
    assert os.uname().nodename not in text and f'"threads": {torch.get_num_threads()}' in text


# --- The papers' networks ---------------------------------------------------------------------------------------------

PUBLISHED = {"12 x 768": 109_482_240, "6 x 768, no pooler": 66_362_880, "6 x 768": 66_955_008, "3 x 768": 45_691_392,
             "4 x 312": 14_350_248, "24 x 512, bottleneck 128": 24_844_544, "12 x 384": 33_360_000,
             "6 x 384": 22_713_216, "1 x 768": 33_242_114}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_have_the_published_numbers_of_parameters(name):
    with torch.device("meta"):
        model = shapes.NETWORKS[name]()
    found = shapes.sizes(model)
    width = {"24 x 512, bottleneck 128": 128, "4 x 312": 312, "12 x 384": 384, "6 x 384": 384}.get(name, 768)
    words = (32_768 if name == "1 x 768" else 30_522) * width
    assert found["parameters"] == PUBLISHED[name] and found["without_words"] == PUBLISHED[name] - words
    assert found["weights_mb"] == pytest.approx(4 * PUBLISHED[name] / 1e6, rel=1e-3)


def test_the_bilstm_has_the_published_size_without_its_words():
    found = shapes.sizes(bilstm.BiLstm(bilstm.random_vectors(1000), classes=2))
    assert found["without_words"] == 963_002 and found["parameters"] == 963_002 + 2 * 300 * 1000


def test_every_model_has_a_network_and_every_network_a_model():
    assert {model.network for model in shapes.MODELS} == set(shapes.NETWORKS)
    assert shapes.MODELS[0].name == shapes.REFERENCE and shapes.MODELS[0].network == next(iter(shapes.NETWORKS))


def small_bert(layers: int = 2) -> Callable[[], nn.Module]:
    return shapes.encoder(BertConfig(vocab_size=shapes.WORDS, hidden_size=16, num_hidden_layers=layers,
                                     num_attention_heads=2, intermediate_size=24))


def test_operations_are_those_of_pencil_and_paper():
    tokens, h, f = 7, 16, 24
    linear = 2 * tokens * (4 * h * h + 2 * h * f)  # multiply and add
    attention = 2 * (2 * tokens * tokens * h)  # QK^T, and probabilities times V
    assert shapes.gflops(small_bert(3)().eval(), tokens) == pytest.approx((3 * (linear + attention) + 2 * h * h) / 1e9,
                                                                         rel=1e-3)
    lstm = 2 * 4 * 2 * tokens * (600 * 150 + 150 * 150)  # two directions, four gates
    model = bilstm.BiLstm(bilstm.random_vectors(shapes.WORDS), classes=2).eval()
    assert shapes.gflops(model, tokens) == pytest.approx((lstm + 2 * (300 * 200 + 200 * 2)) / 1e9, rel=1e-3)


def test_mobilebert_of_transformers_takes_the_fast_attention():
    """Or its times could not be compared with those of the others."""
    with torch.device("meta"):
        model = shapes.encoder(MobileBertConfig(num_hidden_layers=1))()
    assert model.config._attn_implementation == "sdpa"


def test_networks_are_measured_against_the_first_one():
    rows = shapes.networks({"two": small_bert(2), "one": small_bert(1)}, 0.0, length=6, batch_sizes=(1, 2))
    assert [row["network"] for row in rows] == ["two", "one"]
    for row in rows:
        assert row["rounds_1"] >= 3 and row["rounds_2"] >= 3 and row["ms_1"] > 0
        low, middle, high = row["ratio_2"]
        assert 0 < low <= middle <= high
    assert rows[0]["ratio_1"] == rows[0]["ratio_2"] == [1.0, 1.0, 1.0]


# --- Our models as they would be shipped ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences() -> list[dict]:
    drawn = torch.Generator().manual_seed(0)
    return [{"input_ids": [2, *torch.randint(4, 40, (3 + i % 9,), generator=drawn).tolist(), 3], "label": i % 3}
            for i in range(40)]


@pytest.mark.slow
def test_all_formats_give_the_answers_of_plain_pytorch(sentences):
    model = tiny.bert()
    rows = {row["format"]: row for row in deployment.formats({"teacher": model}, sentences, 0.0)}
    assert list(rows) == list(deployment.FORMATS)
    exact = [name for name in rows if name.endswith("float32")]
    for name, row in rows.items():
        if "left_out" not in row:
            assert row["largest_difference"] < (1e-4 if name in exact else 1.0), name
            assert row["file_mb"] > 0 and row["rounds_1"] >= 3 and len(row["ratio_32"]) == 3
    plain = rows[deployment.REFERENCE]
    assert plain["largest_difference"] == 0 and plain["ratio_1"] == [1.0, 1.0, 1.0]
    assert rows["PyTorch, bfloat16"]["largest_difference"] > 0, "autocast was not on"
    assert rows["PyTorch, int8 (dynamic)"]["largest_difference"] > 0
    assert model.config._attn_implementation != "sdpa" or tiny.bert().config._attn_implementation == "sdpa", (
        "the caller's model was changed")


def test_what_is_not_installed_is_left_out_with_the_way_to_get_it(sentences, monkeypatch):
    monkeypatch.setattr(deployment.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(deployment, "FORMATS", {name: deployment.FORMATS[name] for name in (
        deployment.REFERENCE, "ONNX Runtime, float32")})
    plain, absent = deployment.formats({"teacher": tiny.bert()}, sentences, 0.0)
    assert "left_out" not in plain and "pip install" in absent["left_out"] and "accuracy" not in absent


# --- What teaching costs ----------------------------------------------------------------------------------------------


def test_every_method_of_the_course_has_its_case():
    names = " ".join(cost.CASES).lower()
    for method in ("soft targets", "bilstm", "distilbert", "pkd", "tinybert", "mobilebert", "minilm", "theseus",
                   "cached"):
        assert method in names


@pytest.fixture
def case() -> cost.Case:
    student = nn.Linear(4, 3)
    batches = [{"x": torch.randn(5, 4), "labels": torch.randint(0, 3, (5,))} for _ in range(2)]
    return cost.Case(student, batches, lambda b: nn.functional.cross_entropy(student(b["x"]), b["labels"]),
                     lambda b: cost.nothing_sensible([student(b["x"])]))


def test_a_step_trains_and_leaves_no_gradient(case):
    before = case.student.weight.detach().clone()
    step = case.step(case.real)
    step(0)
    assert case.student.weight.grad is None and not torch.equal(case.student.weight, before)


def test_both_steps_share_the_optimiser_and_draw_the_same_dropout(case):
    drawn = []
    steps = [case.step(lambda b: drawn.append(torch.rand(1).item()) or case.bare(b)) for _ in range(2)]
    for step in steps:
        step(3)
    assert drawn[0] == drawn[1] and case.optimizer is case.optimizer


def test_every_reason_belongs_to_a_case():
    assert set(cost.WHY) <= set(cost.CASES)


def test_a_case_becomes_a_row(case):
    row = cost.time_case("linear", case, 0.0)
    assert row["method"] == "linear" and row["rounds"] >= 3 and 0 < row["ratio"][0] <= row["ratio"][2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mark of a process is Linux's")
def test_the_high_water_mark_is_set_back():
    where = torch.device("cpu")
    memory.set_back(where)
    before = memory.peak_mb(where)
    with mmap.mmap(-1, 200_000_000) as taken:  # no tensor: an allocator may keep what a tensor gives back
        taken.write(bytes(200_000_000))
    high = memory.peak_mb(where)
    memory.set_back(where)
    assert high > before + 150 and memory.peak_mb(where) < high - 150


def test_variables_of_the_child_processes_do_not_stay(monkeypatch):
    monkeypatch.setenv("A", "1")
    monkeypatch.delenv("B", raising=False)
    with memory._environment({"A": "2", "B": "3"}):
        assert os.environ["A"] == "2" and os.environ["B"] == "3"
    assert os.environ["A"] == "1" and "B" not in os.environ


# --- No Python loop over examples or tokens in a loss -----------------------------------------------------------------


class _Counting(TorchDispatchMode):
    """How many operations PyTorch is asked for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def operations(loss: Callable[[int, int], Tensor], batch: int, tokens: int) -> int:
    """Operations of the loss and of its gradient."""
    torch.manual_seed(0)
    with _Counting() as counting:
        loss(batch, tokens).backward()
    return counting.count


def texts(batch: int, tokens: int, labels: str = "class") -> dict[str, Tensor]:
    """Sentences with one padded token each; for a masked LM, two hidden words per sentence."""
    ids = torch.randint(4, 40, (batch, tokens))
    ids[:, -1] = 0
    words = torch.full_like(ids, -100)
    words[:, 1:3] = ids[:, 1:3]
    return {"input_ids": ids, "attention_mask": (ids != 0).long(),
            "labels": words if labels == "words" else torch.arange(batch) % 3}


def losses() -> dict[str, Callable[[int, int], Tensor]]:
    teacher, student, lm = tiny.bert(), tiny.bert(seed=1, num_hidden_layers=2), tiny.masked_lm()
    small_lm = student_from(lm, layers=2).eval()
    thin = MobileBertForSequenceClassification(student_config_for(teacher.config, num_labels=3, trigram_input=False,
                                                                  embedding_size=12)).eval()
    ship = theseus.Theseus(teacher, 2).eval()

    def from_cache(batch: int, tokens: int) -> Tensor:
        words = texts(batch, tokens, "words")
        kept = cached.top_k(lm(words["input_ids"], words["attention_mask"]).logits[words["labels"] != -100], 4)
        stored = {"teacher_top_ids": kept.ids, "teacher_top_log_probs": kept.log_probs,
                  "teacher_rest_log_prob": kept.rest_log_prob, "teacher_temperature": torch.ones(batch),
                  "teacher_classes": torch.full((batch,), kept.classes)}
        return sum(cached.terms(small_lm, None, words | stored).values())

    def of(terms: Callable, *models: nn.Module, labels: str = "class", **more) -> Callable[[int, int], Tensor]:
        return lambda batch, tokens: sum(terms(*models, texts(batch, tokens, labels), **more).values())

    return {
        "hinton": of(hinton.terms, student, teacher),
        "bilstm": lambda batch, tokens: sum(bilstm.logit_terms(
            torch.randn(batch, 3, requires_grad=True), torch.randn(batch, 3), torch.arange(batch) % 3, alpha=0.5
        ).values()),
        "distilbert": of(distilbert.terms, small_lm, lm, labels="words"),
        "pkd": of(pkd.terms, student, teacher, recipe=pkd.PkdRecipe(layer_map=((1, 2),))),
        "tinybert": of(tinybert.terms, student, teacher),
        "mobilebert": of(mobilebert.terms, thin, teacher),
        "minilm": of(minilm.terms, student, teacher),
        "minilm v2": of(minilm.terms, student, teacher, recipe=minilm.MiniLmRecipe(version="v2", relation_heads=6)),
        "theseus": of(theseus.terms, ship, None),
        "cached, top k": from_cache,
    }


def test_no_loss_has_a_loop_over_examples_or_tokens():
    """More text must not mean more operations, only larger ones. (Loops over layers do not depend on the text.)"""
    for name, loss in losses().items():
        assert operations(loss, 2, 6) == operations(loss, 5, 6), f"{name} loops over examples"
        assert operations(loss, 2, 6) == operations(loss, 2, 11), f"{name} loops over tokens"


def test_a_loop_over_examples_would_be_seen():
    def loops(batch: int, _tokens: int) -> Tensor:
        mine, theirs = torch.randn(batch, 3, requires_grad=True), torch.randn(batch, 3)
        return sum(soft_target_loss(one[None], other[None], temperature=2.0)
                   for one, other in zip(mine, theirs, strict=True))

    assert operations(loops, 2, 6) != operations(loops, 5, 6)


# --- The command, the file, the page ----------------------------------------------------------------------------------

WHERE = {"hardware": "x86_64, 2 cores, no GPU", "threads": 2, "torch": "2.13", "transformers": "5"}


def measured() -> dict[str, dict]:
    """A record as the parts write it, with numbers that can be recognised."""
    times = {"ms_1": 10.0, "ratio_1": [0.2, 0.25, 0.5], "rounds_1": 7, "ms_32": 99.0, "ratio_32": [0.1, 0.125, 0.2],
             "rounds_32": 5}
    networks = [{"network": name, "parameters": 1_000_000 + i, "without_words": 5, "weights_mb": 4.0, "gflops": 22.35,
                 **times} for i, name in enumerate(shapes.NETWORKS)]
    formats = [{"model": "teacher, 6 x 384", "format": name, "file_mb": 90.9 / (1 + i), "accuracy": 86.0 + i / 10,
                "largest_difference": 0.0123, **times} for i, name in enumerate(deployment.FORMATS)]
    formats[-1] = {"model": "teacher, 6 x 384", "format": "ONNX Runtime, int8 (dynamic)", "left_out": "not installed"}
    methods = [{"method": name, "bare_ms": 100.0, "real_ms": 107.0, "ratio": [1.05, 1.07, 1.09], "rounds": 9}
               for name in cost.CASES]
    methods[2]["ratio"] = methods[-1]["ratio"] = [1.21, 1.22, 1.23]
    parts = {
        "shapes": {"length": 128, "attention": "SDPA", "precision": "float32", "networks": networks},
        "deployment": {"sentences": 1547, "tokens": 27, "formats": formats},
        "cost": {"aim": 1.1, "cache_aim": 2.5, "methods": methods,
                 "documents": [{"stored_steps_per_second": 9.0, "live_steps_per_second": 3.0, "faster": [2.8, 3.0, 3.1],
                                "rounds": 9}],
                 "top_k": [{"answers": name, "bytes": size, "ms": 50.0, "ratio": [0.7, 0.8, 0.9], "rounds": 7}
                           for name, size in (("live teacher", 0), ("whole vocabulary", 122_088), ("top 64", 772))]},
        "memory": {"steps": 3, "methods": [{"method": name, "at_rest_mb": 700, "bare_mb": 900, "real_mb": 950}
                                           for name in cost.CASES]}}
    return {part: {"command": f"python -m course_lib.experiments.speed {part}", "where": WHERE, "minutes": 1.0} | found
            for part, found in parts.items()}


def test_an_unknown_part_is_refused_before_anything_runs(capsys, monkeypatch):
    with pytest.raises(ValueError, match="No part 'x'"):
        bench.run("x")
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("it ran"))
    assert bench.main(["shapes", "speed"]) == 2
    assert "No part 'speed'. There are: shapes, deployment, cost, memory" in capsys.readouterr().err


def test_a_quick_run_keeps_nothing_and_a_real_one_keeps_its_part(tmp_path, monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(bench, "run", lambda part, quick: measured()[part])
    monkeypatch.setattr(bench.record, "store", lambda part, found, order: kept.append(part))
    assert bench.main(["memory", "--quick"]) == 0 and kept == []
    assert bench.main(["memory"]) == 0 and kept == ["memory"]
    assert "| PKD" in capsys.readouterr().out


def test_one_part_replaces_its_own_numbers_only(tmp_path):
    file, order = tmp_path / "bench.json", list(bench.PARTS)
    for part in ("memory", "shapes"):
        record.store(part, measured()[part], order, file)
    record.store("memory", measured()["memory"] | {"steps": 4}, order, file)
    found = record.load(file)
    assert list(found) == ["shapes", "memory"] and found["memory"]["steps"] == 4
    assert found["shapes"] == measured()["shapes"]
    assert max(map(len, file.read_text().splitlines())) < 400, "one row per line"


def test_the_page_shows_every_row_and_says_what_the_numbers_say():
    text = page.page(measured())
    for name in (*(model.name for model in shapes.MODELS), *deployment.FORMATS, *cost.CASES):
        assert name in text, name
    assert "Above the aim: DistilBERT, every token and Cached answers." in text
    assert "DistilBERT, every token: two models" in text and "TinyBERT, inside: " not in text
    assert "3.00 (2.80 to 3.10) times as fast" in text and "reached: yes" in text
    assert "158 times less room" in text and "not installed" in text
    assert "4.0 (2.0 to 5.0)" in text and "8.0 (5.0 to 10.0)" in text  # a quarter of the time is four times as fast
    assert "Random weights, float32" in text and "2 threads" in text


def test_the_page_without_a_measurement_says_how_to_make_one():
    text = page.page({})
    assert "Nothing is measured yet" in text and "make bench" in text and text.startswith("# ")
    assert record.load(Path("no such file.json")) == {}


@pytest.mark.parametrize(("ratio", "said"), [([1.0, 1.05, 1.1], "yes"), ([1.05, 1.1, 1.2], "on the line"),
                                             ([1.11, 1.2, 1.3], "no")])
def test_an_aim_is_reached_if_the_middle_half_lies_below_it(ratio, said):
    assert page.reached(ratio, 1.1) == said


@pytest.mark.parametrize(("ratio", "said"), [([2.5, 2.6, 2.7], "yes"), ([2.4, 2.5, 2.6], "on the line"),
                                             ([2.0, 2.1, 2.4], "no")])
def test_a_speed_up_is_reached_if_the_middle_half_lies_above_it(ratio, said):
    assert page.reached(ratio, 2.5, at_least=True) == said


def test_lists_read_as_sentences():
    assert [page.listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "none", "a", "a and b", "a, b and c"]


def test_the_committed_numbers_are_of_this_code_and_stand_in_the_book():
    """A network, a format or a method that came later needs a new measurement; a page cannot keep old numbers."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
    import book

    found, text = record.load(), book.generated()["speed.md"]
    assert text == page.page(found)
    known = {"shapes": ("networks", "network", shapes.NETWORKS),
             "deployment": ("formats", "format", deployment.FORMATS),
             "cost": ("methods", "method", cost.CASES), "memory": ("methods", "method", cost.CASES)}
    for part, numbers in found.items():
        rows, key, names = known[part]
        if "left_out" not in numbers:
            assert {row[key] for row in numbers[rows]} == set(names), f"measure again: {numbers['command']}"
        for row in numbers.get(rows, []):
            for value in re.findall(r"\d+\.\d{2}", f"{row.get('accuracy', 0):.2f} {row.get('gflops', 0):.2f}"):
                assert value in text or value == "0.00", f"{value} of {part} is not on the page"
