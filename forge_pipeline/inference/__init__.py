"""Using a model: decoding and scoring, for rollouts, evaluations and chat."""
