"""Matching of person names (PS3.4 C.2.2.2.1.1, which leaves the manner to the application).

Names are compared group by group (alphabetic, ideographic, phonetic). A key of one group may match any of the
three; empty groups of a key match everything. Case is ignored, accents are not; canonically equivalent spellings
are equal; trailing empty components are ignored; `*` and `?` run over component delimiters.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

_WORD_ENDS: Final = re.compile(r"[\^=,*\s]+")

Test = Callable[[str], bool]


def fold(text: str) -> str:
    """Make spellings that differ in case or canonical form equal, one character for one, so that `?` counts."""
    if text.isascii():
        return text.lower()
    return "".join(_fold_character(character) for character in unicodedata.normalize("NFC", text))


def _fold_character(character: str) -> str:
    folded = character.casefold()
    return folded if len(folded) == 1 else character


def groups(name: str) -> list[str]:
    """Split a name into its folded component groups, without padding and trailing empty components."""
    return [group.strip().rstrip("^ ") for group in fold(name).split("=")]


def name_test(key: str) -> Test | None:
    """Build the literal test for one value of a PN key; None when it matches every name."""
    tests = [_group_test(group) for group in groups(key)]
    wanted = [(index, test) for index, test in enumerate(tests) if test]
    if not wanted:
        return None
    if len(tests) == 1:
        only = wanted[0][1]
        return lambda name: any(map(only, groups(name)))
    return lambda name: _each_matches(wanted, groups(name))


def _each_matches(wanted: list[tuple[int, Test]], found: list[str]) -> bool:
    return all(test(found[index] if index < len(found) else "") for index, test in wanted)


def _group_test(key: str) -> Test | None:
    if not key.strip("*"):
        return None
    if "*" not in key and "?" not in key:
        return lambda group: group == key
    pattern = wildcard(key)
    delimiters = key.count("^")

    def test(group: str) -> bool:
        if pattern.fullmatch(group):
            return True
        # The delimiters of the key may stand for empty components that the group does not write.
        missing = delimiters - group.count("^")
        return any(pattern.fullmatch(group + "^" * more) for more in range(1, missing + 1))

    return test


def wildcard(key: str) -> re.Pattern[str]:
    """Compile a key in which `*` stands for any characters and `?` for one (PS3.4 C.2.2.2.4).

    What stands between stars is found from left to right and never looked for again, so that matching takes time
    linear in the text whatever a peer asks for.
    """
    first, *others = (re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", key))
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.DOTALL)


def fuzzy_test(key: str) -> Test | None:
    """Build the fuzzy semantic test: each word of the key begins a word of the name, accents and order aside."""
    wanted = _words(key)
    if not wanted:
        return None
    return lambda name: all(any(word.startswith(start) for word in _words(name)) for start in wanted)


def _words(name: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", fold(name))
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return [word for word in _WORD_ENDS.split(plain) if word]
