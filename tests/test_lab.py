"""What a learner does first: `make lab`, chapter 1, run all, move the temperature slider. In a real JupyterLab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import open_page, require_chromium

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = ROOT / "notebooks" / "ch01_hinton.ipynb"
PATIENCE = 150_000  # milliseconds; ten times what a quiet machine needs

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.assets]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab as `make lab` starts it, on a machine without a screen; yields the address that it prints."""
    require_chromium()
    own = tmp_path_factory.mktemp("jupyter")
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"JUPYTER_CONFIG_DIR": str(own / "config"), "JUPYTER_DATA_DIR": str(own / "data"),
                    "JUPYTER_RUNTIME_DIR": str(own / "runtime"), "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
                    "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"), "COURSE_OFFLINE": "1",
                    "COURSE_PROGRESS_FILE": str(own / "progress.json")}  # a learner's own answers stay as they are
    server = subprocess.Popen([sys.executable, "tools/lab.py", "--LabApp.expose_app_in_browser=True"], cwd=ROOT,
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(iter(server.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        yield _address(server, said)
    finally:
        server.terminate()
        server.wait(timeout=20)


def _address(server: subprocess.Popen, said: list[str]) -> str:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and server.poll() is None:
        found = re.search(r"^JupyterLab: (http://localhost:\d+/\S+)$", "".join(said), flags=re.M)
        if found:
            return found[1]
        time.sleep(0.1)
    pytest.fail("tools/lab.py printed no address:\n" + "".join(said))


def ready(page, address: str) -> None:
    """Open JupyterLab and wait for its own word that it is there."""
    for _ in range(100):  # the address is printed just before the server listens
        try:
            page.goto(address)
            break
        except Exception:
            time.sleep(0.3)
    page.wait_for_function("window.jupyterapp !== undefined", timeout=PATIENCE)
    page.evaluate("window.jupyterapp.started.then(() => window.jupyterapp.restored)")


ALL_CELLS = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    return notebook.model.cells ? [...notebook.model.cells].map((cell) => cell.toJSON()) : [];
}"""


def test_lab_opens_on_the_contents_page_and_its_links_lead_to_the_chapters(lab: str) -> None:
    with open_page() as watched:
        ready(watched.page, lab)
        link = watched.page.get_by_role("link", name=re.compile("Soft targets"))
        link.first.wait_for(timeout=PATIENCE)
        assert "ch01_hinton.ipynb" in (link.first.get_attribute("href") or "")
        assert not watched.outside, watched.outside


@pytest.fixture
def chapter_copy() -> Iterator[str]:
    """Chapter 1 beside itself, so that what the test runs cannot change the committed file."""
    if not CHAPTER.exists():
        pytest.skip("chapter 1 has not been built yet: make notebooks")
    copy = CHAPTER.with_name("_test_copy.ipynb")
    chapter = nbformat.read(CHAPTER, as_version=4)
    for cell in chapter.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(chapter, copy)
    yield f"notebooks/{copy.name}"
    copy.unlink()


def test_chapter_1_runs_in_lab_and_its_slider_answers(lab: str, chapter_copy: str) -> None:
    with open_page(width=1400, height=1000) as watched:
        page = watched.page
        ready(page, lab.replace("notebooks/contents.ipynb", chapter_copy))
        page.wait_for_function("path => window.jupyterapp.shell.currentWidget?.context?.path === path",
                               arg=chapter_copy, timeout=PATIENCE)
        page.evaluate("(async () => { const context = window.jupyterapp.shell.currentWidget.context;"
                      " await context.ready; await context.sessionContext.ready; })()")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').catch(() => true).then(() => true)")
        # A cell that must raise ends that promise early, so wait for the cells themselves.
        page.wait_for_function(f"({ALL_CELLS})().every((cell) => cell.cell_type !== 'code' || cell.execution_count)",
                               timeout=2 * PATIENCE, polling=500)
        cells = [cell for cell in page.evaluate(ALL_CELLS) if cell["cell_type"] == "code"]
        assert len(cells) > 10
        for cell in cells:
            source = "".join(cell["source"])
            assert cell["execution_count"], f"not run: {source}"
            errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
            expected = {"raises-exception", "nbval-raises-exception"} & set(cell["metadata"].get("tags", []))
            assert bool(errors) <= bool(expected), f"{source}\n{errors}"

        number = next(n for n, cell in enumerate(page.evaluate(ALL_CELLS))
                      if any('data-view="temperature"' in "".join(output.get("data", {}).get("text/html", ""))
                             for output in cell.get("outputs", [])))
        # Lab draws only the cells near the window.
        page.evaluate("number => { const notebook = window.jupyterapp.shell.currentWidget.content;"
                      " notebook.activeCellIndex = number; return notebook.scrollToItem(number, 'start'); }", number)
        view = page.locator(".course-view[data-view=temperature]").first
        slider = view.locator("input[type=range][data-control=temperature]")
        slider.wait_for(timeout=PATIENCE)
        slider.focus()
        before = view.locator("[data-prob]").all_inner_texts()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        after = view.locator("[data-prob]").all_inner_texts()
        assert len(before) >= 2 and before != after
        assert not watched.outside, watched.outside


# --- A newcomer's walk -----------------------------------------------------------------------------------------------

HTML = ROOT / "book" / "_build" / "html"
QUESTION = "def softened("
WRONG = """def softened(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits * temperature, dim=-1)
"""
RIGHT = WRONG.replace("logits * temperature", "logits / temperature")

NO_AUTOSAVE = """async () => {
    const { commands } = window.jupyterapp;
    if (commands.isToggled('docmanager:toggle-autosave')) await commands.execute('docmanager:toggle-autosave');
}"""
OPENED = """path => window.jupyterapp.shell.currentWidget?.context?.path === path"""
RUN = """async number => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = number;
    await notebook.scrollToItem(number);
    await window.jupyterapp.commands.execute('notebook:run-cell');
    return JSON.stringify(notebook.model.cells.get(number).toJSON().outputs || []);
}"""


@pytest.fixture
def first_exercise(chapter_copy: str) -> str:
    """The copy of chapter 1 up to its first check: a newcomer's first half hour, without the trainings."""
    path = ROOT / chapter_copy
    chapter = nbformat.read(path, as_version=4)
    end = next(n for n, cell in enumerate(chapter.cells) if 'check("ch01.q1"' in cell.source)
    chapter.cells = chapter.cells[:end + 1]
    nbformat.write(chapter, path)
    return chapter_copy


def write_into_cell(page, number: int, text: str) -> None:
    """As by hand: the cell is entered, everything is selected, and the text is typed over it."""
    page.evaluate("""async number => {
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.activeCellIndex = number;
        await notebook.scrollToItem(number);
        await window.jupyterapp.commands.execute('notebook:enter-edit-mode');
    }""", number)
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(text)
    page.wait_for_function("([number, text]) => window.jupyterapp.shell.currentWidget.content.model.cells.get(number)"
                           ".toJSON().source.toString().trim() === text.trim()", arg=[number, text], timeout=PATIENCE)


def test_a_newcomer_walks_from_the_readme_to_lab_an_exercise_and_the_book(lab: str, first_exercise: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^make lab ", readme, re.MULTILINE), "the README's first command opens JupyterLab"
    with open_page(width=1400, height=1000) as watched:
        page = watched.page
        # The contents page, and its link to chapter 1.
        ready(page, lab)
        page.evaluate(NO_AUTOSAVE)  # the test opens the committed chapter: it must not write into it
        stored = CHAPTER.read_bytes()
        link = page.get_by_role("link", name=re.compile("Soft targets"))
        link.first.wait_for(timeout=PATIENCE)
        title = link.first.inner_text()
        link.first.click()
        page.wait_for_function(OPENED, arg="notebooks/ch01_hinton.ipynb", timeout=PATIENCE)
        page.get_by_role("heading", name=title).first.wait_for(timeout=PATIENCE)

        # The chapter's first cells, in the copy that the test may change.
        page.evaluate("path => window.jupyterapp.commands.execute('docmanager:open', { path }).then(() => true)",
                      first_exercise)
        page.wait_for_function(OPENED, arg=first_exercise, timeout=PATIENCE)
        page.evaluate("(async () => { const context = window.jupyterapp.shell.currentWidget.context;"
                      " await context.ready; await context.sessionContext.ready; })()")
        cells = page.evaluate(ALL_CELLS)
        sources = ["".join(cell["source"]) for cell in cells]
        exercise = next(n for n, source in enumerate(sources) if QUESTION in source)
        checking = len(cells) - 1
        for number in [n for n, cell in enumerate(cells) if cell["cell_type"] == "code"][:-1]:
            assert '"error"' not in page.evaluate(RUN, number), sources[number]
        assert "not started" in page.evaluate(RUN, checking)

        # The exercise: wrong first, and the message says which mistake it is; then right.
        write_into_cell(page, exercise, WRONG)
        page.evaluate(RUN, exercise)
        said = page.evaluate(RUN, checking)
        assert "The logits are multiplied by T. Divide by it" in said, said
        write_into_cell(page, exercise, RIGHT)
        page.evaluate(RUN, exercise)
        said = page.evaluate(RUN, checking)
        assert "correct (2 of 2 points)" in said, said
        assert CHAPTER.read_bytes() == stored, "the walk changed the committed chapter"
        assert not watched.outside, watched.outside

        # The same chapter in the built book.
        assert "book/_build/html/index.html" in readme
        if not (HTML / "index.html").exists():
            pytest.skip("the walk ends here: the book is not built, run `make book`")
        page.goto((HTML / "index.html").as_uri())
        page.get_by_role("link", name=title).first.click()
        page.wait_for_url("**/ch01_hinton.html")
        assert page.locator("h1").first.inner_text().startswith(title)
        assert page.locator(".course-view[data-view=temperature] svg").first.is_visible()
        assert not watched.outside, watched.outside
