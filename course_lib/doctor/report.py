"""What the doctor says: findings with a number each, as text, as a notebook view, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from html import escape
from typing import Literal

Severity = Literal["error", "warning", "note", "ok"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note", "ok")
COLOURS = {"error": "#d55e00", "warning": "#e69f00", "note": "#56b4e9", "ok": "#009e73"}  # Okabe-Ito


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    severity: "error" = the run cannot teach what you want; "warning" = it will teach less; "note" = good to know, or
        it could not be looked at; "ok" = looked at and healthy
    name: which check speaks
    what: what was measured, in words
    value, healthy, threshold: the evidence: `value` was found, healthy is `value <= threshold` (or >=, ==)
    why: one or two sentences. fix: a line of code to paste. chapter: where the book explains it.
    """

    severity: Severity
    name: str
    what: str
    value: float | None = None
    healthy: Literal["<=", ">=", "=="] = "<="
    threshold: float | None = None
    why: str = ""
    fix: str = ""
    chapter: str = ""

    @property
    def evidence(self) -> str:
        """`share 0.97 (healthy: <= 0.85)`, or the words alone where nothing was counted."""
        if self.value is None:
            return self.what
        limit = "" if self.threshold is None else f" (healthy: {self.healthy} {_number(self.threshold)})"
        return f"{self.what}: {_number(self.value)}{limit}"

    def __str__(self) -> str:
        rows = [f"{self.severity.upper():8}{self.name}: {self.evidence}"]
        for label, text in (("why", self.why), ("fix", self.fix), ("see", self.chapter)):
            rows += [f"{'':8}{label if i == 0 else '':4}{line}" for i, line in enumerate(text.splitlines())]
        return "\n".join(rows)


def compare(severity: Severity, name: str, what: str, value: float, healthy: Literal["<=", ">=", "=="],
            threshold: float, *, why: str = "", fix: str = "", chapter: str = "") -> Finding:
    """A finding of this severity if `value` is outside its threshold (NaN is outside); otherwise "ok"."""
    inside = {"<=": value <= threshold, ">=": value >= threshold, "==": value == threshold}[healthy]
    if inside:
        return Finding("ok", name, what, value, healthy, threshold)
    return Finding(severity, name, what, value, healthy, threshold, why, fix, chapter)


@dataclass(frozen=True)
class Report:
    """All findings, the most serious first; within one severity, causes stand before what they cause."""

    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: list[Finding]) -> Report:
        return cls(tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity))))  # sorted() is stable

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Errors and warnings."""
        return tuple(f for f in self.findings if f.severity in ("error", "warning"))

    @property
    def healthy(self) -> bool:
        return not self.problems

    def named(self, name: str) -> tuple[Finding, ...]:
        """What one check said."""
        return tuple(f for f in self.findings if f.name == name)

    @property
    def headline(self) -> str:
        counts = {s: sum(f.severity == s for f in self.findings) for s in ORDER}
        return (f"{counts['error']} error(s), {counts['warning']} warning(s), {counts['note']} note(s), "
                f"{counts['ok']} check(s) passed")

    def __str__(self) -> str:
        spoken = [str(f) for f in self.findings if f.severity != "ok"]
        passed = ", ".join(dict.fromkeys(f.name for f in self.findings if f.severity == "ok"))
        return "\n\n".join([f"Doctor: {self.headline}", *spoken] + ([f"{'OK':8}{passed}"] if passed else []))

    __repr__ = __str__

    def to_json(self) -> str:
        """{"healthy": ..., "findings": [{...}, ...]}; a number that is not finite becomes null."""
        rows = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(f).items()}
                for f in self.findings]
        return json.dumps({"healthy": self.healthy, "findings": rows}, indent=1, ensure_ascii=False, allow_nan=False)

    def _repr_html_(self) -> str:
        """No script, and no colour of its own for text or page: it can be read in light and dark."""
        spoken = "".join(_html(f) for f in self.findings if f.severity != "ok")
        passed = [f"<li>{escape(f.name)}: {escape(f.evidence)}</li>" for f in self.findings if f.severity == "ok"]
        healthy = f"<details><summary>Passed</summary><ul>{''.join(passed)}</ul></details>" if passed else ""
        return ('<div class="course-doctor tex2jax_ignore mathjax_ignore" role="region" aria-label="Doctor\'s report">'
                f"<p><strong>Doctor: {escape(self.headline)}</strong></p>{spoken}{healthy}</div>")


def _html(finding: Finding) -> str:
    fix = f'<pre style="overflow-x:auto;margin:0.3em 0"><code>{escape(finding.fix)}</code></pre>' if finding.fix else ""
    rest = "<br>".join(escape(text) for text in (finding.evidence, finding.why) if text)
    chapter = f"<em>{escape(finding.chapter)}</em>" if finding.chapter else ""
    return (f'<div style="border-left:4px solid {COLOURS[finding.severity]};padding:0.2em 0.8em;margin:0.6em 0">'
            f"<strong>{finding.severity}: {escape(finding.name)}</strong><br>{rest}{fix}{chapter}</div>")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"
