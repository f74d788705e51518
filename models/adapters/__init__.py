"""Networks of other packages and of the user; each loader imports its package only when it is called."""
