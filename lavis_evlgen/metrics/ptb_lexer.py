"""Penn Treebank tokens of captions without Java: one regular expression that reads a caption as Stanford's lexer does.

Caption metrics are defined on the tokens of Stanford CoreNLP 3.4.1's ``PTBTokenizer -preserveLines -lowerCase``. The
rules here were learnt from its outputs; ``benchmarks/caption_tokens.py`` compares the two and lists the differences.
"""

import re

# a full stop after these belongs to the word, wherever it stands
_ABBREVIATION = (
    "mr|mrs|ms|dr|prof|gen|reps?|sens?|gov|capt|cpt|lt|col|sgt|maj|cmdr|adm|rev|hon|pres|supt|insp|msgr|ste?|jr|sr"
    "|inc|corp|cos?|ltd|bros|assn|dept|univ|atty|esq|vs|etc|al|cf|est|tel|ext|ft|mt|ave|blvd|rd|sq"
    "|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri"
    "|ala|ariz|calif|colo|conn|ct|dak|del|fla|ga|ill|ind|kans?|ky|la|md|mich|minn|mo|mont|neb|nev|okla|ore|pa|penn"
    "|tenn|tex|va|vt|wash|wis|wyo|mass"
)
# words that begin a sentence: a letter before them ended the last one ("vitamin C. It is")
_STARTS = "it|he|she|they|then|there|the|this|that|these|those|we|i|you|in|a|an|but|and|if|as|on|at|for|to|when|what"

_PIECES = {
    "letter": r"[^\W\d_]",
    "sign": r"[^\W_]",  # a letter or digit
    "end": r"(?![^\W_])",
    "no_start": rf"\s+(?!(?i:{_STARTS})\b(?!\.))",
    "abbreviation": _ABBREVIATION,
}
# The first alternative that fits is taken: longer readings stand before shorter ones.
_LEXER = re.compile(
    r"""
    # tags, addresses, names and emoticons, each in one piece
    </?[A-Za-z!][^<>\s]*>
  | (?:https?://|www\.)[^\s"<>|()]*[^\s"<>|(),.!?;:'{{}}-]
  | [\w.+-]+@[\w-]+(?:\.[\w-]+)+,?
  | [@#](?=[A-Za-z_])\w+
  | (?<!\w)[:;=]'?-?(?:[()]|[DPp\]\\](?!\w))
    # full stops that stay with their word: U.S., Ph.D., etc., no. 5, J. Smith
  | (?:{letter}\.){{2,}}(?!{sign})(?:-{letter}+)*
  | (?i:ph\.d\.)
  | (?i:(?:{abbreviation})\.(?!\w))
  | (?i:(?:nos?|fig|ca|art|pp?)\.(?=\s*\d))
  | [A-Za-z]\.(?=[,:\d]|{no_start}\w)
    # amounts: 1/2, 3 1/2, 20-30, '90s, 3.5-inch, 12:30 and the pm of 12:30pm, -30
  | (?:(?:US|HK|NT|NZ|[UACS]S?)|(?<!\w))\$
  | (?:\d{{1,4}}[\s-])?\d{{1,4}}/\d{{1,4}}(?:/\d{{2,4}})?(?:-{sign}+)*{end}
  | \d+(?:[.,]\d+)*(?:-\d+(?:[.,]\d+)*)+{end}
  | (?<!{sign})'\d\d(?:s{end}|(?=\s|$))
  | [+-]?\d+(?:[.,:]\d+)+(?={letter}|-{letter}|{end})(?:(?<!:\d\d)-{sign}+(?:-{sign}+)*)?
  | [+-]\.?\d+{end} | \.\d+(?:\.\d+)*{end}
    # words: parts of cannot, gonna, gimme; endings; O'Brien; what precedes n't; and/or; dog.jpg; e-mail
  | (?i:can(?=not{end})|(?:gon|wan)(?=na{end})|got(?=ta{end})|(?:gim|lem)(?=me{end}))
  | (?i:'(?:s|m|d|ll|re|ve|em|til|till|cause){end}|'n'|'n{end}|'t(?=(?:is|was){end})|n't{end})
  | (?i:[dlo]'{letter}+(?:-{letter}+)*|ma'am{end}|[en]e?'er{end}|[jc]'est{end}|hawai'i{end}|y'(?={letter}))
  | w/o(?!\w) | [A-Z]+&[A-Z]+{end} | [Cc](?:\+\+|\#)
  | (?i:(?:(?!n't{end}){sign})+?(?=n't{end}))
  | {sign}+(?:[-_]{sign}+)*(?:/{sign}+(?:[-_]{sign}+)*){{1,2}}
  | {sign}+(?:\.{letter}{sign}*)+(?:[-_/]{sign}+)*
  | {sign}+(?:[-_]{sign}+)*
    # runs that stand as one token, and anything else sign by sign
  | [!?]{{2,}} | \*+ | _+ | \#+ | @+ | [<>]{{2}}
  | \S
    """.format(**_PIECES),
    re.VERBOSE,
)

_SPELLINGS = str.maketrans(
    {sign: spelling for signs, spelling in (
        ("\u2018\u2019\u201b\u2039\u203a", "'"), ("\u201c\u201d\u00ab\u00bb", '"'), ("\u2010\u2011", "-"),
        ("\u2013\u2014\u2015", " - "), ("\u2026", " . "), ("\u20ac", "$"), ("\u00a3", "#"), ("\u00a2", " cents "),
        ("\u00bd", " 1/2 "), ("\u00bc", " 1/4 "), ("\u00be", " 3/4 "), ("\u2153", " 1/3 "), ("\u2154", " 2/3 "),
    ) for sign in signs}
)  # fmt: skip
_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})
_REMOVED = frozenset("'`.?!,:-;\"")  # pycocoevalcap's punctuation; its list spells brackets in capitals, so they stay


def ptb_tokens(text: str) -> list[str]:
    """Lower-case tokens of one caption without punctuation; signs that Stanford's lexer does not know are left out.

    >>> ptb_tokens("A man's dog (left) isn't at St. Mary's!")
    ['a', 'man', "'s", 'dog', '-lrb-', 'left', '-rrb-', 'is', "n't", 'at', 'st.', 'mary', "'s"]
    """
    found = (token.lower() for token in _LEXER.findall(text.translate(_SPELLINGS)))
    return [_written(token) for token in found if token not in _REMOVED and " " <= token[0] <= "\uffff"]


def _written(token: str) -> str:
    """Brackets, alone and in emoticons, by their names; 3 1/2 is one token, held together by a no-break space."""
    if len(token) == 1 or token[0] in ":;=":
        return token.translate(_BRACKETS)
    return token.replace(" ", "\u00a0")
