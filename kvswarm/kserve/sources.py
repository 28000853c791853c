"""Where a model comes from: a URI that KServe's storage takes, and who may read it.

In:  `s3://bucket/path`, `gs://`, `hf://org/name[:revision]`, `pvc://claim/path`,
     `oci://registry/image:tag`, `https://host/archive`; the name of a secret or a service account.
Out: `ModelSource`, whose parts the manifests name. A secret's contents are never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.serving.problems import nearest

SCHEMES: Final = ("s3", "gs", "hf", "pvc", "oci", "https")
MODEL_DIRECTORY: Final = "/mnt/models"
"""Where KServe puts a model, whatever its source is."""
SECRET_ANNOTATION: Final = "serving.kserve.io/storageSecretName"  # noqa: S105 - a key's name
TOKEN: Final = "HF_TOKEN"  # noqa: S105 - a variable's name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model's URI, and the names of what holds its credentials."""

    uri: str
    secret: str | None = None
    """A secret in the service's namespace; for oci:// the one that images are pulled with."""
    service_account: str | None = None

    @property
    def scheme(self) -> str:
        """`hf` of `hf://org/name`."""
        return self.uri.partition("://")[0]

    @property
    def model(self) -> str:
        """What a model is called by: `org/name` of hf://, else the URI itself."""
        if self.scheme != "hf":
            return self.uri
        return self.uri.removeprefix("hf://").partition(":")[0]

    def annotations(self) -> dict[str, str]:
        """The annotation that names the secret to download with; none where nothing is."""
        if self.secret is None or self.scheme == "oci":
            return {}
        return {SECRET_ANNOTATION: self.secret}

    def predictor_fields(self) -> dict[str, Any]:
        """The predictor's fields that name who it runs as, and what pulls an oci:// model."""
        fields: dict[str, Any] = {}
        if self.service_account is not None:
            fields["serviceAccountName"] = self.service_account
        if self.secret is not None and self.scheme == "oci":
            fields["imagePullSecrets"] = [{"name": self.secret}]
        return fields

    def token(self) -> list[dict[str, Any]]:
        """The variable by which the server itself may load from Hugging Face, by reference."""
        if self.scheme != "hf" or self.secret is None:
            return []
        reference = {"name": self.secret, "key": TOKEN, "optional": True}
        return [{"name": TOKEN, "valueFrom": {"secretKeyRef": reference}}]


def model_source(
    uri: str, *, secret: str | None = None, service_account: str | None = None
) -> ModelSource:
    """Read a model's URI. Raises UsageError: no URI, an unknown scheme, or a secret without use."""
    scheme, separator, rest = uri.partition("://")
    known = ", ".join(f"{each}://" for each in SCHEMES)
    if not separator:
        raise UsageError(
            f"--model {uri}: is no URI",
            fix=f"Say where it comes from: {known}. For Hugging Face: --model hf://{uri}.",
        )
    if scheme not in SCHEMES:
        hint = nearest(scheme, SCHEMES)
        raise UsageError(
            f"--model {uri}: {scheme}:// is no source known here.{hint}", fix=f"Known are {known}."
        )
    if "@" in rest.partition("/")[0] and scheme == "https":
        raise UsageError(
            f"--model {scheme}://...: holds a user or a password, which would be in the manifest",
            fix="Keep them in a secret, and name it with --secret.",
        )
    if not rest.strip("/") or (scheme == "hf" and rest.count("/") != 1):
        form = "org/name" if scheme == "hf" else "what follows"
        raise UsageError(
            f"--model {uri}: lacks {form}", fix=f"Give the whole URI, such as {EXAMPLES[scheme]}."
        )
    if scheme == "pvc" and secret is not None:
        raise UsageError(
            f"--secret {secret}: --model {uri} is a volume, which no secret opens",
            fix="Leave --secret out.",
        )
    return ModelSource(uri=uri, secret=secret, service_account=service_account)


EXAMPLES: Final = {
    "s3": "s3://bucket/models/qwen3-8b",
    "gs": "gs://bucket/models/qwen3-8b",
    "hf": "hf://Qwen/Qwen3-8B",
    "pvc": "pvc://models/qwen3-8b",
    "oci": "oci://registry.example.com/models/qwen3-8b:1",
    "https": "https://models.example.com/qwen3-8b.tar.gz",
}
