"""Networks as files, and back."""
