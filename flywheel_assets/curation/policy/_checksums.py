"""Checksums that tell a card number or a bank account from any other long number."""

from string import ascii_uppercase

# Country → length in characters (SWIFT IBAN registry, release 99).
_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}

_LETTERS = {letter: str(10 + position) for position, letter in enumerate(ascii_uppercase)}
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# Lowest and highest issuer prefix, and the lengths in digits that the network issues (ISO/IEC 7812).
_CARD_RANGES = (
    ("34", "34", {15}),  # American Express
    ("37", "37", {15}),
    ("1800", "1800", {15}),  # JCB
    ("2131", "2131", {15}),
    ("35", "35", {16, 17, 18, 19}),  # JCB: 3528 to 3589 today; generators and testers use all of 35
    ("2200", "2204", {16, 17, 18, 19}),  # Mir
    ("2221", "2720", {16}),  # Mastercard
    ("51", "55", {16}),
    ("300", "305", {14, 16, 17, 18, 19}),  # Diners Club
    ("36", "36", {14, 16, 17, 18, 19}),
    ("38", "39", {14, 16, 17, 18, 19}),
    ("4", "4", {13, 16, 19}),  # Visa
    ("50", "50", {12, 13, 14, 15, 16, 17, 18, 19}),  # Maestro
    ("56", "58", {12, 13, 14, 15, 16, 17, 18, 19}),
    ("60", "69", {12, 13, 14, 15, 16, 17, 18, 19}),  # Maestro, Discover, UnionPay
)


def passes_luhn(digits: str) -> bool:
    """Whether ASCII `digits` end in their Luhn check digit (ISO/IEC 7812-1, annex B)."""
    total = sum(int(digit) for digit in digits[-1::-2])
    total += sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card_number(digits: str) -> bool:
    """Whether ASCII `digits`, without separators, are a payment card number: issuer, length and Luhn."""
    if len(set(digits)) == 1:
        return False
    known = any(low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in _CARD_RANGES)
    return known and passes_luhn(digits)


def is_iban(text: str) -> bool:
    """Whether `text`, upper case without spaces, is an IBAN: country, length and mod 97 (ISO 13616)."""
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    rotated = text[4:] + text[:4]
    return int("".join(_LETTERS.get(character, character) for character in rotated)) % 97 == 1
