"""The `store` group of commands: declares the group, which maintains the store."""

from pipeline.cli.app import command_group

command_group("store", help="Maintain the store.")
