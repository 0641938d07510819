"""The `store` group of commands."""

from pipeline.cli.app import group

group("store", help="Look after the store.")
