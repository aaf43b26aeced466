"""Generates edits for the scorecard: one-line code fixes in real files, and corrections in ten languages.

Code comes from Python's standard library, which every machine has: a line is damaged as a model would get it wrong, and
the original is the person's correction. Only code is damaged, no comment and no string. Nothing here was looked at
while rules were written except its counts. Secrets and identifiers are drawn at random; none of them ever existed.
"""

import io
import random
import re
import sysconfig
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import import_module
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
    "return": (r"\breturn self$", "return None"),
}
_MODULES = ("json", "email", "http", "logging", "unittest", "asyncio", "importlib", "urllib", "xml", "concurrent")


def generate_code_fixes(rows: int, seed: int = 7, *, keeps_addresses: bool = False) -> Iterator[Fix]:
    """Generate fixes of many kinds, each in another line, with up to 60,000 characters around it.

    The authors' mail addresses are replaced by reserved ones, unless they are kept: an address is a reason of its own.
    """
    drawn = random.Random(seed)
    whole, lines, code = _read_code(keeps_addresses)
    starts, position = [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    candidates = [
        (number, kind)
        for number, line in enumerate(code)
        if 12 < len(line.strip()) < 160
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
        found = re.search(pattern, code[number])
        assert found is not None
        damaged = correct[: found.start()] + wrong + correct[found.end() :]
        start, reach = starts[number], 60_000
        per_kind[kind] += 1
        given += 1
        yield Fix(
            kind,
            whole[max(0, start - reach) : start],
            damaged,
            correct,
            whole[start + len(correct) + 1 : start + len(correct) + 1 + reach],
        )


def _read_code(keeps_addresses: bool) -> tuple[str, list[str], list[str]]:
    """Read files of the standard library: the whole text, its lines, and the lines with strings and comments blank."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for module in _MODULES for file in (library / module).rglob("*.py") if "test" not in file.parts)
    texts, code = [], []
    for file in files:
        text = file.read_text("utf-8", "replace").rstrip("\n")
        if not keeps_addresses:
            text = _ADDRESS.sub("author@example.org", text)
        texts.append(text)
        code += _blank_strings(text)
    whole = "\n".join(texts)
    return whole, whole.split("\n"), code


def _blank_strings(text: str) -> list[str]:
    lines = [list(line) for line in text.split("\n")]
    for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline):
        if token.type not in _NO_CODE:
            continue
        for number in range(token.start[0], token.end[0] + 1):
            line = lines[number - 1]
            first = token.start[1] if number == token.start[0] else 0
            last = token.end[1] if number == token.end[0] else len(line)
            line[first:last] = "\0" * (last - first)
    return ["".join(line) for line in lines]


_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# From Python 3.12 on an f-string is several tokens.
_NO_CODE = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


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
        for wrong, right in ((11, 10), (9, 19), (8, 18)):
            correct = f"{sentence.format(n=right)} {filler}"
            yield language, "number", f"{sentence.format(n=wrong)} {filler}", correct
            yield language, "negation", correct.replace(negation, without, 1), correct


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_HEX = "0123456789abcdef"


def generate_secrets(per_shape: int = 20, seed: int = 11) -> Iterator[tuple[str, str]]:
    """Generate (shape, line of a configuration or a shell with a secret)."""
    drawn = random.Random(seed)

    def draw(length: int, alphabet: str = _LETTERS) -> str:
        return "".join(drawn.choices(alphabet, k=length))

    def draw_uuid() -> str:
        return "-".join(draw(length, _HEX) for length in (8, 4, 4, 4, 12))

    shapes: dict[str, Callable[[], str]] = {
        "AWS access key": lambda: f"aws_access_key_id = AKIA{draw(16, _LETTERS[:26] + '234567')}",
        "AWS secret key": lambda: f"AWS_SECRET_ACCESS_KEY={draw(40)}",
        "curl -u": lambda: f"curl -u admin:{draw(14)} https://api.example.org/v1",
        "GitHub token": lambda: f"token: ghp_{draw(36)}",
        "password in URL": lambda: f"postgres://app:{draw(16)}@db.internal:5432/app",
        "api_key of 32": lambda: f'api_key = "{draw(32)}"',
        "OpenAI key": lambda: f"Authorization: Bearer sk-proj-{draw(48)}",
        "Slack token": lambda: f"SLACK=xoxb-{draw(12, '0123456789')}-{draw(12, '0123456789')}-{draw(24)}",
        "password of 18": lambda: f"password = '{draw(18)}'",
        "UUID behind TOKEN=": lambda: f"SERVICE_TOKEN={draw_uuid()}",
        "private key": lambda: f"-----BEGIN RSA PRIVATE KEY-----\n{draw(64)}",
    }
    for shape, write in shapes.items():
        for _ in range(per_shape):
            yield shape, write()


def generate_identifiers(per_shape: int = 40, seed: int = 13) -> Iterator[tuple[str, str]]:
    """Generate (shape, sentence) with numbers and codes that are no personal data and no secret."""
    drawn = random.Random(seed)

    def digits(count: int) -> str:
        return "".join(drawn.choices("0123456789", k=count))

    def hexes(count: int) -> str:
        return "".join(drawn.choices(_HEX, k=count))

    shapes: dict[str, Callable[[], str]] = {
        "order number": lambda: f"Order {digits(10)} was shipped on Tuesday.",
        "order number in groups": lambda: f"Please quote order {digits(3)}-{digits(7)}-{digits(7)} when you write.",
        "ticket": lambda: f"See ticket 0{digits(3)}-{digits(6)} for the history.",
        "ISBN": lambda: f"The book has the ISBN 978-{digits(1)}-{digits(3)}-{digits(5)}-{digits(1)}.",
        "time in seconds": lambda: f"The event arrived at 17{digits(8)} and was written at once.",
        "time in milliseconds": lambda: f"created_at: 17{digits(11)}",
        "UUID": lambda: f"id: {hexes(8)}-{hexes(4)}-4{hexes(3)}-a{hexes(3)}-{hexes(12)}",
        "commit": lambda: f"This was fixed in {hexes(40)}.",
        "version": lambda: f"Version {drawn.randint(1, 40)}.{digits(1)}.{digits(2)}.{digits(3)} has the fix.",
        "large number": lambda: f"It counted {digits(3)} {digits(3)} {digits(3)} visits last year.",
        "part number": lambda: f"Replace part {digits(4)}-{digits(3)}-{digits(3)} on both sides.",
        "coordinates": lambda: f"The mast stands at {drawn.uniform(1, 60):.6f}, {drawn.uniform(1, 60):.6f}.",
        "checksum": lambda: f"sha256 = {hexes(64)}",
        "date and time": lambda: f"It ran from 2025-0{drawn.randint(1, 9)}-1{digits(1)} 0{digits(1)}:15:30 to noon.",
    }
    for shape, write in shapes.items():
        for _ in range(per_shape):
            yield shape, write()


def generate_national_ids(per_shape: int = 40, seed: int = 17) -> Iterator[tuple[str, str, bool]]:
    """Generate (country, sentence, valid) with national identity numbers, valid ones and as many that are not.

    Valid is what python-stdnum says, which the policy does not use. The sentences do not say what the number is.

    Raises:
        ImportError: python-stdnum is not installed.
    """
    drawn = random.Random(seed)

    def digits(count: int) -> str:
        return "".join(drawn.choices("0123456789", k=count))

    def letters(count: int) -> str:
        return "".join(drawn.choices("BCDFGLMNPRSTV", k=count))

    def born(form: str) -> str:
        return (date(1950, 1, 1) + timedelta(drawn.randrange(18_000))).strftime(form)

    shapes: dict[str, tuple[str, Callable[[], str]]] = {
        "Spain": ("es.dni", lambda: digits(8) + drawn.choice("TRWAGMYFPDXBNJZSQVHLCKE")),
        "France": ("fr.nir", lambda: f"{drawn.choice('12')}{digits(2)}{born('%m')}{digits(10)}"),
        "Italy": (
            "it.codicefiscale",
            lambda: (
                f"{letters(6)}{born('%y')}{drawn.choice('ABCDEHLMPRST')}{born('%d')}{letters(1)}{digits(3)}{letters(1)}"
            ),
        ),
        "Brazil": ("br.cpf", lambda: f"{digits(3)}.{digits(3)}.{digits(3)}-{digits(2)}"),
        "China": ("cn.ric", lambda: f"110105{born('%Y%m%d')}{digits(4)}"),
        "Finland": ("fi.hetu", lambda: f"{born('%d%m%y')}-{digits(3)}{drawn.choice('0123456789ABCDEFHJKLMN')}"),
        "Belgium": ("be.nn", lambda: f"{born('%y.%m.%d')}-{digits(3)}.{digits(2)}"),
        "Switzerland": ("ch.ssn", lambda: f"756.{digits(4)}.{digits(4)}.{digits(2)}"),
        "Sweden": ("se.personnummer", lambda: f"{born('%y%m%d')}-{digits(4)}"),
        "Poland, not looked for": ("pl.pesel", lambda: f"{born('%y%m%d')}{digits(5)}"),
        "Netherlands, not looked for": ("nl.bsn", lambda: digits(9)),
    }
    for country, (module, write) in shapes.items():
        is_valid = import_module(f"stdnum.{module}").is_valid
        for valid in (True, False):
            for _ in range(per_shape):
                number = next(each for each in iter(write, None) if is_valid(each) is valid)
                yield country, f"The form says {number} and was signed on Tuesday.", valid


_FLIPS = {
    "negation": (("is safe", "is not safe"), ("must be", "must not be"), ("can be", "cannot be"), ("has", "has no")),
    "opinion": (("great", "terrible"), ("better", "worse"), ("strong", "weak"), ("useful", "useless")),
    "number": (("5 mg", "50 mg"), ("in 2024", "in 2025"), ("three", "four"), ("12 %", "21 %")),
    "direction": (("before", "after"), ("allow", "deny"), ("increase", "decrease"), ("above", "below")),
    "code": (("x < y", "x <= y"), ("True", "False"), ("first()", "last()"), ("a and b", "a or b")),
}
_FRAME = (
    "The report of the second group says in its summary that the word {} was noted in all of the {} cases that were "
    "looked at, and the authors of the study recommend the procedure to every hospital of the region for this winter."
)


def generate_flips(per_change: int = 5) -> Iterator[tuple[str, str, str]]:
    """Generate (kind, text, nearly equal text that says the opposite or another value)."""
    for kind, changes in _FLIPS.items():
        for left, right in changes:
            for number in range(10, 10 + per_change):
                yield kind, _FRAME.format(left, number), _FRAME.format(right, number)
