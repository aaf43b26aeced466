"""Finds personal data by form and checksum: cards, bank accounts, e-mail addresses, phone and social security numbers.

A row that holds any of it in a text that would be trained on waits in quarantine, also where the prompt brought it:
the model would learn it all the same. Names and postal addresses have no form; they are not found.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from string import ascii_uppercase
from typing import Any

from flywheel_assets.curation.policy.verdicts import Action, Hazard, Pattern
from flywheel_assets.records import Reason

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
    """Return whether ASCII `digits` end in their Luhn check digit (ISO/IEC 7812-1, annex B)."""
    total = sum(int(digit) for digit in digits[-1::-2])
    total += sum(_DOUBLED[int(digit)] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card_number(digits: str) -> bool:
    """Return whether ASCII `digits`, without separators, are a payment card number: issuer, length and Luhn."""
    if len(set(digits)) == 1:
        return False
    known = any(low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in _CARD_RANGES)
    return known and passes_luhn(digits)


def is_iban(text: str) -> bool:
    """Return whether `text`, upper case without spaces, is an IBAN: country, length and mod 97 (ISO 13616)."""
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    rotated = text[4:] + text[:4]
    return int("".join(_LETTERS.get(character, character) for character in rotated)) % 97 == 1


# ASCII classes, because RE2 reads them so.
# The left side excludes decimals, UUID groups, paths and words: 0.4111…, a-4111…, /4111….
_CARD = re.compile(
    r"(?<![\w.,/+=-])(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\w/=-]|[.,]\d)",
    re.ASCII,
)
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])", re.ASCII)
_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@"
    r"(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,8}(?P<top>[A-Za-z]{2,24}))(?![\w-])",
    re.ASCII,
)
_INTERNATIONAL_PHONE = re.compile(
    r"(?<![\w.+/=-])\+[1-9](?:[ .-]?(?:\(\d{1,4}\)|\d)){7,14}(?:x\d{1,5})?(?![\w=]|[.-]\d)", re.ASCII
)
_US_PHONE = re.compile(
    r"(?<![\w.+/=-])(?:1[ .-])?(?:\((?P<area>[2-9]\d\d)\) ?|(?P<area2>[2-9]\d\d)(?P<mark>[ .-]))"
    r"(?P<exchange>[2-9]\d\d)(?(mark)(?P=mark)|[ .-])(?P<line>\d{4})(?:x\d{1,5})?(?![\w=]|[.-]\d)",
    re.ASCII,
)
_PHONE_WORDS = (
    r"\b(?i:phone|telephone|tel|mobile|cell|desk|office|hotline|whatsapp|fax"
    r"|call (?:me|us|him|her|them)|reach (?:me|us))\b"
)
_NAMED_PHONE = re.compile(
    rf"{_PHONE_WORDS}[^\d+]{{0,16}}(?P<number>\(?\d(?:[ .()/-]{{0,2}}\d){{6,13}})(?![\w=]|[.-]\d)", re.ASCII
)
_SSN = re.compile(r"(?<![\w.+/=-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w=]|[.-]\w)", re.ASCII)

_RESERVED_TOPS = frozenset(("example", "test", "invalid", "localhost", "local", "internal"))
_FILE_ENDINGS = frozenset(("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py"))
_RESERVED_DOMAINS = ("example.com", "example.org", "example.net", "email.com", "domain.com", "yourdomain.com")
_WITHDRAWN_SSN = frozenset(("078-05-1120", "219-09-9999", "123-45-6789"))  # printed on samples, assigned to no person


_IP = re.compile(r"(?<![\w.+/-])(?<![vV] )(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)", re.ASCII)
# Eight groups, or fewer around "::": a time has no "::", and names of C++ are no addresses that anyone assigns.
_IPV6 = re.compile(
    r"(?<![\w:.])(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}"
    r"|[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}(?:[0-9A-Fa-f]{1,4}|(?<=::)))(?![\w:]|\.\d)",
    re.ASCII,
)
_WELL_KNOWN_IPS = frozenset(("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4", "208.67.222.222"))
_WELL_KNOWN_IPV6 = frozenset(
    ("2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe")
)
_VERSION_WORDS = re.compile(r"\b(?:version|release|v|firmware|build|driver|chrome|oid)\b[^.\n]{0,12}$", re.IGNORECASE)
# A trunk zero and groups; the regions whose numbering plan may make it a number.
_NATIONAL_PHONE = re.compile(
    r"(?<![\w.+/=,-])(?:\(0\d{1,5}\)|0\d{1,5})(?:[ /-]{1,2}\d{2,8}){1,5}(?![\w=/-]|[.,:]\d)", re.ASCII
)
_DATE = re.compile(r"\d{1,2}[ /-]\d{1,2}[ /-](?:\d{2}|(?:19|20)\d{2})\b(?![ ]\d{2} \d{2})")
_NUMBERED = re.compile(
    r"\b(?:ticket|order|invoice|case|reference|ref|part|item|serial|batch|model)\b\W{0,3}(?:no|nr|number|id)?\W{0,3}\Z",
    re.IGNORECASE,
)
"""Stands in front of a number that counts something: a ticket's has the form of a telephone number as often as not."""
_TRUNK_REGIONS = ("GB", "DE", "FR", "IT", "NL", "AT", "CH", "BE", "SE", "AU", "NZ", "IN", "JP", "ZA")


