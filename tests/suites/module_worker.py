"""Runs the unittest cases of one module and writes one JSON line as each begins and as each ends.

    python module_worker.py MODULE RESULTS [SKIPPED_ID ...]

The parent learns from a line without an end which case crashed the process or never ended; it starts the module again
without the cases that have run.
"""

import json
import pathlib
import sys
import unittest
import warnings


class Recorder(unittest.TestResult):
    def __init__(self, out):
        super().__init__()
        self.out = out

    def say(self, test, outcome, reason=""):
        self.out.write(json.dumps({"test": test.id(), "outcome": outcome, "reason": reason}) + "\n")
        self.out.flush()

    def startTest(self, test):
        super().startTest(test)
        self.say(test, "started")

    def addSuccess(self, test):
        self.say(test, "passed")

    def addFailure(self, test, err):
        # pytest.skip within a unittest case, which unittest takes for an error.
        skipped = err[0].__name__ == "Skipped"
        self.say(test, "skipped" if skipped else "failed", str(err[1]) if skipped else self._exc_info_to_string(err, test))

    addError = addFailure

    def addSkip(self, test, reason):
        self.say(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self.say(test, "passed", "an expected failure")

    def addUnexpectedSuccess(self, test):
        self.say(test, "failed", "an unexpected success")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.say(test, "failed", self._exc_info_to_string(err, test))


def cases(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


def main(module, results, *skipped):
    warnings.simplefilter("ignore")
    try:
        loaded = unittest.defaultTestLoader.loadTestsFromName(module)
    except BaseException as error:
        if type(error).__name__ != "Skipped":
            raise
        line = {"test": module, "outcome": "skipped", "reason": str(error)}
        pathlib.Path(results).write_text(json.dumps(line) + "\n")
        return
    wanted = unittest.TestSuite(case for case in cases(loaded) if case.id() not in skipped)
    with open(results, "a") as out:
        wanted.run(Recorder(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
