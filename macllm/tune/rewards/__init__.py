"""What a completion is worth, told by a rule that can be checked: text in, a number out, no model."""
