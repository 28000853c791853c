"""What a server is asked to be, and whether it is: vLLM's flags, quantization, drafts, claims.

In:  a profile's `vllm_features`, a model's `config.json`, what a running server says of itself.
Out: flags of a given vLLM version, sizes in bytes, a speculation, claims checked one by one.
Not: talking to servers or clusters. Nothing here reads a clock, a socket or a file other than the
     tables beside the code (and `model_files` a model's directory), so that profiles, swarm,
     analysis and kserve can all use it.

- `flags`: `vllm_features` into the flags of one version (`vllm_keys.yaml`).
- `quantization`: bits per weight, minimum GPUs, sizes of weights and KV cache.
- `speculation`, `drafts`: speculative decoding, and a draft that fits (`drafts.yaml`).
- `gpus`: GPUs and MIG slices, with memory, bandwidth and throughput (`gpus.yaml`).
- `architecture`, `model_files`: what config.json says of a model, and what lies beside it.
- `memory`, `roofline`, `estimate`: what a model takes of a GPU, and how fast it can be at most.
- `claims`: does the server run what the profile claims?
"""
