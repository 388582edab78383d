"""One batch in parts: accumulation and several processes end where the whole batch in one process ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import in_two_processes
from torch import nn

from course_lib.shared.masking import IGNORED, keep, masked_mean
from course_lib.shared.parts import parts_of, size
from course_lib.shared.training import Recipe, train

RECIPE = Recipe(steps=3, learning_rate=1e-2, clip=1e9)  # Adam forgives a factor; the gradient norm does not
OVER = {"tokens": "tokens", "pairs": "token pairs", "labels": "labels"}


def sentences(rows=6, tokens=5, seed=0):
    """Sentences of very different length, with few labels: the parts weigh differently."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([1, 5, 2, 4, 1, 5, 3][:rows])
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    labels = torch.where(torch.rand(rows, tokens, generator=generator) < 0.6, 1, IGNORED)
    labels[:, 0] = 0
    return {"x": torch.randn(rows, tokens, 4, generator=generator), "attention_mask": mask, "labels": labels}


def terms(student, batch):
    """One mean of each kind."""
    out, mask = student(batch["x"]), batch["attention_mask"].bool()
    pairs = mask[:, :, None] & mask[:, None, :]
    return {"examples": out[:, 0].square().mean(), "tokens": masked_mean(out.square().mean(-1), mask),
            "pairs": (out @ out.transpose(1, 2)).square()[pairs].mean(),
            "labels": nn.functional.cross_entropy(keep(out, batch["labels"] != IGNORED),
                                                  batch["labels"][batch["labels"] != IGNORED])}


def student():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def trained(accumulate, rows=6, averaged_over=OVER):
    model = student()
    batches = [sentences(rows, seed=step) for step in range(3)]
    return train(model, batches, terms, replace(RECIPE, accumulate=accumulate), averaged_over=averaged_over), model


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_a_batch_in_parts_gives_the_losses_gradients_and_weights_of_the_whole(accumulate):
    (whole, first), (parts, second) = trained(1), trained(accumulate)
    for row, other in zip(whole.steps, parts.steps, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(second.weight, first.weight, rtol=1e-5, atol=1e-7)


def test_the_mean_of_the_parts_means_would_be_wrong():
    whole, naive = trained(1)[0], trained(3, averaged_over={})[0]
    assert naive.steps[0]["tokens"] != pytest.approx(whole.steps[0]["tokens"], rel=1e-2)
    assert naive.steps[0]["examples"] == pytest.approx(whole.steps[0]["examples"], rel=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_last_small_batch_may_have_fewer_rows_than_parts(rows):
    assert trained(4, rows)[0].steps[0] == pytest.approx(trained(1, rows)[0].steps[0], rel=1e-5)


def test_every_row_is_in_exactly_one_part_and_the_weights_add_up_to_one():
    batch = sentences(7)
    parts = parts_of(batch, 3)
    assert sorted(len(p.batch["x"]) for p in parts) == [2, 2, 3]
    rows = torch.cat([p.batch["x"] for p in parts]).flatten(1)
    assert sorted(rows.tolist()) == sorted(batch["x"].flatten(1).tolist())
    for over in ("examples", "tokens", "token pairs", "labels"):
        assert sum(p.weight(over) for p in parts) == pytest.approx(1.0)


def test_sizes_count_what_a_loss_is_a_mean_over():
    batch = {"attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]), "labels": torch.tensor([[7, -100, -100]] * 2)}
    assert [size(batch, over) for over in ("examples", "tokens", "token pairs", "labels")] == [2, 4, 10, 2]
    with pytest.raises(ValueError, match=r"'examples', 'tokens'.*not 'words'"):
        size(batch, "words")


def test_a_batch_that_cannot_be_cut_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"one row per example.*'rows': 9.*accumulate=1"):
        parts_of({"input_ids": torch.ones(4, 3), "rows": torch.ones(9)}, 2)


# --- Two processes ----------------------------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys
import torch
from course_lib.shared.parts import begin, process_number, processes
from course_lib.shared.training import train
sys.path.insert(0, {tests!r})
import test_parts
begin()
model = test_parts.student()
with torch.no_grad():
    model.weight += process_number()  # two processes that would start apart
seen = []
def terms(student, batch):
    seen.append(len(batch["x"]))
    if {kill} and len(seen) == 3 and process_number() == 1:
        os.kill(os.getpid(), 9)
    return test_parts.terms(student, batch)
batches = [test_parts.sentences(6, seed=step) for step in range(3)]
history = train(model, batches, terms, test_parts.replace(test_parts.RECIPE, save_every=1, accumulate={accumulate}),
                averaged_over=test_parts.OVER, folder={folder!r})
if process_number() == 0:
    print(json.dumps(dict(processes=processes(), steps=history.steps, weight=model.weight.tolist(), rows=seen)))
"""


def launched(folder, kill=False, accumulate=1):
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), kill=kill, folder=str(folder / "run"),
                                    accumulate=accumulate))
    return in_two_processes(str(script))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 3])
def test_two_processes_give_the_losses_of_one(tmp_path, accumulate):
    done = launched(tmp_path, accumulate=accumulate)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    whole, model = trained(1)
    assert found["processes"] == 2
    for row, other in zip(whole.steps, found["steps"], strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(torch.tensor(found["weight"]), model.weight.data, rtol=1e-5, atol=1e-7)
    assert sum(found["rows"]) == 9  # this process read half of 3 x 6 rows


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    killed = launched(tmp_path, kill=True)
    assert killed.returncode != 0
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["checkpoint.safetensors"]  # whole, and nothing else
    done = launched(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for row, other in zip(trained(1)[0].steps, found["steps"], strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    assert sum(found["rows"]) < 9  # it did not begin at step 0
