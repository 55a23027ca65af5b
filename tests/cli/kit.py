# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: a runtime folder of their own, and the program under test ($LODGE)."""

import os
import shutil
import subprocess
import tempfile
import time
import unittest

LODGE = os.environ["LODGE"]


class LodgeTest(unittest.TestCase):
    """Each test has a runtime folder and a kernel file; machines that it leaves are killed."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lodge-cli-")
        os.chmod(self.folder, 0o700)
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.folder, LC_ALL="C")
        self.kernel = os.path.join(self.folder, "kernel")
        with open(self.kernel, "w") as kernel:
            kernel.write("kernel")

    def tearDown(self):
        names = self.lodge("ps", "-q").stdout.split()
        if names:
            self.lodge("kill", *names)
        shutil.rmtree(self.folder)

    def lodge(self, *arguments, stdin="", timeout=60):
        return subprocess.run([LODGE, *arguments], env=self.env, input=stdin, capture_output=True, text=True,
                              timeout=timeout, errors="replace")

    def start(self, *arguments, **options):
        """A foreground machine with pipes."""
        settings = dict(env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        settings.update(options)
        return subprocess.Popen([LODGE, "run", "--kernel", self.kernel, *arguments], **settings)

    def detach(self, name, *arguments):
        result = self.lodge("run", "-d", "--name", name, "--kernel", self.kernel, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout, name + "\n")

    def machines(self):
        """Names of machine folders, without asking lodge."""
        path = os.path.join(self.folder, "lodge")
        return sorted(n for n in os.listdir(path) if not n.startswith(".")) if os.path.isdir(path) else []

    def assertFails(self, result, status, *texts):
        """One line on standard error that has these texts."""
        self.assertEqual(result.returncode, status, result.stderr + result.stdout)
        self.assertEqual(result.stdout, "")
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for text in texts:
            self.assertIn(text, result.stderr)

    def eventually(self, condition, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        self.fail("this did not happen within %d s: %s" % (seconds, condition))


def read_until(stream, text, limit=1 << 20):
    """Reads an unbuffered binary stream until it has brought `text`."""
    data = b""
    while text not in data:
        part = os.read(stream.fileno(), 65536)
        if not part or len(data) > limit:
            raise AssertionError("%r did not come: %r" % (text, data[-200:]))
        data += part
    return data
