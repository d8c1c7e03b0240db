"""Why a picture of a record cannot be shown, or made again, in words."""

from inspection.errors import InspectionError
from inspection.web.texts import Language, words


class NoPicture(InspectionError):
    """There is no such picture; ``word`` names the sentence on the pages, ``detail`` is of the record or the disk."""

    def __init__(self, word: str, detail: str = "") -> None:
        super().__init__(sentence("en", word, detail), fix=words("en", "board")["picture_fix"])
        self.word = word
        self.detail = detail


def sentence(language: Language, word: str, detail: str = "") -> str:
    """The reason in a language."""
    text = words(language, "board")[f"picture_{word}"]
    return f"{text} ({detail})" if detail else text
