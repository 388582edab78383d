"""How nbval compares a chapter's stored outputs with a fresh run: floats within a tolerance, all else exactly.

* Every number with a decimal point or an exponent may differ by 0.001 + 0.001 * |stored value|.
* Whole numbers and words must be equal. White space counts as one space: columns move when a number gets longer.
* A cell tagged `tolerance-0.03` widens both parts of the rule to 0.03, and whole numbers follow it too: for what a
  training ends with. A wide tolerance on a small number compares nothing, so print such a number as a percentage.
* A cell whose output is a time, or cannot be repeated, is tagged `nbval-ignore-output`; better: print a verdict.
* Pictures, widget views, scripts, styles and stderr (warnings, progress bars) are not compared.
"""

from __future__ import annotations

import copy
import math
import os
import re

from nbval.plugin import IPyNbCell

from course_lib.notebook import UNWATCHED

DEFAULT_TOLERANCE = 1e-3
TOLERANCE_TAG = re.compile(r"tolerance-(\d+(?:\.\d+)?(?:e-?\d+)?)")
# A number stands alone: the 1 of "ch01", "v1" or "2x128" is part of a word. "-" directly after a digit is a hyphen.
NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?(?![\w]|\.\d)"
                    r"|(?<![\w.])[-+\u2212]?\.\d+(?:[eE][-+]?\d+)?(?![\w]|\.\d)")
COMPARED = ("text/plain", "text/html", "text/markdown", "text/latex")


def tolerance_of(tags: list[str]) -> float | None:
    """The tolerance that a cell's tags ask for, or None for the default.

    Raises: ValueError for a tag that looks like one and is not, so that a slip of the pen cannot pass unseen.
    """
    for tag in tags:
        if tag.startswith("tolerance"):
            match = TOLERANCE_TAG.fullmatch(tag)
            if match is None or not 0 < float(match[1]) < 1:
                raise ValueError(f"The tag '{tag}' is no tolerance; write tolerance-0.03 (between 0 and 1).")
            return float(match[1])
    return None


def numbers_agree(stored: str, fresh: str, tolerance: float | None) -> bool:
    """Compare two numbers as they are printed."""
    if stored == fresh:
        return True
    whole = {re.fullmatch(r"[-+\u2212]?[\d,]+", text) is not None for text in (stored, fresh)}
    if len(whole) == 2 or (True in whole and tolerance is None):  # 1 and 1.0 are not of one kind
        return False
    a, b = (float(text.replace(",", "").replace("\u2212", "-")) for text in (stored, fresh))
    allowed = DEFAULT_TOLERANCE if tolerance is None else tolerance
    # The sum a + allowed * |a| is inexact in the last bit: "0.001 apart" must not hang on that bit.
    return math.isfinite(a) and abs(a - b) <= (allowed + allowed * abs(a)) * (1 + 1e-9)


def texts_agree(stored: str, fresh: str, tolerance: float | None = None) -> bool:
    """Compare two outputs: the words between the numbers exactly, the numbers within the tolerance."""
    stored, fresh = visible(stored), visible(fresh)
    if NUMBER.sub("#", stored) != NUMBER.sub("#", fresh):
        return False
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(fresh), strict=True)
    return all(numbers_agree(a, b, tolerance) for a, b in pairs)


def visible(text: str) -> str:
    """Leave out what is not text for a reader: scripts, styles, embedded pictures, memory addresses."""
    text = re.sub(r"<(style|script)\b.*?</\1\s*>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"data:[\w/+.;-]+,[\w/+=%-]*", "data:", text)
    text = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x…", text)
    text = re.sub(r"-{3,}|\u2500{3,}", "---", text)  # rules grow with the columns
    return " ".join(text.split())


def _texts(outputs: list[dict]) -> list[tuple[dict, str]]:
    """Every compared text in a list of outputs, as (holder, key), in order."""
    found = []
    for output in outputs:
        holder = output.get("data", output)
        found += [(holder, key) for key in (*COMPARED, "text") if isinstance(holder.get(key), str)]
    return found


def _without_stderr(outputs: list[dict]) -> list[dict]:
    return [output for output in outputs if output.get("name") != "stderr"]


_compare_exactly = IPyNbCell.compare_outputs


def _compare_within_tolerance(self, test, ref, skip_compare=None):
    """Where two texts agree, hand nbval the stored one twice; its own exact comparison does the rest."""
    tolerance = tolerance_of(self.cell.metadata.get("tags", []))
    test, ref = copy.deepcopy(_without_stderr(test)), _without_stderr(ref)
    for (fresh, key), (stored, stored_key) in zip(_texts(test), _texts(ref), strict=False):
        if key == stored_key and texts_agree(stored[key], fresh[key], tolerance):
            fresh[key] = stored[key]
    return _compare_exactly(self, test, ref, (*(skip_compare or self.parent.skip_compare), "image/svg+xml"))


def pytest_configure(config) -> None:
    IPyNbCell.compare_outputs = _compare_within_tolerance
    os.environ.update(UNWATCHED)  # the kernels inherit it
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
