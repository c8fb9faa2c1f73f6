"""`preheat certificate`: the local authority that clients trust this machine's HTTPS by."""

from pathlib import Path
from typing import Annotated

import typer

from preheat.cli.clients import DEFAULT_ENDPOINT, fail

TLS_ENDPOINT = DEFAULT_ENDPOINT.replace("http:", "https:")


def certificate(
    state: Annotated[Path, typer.Option(help="The server's state directory.")] = Path(".preheat"),
    path_only: Annotated[bool, typer.Option("--path", help="Print the path alone, for scripts.")] = False,
) -> None:
    """Print where the authority's certificate is, made if there is none, and how clients come to trust it."""
    from preheat.identity.authority import PUBLIC, ROOTS, RUNTIME, obtain
    from preheat.kernel.clock import SystemClock
    from preheat.kernel.entropy import SystemEntropy
    from preheat.settings import TLS_FOLDER

    folder = state.absolute() / TLS_FOLDER
    try:
        obtain(folder, SystemEntropy(), SystemClock().peer_now())
    except OSError as error:
        fail(f"{folder}: {error.strerror}")
    except ValueError as error:
        fail(str(error))
    place, bundle = folder / PUBLIC, folder / RUNTIME / ROOTS
    if path_only:
        typer.echo(place)
        return
    for name, text in (
        ("certificate", place),
        ("AWS SDKs, CLI", f"export AWS_CA_BUNDLE={bundle}"),
        ("", "(this machine's usual authorities and this one; also for SSL_CERT_FILE, REQUESTS_CA_BUNDLE)"),
        ("Node.js", f"export NODE_EXTRA_CA_CERTS={place}"),
        ("curl", f"curl --cacert {place} {TLS_ENDPOINT}/_preheat/health"),
        ("browsers", "import it as an authority for web sites; it can vouch for local and AWS's names only"),
        ("functions", "trust it already"),
    ):
        typer.echo(f"{name:<15}{text}")
