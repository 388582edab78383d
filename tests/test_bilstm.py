"""The distilled BiLSTM: its loss, its size, and a student that never reads padding."""

import pytest
import torch
import torch.nn.functional as F
from loss_properties import assert_all
from oracle import oracle
from transformers import BertConfig, BertForSequenceClassification

from course_lib.methods.bilstm import (
    BiLstm,
    BilstmRecipe,
    WordVocabulary,
    hard_targets,
    left_aligned,
    logit_distance,
    logit_terms,
    pair_features,
    random_vectors,
    split_words,
    terms,
)

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
TEACHER = torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def a_student(**options):
    torch.manual_seed(0)
    return BiLstm(random_vectors(20, 6), 3, **({"hidden": 5, "fc": 7} | options)).double().eval()


# ------------------------------------------------------------------------------------------ the loss


def test_paper_sums_over_the_classes():
    truth = oracle("bilstm/paper_loss")
    student = truth.leaf("logits_S")
    loss = logit_distance(student, truth.inputs["logits_T"])
    truth.check("squared_l2_mean", loss)
    truth.check("grad_S", torch.autograd.grad(loss, student)[0])


def test_code_takes_the_mean_over_the_classes():
    torch.testing.assert_close(logit_distance(STUDENT, TEACHER, as_in="code"), F.mse_loss(STUDENT, TEACHER))
    torch.testing.assert_close(logit_distance(STUDENT, TEACHER), 4 * F.mse_loss(STUDENT, TEACHER))


@pytest.mark.parametrize("as_in", ["paper", "code"])
def test_logit_distance_is_a_well_behaved_loss(as_in):
    assert_all(lambda s, t: logit_distance(s, t, as_in=as_in), STUDENT, TEACHER)


def total(*args, **knobs):
    return sum(logit_terms(*args, **knobs).values())


def test_alpha_goes_from_the_teacher_to_the_labels():
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    hard = F.cross_entropy(STUDENT, labels)
    soft = logit_distance(STUDENT, TEACHER)
    torch.testing.assert_close(total(STUDENT, TEACHER, labels), soft)
    torch.testing.assert_close(total(STUDENT, TEACHER, labels, alpha=1.0), hard)
    torch.testing.assert_close(total(STUDENT, TEACHER, labels, alpha=0.3), 0.3 * hard + 0.7 * soft)
    nan = torch.full_like(TEACHER, torch.nan)
    torch.testing.assert_close(total(STUDENT, nan, labels, alpha=1.0), hard)


def test_the_two_free_weights_of_the_code_may_both_be_one():
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    hard, soft = F.cross_entropy(STUDENT, labels), logit_distance(STUDENT, TEACHER)
    torch.testing.assert_close(total(STUDENT, TEACHER, labels, alpha=1.0, logit_weight=1.0), hard + soft)
    torch.testing.assert_close(total(STUDENT, TEACHER, labels, alpha=2.0, logit_weight=0.5), 2 * hard + soft / 2)
    assert logit_terms(STUDENT, TEACHER, labels, alpha=1.0, logit_weight=0).keys() == {"hard"}
    for wrong in ({"alpha": -1.0, "logit_weight": 1.0}, {"alpha": 0.0, "logit_weight": 0.0}):
        with pytest.raises(ValueError, match="one must count"):
            logit_terms(STUDENT, TEACHER, labels, **wrong)


def test_text_without_a_label_gets_the_favourite_of_the_teacher():
    favourite = TEACHER.argmax(-1)
    labels = torch.tensor([0, -100, 2, -100, -100, 1])
    assert torch.equal(hard_targets(None, TEACHER), favourite)
    expected = [0, favourite[1], 2, favourite[3], favourite[4], 1]
    assert hard_targets(labels, TEACHER).tolist() == [int(x) for x in expected]
    torch.testing.assert_close(total(STUDENT, TEACHER, alpha=1.0), F.cross_entropy(STUDENT, favourite))


@pytest.mark.parametrize(("call", "says"), [
    (lambda: total(STUDENT, TEACHER, alpha=1.5), "alpha"),
    (lambda: total(STUDENT, TEACHER[:, :3]), r"\(6, 4\).*\(6, 3\)"),
    (lambda: logit_distance(STUDENT, TEACHER, as_in="book"), "paper"),
    (lambda: pair_features(STUDENT, TEACHER[:1]), r"\(6, 4\).*\(1, 4\)"),
    (lambda: a_student(channels="three"), "channels"),
    (lambda: a_student(pair=True)(IDS, MASK), "token_type_ids"),
    (lambda: a_student()(IDS, torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])), r"\[1\].*no token"),
    (lambda: a_student()(IDS, MASK[:, :3]), r"\(2, 5\).*\(2, 3\)"),
    (lambda: WordVocabulary(["xyzzy"], {"a": 0}, torch.ones(1, 2)), "No word"),
])
def test_wrong_input_is_refused_with_a_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ------------------------------------------------------------------------------------------ the student


def test_published_size_without_embeddings():
    with torch.device("meta"):
        student = BiLstm(torch.empty(20_000, 300), 2)
    assert student.parameters_without_embeddings == 963_002


@pytest.mark.parametrize("as_in", ["paper", "code"])
def test_pair_features_in_both_orders(as_in):
    truth = oracle("bilstm/siamese_features")
    truth.check(as_in, pair_features(truth.inputs["h1"], truth.inputs["h2"], as_in=as_in))


