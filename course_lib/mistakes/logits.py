"""Mistakes in losses on logits: chapters 1 (Hinton), 2 (BiLSTM) and 9 (cached soft labels)."""

from __future__ import annotations

import torch
from torch import nn

from course_lib.methods import bilstm, bilstm_augmentation, cached, hinton
from course_lib.mistakes import tiny
from course_lib.mistakes.patching import Edit, Mutant
from course_lib.mistakes.tiny import LABELS, STUDENT_LOGITS, TEACHER_LOGITS

HINTON = "course_lib.methods.hinton"
BILSTM = "course_lib.methods.bilstm"
CACHED = "course_lib.methods.cached"


def soft_loss(temperature: float = 2.0) -> float:
    return hinton.soft_target_loss(STUDENT_LOGITS, TEACHER_LOGITS, temperature=temperature)


def share_of_the_soft_gradient_that_is_left_at_temperature_20() -> float:
    student = STUDENT_LOGITS.clone().requires_grad_()
    norms = [tiny.gradient_norm(hinton.soft_target_loss(student, TEACHER_LOGITS, temperature=t), student)
             for t in (20.0, 1.0)]
    return norms[0] / norms[1]


def token_loss_of_a_doubled_length() -> float:
    once, twice = ([logits.expand(n, 3, 3).transpose(0, 1).reshape(3, n, 3) for logits in
                    (STUDENT_LOGITS, TEACHER_LOGITS)] for n in (1, 2))
    return hinton.soft_target_loss(*twice, temperature=2.0) / hinton.soft_target_loss(*once, temperature=2.0)


def soft_part_alone() -> float:
    return hinton.distillation_loss(STUDENT_LOGITS, TEACHER_LOGITS, None, temperature=4.0, hard_weight=0.0,
                                    soft_weight=1.0)


def mostly_soft_loss() -> float:
    return hinton.distillation_loss(STUDENT_LOGITS, TEACHER_LOGITS, LABELS, temperature=4.0, hard_weight=0.1,
                                    soft_weight=0.9)


def soft_term_of_two_different_models() -> float:
    return hinton.terms(tiny.bert(), tiny.bert(seed=1), tiny.batch())["soft"]


def best_reachable_hard_loss() -> float:
    return hinton.hard_loss(1e4 * torch.eye(3)[LABELS], LABELS)


def shift_by_padding() -> float:
    model, labels = tiny.bert(), hinton.HintonRecipe(hard_weight=1.0, soft_weight=0.0)
    short, longer = (hinton.terms(model, None, tiny.batch(padding), labels)["hard"] for padding in (0, 6))
    return (short - longer).abs()


def distance_of_a_half_sure_student() -> float:
    return bilstm.logit_distance(torch.tensor([[3.0, -3.0]]), torch.tensor([[8.0, -8.0]]))


def share_of_hidden_words() -> float:
    sentence = [(f"word{i}", "NN") for i in range(20)]
    return bilstm_augmentation.measured_rates(sentence, {"NN": ["other"]}, repeats=300)["mask_rate"]


def shift_of_the_bilstm_by_padding() -> float:
    torch.manual_seed(0)
    student = bilstm.BiLstm(torch.randn(40, 6), 3, hidden=5, fc=4).eval()
    short, longer = (student(b["input_ids"], b["attention_mask"]).logits for b in (tiny.batch(0), tiny.batch(6)))
    return (short - longer).abs().max()


def rows_of_a_shuffled_data_set_that_get_a_strangers_label() -> float:
    examples = [{"input_ids": [2, 5 + i, 3], "label": 0} for i in range(6)]
    soft = cached.ask_teacher(tiny.bert(), examples)
    shuffled = [examples[i] for i in (3, 0, 5, 1, 2, 4)]
    try:
        attached = cached.attach(shuffled, soft)
    except ValueError:
        return 0.0  # refused: nobody gets a wrong label
    own = dict(zip([e["input_ids"][1] for e in examples], soft.tensors["log_probs"], strict=True))
    return sum(not torch.equal(own[e["input_ids"][1]], torch.as_tensor(e["teacher_log_probs"])) for e in attached)


