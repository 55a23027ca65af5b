# SPDX-License-Identifier: Apache-2.0
"""What the tests of disk images share: a folder of their own, the program under test ($LODGE), and qemu's tools."""

import json
import os
import random
import shutil
import subprocess
import tempfile
import unittest

LODGE = os.environ["LODGE"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def shared(name):
    """A folder of ../shared/data beside the repository, or None."""
    path = os.path.join(ROOT, "..", "shared", "data", name)
    return path if os.path.isdir(path) else None


def pattern(size, seed=1):
    """A disk's content: holes, runs that compress and runs that do not, cut at odd places."""
    rng = random.Random(seed)
    content = bytearray(size)
    at = 0
    while at < size:
        length = min(rng.choice([512, 3000, 65536, 200000, 1 << 20]), size - at)
        kind = rng.randrange(5)
        if kind < 2:
            content[at:at + length] = rng.randbytes(length)
        elif kind == 2:
            content[at:at + length] = (b"%d text that is said again and again " % at * (length // 20 + 1))[:length]
        at += length
    return bytes(content)


class ImageTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lodge-image-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def run_command(self, *words, check=True, env=None, **options):
        result = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=300, env=env, **options)
        if check:
            self.assertEqual(result.returncode, 0, "%s\n%s%s" % (words, result.stdout, result.stderr))
        return result

    def lodge(self, *words, **options):
        return self.run_command(LODGE, "image", *words, **options)

    def lodge_json(self, *words):
        return json.loads(self.lodge(*words, "--json").stdout)

    def need_qemu(self):
        if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
            self.skipTest("qemu-img or qemu-io is not installed")

    def qemu_img(self, *words, **options):
        return self.run_command("qemu-img", *words, **options)

    def qemu_check(self, name):
        """Clean for qemu-img: no errors, no leaks."""
        self.qemu_img("check", "-f", "qcow2", name)

    def assertDisk(self, name, content, snapshot=None):
        """The disk's content, as both programs see it."""
        words = ["-l", snapshot] if snapshot else []
        self.lodge("convert", "-O", "raw", *words, name, "seen.raw")
        self.assertEqualContent(self.read("seen.raw"), content)
        self.qemu_img("convert", "-O", "raw", *words, name, "seen.raw")
        self.assertEqualContent(self.read("seen.raw"), content)

    def assertEqualContent(self, a, b):
        if a == b:
            return
        self.assertEqual(len(a), len(b))
        place = next(i for i in range(0, len(a), 512) if a[i:i + 512] != b[i:i + 512])
        self.fail("contents differ in the sector at %d" % place)
