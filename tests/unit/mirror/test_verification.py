"""Problems of a verification, as they are told."""

from __future__ import annotations

from pipeline.errors import Problem
from pipeline.mirror.verification import join_wrong_keys
from tests.support.signing_examples import OTHER

WRONG = [Problem("signature-wrong-key", f"the bundle {n} is not", f"attestation {n}", "use the key") for n in range(5)]
MISSING = Problem("blob-missing", "sha256:1 not found", "dir:mirror")


def test_a_wrong_key_is_told_once_with_the_number_of_signatures() -> None:
    joined, other = join_wrong_keys([*WRONG[:2], MISSING, *WRONG[2:]], "dir:mirror", OTHER.public)
    assert (joined.code, joined.place, joined.hint) == ("signature-wrong-key", "dir:mirror", "use the key")
    assert joined.message == f"5 signatures and attestations are not by the key {OTHER.public.fingerprint.short}"
    assert other == MISSING


def test_one_signature_by_another_key_keeps_its_place() -> None:
    assert join_wrong_keys([MISSING, WRONG[0]], "dir:mirror", OTHER.public) == [MISSING, WRONG[0]]
