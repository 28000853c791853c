"""The hot path: sockets, HTTP, server-sent events, kernel stamps, OpenAI deltas."""
