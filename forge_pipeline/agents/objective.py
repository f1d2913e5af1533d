"""Group relative policy optimisation, as the training loop runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forge_pipeline.agents.episode import Task
from forge_pipeline.agents.index import INDEX_FILE, LibraryIndex
from forge_pipeline.agents.reward import LibraryReward
from forge_pipeline.agents.rollout import ROLLOUT_SCHEMA, Rollout, RolloutBatch, RolloutMaker
from forge_pipeline.agents.settings import AgentSettings
from forge_pipeline.agents.tasks import read_tasks
from forge_pipeline.corpus.tables import read_table, write_table
from forge_pipeline.errors import TrainingError
from forge_pipeline.inference.scoring import token_log_probs
from forge_pipeline.models.files import load_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.tokens.chat import load_tokenizer
from forge_pipeline.training.objective import Batch, Objective, TrainingContext

ROLLOUTS_FILE = "rollouts.parquet"
# Purposes of the random streams.
_ORDER, _SAMPLING, _VALIDATION = 1, 2, 3
_PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def group_advantages(rewards: Sequence[float], deviation_floor: float) -> list[float]:
    """How much better each reward is than its group's mean, over the group's deviation plus the floor.

    With a floor of 0 this is GRPO's advantage (arXiv 2402.03300, section 4.1.2). A group without differences
    has advantages of exactly 0.
    """
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    return [(reward - mean) / (deviation + deviation_floor) for reward in rewards]


def policy_loss(
    log_probs: Tensor, sampler_log_probs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate, negated, of each token (N,), and which tokens the clip held back (N,) bool.

    The ratio is to the log-probabilities recorded while sampling (PPO, arXiv 1707.06347); the two bounds are
    DAPO's (arXiv 2503.14476).
    """
    ratio = torch.exp(log_probs - sampler_log_probs)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    free, held = ratio * advantages, clipped * advantages
    return -torch.minimum(free, held), held < free


