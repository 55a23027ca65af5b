#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images and descriptors of other products, from ../shared/data/images: each opens and has the checksum listed there."""

import csv
import gzip
import hashlib
import os
import shutil
import unittest

from image_kit import ImageTest, shared

MIB = 1048576


class OfOthers(ImageTest):
    """Images made by other products, with the checksums of their content."""

    def setUp(self):
        super().setUp()
        self.images = shared("images")
        if not self.images:
            self.skipTest("../shared/data/images is not there")

    def fetch(self, name):
        source = os.path.join(self.images, name)
        target = self.path(name[:-3] if name.endswith(".gz") else name)
        if name.endswith(".gz"):
            with gzip.open(source) as packed, open(target, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        else:
            shutil.copy(source, target)
            os.chmod(target, 0o644)
        return os.path.basename(target)

    def sum_of(self, name):
        """The SHA-256 of a file, whose holes are not read."""
        digest, zeroes, at = hashlib.sha256(), bytes(1 << 20), 0
        with open(self.path(name), "rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            while at < end:
                try:
                    data = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    data = end
                while at < data:
                    digest.update(zeroes[:data - at])
                    at += min(len(zeroes), data - at)
                part = os.pread(file.fileno(), 1 << 20, at)
                digest.update(part)
                at += len(part)
        return digest.hexdigest()

    def test_content(self):
        with open(os.path.join(self.images, "index.csv")) as index:
            rows = list(csv.DictReader(index))
        self.assertGreater(len(rows), 5)
        for row in rows:
            with self.subTest(row["file"]):
                name = self.fetch(row["file"])
                before = self.sum_of(name)
                self.lodge("convert", "-O", "raw", name, "seen.raw")
                self.assertEqual(os.path.getsize(self.path("seen.raw")), int(row["virtual_bytes"]))
                self.assertEqual(self.sum_of("seen.raw"), row["sha256_of_raw_content"])
                self.lodge("check", name)
                self.assertEqual(self.sum_of(name), before, "a read-only open changed the file")
                os.unlink(self.path("seen.raw"))
                os.unlink(self.path(name))

    def test_missing_parent(self):
        name = self.fetch("fat-differential.vhd.gz")
        result = self.lodge("info", name, check=False)
        alone = self.lodge("convert", "-O", "raw", name, "x.raw", check=False)
        self.assertNotEqual(alone.returncode, 0)
        self.assertIn("fat-parent.vhd", result.stderr + alone.stderr)
        self.assertFalse(os.path.exists(self.path("x.raw")))

    def test_descriptors(self):
        for name in ("input.vmdk", "input.iso", "ubuntu.2.0-disk1.vmdk"):
            self.fetch(name)
        for name, cpus, memory, disk, nics in [("vmware.ovf", 2, 1536 * MIB, 1 << 30, 4),
                                               ("ubuntu.2.0.ovf", 1, 512 * MIB, 8 << 30, 1),
                                               ("csr1000v.ovf", 1, 4096 * MIB, 1 << 30, 3)]:
            with self.subTest(name):
                made = self.lodge_json("import", self.fetch(name), "out-" + name)
                self.assertEqual((made["cpus"], made["memory"]), (cpus, memory))
                self.assertEqual(made["disks"][0]["bytes"], disk)
                self.assertEqual(len(made["nets"]), nics)
                self.lodge("check", os.path.join("out-" + name, made["disks"][0]["path"]))
        self.assertEqual(self.lodge_json("import", "csr1000v.ovf", "x", "--configuration", "4CPU-8GB")["cpus"], 4)
        invalid = self.lodge("import", self.fetch("invalid.ovf"), "y", check=False)
        self.assertNotEqual(invalid.returncode, 0)
        self.assertIn("nonexistent.vmdk", invalid.stderr)
        self.assertFalse(os.path.exists(self.path("y")))


if __name__ == "__main__":
    unittest.main()
