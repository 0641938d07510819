"""Models of the recipe document and of the entries under its `platforms`.

A key that can differ is declared once: an entry under `platforms` has the very field of the recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, create_model

from pipeline.recipes.check_schema import CheckDocument
from pipeline.recipes.fields import (
    Architecture,
    Date,
    Line,
    Name,
    Named,
    PackageName,
    ProductName,
    Strict,
    TargetPath,
    VariableName,
)
from pipeline.recipes.payload_schema import PayloadLimitsDocument
from pipeline.recipes.schema import AccountsDocument, FileDocument, ImageDocument, LayerDocument, SmokeDocument
from pipeline.recipes.scriptlet_schema import ScriptletsValue

ANY_PLATFORM = "any"
"""The entry under `platforms` that every platform fits."""


class _RecipeFields(Strict):
    """All keys of a recipe but `platforms`, whose entries have some of them."""

    name: ProductName | None = Field(
        default=None,
        description="the product's name, and the image's; not with the ending `.report`",
        examples=["mysql"],
    )
    version: Line | None = Field(
        default=None,
        description="the image's version, usually taken from a package after resolving",
        examples=["{{ packages['mysql-server'].version }}"],
    )
    end_of_life: Date | None = Field(
        default=None,
        alias="end-of-life",
        description="the last day on which the product is kept up; the image carries it, `audit` says when it is near",
        examples=["2027-04-30"],
    )
    platform: Name | None = Field(
        default=None, description="a platform of `repositories.yaml`", examples=["centos-stream-9"]
    )
    architectures: list[Architecture] | None = Field(
        default=None,
        min_length=1,
        description="what the image is built for; default: x86_64",
        examples=[["x86_64", "aarch64"]],
    )
    include: list[Line] = Field(
        default=[],
        description="recipes that this one builds on, relative to its folder",
        examples=[["base.yaml"]],
    )
    from_: Line | None = Field(
        default=None,
        alias="from",
        description="the recipe whose image this one adds to, by its name beside this recipe or its path from there",
        examples=["base"],
    )
    layers: list[LayerDocument] = Field(default=[], description="layers of packages, the lowest first")
    weak_dependencies: bool | None = Field(
        default=None, alias="weak-dependencies", description="install what packages recommend; default: false"
    )
    languages: list[Line] | None = Field(
        default=None, description="locales whose files are kept; default: all", examples=[["en", "de"]]
    )
    exclude: list[Line] = Field(
        default=[],
        description="packages that are never chosen, written as in the check `packages`",
        examples=[["*-debug"]],
    )
    pins: dict[Line, Line] = Field(
        default={}, description="the version that a package must have", examples=[{"mysql-server": "8.4.3"}]
    )
    assume_installed: list[Line] = Field(
        default=[],
        alias="assume-installed",
        description="requirements that count as met; the image reports them",
        examples=[["systemd"]],
    )
    modules: list[Line] = Field(default=[], description="module streams to enable", examples=[["nodejs:20"]])
    accounts: AccountsDocument = Field(default=AccountsDocument(), description="accounts with fixed numbers")
    scriptlets: ScriptletsValue | None = Field(
        default=None, description="what happens when a scriptlet fails; default: `strict`", examples=["rpm"]
    )
    payload_limits: PayloadLimitsDocument = Field(
        default=PayloadLimitsDocument(),
        alias="payload-limits",
        description="what a package may unpack to",
        examples=[{"ratio": 1000}],
    )
    files: list[FileDocument] = Field(default=[], description="files that the recipe puts into the image")
    remove: list[TargetPath] = Field(
        default=[],
        description="paths that are removed from the image, with all below",
        examples=[["/usr/share/info"]],
    )
    values: dict[VariableName, object] = Field(
        default={}, description="what templates see, as `{{ name }}` and `{{ values.name }}`"
    )
    image: ImageDocument = Field(default=ImageDocument(), description="the image's configuration")
    smoke: SmokeDocument | None = Field(default=None, description="how the image is tested")


VARIABLE_BY_PLATFORM = (
    "end_of_life",
    "exclude",
    "pins",
    "assume_installed",
    "modules",
    "accounts",
    "scriptlets",
    "payload_limits",
    "files",
    "remove",
    "values",
    "image",
)
"""Fields of a recipe that an entry under `platforms` has too. What decides on the platform, or on which layers are
shared, is not among them."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


PackageNames = Annotated[
    list[PackageName],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    Named("package name or list of package names"),
]

if TYPE_CHECKING:

    class _VariableFields(_RecipeFields):
        """Stands for the fields of a recipe that an entry has."""

else:
    _VariableFields = create_model(
        "_VariableFields",
        __base__=Strict,
        **{
            name: (_RecipeFields.model_fields[name].annotation, _RecipeFields.model_fields[name])
            for name in VARIABLE_BY_PLATFORM
        },
    )


class RecipePlatformDocument(_VariableFields):
    """The differences on one platform, or on all platforms of a family.

    The entry counts as a recipe on top of its own: lists are put one after the other, mappings merged, the rest
    replaced; an account takes the place of the one of the same name. See [Several platforms](#several-platforms).
    """

    refused: Line | None = Field(
        default=None,
        description="why the recipe cannot be built there; stands alone",
        examples=["the distribution has no MySQL"],
    )
    packages: dict[PackageName, PackageNames] = Field(
        default={},
        description="what packages that the recipe names are called there; of several, `packages[…]` is the first; "
        "`[]` is none",
        examples=[{"mysql-server": "mysql-community-server"}],
    )
    add_ons: list[Name] | None = Field(
        default=None,
        alias="add-ons",
        description="add-ons of `repositories.yaml` whose repositories are put on top of the platform's",
        examples=[["mysql-8.4"]],
    )
    checks: list[CheckDocument] = Field(
        default=[], description="checks that take the place of the recipe's of the same name"
    )


class RecipeDocument(_RecipeFields):
    """A recipe file.

    `name`, `version`, `platform` and at least one layer must come from it or, except for `name` and `version`, from
    recipes that it includes. With `from`, the platform may come from there and there need be no layer.
    """

    platforms: dict[Name, RecipePlatformDocument] | None = Field(
        default=None,
        min_length=1,
        description="the platforms that it can be built on, by their names or families, or `any`, with what is "
        "different there; default: it is the same on all",
        examples=[{"el": {"packages": {"mysql-server": "mysql-community-server"}}}],
    )


def entry_as_recipe(entry: RecipePlatformDocument) -> RecipeDocument:
    """Return what an entry says as a recipe to be put on top of its own."""
    given = entry.model_fields_set.intersection(VARIABLE_BY_PLATFORM)
    return RecipeDocument.model_construct(_fields_set=given, **{name: getattr(entry, name) for name in given})
