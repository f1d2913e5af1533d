import json
import subprocess
import sys

NOISY = """
import os, subprocess, sys
from forge_pipeline.cli import output
output.reserve_stdout_for_json()
output.reserve_stdout_for_json()
print("a library prints")
subprocess.run([sys.executable, "-c", "print('a child prints')"], check=True)
os.write(1, b"native code writes\\n")
output.print_json({"text": "na\\u00efve"})
"""


def test_only_json_reaches_stdout_whoever_prints() -> None:
    answer = subprocess.run([sys.executable, "-P", "-c", NOISY], check=True, capture_output=True, text=True)
    assert json.loads(answer.stdout) == {"text": "na\u00efve"}
    assert sorted(answer.stderr.splitlines()) == ["a child prints", "a library prints", "native code writes"]


def test_numbers_that_json_lacks_are_refused() -> None:
    code = "from forge_pipeline.cli import output; output.print_json(float('nan'))"
    answer = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert answer.returncode != 0
    assert "ValueError" in answer.stderr
