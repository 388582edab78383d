"""Mistakes in data, students and training: chapters 2 to 5 and 8 (BERT-of-Theseus)."""

from __future__ import annotations

import os

import torch
from torch import nn

from course_lib.material import data
from course_lib.methods import theseus, tinybert_augmentation
from course_lib.mistakes import tiny
from course_lib.mistakes.patching import Edit, Mutant
from course_lib.shared import batches, measures, starts, students, training
from course_lib.shared.masking import IGNORED

DATA, BATCHES = "course_lib.material.data", "course_lib.shared.batches"
TRAINING = "course_lib.shared.training"
THESEUS = "course_lib.methods.theseus"
AUGMENTATION = "course_lib.methods.tinybert_augmentation"

WORDS = torch.arange(1000, 3000).reshape(20, 100)


class FakeTokenizer:
    """As much of a tokenizer as masking needs."""

    pad_token_id, mask_token_id, all_special_ids = 0, 4, (0, 2, 3, 4)

    def __len__(self) -> int:
        return 40


def masked(probability: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    return batches.mask_tokens(WORDS, torch.ones_like(WORDS, dtype=torch.bool), mask_token_id=103, vocabulary=30522,
                            probability=probability, generator=torch.Generator().manual_seed(0))


def share_of_positions_with_a_label() -> float:
    return (masked()[1] != IGNORED).float().mean()


def share_of_random_words_among_the_chosen() -> float:
    ids, labels = masked(1.0)
    return ((ids != 103) & (ids != labels)).float().mean()


def hidden_special_tokens() -> float:
    tokenizer = FakeTokenizer()
    batch = batches.MaskedBatch(tokenizer, probability=1.0)([{"input_ids": [2, 9, 9, 3]}, {"input_ids": [2, 9, 3]}])
    special = torch.tensor([[True, False, False, True], [True, False, True, True]])
    return (batch["labels"][special] != IGNORED).sum()


def first_batch() -> torch.Tensor:
    examples = [{"input_ids": [2] * (1 + i // 10), "label": i} for i in range(100)]
    return batches.Batches(examples, 10, bucket=5)[0]["labels"]


def longest_sentence_of_the_first_batches() -> float:
    """Of a data set in which every length is equally frequent; in a shuffled order some early batch is long."""
    examples = [{"input_ids": [2] * (1 + i)} for i in range(80)]
    found = batches.Batches(examples, 10, bucket=8)
    return max(found[step]["input_ids"].shape[1] for step in range(2))


def teachers_layer_after_a_step_of_the_student() -> float:
    teacher = tiny.bert()
    student = students.new_student(teacher, layers=2)
    starts.copy_layers(student, teacher, ((1, 2), (2, 4)))
    before = students.blocks(teacher)[1].output.dense.weight.detach().clone()
    with torch.no_grad():
        students.blocks(student)[0].output.dense.weight += 1.0
    return (students.blocks(teacher)[1].output.dense.weight - before).abs().max()


def predecessor_after_a_step_of_the_successor() -> float:
    ship = theseus.Theseus(tiny.bert(), 2)
    first = ship.modules_to_replace[0]
    before = first.predecessor[0].output.dense.weight.detach().clone()
    with torch.no_grad():
        first.successor[0].output.dense.weight += 1.0
    return (first.predecessor[0].output.dense.weight - before).abs().max()


def word_geometry_that_a_narrow_student_keeps() -> float:
    """Correlation of the distances between words in the teacher and in a student of a third of its width."""
    teacher = tiny.masked_lm()
    table = teacher.get_input_embeddings().weight.data
    table[:, :4] *= 0.05  # what the words differ in lies in the later columns
    student = students.new_student(teacher, hidden=6)
    starts.copy_factorised_embeddings(student, teacher)
    distances = [torch.pdist(t.detach()) for t in (table, student.get_input_embeddings().weight)]
    return torch.corrcoef(torch.stack(distances))[0, 1]


def first_layer_of_the_second_successor() -> float:
    """How far the second successor is from the predecessor's SECOND layer."""
    model = tiny.bert()
    ship = theseus.Theseus(model, 2)
    ours, theirs = ship.modules_to_replace[1].successor[0], model.bert.encoder.layer[1]
    return (ours.output.dense.weight - theirs.output.dense.weight).abs().max()


def gradient_left_in_a_frozen_part() -> float:
    student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    train(student, parameters=[{"params": list(student[1].parameters())}])
    return 0.0 if student[0].weight.grad is None else student[0].weight.grad.norm()


def weight_after_a_run_that_got_worse() -> float:
    """Each score is lower than the one before, so the weights of the first evaluation are the best."""
    student, seen = nn.Linear(2, 1), []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append(model.weight.detach().clone())
        return {"accuracy": -float(len(seen))}

    train(student, evaluate=evaluate, evaluate_every=1, patience=3, learning_rate=0.1)
    return (student.weight.detach() - seen[0]).abs().max()


def repeated_texts_in_the_splits() -> float:
    rows = [{"text": "A good film."}, {"text": "a good film"}, {"text": "Another one."}]
    return sum(len(split) for split in data.split_by_text(rows, lambda r: r["text"], test=0.5,
                                                          validation=0.1).values())


def accuracy_of_two_looks_at_a_student_with_dropout() -> float:
    student = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2))
    student.forward = lambda input_ids: nn.Sequential.forward(student, input_ids.float())
    one, two = (measures.predict_logits(student, [{"input_ids": torch.ones(4, 8)}]) for _ in range(2))
    return (one - two).abs().max()


def mixed_paths_of_a_hundred() -> float:
    draws = [theseus.draw(4, 0.5) for _ in range(100)]
    return sum(0 < sum(d) < 4 for d in draws)


def rate_of_the_tenth_batch() -> float:
    return theseus.constant_rate(10, rate=0.5)


def trainable_tensors_outside_the_successors() -> float:
    ship = theseus.Theseus(tiny.bert(), 2)
    ours = {id(p) for p in ship.trainable_parameters()}
    return sum(p.requires_grad and id(p) not in ours for p in ship.parameters())


def predecessor_layers_used_in_evaluation() -> float:
    ship = theseus.Theseus(tiny.bert(), 2, schedule=lambda step: 0.1).eval()
    ship(tiny.batch()["input_ids"])
    return sum(name.startswith("prd") for name in ship.path)


class Diary(nn.Linear):
    """A student that writes down in which mode it was called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.diary = [*getattr(self, "diary", ()), self.training]
        return super().forward(x)


def sleepy(model: nn.Module) -> dict[str, float]:
    """An evaluation that, as most do, sets the student to eval()."""
    model.eval()
    return {"accuracy": 0.0}


def train(student: nn.Module, *, evaluate=sleepy, parameters=None, **recipe) -> training.History:
    """Four steps on four fixed batches, without a progress bar."""
    batches = [{"x": torch.ones(2, 2) * (i + 1)} for i in range(8)]
    recipe = training.Recipe(**({"steps": 4, "warmup": 0.0, "clip": 1e9} | recipe))

    before, os.environ["COURSE_PROGRESS"] = os.environ.get("COURSE_PROGRESS"), "0"
    try:
        return training.train(student, batches, lambda s, b: {"loss": s(b["x"]).square().mean()}, recipe,
                              evaluate=evaluate, parameters=parameters)
    finally:
        os.environ.pop("COURSE_PROGRESS")
        os.environ |= {"COURSE_PROGRESS": before} if before is not None else {}


def gradient_norm_of_a_batch_in_two_parts() -> float:
    student = nn.Linear(2, 1)
    nn.init.ones_(student.weight)
    nn.init.zeros_(student.bias)
    return train(student, steps=1, accumulate=2).steps[0]["gradient_norm"]


def steps_with_dropout() -> float:
    student = Diary(2, 1)
    train(student, evaluate_every=1)
    return sum(student.diary)


def answers_shown_to_the_masked_lm() -> float:
    words = [tinybert_augmentation.Word("film", 0, 4, (1,))]
    shown = tinybert_augmentation._question([2, 17, 3], words, 0, FakeTokenizer(), "paper")
    return shown.count(17)


def changed_second_sentences_beside_their_own_first_one() -> float:
    """`augment` is replaced for the moment, because it needs a tokenizer: every text gets two new versions."""
    rows = [{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "d"}]

    def augment(texts: list[str], **_: object) -> list[list[str]]:
        return [[2 * text, 3 * text] for text in texts]

    real, tinybert_augmentation.augment = tinybert_augmentation.augment, augment
    try:
        new = tinybert_augmentation.augment_rows(rows, ("text", "text_pair"))
    finally:
        tinybert_augmentation.augment = real
    return sum(row["text"] in "ac" and row["text_pair"] not in "bd" for row in new)


MUTANTS = (
    Mutant(
        "labels_at_unmasked_positions", "ch03",
        "Every token is its own label, not only the hidden ones: the -100 is missing.",
        "The masked-LM loss drops to almost 0 within minutes: the model copies its input and learns no language.",
        (Edit(f"{BATCHES}:mask_tokens", "labels = input_ids.masked_fill(~chosen, IGNORED)",
              "labels = input_ids.clone()"),),
        ("tests/test_data.py",), "share of positions with a label, 0.15 wanted", share_of_positions_with_a_label,
        "a practitioner's report of a student that predicts only commas"),
    Mutant(
        "special_tokens_masked", "ch03",
        "[CLS], [SEP] and padding may be hidden like words.",
        "The masked-LM accuracy looks very good: a large part of the answers is [SEP] and [PAD].",
        (Edit(f"{BATCHES}:MaskedBatch.__call__", 'maskable = ~torch.isin(batch["input_ids"], self.special)',
              'maskable = torch.ones_like(batch["input_ids"], dtype=torch.bool)'),),
        ("tests/test_data.py",), "hidden special tokens, of five", hidden_special_tokens),
    Mutant(
        "random_words_overwritten", "ch03",
        "[MASK] is written after the random words and covers them.",
        "The model never sees a wrong word in training and trusts every visible word.",
        (Edit(f"{BATCHES}:mask_tokens", "chosen & (how >= 0.9), random_ids, masked",
              "chosen & (how >= 0.9), mask_token_id, masked"),),
        ("tests/test_data.py",), "share of random words among the chosen, 0.1 wanted",
        share_of_random_words_among_the_chosen, "lucidrains/mlm-pytorch issue 6"),
    Mutant(
        "layers_shared_with_the_teacher", "ch03",
        "The student's list gets the teacher's own layers: two names for one module.",
        "Training the student changes the teacher; the loss falls because the target comes along.",
        (Edit("course_lib.shared.starts:copy_layers",
              'copy_module(ours[s - 1], theirs[t - 1], f"student layer {s} from teacher layer {t}")',
              "ours[s - 1] = theirs[t - 1]"),),
        ("tests/test_students.py",), "how far a step of the student moves the teacher's layer",
        teachers_layer_after_a_step_of_the_student),
    Mutant(
        "first_columns_for_principal_components", "ch03",
        "A narrower student gets the first columns of the teacher's word table instead of a projection of all.",
        "The words of the student are no longer neighbours of whom they were; the start is hardly better than chance.",
        (Edit("course_lib.shared.starts:factorise_embeddings", "directions.flip(-1)[:, :width].T",
              "torch.eye(hidden, dtype=values.dtype)[:width]"),),
        ("tests/test_students.py",), "correlation of the word distances in teacher and student",
        word_geometry_that_a_narrow_student_keeps),
    Mutant(
        "duplicates_across_splits", "ch00",
        "Texts that differ in case or punctuation only are not recognised as one.",
        "The test score is too good: part of the test set was trained on.",
        (Edit(f"{DATA}:split_by_text", "if text in seen:", "if False:"),),
        ("tests/test_data.py",), "rows that are left of three, two of which are the same",
        repeated_texts_in_the_splits),
    Mutant(
        "evaluated_with_dropout", "ch00",
        "The student is measured in train mode.",
        "Two measurements of one student differ, and both are too low.",
        (Edit("course_lib.shared.students:evaluating.__enter__", "module.training = False", "module.training = True"),),
        ("tests/test_measures.py",), "difference of two looks at one student",
        accuracy_of_two_looks_at_a_student_with_dropout),
    Mutant(
        "last_weights_for_best", "ch00",
        "Early stopping ends the run and keeps the last weights.",
        "The reported best score belongs to weights that no longer exist.",
        (Edit(f"{TRAINING}:_Run.finish", "if name in self.best:", "if False:"),),
        ("tests/test_training.py",), "distance of the kept weights from the best ones",
        weight_after_a_run_that_got_worse),
    Mutant(
        "never_shuffled", "ch04",
        "The examples come in the order of the file, in every epoch.",
        "A sorted data set gives whole batches of one class; the loss saws up and down.",
        (Edit(f"{BATCHES}:Batches._order", "order = generator.permutation(len(self.examples))",
              "order = np.arange(len(self.examples))"),),
        ("tests/test_data.py",), "spread of the example numbers in the first batch",
        lambda: first_batch().float().std(), "intersun/PKD-for-BERT-Model-Compression, NLI_KD_training.py"),
    Mutant(
        "buckets_in_order", "ch04",
        "Batches are built by length and then not shuffled: short sentences first, long ones last.",
        "The loss has the shape of a saw with a tooth per bucket.",
        (Edit(f"{BATCHES}:Batches._order", "return [batches[i] for i in generator.permutation(len(batches))]",
              "return batches"),),
        ("tests/test_data.py",), "longest sentence of the first two batches, lengths 1 to 80",
        longest_sentence_of_the_first_batches),
    Mutant(
        "dropout_gone_after_evaluation", "ch04",
        "The student is set to eval() for an evaluation and never back to train().",
        "Without dropout from the second epoch on: the training loss drops at once, the test accuracy does not follow.",
        (Edit(f"{TRAINING}:train", "student.train()", "student.training"),),
        ("tests/test_training.py",), "steps of four with dropout, one evaluation after each", steps_with_dropout,
        "intersun/PKD-for-BERT-Model-Compression, NLI_KD_training.py"),
    Mutant(
        "accumulation_not_divided", "ch04",
        "The loss is divided by the number of parts after backward(), which is too late.",
        "The gradient is as many times too large; only the clipping hides it.",
        (Edit(f"{TRAINING}:train", "sum(losses.values()).backward()",
              "(sum(losses.values()) * recipe.accumulate).backward()"),),
        ("tests/test_parts.py",), "gradient norm of a batch in two parts",
        gradient_norm_of_a_batch_in_two_parts, "intersun/PKD-for-BERT-Model-Compression, NLI_KD_training.py"),
    Mutant(
        "answer_beside_the_question", "ch05",
        "The masked LM is shown the untouched sentence beside the masked one.",
        "Its best guess for a hidden word is that word: most augmented sentences change little.",
        (Edit(f"{AUGMENTATION}:_question", 'if as_in == "code":', "if True:"),),
        ("tests/test_tinybert_augmentation.py",), "how often the hidden word stands in the question",
        answers_shown_to_the_masked_lm,
        "huawei-noah/Pretrained-Language-Model, TinyBERT/data_augmentation.py"),
    Mutant(
        "pair_rows_mutated", "ch05",
        "The row of a sentence pair is changed in place while its copies are made.",
        "The original pair and the copies of its first sentence are right; every copy of the second sentence stands "
        "beside the last replaced first one, under the label of the original pair.",
        (Edit(f"{AUGMENTATION}:augment_rows",
              "(row, *(row | {column: text} for column in columns for text in versions[column][i])):",
              "(row.update(change) or row for change in\n"
              "                    ({}, *({column: text} for column in columns for text in versions[column][i]))):"),),
        ("tests/test_tinybert_augmentation.py",), "changed second sentences of four beside their own first one",
        changed_second_sentences_beside_their_own_first_one,
        "huawei-noah/Pretrained-Language-Model, TinyBERT/data_augmentation.py"),
    Mutant(
        "one_draw_for_all_modules", "ch08",
        "One coin decides for all modules of a batch: all old or all new.",
        "The successors never work beside a predecessor, which is the idea of the paper.",
        (Edit(f"{THESEUS}:draw",
              "torch.bernoulli(torch.full((modules,), _valid(rate)), generator=generator).bool().tolist()",
              "torch.bernoulli(torch.full((1,), _valid(rate)), generator=generator).bool().tolist() * modules"),),
        ("tests/test_theseus.py",), "mixed paths among a hundred, rate 0.5, four modules", mixed_paths_of_a_hundred,
        "qiufengyuyi/bert-of-theseus-tf issue 2"),
    Mutant(
        "replacement_jumps_to_1", "ch08",
        "The number of replacing steps is 0 unless told, so every batch but the first uses successors only.",
        "It is plain fine-tuning of the first six layers; the curve looks good, the replacing never happened.",
        (Edit(f"{THESEUS}:constant_rate", "replacing_steps is not None and step >= max(1, replacing_steps)",
              "step >= max(1, replacing_steps or 0)"),),
        ("tests/test_theseus.py",), "rate of batch 10, 0.5 wanted", rate_of_the_tenth_batch,
        "JetRunner/BERT-of-Theseus, run_glue.py (default of steps_for_replacing)"),
    Mutant(
        "frozen_by_omission", "ch08",
        "The predecessor is only left out of the optimiser; it still collects gradients.",
        "These gradients count in the norm, so that clipping at 1 shrinks the successors' steps.",
        (Edit(f"{THESEUS}:Theseus.__init__", 'self.model.requires_grad_(as_in == "code")',
              "self.model.requires_grad_(True)"),),
        ("tests/test_theseus.py",), "tensors outside the successors that want a gradient",
        trainable_tensors_outside_the_successors, "JetRunner/BERT-of-Theseus issue 9"),
    Mutant(
        "frozen_gradients_pile_up", "ch08",
        "Only the optimiser's own gradients are cleared; those of a part outside of it add up, step after step.",
        "The gradient norm grows without end, and clipping makes every step smaller.",
        (Edit(f"{TRAINING}:train", "student.zero_grad()", "optimizer.zero_grad()"),),
        ("tests/test_training.py",), "gradient left in a part that the optimiser does not have",
        gradient_left_in_a_frozen_part, "JetRunner/BERT-of-Theseus issue 9 (what follows from it)"),
    Mutant(
        "every_second_layer_as_successor", "ch08",
        "Successor i starts as the first layer of its module; the paper starts with the FIRST layers of the model.",
        "The start is another one than the paper's; its numbers cannot be expected.",
        (Edit(f"{THESEUS}:Theseus.__init__", "copy.deepcopy(layers[i])", "copy.deepcopy(layers[i * k])"),),
        ("tests/test_theseus.py",), "distance of the second successor from the second layer",
        first_layer_of_the_second_successor),
    Mutant(
        "replacing_in_evaluation", "ch08",
        "The coin is thrown in evaluation too.",
        "The reported accuracy is that of a mixture with the teacher; it falls when the student is used alone.",
        (Edit(f"{THESEUS}:Theseus.forward",
              "draw(len(modules), self.replacing_rate) if self.training else [True] * len(modules)",
              "draw(len(modules), self.replacing_rate)"),),
        ("tests/test_theseus.py",), "predecessor layers used in evaluation", predecessor_layers_used_in_evaluation),
    Mutant(
        "successor_shares_the_predecessor", "ch08",
        "The successor is the predecessor's layer itself, not a copy.",
        "The predecessor changes while it should stand still; the mixture learns, the comparison with it is worthless.",
        (Edit(f"{THESEUS}:Theseus.__init__", "copy.deepcopy(layers[i])", "layers[i]"),),
        ("tests/test_theseus.py",), "how far a step of the successor moves the predecessor",
        predecessor_after_a_step_of_the_successor),
)
