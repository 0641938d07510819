"""Parser of untrusted XML into a small tree: no document type, no entities, bounded.

repomd.xml and metalinks need elements, attributes and text; other features of XML are attack vectors (billion laughs,
external entities), so a document that declares a type is refused. `parse_pieces` is for documents that are too large
for a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from xml.parsers import expat

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass

XML_DEPTH_LIMIT = 32
"""Nested elements: repomd has 4 levels, a metalink 6."""

XML_ELEMENTS_LIMIT = 100_000
"""Elements of one document: a metalink of the largest distributions has a few thousand."""

OTHER_ANSWER_HINT = (
    "look at what stands at this address: a proxy, the sign-on page of a network or another server may answer; "
    "correct the address, or use another mirror"
)
"""The hint for an answer that is not the expected document at all."""


@dataclass(slots=True)
class Element:
    """One element; names are without their namespace."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find(self, name: str) -> Element | None:
        """Return the first child called `name`."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> Iterator[Element]:
        """Every element called `name` below this one, in document order."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.all(name)

    def value(self, name: str) -> str:
        """Return the text of the first child called `name`, or an empty string."""
        child = self.find(name)
        return child.text.strip() if child else ""


def parse_xml(data: bytes, name: str) -> Element:
    """Parse `data` and return its root element.

    Raises VerificationError `xml-malformed` or `xml-refused`, naming `name`.
    """
    root = Element("", {})
    stack = [root]
    count = 0

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > XML_ELEMENTS_LIMIT or len(stack) > XML_DEPTH_LIMIT:
            raise VerificationError(
                "xml-refused", f"{name} has too many or too deep elements", place=name, hint=OTHER_ANSWER_HINT
            )
        element = Element(_local(tag), {_local(key): value for key, value in attributes.items()})
        stack[-1].children.append(element)
        stack.append(element)

    def end(_tag: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def refuse(*_: object) -> None:
        raise VerificationError(
            "xml-refused", f"{name} declares a document type or an entity", place=name, hint=OTHER_ANSWER_HINT
        )

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parse_pieces(
        parser,
        (data,),
        lambda why: VerificationError(
            "xml-malformed", f"{name} is not well-formed XML: {why}", place=name, hint=OTHER_ANSWER_HINT
        ),
    )
    return root.children[0]


def parse_pieces(
    parser: expat.XMLParserType, pieces: Iterable[bytes], malformed: Callable[[str], VerificationError]
) -> None:
    """Feed a document to a parser with its handlers set.

    Every error is raised as the exception that `malformed` makes of the reason: also an encoding that Python lacks, or
    that cannot be used for XML (pyexpat raises LookupError, ValueError and codecs' errors).
    """
    try:
        for piece in pieces:
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise malformed(str(error)[:200]) from error


def _local(name: str) -> str:
    return name.rsplit(" ", 1)[-1]
