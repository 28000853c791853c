"""What `kvswarm compare --dry-run` prints: the plan as comments, and all manifests, as one YAML."""

from __future__ import annotations

from collections.abc import Iterator

import click

from kvswarm.commands.compare_plan import Plan, Planned
from kvswarm.profiles.model import Profile


def show(plan: Plan) -> None:
    """Print it to standard output."""
    names = [plan.planned[place].variant.text for place in plan.order]
    click.echo(f"# {len(names)} variants, in this order: {', '.join(names)}.")
    click.echo(f"# Each is measured with: {_load(plan.profile)}.")
    for note in plan.notes:
        click.echo(f"# {note}")
    for number, place in enumerate(plan.order, 1):
        each = plan.planned[place]
        click.echo("#")
        for line in _lines(number, each):
            click.echo(f"# {line}")
        click.echo(each.manifests.to_yaml(), nl=False)


def _load(profile: Profile) -> str:
    load = profile.load
    parts = [f"profile {profile.name}", f"seed {profile.seed}", load.pattern]
    if load.requests is not None:
        parts.append(f"{load.requests} requests")
    if load.duration_s is not None:
        parts.append(f"{load.duration_s:g} s")
    if load.concurrency is not None:
        parts.append(f"{load.concurrency} users")
    if load.rate_rps is not None:
        parts.append(f"{load.rate_rps:g} requests/s")
    return ", ".join(parts)


def _lines(number: int, each: Planned) -> Iterator[str]:
    variant = each.variant
    yield f"{number}. {variant.text}: {variant.model} as service {each.service}"
    yield from (f"   {note}" for note in (*variant.notes, *each.manifests.notes))
