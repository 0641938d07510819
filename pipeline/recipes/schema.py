"""Models of what is inside a recipe document: layers, accounts, files, image, smoke test.

The document itself is in `recipe_schema`. The JSON Schema for editors and `docs/recipe.md` are generated from these
models. They check each value by itself; rules on several values are checked by `merge`.
Inside `image` and `smoke`, words of a key are joined with `_`, elsewhere with `-`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, create_model

from pipeline.model.image_keys import IMAGE_KEYS
from pipeline.model.limits import LIMITS, AnyLimit
from pipeline.recipes.check_schema import (
    CheckDocument,
    NeighboursDocument,
    ReadyDocument,
    Variants,
)
from pipeline.recipes.fields import (
    ID_MOST,
    AccountName,
    FileMode,
    FileTargetPath,
    FolderPath,
    LeftOut,
    Line,
    Name,
    Owner,
    RelativePath,
    RelativePathOrUrl,
    Sha256,
    Strict,
    TargetPath,
    TextValue,
    UrlValue,
    annotation_of,
)
from pipeline.recipes.image_fields import key_field

Id = Annotated[int, Field(ge=1, le=ID_MOST)]

AUTO_DEFAULT = 16
"""Layers that `auto` makes: with fewer much more is downloaded, with more not much less (docs/layering.md)."""

AUTO_MOST = 40
"""As many as leave room for others: one overlay has 64."""


class LocalPackageDocument(Strict):
    """A package by path and checksum, in place of a name: a hotfix."""

    path: Line = Field(
        description="the RPM, relative to the recipe that names it",
        examples=["hotfix/mysql-8.4.3-2.x86_64.rpm"],
    )
    sha256: Sha256 = Field(description="sha256 of the whole file", examples=["9f86d081884c7d65…"])


def _package_kind(value: object) -> str:
    return "<local>" if isinstance(value, dict | LocalPackageDocument) else "<request>"


PackageItem = Annotated[
    Annotated[Line, Tag("<request>")] | Annotated[LocalPackageDocument, Tag("<local>")],
    Discriminator(_package_kind),
]


def _written_out(value: object) -> object:
    """Convert `true` to an empty mapping, and `false` to None."""
    return {} if value is True else None if value is False else value


class AutoDocument(Strict):
    """The grouping of a layer's packages into several layers.

    Those who follow the image download little: packages are grouped by their sizes, their sources, and how often these
    changed. See [layering.md](layering.md).
    """

    at_most: Annotated[int, Field(ge=2, le=AUTO_MOST)] = Field(
        default=AUTO_DEFAULT,
        alias="at-most",
        description="how many layers of the image they may be; each more saves bytes, and costs a request",
        examples=[8],
    )


class LayerDocument(Strict):
    """One layer of packages. A package belongs to the lowest layer whose requests reach it."""

    name: Name = Field(description="what the layer is called in reports", examples=["base"])
    packages: list[PackageItem] = Field(
        min_length=1,
        description="what is installed: names, provides, file paths, `name-version`, `name >= version`, rich "
        "dependencies, groups (`@core`, `@^minimal-environment`, `@core/mandatory`); or packages by path and sha256",
        examples=[["mysql-server", "openssl >= 3"]],
    )
    without: list[LeftOut] = Field(
        default=[],
        description="what this layer leaves out; `weak-dependencies` is the default, for the whole recipe",
        examples=[["docs", "man"]],
    )
    auto: Annotated[
        AutoDocument | None, BeforeValidator(_written_out, json_schema_input_type=bool | AutoDocument | None)
    ] = Field(
        default=None,
        description="group the packages into several layers of the image, called `NAME-1`, `NAME-2`, …: `true`, or "
        "the mapping",
        examples=[True],
    )


class UserDocument(Strict):
    """An account that must exist with this number, whatever packages say."""

    name: AccountName = Field(description="the user's name", examples=["mysql"])
    uid: Id = Field(description="the user's number", examples=[27])
    gid: Id | None = Field(
        default=None,
        description="the number of the user's group; default: the uid, in a group of the same name",
    )
    home: FolderPath = Field(default="/", description="the home directory", examples=["/var/lib/mysql"])
    shell: TargetPath = Field(default="/sbin/nologin", description="the login shell")
    comment: TextValue = Field(default="", description="the full name (GECOS)")


class GroupDocument(Strict):
    """A group that must exist with this number."""

    name: AccountName = Field(description="the group's name", examples=["ssl-cert"])
    gid: Id = Field(description="the group's number", examples=[101])


class AccountsDocument(Strict):
    """Accounts that the image needs with fixed numbers."""

    users: list[UserDocument] = Field(default=[], description="users")
    groups: list[GroupDocument] = Field(default=[], description="groups that no user brings along")


class FileDocument(Strict):
    """One file that the recipe puts into the image.

    It is made from exactly one of `template`, `content`, `source`, `url`, `directory`, `symlink`, `archive`. Links of
    the image are followed in its path: one that they lead below `/run` (as `/var/run`), or to the place of another
    file, is refused.
    """

    template: Line | None = Field(
        default=None,
        description="a Jinja2 template, looked for beside the recipe, in `templates/` beside it and in `../templates/`",
        examples=["my.cnf.j2"],
    )
    content: TextValue | None = Field(default=None, description="the file's literal text")
    source: RelativePath | None = Field(default=None, description="a file beside the recipe, copied as it is")
    url: UrlValue | None = Field(default=None, description="where the file is fetched from; needs `sha256`")
    directory: FileTargetPath | None = Field(
        default=None, description="a directory to make, instead of `path`", examples=["/srv/data"]
    )
    symlink: Line | None = Field(
        default=None, description="what the symbolic link at `path` points to", examples=["../lib/mysql"]
    )
    archive: RelativePathOrUrl | None = Field(
        default=None,
        description="a tar, cpio or zip archive, beside the recipe or from a URL, whose content is put below `path`; "
        "needs `sha256`",
        examples=["app-1.2.tar.xz"],
    )
    strip: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None, description="how many leading components the names in `archive` lose; default: 0", examples=[1]
    )
    path: FileTargetPath | None = Field(
        default=None, description="the file's path in the image", examples=["/etc/my.cnf"]
    )
    mode: FileMode | None = Field(
        default=None,
        description="permissions in octal, in quotes; default 0644, directories and programs of an archive 0755",
        examples=["0640"],
    )
    owner: Owner = Field(default="root", description="user, by name or number")
    group: Owner | None = Field(default=None, description="group, by name or number; default: the owner's name")
    sha256: Sha256 | None = Field(default=None, description="checksum of what `url` gives, or of the archive")
    override: bool = Field(default=False, description="replace the file that an included recipe puts at the same path")


if TYPE_CHECKING:

    class _ImageFields(Strict):
        """Stands for the fields, of which the code here names one."""

        entrypoint: list[str] | None = None

else:
    _ImageFields = create_model(
        "_ImageFields", __base__=Strict, **{key.name: key_field(key) for key in IMAGE_KEYS}
    )  # fmt: skip


class ImageDocument(_ImageFields):
    """The image's configuration (OCI image-spec, config.md).

    Texts may hold templates that use `values` and `packages`; ports may use `values`.
    """


def _limit_field(limit: AnyLimit) -> tuple[Any, Any]:
    kind = annotation_of(limit.form)
    told = Field(default=limit.default, description=limit.meaning, examples=[limit.example])
    return (kind if limit.default is not None else kind | None), told


if TYPE_CHECKING:
    _LimitFields = Strict
else:
    _LimitFields = create_model(
        "_LimitFields", __base__=Strict, **{limit.name: _limit_field(limit) for limit in LIMITS}
    )  # fmt: skip


class LimitsDocument(_LimitFields):
    """The limits of one instance."""

    enforce: bool = Field(default=False, description="fail when the kernel does not take a limit")


class SmokeDocument(Strict):
    """The test of the image before it may be shipped."""

    limits: LimitsDocument = Field(default=LimitsDocument(), description="what each instance may use")
    instances: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="how many run at the same time", examples=[2]
    )
    variants: Variants = Field(
        default=[],
        description="one more instance each, asked the same: `arbitrary-uid` as a random high user in group 0, "
        "`read-only` with a look at its mounts, that nothing but volumes and scratch space can be written",
        examples=[["arbitrary-uid"]],
    )
    upgrade_from: Line | None = Field(
        default=None,
        description="the OCI layout of an older image, relative to this recipe: one more instance starts as the old "
        "image, and at the first `restart` (without one: before all checks) becomes the new one on the same volumes",
        examples=["../previous/mysql"],
    )
    neighbours: NeighboursDocument | None = Field(
        default=None, description="whether one that misbehaves disturbs the others", examples=[{"count": 20}]
    )
    ready: ReadyDocument | None = Field(default=None, description="when an instance is ready to be asked")
    checks: list[CheckDocument] = Field(default=[], description="questions, asked in order of every instance")


def is_given(document: Strict, field: str) -> bool:
    """Return whether the field is given in the document, not left to its default."""
    return field in document.model_fields_set
