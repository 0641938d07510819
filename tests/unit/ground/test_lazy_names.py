"""Names of rooms that are imported from their modules when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.source import PIPELINE

_ROOMS = sorted(
    path.parent.relative_to(PIPELINE.parent).as_posix().replace("/", ".")
    for path in PIPELINE.rglob("__init__.py")
    if "imported_when_used(" in path.read_text()
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A room whose function `sell` stands in the module `sell`, beside a module that does not exist."""
    room = tmp_path / "shop"
    room.mkdir()
    (room / "__init__.py").write_text(
        "from pipeline.lazy_names import imported_when_used\n\n"
        "with imported_when_used(__name__):\n"
        "    from shop import goods\n"
        "    from shop.missing import lost\n"
        "    from shop.sell import sell\n"
        "    from shop.sell import refund as give_back\n"
    )
    (room / "sell.py").write_text("def sell():\n    return 'sold'\n\n\ndef refund():\n    return 'refunded'\n")
    (room / "goods.py").write_text("ALL = ('bread',)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("shop")
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def test_nothing_is_imported_before_a_name_is_used(shop: ModuleType) -> None:
    assert "shop.sell" not in sys.modules
    assert shop.sell() == "sold"
    assert "shop.sell" in sys.modules and "shop.goods" not in sys.modules


def test_a_function_keeps_its_name_from_the_module_of_that_name(shop: ModuleType) -> None:
    module = importlib.import_module("shop.sell")
    assert shop.sell is module.sell
    assert shop.give_back is module.refund


def test_a_module_of_the_room_is_the_module(shop: ModuleType) -> None:
    assert shop.goods is importlib.import_module("shop.goods")
    assert shop.goods.ALL == ("bread",)


def test_names_are_listed_and_unknown_ones_are_an_error(shop: ModuleType) -> None:
    assert {"goods", "sell", "give_back", "lost"} <= set(dir(shop))
    with pytest.raises(AttributeError, match="module 'shop' has no attribute 'steal'"):
        _ = shop.steal


def test_an_import_that_fails_does_so_where_its_name_is_used(shop: ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"shop\.missing"):
        _ = shop.lost


@pytest.mark.parametrize("room", _ROOMS)
def test_every_name_of_a_room_can_be_used(room: str) -> None:
    module = importlib.import_module(room)
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []
