"""YAML profiles, their JSON Schema, and how they resolve into one immutable Profile."""