def divergence(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Schulman's unbiased, non-negative estimate of KL(policy || reference) for each sampled token (N,)."""
    difference = reference_log_probs - log_probs
    return torch.exp(difference) - difference - 1


class GroupRelativePolicyObjective(Objective):
    """GRPO with the amendments of DAPO that matter for short conversations.

    Each step plays new rollouts with the current weights (one update per batch of rollouts). The loss is the
    mean over all sampled tokens of the step, not over sequences first: long and short conversations weigh by
    their tokens. Groups whose rewards are all the same teach nothing and are left out, of the denominator too.

    ``settings``: {"agent": AgentSettings as JSON, "tasks": folder, "initial_model": folder, "steps": int,
    "rollouts": folder}. Rollouts to be kept are written there as they are played, by every rank, so that a resumed
    run still has those of before.
    """

    def __init__(self, settings: Mapping[str, Any], context: TrainingContext) -> None:
        super().__init__(settings, context)
        self.agent = AgentSettings.model_validate(settings["agent"])
        self.policy = self.agent.policy
        folder = Path(settings["tasks"])
        self._tasks = read_tasks(folder, "train")
        self._validation = read_tasks(folder, "validation")
        if self.policy.tasks_per_step % context.world_size:
            raise TrainingError(
                f"tasks_per_step {self.policy.tasks_per_step} cannot be shared evenly by {context.world_size} ranks",
                fix="make policy.tasks_per_step a multiple of engine.world_size",
            )
        index = LibraryIndex(folder / INDEX_FILE)
        self._reward = LibraryReward(self.agent.reward, index)
        self._maker = RolloutMaker(load_tokenizer(context.tokenizer_folder), index, self._reward, self.agent.episode)
        self._reference: Mistral | None = None
        if self.policy.kl_coefficient > 0:
            self._reference = load_model(Path(settings["initial_model"])).to(context.device).eval()
            self._reference.compute_dtype = _unwrapped(context.model).compute_dtype
        self._kept_steps = _spread(int(settings["steps"]), self.policy.sampled_steps)
        self._statistics: dict[str, float] = {}

    def tasks_of(self, step: int) -> list[Task]:
        """This rank's tasks in ``step``: every task once per epoch, in an order drawn for each epoch."""
        chosen = []
        first = step * self.policy.tasks_per_step
        for place in range(first + self.context.rank, first + self.policy.tasks_per_step, self.context.world_size):
            epoch, offset = divmod(place, len(self._tasks))
            order = np.random.default_rng([self.context.seed, self.policy.seed, _ORDER, epoch])
            chosen.append(self._tasks[int(order.permutation(len(self._tasks))[offset])])
        return chosen

    def rollouts(self, step: int) -> RolloutBatch:
        """This rank's rollouts of ``step``, with their advantages."""
        size = self.policy.group_size
        batch = self._maker.play(
            _unwrapped(self.context.model),
            self.tasks_of(step),
            size,
            temperature=self.policy.temperature,
            seed=(self.context.seed, self.policy.seed, _SAMPLING, step),
            rows=self.policy.rollout_rows,
            dtype=_PRECISION[self.policy.rollout_precision],
        )
        for start in range(0, len(batch), size):
            group = batch[start : start + size]
            advantages = group_advantages([rollout.reward.total for rollout in group], self.policy.deviation_floor)
            for rollout, advantage in zip(group, advantages, strict=True):
                rollout.advantage = advantage
        return batch

    def micro_batches(self, step: int) -> list[Batch]:
        rollouts = self.rollouts(step)
        if step in self._kept_steps:
            self._keep(step, rollouts)
        useful = [rollout for rollout in rollouts if rollout.advantage != 0 and any(rollout.decoded.sampled)]
        # Like lengths together: less padding.
        useful.sort(key=lambda rollout: (len(rollout.decoded.tokens), rollout.task.task_id, rollout.copy))
        count = max(1, math.ceil(self._most_over_ranks(len(useful)) / self.context.micro_batch))
        batches = [self._batch(part) for part in _cut(useful, count)]
        # What is reported is divided by the step's units over all ranks, as the loss is.
        units = self.context.sum_over_ranks(sum(batch.weight for batch in batches))
        if units == 0:
            # No group differs anywhere: a step without a gradient, but with a denominator.
            batches[0].weight = 1.0
            units = self.context.sum_over_ranks(1.0)
        self._statistics = self._summary(rollouts, useful, units)
        return batches

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        tokens, mask = batch.tensors["tokens"], batch.tensors["mask"]
        log_probs = token_log_probs_of(self.context.model, tokens, mask, self.policy.temperature)
        sampled = batch.tensors["log_probs"][mask]
        advantages = batch.tensors["advantages"][:, None].expand_as(mask)[mask]
        losses, held = policy_loss(log_probs, sampled, advantages, self.policy.clip_low, self.policy.clip_high)
        ratio = torch.exp(log_probs.detach() - sampled)
        sums = {
            "clipped_fraction": float(held.sum()),
            "ratio_deviation": float((ratio - 1).abs().sum()),
            # The mean of what the sampled tokens' surprise is estimates the policy's entropy.
            "entropy": float(-log_probs.detach().sum()),
        }
        total = losses.sum()
        if self._reference is not None:
            with torch.no_grad():
                reference = token_log_probs(self._reference, tokens, mask, self.policy.temperature)
            penalty = divergence(log_probs, reference)
            total = total + self.policy.kl_coefficient * penalty.sum()
            sums["kl"] = float(penalty.detach().sum())
        # Once a step, with the first micro-batch.
        sums |= self._statistics
        self._statistics = dict.fromkeys(self._statistics, 0.0)
        return total, sums

    def evaluate(self, step: int) -> dict[str, float]:
        """Greedy success on validation tasks, each rank playing its share."""
        mine = self._validation[self.context.rank :: self.context.world_size]
        played = self._maker.play(
            _unwrapped(self.context.model),
            mine,
            1,
            temperature=0.0,
            seed=(self.context.seed, _VALIDATION),
            rows=self.policy.rollout_rows,
        )
        won = self.context.sum_over_ranks(sum(rollout.reward.success for rollout in played))
        return {"greedy_success": won / len(self._validation)} if self._validation else {}

    def finish(self, folder: Path) -> None:
        """Join what the ranks kept. Resuming on fewer ranks may have left a rollout in two files: it counts once."""
        kept: dict[tuple[int, str, int], dict[str, Any]] = {}
        for path in sorted(Path(self.settings["rollouts"]).glob("step-*-rank-*.parquet")):
            for row in read_table(path.parent, path.name).to_pylist():
                kept.setdefault((row["step"], row["task_id"], row["copy"]), row)
        write_table(folder / ROLLOUTS_FILE, ROLLOUT_SCHEMA, (kept[key] for key in sorted(kept)))

    def _keep(self, step: int, rollouts: RolloutBatch) -> None:
        folder, name = Path(self.settings["rollouts"]), f"step-{step:06}-rank-{self.context.rank}.parquet"
        # Renamed into place: a run killed while writing must not leave half a file for the next one.
        aside = folder / f".{name}"
        write_table(aside, ROLLOUT_SCHEMA, (rollout.row(step) for rollout in rollouts))
        aside.replace(folder / name)

    def _batch(self, rollouts: Sequence[Rollout]) -> Batch:
        """Right-padded tensors: tokens (B, T) int64, mask (B, T) bool, log_probs (B, T) and advantages (B,) float32."""
        width = max((len(rollout.decoded.tokens) for rollout in rollouts), default=2)
        rows = max(1, len(rollouts))
        tokens, mask = torch.zeros(rows, width, dtype=torch.long), torch.zeros(rows, width, dtype=torch.bool)
        log_probs, advantages = torch.zeros(rows, width), torch.zeros(rows)
        for row, rollout in enumerate(rollouts):
            length = len(rollout.decoded.tokens)
            tokens[row, :length] = torch.tensor(rollout.decoded.tokens)
            mask[row, :length] = torch.tensor(rollout.decoded.sampled)
            log_probs[row, :length] = torch.tensor(rollout.decoded.log_probs)
            advantages[row] = rollout.advantage
        tensors = {"tokens": tokens, "mask": mask, "log_probs": log_probs, "advantages": advantages}
        device = self.context.device
        return Batch({name: tensor.to(device) for name, tensor in tensors.items()}, float(mask.sum()))

    def _summary(self, rollouts: RolloutBatch, useful: RolloutBatch, units: float) -> dict[str, float]:
        """Means over this rank's rollouts, scaled so that the loop's division by ``units`` over all ranks gives
        the mean over all rollouts."""
        scale = units / (len(rollouts) * self.context.world_size)
        values = {
            "reward": sum(rollout.reward.total for rollout in rollouts),
            "success": sum(rollout.reward.success for rollout in rollouts),
            "form": sum(rollout.reward.form for rollout in rollouts),
            "efficiency": sum(rollout.reward.efficiency for rollout in rollouts),
            "invalid_calls": sum(rollout.transcript.invalid_calls for rollout in rollouts),
            "turns": sum(rollout.transcript.turns for rollout in rollouts),
            "answered": sum(rollout.transcript.answer is not None for rollout in rollouts),
            "scoring_failures": sum(rollout.reward.failure is not None for rollout in rollouts),
            "informative_rollouts": len(useful),
            "tokens_per_rollout": sum(len(rollout.decoded.tokens) for rollout in rollouts),
        }
        return {name: float(value) * scale for name, value in values.items()}

    def _most_over_ranks(self, value: int) -> int:
        shares = [
            self.context.sum_over_ranks(float(value) if rank == self.context.rank else 0.0)
            for rank in range(self.context.world_size)
        ]
        return int(max(shares))


def token_log_probs_of(model: nn.Module, tokens: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """As `inference.scoring.token_log_probs`, through the module that the training loop wrapped around the model.

    The wrapper's own forward pass has to be called: ZeRO hooks into it.
    """
    logits = model(tokens[:, :-1])[mask[:, 1:]].float() / temperature
    chosen = tokens[:, 1:][mask[:, 1:]]
    return logits.gather(1, chosen[:, None])[:, 0] - torch.logsumexp(logits, -1)


def _unwrapped(model: nn.Module) -> Mistral:
    inner = model.module if hasattr(model, "module") else model
    assert isinstance(inner, Mistral)
    return inner


def _cut(rollouts: RolloutBatch, count: int) -> list[RolloutBatch]:
    """``count`` parts of nearly the same size, some perhaps empty, in order."""
    borders = [len(rollouts) * part // count for part in range(count + 1)]
    return [rollouts[start:end] for start, end in pairwise(borders)]


def _spread(steps: int, count: int) -> frozenset[int]:
    """``count`` of ``steps`` steps, the first and the last among them."""
    if count >= steps:
        return frozenset(range(steps))
    return frozenset(round(place * (steps - 1) / max(count - 1, 1)) for place in range(count))
