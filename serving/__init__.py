"""What was asked, what was answered, what people said about it, and which adapter is live."""
