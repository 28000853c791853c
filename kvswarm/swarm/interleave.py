"""What `--interleave` asks for, checked: the second target, and blocks that can say something.

In:  the profile and the flags.  Out: `Interleaving`, `TargetInfo`. Raises KvswarmError.
"""

from __future__ import annotations

from typing import Final

from kvswarm.errors import UsageError
from kvswarm.profiles.model import Profile
from kvswarm.rundir import TargetInfo
from kvswarm.stream.target import TLS, Target
from kvswarm.swarm.preflight import check_adapters, known_target
from kvswarm.workload.interleaving import LEAST_PAIRS, Interleaving, interleaving_of

FLAG: Final = "--interleave"


def alternation(profile: Profile, block_requests: int | None) -> Interleaving:
    """How the requests of a profile alternate. Raises UsageError where they cannot."""
    if profile.has_dialogues:
        raise UsageError(
            f"{FLAG}: {profile.name} has dialogues, which stay with one server",
            fix="Take a profile without turns, or compare two runs.",
        )
    interleaving = interleaving_of(profile.load, block_requests, profile.seed)
    block, guard = interleaving.block_requests, interleaving.guard_requests
    if block <= 2 * guard:
        raise UsageError(
            f"--block {block}: the first and last {guard} requests of a block are in no figure",
            fix=f"Give at least {4 * guard}.",
        )
    requests = profile.load.requests
    if requests is not None and requests < 2 * LEAST_PAIRS * block:
        raise UsageError(
            f"{FLAG}: {requests} requests are {requests // (2 * block)} pairs of blocks of "
            f"{block}, and fewer than {LEAST_PAIRS} say nothing",
            fix=f"Give --requests {2 * LEAST_PAIRS * block} or more, or a smaller --block.",
        )
    return interleaving


def other_target(
    own: Target, tls: TLS, url: str, model: str | None, profile: Profile
) -> TargetInfo:
    """Find the second target: of the same model, or where it has none of that name, its only one.

    It is reached as the first one is, with the same headers. Raises TargetError, UsageError.
    """
    target = Target.of(url, own.headers, tls, gateway=own.gateway_url, flag=FLAG)
    try:
        found = known_target(target, model, profile, None)
    except UsageError:
        found = known_target(target, None, profile, None)
    check_adapters(found, profile)
    return found
