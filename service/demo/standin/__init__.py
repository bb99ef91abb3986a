"""A stand-in for EMQX, as recorded from a real one."""