def is_public_address(match: re.Match[str]) -> bool:
    """Accept an address of one machine on the internet: not private, reserved or a known resolver, and no version."""
    try:
        address = IPv4Address(match.group())
    except ValueError:
        return False
    is_version = _VERSION_WORDS.search(match.string[max(0, match.start() - 24) : match.start()])
    return address.is_global and match.group() not in _WELL_KNOWN_IPS and not is_version


def is_public_ipv6_address(match: re.Match[str]) -> bool:
    """Accept a global address (RFC 4291) that is no known resolver.

    A world wide name has eight groups too, of two digits each.
    """
    try:
        address = IPv6Address(match.group())
    except ValueError:
        return False
    is_long = max(map(len, match.group().split(":"))) > 2
    return address.is_global and is_long and str(address) not in _WELL_KNOWN_IPV6


def is_national_phone(match: re.Match[str]) -> bool:
    """Accept a number that some country with a trunk zero assigns (libphonenumber's metadata)."""
    import phonenumbers

    if len(re.sub(r"\D", "", match.group())) < 9 or _DATE.match(match.group()):
        return False
    if _NUMBERED.search(match.string[max(0, match.start() - 24) : match.start()]):
        return False
    for region in _TRUNK_REGIONS:
        try:
            number = phonenumbers.parse(match.group(), region)
        except phonenumbers.NumberParseException:
            return False
        if phonenumbers.is_valid_number_for_region(number, region):
            return True
    return False


def is_payment_card(match: re.Match[str]) -> bool:
    """Return whether issuer, length and Luhn digit are valid."""
    return is_card_number(re.sub(r"[ -]", "", match.group()))


def is_bank_account(match: re.Match[str]) -> bool:
    """Return whether country, length and mod 97 are valid, for the match or the part of it before trailing words."""
    groups = match.group().upper().split(" ")
    return any(is_iban("".join(groups[:end])) for end in range(1, len(groups) + 1))


def is_mailbox(match: re.Match[str]) -> bool:
    """Exclude reserved domains (RFC 2606), file names such as icon@2x.png, and a repository's `git@` address."""
    domain = match["domain"].lower()
    return (
        match["top"].lower() not in _RESERVED_TOPS | _FILE_ENDINGS
        and not domain.endswith(_RESERVED_DOMAINS)
        and not match.group().startswith("git@")
    )


