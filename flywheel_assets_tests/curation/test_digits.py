import sys

from flywheel_assets.curation.digits import write_digits


def test_every_decimal_digit_of_unicode_is_written_by_its_value() -> None:
    digits = [character for character in map(chr, range(sys.maxunicode + 1)) if character.isdecimal()]
    assert len(digits) > 600
    assert write_digits("".join(digits)) == "".join(str(int(digit)) for digit in digits)
