"""Finds national identity numbers that have a form of their own: birth dates, check digits, fixed signs.

Of numbers that are bare digits with one check digit (PESEL, BSN, SIN, Aadhaar) one in ten of all order numbers is
valid, so these are not looked for. `python-stdnum` knows 200 more. It is under the LGPL: an Apache-2.0 project may
import it, but some companies allow none of it, and a policy must not find more where a package happens to be installed.
So the arithmetic is here, and the benchmark compares it with that package.
"""

import re
from collections.abc import Callable
from datetime import date

from flywheel_assets.curation.policy.verdicts import Action, Hazard, Pattern
from flywheel_assets.records import Reason

_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU_LETTERS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_CODICE_ODD = {
    sign: ord(value) - 65
    for sign, value in zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", "BAFHJNPRTVBAFHJNPRTVCESULDGIMOQKWZYX", strict=True)
}
"""A = 0, B = 1 and so on; the order is that of the decree."""
_CURP_SIGNS = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _weigh(digits: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def is_dni(number: str) -> bool:
    """Check a Spanish DNI or NIE: the letter is the number modulo 23."""
    digits = number[:-1].translate(str.maketrans("XYZ", "012"))
    return len(set(number[1:-1])) > 1 and _DNI_LETTERS[int(digits) % 23] == number[-1]


def is_nir(number: str) -> bool:
    """Check a French NIR: the last two digits are 97 minus the others modulo 97; Corsica writes 2A and 2B."""
    plain = int(number[:-2].replace("2A", "19").replace("2B", "18"))
    return 97 - plain % 97 == int(number[-2:])


def is_codice_fiscale(number: str) -> bool:
    """Check an Italian codice fiscale: a letter over odd and even places (DM 23 December 1976)."""
    even = sum(int(each) if each.isdigit() else ord(each) - 65 for each in number[1:15:2])
    return chr(65 + (even + sum(_CODICE_ODD[each] for each in number[0:15:2])) % 26) == number[15]


def is_cpf(number: str) -> bool:
    """Check a Brazilian CPF: two check digits modulo 11."""
    first = -_weigh(number, tuple(range(10, 1, -1))) % 11 % 10
    second = -_weigh(number[:9] + str(first), tuple(range(11, 1, -1))) % 11 % 10
    return len(set(number)) > 1 and number[9:] == f"{first}{second}"


def is_resident_id(number: str) -> bool:
    """Check a Chinese resident identity number: birth date, and modulo 11-2 (GB 11643)."""
    if not _is_date(int(number[6:10]), int(number[10:12]), int(number[12:14])):
        return False
    total = _weigh(number[:17], (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2))
    return "10X98765432"[total % 11] == number[17]


def is_hetu(number: str) -> bool:
    """Check a Finnish henkilötunnus: birth date, and a sign modulo 31."""
    if not _is_date(2000 + int(number[4:6]), int(number[2:4]), int(number[:2])):
        return False
    return _HETU_LETTERS[int(number[:6] + number[7:10]) % 31] == number[10]


def is_rijksregister(number: str) -> bool:
    """Check a Belgian national number: 97 minus the others modulo 97.

    From the year 2000 on a 2 stands in front of the others.
    """
    return int(number[9:]) in (97 - int(number[:9]) % 97, 97 - int(f"2{number[:9]}") % 97)


def is_ahv(number: str) -> bool:
    """Check a Swiss AHV number: the check digit of an EAN-13."""
    return -_weigh(number[:12], (1, 3) * 6) % 10 == int(number[12])


def is_curp(number: str) -> bool:
    """Check a Mexican CURP: one digit modulo 10."""
    total = sum(_CURP_SIGNS.index(sign) * (18 - place) for place, sign in enumerate(number[:17]))
    return str(-total % 10) == number[17]


def is_personnummer(number: str) -> bool:
    """Check a Swedish personnummer: birth date, and the digit of Luhn over the last ten."""
    digits = number[-10:]
    if not _is_date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:6])):
        return False
    doubled = (int(digit) * (2 - place % 2) for place, digit in enumerate(digits))
    return sum(each // 10 + each % 10 for each in doubled) % 10 == 0


def is_nino(number: str) -> bool:
    """Check a British national insurance number: which prefixes are given out."""
    return number[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _make_id_pattern(name: str, form: str, is_valid: Callable[[str], bool]) -> Pattern:
    def accepts(match: re.Match[str]) -> bool:
        # The Finnish sign of the century is part of the number.
        return is_valid(re.sub(r"[ .]" if is_valid is is_hetu else r"[ .+-]", "", match.group()))

    accepts.__name__ = is_valid.__name__
    return Pattern(
        name,
        re.compile(rf"(?<![\w.+/=-])(?:{form})(?![\w=-]|[.]\d)", re.ASCII),
        form,
        Action.QUARANTINE,
        Reason.PERSONAL_DATA,
        Hazard.PRIVACY,
        accepts=accepts,
        score=0.8,
    )


NATIONAL_IDS = (
    _make_id_pattern("spanish_dni", r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]|\d{8}-?[A-HJ-NP-TV-Z]", is_dni),
    _make_id_pattern(
        "french_nir", r"[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", is_nir
    ),
    _make_id_pattern("italian_codice_fiscale", r"[A-Z]{6}\d\d[ABCDEHLMPRST][0-7]\d[A-Z]\d{3}[A-Z]", is_codice_fiscale),
    _make_id_pattern("brazilian_cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d", is_cpf),
    _make_id_pattern("chinese_resident_id", r"[1-9]\d{5}(?:19|20)\d{2}[01]\d[0-3]\d{4}[\dX]", is_resident_id),
    _make_id_pattern("finnish_hetu", r"[0-3]\d[01]\d{3}[-+A-FU-Y]\d{3}[0-9A-Y]", is_hetu),
    _make_id_pattern("belgian_rijksregister", r"\d\d\.[0-5]\d\.[0-3]\d-\d{3}\.\d\d", is_rijksregister),
    _make_id_pattern("swiss_ahv", r"756[ .]\d{4}[ .]\d{4}[ .]\d\d", is_ahv),
    _make_id_pattern("mexican_curp", r"[A-Z][AEIOUX][A-Z]{2}\d\d[01]\d[0-3]\d[HM][A-Z]{5}[0-9A-Z]\d", is_curp),
    _make_id_pattern("swedish_personnummer", r"(?:(?:19|20)\d\d|\d\d)[01]\d[0-3]\d[-+]\d{4}", is_personnummer),
    _make_id_pattern("british_nino", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]", is_nino),
)
