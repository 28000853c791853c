"""The embedded target: a continuous-batching engine behind the API of vLLM, TGI or trtllm-serve."""
