# SPDX-License-Identifier: Apache-2.0
"""Servers of a machine's disks that fail or fall silent while it is saved, moved or restored: each wait has an end and an error that
names the disk, and the machine goes on."""

import contextlib
import pathlib
import subprocess
import tempfile

from kit import nbd, paths
from kit.case import main
from kit.machine import Disk, Machine, Spec, runtime_environment

from state_test import Restored, with_script

# One disk is written without being asked for; the other is read, as long as its server answers.
TURNS = """
dd if=/dev/zero of=/dev/vda bs=4k count=16 conv=fsync 2>/dev/null
(while :; do dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null || echo READ BROKEN; sleep 0.1; done) &
turn=0
while :; do
  turn=$((turn + 1)); echo "turn $turn"; echo "$turn" > /tmp/turn; sleep 0.2
done
"""
SILENT = "has not answered for 10 s"


def goes_on(machine):
    for _ in range(3):
        machine.console.wait_for(r"^turn \d+", 120)
    assert "BROKEN" not in machine.console.text, machine.console.tail()


def save(machine, state):
    return subprocess.run([paths.LODGE, "save", machine.name, str(state)], env=runtime_environment(machine.runtime),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150)


def is_not_saved(machine, state, address):
    done = save(machine, state)
    assert done.returncode != 0 and f"'{address}'" in done.stderr and SILENT in done.stderr, done
    assert done.stderr.count("\n") == 1 and not state.exists(), done
    goes_on(machine)


def restored_in_vain(state, server, kind):
    """Starts a restore with a server in that state."""
    server.state = kind
    return subprocess.Popen([paths.LODGE, "restore", str(state), "--name", kind], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_refused(restore, address, word):
    try:
        _, errors = restore.communicate(timeout=150)
    finally:
        restore.kill()
    assert restore.returncode == 4 and f"'{address}'" in errors and word in errors and errors.count("\n") == 1, (restore.returncode, errors)


def silent_and_broken_servers():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder, contextlib.ExitStack() as open_now:
        folder = pathlib.Path(folder)
        state, servers, addresses = folder / "state", [], []
        for name in ("written", "read"):
            with open(folder / name, "wb") as file:
                file.truncate(8 << 20)
            servers.append(open_now.enter_context(nbd.Server(folder / name, folder / f"{name}.socket")))
            addresses.append(f"nbd+unix:///?socket={folder / name}.socket")
        written, read = servers
        spec = Spec(initrd=with_script(folder, TURNS), append="console=ttyS0 quiet", memory="128M",
                    disks=[Disk(addresses[0]), Disk(addresses[1], readonly=True)])
        with Machine(spec) as machine:
            machine.console.wait_for(r"^turn 2\b", 240)
            # After the first look: that asks for reads alone.
            written.silent_from(nbd.FLUSH)
            is_not_saved(machine, state, addresses[0])
            assert written.held >= 1, "it was not the flush"
            written.speak()
            # What the guest has asked for cannot end; and the machine moves all the same.
            read.silent_from(nbd.READ)
            assert read.wait_until_silent(120), "the guest reads nothing"
            is_not_saved(machine, state, addresses[1])
            machine.lodge("engine", machine.name, "interpret", timeout=120)
            machine.lodge("engine", machine.name, "translate", timeout=120)
            goes_on(machine)
            read.speak()
            done = save(machine, state)
            assert done.returncode == 0, done
            assert machine.wait_end(60) == 0, machine.errors
        kept = state.read_bytes()
        for kind, word in (("broken", "Input/output error"), ("shy", "Broken pipe")):
            is_refused(restored_in_vain(state, read, kind), addresses[1], word)
        is_refused(restored_in_vain(state, read, "mute"), addresses[1], SILENT)
        # Silent later: at what is compared.
        read.state = "well"
        read.silent_from(nbd.READ)
        is_refused(restored_in_vain(state, read, "well"), addresses[1], SILENT)
        read.speak()
        assert state.read_bytes() == kept, "the state is as it was"
        with Restored(state) as machine:
            goes_on(machine)


main(silent_and_broken_servers)
