"""Nights as they come: eleven products over several weeks, with all outcomes, long logs, text that means harm, missing
fixes. The same number always gives the same nights."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from pipeline.digest import Digest
from pipeline.model.enforcement import LimitEnforcement
from pipeline.model.night_record import (
    Failure,
    NightlyRun,
    Outcome,
    Product,
    ProductRun,
    RepositoryState,
    Stage,
)
from pipeline.model.published_image import (
    AttachedDocument,
    CheckFigure,
    FixTaken,
    LayerSize,
    MissingFix,
    PackageChange,
    PackageSize,
    PublishedImage,
    Resources,
)

MIB = 1 << 20
DAY = 86_400_000
BEGAN = 1_764_041_400_000
"""25 November 2025, 03:30 UTC: when the first night begins, unless told otherwise."""

KNOWN_AS = "registry.example/products"

HOSTILE = (
    "<script>alert('x')</script>\x1b[31mred\x1b[0m\x00\x07 \"quoted\" 'single' & &amp; ]]> -->"
    " \u202egnp.exe\u202c \u2067o\u200bp\u2028en\x9b31m\x1b]0;t\x07\U000e0041 <img src=x onerror=alert(1)>"
    " javascript:alert(1) {{ 7 * 7 }} {% raw %} | `tick` @someone"
)
"""What a scriptlet, an advisory or a label may say to harm whoever reads it."""

MARKUP = ("<script", "<img", "\x1b", "\x00", "\x07", "\u202e", "\u2067", "\u200b", "\u2028", "\x9b", "\U000e0041")
"""What must not be on any page."""

_NAMES = (
    ("mysql", "MySQL Community Server", "9.7.4", 96),
    ("mariadb", "MariaDB Server", "11.8.5", 88),
    ("postgresql", "PostgreSQL object-relational database", "17.7", 74),
    ("nginx", "HTTP and reverse proxy server", "1.28.1", 41),
    ("httpd", "Apache HTTP Server", "2.4.66", 52),
    ("haproxy", "TCP and HTTP load balancer", "3.0.12", 38),
    ("redis", "In-memory data structure store", "8.0.2", 36),
    ("valkey", "In-memory data structure store, of the Linux Foundation", "8.1.4", 35),
    ("memcached", "Distributed memory object cache", "1.6.39", 30),
    ("python", "Interpreter of the Python programming language", "3.13.9", 47),
    ("base", "What all the others stand on", "1.0", 24),
)

_BASE = ("glibc", "glibc-common", "filesystem", "setup", "bash", "coreutils", "openssl-libs", "libstdc++", "zlib",
         "libgcc", "tzdata", "ca-certificates", "krb5-libs", "ncurses-libs", "pcre2", "libselinux", "xz-libs",
         "lz4-libs", "libzstd", "libcap", "audit-libs", "p11-kit", "grep", "sed")  # fmt: skip
_MORE = ("libevent", "libaio", "numactl-libs", "perl-libs", "libxml2", "libicu", "expat", "sqlite-libs", "readline",
         "gmp", "nettle", "gnutls", "libidn2", "libunistring", "cyrus-sasl-lib", "openldap", "libedit", "jemalloc",
         "lua", "apr", "apr-util", "mailcap", "libnghttp2", "brotli", "systemd-libs", "libuuid", "libblkid",
         "shadow-utils", "libxcrypt", "keyutils-libs", "e2fsprogs-libs", "libverto", "protobuf", "libtirpc",
         "unixODBC")  # fmt: skip
_CHECKS = ("becomes ready", "answers a query", "keeps its data over a restart", "ends on its stop signal",
           "runs as its own user", "writes nowhere else", "has no capability", "stays within its memory",
           "refuses a wrong password", "logs to its output")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a product does in the last nights; before, it is built now and then."""

    last: tuple[Outcome, ...]
    end_of_life: str = ""


_PLANS: Mapping[str, _Plan] = {
    "mysql": _Plan((Outcome.FAILED, Outcome.FAILED, Outcome.FAILED), "2027-04-30"),
    "haproxy": _Plan((Outcome.UNCHANGED, Outcome.FAILED), "2026-01-31"),
    "python": _Plan((Outcome.BLOCKED,)),
    "mariadb": _Plan((Outcome.BUILT,), "2028-06-04"),
    "nginx": _Plan((Outcome.BUILT, Outcome.BUILT)),
    "redis": _Plan((Outcome.RETESTED,)),
    "memcached": _Plan((Outcome.UNCHANGED,), "2025-11-30"),
}


