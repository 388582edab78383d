"""Graded assignments for a class, from the same exercises that the chapters show.

    make assignments                      release notebooks, hidden tests, an nbgrader course in class/
    make grade SUBMISSIONS=FOLDER         grade every file in FOLDER, several at a time

    assignments.py   a chapter becomes an nbgrader assignment
    submissions.py   whatever a student hands in becomes a notebook of that assignment
    sandbox.py       where their code runs: bubblewrap, or a plain process with limits; inside.py is the other side
    grading.py       one submission: nbgrader runs it in the sandbox, the answers are judged outside of it
    running.py       many submissions: several at a time, only what changed, here or on Dask workers
    report.py        scores.csv and the class report

The students' machines need nothing of this folder, and the wheel does not contain it.
"""