_COMMENT = re.compile(
    r"\s*(?:(?P<code>#+|//+|/\*+)|--|;|%|<!--|\*\s+@author\b|__(?:author|credits|maintainer|copyright|email)__\s*=)"
)
_AUTHORSHIP = re.compile(
    r"(?:\b|_)(?:authors?|copyright|maintainers?|contributors?|credits|licen[cs]ed?|written by)(?:\b|_)|\(c\)|©",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\b(?i:contact|email):\s*\S*\Z|\b(?i:by)\s+(?:[A-Z][\w.'’-]*\s+){1,4}[<(]?\Z")


def names_an_author(match: re.Match[str]) -> bool:
    """Return whether an address stands in a line of a source file that names its author.

    Authors publish these lines with their code, and licences demand to keep them. A comment that holds nothing but
    the address is one as well. A bullet of prose ("* Contact: …") is none.
    """
    text = match.string
    first, last = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
    before, after = text[first : match.start()], text[match.end() : last if last >= 0 else len(text)]
    comment = _COMMENT.match(before)
    if comment is None:
        return False
    if _AUTHORSHIP.search(f"{before} {after}"):
        return True
    return comment["code"] is not None and (
        _NAMED.search(before) is not None or not any(map(str.isalnum, before + after))
    )


def is_us_phone(match: re.Match[str]) -> bool:
    """Exclude the numbers that are reserved for fiction (555-0100 to 555-0199)."""
    return not (match["exchange"] == "555" and match["line"].startswith("01"))


def is_international_phone(match: re.Match[str]) -> bool:
    """Accept eight to fifteen digits (E.164) that are not one repeated or a round number."""
    digits = re.sub(r"\D", "", match.group().split("x")[0])
    return 8 <= len(digits) <= 15 and len(set(digits)) >= 4


def is_named_phone(match: re.Match[str]) -> bool:
    """Accept seven to fourteen digits after a word that announces a phone number, and not a date."""
    digits = re.sub(r"\D", "", match["number"])
    return 7 <= len(digits) <= 14 and len(set(digits)) >= 4 and not re.match(r"(?:19|20)\d\d[-/]", match["number"])


def is_assigned_ssn(match: re.Match[str]) -> bool:
    """Exclude the numbers that samples print."""
    return match.group() not in _WITHDRAWN_SSN


def _make_personal_pattern(name: str, expression: re.Pattern[str], prefilter: str, **options: Any) -> Pattern:
    return Pattern(name, expression, prefilter, Action.QUARANTINE, Reason.PERSONAL_DATA, Hazard.PRIVACY, **options)


# Contact details that the operator's own text publishes are no secret of a person; a card number always is.
_PUBLISHED = ("operator",)

PERSONAL_DATA = (
    _make_personal_pattern(
        "payment_card", _CARD, r"\d{12}|\d{4}[ -]\d{4}[ -]\d{4}|\d{4}[ -]\d{6}[ -]\d{4}", accepts=is_payment_card
    ),
    _make_personal_pattern(
        "iban",
        _IBAN,
        rf"\b(?i:{'|'.join(IBAN_LENGTHS)})\d{{2}} ?[A-Za-z0-9]{{4}} ?[A-Za-z0-9]{{4}}",
        accepts=is_bank_account,
        known_from=_PUBLISHED,
    ),
    _make_personal_pattern(
        "email",
        _EMAIL,
        r"[A-Za-z0-9._%+-]@[A-Za-z0-9-]+\.[A-Za-z0-9-]",
        accepts=is_mailbox,
        known_from=_PUBLISHED,
        is_published=names_an_author,
    ),
    _make_personal_pattern(
        "international_phone",
        _INTERNATIONAL_PHONE,
        r"\+[1-9](?:[ .()-]{0,3}\d){7}",
        accepts=is_international_phone,
        known_from=_PUBLISHED,
    ),
    _make_personal_pattern(
        "us_phone",
        _US_PHONE,
        r"\d{3}(?:\) ?|[ .-])\d{3}[ .-]\d{4}",
        accepts=is_us_phone,
        score=0.9,
        known_from=_PUBLISHED,
    ),
    _make_personal_pattern(
        "named_phone",
        _NAMED_PHONE,
        # No count on the gap: "{0,17}" after such frequent words grew RE2's automaton until every row took six times
        # as long.
        rf"{_PHONE_WORDS}[^\d+]*\d(?:[ .()/-]{{0,2}}\d){{6}}",
        accepts=is_named_phone,
        known_from=_PUBLISHED,
        score=0.8,
    ),
    _make_personal_pattern("us_social_security", _SSN, r"\d{3}-\d{2}-\d{4}", accepts=is_assigned_ssn, score=0.9),
    _make_personal_pattern(
        "national_phone",
        _NATIONAL_PHONE,
        r"\b0\d{1,5}\)?[ /-]{1,2}\d\d",
        accepts=is_national_phone,
        score=0.7,
        known_from=_PUBLISHED,
    ),
    _make_personal_pattern(
        "ip_address", _IP, r"\d\.\d{1,3}\.\d{1,3}\.\d", accepts=is_public_address, score=0.6, known_from=_PUBLISHED
    ),
    _make_personal_pattern(
        "ipv6_address",
        _IPV6,
        r"[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]|[0-9A-Fa-f]::",
        accepts=is_public_ipv6_address,
        score=0.6,
        known_from=_PUBLISHED,
    ),
)
