# SPDX-License-Identifier: Apache-2.0
"""qcow2 against qemu-img: what one writes the other reads, and random changes by both in turns."""

import array
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import time
import unittest

from image_kit import LODGE, ImageTest, pattern

MIB = 1 << 20
GEOMETRIES = [
    [],
    ["-o", "compat=0.10"],
    ["-o", "cluster_size=512"],
    ["-o", "cluster_size=2M"],
    ["-o", "cluster_size=4K,refcount_bits=1"],
    ["-o", "cluster_size=1K,refcount_bits=64"],
    ["-o", "cluster_size=64K,extended_l2=on"],
    ["-o", "lazy_refcounts=on,refcount_bits=8"],
    ["-c"],
    ["-c", "-o", "compression_type=zstd"],
    ["-c", "-o", "cluster_size=512"],
    ["-c", "-o", "cluster_size=2M"],
]


class Exchange(ImageTest):
    def setUp(self):
        super().setUp()
        self.need_qemu()
        self.content = pattern(9 * MIB + 512 * 7)
        self.write("a.raw", self.content)

    def test_what_lodge_writes_qemu_reads(self):
        for options in GEOMETRIES:
            with self.subTest(options=options):
                self.lodge("convert", "-O", "qcow2", *options, "a.raw", "a.qcow2")
                self.qemu_check("a.qcow2")
                self.qemu_img("compare", "a.raw", "a.qcow2")
                self.lodge("check", "a.qcow2")

    def test_what_qemu_writes_lodge_reads(self):
        for options in GEOMETRIES:
            with self.subTest(options=options):
                self.qemu_img("convert", "-O", "qcow2", *options, "a.raw", "a.qcow2")
                self.lodge("check", "a.qcow2")
                self.lodge("compare", "-s", "a.raw", "a.qcow2")
                self.lodge("convert", "a.qcow2", "b.raw")
                self.assertEqualContent(self.read("b.raw"), self.content)

    def test_external_data_file(self):
        for raw in "off", "on":
            self.lodge("create", "-o", "data_file=d%s.raw,data_file_raw=%s" % (raw, raw), "d%s.qcow2" % raw, str(len(self.content)))
            self.lodge("convert", "-n", "-O", "qcow2", "a.raw", "d%s.qcow2" % raw)
            self.qemu_check("d%s.qcow2" % raw)
            self.qemu_img("compare", "a.raw", "d%s.qcow2" % raw)
        self.assertEqualContent(self.read("don.raw"), self.content)

    def test_measure_is_right(self):
        for size in "1G", "300G":
            for options in [], ["-o", "cluster_size=4K"]:
                ours = self.lodge("measure", "-O", "qcow2", *options, "--size", size).stdout
                theirs = self.qemu_img("measure", "-O", "qcow2", *options, "--size", size).stdout
                self.assertEqual(ours.split()[-1], theirs.split()[-1])

    def test_preallocation(self):
        for mode in "metadata", "falloc", "full":
            self.lodge("create", "-o", "preallocation=" + mode, "p.qcow2", "20M")
            self.qemu_check("p.qcow2")

    def ranges(self, text):
        """The rows of a map without what follows from others: (data, zero, length, place)."""
        rows = []
        for row in json.loads(text):
            place = row["offset"] if row["data"] else None
            if rows and rows[-1][:2] == [row["data"], row["zero"]] and place in (None, sum(rows[-1][2:])):
                rows[-1][2] += row["length"]
            else:
                rows.append([row["data"], row["zero"], row["length"], place] if place is not None
                            else [row["data"], row["zero"], row["length"]])
        return rows

    def test_reserved_clusters_are_holes(self):
        """Clusters that were reserved and never written: zero for both programs, and not copied."""
        self.need_qemu()
        for options in ("preallocation=metadata", "preallocation=metadata,cluster_size=4k",
                        "preallocation=metadata,extended_l2=on,cluster_size=128k", "preallocation=falloc"):
            with self.subTest(options):
                self.qemu_img("create", "-f", "qcow2", "-o", options, "r.qcow2", "64M")
                self.run_command("qemu-io", "-c", "write -P 1 1M 100k", "r.qcow2")
                theirs = self.qemu_img("map", "--output", "json", "r.qcow2").stdout
                self.assertEqual(self.ranges(self.lodge("map", "--json", "r.qcow2").stdout), self.ranges(theirs))
                self.lodge("convert", "r.qcow2", "copy.raw")
                self.assertLess(os.stat(self.path("copy.raw")).st_blocks * 512, 1 << 20)
                self.assertEqual(self.qemu_img("compare", "r.qcow2", "copy.raw").returncode, 0)

    def dirty_ranges(self, name, bitmap):
        """What a bitmap has as changed, as qemu-nbd shows it: a set of 64 KiB pieces."""
        socket = self.path("dirty")
        server = subprocess.Popen(["qemu-nbd", "-r", "-f", "qcow2", "-B", bitmap, "-k", socket, name], cwd=self.folder)
        try:
            while not os.path.exists(socket):
                self.assertIsNone(server.poll())
                time.sleep(0.01)
            source = "driver=nbd,server.type=unix,server.path=%s,x-dirty-bitmap=qemu:dirty-bitmap:%s" % (socket, bitmap)
            rows = json.loads(self.qemu_img("map", "--output=json", "--image-opts", source).stdout)
        finally:
            server.terminate()
            server.wait()
        return {piece for row in rows if not row["data"]
                for piece in range(row["start"] >> 16, (row["start"] + row["length"] + 65535) >> 16)}

    def bitmap_flags(self, name):
        about = json.loads(self.qemu_img("info", "--output=json", name).stdout)
        return {b["name"]: b["flags"] for b in about["format-specific"]["data"]["bitmaps"]}

    def test_bitmaps_are_kept(self):
        for options in [], ["-o", "cluster_size=512"], ["-o", "extended_l2=on"]:
            with self.subTest(options=options):
                self.qemu_img("convert", "-O", "qcow2", *options, "a.raw", "a.qcow2")
                self.qemu_img("bitmap", "--add", "a.qcow2", "nightly")
                self.qemu_img("bitmap", "--add", "--disable", "a.qcow2", "frozen")
                self.lodge("check", "a.qcow2")
                self.lodge("create", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
                self.run_command("qemu-io", "-f", "qcow2", "-c", "write -P 1 640k 64k", "-c", "write -P 2 5M 100k", "-c", "write -z 8M 64k",
                                 "over.qcow2")
                self.lodge("commit", "over.qcow2")
                self.qemu_check("a.qcow2")
                self.lodge("check", "a.qcow2")
                self.assertEqual(self.bitmap_flags("a.qcow2"), {"nightly": ["auto"], "frozen": []})
                self.assertEqual(self.dirty_ranges("a.qcow2", "nightly"), {10, 80, 81, 128})
                self.assertEqual(self.dirty_ranges("a.qcow2", "frozen"), set())
                self.lodge("snapshot", "-c", "one", "a.qcow2")
                self.lodge("snapshot", "-a", "one", "a.qcow2")
                self.assertEqual(len(self.dirty_ranges("a.qcow2", "nightly")), (len(self.content) + 65535) >> 16)
                self.qemu_check("a.qcow2")

    def test_lazy_refcounts(self):
        self.lodge("create", "-o", "lazy_refcounts=on", "a.qcow2", "10M")
        flag = lambda: json.loads(self.qemu_img("info", "-U", "--output=json", "a.qcow2").stdout)["dirty-flag"]
        address = "nbd+unix:///?socket=" + self.path("s")
        for kill in False, True:
            server = subprocess.Popen([LODGE, "image", "serve", "-k", self.path("s"), "a.qcow2"], cwd=self.folder,
                                      stdout=subprocess.PIPE)
            self.addCleanup(server.kill)
            server.stdout.readline()
            self.assertFalse(flag())
            self.run_command("qemu-io", "-f", "raw", "-c", "write -P 1 %dM 3M" % (5 if kill else 1), "-c", "flush", address)
            self.assertTrue(flag())
            server.kill() if kill else server.terminate()
            server.wait()
            server.stdout.close()
            self.assertEqual(flag(), kill)
            if kill:
                os.unlink(self.path("s"))
                self.qemu_img("check", "a.qcow2", check=False)
                self.lodge("snapshot", "-c", "one", "a.qcow2")  # opens it for writing
                self.assertFalse(flag())
            self.qemu_check("a.qcow2")
            self.run_command("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 1 1M 3M", "a.qcow2")

    def test_bitmaps_of_a_killed_writer_say_so(self):
        self.qemu_img("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.qemu_img("bitmap", "--add", "a.qcow2", "nightly")
        server = subprocess.Popen([LODGE, "image", "serve", "-k", self.path("s"), "a.qcow2"], cwd=self.folder,
                                  stdout=subprocess.PIPE)
        self.addCleanup(server.kill)
        server.stdout.readline()
        self.run_command("qemu-io", "-f", "raw", "-c", "write -P 1 64k 64k", "-c", "flush", "nbd+unix:///?socket=" + self.path("s"))
        server.kill()
        server.wait()
        server.stdout.close()
        self.assertEqual(self.bitmap_flags("a.qcow2"), {"nightly": ["in-use", "auto"]})
        self.lodge("check", "-r", "all", "a.qcow2")

    def test_bitmaps_follow_the_size(self):
        self.lodge("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.lodge("bitmap", "--add", "a.qcow2", "nightly")
        self.lodge("bitmap", "--add", "--disable", "-g", "1M", "a.qcow2", "frozen")
        pieces = (len(self.content) + 65535) >> 16
        self.run_command("qemu-io", "-f", "qcow2", "-c", "write -P 1 640k 64k", "a.qcow2")
        self.lodge("resize", "a.qcow2", "+64M")
        self.qemu_check("a.qcow2")
        self.assertEqual(self.bitmap_flags("a.qcow2"), {"nightly": ["auto"], "frozen": []})
        self.assertEqual(self.dirty_ranges("a.qcow2", "nightly"), {10})
        self.run_command("qemu-io", "-f", "qcow2", "-c", "write -P 1 %dk 64k" % ((pieces + 5) * 64), "a.qcow2")
        self.assertEqual(self.dirty_ranges("a.qcow2", "nightly"), {10, pieces + 5})
        self.lodge("resize", "--shrink", "a.qcow2", "1M")
        self.qemu_check("a.qcow2")
        self.assertEqual(self.dirty_ranges("a.qcow2", "nightly"), {10})

    def test_bitmaps_are_made_and_removed(self):
        self.lodge("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.lodge("bitmap", "--add", "a.qcow2", "one")
        self.lodge("bitmap", "--add", "-g", "4k", "a.qcow2", "two")
        self.run_command("qemu-io", "-f", "qcow2", "-c", "write -P 1 640k 64k", "a.qcow2")
        self.assertEqual(self.dirty_ranges("a.qcow2", "one"), {10})
        self.lodge("bitmap", "--disable", "--clear", "a.qcow2", "one")
        self.assertEqual(self.dirty_ranges("a.qcow2", "one"), set())
        self.lodge("convert", "-O", "qcow2", "--bitmaps", "a.qcow2", "b.qcow2")
        self.qemu_check("b.qcow2")
        self.assertEqual(self.bitmap_flags("b.qcow2"), {"one": [], "two": ["auto"]})
        self.lodge("bitmap", "--merge", "two", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2", "one")
        self.assertEqual(self.dirty_ranges("a.qcow2", "one"), {10})
        listed = self.lodge_json("bitmap", "a.qcow2")
        self.assertEqual([(b["name"], b["granularity"], b["recording"]) for b in listed], [("one", 65536, False), ("two", 4096, True)])
        for name in "one", "two":
            self.lodge("bitmap", "--remove", "a.qcow2", name)
        self.assertNotEqual(self.lodge("bitmap", "--remove", "a.qcow2", "one", check=False).returncode, 0)
        self.qemu_check("a.qcow2")
        self.assertNotIn("bitmaps", self.lodge_json("info", "a.qcow2")["format-specific"]["data"])


class Hostile(ImageTest):
    def test_scattered_references(self):
        """Four million tables, each in a hole of the file and far from the next: an end in little time and memory."""
        head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 9, 1 << 37, 0, 4 << 20, 1 << 20, 512, 1, 0, 0)
        with open(self.path("x.qcow2"), "wb") as image:
            image.write(head)
            image.seek(1 << 20)
            places = array.array("Q", range(1 << 30, (1 << 30) + (4 << 20) * 262144, 262144))
            places.byteswap()
            image.write(places)
            image.truncate(places_end := (1 << 30) + (4 << 20) * 262144)
        self.assertEqual(os.path.getsize(self.path("x.qcow2")), places_end)
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        result = self.lodge("check", "x.qcow2", check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("the check is given up", result.stderr)
        self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 60, time.monotonic() - start)
        self.assertLess(after.ru_maxrss, 200 << 10)


    def lie(self, *changes):
        """x.qcow2: good.qcow2 with other bytes at some places."""
        image = bytearray(self.good)
        for place, form, value in changes:
            struct.pack_into(form, image, place, value)
        self.write("x.qcow2", bytes(image))

    def make_good(self):
        self.write("good.raw", b"A" * 196608 + bytes(4 << 20) + b"B" * 65536)
        self.lodge("convert", "-O", "qcow2", "good.raw", "good.qcow2")
        self.good = self.read("good.qcow2")
        l1, counts = struct.unpack_from(">QQ", self.good, 40)
        block, = struct.unpack_from(">Q", self.good, counts)
        l2 = struct.unpack_from(">Q", self.good, l1)[0] & (1 << 56) - 1
        return l1, l2, counts, block

    def test_lying_headers(self):
        """Tables that are huge or elsewhere, sizes that cannot be: one line that names it, in little time and memory."""
        l1, _, _, _ = self.make_good()
        for place, form, value, text in [
                (20, ">I", 63, "clusters of 2^63 bytes"), (24, ">Q", 1 << 63, "the disk's size is over"),
                (24, ">Q", 1 << 61, "the L1 table is too small"), (36, ">I", 0x7fffffff, "L1 table of 2147483647 entries"),
                (40, ">Q", 1 << 50, "L1 table at 0x4000000000000"), (40, ">Q", l1 + 8, "L1 table at"),
                (48, ">Q", 1 << 50, "refcount table at 0x4000000000000"), (56, ">I", 0x7fffffff, "refcount table of 2147483647"),
                (60, ">I", 0x7fffffff, "2147483647 snapshots"), (96, ">I", 40, "refcounts of 2^40 bits"),
                (72, ">Q", 1 << 40, "bit 40"), (100, ">I", 0x7fffffff, "2147483647 bytes long")]:
            self.lie((place, form, value))
            for words in (["info"], ["check"], ["check", "-r", "all"], ["convert", "-O", "raw"]):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                result = self.lodge(*words, "x.qcow2", *(["out.raw"] if "-O" in words else []), check=False)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                self.assertEqual(result.returncode, 2, (text, words))
                self.assertIn(text, result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 10)
                self.assertLess(after.ru_maxrss, 200 << 10)
            self.assertFalse(os.path.exists(self.path("out.raw")))

    def test_overlapping_clusters(self):
        """Tables that count as free or lie on each other: nothing is written over them, and the repair keeps the disk."""
        l1, l2, counts, block = self.make_good()
        for name, *changes in [("all free", *[(block + 2 * i, ">H", 0) for i in range(16)]), ("header free", (block, ">H", 0)),
                               ("L2 free", (block + (l2 >> 15), ">H", 0)), ("no block", (counts, ">Q", 0)),
                               ("block on L1", (counts, ">Q", l1))]:
            with self.subTest(name):
                self.lie(*changes)
                tables = [self.read("x.qcow2")[at:at + 65536] for at in (0, l1, l2, counts)]
                result = self.lodge("bench", "-w", "-t", "writeback", "-c", "20", "-s", "65536", "-S", "65536",
                                    "-o", "196608", "x.qcow2", check=False)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("image 'x.qcow2' is corrupt", result.stderr)
                self.assertEqual([self.read("x.qcow2")[at:at + 65536] for at in (0, l1, l2, counts)], tables)
                self.lodge("check", "-r", "all", "x.qcow2")
                self.lodge("compare", "good.raw", "x.qcow2")
                if shutil.which("qemu-img"):
                    self.qemu_check("x.qcow2")
        for name, change in [("data on L1", (l2 + 24, ">Q", 1 << 63 | l1)), ("L2 on L1", (l1, ">Q", 1 << 63 | l1))]:
            with self.subTest(name):
                self.lie(change)
                before = self.read("x.qcow2")
                result = self.lodge("bench", "-w", "-t", "writeback", "-c", "1", "-s", "65536", "-o", "196608", "x.qcow2",
                                    check=False)
                self.assertNotEqual(result.returncode, 0)
                self.assertEqual(self.read("x.qcow2")[:len(before)], before)
                self.assertEqual(self.lodge("check", "x.qcow2", check=False).returncode, 2)


class Turns(ImageTest):
    """One image, changed by Lodge and by QEMU in turns, mirrored on a byte array."""

    SIZE = 6 * MIB

    def setUp(self):
        super().setUp()
        self.need_qemu()

    def change_content(self, rng):
        """By either program; both write a pattern byte."""
        offset = rng.randrange(self.SIZE // 512) * 512
        length = min(rng.choice([512, 4096, 65536, 300 * 512, MIB]), self.SIZE - offset)
        value = rng.randrange(1, 255)
        kind = rng.choice(["write", "write", "zero"])
        if rng.random() < 0.5:
            command = "write -P %d %d %d" % (value, offset, length) if kind == "write" else "write -z -u %d %d" % (offset, length)
            self.run_command("qemu-io", "-f", "qcow2", "-c", command, "a.qcow2")
        else:
            # Through an overlay, so that commit is in it, too.
            self.lodge("create", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
            command = "write -P %d %d %d" % (value, offset, length) if kind == "write" else "write -z %d %d" % (offset, length)
            self.run_command("qemu-io", "-f", "qcow2", "-c", command, "over.qcow2")
            self.lodge("commit", "over.qcow2")
        self.model[offset:offset + length] = bytes([value if kind == "write" else 0]) * length

    def change_snapshots(self, rng, tool):
        if len(self.kept) < 3:
            name = "s%d" % rng.randrange(1 << 30)
            tool("snapshot", "-c", name, "a.qcow2")
            self.kept[name] = bytes(self.model)
        elif rng.random() < 0.5:
            name = rng.choice(sorted(self.kept))
            tool("snapshot", "-a", name, "a.qcow2")
            self.model = bytearray(self.kept[name])
        else:
            name = rng.choice(sorted(self.kept))
            tool("snapshot", "-d", name, "a.qcow2")
            del self.kept[name]

    def rebase(self, tool):
        """Onto another base and back to none."""
        self.write("base.raw", pattern(self.SIZE // 2, 5))
        tool("rebase", "-b", "base.raw", "-F", "raw", "a.qcow2")
        tool("rebase", "-b", "", "a.qcow2")

    def test_random_changes(self):
        for seed, options in enumerate([[], ["-o", "cluster_size=4K"], ["-o", "extended_l2=on"]]):
            with self.subTest(options=options):
                rng = random.Random(seed)
                self.model, self.kept = bytearray(self.SIZE), {}
                self.lodge("create", *options, "a.qcow2", str(self.SIZE))
                for number in range(25):
                    tool = self.lodge if rng.random() < 0.6 else self.qemu_img
                    what = rng.random()
                    if what < 0.6:
                        self.change_content(rng)
                    elif what < 0.9:
                        self.change_snapshots(rng, tool)
                    else:
                        self.rebase(tool)
                    self.qemu_check("a.qcow2")
                    self.lodge("check", "a.qcow2")
                self.assertDisk("a.qcow2", bytes(self.model))
                for name, content in self.kept.items():
                    self.assertDisk("a.qcow2", content, name)


if __name__ == "__main__":
    unittest.main()
