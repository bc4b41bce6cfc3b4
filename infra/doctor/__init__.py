"""The doctor: what this machine and the engines it is told to use have and lack, each check with a remedy."""
