"""What a shape alone does not tell: check digits and ranges of numbers."""

from __future__ import annotations

import ipaddress
from typing import Final

_IBAN_CHARS: Final = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
"""How many characters the IBANs of a country have (SWIFT's IBAN registry)."""


_DOUBLED: Final = str.maketrans("0123456789", "0246813579")
"""Twice a digit, its own digits summed."""


def digits_of(text: str) -> str:
    """Keep the ASCII digits."""
    return "".join([char for char in text if "0" <= char <= "9"])


def is_card(text: str) -> bool:
    """Tell whether digits have the check digit of a payment card (ISO/IEC 7812, Luhn)."""
    digits = digits_of(text)
    if len(set(digits)) < 2:
        return False
    doubled = digits[-2::-2].translate(_DOUBLED)
    return sum(map(int, digits[::-2] + doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Tell whether length and check digits are those of an IBAN (ISO 13616, mod 97)."""
    length = _IBAN_CHARS.get(text[:2].upper())
    if length is None or length > len(text):
        return False
    plain = "".join([char for char in text if char.isalnum()]).upper()
    if len(plain) != length:
        return False
    return (
        int("".join([str(int(char, 36)) for char in plain[4:] + plain[:4]])) % 97 == 1
    )


def is_us_ssn(text: str) -> bool:
    """Tell whether the number can have been issued (SSA: no 000, 666, 9xx; no zeros)."""
    digits = digits_of(text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return (
        area not in ("000", "666")
        and area < "900"
        and group != "00"
        and serial != "0000"
    )


def is_phone(text: str) -> bool:
    """Tell whether the digits can be a phone number (E.164: at most 15)."""
    digits = digits_of(text)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 1


def is_ipv6(text: str) -> bool:
    """Tell whether it is an IPv6 address that shows a digit (`abc::def` is code)."""
    if not any("0" <= char <= "9" for char in text):
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
