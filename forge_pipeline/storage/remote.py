"""Objects in S3 (or any server that speaks it), named relative to one prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forge_pipeline.errors import StorageError


class RemoteObjects:
    """A prefix of a bucket. Credentials, region and endpoint come from the environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL), as for every AWS client."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix.strip("/")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def _name(self, relative: str) -> str:
        return f"{self.prefix}/{relative}" if self.prefix else relative

    def listing(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """What the server says of each object below ``prefix``, with ``Key`` relative to this prefix."""
        start = len(self.prefix) + 1 if self.prefix else 0
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._name(prefix))
        for page in pages:
            for entry in page.get("Contents", ()):
                yield {**entry, "Key": entry["Key"][start:]}

    def names(self, prefix: str = "") -> Iterator[str]:
        for entry in self.listing(prefix):
            yield entry["Key"]

    def get_bytes(self, relative: str) -> bytes | None:
        """The object's bytes, or None if there is no such object."""
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self._name(relative))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def put_bytes(self, relative: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self._name(relative), Body=data)

    def get_file(self, relative: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.client.download_file(self.bucket, self._name(relative), str(path))

    def put_file(self, relative: str, path: Path) -> None:
        self.client.upload_file(str(path), self.bucket, self._name(relative))


def connect(location: str) -> RemoteObjects:
    """Open `s3://bucket/prefix`. Raises StorageError if it is not such a location or the bucket refuses us."""
    parts = urlsplit(location)
    if parts.scheme != "s3" or not parts.netloc:
        raise StorageError(f"{location!r} is not an object location", fix="write it as s3://bucket/prefix")
    # Imported here: boto3 takes most of a second, and most homes are local.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # A session of its own: the default one would keep the first credentials it ever saw.
    client = boto3.session.Session().client("s3", config=Config(retries={"mode": "standard", "max_attempts": 5}))
    try:
        client.head_bucket(Bucket=parts.netloc)
    except (BotoCoreError, ClientError) as error:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "the default endpoint")
        raise StorageError(
            f"cannot use the bucket {parts.netloc!r} at {endpoint}: {error}",
            where=location,
            fix="set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL, and check the bucket",
        ) from error
    return RemoteObjects(client, parts.netloc, parts.path)
