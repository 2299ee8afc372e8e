"""Whether a text shows all that it says: what an owner reads must be what is written."""

import unicodedata

# Control, format (bidirectional overrides, zero width), surrogates, private use, unassigned, and
# line separators.
_HIDDEN_CATEGORIES = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])

# What is drawn as nothing though it is a letter, mark or symbol (Unicode 15,
# Default_Ignorable_Code_Point, but for those of the categories above), and the empty braille cell.
_BLANK = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
)  # fmt: skip

_MARKS = 3
"""As many marks on one letter as any language writes; more of them cover what stands beside."""


def hides(character: str) -> bool:
    """Whether a character can hide or reorder text, or can't be seen itself; a space can."""
    if character in "\n\t":
        return False
    point = ord(character)
    blank = any(first <= point <= last for first, last in _BLANK)
    return blank or unicodedata.category(character) in _HIDDEN_CATEGORIES


def visible(text: str) -> str:
    """The text with everything that could hide or reorder it written out, odd spaces too."""
    return "".join(
        f"\\u{ord(each):04x}" if hides(each) or (each != " " and _is_space(each)) else each
        for each in text
    )


def why_misleading(text: str) -> str | None:
    """What in a text would mislead its reader, as a phrase; None if nothing does."""
    marks = 0
    for character in text:
        if hides(character):
            return f"the character U+{ord(character):04X}, which can hide or reorder text"
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks > _MARKS:
            return f"more than {_MARKS} marks on one letter, which can cover others"
    return None


def _is_space(character: str) -> bool:
    return unicodedata.category(character) == "Zs"
