"""Jinja's loaders of template texts: from files or, in the child, from the parent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from jinja2 import BaseLoader, Environment, TemplateNotFound

from pipeline.render.template_files import TemplateFiles, TemplateText


class TemplateLoader(BaseLoader):
    """Base of loaders, which remember the templates that they loaded."""

    loaded: dict[str, TemplateText]

    @abstractmethod
    def text(self, name: str) -> TemplateText | None:
        """Return the template `name`, None if there is none. Raises TemplateRefused."""

    @abstractmethod
    def hint(self, name: str) -> str:
        """Return a hint for the error that the template `name` is missing."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        found = self.text(template)
        if found is None:
            raise TemplateNotFound(template)
        self.loaded.setdefault(found.path, found)
        return found.text, found.path, lambda: True


class FileLoader(TemplateFiles, TemplateLoader):
    """A loader that reads from folders, never from outside them."""
