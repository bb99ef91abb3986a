"""The documents as a reader uses them: the site, its flows, its commands."""
