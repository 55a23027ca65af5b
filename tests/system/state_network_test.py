# SPDX-License-Identifier: Apache-2.0
"""A saved machine whose disk a server exports by NBD: it goes on with the same disk, and with a changed one it is refused."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from kit import paths
from kit.case import Skip, main
from kit.machine import Disk, Machine

from state_bad_test import change_section, refused
from state_test import Counter, Restored, nothing_broke, progress, work_spec


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
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        finally:
            server.kill()
            server.stderr.close()


def goes_on_and_is_compared(command):
    """`command`: makes a server's from a disk and a socket."""
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        spec, state, disk, socket = work_spec(folder, counter), folder / "state", folder / "disk", folder / "socket"
        address = f"nbd+unix:///?socket={socket}"
        spec.disks = [Disk(address)]
        with served(command(disk, socket), socket):
            with Machine(spec) as machine:
                progress(machine, 240)
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


main(an_export_of_qemu_nbd, an_export_of_lodge)
