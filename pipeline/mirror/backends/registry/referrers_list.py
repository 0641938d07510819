"""List, attach and drop referrers on a registry, by its API or in a fallback index.

Where there is no API, clients maintain the index under a fallback tag (distribution-spec 1.1, "Listing Referrers" and
"Referrers Tag Schema").
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry.fallback_index import merge_referrers
from pipeline.mirror.backends.registry.registry_responses import error_code, next_page
from pipeline.mirror.backends.registry.repository_requests import RepositoryRequests
from pipeline.mirror.references import (
    fallback_tag,
    listed_referrers,
    manifest_subject,
    referrer_of,
)
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci import media_types
from pipeline.transfer import RegistryResponse

REGISTRY_CONCURRENCY = 6
"""Manifests that are put at the same time: enough to hide a registry's latency, few enough for its rate limits."""

LISTING_ATTEMPTS = 60
"""Rounds of reading and writing a fallback index that others write at the same time. In each round at least one
writer succeeds."""

LISTING_LOOKS = 4
"""Times that a change must be found in place, each a little later, where others were seen to write."""

LISTING_REFUSALS = 3
"""Times that an index that the registry refused is read and written again."""

LISTING_PAUSE_LEAST = 0.05
"""Seconds of the pause before an index is read back, which is also at least twice the time that reading and writing
took here: a writer who read before us has written within a few round trips."""

LISTING_PAUSE_CONTENDED = 0.2
"""Seconds of that pause at least where others were seen to write: twenty on a busy machine stall for longer between
reading and writing than the reading and the writing take."""

LISTING_PAUSE_MOST = 2.0
"""Seconds of that pause at most, before a random share is added."""

REFERRER_PAGES_MOST = 1000
"""Pages of referrers of one image."""

REFERRER_PAGE_LIMIT = 32 << 20
"""Bytes of one page."""

_NO_API = frozenset({404, 405, 501})


class ReferrersRepository(Protocol):
    """The part of `RegistryRepository` that `ReferrersList` uses."""

    def manifest(self, reference: Digest | str) -> Manifest | None: ...

    def has_manifest(self, digest: Digest) -> bool: ...


