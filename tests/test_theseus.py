"""Module replacement: the paths, the schedules, and who may learn."""

from functools import partial

import pytest
import torch
from oracle import oracle
from transformers import BertConfig, BertForSequenceClassification, BertModel, DistilBertConfig, DistilBertModel

from course_lib.methods.theseus import (
    Theseus,
    TheseusRecipe,
    constant_rate,
    draw,
    from_recipe,
    layer_path,
    linear_rate,
    terms,
)
from course_lib.shared.probes import read
from course_lib.shared.training import Recipe, train

BATCH = {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0]]), "labels": torch.tensor([1, 2]),
         "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
TEXT = {k: v for k, v in BATCH.items() if k != "labels"}


def a_predecessor(layers=4, kind=BertForSequenceClassification, dropout=0.0):
    torch.manual_seed(0)
    return kind(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=layers, num_attention_heads=2, num_labels=3,
                           intermediate_size=12, max_position_embeddings=16, hidden_dropout_prob=dropout,
                           attention_probs_dropout_prob=dropout, initializer_range=0.3)).eval()


# ------------------------------------------------------------------------------------------ schedules


def test_linear_schedule_is_that_of_the_original():
    truth = oracle("theseus/linear/b0.3_k0.0006")
    schedule = partial(linear_rate, base=truth.params["base_replacing_rate"], k=truth.params["k"])
    steps = range(truth.params["steps"])
    truth.check("rate_used_at_batch", [schedule(step) for step in steps])
    truth.check("returned_by_step", [schedule(step + 1) for step in steps])
    truth.check("first_step_at_1", next(step for step in range(10_000) if schedule(step) >= 1))


def test_constant_schedule_jumps_as_in_the_original():
    truth = oracle("theseus/constant/r0.5_steps5")
    schedule = partial(constant_rate, rate=truth.params["replacing_rate"],
                       replacing_steps=truth.params["replacing_steps"])
    truth.check("returned_by_step", [schedule(step + 1) for step in range(10)])
    truth.check("set_rates", sorted({schedule(step) for step in range(10)}))
    assert [schedule(step) for step in range(6)] == [0.5] * 5 + [1.0]


def test_default_of_the_original_script_ends_phase_one_after_one_batch():
    assert [constant_rate(step, rate=0.3, replacing_steps=0) for step in range(3)] == [0.3, 1.0, 1.0]


def test_a_constant_rate_without_a_jump_stays():
    assert {constant_rate(step, rate=0.5) for step in range(1000)} == {0.5}


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1])
def test_rates_without_meaning_are_refused(rate):
    for call in (lambda: constant_rate(0, rate=rate), lambda: draw(3, rate)):
        with pytest.raises(ValueError, match="Replacement rate"):
            call()
    with pytest.raises(ValueError, match="Replacement rate"):
        linear_rate(0, base=-1.0)


# ------------------------------------------------------------------------------------------ paths


def test_paths_of_given_draws_are_those_of_the_original():
    truth = oracle("theseus/layer_paths")
    k = truth.params["prd_layers"] // truth.params["scc_layers"]
    assert [layer_path(draws, k) for draws in truth.inputs["draws"]] == truth.outputs["train_paths"]


def test_seeded_paths_are_those_of_the_original():
    truth = oracle("theseus/layer_paths")
    ship = Theseus(a_predecessor(12), 6, schedule=partial(constant_rate, rate=0.3)).train()
    torch.manual_seed(0)
    paths = []
    for _ in range(3):
        ship(**TEXT)
        paths.append(ship.path)
    assert paths == truth.outputs["train_paths_seed0_rate0_3"]
    ship.eval()(**TEXT)
    assert ship.path == truth.outputs["eval_path"]


def test_seeded_draws_do_not_depend_on_dropout():
    truth = oracle("theseus/layer_paths")
    ship = Theseus(a_predecessor(12, dropout=0.5), 6, schedule=partial(constant_rate, rate=0.3)).train()
    torch.manual_seed(0)
    ship(**TEXT)
    assert ship.path == truth.outputs["train_paths_seed0_rate0_3"][0], "all draws come before the first layer"


