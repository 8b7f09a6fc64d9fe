"""Networks as portable C files, and what compiles and runs them from Python."""
