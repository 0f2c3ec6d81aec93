"""The desk in Slack, and the `copydesk` command."""
