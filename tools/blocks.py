"""A page with a part that is written by a script, between two marks."""

from __future__ import annotations


def with_block(page: str, text: str, block: str, name: str = "chapters", command: str = "make contents") -> str:
    """The page with everything between its two marks replaced. Raises: SystemExit where the marks are missing."""
    begin, end, gap = f"<!-- {name}: begin ({command}) -->", f"<!-- {name}: end -->", "\n\n"
    if page.endswith(".yml"):
        begin, end, gap = f"  # {name}: begin ({command})", f"  # {name}: end", "\n"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} must have the lines {begin.strip()!r} and {end.strip()!r}.")
    return f"{before}{begin}{gap}{block}{gap if block else ''}{end}{after}"
