"""Models of `repositories.yaml`: platforms and add-ons."""

from __future__ import annotations

from pydantic import Field

from pipeline.model.rpm_database import DATABASE_FOLDERS
from pipeline.recipes.fields import (
    Architecture,
    Line,
    Name,
    Strict,
    TextValue,
    VariableName,
)
from pipeline.recipes.payload_schema import PayloadLimitsDocument
from pipeline.recipes.repository_fields import RepositoryDocument, RepositoryItem
from pipeline.recipes.rpm_database_schema import RpmDatabaseItem

DEFAULT_DATABASE = DATABASE_FOLDERS[0]


class PlatformDocument(Strict):
    """Repositories that fit together, with what is particular about the distribution."""

    description: TextValue = Field(default="", description="for people")
    refused: Line | None = Field(default=None, description="why the platform is refused; replaces `repositories`")
    extends: Name | None = Field(
        default=None, description="a platform whose repositories and settings this one adds to"
    )
    families: list[Name] = Field(
        default=[],
        description="what it belongs to, the most specific first, for the entries under `platforms` of recipes and "
        "add-ons; those of the platform that is extended follow",
        examples=[["el9", "el"]],
    )
    add_ons: list[Name] = Field(
        default=[],
        alias="add-ons",
        description="add-ons whose repositories are put on top of those of the platform that is extended",
        examples=[["epel"]],
    )
    architectures: list[Architecture] | None = Field(default=None, min_length=1, description="what it exists for")
    variables: dict[VariableName, TextValue] = Field(
        default={},
        description="values for `$name` in URLs and keys, beside `$arch`, `$basearch`, and `$releasever` where "
        "`release` is given; may use `${NAME:-default}` of the environment, where NAME is RELBUILD_MIRROR, "
        "RELBUILD_REAL or begins with RELBUILD_VAR_",
    )
    payload_limits: PayloadLimitsDocument = Field(
        default=PayloadLimitsDocument(), alias="payload-limits", description="what a package may unpack to"
    )
    rpm_database: RpmDatabaseItem | None = Field(
        default=None,
        alias="rpm-database",
        description="where its own rpm has its database: the folder, or the folder and the format; "
        f"default: {DEFAULT_DATABASE}",
    )
    dnf_vars: list[Line] = Field(
        default=[],
        alias="dnf-vars",
        description="folders of variables as dnf has them, a file for each: /etc/dnf/vars, /etc/yum/vars, or one "
        "beside this file; `variables` go before",
    )
    repositories: list[RepositoryItem] = Field(default=[], description="what it is made of")
    sources: list[RepositoryItem] = Field(
        default=[], description="where its source packages are, for licences that demand them; never resolved from"
    )


class AddOnDocument(Strict):
    """Repositories that are put on top of a platform.

    A recipe, a platform or `--platform PLATFORM+ADD-ON` names them.
    """

    description: TextValue = Field(default="", description="for people")
    platforms: dict[Name, list[RepositoryDocument]] = Field(
        min_length=1,
        description="its repositories on each platform or family of platforms that it is for, or on `any`; the most "
        "specific counts",
    )


class PlatformsDocument(Strict):
    """The file `repositories.yaml`."""

    platforms: dict[Name, PlatformDocument] = Field(description="platforms by name")
    add_ons: dict[Name, AddOnDocument] = Field(
        default={}, alias="add-ons", description="repositories that can be put on top of platforms, by name"
    )
