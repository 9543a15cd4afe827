"""The explorer's page. Nothing in this package knows torch; it uses only names that `ecad` exports."""
