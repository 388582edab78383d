"""A hands-on course on distilling BERT: the library beside the book."""

__version__ = "0.1.0"
