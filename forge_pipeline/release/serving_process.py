"""Run by its path in a fresh interpreter: loads a packaged model with transformers alone and answers prompts.

Reads one JSON request from standard input and writes one line of JSON. Imports nothing of this project, as
nobody who serves the package will have it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find_definition",
        "description": "where a name is defined",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "instructions-of-the-system"},
    {"role": "user", "content": "question-of-the-user"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "find_definition", "arguments": {"name": "join"}}}],
    },
    {"role": "tool", "content": "result-of-the-tool"},
    {"role": "assistant", "content": "answer-of-the-assistant"},
]


def main() -> None:
    request = json.load(sys.stdin)
    started = time.perf_counter()
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    imported = time.perf_counter()
    folder = request["folder"]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    model.eval()
    loaded = time.perf_counter()
    problems = [f"{kind.replace('_', ' ')}: {sorted(map(str, keys))[:3]}" for kind, keys in loading.items() if keys]
    problems += template_problems(tokenizer)
    answers = [answer(model, tokenizer, request, prompt) for prompt in request["prompts"]]
    problems += [f"no token was generated for {entry['prompt']!r}" for entry in answers if not entry["tokens"]]
    report = {
        "problems": problems,
        "answers": answers,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "import_seconds": imported - started,
        "load_seconds": loaded - imported,
        "generate_seconds": time.perf_counter() - loaded,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "foreign_modules": sorted(name for name in sys.modules if name.split(".")[0] == "forge_pipeline"),
    }
    sys.stdout.write("\n" + json.dumps(report) + "\n")


def template_problems(tokenizer: Any) -> list[str]:
    """What the chat template gets wrong on a conversation with every role and a tool."""
    text = tokenizer.apply_chat_template(CONVERSATION, tools=[TOOL], tokenize=False)
    lost = [message["content"] for message in CONVERSATION if message["content"] not in text]
    problems = [f"the chat template drops {content!r}" for content in lost]
    if text.count("find_definition") < 2:
        problems.append("the chat template drops a tool or the call of a tool")
    encoded = tokenizer.apply_chat_template(
        CONVERSATION, tools=[TOOL], return_dict=True, return_assistant_tokens_mask=True
    )
    inside = [token for token, mine in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mine]
    spoken = tokenizer.decode(inside)
    if "answer-of-the-assistant" not in spoken or "question-of-the-user" in spoken:
        problems.append("the chat template does not mark what the assistant says ({% generation %})")
    return problems


def answer(model: Any, tokenizer: Any, request: dict[str, Any], prompt: str) -> dict[str, Any]:
    """Greedy decoding of one prompt."""
    import torch

    system = [{"role": "system", "content": request["system_prompt"]}] if request["system_prompt"] else []
    messages = [*system, {"role": "user", "content": prompt}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=request["max_new_tokens"], do_sample=False, use_cache=True)
    generated = output[0, inputs["input_ids"].shape[1] :].tolist()
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    return {
        "prompt": prompt,
        "rendered": rendered,
        "answer": tokenizer.decode(generated, skip_special_tokens=True),
        "tokens": len(generated),
        "ended": bool(generated) and generated[-1] in ends,
    }


if __name__ == "__main__":
    main()
