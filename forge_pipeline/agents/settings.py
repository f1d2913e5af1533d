"""What a person writes about agents: tasks, reward, audit, reinforcement learning. Pure data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskKind = Literal["where", "returns", "first_parameter", "both", "follows"]
TASK_KINDS: tuple[TaskKind, ...] = TaskKind.__args__  # type: ignore[attr-defined]


class TaskSettings(BaseModel):
    """Which tasks are made. Held-out tasks are about entries of the held-out splits and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[TaskKind, ...] = Field(
        default=TASK_KINDS, min_length=1, description="kinds of task; those a corpus has no entries for come out fewer"
    )
    train: int = Field(default=1600, ge=1, description="tasks for training, at most")
    validation: int = Field(default=48, ge=0, description="held-out tasks for tuning, at most")
    test: int = Field(default=240, ge=1, description="held-out tasks for the reported evaluation, at most")
    procedural_fraction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of tasks about made-up modules and names; without them a small model learns names by "
        "heart instead of copying them",
    )
    maximum_answer_share: float = Field(
        default=0.04, gt=0, le=1, description="largest share of one answer among the tasks of a kind and split"
    )
    name_characters: int = Field(default=20, ge=4, le=80, description="longer names are no subject of a task")
    answer_characters: int = Field(default=24, ge=4, le=120, description="longer answers make no task")
    seed: int = Field(default=0, ge=0, description="which entries are drawn, and the made-up ones")


class EpisodeSettings(BaseModel):
    """The limits of one conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: int = Field(default=4, ge=1, description="assistant messages, tool calls and the answer together")
    turn_tokens: int = Field(default=40, ge=4, description="tokens of one assistant message")
    total_tokens: int = Field(default=256, ge=32, description="tokens of a whole conversation, prompt included")


class RewardSettings(BaseModel):
    """The reward of an episode is 1 for a correct answer plus these. They cannot outweigh it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: float = Field(default=0.05, ge=0, description="for an answer without any malformed tool call, right or wrong")
    efficiency: float = Field(default=0.05, ge=0, description="for a right answer with no more calls than needed")

    @model_validator(mode="after")
    def _success_dominates(self) -> RewardSettings:
        if self.form + self.efficiency > 0.25:
            raise ValueError(
                f"form + efficiency is {self.form + self.efficiency:g}; above 0.25 of the reward for success "
                "they would begin to compete with it"
            )
        return self


class AuditSettings(BaseModel):
    """When the audit stops the line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: int = Field(default=200, ge=1, description="tasks that each degenerate policy plays, at most")
    maximum_degenerate_success: float = Field(
        default=0.1, ge=0, lt=1, description="mean success from which a policy that solves nothing counts as an exploit"
    )
    maximum_degenerate_reward: float = Field(
        default=0.2, ge=0, lt=1, description="the same for its mean reward, as a share of the best possible one"
    )
    seed: int = Field(default=0, ge=0, description="which tasks are played")


class PolicySettings(BaseModel):
    """Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) with token-level normalisation,
    asymmetric clipping and no filler groups (Yu et al. 2025, DAPO, arXiv 2503.14476)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group_size: int = Field(default=8, ge=2, description="rollouts of one task that are compared with each other")
    tasks_per_step: int = Field(default=16, ge=1, description="tasks of one optimizer step, over all processes")
    temperature: float = Field(default=1.0, gt=0, le=2, description="sampling temperature of rollouts")
    clip_low: float = Field(default=0.2, gt=0, lt=1, description="how far the importance ratio counts below 1")
    clip_high: float = Field(default=0.28, gt=0, description="how far it counts above 1")
    kl_coefficient: float = Field(
        default=0.0, ge=0, description="weight of the divergence from the initial model; 0: none"
    )
    deviation_floor: float = Field(
        default=0.1,
        ge=0,
        description="advantages are divided by the group's reward deviation plus this, so that groups differing in "
        "form alone weigh little",
    )
    rollout_precision: Literal["float32", "bfloat16"] = Field(default="float32", description="precision of decoding")
    rollout_rows: int = Field(default=128, ge=1, description="rollouts decoded at once on one process")
    sampled_steps: int = Field(default=12, ge=0, description="steps whose rollouts are kept for reading, spread evenly")
    seed: int = Field(default=0, ge=0, description="order of the tasks and sampling")


class AgentEvaluationSettings(BaseModel):
    """How a model's success is measured on held-out tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: int = Field(default=240, ge=1, description="held-out test tasks, at most")
    samples: int = Field(default=4, ge=1, description="sampled conversations per task, beside the greedy one")
    temperature: float = Field(default=1.0, gt=0, le=2, description="temperature of the sampled ones")
    bootstrap: int = Field(default=2000, ge=100, description="resamples of the interval that is clustered by task")
    seed: int = Field(default=0, ge=0, description="of sampling and of the bootstrap")


class AgentSettings(BaseModel):
    """Everything about agents but the engine that trains them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: TaskSettings = Field(default=TaskSettings(), description="which tasks are made")
    episode: EpisodeSettings = Field(default=EpisodeSettings(), description="limits of one conversation")
    reward: RewardSettings = Field(default=RewardSettings(), description="what is rewarded beside success")
    audit: AuditSettings = Field(default=AuditSettings(), description="when the reward audit stops the line")
    policy: PolicySettings = Field(default=PolicySettings(), description="reinforcement learning")
    evaluation: AgentEvaluationSettings = Field(default=AgentEvaluationSettings(), description="measuring success")