def nights(count: int = 20, *, began: int = BEGAN) -> tuple[NightlyRun, ...]:
    """`count` nights, a day from one to the next; the last one is what `_PLANS` says. `nginx` is built for two
    architectures."""
    made: list[NightlyRun] = []
    published: dict[tuple[str, str], Product] = {}
    for number in range(count):
        chance = random.Random(number)
        left = count - 1 - number
        at = began + number * DAY + chance.randrange(0, 90_000)
        products: list[Product] = []
        clock = at + 2_000
        for name, description, version, packages in _NAMES:
            for arch in ("x86_64", "aarch64") if name == "nginx" else ("x86_64",):
                outcome = _outcome(name, left, number, chance)
                before = published.get((name, arch))
                product = _product(name, description, version, packages, arch, outcome, before, number, clock)
                clock += product.run.took // 2
                products.append(product)
                if product.published.digest is not None:
                    published[name, arch] = replace(product, run=replace(product.run, failure=None))
        made.append(_night(tuple(products), at, max(one.run.began + one.run.took for one in products) + 4_000, left))
    return tuple(made)


def changed(product: Product, **members: object) -> Product:
    """The product with other members, wherever in it they stand."""
    run, published = ({one.name for one in fields(kind)} & members.keys() for kind in (ProductRun, PublishedImage))
    own = {name: one for name, one in members.items() if name not in run | published}
    return replace(
        product,
        run=replace(product.run, **{name: members[name] for name in run}),  # type: ignore[arg-type]
        published=replace(product.published, **{name: members[name] for name in published}),  # type: ignore[arg-type]
        **own,  # type: ignore[arg-type]
    )


def quiet(night: NightlyRun) -> NightlyRun:
    """The night after, in which nothing happened."""
    products = tuple(
        replace(
            product,
            end_of_life="",
            run=replace(
                product.run,
                outcome=Outcome.UNCHANGED,
                why="nothing changed",
                began=0,
                took=120,
                steps=(),
                uploaded=0,
                moved=(),
                failure=None,
            ),
            published=replace(product.published, missing=()),
        )
        for product in night.products
        if product.published.digest is not None
    )
    return replace(
        night, began=night.began + DAY, ended=night.began + DAY + 1_900, products=products, exceeded=(), exit_code=0,
        repositories=tuple(replace(one, problem="") for one in night.repositories),
    )  # fmt: skip


def blobs(night: NightlyRun) -> Mapping[str, bytes]:
    """What stands in the mirror by the paths that products name."""
    return {
        attached.path: _document(product.name, attached.name)
        for product in night.products
        for attached in product.published.attached
        if attached.path
    }


def _night(products: tuple[Product, ...], began: int, ended: int, left: int) -> NightlyRun:
    broken = left == 0
    repositories = tuple(
        RepositoryState("el9", arch, repository, Digest.of(f"{repository}{began // (5 * DAY)}".encode()))
        for arch in ("x86_64", "aarch64")
        for repository in ("baseos", "appstream", "security")
    )
    if broken:
        problem = f"timed out after 30 s; {HOSTILE}"
        repositories = (*repositories[:-1], replace(repositories[-1], digest=None, problem=problem))
    failed = any(product.run.outcome is Outcome.FAILED for product in products)
    return NightlyRun(
        began=began,
        ended=ended,
        catalogue="recipes",
        destination="dir:/srv/mirror",
        known_as=KNOWN_AS,
        products=products,
        repositories=repositories,
        threshold="important:7",
        exceeded=("base lacks SA-2025:1182 (important) for 19 days: openssl-libs 3.2.2-6 → 3.2.2-7",) if broken else (),
        key="-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n",
        exit_code=1 if failed or broken else 0,
        relbuild="0.1.0",
    )


def _outcome(name: str, left: int, number: int, chance: random.Random) -> Outcome:
    plan = _PLANS.get(name, _Plan(()))
    if left < len(plan.last):
        return plan.last[len(plan.last) - 1 - left]
    if number == 0:
        return Outcome.BUILT
    dice = chance.random()
    if dice < 0.3:
        return Outcome.BUILT
    return Outcome.RETESTED if dice < 0.36 else Outcome.FAILED if dice < 0.38 else Outcome.UNCHANGED


