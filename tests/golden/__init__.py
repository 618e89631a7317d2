"""Keep compiled rulesets as a person would read them, beside the packets that they decide."""
