"""Mistakes in losses on the inside of two models: chapters 3 to 7 (DistilBERT, PKD, TinyBERT, MobileBERT, MiniLM)."""

from __future__ import annotations

import torch
from transformers import BertModel

from course_lib.methods import distilbert, minilm, mobilebert, mobilebert_schedule, pkd, tinybert
from course_lib.mistakes import tiny
from course_lib.mistakes.patching import Edit, Mutant
from course_lib.shared import layer_maps, probes
from course_lib.shared.students import new_student

METHODS = "course_lib.methods"


def shift_by_padding(terms, student, teacher, name: str, labels: str = "class", **more) -> float:
    """How much a term changes when six empty columns are appended to the batch."""
    values = [terms(student, teacher, tiny.batch(padding, labels), **more)[name] for padding in (0, 6)]
    return (values[0] - values[1]).abs()


def tinybert_pair() -> tuple:
    teacher = tiny.bert()
    student = new_student(teacher, layers=2, hidden=6, seed=3).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tinybert.attach_projection(student, teacher, maps="shared")
    return student, teacher


def tinybert_term(name: str) -> float:
    return tinybert.terms(*tinybert_pair(), tiny.batch())[name]


def difference_of_two_looks_at_the_teacher() -> float:
    student, teacher = tinybert_pair()
    one, two = (tinybert.terms(student, teacher, tiny.batch())["hidden"] for _ in range(2))
    return (one - two).abs()


def teacher_weights_with_a_gradient() -> float:
    student, teacher = tinybert_pair()
    sum(tinybert.terms(student, teacher, tiny.batch()).values()).backward()
    return sum(p.grad is not None for p in teacher.parameters())


def loss_of_a_constant_student() -> float:
    """The student says the same at every token, and the trainable map may become zero."""
    student, teacher = tinybert_pair()
    for parameter in (*student.base_model.parameters(), *student.projection.parameters()):
        torch.nn.init.zeros_(parameter)
    return tinybert.terms(student, teacher, tiny.batch())["hidden"]


def loss_with_the_mask_inside_the_scores() -> float:
    """Scores as BERT of that time gave them: -10,000 was ADDED for a padded key, so the real score shines through."""
    generator = torch.Generator().manual_seed(0)
    padding = torch.tensor([0.0, 0.0, -1e4])
    student, teacher = (torch.randn(1, 1, 3, 3, generator=generator) + padding for _ in range(2))
    return tinybert.attention_loss(student, teacher, as_in="code")


def masked_lm_pair() -> tuple:
    teacher = tiny.masked_lm()
    return distilbert.student_from(teacher).eval(), teacher


def numbers_beside_the_word_table() -> float:
    """Parameters that the student has and a student with a tied head has not."""
    student, teacher = masked_lm_pair()
    tied = student.get_output_embeddings().weight is student.get_input_embeddings().weight
    return 0 if tied else teacher.get_input_embeddings().weight.numel()


def difference_to_a_full_depth_copy() -> float:
    teacher = tiny.masked_lm()
    student = distilbert.student_from(teacher, layers=4).eval()
    inputs = {name: tiny.batch(0)[name] for name in ("input_ids", "attention_mask")}
    return (student(**inputs).logits - teacher(**inputs).logits).abs().max()


def head_difference_to_the_teacher() -> float:
    student, teacher = masked_lm_pair()
    return (student.vocab_transform.weight - teacher.cls.predictions.transform.dense.weight).abs().max()


def shift_of_the_answer_by_padding() -> float:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 1, 8, generator=generator) for _ in range(2)]
    positions, mask = torch.tensor([[1], [2]]), torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    longer = distilbert.span_loss(*logits, positions, mask)
    return (longer - distilbert.span_loss(*(x[..., :5] for x in logits), positions, mask[:, :5])).abs()


