"""A profile's files in one folder, read back by what a run reads it with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kvswarm.errors import ProfileError
from kvswarm.profiles.flat import PROFILE_NAME, flat_profile
from kvswarm.profiles.load import load_profile, packaged_names
from kvswarm.profiles.model import Profile
from kvswarm.profiles.overrides import Overrides
from kvswarm.workload.workload import open_workload

OVERRIDES = Overrides(max_tokens=7, seed=5, settings=("timeouts.total_s=99",))


def read_back(folder: Path, name: str, overrides: Overrides | None = None) -> Profile:
    """Flatten into a new folder and load what is there."""
    folder.mkdir()
    for file, content in flat_profile(name, overrides).files.items():
        (folder / file).write_bytes(content)
    return load_profile(str(folder / PROFILE_NAME))


def like(profile: Profile, other: Profile) -> Profile:
    """The profile with what another place changes: where files are, and a folder in the name."""
    parts = tuple(
        replace(part, profile=like(part.profile, theirs.profile))
        for part, theirs in zip(profile.mix, other.mix, strict=True)
    )
    prompt = replace(
        profile.prompt,
        prompts_file=other.prompt.prompts_file,
        tokenizer=other.prompt.tokenizer,
    )
    name = profile.name.replace("/", "-")
    return replace(profile, name=name, source=other.source, mix=parts, prompt=prompt)


@pytest.mark.parametrize("name", packaged_names())
@pytest.mark.parametrize("overrides", [None, OVERRIDES])
def test_a_flat_profile_resolves_to_what_it_was_made_of(
    name: str, overrides: Overrides | None, tmp_path: Path
) -> None:
    """Or the run on a cluster would be another one than the same command here."""
    back = read_back(tmp_path / "flat", name, overrides)
    assert back == like(load_profile(name, overrides), back)


def test_the_files_that_it_names_come_along(tmp_path: Path) -> None:
    """Prompts, schemas, what it extends, and profiles of a mix that lie beside it."""
    (tmp_path / "base.yaml").write_text("pattern: steady\nrequests: 4\nconcurrency: 2\n")
    (tmp_path / "schema.json").write_text(json.dumps({"type": "integer"}))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    (tmp_path / "one.yaml").write_text("extends: ./base.yaml\nprompts: rows.jsonl\n")
    (tmp_path / "two.yaml").write_text(
        "extends: ./base.yaml\nstructured_output: {schema: schema.json}\n"
    )
    (tmp_path / "mix.yaml").write_text(
        "extends: ./base.yaml\nmix: {./one.yaml: 1, ./two.yaml: 2}\n"
    )
    before = load_profile(str(tmp_path / "mix.yaml"), Overrides(max_tokens=9))
    back = read_back(tmp_path / "flat", str(tmp_path / "mix.yaml"), Overrides(max_tokens=9))
    for file in tmp_path.glob("*.*"):
        file.unlink()
    assert back == like(before, back)
    assert [part.profile.name for part in back.mix] == ["one", "two"]
    assert Path(str(back.mix[0].profile.prompt.prompts_file)).parent == tmp_path / "flat"
    open_workload(back)


def test_what_lies_elsewhere_is_left_where_it_is() -> None:
    """Such as a volume, which is not here to be read."""
    settings = Overrides(settings=("prompts=/data/rows.jsonl", "tokenizer=/models/absent"))
    flat = flat_profile(
        "standard", replace(settings, settings=settings.settings[:1]), elsewhere="/data"
    )
    assert set(flat.files) == {PROFILE_NAME}
    assert b"prompts: /data/rows.jsonl" in flat.files[PROFILE_NAME]
    with pytest.raises(ProfileError, match="tokenizer: /models/absent: cannot be read"):
        flat_profile("standard", settings, elsewhere="/data")
