#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VMDK, VDI, VHD, VHDX and OVA against qemu-img, libvmdk and libvhdi: what is written here is read there with equal
content, and the other way round; what lies, or leads out of its folder, is refused."""

import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import tarfile
import unittest

from image_kit import LODGE, ImageTest, pattern

SIZE = 24 * 1048576 + 5120
MIB = 1048576

# Name, format here, settings, format there.
KINDS = [
    ("vmdk sparse", "vmdk", "subformat=monolithicSparse", "vmdk"),
    ("vmdk flat", "vmdk", "subformat=monolithicFlat", "vmdk"),
    ("vmdk split sparse", "vmdk", "subformat=twoGbMaxExtentSparse", "vmdk"),
    ("vmdk split flat", "vmdk", "subformat=twoGbMaxExtentFlat", "vmdk"),
    ("vmdk stream", "vmdk", "subformat=streamOptimized", "vmdk"),
    ("vdi dynamic", "vdi", "", "vdi"),
    ("vdi fixed", "vdi", "static=on", "vdi"),
    ("vhd dynamic", "vhd", "", "vpc"),
    ("vhd fixed", "vhd", "subformat=fixed,size_rule=exact", "vpc"),
    ("vhdx dynamic", "vhdx", "", "vhdx"),
    ("vhdx fixed", "vhdx", "subformat=fixed", "vhdx"),
    ("vhdx small blocks", "vhdx", "block_size=1M", "vhdx"),
]
# Written there: settings of qemu-img, where they differ.
THERE = {"vhd dynamic": "force_size=on", "vhd fixed": "subformat=fixed,force_size=on"}
CHECKED = {"vmdk", "vdi", "vhdx"}  # formats that qemu-img check knows


def libyal(module, paths):
    """The SHA-256 of a disk as libvmdk or libvhdi reads it, each path the parent of the one before it; None where the
    library is not installed for the system's Python."""
    script = """
import hashlib, sys
try:
    import %(m)s as m
except ImportError:
    sys.exit(77)
kept = []  # the library does not keep a parent itself
def load(paths):
    f = m.%(c)s()
    f.open(paths[0])
    if hasattr(f, "open_extent_data_files"): f.open_extent_data_files()
    if len(paths) > 1: f.set_parent(load(paths[1:]))
    kept.append(f)
    return f
f, h = load(sys.argv[1:]), hashlib.sha256()
left = f.get_media_size()
while left:
    part = f.read_buffer(min(left, 1 << 20))
    h.update(part)
    left -= len(part)
print(h.hexdigest())
""" % {"m": module, "c": "handle" if module == "pyvmdk" else "file"}
    result = subprocess.run(["/usr/bin/python3", "-c", script] + paths, capture_output=True, text=True, timeout=300)
    if result.returncode == 77:
        return None
    return result.stdout.strip() or result.stderr[-300:]


def sha(content):
    return hashlib.sha256(content).hexdigest()


