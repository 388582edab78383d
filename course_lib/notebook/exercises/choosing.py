"""Everything that is answered by a letter: the quiz, the poll of section 1, and the forecast of an experiment.

In a notebook a click is enough. The functions `answer` and `predict` take the same letters as text, for a notebook
that is handed in, and for a terminal. A slip of the finger gets a sentence: these two are called by learners.
"""

from __future__ import annotations

from course_lib.notebook.exercises import store
from course_lib.notebook.exercises.forms import Form, PollForm, Quiz, Recall
from course_lib.notebook.exercises.messages import Message, message
from course_lib.notebook.exercises.points import quiz_score
from course_lib.notebook.exercises.questions import Chapter, Poll, chapter, letter, question


def quiz(chapter_name: str) -> Quiz:
    """The quiz of a chapter: choose with the mouse or the arrow keys; where Python listens, the points are counted.

    Raises: ValueError for a chapter that does not exist.
    """
    asked = chapter(chapter_name)
    state, _ = store.load()
    picked = {i: state["quiz"].get(f"{asked.name}.quiz{i}", "") for i in range(1, len(asked.quiz) + 1)}
    return Quiz(asked, picked, lambda letters: " ".join(_kept(asked, _choices(asked, letters))))


def answer(name: str, choice: str) -> Message:
    """Answer one quiz item, `answer("ch01.quiz3", "b")`, or all, `answer("ch01.quiz", "bca-dbca")`; "-" leaves one out.

    The last answer counts. An item or a letter that does not exist changes nothing and gets a sentence.
    """
    chapter_name, _, item = str(name).partition(".quiz")
    try:
        asked = chapter(chapter_name)
        choices = _choices(asked, choice, item)
    except ValueError as reason:
        return message(f"{reason} Nothing was changed.")
    lines = [_about_answer(asked, number, picked) for number, picked in choices.items()]
    return message(*lines, *_kept(asked, choices))


def _kept(asked: Chapter, choices: dict[int, str]) -> list[str]:
    """Keep some letters; what there is to say about the file, then the points."""
    state, note = store.load()
    saved = ""
    if choices:
        state["quiz"] |= {f"{asked.name}.quiz{number}": picked for number, picked in choices.items()}
        saved = store.save(state)
    return [line for line in (note, saved, quiz_score(asked, state)) if line]


def _choices(asked: Chapter, choice: str, item: str = "") -> dict[int, str]:
    numbers = range(1, len(asked.quiz) + 1)
    letters = str(choice).strip().lower().replace(" ", "")
    if item:
        if not item.isdigit() or int(item) not in numbers:
            raise ValueError(f"There is no quiz item {asked.name}.quiz{item}. {asked.name} has quiz1 to "
                             f"quiz{len(asked.quiz)}.")
        chosen = {int(item): letters}
    elif len(letters) == len(asked.quiz):
        chosen = dict(zip(numbers, letters, strict=True))
    else:
        raise ValueError(f"{choice!r}: one letter for each of the {len(asked.quiz)} items is needed; - leaves one out.")
    for number, picked in chosen.items():
        known = [letter(i) for i in range(len(asked.quiz[number - 1].options))]
        if picked != "-" and picked not in known:
            raise ValueError(f"Item {number} has the answers {', '.join(known)}; {picked!r} is none of them.")
    return {number: picked for number, picked in chosen.items() if picked != "-"}


def _about_answer(asked: Chapter, number: int, picked: str) -> str:
    option = asked.quiz[number - 1].options["abcdefgh".index(picked)]
    return f"{asked.name}.quiz{number}, {picked}: {'right' if option.right else 'not right'}. {option.why}"


# --- predictions ------------------------------------------------------------------------------------------------------


def predict(name: str, choice: str | None = None) -> Form | Message:
    """Ask for a prediction: of a chapter, `predict("ch01")`, or of an experiment, `predict("ch02.q6")`.

    It is answered by a click, or with a letter: `predict("ch01", "b")`. A letter that is not on offer gets a sentence.
    Raises: ValueError for a chapter or an exercise that asks for no prediction.
    """
    poll = poll_of(name)
    if choice is None:
        return PollForm(name, poll, prediction(name) or "", lambda picked: "\n".join(predict(name, picked).lines))
    picked = str(choice).strip().lower()
    if picked not in poll.letters:
        return message(f"The answers are {', '.join(poll.letters)}; {choice!r} is none of them. Nothing was changed.")
    state, note = store.load()
    state["polls"][name] = picked
    return message(f"Kept: you predict {picked}) {poll.text(picked)}", poll.later, note, store.save(state))


def recall(name: str, measured: str | None = None, because: str = "") -> Recall:
    """Show a prediction beside what was measured.

    measured: letter of the option that fits the measurement. because: one sentence with the numbers.
    Without a prediction the text depends on these two alone.
    Raises: ValueError for a letter that is not on offer: here the course writes it.
    """
    poll = poll_of(name)
    if measured is not None and measured not in poll.letters:
        raise ValueError(f"The answers are {', '.join(poll.letters)}; {measured!r} is none of them.")
    return Recall(name, poll, prediction(name), measured, because)


def prediction(name: str) -> str | None:
    """The letter that was predicted; None without a prediction."""
    chosen = store.load()[0]["polls"].get(name)
    return chosen if chosen in poll_of(name).letters else None


def poll_of(name: str) -> Poll:
    """The poll of a chapter, or the forecast of an exercise."""
    found = question(name).forecast if "." in str(name) else chapter(name).poll
    if found is None:
        raise ValueError(f"{name} asks for no prediction.")
    return found
