"""The version of this package, which its metadata is made from."""

VERSION = "0.1.0"
"""Known without metadata, too, which a package that is only on the path does not have."""
