"""A drawing that says in words why there is no picture, in the picture's place."""

from xml.sax.saxutils import escape

_ROW = 34  # characters of a line in the drawing
_ROWS = 7


def placeholder(text: str) -> bytes:
    """An SVG drawing, 4:3, that shows a sentence where a picture would be."""
    rows = _rows(text)
    top = 120 - 9 * len(rows)
    lines = "".join(
        f'<text x="160" y="{top + 20 * number}" text-anchor="middle">{escape(row)}</text>'
        for number, row in enumerate(rows, 1)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240" width="320" height="240">'
        '<rect width="320" height="240" fill="#e3e8ed"/>'
        '<rect x="4" y="4" width="312" height="232" fill="none" stroke="#4a5967" stroke-dasharray="6 5"/>'
        f'<g font-family="system-ui, sans-serif" font-size="15" fill="#16202a">{lines}</g></svg>'
    ).encode("utf-8", "replace")


def _rows(text: str) -> list[str]:
    """The sentence in lines; characters of two columns count twice, and what does not fit ends with an ellipsis."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    rows, wide = [""], 0
    for word in _pieces(shown):
        width = sum(2 if ord(character) > 0x2E7F else 1 for character in word)
        if wide + width > _ROW and rows[-1]:
            rows.append("")
            wide = 0
        rows[-1] += word
        wide += width
    rows = [row.strip() for row in rows]
    return rows if len(rows) <= _ROWS else [*rows[: _ROWS - 1], rows[_ROWS - 1][: _ROW - 1] + "…"]


def _pieces(text: str) -> list[str]:
    """Words with the space behind them; wide characters, and parts of words longer than a line, each for itself."""
    pieces: list[str] = []
    for word in text.split():
        wide = any(ord(character) > 0x2E7F for character in word)
        pieces += [*word, " "] if wide else [*(word[at : at + _ROW] for at in range(0, len(word), _ROW)), " "]
    return pieces
