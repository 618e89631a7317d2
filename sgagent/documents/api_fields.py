"""Fields that several API answers share: wrapped lists, tags, pages, unset texts."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.documents.assembly import Collected, Page
from sgagent.documents.field import Field, Fields
from sgagent.documents.values import parse_account, parse_id


def wrapped(fields: Fields, outer: str, inner: str) -> Iterator[Field]:
    """Yield the items of a wrapped list, like ``Permissions.Permission``; null and missing are empty."""
    wrapper = fields.filled(outer)
    within = wrapper.fields() if wrapper else None
    items = within.filled(inner) if within else None
    if items is not None:
        yield from items.items()


def plain_text(fields: Fields, name: str) -> str:
    """Return a display text; empty if unset."""
    field = fields.filled(name)
    return (field.text_or_digits() if field else None) or ""


def optional_id(fields: Fields, name: str) -> str | None:
    """Return an id; None if unset."""
    field = fields.filled(name)
    return parse_id(field) if field else None


def required_id(fields: Fields, name: str) -> str | None:
    """Return an id; None, with an error added, if unset."""
    field = fields.filled(name)
    if field is None:
        fields.refuse_missing(name)
        return None
    return parse_id(field)


def owner(fields: Fields) -> str | None:
    """Return the account that owns an object; None if unset."""
    field = fields.filled("OwnerId")
    return parse_account(field) if field else None


def tags(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Return the sorted tags; the names of key and value differ between API calls."""
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
    """Return the token of the next page; None on the last page."""
    field = answer.filled("NextToken")
    return field and field.text_or_digits()


def note_page(answer: Fields, collected: Collected, question: str) -> None:
    """Record a page and whether it announces another one."""
    page = Page(answer.field, answer.filled("NextToken") is not None)
    collected.pages.setdefault(question, []).append(page)


def refuse_part(answer: Fields) -> None:
    """Add an error if an answer of a call without pagination announces another page."""
    field = answer.filled("NextToken")
    if field is not None:
        field.error("missing_page", "the answer is only a part", "an answer with everything")
