"""Reading what strangers have written: JSON of any size and depth, names of any bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from typing import Any

MOST_PARTS = 1_000_000  # lists, dictionaries and strings of a JSON file; each takes some 100 bytes once it is read


class UnreadableError(Exception):
    """Bytes that are no JSON, or too much of it; the message is one sentence."""


def parsed(content: bytes, most: int) -> Any:
    """The value of a JSON text. Raises: UnreadableError, before memory is taken for it."""
    if len(content) > most:
        raise UnreadableError(f"It has more than {most / 1e6:.0f} MB.")
    if sum(map(content.count, (b"{", b"[", b","))) > 20 * MOST_PARTS or sum(map(content.count, (b"{", b"["))) > \
            MOST_PARTS:
        raise UnreadableError("It is made of far too many parts.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError("It is not valid JSON.") from error


def clean(text: str, most: int = 100_000_000) -> str:
    """Text without characters that no file and no page may hold: halves of characters, zeros, control characters."""
    text = text[:most].encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", "\N{REPLACEMENT CHARACTER}", text)


def code_text(text: str) -> str:
    """Code as a file can hold it: whole characters, no zeros, one kind of line end."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shown(name: str) -> str:
    """A file's name as one line that a terminal, a table and a page can show."""
    raw = os.fsencode(name)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("cp437")  # what a zip from Windows holds, read by a program that takes it for UTF-8
    text = unicodedata.normalize("NFC", text)
    return re.sub(r"[\t\n\r]+", " ", clean(text)).strip() or "(no name)"


def folder_name(name: str) -> str:
    """A name for folders and databases that no other name shares, also where capitals do not count.

    Lower-case letters, digits, - and _ stay as they are; a name with anything else gets a number of its own.
    """
    plain = re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name) and not re.search(r"-[0-9a-f]{16}$", name)
    if plain:
        return name
    simple = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:40]
    return f"{simple or 'student'}-{short(name)}"


def short(name: str) -> str:
    """Sixteen letters that stand for a name of any bytes."""
    return hashlib.sha256(os.fsencode(unicodedata.normalize("NFC", name))).hexdigest()[:16]
