"""The raw files behind the data sets, parsed: movie text, Wikipedia leads and articles, two Bible translations."""

from __future__ import annotations

import ast
import bz2
import csv
import html
import io
import json
import re
from functools import cache

import numpy as np

from course_lib.material.assets import asset


@cache
def movie_sentences() -> list[dict]:
    """Sentences of movie reviews, {"text", "rating"}: the mean rating of human readers in [-4, 4]."""
    lines = asset("movie-sentences", "movieReviewSnippets_GroundTruth.txt").read_text("utf-8").splitlines()[1:]
    columns = [line.split("\t") for line in lines]
    return [{"text": text.strip(), "rating": float(rating)} for _, rating, text in columns]


def movie_text() -> list[dict]:
    """{"text", "source"}: sentences of the same reviewers ("review"), and of plot summaries ("plot", 5 to 60 words)."""
    packed = asset("movie-text", "rotten_tomatoes_corpus_full.csv.bz2").read_bytes()
    found = []
    for row in csv.DictReader(io.StringIO(bz2.decompress(packed).decode("utf-8"), newline="")):
        if row["category"] == "plot":
            sentences = re.split(r"(?<=[.!?])\s+(?=[\"“(]?[A-Z])|\n+", row["text"])
            found += [{"text": s.strip(), "source": "plot"} for s in sentences if 5 <= len(s.split()) <= 60]
        else:
            found.append({"text": row["text"].strip(), "source": "review"})
    return found


@cache
def leads() -> list[dict]:
    path = asset("wikipedia-leads", "summaries_en-us.json")
    return list(json.loads(path.read_text("utf-8")).values())


@cache
def articles() -> list[dict]:
    """Paragraphs of at least 200 characters of the full articles, wiki markup removed."""
    (file,) = asset("wikipedia-articles").glob("*.bz2")
    xml = bz2.decompress(file.read_bytes()).decode("utf-8")
    pages = re.findall(r"<title>([^<]*)</title>.*?<text[^>]*>(.*?)</text>", xml, flags=re.DOTALL)
    rows = []
    for title, wikitext in pages:
        paragraphs = strip_markup(html.unescape(wikitext)).split("\n")
        rows += [{"title": title, "text": p.strip()} for p in paragraphs if len(p.strip()) >= 200]
    return rows


def strip_markup(wikitext: str) -> str:
    """Plain prose out of wiki markup: enough for training text, not a full parser."""
    text = re.sub(r"<!--.*?-->|<ref[^>/]*/>|<ref[^>]*>.*?</ref>|<(math|gallery|code|pre|timeline)[^>]*>.*?</\1>", "",
                  wikitext, flags=re.DOTALL)
    innermost = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\|).)*?\|\}", flags=re.DOTALL)
    while innermost.search(text):  # templates and tables are nested: peel them from the inside
        text = innermost.sub("", text)
    text = re.sub(r"\[\[(?:File|Image|Category)[^\[\]]*(?:\[\[[^\]]*\]\][^\[\]]*)*\]\]", "", text)
    text = re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"<[^>]+>|'{2,}|^[=*#:;|!].*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\([\s,;]*\)", "", re.sub(r"[ \t\u00a0]+", " ", html.unescape(text)))


def bible(name: str) -> tuple[str, dict[int, int], dict[int, int]]:
    """Text, and where each verse starts and ends; the package's Python file is parsed as text and never run."""
    tree = ast.parse(asset(name, "plain_text_bible.py").read_text("utf-8"))
    call = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    return tuple(ast.literal_eval(call.args[i]) for i in (1, 2, 3))

# "12." before a space, a quotation mark or a note; sometimes the space before it is missing ("Egypt.1. Now").
_VERSE_NUMBER = r"(?<![\d,])\d{1,3}\.(?=[\s\"\\])"


def aligned_verses() -> dict[int, list[tuple[int, str, str]]]:
    """book -> [(chapter, verse in the Web, the same verse in the BBE)].

    The verse table of the second translation drifts (from Genesis 43 on; by some thirty verses at the end), so its
    numbers are not trusted. Per book we cut its text at the printed verse numbers, with some slack on both sides, and
    take the monotone alignment with the largest sum of TF-IDF similarities; pairs that share few words are dropped.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    web, starts, ends = bible("bible-web")
    bbe, drifting, _ = bible("bible-bbe")
    slack, aligned = 8_000, {}
    for book in sorted({verse // 1_000_000 for verse in starts}):  # 1001002 = book 1, chapter 1, verse 2
        verses = [v for v in starts if v // 1_000_000 == book]
        left = [clean_verse(web[starts[v] : ends[v]]) for v in verses]
        first = min(drifting[v] for v in drifting if v // 1_000_000 == book)
        last = max(drifting[v] for v in drifting if v // 1_000_000 == book)
        stretch = bbe[max(0, first - slack) : last + slack]
        right = [clean_verse(piece) for piece in re.split(_VERSE_NUMBER, stretch)[1:-1]]
        vectors = TfidfVectorizer(sublinear_tf=True).fit(left + right)
        similarity = (vectors.transform(left) @ vectors.transform(right).T).toarray()
        aligned[book] = [(verses[i] // 1000 % 1000, left[i], right[j]) for i, j in best_alignment(similarity)
                         if similarity[i, j] >= 0.2]
    return aligned


def clean_verse(text: str) -> str:
    """Without the verse number, the notes between backslashes and the book titles in capitals."""
    text = re.sub(r"\\[^\\]*\\|^\s*\d+\.", " ", text)
    return re.sub(r"\s+", " ", text).replace("`", "'").strip()


def best_alignment(similarity: np.ndarray) -> list[tuple[int, int]]:
    """The monotone matching of rows to columns with the largest total similarity (rows and columns may be skipped)."""
    rows, columns = similarity.shape
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        step = np.maximum(best[i, 1:], best[i, :-1] + similarity[i])
        best[i + 1, 1:] = np.maximum.accumulate(step)
    pairs, i, j = [], rows, columns
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
