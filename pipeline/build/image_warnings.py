"""Warnings of what is odd in an image that was built."""

from __future__ import annotations

from pipeline.model.image import Image
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe


def warn_of_oddities(image: Image, locked: LockedRecipe, options: BuildOptions, build_env: BuildEnvironment) -> None:
    """Warn of layers without packages, and of an unknown user of the image.

    A smoke test finds such a user, so that is told only without one.
    """
    recipe = locked.recipe
    lacking = {layer.name for layer in image.layers if not layer.contents}
    for layer in recipe.layers:
        if not layer.requests and not layer.local:
            build_env.progress.warn(
                f"{recipe.path.name}: the layer '{layer.name}' is empty on the platform {locked.platform.full_name}:"
                " all of its packages are called [] there"
            )
        elif layer.name in lacking:
            build_env.progress.warn(
                f"{recipe.path.name}: the layer '{layer.name}' has no package of its own:"
                " all that it requests is in lower layers; remove it, or what lower layers need not have"
            )
    user = image.config.user.partition(":")[0]
    if not options.smoke and user and not user.isdigit() and locked.accounts.uid(user) is None:
        build_env.progress.warn(
            f"{recipe.path.name}: image.user '{user}' is no account that the recipe or a package makes, so the image"
            " cannot be launched (user-unknown); add it under 'accounts', or write its ID"
        )
