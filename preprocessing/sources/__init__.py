"""Sources: each lists the cases of one dataset and brings their files; one small file per source."""
