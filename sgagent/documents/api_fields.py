"""Read the fields that answers of the API have in common: wrapped lists, tags, pages, unused texts."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.documents.assembly import Collected, Page
from sgagent.documents.field import Field, Fields
from sgagent.documents.values import parse_account, parse_id


def wrapped(fields: Fields, outer: str, inner: str) -> Iterator[Field]:
    """Go through a list that the API wraps, like ``Permissions.Permission``; null and missing are empty."""
    wrapper = fields.filled(outer)
    within = wrapper.fields() if wrapper else None
    items = within.filled(inner) if within else None
    if items is not None:
        yield from items.items()


def plain_text(fields: Fields, name: str) -> str:
    """Return a text for people, empty where unused."""
    field = fields.filled(name)
    return (field.text_or_digits() if field else None) or ""


def optional_id(fields: Fields, name: str) -> str | None:
    """Return an id, None where unused."""
    field = fields.filled(name)
    return parse_id(field) if field else None


def required_id(fields: Fields, name: str) -> str | None:
    """Return an id that must be there."""
    field = fields.filled(name)
    if field is None:
        fields.refuse_missing(name)
        return None
    return parse_id(field)


def owner(fields: Fields) -> str | None:
    """Return the account that an object belongs to, None where the answer does not say."""
    field = fields.filled("OwnerId")
    return parse_account(field) if field else None


def tags(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Return the tags, sorted; calls differ in how they name the two halves of one."""
    found = [tag for field in wrapped(fields, "Tags", "Tag") if (tag := field.fields())]
    pairs = [
        (
            plain_text(tag, "TagKey") or plain_text(tag, "Key"),
            plain_text(tag, "TagValue") or plain_text(tag, "Value"),
        )
        for tag in found
    ]
    return tuple(sorted(set(pairs)))


def next_token(answer: Fields) -> str | None:
    """Return what asks for the page after an answer; None if it is the last."""
    field = answer.filled("NextToken")
    return field and field.text_or_digits()


def note_page(answer: Fields, collected: Collected, question: str) -> None:
    """Remember whether an answer announces another page."""
    page = Page(answer.field, answer.filled("NextToken") is not None)
    collected.pages.setdefault(question, []).append(page)


def refuse_part(answer: Fields) -> None:
    """Note an error where an answer that comes whole says that there is more."""
    field = answer.filled("NextToken")
    if field is not None:
        field.error("missing_page", "the answer is only a part", "an answer with everything")
