"""KServe: the manifests of a model server, decided without a cluster. Knows nothing of `analysis`.

In:  a model's source, a profile's features, a machine, how many replicas.
Out: plain dicts for `kubectl apply`, and a note on each thing a person must know.
Not: talking to a cluster. `wanted.py` says what goes in, `manifests.py` puts the parts together.
"""
