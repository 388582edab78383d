"""`show`: the lines of an equation equal the loss that calls them, and page and source say the same."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest
import torch
from browser import open_page
from view_pages import HOSTS

from course_lib import methods
from course_lib.methods import bilstm, cached, distilbert, hinton, minilm, mobilebert, pkd, theseus, tinybert
from course_lib.notebook.show import EQUATION, Equation, equation_of, show
from course_lib.shared.probes import scaled_dot_products, split_heads


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Z_S, Z_T, Y, T = normal(5, 4), normal(5, 4, seed=1), torch.tensor([0, 3, 1, 2, 2]), 3.0
H_S, H_T = normal(2, 6, 8), normal(2, 6, 8, seed=1)  # (B, T, N)
A_S, A_T = normal(2, 3, 6, 6), normal(2, 3, 6, 6, seed=1)  # (B, A, T, T)
Q, K, Q_T, K_T = (normal(2, 3, 6, 4, seed=seed) for seed in range(4))  # (B, A, T, d)
TOP = cached.top_k(Z_T, 2, T)
MAP = ((1, 1),)
HINTON = {"temperature": T, "hard_weight": 0.3, "soft_weight": 0.7}


def rows(states):
    return states.flatten(0, -2)


# loss -> (what it returns, what its equation returns), without a mask and with the knobs of the paper
CASES = {
    "hinton.soft_target_loss": lambda eq: (hinton.soft_target_loss(Z_S, Z_T, temperature=T), eq(Z_S, Z_T, T)),
    "hinton.soft_cross_entropy": lambda eq: (hinton.soft_cross_entropy(Z_S, Z_T, temperature=T), eq(Z_S, Z_T, T)),
    "hinton.teacher_entropy": lambda eq: (hinton.teacher_entropy(Z_T, temperature=T), eq(Z_T, T)),
    "hinton.high_temperature_limit": lambda eq: (hinton.high_temperature_limit(Z_S, Z_T), eq(Z_S, Z_T)),
    "hinton.hard_loss": lambda eq: (hinton.hard_loss(Z_S, Y), eq(Z_S, Y)),
    "hinton.distillation_loss": lambda eq: (
        hinton.distillation_loss(Z_S, Z_T, Y, **HINTON),
        eq(hinton.kl_equation(Z_S, Z_T, T), hinton.hard_equation(Z_S, Y), 0.7, 0.3)),
    "bilstm.logit_distance": lambda eq: (bilstm.logit_distance(Z_S, Z_T), eq(Z_S, Z_T)),
    "distilbert.soft_loss": lambda eq: (distilbert.soft_loss(A_S[0], A_T[0], temperature=T),
                                        eq(rows(A_S[0]), rows(A_T[0]), T)),
    "distilbert.masked_lm_loss": lambda eq: (distilbert.masked_lm_loss(Z_S[None], Y[None]), eq(Z_S, Y)),
    "distilbert.cosine_loss": lambda eq: (distilbert.cosine_loss(H_S, H_T), eq(H_S, H_T)),
    "distilbert.logit_mse": lambda eq: (distilbert.logit_mse(H_S, H_T), eq(rows(H_S), rows(H_T))),
    "distilbert.span_loss": lambda eq: (
        distilbert.span_loss(H_S, H_T, Y[None, :6].expand(2, 5)[:, [0, 1, 2, 3, 4, 0]], temperature=T, hard_weight=0.3,
                             soft_weight=0.7),
        eq(hinton.kl_equation(rows(H_S), rows(H_T), T), hinton.hard_equation(rows(H_S), Y[[0, 1, 2, 3, 4, 0] * 2]),
           0.7, 0.3)),
    "pkd.patience_loss": lambda eq: (pkd.patience_loss(H_S, H_T), eq(H_S, H_T)),
    "pkd.soft_loss": lambda eq: (pkd.soft_loss(Z_S, Z_T, temperature=T), eq(Z_S, Z_T, T)),
    "tinybert.attention_loss": lambda eq: (tinybert.attention_loss(A_S, A_T), eq(A_S, A_T)),
    "tinybert.hidden_loss": lambda eq: (tinybert.hidden_loss(H_S, H_T), eq(H_S, H_T)),
    "tinybert.prediction_loss": lambda eq: (tinybert.prediction_loss(Z_S, Z_T, temperature=T), eq(Z_S, Z_T, T)),
    "tinybert.attention_over_layers": lambda eq: (tinybert.attention_over_layers((A_S,), (A_T,), MAP), eq(A_S, A_T)),
    "tinybert.hidden_over_layers": lambda eq: (tinybert.hidden_over_layers((H_T, H_S), (H_S, H_T), MAP), eq(H_S, H_T)),
    "mobilebert.feature_map_mse": lambda eq: (mobilebert.feature_map_mse(H_S, H_T), eq(H_S, H_T)),
    "mobilebert.mean_difference": lambda eq: (mobilebert.mean_difference(H_S, H_T), eq(H_S, H_T)),
    "mobilebert.variance_difference": lambda eq: (mobilebert.variance_difference(H_S, H_T), eq(H_S, H_T)),
    "mobilebert.attention_transfer": lambda eq: (mobilebert.attention_transfer(A_S, A_T), eq(A_S, A_T)),
    "mobilebert.masked_lm_mixture": lambda eq: (
        mobilebert.masked_lm_mixture(Z_S, Z_T, Y, hard_weight=0.3, temperature=T), eq(Z_S, Z_T, Y, 0.3, T)),
    "mobilebert.next_sentence_loss": lambda eq: (mobilebert.next_sentence_loss(Z_S, Y), eq(Z_S, Y)),
    "minilm.relation_kl": lambda eq: (minilm.relation_kl(A_S, A_T), eq(A_S, A_T)),
    "minilm.attention_relation_transfer": lambda eq: (
        minilm.attention_relation_transfer(Q, K, Q_T, K_T),
        eq(scaled_dot_products(Q, K), scaled_dot_products(Q_T, K_T))),
    "minilm.value_relation_transfer": lambda eq: (
        minilm.value_relation_transfer(Q, Q_T), eq(scaled_dot_products(Q, Q), scaled_dot_products(Q_T, Q_T))),
    "minilm.relation_transfer": lambda eq: (
        minilm.relation_transfer(H_S, H_T, relation_heads=4),
        eq(*(scaled_dot_products(h, h) for h in (split_heads(H_S, 4), split_heads(H_T, 4))))),
    "cached.stored_probs_loss": lambda eq: (cached.stored_probs_loss(Z_S, Z_T.softmax(-1), temperature=T),
                                            eq(Z_S, Z_T, T)),
    "cached.top_k_loss": lambda eq: (cached.top_k_loss(Z_S, TOP),
                                     eq(Z_S, TOP.ids, TOP.log_probs, TOP.rest_log_prob, T)),
}
# It gets the loss as an argument, and adds nothing to its equation.
WITHOUT = {"mobilebert.over_all_teacher_layers"}
MODULES = [importlib.import_module(f"{methods.__name__}.{found.name}")
           for found in pkgutil.iter_modules(methods.__path__)]
EQUATIONS = {f"{module.__name__.rpartition('.')[2]}.{name}": function
             for module in MODULES for name, function in vars(module).items()
             if name.endswith(EQUATION) and function.__module__ == module.__name__}


def named(name):
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"course_lib.methods.{module}"), function)


def test_every_loss_of_every_method_is_asked():
    losses = {f"{module.__name__.rpartition('.')[2]}.{name}"
              for module in MODULES for name, function in inspect.getmembers(module, inspect.isfunction)
              if function.__module__ == module.__name__ and not name.startswith("_")
              and re.match(r"Float\[Tensor, (''|\"\")\]", str(function.__annotations__.get("return")))}
    assert losses == CASES.keys() | WITHOUT


@pytest.mark.parametrize("name", CASES)
def test_the_equation_that_is_shown_is_the_loss(name):
    equation = equation_of(named(name))
    loss, shown = CASES[name](equation)
    torch.testing.assert_close(loss, shown, rtol=1e-10, atol=1e-12)
    assert loss.ndim == 0 and loss.abs() > 1e-3


@pytest.mark.parametrize("name", EQUATIONS)
def test_an_equation_is_six_lines_or_fewer_that_each_name_a_term_of_it(name):
    source = textwrap.dedent(inspect.getsource(EQUATIONS[name]))
    docstring, *body = ast.parse(source).body[0].body
    code = source.splitlines()[docstring.end_lineno:]
    assert 1 <= len(code) <= 6
    assert all(len(line) <= 80 for line in (source.splitlines()[0], *code))
    shown = show(EQUATIONS[name])
    assert shown.equation is None, "an equation calls no other one"
    equation = read(EQUATIONS[name])
    assert " = " in equation.formula and "\n" not in equation.formula
    assert len(equation.terms) == len([node for node in ast.walk(ast.Module(body, [])) if isinstance(
        node, ast.Assign | ast.Return)]), "one comment for each line that computes"
    for line, terms in equation.terms.items():
        for term in terms:
            assert re.search(rf"(?<!\w){re.escape(term)}(?!\w)", equation.formula), f"{term!r} is not in the equation"
        assert any(places[:1] == [line] for places in equation.places), f"line {line} has no symbol of its own"


def read(function) -> Equation:
    from course_lib.notebook.show import _read_equation, _where

    return Equation(_where(function), *_read_equation(function))


def test_every_equation_is_called_by_a_loss():
    sources = "\n".join(inspect.getsource(module) for module in MODULES)
    for name in EQUATIONS:
        assert len(re.findall(rf"\b{name.partition('.')[2]}\b", sources)) > 1, name


def test_the_nearest_equation_is_found_and_a_function_without_one_is_shown_as_it_is():
    assert equation_of(hinton.soft_target_loss) is hinton.kl_equation
    assert equation_of(pkd.soft_loss) is hinton.cross_entropy_equation
    assert equation_of(theseus.draw) is None and equation_of(theseus.Replaceable) is None
    assert show(theseus.draw).equation is None and "bernoulli" in show(theseus.draw)._repr_html_()


def test_an_equation_that_a_page_has_shown_already_can_be_left_out():
    shown = show(minilm.value_relation_transfer, equation=False)
    assert shown.equation is None and "def relation_equation" not in shown._repr_html_()
    assert show(minilm.value_relation_transfer).equation.where.endswith("minilm.relation_equation")


def test_the_shortest_term_owns_a_symbol_and_longer_ones_know_it():
    equation = Equation("here", "L = sum_i p (a - b)", "", {1: ("a",), 2: ("a - b",), 3: ("sum_i p (a - b)",)})
    html = equation.formula_html()
    assert 'data-line="1" data-inside="1 2 3" tabindex="0" title="line 1"><i>a</i></span>' in html
    assert 'data-line="2" data-inside="2 3" tabindex="0" title="line 2"> − <i>b</i></span>' in html
    assert '<span class="cc-term" data-line="3" data-inside="3">)</span>' in html, "one stop for each line"
    assert html.startswith("<i>L</i> = <span") and "Σ<sub>i</sub>" in html


def test_the_text_form_has_the_equation_first_then_the_whole_function():
    text = repr(show(pkd.patience_loss))
    assert text.startswith("# L_PT = mean_n sum_j || u_S - u_T ||^2\ndef patience_equation(")
    assert "\n\n# course_lib.methods.pkd.patience_loss\ndef patience_loss(" in text
    assert '"""' not in text and '"""' in repr(show(pkd.patience_loss, docstring=True))


def test_the_page_holds_the_source_itself_and_nothing_that_changes():
    shown = show(hinton.soft_target_loss)
    html = shown._repr_html_()
    assert html == show(hinton.soft_target_loss)._repr_html_()
    from bs4 import BeautifulSoup

    core, whole = BeautifulSoup(html, "html.parser").select("pre code")
    assert core.get_text() == shown.equation.code + ("" if core.get_text()[-1] != "\n" else "\n")
    assert whole.get_text().rstrip("\n") == shown.text
    assert "style=\"color:var(--cc-keyword,#7b2fb5)\"" in html


# ------------------------------------------------------------------------------------------ on a page


def page_of(*functions, host="book"):
    opening, background, colour = HOSTS[host]
    look = f"<style>body{{margin:8px;background:{background};color:{colour}}}</style>"
    return f"<!doctype html>{opening}<meta charset=utf-8>{look}{''.join(show(f)._repr_html_() for f in functions)}"


def lit(page):
    return page.eval_on_selector_all(".cc-lit", "all => all.map(e => e.textContent.trim())")


@pytest.mark.browser
def test_a_symbol_lights_its_line_and_a_line_its_symbol_by_mouse_and_keyboard():
    with open_page() as watched:
        page = watched.page
        page.set_content(page_of(pkd.patience_loss, hinton.kl_equation))
        line = "u_S = F.normalize(h_S, dim=-1)  # u_S = h_S / ||h_S||"
        symbol, code = (page.locator(f'.cc-{kind}[data-line="1"]').first for kind in ("term", "line"))
        assert lit(page) == []
        symbol.hover()
        assert lit(page) == ["uS", line]
        code.hover()
        assert lit(page) == ["uS", line]
        page.mouse.move(600, 700)
        assert lit(page) == []
        page.keyboard.press("Tab")  # the first stop is the first term of the formula
        assert lit(page)[-1] == "return mean((u_S - u_T).pow(2))  # mean_n sum_j || u_S - u_T ||^2"
        page.keyboard.press("Tab")
        assert lit(page) == ["uS", line]
        page.keyboard.press("Enter")  # stays when the focus goes on
        assert symbol.get_attribute("aria-pressed") == "true"
        for _ in range(6):
            page.keyboard.press("Tab")
        page.mouse.move(600, 700)
        page.evaluate("document.activeElement.blur()")
        assert lit(page) == ["uS", line]
        code.focus()
        page.keyboard.press("Space")
        assert symbol.get_attribute("aria-pressed") == "false"
        watched.check()


@pytest.mark.browser
def test_the_code_can_be_copied_and_the_whole_function_unfolds():
    with open_page() as watched:
        watched.page.set_content(page_of(pkd.patience_loss))
        whole = watched.page.locator("details pre")
        assert not whole.is_visible()
        watched.page.locator("summary").click()
        assert whole.is_visible()
        watched.page.evaluate("Object.defineProperty(navigator, 'clipboard', "
                              "{ value: { writeText: async (text) => { window.copied = text; } } })")
        watched.page.get_by_role("button", name="Copy").first.click()
        watched.page.get_by_role("button", name="Copied").wait_for()
        assert watched.page.evaluate("copied").rstrip("\n") == show(pkd.patience_loss).equation.code
        watched.check()


@pytest.mark.browser
@pytest.mark.parametrize("host", HOSTS)
def test_every_word_of_the_code_has_contrast_lit_or_not(host):
    with open_page() as watched:
        watched.page.set_content(page_of(hinton.soft_target_loss, host=host))
        watched.page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        for _ in range(2):
            lowest = watched.page.evaluate(CONTRAST, HOSTS[host][1])
            assert lowest[0] >= 4.5, lowest
            watched.page.evaluate("for (const e of document.querySelectorAll('[data-line]')) e.classList.add('cc-lit')")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 820, 1400])
def test_the_page_never_scrolls_sideways_and_no_word_is_broken(width):
    with open_page(width=width) as watched:
        watched.page.set_content(page_of(*(named(name) for name in CASES)))
        assert watched.sideways_overflow() == 0
        assert set(watched.page.eval_on_selector_all(
            ".course-code pre", "all => all.map(e => getComputedStyle(e).whiteSpace + getComputedStyle(e).overflowX)")
        ) == {"preauto"}
        if width >= 820:  # all 80 columns of an equation fit
            assert watched.page.eval_on_selector_all(
                ".course-code > .cc-box pre", "all => all.filter(e => e.scrollWidth > e.clientWidth).length") == 0


@pytest.mark.browser
def test_without_a_script_everything_is_readable():
    with open_page(java_script_enabled=False) as watched:
        watched.page.set_content(page_of(pkd.patience_loss))
        assert watched.page.locator(".cc-equation").is_visible()
        assert watched.page.get_by_text("u_S = h_S").first.is_visible()


CONTRAST = """background => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const onto = (colour, under) => { canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const light = (rgb) => { const [r, g, b] = rgb.map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const paper = (e) => { const above = e ? paper(e.parentElement) : background;
        return e ? `rgb(${onto(getComputedStyle(e).backgroundColor, above)})` : background; };
    return [...document.querySelectorAll(".course-code *")].filter(e => e.checkVisibility()
        && !["STYLE", "SCRIPT"].includes(e.tagName)
        && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .map(e => { const under = paper(e), over = onto(getComputedStyle(e).color, under);
            const [a, b] = [light(onto(under, under)), light(over)].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), e.textContent, e.className]; }).sort((x, y) => x[0] - y[0])[0]; }"""