def test_features_are_the_last_states_of_both_directions():
    student = a_student(channels="tuned")
    vectors = student.tuned(IDS[1:, :3])  # the short sentence alone, without its padding
    sequence, _ = student.lstm(vectors)
    forward_last, backward_last = sequence[:, -1, :5], sequence[:, 0, 5:]
    torch.testing.assert_close(student.read(IDS, MASK.bool())[1:], torch.cat([forward_last, backward_last], -1))


@pytest.mark.parametrize("pair", [False, True])
def test_padding_is_never_read_wherever_it_stands(pair):
    student = a_student(pair=pair)
    types = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    expected = student(IDS, MASK, types).logits
    noise = torch.full((2, 3), 9)
    for ids, mask, kinds in (
        (torch.cat([IDS, noise], 1), F.pad(MASK, (0, 3)), F.pad(types, (0, 3), value=1)),  # on the right
        (torch.cat([noise, IDS], 1), F.pad(MASK, (3, 0)), F.pad(types, (3, 0), value=1)),  # on the left
    ):
        torch.testing.assert_close(student(ids, mask, kinds).logits, expected, rtol=1e-12, atol=1e-12)
    alone = student(IDS[1:, :3], MASK[1:, :3], types[1:, :3]).logits
    torch.testing.assert_close(alone, expected[1:], rtol=1e-12, atol=1e-12)


def test_padding_id_stands_in_for_a_missing_mask():
    student = a_student()
    torch.testing.assert_close(student(IDS).logits, student(IDS, MASK).logits)


def test_left_aligned_keeps_the_order_of_the_marked_tokens():
    real = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]]).bool()
    ids, lengths = left_aligned(torch.tensor([[5, 6, 0, 0], [0, 7, 8, 9]]), real)
    assert lengths.tolist() == [2, 3]
    assert ids[0, :2].tolist() == [5, 6] and ids[1].tolist() == [7, 8, 9]


def test_siamese_student_uses_one_lstm_for_both_sentences():
    student = a_student(pair=True)
    ids, types = torch.tensor([[4, 5, 4, 5]]), torch.tensor([[0, 0, 1, 1]])
    seen = []
    student.fc1.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    student(ids, None, types)
    first, second, product, distance = seen[0].chunk(4, dim=-1)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(product, first**2)
    assert not distance.any()


def test_channels_share_no_memory_and_only_the_tuned_one_learns():
    vectors = random_vectors(20, 6)
    student = BiLstm(vectors, 3, hidden=5, fc=7)
    student(IDS, MASK).logits.sum().backward()
    assert student.tuned.weight.grad.abs().sum() > 0 and student.static.weight.grad is None
    with torch.no_grad():
        student.tuned.weight.add_(1)
    torch.testing.assert_close(student.static.weight, vectors)
    assert not BiLstm(vectors, 3, channels="static").static.weight.requires_grad


@pytest.mark.parametrize("channels", ["static", "tuned", "both"])
def test_a_few_steps_bring_the_student_to_the_teacher(channels):
    student = a_student(channels=channels, hidden=16, fc=32).train()
    batch = {"input_ids": IDS, "attention_mask": MASK, "teacher_logits": 2 * TEACHER[:2, :3]}
    optimiser = torch.optim.Adadelta([p for p in student.parameters() if p.requires_grad], lr=1.0, rho=0.95)
    losses = []
    for _ in range(120):
        loss = sum(terms(student, None, batch).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_terms_read_a_bert_teacher_and_name_their_parts():
    torch.manual_seed(0)
    teacher = BertForSequenceClassification(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_labels=3,
                                                       num_attention_heads=2, intermediate_size=8)).eval()
    student, labels = a_student().float(), torch.tensor([1, -100])
    batch = {"input_ids": IDS, "attention_mask": MASK, "labels": labels}
    found = terms(student, teacher, batch, BilstmRecipe(alpha=0.4, as_in="code"))
    assert found.keys() == {"logits", "hard"}
    expected = total(student(IDS, MASK).logits, teacher(IDS, MASK).logits, labels, alpha=0.4, as_in="code")
    torch.testing.assert_close(sum(found.values()), expected)
    assert terms(student, teacher, batch).keys() == {"logits"}
    sum(found.values()).backward()
    assert all(p.grad is None for p in teacher.parameters())


# ------------------------------------------------------------------------------------------ words


def test_contractions_are_cut_as_in_the_treebank():
    assert split_words("I don't think it's a well-made 'film'... [MASK]!") == [
        "I", "do", "n't", "think", "it", "'s", "a", "well-made", "'", "film", "'", "...", "[MASK]", "!"]


def test_vocabulary_keeps_the_words_that_have_a_vector():
    rows, known = {"good": 0, "film": 1, "unused": 2}, torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    words = WordVocabulary(["Good film", "a good plot"], rows, known)
    assert words.ids == {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "film": 3, "good": 4}
    assert words.vectors.tolist() == [[0, 0], [2, 3], [0, 0], [3, 4], [1, 2]]
    assert words.encode("GOOD [MASK] plot") == {"input_ids": [4, 2, 1]}
    assert words.encode("good", "film film") == {"input_ids": [4, 3, 3], "token_type_ids": [0, 1, 1]}
    assert words.encode("") == {"input_ids": [1]}
