"""Bills for tests: one with everything that is awkward in it, and what is drawn by chance."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.digest import DiffId, Digest
from pipeline.model.bill import Bill, BilledLayer, BilledPackage, Privileged
from pipeline.model.package import Nevra


def package(nevra: str, **more: object) -> BilledPackage:
    """A package that says what packages usually say."""
    parsed = Nevra.parse(nevra)
    said: dict[str, object] = {
        "nevra": parsed,
        "checksum": Digest.of(nevra.encode()),
        "size": 1000,
        "license": "MIT",
        "vendor": "Fedora Project",
        "url": "https://example.invalid/it",
        "summary": "It",
        "source_rpm": f"{parsed.name}-{parsed.version}-{parsed.release}.src.rpm",
        "repository": "base",
        "layer": "base",
    }
    return BilledPackage(**{**said, **more})  # type: ignore[arg-type]


AWKWARD = Bill(
    name="Näme",
    version="1.0~rc1+x",
    digest=Digest("a" * 64),
    config=Digest("b" * 64),
    created=1_700_000_000,
    architecture="amd64",
    layers=(
        BilledLayer("base", DiffId("1" * 64), Digest("2" * 64), 100),
        BilledLayer("state", DiffId("3" * 64), Digest("4" * 64), 10),
    ),
    packages=(
        package("a+b~c^d-1:2.0^git1-1.fc43.x86_64", fixes=("CVE-2024-0001", "CVE-2024-0002")),
        package("duplicate-1-1.x86_64", license="GPL-2.0-or-later and (MIT or Apache-2.0)"),
        package("duplicate-1-1.i686", license="GPL-3.0-or-later WITH GCC-exception-3.1"),
        package("fedora-1-1.noarch", license="MIT AND LicenseRef-Fedora-Public-Domain"),
        package("foreign-1-1.noarch", license="See /usr/share/doc/x/copyright", url="not a URL"),
        package("odd-1-1.noarch", license="(((", vendor='Ünï "& <Co>', url="https://[", summary="ß" * 300),
        package("firm-1-1.noarch", vendor="Firm (North)\n Ltd."),
        package("blank-1-1.noarch", vendor=" "),
        package("old-1-1.noarch", license="GPLv2+ and LGPLv2", vendor="relbuild development mirror"),
        package("silent-1-1.noarch", license="", vendor="", url="", summary="", source_rpm=""),
        package("wordy-1-1.noarch", license="MIT AND " * 2000 + "MIT", source_rpm="strange name"),
    ),
    privileged=(Privileged("/usr/bin/su", 0o4755, "su-1-1.x86_64"), Privileged("/x", 0o755, "", "cap_net_raw=ep")),
)

digests = st.binary(min_size=32, max_size=32).map(lambda data: Digest(data.hex()))
diff_ids = st.binary(min_size=32, max_size=32).map(lambda data: DiffId(data.hex()))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.text("abcxyz019+_~^", min_size=1, max_size=8)
numbers = st.integers(0, 2**53)
nevras = st.builds(Nevra, words, st.integers(0, 3), words, words, st.sampled_from(["noarch", "x86_64"]))
packages = st.builds(
    BilledPackage, nevras, digests, numbers, *[texts] * 5, words, words, st.lists(texts, max_size=2).map(tuple)
)
bills = st.builds(
    Bill,
    words,
    texts,
    digests,
    digests,
    st.integers(0, 2**32 - 1),
    words,
    st.lists(st.builds(BilledLayer, words, diff_ids, digests, numbers), max_size=2).map(tuple),
    st.lists(packages, max_size=3).map(tuple),
    st.lists(st.builds(Privileged, texts, st.integers(0, 0o7777), texts, texts), max_size=2).map(tuple),
)
