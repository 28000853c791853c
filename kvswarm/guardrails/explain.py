"""One rule in words, for `kvswarm validate --explain` and for docs/rules.md."""

from __future__ import annotations

from kvswarm.guardrails.rule import Example, Rule


def explained(rule: Rule) -> str:
    """Everything about a rule, as lines for a terminal."""
    return "\n".join([
        f"{rule.id} {rule.title} ({rule.severity})",
        f"  Holds for  {rule.holds_for}; {SCOPES[rule.scope]}",
        f"  Why        {rule.reason}",
        f"  Source     {rule.source}",
        f"  Fix        {rule.fix}",
        "",
        f"  Breaks it{_server(rule.bad)}:",
        *(f"    {line}" for line in rule.bad.profile.splitlines()),
        f"  Keeps it{_server(rule.good)}:",
        *(f"    {line}" for line in rule.good.profile.splitlines()),
    ])  # fmt: skip


SCOPES = {
    "load": "whatever serves",
    "requests": "whenever requests are sent",
    "server": "where the server is started as the profile says",
    "deployment": "where it is deployed on KServe",
}
"""When a rule matters, in words."""


def page_section(rule: Rule) -> str:
    """Everything about a rule, as Markdown."""
    return "\n".join([
        f"### {rule.id}",
        "",
        f"**{rule.title}** ({rule.severity}; {rule.holds_for}; {SCOPES[rule.scope]})",
        "",
        f"{rule.reason} {rule.fix}",
        "",
        f"Source: {rule.source}",
        "",
        *_block(rule.bad, "Breaks it"),
        *_block(rule.good, "Keeps it"),
    ])  # fmt: skip


def _block(example: Example, title: str) -> list[str]:
    return [f"{title}{_server(example)}:", "", "```yaml", example.profile.rstrip(), "```", ""]


def _server(example: Example) -> str:
    """What an example says of its server, beside what is the default."""
    default = Example(profile="")
    told = []
    if example.backend != default.backend:
        told.append(f"--backend {example.backend}")
    if example.version != default.version:
        told.append(f"--runtime-version {example.version}")
    if example.gpu is not None:
        told.append(f"--gpu {example.gpu}")
    if example.mig is not None:
        told.append(f"--mig {example.mig}")
    if example.model is not None:
        told.append(f"--model {example.model}")
    for name, config in (("", example.config), ("the draft's ", example.draft_config)):
        if config is not None:
            keys = ", ".join(f"{key} {value!r}" for key, value in config.items())
            told.append(f"{name}config.json with {keys}")
    for name, rank in example.adapter_ranks.items():
        told.append(f"adapter {name} of rank {rank}")
    if example.deployment is not None:
        told += _deployment(example)
    return f" ({', '.join(told)})" if told else ""


def _deployment(example: Example) -> list[str]:
    deployment = example.deployment
    assert deployment is not None  # noqa: S101 - the caller looked
    default = type(deployment)()
    return [
        f"{name.replace('_', ' ')} {getattr(deployment, name)!r}"
        for name in type(deployment).__slots__
        if getattr(deployment, name) != getattr(default, name)
    ]