def rate_of_the_block_below() -> float:
    groups = mobilebert_schedule.parameter_groups(tiny.bert(BertModel), mobilebert.Phase((3,), False, 1), 1.0)
    return next(group["lr"] for group in groups if group["layer"] == 2)


def patience_pair() -> tuple:
    teacher = tiny.bert()
    return new_student(teacher, layers=2, seed=3).eval(), teacher


def patience_of_longer_states() -> float:
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return pkd.patience_loss(10 * states, states)


def relation_pair() -> tuple:
    return tiny.bert(BertModel, num_hidden_layers=2, seed=3), tiny.bert(BertModel)


def largest_score_of_aligned_vectors() -> float:
    vectors = torch.ones(1, 1, 2, 16)
    return probes.scaled_dot_products(vectors, vectors).max()


def attention_of_a_padded_key() -> float:
    return probes.read(tiny.bert(), tiny.batch()).attention_probs[1][1, :, 0, -1].max()


def attention_transfer_of_opposed_heads() -> float:
    scores = torch.tensor([[[[4.0, -4.0], [-4.0, 4.0]]]])
    return mobilebert.attention_transfer(scores, -scores)


def feature_map_of_a_teacher_that_learns_from_itself() -> float:
    teacher = tiny.bert(BertModel)
    return mobilebert.terms(teacher, teacher, tiny.batch(), phase=mobilebert.Phase((4,), False, 1))["feature_map"]


