"""Proof that the package serves elsewhere: a fresh process loads it with transformers alone and answers prompts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from forge_pipeline.errors import GateError
from forge_pipeline.release.package import MODEL_FOLDER
from forge_pipeline.release.settings import ReleaseSettings, ServingSettings
from forge_pipeline.reporting import Check, Outcome, Progress, Table

CODE_VERSION = "1"
PROGRAM = Path(__file__).with_name("serving_process.py")
ANSWERS_FILE = "answers.json"
LONGEST_SHOWN = 400
# The process inherits only what the interpreter and the loader need; above all no path and no credentials.
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


def check_serving(settings: ReleaseSettings, package: Path, output: Path, progress: Progress) -> Outcome:
    """Load ``package`` (its `model/`) with AutoModelForCausalLM and AutoTokenizer, offline, and generate.

    The process applies the chat template, decodes greedily and reports. Writes `answers.json` (prompt, rendered
    prompt, answer, tokens). Raises GateError if it does not load, misses a weight, has no working chat template,
    answers nothing at all, or takes longer than the recipe allows.
    """
    folder = package / MODEL_FOLDER
    with progress.task("loading the package in a fresh process"):
        report = run_process(settings.serving, folder)
    problems = report["problems"]
    if problems:
        raise GateError(
            f"the package loads but does not serve: {problems[0]}",
            where=str(folder),
            fix="look at the tokenizer's chat template and the model's generation_config.json",
        )
    # Timings differ from run to run: they go into the report, not among the artifact's content.
    (output / ANSWERS_FILE).write_text(
        json.dumps({"answers": report["answers"], "versions": report["versions"]}, indent=1) + "\n", encoding="utf-8"
    )
    answers = report["answers"]
    tokens = sum(answer["tokens"] for answer in answers)
    return Outcome(
        counts={
            "prompts": len(answers),
            "generated_tokens": tokens,
            "load_seconds": round(report["load_seconds"], 3),
            "import_seconds": round(report["import_seconds"], 3),
            "tokens_per_second": round(tokens / report["generate_seconds"], 2),
            "parameters": report["parameters"],
            "transformers": report["versions"]["transformers"],
        },
        checks=[
            Check("loads_in_a_fresh_process", True, "transformers alone loads the package, with every weight in place"),
            Check("chat_template_works", True, "the template renders roles, tools and the assistant's parts"),
            Check(
                "needs_nothing_of_this_project",
                not report["foreign_modules"],
                "the process imported no module of forge_pipeline",
            ),
            Check("generates", True, "every prompt gets an answer", value=tokens / len(answers)),
        ],
        tables=[
            Table.of(
                "Answers",
                [
                    {
                        "prompt": answer["prompt"],
                        "answer": answer["answer"][:LONGEST_SHOWN],
                        "tokens": answer["tokens"],
                        "ended by itself": answer["ended"],
                    }
                    for answer in answers[:30]
                ],
            )
        ],
    )


def run_process(settings: ServingSettings, folder: Path) -> dict[str, Any]:
    """Run `serving_process.py` on ``folder`` and return its report.

    Raises GateError with the last lines of its error output if it fails, and ends its whole process group if it
    takes too long.
    """
    request = {
        "folder": str(folder.resolve()),
        "prompts": list(settings.prompts),
        "system_prompt": settings.system_prompt,
        "max_new_tokens": settings.max_new_tokens,
    }
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    with tempfile.TemporaryDirectory() as empty:
        # -I: no PYTHONPATH, no user packages, and the script's own folder is not on the path.
        process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=empty,
            env={**kept, **OFFLINE, "HOME": empty, "HF_HOME": empty, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
        try:
            answer, errors = process.communicate(json.dumps(request), timeout=settings.timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise GateError(
                f"the package did not serve within {settings.timeout_seconds:g} s",
                where=str(folder),
                fix="raise release.serving.timeout_seconds or lower release.serving.max_new_tokens",
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    if process.returncode != 0:
        last = [line for line in errors.splitlines() if line.strip()][-1:] or [f"exit status {process.returncode}"]
        raise GateError(
            f"a fresh process cannot load the package: {last[0].strip()}",
            where=str(folder),
            fix=f"run `{sys.executable} -I {PROGRAM}` by hand with the request on its standard input",
        )
    report: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return report
