REASONS: dict[str, str]
