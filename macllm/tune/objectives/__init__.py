"""What a run can minimize beside the cross-entropy of answers: preferences, labels, rewards, busy experts."""
