"""Distil your own model: the chapters' losses, your teacher, your texts, one command.

    python -m course_lib finetune --model FOLDER_OR_HUB --data reviews.csv --out runs/teacher
    python -m course_lib distill hinton --teacher runs/teacher/student --data reviews.csv --out runs/student

`texts` reads files, `classes` says which class is which, `checks` refuses what cannot work, `runs` does the work in a
`folder` and leaves a `card`. What a method does stands in `course_lib.methods.table`, which student a word describes in
`course_lib.methods.specs`. Whoever wants something else than these modules offer should copy a chapter's experiment
instead.
"""

from course_lib.distill.runs import distill
from course_lib.distill.settings import Settings
from course_lib.distill.texts import read
from course_lib.methods.specs import load_bilstm
from course_lib.methods.table import METHODS

__all__ = ["METHODS", "Settings", "distill", "load_bilstm", "read"]
