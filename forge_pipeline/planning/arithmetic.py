"""Parameters, floating-point operations and memory of a decoder, from its shape alone."""

from __future__ import annotations

from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.planning.settings import TrainingWorkload

# Bytes of one value.
FLOAT32, BFLOAT16 = 4, 2
# Up to this many tokens, attention on a CPU keeps its matrix of weights for the backward pass
# (models.mistral.WRITTEN_OUT_LENGTH, which cannot be imported without PyTorch).
WRITTEN_OUT_LENGTH = 512


def parameters_by_component(config: ModelConfig) -> dict[str, int]:
    """Trained values of each component; tied embeddings have no head of their own."""
    query, key_value = config.heads * config.head_dim, config.key_value_heads * config.head_dim
    embedding = config.vocabulary_size * config.hidden_size
    return {
        "embedding": embedding,
        "attention": config.layers * 2 * config.hidden_size * (query + key_value),
        "feed_forward": config.layers * 3 * config.hidden_size * config.intermediate_size,
        "norms": (2 * config.layers + 1) * config.hidden_size,
        "head": 0 if config.tie_embeddings else embedding,
    }


def flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """6 N + 12 L d T: forward and backward of one token (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).

    N counts every parameter, d is the width of all heads together. Attention is counted as if not causal, and what
    gradient checkpointing computes again is not counted: these are the FLOPs of "model FLOPs utilisation".
    """
    total = sum(parameters_by_component(config).values())
    return 6 * total + 12 * config.layers * config.heads * config.head_dim * sequence_length


def executed_flops_per_token(config: ModelConfig, workload: TrainingWorkload) -> float:
    """With gradient checkpointing the forward pass, a third of the work, is done a second time."""
    flops = flops_per_token(config, workload.sequence_length)
    return flops * 4 / 3 if workload.gradient_checkpointing else float(flops)


def memory_by_part(config: ModelConfig, workload: TrainingWorkload, *, fused_attention: bool) -> dict[str, int]:
    """Bytes that one process holds at its peak.

    Weights, gradients and optimizer state are float32 and exact; ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054)
    divides them by the number of processes. Activations count what the backward pass keeps. The allocator's
    fragments, communication buffers and the runtime itself are not in it.
    """
    parts = parameters_by_component(config)
    total = sum(parts.values())
    block_matrices = parts["attention"] + parts["feed_forward"]
    if workload.optimizer == "muon":
        optimizer = FLOAT32 * block_matrices + 2 * FLOAT32 * (total - block_matrices)
    else:
        optimizer = 2 * FLOAT32 * total
    # A weight matrix is cast for its product, and the cast copy is kept for the backward pass.
    cast = 0
    if workload.precision == "bf16":
        in_blocks = block_matrices // config.layers if workload.gradient_checkpointing else block_matrices
        cast = BFLOAT16 * (in_blocks + config.vocabulary_size * config.hidden_size)

    def shared(size: int, from_stage: int) -> int:
        return -(-size // workload.world_size) if workload.zero_stage >= from_stage else size

    return {
        "weights": shared(FLOAT32 * total, 3),
        "gradients": shared(FLOAT32 * total, 2),
        "optimizer": shared(optimizer, 1),
        "cast_weights": cast,
        "activations": activation_bytes(config, workload, fused_attention=fused_attention),
    }


def activation_bytes(config: ModelConfig, workload: TrainingWorkload, *, fused_attention: bool) -> int:
    """What one micro-batch keeps for the backward pass, after Korthikanti et al. 2022 (arXiv 2205.05198, section 4)
    for this architecture: no dropout, SwiGLU, RMSNorm computed in float32, a loss over float32 logits."""
    element = BFLOAT16 if workload.precision == "bf16" else FLOAT32
    hidden, width = config.hidden_size, config.heads * config.head_dim
    key_value = config.key_value_heads * config.head_dim
    # Each of two norms keeps its input in float32, and its result before and after scaling.
    norms = 2 * hidden * (FLOAT32 + 2 * element)
    attention = (2 * width + 2 * key_value) * element
    if not fused_attention:
        attention += config.heads * workload.sequence_length * element
    feed_forward = 4 * config.intermediate_size * element
    block = norms + attention + feed_forward
    if workload.gradient_checkpointing:
        blocks = config.layers * hidden * element + block
    else:
        blocks = config.layers * block
    # Logits as float32 and their gradient; in bf16 also the logits as the head gives them.
    logits = config.vocabulary_size * (2 * FLOAT32 + (element if element != FLOAT32 else 0))
    final_norm = hidden * (FLOAT32 + 2 * element)
    return workload.micro_batch * workload.sequence_length * (blocks + final_norm + logits)


def fused_attention_on_cpu(workload: TrainingWorkload) -> bool:
    return workload.sequence_length > WRITTEN_OUT_LENGTH
