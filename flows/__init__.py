"""When: Prefect flows and the command line, thin over the other packages."""