class ReferrersList:
    """Referrers in one repository. Whether the registry has the referrers API is found out once."""

    def __init__(
        self,
        repository: ReferrersRepository,
        requests: RepositoryRequests,
        put: Callable[[str, Manifest], RegistryResponse],
    ) -> None:
        """`put` puts a manifest under a digest or tag; not public, because it could move any tag."""
        self._repository = repository
        self._requests = requests
        self._put = put
        self._native: bool | None = None
        self._writing: dict[Digest, threading.Lock] = {}
        """Subject → lock between threads of this process, so that they do not contend on the registry."""
        self._finding_out = threading.Lock()
        """Held by the first thread that asks: the others need not find out, too, that there is no API."""

    def of(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest."""
        with self._finding_out if self._native is None else contextlib.nullcontext():
            found = self._asked(subject) if self._native is not False else None
        if found is not None:
            return found
        index = self._repository.manifest(fallback_tag(subject))
        return () if index is None else listed_referrers(index)

    def attach(self, manifest: Manifest) -> bool:
        """Put `manifest`, and list it as a referrer of its subject.

        Returns False if both were there before. Raises ValueError if it has no subject, EnvironmentLacking
        `referrers-contended`.
        """
        subject = manifest_subject(manifest)
        if subject is None:
            raise ValueError(f"{manifest.digest} has no subject")
        ours = manifest.digest
        there = self._repository.has_manifest(ours)
        if there and any(one.descriptor.digest == ours for one in self.of(subject)):
            return False
        self.attach_all((manifest,))
        return True

    def attach_all(self, manifests: Sequence[Manifest]) -> None:
        """Put manifests that have one subject, and list them as its referrers.

        Where there is no API, in one change of the index. Raises as `attach`.
        """
        subjects = {manifest_subject(one) for one in manifests}
        if not subjects:
            return
        subject = subjects.pop()
        if subject is None or subjects:
            raise ValueError("manifests to attach need one subject")
        with ThreadPoolExecutor(REGISTRY_CONCURRENCY, "attach") as pool:
            responses = list(pool.map(lambda one: self._put(str(one.digest), one), manifests))
        if all(response.header("oci-subject") for response in responses):
            self._native = True
            return
        wanted = {one.digest for one in manifests}
        if self._native:  # it has the API but did not confirm with OCI-Subject: are they listed?
            if wanted <= {one.descriptor.digest for one in self.of(subject)}:
                return
            self._native = False
        entries = [referrer_of(one) for one in manifests]

        def holds(index: Manifest | None) -> bool:
            return index is not None and set(entries) <= set(listed_referrers(index))

        self._write(subject, lambda index: merge_referrers(index, add=entries), holds)

    def drop(self, subject: Digest, referrer: Digest) -> None:
        """Remove a deleted referrer from the fallback index, if there is one that lists it."""

        def holds(index: Manifest | None) -> bool:
            return index is None or all(one.descriptor.digest != referrer for one in listed_referrers(index))

        self._write(subject, lambda index: merge_referrers(index, drop=[referrer]), holds)

    def _write(
        self, subject: Digest, change: Callable[[Manifest | None], Manifest], holds: Callable[[Manifest | None], bool]
    ) -> None:
        """Read, change and write the fallback index, until the change `holds` and stays.

        A registry cannot compare and swap. Another writer who read before we wrote and writes after it undoes our
        change unknowingly, within a few round trips. So the index is read back after a random pause that is longer than
        reading and writing took here, and is written again if the change is gone. Where that shows that others write
        too, the change must be found LISTING_LOOKS times.
        """
        tag = fallback_tag(subject)
        pause, wrote, contended, looks, refusals = LISTING_PAUSE_LEAST, None, False, 0, 0
        gone: tuple[Digest, ...] = ()
        with self._writing.setdefault(subject, threading.Lock()):
            for _ in range(LISTING_ATTEMPTS):
                began = time.monotonic()
                index = self._repository.manifest(tag)
                if holds(index):
                    contended = contended or (index is not None and index.digest != wrote)
                    looks += 1
                    if wrote is None or not contended or looks >= LISTING_LOOKS:
                        return
                else:
                    contended, looks = wrote is not None, 0
                    changed = change(merge_referrers(index, drop=gone) if gone else index)
                    try:
                        self._put(tag, changed)
                    except EnvironmentLacking as error:
                        refusals += 1
                        if index is None or error.code != "registry-refused" or refusals > LISTING_REFUSALS:
                            raise
                        gone = self._gone(index)
                    else:
                        wrote = changed.digest
                least = max(pause, LISTING_PAUSE_CONTENDED) if contended else pause
                pause = min(LISTING_PAUSE_MOST, max(least, 2 * (time.monotonic() - began)))
                time.sleep(pause * (1 + secrets.randbelow(1000) / 1000))
                pause *= 1.3
        raise EnvironmentLacking(
            "referrers-contended",
            f"the referrers list of {subject.short} could not be updated in {LISTING_ATTEMPTS} attempts: "
            "others are writing it",
            place=self._requests.url,
            hint="run the command again; registries with the referrers API maintain the list themselves",
        )

    def _gone(self, index: Manifest) -> tuple[Digest, ...]:
        """Return the digests in a referrers index whose manifests are missing.

        They were deleted, and a writer who had read the index before listed them again. Some registries refuse such an
        index (docker-registry: MANIFEST_BLOB_UNKNOWN).
        """
        listed = (one.descriptor.digest for one in listed_referrers(index))
        return tuple(digest for digest in listed if not self._repository.has_manifest(digest))

    # --- the API ---------------------------------------------------------------------------------

    def _asked(self, subject: Digest) -> tuple[Referrer, ...] | None:
        """Request the referrers of `subject` from the API; None if the registry has none."""
        place = f"{self._requests.url}: referrers of {subject.short}"
        url: str | None = f"referrers/{subject}"
        seen: set[str] = set()
        found: dict[Digest, Referrer] = {}
        while url is not None:
            if len(seen) >= REFERRER_PAGES_MOST:
                raise VerificationError(
                    "registry-pages", f"more than {REFERRER_PAGES_MOST} pages of referrers", place=place
                )
            response = self._requests.ask("GET", url, accept=(media_types.INDEX,), limit=REFERRER_PAGE_LIMIT)
            seen.add(response.url)
            if response.status in _NO_API and not found:
                if self._native is None and error_code(response) != "NAME_UNKNOWN":
                    self._native = False
                return None
            self._requests.expect(response, {200}, "list referrers")
            self._native = True
            found |= {
                one.descriptor.digest: one for one in listed_referrers(Manifest(media_types.INDEX, response.body))
            }
            url = next_page(response, seen, place)
        return tuple(found[digest] for digest in sorted(found))
