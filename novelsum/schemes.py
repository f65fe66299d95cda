"""Which storage a path may name. What cannot be reached is told before anything is read, with what to use instead."""

import http.client
import os
import re
from pathlib import Path

from pyarrow import fs

from novelsum.errors import UsageError

_SECONDS = 2.0
"""How long a server for credentials may take to answer."""

_KNOWN = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_AZURE_URI = "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
_INSTEAD = {
    "s3a": "that name is Hadoop's; write s3://",
    "s3n": "that name is Hadoop's; write s3://",
    "dbfs": "it is known to Databricks alone; give the folder that it is mounted on, /Volumes/… or /dbfs/…",
    "wasb": f"write {_AZURE_URI}",
    "wasbs": f"write {_AZURE_URI}",
    "adl": f"write {_AZURE_URI}",
    "az": f"write {_AZURE_URI}",
    "webhdfs": "write hdfs://",
    "swebhdfs": "write hdfs://",
    "http": "a web server lists no folder; copy the files to a disk or to object storage first",
    "https": "a web server lists no folder; copy the files to a disk or to object storage first",
}


def require_reachable(flag: str, path: str) -> None:
    """Raise UsageError where the path of a setting is on storage that no run can reach."""
    named = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(/.*)", path, re.DOTALL)
    if not named:
        return
    scheme, rest = named.groups()
    reason = _INSTEAD.get(scheme.lower()) or _reason(scheme, rest)
    if reason:
        raise UsageError(f"{flag} {path} cannot be used: {reason}")


def _reason(scheme: str, rest: str) -> str | None:
    """Why a path of that scheme cannot be used, None if it can."""
    if scheme not in _KNOWN:
        return (
            f"{scheme}: is no storage known here; use s3://, gs://, abfss://, hdfs:// or a path of this machine (./… "
            "where its name has a colon)"
        )
    if scheme == "file":
        is_local = not rest.startswith("//") or rest.startswith(("///", "//localhost/"))
        return None if is_local else "it names another machine; write file:///PATH, or the path alone"
    authority = rest[2:].split("/", 1)[0]
    if not rest.startswith("//") or not (authority or scheme in ("hdfs", "viewfs")):
        return f"write {scheme}://{'' if scheme in ('hdfs', 'viewfs') else 'BUCKET'}/PATH"
    if scheme in ("abfs", "abfss"):
        return _azure_reason(authority)
    if scheme in ("gs", "gcs"):
        return None if authority.startswith("anonymous@") or _has_google_credentials() else _NO_GOOGLE
    return _hadoop_reason(f"{scheme}://{authority}") if scheme in ("hdfs", "viewfs") else None


def _azure_reason(authority: str) -> str | None:
    if not hasattr(fs, "AzureFileSystem"):
        return "this pyarrow was built without Azure; install a newer one"
    if not re.fullmatch(r"[^@]+@[^@.]+\.(dfs|blob)\.[^@]+", authority):
        return f"write {_AZURE_URI}"
    return None


_NO_GOOGLE = (
    "no credentials for Google Cloud were found; name a file of them in GOOGLE_APPLICATION_CREDENTIALS, run gcloud "
    "auth application-default login, or write gs://anonymous@BUCKET/PATH for a public bucket"
)


def _has_google_credentials() -> bool:
    """Whether there is a file of credentials, or a machine's metadata server to ask for them.

    The client itself would look for that server for most of a minute, without a word.
    """
    settings = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud"
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or Path(settings) / "application_default_credentials.json"
    if Path(named).is_file() or "CLOUD_STORAGE_EMULATOR_ENDPOINT" in os.environ:
        return True
    server = http.client.HTTPConnection(os.environ.get("GCE_METADATA_ROOT") or "169.254.169.254", timeout=_SECONDS)
    try:
        server.request("GET", "/", headers={"Metadata-Flavor": "Google"})
        return server.getresponse().getheader("Metadata-Flavor") == "Google"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        server.close()


def _hadoop_reason(root: str) -> str | None:
    """What the client of HDFS lacks; it is a library of Hadoop's, and runs in a Java of its own."""
    mend = (
        "install Hadoop's client where driver and executors run and set JAVA_HOME, HADOOP_HOME (or ARROW_LIBHDFS_DIR) "
        'and CLASSPATH="$(hadoop classpath --glob)" for both'
    )
    if not os.environ.get("CLASSPATH"):
        return f"CLASSPATH does not name Hadoop's jars; {mend}"
    try:
        fs.FileSystem.from_uri(root)
    except OSError as error:
        if "load lib" in str(error):  # anything else is said by Hadoop, and may pass
            return f"{str(error).splitlines()[0]}; {mend}"
    return None
