"""What a run leaves in words: the model card, and the three lines "paper, we, you"."""

from __future__ import annotations

import json
from pathlib import Path

from course_lib.distill.settings import Settings
from course_lib.distill.texts import Texts
from course_lib.experiments import records
from course_lib.material.assets import DATA
from course_lib.material.teachers import Teacher
from course_lib.methods.bilstm import BiLstm
from course_lib.methods.specs import Made, is_masked_lm
from course_lib.shared.method import Method
from course_lib.shared.seeds import mean_and_interval


def model_card(settings: Settings, method: Method, made: Made, texts: Texts, teacher: Teacher, result: dict) -> str:
    """The model card: what this is, where it comes from, how good it is, and what nobody has looked at."""
    numbers = "\n".join(f"| {name.replace('_', ' ')} | {_in_words(value)} |" for name, value in result.items())
    bilstm, masked = isinstance(made.model, BiLstm), is_masked_lm(teacher.model)
    door = "AutoModelForMaskedLM" if masked else "AutoModelForSequenceClassification"
    load = ('from course_lib.distill import load_bilstm\nmodel, vocabulary = load_bilstm("student")' if bilstm else
            f'from transformers import AutoTokenizer, {door}\nmodel = {door}.from_pretrained("student")\n'
            'tokenizer = AutoTokenizer.from_pretrained("student")')
    return f"""---
library_name: {"course_lib" if bilstm else "transformers"}
pipeline_tag: {"fill-mask" if masked else "text-classification"}
tags: [knowledge-distillation]
---
# A student of {Path(settings.teacher).name}

Method: {method.name} ({method.paper}), preset "{settings.preset}", seed {settings.seed}.
Start: {made.start}.
Texts: {", ".join(f"{split} {len(rows):,}" for split, rows in texts.splits.items())}.
Classes: {"none (masked language model)" if masked else ", ".join(teacher.class_names)}.

```python
{load}
```

| measured on the test split | |
|---|---|
{numbers}

One run with one seed: another seed gives another number. Not looked at: other kinds of text, unfair errors, safety.
Licence: that of the teacher and of the texts; fill it in before you pass this model on.
"""


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {percent:.1f} %" for name, percent in value.items())
    return str(value)


def paper_we_you(method: Method, result: dict) -> str:
    """The last line of a run: what the paper reports, what the course measured, what came out here."""
    rows = [("paper", method.claim or "no number on one model and one data set"), ("we", _ours(method))]
    you = []
    if "teacher_accuracy" in result and "accuracy" in result and not result["teacher_accuracy"]:
        you.append(f"accuracy {result['accuracy']:.1f} % (the teacher's: 0.0 %)")
    elif "teacher_accuracy" in result and "accuracy" in result:
        kept = 100 * result["accuracy"] / result["teacher_accuracy"]
        you.append(f"{kept:.1f} % of the teacher's accuracy ({result['accuracy']:.1f} of "
                   f"{result['teacher_accuracy']:.1f})")
    elif "accuracy" in result:
        you.append(f"accuracy {result['accuracy']:.1f} %")
    elif "agreement" in result:
        you.append(f"the teacher's answer for {result['agreement']:.1f} % of the test texts")
    if "times_smaller" in result:
        you.append(f"{result['times_smaller']:.1f} times fewer parameters, {result['times_faster']:.1f} times faster")
    rows.append(("you", ", ".join(you) + " (one seed)"))
    return "\n".join(f"{who:6}| {what}" for who, what in rows)


def _ours(method: Method) -> str:
    if method.measured is None:
        return "not measured"
    try:
        values = records.values(method.measured.experiment, method.measured.arm, "accuracy")
    except (FileNotFoundError, ValueError, KeyError):
        return "not measured yet"
    card = json.loads((DATA / "teachers" / method.measured.teacher / "card.json").read_text("utf-8"))
    theirs, mean = card["accuracy_percent"]["test"], mean_and_interval(values).mean
    return (f"{100 * mean / theirs:.1f} % of the teacher's accuracy ({mean:.1f} of {theirs:.1f}; "
            f"{method.measured.texts}, {len(values)} seeds)")
