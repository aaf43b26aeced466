"""Finds texts that are no text: one unit over and over, towers of accents, invisible characters.

Judged in the chosen text, because that is what the model would learn to write. Emoji, Persian and Hindi need joiners,
Hebrew and Arabic need direction marks, Vietnamese needs two accents on one letter, and Markdown and code repeat signs:
none of that is found.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_assets.curation.arrow import Array
from flywheel_assets.curation.policy.verdicts import Action, Evidence, Hazard, Judgement, Pattern, Verdict
from flywheel_assets.ranges import Checked, Count, Name, Share
from flywheel_assets.records import Reason

_ACCENTS = "[\u0300-\u034e\u0350-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_INVISIBLE = "[\u034f\u115f\u1160\u180e\u200b-\u200d\u2060-\u2064\u3164\ufeff\uffa0]"
_RIGHT_TO_LEFT_LETTER = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")


def is_without_cause(match: re.Match[str]) -> bool:
    """Accept a change of direction in a text without any letter that is written from right to left."""
    return not _RIGHT_TO_LEFT_LETTER.search(match.string)


def _make_structural_pattern(name: str, expression: str, score: float, accepts: object = None) -> Pattern:
    return Pattern(
        name,
        re.compile(expression),
        expression,
        Action.QUARANTINE,
        Reason.STRUCTURAL_ABUSE,
        Hazard.STRUCTURAL_ABUSE,
        fields=("chosen",),
        score=score,
        **({"accepts": accepts} if accepts else {}),  # type: ignore[arg-type]
    )


STRUCTURE = (
    _make_structural_pattern("stacked_accents", f"{_ACCENTS}{{3}}", 0.8),
    _make_structural_pattern("invisible_characters", f"[A-Za-z]{_INVISIBLE}+[A-Za-z]|{_INVISIBLE}{{4}}", 0.8),
    # Overrides reorder what a reviewer sees against what the model reads (Trojan Source, CVE-2021-42574).
    _make_structural_pattern("direction_override", "[\u202d\u202e]", 0.9),
    _make_structural_pattern("direction_change", "[\u202a\u202b\u2066-\u2068]", 0.6, is_without_cause),
    # Two in a row carry hidden bytes; an emoji has one.
    _make_structural_pattern("variation_selectors", "[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}", 0.9),
)


_EQUAL_WORDS = 3
"""Words of eight bytes that must agree with the shifted text: every run of 31 bytes or more holds so many."""


@dataclass(frozen=True)
class RepetitionCheck(Checked):
    """Finds texts most of which is one unit of up to `longest_unit` characters, over and over.

    A text is compared with itself, shifted by every possible length of the unit, eight bytes at a time and for the
    whole column at once: 0.9 µs per text of 100 characters. Splitting each text into words took 3 µs, and missed what
    has none.
    """

    longest_unit_bytes: Count = 24
    share: Share = 0.5
    """Of the text's characters, from which repetition is all there is to it."""
    name: Name = "repetition"

    @property
    def version(self) -> str:
        """Changes with both settings."""
        return f"1-{self.longest_unit_bytes}-{self.share}"

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every row; a repetition in the model's text as well is not the edit's doing."""
        chosen = texts["chosen"].combine_chunks()
        passed = np.ones(len(texts), dtype=bool)
        verdicts: dict[int, Verdict] = {}
        for row in self._find_suspects(chosen).tolist():
            span = self._find_repeated_part(chosen[row].as_py())
            if span is None or self._find_repeated_part(texts["rejected"][row].as_py() or ""):
                continue
            found = Evidence(self.name, Hazard.STRUCTURAL_ABUSE, 0.8, "chosen", *span)
            verdicts[row] = Verdict(Action.QUARANTINE, Reason.STRUCTURAL_ABUSE, f"{self.name} in chosen", (found,))
            passed[row] = False
        return Judgement(passed, verdicts)

    def _find_suspects(self, texts: Array) -> npt.NDArray[np.int64]:
        """Find rows with a stretch that equals itself when it is shifted by some unit's length."""
        _, offset_buffer, data = texts.buffers()
        if data is None or len(texts) == 0:
            return np.zeros(0, np.int64)
        offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]  # type: ignore[call-overload]
        content = data.slice(offsets[0], offsets[-1] - offsets[0]).to_pybytes()
        hits = [np.zeros(0, np.int64)]
        for unit in range(1, self.longest_unit_bytes + 1):
            words = (len(content) - unit) // 8
            if words >= _EQUAL_WORDS:
                same = np.frombuffer(content, np.uint64, words) == np.frombuffer(content, np.uint64, words, unit)
                several = same[2:] & same[1:-1] & same[:-2]
                hits.append(np.flatnonzero(several) * 8)
        places = np.unique(np.concatenate(hits)) + offsets[0]
        rows: npt.NDArray[np.int64] = np.unique(np.searchsorted(offsets, places, side="right") - 1)
        return rows

    def _may_repeat(self, text: str) -> bool:
        """Return whether enough characters equal the one a unit's length behind; the search costs 40 times as much."""
        characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        fewest = self.share * len(text.strip())
        return any(
            np.count_nonzero(characters[unit:] == characters[:-unit]) + unit >= fewest
            for unit in range(1, min(_LONGEST_REPEATED, len(characters) - 1) + 1)
        )

    def _find_repeated_part(self, text: str) -> tuple[int, int] | None:
        """Find the longest stretch of one unit; None if it is short or has no letter or rare sign."""
        if not self._may_repeat(text):
            return None
        longest = max(_REPEATED.finditer(text), key=lambda match: len(match.group()), default=None)
        if longest is None or len(longest.group()) < self.share * len(text.strip()):
            return None
        return longest.span() if _SAYS_SOMETHING.search(longest["unit"]) else None


# Five times or more. `.` and `+?` on at most 24 characters: no more than 24 comparisons begin at any place.
_LONGEST_REPEATED = 24
_REPEATED = re.compile(rf"(?P<unit>.{{1,{_LONGEST_REPEATED}}}?)(?P=unit){{4,}}", re.DOTALL)
# Signs and digits repeat in tables, rulers, matrices and hashes.
_SAYS_SOMETHING = re.compile(r"[^\x00-\x40\x5b-\x60\x7b-\xa0\u2500-\u259f\u2014\u2026]")