def _product(
    name: str, description: str, version: str, count: int, arch: str, outcome: Outcome, before: Product | None,
    number: int, clock: int,
) -> Product:  # fmt: skip
    fresh = before is None or outcome is Outcome.BUILT
    base = before if not fresh and before is not None else _built(
        name, description, version, count, arch, before, number, clock
    )  # fmt: skip
    chance = random.Random(f"{name}{arch}{number}")
    took = {Outcome.UNCHANGED: 150, Outcome.BLOCKED: 0, Outcome.RETESTED: 21_000}.get(
        outcome, base.published.build_took
    )
    steps = {Outcome.UNCHANGED: (("resolve", 150),), Outcome.BLOCKED: (), Outcome.RETESTED: (("test", 21_000),)}
    product = replace(
        base,
        run=replace(
            base.run,
            outcome=outcome,
            began=clock,
            took=took,
            steps=steps.get(outcome, base.run.steps),
            worker="build-2.example" if chance.random() < 0.3 else "",
            why=_why(name, outcome, before is None),
            uploaded=0 if outcome is not Outcome.BUILT else base.run.uploaded,
            moved=base.run.moved if outcome is Outcome.BUILT else (),
        ),
    )
    if outcome is Outcome.RETESTED:
        return replace(product, published=replace(product.published, resources=_used(name, chance)))
    if outcome is Outcome.FAILED:
        product = replace(product, run=replace(product.run, failure=_failure(name, chance), uploaded=0))
        return _refused(product) if name == "mysql" else product
    if outcome is Outcome.BLOCKED:
        return replace(
            product,
            run=replace(product.run, failure=Failure(Stage.PARENT, "parent-failed", "its parent 'mysql' failed")),
        )
    return product


def _why(name: str, outcome: Outcome, first: bool) -> str:
    if outcome is Outcome.BUILT:
        return "first build" if first else f"2 packages are newer: openssl-libs, {name}"
    return {
        Outcome.RETESTED: "the smoke test's runtime is another",
        Outcome.UNCHANGED: "nothing changed",
        Outcome.FAILED: "a package is newer: openssl-libs",
        Outcome.BLOCKED: "its parent 'mysql' failed",
    }[outcome]


def _built(
    name: str, description: str, version: str, count: int, arch: str, before: Product | None, number: int, clock: int
) -> Product:
    chance = random.Random(f"{name} {arch} {number}")
    digest = Digest.of(f"{name} {arch} {number}".encode())
    names = [*_BASE, *_MORE[: max(0, count - len(_BASE) - 1)], *([] if name == "base" else [name, f"{name}-common"])]
    sizes = random.Random(name)
    packages = tuple(
        PackageSize(
            package,
            f"{sizes.randrange(1, 9)}.{sizes.randrange(30)}-{number + 1}",
            arch,
            "base" if package in _BASE else name if package.startswith(name) else "libraries",
            package,
            int(sizes.paretovariate(0.9) * 60_000) + (60 * MIB if package == name else number * 9_000),
        )
        for package in names
    )
    layers = tuple(
        LayerSize(
            layer,
            Digest.of(f"{layer}{name}{number}".encode()),
            sum(one.size for one in packages if one.layer == layer) // 3 + chance.randrange(3 * MIB),
            sum(one.size for one in packages if one.layer == layer) + 40_000,
        )
        for layer in dict.fromkeys(one.layer for one in packages)
    )
    short = f"{version}-202511{number % 28 + 1:02}-{digest.short}"
    took = 38_000 + chance.randrange(30_000) + count * 400
    steps = (("resolve", 1_900), ("fetch", 6_200), ("build", took - 27_000), ("test", 15_500), ("publish", 3_400))
    product = Product(
        name=name,
        recipe=f"recipes/{name}.yaml",
        platform="el9",
        arch=arch,
        run=ProductRun(
            outcome=Outcome.BUILT,
            why="",
            steps=steps,
            uploaded=chance.randrange(2 * MIB, 40 * MIB),
            moved=("latest", version),
        ),
        published=PublishedImage(
            version=version,
            digest=digest,
            previous=before.published.digest if before else None,
            tags=("latest", version.partition(".")[0], version.rpartition(".")[0], version),
            immutable=short,
            built=clock,
            build_took=took,
            packages=packages,
            layers=layers,
            changes=_changes(before, packages),
            fixes=(
                FixTaken(
                    "SA-2025:1182",
                    "important",
                    f"openssl: out-of-bounds read {HOSTILE}",
                    ("CVE-2025-4444",),
                    "openssl-libs",
                    "3.2.2-7",
                ),
                FixTaken("SA-2025:1201", "", "tzdata: newer rules", (), "tzdata", "2025c-1"),
            )
            if before
            else (),
            missing=_missing(name, clock),
            checks=tuple(
                CheckFigure(
                    instance, check, True, chance.randrange(4, 900), f"as expected, in {chance.randrange(9)} tries"
                )
                for instance in ("default", "read-only", "small memory")
                for check in _CHECKS
            ),
            resources=_used(name, chance),
            limits=(
                LimitEnforcement("memory", 1 << 30, enforced=True),
                LimitEnforcement(
                    "io_bandwidth", 10 * MIB, enforced=False, reason=f"no control group holds it {HOSTILE}"
                ),
            ),
        ),
        description=description,
        labels=(
            ("org.opencontainers.image.title", name),
            ("org.opencontainers.image.vendor", HOSTILE),
            ("org.opencontainers.image.url", "javascript:alert(document.domain)"),
        ),
        parent="mysql" if name == "python" else "",
        end_of_life=_PLANS.get(name, _Plan(())).end_of_life,
    )
    return replace(
        product,
        published=replace(
            product.published, attached=tuple(_attached(name, word) for word in ("SPDX", "CycloneDX", "provenance"))
        ),
    )


