"""The `store` group of commands."""

from pipeline.cli.app import command_group

command_group("store", help="Maintain the store.")
