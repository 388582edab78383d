"""How fast, how small, what teaching costs: measured with random or real weights, as ratios with their spread.

    python -m course_lib.experiments.speed               all parts, about ten minutes on two quiet cores
    python -m course_lib.experiments.speed cost          one part; the others stay as they were measured
    python -m course_lib.experiments.speed --quick       a smoke run with the smallest sizes: prints, and keeps nothing

Each part writes its share of data/results/bench.json; the page "How fast, how small, what teaching costs" of the book
is made from that file (`course_lib.experiments.speed.page`).
"""
