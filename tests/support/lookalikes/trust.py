"""A copy of the shipped definitions whose pinned keys are keys of the test's own, and nothing else is different.

The shipped pins are of keys whose private halves nobody here has. So each is exchanged, in `repositories.yaml` for the
fingerprint of a key made here, and in `keys/` for its certificate, at the same place in a file of the same name and
form: as many blocks, armored as they were, the other certificates as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.openpgp_packets import (
    MalformedPacket,
    Packet,
    armor,
    armor_blocks,
    dearmor,
    read_public_key,
    split_certificates,
)
from tests.support.lookalikes.signing import SigningKey

PIN = re.compile(r"\b[0-9A-F]{40}\b")


@dataclass
class Trust:
    """The keys, by the fingerprint of the real key that each stands for; `folder` has the copy of the definitions."""

    folder: Path
    keys: dict[str, SigningKey] = field(default_factory=dict)

    @classmethod
    def copy(cls, recipes: Path, folder: Path) -> Trust:
        """Copy `recipes/repositories.yaml` and `recipes/keys/` into `folder`, the pinned keys exchanged."""
        made = cls(folder)
        text = (recipes / "repositories.yaml").read_text()
        for pin in sorted(set(PIN.findall(text))):
            made.keys[pin] = SigningKey.make(f"look-alike of {pin}")
        (folder / "keys").mkdir(parents=True)
        (folder / "repositories.yaml").write_text(made.exchanged(text))
        for path in (recipes / "keys").iterdir():
            if path.suffix != ".md":
                (folder / "keys" / path.name).write_bytes(exchange_certificates(path.read_bytes(), made.keys))
        return made

    def exchanged(self, text: str) -> str:
        """The text with each pin replaced by the fingerprint of the key that stands for it."""
        return PIN.sub(lambda found: self.keys[found.group()].fingerprint, text)

    def by_fingerprint(self, fingerprint: str) -> SigningKey:
        """The key of the test's own with this fingerprint."""
        return next(key for key in self.keys.values() if key.fingerprint == fingerprint)


def exchange_certificates(data: bytes, keys: Mapping[str, SigningKey]) -> bytes:
    """A key file with each certificate of a key in `keys` exchanged; blocks that cannot be read are as they were."""
    for block in armor_blocks(data):
        try:
            certificates = split_certificates(dearmor(block))
        except MalformedPacket:
            continue
        packets: list[Packet] = []
        changed = False
        for certificate in certificates:
            stand_in = keys.get(read_public_key(certificate[0].body).fingerprint)
            changed = changed or stand_in is not None
            packets += [Packet(0, b"", stand_in.certificate)] if stand_in else certificate
        if changed:
            data = data.replace(block.strip(), armor(packets).strip())
    return data