class Formats(ImageTest):
    def setUp(self):
        super().setUp()
        self.need_qemu()

    def make(self, kind, content):
        """An image of that kind here; its name."""
        _, fmt, settings, _ = kind
        self.write("source.raw", content)
        name = "made.%s" % fmt
        self.lodge("convert", "-f", "raw", "-O", fmt, *(["-o", settings] if settings else []), "source.raw", name)
        return name

    def back(self, name, *words):
        self.lodge("convert", "-O", "raw", *words, name, "back.raw")
        return self.read("back.raw")

    def test_written_here(self):
        content = pattern(SIZE, 3)
        for kind in KINDS:
            with self.subTest(kind[0]):
                name = self.make(kind, content)
                self.qemu_img("compare", "-f", "raw", "-F", kind[3], "source.raw", name)
                if kind[3] in CHECKED:
                    self.qemu_img("check", "-f", kind[3], name)
                self.assertEqualContent(self.back(name), content)
                self.lodge("check", name)
                module = {"vmdk": "pyvmdk", "vhd": "pyvhdi", "vhdx": "pyvhdi"}.get(kind[1])
                if module:
                    seen = libyal(module, [self.path(name)])
                    if seen is not None:
                        self.assertEqual(seen, sha(content), module)

    def test_written_there(self):
        content = pattern(SIZE, 4)
        self.write("source.raw", content)
        for name, fmt, settings, there in KINDS:
            with self.subTest(name):
                settings = THERE.get(name, settings)
                file = "there.%s" % fmt
                self.qemu_img("convert", "-O", there, *(["-o", settings] if settings else []), "source.raw", file)
                self.assertEqual(self.lodge_json("info", file)["format"], fmt)
                self.assertEqualContent(self.back(file), content)
                self.lodge("check", file)

    def test_changed_in_turns(self):
        """Random writes by qemu-io into images made here, and copies back, against a plain byte array."""
        rng = random.Random(9)
        for kind in KINDS:
            if "stream" in kind[0]:
                continue
            with self.subTest(kind[0]):
                content = bytearray(pattern(SIZE, 5))
                name = self.make(kind, bytes(content))
                for _ in range(3):
                    words = []
                    for _ in range(12):
                        at = rng.randrange(SIZE // 512) * 512
                        length = min(SIZE - at, rng.choice([512, 4096, 70 * 512, 1 << 20]))
                        value = rng.randrange(256)
                        words += ["-c", "write -P %d %d %d" % (value, at, length)]
                        content[at:at + length] = bytes([value]) * length
                    self.run_command("qemu-io", "-f", kind[3], *words, name)
                    self.assertEqualContent(self.back(name), bytes(content))
                    self.lodge("check", name)

    def test_resize(self):
        content = pattern(8 * MIB, 6)
        for kind in KINDS:
            if "stream" in kind[0] or kind[0] in ("vdi fixed", "vmdk split sparse", "vmdk split flat"):
                continue
            with self.subTest(kind[0]):
                name = self.make(kind, content)
                self.lodge("resize", name, "20M")
                self.assertEqualContent(self.back(name), content + bytes(12 * MIB))
                self.lodge("check", name)
                self.qemu_img("convert", "-f", kind[3], "-O", "raw", name, "seen.raw")
                self.assertEqualContent(self.read("seen.raw"), content + bytes(12 * MIB))


class Children(ImageTest):
    """Differencing images."""

    def setUp(self):
        super().setUp()
        self.need_qemu()
        self.content = bytearray(pattern(SIZE, 7))
        self.write("source.raw", bytes(self.content))

    def change(self, name, fmt):
        rng = random.Random(2)
        words = []
        for _ in range(10):
            at = rng.randrange(SIZE // 4096 - 20) * 4096  # libvhdi reads no smaller pieces of a child right
            length = rng.choice([4096, 65536])
            words += ["-c", "write -P 77 %d %d" % (at, length)]
            self.content[at:at + length] = b"M" * length
        self.run_command("qemu-io", "-f", fmt, *words, name)

    def test_vmdk(self):
        self.lodge("convert", "-O", "vmdk", "source.raw", "base.vmdk")
        self.lodge("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "child.vmdk")
        self.change("child.vmdk", "vmdk")
        self.lodge("convert", "-O", "raw", "child.vmdk", "back.raw")
        self.assertEqualContent(self.read("back.raw"), bytes(self.content))
        self.qemu_img("compare", "-F", "vmdk", "-f", "raw", "back.raw", "child.vmdk")
        self.qemu_img("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "there.vmdk")
        self.lodge("convert", "-O", "raw", "there.vmdk", "back.raw")
        self.assertEqualContent(self.read("back.raw"), self.read("source.raw"))
        # A parent that was changed behind its child's back.
        self.run_command("qemu-io", "-f", "vmdk", "-c", "write 0 512", "base.vmdk")
        refused = self.lodge("map", "child.vmdk", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("was changed since", refused.stderr)

    def children_of(self, fmt):
        """The content of a child is made by commit's opposite: a raw copy, changed, and rebased onto the parent."""
        self.lodge("convert", "-O", fmt, "source.raw", "base." + fmt)
        self.content[5 * MIB:5 * MIB + 300000 // 4096 * 4096] = bytes([9]) * (300000 // 4096 * 4096)
        self.content[12 * MIB:12 * MIB + 4096] = bytes([8]) * 4096
        self.write("changed.raw", bytes(self.content))
        self.lodge("convert", "-O", fmt, "-B", "base." + fmt, "-F", fmt, "changed.raw", "child." + fmt)
        self.lodge("convert", "-O", "raw", "child." + fmt, "back.raw")
        self.assertEqualContent(self.read("back.raw"), bytes(self.content))
        self.lodge("check", "child." + fmt)
        seen = libyal("pyvhdi", [self.path("child." + fmt), self.path("base." + fmt)])
        if seen is not None:
            self.assertEqual(seen, sha(bytes(self.content)))
        info = self.lodge_json("info", "child." + fmt)
        self.assertIn("base." + fmt, json.dumps(info))

    def test_vhd(self):
        self.children_of("vhd")

    def test_vhdx(self):
        self.children_of("vhdx")


class Rules(ImageTest):
    def info(self, name):
        return self.lodge_json("info", name)

    def test_vhd_sizes(self):
        self.need_qemu()
        odd = 10 * MIB + 512
        for settings, size in [("subformat=fixed", 11 * MIB), ("subformat=fixed,size_rule=exact", odd), ("", odd),
                               ("size_rule=mib", 11 * MIB), ("size_rule=chs", None), ("force_size=on", odd)]:
            with self.subTest(settings):
                self.lodge("create", "-f", "vhd", *(["-o", settings] if settings else []), "x.vhd", str(odd))
                seen = int(json.loads(self.qemu_img("info", "-f", "vpc", "--output", "json", "x.vhd").stdout)["virtual-size"])
                if size is None:
                    self.qemu_img("create", "-f", "vpc", "y.vhd", str(odd))
                    there = json.loads(self.qemu_img("info", "-f", "vpc", "--output", "json", "y.vhd").stdout)
                    size = int(there["virtual-size"])
                self.assertEqual(seen, size)

    def test_stream_layout(self):
        """What ESXi and cloud importers look at: version, markers, the footer, the geometry."""
        self.write("x.raw", pattern(3 * MIB + 512, 1))
        self.lodge("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "x.raw", "x.vmdk")
        data = self.read("x.vmdk")
        magic, version, flags, capacity, grain = struct.unpack_from("<4sIIQQ", data)
        self.assertEqual((magic, version, flags, grain), (b"KDMV", 1, 0x30001, 128))
        self.assertEqual(capacity, (3 * MIB + 512) // 512)
        self.assertEqual(struct.unpack_from("<Q", data, 56)[0], 0xffffffffffffffff)
        self.assertEqual(len(data) % 512, 0)
        footer, end = data[-1024:-512], data[-512:]
        self.assertEqual(end, bytes(512))
        self.assertEqual(struct.unpack_from("<QII", data, len(data) - 1536), (1, 0, 3))
        directory = struct.unpack_from("<Q", footer, 56)[0]
        self.assertEqual(struct.unpack_from("<QII", data, directory * 512 - 512), (1, 0, 2))
        text = data[512:512 + 10240].split(b"\0")[0].decode()
        self.assertIn('createType="streamOptimized"', text)
        self.assertIn('ddb.geometry.sectors = "32"', text)
        self.assertIn("RDONLY %d SPARSE" % capacity, text)


class Hostile(ImageTest):
    def refused(self, name, *texts):
        result = self.lodge("convert", "-O", "raw", name, "refused.raw", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertFalse(os.path.exists(self.path("refused.raw")))
        for text in texts:
            self.assertIn(text, result.stderr)

    def test_names_that_lead_out(self):
        head = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=%s\ncreateType="x"\n%s\n%s\n'
        for line in ('RW 100 FLAT "/etc/passwd" 0', 'RW 100 FLAT "../outside" 0', 'RW 1 VMFS "/dev/zero" 0'):
            self.write("x.vmdk", (head % ("ffffffff", "", line)).encode())
            self.refused("x.vmdk")
        self.write("x.vmdk", (head % ("12345678", 'parentFileNameHint="/etc/passwd"', "RW 100 ZERO")).encode())
        self.refused("x.vmdk", "outside the image's folder")
        os.symlink("/etc/passwd", self.path("link"))
        self.write("x.vmdk", (head % ("ffffffff", "", 'RW 1 FLAT "link" 0')).encode())
        self.refused("x.vmdk", "outside the image's folder")

    def test_loops(self):
        self.write("x.vmdk", b'# Disk DescriptorFile\nCID=5\nparentCID=5\nparentFileNameHint="x.vmdk"\nRW 100 ZERO\n')
        self.refused("x.vmdk", "comes back")

    def test_lying_headers(self):
        """Every header field with values that lie: an error or an image, in little time and memory."""
        for fmt in ("vmdk", "vdi", "vhd", "vhdx"):
            self.lodge("create", "-f", fmt, "x." + fmt, "64M")
            good = self.read("x." + fmt)[:5 * MIB]
            rng = random.Random(1)
            for _ in range(60):
                bad = bytearray(good)
                for _ in range(rng.choice([1, 2, 8])):
                    place = rng.choice([0, 512, 1536]) + rng.randrange(512)
                    if fmt == "vhdx":
                        place = rng.choice([65536, 131072, 196608, 2 * MIB, 2 * MIB + 65536, 3 * MIB]) + rng.randrange(256)
                    bad[place:place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, rng.randbytes(4)])
                self.write("y." + fmt, bytes(bad))
                for verb in ("info", "check", "map"):
                    result = self.lodge(verb, "y." + fmt, check=False)
                    self.assertIn(result.returncode, range(0, 10), result.stderr)


class Esx(ImageTest):
    """ESX's sparse extents, which no tool here writes: made by hand, read by qemu-img and by us."""

    def compare(self, descriptor, expected):
        self.need_qemu()
        self.write("x.vmdk", descriptor)
        self.lodge("convert", "-O", "raw", "x.vmdk", "back.raw")
        self.assertEqualContent(self.read("back.raw"), expected)
        self.qemu_img("compare", "-f", "raw", "-F", "vmdk", "back.raw", "x.vmdk")

    def test_cowd(self):
        grains, content = {0: b"a", 3: b"b", 700: b"c"}, bytearray(2048 * 4096)
        table, data = [0] * 4096, b""
        start = 4 + 1 + 32
        for grain, letter in grains.items():
            table[grain] = start + len(data) // 512
            data += letter * 4096
            content[grain * 4096:grain * 4096 + 4096] = letter * 4096
        header = struct.pack("<8I", 0x44574f43, 1, 3, len(content) // 512, 8, 4, 1, start).ljust(2048, b"\0")
        self.write("x-delta.vmdk", header + struct.pack("<I", 5).ljust(512, b"\0") + struct.pack("<4096I", *table) + data)
        self.compare(b'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="vmfsSparse"\n'
                     b'RW %d VMFSSPARSE "x-delta.vmdk"\n' % (len(content) // 512), bytes(content))

    def test_sesparse(self):
        content = bytearray(4096 * 4096)
        table = [0] * 4096
        for index, grain in enumerate([1, 2, 4000]):
            table[grain] = 3 << 60 | (index & 0xfff) << 48 | index >> 12
            content[grain * 4096:grain * 4096 + 4096] = bytes([65 + index]) * 4096
        table[7], table[8] = 1 << 60, 2 << 60
        fields = [0] * 26
        fields[0:6] = [0xcafebabe, 0x200000001, len(content) // 512, 8, 64, 0]
        # Volatile header, journal header, journal, directory, tables, free bitmap, back map, grains: offset and size.
        fields[10:26] = [1, 1, 2, 1, 3, 1, 4, 1, 5, 64, 69, 1, 70, 1, 72, 24]
        image = struct.pack("<26Q", *fields).ljust(512, b"\0") + struct.pack("<4Q", 0xcafecafe, 0, 0, 0).ljust(512, b"\0")
        image = image.ljust(4 * 512, b"\0") + struct.pack("<Q", 0x1000000000000000).ljust(512, b"\0")
        image += struct.pack("<4096Q", *table)
        image = image.ljust(72 * 512, b"\0") + b"".join(bytes([65 + i]) * 4096 for i in range(3))
        self.write("x-sesparse.vmdk", image)
        self.compare(b'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="seSparse"\n'
                     b'RW %d SESPARSE "x-sesparse.vmdk"\n' % (len(content) // 512), bytes(content))


class Packages(ImageTest):
    def setUp(self):
        super().setUp()
        self.contents = [pattern(5 * MIB, 8), pattern(2 * MIB + 512, 9)]
        for i, content in enumerate(self.contents):
            self.write("disk%d.raw" % i, content)

    def export(self, target):
        self.lodge("export", "--name", "My & machine", "--cpus", "3", "-m", "1536M", "--firmware", "uefi", "--net",
                   "lan,52:54:00:11:22:33", "-f", "raw", target, "disk0.raw", "disk1.raw")

    def check_import(self, package, folder):
        made = self.lodge_json("import", "-O", "raw", package, folder)
        self.assertEqual((made["cpus"], made["memory"], made["firmware"]), (3, 1536 * MIB, "uefi"))
        self.assertEqual(made["name"], "My & machine")
        self.assertEqual(made["nets"][0]["network"], "lan")
        self.assertTrue(made["verified"])
        for disk, content in zip(made["disks"], self.contents):
            self.assertEqualContent(self.read(os.path.join(folder, disk["path"])), content)
        return made

    def test_round_trip(self):
        self.export("x.ova")
        with tarfile.open(self.path("x.ova")) as archive:
            names = archive.getnames()
            self.assertEqual(names, ["x.ovf", "x.mf", "x-disk1.vmdk", "x-disk2.vmdk"])
            manifest = archive.extractfile("x.mf").read().decode()
            for name in names[:1] + names[2:]:
                self.assertIn("SHA256(%s)= %s\n" % (name, sha(archive.extractfile(name).read())), manifest)
            archive.extractall(self.path("unpacked"), filter="data") if hasattr(tarfile, "data_filter") else \
                archive.extractall(self.path("unpacked"))
        if shutil.which("qemu-img"):
            self.qemu_img("compare", "-f", "raw", "-F", "vmdk", "disk0.raw", "unpacked/x-disk1.vmdk")
        self.check_import("x.ova", "a")
        self.check_import("unpacked/x.ovf", "b")
        self.export("y.ovf")
        self.check_import("y.ovf", "c")
        # And once more from what was imported.
        self.lodge("export", "z.ova", "a/machine.json")
        self.check_import("z.ova", "d")
        self.assertNotEqual(self.lodge("import", "x.ova", "a", check=False).returncode, 0)

    def test_tampered(self):
        self.export("y.ovf")
        with open(self.path("y-disk2.vmdk"), "r+b") as disk:
            disk.seek(70000)
            disk.write(b"?")
        result = self.lodge("import", "y.ovf", "out", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("'y-disk2.vmdk' is not what the manifest says", result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual([n for n in os.listdir(self.folder) if n.startswith(".")], [])

    def test_tricks(self):
        self.export("y.ovf")
        text = self.read("y.ovf").decode()
        for name in ("/etc/passwd", "../disk0.raw", "a/../../x"):
            self.write("bad.ovf", text.replace("y-disk1.vmdk", name).encode())
            result = self.lodge("import", "bad.ovf", "out", check=False)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("leads out of the package", result.stderr)
        os.symlink("/etc/passwd", self.path("linked.vmdk"))
        self.write("bad.ovf", text.replace("y-disk1.vmdk", "linked.vmdk").encode())
        self.assertIn("leads out of the package", self.lodge("import", "bad.ovf", "out", check=False).stderr)
        with tarfile.open(self.path("bad.ova"), "w") as archive:
            entry = tarfile.TarInfo("../x.ovf")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
        self.assertIn("leads out", self.lodge("import", "bad.ova", "out", check=False).stderr)
        self.write("bad.ovf", b"<!DOCTYPE x [<!ENTITY a SYSTEM '/etc/passwd'>]><Envelope>&a;</Envelope>")
        self.assertIn("document type", self.lodge("import", "bad.ovf", "out", check=False).stderr)


if __name__ == "__main__":
    unittest.main()