MUTANTS = (
    Mutant(
        "padding_in_token_kl", "ch03",
        "The soft loss counts padded tokens as well.",
        "The loss depends on how the batch was filled; long padding drowns the words.",
        (Edit(f"{METHODS}.distilbert:positions_that_count",
              'if positions == "all":\n        return attention_mask.bool()',
              'if positions == "all":\n        return torch.ones_like(attention_mask).bool()'),),
        ("tests/test_distilbert.py",), "change of the soft term by six columns of padding",
        lambda: shift_by_padding(distilbert.terms, *masked_lm_pair(), "soft", "words")),
    Mutant(
        "cosine_over_padding", "ch03",
        "The cosine loss is taken over all positions, padding included.",
        "The same text gives another loss in another batch.",
        (Edit(f"{METHODS}.distilbert:triple_loss", "cosine_loss(student_hidden, teacher_hidden, real)",
              "cosine_loss(student_hidden, teacher_hidden)"),),
        ("tests/test_distilbert.py",), "change of the cosine term by six columns of padding",
        lambda: shift_by_padding(distilbert.terms, *masked_lm_pair(), "cosine", "words")),
    Mutant(
        "untied_head", "ch03",
        "The student's output matrix is not the word table but 30,522 rows of its own.",
        "The student is far larger than planned, and 30,522 rows must be learned from few tokens: ',' comes first.",
        (Edit(f"{METHODS}.distilbert:student_config", "tie_word_embeddings=teacher.tie_word_embeddings",
              "tie_word_embeddings=False"),),
        ("tests/test_distilbert.py",), "numbers that a tied head would not need", numbers_beside_the_word_table,
        "a practitioner's report of a student that predicts only commas"),
    Mutant(
        "token_type_vector_lost", "ch03",
        "Token types are removed and the vector that the teacher adds for type 0 goes with them.",
        "A full copy of the teacher does not answer like the teacher.",
        (Edit(f"{METHODS}.distilbert:_copy_embeddings", "if fold_token_types:", "if False:"),),
        ("tests/test_distilbert.py",), "largest logit difference of a full-depth copy", difference_to_a_full_depth_copy,
        "Hugging Face's distillation scripts, extract_distilbert.py"),
    Mutant(
        "head_left_at_random", "ch03",
        "The student gets the teacher's blocks and not its masked-LM head.",
        "The first thousand steps are spent on finding out again what the head knew; the unigram plateau is longer.",
        (Edit(f"{METHODS}.distilbert:student_from", "if isinstance(teacher, BertForMaskedLM):", "if False:"),),
        ("tests/test_distilbert.py",), "largest difference of the heads' first matrices",
        head_difference_to_the_teacher),
    Mutant(
        "padded_answers_compared", "ch03",
        "Start and end of an answer are compared at padded positions too.",
        "The loss of a question depends on the longest text in its batch.",
        (Edit(f"{METHODS}.distilbert:span_loss", "if mask is not None:", "if False:"),),
        ("tests/test_distilbert.py",), "change of the span loss by three padded positions",
        shift_of_the_answer_by_padding,
        "Hugging Face's distillation scripts, run_squad_w_distillation.py"),
    Mutant(
        "last_layer_in_patience", "ch04",
        "The last layer takes part in the patience loss, which the paper leaves out.",
        "Two losses pull at one layer: the patience term no longer goes down to where it was.",
        (Edit("course_lib.shared.layer_maps:skip", "for i in range(1, student_layers))",
              "for i in range(1, student_layers + 1))"),),
        ("tests/test_layer_maps.py", "tests/test_pkd.py"), "pairs of layers for 12 -> 6",
        lambda: len(layer_maps.skip(6, 12))),
    Mutant(
        "patience_without_normalisation", "ch04",
        "The [CLS] states are compared as they are, not as directions.",
        "The term is hundreds of times larger, and the longest layer decides it.",
        (Edit(f"{METHODS}.pkd:patience_loss", "patience_equation if normalise else raw_patience_equation",
              "raw_patience_equation"),),
        ("tests/test_pkd.py",), "patience of states of the same direction, ten times as long",
        patience_of_longer_states),
    Mutant(
        "word_after_cls_compared", "ch04",
        "The state behind [CLS] is read instead of that of [CLS].",
        "Everything trains; the sentence representation is never taught.",
        (Edit(f"{METHODS}.pkd:matched_cls", "student_states[s][:, 0]", "student_states[s][:, -1]"),),
        ("tests/test_pkd.py",), "patience term of two models",
        lambda: pkd.terms(*patience_pair(), tiny.batch(0))["patience"]),
    Mutant(
        "zero_based_blocks_as_layers", "ch04",
        "A list that counts blocks from 0 is used as layer numbers, where 0 is the embedding output.",
        "Every student layer learns from the layer below the right one, the first one from the embeddings.",
        (Edit("course_lib.shared.layer_maps:from_zero_based_blocks", "tuple((s + 1, t + 1) for", "tuple((s, t) for"),),
        ("tests/test_layer_maps.py",), "teacher layer of the first pair of ([0, 1], [5, 11])",
        lambda: layer_maps.from_zero_based_blocks([0, 1], [5, 11])[0][1], "NickL77/BaldEagle issue 18"),
    Mutant(
        "off_by_one_layer", "ch05",
        "hidden_states[0] is taken for the output of the first block, so every teacher layer is one too low.",
        "The loss falls as usual; a copy of the teacher does not have loss 0.",
        (Edit(f"{METHODS}.tinybert:hidden_over_layers", "pair = ours[s], theirs[t]",
              "pair = ours[s], theirs[max(t - 1, 0)]"),),
        ("tests/test_tinybert.py",), "hidden term of a teacher that learns from itself",
        lambda: tinybert.terms(tiny.bert(), tiny.bert(), tiny.batch())["hidden"],
        "huggingface/transformers issues 889 and 2461 (the question)"),
    Mutant(
        "probabilities_for_scores", "ch05",
        "Attention probabilities are compared, because they are what the library returns.",
        "The attention term is near 0 from the start and teaches nothing.",
        (Edit(f"{METHODS}.tinybert:terms", "mine.attention_scores, theirs.attention_scores",
              "mine.attention_probs, theirs.attention_probs"),),
        ("tests/test_tinybert.py",), "attention term of two models", lambda: tinybert_term("attention"),
        "huggingface/transformers issue 2054 (the question)"),
    Mutant(
        "padding_in_hidden_mse", "ch05",
        "The mean squared error of the hidden states runs over padding too.",
        "The loss gets smaller when a batch gets longer.",
        (Edit(f"{METHODS}.tinybert:hidden_loss",
              'rows = mask if require_word(as_in, AsIn, "as_in") == "paper" else None', "rows = None"),),
        ("tests/test_tinybert.py",), "change of the hidden term by six columns of padding",
        lambda: shift_by_padding(tinybert.terms, *tinybert_pair(), "hidden"),
        "huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py"),
    Mutant(
        "scores_of_padding_compared", "ch05",
        "Scores that carry the mask of -10,000 are not set to 0 before they are compared.",
        "Keys that nobody attends to make up part of the attention term.",
        (Edit(f"{METHODS}.tinybert:attention_loss", "x.masked_fill(x <= ZERO_BELOW, 0.0) for x in",
              "x for x in"),),
        ("tests/test_tinybert.py",), "attention loss, one of three keys padded", loss_with_the_mask_inside_the_scores,
        "huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py (why it has the line)"),
    Mutant(
        "teacher_left_in_train_mode", "ch05",
        "The teacher's dropout is on.",
        "The same batch gives another loss each time, and the loss cannot reach 0.",
        (Edit(f"{METHODS}.tinybert:terms", "probes.read(require_eval(teacher), batch)",
              "probes.read(teacher.train(), batch)"),),
        ("tests/test_tinybert.py",), "difference of two looks at one batch", difference_of_two_looks_at_the_teacher,
        "huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py; yxuansu/TaCL issue 11"),
    Mutant(
        "no_no_grad", "ch05",
        "The teacher runs without torch.no_grad().",
        "Half of the memory and time goes into gradients of the teacher, and an optimiser of both moves it.",
        (Edit(f"{METHODS}.tinybert:terms", "with torch.no_grad():", "with torch.enable_grad():"),),
        ("tests/test_tinybert.py",), "teacher tensors that got a gradient", teacher_weights_with_a_gradient,
        "wuzhiyuan2000/FedAgg issue 2; lightly-ai/lightly-train pull request 434"),
    Mutant(
        "teacher_side_projection", "ch05",
        "The trainable map sits on the teacher's side, so the target can move.",
        "The loss goes to 0 with a constant student: both sides agree on nothing.",
        (Edit(f"{METHODS}.tinybert:attach_projection", "maps=maps, bias=bias)",
              'side="teacher", maps=maps, bias=bias)'),),
        ("tests/test_tinybert.py",), "hidden term of a student and a map of zeros", loss_of_a_constant_student,
        "a practitioner's report of a student that predicts only commas"),
    Mutant(
        "floor_of_the_layer_ratio", "ch05",
        "The teacher layer is i * floor(L_T / L_S).",
        "A student of 5 layers never sees layers 11 and 12 of its teacher.",
        (Edit("course_lib.shared.layer_maps:_multiple", "return _nearest(i * teacher_layers, student_layers)",
              "return i * (teacher_layers // student_layers)"),),
        ("tests/test_layer_maps.py",), "teacher layer of the last of 5 student layers, teacher of 12",
        lambda: layer_maps.uniform(5, 12, when_uneven="round")[-1][1],
        "huawei-noah/Pretrained-Language-Model, TinyBERT/task_distill.py"),
    Mutant(
        "softmax_of_a_softmax", "ch06",
        "The attention transfer takes the softmax of what already are probabilities.",
        "Two heads that look in opposite directions cost next to nothing.",
        (Edit(f"{METHODS}.mobilebert:attention_transfer", "scores.masked_fill(padded, lowest) for scores in",
              "scores.masked_fill(padded, lowest).softmax(-1) for scores in"),),
        ("tests/test_mobilebert.py",), "attention transfer of two opposed heads", attention_transfer_of_opposed_heads,
        "tensorflow/models, official/projects/mobilebert"),
    Mutant(
        "all_teacher_layers_for_one", "ch06",
        "The teacher's features are averaged over the list of all layers where one layer was meant.",
        "A copy of the teacher has a loss.",
        (Edit(f"{METHODS}.mobilebert:_transfer", "theirs.hidden_states[other], mine.attention_scores[layer]",
              "torch.stack(list(theirs.hidden_states.values())).mean(0), mine.attention_scores[layer]"),),
        ("tests/test_mobilebert.py",), "feature map term of a teacher that learns from itself",
        feature_map_of_a_teacher_that_learns_from_itself,
        "google-research/google-research, mobilebert (TF1): so for mean and variance"),
    Mutant(
        "blocks_below_stand_still", "ch06",
        "In progressive transfer the blocks below the current one are frozen instead of slowed down.",
        "An error of a lower block is never repaired; the last blocks do not get below a certain loss.",
        (Edit(f"{METHODS}.mobilebert_schedule:parameter_groups", "below if distance > 0 else 0.0", "0.0"),),
        ("tests/test_mobilebert.py",), "learning rate of the block below the current one, 0.3 wanted",
        rate_of_the_block_below),
    Mutant(
        "padded_queries_count", "ch07",
        "Padded positions ask too, and the mean is divided by the padded length.",
        "The loss depends on how long the longest sentence of the batch is.",
        (Edit(f"{METHODS}.minilm:relation_kl", '"sentence": partial(mean_per_sentence, mask=mask)',
              '"sentence": torch.mean'),),
        ("tests/test_minilm.py",), "change of the attention term by six columns of padding",
        lambda: shift_by_padding(minilm.terms, *relation_pair(), "attention"), "PaddlePaddle/PaddleNLP, MiniLM losses"),
    Mutant(
        "value_relation_without_mask", "ch07",
        "The mask is used for the attention and forgotten for the value relation.",
        "Padding counts as something the words relate to.",
        (Edit(f"{METHODS}.minilm:value_relation_transfer",
              "return relation_kl(student_scores, teacher_scores, mask, average=average)",
              "return relation_kl(student_scores, teacher_scores, average=average)"),),
        ("tests/test_minilm.py",), "change of the value relation by six columns of padding",
        lambda: shift_by_padding(minilm.terms, *relation_pair(), "value_relation"),
        "microsoft/unilm issue 198 (the question)"),
    Mutant(
        "scores_not_scaled", "ch07",
        "The division by sqrt(d_head) is missing.",
        "Relations are nearly one-hot; teacher and student, of other widths, can never agree.",
        (Edit("course_lib.shared.probes:scaled_dot_products", " / query.shape[-1] ** 0.5", ""),),
        ("tests/test_minilm.py", "tests/test_probes.py"), "score of two equal vectors of sixteen ones",
        largest_score_of_aligned_vectors),
    Mutant(
        "first_layer_for_the_last", "ch07",
        "The relations of the first layer are compared where the last one was meant.",
        "Training is smooth; the student is no better than without a teacher.",
        (Edit(f"{METHODS}.minilm:_layer", "number = last if number is None else number",
              "number = 1 if number is None else number"),),
        ("tests/test_minilm.py",), "attention term of two models",
        lambda: minilm.terms(*relation_pair(), tiny.batch())["attention"]),
    Mutant(
        "padded_keys_attend", "ch07",
        "The softmax of the attention runs over padded keys as well.",
        "The attention of a sentence changes with its neighbours in the batch.",
        (Edit("course_lib.shared.probes:softmax_over_kept",
              "scores.masked_fill(padded_keys, torch.finfo(scores.dtype).min).softmax(dim=-1)",
              "scores.softmax(dim=-1)"),),
        ("tests/test_probes.py",), "attention that a padded key gets",
        attention_of_a_padded_key),
)
