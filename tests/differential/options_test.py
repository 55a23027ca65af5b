# SPDX-License-Identifier: Apache-2.0
"""options_test.py PROGRAM: what the differential test refuses, and how: status 2 and one line that says why."""

import subprocess
import sys
import unittest

PROGRAM = sys.argv.pop()


def differential(*arguments):
    return subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)


class OptionsTest(unittest.TestCase):
    def refuses(self, options, *texts):
        """The count is small: were the options taken, the run would be short, and its status 0."""
        result = differential(*options.split(), "--count", "1")
        self.assertEqual(result.returncode, 2, result.stderr + result.stdout)
        self.assertEqual(result.stdout, "")
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for text in (*texts, "--help"):
            self.assertIn(text, result.stderr)

    def test_code_sizes(self):
        self.refuses("--code32 --code16", "one size")
        self.refuses("--kernel --code16", "no 16-bit code")
        self.refuses("--protected", "--code32 or --code16")
        self.refuses("--kernel --protected", "--code32 or --code16")

    def test_single_step(self):
        step = "--single-step "
        self.refuses(step + "--code16", "16-bit code is interpreted")
        self.refuses(step + "--code16 --protected", "16-bit code is interpreted")
        self.refuses(step + "--engine interpret", "--engine translate")
        self.refuses(step + "--kicks", "--kicks")
        self.refuses(step + "--lax-flags", "--lax-flags")
        self.refuses(step + "--trace no-groups,executors", "executors")
        for option in ("--list", "--seeds 2", "--rounds 2"):
            self.refuses(step + option, option.split()[0])

    def test_interpreter(self):
        """What is the translator's alone, and that the interpreter is the default."""
        for engine in ("", "--engine interpret "):
            self.refuses(engine + "--lax-flags", "exact")
            self.refuses(engine + "--kicks", "interrupts")

    def test_values(self):
        self.refuses("--engine kvm", "neither interpret nor translate")
        self.refuses("--frobnicate", "unknown option '--frobnicate'")
        self.refuses("--seed -1", "'--seed'", "from 0 on")
        self.refuses("--seeds 0", "'--seeds'", "from 1 on")
        self.refuses("--rounds 1x", "'--rounds'")
        for arguments in (["--count"], ["--count", "0"], ["--engine"], ["--trace"]):
            result = differential(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn(f"option '{arguments[0]}' needs", result.stderr)

    def test_help(self):
        result = differential("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for option in ("--engine", "--count", "--single-step", "--mmio"):
            self.assertIn(f"  {option}", result.stdout)

    def test_what_is_taken(self):
        """With the interpreter on both sides, the host's processor does not matter."""
        for options in ("--mmio --code16 --protected", "--mmio --seed 0x10", "--kernel --code32 --protected"):
            result = differential(*options.split(), "--count", "1")
            self.assertEqual(result.returncode, 0, result.stderr + result.stdout)
            self.assertIn(" 0 differences", result.stdout)


unittest.main()
