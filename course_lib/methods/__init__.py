"""One file per paper, and nothing in it that belongs to another paper. Read it beside the paper.

A loss is a pure function: student first, teacher second, then labels, then `mask`, then the knobs by name. `terms`
reads two models and returns the weighted terms of one batch. Each file lists where the original code differs.

Two files are no papers: `table` holds one record per method (its student, its stages, what it reads), `specs` makes the
student that a word such as "half" or "3x192" describes.
"""
