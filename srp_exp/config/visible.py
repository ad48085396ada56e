"""Text of others, such as names of classes, folders and settings, as it may be shown: what would act is spelled out."""

import re

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, with which escape sequences begin; not tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # of the direction of writing, which reorder what stands beside
    "\u2028\u2029\ufeff\ud800-\udfff]"  # ends of lines, a mark of byte order; halves of pairs, which can't be printed
)


def visible(text: str) -> str:
    """`text` with what steers a terminal or can't be printed spelled out: an escape character becomes \\x1b."""
    return _ACTING.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that isn't UTF-8, as Python reads names of files
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def visible_cell(text: str) -> str:
    """`text` in one line, for a cell of a CSV file, which a spreadsheet might take for a formula otherwise."""
    line = visible(text).replace("\t", " ").replace("\n", " ")
    return f"'{line}" if line.lstrip(" ").startswith(("=", "+", "-", "@")) and not _is_number(line) else line


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
