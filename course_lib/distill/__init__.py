"""Distil your own model: the chapters' losses, your teacher, your texts, one command.

    python -m course_lib finetune --model FOLDER_OR_HUB --data reviews.csv --out runs/teacher
    python -m course_lib distill hinton --teacher runs/teacher/student --data reviews.csv --out runs/student

`texts` reads files, `students` makes the student that a word describes, `checks` refuses what cannot work, `plans` says
what each method does, `runs` does it in a `folder` and leaves a `card`. Whoever wants something else than these modules
offer should copy a chapter's experiment instead.
"""

from course_lib.distill.plans import METHODS
from course_lib.distill.runs import distill
from course_lib.distill.settings import Settings
from course_lib.distill.students import load_bilstm
from course_lib.distill.texts import read

__all__ = ["METHODS", "Settings", "distill", "load_bilstm", "read"]
