"""Commands that look into images: layouts, and what is on mirrors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import JsonOption, ProgressOption, StoreOption, Surroundings, answer, app, perform, say
from pipeline.cli.identity import IdentityOption, identity_for
from pipeline.cli.keys import verifying_key
from pipeline.cli.progress import Look
from pipeline.cli.summary import image_as_json, image_as_lines
from pipeline.errors import Problem, UsageError, VerificationError
from pipeline.escaping import visible
from pipeline.mirror.addresses import is_address, parse_address
from pipeline.oci import read_layout, validate
from pipeline.oci.sbom import SbomForm, sbom_problems
from pipeline.release import attested_sbom, look_at, validate_held
from pipeline.reports import read_sbom, report_folder

ImageArgument = Annotated[
    str,
    typer.Argument(help="An OCI layout, or a reference on a mirror (dir:PATH/NAME:TAG …).", show_default=False),
]


@app.command("inspect")
def inspect_command(
    image: ImageArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an image is made of."""

    def act(around: Surroundings) -> int:
        if is_address(image):
            held = look_at(parse_address(image), around.workshop(store))
            found, digest = held.images, str(held.digest)
        else:
            found = (read_layout(Path(image)),)
            digest = str(found[0].digest)
        if around.as_json and len(found) == 1:
            answer(image_as_json(found[0]))
        elif around.as_json:
            answer({"digest": digest, "images": [image_as_json(one) for one in found]})
        else:
            if len(found) > 1:
                print(visible(f"index {digest}"))
            print(visible("\n".join(line for one in found for line in image_as_lines(one))))
        return 0

    perform(act, Look.NONE, as_json)


@app.command("validate")
def validate_command(
    image: ImageArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Recompute every digest, size and diff_id of an image, and report all that does not match."""

    def act(around: Surroundings) -> int:
        if is_address(image):
            _, problems = validate_held(parse_address(image), around.workshop(store))
        else:
            problems = validate(Path(image))
        if problems:
            raise VerificationError.of(problems)
        say(f"{image}: every digest, size and diff_id holds")
        if around.as_json:
            answer({"valid": True})
        return 0

    perform(act, progress, as_json)


@app.command("sbom")
def sbom_command(
    image: ImageArgument,
    form: Annotated[SbomForm, typer.Option("--format", help="SPDX 2.3 or CycloneDX 1.6, as JSON.")] = SbomForm.SPDX,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="For an image on a mirror: the public key that must have attested it."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--validate", help="Hold it against the form's own validator first (a second or so).")
    ] = False,
    known_as: IdentityOption = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print an image's software bill of materials.

    That of a layout that was built here, or as a mirror attests it.
    """

    def act(around: Surroundings) -> int:
        if is_address(image):
            if key is None:
                raise UsageError(
                    "key-missing", "an SBOM on a mirror is worth what its signature is", hint="name the public --key"
                )
            workshop = around.workshop(store)
            verifying = verifying_key(key, workshop.environment, workshop.progress)
            identity = identity_for(known_as)
            _, document = attested_sbom(parse_address(image), form, verifying, workshop, identity=identity)
        else:
            layout = Path(image)
            document = read_sbom(report_folder(layout), form, read_layout(layout).digest)
        problems = sbom_problems(document, form) if check else []
        if problems:
            raise VerificationError.of([Problem("sbom-invalid", text, place=form.file_name) for text in problems])
        sys.stdout.buffer.write(document)
        return 0

    perform(act, Look.NONE, as_json)
