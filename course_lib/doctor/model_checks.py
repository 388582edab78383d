"""Checks of the two models and the batch: what can be seen before anything is learned.

Each check takes the case and yields its findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.doctor.evidence import Case, is_block
from course_lib.doctor.reading import CH0, CH1, CH2, CH3, CH4, CH5, CH7, CH8, CH9, COMMAS, depth, vocabulary_rows
from course_lib.doctor.report import Finding, compare
from course_lib.shared import layer_maps
from course_lib.shared.masking import IGNORED

HALF = (torch.float16, torch.bfloat16)


# --- Before anything runs ---------------------------------------------------------------------------------------------


def weights_are_numbers(case: Case) -> Iterable[Finding]:
    for who, model in (("student", case.student), ("teacher", case.teacher)):
        if model is not None:
            bad = [n for n, p in model.named_parameters() if not p.isfinite().all()]
            yield compare("error", "weights", f"{who}: tensors with NaN or infinity", len(bad), "==", 0, chapter=CH0,
                          why=f"First: {', '.join(bad[:2])}. Every output that touches them is NaN.",
                          fix=f"{who} = type({who}).from_pretrained(path)  # load it again, or an earlier checkpoint")


def precision(case: Case) -> Iterable[Finding]:
    half = sum(p.numel() for p in case.student.parameters() if p.requires_grad and p.dtype in HALF)
    yield compare("warning", "precision", "trainable numbers in half precision", half, "==", 0, chapter=CH0,
                  why="A step of the optimiser is smaller than the spacing of half-precision numbers and is rounded "
                      "away. Train float32 weights under autocast.",
                  fix="student = student.float()  # and train with Recipe(precision='bf16')")


def tokens(case: Case) -> Iterable[Finding]:
    ids, real = case.batch["input_ids"], case.real
    empty = int((~real.any(dim=1)).sum())
    yield compare("error", "batch", "sentences without a real token", empty, "==", 0, chapter=CH0,
                  why="Their softmax and their means are taken over nothing.",
                  fix="examples = [e for e in examples if len(e['input_ids']) > 0]")
    for who, model in (("student", case.student), ("teacher", case.teacher if case.teacher_batch else None)):
        theirs = ids if who == "student" else (case.teacher_batch or {}).get("input_ids", ids)
        rows = vocabulary_rows(model)
        if rows is not None:
            outside = int(((theirs < 0) | (theirs >= rows)).sum())
            yield compare("error", "vocabulary", f"token ids that the {who} has no embedding for", outside, "==", 0,
                          why=f"The {who} has {rows} rows; the ids reach {int(theirs.max())}. Another tokenizer made "
                              "this batch.", chapter=CH0,
                          fix=f"batch = tokenizer_of_the_{who}(texts, padding=True, return_tensors='pt')")
        longest = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        if isinstance(longest, int) and longest > 0:
            yield compare("error", "batch", f"tokens per sentence for the {who}", theirs.shape[1], "<=", longest,
                          why="There is no position embedding beyond that length.", chapter=CH0,
                          fix=f"tokenizer(texts, truncation=True, max_length={longest})")
    pad = getattr(getattr(case.student, "config", None), "pad_token_id", None)
    if "attention_mask" not in case.batch and pad is not None and ids.shape[1] > 1:
        share = (ids[:, -1] == pad).double().mean().item()
        yield compare("warning", "attention mask", "rows that end in padding, without an attention_mask", share, "==",
                      0, why="The models read the padding as text, and every mean counts it.", chapter=CH0,
                      fix=f"batch['attention_mask'] = (batch['input_ids'] != {pad}).long()")


def labels(case: Case) -> Iterable[Finding]:
    given, name = case.batch.get("labels"), "labels"
    wanted = [k for k in ("hard_weight", "mlm_weight") if isinstance(case.recipe.get(k), float) and case.recipe[k] > 0]
    if given is None:
        yield compare("error", name, f"terms that need labels ({', '.join(wanted) or 'none'}), and no labels",
                      len(wanted), "==", 0, why="The hard loss has nothing to compare with.", chapter=CH1,
                      fix="batch['labels'] = labels  # or set the weight of the hard loss to 0")
        return
    if given.is_floating_point() or case.student_logits is None or not case.one_class_each:
        return
    classes, kept = case.student_logits.shape[-1], given[given != IGNORED]
    if tuple(given.shape) != tuple(case.student_logits.shape[:-1]):
        shapes = tuple(given.shape), tuple(case.student_logits.shape)
        yield Finding("error", name, f"labels {shapes[0]} do not fit logits {shapes[1]}", chapter=CH1,
                      why="One label per prediction is needed.",
                      fix="print(batch['labels'].shape, student(**inputs).logits.shape)")
        return
    outside = int(((kept < 0) | (kept >= classes)).sum())
    yield compare("error", name, f"labels outside 0..{classes - 1}", outside, "==", 0, chapter=CH1,
                  why="Cross-entropy has no such class; on a GPU it stops with an assertion.",
                  fix=f"student.config.num_labels = {int(kept.max()) + 1 if len(kept) else classes}  # build it so")
    yield compare("warning", name, "positions with a label", len(kept), ">=", 1, chapter=CH1,
                  why="Every label is -100: the hard loss is a mean over nothing.", fix="print(batch['labels'])")
    if case.is_masked_lm and len(kept):
        yield from _masking(case, given)


def _masking(case: Case, given: Tensor) -> Iterable[Finding]:
    ids, asked, name = case.batch["input_ids"], case.labelled, "loss positions"
    padding = int((asked & ~case.real).sum())
    yield compare("error", name, "labels at padded positions", padding, "==", 0, chapter=COMMAS,
                  why="The student is asked to write [PAD].", fix="labels[attention_mask == 0] = -100")
    shown = (ids == given)[asked].double().mean().item()
    yield compare("error", name, "share of the asked tokens that stand in the input unchanged", shown, "<=", 0.5,
                  why="BERT leaves 10 % of the chosen tokens unchanged. More means that labels stand at positions that "
                      "were not masked: the student learns to copy, not to guess.", chapter=COMMAS,
                  fix="labels = torch.where(chosen, input_ids_before_masking, -100)")
    share = (asked & case.real).sum().item() / max(1, int(case.real.sum()))
    yield compare("warning", name, "share of the tokens that are asked", share, "<=", 0.5, chapter=COMMAS,
                  why="With most of the sentence hidden there is no context left to guess from. An inverted mask does "
                      "this.", fix="MaskedBatch(tokenizer, probability=0.15)")


def hidden_tokens(case: Case) -> Iterable[Finding]:
    mask_id = getattr(case.tokenizer, "mask_token_id", None)
    if mask_id is not None:
        share = ((case.batch["input_ids"] == mask_id) & case.real).sum().item() / max(1, int(case.real.sum()))
        yield compare("warning", "mask tokens", "share of [MASK] among the tokens", share, "<=", 0.5, chapter=COMMAS,
                      why="An inverted mask hides what should be shown (a known bug of augmentation code).",
                      fix="hide = torch.rand(ids.shape) < 0.15  # smaller, not larger")


def shared_tensors(case: Case) -> Iterable[Finding]:
    if case.teacher is None:
        return
    name = "shared tensors"
    if case.student is case.teacher:
        yield Finding("error", name, "student and teacher are one object", 1, "==", 0, chapter=CH3,
                      why="The student is compared with itself: the distance is 0 and nothing is learned.",
                      fix="student = new_student(teacher, layers=3)")
        return
    theirs = {p.untyped_storage().data_ptr() for p in case.teacher.parameters() if p.numel()}
    shared = [(n, p) for n, p in case.student.named_parameters()
              if p.numel() and p.untyped_storage().data_ptr() in theirs]
    moving = sum(p.requires_grad for _, p in shared)
    severity = "error" if moving else "note"
    yield compare(severity, name, "tensors that student and teacher share", len(shared), "==", 0, chapter=CH3,
                  why=f"{shared[0][0] if shared else ''} is one tensor in both models, so training the student changes "
                      "its teacher." if moving else "They are frozen, so nobody changes them.",
                  fix="copy_layers(student, teacher, layer_map)  # true copies; or copy.deepcopy(teacher_layer)")


# --- The pair ---------------------------------------------------------------------------------------------------------


def forward_passes(case: Case) -> Iterable[Finding]:
    for who, reason in case.failures.items():
        yield Finding("error", "forward pass", f"the {who} cannot read this batch ({reason})", chapter=CH0,
                      why="Nothing else can be said before it runs.",
                      fix=f"{who}(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])")
    for who, model in (("student", case.student), ("teacher", case.teacher)):
        if model is not None and ("CausalLM" in type(model).__name__
                                  or getattr(getattr(model, "config", None), "is_decoder", False)):
            yield Finding("error", "kind of model", f"the {who}, {type(model).__name__}, is a decoder", chapter=CH0,
                          why="It sees the left context only; its logits answer another question than those of BERT.",
                          fix="AutoModelForMaskedLM.from_pretrained(name)  # or AutoModelForSequenceClassification")
        logits = case.student_logits if who == "student" else case.teacher_logits
        if logits is not None:
            bad = int((~logits.isfinite()).sum())
            yield compare("error", "logits", f"logits of the {who} that are not finite", bad, "==", 0, chapter=CH0,
                          why="One of them is enough to make the loss NaN.", fix=f"{who} = {who}.float()")


def same_task(case: Case) -> Iterable[Finding]:
    ours, theirs = case.student_logits, case.teacher_logits
    name = "vocabulary"
    if case.teacher is not None and "teacher" not in case.failures and (ours is None) != (theirs is None) \
            and case.teacher_batch is not None and "student" not in case.failures:
        yield Finding("note", "kind of model", "only one of the two models has a head", chapter=CH0,
                      why="Layers can be compared, predictions cannot.",
                      fix="AutoModelForMaskedLM.from_pretrained(name)  # instead of AutoModel")
    if ours is None or theirs is None:
        return
    if ours.ndim != theirs.ndim:
        words = {2: "one answer per sentence", 3: "one answer per token"}
        yield Finding("error", "kind of model", f"student: {words.get(ours.ndim, ours.shape)}; teacher: "
                      f"{words.get(theirs.ndim, theirs.shape)}", chapter=CH0,
                      why="A classifier and a masked LM answer different questions; their logits cannot be compared.",
                      fix="student = new_student(teacher, layers=3)  # the teacher's class and task")
        return
    what = "vocabulary" if case.is_masked_lm else "classes"
    yield compare("error", name, f"difference of the two models' {what} ({ours.shape[-1]} and {theirs.shape[-1]})",
                  abs(ours.shape[-1] - theirs.shape[-1]), "==", 0, chapter=CH0,
                  why=f"Number i means another {'word' if case.is_masked_lm else 'class'} on the two sides.",
                  fix="student = new_student(teacher, ...)  # keeps vocabulary and classes")
    ours, theirs = (getattr(getattr(m, "config", None), "id2label", None) for m in (case.student, case.teacher))
    if not case.is_masked_lm and ours and theirs and set(ours.values()) == set(theirs.values()):
        moved = sum(ours[i] != theirs.get(i) for i in ours)
        yield compare("error", "class order", "classes that stand at another number in the teacher", moved, "==", 0,
                      why=f"Student {list(ours.values())[:4]}, teacher {list(theirs.values())[:4]}: the student learns "
                          "the wrong class from a correct teacher.", chapter=CH0,
                      fix="order = [teacher.config.label2id[n] for n in student.config.label2id]; logits[:, order]")


def tokenizers(case: Case) -> Iterable[Finding]:
    if case.teacher is not None and case.teacher_batch is None:
        yield Finding("note", "tokenizer", "the teacher reads other token ids than the student", chapter=CH9,
                      why="This batch is the student's; what needs the teacher's predictions was not looked at.",
                      fix="diagnose(student, teacher, batch, teacher_batch=batch_for_the_teacher)")
    if case.tokenizer is None:
        yield Finding("note", "tokenizer", "no tokenizer was given", why="Answers are shown as numbers.",
                      fix="diagnose(student, teacher, batch, tokenizer=tokenizer)")
    if case.tokenizer is None or case.teacher_tokenizer is None:
        return
    ours, theirs = case.tokenizer.get_vocab(), case.teacher_tokenizer.get_vocab()
    other = sum(theirs.get(word) != i for word, i in ours.items()) / max(1, len(ours))
    severity = "error" if case.teacher_batch is case.batch else "note"
    yield compare(severity, "tokenizer", "share of words with another number in the teacher's tokenizer", other, "<=",
                  0.0, why="The two models read different sentences from the same ids.", chapter=CH0,
                  fix="tokenizer = AutoTokenizer.from_pretrained(teacher_path)  # one tokenizer for both")


def unknown_words(case: Case) -> Iterable[Finding]:
    """How much of the texts reaches each model as [UNK]."""
    sides = [("student", case.tokenizer, case.batch)]
    if case.teacher_batch is not None and case.teacher_batch is not case.batch:
        sides.append(("teacher", case.teacher_tokenizer, case.teacher_batch))
    for who, tokenizer, batch in sides:
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is None:
            continue
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        others = [i for i in tokenizer.all_special_ids if i != unknown]
        words = ~torch.isin(ids, torch.tensor(others, device=ids.device))
        words &= torch.ones_like(words) if mask is None else mask.bool()
        share = ((ids == unknown) & words).sum().item() / max(1, int(words.sum()))
        yield compare("error" if share > 0.5 else "warning", "unknown words",
                      f"share of {tokenizer.unk_token} among the words that the {who} reads", share, "<=", 0.1,
                      why="Different texts look alike to it: its vocabulary has other words, another script or another "
                          "casing than these texts.", chapter=CH0,
                      fix="tokenizer = AutoTokenizer.from_pretrained(model_path)  # and texts in the model's language")


def kind_of_answers(case: Case) -> Iterable[Finding]:
    if case.student_logits is not None and not case.one_class_each:
        what = "one number" if case.student_logits.shape[-1] == 1 else "numbers, or several classes at once"
        yield Finding("note", "kind of model", f"the answers are {what} per text: what takes a softmax was not "
                      "looked at (cache, form of the loss, calibration)", chapter=CH1,
                      why="The softmax of one number is 1 for every model, and two classes at once do not sum to 1.",
                      fix="F.mse_loss(student_logits, teacher_logits)  # a number; several classes: binary KL")


def teacher_mode(case: Case) -> Iterable[Finding]:
    if case.teacher is None:
        return
    training = sum(m.training for m in case.teacher.modules() if not list(m.children())) + bool(case.teacher.training)
    seen = f", and two runs differ by {case.teacher_disagreement:.3g}" if case.teacher_disagreement else ""
    during = case.loss is not None and case.loss.teacher_in_train_mode and not training
    yield compare("error", "teacher mode", f"modules of the teacher in train mode{seen}", training + during, "==", 0,
                  why="Dropout makes every soft target a random one." + (" The loss switches it on." if during else ""),
                  fix="teacher.eval().requires_grad_(False)  # once, after loading", chapter=CH5)
    if not training and case.teacher_disagreement is not None:
        scale = case.teacher_logits.abs().max().item() if case.teacher_logits is not None else 1.0
        yield compare("error", "teacher mode", "difference of two runs of the teacher", case.teacher_disagreement, "<=",
                      1e-3 * max(1.0, scale), why="It is in eval mode, yet it gives two answers: something random is "
                      "left inside.", fix="for m in teacher.modules(): m.eval()", chapter=CH5)


def student_mode(case: Case) -> Iterable[Finding]:
    if case.student_disagreement is not None and case.student_logits is not None:
        limit = 1e-3 * max(1.0, case.student_logits.abs().max().item())
        yield compare("error", "student mode", "difference of four runs of the student in eval mode",
                      case.student_disagreement, "<=", limit, chapter=CH8,
                      why="Something random is left in evaluation: dropout, or Theseus' coin. Its score is that of a "
                          "mixture.", fix="student.eval()  # and look at `if self.training` in forward")


def padding_is_not_read(case: Case) -> Iterable[Finding]:
    for who, change in case.cut.items():
        yield compare("error", "padding", f"relative change of an answer of the {who} when its padding is cut off",
                      change, "<=", 0.02, chapter=CH2,
                      why="The model reads padding as text: the answer depends on the neighbours in the batch.",
                      fix="pack_padded_sequence(vectors, lengths, batch_first=True)  # LSTM; BERT: attention_mask")


def blocks_used_twice(case: Case) -> Iterable[Finding]:
    seen: dict[int, str] = {}
    twice = [(seen[id(m)], name) for name, m in case.student.named_modules(remove_duplicate=False)
             if is_block(name) and seen.setdefault(id(m), name) != name]
    yield compare("error", "shared tensors", "blocks that stand in the student at two places", len(twice), "==", 0,
                  why=f"{twice[0][0]} is {twice[0][1]}: whoever trains one moves the other." if twice else "",
                  fix="copy.deepcopy(layer)  # a true copy", chapter=CH8)


def replacing(case: Case) -> Iterable[Finding]:
    """Theseus: when phase 1 is over."""
    schedule = getattr(case.student, "schedule", None)
    if callable(schedule) and hasattr(case.student, "modules_to_replace"):
        batches = next((step for step in range(1000) if schedule(step) >= 1), 1000)
        yield compare("warning", "replacing", "batches before the replacement rate is 1", batches, ">=", 10,
                      why="Afterwards no predecessor is left in the path: it is plain fine-tuning of the first layers.",
                      fix="TheseusRecipe(schedule='constant', replacing_steps=None)", chapter=CH8)


def widths_and_heads(case: Case) -> Iterable[Finding]:
    if case.teacher is None:
        return
    recipe, name = case.recipe, "width and heads"
    configs = [getattr(m, "config", None) for m in (case.student, case.teacher)]
    (ours, our_heads), (theirs, their_heads) = (
        (getattr(c, "hidden_size", None), getattr(c, "num_attention_heads", None)) for c in configs)
    compares_states = [k for k in ("hidden_weight", "cosine_weight", "beta", "feature_map_weight", "embedding_weight")
                       if recipe.get(k)]
    projected = getattr(case.student, "projection", None) is not None or bool(case.loss and case.loss.outside)
    if ours and theirs and ours != theirs:
        broken = bool(compares_states) and not projected
        yield Finding("error" if broken else "note", name, f"the student is {ours} wide, the teacher {theirs}",
                      ours / theirs, "==", 1 if broken else None, chapter=CH5,
                      why=f"{', '.join(compares_states)} compares states of one width only." if broken else
                          "Losses on hidden states need a projection on the student's side.",
                      fix="attach_projection(student, teacher)  # course_lib.methods.tinybert")
    heads_matter = bool(recipe.get("attention_weight")) or recipe.get("version") == "v1"
    if our_heads and their_heads and our_heads != their_heads:
        yield Finding("error" if heads_matter else "note", name,
                      f"the student has {our_heads} heads, the teacher {their_heads}", our_heads / their_heads, "==",
                      1 if heads_matter else None, chapter=CH7,
                      why="Attention is compared head by head." if heads_matter else
                          "Losses on attention compare head by head; MiniLM v2 does not need equal counts.",
                      fix=f"student = new_student(teacher, heads={their_heads})  # or MiniLmRecipe(version='v2')")


def layer_map(case: Case) -> Iterable[Finding]:
    pairs, depths = case.recipe.get("layer_map"), [depth(case, who) for who in ("student", "teacher")]
    if not pairs or None in depths:
        return
    name, ways = "layer map", "layer_maps.uniform(student_layers, teacher_layers)"
    try:
        pairs = layer_maps.check(pairs, *depths)
    except ValueError as error:
        yield Finding("error", name, str(error), chapter=CH4, fix=f"layer_map = {ways}",
                      why="The map names a layer that does not exist, or says nothing.")
        return
    mixed = sum((0 in pair) and pair != (0, 0) for pair in pairs)
    yield compare("error", name, "pairs of the embedding output with a block", mixed, "==", 0, chapter=CH4,
                  why=f"{pairs}: layer 0 is the embedding output. This is a list that counts blocks from 0.",
                  fix="layer_map = layer_maps.from_zero_based_blocks(student_blocks, teacher_blocks)")
    teachers = [t for _, t in sorted(pairs)]
    crossing = sum(b < a for a, b in pairwise(teachers))
    yield compare("warning", name, "places where a deeper student layer learns from a shallower teacher layer",
                  crossing, "==", 0, why="What a network knows grows with depth; crossed maps ask for the impossible.",
                  fix=f"layer_map = {ways}", chapter=CH4)
    shifted = (0, 0) in pairs and depths[0] not in dict(pairs) and depths[1] not in teachers and len(pairs) > 1
    yield compare("warning", name, "maps with the embeddings but without both last layers", int(shifted), "==", 0,
                  why="hidden_states[0] is the embedding output: hidden_states[l - 1] taken for layer l looks so.",
                  fix="hidden_states[l]  # is the output of block l", chapter=CH4)
    from_below = all(s == t for s, t in pairs)
    unseen = depths[1] - dict(pairs).get(depths[0], depths[1]) if (0, 0) in pairs and not from_below else 0
    yield compare("warning", name, "last layers of the teacher that the map never sees", unseen, "==", 0, chapter=CH5,
                  why="The step is floor(teacher / student): for depths that do not divide, the top is lost.",
                  fix="layer_maps.uniform(student_layers, teacher_layers, when_uneven='round')")
