# SPDX-License-Identifier: Apache-2.0
"""State files and disks that are not what they were, and saves that do not come to their end: refused in one line, and nothing is lost.

    state_bad_test.py"""

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
from kit.machine import Disk, Machine

from state_test import Counter, Restored, lodge, nothing_broke, progress, work_spec


def refused(state, *words):
    answer = lodge("restore", state, "--name", "bad")
    assert answer.returncode == 2 and all(word in answer.stderr for word in words) and answer.stderr.count("\n") == 1, answer


SECTIONS, SECTIONS_CHECKSUM, HEADER_CHECKSUM = 48, 68, 76  # in the header (src/state/file_layout.h)


def change_section(state, name, change):
    """Puts what `change` makes of a section's fields, of the same length, in their place, with all checksums right. Whether that is
    something else."""
    whole = state.read_bytes()
    start, length = struct.unpack_from("<QQ", whole, SECTIONS)
    stored, at = bytearray(whole[start:start + length]), 0
    while at < length:
        fields = at + 7 + stored[at]
        end = fields + struct.unpack_from("<I", stored, fields - 4)[0]
        if stored[at + 1:at + 1 + stored[at]].decode() == name:
            break
        at = end + 4
    assert at < length, f"no section {name}"
    before = bytes(stored[fields:end])
    stored[fields:end] = change(before)
    assert len(stored) == length
    struct.pack_into("<I", stored, end, crc32c(stored[at:end]))
    header = bytearray(whole[:HEADER_CHECKSUM])
    struct.pack_into("<I", header, SECTIONS_CHECKSUM, crc32c(stored))
    with open(state, "r+b") as file:
        file.write(header + struct.pack("<I", crc32c(header)))
        file.seek(start)
        file.write(stored)
    return before != stored[fields:end]


