"""The one door to AWS: it makes every client, and says in one sentence what AWS refuses.

boto3 is imported when the first client is made, so that `--help` and mistakes on the command line answer at once. The
clients obey AWS_ENDPOINT_URL, AWS_PROFILE and the other variables of the AWS SDKs.
"""

import os
from functools import cache
from typing import Any

from infra.ops.errors import UserError
from infra.outputs import Outputs, parameter_name, read_outputs, to_make

CLOCK = {"RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch", "AuthFailure"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
UNKNOWN_KEY = {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403"}
THROTTLED = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown", "TooManyRequestsException"}


@cache
def client(service: str, region: str) -> Any:
    """A client of one AWS service, made once per command; it retries what is worth retrying for about half a minute."""
    import boto3
    from botocore.config import Config

    patient = Config(
        retries={"mode": "standard", "max_attempts": 6},
        connect_timeout=10,
        read_timeout=30,
        user_agent_extra="slowfast-emotion",
    )
    return boto3.client(service, region_name=region, config=patient)


def default_region() -> str | None:
    """The region that the environment or the AWS profile names. AWS_REGION is Pulumi's and the CLI's name for it."""
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        return region
    import botocore.session

    return botocore.session.Session().get_config_variable("region") or None


def published(stack: str, region: str) -> str | None:
    """What a stack has published, as it stands there; None if the region has no such stack."""
    ssm = client("ssm", region)
    try:
        return str(ssm.get_parameter(Name=parameter_name(stack))["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return None


def stack_outputs(stack: str, region: str) -> Outputs:
    """What the stack published; raises UserError if the region has no such stack, or one of another version."""
    if (text := published(stack, region)) is None:
        line = to_make(stack, "up")
        wrong = f"there is no stack {stack} in {region}, and AWS_REGION=REGION looks in another"
        raise UserError(f"{wrong}; `{line}` makes it")
    try:
        return read_outputs(text)
    except (ValueError, TypeError) as error:
        raise UserError(f"{error}; `make up` publishes them anew") from None


def sentence(error: Exception) -> str | None:
    """What an error of boto3 means for the operator, with the next command; None if it is a bug of ours."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return "AWS does not know who you are; `aws configure sso` or `aws configure` sets that up"
    if isinstance(error, aws.ProfileNotFound):
        return f"{error}; `aws configure list-profiles` names those you have (AWS_PROFILE chooses one)"
    if isinstance(error, aws.SSOError | aws.TokenRetrievalError | aws.CredentialRetrievalError):
        return f"your AWS sign-in has ended or failed ({_one_line(error)}); `aws sso login` renews it"
    if isinstance(error, aws.NoRegionError | aws.InvalidRegionError):
        return "no valid AWS region is set; `make set SET=aws:region=REGION` or AWS_REGION chooses one"
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError | aws.IncompleteReadError):
        return f"AWS cannot be reached ({_one_line(error)}); look at your network, then run the same command again"
    if isinstance(error, aws.FlexibleChecksumError | ResponseParserError):
        return "an answer of AWS arrived damaged; look at your network, then run the same command again"
    if not isinstance(error, aws.ClientError):
        return None
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    if code in EXPIRED:
        return "your AWS credentials have expired; `aws sso login` renews them (or fetch new keys), then run it again"
    if code in UNKNOWN_KEY:
        return "AWS does not know this access key; `aws sts get-caller-identity` shows which one is used"
    if code in CLOCK:
        return (
            f"AWS refuses the signature ({code}): the secret key or this machine's clock is wrong; `date -u` shows it"
        )
    if code in DENIED:
        return (
            f"you may not do {error.operation_name}: {message}; the operator policy of the stack holds what is needed"
        )
    if code in THROTTLED:
        return f"AWS is throttling {error.operation_name}; wait a minute, then run the same command again"
    return f"AWS refuses {error.operation_name} ({code}): {message}; `make doctor` looks at what is needed"


def is_passing(error: Exception) -> bool:
    """Whether the same call may do a moment later: AWS is away or busy, or a connection was cut."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    if isinstance(error, aws.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response["Error"].get("Code")
        # S3 names its reason when it refuses an object; a bare 404 is an answer that was cut off.
        cut_off = code == "404" and error.operation_name == "GetObject"
        return status >= 500 or status == 429 or code in THROTTLED or cut_off
    damaged = (aws.IncompleteReadError, aws.FlexibleChecksumError, ResponseParserError)
    return isinstance(error, (aws.HTTPClientError, aws.ConnectionError, *damaged))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
