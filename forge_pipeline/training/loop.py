"""The training loop. It reads top to bottom and is the same for every objective."""

from __future__ import annotations

import importlib
import json
import logging
import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import deepspeed
import torch
import torch.distributed
from torch import nn

from forge_pipeline.errors import TrainingError
from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.models.files import load_model, new_model, save_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.training import checkpoints
from forge_pipeline.training.objective import Objective, TrainingContext
from forge_pipeline.training.optimizer import build_optimizer
from forge_pipeline.training.run import METRICS_FILE, RESULT_FOLDER, NewModel, TrainingRun
from forge_pipeline.training.schedule import learning_rate_fraction
from forge_pipeline.training.settings import EngineSettings

LOG = logging.getLogger(__name__)
CHECKPOINTS_FOLDER = "checkpoints"


class Training:
    """One rank of one run, working in ``work``."""

    def __init__(self, run: TrainingRun, work: Path, rank: int, world_size: int, device: torch.device) -> None:
        self.run, self.work, self.rank, self.world_size = run, work, rank, world_size
        self.settings = run.engine
        self.model = _build_model(run)
        self.optimizer = build_optimizer(self.model, self.settings.optimizer)
        self.engine, *_ = deepspeed.initialize(
            model=self.model, optimizer=self.optimizer, config=deepspeed_config(self.settings)
        )
        self.stop_requested = False
        self.objective = self._build_objective(device)
        self.metrics_path = work / METRICS_FILE

    def _build_objective(self, device: torch.device) -> Objective:
        module, _, name = self.run.objective.partition(":")
        kind: type[Objective] = getattr(importlib.import_module(module), name)
        context = TrainingContext(
            model=self.engine,
            device=device,
            tokenizer_folder=Path(self.run.tokenizer),
            seed=self.settings.seed,
            rank=self.rank,
            world_size=self.world_size,
            micro_batch=self.settings.micro_batch,
            sum_over_ranks=lambda value: self._sum_over_ranks([value])[0],
        )
        return kind(self.run.objective_settings, context)

    def train(self) -> bool:
        """Run to the last step; returns False if a signal asked to stop earlier (a checkpoint is then left)."""
        signal.signal(signal.SIGTERM, self._request_stop)
        signal.signal(signal.SIGINT, self._request_stop)
        start = self._restore()
        saved = start
        for step in range(start, self.settings.steps):
            values, stopping = self._step(step)
            done = step + 1
            if done % self.settings.evaluate_every == 0 or done == self.settings.steps:
                values |= self._evaluate(step)
            self._report(step, values)
            if done % self.settings.checkpoint_every == 0 and done < self.settings.steps:
                self._save(done)
                saved = done
            if stopping:
                if saved != done:
                    self._save(done)
                return False
        self._finish()
        return True

    def _step(self, step: int) -> tuple[dict[str, float], bool]:
        """One optimizer step: forward and backward over the step's micro-batches, then the update."""
        began = time.perf_counter()
        batches = self.objective.micro_batches(step)
        data_seconds = time.perf_counter() - began
        units, stop_votes = self._sum_over_ranks([sum(batch.weight for batch in batches), float(self.stop_requested)])
        fraction = learning_rate_fraction(self.settings.schedule, step, self.settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * fraction
        sums: dict[str, float] = {"loss": 0.0}
        self.engine.train()
        for index, batch in enumerate(batches):
            self.engine.set_gradient_accumulation_boundary(index == len(batches) - 1)
            loss, extra = self.objective.loss(batch)
            # DeepSpeed averages over ranks; the loss is a mean over all units of the step.
            self.engine.backward(loss * (self.world_size / units))
            sums["loss"] += loss.item()
            for name, value in extra.items():
                sums[name] = sums.get(name, 0.0) + value
        norm = self._clip_gradients()
        self.engine.step()
        totals = dict(zip(sums, self._sum_over_ranks(list(sums.values())), strict=True))
        seconds = time.perf_counter() - began
        values = {name: total / units for name, total in totals.items()}
        values |= {
            "learning_rate_fraction": fraction,
            "gradient_norm": norm,
            "units_per_second": units / seconds,
            "data_wait": data_seconds / seconds,
            "seconds": seconds,
        }
        if not math.isfinite(values["loss"]) or not math.isfinite(norm):
            raise TrainingError(
                f"loss {values['loss']} and gradient norm {norm} in step {step} are not both finite",
                where=str(self.work),
                fix="lower the learning rates; the last checkpoint before this step is kept",
            )
        return values, stop_votes > 0

    def _clip_gradients(self) -> float:
        """Clip to the global norm, which is returned. Under ZeRO, DeepSpeed does it when it steps."""
        if self.settings.zero_stage:
            # The norm of the step before: ZeRO only knows it after reducing the partitions.
            return float(self.engine.get_global_grad_norm() or 0.0)
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.optimizer.gradient_clip))

    def _evaluate(self, step: int) -> dict[str, float]:
        self.engine.eval()
        with torch.no_grad():
            return {f"validation_{name}": value for name, value in self.objective.evaluate(step).items()}

    def _report(self, step: int, values: dict[str, float]) -> None:
        if self.rank == 0:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    # -- checkpoints ---------------------------------------------------------------------------------------

    def _save(self, done: int) -> None:
        root = self.work / CHECKPOINTS_FOLDER
        checkpoints.save(
            root,
            done,
            rank=self.rank,
            barrier=torch.distributed.barrier,
            write=lambda folder: self.engine.save_checkpoint(str(folder), tag=checkpoints.STATE_TAG),
        )
        if self.rank == 0:
            checkpoints.prune(root, self.settings.keep_checkpoints)

    def _restore(self) -> int:
        """Load the newest whole checkpoint and forget the metrics of later steps; returns the next step."""
        checkpoint = checkpoints.newest(self.work / CHECKPOINTS_FOLDER)
        if checkpoint is not None:
            self.engine.load_checkpoint(str(checkpoint.folder), tag=checkpoints.STATE_TAG)
            LOG.info("resuming at step %d", checkpoint.step)
        start = checkpoint.step if checkpoint else 0
        if self.rank == 0:
            kept = [line for line in read_lines(self.metrics_path) if json.loads(line)["step"] < start]
            self.metrics_path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        torch.distributed.barrier()
        return start

    def _finish(self) -> None:
        result = self.work / RESULT_FOLDER
        if self.settings.zero_stage == 3:
            # Only ZeRO 3 splits the weights themselves; gathering them is a collective of all ranks.
            with deepspeed.zero.GatheredParameters(list(self.model.parameters())):
                self._write_result(result)
        else:
            self._write_result(result)
        torch.distributed.barrier()

    def _write_result(self, result: Path) -> None:
        if self.rank == 0:
            result.mkdir(exist_ok=True)
            save_model(self.model, result / "model", Path(self.run.tokenizer))
            self.objective.finish(result)

    # -- process -------------------------------------------------------------------------------------------

    def _request_stop(self, signal_number: int, frame: FrameType | None) -> None:
        self.stop_requested = True

    def _sum_over_ranks(self, values: list[float]) -> list[float]:
        if self.world_size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return total.tolist()


def deepspeed_config(settings: EngineSettings) -> dict[str, Any]:
    """DeepSpeed's configuration. Micro-batches are counted by the loop, so accumulation is one here."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if settings.zero_stage:
        config["gradient_clipping"] = settings.optimizer.gradient_clip
    return config


def read_lines(path: Path) -> list[str]:
    """The whole lines of a file that may not exist or end in half a line."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _build_model(run: TrainingRun) -> Mistral:
    if isinstance(run.initial_model, NewModel):
        model = new_model(ModelConfig(**run.initial_model.shape), run.initial_model.seed)
    else:
        model = load_model(Path(run.initial_model))
    model.gradient_checkpointing = run.engine.gradient_checkpointing
    model.compute_dtype = torch.bfloat16 if run.engine.precision == "bf16" else None
    return model
