# SPDX-License-Identifier: Apache-2.0
"""A saved machine whose disk a server exports by NBD: it goes on with the same disk, and with a changed one it is refused."""

import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from kit import paths
from kit.case import Skip, main
from kit.machine import Disk, Machine, Spec, runtime_environment

from state_bad_test import change_section, refused
from state_test import Counter, Restored, nothing_broke, progress, with_script, work_spec


@contextlib.contextmanager
def served(command, socket):
    """While the server runs."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(socket)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert server.poll() is None and time.monotonic() < deadline, f"the server: {server.poll()}"
            time.sleep(0.02)
        yield server
    finally:
        server.send_signal(signal.SIGCONT)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        finally:
            server.kill()
            server.stderr.close()


def is_not_saved_without_its_server(machine, server, state, address):
    """A server that is silent: a message that names the disk, in a time that ends, and the machine goes on."""
    server.send_signal(signal.SIGSTOP)
    try:
        done = subprocess.run([paths.LODGE, "save", machine.name, str(state)], env=runtime_environment(machine.runtime),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    finally:
        server.send_signal(signal.SIGCONT)
    assert done.returncode != 0 and f"'{address}'" in done.stderr and "has not answered" in done.stderr, done
    assert not state.exists(), "no state"
    for _ in range(2):
        progress(machine)
    nothing_broke(machine)


def goes_on_and_is_compared(command):
    """`command`: makes a server's from a disk and a socket."""
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        spec, state, disk, socket = work_spec(folder, counter), folder / "state", folder / "disk", folder / "socket"
        address = f"nbd+unix:///?socket={socket}"
        spec.disks = [Disk(address)]
        with served(command(disk, socket), socket) as server:
            with Machine(spec) as machine:
                progress(machine, 240)
                is_not_saved_without_its_server(machine, server, state, address)
                machine.lodge("save", machine.name, str(state), timeout=120)
                assert machine.wait_end(30) == 0, machine.errors
            # Whatever the guest writes to its beginning from now on.
            named = address.encode() + b"\3\0\0\0raw"
            assert not change_section(state, "configuration", lambda fields: fields if named in fields else fields[::-1])
            with Restored(state) as machine:
                progress(machine)
                nothing_broke(machine)
                machine.lodge("save", machine.name, str(state), timeout=120)
                assert machine.wait_end(30) == 0, machine.errors
        kept = folder / "kept"
        shutil.copyfile(disk, kept)
        with open(disk, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"other bytes")
        with served(command(disk, socket), socket):
            refused(state, f"'{address}' has changed since", "put it back")
        with open(disk, "wb") as file:
            file.write(kept.read_bytes() + bytes(1 << 20))
        with served(command(disk, socket), socket):
            refused(state, f"'{address}' has changed since", "put it back")
        refused(state, str(socket), "No such file")
        shutil.copyfile(kept, disk)
        with served(command(disk, socket), socket):
            with Restored(state) as machine:
                progress(machine)
                nothing_broke(machine)


def an_export_of_qemu_nbd():
    """Which takes one client at a time."""
    if not shutil.which("qemu-nbd"):
        raise Skip("there is no qemu-nbd here")
    goes_on_and_is_compared(lambda disk, socket: ["qemu-nbd", "-f", "raw", "-t", "-k", socket, disk])


def an_export_of_lodge():
    goes_on_and_is_compared(lambda disk, socket: [paths.LODGE, "image", "serve", "-f", "raw", "-k", socket, disk])


# A qcow2 image of 1 GiB on another file of the host's, by its header.
DISGUISE = (b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 3, 0x200, 11, 16, 1 << 30, 0, 2, 0x30000, 0x10000, 1, 0, 0)
            + struct.pack(">QQQII", 0, 0, 0, 4, 104)).ljust(0x200, b"\0") + b"/etc/passwd"
PRETEND = """
dd if=/lodge/disguise of=/dev/vda bs=1k conv=sync,notrunc 2>/dev/null && sync
turn=0
while :; do
  turn=$((turn + 1))
  echo "turn $turn: $(cat /sys/block/vda/size) sectors"
  echo "mark $turn" | dd of=/dev/vda bs=512 seek=64 conv=sync,notrunc 2>/dev/null; sync
  sleep 0.2
done
"""


def keeps_its_format():
    """A disk that was taken as raw is raw, whatever its guest writes to its beginning."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        state, disk, socket = folder / "state", folder / "disk", folder / "socket"
        initrd = with_script(folder, PRETEND, [("lodge/disguise", 0o644, DISGUISE)])
        with open(disk, "wb") as file:
            file.truncate(8 << 20)
        spec = Spec(initrd=initrd, append="console=ttyS0 quiet", memory="128M", disks=[Disk(f"nbd+unix:///?socket={socket}")])
        turns = []
        with served([paths.LODGE, "image", "serve", "-f", "raw", "-k", socket, disk], socket):
            for run in range(3):
                with Machine(spec) if run == 0 else Restored(state) as machine:
                    for _ in range(3):
                        turns.append(machine.console.wait_for(r"^turn (\d+): (\d+) sectors", 240).groups())
                    if run < 2:
                        machine.lodge("save", machine.name, str(state), timeout=120)
                        assert machine.wait_end(30) == 0, machine.errors
        assert disk.read_bytes().startswith(DISGUISE), "the guest wrote no header"
        numbers = [int(turn) for turn, _ in turns]
        assert numbers == sorted(set(numbers)) and {sectors for _, sectors in turns} == {"16384"}, turns


main(an_export_of_qemu_nbd, an_export_of_lodge, keeps_its_format)
