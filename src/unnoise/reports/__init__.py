"""What a run has come to, for people to read: a report card, and several runs side by side."""
