"""A hands-on course on distilling BERT: the library beside the book. Each room imports only the rooms below it.

    distill/       the command for your own models
    experiments/   what every chapter measures, and the numbers that were measured
    doctor/        looks at a student and a teacher and says what is wrong
    mistakes/      the mistakes of the field, with names, to be switched on
    notebook/      what a chapter shows: tables, plots, explorers, exercises
    methods/       one file per paper: begin here
    material/      texts, teachers, word vectors
    shared/        what several papers need: masks, layer maps, projections, students, the training loop
"""

__version__ = "0.1.0"
