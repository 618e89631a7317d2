"""Read whose signatures definitions need: the table ``[signature]``."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.documents.field import Fields
from sgagent.settings.keys import read_boolean
from sgagent.signatures.keys import KEY_FORM, PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSettings:
    """Who may vouch for definitions."""

    public_keys: tuple[PublicKey, ...] = ()
    """Any one of them does; without any, nobody is asked for a signature."""

    required: bool = True
    """Whether definitions without a signature are refused; a wrong one is in any case."""


def parse_signature(root: Fields) -> SignatureSettings:
    """Return whose signatures definitions need."""
    field = root.get("signature")
    table = field.fields() if field else None
    if table is None:
        return SignatureSettings()
    table.refuse_unknown(("public_keys", "required"))
    keys: list[PublicKey] = []
    for item in table.items("public_keys"):
        text = item.text()
        try:
            keys += [PublicKey.parse(text)] if text is not None else []
        except ValueError as error:
            item.error("bad_public_key", str(error), KEY_FORM)
    if table.get("public_keys") is None:
        table.refuse_missing("public_keys", 'like public_keys = ["ed25519:…"], as `sgagent keygen` prints it')
    return SignatureSettings(
        public_keys=tuple(dict.fromkeys(keys)), required=read_boolean(table, "required", default=True)
    )
