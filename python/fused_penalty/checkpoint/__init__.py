"""What the leaves of a checkpoint hold: the report, its table and its picture."""
