"""Check digits and number rules of identifiers. Arguments are strings of digits and letters without separators."""

LETTERS = {char: value for value, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10)}
_VIN = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", [*range(1, 9), *range(1, 6), 7, 9, *range(2, 10), *range(10)]))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_LENGTHS = (
    "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 DO:28 "
    "EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 "
    "IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 "
    "NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 TL:23 "
    "TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 "
)
_IBAN_LENGTHS = dict(item.split(":") for item in _LENGTHS.split())


def luhn(digits: str) -> bool:
    """The checksum of payment cards and Canadian social insurance numbers."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def payment_card(digits: str) -> bool:
    """13 to 19 digits of a known network's range, with their check digit."""
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def iban_length(begin: str) -> int:
    """How long an account number of this country is; 2 while the country is not known."""
    return int(_IBAN_LENGTHS.get(begin[:2], "2"))


def iban(text: str) -> bool:
    """The country's length, and the remainder 1 modulo 97 (ISO 13616)."""
    if _IBAN_LENGTHS.get(text[:2]) != str(len(text)):
        return False
    turned = text[4:] + text[:4]
    return int("".join(str(LETTERS.get(char, char)) for char in turned)) % 97 == 1


def routing(digits: str) -> bool:
    """A bank's routing number in the United States: weights 3, 7, 1 and the ranges that are in use."""
    first = int(digits[:2])
    if not (first <= 12 or 21 <= first <= 32 or 61 <= first <= 72 or first == 80):
        return False
    return digits != "0" * 9 and sum(int(char) * (3, 7, 1)[place % 3] for place, char in enumerate(digits)) % 10 == 0


def social_security(digits: str) -> bool:
    """Numbers that are never given out are none."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def taxpayer(digits: str) -> bool:
    """An individual taxpayer identification number: it begins with 9, and its group is of a range that is given out."""
    group = int(digits[3:5])
    return digits[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99)


def health_service(digits: str) -> bool:
    """The United Kingdom's NHS number: modulo 11."""
    rest = 11 - sum(int(char) * (10 - place) for place, char in enumerate(digits[:9])) % 11
    return rest != 10 and (0 if rest == 11 else rest) == int(digits[9]) and len(set(digits)) > 1


def vehicle(text: str) -> bool:
    """The check digit in the ninth place of a vehicle identification number."""
    if len(set(text)) < 4:
        return False
    rest = sum(_VIN.get(char, 0) * weight for char, weight in zip(text, _VIN_WEIGHTS)) % 11
    return text[8] == ("X" if rest == 10 else str(rest))
