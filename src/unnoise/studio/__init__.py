"""The studio: a page to learn, train, watch, sample and restore, served to this machine's browser."""
