# SPDX-License-Identifier: MIT
"""The official JavaScript client of libSQL, from npm."""
from npm_package import npm_package


def folder():
    """Where node finds it, or None when it cannot be had here."""
    return npm_package("libsql", "@libsql/client@0.18.0", "--ignore-scripts",
                       "--omit=optional")