def each_section_altered_is_refused(whole, copy):
    """One by one: a bit of it, and a newer version of it, where all checksums of the file and of the section are right; it is named."""
    start, length = struct.unpack_from("<QQ", whole, SECTIONS)
    stored, sections, at = whole[start:start + length], [], 0
    while at < length:
        name = stored[at + 1:at + 1 + stored[at]].decode()
        end = at + 7 + stored[at] + int.from_bytes(stored[at + 3 + stored[at]:at + 7 + stored[at]], "little")
        sections.append((name, at, end))
        at = end + 4
    assert at == length and {"configuration", "clocks", "cpu 0", "rtc"} <= {name for name, _, _ in sections}, sections
    copy.write_bytes(whole)
    with open(copy, "r+b", buffering=0) as file:
        def put(changed):
            header = bytearray(whole[:HEADER_CHECKSUM])
            struct.pack_into("<I", header, SECTIONS_CHECKSUM, crc32c(changed))
            file.seek(0)
            file.write(header + struct.pack("<I", crc32c(header)))
            file.seek(start)
            file.write(changed)

        for name, begin, end in sections:
            changed = bytearray(stored)
            changed[(begin + end) // 2] ^= 4
            put(changed)
            refused(copy, "copy", "damaged")
            changed = bytearray(stored)
            struct.pack_into("<H", changed, begin + 1 + changed[begin], 999)
            struct.pack_into("<I", changed, end, crc32c(changed[begin:end]))
            put(changed)
            refused(copy, f"'{name}'", "version 999", "restore it with the Lodge that saved it")
        put(stored)


def crc32c(data):
    value = 0xffffffff
    for byte in data:
        value = CRC32C[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xffffffff


def crc_entry(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
    return value


CRC32C = [crc_entry(value) for value in range(256)]


def what_is_not_as_it_was_is_refused():
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        state, copy = folder / "state", folder / "copy"
        with Machine(work_spec(folder, counter)) as machine:
            progress(machine, 240)
            # The file of before stays when a save is killed, fails or is not let go.
            state.write_text("an earlier state")
            full = pathlib.Path("/proc/full.state")
            answer = subprocess.run([paths.LODGE, "save", machine.name, str(full)], capture_output=True, text=True,
                                    env=dict(os.environ, XDG_RUNTIME_DIR=str(machine.runtime)))
            assert answer.returncode != 0 and "full.state" in answer.stderr, answer
            progress(machine)
            machine.lodge("save", machine.name, str(copy), "--keep-running", timeout=120)
            # Until the disk is another one: a busy host's guest may take a while to write.
            then = progress(machine)[3]
            while progress(machine)[3] < then + 2:
                pass
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0
        whole = state.read_bytes()
        assert whole.startswith(b"LODGEst\n")
        refused(folder / "none", "No such file", "none")
        # The copy is older than the disk.
        refused(copy, "disk", "changed since")
        for length in (0, 100, 4096, len(whole) // 2, len(whole) - 1):
            copy.write_bytes(whole[:length])
            refused(copy, "copy")
        newer = bytearray(whole)
        newer[8] = 9
        copy.write_bytes(newer)
        refused(copy, "version 9", "restore it with the Lodge that saved it")
        sections = int.from_bytes(whole[48:56], "little")
        for at in (20, sections + 30, len(whole) - 5):
            changed = bytearray(whole)
            changed[at] ^= 0x55
            copy.write_bytes(changed)
            refused(copy, "damaged")
        each_section_altered_is_refused(whole, copy)
        disk = folder / "disk"
        shutil.copy2(disk, folder / "disk.kept")
        with open(disk, "r+b") as file:
            file.write(b"other bytes")
        refused(state, str(disk), "changed since")
        os.remove(disk)
        refused(state, str(disk))
        shutil.copy2(folder / "disk.kept", disk)
        # A damaged piece of memory is found when it is loaded: the machine ends, and says why.
        changed = bytearray(whole)
        for at in range(4096, sections, 65536):
            changed[at + 100] ^= 0xff
        copy.write_bytes(changed)
        with Restored(copy) as machine:
            assert machine.wait_end(60) != 0
            assert "damaged" in machine.errors, machine.errors
        shutil.copy2(folder / "disk.kept", disk)
        with Restored(state) as machine:
            progress(machine)


def a_file_behind_an_overlay_that_changed_is_refused():
    """Two overlays on a disk: the machine's own is as it was, the one in the middle, or the last one, is not."""
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        state, base, middle, top = (folder / name for name in ("state", "disk", "middle.qcow2", "top.qcow2"))
        spec = work_spec(folder, counter)
        for path, behind, form in (middle, base, "raw"), (top, middle, "qcow2"):
            done = lodge("image", "create", "-q", "-f", "qcow2", "-b", behind, "-F", form, path)
            assert done.returncode == 0, done
        spec.disks = [Disk(top)]
        with Machine(spec) as machine:
            progress(machine, 240)
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
        for path in base, middle:
            was = os.stat(path)
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
            refused(state, f"'{path}' has changed since", "put it back")
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        base.rename(folder / "elsewhere")
        refused(state, str(base), "No such file")
        (folder / "elsewhere").rename(base)
        with Restored(state) as machine:
            progress(machine)
            nothing_broke(machine)


def a_block_device_that_changed_is_refused():
    """By what the host counts of writes, and by samples of its content where the host was started anew."""
    if os.geteuid() != 0:
        raise Skip("only root may make a block device of a file")
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        spec, state = work_spec(folder, counter), folder / "state"
        made = subprocess.run(["losetup", "-f", "--show", folder / "disk"], capture_output=True, text=True)
        if made.returncode != 0:
            raise Skip(f"no loop device here: {made.stderr}")
        device = made.stdout.strip()
        try:
            spec.disks = [Disk(device)]
            with Machine(spec) as machine:
                progress(machine, 240)
                machine.lodge("save", machine.name, str(state), timeout=120)
                assert machine.wait_end(30) == 0, machine.errors
            with Restored(state) as machine:
                progress(machine)
                nothing_broke(machine)
                machine.lodge("save", machine.name, str(state), timeout=120)
                assert machine.wait_end(30) == 0, machine.errors
            # The same bytes once more are a write, too.
            with open(device, "r+b") as file:
                end = file.seek(-512, os.SEEK_END)
                block = file.read(512)
                file.seek(end)
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            refused(state, f"'{device}' has changed since", "put it back")
        finally:
            subprocess.run(["losetup", "-d", device], check=True)


def a_host_with_another_processor_is_refused():
    """A state of a machine that had what this host's CPU has not: of the other maker, or with features of all makers. They are named."""
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        state, copy = folder / "state", folder / "copy"
        with Machine(work_spec(folder, counter)) as machine:
            progress(machine, 240)
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors

        def other_maker(fields):
            return fields[:16] + bytes([1 - fields[16]]) + fields[17:]

        def all_features(fields):
            """Of CPUID's leaves 7 and 8000_0001H; an entry is leaf, subleaf, EAX to EDX, and a byte."""
            changed, first = bytearray(fields), 17 + (len(fields) - 17) % 25
            for at in range(first, len(fields), 25):
                leaf, subleaf = struct.unpack_from("<II", fields, at)
                if (leaf, subleaf) in ((7, 0), (0x80000001, 0)):
                    changed[at + 12:at + 24] = b"\xff" * 12
            return changed

        for engine in "translate", "interpret":
            for change, *words in ((other_maker, "vendor", "this host has the other one"), (all_features, "CPU feature", "cannot give")):
                shutil.copyfile(state, copy)
                assert change_section(copy, "cpu-model", change)
                answer = lodge("restore", copy, "--name", "bad", "--engine", engine)
                assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
                assert all(word in answer.stderr for word in words), answer
                print(f"   {engine}: {answer.stderr.strip()[:200]}")
        with Restored(state) as machine:
            progress(machine)
            nothing_broke(machine)


def a_killed_save_leaves_the_earlier_file():
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        state = pathlib.Path(folder) / "state"
        state.write_text("an earlier state")
        with Machine(work_spec(folder, counter)) as machine:
            progress(machine, 240)
            save = subprocess.Popen([paths.LODGE, "save", machine.name, str(state), "--compress"], stderr=subprocess.PIPE,
                                    env=dict(os.environ, XDG_RUNTIME_DIR=str(machine.runtime)))
            deadline = time.monotonic() + 60
            while not (state.parent / "state.part").exists() and save.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(machine.process.pid, signal.SIGKILL)
            save.wait(60)
        assert state.read_bytes().startswith((b"an earlier state", b"LODGEst\n"))


def a_full_disk_keeps_the_earlier_file():
    if os.geteuid() != 0:
        raise Skip("only root may mount a small file system")
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        small = pathlib.Path(folder) / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", small], check=True)
        try:
            state = small / "state"
            state.write_text("an earlier state")
            with Machine(work_spec(folder, counter)) as machine:
                progress(machine, 240)
                answer = subprocess.run([paths.LODGE, "save", machine.name, str(state)], capture_output=True, text=True,
                                        env=dict(os.environ, XDG_RUNTIME_DIR=str(machine.runtime)))
                assert answer.returncode != 0 and "No space left" in answer.stderr and "make room" in answer.stderr, answer
                assert answer.stderr.count("\n") == 1, answer
                assert state.read_text() == "an earlier state" and [f.name for f in small.iterdir()] == ["state"]
                progress(machine)   # the machine goes on
                nothing_broke(machine)
        finally:
            subprocess.run(["umount", small], check=True)


if __name__ == "__main__":
    main(what_is_not_as_it_was_is_refused, a_file_behind_an_overlay_that_changed_is_refused, a_block_device_that_changed_is_refused,
         a_host_with_another_processor_is_refused, a_killed_save_leaves_the_earlier_file, a_full_disk_keeps_the_earlier_file)
