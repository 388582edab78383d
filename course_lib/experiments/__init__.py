"""The experiments behind the tables of the book, one module per chapter; `course_lib.experiments` runs them."""
