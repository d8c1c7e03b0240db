"""The words on the pages: one file a language, one table a page."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
FOLDER = Path(__file__).with_name("texts")
EVERYWHERE = "shell"  # the table whose words every page has


@cache
def all_words(language: Language) -> Mapping[str, Mapping[str, str]]:
    """Every table of a language."""
    return tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


@cache
def words(language: Language, section: str) -> Mapping[str, str]:
    """The words of one page, with those that every page has; KeyError for a page without a table."""
    tables = all_words(language)
    return MappingProxyType({**tables[EVERYWHERE], **tables[section]})


def choose(wanted: str, usual: Language) -> Language:
    """The language asked for, or the usual one when it is none of ours."""
    return next((language for language in LANGUAGES if language == wanted), usual)