def _changes(before: Product | None, packages: tuple[PackageSize, ...]) -> tuple[PackageChange, ...]:
    if before is None:
        return ()
    old = {package.name: package.evr for package in before.published.packages}
    found = [PackageChange(one.name, old.get(one.name, ""), one.evr) for one in packages[:4]]
    return (*found, PackageChange("libold", "1.2-3", ""), PackageChange("libnew", "", "2.0-1"))


def _missing(name: str, now: int) -> tuple[MissingFix, ...]:
    if name not in ("base", "httpd", "valkey"):
        return ()
    fixes = (
        MissingFix("SA-2025:1182", "important", "openssl: out-of-bounds read", now - 19 * DAY, ("CVE-2025-4444",),
                   "openssl-libs", "3.2.2-6", "3.2.2-7", "security"),
        MissingFix("SA-2025:1190", "critical", f"krb5: remote code {HOSTILE}", now - 2 * DAY,
                   ("CVE-2025-5555", "CVE-2025-5556"), "krb5-libs", "1.21-3", "1.21-5", "security"),
        MissingFix("SA-2025:1175", "moderate", "expat: long parsing", now - 30 * DAY, (), "expat", "2.7.1-1",
                   "2.7.3-1", "security"),
        MissingFix("SA-2025:1204", "", "tzdata: newer rules", now - DAY // 2, (), "tzdata", "2025b-1", "2025c-1",
                   "baseos"),
    )  # fmt: skip
    return fixes if name == "base" else fixes[:1]


def _used(name: str, chance: random.Random) -> Resources:
    size = sum(name.encode()) * 150_000
    return Resources(
        size + chance.randrange(20 * MIB), 800_000 + chance.randrange(2_500_000), chance.randrange(4, 40),
        chance.randrange(90, 4_000),
    )  # fmt: skip


def _failure(name: str, chance: random.Random) -> Failure:
    log = [f"2025-11-25T03:3{line % 10}:{line % 60:02}Z [{line}] {name}: {'waiting for the socket ' * (line % 4 + 1)}"
           for line in range(240)]  # fmt: skip
    log[120] = (
        f"2025-11-25T03:34:00Z [120] [ERROR] {name}: Can't create the lock file /run/{name}/sock.lock (30: Read-only)"
    )
    log[130] = (
        "[relbuild: check 'answers a query' failed 14.2 s after the start, asked since 3.1 s: exit code 1, not 0]"
    )
    return Failure(
        stage=Stage.SMOKE if name == "mysql" else Stage.BUILD,
        code="check-failed" if name == "mysql" else "scriptlet-failed",
        message=f"the check 'answers a query' of the instance 'read-only' did not pass: {HOSTILE}",
        place=f"recipes/{name}.yaml:41",
        hint="look at the log; the server may want a writable /run",
        log=(*log, HOSTILE, "x" * 600, f"exit status {chance.randrange(1, 120)}"),
        command=f"relbuild run {name} --platform el9 --arch x86_64 --read-only",
        cause=log[120] if name == "mysql" else "",
    )


def _refused(product: Product) -> Product:
    """Its image did not pass: the same check failed in two of three instances."""
    checks = tuple(
        replace(
            check,
            passed=False,
            detail=f"exit code 1, not 0: {HOSTILE}",
            place=f"recipes/{product.name}.yaml:41: smoke.checks[1]",
            rendered=("command[2]: '{{ values.port }}' rendered to '3306'",),
        )
        if check.name == "answers a query" and check.instance != "default"
        else check
        for check in product.published.checks
    )
    return replace(product, published=replace(product.published, checks=checks))


def _attached(name: str, word: str) -> AttachedDocument:
    data = _document(name, word)
    digest = Digest.of(data)
    media_type = "application/vnd.dev.sigstore.bundle.v0.3+json"
    return AttachedDocument(word, digest, media_type, len(data), f"blobs/sha256/{digest.hex}")


def _document(name: str, word: str) -> bytes:
    return f'{{"what": "{word}", "of": "{name}"}}\n'.encode()
