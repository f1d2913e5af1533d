"""Agents: an environment with tools, tasks in it, a reward checked by an audit, and reinforcement learning."""
