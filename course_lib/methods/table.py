"""The methods of the course by name. What each one is stands at the end of its paper's file, as `RECORD`.

`course_lib.shared.method` says what a record holds and who reads it. Two presets: "laptop" holds the values that the
chapters measured on two cores, "paper" holds the paper's (where a paper gives a grid, one point of it). Whoever needs
one method imports its record from its file: then a page does not depend on all the others.
"""

from __future__ import annotations

from course_lib.methods.bilstm import RECORD as BILSTM
from course_lib.methods.cached import RECORD as CACHED
from course_lib.methods.distilbert import RECORD as DISTILBERT
from course_lib.methods.hinton import RECORD as HINTON
from course_lib.methods.labels import RECORD as LABELS
from course_lib.methods.minilm import RECORD as MINILM
from course_lib.methods.mobilebert_schedule import RECORD as MOBILEBERT
from course_lib.methods.pkd import RECORD as PKD
from course_lib.methods.theseus import RECORD as THESEUS
from course_lib.methods.tinybert import RECORD as TINYBERT
from course_lib.shared.method import Method

METHODS: dict[str, Method] = {method.name: method for method in (
    LABELS, HINTON, BILSTM, DISTILBERT, PKD, TINYBERT, MOBILEBERT, MINILM, THESEUS, CACHED)}