def test_share_of_replaced_modules_is_the_rate():
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([draw(6, 0.3, generator) for _ in range(4000)]).float()
    torch.testing.assert_close(draws.mean(0), torch.full((6,), 0.3), atol=0.025, rtol=0)  # one draw per module


def test_the_path_taken_is_the_path_reported():
    ship, called = Theseus(a_predecessor(), 2).train(), []
    for i, module in enumerate(ship.modules_to_replace):
        module.successor[0].register_forward_hook(lambda *_, i=i: called.append(f"scc{i}"))
        for j, layer in enumerate(module.predecessor):
            layer.register_forward_hook(lambda *_, n=2 * i + j: called.append(f"prd{n}"))
    for draws in ([0, 0], [0, 1], [1, 0], [1, 1]):
        called.clear()
        ship(**TEXT, draws=draws)
        assert called == ship.path == layer_path(draws, 2)
    called.clear()
    ship.eval()(**TEXT)
    assert called == ["scc0", "scc1"]


def test_without_replacement_the_ship_is_its_predecessor_and_with_it_its_first_layers():
    predecessor = a_predecessor()
    ship = Theseus(predecessor, 2).eval()
    torch.testing.assert_close(ship(**TEXT, draws=[0, 0]).logits, predecessor(**TEXT).logits, rtol=0, atol=0)
    short = a_predecessor(layers=2)
    short.load_state_dict(predecessor.state_dict(), strict=False)  # the first two layers, embeddings, head
    torch.testing.assert_close(ship(**TEXT).logits, short(**TEXT).logits, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------ who learns


def gradients(ship, draws):
    ship.zero_grad()
    ship.train()(**TEXT, draws=draws).logits.square().sum().backward()
    return {n for n, p in ship.named_parameters() if p.grad is not None}


def test_only_the_drawn_successors_get_gradients():
    ship = Theseus(a_predecessor(), 2)
    assert gradients(ship, [0, 0]) == set(), "backward runs, and nobody learns"
    assert {n.split(".successor")[0] for n in gradients(ship, [0, 1])} == {"model.bert.encoder.layer.1"}
    learning = gradients(ship, [1, 1])
    assert learning and all(".successor." in name for name in learning)


def test_as_in_code_the_frozen_part_counts_in_clipping_but_not_in_the_optimiser():
    norms = {}
    for as_in in ("paper", "code"):
        ship = Theseus(a_predecessor(), 2, as_in=as_in)
        gradients(ship, [1, 0])
        norms[as_in] = torch.nn.utils.clip_grad_norm_(ship.parameters(), 1e9)
        inside = {id(p) for p in ship.trainable_parameters()}
        assert inside == {id(p) for n, p in ship.named_parameters() if ".successor." in n}
    assert norms["code"] > 1.01 * norms["paper"]


def test_predecessor_embeddings_and_head_do_not_move_in_training():
    for as_in in ("paper", "code"):
        ship = Theseus(a_predecessor(), 2, schedule=partial(constant_rate, rate=0.6), as_in=as_in)
        before = {n: p.clone() for n, p in ship.named_parameters()}
        train(ship, [BATCH] * 8, lambda s, b: terms(s, None, b), Recipe(steps=8, learning_rate=1e-2),
              parameters=[{"params": ship.trainable_parameters()}])
        moved = {n for n, p in ship.named_parameters() if not torch.equal(p, before[n])}
        assert moved and all(".successor." in name for name in moved)
        assert ship.batches_seen == 8


def test_a_batch_without_any_replacement_does_not_stop_the_training_loop():
    ship = Theseus(a_predecessor(), 2, schedule=partial(constant_rate, rate=1e-6))
    history = train(ship, [BATCH] * 2, lambda s, b: terms(s, None, b), Recipe(steps=2))
    assert all(row["gradient_norm"] == 0 for row in history.steps)


def test_the_rate_follows_the_schedule_batch_by_batch():
    ship = from_recipe(a_predecessor(), TheseusRecipe(successor_layers=2, base=0.3, k=0.1))
    rates = []
    for _ in range(9):
        rates.append(round(ship.replacing_rate, 6))
        ship.train()(**TEXT)
    assert rates == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0]
    ship.eval()(**TEXT)
    assert ship.batches_seen == 9, "evaluation does not count"


