"""Programs that call running nodes: `m2distill instruct`, `m2distill service`, and the trials of `m2distill demo`."""
