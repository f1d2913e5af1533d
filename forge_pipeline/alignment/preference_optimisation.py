"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

The loss of a pair is -log sigmoid(beta * (d_chosen - d_rejected)), where d is how much likelier the trained
model makes an answer than the reference does, in nats over the whole answer. With ``chosen_weight`` above 0, that
many times the chosen answer's cross entropy per token is added (Pang et al. 2024, arXiv 2404.19733): without it
both answers may become less likely, as long as the rejected one does so faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forge_pipeline.alignment.preferences import PAIRS
from forge_pipeline.alignment.reports import histogram
from forge_pipeline.alignment.sequences import IGNORED, SequenceStore, indices_of_step, lay_out, pack
from forge_pipeline.alignment.settings import PreferenceSettings
from forge_pipeline.corpus.tables import read_table
from forge_pipeline.errors import TrainingError
from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.models.files import load_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table
from forge_pipeline.training.launch import TrainingSummary, train
from forge_pipeline.training.objective import Batch, Objective, TrainingContext
from forge_pipeline.training.report import training_counts
from forge_pipeline.training.run import TrainingRun

CODE_VERSION = "1"


class DirectPreferenceObjective(Objective):
    """``settings``: ``sequences`` (a SequenceStore in which pair i is 2i, chosen, and 2i + 1, rejected),
    ``reference_model`` (folder), ``beta``, ``chosen_weight``, ``pairs_per_step``, ``row_tokens``, ``steps``.

    The reference's log-probabilities are computed once, at the start, for this rank's pairs of all steps, in the
    very batches that the trained model will see: before the first update both agree to the last bit.
    """

    def __init__(self, settings: Mapping[str, Any], context: TrainingContext) -> None:
        super().__init__(settings, context)
        self.store = SequenceStore.read(Path(settings["sequences"]))
        self.beta: float = settings["beta"]
        # As many pairs as surely fit into a micro-batch's rows, so that every rank cuts a step alike.
        longest = int(self.store.lengths.max())
        self.pairs_in_batch = max(1, context.micro_batch * (settings["row_tokens"] // longest) // 2)
        self.reference = self._reference_log_probs()

    def micro_batches(self, step: int) -> list[Batch]:
        context = self.context
        per_step: int = self.settings["pairs_per_step"]
        chosen = indices_of_step(len(self.store) // 2, per_step, context.seed, step)
        mine = chosen[context.rank :: context.world_size]
        # Every rank makes as many micro-batches as the one with most pairs; what it lacks has weight zero.
        largest = -(-per_step // context.world_size)
        batches = []
        for start in range(0, largest, self.pairs_in_batch):
            part = mine[start : start + self.pairs_in_batch]
            batches.append(self._batch(part or chosen[:1], float(len(part))))
        return batches

    def _batch(self, pairs: Sequence[int], weight: float) -> Batch:
        """``place`` (2P,) says at which segment of the packed rows each sequence lies, chosen and rejected in turn."""
        wanted = [2 * pair + half for pair in pairs for half in (0, 1)]
        order = sorted(range(len(wanted)), key=lambda place: -int(self.store.lengths[wanted[place]]))
        rows = pack([int(self.store.lengths[index]) for index in wanted], self.settings["row_tokens"], order)
        tensors = lay_out(self.store, [[wanted[place] for place in row] for row in rows])
        laid = [place for row in rows for place in row]
        tensors["place"] = torch.tensor([laid.index(place) for place in range(len(wanted))])
        tensors["pairs"] = torch.tensor(pairs)
        return Batch(tensors, weight)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The sum of the pairs' losses, and sums of: preference losses, pairs ordered rightly, margins,
        log-probabilities (nats)."""
        policy = answer_log_probs(self.context.model, self._on_device(batch))
        reference = torch.stack([self.reference[int(pair)] for pair in batch.tensors["pairs"]]).to(policy.device)
        margins = self.beta * ((policy[:, 0] - reference[:, 0]) - (policy[:, 1] - reference[:, 1]))
        counted = 1.0 if batch.weight else 0.0
        detached = margins.detach()
        extra = {
            "preference_loss": float(preference_loss(detached).sum()),
            "accuracy": float((detached > 0).sum()),
            "margin": float(detached.sum()),
            "chosen_log_prob": float(policy[:, 0].detach().sum()),
            "rejected_log_prob": float(policy[:, 1].detach().sum()),
        }
        lengths = self._chosen_lengths(batch.tensors["pairs"]).to(policy.device)
        losses = preference_loss(margins) - self.settings["chosen_weight"] * policy[:, 0] / lengths
        return losses.sum() * counted, {name: value * counted for name, value in extra.items()}

    def _chosen_lengths(self, pairs: Tensor) -> Tensor:
        """How many tokens the chosen answer of each pair has."""
        return torch.tensor([int(self.store.tokens(2 * pair)[1].sum()) for pair in pairs.tolist()])

    def _on_device(self, batch: Batch) -> dict[str, Tensor]:
        return {name: tensor.to(self.context.device) for name, tensor in batch.tensors.items()}

    @torch.no_grad()
    def _reference_log_probs(self) -> dict[int, Tensor]:
        """(chosen, rejected) float32 of each pair that this rank will see."""
        model = load_model(Path(self.settings["reference_model"])).to(self.context.device).eval()
        model.compute_dtype = _compute_dtype(self.context.model)
        found: dict[int, Tensor] = {}
        for step in range(self.settings["steps"]):
            for batch in self.micro_batches(step):
                pairs = batch.tensors["pairs"].tolist()
                if all(pair in found for pair in pairs):
                    continue
                values = answer_log_probs(model, self._on_device(batch)).cpu()
                for pair, value in zip(pairs, values, strict=True):
                    found.setdefault(pair, value)
        return found


def preference_loss(margins: Tensor) -> Tensor:
    """-log sigmoid(margin), margins being already scaled by beta."""
    return -F.logsigmoid(margins)


def answer_log_probs(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities (P, 2) float32, in nats, of the chosen and rejected answers of a packed batch."""
    labels = tensors["labels"]
    chosen = labels != IGNORED
    logits = model(tensors["token_ids"], tensors["position_ids"])[chosen].float()
    token_log_probs = -F.cross_entropy(logits, labels[chosen], reduction="none")
    sums = torch.zeros(len(tensors["place"]), dtype=torch.float32, device=labels.device)
    sums = sums.index_add(0, tensors["segments"][chosen], token_log_probs)
    return sums[tensors["place"]].view(-1, 2)


def _compute_dtype(model: torch.nn.Module) -> torch.dtype | None:
    inner = getattr(model, "module", model)
    return inner.compute_dtype if isinstance(inner, Mistral) else None


def train_preferences(
    settings: PreferenceSettings,
    initial_model: Path,
    pairs: Path,
    tokenizer: Path,
    output: Path,
    work: Path,
    progress: Progress,
) -> Outcome:
    """Optimise the model of ``initial_model`` on the pairs; it is the reference, too.

    ``initial_model``, ``pairs`` and ``tokenizer`` are sealed artifact folders; fills ``output`` with `model/` and
    its records, and resumes from ``work``. Pairs of which one half does not fit a row are left out and counted.
    Raises TrainingError if none fits, or if training fails.
    """
    model_folder, tokenizer_folder = initial_model / "model", tokenizer / "tokenizer"
    row_tokens = settings.row_tokens or ModelConfig.read(model_folder).context_length
    work.mkdir(parents=True, exist_ok=True)
    with progress.task("Tokenising pairs"):
        rows = read_table(pairs, PAIRS).to_pylist()
        encoded = encode_pairs(rows, tokenizer_folder)
        fitting = [pair for pair in encoded if all(len(ids) <= row_tokens for ids, _ in pair)]
        if not fitting:
            raise TrainingError(
                f"none of {len(rows)} pairs fits a row of {row_tokens} tokens",
                where=str(pairs / PAIRS),
                fix="raise row_tokens (up to the model's context_length), or shorten the pairs",
            )
        store = SequenceStore.of([half for pair in fitting for half in pair])
        store.write(work / "sequences.safetensors")
    run = TrainingRun(
        objective="forge_pipeline.alignment.preference_optimisation:DirectPreferenceObjective",
        objective_settings={
            "sequences": str(work / "sequences.safetensors"),
            "reference_model": str(model_folder),
            "beta": settings.beta,
            "chosen_weight": settings.chosen_weight,
            "pairs_per_step": settings.pairs_per_step,
            "row_tokens": row_tokens,
            "steps": settings.engine.steps,
        },
        initial_model=str(model_folder),
        tokenizer=str(tokenizer_folder),
        engine=settings.engine,
    )
    summary = train(run, work, output, progress)
    pairs_seen = settings.pairs_per_step * summary.steps
    seen = int(store.offsets[-1]) * pairs_seen // (len(store) // 2)
    cost = training_counts(summary, ModelConfig.read(model_folder), seen, row_tokens)
    return _outcome(settings, summary, cost, len(rows), store, row_tokens)


def encode_pairs(
    rows: Sequence[Mapping[str, Any]], tokenizer_folder: Path
) -> list[tuple[tuple[list[int], list[bool]], tuple[list[int], list[bool]]]]:
    """Token ids and target mask of the prompt with the chosen answer, and with the rejected one."""
    from forge_pipeline.tokens.chat import encode_chat, load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    pairs = []
    for row in rows:
        prompt = json.loads(row["messages"])
        chosen, rejected = (
            encode_chat(tokenizer, [*prompt, {"role": "assistant", "content": row[half]}], [])
            for half in ("chosen", "rejected")
        )
        pairs.append((chosen, rejected))
    return pairs


def _outcome(
    settings: PreferenceSettings,
    summary: TrainingSummary,
    cost: Mapping[str, Scalar],
    offered: int,
    store: SequenceStore,
    row_tokens: int,
) -> Outcome:
    count = len(store) // 2
    final = {name: value for name, value in summary.final_metrics.items() if name != "step"}
    curves: dict[str, dict[str, tuple[list[Any], list[float]]]] = {
        title: {
            metric: (
                [entry["step"] for entry in summary.history if metric in entry],
                [entry[metric] for entry in summary.history if metric in entry],
            )
            for metric in metrics
        }
        for title, metrics in (
            ("Loss", ("loss", "preference_loss")),
            ("Accuracy and margin", ("accuracy", "margin")),
            ("Log-probability of the answers", ("chosen_log_prob", "rejected_log_prob")),
        )
    }
    return Outcome(
        counts={
            "pairs": count,
            "pairs_too_long": offered - count,
            "tokens": int(store.offsets[-1]),
            "epochs": settings.pairs_per_step * summary.steps / count,
            **final,
            **cost,
        },
        checks=[
            Check(
                "most_pairs_fit",
                count >= 0.9 * offered,
                f"at least 90% of the pairs fit a row of {row_tokens} tokens",
                count / offered,
                0.9,
            )
        ],
        tables=[Table.of("Last step", [{"metric": name, "value": value} for name, value in sorted(final.items())])],
        plots=[
            *(
                Plot(title, "line", "step", "nats" if "prob" in title else "", series)
                for title, series in curves.items()
            ),
            histogram("Length of prompt and answer", "tokens", store.lengths.tolist()),
        ],
    )