def test_the_given_model_is_neither_changed_nor_shared():
    predecessor = a_predecessor()
    before = {n: p.clone() for n, p in predecessor.state_dict().items()}
    ship = Theseus(predecessor, 2)
    with torch.no_grad():
        for parameter in ship.parameters():
            parameter.add_(1)
    assert all(torch.equal(p, before[n]) for n, p in predecessor.state_dict().items())
    assert all(p.requires_grad for p in predecessor.parameters())


def test_successor_and_predecessor_layers_share_no_memory():
    ship = Theseus(a_predecessor(), 2)
    pointers = [p.data_ptr() for p in ship.parameters()]
    assert len(set(pointers)) == len(pointers)


# ------------------------------------------------------------------------------------------ phase 2


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertModel])
def test_successor_model_is_plain_and_computes_the_same(kind, tmp_path):
    ship = Theseus(a_predecessor(kind=kind), 2).eval()
    with torch.no_grad():
        for parameter in ship.trainable_parameters():
            parameter.mul_(1.1)
    successor = ship.to_successor_model()
    assert type(successor) is kind and successor.config.num_hidden_layers == 2
    torch.testing.assert_close(successor(**TEXT)[0], ship(**TEXT)[0], rtol=0, atol=0)
    successor.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**TEXT)[0], ship(**TEXT)[0], rtol=0, atol=0)
    assert successor.num_parameters() == a_predecessor(2, kind).num_parameters()


def test_successor_model_leaves_the_ship_as_it_was():
    ship = Theseus(a_predecessor(), 2).eval()
    before, successor = ship(**TEXT).logits, ship.to_successor_model()
    with torch.no_grad():
        for parameter in successor.parameters():
            parameter.zero_()
    torch.testing.assert_close(ship(**TEXT).logits, before, rtol=0, atol=0)
    assert ship.config.num_hidden_layers == 4 and len(ship.modules_to_replace[0].predecessor) == 2


def test_phase_two_trains_the_layers_or_everything():
    ship = Theseus(a_predecessor(), 2)
    layers = {n for n, p in ship.to_successor_model().named_parameters() if p.requires_grad}
    assert layers and all(".layer." in name for name in layers)
    assert all(p.requires_grad for p in ship.to_successor_model(train="all").parameters())


def test_successors_learn_the_task():
    ship = from_recipe(a_predecessor(), TheseusRecipe(successor_layers=2, base=0.5, k=0.02))
    history = train(ship, [BATCH] * 40, lambda s, b: terms(s, None, b), Recipe(steps=40, learning_rate=2e-2))
    assert history.steps[-1]["task"] < 0.2 * history.steps[0]["task"]
    assert ship.eval()(**TEXT).logits.argmax(-1).tolist() == [1, 2]


def test_the_layers_of_the_path_can_be_read():
    ship = Theseus(a_predecessor(), 2).eval()
    assert len(read(ship, BATCH).hidden_states) == 3 and len(read(ship, BATCH).attention_scores) == 2
    ship.train()
    ship.schedule = partial(constant_rate, rate=1e-6)
    assert len(read(ship, BATCH).hidden_states) == 5, "no successor drawn: all four predecessor layers"


@pytest.mark.parametrize(("call", "says"), [
    (lambda: Theseus(a_predecessor(4), 3), r"4 predecessor layers.*3 modules.*\[1, 2, 4\]"),
    (lambda: Theseus(a_predecessor(4), 0), "0 modules"),
    (lambda: Theseus(a_predecessor(4), 2, as_in="book"), "paper"),
    (lambda: Theseus(DistilBertModel(DistilBertConfig(vocab_size=9, dim=4, n_heads=2, n_layers=2, hidden_dim=4)), 1),
     "encoder.layer"),
    (lambda: Theseus(a_predecessor(4), 2)(**TEXT, draws=[1]), "1 draws for 2 modules"),
    (lambda: Theseus(a_predecessor(4), 2).to_successor_model(train="none"), "layers"),
])
def test_wrong_input_is_refused_with_a_way_out(call, says):
    with pytest.raises(ValueError, match=says):
        call()
