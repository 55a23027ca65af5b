#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test_summary.py FOLDER: one closing line over ctest's report (ctest.junit), and the GoogleTest reports (*.xml) and the
checks' lines (check.log) beside it.

A unit test program counts by its test cases; any other ctest entry and each check counts as one. Exits 1 if anything failed."""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def gtest_cases(path):
    """(passed, failed names, [(name, reason)] skipped) of one GoogleTest report."""
    passed, failed, skipped = 0, [], []
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None:
            failed.append(name)
        elif case.find("skipped") is not None:
            reason = (case.find("skipped").get("message") or "").strip().splitlines()
            skipped.append((name, reason[-1] if reason else "no reason given"))
        elif case.get("status") == "run":
            passed += 1
    return passed, failed, skipped


def skip_reason(output):
    reasons = [line.split("SKIP:", 1)[1].strip() for line in output.splitlines() if line.startswith("SKIP:")]
    return reasons[-1] if reasons else "no reason given"


def main():
    folder = pathlib.Path(sys.argv[1])
    passed, failed, skipped = 0, [], []
    for case in ElementTree.parse(folder / "ctest.junit").iter("testcase"):
        name, status = case.get("name"), case.get("status")
        report = folder / f"{name.removeprefix('unit.')}_test.xml"
        if name.startswith("unit.") and report.exists():
            counts = gtest_cases(report)
            passed += counts[0]
            failed += [f"{name}: {one}" for one in counts[1]]
            skipped += [(f"{name}: {one}", reason) for one, reason in counts[2]]
            if status == "fail" and not counts[1]:
                failed.append(name)
        elif status == "run":
            passed += 1
        elif status in ("notrun", "disabled") and case.find("skipped") is not None:
            skipped.append((name, skip_reason(case.findtext("system-out") or "")))
        else:
            failed.append(name)
    checks = folder / "check.log"
    for line in checks.read_text().splitlines() if checks.exists() else []:
        verdict, _, name = line.partition(" ")
        passed += verdict == "OK"
        if verdict == "FAIL":
            failed.append(f"check: {name.strip()}")
    for name, reason in skipped:
        print(f"skipped {name}: {reason}")
    for name in failed:
        print(f"failed {name}")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
