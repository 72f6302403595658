"""Decodes text files whose encoding is not known: what spreadsheets and annotation tools of all systems write."""

from __future__ import annotations

import codecs

# UTF-32 is before UTF-16, whose mark is the beginning of its own
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 4096  # bytes that decide whether a file without a mark is UTF-16
FALLBACK = "cp1252"  # the printable characters of Latin-1 are the same in it


def decode_text(data: bytes) -> tuple[str, str]:
    """Decode text in UTF-8, UTF-16, UTF-32 or Windows-1252, and remove its byte order mark.

    Raises
    ------
    ValueError
        The bytes are text in none of these encodings; the message is one line.

    Returns
    -------
    text : str
        The text, with its line ends as they are.
    encoding : str
        Python's name of the encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode(data[len(mark) :], encoding), encoding
    if utf16 := _guess_utf16(data[:_SAMPLE]):
        return _decode(data, utf16), utf16
    try:
        return _refuse_nul(data.decode("utf-8")), "utf-8"
    except UnicodeDecodeError:
        return _decode(data, FALLBACK), FALLBACK


def count_lines(text: str | bytes) -> int:
    """Count the line ends before a position, and one more: the number of the line in a text editor."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return text.count("\n") + text.count("\r") - text.count("\r\n") + 1


def clip(text: str) -> str:
    """Return a text of an untrusted file on one line of at most 200 characters, for messages."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]} …"


def _guess_utf16(sample: bytes) -> str | None:
    """Guess UTF-16 without a mark: of most characters of a list of files, one of the two bytes is 0."""
    pairs = len(sample) // 2
    first, second = sample[: 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)
    if pairs and second > pairs / 2 and first < pairs / 10:
        return "utf-16-le"
    if pairs and first > pairs / 2 and second < pairs / 10:
        return "utf-16-be"
    return None


def _decode(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row = count_lines(data[: error.start].replace(b"\0", b""))
        kind = "UTF-8 or Windows-1252" if encoding == FALLBACK else encoding.upper()
        raise ValueError(f"row {row}: is not text in {kind}; save the file as UTF-8") from None
    return _refuse_nul(text)


def _refuse_nul(text: str) -> str:
    position = text.find("\0")
    if position >= 0:
        raise ValueError(f"row {count_lines(text[:position])}: has a NUL character; it is not a text file")
    return text
