"""KServe: services, their URLs and runtimes. Knows nothing of `analysis`."""
