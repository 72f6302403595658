"""Jobs of `mode: classify`: finished models applied to archives that grow, partition by partition."""