def loss_of_denying_the_rest() -> float:
    """Two of four classes are stored; the teacher gives a third of its mass to the others, the student nothing."""
    teacher, student = torch.tensor([[1.0, 0.5, 0.0, -0.5]]), torch.tensor([[5.0, 4.5, -3.0, -3.0]])
    return cached.top_k_loss(student, cached.top_k(teacher, 2))


def teachers_embedding_after_a_step_of_the_student() -> float:
    teacher = tiny.bert()
    before = teacher.bert.embeddings.word_embeddings.weight.detach().clone()
    student = cached.document_student(teacher)
    with torch.no_grad():
        student.bert.embeddings.word_embeddings.weight += 1.0
    return (teacher.bert.embeddings.word_embeddings.weight - before).abs().max()


def agreement_of_a_top_k_cache_with_the_teacher() -> float:
    """With k = all classes the cut removes nothing, so a student that equals the teacher has loss 0 at every T."""
    return cached.top_k_loss(TEACHER_LOGITS, cached.top_k(TEACHER_LOGITS, 3, temperature=4.0))


def soft_term_at_positions_with_a_label() -> float:
    recipe = hinton.HintonRecipe(positions="labelled", temperature=1.0)
    return hinton.terms(tiny.masked_lm(), tiny.masked_lm(seed=1), tiny.batch(labels="words"), recipe)["soft"]


def trainable_numbers_in_the_static_channel() -> float:
    student = bilstm.BiLstm(torch.ones(40, 6), 3, hidden=5, fc=4, channels="static")
    return sum(p.numel() for module in student.modules() if isinstance(module, nn.Embedding)
               for p in module.parameters() if p.requires_grad)


