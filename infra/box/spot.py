"""What the machine hears from EC2 about its end, through the metadata service (IMDSv2)."""

import json
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

POLL_SECONDS = 5.0
TOKEN_SECONDS = 21600
PATIENCE = 2.0  # seconds for an answer: the service is on the machine itself

# The service is never behind a proxy, whatever the environment says.
_opener = build_opener(ProxyHandler({}))


class Metadata:
    """The metadata service; where there is none, everything is None."""

    def __init__(self) -> None:
        endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self.base = endpoint.rstrip("/") + "/latest/"
        self.disabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        self._token: str | None = None

    def get(self, path: str) -> str | None:
        """The text at `meta-data/PATH`; None if there is none or nobody answers."""
        if self.disabled:
            return None
        for _ in range(2):
            try:
                return self._ask("meta-data/" + path, "GET", {"X-aws-ec2-metadata-token": self._renewed()})
            except HTTPError as error:
                if error.code != 401:
                    return None
                self._token = None  # it has grown old
            except (OSError, ValueError):
                return None
        return None

    def _renewed(self) -> str:
        if self._token is None:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self._token = self._ask("api/token", "PUT", ttl)
        return self._token

    def _ask(self, path: str, method: str, headers: dict[str, str]) -> str:
        with _opener.open(Request(self.base + path, method=method, headers=headers), timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def notice(self) -> dict[str, Any] | None:
        """The two-minute warning, `{"action": "terminate", "time": ...}`, once EC2 takes a spot machine back."""
        return _as_object(self.get("spot/instance-action"))

    def rebalance(self) -> dict[str, Any] | None:
        """EC2's earlier hint that this spot machine is likelier than others to be taken: noted, not obeyed."""
        return _as_object(self.get("events/recommendations/rebalance"))


def _as_object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
