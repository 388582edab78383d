"""Graded assignments for a class, from the same exercises that the chapters show.

    make assignments                      release notebooks, hidden tests, an nbgrader course in class/
    make grade SUBMISSIONS=FOLDER         grade every file in FOLDER, several at a time

    assignments.py   a chapter becomes an nbgrader assignment; handout.py packs what students get
    submissions.py   whatever a student hands in becomes cells; untrusted.py reads JSON and names of strangers
    sandbox.py       where their code runs: bubblewrap, or a plain process with limits; inside.py and limits.py are
                     the other side
    grading.py       one submission: its cells run in the sandbox, the answers are judged outside of it
    running.py       many submissions: several at a time, only what changed, here or on Dask workers
    overrides.py     points given by hand; pages.py: what a student and formgrader see; report.py: what you see

The students' machines need nothing of this folder, and the wheel does not contain it.
"""
