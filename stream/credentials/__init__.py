"""Certificates and tokens from files, which are renewed without a restart.

- `renewed_tls`: TLS of files that are read anew when they change
- `token_file`: bearer tokens from a file that is read anew when it changes
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.credentials.renewed_tls import RenewedTls, stamps
    from stream.credentials.token_file import TokenFile
else:
    __getattr__ = on_demand(__name__)

__all__ = ["RenewedTls", "TokenFile", "stamps"]
