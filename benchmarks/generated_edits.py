"""Generates edits for the scorecard: one-line code fixes in real files, and corrections in ten languages.

Code comes from Python's standard library, which every machine has: a line is damaged as a model would get it wrong, and
the original is the person's correction. Nothing here was looked at while rules were written except its counts.
"""

import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fix:
    """One correction of a damaged line: the kind of damage, the file around it and the two forms of the line."""

    kind: str
    before: str
    """Text of the file in front of the line, of any length."""
    damaged: str
    correct: str
    after: str

    def in_context(self, characters: int) -> tuple[str, str]:
        """Return (damaged, correct) inside about so many characters of the file, cut at line breaks."""
        half = characters // 2
        head = self.before[-half:].partition("\n")[2] if half < len(self.before) else self.before
        tail = self.after[:half].rpartition("\n")[0] if half < len(self.after) else self.after
        if not characters:
            head = tail = ""
        return f"{head}{self.damaged}\n{tail}", f"{head}{self.correct}\n{tail}"


_DAMAGES: dict[str, tuple[str, str]] = {
    "comparison": (r" < ", " <= "),
    "comparison_strict": (r" >= ", " > "),
    "equality": (r" == ", " != "),
    "boolean_operator": (r" and ", " or "),
    "negation": (r"if not ", "if "),
    "literal": (r"\bTrue\b", "False"),
    "none": (r"is not None", "is None"),
    "index": (r"\[0\]", "[-1]"),
    "off_by_one": (r"\+ 1\b", "- 1"),
    "method": (r"\.append\(", ".extend("),
    "default": (r"=None\b", "=0"),
    "exception": (r"\bValueError\b", "KeyError"),
    "method_strip": (r"\.lstrip\(", ".strip("),
    "range": (r"range\(1, ", "range("),
    "augmented": (r" \+= ", " -= "),
    "return": (r"\breturn self\b", "return None"),
}
_MODULES = ("json", "email", "http", "logging", "unittest", "asyncio", "importlib", "urllib", "xml", "concurrent")


def generate_code_fixes(rows: int, seed: int = 7) -> Iterator[Fix]:
    """Generate fixes of many kinds, each in another line, from files of at least 80 KB repeated context."""
    drawn = random.Random(seed)
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for module in _MODULES for file in (library / module).rglob("*.py") if "test" not in file.parts)
    texts = [file.read_text("utf-8", "replace") for file in files]
    whole = "\n".join(texts)
    lines = whole.split("\n")
    starts, position = [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    candidates = [
        (number, kind)
        for number, line in enumerate(lines)
        if 12 < len(line) < 160 and not line.lstrip().startswith(("#", '"', "'"))
        for kind, (pattern, _) in _DAMAGES.items()
        if re.search(pattern, line)
    ]
    drawn.shuffle(candidates)
    per_kind = dict.fromkeys(_DAMAGES, 0)
    most = -(-rows // len(_DAMAGES)) + 2
    given = 0
    for number, kind in candidates:
        if given == rows:
            return
        if per_kind[kind] >= most:
            continue
        pattern, wrong = _DAMAGES[kind]
        correct = lines[number]
        damaged = re.sub(pattern, wrong, correct, count=1)
        if damaged == correct:
            continue
        start = starts[number]
        reach = 60_000
        per_kind[kind] += 1
        given += 1
        yield Fix(
            kind,
            whole[max(0, start - reach) : start],
            damaged,
            correct,
            whole[start + len(correct) + 1 : start + len(correct) + 1 + reach],
        )


# (sentence with {n} and a negation, its damaged form): an answer of some length, of which one fact was wrong.
_LANGUAGES = {
    "en": ("The museum opens at {n} o'clock and children do not pay.", "not ", ""),
    "de": ("Das Museum öffnet um {n} Uhr, und Kinder zahlen keinen Eintritt.", "keinen ", ""),
    "fr": ("Le musée ouvre à {n} heures et les enfants ne paient pas.", "ne paient pas", "paient"),
    "es": ("El museo abre a las {n} y los niños no pagan.", "no ", ""),
    "it": ("Il museo apre alle {n} e i bambini non pagano.", "non ", ""),
    "pt": ("O museu abre às {n} horas e as crianças não pagam.", "não ", ""),
    "pl": ("Muzeum otwiera się o godzinie {n}, a dzieci nie płacą.", "nie ", ""),
    "ru": ("Музей открывается в {n} часов, и дети не платят.", "не ", ""),
    "zh": ("博物馆{n}点开门，儿童不用买票。", "不用", "要"),
    "ar": ("يفتح المتحف في الساعة {n} والأطفال لا يدفعون.", "لا ", ""),
}
_FILLER = {
    "en": "It stands in the old town next to the river.",
    "de": "Es steht in der Altstadt neben dem Fluss.",
    "fr": "Il se trouve dans la vieille ville près de la rivière.",
    "es": "Está en el casco antiguo junto al río.",
    "it": "Si trova nel centro storico vicino al fiume.",
    "pt": "Fica no centro histórico junto ao rio.",
    "pl": "Stoi na starym mieście obok rzeki.",
    "ru": "Он стоит в старом городе рядом с рекой.",
    "zh": "它位于老城区的河边。",
    "ar": "يقع في المدينة القديمة بجانب النهر.",
}


def generate_language_fixes(sentences: int = 12) -> Iterator[tuple[str, str, str, str]]:
    """Generate (language, kind, damaged, correct): one number or one negation among so many sentences."""
    for language, (sentence, negation, without) in _LANGUAGES.items():
        filler = " ".join([_FILLER[language]] * sentences)
        correct = f"{sentence.format(n=10)} {filler}"
        yield language, "number", f"{sentence.format(n=11)} {filler}", correct
        yield language, "negation", correct.replace(negation, without, 1), correct
