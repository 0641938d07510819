"""Capabilities: text to attribute, the same as libcap's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import BuildError
from pipeline.process import find_program
from pipeline.trees.capabilities import CAPABILITY_NAMES, as_revision_2, capability_attribute
from tests.support.tiny_root import require_root

TEXTS = [
    "cap_net_raw=ep",
    "cap_net_raw+ep",
    "cap_net_bind_service,cap_net_raw=ep",
    "cap_net_raw=p",
    "cap_net_raw,cap_sys_admin=i cap_chown+p",
    "cap_setgid=ep cap_setuid+ep",
    "cap_dac_read_search=eip cap_dac_read_search-i",
    "cap_checkpoint_restore=ep",
    "cap_net_admin,cap_bpf,cap_perfmon+eip",
    "cap_sys_nice=eip",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_attribute_is_the_one_that_libcap_writes(text: str, tmp_path: Path) -> None:
    assert find_program("setcap"), "setcap is missing: ci/setup installs libcap2-bin"
    require_root("set capabilities")
    path = tmp_path / "it"
    path.write_bytes(b"")
    subprocess.run(["setcap", text, path], check=True, capture_output=True)
    assert capability_attribute(text) == os.getxattr(path, "security.capability")


def test_every_name_has_its_own_bit() -> None:
    seen = {capability_attribute(f"cap_{name}=p") for name in CAPABILITY_NAMES}
    assert len(seen) == len(CAPABILITY_NAMES)
    assert capability_attribute("cap_13=p") == capability_attribute("cap_net_raw=p")
    assert capability_attribute("=p") == capability_attribute("all=p")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "cap_nonsense=ep", "cap_net_raw", "cap_net_raw=x", "cap_kill=e cap_chown+p"]
)
def test_what_is_no_set_of_capabilities_is_refused(text: str) -> None:
    with pytest.raises(BuildError) as caught:
        capability_attribute(text)
    assert caught.value.code == "capability-unknown"


def test_the_namespaced_form_comes_out_as_the_images() -> None:
    plain = capability_attribute("cap_net_raw=ep")
    namespaced = plain[:3] + b"\x03" + plain[4:] + (100_000).to_bytes(4, "little")
    assert as_revision_2(namespaced) == plain
    assert as_revision_2(plain) == plain
