"""A page's glossary: the first use of each of its words leads to what it means, by a link, which works on touch too."""

import re

# `<dt id="word-uar">UAR</dt>`; where several forms mean one thing, `<dt id="word-view" data-forms="view|views">`.
ENTRY = re.compile(r'<dt id="(word-[\w-]+)"(?: data-forms="([^"]+)")?>([^<]+)</dt>')
TAG = re.compile(r"(<[^>]+>)")
# In these no word is linked: they lead somewhere else already, are read in another way, or are no running text.
CLOSED = ("a", "button", "code", "h1", "h2", "h3", "nav", "output", "pre", "summary", "svg")


def link_words(html: str) -> str:
    """The page with a link at the first use of each word of its glossary; one without a glossary stays as it is."""
    start, end = html.find("<main>"), html.find('<section id="words"')
    if end < 0:
        return html
    waiting = {name: (forms or term).split("|") for name, forms, term in ENTRY.findall(html[end:])}
    pieces, inside = TAG.split(html[start:end]), ""
    for place, piece in enumerate(pieces):
        if TAG.match(piece):
            tag = re.match(r"</?(\w+)", piece)
            name = tag.group(1) if tag else ""
            if inside and piece == f"</{inside}>":
                inside = ""
            elif not inside and name in CLOSED and not piece.startswith("</"):
                inside = name
        elif not inside and piece.strip():
            pieces[place] = _linked(piece, waiting)
    return html[:start] + "".join(pieces) + html[end:]


def _linked(text: str, waiting: dict[str, list[str]]) -> str:
    """`text` with links at the words that wait for their first use, which then wait no more."""
    found: list[tuple[int, int, str]] = []
    for name, forms in waiting.items():
        form = "|".join(re.escape(each).replace(r"\ ", r"[ \u00a0]") for each in sorted(forms, key=len, reverse=True))
        if use := re.search(rf"(?<![\w-])(?:{form})(?!\w)", text):
            found.append((use.start(), use.end(), name))
    for start, end, name in sorted(found, reverse=True):
        if any(start < other_end and other < end for other, other_end, each in found if each != name):
            continue  # a part of another word, to be linked where it stands alone
        text = f'{text[:start]}<a class="word" href="#{name}">{text[start:end]}</a>{text[end:]}'
        del waiting[name]
    return text
