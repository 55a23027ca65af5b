#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Very large images: little memory, whatever is in them."""

import struct
import unittest

from image_kit import LODGE, ImageTest


class Large(ImageTest):
    def test_large_and_lean(self):
        """16 TiB (VHD: 2 TiB): made, opened, mapped and checked within 200 MiB. One of 4 TiB has all its clusters, which are
        more than the check counts at a time."""
        for fmt, size, options in [("vhdx", "16T", ""), ("vdi", "16T", ""), ("vmdk", "16T", ""), ("vhd", "2000G", ""),
                                   ("qcow2", "16T", "cluster_size=8K"), ("qcow2", "4T", "preallocation=metadata")]:
            with self.subTest(fmt):
                self.lodge("create", "-f", fmt, *(["-o", options] if options else []), "x." + fmt, size)
                if "metadata" in options:
                    self.spoil_refcounts("x.qcow2")
                    self.assertEqual(self.lodge("check", "x.qcow2", check=False).returncode, 2)
                    repaired = self.lodge("check", "-r", "all", "x.qcow2").stdout
                    self.assertIn("Repaired: 500 leaked, 1000 corrupt", repaired)
                for words in (["info"], ["map"], ["check"]):
                    script = ("import resource, subprocess, sys\n"
                              "r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
                              "print(r, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
                    out = self.run_command("python3", "-c", script, LODGE, "image", *words, "x." + fmt).stdout.split()
                    self.assertEqual(int(out[0]), 0, words)
                    self.assertLess(int(out[1]), 200 * 1024, words)

    def spoil_refcounts(self, name):
        """Some too high in the fourth block, some too low in one of the last."""
        with open(self.path(name), "r+b") as image:
            header = image.read(104)
            offset, clusters = struct.unpack(">QI", header[48:60])
            image.seek(offset)
            blocks = [block for block in struct.unpack(">%dQ" % (clusters * 8192), image.read(clusters << 16)) if block]
            image.seek(blocks[3] + 1000)
            image.write(b"\0\2" * 500)
            image.seek(blocks[-5] + 1000)
            image.write(bytes(2000))


if __name__ == "__main__":
    unittest.main()
