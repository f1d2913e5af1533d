"""Personal data and secrets: patterns, and the checks that tell an account number from any number."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forge_pipeline.corpus.settings import SensitivePolicy

# The domain; what stands before the @ is taken by looking back, because a search for "letters, then @" tries at
# every letter of the text.
_AT_DOMAIN = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}))*\.[A-Za-z]{2,24}\b")
_LOCAL_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
_LOCAL_WINDOW = 64
# RFC 2606 and RFC 6761: nobody's addresses.
_RESERVED_DOMAIN = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net))?|test|invalid|localhost|local)$", re.IGNORECASE)

_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+[1-9]\d{0,2}[ .\-/]?(?:\(\d{1,4}\)[ .\-/]?)?\d{1,5}(?:[ .\-/]?\d{2,5}){1,5}"
    r"|\(\d{3}\) ?\d{3}[-. ]\d{4})(?![\w-]|\.\d)"
)
_PHONE_DIGITS = range(8, 16)

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
# Lengths of the SWIFT IBAN registry (ISO 13616).
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FO", "FI", "GL", "NL", "FK", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK", "MN"), 20),
    **dict.fromkeys(("HR", "LV", "LI", "CH"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "TL", "OM", "SO"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}

_CARD = re.compile(r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)")
# Issuer prefixes (ISO/IEC 7812) with the lengths they issue: Visa, Mastercard, American Express, Discover, JCB,
# Diners Club.
_CARD_ISSUERS = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"6011|65|64[4-9]"), (16, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),
    (re.compile(r"3(?:0[0-5]|[68])"), (14,)),
)

_IP_ADDRESS = re.compile(r"(?<![\w.:-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
# "version 1.2.3.4" and "torch>=1.2.3.4" are no addresses; "host=1.2.3.4" and "<1.2.3.4>" are.
_VERSION_BEFORE = re.compile(r"(?:version|release|\bv|[<>=~!]=)\s*$", re.IGNORECASE)

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?!-----BEGIN ).){0,20000}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    re.DOTALL,
)
_CLOUD_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"
    r"|AccountKey=[A-Za-z0-9+/]{86}==)"
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}|[sr]k_live_[A-Za-z0-9]{20,100}|hf_[A-Za-z]{34}"
    r"|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,300}|npm_[A-Za-z0-9]{36}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,2000})"
)
# A pattern is only tried on a text that holds one of these.
_TOKEN_SIGNS = ("gh", "glpat-", "xox", "k_live_", "hf_", "pypi-", "npm_", "eyJ")


@dataclass(frozen=True, order=True)
class Finding:
    """Characters ``start`` to ``end`` of a text hold a value of this kind (a field of SensitivePolicy)."""

    start: int
    end: int
    kind: str

    @property
    def tag(self) -> str:
        return f"<{self.kind.upper()}>"


def find_sensitive(text: str, policy: SensitivePolicy) -> list[Finding]:
    """Findings of the kinds that the policy does not leave alone, in order, none inside another."""
    found = [
        Finding(start, end, kind)
        for kind, finder in _FINDERS.items()
        if getattr(policy, kind) != "off"
        for start, end in finder(text)
    ]
    # Of two that overlap, the one that starts first, then the longer, is the whole value.
    found.sort(key=lambda finding: (finding.start, -finding.end, finding.kind))
    apart: list[Finding] = []
    for finding in found:
        if not apart or finding.start >= apart[-1].end:
            apart.append(finding)
    return apart


def redact(text: str, findings: list[Finding]) -> str:
    """The text with each finding replaced by its tag."""
    parts, end = [], 0
    for finding in findings:
        parts += [text[end : finding.start], finding.tag]
        end = finding.end
    return "".join([*parts, text[end:]])


def is_iban(text: str) -> bool:
    """Whether a number (spaces allowed) has its country's length and passes mod 97 (ISO 7064)."""
    number = text.replace(" ", "")
    if _IBAN_LENGTHS.get(number[:2]) != len(number) or not number.isalnum() or not number.isascii():
        return False
    return int("".join(str(int(digit, 36)) for digit in number[4:] + number[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether a number (spaces and hyphens allowed) has an issuer's prefix and length and passes Luhn's check."""
    digits = re.sub(r"[ -]", "", text)
    if not any(prefix.match(digits) and len(digits) in lengths for prefix, lengths in _CARD_ISSUERS):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" not in text:
        return
    for match in _AT_DOMAIN.finditer(text):
        local = _LOCAL_PART.search(text[max(0, match.start() - _LOCAL_WINDOW) : match.start()])
        if local and not _RESERVED_DOMAIN.search(match[0][1:]):
            yield match.start() - len(local[0]), match.end()


def _phones(text: str) -> Iterator[tuple[int, int]]:
    if "+" not in text and "(" not in text:
        return
    for match in _PHONE.finditer(text):
        if sum(character.isdigit() for character in match[0]) in _PHONE_DIGITS:
            yield match.span()


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        # A word of capitals may follow the number: try it without its last groups.
        candidate = match[0]
        while candidate and not is_iban(candidate):
            candidate = candidate.rpartition(" ")[0]
        if candidate:
            yield match.start(), match.start() + len(candidate)


def _cards(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _CARD.finditer(text) if is_card(match[0]))


def _ip_addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _IP_ADDRESS.finditer(text):
        try:
            address = ipaddress.IPv4Address(match[0])
        except ValueError:
            continue
        before = text[max(0, match.start() - 12) : match.start()]
        if address.is_global and not _VERSION_BEFORE.search(before):
            yield match.span()


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    if "PRIVATE KEY" in text:
        yield from (match.span() for match in _PRIVATE_KEY.finditer(text))


def _cloud_keys(text: str) -> Iterator[tuple[int, int]]:
    if any(sign in text for sign in ("AKIA", "ASIA", "AIza", "AccountKey=")):
        yield from (match.span() for match in _CLOUD_KEY.finditer(text))


def _tokens(text: str) -> Iterator[tuple[int, int]]:
    if any(sign in text for sign in _TOKEN_SIGNS):
        yield from (match.span() for match in _TOKEN.finditer(text))


_FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "private_key": _private_keys,
    "cloud_key": _cloud_keys,
    "token": _tokens,
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "phone": _phones,
    "ip_address": _ip_addresses,
}
