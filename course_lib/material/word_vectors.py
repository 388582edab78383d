"""Word vectors that somebody else has trained: GloVe (Pennington, Socher, Manning 2014)."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.material.assets import asset


@cache
def glove() -> tuple[list[str], Float[Tensor, "400000 50"]]:
    """The words of GloVe 6B, all in lower case, most frequent first, and their vectors of width 50.

    Do not write into the result: it is loaded once and shared. Raises: AssetError if the files are not to be had.
    """
    from pyarrow import parquet  # comes with `datasets`

    words = parquet.read_table(asset("glove-6b-50d", "glove_6B_index.parquet"))["index"].to_pylist()
    return words, torch.from_numpy(np.load(asset("glove-6b-50d", "glove_6B_50d_emb.npy")))