MUTANTS = (
    Mutant(
        "missing_t_squared", "ch01",
        "The soft loss is not multiplied by T^2.",
        "The higher the temperature, the less the teacher matters: at T = 20 the run looks like training on labels.",
        (Edit(f"{HINTON}:kl_equation", "return T**2 * mean(kl)", "return mean(kl)"),),
        ("tests/test_hinton.py",), "gradient at T = 20 as a share of that at T = 1",
        share_of_the_soft_gradient_that_is_left_at_temperature_20,
        "airaria/TextBrewer, textbrewer/losses.py (kd_ce_loss, kd_mse_loss)"),
    Mutant(
        "reduction_mean", "ch01",
        "The mean is taken over the classes too: KLDivLoss with reduction='mean'.",
        "The soft loss is tiny beside the hard one: half of it with 2 classes, 1/30,522 of it with BERT's vocabulary.",
        (Edit(f"{HINTON}:soft_target_loss", 'mean = MEANS[require_word(reduction, Reduction, "reduction")]',
              "mean = torch.mean"),),
        ("tests/test_hinton.py",), "soft loss of three examples with three classes", soft_loss,
        "haitongli/knowledge-distillation-pytorch issue 2; intersun/PKD-for-BERT-Model-Compression, src/KD_loss.py"),
    Mutant(
        "kl_arguments_swapped", "ch01",
        "KL(student || teacher) instead of KL(teacher || student).",
        "Everything trains; the student becomes surer than its teacher and forgets the small probabilities.",
        (Edit(f"{HINTON}:kl_equation", "kl = log_p.exp() * (log_p - log_q)", "kl = log_q.exp() * (log_q - log_p)"),),
        ("tests/test_hinton.py",), "soft loss of three examples", soft_loss, "paiml/aprender pull request 2153"),
    Mutant(
        "probs_as_log_probs", "ch01",
        "The student's probabilities are passed where KLDivLoss expects log-probabilities.",
        "The loss is negative.",
        (Edit(f"{HINTON}:kl_equation", "log_q = log_soft_targets(z_S, T)", "log_q = log_soft_targets(z_S, T).exp()"),),
        ("tests/test_hinton.py",), "soft loss of three examples", soft_loss, "microsoft/ProDA issue 20"),
    Mutant(
        "batchmean_per_sentence", "ch01",
        "'batchmean' on (batch, tokens, vocabulary) without flattening: divided by the sentences, not by the tokens.",
        "Twice as long sentences give twice the loss, and the learning rate of the short ones no longer fits.",
        (Edit(f"{HINTON}:soft_target_loss", 'mean = MEANS[require_word(reduction, Reduction, "reduction")]',
              "mean = lambda per_class: per_class.sum() / len(student_logits)"),),
        ("tests/test_hinton.py",), "loss of sentences of double length, as a multiple", token_loss_of_a_doubled_length),
    Mutant(
        "temperature_for_the_student_only", "ch01",
        "The student's logits are divided by T, the teacher's are not.",
        "Even a perfect copy of the teacher has a loss; the student learns to write logits T times too large.",
        (Edit(f"{HINTON}:kl_equation", "log_p = log_soft_targets(z_T, T)", "log_p = log_soft_targets(z_T, 1.0)"),),
        ("tests/test_hinton.py",), "loss of a student that equals its teacher, T = 2",
        lambda: hinton.soft_target_loss(TEACHER_LOGITS, TEACHER_LOGITS, temperature=2.0)),
    Mutant(
        "t_squared_dropped_at_alpha_0", "ch01",
        "The branch without hard labels forgets T^2.",
        "Switching the hard loss off changes the size of the soft one by T^2.",
        (Edit(f"{HINTON}:distillation_loss", "scale_by_t_squared=scale_by_t_squared)",
              "scale_by_t_squared=scale_by_t_squared and hard_weight > 0)"),),
        ("tests/test_hinton.py",), "soft loss alone, T = 4", soft_part_alone,
        "yoshitomo-matsubara/torchdistill, KDLoss with alpha = 0"),
    Mutant(
        "alpha_weighs_the_other_loss", "ch01",
        "The two weights are exchanged: alpha means the hard loss in one code and the soft loss in the other.",
        "The best alpha of a paper is the worst here.",
        (Edit(f"{HINTON}:distillation_equation", "soft = w_soft * L_soft", "soft = w_hard * L_soft"),
         Edit(f"{HINTON}:distillation_equation", "hard = w_hard * L_hard", "hard = w_soft * L_hard")),
        ("tests/test_hinton.py",), "loss with weights 0.1 (hard) and 0.9 (soft)", mostly_soft_loss,
        "torchdistill weighs the hard loss, haitongli/knowledge-distillation-pytorch and PKD the soft one"),
    Mutant(
        "teacher_compared_with_itself", "ch01",
        "One model's logits stand on both sides of the comparison; a copied line is enough.",
        "The soft loss is 0 from the first step, and nobody wonders.",
        (Edit(f"{HINTON}:terms", "logits, teacher_logits_of(teacher, batch), mask",
              "logits, logits.detach(), mask"),),
        ("tests/test_hinton.py",), "soft term of two different models", soft_term_of_two_different_models,
        "labmlai/annotated_deep_learning_paper_implementations issue 66"),
    Mutant(
        "softmax_twice", "ch01",
        "Cross-entropy, which takes the softmax itself, is given probabilities.",
        "The loss stops at 0.55 for three classes, however sure and right the student is.",
        (Edit(f"{HINTON}:hard_equation", "log_q = z_S.log_softmax(dim=-1)",
              "log_q = z_S.softmax(dim=-1).log_softmax(dim=-1)"),),
        ("tests/test_hinton.py",), "hard loss of a student that is sure and right", best_reachable_hard_loss,
        "NVIDIA/DeepLearningExamples issue 468; jaehong31/CGES issue 1"),
    Mutant(
        "soft_loss_at_every_position", "ch01",
        "The soft loss of a masked LM was meant for the hidden words and counts all positions.",
        "Five positions in six only teach copying; the loss falls quickly and the answers at [MASK] stay commas.",
        (Edit(f"{HINTON}:positions_that_count",
              'real & (batch["labels"] != IGNORED) if positions == "labelled" else real', "real"),),
        ("tests/test_hinton.py",), "soft term at the positions with a label", soft_term_at_positions_with_a_label,
        "a practitioner's report of a student that predicts only commas"),
    Mutant(
        "mask_not_passed", "ch01",
        "The model is called with the input ids alone, so it reads the padding as words.",
        "The same sentence gets another answer in another batch.",
        (Edit(f"{HINTON}:terms", "logits_of(student, batch)",
              'logits_of(student, {"input_ids": batch["input_ids"]})'),),
        ("tests/test_hinton.py",), "change of the hard loss by six columns of padding", shift_by_padding),
    Mutant(
        "mse_of_probabilities", "ch02",
        "The squared distance is taken of probabilities instead of raw logits.",
        "The loss is tiny and stops falling early: a sure teacher pulls no more once the student leans its way.",
        (Edit(f"{BILSTM}:logit_equation", "difference = z_T - z_S", "difference = z_T.softmax(-1) - z_S.softmax(-1)"),),
        ("tests/test_bilstm.py",), "distance of the logits (3, -3) from (8, -8)", distance_of_a_half_sure_student),
    Mutant(
        "inverted_augmentation_mask", "ch02",
        "`if draw > p_mask` instead of `<`: nine words in ten are hidden.",
        "Sentences of [MASK]; the loss still falls, the accuracy stays low.",
        (Edit(f"{BILSTM}_augmentation:augment_words", "if draw < p_mask:", "if draw > p_mask:"),),
        ("tests/test_bilstm_augmentation.py",), "share of hidden words, 0.1 wanted", share_of_hidden_words,
        "qiangsiwei/bert_distill issue 13"),
    Mutant(
        "lstm_ends_on_padding", "ch02",
        "The BiLSTM is not told where a sentence ends; its last state is that of the padding.",
        "Short sentences in batches with long ones are judged worst.",
        (Edit(f"{BILSTM}:BiLstm.read", "left_aligned(input_ids, real)",
              "left_aligned(input_ids, torch.ones_like(real))"),),
        ("tests/test_bilstm.py",), "largest change of a logit by six columns of padding",
        shift_of_the_bilstm_by_padding),
    Mutant(
        "frozen_channel_trains", "ch02",
        "The static word vectors are trainable like the tuned ones.",
        "The 'static' student trains its whole word table and overfits a small data set.",
        (Edit(f"{BILSTM}:BiLstm.__init__", "nn.Embedding.from_pretrained(vectors.clone(), freeze=True)",
              "nn.Embedding.from_pretrained(vectors.clone(), freeze=False)"),),
        ("tests/test_bilstm.py",), "trainable numbers in the static channel", trainable_numbers_in_the_static_channel),
    Mutant(
        "cache_zipped_with_shuffled_data", "ch09",
        "Stored teacher outputs are paired by position with examples that have been shuffled since.",
        "Training is stable and a little worse than without a teacher: most soft labels belong to someone else.",
        (Edit(f"{CACHED}:attach", "_by_key(keys, soft) if by_key else _in_order(keys, soft)", "range(len(keys))"),),
        ("tests/test_cached.py",), "examples of six that get the label of another one",
        rows_of_a_shuffled_data_set_that_get_a_strangers_label,
        "haitongli/knowledge-distillation-pytorch issue 4 and pull request 16"),
    Mutant(
        "temperature_after_the_cut", "ch09",
        "The k largest probabilities are stored at T = 1; the student's are softened at T.",
        "A student that equals its teacher has a loss, and learns to be T times too sure.",
        (Edit(f"{CACHED}:top_k", "log_probs = log_soft_targets(teacher_logits, temperature)",
              "log_probs = log_soft_targets(teacher_logits, 1.0)"),),
        ("tests/test_cached.py",), "loss of a student that equals its teacher, T = 4",
        agreement_of_a_top_k_cache_with_the_teacher),
    Mutant(
        "rest_of_the_vocabulary_dropped", "ch09",
        "Only the k stored classes are compared; the mass of all others is left out.",
        "The loss falls below 0: the student is rewarded for holding all other words impossible.",
        (Edit(f"{CACHED}:top_k_equation", "if log_r is not None:", "if False:"),),
        ("tests/test_cached.py",), "loss of a student that denies the rest", loss_of_denying_the_rest),
    Mutant(
        "embeddings_shared_with_the_teacher", "ch09",
        "The student gets the teacher's embedding module itself, not a copy.",
        "The frozen teacher's answers drift while the student trains.",
        (Edit(f"{CACHED}:document_student",
              "student.base_model.embeddings.load_state_dict(teacher.base_model.embeddings.state_dict())",
              "student.base_model.embeddings = teacher.base_model.embeddings"),),
        ("tests/test_cached.py",), "how far a step of the student moves the teacher's embeddings",
        teachers_embedding_after_a_step_of_the_student),
)
