"""emqx-gpt.service: bounded as the container is, and understood by systemd where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.supervisor import BOUND, STOP
from service.units import seconds

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "emqx-gpt.service"
SYSTEMD = shutil.which("systemd-analyze")


def service(text: str) -> dict[str, str]:
    """The settings of [Service]; systemd adds up what stands twice."""
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


def faults(text: str) -> list[str]:
    """What is missing of the hardening, and what does not fit the program."""
    section = service(text)
    wanted = {
        "Type": "notify", "NotifyAccess": "main", "Restart": "always", "DynamicUser": "yes",
        "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
        "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
        "PrivateDevices": "yes", "MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes",
        "RestrictSUIDSGID": "yes", "SystemCallArchitectures": "native", "UMask": "0077",
    }  # fmt: skip
    found = [f"{name} is not {value!r}" for name, value in wanted.items()
             if section.get(name) != value]  # fmt: skip
    for name in ("MemoryMax", "TasksMax", "LimitNOFILE", "SystemCallFilter", "WatchdogSec"):
        if not section.get(name):
            found.append(f"{name} is not set")
    if not re.fullmatch(r"\S+/emqx-gpt serve", section.get("ExecStart", "")):
        found.append("ExecStart does not serve")
    return found


def test_the_unit_is_hardened():
    assert faults(UNIT.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "line",
    ["NoNewPrivileges=yes", "MemoryMax=3G", "TasksMax=256", "ProtectSystem=strict",
     "DynamicUser=yes", "CapabilityBoundingSet=", "WatchdogSec=30s"],
)  # fmt: skip
def test_a_weaker_unit_is_noticed(line):
    text = UNIT.read_text("utf-8")
    assert f"\n{line}\n" in text
    assert faults(text.replace(f"\n{line}\n", "\n")) != []


def test_its_times_fit_the_program():
    section = service(UNIT.read_text("utf-8"))
    assert seconds(section["WatchdogSec"]) >= 2 * BOUND
    assert seconds(section["TimeoutStopSec"]) > 30 + STOP


@pytest.mark.skipif(SYSTEMD is None, reason="no systemd here; the tests above read the unit")
def test_systemd_understands_it(tmp_path):
    text = UNIT.read_text("utf-8").replace("/opt/emqx-gpt/bin/emqx-gpt", "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run([SYSTEMD, "verify", copy], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(text.replace("ProtectSystem=strict", "ProtectSystm=strict"))
    done = subprocess.run([SYSTEMD, "verify", copy], capture_output=True, text=True)
    assert "ProtectSystm" in done.stderr


@pytest.mark.skipif(SYSTEMD is None, reason="no systemd here; the tests above read the unit")
def test_systemd_finds_little_exposed():
    command = [SYSTEMD, "security", "--offline=true", "--threshold=20", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:]
    assert re.search(r"exposure level for emqx-gpt.service: [01]\.\d OK", done.stdout)
