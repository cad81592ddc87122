"""What the leaves of a checkpoint hold: the report and its table."""
