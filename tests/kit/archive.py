# SPDX-License-Identifier: Apache-2.0
"""Archives for guests: cpio (newc, cpio(5)), which the kernel unpacks over its initramfs, and tar on a disk."""

import pathlib
import tarfile


def cpio_archive(entries):
    """`entries`: (name, permission bits, bytes). Parent folders are made as needed."""
    out = bytearray()
    folders = []
    for name, _, _ in entries:
        parts = name.split("/")[:-1]
        folders += ["/".join(parts[:depth + 1]) for depth in range(len(parts))]
    rows = [(name, 0o040755, b"") for name in dict.fromkeys(folders)]
    rows += [(name, 0o100000 | mode, data) for name, mode, data in entries]
    for number, (name, mode, data) in enumerate(rows + [("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    out += bytes(-len(out) % 512)
    return bytes(out)


def tar_disk(folder, archive):
    """A tar file of the folder's contents, whole sectors long, to be given to a guest as a disk."""
    with tarfile.open(archive, "w") as tar:
        for path in sorted(pathlib.Path(folder).iterdir()):
            tar.add(path, path.name)
